"""Printed tables are what the committed results say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import experts, quickstart, tables
from diffpolicy.evaluation.statistics import wilson


def printed(path: Path, name: str) -> str:
    return path.read_text(encoding="utf-8").split(f"<!-- table: {name} -->\n")[1].split("\n<!-- end -->")[0]


def committed(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((tables.RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_the_readme_prints_the_committed_quickstart() -> None:
    assert printed(tables.ROOT / "README.md", "quickstart") == quickstart.readme_table()


def test_the_docs_print_the_committed_sweep_and_experts() -> None:
    assert printed(tables.ROOT / "docs" / "correction.md", "demonstrations") == quickstart.demonstrations_table()
    rows = committed("experts")["rows"]
    assert printed(tables.ROOT / "docs" / "environments.md", "experts") == experts.table(rows)


def test_quickstart_json_follows_from_the_committed_episodes() -> None:
    assert committed("quickstart")["rows"] == quickstart.tables()


@pytest.mark.parametrize("name", ["experts", "quickstart"])
def test_every_row_says_its_interval_episodes_and_seeds(name: str) -> None:
    content = committed(name)
    assert content["command"].startswith("python -m benchmarks.")
    assert content["commit"]
    for row in content["rows"]:
        rate = wilson(round(row["success"] * row["episodes"]), row["episodes"])
        assert (row["ci_low"], row["ci_high"]) == (round(rate.low, 4), round(rate.high, 4))
        assert row["seeds"] >= 1
        assert row["episodes"] >= 200 * row["seeds"]


def test_reported_episodes_were_never_trained_on() -> None:
    for path in (tables.RESULTS / "cells").glob("*.json"):
        for cell in tables.read_cells(path.stem) or []:
            assert min(cell["episodes"]["reset_seed"]) >= 1_000_000_000


def test_a_table_is_put_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "a\n<!-- table: t -->\nold\n<!-- end -->\nb\n<!-- table: u -->\nkept\n<!-- end -->\n", encoding="utf-8"
    )
    text = page.read_text(encoding="utf-8").replace("old", "| x | y |\n| :-- | --: |\n| 1 | 2 |")
    assert tables.insert(page, "t", tables.markdown(["x", "y"], [["1", "2"]]))
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(ValueError, match="has no line"):
        tables.insert(page, "missing", "")


def test_the_docs_baseline_and_held_out_conditions_are_in_the_committed_evaluations() -> None:
    text = (tables.ROOT / "docs" / "correction.md").read_text(encoding="utf-8")
    for path in (tables.RESULTS / "evaluations").glob("*.json"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            row, outcomes = cell["row"], cell["episodes"]["success"]
            rate = wilson(sum(outcomes), len(outcomes))
            assert (row["ci_low"], row["ci_high"]) == (round(rate.low, 4), round(rate.high, 4))
            if row["condition"] not in ("clean", "shove") or "shoved" in path.stem:
                assert f"{100 * rate.point:.1f} ({100 * rate.low:.1f} to {100 * rate.high:.1f})" in text
