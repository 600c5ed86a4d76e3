"""Imitation and on-policy correction on PickPlace: the README's table, and success against rounds and demonstrations.

python -m benchmarks.quickstart          # 3 seeds with 20 demonstrations, then 1 seed with 1, 3, 5, 10 and 50
python -m benchmarks.quickstart --write  # only the tables and pictures, from the cells that are finished
"""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.tables import ROOT, as_cell, insert, markdown, merged, read_cells, versus, write_cells, write_table
from diffpolicy.evaluation import plots
from diffpolicy.evaluation.statistics import Interval
from diffpolicy.recipes.quickstart import Quickstart

__all__ = ["Benchmark", "tables"]

COMMAND = "python -m benchmarks.quickstart"
MAIN = [(20, seed) for seed in (0, 1, 2)]  # demonstrations, seed
SWEEP = [(demonstrations, 0) for demonstrations in (1, 3, 5, 10, 50)]
CONDITIONS = ("clean", "shove")
LAST = "correct, round 3"


@dataclass(frozen=True)
class Benchmark:
    """Train and evaluate each (demonstrations, seed) once, then write tables and pictures."""

    jobs: int = 2
    """Cells at once, one thread each."""
    episodes: int = 200
    """Evaluation episodes per method, condition and seed."""
    runs: Path = Path("runs/benchmarks/quickstart")
    """Where checkpoints and logs go."""
    write: bool = False
    """Only write tables and pictures from finished cells."""

    def __call__(self) -> None:
        """Run what is missing."""
        missing = [cell for cell in MAIN + SWEEP if read_cells(_name(*cell)) is None]
        if missing and not self.write:
            os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(self.jobs, mp_context=context) as pool:
                list(pool.map(self.measure, missing))
        write_table("quickstart", COMMAND, tables())
        publish()

    def measure(self, cell: tuple[int, int]) -> None:
        """Train and evaluate one cell."""
        demonstrations, seed = cell
        began = time.perf_counter()
        name = _name(demonstrations, seed)
        recipe = Quickstart(self.runs / name, demonstrations, episodes=self.episodes, seed=seed)
        recipe.train()
        costs = recipe.costs()
        cells = [as_cell(e, seed, costs[e.method], demonstrations=demonstrations) for e in recipe.evaluations()]
        write_cells(name, cells, time.perf_counter() - began)


def _name(demonstrations: int, seed: int) -> str:
    return f"quickstart-{demonstrations}-demonstrations-seed-{seed}"


def _cells(wanted: list[tuple[int, int]]) -> list[dict[str, Any]]:
    return [cell for which in wanted for cell in read_cells(_name(*which)) or []]


def tables() -> list[dict[str, Any]]:
    """Rows of ``results/quickstart.json``: the main ones over three seeds, the sweep over one."""
    main = _cells(MAIN)
    rows = merged(main, ("method", "condition", "demonstrations"))
    for row in rows:
        if row["method"] == LAST:
            row.update(versus(main, LAST, "bc", row["condition"]))
    sweep = [cell for cell in _cells(SWEEP) if cell["row"]["method"] != "expert"]
    return rows + merged(sweep, ("method", "condition", "demonstrations"))


def _interval(row: dict[str, Any]) -> Interval:
    return Interval(row["success"], row["ci_low"], row["ci_high"])


def percent(row: dict[str, Any]) -> str:
    """Success with its interval, in percent."""
    return f"{100 * row['success']:.1f} ({100 * row['ci_low']:.1f} to {100 * row['ci_high']:.1f})"


def readme_table() -> str:
    """The README's table."""
    rows = {(r["method"], r["condition"]): r for r in tables() if r["demonstrations"] == 20}
    lines = []
    for method in ("expert", "bc", "correct, round 1", "correct, round 2", LAST):
        clean, shove = rows[method, "clean"], rows[method, "shove"]
        cost = [
            f"{clean[key]:,.0f}" if clean[key] is not None else "" for key in ("expert_queries", "env_steps", "train_s")
        ]
        lines.append([method, percent(clean), percent(shove), *cost])
    header = ["method", "clean, success %", "shove, success %", "labelled states", "environment steps", "training s"]
    return markdown(header, lines)


def demonstrations_table() -> str:
    """Imitation and correction against the number of demonstrations."""
    rows = {(r["method"], r["condition"], r["demonstrations"]): r for r in tables()}
    lines = []
    for count in sorted({key[2] for key in rows}):
        row = [str(count), str(rows["bc", "clean", count]["seeds"])]
        for method in ("bc", LAST):
            row += [percent(rows[method, condition, count]) for condition in CONDITIONS]
        lines.append(row)
    header = ["demonstrations", "seeds", "bc, clean %", "bc, shove %", "corrected, clean %", "corrected, shove %"]
    return markdown(header, lines)


def publish() -> None:
    """Tables into README and docs, pictures into docs/images."""
    insert(ROOT / "README.md", "quickstart", readme_table())
    insert(ROOT / "docs" / "correction.md", "demonstrations", demonstrations_table())
    rows = tables()
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    main = [r for r in rows if r["demonstrations"] == 20]
    methods = ["bc", "correct, round 1", "correct, round 2", LAST]
    points = [(methods.index(r["method"]), r["condition"], _interval(r)) for r in main if r["method"] in methods]
    experts = {f"expert, {r['condition']}": _interval(r) for r in main if r["method"] == "expert"}
    (images / "rounds.png").write_bytes(plots.png(plots.success_against_rounds(points, experts)))
    named = {"bc": "imitation", LAST: "corrected"}
    points = [
        (r["demonstrations"], f"{named[r['method']]}, {r['condition']}", _interval(r))
        for r in rows
        if r["method"] in named
    ]
    (images / "demonstrations.png").write_bytes(plots.png(plots.success_against_demonstrations(points)))


if __name__ == "__main__":
    tyro.cli(Benchmark)()
