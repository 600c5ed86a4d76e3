"""Every interval that a reported number carries is computed here, from counts and returns alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError

__all__ = ["Interval", "bootstrap", "interquartile_mean", "paired_difference", "wilson"]

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate and the two ends of its confidence interval, in the unit of the estimate."""

    point: float
    low: float
    high: float

    def above(self, other: Interval) -> bool:
        """True where this interval lies wholly above the other."""
        return self.low > other.high


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, without continuity correction.

    It keeps its coverage near 0 and 1, where the textbook interval p +- z s collapses to a point.
    Source: Wilson (1927), J. Am. Stat. Assoc. 22, 209; Brown, Cai and DasGupta (2001), Stat. Sci. 16, 101.

    Raises InputError where n < 1, successes is outside 0..n, or confidence is outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wilson wants 0 <= successes <= n and n >= 1; got {successes} of {n}; count again")
    z = _quantile(confidence)
    p = successes / n
    centre = p + z * z / (2 * n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low = 0.0 if successes == 0 else (centre - half) / scale
    high = 1.0 if successes == n else (centre + half) / scale
    return Interval(p, low, high)


def paired_difference(a: Sequence[bool] | Any, b: Sequence[bool] | Any, confidence: float = 0.95) -> Interval:
    """Difference of success rate, rate(a) - rate(b), of two methods run on the same episodes.

    a, b: (N,) bool; a[i] and b[i] share task, reset seed, perturbation and noise stream. Pairing makes small
    differences visible: what both owe to the episode cancels.
    Source: Newcombe (1998), Stat. Med. 17, 2635, method 10: the Wilson intervals of both rates, squared and
    added with the continuity-corrected correlation phi of the pairs.

    Raises InputError where a and b differ in length, are empty, or hold anything but 0 and 1.
    """
    first, second = _outcomes(a, "a"), _outcomes(b, "b")
    n = len(first)
    if n != len(second):
        raise InputError(f"paired_difference wants one entry per shared episode; got {n} and {len(second)}")
    both = int((first & second).sum())
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    neither = n - both - only_a - only_b
    p, q = wilson(both + only_a, n, confidence), wilson(both + only_b, n, confidence)
    phi = _correlation(both, only_a, only_b, neither)
    point = (only_a - only_b) / n
    below = _square_and_add(p.point - p.low, q.high - q.point, phi)
    above = _square_and_add(p.high - p.point, q.point - q.low, phi)
    return Interval(point, point - below, point + above)


def interquartile_mean(values: Any) -> Any:
    """Mean of the middle half: a quarter of the values (rounded down) is dropped at either end.

    values: (..., N); the last axis is reduced. Less noisy than the median and deaf to a few outliers.
    Source: Agarwal et al. (2021), arXiv 2108.13264.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=-1)
    n = ordered.shape[-1]
    cut = n // 4
    return ordered[..., cut : n - cut].mean(axis=-1)


def _mean(values: Floats) -> Any:
    return values.mean(axis=-1)


def bootstrap(
    strata: Sequence[Sequence[float] | Floats],
    statistic: Callable[[Floats], Any] = _mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of pooled returns, stratified over training seeds.

    strata: one sequence of episode returns for each training seed; episodes are redrawn within their own
    seed, so that each seed keeps its share. statistic: maps (R, N) to (R,), as the mean or
    `interquartile_mean`.
    Draws come from a Philox counter keyed by (seed, stratum): the same interval on every machine.
    Source: Efron (1979), Ann. Stat. 7, 1; the stratified form is that of arXiv 2108.13264, section 4.

    Raises InputError where there is no stratum, or one is empty or holds a value that is not finite.
    """
    groups = [np.asarray(group, dtype=np.float64) for group in strata]
    if not groups or any(g.ndim != 1 or g.size == 0 or not np.isfinite(g).all() for g in groups):
        raise InputError("bootstrap wants at least one stratum, each a non-empty list of finite returns")
    if resamples < 1:
        raise InputError(f"bootstrap wants at least one resample; got {resamples}")
    tail = 50 * (1 - _confidence(confidence))
    redrawn = []
    for number, group in enumerate(groups):
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, number])))
        redrawn.append(group[random.integers(len(group), size=(resamples, len(group)))])
    draws = np.asarray(statistic(np.concatenate(redrawn, axis=-1)), dtype=np.float64)  # (R,)
    point = np.asarray(statistic(np.concatenate(groups)[None]), dtype=np.float64)[0]
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(point), float(low), float(high))


def _confidence(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence is a probability between 0 and 1, such as 0.95; got {confidence}")
    return confidence


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + _confidence(confidence) / 2)


def _outcomes(values: Any, name: str) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0 or not np.isin(array, (0, 1)).all():
        raise InputError(f"{name} must be a non-empty list of successes, each True or False; got {array!r}")
    return array.astype(bool)


def _correlation(both: int, only_a: int, only_b: int, neither: int) -> float:
    n = both + only_a + only_b + neither
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    covariance = both * neither - only_a * only_b
    corrected = max(covariance - n / 2, 0.0) if covariance > 0 else float(covariance)
    return corrected / sqrt(margins)


def _square_and_add(x: float, y: float, phi: float) -> float:
    return sqrt(max(x * x - 2 * phi * x * y + y * y, 0.0))
