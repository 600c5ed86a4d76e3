"""Runs a suite: what is missing is made, what is finished is kept, and what failed is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from rich.console import Console

from benchmarks import cells as disk
from benchmarks.board import Board
from benchmarks.cells import Finished
from benchmarks.pool import Pool, is_done
from benchmarks.stage import Stage
from benchmarks.suite import Cell

__all__ = ["Runner"]


@dataclass(frozen=True)
class Runner:
    """Where stages live, where cells are kept, and how many stages run at once."""

    store: Path
    folder: Path = disk.FOLDER
    jobs: int = 2
    threads: int = 1
    keep_stale: bool = False  # take committed cells that earlier code made as finished
    console: Console | None = None

    def run(self, cells: Sequence[Cell]) -> tuple[dict[str, Finished], int]:
        """Finish the cells; returns those that are, by name, and how many stages failed."""
        results = {
            cell.path: found for cell in cells if (found := self._found(cell) or disk.adopted(cell, self.folder))
        }
        wanted = [cell for cell in cells if cell.path not in results]
        pool = Pool(self.store, self.jobs, self.threads)
        pool.add([cell.evaluate for cell in wanted])
        board = Board(pool, cells, results, list(disk.seconds(self.folder)), self.console or Console())

        def collect() -> None:
            for cell in wanted:
                if cell.path not in results and pool.plan[cell.evaluate.key].state == "done":
                    results[cell.path] = disk.keep(cell, self.store, self.folder)
            board.refresh()

        pool.on_change = collect
        with board:
            try:
                collect()
                pool.run()
            finally:
                collect()
        failed = [job for job in pool.plan.values() if job.state == "failed"]
        for job in failed:
            folder = job.stage.folder(self.store)
            board.console.rule(f"{folder.name} failed")
            board.console.print(job.said.rstrip(), markup=False, highlight=False)
            board.console.print(f"log: {folder / 'log.txt'}", markup=False, soft_wrap=True)
        return results, len(failed)

    def _found(self, cell: Cell) -> Finished | None:
        found = disk.finished(cell, self.folder)
        if found is None or (found.about["key"] != cell.evaluate.key and not self.keep_stale):
            return None
        return found

    def missing(self, cells: Sequence[Cell]) -> int:
        """How many stages there are to run."""
        return len(self.to_run(cells))

    def estimate(self, stages: Sequence[Stage], past: Iterable[tuple[str, float]]) -> float | None:
        """Time that stages may take, by what others of their recipes took [s]; None where one was never timed."""
        took: dict[str, list[float]] = defaultdict(list)
        for name, seconds in past:
            took[name].append(seconds)
        if {stage.name for stage in stages} - set(took):
            return None
        return sum(mean(took[stage.name]) for stage in stages) / self.jobs

    def to_run(self, cells: Sequence[Cell]) -> list[Stage]:
        """The stages behind the cells that are not finished, each once, without those that are done."""
        wanted = [cell for cell in cells if self._found(cell) is None]
        stages = {stage.key: stage for cell in wanted for stage in cell.evaluate.chain()}
        return [stage for stage in stages.values() if not is_done(stage, self.store)]
