"""The benchmark runner.

python -m benchmarks run SUITE              finish a suite's cells
python -m benchmarks table NAME             write a table, and the pages and pictures that print it
python -m benchmarks reproduce NAME.ROW     make one row again and compare it with the committed one
python -m benchmarks list                   suites, and how much of each there is to run
python -m benchmarks list NAME              the rows of a suite or table
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.board import clock
from benchmarks.cells import FOLDER, finished, seconds
from benchmarks.pages import note
from benchmarks.published import TABLES, Table
from benchmarks.reproduce import cells_of, compared, row_name
from benchmarks.runner import Runner
from benchmarks.suite import Suite
from benchmarks.suites import SUITES
from diffpolicy.errors import InputError, nearest

__all__ = ["main"]

STORE = Path("runs/benchmarks")


@dataclass(frozen=True)
class Run:
    """Finish the cells of suites: what is done is skipped, what was interrupted goes on."""

    suites: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of suites; `list` shows them."""
    jobs: int = 2
    """Stages at once."""
    threads: int = 1
    """Threads of torch in each."""
    store: Path = STORE
    """Where stages live; results go to benchmarks/results."""
    keep_stale: bool = False
    """Take committed cells that earlier code made as finished."""
    dry_run: bool = False
    """Only say what there is to do."""

    def __call__(self) -> int:
        """Run; returns the exit status."""
        suites: list[Suite] = [known(SUITES, name, "suite") for name in self.suites]
        if not suites or min(self.jobs, self.threads) < 1:
            raise InputError(f"expected a suite of {', '.join(SUITES)}, and jobs and threads of at least 1")
        failed = 0
        for committed in (True, False):
            cells = [cell for suite in suites if suite.committed is committed for cell in suite.cells()]
            folder = FOLDER if committed else self.store / "cells"
            runner = Runner(self.store, folder, self.jobs, self.threads, self.keep_stale)
            if self.dry_run and cells:
                print(f"{len(cells)} cells, {runner.missing(cells)} stages to run")
            elif cells:
                failed += runner.run(cells)[1]
        if self.dry_run:
            return 0
        tables = [n for n, t in TABLES.items() if {s.name for s in t.suites} & set(self.suites)]
        if failed:
            print(f"{failed} stages failed; mend what they say, and the same command goes on")
        elif tables:
            print("next: " + ", ".join(f"python -m benchmarks table {name}" for name in tables))
        return 1 if failed else 0


@dataclass(frozen=True)
class Write:
    """Write tables from finished cells: results/NAME.json, the pages and the pictures."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Names of tables, or `all`."""
    partial: bool = False
    """Write what there is of a table whose cells are not all made; a line under it says how many are missing."""

    def __call__(self) -> int:
        """Write; returns the exit status."""
        for name in TABLES if self.names == ("all",) else self.names:
            told = note(known(TABLES, name, "table").write(partial=self.partial)).strip("\n*")
            print(f"benchmarks/results/{name}.json   {told or 'every cell is of the present code'}")
        return 0


@dataclass(frozen=True)
class Reproduce:
    """Make one row of a table again, from nothing, and compare it with the committed one."""

    row: Annotated[str, tyro.conf.Positional]
    """TABLE.ROW; a part of the row's name is enough where it is clear."""
    jobs: int = 2
    """Stages at once."""
    store: Path = Path("runs/reproduce")
    """Where stages live, apart from those of `run`; an interrupted reproduction goes on."""
    again: bool = False
    """Forget what an earlier reproduction made."""

    def __call__(self) -> int:
        """Reproduce; returns the exit status."""
        cells = cells_of(self.row)
        if self.again and self.store.is_dir():
            shutil.rmtree(self.store)
        results, failed = Runner(self.store / "stages", self.store / "cells", self.jobs).run(cells)
        if failed:
            return 1
        good, words = compared(cells, [results[cell.path] for cell in cells])
        print(words)
        return 0 if good else 1


@dataclass(frozen=True)
class List:
    """Show the suites, or the rows of some of them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Suites or tables whose rows are to be shown; by default none, only how much there is of each suite."""
    jobs: int = 2
    """Stages at once, for the estimate of the time."""

    def __call__(self) -> int:
        """Print; returns the exit status."""
        for name in self.names:
            suites = TABLES[name].suites if name in TABLES else (known(SUITES, name, "suite"),)
            for row, about in rows_of(suites, TABLES.get(name)).items():
                print(f"{name}.{row}   {about}")
        if self.names:
            return 0
        print(f"{'suite':<16}{'cells':>6}{'stages to run':>16}{'about':>10}")
        past = list(seconds())
        for name, suite in SUITES.items():
            cells = list(suite.cells())
            runner = Runner(STORE, FOLDER if suite.committed else STORE / "cells", self.jobs)
            stages = runner.to_run(cells)
            left = runner.estimate(stages, past)
            about = "?" if left is None else clock(left)
            print(f"{name:<16}{len(cells):>6}{len(stages):>16}{about:>10}   {suite.about}")
        print(f"\ntables: {', '.join(TABLES)}\n`list NAME` shows the rows of a suite or table, which `reproduce` takes")
        return 0


def rows_of(suites: Sequence[Suite], table: Table | None) -> dict[str, str]:
    """Rows by name, and how many of the cells behind each are finished, stale or missing."""
    states: dict[str, list[str]] = {}
    for suite in suites:
        for cell in suite.cells():
            one = finished(cell, FOLDER if suite.committed else STORE / "cells")
            state = "missing" if one is None else "made" if one.about["key"] == cell.evaluate.key else "stale"
            name = row_name(table, cell) if table else cell.name.rpartition("-seed-")[0]
            states.setdefault(name, []).append(state)
    return {
        name: ", ".join(f"{each.count(state)} {state}" for state in ("made", "stale", "missing") if state in each)
        for name, each in states.items()
    }


def known(names: Mapping[str, Any], name: str, what: str) -> Any:
    """The value of a name; raises InputError with the nearest where there is none."""
    if name not in names:
        near = nearest(name, names, 1) or "."
        raise InputError(f"unknown {what} {name!r}{near} There are {', '.join(names)}")
    return names[name]


def main() -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 bad input, 130 interrupted."""
    commands: dict[str, Callable[..., Any]] = {"run": Run, "table": Write, "reproduce": Reproduce, "list": List}
    try:
        command = tyro.extras.subcommand_cli_from_dict(commands, prog="python -m benchmarks", description=__doc__)
        return int(command())
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: finished cells are kept; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
