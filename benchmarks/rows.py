"""From finished cells to a table's rows: all seeds together, and one method beside another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.cells import Finished
from benchmarks.suite import slug
from diffpolicy.evaluation.comparison import paired_seeds, verdict
from diffpolicy.evaluation.statistics import wilson

__all__ = ["merged", "name_of", "versus"]

_TOLD = ("seed", "seeds", "episodes", "success", "ci_low", "ci_high")


def name_of(row: dict[str, Any], columns: Iterable[str] = ()) -> str:
    """What a row is called on the command line."""
    more = [f"{row[column]} {column}" for column in columns if column in row]
    return slug(" ".join((row["task"].rpartition("/")[2], row["method"], *more, row["condition"])))


def merged(cells: Iterable[Finished], columns: Sequence[str] = ()) -> list[dict[str, Any]]:
    """One row for each task, method, condition and value of ``columns``, over its training seeds.

    Success is that of all episodes, with Wilson's interval; other numbers are means over the seeds.
    """
    by = ("task", "method", "condition", *columns)
    groups: dict[tuple[Any, ...], list[Finished]] = {}
    for cell in cells:
        groups.setdefault(tuple(cell.row.get(key) for key in by), []).append(cell)
    return [_one([cell.row for cell in group], group, by, columns) for group in groups.values()]


def _one(
    rows: list[dict[str, Any]], group: list[Finished], by: Sequence[str], columns: Sequence[str]
) -> dict[str, Any]:
    outcomes = [bool(outcome) for cell in group for outcome in cell.episodes["success"]]
    rate = wilson(sum(outcomes), len(outcomes))
    means = {
        key: value if key in by or not isinstance(value, int | float) else _mean([row[key] for row in rows])
        for key, value in rows[0].items()
        if key not in _TOLD
    }
    return {
        "name": name_of(rows[0], columns),
        **{key: means[key] for key in by if key in means},
        "seeds": len(rows),
        "episodes": len(outcomes),
        "success": round(rate.point, 4),
        "ci_low": round(rate.low, 4),
        "ci_high": round(rate.high, 4),
        "success_per_seed": [row["success"] for row in rows],
        **{key: value for key, value in means.items() if key not in by},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 4) if known else None


def versus(method: Sequence[Finished], other: Sequence[Finished]) -> dict[str, Any]:
    """The difference in success of two methods on the same seeds and episodes, with its paired 95% interval.

    ``diff_per_seed`` is that of each training seed, ``one_sign`` whether they agree, and ``verdict`` whether the
    method is not worse by 2 points or more (its interval lies above -2 points).
    """
    ours, theirs = ({cell.row["seed"]: cell for cell in cells} for cells in (method, other))
    seeds = sorted(ours.keys() & theirs.keys())
    for seed in seeds:
        if ours[seed].episodes["seed"] != theirs[seed].episodes["seed"]:
            raise ValueError(f"expected the same episodes in {ours[seed].path} and {theirs[seed].path}")
    a, b = ([[bool(x) for x in cells[seed].episodes["success"]] for seed in seeds] for cells in (ours, theirs))
    found = paired_seeds(a, b)
    return {
        "versus": other[0].row["method"],
        "diff": round(found.difference.point, 4),
        "diff_low": round(found.difference.low, 4),
        "diff_high": round(found.difference.high, 4),
        "diff_per_seed": [round(interval.point, 4) for interval in found.per_seed],
        "one_sign": found.one_sign,
        "verdict": verdict(found.difference),
    }
