"""Laws of the intervals: published values, symmetry, scipy, coverage."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffpolicy.errors import InputError
from diffpolicy.evaluation.statistics import (
    Interval,
    bootstrap,
    interquartile_mean,
    paired_difference,
    quantile,
    t_interval,
    wilson,
)

# Newcombe (1998), Stat. Med. 17, 2635, Table III, method 10: (both, only a, only b, neither) -> 95% limits.
PUBLISHED_PAIRS = [
    ((36, 12, 2, 0), (0.0569, 0.3404)),
    ((20, 12, 2, 16), (0.0562, 0.3292)),
    ((18, 12, 2, 18), (0.0562, 0.3290)),
    ((36, 14, 0, 0), (0.1528, 0.4167)),
    ((35, 14, 0, 1), (0.1461, 0.4175)),
    ((18, 14, 0, 18), (0.1441, 0.3963)),
    ((1, 97, 1, 1), (0.8736, 0.9850)),
    ((0, 30, 0, 0), (0.8395, 1.0)),
    ((54, 0, 0, 0), (-0.0664, 0.0664)),
    ((30, 0, 0, 24), (-0.0358, 0.0358)),
]


def outcomes(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (95, 100, 0.8882, 0.9785), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_agrees_with_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((successes / n, low, high), abs=5e-5)


def test_wilson_is_symmetric_in_success_and_failure() -> None:
    for k in range(21):
        success, failure = wilson(k, 20), wilson(20 - k, 20)
        assert (success.low, success.high) == pytest.approx((1 - failure.high, 1 - failure.low), abs=1e-12)


@pytest.mark.parametrize("n", [1, 2, 7, 200])
def test_wilson_agrees_with_scipy(n: int) -> None:
    for k, confidence in itertools.product(range(0, n + 1, max(1, n // 20)), (0.5, 0.95, 0.999)):
        theirs = stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
        assert wilson(k, n, confidence)[1:] == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_contains_its_point_and_narrows_with_episodes() -> None:
    few, many = wilson(9, 10), wilson(900, 1000)
    assert few.low < few.point < few.high
    assert many.high - many.low < (few.high - few.low) / 5


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9])
def test_wilson_covers_about_as_often_as_it_says(p: float) -> None:
    draws = np.random.default_rng(1).binomial(200, p, size=2000)
    intervals = {k: wilson(k, 200) for k in set(draws.tolist())}
    covered = np.mean([intervals[k].low <= p <= intervals[k].high for k in draws.tolist()])
    assert 0.93 < covered < 0.975


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5), (2.5, 5), (float("nan"), 5), (0, 0)])
def test_impossible_counts_are_refused(successes: Any, n: int) -> None:
    with pytest.raises(InputError, match="0 <= successes <= n"):
        wilson(successes, n)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_that_is_no_probability_is_refused(confidence: float) -> None:
    with pytest.raises(InputError, match=r"0\.95"):
        wilson(1, 2, confidence)


@pytest.mark.parametrize(("cells", "limits"), PUBLISHED_PAIRS)
def test_paired_difference_agrees_with_newcombes_table(
    cells: tuple[int, int, int, int], limits: tuple[float, float]
) -> None:
    interval = paired_difference(*outcomes(*cells))
    assert interval.point == pytest.approx((cells[1] - cells[2]) / sum(cells))
    assert (interval.low, interval.high) == pytest.approx(limits, abs=1e-4)


def test_paired_difference_changes_sign_when_the_methods_are_swapped() -> None:
    a, b = outcomes(60, 17, 6, 17)
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert tuple(forth) == pytest.approx((-back.point, -back.high, -back.low))


def test_paired_difference_covers_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    chances = np.array([0.5, 0.25, 0.1, 0.15])  # both, only a, only b, neither: true difference 0.15
    draws = random.multinomial(150, chances, size=1000)
    intervals = [paired_difference(*outcomes(*row)) for row in draws.tolist()]
    assert 0.93 < np.mean([i.low <= 0.15 <= i.high for i in intervals]) < 0.98


def test_pairing_sharpens_what_the_two_rates_alone_leave_open() -> None:
    a, b = outcomes(100, 14, 2, 84)
    assert paired_difference(a, b).low > 0
    assert not wilson(sum(a), 200).above(wilson(sum(b), 200))


@pytest.mark.parametrize(("a", "b"), [([1, 0], [1]), ([], []), ([0.5, 1], [1, 1])])
def test_outcomes_that_are_no_pairs_are_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(InputError):
        paired_difference(a, b)


def test_interquartile_mean_ignores_a_quarter_at_either_end() -> None:
    assert interquartile_mean([-1e9, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1e9]) == pytest.approx(3.5)
    assert interquartile_mean([7.0]) == 7.0
    np.testing.assert_allclose(interquartile_mean([[0.0, 1.0, 3.0, 9.0], [1.0, 1.0, 1.0, 1.0]]), [2.0, 1.0])


@pytest.mark.parametrize("n", range(1, 14))
def test_interquartile_mean_is_the_mean_of_what_is_left_in_the_middle(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    assert interquartile_mean(values) == pytest.approx(np.mean(sorted(values)[n // 4 : n - n // 4]))


@pytest.mark.parametrize("values", [[], [[]], 3.0, [1.0, float("nan")], [1.0, float("inf")]])
def test_an_interquartile_mean_of_nothing_or_of_nan_is_refused(values: Any) -> None:
    with pytest.raises(InputError, match="finite values"):
        interquartile_mean(values)


def test_bootstrap_matches_the_normal_theory_of_a_mean() -> None:
    returns = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    interval = bootstrap([returns])
    error = returns.std() / 20
    assert interval == pytest.approx(
        (returns.mean(), returns.mean() - 1.96 * error, returns.mean() + 1.96 * error), abs=0.03
    )


@pytest.mark.parametrize("statistic", [interquartile_mean, lambda x: x.mean(axis=-1)])
def test_bootstrap_agrees_with_every_resample_there_is(statistic: Any) -> None:
    """Runs are redrawn within their task (arXiv 2108.13264): 27 x 27 resamples of two tasks with three runs."""
    tasks = np.array([[0.1, 0.5, 0.62], [0.3, 0.71, 0.93]])
    each = [np.array(list(itertools.product(task, repeat=3))) for task in tasks]
    all_of_them = statistic(np.array([[*x, *y] for x in each[0] for y in each[1]]))
    assert len(all_of_them) == 729
    interval = bootstrap(tasks, statistic, confidence=0.8, resamples=20_000)
    assert interval.point == pytest.approx(stats.trim_mean(tasks, 0.25 * (statistic is interquartile_mean), axis=None))
    for end, tail in ((interval.low, 0.1), (interval.high, 0.9)):
        assert np.mean(all_of_them < end - 1e-9) - 0.01 < tail < np.mean(all_of_them < end + 1e-9) + 0.01


def test_bootstrap_agrees_with_scipy_on_one_stratum() -> None:
    returns = np.random.default_rng(6).gamma(2.0, size=80)
    theirs = stats.bootstrap((returns,), np.mean, n_resamples=20_000, method="percentile", random_state=1)
    assert bootstrap([returns], resamples=20_000)[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_bootstrap_of_an_interquartile_mean_covers_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(7)
    samples = random.normal([[-1.0], [1.0]], 1.0, size=(300, 2, 60))  # symmetric: the true value is 0
    intervals = [bootstrap(sample, interquartile_mean, resamples=300) for sample in samples]
    assert 0.9 < np.mean([i.low <= 0 <= i.high for i in intervals]) < 0.985


def test_bootstrap_does_not_mistake_the_spread_between_seeds_for_noise() -> None:
    assert bootstrap([[0.0] * 50, [10.0] * 50]) == Interval(5.0, 5.0, 5.0)


def test_bootstrap_is_a_pure_function_of_its_seed() -> None:
    strata = [[1.0, 2.0, 5.0], [4.0, 4.5, 9.0, 1.0]]
    assert bootstrap(strata, seed=4) == bootstrap(strata, seed=4)
    assert bootstrap(strata, seed=4, resamples=7) != bootstrap(strata, seed=5, resamples=7)


def test_bootstrap_takes_the_interquartile_mean() -> None:
    interval = bootstrap([[1.0, 2.0, 3.0, 1000.0], [1.0, 2.0, 3.0, 4.0]], interquartile_mean)
    assert interval.point == pytest.approx(2.5)
    assert interval.low <= interval.point


@pytest.mark.parametrize("strata", [[], [[]], [[1.0, float("nan")]], 3.0, [[1.0], []], [["far"]]])
def test_returns_that_are_missing_or_not_finite_are_refused(strata: Any) -> None:
    with pytest.raises(InputError, match=r"finite|numbers"):
        bootstrap(strata)


@pytest.mark.parametrize("how", [{"resamples": 0}, {"confidence": 1.0}, {"seed": -1}])
def test_a_bootstrap_that_cannot_be_drawn_is_refused(how: Any) -> None:
    with pytest.raises(InputError, match="got"):
        bootstrap([[1.0, 2.0]], **how)


def test_t_interval_agrees_with_students_own_example() -> None:
    """Hours of sleep gained by ten patients, second drug over first: Student (1908), Biometrika 6, 1."""
    gained = [1.2, 2.4, 1.3, 1.3, 0.0, 1.0, 1.8, 0.8, 4.6, 1.4]
    assert t_interval(gained) == pytest.approx((1.58, 0.7001142, 2.4598858), abs=1e-6)
    theirs = stats.ttest_1samp(gained, 0).confidence_interval(0.8)
    assert t_interval(gained, 0.8)[1:] == pytest.approx(tuple(theirs))


def test_t_interval_covers_with_three_training_seeds() -> None:
    samples = np.random.default_rng(8).normal(0.3, 0.1, size=(1000, 3))
    intervals = [t_interval(sample) for sample in samples]
    assert 0.93 < np.mean([i.low <= 0.3 <= i.high for i in intervals]) < 0.97
    with pytest.raises(InputError, match="at least 2"):
        t_interval([0.5])


@pytest.mark.parametrize(("n", "q"), [(30, 0.5), (500, 0.99), (1000, 0.9)])
def test_a_quantiles_interval_holds_it_at_least_as_often_as_it_says(n: int, q: float) -> None:
    """Whatever the distribution, x_(l) <= its quantile <= x_(u) with the chance that l <= Binomial(n, q) < u."""
    ranks = quantile(np.arange(1, n + 1), q)
    coverage = stats.binom.cdf(ranks.high - 1, n, q) - stats.binom.cdf(ranks.low - 1, n, q)
    assert 0.95 <= coverage < 0.985
    assert ranks.low <= ranks.point <= ranks.high


@pytest.mark.parametrize(("n", "bounded"), [(367, False), (368, True)])
def test_the_worst_of_a_hundred_is_bounded_from_368_measurements_on(n: int, bounded: bool) -> None:
    interval = quantile(np.random.default_rng(9).gamma(2.0, size=n), 0.99)  # 0.99^367 > 2.5% > 0.99^368
    assert np.isfinite(interval.high) == bounded
    assert np.isneginf(quantile([1.0, 2.0], 0.5).low)
    assert interval.low <= interval.point


@pytest.mark.parametrize(("values", "q"), [([], 0.5), ([float("nan")], 0.5), ([1.0], 0.0), ([1.0], 99)])
def test_a_quantile_of_nothing_or_outside_zero_to_one_is_refused(values: list[float], q: float) -> None:
    with pytest.raises(InputError, match=r"got|is nan"):
        quantile(values, q)
