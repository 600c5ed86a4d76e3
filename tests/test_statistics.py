"""Laws of the intervals: published values, symmetry, coverage."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy.errors import InputError
from diffpolicy.evaluation.statistics import (
    Interval,
    bootstrap,
    interquartile_mean,
    paired_difference,
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


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
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


def test_bootstrap_matches_the_normal_theory_of_a_mean() -> None:
    returns = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    interval = bootstrap([returns])
    error = returns.std() / 20
    assert interval == pytest.approx(
        (returns.mean(), returns.mean() - 1.96 * error, returns.mean() + 1.96 * error), abs=0.03
    )


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


@pytest.mark.parametrize("strata", [[], [[]], [[1.0, float("nan")]]])
def test_returns_that_are_missing_or_not_finite_are_refused(strata: list[list[float]]) -> None:
    with pytest.raises(InputError, match="finite"):
        bootstrap(strata)
