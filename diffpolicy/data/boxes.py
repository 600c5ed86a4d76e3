"""Which spaces we understand: observations of named 1-D Boxes, actions of one 1-D Box of real numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gymnasium.spaces import Box, Dict, Space

from diffpolicy.data.episode import BOX_NAME
from diffpolicy.errors import InputError

__all__ = ["action_box", "observation_boxes"]


def observation_boxes(space: Space[Any]) -> dict[str, Box]:
    """The 1-D Boxes of an observation space by flat name, such as "a/b"; a lone Box is "observation".

    Raises InputError on any other space, on an empty one, and where two observations get the same flat name.
    """
    boxes: dict[str, Box] = {}
    for name, part in _leaves(space):
        what = "the observation space" if part is space else f"observation {name!r} of the observation space"
        if not isinstance(part, Box) or len(part.shape) != 1 or part.shape[0] < 1:
            raise InputError(f"expected {what} to be a 1-D Box, got {part}; {_observation_advice(part)}")
        if not all(name.split("/")) or name in boxes:
            raise InputError(
                f"expected observations with names of their own, got {name!r} in {space}: levels of a nested Dict are "
                'joined by "/"; rename one of them'
            )
        boxes[name] = part
    if not boxes:
        raise InputError(f"expected the observation space to hold at least one 1-D Box, got {space}; add one")
    return boxes


def action_box(space: Space[Any]) -> Box:
    """The space itself; raises InputError unless it is a 1-D Box of real numbers."""
    if isinstance(space, Box) and len(space.shape) == 1 and space.shape[0] >= 1 and space.dtype.kind == "f":
        return space
    if not isinstance(space, Box):
        advice = "a diffusion policy draws real numbers: choose an environment whose actions are a Box"
    elif space.dtype.kind != "f":
        advice = "a diffusion policy draws real numbers, which would be cut to whole ones: declare a Box of floats"
    else:
        advice = (
            "flatten it, for example with gymnasium.wrappers.TransformAction; of a vector environment take "
            "single_action_space"
        )
    raise InputError(f"expected the action space to be a 1-D Box of real numbers, got {space}; {advice}")


def _leaves(space: Space[Any], prefix: str = "") -> Iterator[tuple[str, Space[Any]]]:
    """The parts of a nested Dict by flat name."""
    if isinstance(space, Dict):
        for name, part in space.spaces.items():
            yield from _leaves(part, f"{prefix}{name}/")
    else:
        yield prefix[:-1] or BOX_NAME, space


def _observation_advice(space: Space[Any]) -> str:
    if isinstance(space, Box) and space.shape == (0,):
        return "it holds no numbers: leave it out"
    if isinstance(space, Box) and len(space.shape) == 3:
        return (
            "policies read vectors, not pictures: leave it out, for example with gymnasium.wrappers.FilterObservation"
        )
    return (
        "wrap the environment, for example in gymnasium.wrappers.FlattenObservation; of a vector environment take "
        "single_observation_space"
    )
