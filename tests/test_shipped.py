"""The policies that ship: what they are, that they act as their table says, and that pages print what was measured."""

from __future__ import annotations

import json

import pytest

from benchmarks import shipped
from benchmarks.shipped import FOLDER, PAGE, SHIPPED
from benchmarks.tables import printed
from diffpolicy.evaluation.statistics import wilson
from diffpolicy.policy import load_checkpoint
from diffpolicy.recipes.evaluate import measured

BIG = 4 * 2**20  # bytes


def test_nothing_else_ships() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(SHIPPED)
    assert {row["policy"] for row in shipped.rows()} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_policy_is_whole_and_takes_its_steps(name: str) -> None:
    loaded = load_checkpoint(FOLDER / name)
    assert loaded.environment == SHIPPED[name].task
    assert loaded.policy.calls == SHIPPED[name].steps
    assert not loaded.policy.sampler.stochastic
    assert loaded.provenance["table"] == SHIPPED[name].method
    assert sorted(path.name for path in (FOLDER / name).iterdir()) == ["config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) < BIG
    assert ".." not in json.dumps(dict(loaded.provenance))  # of folders that nobody else has


def test_the_page_prints_what_was_measured_and_what_the_cells_say() -> None:
    assert printed(PAGE, shipped.NAME) == shipped.table(shipped.rows())
    for row in shipped.rows():
        for condition, cell in shipped.cells_of(row["policy"]).items():
            assert row[condition] == {key: cell.row[key] for key in row[condition]}
        assert ("torch" in row) == SHIPPED[row["policy"]].timed
        assert all(row[form]["p50_us"] <= row[form]["p99_us"] for form in ("torch", "onnx") if form in row)


def test_students_are_a_twentieth_of_their_teacher_in_time() -> None:
    rows = {row["policy"]: row for row in shipped.rows() if "onnx" in row}
    one, two = rows["pick_place-one-step"], rows["pick_place-two-steps"]
    assert min(one["torch"]["like_for_like"], one["onnx"]["like_for_like"]) >= 20
    assert min(one["onnx"]["ratio"], two["onnx"]["ratio"]) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["clean", "hard"])
@pytest.mark.parametrize("name", SHIPPED)
def test_it_succeeds_as_often_as_its_table_says(name: str, condition: str) -> None:
    count = 60
    (found,) = measured(FOLDER / name, SHIPPED[name].task, (condition,), count, seed=7)
    ours = wilson(sum(bool(episode.success) for episode in found.episodes), count, 0.99)
    row = next(row for row in shipped.rows() if row["policy"] == name)[condition]
    assert ours.low <= row["ci_high"]
    assert row["ci_low"] <= ours.high
