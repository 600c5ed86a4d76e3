"""The policies that ship: what they are, that they act as their table says, and that pages print what was measured."""

from __future__ import annotations

import json

import pytest

from benchmarks import shipped
from benchmarks.shipped import FOLDER, PAGE, PICK_PLACE, SHIPPED
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
    assert loaded.environment == PICK_PLACE
    assert loaded.policy.calls == SHIPPED[name][2]
    assert not loaded.policy.sampler.stochastic
    assert loaded.provenance["table"] == SHIPPED[name][0]
    assert sorted(path.name for path in (FOLDER / name).iterdir()) == ["config.json", "model.safetensors"]
    assert sum(path.stat().st_size for path in (FOLDER / name).iterdir()) < BIG
    assert ".." not in json.dumps(dict(loaded.provenance))  # of folders that nobody else has


def test_the_page_prints_what_was_measured_and_what_the_cells_say() -> None:
    assert printed(PAGE, shipped.NAME) == shipped.table(shipped.rows())
    for row in shipped.rows():
        for condition, cell in shipped.cells_of(row["policy"]).items():
            assert row[condition] == {key: cell.row[key] for key in row[condition]}
        assert row["torch"]["p50_us"] <= row["torch"]["p99_us"]


def test_exported_students_are_at_least_twenty_times_as_quick_as_their_teacher_in_torch() -> None:
    ratios = {row["policy"]: row["onnx"]["ratio"] for row in shipped.rows()}
    ratios.pop("pick_place-teacher")
    assert min(ratios.values()) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("condition", ["clean", "hard"])
@pytest.mark.parametrize("name", SHIPPED)
def test_it_succeeds_as_often_as_its_table_says(name: str, condition: str) -> None:
    count = 60
    (found,) = measured(FOLDER / name, PICK_PLACE, (condition,), count, seed=7)
    ours = wilson(sum(bool(episode.success) for episode in found.episodes), count, 0.99)
    row = next(row for row in shipped.rows() if row["policy"] == name)[condition]
    assert ours.low <= row["ci_high"]
    assert row["ci_low"] <= ours.high
