"""What demonstrations must be before a policy is trained on them, and what about them is worth a word.

An `Episode` is sound in itself; here is what only shows beside the spaces, or over many episodes.
Shapes: M rows of all episodes, A action, O observation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode, check_alike
from diffpolicy.errors import InputError

__all__ = ["SCALE_FLOOR", "UNBOUNDED", "Limits", "Spaces", "require_usable", "warnings_about"]

SCALE_FLOOR = (
    1e-2  # least half-range that a dimension without bounds is divided by [raw units]: constant ones stay calm
)
UNBOUNDED = 1e6  # bounds this wide or wider tell nothing, and the data's range is taken instead
OUTSIDE = 0.05  # share of observations outside their bounds from which on a word is due
FAR = 2.0  # widths of the bounds beyond them: normalised, this is 5, where the encoder cuts off
NARROW = 0.01  # share of the bounds' width that the data use, below which the network hardly sees them
STILL = 1e-9  # range that is no more than rounding [raw units, or widths of narrower bounds]
SATURATED = 0.25  # share of actions at a bound from which on a word is due
LEVELS = 1000  # numbers that single precision tells apart in the data's range, below which a word is due

Rows = npt.NDArray[np.floating[Any]]
Bound = npt.NDArray[np.float64]


class Limits(Protocol):
    """Bounds of a vector, element by element; infinite where there is none."""

    @property
    def low(self) -> Sequence[float]:
        """The least values."""
        ...

    @property
    def high(self) -> Sequence[float]:
        """The largest values."""
        ...


class Spaces(Protocol):
    """What `diffpolicy.policy.SpaceSpec` says of observations and actions."""

    @property
    def observations(self) -> Mapping[str, Limits]:
        """Bounds of each observation."""
        ...

    @property
    def action(self) -> Limits:
        """Bounds of the action."""
        ...


def require_usable(episodes: Sequence[Episode], spaces: Spaces, where: object = "the data") -> None:
    """Raise InputError, which calls the data `where`, unless a policy of these spaces can be trained on them.

    There must be episodes, with the observations and actions of the spaces; those without labels have two steps
    or more, since a chunk of one action teaches nothing; the actions to learn (labels, where there are some) lie
    within the action space: those outside are most often in other units, or in another order.
    """
    widths = {name: len(limits.low) for name, limits in spaces.observations.items()}
    try:
        check_alike(episodes, {**widths, "(action)": len(spaces.action.low)})
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    short = [number for number, episode in enumerate(episodes) if len(episode) < 2 and episode.labels is None]
    if short:
        raise InputError(
            f"expected demonstrations of 2 steps or more in {where}, got one step in {_listed('episode', short)}: a "
            "chunk of one action teaches nothing. Read the dataset, keep [e for e in episodes if len(e) > 1], and "
            "write these with write_dataset"
        )
    actions = _taught(episodes)
    if not len(actions):
        raise InputError(f"expected actions to learn in {where}, got labels none of which is valid; label it anew")
    outside = _outside(actions, spaces.action)
    if outside.any():
        low, high, _ = _bounds(spaces.action)
        i = int(outside.argmax())
        raise InputError(
            f"expected actions of {where} within the action space, got {100 * outside[i]:.0f}% of dimension {i} "
            f"outside [{low[i]:g}, {high[i]:g}] (they reach {actions[:, i].min():g} to {actions[:, i].max():g}); "
            "convert their units, or write the dataset with the space that they belong to"
        )


def warnings_about(episodes: Sequence[Episode], spaces: Spaces, known: Collection[str] = ()) -> list[str]:
    """What a policy trained on these episodes may suffer from, a sentence for each kind of it; often none.

    Dimensions that never change, use a sliver of their bounds or leave them, numbers too fine for single precision,
    and actions that are cut off at a bound. The episodes have passed `require_usable`. Of the observations named in
    `known`, whose maker meant them to be as they are, only those outside their bounds are spoken of.
    """
    said: list[str] = []
    for name, limits in spaces.observations.items():
        rows = np.concatenate([episode.obs[name] for episode in episodes])
        said += () if name in known else _about(f"observation {name!r}", rows, limits)
        said += _left(f"observation {name!r}", rows, limits)
    actions = _taught(episodes)
    return [*said, *_about("action", actions, spaces.action), *_cut_off(actions, spaces.action)]


def _about(what: str, rows: Rows, limits: Limits) -> Iterator[str]:
    """Of rows (M, D): what never changes, or so little that the network does not see it."""
    low, high, width = _bounds(limits)
    least, most = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
    span, fine = most - least, np.spacing(np.maximum(abs(least), abs(most)).astype(np.float32))
    tiny = STILL * np.minimum(width, 1.0)
    still, given = (span <= tiny) & (width > 0), width < UNBOUNDED
    if still.all():
        yield f"{what} never changes: right for the code of a task, wrong for a sensor"
    elif still.any():
        yield f"{what}, {_dimensions(still)}: constant, so that nothing is learned about any other value"
    coarse = (span > tiny) & (span < LEVELS * fine)
    if coarse.any():
        i = int(coarse.argmax())
        yield (
            f"{what}, {_dimensions(coarse)}: varies too finely for single precision ({least[i]:.7g} to {most[i]:.7g} "
            f"in steps of {fine[i]:.1g}); subtract an offset"
        )
    narrow = (span > tiny) & given & (span < NARROW * width)
    if narrow.any():
        i = int(narrow.argmax())
        yield (
            f"{what}, {_dimensions(narrow)}: less than {NARROW:.0%} of the bounds is used ({least[i]:g} to {most[i]:g} "
            f"in [{low[i]:g}, {high[i]:g}]), and since these set the scale, the network hardly sees it vary; write the "
            "dataset with a space of tighter bounds"
        )
    small = (span > tiny) & ~given & (span < SCALE_FLOOR)
    if small.any():
        i = int(small.argmax())
        yield (
            f"{what}, {_dimensions(small)}: without bounds, and varies by less than {SCALE_FLOOR:g} ({least[i]:g} to "
            f"{most[i]:g}), so that the network hardly sees it; change the unit, or write the dataset with bounds"
        )


def _left(what: str, rows: Rows, limits: Limits) -> Iterator[str]:
    """Of observations (M, O): those outside their bounds, if they are many or far."""
    low, high, width = _bounds(limits)
    reach = np.where(width < UNBOUNDED, FAR * width, np.inf) + _slack(limits)
    share = _outside(rows, limits)
    bad = (share > OUTSIDE) | ((rows < low - reach) | (rows > high + reach)).any(axis=0)
    if bad.any():
        i = int(np.where(bad, share, -1).argmax())
        yield (
            f"{what}, {_dimensions(bad)}: outside the bounds in up to {_percent(share[i])} of the steps "
            f"({rows[:, i].min():g} to {rows[:, i].max():g} for [{low[i]:g}, {high[i]:g}]); is it in the right units?"
        )


def _cut_off(actions: Rows, limits: Limits) -> Iterator[str]:
    """Of actions (M, A): those that sit at a bound, save switches, which take two or three values."""
    low, high, width = _bounds(limits)
    tight = np.where(np.isfinite(width), 1e-6 * width, 0.0)
    share = ((actions <= low + tight) | (actions >= high - tight)).mean(axis=0)
    cut = (share > SATURATED) & np.array([len(np.unique(column)) > 3 for column in actions.T])
    if cut.any():
        i = int(np.where(cut, share, -1).argmax())
        yield (
            f"action, {_dimensions(cut)}: at a bound in up to {_percent(share[i])} of the steps; if the demonstrator "
            "was cut off there, widen the action space"
        )


def _outside(rows: Rows, limits: Limits) -> Bound:
    """Share of rows (M, D) that lie clearly outside the bounds of each dimension."""
    low, high, _ = _bounds(limits)
    share: Bound = ((rows < low - _slack(limits)) | (rows > high + _slack(limits))).mean(axis=0)
    return share


def _slack(limits: Limits) -> Bound:
    """A thousandth of the width of the bounds, and what single precision rounds."""
    low, high, width = _bounds(limits)
    return np.where(np.isfinite(width), 1e-3 * width + 1e-6 * np.maximum(abs(low), abs(high)), 1e-3)


def _taught(episodes: Iterable[Episode]) -> Rows:
    """The actions (M, A) that training regresses on: labels where there are some, else what was executed."""
    return np.concatenate([e.actions if e.labels is None else e.labels.chunks[e.labels.valid] for e in episodes])


def _bounds(limits: Limits) -> tuple[Bound, Bound, Bound]:
    """Least and largest values and their distance, each (D,)."""
    low, high = np.array(limits.low, np.float64), np.array(limits.high, np.float64)
    with np.errstate(over="ignore"):
        return low, high, high - low


def _dimensions(chosen: npt.NDArray[np.bool_]) -> str:
    return _listed("dimension", [int(i) for i in np.flatnonzero(chosen)])


def _listed(noun: str, numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    return f"{noun}{'s' if len(numbers) > 1 else ''} {shown}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"
