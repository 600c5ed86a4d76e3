"""The live table of a suite: what each cell came to, what runs, and how long the rest may take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from benchmarks.cells import Finished
from benchmarks.pool import Job, Pool
from benchmarks.suite import Cell
from diffpolicy.evaluation.statistics import wilson

__all__ = ["Board", "clock"]

_MARKS = {"waiting": "·", "running": "▶", "failed": "✗", "blocked": "–", "done": "✓"}


@dataclass
class Board:
    """Shows a pool at work on cells: a table that is redrawn on a terminal, a line for each event elsewhere."""

    pool: Pool
    cells: Sequence[Cell]
    results: Mapping[str, Finished]  # by cell's name; may grow
    past: Iterable[tuple[str, float]]  # how long stages of a recipe took before [s]
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._said: dict[str, str] = {}
        self._took: dict[str, list[float]] = defaultdict(list)
        for name, seconds in self.past:
            self._took[name].append(seconds)
        self._labels: dict[str, str] = {}
        for cell in self.cells:
            more = "".join(f", {value} {name}" for name, value in cell.columns.items())
            for stage in cell.evaluate.chain():
                shown = f"{cell.method}, {cell.condition}" if stage is cell.evaluate else cell.method.split(",")[0]
                shown = "" if shown == stage.name else f" {shown}"
                self._labels.setdefault(stage.key, f"{stage.name}{shown}{more}, seed {cell.seed}")
        self._live = Live(get_renderable=self.draw, console=self.console, auto_refresh=False)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.refresh()
            self._live.stop()
        else:
            self.console.print(self.draw())

    def refresh(self) -> None:
        """Show what has changed."""
        for key, job in self.pool.plan.items():
            if self._said.get(key, "waiting") != job.state:
                self._said[key] = job.state
                if job.state == "done" and job.seconds:
                    self._took[job.stage.name].append(job.seconds)
                if not self.console.is_terminal:
                    self.console.print(self._line(job), highlight=False, soft_wrap=True)
        if self.console.is_terminal:
            self._live.refresh()

    def draw(self) -> Group:
        """Cells by method and condition, what runs, and a line on the whole."""
        running = [job for job in self.pool.plan.values() if job.state == "running"]
        return Group(self._table(), *[Text(self._line(job)) for job in running], Text(self._summary()))

    def left(self) -> float | None:
        """Estimate of the time to the end [s]; None while no stage of some recipe has been timed."""
        total = 0.0
        for job in self.pool.plan.values():
            if job.state in ("waiting", "running"):
                if not self._took[job.stage.name]:
                    return None
                spent = time.monotonic() - job.began if job.state == "running" else 0.0
                total += max(mean(self._took[job.stage.name][-20:]) - spent, 0.0)
        return total / self.pool.jobs

    def _table(self) -> Table:
        conditions = list(dict.fromkeys(cell.condition for cell in self.cells))
        table = Table(box=box.SIMPLE_HEAD)
        table.add_column("method", no_wrap=True, min_width=max(len(str(cell.method)) for cell in self.cells))
        for condition in conditions:
            table.add_column(condition, no_wrap=True)
        lines: dict[tuple[object, ...], dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
        for cell in self.cells:
            lines[cell.line][cell.condition].append(cell)
        for line, by_condition in lines.items():
            some = next(iter(by_condition.values()))[0]
            more = "".join(f", {value} {name}" for name, value in some.columns.items())
            shown = [self._cell(by_condition[condition]) for condition in conditions]
            table.add_row(f"{line[1]}{more}", *shown)
        return table

    def _cell(self, cells: Sequence[Cell]) -> str:
        """A mark for each seed, and the success so far."""
        there = [self.results[cell.path] for cell in cells if cell.path in self.results]
        marks = "".join("✓" if cell.path in self.results else self._mark(cell) for cell in cells)
        rows = [result.row for result in there if result.row["success"] is not None]
        if not rows:
            return marks
        count = sum(row["episodes"] for row in rows)
        rate = wilson(round(sum(row["success"] * row["episodes"] for row in rows)), count)
        return f"{marks} {100 * rate.point:.1f} ({100 * rate.low:.0f}-{100 * rate.high:.0f})"

    def _mark(self, cell: Cell) -> str:
        jobs = [self.pool.plan[stage.key].state for stage in cell.evaluate.chain() if stage.key in self.pool.plan]
        for state in ("failed", "blocked", "running"):
            if state in jobs:
                return _MARKS[state]
        return _MARKS["waiting"]

    def _line(self, job: Job) -> str:
        name = self._labels.get(job.stage.key, job.stage.name)
        if job.state == "running":
            usual = self._took[job.stage.name]
            about = f" of about {clock(mean(usual[-20:]))}" if usual else ""
            return f"{_MARKS['running']} {name}  {clock(time.monotonic() - job.began)}{about}"
        if job.state == "done":
            return f"{_MARKS['done']} {name}  {clock(job.seconds)}   ({self._summary()})"
        last = job.said.strip().splitlines()[-1:] or [""]
        return f"{_MARKS[job.state]} {name}  {job.state}  {last[0]}"

    def _summary(self) -> str:
        states = [job.state for job in self.pool.plan.values()]
        bad = states.count("failed") + states.count("blocked")
        left = self.left()
        return (
            f"{sum(cell.path in self.results for cell in self.cells)} of {len(self.cells)} cells, "
            f"{states.count('done')} of {len(states)} stages{f', {bad} failed or blocked' if bad else ''}, "
            f"{clock(time.monotonic() - self._began)} elapsed, {'?' if left is None else clock(left)} left"
        )


def clock(seconds: float) -> str:
    """A span of time as h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
