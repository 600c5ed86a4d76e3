"""The interval that a reported number carries, from counts, returns or times alone; two methods: `comparison`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError
from diffpolicy.evaluation.samples import (
    Floats,
    as_sample,
    as_strata,
    checked_confidence,
    checked_resamples,
    generator,
)

__all__ = ["Interval", "bootstrap", "interquartile_mean", "paired_difference", "quantile", "t_interval", "wilson"]


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

    It keeps its coverage near 0 and 1, where the textbook interval p +- z s collapses to a point. Over episodes of
    several training seeds it covers new episodes of these policies, not newly trained ones.
    Source: Wilson (1927), J. Am. Stat. Assoc. 22, 209; Brown, Cai and DasGupta (2001), Stat. Sci. 16, 101. A test
    holds it to `scipy.stats.binomtest(...).proportion_ci(method="wilson")`, which takes 200 times as long.

    Raises InputError where n < 1, successes is no whole number in 0..n, or confidence is outside (0, 1).
    """
    if not (n >= 1 and 0 <= successes <= n and successes % 1 == n % 1 == 0):
        raise InputError(f"wilson wants whole 0 <= successes <= n and n >= 1; got {successes} of {n}; count again")
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
        raise InputError(
            f"paired_difference wants one entry per shared episode; got {n} and {len(second)}; match them by reset seed"
        )
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
    Source: Agarwal et al. (2021), arXiv 2108.13264, where all runs of all tasks are pooled before trimming.

    Raises InputError where N = 0 or a value is not finite.
    """
    from scipy.stats import trim_mean

    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"interquartile_mean wants finite values, at least one; got {array!r:.80}; leave NaN out")
    return trim_mean(array, 0.25, axis=-1)


def _mean(values: Floats) -> Any:
    return values.mean(axis=-1)


def bootstrap(
    strata: Sequence[Sequence[float] | Floats] | Floats,
    statistic: Callable[[Floats], Any] = _mean,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a statistic of pooled values, redrawn within each stratum, so that each keeps its share.

    strata: lists of values, or rows of a matrix. What is redrawn is what the interval covers. With scores
    (tasks, seeds, episodes), normalised per task: `scores.reshape(-1, episodes)` redraws episodes and covers new
    episodes of the same policies; `scores.mean(-1)` redraws training seeds within their task, as rliable does, and
    covers newly trained policies, though with 3 seeds it is too narrow. statistic: maps (R, N) to (R,), as the mean or
    `interquartile_mean`. The interval of values that are all alike is a point: for successes use `wilson`.
    Draws come from a Philox counter keyed by (seed, stratum): the same interval on every machine.
    Source: Efron (1979), Ann. Stat. 7, 1; the stratified form is that of arXiv 2108.13264, section 4.

    Raises InputError where there is no stratum, or one is empty or holds a value that is not finite.
    """
    groups = as_strata(strata)
    size = checked_resamples(resamples)
    tail = 50 * (1 - checked_confidence(confidence))
    redrawn = []
    for number, group in enumerate(groups):
        redrawn.append(group[generator(seed, number).integers(len(group), size=(size, len(group)))])
    draws = np.asarray(statistic(np.concatenate(redrawn, axis=-1)), dtype=np.float64)  # (R,)
    point = np.asarray(statistic(np.concatenate(groups)[None]), dtype=np.float64)[0]
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(point), float(low), float(high))


def t_interval(values: Sequence[float] | Floats, confidence: float = 0.95) -> Interval:
    """Mean of one number per training seed with Student's interval: the one that covers newly trained policies.

    values: (S,), S >= 2, as success rates or differences of each seed. Wide at S = 3 (4.30 standard errors, not
    1.96), and rightly so: three runs say little about the fourth. It takes the numbers for normally distributed.
    Source: Student (1908), Biometrika 6, 1.

    Raises InputError where there are fewer than two values or one is not finite.
    """
    from scipy.stats import t

    sample = as_sample(values)
    if len(sample) < 2:
        raise InputError("t_interval wants one number for each of at least 2 training seeds; got 1; train another")
    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / sqrt(len(sample))
    half = float(t.ppf(0.5 + checked_confidence(confidence) / 2, len(sample) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def quantile(values: Sequence[float] | Floats, q: float, confidence: float = 0.95) -> Interval:
    """A quantile, as the p99 of latencies, with an interval that assumes no distribution.

    values: (N,), independent draws; latencies that follow each other are less than that, and cover less. The ends are
    order statistics with binomial tails; an end is infinite where N is too small to bound it: p99 at 95% wants 368.
    Source: Conover (1999), Practical Nonparametric Statistics, section 3.2, by `scipy.stats.quantile_test`.

    Raises InputError where values are empty or not finite, or q is outside (0, 1).
    """
    from scipy.stats import quantile_test

    sample = as_sample(values)
    if not 0 < q < 1:
        raise InputError(f"q is a share between 0 and 1, such as 0.99; got {q}")
    ends = quantile_test(sample, p=q).confidence_interval(checked_confidence(confidence))
    low = -np.inf if np.isnan(ends.low) else float(ends.low)
    high = np.inf if np.isnan(ends.high) else float(ends.high)
    return Interval(float(np.quantile(sample, q)), low, high)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + checked_confidence(confidence) / 2)


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
