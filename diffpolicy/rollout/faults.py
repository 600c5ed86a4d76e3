"""What goes wrong inside an environment: the checks that find it, and the report of the episode that it costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from diffpolicy.errors import InputError

__all__ = [
    "DIVERGED",
    "FAULT",
    "Drop",
    "Dropped",
    "Physics",
    "UnansweredError",
    "Watched",
    "blamed",
    "broken_rows",
    "count_of",
    "finite",
    "misfit",
    "reported_faults",
    "told",
]

_LARGEST = float(np.finfo(np.float32).max)
FAULT = "diffpolicy/fault"  # under this name a guarded environment's info says what went wrong
DIVERGED = "the physics diverged"
_GIVEN_UP = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)


@dataclass(frozen=True)
class Dropped:
    """An episode that its environment broke: it is reported, and counted nowhere."""

    environment: str
    condition: str
    seed: int  # reset seed
    step: int  # the step that failed, counted from 1; 0: the reset
    error: str  # in words

    def __str__(self) -> str:
        when = f"step {self.step}" if self.step else "the reset"
        return f"{self.environment}, {self.condition}, reset seed {self.seed}, {when}: {self.error}"


Drop = Callable[[Dropped], object]
"""Called with each episode that is dropped."""


def count_of(dropped: Sequence[Dropped]) -> str:
    """How many episodes were dropped and why, in one line; each reason with the first episode that it struck."""
    reasons: dict[str, list[Dropped]] = {}
    for each in dropped:
        reasons.setdefault(each.error, []).append(each)
    first = [f"{len(group)} x {group[0]}" for group in reasons.values()]
    more = [f"{len(first) - 3} further reasons"] if len(first) > 3 else []
    return f"{len(dropped)} episode{'s' * (len(dropped) != 1)} dropped: " + "; ".join(first[:3] + more)


class UnansweredError(InputError):
    """An actor has no action for some of the rows (n,) that it was asked about: those episodes are lost, no others.

    Asked again without them, from the same state, it answers for the others what it would have answered.

    Args:
        faults: place among the rows -> why.
    """

    def __init__(self, faults: Mapping[int, str]) -> None:
        super().__init__(next(iter(faults.values())))
        self.faults = dict(faults)


class Physics:
    """Whether MuJoCo gave up the simulation of a single environment, of whatever package, and started it afresh.

    MuJoCo does so by itself, and what is observed stays finite. Ours say so in info; of others that keep their
    ``mujoco.MjData`` as ``data``, as gymnasium's own do, MuJoCo's warnings are counted.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        self._core: Any = env.unwrapped
        self._count = self._counted()

    def fault(self, info: Any) -> str:
        """What went wrong since the last call, as info and the counts have it; "" where nothing did."""
        before, self._count = self._count, self._counted()
        said = info.get("diverged") if isinstance(info, Mapping) else None
        return DIVERGED if self._count > before or _true(said) else ""

    def _counted(self) -> int:
        data = getattr(self._core, "data", None)
        return sum(data.warning.number[_GIVEN_UP].tolist()) if isinstance(data, mujoco.MjData) else 0


class Watched(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A single environment that says at once what other code would stumble over later.

    Raises ValueError where an observation does not fit its space, a number is not finite, or the physics diverged.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._physics = Physics(env)

    def reset(self, **words: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, info = self.env.reset(**words)
        self._require(self._physics.fault(info) or misfit(self.observation_space, observation))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One control step."""
        observation, reward, *flags, info = self.env.step(action)
        self._require(self._physics.fault(info) or misfit(self.observation_space, observation))
        self._require("" if finite(reward) else f"the reward is {reward}")
        return observation, reward, flags[0], flags[1], info

    def _require(self, fault: str) -> None:
        if fault:
            raise ValueError(fault)


@contextmanager
def blamed(environment: str) -> Iterator[None]:
    """What a training raises in this block is its environment's fault: InputError, with the environment's name."""
    try:
        yield
    except (InputError, MemoryError, OSError):
        raise
    except Exception as error:
        raise InputError(
            f"{environment} failed in training ({told(error)}); mend it, and the same command goes on from the last "
            "state that was saved"
        ) from error


def told(error: BaseException) -> str:
    """An exception in one line."""
    words = " ".join(str(error).split())
    words = words if len(words) <= 300 else words[:297] + "..."
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def misfit(space: spaces.Space[Any], observation: Any, name: str = "the observation") -> str:
    """Why an observation does not have the names, shapes and numbers of its space; "" where it has.

    Bounds are not looked at: many environments leave theirs.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(observation, Mapping) or not set(observation) >= set(space.spaces):
            came = sorted(map(str, observation)) if isinstance(observation, Mapping) else type(observation).__name__
            return f"{name} should have the names {sorted(space.spaces)}, got {came}"
        parts = (misfit(part, observation[key], f"observation {key!r}") for key, part in space.spaces.items())
        return next(filter(None, parts), "")
    if space.shape is None or space.dtype is None:  # no array
        return ""
    try:
        value = np.asarray(observation)
    except ValueError:  # ragged
        return f"{name} should be an array of shape {space.shape}, got {type(observation).__name__}"
    if value.shape != space.shape or not np.can_cast(value.dtype, space.dtype, "same_kind"):
        return f"{name} should be {space.dtype} of shape {space.shape}, got {value.dtype} of shape {value.shape}"
    return "" if np.all(finite(value)) else f"{name} is not finite"


def broken_rows(
    obs: Mapping[str, npt.NDArray[np.float32]], reward: npt.ArrayLike | None, rows: npt.NDArray[np.intp]
) -> dict[int, str]:
    """Those of some simulations (n,) whose observation (N, ...) or reward (N,) is not finite, and which it is."""
    broken: dict[int, str] = {}
    parts = {f"observation {name!r}": value for name, value in obs.items()}
    if reward is not None:
        parts["the reward"] = np.asarray(reward)
    for name, value in parts.items():
        good = finite(value[rows])
        if not good.all():
            for row in rows[~good.reshape(len(rows), -1).all(axis=1)]:
                broken.setdefault(int(row), f"{name} is not finite")
    return broken


def reported_faults(info: Mapping[str, Any], rows: npt.NDArray[np.intp]) -> dict[int, str]:
    """Those of some simulations (n,) of which a vector environment's info (N,) says that they broke, and how."""
    faults: dict[int, str] = {}
    said = info.get("diverged")
    if isinstance(said, np.ndarray) and said.ndim == 1:
        struck = rows[said[rows]] if said.dtype == bool else [row for row in rows if _true(said[row])]
        faults |= {int(row): DIVERGED for row in struck}
    if FAULT in info:
        faults |= {int(row): str(info[FAULT][row]) for row in rows if info[f"_{FAULT}"][row]}
    return faults


def _true(said: Any) -> bool:
    """Whether something that an info says is a single true."""
    value = said.item() if isinstance(said, np.ndarray | np.generic) and said.size == 1 else said
    return isinstance(value, bool | int | float) and value == 1


def finite(value: Any) -> Any:
    """Where a value is finite in single precision, in which episodes are kept."""
    return np.abs(value) <= _LARGEST  # NaN is not
