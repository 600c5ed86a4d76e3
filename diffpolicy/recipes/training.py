"""The training of a policy as a stage on disk: logs, checkpoints, interruption and resumption."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

from diffpolicy.data.batch import Demo
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import Windows
from diffpolicy.errors import InputError
from diffpolicy.policy.checkpoint import load_checkpoint, mend_checkpoint, save_checkpoint
from diffpolicy.policy.policy import Policy
from diffpolicy.policy.train_state import load_train_state
from diffpolicy.recipes.validation import SHOWN, Validation, Validator
from diffpolicy.training.fit import Report, Source, Update, fit
from diffpolicy.training.logs import JsonLines, Progress, TensorBoard, chain, every
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Regression
from diffpolicy.updates.targets import Target

__all__ = ["Companion", "Interrupt", "Stage", "Trained", "finish", "train"]

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)


class Trained(Update[B_contra], Protocol[B_contra]):
    """An update of a policy, of a given length."""

    @property
    def step(self) -> int:
        """Updates made."""

    @property
    def steps(self) -> int:
        """Updates in all."""

    def averaged(self) -> Policy:
        """A copy of the policy as it is to be used."""


class Companion(Protocol):
    """What a training has beside its update that must be taken up again with it."""

    def about(self) -> dict[str, Any]:
        """What a checkpoint's provenance says of it."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class Stage:
    """Where a training stage lives and how long it is."""

    folder: Path  # gets checkpoint/, train.jsonl, tensorboard/, and best/ where something is validated
    environment: str
    steps: int
    batch_size: int
    seed: int
    checkpoint_every: int
    title: str
    provenance: Mapping[str, Any]
    validation: Validation | None = None
    metric: str = "loss"  # that is shown
    beside: tuple[str, ...] = ()  # and further ones
    log_every: int = 10


def train(
    policy: Policy,
    windows: Windows,
    config: RegressionConfig,
    stage: Stage,
    target: Target | None = None,
    teacher: Policy | None = None,
    source: Source[Demo] | None = None,
) -> Policy:
    """Train ``policy`` in place and return its averaged copy, which is also in ``folder/checkpoint``.

    It is trained towards its model's own target, or towards another, which may ask a teacher, on batches of the
    windows, or of a source of the same length.
    A stage that was interrupted goes on from its last checkpoint, bit for bit on the same machine and thread
    count; one that is complete is only loaded. Raises InputError where the checkpoint there is damaged or of
    another stage, and OSError where one cannot be saved; the message says what stands on disk.
    """
    if min(stage.steps, stage.batch_size, stage.checkpoint_every) < 1:
        raise InputError(
            f"expected steps, batch_size and checkpoint_every >= 1, got {stage.steps}, {stage.batch_size} and "
            f"{stage.checkpoint_every}"
        )
    update = Regression(policy, stage.steps, config, seed=stage.seed, target=target, teacher=teacher)
    return finish(update, source or shuffled(windows, stage.batch_size, stage.seed), stage, windows)


def finish(
    update: Trained[B],
    source: Source[B],
    stage: Stage,
    windows: Windows | None = None,
    companions: Mapping[str, Companion] | None = None,
) -> Policy:
    """Make the updates of a stage that are not made yet and return the policy, which is also in ``folder/checkpoint``.

    As `train`, whose rules and errors hold here. `windows` is what is trained on, for validation; the companions are
    saved and taken up with the update, by name.
    """
    validator = None if stage.validation is None else Validator(update, windows, stage, stage.validation)
    beside = {**(companions or {}), **({} if validator is None else {"validation": validator})}
    folder = stage.folder / "checkpoint"
    seconds = _resume(update, beside, folder) if mend_checkpoint(folder) else 0.0
    start, began = update.step, time.monotonic()
    if validator is not None and 0 < start < stage.steps:
        validator.require_best()
    if 0 < start < stage.steps:
        print(f"{stage.title}: goes on from step {start} of {stage.steps}")

    def took() -> float:
        return seconds + time.monotonic() - began

    def save(*_: object) -> None:
        _save(update, beside, stage, took())

    if start >= stage.steps:
        try:
            load_checkpoint(folder)
        except InputError:  # the training state is whole, so what it made can be made again
            save()
        return update.averaged()
    with (
        JsonLines(stage.folder / "train.jsonl", start) as lines,
        TensorBoard(stage.folder / "tensorboard", start) as board,
        Progress(stage.steps, start, stage.metric, stage.title, beside=(*stage.beside, *SHOWN)) as progress,
        Interrupt() as interrupt,
    ):
        report = chain(
            _listening(stage, validator, chain(lines, board), progress, took),
            every(stage.checkpoint_every, save, stage.steps),
            interrupt,
        )
        try:
            fit(update, source, stage.steps, report, start)
        except KeyboardInterrupt:
            if validator is None or not validator.busy:  # else the last checkpoint is what can be gone on from exactly
                save()
            raise
    return update.averaged()


def _listening(
    stage: Stage, validator: Validator | None, log: Report, progress: Progress, took: Callable[[], float]
) -> Report:
    """Validates, logs every few updates and each that was validated, and shows progress."""
    now_and_then = every(stage.log_every, log, stage.steps)

    def report(step: int, metrics: Mapping[str, float]) -> None:
        found = {} if validator is None else validator(step, partial(progress, step - 1), took)
        (log if found else now_and_then)(step, {**metrics, **found})
        progress(step, {**metrics, **found})

    return report


def _save(update: Trained[Any], beside: Mapping[str, Companion], stage: Stage, seconds: float) -> None:
    """Write the stage's checkpoint after it has taken so many seconds."""
    about = {name: value for each in beside.values() for name, value in each.about().items()}
    save_checkpoint(
        update.averaged(),
        stage.folder / "checkpoint",
        environment=stage.environment,
        provenance={**stage.provenance, "steps": update.step, "train_s": round(seconds, 2), **about},
        train_state={
            "update": update.state_dict(),
            "seconds": seconds,
            **{name: each.state_dict() for name, each in beside.items()},
        },
    )


def _resume(update: Trained[Any], beside: Mapping[str, Companion], folder: Path) -> float:
    """Take training up from a checkpoint; returns the seconds that it has taken."""
    try:
        state = load_train_state(folder)
    except InputError as error:
        raise InputError(f"{error}; or train from the start with --overwrite, or into another --out") from error
    try:
        update.load_state_dict(state["update"])
        seconds = float(state["seconds"])
        for name, each in beside.items():
            each.load_state_dict(state[name])
        if not 0 <= update.step <= update.steps or not seconds >= 0:
            raise ValueError(f"step {update.step} and {seconds} s")
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected in {folder} the training state of this stage of {update.steps} steps, got {error}; go on with "
            "the command that began it, name another --out, or add --overwrite to train from the start"
        ) from error
    return seconds


class Interrupt:
    """Holds Ctrl-C and SIGTERM back until the update under way is complete, so that what is saved is whole.

    The second of them is not held back.
    """

    def __enter__(self) -> Self:
        self._asked = False
        ours = threading.current_thread() is threading.main_thread()
        self._held = ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._old = signal.getsignal(signal.SIGTERM)
        if self._held:
            signal.signal(signal.SIGINT, self._note)
            signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, *_: object) -> None:
        if self._asked:
            os._exit(130)  # what was saved before is whole; an update that does not end would not let go
        self._asked = True

    def __call__(self, *_: object) -> None:
        """Raises KeyboardInterrupt where Ctrl-C was pressed since the last call."""
        if self._asked:
            self._asked = False
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        if self._held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, self._old)
        self()
