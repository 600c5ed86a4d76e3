"""The one training loop; what a method needs beyond it lives in its update, its source or its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

from diffpolicy.errors import InputError

__all__ = ["Metrics", "Report", "Source", "Update", "fit", "taken_up"]

B = TypeVar("B")
B_contra = TypeVar("B_contra", contravariant=True)
B_co = TypeVar("B_co", covariant=True)

Metrics = Mapping[str, float]
"""What one update measured, by name."""

Report = Callable[[int, Metrics], object]
"""Called after each update with the step that was just made, counted from 0, and what it measured."""


class Update(Protocol[B_contra]):
    """Changes parameters given one batch, and can be stopped and taken up again from its state."""

    def __call__(self, batch: B_contra, /) -> Metrics: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class Source(Protocol[B_co]):
    """Gives the batch of a step: a pure function of the step, so that nothing of it needs saving."""

    def __call__(self, index: int, /) -> B_co: ...


def fit(update: Update[B], source: Source[B], steps: int, report: Report, start: int = 0) -> None:
    """Make the updates start, start + 1, ..., steps - 1 and report each; `start` > 0 resumes."""
    for step in range(start, steps):
        report(step, update(source(step)))


@contextmanager
def taken_up(what: str) -> Iterator[None]:
    """Turns the errors of loading a state that is of another `what` into an InputError that says so."""
    try:
        yield
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the training state does not fit this {what} ({error}); resume with the settings that the run was started "
            "with, or train from the start"
        ) from error
