"""The tables, by name: which suites they are made from, and the pages and pictures that print them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import task_speed
from benchmarks.cells import FOLDER, Finished, finished
from benchmarks.rows import merged, versus
from benchmarks.suite import Suite
from benchmarks.suites import DEMONSTRATIONS, ENVS, ENVS_MORE, EXPERTS, HELD_OUT, QUICKSTART
from benchmarks.tables import ROOT, insert, markdown, percent, write_table
from diffpolicy.errors import InputError
from diffpolicy.evaluation import plots
from diffpolicy.evaluation.statistics import Interval

__all__ = ["TABLES", "Table"]

Row = dict[str, Any]
LAST = "correct, round 3"
DOCS = ROOT / "docs"


@dataclass(frozen=True)
class Table:
    """Rows over the cells of suites, and where they are printed."""

    suites: tuple[Suite, ...]
    columns: tuple[str, ...] = ()  # what tells rows apart beside task, method and condition
    against: tuple[tuple[str, str], ...] = ()  # pairs of methods to compare, within task, condition and columns
    pages: tuple[tuple[Path, str, Callable[[Sequence[Row]], str]], ...] = ()  # page, mark, rows -> Markdown
    draw: Callable[[Sequence[Row]], None] | None = None  # pictures
    complete: Callable[[list[Row]], list[Row]] | None = None  # adds columns that other measurements gave

    @property
    def name(self) -> str:
        """That of its first suite."""
        return self.suites[0].name

    @property
    def command(self) -> str:
        """What makes it, from nothing."""
        runs = [f"python -m benchmarks run {suite.name}" for suite in self.suites]
        return " && ".join([*runs, f"python -m benchmarks table {self.name}"])

    def finished(self, folder: Path = FOLDER, partial: bool = False) -> list[Finished]:
        """Its committed cells; raises InputError where one is missing, unless a part of the table will do."""
        cells = {cell.name: cell for suite in self.suites for cell in suite.cells()}
        found = [finished(cell, folder) for cell in cells.values()]
        missing = [cell for cell, one in zip(cells.values(), found, strict=True) if one is None]
        if missing and not partial:
            raise InputError(
                f"{len(missing)} of {len(cells)} cells of the table {self.name} are missing ({missing[0].name}, ...); "
                f"run `python -m benchmarks run {missing[0].suite}`, or add --partial"
            )
        return [one for one in found if one is not None]

    def missing(self, folder: Path = FOLDER) -> int:
        """How many of its cells were never made."""
        cells = {cell.name: cell for suite in self.suites for cell in suite.cells()}
        return sum(finished(cell, folder) is None for cell in cells.values())

    def stale(self, folder: Path = FOLDER) -> int:
        """How many of its cells were made by code that has changed since."""
        cells = {cell.name: cell for suite in self.suites for cell in suite.cells()}
        pairs = [(cell, finished(cell, folder)) for cell in cells.values()]
        return sum(one is not None and one.about["key"] != cell.evaluate.key for cell, one in pairs)

    def rows(self, folder: Path = FOLDER, partial: bool = False) -> list[Row]:
        """Its rows, comparisons included."""
        cells = self.finished(folder, partial)
        rows = merged(cells, self.columns)
        for row in rows:
            for method, other in self.against:
                if row["method"] == method:
                    same = [c for c in cells if all(c.row.get(k) == row.get(k) for k in ("task", "condition"))]
                    ours = [c for c in same if _is(c, method, row, self.columns)]
                    theirs = [c for c in same if _is(c, other, row, self.columns)]
                    if ours and theirs:
                        row.update(versus(ours, theirs))
        return rows if self.complete is None else self.complete(rows)

    def write(self, folder: Path = FOLDER, partial: bool = False) -> None:
        """``results/<name>.json``, and what is printed from it; a part of it says how many cells are missing."""
        rows = self.rows(folder, partial)
        more = {"missing": missing} if (missing := self.missing(folder)) else {}
        write_table(self.name, self.command, rows, stale=self.stale(folder), **more)
        for page, mark, printed in self.pages:
            insert(page, mark, printed(rows))
        if self.draw is not None:
            self.draw(rows)


def _is(cell: Finished, method: str, row: Row, columns: Sequence[str]) -> bool:
    return cell.row["method"] == method and all(cell.row.get(k) == row.get(k) for k in columns)


def _keyed(rows: Sequence[Row], *by: str) -> dict[Any, Row]:
    return {tuple(row.get(key) for key in by): row for row in rows}


def readme_table(rows: Sequence[Row]) -> str:
    """The README's table."""
    by = _keyed(rows, "method", "condition")
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        clean, shove = by[method, "clean"], by[method, "shove"]
        cost = [clean[key] for key in ("expert_queries", "env_steps", "train_s")]
        lines.append([method, percent(clean), percent(shove), *("" if c is None else f"{c:,.0f}" for c in cost)])
    header = ["method", "clean, success %", "shove, success %", "expert queries", "environment steps", "training s"]
    return markdown(header, lines)


def demonstrations_table(rows: Sequence[Row]) -> str:
    """Imitation and correction against the number of demonstrations."""
    by = _keyed(rows, "method", "condition", "demonstrations")
    lines = []
    for count in sorted({row["demonstrations"] for row in rows if row.get("demonstrations")}):
        shown = [percent(by[m, c, count]) for m in ("bc", LAST) for c in ("clean", "shove")]
        lines.append([str(count), str(by["bc", "clean", count]["seeds"]), *shown])
    header = ["demonstrations", "seeds", "bc, clean %", "bc, shove %", "corrected, clean %", "corrected, shove %"]
    return markdown(header, lines)


def held_out_table(rows: Sequence[Row]) -> str:
    """Every condition, for imitation, for imitation of shoved demonstrations, and for correction."""
    by = _keyed(rows, "method", "condition")
    methods = ("bc", "bc, shoved", LAST)
    lines = [[c, *(percent(by[m, c]) for m in methods)] for c in dict.fromkeys(row["condition"] for row in rows)]
    header = ["condition", "bc, 20 demonstrations", "bc, 140 shoved demonstrations", "corrected, 20 demonstrations"]
    return markdown(header, lines)


def experts_table(rows: Sequence[Row]) -> str:
    """The experts' success, a line a task and a column a condition."""
    by = _keyed(rows, "task", "condition")
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


def with_speed(rows: list[Row]) -> list[Row]:
    """The experts' clean rows with their tasks' control steps a second, and their share of bare stepping."""
    speed = task_speed.committed()
    for row in rows:
        if row["method"] == "expert" and row["condition"] == "clean" and row["task"] in speed:
            measured = speed[row["task"]]
            row |= {"steps_per_s": measured["steps_per_s"], "share_of_bare": measured["ratio"]}
    return rows


def envs_table(rows: Sequence[Row]) -> str:
    """Expert, imitation and correction in every task, clean and hard, and how fast it runs."""
    by = _keyed(rows, "task", "method", "condition")
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = [by.get((task, "expert", c)) for c in ("clean", "hard")]
        shown = ["" if row is None else f"{100 * row['success']:.1f}" for row in cells]
        for method in ("bc", LAST):
            cells = [by.get((task, method, c)) for c in ("clean", "hard")]
            shown += ["" if row is None else percent(row) for row in cells]
        seeds = by.get((task, "bc", "clean"), {}).get("seeds", "")
        clean = by.get((task, "expert", "clean"), {})
        speed = [f"{clean['steps_per_s']:,}", f"{clean['share_of_bare']:.2f}"] if "steps_per_s" in clean else ["", ""]
        lines.append([short(task), *shown, str(seeds), *speed])
    header = ["task", "expert, clean", "expert, hard", "bc, clean", "bc, hard", "corrected, clean", "corrected, hard"]
    return markdown([*header, "seeds", "steps/s", "of bare"], lines)


def _interval(row: Row) -> Interval:
    return Interval(row["success"], row["ci_low"], row["ci_high"])


def draw_rounds(rows: Sequence[Row]) -> None:
    """Success against rounds of correction."""
    methods = [m for m in dict.fromkeys(row["method"] for row in rows) if m != "expert"]
    points = [(methods.index(r["method"]), r["condition"], _interval(r)) for r in rows if r["method"] in methods]
    experts = {f"expert, {r['condition']}": _interval(r) for r in rows if r["method"] == "expert"}
    (DOCS / "images" / "rounds.png").write_bytes(plots.png(plots.success_against_rounds(points, experts)))


def draw_demonstrations(rows: Sequence[Row]) -> None:
    """Success against the number of demonstrations."""
    named = {"bc": "imitation", LAST: "corrected"}
    points = [
        (r["demonstrations"], f"{named[r['method']]}, {r['condition']}", _interval(r))
        for r in rows
        if r["method"] in named
    ]
    picture = plots.png(plots.success_against_demonstrations(points))
    (DOCS / "images" / "demonstrations.png").write_bytes(picture)


_ALL = (
    Table(
        (QUICKSTART,),
        ("demonstrations",),
        ((LAST, "bc"),),
        ((ROOT / "README.md", "quickstart", readme_table),),
        draw_rounds,
    ),
    Table(
        (DEMONSTRATIONS, QUICKSTART),
        ("demonstrations",),
        ((LAST, "bc"),),
        ((DOCS / "correction.md", "demonstrations", demonstrations_table),),
        draw_demonstrations,
    ),
    Table(
        (HELD_OUT,),
        ("demonstrations",),
        ((LAST, "bc"),),
        ((DOCS / "correction.md", "held-out", held_out_table),),
    ),
    Table(
        (ENVS, ENVS_MORE, EXPERTS),
        ("demonstrations",),
        ((LAST, "bc"),),
        ((ROOT / "README.md", "envs", envs_table), (DOCS / "environments.md", "envs", envs_table)),
        complete=with_speed,
    ),
    Table((EXPERTS,), pages=((DOCS / "environments.md", "experts", experts_table),)),
)
TABLES: dict[str, Table] = {table.name: table for table in _ALL}
