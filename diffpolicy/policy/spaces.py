"""What goes into a policy and what comes out: named 1-D observations and one 1-D action, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from diffpolicy.data.boxes import action_box, observation_boxes
from diffpolicy.data.episode import BOX_NAME
from diffpolicy.errors import InputError

__all__ = ["BOX_NAME", "Bounds", "SpaceSpec"]


@dataclass(frozen=True)
class Bounds:
    """Limits of a vector; infinite where there is none."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises InputError unless low <= high, element by element, with a finite number between them."""
        pairs = list(zip(self.low, self.high, strict=False))
        if not pairs or len(self.low) != len(self.high) or not all(low <= high for low, high in pairs):
            raise InputError(f"expected low <= high of one length >= 1, got {self}; correct the space's bounds")
        if math.inf in self.low or -math.inf in self.high:
            raise InputError(f"expected bounds with a finite number between them, got {self}; correct the space")

    def __len__(self) -> int:
        return len(self.low)

    @classmethod
    def from_box(cls, box: spaces.Box) -> Bounds:
        """The bounds of a 1-D Box."""
        return cls(tuple(box.low.astype(float).tolist()), tuple(box.high.astype(float).tolist()))

    def to_json(self) -> dict[str, Any]:
        """Two lists of numbers, null where infinite."""
        return {
            side: [value if math.isfinite(value) else None for value in getattr(self, side)] for side in ("low", "high")
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bounds:
        """The inverse of `to_json`; raises InputError where the data are not what it wrote."""
        return cls(_numbers(data["low"], -math.inf), _numbers(data["high"], math.inf))


@dataclass(frozen=True)
class SpaceSpec:
    """An environment's observation and action spaces."""

    observations: Mapping[str, Bounds]
    action: Bounds
    boxed: bool  # whether the environment's observation is a bare array

    def __post_init__(self) -> None:
        """Raises InputError where there is no observation, or a bare one has a name of its own."""
        names = list(self.observations)
        if not names or (self.boxed and names != [BOX_NAME]):
            raise InputError(
                f"expected at least one observation, and {BOX_NAME!r} alone where it is a bare array, got {names} with "
                f"boxed={self.boxed}; name them so"
            )

    @classmethod
    def from_spaces(cls, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> SpaceSpec:
        """From a single environment's spaces: a Dict of 1-D Boxes or a 1-D Box; a 1-D Box of actions.

        The names of a nested Dict are joined by "/".

        Raises InputError on any other space, and where bounds leave no finite number.
        """
        boxes, boxed = observation_boxes(observation_space), not isinstance(observation_space, spaces.Dict)
        named = {name: _bounds(boxes[name], f"observation {name!r}") for name in sorted(boxes)}
        return cls(named, _bounds(action_box(action_space), "the action space"), boxed)

    def to_json(self) -> dict[str, Any]:
        """Plain lists and names."""
        observations = {name: bounds.to_json() for name, bounds in self.observations.items()}
        return {"observations": observations, "action": self.action.to_json(), "boxed": self.boxed}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpaceSpec:
        """The inverse of `to_json`; raises InputError where the data are not what it wrote."""
        try:
            observations = {name: Bounds.from_json(item) for name, item in data["observations"].items()}
            if not isinstance(data["boxed"], bool):
                raise InputError(f'got {data["boxed"]!r:.100} as "boxed"')
            return cls(observations, Bounds.from_json(data["action"]), data["boxed"])
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            came = error if isinstance(error, InputError) else f"got {error!r}"
            raise InputError(f"expected spaces as SpaceSpec.to_json writes them: {came}; restore them") from error

    def differences(self, here: SpaceSpec) -> str:
        """How these spaces, which were trained for, differ from an environment's, in words; "" where they do not."""
        ours, theirs = dict(self.observations), dict(here.observations)
        missing, new = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
        said = [f"missing here: observation {', '.join(map(repr, missing))}"] if missing else []
        said += [f"only here: observation {', '.join(map(repr, new))}"] if new else []
        both = {f"observation {name!r}": (ours[name], theirs[name]) for name in ours if name in theirs}
        for name, (one, other) in {**both, "the action": (self.action, here.action)}.items():
            if len(one) != len(other):
                said.append(f"{name} had {len(one)} numbers, here {len(other)}")
            elif one != other:
                pairs = list(
                    zip(zip(one.low, one.high, strict=True), zip(other.low, other.high, strict=True), strict=True)
                )
                i = next(i for i, (a, b) in enumerate(pairs) if a != b)
                (a, b), (c, d) = pairs[i]
                said.append(f"{name} lay in [{a:g}, {b:g}] in dimension {i}, here in [{c:g}, {d:g}]")
        if not said and self.boxed != here.boxed:
            said.append("observations were " + ("an array, here a Dict" if self.boxed else "a Dict, here an array"))
        return "; ".join(said[:4] + [f"and {len(said) - 4} more"] * (len(said) > 4))


def _bounds(box: spaces.Box, what: str) -> Bounds:
    try:
        return Bounds.from_box(box)
    except InputError as error:
        raise InputError(f"{what}: {error}") from error


def _numbers(values: Any, absent: float) -> tuple[float, ...]:
    """A list of JSON as numbers, with one for null."""
    if not isinstance(values, list) or not all(value is None or type(value) in (int, float) for value in values):
        raise InputError(f"got {values!r:.200} in the place of a list of numbers or null")
    return tuple(absent if value is None else float(value) for value in values)
