"""Laws of the speed benchmark: what is printed is what was measured, and nothing has become grossly slower."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from benchmarks import speed, tables, train_speed
from benchmarks.timing import clock, environment, evaluation, precision, training
from diffpolicy_envs import TASKS

FORM = {"what", "ratio", "ratio_low", "ratio_high", "unit", "against", "bar"}


def assert_well_formed(row: dict[str, Any]) -> None:
    assert row.keys() >= FORM
    assert row["unit"] == "x"
    assert 0 <= row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert row["bar"] is None or row["bar"].split()[0] in ("<=", ">=")
    times = [value for name, value in row.items() if name.endswith(("_us", "seconds"))]
    assert times
    assert all(value >= 0 for value in times)


def test_pages_print_the_committed_measurements() -> None:
    rows = speed.committed()
    assert {row["part"] for row in rows} == set(speed.PARTS) == speed.PAGES.keys()
    for row in rows:
        assert_well_formed(row)
    for part, page in speed.PAGES.items():
        assert tables.printed(page, part) == speed.table(part, rows)


def test_the_training_step_is_not_grossly_slower_than_the_bare_network() -> None:
    row = training.beside_bare(6, 4)
    assert_well_formed(row)
    assert row["ratio"] < 2


def test_the_page_on_training_prints_what_was_measured_of_precision_and_compilation() -> None:
    rows = train_speed.committed()
    assert len(rows) == len(precision.NETWORKS) * (len(precision.VARIANTS) - 1)
    assert tuple(precision.NETWORKS) == train_speed.NETWORKS
    for row in rows:
        assert_well_formed(row)
    assert tables.printed(train_speed.PAGE, train_speed.PART) == train_speed.table(rows)


def test_precision_is_timed_against_float32_of_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {name: config for name, config in precision.VARIANTS.items() if not config.compile}
    monkeypatch.setattr(precision, "VARIANTS", chosen)
    (row,) = precision.measure(2, 2, ["MLP"])
    assert_well_formed(row)
    assert row["what"].startswith("MLP, bfloat16")
    assert row["first_step_s"] > 0
    assert "MLP, bfloat16" in train_speed.table([row])


def test_the_training_step_is_timed_beside_busy_processes() -> None:
    rows = training.contended("PASSIVE", 1, 1, 1, 2)
    assert ["CPU time" in row["against"] for row in rows] == [True, False]
    for row in rows:
        assert_well_formed(row)
        assert "beside 1 busy process" in row["what"]
        assert row["bar"].startswith("<=")
    assert len(training.contended("PASSIVE", 2, 1, 1, 2)) == 1


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_the_vector_environment_is_not_grossly_slower_than_bare_physics(mode: AutoresetMode) -> None:
    row = environment.beside_bare(16, mode, 24)
    assert_well_formed(row)
    assert row["ratio"] > 0.2


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP])
def test_both_sides_of_the_environments_pair_do_the_same_work(mode: AutoresetMode) -> None:
    pair = environment.Pair(4, mode, TASKS[environment.ENVIRONMENT])
    ended = 0
    for _ in range(60):
        ended += int(pair.done.sum())
        waits = pair.done if mode is AutoresetMode.NEXT_STEP else np.zeros(4, bool)
        _, stepped, _, bare = pair.step()
        assert (stepped, bare) == (4 - int(waits.sum()), 4)
        assert np.array_equal(pair.bare.state[~waits], pair.state[~waits])
    assert ended


def test_vectors_of_processes_are_timed() -> None:
    rows = environment.beside_processes(2, 4)
    assert len(rows) == 2
    for row in rows:
        assert_well_formed(row)


def test_shares_of_an_evaluation_make_the_whole() -> None:
    whole, *parts = evaluation.measure(episodes=8, parts=2, updates=2)
    for row in (whole, *parts):
        assert_well_formed(row)
    assert sum(part["seconds"] for part in parts) == pytest.approx(whole["seconds"], abs=0.03)


def test_the_median_lies_in_its_interval_and_most_intervals_hold_the_truth() -> None:
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        median, low, high = clock.median_interval(random.lognormal(size=40))
        assert low <= median <= high
        held += low <= 1.0 <= high
    assert held >= 184


def test_loops_take_turns() -> None:
    calls: list[str] = []
    ours, other = clock.alternated([lambda: calls.append("a"), lambda: calls.append("b")], 2, 3)
    assert "".join(calls) == "ab" + "aaabbb" + "bbbaaa"
    assert ours.shape == other.shape == (2, 3)


def test_a_missed_bar_is_marked_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"p50_us": 1.0, "p99_us": 2.0, "against_p50_us": 1.0, "against_p99_us": 2.0}
    slow = clock.row("a slow thing", np.full(5, 1.3), "a quick one", "<= 1.15", **times)
    good = clock.row("a good thing", np.full(5, 0.9), "a quick one", ">= 0.8", **times)
    assert not clock.meets(slow)
    assert clock.meets(good)
    text = speed.table("training", [{"part": "training", **slow}, {"part": "training", **good}])
    assert text.count("**missed**") == 1
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    for rows, status in (([good], 0), ([good, slow], 1)):
        monkeypatch.setattr(training, "measure", lambda rows=rows: rows)
        assert speed.main(["--only", "training"]) == status
    assert "misses its bar: a slow thing" in capsys.readouterr().err


def test_tables_are_put_on_their_pages(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- table: training -->\n<!-- end -->\n", encoding="utf-8")
    times = {"p50_us": 1500.0, "p99_us": 2000.0, "against_p50_us": 1.0, "against_p99_us": 2.0}
    rows = [{"part": "training", **clock.row("w", np.full(5, 1.0), "a", None, **times)}]
    speed.publish(rows, {"training": page})
    assert tables.printed(page, "training") == speed.table("training", rows)
    assert "| w | 1.00 (1.00 to 1.00) |  | a | 1.50 ms | 2.00 ms | 1 µs |" in page.read_text(encoding="utf-8")
