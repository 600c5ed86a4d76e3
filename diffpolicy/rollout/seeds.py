"""Which reset seeds belong to which purpose, so that no episode that was trained on or chosen by is ever reported."""

from __future__ import annotations

from typing import Literal

from diffpolicy.errors import InputError

__all__ = ["Purpose", "episode_seeds"]

Purpose = Literal["demonstration", "correction", "evaluation", "validation"]

_BLOCK = {"demonstration": 0, "correction": 500_000_000, "evaluation": 1_000_000_000, "validation": 1_500_000_000}
_PER_SEED = 1_000_000  # episodes that one seed may use for one purpose
_SEEDS = 500


def episode_seeds(purpose: Purpose, seed: int, count: int, start: int = 0) -> range:
    """``count`` reset seeds, the same for everyone who names the same purpose and seed.

    Args:
        purpose: no two of them share an episode.
        seed: seed of the run, 0..499.
        start: episodes of this purpose and seed that were used before.
    """
    if not 0 <= seed < _SEEDS or count < 0 or start < 0 or start + count > _PER_SEED:
        raise InputError(
            f"expected a seed in 0..{_SEEDS - 1} and at most {_PER_SEED} episodes, "
            f"got seed {seed} and {start} + {count} episodes"
        )
    first = _BLOCK[purpose] + seed * _PER_SEED + start
    return range(first, first + count)
