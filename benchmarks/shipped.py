"""The policies that ship, from the stages that made them, and what they cost: `python -m benchmarks.shipped`.

Their success is that of the committed cells; time is measured here, of all of a task's policies in turn.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.cells import Finished, finished
from benchmarks.distilled import (
    DEMONSTRATIONS,
    DISTILLATION,
    DISTILLATION_MORE,
    TEACHER,
    TEACHER_STEPS,
    anchored,
    distilled,
    reinforced,
)
from benchmarks.pool import is_done
from benchmarks.stage import Output
from benchmarks.tables import RESULTS, ROOT, insert, markdown, write_table
from benchmarks.trained import imitated
from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json

__all__ = ["FOLDER", "NAME", "PAGE", "SHIPPED", "Ship", "Shipped", "cells_of", "table"]

NAME = "shipped"
COMMAND = "python -m benchmarks.shipped"
PAGE = ROOT / "docs" / "distillation.md"
FOLDER = ROOT / "assets" / "policies"
ROW = 20  # decisions in a row
PICK_PLACE = "diffpolicy/PickPlace-v0"
AVOID = "diffpolicy/Avoid-v0"


@dataclass(frozen=True)
class Shipped:
    """A policy of the first training seed that ships."""

    task: str
    method: str  # its row in the tables of distillation
    made: Output
    steps: int

    @property
    def timed(self) -> bool:
        """Whether its decisions are timed beside the teacher's of PickPlace, which it can only be there."""
        return self.task == PICK_PLACE


def _teacher(name: str) -> Shipped:
    task = f"diffpolicy/{name}-v0"
    return Shipped(task, TEACHER, imitated(task, DEMONSTRATIONS, 0), TEACHER_STEPS)


SHIPPED: dict[str, Shipped] = {  # by folder
    "pick_place-teacher": _teacher("PickPlace"),
    "pick_place-one-step": Shipped(PICK_PLACE, "paired, 1 step", distilled(PICK_PLACE, 0, 1, "paired"), 1),
    "pick_place-two-steps": Shipped(PICK_PLACE, "redif, 2 steps", reinforced(PICK_PLACE, 0, 2, "teacher"), 2),
    "stack-teacher": _teacher("Stack"),
    "peg_insert-teacher": _teacher("PegInsert"),
    "push_t-teacher": _teacher("PushT"),
    "avoid-teacher": _teacher("Avoid"),
    "avoid-two-steps": Shipped(AVOID, "redif, anchored, 2 steps", anchored(AVOID, 0), 2),
}


@dataclass(frozen=True)
class Ship:
    """Copy the policies into assets/policies, measure them, and write the table and the page that prints it."""

    store: Path = Path("runs/benchmarks")
    """Where stages live."""
    calls: int = 1000
    """Decisions at batch 1 that are timed."""
    copy: bool = True
    """Copy them; else what is there is measured again."""

    def __call__(self) -> int:
        """Ship; returns the exit status."""
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
        if self.copy:
            for name in SHIPPED:
                self._copied(name)
        rows = _measured(self.calls)
        write_table(NAME, COMMAND, rows)
        insert(PAGE, NAME, table(rows))
        print(table(rows))
        return 0

    def _copied(self, name: str) -> None:
        """A policy that acts with the steps of its table's row, without the folders that it comes from."""
        from diffpolicy.policy.checkpoint import load_checkpoint, save_checkpoint

        one = SHIPPED[name]
        if not is_done(one.made.stage, self.store):
            raise InputError(
                f"expected {one.method} of {one.task} in {self.store}; run the suites of distillation first"
            )
        loaded = load_checkpoint(one.made.stage.output(self.store) / one.made.part)
        policy = loaded.policy if len(loaded.policy.sampler) == one.steps else loaded.policy.resampled(steps=one.steps)
        kept = ("commit", "versions", "python", "method", "seed", "demonstrations", "expert_queries", "env_steps")
        about = {key: loaded.provenance[key] for key in kept if key in loaded.provenance}
        save_checkpoint(policy, FOLDER / name, environment=one.task, provenance={**about, "table": one.method})


def cells_of(name: str) -> dict[str, Finished]:
    """The committed cells of a shipped policy, by condition."""
    one = SHIPPED[name]
    suites = (DISTILLATION, DISTILLATION_MORE)
    cells = [cell for suite in suites for cell in suite.cells()]
    wanted = [cell for cell in cells if (cell.task, cell.method, cell.seed) == (one.task, one.method, 0)]
    return {cell.condition: found for cell in wanted if (found := finished(cell)) is not None}


def _measured(calls: int) -> list[dict[str, Any]]:
    """Microseconds of a decision, by torch and as exported, of all policies in turn.

    `ratio` is to the teacher in torch, `like_for_like` to the teacher in the same form; `cold` where each decision
    follows one of every other policy.
    """
    import torch

    from diffpolicy.policy.checkpoint import load_checkpoint
    from diffpolicy.policy.export import export_onnx
    from diffpolicy.recipes.export import latencies
    from diffpolicy.runtime import OnnxPolicy

    torch.set_num_threads(1)
    policies = {name: load_checkpoint(FOLDER / name).policy.eval() for name, one in SHIPPED.items() if one.timed}
    with tempfile.TemporaryDirectory() as folder:
        exported = {}
        for name, policy in policies.items():
            export_onnx(policy, Path(folder) / f"{name}.onnx", {})
            exported[name] = OnnxPolicy(Path(folder) / f"{name}.onnx", 1)
        actors = [*policies.values(), *exported.values()]
        taken = latencies(actors, next(iter(policies.values())), calls, row=ROW)
        apart = latencies(actors, next(iter(policies.values())), calls)
    middle, cold = ([float(np.percentile(each, 50)) for each in times] for times in (taken, apart))
    places = {name: index for index, name in enumerate(policies)}
    rows = []
    for name, one in SHIPPED.items():
        row: dict[str, Any] = {"policy": name, "method": one.method, "nfe": one.steps}
        for condition, cell in cells_of(name).items():
            row[condition] = {key: cell.row[key] for key in ("success", "ci_low", "ci_high", "episodes")}
        for form, teacher in (("torch", 0), ("onnx", len(policies))) if name in places else ():
            place = teacher + places[name]
            row[form] = {
                "calls": calls,
                "p50_us": round(middle[place], 1),
                "p99_us": round(float(np.percentile(taken[place], 99)), 1),
                "ratio": round(middle[0] / middle[place], 1),
                "like_for_like": round(middle[teacher] / middle[place], 1),
                "cold_p50_us": round(cold[place], 1),
                "cold_like_for_like": round(cold[teacher] / cold[place], 1),
            }
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = []
    for row in rows:
        cells = [
            f"{100 * row[c]['success']:.1f} ({100 * row[c]['ci_low']:.0f}–{100 * row[c]['ci_high']:.0f})"
            for c in ("clean", "hard")
        ]
        times = [row[form] for form in ("torch", "onnx") if form in row]
        cells += [f"{each['p50_us']:,.0f} / {each['p99_us']:,.0f}, {each['like_for_like']:.1f}x" for each in times]
        cells += [f"{each['ratio']:.1f}x" for each in times[1:]]
        cells += [f"{each['cold_like_for_like']:.1f}x / {times[1]['cold_like_for_like']:.1f}x" for each in times[:1]]
        lines.append([f"`{row['policy']}`", row["method"], *cells, *("" for _ in range(6 - len(cells)))])
    return markdown(
        ["assets/policies/", "made by", "clean", "hard", "torch [us]", "exported [us]", "exported, of torch", "cold"],
        lines,
    )


def rows() -> list[dict[str, Any]]:
    """The committed rows."""
    found: list[dict[str, Any]] = read_json(RESULTS / f"{NAME}.json")["rows"]
    return found


if __name__ == "__main__":
    try:
        raise SystemExit(tyro.cli(Ship)())
    except InputError as error:
        raise SystemExit(f"benchmarks: {error}") from error
