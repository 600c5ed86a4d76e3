"""Printed tables are what the committed results say, and those are what the committed episodes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import tables
from benchmarks.cells import FOLDER, Finished
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
    rows = committed(name)["rows"]
    assert TABLES[name].pages
    for page, mark, markdown in TABLES[name].pages:
        assert tables.printed(page, mark) == markdown(rows), f"python -m benchmarks table {name}"


@pytest.mark.parametrize("name", TABLES)
def test_committed_rows_follow_from_the_committed_episodes(name: str) -> None:
    partial = committed(name).get("missing", 0) > 0
    assert committed(name)["rows"] == TABLES[name].rows(partial=partial)
    assert TABLES[name].missing() == committed(name).get("missing", 0)
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
            assert len(each["diff_per_seed"]) == each["seeds"]


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
