"""The tables, by name: which suites they are made from, and the pages and pictures that print them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import task_speed
from benchmarks.cells import FOLDER, Finished, finished
from benchmarks.distilled import DISTILLATION, DISTILLATION_MORE, STUDENTS, TEACHER
from benchmarks.distilled_pages import AGAINST, distillation_table, draw_students, students_table
from benchmarks.pages import (
    LAST,
    Row,
    demonstrations_table,
    envs_table,
    experts_table,
    held_out_table,
    note,
    readme_table,
)
from benchmarks.rows import merged, versus
from benchmarks.sampled import ACTING, NETWORKS, SAMPLERS, SAMPLERS_MORE
from benchmarks.sampler_pages import acting_table, draw_front, networks_table, samplers_table, with_latency
from benchmarks.suite import Cell, Suite
from benchmarks.suites import DEMONSTRATIONS, ENVS, ENVS_MORE, EXPERTS, HELD_OUT, QUICKSTART
from benchmarks.tables import ROOT, insert, write_table
from diffpolicy.errors import InputError
from diffpolicy.evaluation import plots
from diffpolicy.evaluation.statistics import Interval

__all__ = ["TABLES", "Table"]

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

    def cells(self) -> list[Cell]:
        """All of them, also those that were never made."""
        return list({cell.name: cell for suite in self.suites for cell in suite.cells()}.values())

    def finished(self, folder: Path = FOLDER, partial: bool = False) -> list[Finished]:
        """Its committed cells; raises InputError where one is missing, unless a part of the table will do."""
        cells = self.cells()
        found = [finished(cell, folder) for cell in cells]
        missing = [cell for cell, one in zip(cells, found, strict=True) if one is None]
        if missing and not partial:
            raise InputError(
                f"{len(missing)} of {len(cells)} cells of the table {self.name} are missing ({missing[0].name}, ...); "
                f"run `python -m benchmarks run {missing[0].suite}`, or add --partial"
            )
        return [one for one in found if one is not None]

    def state(self, folder: Path = FOLDER) -> dict[str, int]:
        """How many cells it has, how many were made by code that has changed since, how many were never made."""
        pairs = [(cell, finished(cell, folder)) for cell in self.cells()]
        stale = sum(one is not None and one.about["key"] != cell.evaluate.key for cell, one in pairs)
        return {"cells": len(pairs), "stale": stale, "missing": sum(one is None for _, one in pairs)}

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
                    if {c.row["seed"] for c in ours} & {c.row["seed"] for c in theirs}:
                        row.update(versus(ours, theirs))
        return rows if self.complete is None else self.complete(rows)

    def write(self, folder: Path = FOLDER, partial: bool = False) -> dict[str, int]:
        """``results/<name>.json``, and what is printed from it; returns the state that both tell."""
        rows, state = self.rows(folder, partial), self.state(folder)
        write_table(self.name, self.command, rows, **state)
        for page, mark, printed in self.pages:
            insert(page, mark, printed(rows) + note(state))
        if self.draw is not None:
            self.draw(rows)
        return state


def _is(cell: Finished, method: str, row: Row, columns: Sequence[str]) -> bool:
    return cell.row["method"] == method and all(cell.row.get(k) == row.get(k) for k in columns)


def with_speed(rows: list[Row]) -> list[Row]:
    """The experts' clean rows with their tasks' control steps a second, and their share of bare stepping."""
    speed = task_speed.committed()
    for row in rows:
        if row["method"] == "expert" and row["condition"] == "clean" and row["task"] in speed:
            measured = speed[row["task"]]
            row |= {"steps_per_s": measured["steps_per_s"], "share_of_bare": measured["ratio"]}
    return rows


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
    Table(
        (SAMPLERS, SAMPLERS_MORE),
        ("rounds",),
        pages=((DOCS / "samplers.md", "samplers", samplers_table),),
        draw=draw_front,
        complete=with_latency,
    ),
    Table((NETWORKS,), ("rounds",), pages=((DOCS / "samplers.md", "networks", networks_table),), complete=with_latency),
    Table(
        (DISTILLATION, DISTILLATION_MORE),
        against=AGAINST,
        pages=((DOCS / "distillation.md", "distillation", distillation_table),),
        draw=draw_students,
    ),
    Table(
        (STUDENTS,),
        against=tuple((method.name, TEACHER) for method in STUDENTS.methods if method.name != TEACHER),
        pages=((DOCS / "distillation.md", "students", students_table),),
    ),
    Table((ACTING,), ("late",), pages=((DOCS / "samplers.md", "acting", acting_table),)),
)
TABLES: dict[str, Table] = {table.name: table for table in _ALL}
