"""The scripted experts' success under every condition: 500 episodes each.

python -m benchmarks.experts
"""

from __future__ import annotations

from typing import Any

from benchmarks.tables import ROOT, as_cell, insert, markdown, merged, write_table
from diffpolicy.recipes.evaluate import measured
from diffpolicy_envs import TASKS

__all__ = ["main", "table"]

COMMAND = "python -m benchmarks.experts"


def main() -> None:
    """Measure and write ``results/experts.json`` and the docs' table."""
    cells = [
        as_cell(evaluation, 0, {})
        for task in TASKS
        for evaluation in measured("expert", task, ("all",), episodes=500, seed=0)
    ]
    rows = merged(cells, ("task", "condition"))
    write_table("experts", COMMAND, rows)
    insert(ROOT / "docs" / "environments.md", "experts", table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The docs' table."""
    lines = [
        [
            row["condition"],
            f"{100 * row['success']:.1f}",
            f"{100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f}",
            f"{row['length']:.0f}",
        ]
        for row in rows
    ]
    return markdown(["condition", "expert's success %", "95% interval", "mean length [control steps]"], lines)


if __name__ == "__main__":
    main()
