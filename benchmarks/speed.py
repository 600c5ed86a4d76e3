"""Speed, as ratios measured in one run: ``python -m benchmarks.speed`` writes ``results/speed.json`` and its tables."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.tables import RESULTS, ROOT, insert, markdown, write_table
from benchmarks.timing.clock import meets

__all__ = ["PAGES", "PARTS", "committed", "main", "publish", "show", "table"]

COMMAND = "python -m benchmarks.speed"
PARTS = ("environment", "training", "inference", "evaluation")
PAGES = {
    "environment": ROOT / "docs" / "speed.md",
    "training": ROOT / "docs" / "speed.md",
    "inference": ROOT / "docs" / "export.md",
    "evaluation": ROOT / "docs" / "speed.md",
}
Row = Mapping[str, Any]


def main(args: Sequence[str] | None = None) -> int:
    """Measure, and return the exit status: 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, help="measure only these, and write nothing")
    chosen = parser.parse_args(args).only
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
    rows: list[dict[str, Any]] = []
    for part in PARTS if chosen is None else chosen:
        measured = importlib.import_module(f"benchmarks.timing.{part}").measure()
        rows += [{"part": part, **entry} for entry in measured]
        show([entry for entry in rows if entry["part"] == part])
    if chosen is None:
        threads = {"torch": 1, "physics": os.cpu_count(), "OMP_WAIT_POLICY": os.environ["OMP_WAIT_POLICY"]}
        write_table("speed", COMMAND, rows, threads=threads)
        publish(rows)
    missed = [entry["what"] for entry in rows if not meets(entry)]
    for what in missed:
        print(f"misses its bar: {what}", file=sys.stderr)
    return 1 if missed else 0


def committed() -> list[dict[str, Any]]:
    """The rows of ``results/speed.json``."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / "speed.json").read_text(encoding="utf-8"))["rows"]
    return rows


def publish(rows: Iterable[Row], pages: Mapping[str, Path] = PAGES) -> None:
    """Print each part's table on its page."""
    rows = list(rows)
    for part, page in pages.items():
        insert(page, part, table(part, rows))


def table(part: str, rows: Iterable[Row]) -> str:
    """The Markdown table of a part."""
    chosen = [entry for entry in rows if entry["part"] == part]
    if part == "evaluation":
        header = ["What", "ratio (range)", "against", "seconds"]
        return markdown(header, [[e["what"], _ratio(e), e["against"], f"{e['seconds']:.1f}"] for e in chosen])
    header = ["What", "ratio (95%)", "bar", "against", "p50", "p99", "the other's p50"]
    return markdown(
        header,
        [
            [
                e["what"],
                _ratio(e),
                _bar(e),
                e["against"],
                *(_time(e[column]) for column in ("p50_us", "p99_us", "against_p50_us")),
            ]
            for e in chosen
        ],
    )


def show(rows: Sequence[Row]) -> None:
    """Print rows on the terminal, with a mark where a bar is missed."""
    shown = Table("what", "ratio", "95%", "bar", "against", title=rows[0]["part"] if rows else None)
    for entry in rows:
        colour = "" if entry["bar"] is None else "[green]" if meets(entry) else "[bold red]"
        interval = f"{entry['ratio_low']:.3f} to {entry['ratio_high']:.3f}"
        shown.add_row(entry["what"], f"{colour}{entry['ratio']:.3f}", interval, _bar(entry), entry["against"])
    Console().print(shown)


def _ratio(entry: Row) -> str:
    return f"{entry['ratio']:.2f} ({entry['ratio_low']:.2f} to {entry['ratio_high']:.2f})"


def _bar(entry: Row) -> str:
    if entry["bar"] is None:
        return ""
    sign = {"<=": "≤", ">=": "≥"}[entry["bar"].split()[0]]
    return f"{sign} {entry['bar'].split()[1]}" + ("" if meets(entry) else " **missed**")


def _time(microseconds: float) -> str:
    return f"{microseconds:.0f} µs" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
