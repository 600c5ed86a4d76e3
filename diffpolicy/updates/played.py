"""Chains of a student that plays, and what came of them: a source for the policy gradient.

Shapes: D decisions, K steps, To observation steps, C joined observation, H chunk length, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Vector, make_vector
from diffpolicy.rollout.exploration import Explored, explore
from diffpolicy.training.advantage import gae, group_relative
from diffpolicy.updates import RewardConfig
from diffpolicy.updates.judged import Judge, ahead_of
from diffpolicy.updates.policy_gradient import Played, PolicyGradient
from diffpolicy.updates.rewards import prefix

__all__ = ["Rollouts"]

_AT_ONCE = 64  # simulations
_LEAST = 1e-6  # deviation of returns, beside their size, that is none
_MOST = 4.0  # of an advantage, in deviations

Floats = NDArray[np.float64]


class Rollouts:
    """Episodes that the student plays with its present weights while it explores, new ones in every batch.

    Rewards are those of decisions: what the environment says of a chunk's executed actions, what the chunk says by
    itself, and in an episode's last decision whether it succeeded. They are divided by the deviation of the first
    batch's returns. Advantages are the critic's (`gae`), or, without one, how far the return of an episode lies above
    that of the others which began as it did.
    """

    def __init__(
        self,
        update: PolicyGradient,
        judge: Judge,
        rewards: RewardConfig,
        environment: str,
        conditions: Sequence[str],
        seeds: Callable[[int], range],
        members: int = 1,
        spent: int = 0,
    ) -> None:
        """`seeds` of a batch's episodes, shared among the conditions; each is played by so many `members`.

        `spent` are environment steps that the student has cost before.

        Raises InputError where groups are of one, and no critic is there instead.
        """
        if update.critic is None and members < 2:
            raise InputError(f"expected a critic, or groups of 2 members or more to compare, got none and {members}")
        self._update, self._judge, self._rewards = update, judge, rewards
        self._environment, self._conditions = environment, tuple(conditions)
        self._seeds, self._members = seeds, members
        self._open = ExitStack()
        self._envs: dict[str, Vector] = {}
        self.env_steps, self.dropped, self._lost, self._scale = spent, 0, 0, 0.0

    def close(self) -> None:
        """Close the environments."""
        self._open.close()
        self._envs.clear()

    def __call__(self, index: int) -> list[Played]:
        """The batch of a step. Raises InputError where the environment breaks more than half of its episodes."""
        got = self._explored(index)
        random = torch.Generator().manual_seed(self._update.seed * 1_000_003 + index)
        rewards, told = self._rewarded(got, random)
        past = torch.from_numpy(np.concatenate([each.past for each in got]))
        ends = np.cumsum([len(each.past) for each in got])[:-1]
        deciding = torch.ones(len(past), dtype=torch.bool)
        deciding[np.append(ends, len(past)) - 1] = False  # of an episode's end nothing is decided
        config = self._update.config
        if (critic := self._update.critic) is None:
            totals = np.array([own.sum() for own in rewards])
            groups = np.array([each.episode.seed for each in got])
            gains = np.repeat(group_relative(totals, groups), [len(own) for own in rewards])
            returns = None
        else:
            values = critic(critic.features(past, self._starts(got, random))).double().numpy()
            pairs = [
                gae(r, np.append(v[:-1], 0.0 if each.episode.terminated else v[-1]), config.discount, config.trace)
                for each, r, v in zip(got, rewards, np.split(values, ends), strict=True)
            ]
            gain = np.concatenate([pair[0] for pair in pairs])
            gains = np.clip((gain - gain.mean()) / (gain.std() + 1e-8), -_MOST, _MOST)
            returns = torch.from_numpy(np.concatenate([pair[1] for pair in pairs])).float()
        steps = len(self._update.sampler)
        later = config.chain_discount ** torch.arange(steps - 1, -1, -1.0)  # (K,)
        x, logp = (torch.from_numpy(np.concatenate([getattr(each, name) for each in got], 1)) for name in ("x", "logp"))
        student = self._update.student.config
        mask = prefix(student.horizon, student.n_obs_steps - 1, student.n_action_steps)
        advantage = later[:, None] * torch.from_numpy(gains).float()
        return [Played(past[deciding], x, logp, advantage, returns, mask, told)]

    def _starts(self, got: Sequence[Explored], random: torch.Generator) -> Tensor:
        """The noise (D, H, A) at which chains start: those of decisions, and after each episode's last one more."""
        parts = []
        for each in got:
            start = torch.from_numpy(each.x[0])
            parts += [start, torch.randn((1, *start.shape[1:]), generator=random)]
        return torch.cat(parts)

    def _explored(self, index: int) -> list[Explored]:
        seeds, got = self._seeds(index), []
        lost: list[object] = []
        for place, condition in enumerate(self._conditions):
            if not (share := seeds[place :: len(self._conditions)]):
                continue
            if condition not in self._envs:
                made = make_vector(self._environment, min(len(share), _AT_ONCE), condition)
                self._envs[condition] = made
                self._open.callback(made.close)
            for member in range(self._members):
                got += explore(
                    self._envs[condition],
                    self._update.student,
                    self._update.sampler,
                    share,
                    seed=member + 1,
                    condition=condition,
                    dropped=lost.append,
                )
        self._lost = len(lost)
        self.dropped += self._lost
        if 2 * len(lost) > len(seeds) * self._members:
            raise InputError(
                f"{self._environment} broke {len(lost)} of {len(seeds) * self._members} episodes, such as {lost[0]}; "
                "mend it first"
            )
        self.env_steps += sum(len(each.episode) for each in got)
        return got

    def _rewarded(self, got: Sequence[Explored], random: torch.Generator) -> tuple[list[Floats], dict[str, float]]:
        """Rewards (D,) of each episode's decisions, and what to tell of them."""
        told = {"return": float(np.mean([each.rewards.sum() for each in got])), "dropped": float(self._lost)}
        if any(each.told for each in got):
            told["success"] = float(np.mean([each.episode.success for each in got]))
        rewards = [self._rewards.environment * each.rewards for each in got]
        for own, each in zip(rewards, got, strict=True):
            own[-1] += self._rewards.success * each.episode.success
        if self._judge.needed:
            counts = [len(each.rewards) for each in got]
            obs = torch.from_numpy(np.concatenate([each.past[:-1] for each in got]))
            noise, chunk = (torch.from_numpy(np.concatenate([each.x[at] for each in got])) for at in (0, -1))
            before = torch.cat([self._before(torch.from_numpy(each.x[-1])) for each in got])
            judged, terms = self._judge(obs, noise, chunk, random, before=before)
            told |= terms
            for own, more in zip(rewards, np.split(judged.double().numpy(), np.cumsum(counts)[:-1]), strict=True):
                own += more
        if not self._scale:
            returns = np.concatenate(
                [gae(r, np.zeros(len(r) + 1), self._update.config.discount, 1.0)[1] for r in rewards]
            )
            spread = float(returns.std())
            if not math.isfinite(spread):
                raise InputError("expected finite rewards, got returns whose deviation is not; lower the weights")
            self._scale = spread if spread > _LEAST * max(1.0, float(np.abs(returns).max())) else 1.0
        totals = [own.sum() for own in rewards]
        told |= {"reward": float(np.mean(totals)), "spread": float(np.std(totals))}
        return [own / self._scale for own in rewards], told

    def _before(self, chunks: Tensor) -> Tensor:
        """The last two actions (D, 2, A) that were executed before each chunk (D, H, A) of an episode."""
        executed = chunks[:, self._judge.executed]
        actions = executed.flatten(0, 1)  # (D Ta, A), one after the other
        led = torch.cat([ahead_of(actions[None])[0], actions])
        return torch.stack([led[at : at + 2] for at in range(0, len(actions), executed.shape[1])])

    def about(self) -> dict[str, Any]:
        """What a checkpoint's provenance says of what it cost."""
        return {"env_steps": self.env_steps, "dropped": self.dropped}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to go on."""
        return {"env_steps": self.env_steps, "dropped": self.dropped, "scale": self._scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises KeyError, TypeError or ValueError on what is none."""
        self.env_steps, self.dropped = int(state["env_steps"]), int(state["dropped"])
        self._scale = float(state["scale"])
