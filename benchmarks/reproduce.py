"""One row of a committed table, made again from nothing and laid beside it episode by episode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.cells import FOLDER, Finished, finished
from benchmarks.published import TABLES, Table
from benchmarks.rows import merged, name_of
from benchmarks.suite import Cell
from benchmarks.tables import percent
from diffpolicy.errors import InputError, nearest

__all__ = ["cells_of", "compared", "row_name"]


def cells_of(wanted: str) -> list[Cell]:
    """The cells behind ``TABLE.ROW``; a part of the row's name is enough where it names one row only.

    Raises InputError where it names none, or several; the message lists them.
    """
    name, _, row = wanted.partition(".")
    if name not in TABLES:
        near = nearest(name, TABLES)
        raise InputError(f"expected TABLE.ROW with a table of {', '.join(TABLES)}, got {wanted!r}{near}")
    table = TABLES[name]
    rows: dict[str, list[Cell]] = {}
    for cell in {cell.name: cell for suite in table.suites for cell in suite.cells()}.values():
        rows.setdefault(row_name(table, cell), []).append(cell)
    fitting = [each for each in rows if each == row] or [each for each in rows if row and row in each]
    if len(fitting) != 1:
        raise InputError(f"expected one row of {name}, got {row!r}; there are {', '.join(fitting or rows)}")
    return rows[fitting[0]]


def row_name(table: Table, cell: Cell) -> str:
    """The name of the row that a cell belongs to."""
    about = {"task": cell.task, "method": cell.method, "condition": cell.condition, **cell.columns}
    return name_of(about, table.columns)


def compared(cells: Sequence[Cell], fresh: Sequence[Finished], folder: Path = FOLDER) -> tuple[bool, str]:
    """Whether the row was reproduced, and how, in words.

    It was if every episode ends as the committed one did; failing that, if both success rates lie in each
    other's interval, as they may on another machine or with other versions.
    """
    known = {cell.name: finished(cell, folder) for cell in cells}
    missing = [name for name, one in known.items() if one is None]
    if missing:
        raise InputError(f"{', '.join(missing)} was never committed, so there is nothing to compare with")
    committed = [one for one in known.values() if one is not None]
    same = total = 0
    for ours, theirs in zip(fresh, committed, strict=True):
        ends = [
            list(zip(*(one.episodes[name] for name in ("seed", "success", "length")), strict=True))
            for one in (ours, theirs)
        ]
        same += sum(a == b for a, b in zip(*ends, strict=False))
        total += max(map(len, ends))
    (now,), (then,) = merged(fresh), merged(committed)
    close = then["ci_low"] <= now["success"] <= then["ci_high"] and now["ci_low"] <= then["success"] <= now["ci_high"]
    words = [f"{same} of {total} episodes end alike (same success, same number of steps)"]
    for label, row, one in (("now", now, fresh[0]), ("committed", then, committed[0])):
        origin = one.about["provenance"]
        made = f"commit {origin['commit'] or 'unknown'}, torch {origin['versions']['torch']}"
        words.append(f"{label}: {percent(row)} %, {made}")
    verdict = "reproduced to the episode" if same == total else "reproduced within its interval" if close else ""
    return bool(verdict), "\n".join([*words, verdict or "NOT reproduced"])
