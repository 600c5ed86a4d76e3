"""Chains that are judged by their chunks alone, on given observations: a source for the policy gradient.

Shapes: B chunks, N observations, M samples, To observation steps, C joined observation, H chunk length, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffpolicy.data.windows import Windows
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.training.advantage import group_relative
from diffpolicy.updates import CHUNK_REWARDS, RewardConfig
from diffpolicy.updates.distilling import aligned
from diffpolicy.updates.policy_gradient import Played, PolicyGradient
from diffpolicy.updates.rewards import agreement, energy_distance, excess, likeness, prefix, roughness

__all__ = ["Judge", "Judged", "Observed", "ahead_of"]

_HELD_EVERY = 10  # of so many windows one is kept out, to judge on
_JUDGED_EVERY = 10  # batches
_HELD = 256  # of those, at most


class Judge:
    """The weighted sum of what chunks are worth by themselves."""

    def __init__(
        self, student: Policy, sampler: Exploring, teacher: Policy, teacher_steps: int, config: RewardConfig
    ) -> None:
        """Raises InputError where the teacher cannot be asked for the chunks that the rewards compare with."""
        self.student, self.sampler, self.config = student, sampler, config
        asks = bool(config.agreement or config.likeness)
        self.teacher = aligned(teacher, student, teacher_steps).eval() if asks else None
        first, count = student.config.n_obs_steps - 1, student.config.n_action_steps
        self.executed = slice(first, first + count)
        self.weight = prefix(student.config.horizon, first, count, config.rest)
        self.needed = any(getattr(config, name) for name in CHUNK_REWARDS)
        self.teacher_calls = 0

    @torch.no_grad()
    def __call__(
        self,
        obs: Tensor,
        noise: Tensor,
        chunk: Tensor,
        random: torch.Generator,
        *,
        before: Tensor | None = None,
        alike: int = 1,
    ) -> tuple[Tensor, dict[str, float]]:
        """Rewards (B,) of normalised chunks (B, H, A) that were drawn from noise (B, H, A) for raw obs (B, To, C).

        `before` (B, 2, A) are the last two actions before each chunk; None: they lead straight to it. So many rows in
        turn are `alike` in obs and noise. Tells of the mean of each term as well, without its weight, and of likeness
        minus the energy distance.
        """
        total, told = torch.zeros(len(chunk)), {}
        for name, value in self._terms(obs, noise, chunk, before, alike).items():
            total += getattr(self.config, name) * value
            told[name] = float(value.mean())
        if self.config.likeness:
            ours, theirs = self._spread(obs, random, self.sampler.explore)
            total += self.config.likeness * likeness(chunk, ours, theirs, self.weight)
            told["likeness"] = -float(energy_distance(ours, theirs, self.weight).mean())
        return total, told

    def require_needed(self) -> None:
        """Raises InputError where it has nothing to say."""
        if not self.needed:
            raise InputError(
                f"expected a weight above 0 for one of {', '.join(CHUNK_REWARDS)}, which alone can be judged without "
                "playing, got none; give one, or play"
            )

    def about(self) -> dict[str, Any]:
        """What a checkpoint's provenance says of what it cost."""
        return {"teacher_calls": self.teacher_calls}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to go on."""
        return self.about()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises KeyError, TypeError or ValueError on what is none."""
        self.teacher_calls = int(state["teacher_calls"])

    def worth(self, obs: Tensor, random: torch.Generator) -> Tensor:
        """The mean reward () of noiseless chunks for raw obs (B, To, C), with minus the energy distance for likeness.

        A differentiable function of the student, through its whole chain.
        """
        student = self.student
        noise = torch.randn((len(obs), student.config.horizon, student.action_size), generator=random)
        chunk = student.sampler.draw(student.encoder(obs), noise)
        total = torch.zeros(())
        for name, value in self._terms(obs, noise, chunk, None).items():
            total = total + getattr(self.config, name) * value.mean()
        if self.config.likeness:
            apart = energy_distance(*self._spread(obs, random, 0.0), self.weight).mean()
            total = total - self.config.likeness * apart
        return total

    def _terms(
        self, obs: Tensor, noise: Tensor, chunk: Tensor, before: Tensor | None, alike: int = 1
    ) -> dict[str, Tensor]:
        """Each reward (B,) that looks at one chunk alone and has a weight."""
        executed = chunk[:, self.executed]

        def theirs() -> Tensor:
            return self._asked(obs[::alike], noise[::alike]).repeat_interleave(alike, 0)

        terms: dict[str, Callable[[], Tensor]] = {
            "agreement": lambda: agreement(chunk, theirs(), self.weight),
            "smooth": lambda: -roughness(torch.cat([ahead_of(executed) if before is None else before, executed], 1)),
            "limits": lambda: -excess(executed),
        }
        return {name: term() for name, term in terms.items() if getattr(self.config, name)}

    @torch.no_grad()
    def _asked(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The teacher's chunks."""
        assert self.teacher is not None
        self.teacher_calls += len(noise) * self.teacher.calls
        return self.teacher.sampler.draw(self.teacher.encoder(obs), noise)

    def _spread(self, obs: Tensor, random: torch.Generator, explore: float) -> tuple[Tensor, Tensor]:
        """Chunks (B, M, H, A) of student and teacher, of noises of their own.

        While the student explores, the teacher's get the deviation of a last step too: else it would learn to be less
        spread than the teacher by what its own noise adds.
        """
        many, steps = self.config.samples, len(self.sampler)
        obs = obs.repeat_interleave(many, 0)  # (B M, To, C)
        shape = (len(obs), self.student.config.horizon, self.student.action_size)
        noise = torch.randn((steps + 1, *shape), generator=random)
        features = self.student.encoder(obs)
        ours = self.sampler.sample(features, noise).action if explore else self.student.sampler.draw(features, noise[0])
        theirs = self._asked(obs, torch.randn(shape, generator=random))
        theirs = theirs + explore * torch.randn(shape, generator=random)
        return ours.reshape(-1, many, *shape[1:]), theirs.reshape(-1, many, *shape[1:])


class Observed:
    """Raw observations of a table, a new draw in every batch; a tenth of the table is kept out to judge on."""

    def __init__(self, policy: Policy, windows: Windows, size: int, seed: int) -> None:
        """Raises InputError where the table is too small."""
        if len(windows) < 2 * _HELD_EVERY or size < 1:
            raise InputError(
                f"expected {2 * _HELD_EVERY} observations or more to judge on and 1 a batch, got {len(windows)} and "
                f"{size}; take more"
            )
        self._policy, self._windows, self._size, self._seed = policy, windows, size, seed
        numbers = torch.arange(len(windows))
        kept_out = numbers % _HELD_EVERY == 0
        self._rows, held = numbers[~kept_out], numbers[kept_out][:_HELD]
        self.held = self._joined(held)  # (N, To, C)

    def __call__(self, index: int) -> tuple[Tensor, torch.Generator]:
        """The observations (N, To, C) of a step, joined as the policy's encoder reads them, and its randomness."""
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + index)
        return self._joined(self._rows[torch.randint(len(self._rows), (self._size,), generator=random)]), random

    def _joined(self, rows: Tensor) -> Tensor:
        obs = self._windows.gather(rows).obs
        return torch.cat([obs[name] for name, _ in self._policy.layout.sizes], dim=-1)

    def fixed(self) -> torch.Generator:
        """Randomness that is the same at every judgement on what is kept out."""
        return torch.Generator().manual_seed(self._seed)


class Judged:
    """Chains on given observations, several from the same observation and noise, judged against each other."""

    def __init__(self, update: PolicyGradient, judge: Judge, observed: Observed, members: int) -> None:
        """So many `members` chains of each observation.

        Raises InputError where nothing is rewarded that a chunk says, or there is nothing to compare.
        """
        judge.require_needed()
        if members < 2:
            raise InputError(f"expected 2 chains or more of each observation to compare, got {members}; take more")
        self._update, self._judge, self._observed, self._members = update, judge, observed, members

    def __call__(self, index: int) -> list[Played]:
        """The batch of a step, drawn with the student's present weights."""
        (seen, random), many = self._observed(index), self._members
        student, sampler = self._update.student, self._update.sampler
        obs = seen.repeat_interleave(many, 0)
        shape = (student.config.horizon, student.action_size)
        start = torch.randn((len(seen), *shape), generator=random).repeat_interleave(many, 0)
        noise = torch.randn((len(sampler), len(obs), *shape), generator=random)
        with torch.no_grad():
            chain = sampler.sample(student.encoder(obs), torch.cat([start[None], noise]))
        assert chain.logp is not None
        reward, told = self._judge(obs, start, chain.action, random, alike=many)
        told |= {"reward": float(reward.mean())}
        told |= {"within_group": float(reward.reshape(-1, many).std(dim=1).mean())}
        if index % _JUDGED_EVERY == 0:
            with torch.no_grad():
                told["held_out"] = float(self._judge.worth(self._observed.held, self._observed.fixed()))
        groups = np.arange(len(seen)).repeat(many)
        gain = torch.from_numpy(group_relative(reward.double().numpy(), groups)).float()
        return [Played(obs, chain.x, chain.logp, gain.expand(len(sampler), -1), None, torch.ones(shape[0]), told)]


def ahead_of(actions: Tensor) -> Tensor:
    """The two actions (B, 2, A) from which the first of actions (B, T, A) go on straight."""
    first, second = actions[:, :1], actions[:, min(1, actions.shape[1] - 1) :][:, :1]
    return torch.cat([3 * first - 2 * second, 2 * first - second], 1)
