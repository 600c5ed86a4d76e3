"""Laws of profiles: they count, fall, keep their bands; and of the chance that one run beats another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffpolicy.errors import InputError
from diffpolicy.evaluation.profiles import performance_profile, probability_of_improvement

TAU = np.linspace(-2, 2, 9)


def test_a_profile_counts_the_scores_above_each_threshold() -> None:
    scores = np.random.default_rng(1).normal(size=(3, 50)).round(1)
    found = performance_profile(scores, TAU)
    np.testing.assert_allclose(found.share, [(scores > tau).mean() for tau in TAU])
    np.testing.assert_array_equal(performance_profile([[0.0, 1.0, 1.0, 2.0]], [0.0, 1.0, 2.0]).share, [0.75, 0.25, 0])
    assert (np.diff(found.share) <= 0).all()
    assert (found.low <= found.share).all()
    assert (found.share <= found.high).all()


def test_the_band_has_the_width_that_strata_leave() -> None:
    """Variance of a stratified share: the mean over strata of p (1 - p), over the number of scores."""
    random = np.random.default_rng(2)
    scores = random.normal([[-1.0], [1.0]], 1.0, size=(2, 400))
    found = performance_profile(scores, [0.0])
    shares = (scores > 0).mean(axis=1)
    error = np.sqrt((shares * (1 - shares)).mean() / 800)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_the_band_covers_each_point_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(3)
    truth = stats.norm.sf(TAU[2:7])
    bands = [performance_profile(random.normal(size=(2, 60)), TAU[2:7], resamples=300) for _ in range(300)]
    assert 0.91 < np.mean([(b.low <= truth) & (truth <= b.high) for b in bands]) < 0.98


def test_a_profile_repeats_and_takes_strata_of_unlike_length() -> None:
    scores: list[list[float]] = [[0.1, 0.2, 0.9], [0.4]]
    first, second = performance_profile(scores, [0.15, 0.5]), performance_profile(scores, [0.15, 0.5])
    assert [x.tolist() for x in first] == [x.tolist() for x in second]
    assert first.share.tolist() == [0.75, 0.25]


def test_the_chance_of_improvement_is_mann_and_whitneys() -> None:
    random = np.random.default_rng(4)
    a, b = random.normal(0.5, 1, size=(3, 20)).round(1), random.normal(0, 1, size=(3, 15)).round(1)
    theirs = np.mean([stats.mannwhitneyu(x, y).statistic / (20 * 15) for x, y in zip(a, b, strict=True)])
    forth, back = probability_of_improvement(a, b), probability_of_improvement(b, a)
    assert forth.point == pytest.approx(theirs)
    assert back.point == pytest.approx(1 - forth.point)
    assert forth.low < forth.point < forth.high
    assert probability_of_improvement(a, a).point == pytest.approx(0.5)


def test_the_chance_of_improvement_covers_what_is_known_of_normal_scores() -> None:
    random = np.random.default_rng(5)
    truth = stats.norm.cdf(0.6 / np.sqrt(2))
    found = [
        probability_of_improvement(random.normal(0.6, 1, (2, 40)), random.normal(0, 1, (2, 40)), resamples=300)
        for _ in range(300)
    ]
    assert 0.9 < np.mean([i.low <= truth <= i.high for i in found]) < 0.98


@pytest.mark.parametrize("scores", [[], [[]], [[float("nan")]], 1.0, [[[1.0]]]])
def test_scores_that_are_missing_or_not_finite_are_refused(scores: Any) -> None:
    with pytest.raises(InputError, match="scores"):
        performance_profile(scores, [0.5])
    with pytest.raises(InputError, match="a"):
        probability_of_improvement(scores, [[1.0]])


def test_thresholds_must_rise_and_tasks_be_the_same() -> None:
    with pytest.raises(InputError, match="rise"):
        performance_profile([[1.0]], [0.5, 0.5])
    with pytest.raises(InputError, match="same tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
