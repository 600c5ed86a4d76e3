"""Laws of comparisons: closed forms, coverage over episodes and over training seeds, verdicts, power."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffpolicy.errors import InputError
from diffpolicy.evaluation.comparison import non_inferior, paired_seeds, power, verdict
from diffpolicy.evaluation.significance import holm, mcnemar, sign_flip
from diffpolicy.evaluation.statistics import Interval, paired_difference


def pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[int], list[int]]:
    cells = (both, only_a, only_b, neither)
    return np.repeat([1, 1, 0, 0], cells).tolist(), np.repeat([1, 0, 1, 0], cells).tolist()


def normal_pairs(random: np.random.Generator, seeds: float, count: int = 3) -> tuple[Any, Any]:
    """Returns of `count` training seeds on 40 episodes, equal on average; sd `seeds` between seeds, 1 within."""
    return random.normal(0, seeds, size=(count, 1)) + random.normal(size=(count, 40)), np.zeros((count, 40))


def test_success_over_seeds_carries_newcombes_interval_of_all_pairs() -> None:
    columns = [pairs(60, 20, 5, 15), pairs(50, 12, 14, 24), pairs(80, 9, 2, 9)]
    a, b = [c[0] for c in columns], [c[1] for c in columns]
    found = paired_seeds(a, b)
    assert found.difference == pytest.approx(paired_difference(np.ravel(a), np.ravel(b)))
    assert found.per_seed == tuple(paired_difference(x, y) for x, y in columns)
    assert paired_seeds(a[0], b[0]).difference == pytest.approx(found.per_seed[0])
    assert tuple(paired_seeds(b, a).difference) == pytest.approx(
        tuple(-x for x in np.array(found.difference)[[0, 2, 1]])
    )


@pytest.mark.parametrize(("points", "one_sign"), [((3, 1, 2), True), ((-3, -1, -2), True), ((3, 0, 2), False)])
def test_one_sign_means_that_every_training_seed_agrees(points: tuple[int, ...], one_sign: bool) -> None:
    found = paired_seeds([[p + 0.5, p + 0.5] for p in points], [[0.5, 0.5]] * 3)
    assert found.one_sign == one_sign
    assert [i.point for i in found.per_seed] == list(points)


def test_differences_of_returns_match_normal_theory_within_each_seed() -> None:
    random = np.random.default_rng(1)
    b = random.normal(0, 9, size=(3, 200))
    a = b + random.normal([[0.0], [5.0], [1.0]], [[0.5], [1.0], [2.0]], size=(3, 200))
    interval = paired_seeds(a, b).difference
    error = np.sqrt((a - b).var(axis=1).sum() / 200) / 3
    assert interval == pytest.approx(((a - b).mean(), *((a - b).mean() + np.array([-1.96, 1.96]) * error)), abs=0.02)


@pytest.mark.parametrize("shared", [False, True])
def test_success_of_unlike_seeds_is_covered_over_new_episodes(shared: bool) -> None:
    random = np.random.default_rng(2)
    ours, theirs = np.array([[0.95], [0.6], [0.75]]), np.array([[0.9], [0.65], [0.6]])
    covered = []
    for _ in range(250):
        hard = random.normal(size=(1 if shared else 3, 150))  # how hard an episode is, for one seed or for all
        luck = random.normal(size=(2, 3, 150))
        a = np.sqrt(0.7) * hard + np.sqrt(0.3) * luck[0] < stats.norm.ppf(ours)
        b = np.sqrt(0.7) * hard + np.sqrt(0.3) * luck[1] < stats.norm.ppf(theirs)
        interval = paired_seeds(a, b, shared_episodes=shared, resamples=200).difference
        covered.append(interval.low <= (ours - theirs).mean() <= interval.high)
    assert 0.92 < np.mean(covered) < 1.0


def test_three_networks_on_one_episode_are_less_than_three_episodes() -> None:
    difference = np.random.default_rng(3).normal(size=(1, 300)).repeat(3, axis=0)  # alike in all training seeds
    nothing = np.zeros_like(difference)
    apart = paired_seeds(difference, nothing).difference
    shared = paired_seeds(difference, nothing, shared_episodes=True).difference
    alone = paired_seeds(difference[:1], nothing[:1]).difference
    assert (shared.high - shared.low) / (apart.high - apart.low) == pytest.approx(np.sqrt(3), rel=0.1)
    assert shared.high - shared.low == pytest.approx(alone.high - alone.low, rel=0.1)


@pytest.mark.parametrize(("count", "low", "high"), [(3, 0.67, 0.83), (10, 0.83, 0.97)])
def test_the_hierarchical_bootstrap_covers_new_training_as_far_as_the_page_says(
    count: int, low: float, high: float
) -> None:
    random = np.random.default_rng(4)
    found = [
        paired_seeds(*normal_pairs(random, 2.0, count), redraw="seeds", resamples=200).difference for _ in range(200)
    ]
    assert low < np.mean([i.low <= 0 <= i.high for i in found]) < high


@pytest.mark.parametrize("shared", [False, True])
def test_redrawing_seeds_widens_the_interval_where_seeds_differ(shared: bool) -> None:
    a, b = normal_pairs(np.random.default_rng(5), 1.0)
    seeds = paired_seeds(a, b, redraw="seeds", shared_episodes=shared).difference
    episodes = paired_seeds(a, b, shared_episodes=shared).difference
    assert seeds.high - seeds.low > 2 * (episodes.high - episodes.low)


@pytest.mark.parametrize("redraw", ["episodes", "seeds"])
@pytest.mark.parametrize("shared", [False, True])
def test_perfect_methods_on_few_episodes_are_not_proven_alike(redraw: Any, shared: bool) -> None:
    few = paired_seeds(np.ones((3, 10)), np.ones((3, 10)), redraw, shared).difference
    assert few.low < -0.02
    assert few.high > 0.02


def test_seeds_of_unlike_length_count_alike_and_the_short_one_widens_the_interval() -> None:
    a, b = [[1, 0] * 250, [1, 0, 1, 1]], [[0, 1] * 250, [1, 0, 1, 0]]
    found = paired_seeds(a, b).difference
    assert found.point == pytest.approx(0.125)
    assert found.high - found.low > 0.2


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.03, "not worse"),
        (-0.019, 0.03, "not worse"),
        (-0.019, -0.001, "not worse"),
        (-0.03, 0.01, "undecided"),
        (-0.03, -0.001, "undecided"),
        (-0.02, 0.0, "undecided"),
        (-0.05, -0.021, "worse"),
    ],
)
def test_the_verdict_follows_where_the_interval_lies(low: float, high: float, expected: str) -> None:
    assert verdict(Interval((low + high) / 2, low, high)) == expected


def test_non_inferior_gives_the_interval_that_it_judged() -> None:
    a, b = pairs(880, 30, 40, 50)
    found = non_inferior(a, b)
    assert (found.interval, found.difference) == (paired_seeds(a, b).difference, -0.01)
    assert found.verdict == "undecided"
    assert non_inferior(a, b, margin=0.05).verdict == "not worse"
    assert non_inferior(a, b, margin=0.05, confidence=0.999999).verdict == "undecided"


def test_a_method_that_is_worse_by_the_margin_is_seldom_called_not_worse() -> None:
    random = np.random.default_rng(6)
    draws = random.multinomial(1000, [0.8, 0.04, 0.06, 0.1], size=1000).tolist()
    wrong = np.mean([non_inferior(*pairs(*cells)).verdict == "not worse" for cells in draws])
    assert 0.01 < wrong < 0.04


@pytest.mark.parametrize(
    ("n", "discordant", "difference", "margin"),
    [(600, 0.1, 0.0, 0.02), (1000, 0.05, 0.0, 0.02), (3000, 0.2, 0.02, 0.01)],
)
def test_power_is_how_often_the_verdict_comes_out(n: int, discordant: float, difference: float, margin: float) -> None:
    ours, theirs = (discordant + difference) / 2, (discordant - difference) / 2
    draws = np.random.default_rng(7).multinomial(n, [0.6, ours, theirs, 0.4 - discordant], size=600).tolist()
    found = np.mean([paired_difference(*pairs(*cells)).low > -margin for cells in draws])
    assert power(n, discordant, difference, margin) == pytest.approx(found, abs=0.06)


def test_power_grows_with_episodes_from_the_risk_to_one() -> None:
    assert power(100, 0.1, difference=-0.02) == pytest.approx(0.025)
    chances = [power(n, 0.1) for n in (10, 100, 1000, 10_000)]
    assert chances == sorted(chances)
    assert chances[-1] > 0.99
    assert (power(10, 0.0), power(10, 0.02, -0.02, confidence=0.5)) == (1.0, pytest.approx(0.25))


NAN = float("nan")


@pytest.mark.parametrize("compare", [paired_seeds, non_inferior, mcnemar, sign_flip])
@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 0], [1]), ([[1, 0], [1]], [[1, 0], [1, 0]]), ([], []), ([[], []], [[], []]), ([1, NAN], [1, 0]), (1, 1)],
)
def test_episodes_that_are_no_pairs_are_refused(compare: Any, a: Any, b: Any) -> None:
    with pytest.raises(InputError, match="must"):
        compare(a, b)


def test_questions_without_sense_are_refused() -> None:
    a, b = [[1, 0, 1], [1, 1]], [[1, 0, 0], [1, 0]]
    for call in (
        lambda: paired_seeds(a, b, redraw="tasks"),  # type: ignore[arg-type]
        lambda: paired_seeds(a, b, shared_episodes=True),
        lambda: paired_seeds(a, b, redraw="seeds", resamples=0),
        lambda: paired_seeds(a, b, confidence=95),
        lambda: non_inferior(a, b, margin=0),
        lambda: verdict(Interval(0.0, NAN, 0.1)),
        lambda: power(0, 0.1),
        lambda: power(100, 0.01, difference=0.02),
        lambda: mcnemar([0.5, 1], [1, 0]),
        lambda: sign_flip([1, 2], [2, 4], resamples=0),
        lambda: holm([0.2, 1.2]),
        lambda: holm([]),
    ):
        with pytest.raises(InputError, match=r"got|sign_flip"):
            call()
