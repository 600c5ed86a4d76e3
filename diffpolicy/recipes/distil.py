"""Distil: a policy of many steps becomes a student of one or a few, by regression on what the teacher says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from diffpolicy.errors import InputError
from diffpolicy.recipes.checks import checked_training
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.lineage import Lineage, lineage, spent_on
from diffpolicy.recipes.run import CONDITIONS_BY_DEFAULT, open_run, program, provenance, use_threads
from diffpolicy.updates import RegressionConfig

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.data.windows import Windows
    from diffpolicy.policy.policy import Policy
    from diffpolicy.updates.targets import Target
    from diffpolicy.updates.walked import Walked

__all__ = ["Distil"]

_FIRST = 500_000  # of a seed's episodes for correction: the ones before it are the teacher's


@dataclass(frozen=True)
class Distil:
    """Distil a policy into a student of one or a few steps, which begins as the teacher; observations suffice."""

    checkpoint: Path = Path("runs/bc")
    """The teacher: a checkpoint folder, or the run that holds it."""
    out: Path = Path("runs/student")
    """Folder of the run."""
    method: Literal["paired", "progressive", "consistency", "score"] = "paired"
    """paired: walk the teacher's chain from the same noise; progressive: the same, halving the steps again and again;
    consistency: say one chunk all along a chain (needs the demonstrations' actions); score: follow the difference of
    the teacher's and the student's score."""
    student_steps: int = 1
    """Steps of the student: calls of its network a decision."""
    teacher_steps: int = 50
    """Steps of the teacher, noiseless, at least."""
    data: Path | None = None
    """Dataset to take observations from; by default what the teacher was trained on, rollouts included."""
    environment: str | None = None
    """Gymnasium id; by default the teacher's."""
    rounds: int = 0
    """Rounds of playing the student, to train on the observations that it meets itself as well; 0: none."""
    rollouts: int = 32
    """Episodes a round, shared among the conditions."""
    conditions: tuple[str, ...] = CONDITIONS_BY_DEFAULT
    """Disturbances to play under; those that the environment does not know are left out."""
    optimiser: RegressionConfig = field(default_factory=lambda: RegressionConfig(lr=1e-3))
    """How it is trained."""
    steps: int = 6000
    """Updates in all, shared evenly by the stages: the first, and the rounds or halvings after it."""
    batch_size: int = 128
    """Windows per update."""
    reuse: int = 8
    """Updates that learn from a chain of the teacher's once it is drawn, with paired and progressive."""
    seed: int = 0
    """Of rollouts, order of the data, times and noise."""
    checkpoint_every: int = 2000
    """Updates between checkpoints."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Distil (or go on distilling) and return the student's checkpoint folder."""
        checked_training(self)
        for name, least in (("student_steps", 1), ("rollouts", 1), ("rounds", 0), ("reuse", 1)):
            if getattr(self, name) < least:
                raise InputError(f"expected {name} >= {least}, got {getattr(self, name)}; correct it")
        if self.teacher_steps < 2 * self.student_steps:
            raise InputError(
                f"expected teacher_steps >= {2 * self.student_steps}, twice the student's, got {self.teacher_steps}; "
                "raise it"
            )
        if self.rounds and self.method in ("progressive", "consistency"):
            raise InputError(
                f"expected rounds 0 with method {self.method!r}, got {self.rounds}; take paired or score, which learn "
                "on the student's own observations"
            )
        if self.steps < len(self._plan()):
            raise InputError(
                f"expected steps >= {len(self._plan())}, an update for each of the stages, got {self.steps}; raise it"
            )
        with claimed(self.out):
            return self._distil()

    def _plan(self) -> list[int]:
        """The student's steps in each stage; the last of them are played where there are rounds."""
        lengths = [self.student_steps]
        while self.method == "progressive" and 4 * lengths[0] <= self.teacher_steps:
            lengths.insert(0, 2 * lengths[0])
        return lengths + self.rounds * [self.student_steps]

    def _distil(self) -> Path:
        from diffpolicy.data.windows import Windows
        from diffpolicy.policy.checkpoint import checkpoint_of, copy_checkpoint, load_checkpoint
        from diffpolicy.recipes.observed import observations, observed
        from diffpolicy.recipes.playing import require_playable
        from diffpolicy.recipes.training import Stage, train
        from diffpolicy.updates.distilling import student_of

        source = checkpoint_of(self.checkpoint)
        loaded = load_checkpoint(source)
        teacher, environment = loaded.policy, self.environment or loaded.environment or ""
        if teacher.config.model == "student":
            raise InputError(
                f"expected a teacher of many steps in {source}, got a student of one; distil its own teacher"
            )
        student = student_of(teacher, self.student_steps, clean=True)
        if self.rounds:
            require_playable(teacher.spaces, environment, source, self.conditions)
        origin = lineage(source, loaded.provenance) if self.data is None else Lineage(self.data)
        parts = observed(origin, teacher, actions=self.method == "consistency")
        threads, plan = use_threads(self.threads), self._plan()
        (spent, train_s), calls = spent_on(source, loaded.provenance), 0
        open_run(self, self.out, self.overwrite, {"checkpoint": source, **origin.inputs()})
        for index, steps in enumerate(plan):
            folder = self.out / f"round-{index + 1}"
            if len(plan) - index <= self.rounds:
                episodes = self._played(folder / "rollouts", index + 1, environment, student)
                parts.append(observations(episodes, teacher))
                spent["env_steps"] += sum(map(len, episodes))
            elder = student if index and self.method == "progressive" else teacher
            pupil = student_of(student if index else teacher, steps, clean=True)
            target, elder = self._target(elder, pupil)
            updates = self.steps // len(plan) + (self.steps % len(plan) if index == 0 else 0)
            seed, table = self.seed + 1000 * index, Windows.concat(parts)
            chains = self._chains(elder, pupil, table, updates, seed)
            calls += self._calls(chains, updates)
            about = provenance(
                self, method="distil", round=index + 1, teacher=os.path.relpath(source, self.out), threads=threads,
                parent_train_s=train_s, teacher_calls=calls, **origin.noted(self.out), **spent,
            )  # fmt: skip
            stage = Stage(
                folder, environment, updates, self.batch_size, seed, self.checkpoint_every,
                f"distillation, round {index + 1} of {len(plan)}", about,
            )  # fmt: skip
            student = train(pupil, table, self.optimiser, stage, target, elder, chains)
            train_s += float(load_checkpoint(folder / "checkpoint").provenance["train_s"])
        final = copy_checkpoint(folder / "checkpoint", self.out / "checkpoint")
        self._tell(student, teacher, parts)
        print(f"checkpoint: {final}   try: {program()} evaluate {self.out}")
        return final

    def _target(self, elder: Policy, pupil: Policy) -> tuple[Target, Policy]:
        """What the pupil is regressed on, and whom that asks."""
        from diffpolicy.updates.distilling import aligned, consistency, paired
        from diffpolicy.updates.score import ScoreDifference

        count = len(pupil.sampler)
        if self.method == "score":
            return ScoreDifference(elder, count), elder
        if self.method == "consistency":
            return consistency, aligned(elder, pupil, self.teacher_steps)
        halving = elder.config.model == "student"
        return paired, aligned(elder, pupil, 2 * count if halving else self.teacher_steps)

    def _chains(self, elder: Policy, pupil: Policy, table: Windows, updates: int, seed: int) -> Walked | None:
        """The teacher's chains that a stage learns from; None where its target asks the teacher itself."""
        from diffpolicy.updates.walked import Walked

        if self.method in ("consistency", "score"):
            return None
        return Walked(table, elder, len(pupil.sampler), self.batch_size, updates, self.reuse, seed)

    def _calls(self, chains: Walked | None, updates: int) -> int:
        """Calls of a stage's teacher, each for one window."""
        if chains is not None:
            return chains.teacher_calls
        return self.batch_size * updates * (self.student_steps if self.method == "score" else 1)

    def _played(self, path: Path, number: int, environment: str, student: Policy) -> Sequence[Episode]:
        """A round's episodes of the student, from disk where they are complete."""
        from diffpolicy.data.dataset import read_dataset
        from diffpolicy.recipes.playing import keep, play
        from diffpolicy.rollout.seeds import episode_seeds

        if path.is_dir():
            return read_dataset(path).episodes
        seeds = episode_seeds("correction", self.seed, self.rollouts, start=_FIRST + number * self.rollouts)
        episodes = play(student, environment, self.conditions, seeds, f"rollouts of round {number}")
        return keep(path, episodes, environment, f"the student's episodes of round {number}", provenance(self))

    def _tell(self, student: Policy, teacher: Policy, parts: Sequence[Windows]) -> None:
        """Print how far student and teacher lie apart: on the data, and on what the student met last."""
        import torch

        from diffpolicy.updates.distilling import aligned, disagreement
        from diffpolicy.updates.validation import chosen

        elder = aligned(teacher, student, self.teacher_steps)
        shape = (512, teacher.config.horizon, len(teacher.spaces.action))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(self.seed))
        for name, part in {
            "the data": parts[0],
            **({"its own observations": parts[-1]} if self.rounds else {}),
        }.items():
            apart = disagreement(student, elder, part.gather(chosen(part, len(noise), self.seed)), noise)
            print(f"apart from the teacher on {name}: {apart:.4f} of the action's half range (RMS, same noise)")
