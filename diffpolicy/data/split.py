"""The split of demonstrations into those that are trained on and those that are held out, by whole episodes."""

from __future__ import annotations

import math

import numpy as np

from diffpolicy.errors import InputError

__all__ = ["held_out"]

_KEY = 2**32 - 1  # of the split's own random stream, beside those of the epochs (see `source`)


def held_out(count: int, share: float, seed: int) -> list[int]:
    """Which of `count` episodes are held out, in order: round(share * count) of them, a function of the arguments.

    Windows of one episode resemble each other, so that an episode is held out whole or not at all. Raises InputError
    unless 0 < share < 1 and at least one episode is on either side.
    """
    if not 0 < share < 1:
        raise InputError(f"expected a share of the demonstrations above 0 and below 1 to hold out, got {share}")
    size = math.floor(share * count + 0.5)
    if not 1 <= size < count:
        raise InputError(
            f"expected demonstrations of which a share of {share:g} is at least one and leaves at least one, got "
            f"{count} (it is {size}); collect more, hold out another share, or play --validation-episodes instead"
        )
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_KEY,)))
    return sorted(random.permutation(count)[:size].tolist())
