"""Tables on disk: the committed JSON, and the Markdown that is printed from it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpolicy.policy.files import write_json
from diffpolicy.recipes.run import commit, versions

__all__ = ["RESULTS", "ROOT", "insert", "machine", "markdown", "percent", "printed", "write_table"]

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def machine() -> str:
    """The kind of machine, in words."""
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def write_table(name: str, command: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write ``results/<name>.json``; ``more`` adds to its head."""
    head = {"command": command, "commit": commit(), "machine": machine(), "versions": versions(), **more}
    write_json({**head, "rows": list(rows)}, RESULTS / f"{name}.json")


def percent(row: Mapping[str, Any]) -> str:
    """Success with its interval, in percent."""
    return f"{100 * row['success']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"


def markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose first column is left-aligned."""
    rule = [":--"] + ["--:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *lines))


def printed(path: Path, name: str) -> str:
    """What stands between ``<!-- table: name -->`` and ``<!-- end -->``."""
    return _split(path, name)[1].strip("\n")


def insert(path: Path, name: str, table: str) -> bool:
    """Put a table between ``<!-- table: name -->`` and ``<!-- end -->``; returns whether the file changed."""
    before, _, after = _split(path, name)
    text, fresh = path.read_text(encoding="utf-8"), f"{before}\n{table}\n{after}"
    if fresh != text:
        path.write_text(fresh, encoding="utf-8")
    return fresh != text


def _split(path: Path, name: str) -> tuple[str, str, str]:
    text = path.read_text(encoding="utf-8")
    begin, end = f"<!-- table: {name} -->", "<!-- end -->"
    if begin not in text:
        raise ValueError(f"{path} has no line {begin}")
    before, rest = text.split(begin, 1)
    inside, after = rest.split(end, 1)
    return before + begin, inside, end + after
