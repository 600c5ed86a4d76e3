"""Pictures of an episode while it is played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorWrapper

import diffpolicy_envs
from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Vector, make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import Predictor

__all__ = ["Frames", "film"]

Frames = list[npt.NDArray[np.uint8]]


class _Filmed(VectorWrapper):
    """Takes a picture of the first simulation after its reset and after each step."""

    def __init__(self, env: Vector) -> None:
        super().__init__(env)
        self.frames: Frames = []

    def _shoot(self) -> None:
        try:
            pictures = self.env.render()
        except gymnasium.error.DependencyNotInstalled as error:
            raise InputError(f"the environment cannot draw: {error}") from error
        if not pictures:
            raise InputError("the environment draws no pictures: it needs render_mode='rgb_array'")
        self.frames.append(np.asarray(pictures[0], np.uint8))

    def reset(self, **options: Any) -> Any:
        result = self.env.reset(**options)
        if not self.frames:
            self._shoot()
        return result

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        self._shoot()
        return result


def film(
    environment: str, make: Callable[[Vector], Predictor], seed: int, condition: str = "clean", size: int = 256
) -> tuple[Frames, Episode]:
    """Pictures (size, size, 3), one per control step, of the episode that ``seed`` names, and the episode.

    An environment that is not ours draws in a size of its own.
    """
    options: dict[str, Any] = {"render_mode": "rgb_array"}
    if environment in diffpolicy_envs.TASKS:
        options |= {"width": size, "height": size}
    env = _Filmed(make_vector(environment, 1, condition, **options))
    try:
        (episode,) = rollout(env, make(env), [seed], condition=condition)
    finally:
        env.close()
    return env.frames, episode
