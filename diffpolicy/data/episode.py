"""What happened in one episode, as arrays whose invariants are checked once, when it is made.

Shapes: T environment steps, O observation, A action, S simulator state, L label length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.errors import InputError

__all__ = ["BOX_NAME", "Episode", "Labels", "as_float32", "check_alike", "flattened", "from_arrays", "nested"]

BOX_NAME = "observation"  # the name that a Box observation goes by


@dataclass(frozen=True, eq=False)
class Labels:
    """What a labeller would have done from each visited state.

    `chunks[t, k]` is the labeller's action at time t + k, had it taken over at time t; `valid[t, k]` says
    whether that action exists. Raises InputError where shapes disagree, or values are not finite.
    """

    chunks: npt.NDArray[np.float32]  # (T, L, A)
    valid: npt.NDArray[np.bool_]  # (T, L)

    def __post_init__(self) -> None:
        _check_array("labels.chunks", self.chunks, np.float32, ("T", "L", "A"))
        _check_array("labels.valid", self.valid, np.bool_, self.chunks.shape[:2])


@dataclass(frozen=True, eq=False)
class Episode:
    """One episode: T actions, and the T + 1 observations around them, in raw units.

    A Box observation is the mapping {"observation": x}; names may be nested like "hand/position". Raises
    InputError, naming the field, where a type, shape or length is wrong or a value is not finite.
    """

    obs: Mapping[str, npt.NDArray[np.float32]]  # each (T+1, O)
    actions: npt.NDArray[np.float32]  # (T, A)
    rewards: npt.NDArray[np.float32]  # (T,)
    terminated: bool
    truncated: bool
    success: bool
    seed: int = -1  # the seed that the environment was reset with; -1: unknown
    condition: str = "clean"  # name of the perturbation that it was recorded under
    states: npt.NDArray[np.float64] | None = None  # (T, S), the state in which each action was chosen
    labels: Labels | None = None
    records: Mapping[str, float] = field(default_factory=dict)  # what else the environment says of it, at its end

    def __post_init__(self) -> None:
        _check_array("actions", self.actions, np.float32, ("T", "A"))
        steps, width = self.actions.shape
        _check_array("rewards", self.rewards, np.float32, (steps,))
        if not isinstance(self.obs, Mapping) or not self.obs:
            raise InputError(
                f"obs: expected a mapping of at least one name to an array (T+1, O), "
                f"got {_describe(self.obs)}. "
                'A single array is the mapping {"observation": array}.'
            )
        for name, rows in self.obs.items():
            if not isinstance(name, str) or not name.isprintable() or {"", "."} & set(name.split("/")):
                raise InputError(f"obs: expected names like 'hand' or 'hand/position', got {name!r}; rename it.")
            _check_array(f"obs[{name!r}]", rows, np.float32, (steps + 1, "O"))
        if self.states is not None:
            _check_array("states", self.states, np.float64, (steps, "S"))
        if self.labels is not None:
            if not isinstance(self.labels, Labels):
                raise InputError(f"labels: expected Labels(chunks, valid) or None, got {_describe(self.labels)}.")
            _check_array("labels.chunks", self.labels.chunks, np.float32, (steps, "L", width))
        self._check_scalars()

    def _check_scalars(self) -> None:
        for name in ("terminated", "truncated", "success"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise InputError(f"{name}: expected a bool, got {value!r}; convert it with bool().")
            object.__setattr__(self, name, bool(value))
        if not isinstance(self.seed, int | np.integer) or not -1 <= self.seed < 2**63:
            raise InputError(f"seed: expected a 64-bit integer from 0, or -1 for unknown, got {self.seed!r}.")
        if not isinstance(self.condition, str) or not self.condition or not self.condition.isprintable():
            raise InputError(f'condition: expected a name such as "clean", got {self.condition!r}.')
        object.__setattr__(self, "seed", int(self.seed))
        object.__setattr__(self, "obs", dict(self.obs))
        object.__setattr__(self, "records", {str(name): float(value) for name, value in self.records.items()})

    def __len__(self) -> int:
        """Number of environment steps, T."""
        return len(self.actions)

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of the rewards."""
        return float(self.rewards.sum(dtype=np.float64))


def from_arrays(
    obs: npt.ArrayLike | Mapping[str, npt.ArrayLike],  # (N, O), or a mapping of names to such arrays
    actions: npt.ArrayLike,  # (N, A)
    episode_ends: npt.ArrayLike,  # (E,) ascending, each one past the last row of its episode; the last is N
    rewards: npt.ArrayLike | None = None,  # (N,)
    success: Sequence[bool] | npt.NDArray[np.bool_] | None = None,  # (E,)
    terminated: Sequence[bool] | npt.NDArray[np.bool_] | None = None,  # (E,); else it was truncated
) -> list[Episode]:
    """Episodes from arrays that hold N steps end to end, as replay buffers of imitation learning do.

    They have no observation after the last action: the last row stands for it, and no window reads it. Missing
    rewards are 0, missing flags False. Raises InputError where lengths disagree or values are not finite.
    """
    tables = {name: as_float32(f"obs[{name!r}]", x) for name, x in flattened(obs).items()}
    played = as_float32("actions", actions)
    gained = np.zeros(len(played), np.float32) if rewards is None else as_float32("rewards", rewards)
    ends = np.asarray(episode_ends)
    if ends.dtype.kind not in "iu" or ends.ndim != 1 or not ends.size or (np.diff(ends, prepend=0) < 1).any():
        raise InputError(f"episode_ends: expected ascending integers of shape (E,), E >= 1, got {ends}.")
    count = len(ends)
    for name, rows in {**tables, "actions": played, "rewards": gained}.items():
        if len(rows) != ends[-1]:
            raise InputError(f"{name}: expected the {ends[-1]} rows that episode_ends names, got {len(rows)}.")
    given = {"success": success, "terminated": terminated}
    flags = {name: [False] * count if flag is None else flag for name, flag in given.items()}
    for name, flag in flags.items():
        if len(flag) != count:
            raise InputError(f"{name}: expected one flag for each of {count} episodes, got {len(flag)}.")
    return [
        Episode(
            obs={name: np.concatenate([x[begin:end], x[end - 1 : end]]) for name, x in tables.items()},
            actions=played[begin:end].copy(),
            rewards=gained[begin:end].copy(),
            terminated=flags["terminated"][number],
            truncated=not flags["terminated"][number],
            success=flags["success"][number],
        )
        for number, (begin, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True))
    ]


def check_alike(episodes: Sequence[Episode], expected: Mapping[str, int] | None = None) -> None:
    """Raise InputError unless there are episodes, and all have one set of observation names and widths.

    `expected` maps each name, and "(action)", to its width; without it, the first episode sets the measure.
    """
    if not episodes:
        raise InputError("episodes: expected at least one, got none. Collect or read some first.")
    for number, episode in enumerate(episodes):
        if not isinstance(episode, Episode):
            raise InputError(f"episode {number}: expected an Episode, got {_describe(episode)}; see from_arrays.")
        came = {name: rows.shape[1] for name, rows in episode.obs.items()}
        came["(action)"] = episode.actions.shape[1]
        expected = came if expected is None else expected
        if came != expected:
            raise InputError(
                f"episode {number}: expected the names and widths {expected}, got {came}. "
                "Keep the episodes of different environments apart."
            )


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"a/b": x} as {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *branches, last = name.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
            if not isinstance(node, dict):
                raise InputError(f"observation names: {name!r} lies below another name; rename one of them.")
        if last in node:
            raise InputError(f"observation names: another name lies below {name!r}; rename one of them.")
        node[last] = leaf
    return tree


def flattened(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": x}} as {"a/b": x}; anything but a mapping is {"observation": x}."""
    if not isinstance(tree, Mapping):
        return {prefix.rstrip("/") or "observation": tree}
    return {key: leaf for name, part in tree.items() for key, leaf in flattened(part, f"{prefix}{name}/").items()}


def as_float32(field: str, values: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """`values` as float32; what does not fit becomes infinite. Raises InputError unless they are numbers."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" or array.ndim < 1:
        raise InputError(f"{field}: expected an array of numbers, got {_describe(array)}.")
    with np.errstate(over="ignore"):  # Episode refuses what is infinite
        return array.astype(np.float32)


def _check_array(field: str, array: Any, dtype: type, shape: tuple[int | str, ...]) -> None:
    """Raise InputError unless `array` has this type and shape (a letter: any size from 1) and is finite."""
    expected = f"{np.dtype(dtype).name} of shape ({', '.join(map(str, shape))})"
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise InputError(f"{field}: expected {expected}, got {_describe(array)}. Convert it with np.asarray.")
    fits = array.ndim == len(shape) and all(
        size >= 1 if isinstance(want, str) else size == want for size, want in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise InputError(
            f"{field}: expected {expected}, got {_describe(array)}. "
            "An episode has T >= 1 actions, T rewards, T+1 observations, and T states and labels if any."
        )
    if not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            f"{field}: expected finite values, got {array[first]} at {first}. Drop or repair this episode."
        )


def _describe(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}" if isinstance(value, int | float | str) else type(value).__name__
