"""Control steps a second of every task beside bare physics: ``python -m benchmarks.task_speed``."""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.speed import show
from benchmarks.tables import RESULTS, write_table
from benchmarks.timing.environment import each_task

__all__ = ["committed", "main"]

NAME = "task-speed"


def main() -> int:
    """Measure every task and write ``results/task-speed.json``."""
    rows = [{"part": "tasks", **row} for row in each_task()]
    show(rows)
    write_table(NAME, "python -m benchmarks.task_speed", rows, threads={"physics": 2})
    return 0


def committed() -> dict[str, dict[str, Any]]:
    """The rows of ``results/task-speed.json`` by task; none before it was measured."""
    path = RESULTS / f"{NAME}.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []
    return {row["task"]: row for row in rows}


if __name__ == "__main__":
    sys.exit(main())
