"""The Markdown of each table, made from its rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tables import markdown, percent

__all__ = [
    "LAST",
    "Row",
    "demonstrations_table",
    "envs_table",
    "experts_table",
    "held_out_table",
    "keyed",
    "note",
    "readme_table",
    "short",
    "with_interval",
]

LAST = "correct, round 3"
Row = dict[str, Any]


def note(state: Mapping[str, Any]) -> str:
    """What is printed under a table of which cells are stale or missing: ``Table.state``; nothing where none is."""
    counts = (("of earlier code", state["stale"]), ("not made yet", state["missing"]))
    total = state["cells"]
    told = [f"{n} of {total} cells {'is' if n == 1 else 'are'} {what}" for what, n in counts if n]
    return f"\n\n*{'; '.join(told)}.*" if told else ""


def keyed(rows: Sequence[Row], *by: str) -> dict[Any, Row]:
    return {tuple(row.get(key) for key in by): row for row in rows}


def _shown(row: Row | None) -> str:
    """Success with its interval; nothing for a row that is not made."""
    return "" if row is None else percent(row)


def with_interval(row: Row | None) -> str:
    """Success with its interval in whole percent, and the number of training seeds behind it: ``90.0 (87-92) ×3``."""
    return "" if row is None else f"{100 * row['success']:.1f} ({_whole(row)}) ×{row['seeds']}"


def _whole(row: Row) -> str:
    """The interval, rounded outwards."""
    return f"{math.floor(100 * row['ci_low'])}–{math.ceil(100 * row['ci_high'])}"


def readme_table(rows: Sequence[Row]) -> str:
    """The README's table."""
    by = keyed(rows, "method", "condition")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        clean, shove = (by.get((method, c)) for c in ("clean", "shove"))
        cost = [(clean or shove or {}).get(key) for key in ("expert_queries", "env_steps", "train_s")]
        lines.append([method, _shown(clean), _shown(shove), *("" if c is None else f"{c:,.0f}" for c in cost)])
    header = ["method", "clean, success %", "shove, success %", "expert queries", "environment steps", "training s"]
    return markdown(header, lines)


def demonstrations_table(rows: Sequence[Row]) -> str:
    """Imitation and correction against the number of demonstrations."""
    by = keyed(rows, "method", "condition", "demonstrations")
    lines = []
    for count in sorted({row["demonstrations"] for row in rows if row.get("demonstrations")}):
        cells = [by.get((m, c, count)) for m in ("bc", LAST) for c in ("clean", "shove")]
        seeds = sorted({cell["seeds"] for cell in cells if cell is not None})
        lines.append([str(count), " or ".join(map(str, seeds)), *(_shown(cell) for cell in cells)])
    header = ["demonstrations", "seeds", "bc, clean %", "bc, shove %", "corrected, clean %", "corrected, shove %"]
    return markdown(header, lines)


def held_out_table(rows: Sequence[Row]) -> str:
    """Every condition, for imitation, for imitation of shoved demonstrations, and for correction."""
    by = keyed(rows, "method", "condition")
    methods = ("bc", "bc, shoved", LAST)
    lines = [[c, *(_shown(by.get((m, c))) for m in methods)] for c in dict.fromkeys(row["condition"] for row in rows)]
    header = ["condition", "bc, 20 demonstrations", "bc, 140 shoved demonstrations", "corrected, 20 demonstrations"]
    return markdown(header, lines)


def experts_table(rows: Sequence[Row]) -> str:
    """The experts' success, a line a task and a column a condition."""
    by = keyed(rows, "task", "condition")
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        shown = [f"{100 * by[task, c]['success']:.1f}" if (task, c) in by else "" for c in conditions]
        clean = by.get((task, "clean"))
        lines.append([short(task), *shown, "" if clean is None else f"{clean['length']:.0f}"])
    return markdown(["task", *conditions, "steps, clean"], lines)


def short(task: str) -> str:
    """A task's name without its package and version."""
    return task.rpartition("/")[2].rpartition("-")[0]


def envs_table(rows: Sequence[Row]) -> str:
    """Expert, imitation and correction in every task, clean and hard, and how fast it runs."""
    by = keyed(rows, "task", "method", "condition")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = [by.get((task, "expert", c)) for c in ("clean", "hard")]
        shown = ["" if row is None else f"{100 * row['success']:.1f}" for row in cells]
        shown += [with_interval(by.get((task, m, c))) for m in ("bc", LAST) for c in ("clean", "hard")]
        clean = by.get((task, "expert", "clean"), {})
        speed = [f"{clean['steps_per_s']:,}", f"{clean['share_of_bare']:.2f}"] if "steps_per_s" in clean else ["", ""]
        lines.append([short(task), *shown, *speed])
    header = ["task", "expert, clean", "expert, hard", "bc, clean", "bc, hard", "corrected, clean", "corrected, hard"]
    return markdown([*header, "steps/s", "of bare"], lines)
