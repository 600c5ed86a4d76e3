"""The Markdown and the picture of the table of students, made from its rows."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.distilled import DISTILLATION, DISTILLATION_MORE, TEACHER
from benchmarks.pages import Row, keyed, short, with_interval
from benchmarks.tables import ROOT, markdown
from diffpolicy.evaluation import plots
from diffpolicy.evaluation.statistics import Interval

__all__ = ["AGAINST", "distillation_table", "draw_students", "students_table"]

PICTURE = ROOT / "docs" / "images" / "students.png"
METHODS = tuple(dict.fromkeys(m.name for suite in (DISTILLATION, DISTILLATION_MORE) for m in suite.methods))
AGAINST = tuple((name, TEACHER) for name in METHODS if name != TEACHER)


def distillation_table(rows: Sequence[Row]) -> str:
    """A block a task, a line a student: success, what it gains on its teacher, and what it costs."""
    by = keyed(rows, "task", "method", "condition")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in METHODS:
            clean, hard = (by.get((task, method, condition)) for condition in ("clean", "hard"))
            if clean is None or hard is None:
                continue
            costs = [clean.get("train_s"), clean.get("env_steps")]
            lines.append(
                [
                    f"{short(task)}, {method}",
                    f"{clean['nfe']:.0f}",
                    with_interval(clean),
                    with_interval(hard),
                    *(_gain(row) for row in (clean, hard)),
                    *("" if row.get("way_entropy") is None else f"{row['way_entropy']:.2f}" for row in (clean,)),
                    f"{clean['seam_jerk']:.3f}" if clean.get("seam_jerk") is not None else "",
                    *("" if cost is None else f"{cost:,.0f}" for cost in costs),
                ]
            )
    header = ["task, student", "NFE", "clean", "hard", "gain, clean", "gain, hard", "ways [bit]", "seam jerk"]
    return markdown([*header, "training [s]", "environment steps"], lines)


def students_table(rows: Sequence[Row]) -> str:
    """A line a task and student: what the teacher has, what the student has, and the paired difference."""
    by = keyed(rows, "task", "method", "condition")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        for method in dict.fromkeys(row["method"] for row in rows):
            clean, hard = (by.get((task, method, condition)) for condition in ("clean", "hard"))
            if clean is None or hard is None:
                continue
            ways = "" if clean.get("way_entropy") is None else f"{clean['way_entropy']:.2f}"
            gains = [f"{_gain(row)}{_verdict(row)}" for row in (clean, hard)]
            lines.append([f"{short(task)}, {method}", with_interval(clean), with_interval(hard), *gains, ways])
    return markdown(["task, policy", "clean", "hard", "gain, clean", "gain, hard", "ways, clean [bit]"], lines)


def _verdict(row: Row) -> str:
    """Whether the gain is one, or a loss of 2 points excluded; nothing in the teacher's row."""
    if row.get("diff") is None:
        return ""
    return f", {'above' if row['diff_low'] > 0 else row['verdict']}"


def _gain(row: Row) -> str:
    """The difference from the teacher on the same seeds and episodes, in points, with its interval."""
    if row.get("diff") is None:
        return ""
    low, high = (100 * row[f"diff_{end}"] for end in ("low", "high"))
    return f"{100 * row['diff']:+.1f} ({low:+.0f} to {high:+.0f})"


def draw_students(rows: Sequence[Row]) -> None:
    """Success under `hard` against the calls of a decision, a panel a task."""
    panels: dict[str, list[tuple[str, float, Interval]]] = {}
    for row in rows:
        if row["condition"] == "hard":
            interval = Interval(row["success"], row["ci_low"], row["ci_high"])
            route = row["method"].rpartition(", ")[0]
            panels.setdefault(short(row["task"]), []).append((route, row["nfe"], interval))
    PICTURE.write_bytes(plots.png(plots.success_fronts(panels, "calls of the network a decision")))
