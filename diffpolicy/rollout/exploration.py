"""Played chains: a student explores in an environment, and every chunk that it drew comes back with what came of it.

Shapes: D decisions, To observation steps, C joined observation, K steps, H chunk length, A action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diffpolicy.data.episode import Episode
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.policy.acting import ActingState
from diffpolicy.policy.chunked import ChunkedPredictor
from diffpolicy.policy.policy import Policy
from diffpolicy.rollout.environment import Vector
from diffpolicy.rollout.faults import Drop
from diffpolicy.rollout.loop import Finished, play

__all__ = ["Explored", "Explorer", "explore"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Explored:
    """An episode, and the decisions of it that it took."""

    episode: Episode
    past: Floats  # (D + 1, To, C), raw, before each decision and at the episode's end
    x: Floats  # (K+1, D, H, A), noise first, normalised
    logp: Floats  # (K, D, H, A), element by element
    rewards: NDArray[np.float64]  # (D,), the sum of those of the actions of each decision
    told: bool  # whether the environment says anything of success


class Explorer(ChunkedPredictor):
    """A policy that acts by an exploring sampler, and notes its chains."""

    def __init__(self, policy: Policy, sampler: Exploring, seed: int) -> None:
        self.config, self.layout, self.action_size, self.seed = policy.config, policy.layout, policy.action_size, seed
        self._policy, self._sampler = policy, sampler
        self.noted: dict[int, list[tuple[Floats, Floats, Floats]]] = {}  # past, x, logp by episode, in order

    def _draws(self, deterministic: bool) -> int:  # noqa: ARG002
        return len(self._sampler) + 1

    def _decide(self, state: ActingState, rows: NDArray[np.int64], deterministic: bool) -> Floats:
        self._rows = state.episode[rows]
        return super()._decide(state, rows, deterministic)

    @torch.no_grad()
    def _draw(self, past: Floats, noise: Floats, last: Floats | None = None) -> Floats:  # noqa: ARG002
        policy = self._policy
        chain = self._sampler.sample(policy.encoder(torch.from_numpy(past)), torch.from_numpy(noise.swapaxes(0, 1)))
        assert chain.logp is not None
        x, logp = chain.x.numpy(), chain.logp.numpy()
        for place, episode in enumerate(self._rows):
            self.noted.setdefault(int(episode), []).append((past[place].copy(), x[:, place], logp[:, place]))
        chunk: Floats = policy.normaliser.unnormalise_action(chain.action).numpy()
        return chunk


def explore(
    env: Vector,
    policy: Policy,
    sampler: Exploring,
    seeds: Sequence[int],
    *,
    seed: int = 0,
    condition: str = "clean",
    finished: Finished | None = None,
    dropped: Drop | None = None,
) -> list[Explored]:
    """Play an episode for each reset seed with an exploring sampler of the policy's, whose chunks replace one another.

    What is drawn depends on the weights, the episodes' seeds and `seed` alone. Raises InputError as `rollout` does.
    """
    actor = Explorer(policy, sampler, seed)
    record = play(env, actor, seeds, condition=condition, finished=finished, dropped=dropped)
    return [_explored(episode, actor, policy, record.reports_success) for episode in record.episodes]


def _explored(episode: Episode, actor: Explorer, policy: Policy, told: bool) -> Explored:
    noted, every = actor.noted[int(episode.seed)], policy.config.n_action_steps
    past, x, logp = (np.stack(part) for part in zip(*noted, strict=True))
    rewards = np.add.reduceat(episode.rewards.astype(np.float64), np.arange(0, len(episode), every))
    rows = np.concatenate([episode.obs[name] for name, _ in policy.layout.sizes], axis=1)  # (T+1, C)
    last = rows[np.clip(np.arange(len(rows) - policy.config.n_obs_steps, len(rows)), 0, None)]  # (To, C)
    return Explored(episode, np.concatenate([past, last[None]]), x.swapaxes(0, 1), logp.swapaxes(0, 1), rewards, told)
