"""Agree: how near a student lies to its teacher, on data and on what it meets itself, and how much quicker it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from diffpolicy.errors import InputError
from diffpolicy.policy.files import require_writable, write_json
from diffpolicy.recipes.pairs import require_pair
from diffpolicy.recipes.run import CONDITIONS_BY_DEFAULT, conditions_in, provenance, use_threads

if TYPE_CHECKING:
    from diffpolicy.data.windows import Windows
    from diffpolicy.evaluation.agreement import Agreement
    from diffpolicy.policy.checkpoint import Checkpoint
    from diffpolicy.policy.policy import Policy

__all__ = ["Agree"]

_MOST = 100_000


@dataclass(frozen=True)
class Agree:
    """Compare a student with its teacher, chunk by chunk: on data, on what it meets itself, and in time."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """The student: a checkpoint folder, or the run that holds it; any other policy too, with --teacher."""
    teacher: Path | None = None
    """Whom to compare with; by default the teacher that the student names."""
    teacher_steps: int = 50
    """Steps of the teacher, noiseless, at least."""
    conditions: tuple[str, ...] = CONDITIONS_BY_DEFAULT
    """Disturbances to play the student under; those that the environment does not know are left out."""
    episodes: int = 64
    """Episodes of the student under each condition; 0: on data alone."""
    observations: int = 512
    """Observations of each kind that are compared, drawn from all of them."""
    samples: int = 16
    """Chunks of each for an observation."""
    change: tuple[str, ...] = ()
    """Settings to act with instead of the checkpoint's: sampler.steps=2, ..."""
    environment: str | None = None
    """Gymnasium id; by default the student's."""
    data: Path | None = None
    """Dataset to take observations from; by default what the student or its teacher was trained on."""
    calls: int = 200
    """Decisions whose latency is measured, of student and teacher in turn, ten in a row; 0: none."""
    out: Path | None = None
    """File for the results; by default agreement.json in the student's run, replaced by a later one."""
    seed: int = 0
    """Of episodes, observations and noise."""
    threads: int = 0
    """Threads of torch; 0 takes one."""

    def __call__(self) -> Path:
        """Compare, print the table, and return the results' file."""
        from diffpolicy.evaluation.agreement import agreement, asked
        from diffpolicy.policy.checkpoint import load_checkpoint
        from diffpolicy.updates.validation import chosen

        for name, least in (("teacher_steps", 1), ("episodes", 0), ("observations", 2), ("samples", 2), ("calls", 0)):
            if not least <= getattr(self, name) <= _MOST:
                raise InputError(f"expected {name} from {least} to {_MOST}, got {getattr(self, name)}; correct it")
        threads = use_threads(self.threads)
        loaded = load_checkpoint(self.checkpoint)
        taught = self._taught(loaded)
        known = load_checkpoint(taught)
        student, teacher = self._changed(loaded.policy), known.policy
        require_pair(student, teacher, taught)
        teacher = asked(teacher, student, max(self.teacher_steps, len(student.sampler)))
        out = self.out or loaded.folder.parent / "agreement.json"
        require_writable(out)
        rows: list[Agreement] = []
        for states, windows in self._states(student, loaded, known):
            batch = windows.gather(chosen(windows, min(self.observations, len(windows)), self.seed))
            rows.append(agreement(student, teacher, batch.obs, states, self.samples, self.seed))
        latency = self._latency(student, teacher)
        about = provenance(self, teacher=str(taught), threads=threads, trained=dict(loaded.provenance))
        write_json({**about, "rows": [row.row() for row in rows], "latency": latency}, out)
        _print(rows, latency)
        print(f"written to {out}")
        return out

    def _taught(self, loaded: Checkpoint) -> Path:
        """The teacher's checkpoint folder."""
        from diffpolicy.policy.checkpoint import checkpoint_of
        from diffpolicy.recipes.lineage import teacher_of

        return teacher_of(loaded.folder, loaded.provenance) if self.teacher is None else checkpoint_of(self.teacher)

    def _changed(self, student: Policy) -> Policy:
        from diffpolicy.policy.changes import changed

        if self.change:
            student = student.reconfigured(changed(student.config, self.change))
        return student.eval()

    def _states(self, student: Policy, loaded: Checkpoint, known: Checkpoint) -> Iterator[tuple[str, Windows]]:
        """Windows of the data, and of the student's own episodes under each condition, with their names."""
        from diffpolicy.data.windows import Windows
        from diffpolicy.recipes.lineage import Lineage, lineage
        from diffpolicy.recipes.observed import observations, observed
        from diffpolicy.recipes.playing import play, require_playable
        from diffpolicy.rollout.seeds import episode_seeds

        environment = self.environment or loaded.environment or known.environment or ""
        if self.episodes:
            require_playable(student.spaces, environment, loaded.folder, self.conditions)
        whose = loaded if "dataset" in loaded.provenance else known
        origin = lineage(whose.folder, whose.provenance) if self.data is None else Lineage(self.data)
        yield "data", Windows.concat(observed(origin, student))
        seeds = episode_seeds("evaluation", self.seed, self.episodes)
        for condition in conditions_in(environment, self.conditions) if self.episodes else ():
            episodes = play(student, environment, (condition,), seeds, f"the student's episodes, {condition}")
            yield f"{condition}, own", observations(episodes, student)

    def _latency(self, student: Policy, teacher: Policy) -> dict[str, Any] | None:
        """What a decision of each takes at batch 1 [us], ten in a row in turn."""
        from diffpolicy.recipes.export import latencies

        if not self.calls:
            return None
        taken = latencies([student, teacher], student, self.calls, row=10)
        found: dict[str, Any] = {"calls": self.calls}
        for name, times in zip(("student", "teacher"), taken, strict=True):
            p50, p99 = np.percentile(times, (50, 99))
            found[name] = {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}
        found["ratio"] = round(found["teacher"]["p50_us"] / found["student"]["p50_us"], 2)
        return found


def _print(rows: list[Agreement], latency: dict[str, Any] | None) -> None:
    """The table, and a line of time."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("states", "observations", "executed, RMS", "chunk, RMS", "energy distance"):
        table.add_column(name, no_wrap=True, justify="left" if name == "states" else "right")
    for row in rows:
        figures = ("-" if value is None else f"{value:.4f}" for value in (row.executed, row.chunk, row.energy))
        table.add_row(row.states, str(row.observations), *figures)
    console = Console()
    Console(width=max(console.width, 100)).print(table)
    print("in half ranges of the action; RMS: from the same noise" + _why_not(rows))
    if latency:
        shown = ", ".join(
            f"{n} {latency[n]['p50_us']:.0f} / {latency[n]['p99_us']:.0f} us" for n in ("student", "teacher")
        )
        print(f"a decision (p50 / p99): {shown}; {latency['ratio']:.1f} times as quick")


def _why_not(rows: list[Agreement]) -> str:
    return "; -: the policy makes its chunk of no noise, or of more than the first" if rows[0].executed is None else ""
