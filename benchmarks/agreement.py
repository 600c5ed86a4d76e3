"""How near every student of the table of distillation lies to its teacher: `python -m benchmarks.agreement`.

The students are those that `python -m benchmarks run distillation distillation-more` has left in the store; one that is
not there is passed over. Rows are kept as they come, and those that are there are not made again. Time is not measured:
stages run beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.distilled import CONDITIONS, DEMONSTRATIONS, DISTILLATION, DISTILLATION_MORE, TEACHER, TEACHER_STEPS
from benchmarks.pages import short
from benchmarks.pool import Pool, is_done
from benchmarks.stage import Output, Stage
from benchmarks.tables import RESULTS, ROOT, insert, markdown, write_table
from benchmarks.trained import imitated
from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.agree import Agree

__all__ = ["NAME", "PAGE", "Students", "agreements", "table"]

NAME = "agreement"
PAGE = ROOT / "docs" / "distillation.md"
STATES = ("data", *(f"{condition}, own" for condition in CONDITIONS))
COMMAND = "python -m benchmarks.agreement"


def agreements() -> dict[tuple[str, str], dict[str, Any]]:
    """The committed rows, by task and method; none where there are none."""
    path = RESULTS / f"{NAME}.json"
    rows = read_json(path)["rows"] if path.is_file() else []
    return {(row["task"], row["method"]): row for row in rows}


@dataclass(frozen=True)
class Students:
    """Compare students with their teachers, the first training seed of each."""

    store: Path = Path("runs/benchmarks")
    """Where stages live."""
    jobs: int = 2
    """Stages at once."""
    episodes: int = 64
    """Of a student under each condition."""

    def __call__(self) -> int:
        """Compare and write the table; returns the exit status."""
        known = agreements()
        wanted = {row: stage for row, stage in self._stages() if known.get(row, {}).get("asked") != stage.asked}
        ready = {row: stage for row, stage in wanted.items() if is_done(stage.inputs["checkpoint"].stage, self.store)}
        if not known and not ready:
            raise InputError(f"expected students in {self.store}, got none; run the suite `distillation` first")
        pool = Pool(self.store, self.jobs, 1)
        pool.add(list(ready.values()))
        written: set[tuple[str, str]] = set()

        def collect() -> None:
            for row, stage in ready.items():
                if row not in written and pool.plan[stage.key].state == "done":
                    written.add(row)
                    known[row] = _row(row, stage, read_json(stage.output(self.store)))
                    write_table(NAME, COMMAND, [known[each] for each in sorted(known)])
                    insert(PAGE, NAME, table(known))
                    print(f"{len(written)} of {len(ready)}   {row[0]}, {row[1]}", flush=True)

        pool.on_change = collect
        try:
            pool.run()
        finally:
            collect()
        for job in pool.plan.values():
            if job.state == "failed":
                print(f"{job.stage.folder(self.store).name} failed: {job.said.rstrip()}")
        print(f"{len(wanted) - len(ready)} students are not in {self.store}")
        return 1 if len(written) < len(ready) else 0

    def _stages(self) -> Iterator[tuple[tuple[str, str], Stage]]:
        for suite in (DISTILLATION, DISTILLATION_MORE):
            for task in suite.tasks:
                for method in suite.methods:
                    if method.name == TEACHER or not (method.tasks is None or task in method.tasks):
                        continue
                    student, teacher = method.actor(task, 0), imitated(task, DEMONSTRATIONS, 0)
                    assert isinstance(student, Output)
                    recipe = Agree(
                        "", teacher_steps=TEACHER_STEPS, conditions=CONDITIONS, episodes=self.episodes,
                        change=method.change, environment=task, calls=0, observations=256, samples=8,
                    )  # fmt: skip
                    inputs = {"checkpoint": student, "teacher": teacher, "data": teacher.stage.inputs["data"]}
                    yield (task, method.name), Stage(recipe, inputs)


def table(rows: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """A line a student, in the order of the suites: root mean square and energy distance, by what was observed."""
    methods = dict.fromkeys(m.name for suite in (DISTILLATION, DISTILLATION_MORE) for m in suite.methods)
    tasks = dict.fromkeys(task for suite in (DISTILLATION, DISTILLATION_MORE) for task in suite.tasks)
    lines = []
    for task, method in ((task, method) for task in tasks for method in methods if (task, method) in rows):
        row = rows[task, method]
        figures = [row[states][kind] for kind in ("executed", "energy") for states in STATES]
        lines.append([f"{short(task)}, {method}", *("" if value is None else f"{value:.3f}" for value in figures)])
    heads = [f"{kind}, {states}" for kind in ("RMS", "energy") for states in STATES]
    return markdown(["task, student", *heads], lines)


def _row(row: tuple[str, str], stage: Stage, found: dict[str, Any]) -> dict[str, Any]:
    figures = {each["states"]: {n: _round(each[n]) for n in ("executed", "chunk", "energy")} for each in found["rows"]}
    return {"task": row[0], "method": row[1], **figures, "asked": stage.asked}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


if __name__ == "__main__":
    try:
        raise SystemExit(tyro.cli(Students)())
    except InputError as error:
        raise SystemExit(f"benchmarks: {error}") from error
