"""State rows (S,): what lies where in them, what they may hold, and the episode's own variables among it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.checks import as_numbers
from diffpolicy_envs.task import Array, Task

__all__ = [
    "COUNT",
    "EPISODE",
    "QUIET",
    "SEED",
    "SEIZED",
    "SEIZED_LEFT",
    "SHOVE_ANGLE",
    "SHOVE_SPEED",
    "SHOVE_STEP",
    "SLIP_HEIGHT",
    "STEP",
    "UNREACHED",
    "Rows",
]

SEIZED = 5  # control steps for which a shove or a slip holds the controls
UNREACHED = 1e6  # a height at which nothing slips [m]
NEVER = -1.0  # no shove is due

# columns of an episode's own variables, kept beside MuJoCo's state
STEP, SEED, COUNT, SHOVE_STEP, SHOVE_ANGLE, SHOVE_SPEED, SLIP_HEIGHT, SEIZED_LEFT, QUIET = range(9)
EPISODE = 9
_WHOLE = [STEP, SEED, COUNT, SHOVE_STEP, SEIZED_LEFT, QUIET]
_LEAST = np.array([0.0, 0.0, 0.0, NEVER, 0.0, 0.0, 0.0, 0.0, 0.0])
_MOST = np.array(
    [0.0, 2.0**53 - 1, 2.0**53 - 1, np.inf, 2 * np.pi, np.inf, np.inf, SEIZED, 1.0]
)  # the step's: the task's
_PAST_THE_END = 10_000  # control steps that one may step on past the time limit


class Rows:
    """Layout of a state row: MuJoCo's state, the varied model fields, the episode, the delay line, the records.

    Args:
        task: the task.
        state: length of MuJoCo's own state.
        fields: length of each varied model field.
        delay: the action delay in control steps.
    """

    def __init__(self, task: type[Task], state: int, fields: list[int], delay: int) -> None:
        sizes = [state, *fields, EPISODE, delay * task.action_size, len(task.records)]
        self.size = sum(sizes)
        self._ends = np.cumsum(sizes)[:-1]
        self._start = state + sum(fields)  # of the episode
        self._most = _MOST.copy()
        self._most[STEP] = task.max_steps + _PAST_THE_END

    def checked(self, states: npt.ArrayLike, count: int | None = None) -> Array:
        """A copy of state rows, as (n, S) float64.

        Raises:
            ValueError: not ``count`` rows, where that is given, or of another length, or not finite, or their
                episode's variables are out of their ranges.
        """
        rows = as_numbers("states", states).copy()
        if (
            rows.shape != (len(rows) if count is None and rows.ndim else count, self.size)
            or not np.isfinite(rows).all()
        ):
            raise ValueError(
                f"expected finite states of shape {('n' if count is None else count, self.size)}, got shape "
                f"{rows.shape} or a NaN; states fit only the task and the action delay that they were saved under"
            )
        episode = rows[:, self._start : self._start + EPISODE]
        whole = episode[:, _WHOLE]
        if (whole != np.floor(whole)).any() or (episode < _LEAST).any() or (episode > self._most).any():
            raise ValueError(
                f"expected states as get_state gave them: their step, seed or disturbance, columns {self._start} to "
                f"{self._start + EPISODE - 1}, are out of range; they are of another task, or were written to"
            )
        return rows

    def split(self, rows: Array) -> tuple[Array, list[Array], Array, Array, Array]:
        """MuJoCo's state, the fields, the episode, the delay line and the records, each with n rows."""
        state, *fields, episode, delay, records = np.split(rows, self._ends, axis=1)
        return state, fields, episode, delay, records

    def undisturbed(self, states: npt.ArrayLike) -> Array:
        """The same states (n, S) with no shove, slip or sensor noise still to come.

        Raises:
            ValueError: as ``checked``.
        """
        rows = self.checked(states)
        episode = rows[:, self._start : self._start + EPISODE]
        episode[:, [SHOVE_STEP, SLIP_HEIGHT, SEIZED_LEFT, QUIET]] = NEVER, UNREACHED, 0.0, 1.0
        return rows
