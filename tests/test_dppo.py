"""The page of DPPO prints its committed rows, and these say what they are of."""

from __future__ import annotations

import pytest

from benchmarks import dppo, tables
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.redif import Redif


def test_the_page_prints_the_committed_rows() -> None:
    content = read_json(tables.RESULTS / f"{dppo.NAME}.json")
    assert content["command"].startswith(dppo.COMMAND)
    assert tables.printed(dppo.PAGE, dppo.NAME) == dppo.table(content["rows"])
    for row in content["rows"]:
        assert row["seeds"] == len(row["per_seed"])
        assert row["ci_low"] <= row["return_mean"] <= row["ci_high"]
        assert row["return_mean"] == pytest.approx(sum(row["per_seed"]) / row["seeds"], abs=0.11)


def test_only_the_last_steps_of_many_are_trained() -> None:
    (recipe,) = [stage.recipe for stage in dppo.stages(0, 4)["DPPO"].chain() if isinstance(stage.recipe, Redif)]
    assert recipe.student_steps == 8
    assert recipe.optimiser.last_steps == 4
    assert recipe.reward.success == 0
