"""How much better an action was than what was to be expected: returns, advantages, group-relative scores.

Shapes: T decisions of one episode, B rewards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError

__all__ = ["gae", "group_relative"]

Floats = NDArray[np.float64]


def gae(rewards: Floats, values: Floats, discount: float, trace: float) -> tuple[Floats, Floats]:
    """Generalised advantage estimates and returns, each (T,), of one episode.

        delta_t = r_t + discount V_{t+1} - V_t,    A_t = delta_t + discount trace A_{t+1},    return_t = A_t + V_t

    `values` (T+1,) ends with that of the observation after the last decision: 0 where the episode terminated, and the
    critic's where it was only cut short. Source: arXiv 1506.02438, eq. 16. Raises InputError on other lengths.
    """
    if values.shape != (len(rewards) + 1,):
        raise InputError(f"expected {len(rewards) + 1} values for {len(rewards)} rewards, got {values.shape}")
    deltas = rewards + discount * values[1:] - values[:-1]
    advantages, later = np.zeros(len(rewards)), 0.0
    for t in reversed(range(len(rewards))):
        advantages[t] = later = deltas[t] + discount * trace * later
    return advantages, advantages + values[:-1]


def group_relative(rewards: Floats, groups: NDArray[np.int64], most: float = 4.0) -> Floats:
    """Advantages (B,): how far each reward lies above the mean of its group (B,), in deviations of the whole batch.

    The deviation within groups is taken over all of them, so that a group of equals is not blown up to noise (GRPO,
    arXiv 2402.03300, divides by that of each). Within [-most, most]; all 0 where all groups are of equals. Raises
    InputError where a reward has no group.
    """
    if rewards.ndim != 1 or rewards.shape != groups.shape:
        raise InputError(f"expected rewards (B,) and a group (B,) of each, got {rewards.shape} and {groups.shape}")
    _, place, count = np.unique(groups, return_inverse=True, return_counts=True)
    apart = rewards - (np.bincount(place, rewards) / count)[place]
    spread = float(np.sqrt((apart**2).mean()))
    return np.zeros_like(apart) if spread < 1e-8 else np.clip(apart / spread, -most, most)
