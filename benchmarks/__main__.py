"""The benchmark runner.

python -m benchmarks run SUITE              finish a suite's cells
python -m benchmarks table NAME             write a table, and the pages and pictures that print it
python -m benchmarks reproduce NAME.ROW     make one row again and compare it with the committed one
python -m benchmarks list                   suites, tables and how much of them there is
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.cells import FOLDER
from benchmarks.published import TABLES
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
    """Write what there is of a table whose cells are not all made; its head says how many are missing."""

    def __call__(self) -> int:
        """Write; returns the exit status."""
        for name in TABLES if self.names == ("all",) else self.names:
            table = known(TABLES, name, "table")
            table.write(partial=self.partial)
            stale = table.stale()
            note = f"; {stale} cells were made by code that has changed since" if stale else ""
            print(f"benchmarks/results/{name}.json   {len(table.rows(partial=self.partial))} rows{note}")
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
    """Show suites and tables."""

    def __call__(self) -> int:
        """Print; returns the exit status."""
        for name, suite in SUITES.items():
            cells = list(suite.cells())
            runner = Runner(STORE, FOLDER if suite.committed else STORE / "cells")
            print(f"suite {name}: {suite.about}\n  {len(cells)} cells, {runner.missing(cells)} stages to run")
        for name, table in TABLES.items():
            rows = dict.fromkeys(row_name(table, cell) for suite in table.suites for cell in suite.cells())
            print(f"table {name}: {table.command}\n  rows: {', '.join(rows)}")
        return 0


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
