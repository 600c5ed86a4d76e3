"""What goes into a policy and what comes out: named 1-D observations and one 1-D action, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from diffpolicy.data.episode import flattened
from diffpolicy.errors import InputError

__all__ = ["BOX_NAME", "Bounds", "SpaceSpec"]

BOX_NAME = "observation"  # the name that a Box observation goes by


@dataclass(frozen=True)
class Bounds:
    """Limits of a vector; infinite where there is none."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises InputError unless low <= high, element by element."""
        pairs = list(zip(self.low, self.high, strict=False))
        if not pairs or len(self.low) != len(self.high) or not all(low <= high for low, high in pairs):
            raise InputError(f"expected low <= high of one length >= 1, got {self}; correct the space's bounds")

    def __len__(self) -> int:
        return len(self.low)

    @classmethod
    def from_space(cls, space: spaces.Space[Any], what: str) -> Bounds:
        """The bounds of a 1-D Box; raises InputError, which calls the space `what`, on any other space."""
        if not isinstance(space, spaces.Box) or len(space.shape) != 1:
            raise InputError(
                f"expected {what} to be a 1-D Box, got {space}; wrap the environment, for example in "
                "gymnasium.wrappers.FlattenObservation"
            )
        return cls(tuple(space.low.astype(float).tolist()), tuple(space.high.astype(float).tolist()))

    def to_json(self) -> dict[str, Any]:
        """Two lists of numbers, null where infinite."""
        return {
            side: [value if math.isfinite(value) else None for value in getattr(self, side)] for side in ("low", "high")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bounds:
        """The inverse of `to_json`."""
        low = tuple(-math.inf if value is None else float(value) for value in data["low"])
        return cls(low, tuple(math.inf if value is None else float(value) for value in data["high"]))


@dataclass(frozen=True)
class SpaceSpec:
    """An environment's observation and action spaces."""

    observations: Mapping[str, Bounds]
    action: Bounds
    boxed: bool  # whether the environment's observation is a bare array

    @classmethod
    def from_spaces(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> SpaceSpec:
        """From a single environment's spaces: a Dict of 1-D Boxes or a 1-D Box; a 1-D Box of actions.

        The names of a nested Dict are joined by "/".

        Raises InputError on any other space.
        """
        action = Bounds.from_space(action_space, "the action space")
        if not isinstance(observation_space, spaces.Dict):
            return cls({BOX_NAME: Bounds.from_space(observation_space, "the observation space")}, action, True)
        named = {
            name: Bounds.from_space(space, f"observation {name!r}")
            for name, space in sorted(_leaves(observation_space))
        }
        if not named:
            raise InputError("expected at least one observation, got an empty Dict space; add one")
        return cls(named, action, False)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and names."""
        observations = {name: bounds.to_json() for name, bounds in self.observations.items()}
        return {"observations": observations, "action": self.action.to_json(), "boxed": self.boxed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceSpec:
        """The inverse of `to_json`; raises InputError where the data are not what it wrote."""
        try:
            observations = {name: Bounds.from_json(item) for name, item in data["observations"].items()}
            return cls(observations, Bounds.from_json(data["action"]), bool(data["boxed"]))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InputError(f"expected spaces as SpaceSpec.to_json writes them, got {error!r}") from error

    def batch(self, observation: Any) -> tuple[dict[str, NDArray[np.float32]], bool]:
        """An environment's observation as named rows (N, O), and whether it was a single one.

        Raises InputError, with the name, the expected and the actual shape, where an observation is missing,
        unknown, of a wrong shape or not finite.
        """
        if self.boxed and not isinstance(observation, Mapping):
            observation = {BOX_NAME: observation}
        if isinstance(observation, Mapping):
            observation = flattened(observation)
        if not isinstance(observation, Mapping) or set(observation) != set(self.observations):
            came = sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
            raise InputError(
                f"expected a mapping with observations {sorted(self.observations)}, got {came}; "
                "pass what the policy was trained on"
            )
        rows = {name: _rows(name, observation[name], len(bounds)) for name, bounds in self.observations.items()}
        if len({value.shape[:-1] for value in rows.values()}) > 1:
            shapes = {name: value.shape for name, value in rows.items()}
            raise InputError(f"expected observations of one batch, got shapes {shapes}; batch all or none")
        single = next(iter(rows.values())).ndim == 1
        return {name: np.atleast_2d(value) for name, value in rows.items()}, single


def _leaves(space: spaces.Dict, prefix: str = "") -> Iterator[tuple[str, spaces.Space[Any]]]:
    """The spaces of a Dict by flat names: {"a": {"b": space}} as "a/b"."""
    for name, part in space.spaces.items():
        if isinstance(part, spaces.Dict):
            yield from _leaves(part, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", part


def _rows(name: str, value: Any, size: int) -> NDArray[np.float32]:
    """One observation (O,) or (N, O) in single precision."""
    if isinstance(value, tuple):
        raise InputError(
            f"expected observation {name!r} to be an array of shape ({size},) or (N, {size}), got a tuple; "
            "unpack env.reset() and env.step() first"
        )
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected observation {name!r} to be an array of {size} numbers, got {value!r}") from error
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise InputError(
            f"expected observation {name!r} of shape ({size},) or (N, {size}), got {array.shape}; "
            "use the environment that the policy was trained for"
        )
    if not np.isfinite(array).all():
        raise InputError(
            f"expected finite numbers in observation {name!r} of shape {array.shape}, got NaN or infinity; "
            "look for a diverged simulation"
        )
    return array
