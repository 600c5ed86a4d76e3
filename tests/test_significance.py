"""Laws of p-values and their correction: published values, every swap there is, closed testing."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from scipy import stats

from diffpolicy.evaluation.significance import holm, mcnemar, sign_flip

# Fisher (1935), The Design of Experiments, section 21: Darwin's maize, crossed minus self-fertilised [1/8 inch].
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    cells = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], cells).tolist(), np.repeat([1, 0, 1, 0], cells).tolist()


@pytest.mark.parametrize(("cells", "published"), [((1, 1, 7, 12), 0.0703), ((59, 6, 16, 80), 0.0525)])
def test_mcnemar_agrees_with_published_values(cells: tuple[int, int, int, int], published: float) -> None:
    """Fagerland, Lydersen and Laake (2013), BMC Med. Res. Methodol. 13, 91: exact conditional test."""
    assert mcnemar(*pairs(*cells)) == pytest.approx(published, abs=5e-5)
    assert mcnemar(*reversed(pairs(*cells))) == pytest.approx(published, abs=5e-5)


def test_mcnemar_sees_nothing_where_both_agree() -> None:
    assert mcnemar([1, 0, 1], [1, 0, 1]) == 1.0
    a, b = pairs(5, 6, 1, 3)
    assert mcnemar([a, a], [b, b]) == mcnemar(a + a, b + b)


def test_sign_flip_agrees_with_fishers_own_example() -> None:
    p_value = sign_flip(DARWIN, np.zeros(15), resamples=2**15)
    assert p_value == pytest.approx(2 * 863 / 2**15)  # 863 of 32,768 totals reach 314 inches


def test_sign_flip_counts_every_swap() -> None:
    a, b = np.random.default_rng(8).normal(size=(2, 8))
    swaps = np.array(list(product([1, -1], repeat=8))) @ (a - b)
    assert sign_flip(a, b) == pytest.approx(np.mean(np.abs(swaps) >= abs((a - b).sum()) - 1e-12))
    assert sign_flip(a, a) == sign_flip([1.0], [2.0]) == 1.0


def test_random_swaps_come_near_all_of_them_and_repeat() -> None:
    some = sign_flip(DARWIN, np.zeros(15), resamples=4000, seed=3)
    assert some == pytest.approx(2 * 863 / 2**15, abs=0.012)
    assert some == sign_flip(DARWIN, np.zeros(15), resamples=4000, seed=3)
    assert sign_flip(np.arange(1, 41), np.zeros(40), resamples=99) == pytest.approx(0.02)  # both tails of 1 in 100


def test_holm_agrees_with_a_published_example_and_with_closed_testing() -> None:
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.04, 0.05]), [0.05, 0.08, 0.09, 0.09, 0.09])
    for p in np.random.default_rng(9).random((30, 4)) ** 3:
        sets = [s for size in (1, 2, 3, 4) for s in combinations(range(4), size)]
        # A hypothesis is rejected where Bonferroni rejects each set of hypotheses that it is in.
        closed = [max(min(1.0, len(s) * p[list(s)].min()) for s in sets if i in s) for i in range(4)]
        np.testing.assert_allclose(holm(p), closed)


def test_holm_bounds_the_chance_of_any_false_difference() -> None:
    p_values = np.random.default_rng(10).random((2000, 6))
    assert 0.03 < np.mean([holm(row).min() <= 0.05 for row in p_values]) < 0.065
    assert np.mean(p_values.min(axis=1) <= 0.05) > 0.2


def test_scipy_agrees_about_the_two_tails() -> None:
    a, b = pairs(20, 9, 3, 8)
    assert mcnemar(a, b) == pytest.approx(2 * stats.binom.cdf(3, 12, 0.5))
