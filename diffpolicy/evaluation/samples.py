"""What every statistic takes in: outcomes that were checked, a confidence that is one, draws that repeat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError

__all__ = [
    "Floats",
    "as_pairs",
    "as_sample",
    "as_strata",
    "checked_confidence",
    "checked_resamples",
    "generator",
    "is_success",
    "pooled_pairs",
]

Floats = NDArray[np.float64]


def as_sample(values: Any, name: str = "values") -> Floats:
    """values as an (N,) array; InputError names what is empty, nested or not finite."""
    try:
        sample = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} must be a list of numbers; got {values!r:.80}; give one number per episode"
        ) from error
    if sample.ndim != 1:
        raise InputError(f"{name} must be one list of numbers; got shape {sample.shape}; give one list per stratum")
    if sample.size == 0:
        raise InputError(f"{name} must be a non-empty list of finite numbers; got none; leave empty groups out")
    if not np.isfinite(sample).all():
        bad = int(np.flatnonzero(~np.isfinite(sample))[0])
        raise InputError(
            f"{name} must hold finite numbers; entry {bad} is {sample[bad]}; "
            "leave out the episodes that broke off, and say how many"
        )
    return sample


def as_strata(values: Sequence[Any] | Any, name: str = "strata") -> list[Floats]:
    """values as a list of (N_s,) arrays, not always of one length: groups, or rows of a matrix."""
    if not hasattr(values, "__len__"):
        raise InputError(f"{name} must be a sequence of lists of finite numbers; got {values!r:.80}")
    if len(values) == 0:
        raise InputError(f"{name} must be at least one non-empty list of finite numbers; got none")
    return [as_sample(group, f"{name}[{number}]") for number, group in enumerate(values)]


def as_pairs(a: Any, b: Any) -> list[tuple[Floats, Floats]]:
    """a and b as pairs of (E_s,) arrays, one for each training seed; a flat list is one training seed."""
    first, second = _by_seed(a, "a"), _by_seed(b, "b")
    lengths, others = [len(group) for group in first], [len(group) for group in second]
    if lengths != others:
        raise InputError(
            f"a and b must hold the same episodes of the same training seeds; got {lengths} and {others} episodes; "
            "match them by reset seed and leave out those that only one has"
        )
    return list(zip(first, second, strict=True))


def pooled_pairs(pairs: Sequence[tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
    """The pairs of all training seeds as two (N,) arrays."""
    return np.concatenate([first for first, _ in pairs]), np.concatenate([second for _, second in pairs])


def _by_seed(values: Any, name: str) -> list[Floats]:
    nested = hasattr(values, "__len__") and len(values) > 0 and hasattr(values[0], "__len__")
    return as_strata(values, name) if nested else [as_sample(values, name)]


def is_success(values: Floats) -> bool:
    """True where all values are 0 or 1."""
    return bool(np.isin(values, (0.0, 1.0)).all())


def checked_confidence(confidence: float) -> float:
    """confidence, or InputError where it is no probability."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence is a probability between 0 and 1, such as 0.95; got {confidence}")
    return confidence


def checked_resamples(resamples: int) -> int:
    """resamples, or InputError where there would be none."""
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, such as 2000; got {resamples}")
    return resamples


def generator(seed: int, *stream: int) -> np.random.Generator:
    """The Philox generator of one stream of a seed: the same draws on every machine."""
    if seed < 0:
        raise InputError(f"seed must not be negative; got {seed}")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *stream])))
