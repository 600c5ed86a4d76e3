"""Printed tables are what the committed results say, and those are what the committed episodes say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.cells import FOLDER, Finished
from benchmarks.pages import envs_table, note
from benchmarks.published import TABLES
from diffpolicy.evaluation.statistics import wilson

FINISHED = [Finished(path, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(FOLDER.glob("*/*.json"))]


def committed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tables.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def row(name: str, **wanted: Any) -> dict[str, Any]:
    (found,) = [r for r in committed(name)["rows"] if all(r.get(key) == value for key, value in wanted.items())]
    return dict(found)


@pytest.mark.parametrize("name", TABLES)
def test_pages_print_the_committed_rows(name: str) -> None:
    content = committed(name)
    assert TABLES[name].pages
    for page, mark, markdown in TABLES[name].pages:
        text = markdown(content["rows"]) + note(content)
        assert tables.printed(page, mark) == text, f"python -m benchmarks table {name}"


@pytest.mark.parametrize("name", TABLES)
def test_committed_rows_follow_from_the_committed_episodes(name: str) -> None:
    assert committed(name)["rows"] == TABLES[name].rows(partial=committed(name)["missing"] > 0)
    state = TABLES[name].state()
    assert {key: committed(name)[key] for key in ("cells", "missing")} == {
        key: state[key] for key in ("cells", "missing")
    }
    assert committed(name)["command"] == TABLES[name].command


@pytest.mark.parametrize("name", TABLES)
def test_every_row_says_its_interval_episodes_seeds_and_cost(name: str) -> None:
    content = committed(name)
    assert content["commit"]
    assert content["machine"]
    assert len({each["name"] for each in content["rows"]}) == len(content["rows"])
    for each in content["rows"]:
        rate = wilson(round(each["success"] * each["episodes"]), each["episodes"])
        assert (each["ci_low"], each["ci_high"]) == (round(rate.low, 4), round(rate.high, 4))
        assert each["seeds"] == len(each["success_per_seed"]) >= 1
        assert each["episodes"] >= 200 * each["seeds"]
        assert {"nfe", "network_calls", "latency_p50_us", "train_s", "env_steps", "expert_queries"} <= set(each)
        if "versus" in each:
            assert each["diff_low"] <= each["diff"] <= each["diff_high"]
            assert 1 <= len(each["diff_per_seed"]) <= each["seeds"]


@pytest.mark.parametrize("cell", FINISHED, ids=lambda cell: cell.path.stem)
def test_a_cell_agrees_with_its_episodes_which_were_never_trained_on(cell: Finished) -> None:
    outcomes = cell.episodes["success"]
    assert cell.row["episodes"] == len(outcomes) == len(set(cell.episodes["seed"]))
    assert cell.row["success"] == round(sum(outcomes) / len(outcomes), 4)
    assert min(cell.episodes["seed"]) >= 1_000_000_000
    assert set(cell.episodes["condition"]) == {cell.row["condition"]}
    assert not cell.about["provenance"]["dirty"]


def test_what_the_text_says_of_numbers_is_in_the_tables() -> None:
    readme = (tables.ROOT / "README.md").read_text(encoding="utf-8").replace("\n", " ")

    def few(method: str, condition: str) -> str:
        return f"{100 * row('demonstrations', method=method, condition=condition, demonstrations=3)['success']:.1f}"

    before, after = ([few(method, c) for c in ("clean", "shove")] for method in ("bc", "correct, round 3"))
    assert f"from {' / '.join(before)} to {' / '.join(after)}" in readme


def test_a_table_is_put_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- table: t -->\nold\n<!-- end -->\nb\n<!-- table: u -->\nkept\n<!-- end -->\n", encoding="utf-8"
    )
    text = page.read_text(encoding="utf-8").replace("old", "| x | y |\n| :-- | --: |\n| 1 | 2 |")
    table = tables.markdown(["x", "y"], [["1", "2"]])
    assert tables.insert(page, "t", table)
    assert not tables.insert(page, "t", table)
    assert tables.printed(page, "t") == table
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(ValueError, match="has no line"):
        tables.insert(page, "missing", "")


def test_a_line_under_a_table_says_what_is_stale_or_missing_and_vanishes_when_nothing_is() -> None:
    assert note({"cells": 9, "stale": 0, "missing": 0}) == ""
    assert note({"cells": 9, "stale": 2, "missing": 0}) == "\n\n*2 of 9 cells are of earlier code.*"
    both = note({"cells": 9, "stale": 2, "missing": 1})
    assert both == "\n\n*2 of 9 cells are of earlier code; 1 of 9 cells is not made yet.*"


def test_each_figure_of_the_tasks_has_its_own_number_of_seeds() -> None:
    rate = {"task": "diffpolicy/Push-v0", "condition": "clean", "success": 0.9, "ci_low": 0.873, "ci_high": 0.922}
    rows = [{**rate, "method": "bc", "seeds": 3}, {**rate, "method": "correct, round 3", "seeds": 1}]
    line = envs_table(rows).splitlines()[-1]
    assert "| 90.0 (87–93) ×3 |  | 90.0 (87–93) ×1 |" in line
    assert "seeds" not in envs_table(rows)


@pytest.mark.parametrize("name", TABLES)
def test_a_part_of_a_table_is_written_whichever_cells_are_missing(name: str, tmp_path: Path) -> None:
    paths = [one.about["cell"]["suite"] + "/" + one.path.name for one in FINISHED]
    folders = {suite.name for suite in TABLES[name].suites}
    for number, path in enumerate(p for p in paths if p.partition("/")[0] in folders):
        if number % 3:  # seeds, conditions and methods are left out alike
            for each in (FOLDER / path, (FOLDER / path).with_suffix(".parquet")):
                place = tmp_path / path.partition("/")[0] / each.name
                place.parent.mkdir(exist_ok=True)
                shutil.copyfile(each, place)
    rows = TABLES[name].rows(tmp_path, partial=True)
    assert rows
    for _, _, markdown in TABLES[name].pages:
        table = markdown(rows)
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_methods_without_a_seed_in_common_are_not_compared(tmp_path: Path) -> None:
    for one in FINISHED:
        row, folder = one.row, tmp_path / "quickstart"
        if one.about["cell"]["suite"] == "quickstart" and (row["method"] == "bc") == (row["seed"] == 0):
            folder.mkdir(exist_ok=True)
            for suffix in (".json", ".parquet"):
                shutil.copyfile(one.path.with_suffix(suffix), folder / f"{one.path.stem}{suffix}")
    rows = TABLES["quickstart"].rows(tmp_path, partial=True)
    assert {row["method"] for row in rows} > {"bc", "correct, round 3"}
    assert not any("versus" in row for row in rows)
