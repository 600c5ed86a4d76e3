"""Laws of the entropy over ways: right for known distributions, corrected, and with an interval that covers."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.cells import FOLDER, Finished
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluate import EpisodeRow, Evaluation, evaluate
from diffpolicy.evaluation.ways import way_entropy, way_interval
from diffpolicy.recipes.actors import load_actor
from diffpolicy_envs.tasks.avoid import WAYS

AVOID = "diffpolicy/Avoid-v0"

SHARES = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
ENTROPY = float(-(SHARES * np.log2(SHARES)).sum() / 3)  # a share of that of eight ways taken alike


def evaluated(ways: npt.ArrayLike, count: int | None) -> Evaluation:
    """Successful episodes that took ``ways`` (E,), in a task that has ``count``."""
    rows = [
        EpisodeRow("bc", AVOID, "clean", i, True, 0.0, 40, None, 0, 0, 0.0, {"way": float(way)})
        for i, way in enumerate(np.asarray(ways))
    ]
    return Evaluation("bc", AVOID, "clean", tuple(rows), 0, 0, 0.0, ways=count)


def test_entropy_of_one_way_is_nothing_and_of_all_ways_alike_is_full() -> None:
    assert way_entropy([5] * 40) == way_entropy([5] * 40, 8) == way_entropy([]) == 0.0
    assert way_entropy(np.tile(np.arange(8), 1000)) == pytest.approx(3.0, abs=1e-3)
    assert way_entropy(np.tile(np.arange(8), 3), 8) == 1.0
    assert way_entropy([0, 1] * 500, 8) == pytest.approx(1 / 3, abs=1e-3)
    assert way_entropy([0, 1] * 500, 2) == 1.0


def test_entropy_is_at_most_that_of_the_ways_that_there_are_and_more_than_those_seen_where_others_may_be() -> None:
    ways = np.tile(np.arange(8), 3)  # all alike, so that the correction leads beyond
    assert way_entropy(ways) > 3.0
    assert way_entropy(ways, 8) == 1.0
    assert way_entropy(ways, 16) == pytest.approx(way_entropy(ways) / 4)
    for count, entropy in ((8, 3.0), (16, way_entropy(ways)), (None, way_entropy(ways))):
        assert evaluated(ways, count).records == {"way_entropy": round(entropy, 4)}
    assert evaluate(AVOID, load_actor("expert", AVOID).make, [1], method="expert").ways == WAYS


def test_committed_entropies_are_those_of_their_episodes() -> None:
    cells = [
        Finished(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*/avoid-*.json"))
    ]
    assert cells
    for cell in cells:
        taken = [way for way, done in zip(cell.episodes["record/way"], cell.episodes["success"], strict=True) if done]
        assert cell.row["way_entropy"] == evaluated(taken, WAYS).records["way_entropy"] <= 3.0, cell.path


def test_entropy_does_not_depend_on_what_the_ways_are_called_nor_on_their_order() -> None:
    rng = np.random.default_rng(0)
    ways = rng.choice(8, 200, p=SHARES)
    for other in (rng.permutation(ways), rng.permutation(8)[ways]):
        assert way_entropy(other, 8) == pytest.approx(way_entropy(ways, 8))
    assert way_entropy(ways) == pytest.approx(3 * way_entropy(ways, 8))


def test_correction_takes_away_most_of_the_bias_of_few_episodes() -> None:
    rng = np.random.default_rng(0)
    draws = [rng.choice(8, 60, p=SHARES) for _ in range(1000)]
    shares = [np.bincount(draw, minlength=8) / 60 for draw in draws]
    plugin = [-(share[share > 0] * np.log2(share[share > 0])).sum() / 3 for share in shares]
    assert np.mean(plugin) < ENTROPY - 0.02
    assert abs(np.mean([way_entropy(draw, 8) for draw in draws]) - ENTROPY) < 0.006


def test_interval_covers_the_entropy_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [way_interval(rng.choice(8, 100, p=SHARES), 8, resamples=400, seed=i) for i in range(300)]
    assert all(0 <= each.low <= each.point <= each.high <= 1 for each in intervals)
    assert np.mean([each.low <= ENTROPY <= each.high for each in intervals]) > 0.87
    alike = [way_interval(rng.integers(8, size=100), 8, resamples=400, seed=i) for i in range(100)]
    assert np.mean([each.high == 1.0 for each in alike]) > 0.95


def test_interval_repeats_narrows_with_episodes_and_tells_a_collapse_from_variety() -> None:
    ways = np.random.default_rng(0).choice(8, 400, p=SHARES)
    few, many = way_interval(ways[:50], 8), way_interval(ways, 8)
    assert way_interval(ways, 8) == many
    assert many.high - many.low < 0.6 * (few.high - few.low)
    assert many.above(way_interval([0] * 45 + [1] * 5, 8))
    assert way_interval([3] * 20, 8) == (0.0, 0.0, 0.0)


def test_ways_that_are_none_are_refused() -> None:
    for wrong in ([-1, 0], [0.5], [8], [[0, 1]], [np.nan]):
        with pytest.raises(InputError, match=r"whole numbers in 0\.\.7.*leave out"):
            way_entropy(wrong, 8)
    for count in (1, 2.5):
        with pytest.raises(InputError, match="count is the number of ways"):
            way_entropy([0], count)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one successful episode"):
        way_interval([], 8)
