"""Tables on disk: cells with their raw episodes, rows over seeds, and the Markdown that is printed from them."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpolicy.evaluation.evaluate import Evaluation
from diffpolicy.evaluation.statistics import paired_difference, wilson
from diffpolicy.policy.files import write_json
from diffpolicy.recipes.run import commit, versions

__all__ = ["ROOT", "as_cell", "insert", "markdown", "merged", "read_cells", "versus", "write_cells", "write_table"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def as_cell(evaluation: Evaluation, seed: int, cost: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """One method under one condition from one training seed: its row, and its episodes by column."""
    episodes = evaluation.episodes
    return {
        "row": {**evaluation.row(**cost), "seed": seed, **more},
        "episodes": {
            "reset_seed": [e.seed for e in episodes],
            "success": [int(e.success) for e in episodes],
            "total_reward": [round(e.total_reward, 2) for e in episodes],
            "length": [e.length for e in episodes],
        },
    }


def write_cells(name: str, cells: Sequence[Mapping[str, Any]], seconds: float) -> None:
    """Keep finished cells under ``results/cells``; a later run skips them."""
    folder = RESULTS / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"commit": commit(), "versions": versions(), "machine": machine(), "seconds": round(seconds, 1)}
    path = folder / f"{name}.json"
    lines = ",\n".join(json.dumps(cell) for cell in cells)  # one line per cell, so that a change shows as what it is
    text = json.dumps({**about, "cells": "@"}, indent=1).replace('"@"', f"[\n{lines}\n]") + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_cells(name: str) -> list[dict[str, Any]] | None:
    """Cells that were finished before, or None."""
    path = RESULTS / "cells" / f"{name}.json"
    if not path.is_file():
        return None
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def machine() -> str:
    """The kind of machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def merged(cells: Iterable[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each combination of ``by``: success of all episodes with Wilson's interval, mean cost."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell["row"][key] for key in by), []).append(cell)
    rows = []
    for group in groups.values():
        outcomes = [outcome for cell in group for outcome in cell["episodes"]["success"]]
        rate = wilson(sum(outcomes), len(outcomes))
        row = dict(group[0]["row"])
        for key, value in row.items():
            if isinstance(value, int | float) and key not in by:
                row[key] = round(sum(float(cell["row"][key]) for cell in group) / len(group), 2)
        del row["seed"]
        row |= {
            "seeds": len(group),
            "episodes": len(outcomes),
            "success": round(rate.point, 4),
            "ci_low": round(rate.low, 4),
            "ci_high": round(rate.high, 4),
            "success_per_seed": [cell["row"]["success"] for cell in group],
        }
        rows.append(row)
    return rows


def versus(cells: Sequence[Mapping[str, Any]], method: str, other: str, condition: str) -> dict[str, Any]:
    """The difference in success of two methods on the same episodes, with its paired 95% interval."""

    def outcomes(name: str) -> list[bool]:
        chosen = [c for c in cells if (c["row"]["method"], c["row"]["condition"]) == (name, condition)]
        chosen.sort(key=lambda cell: cell["row"]["seed"])
        return [bool(x) for cell in chosen for x in cell["episodes"]["success"]]

    diff = paired_difference(outcomes(method), outcomes(other))
    return {
        "versus": other,
        "diff": round(diff.point, 4),
        "diff_low": round(diff.low, 4),
        "diff_high": round(diff.high, 4),
    }


def write_table(name: str, command: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write ``results/<name>.json``."""
    head = {"command": command, "commit": commit(), "machine": machine(), "versions": versions()}
    write_json({**head, "rows": list(rows)}, RESULTS / f"{name}.json")


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is left-aligned."""
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def insert(path: Path, name: str, table: str) -> bool:
    """Put a table between ``<!-- table: name -->`` and ``<!-- end -->``; returns whether the file changed."""
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- table: {name} -->", "<!-- end -->"
    if begin not in text:
        raise ValueError(f"{path} has no line {begin}")
    before, rest = text.split(begin, 1)
    _, after = rest.split(end, 1)
    fresh = f"{before}{begin}\n{table}\n{end}{after}"
    if fresh != text:
        path.write_text(fresh, encoding="utf-8")
    return fresh != text
