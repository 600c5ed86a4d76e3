"""Whole distributions of scores rather than their means: performance profiles, and who wins how often."""

from __future__ import annotations

from collections.abc import Sequence
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
from diffpolicy.evaluation.statistics import Interval

__all__ = ["Profile", "performance_profile", "probability_of_improvement"]

Strata = Sequence[Sequence[float] | Floats] | Floats


class Profile(NamedTuple):
    """Share of scores above each threshold tau, with the ends of a pointwise band; all (T,)."""

    tau: Floats
    share: Floats
    low: Floats
    high: Floats


def performance_profile(
    scores: Strata, tau: Sequence[float] | Floats, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Profile:
    """Share of scores strictly above each tau: a method whose curve lies higher everywhere is better at every level.

    scores: (M, N), or M lists: one list per stratum, as scores of training seeds per task, or of episodes per
    training seed; what is redrawn within its stratum is what the band covers, as in `bootstrap`. tau: (T,), rising.
    The band is pointwise: at 95%, one point in 20 may lie outside. Where all scores lie on one side of tau it
    is a point. Source: Agarwal et al. (2021), arXiv 2108.13264, equation 3 and appendix A.3.

    Raises InputError where scores are empty or not finite, or tau does not rise.
    """
    groups, levels = as_strata(scores, "scores"), as_sample(tau, "tau")
    size, tail = checked_resamples(resamples), 50 * (1 - checked_confidence(confidence))
    if (np.diff(levels) <= 0).any():
        raise InputError(f"tau must rise from one threshold to the next; got {levels.tolist()!r:.80}; sort it")
    total, redrawn = np.zeros(len(levels)), np.zeros((size, len(levels)))
    for number, group in enumerate(groups):
        # A score falls between two thresholds; to redraw scores is to draw how many fall between which.
        falls = np.bincount(np.searchsorted(levels, group, side="left"), minlength=len(levels) + 1)  # (T+1,)
        counts = generator(seed, number).multinomial(len(group), falls / len(group), size=size)  # (R, T+1)
        total += _above(falls)
        redrawn += _above(counts)
    n = sum(len(group) for group in groups)
    low, high = np.percentile(redrawn / n, [tail, 100 - tail], axis=0)
    return Profile(levels, total / n, low, high)


def probability_of_improvement(
    a: Strata, b: Strata, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Chance that a run of a scores above one of b on a task drawn at random, ties counting half; not paired.

    a, b: (M, N), or M lists: scores of N runs of each of M tasks, the same tasks for both; N may differ. It says how
    often, not by how much. Runs are redrawn within their task, of a and b independently.
    Source: Agarwal et al. (2021), arXiv 2108.13264, section 4.3; Mann and Whitney (1947), Ann. Math. Stat. 18, 50.

    Raises InputError where the tasks differ in number, or scores are empty or not finite.
    """
    first, second = as_strata(a, "a"), as_strata(b, "b")
    size, tail = checked_resamples(resamples), 50 * (1 - checked_confidence(confidence))
    if len(first) != len(second):
        raise InputError(f"a and b must hold the same tasks; got {len(first)} and {len(second)}; leave out the others")
    point, draws = 0.0, np.zeros(size)
    for number, (x, y) in enumerate(zip(first, second, strict=True)):
        wins = (x[:, None] > y) + 0.5 * (x[:, None] == y)  # (N_a, N_b)
        point += float(wins.mean()) / len(first)
        random = generator(seed, number)
        of_a = random.multinomial(len(x), np.full(len(x), 1 / len(x)), size=size) / len(x)  # (R, N_a)
        of_b = random.multinomial(len(y), np.full(len(y), 1 / len(y)), size=size) / len(y)  # (R, N_b)
        draws += ((of_a @ wins) * of_b).sum(axis=1) / len(first)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(point, float(low), float(high))


def _above(counts: NDArray[Any]) -> Floats:
    """(..., T+1) numbers between thresholds -> (..., T) numbers above each."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., -2::-1].astype(np.float64)
