"""The Markdown and the picture of the tables of samplers, networks and acting, made from their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import sampler_speed
from benchmarks.pages import Row, keyed, short, with_interval
from benchmarks.sampled import SOLVERS
from benchmarks.tables import ROOT, markdown
from benchmarks.trained import ROUNDS
from diffpolicy.evaluation import plots
from diffpolicy.evaluation.statistics import Interval

__all__ = ["acting_table", "draw_front", "networks_table", "samplers_table", "with_latency"]

PICTURE = ROOT / "docs" / "images" / "samplers.png"
Measured = Mapping[str, Mapping[str, Any]]


def with_latency(rows: list[Row]) -> list[Row]:
    """The rows with the latency of a decision at batch 1, in the place of that of the batch they were evaluated in."""
    speed = sampler_speed.committed()
    for row in rows:
        measured = speed.get(row["method"], {})
        row |= {name: measured.get(name) for name in ("latency_p50_us", "latency_p99_us")}
        row["latency_ratio"] = measured.get("ratio")
    return rows


def samplers_table(rows: Sequence[Row]) -> str:
    """A block a task, a line a sampler: success from demonstrations and corrected, seams, ways, cost."""
    by = keyed(rows, "task", "method", "rounds", "condition")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in SOLVERS:
            cells = [by.get((task, method, rounds, c)) for rounds in (0, ROUNDS) for c in ("clean", "hard")]
            if first := next((cell for cell in cells if cell is not None), None):
                lines.append(
                    [
                        f"{short(task)}, {method}",
                        f"{first['nfe']:.0f}",
                        _number(first.get("latency_ratio"), 1),
                        " / ".join(_number(_ms(first.get(f"latency_{at}_us")), 1) for at in ("p50", "p99")),
                        *(with_interval(cell) for cell in cells),
                        _number((cells[0] or {}).get("seam_jerk"), 3),
                        _number((cells[0] or {}).get("way_entropy"), 2),
                    ]
                )
    header = [
        "task, sampler",
        "NFE",
        "time",
        "p50 / p99 [ms]",
        "bc, clean",
        "bc, hard",
        "corrected, clean",
        "corrected, hard",
    ]
    return markdown([*header, "seam jerk", "ways [bit]"], lines)


def networks_table(rows: Sequence[Row]) -> str:
    """A line a network."""
    by = keyed(rows, "method", "condition")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        clean, hard = (by.get((method, condition)) for condition in ("clean", "hard"))
        shown = [_number((clean or {}).get(name), digits) for name, digits in (("latency_ratio", 1), ("train_s", 0))]
        lines.append([method, with_interval(clean), with_interval(hard), *shown])
    return markdown(["network", "clean", "hard", "time", "training [s]"], lines)


def acting_table(rows: Sequence[Row]) -> str:
    """A block a task, a line for each way in which chunks follow one another, a column for each latency."""
    by = keyed(rows, "task", "method", "late", "condition")
    late = sorted({row["late"] for row in rows})
    lines = []
    for task, condition in dict.fromkeys((row["task"], row["condition"]) for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            cells = [by.get((task, method, steps, condition)) for steps in late]
            jerks = " ".join(_number((cell or {}).get("seam_jerk"), 3) for cell in cells)
            name = f"{short(task)} {condition}, {method}"
            lines.append([name, *(with_interval(cell) for cell in cells), jerks])
    header = ["task, condition, chunks", *(f"{steps} late" for steps in late), "seam jerk of these"]
    return markdown(header, lines)


def draw_front(rows: Sequence[Row]) -> None:
    """Success under `hard` against the latency of a decision, a panel a task."""
    speed = sampler_speed.committed()
    panels: dict[str, list[tuple[str, float, Interval]]] = {}
    for row in rows:
        if row["condition"] == "hard" and row["rounds"] == 0 and row["method"] in speed:
            interval = Interval(row["success"], row["ci_low"], row["ci_high"])
            latency = speed[row["method"]]["latency_p50_us"] / 1000
            panels.setdefault(short(row["task"]), []).append((row["method"], latency, interval))
    PICTURE.write_bytes(plots.png(plots.success_fronts(panels, "latency of a decision [ms]")))


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1000


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
