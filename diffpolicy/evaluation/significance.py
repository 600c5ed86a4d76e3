"""p-values of "there is no difference", for two methods on the same episodes, and their correction over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffpolicy.errors import InputError
from diffpolicy.evaluation.samples import (
    Floats,
    as_pairs,
    as_sample,
    checked_resamples,
    generator,
    is_success,
    pooled_pairs,
)

__all__ = ["holm", "mcnemar", "sign_flip"]


def mcnemar(a: Any, b: Any) -> float:
    """Two-sided exact p-value of "a and b succeed equally often", from the episodes that exactly one of them solves.

    a, b: (N,) or (S, E) successes on the same episodes. Under the hypothesis each such episode is a fair coin.
    Source: McNemar (1947), Psychometrika 12, 153; the exact form by `scipy.stats.binomtest`.

    Raises InputError where a and b have other shapes, are empty, or hold anything but 0 and 1.
    """
    from scipy.stats import binomtest

    first, second = pooled_pairs(as_pairs(a, b))
    if not (is_success(first) and is_success(second)):
        raise InputError("mcnemar wants successes, each 0 or 1; for returns use sign_flip")
    only_a, only_b = int((first > second).sum()), int((first < second).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flip(a: Any, b: Any, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of "a and b return the same on each episode", by swapping the two within pairs.

    a, b: (N,) or (S, E) returns on the same episodes. All 2^N swaps are tried where that is no more than
    `resamples`, else so many random ones; the p-value is then at least 1 / (resamples + 1). It is about these
    policies: three training seeds alone could not give less than 0.25.
    Source: Fisher (1935), The Design of Experiments, section 21, by `scipy.stats.permutation_test`.

    Raises InputError where a and b have other shapes, are empty or not finite.
    """
    from scipy.stats import permutation_test

    first, second = pooled_pairs(as_pairs(a, b))
    differences = first - second
    if len(differences) == 1 or not differences.any():
        return 1.0
    found = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=checked_resamples(resamples),
        batch=max(1, 1_000_000 // len(differences)),
        random_state=generator(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float] | Floats) -> Floats:
    """p-values of M hypotheses, as one per task, adjusted so that 5% bounds the chance of *any* false rejection.

    p_values: (M,). The smallest is multiplied by M, the next by M - 1, and so on; none falls below one before it.
    Source: Holm (1979), Scand. J. Stat. 6, 65.

    Raises InputError where there is none, or one is outside 0..1.
    """
    p = as_sample(p_values, "p_values")
    if (p < 0).any() or (p > 1).any():
        raise InputError(f"p_values must lie between 0 and 1; got {p.tolist()}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    return adjusted
