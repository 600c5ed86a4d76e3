"""Pictures of an episode while it is played."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.vector import VectorWrapper

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Vector, branching, make_vector, task_of
from diffpolicy.rollout.faults import FAULT, told
from diffpolicy.rollout.loop import play
from diffpolicy.rollout.predictor import Predictor
from diffpolicy_envs.rendering import resolve_backend

__all__ = ["Clip", "Frames", "film"]

Frames = list[npt.NDArray[np.uint8]]
_LINGER = 10  # frames for which a caption keeps a disturbance that is over

_EVENT = {"shove": "shoved", "slip": "slipping"}


class Clip(NamedTuple):
    """An episode in T + 1 pictures: one after its reset, and one after each step."""

    frames: Frames  # each (height, width, 3)
    episode: Episode
    struck: list[bool]  # whether a disturbance was acting
    success: bool | None  # None: the environment reports none

    def captions(self, name: str) -> list[str]:
        """A caption for each picture: who acts, the disturbance when it strikes, and how it ends."""
        event = _EVENT.get(self.episode.condition, "disturbed")  # `hard` mixes several
        marks = [
            f"{name}: {event}" if any(self.struck[max(0, t - _LINGER) : t + 1]) else name
            for t in range(len(self.frames))
        ]
        if self.success is not None:
            marks[-1] = f"{name}: {'success' if self.success else 'failure'}"
        return marks


class _Filmed(VectorWrapper[Any, Any, Any, Any, Any]):
    """Takes a picture of the first simulation after its reset and after each step."""

    def __init__(self, env: Vector, shot: Callable[[], object] | None) -> None:
        super().__init__(env)
        self.frames: Frames = []
        self.struck: list[bool] = []
        self._shot = shot
        self._pending: set[int] = set()

    def _shoot(self) -> None:
        try:
            pictures = self.env.render()
        except (gymnasium.error.Error, NotImplementedError, ValueError) as error:
            raise InputError(f"the environment cannot draw: {error or 'it has no render'}") from error
        except (RuntimeError, mujoco.FatalError) as error:
            raise InputError(
                f"the environment cannot draw ({told(error)}); gymnasium draws MuJoCo with OpenGL alone: set MUJOCO_GL "
                "to egl, osmesa or glfw, whichever works here"
            ) from error
        if not pictures or pictures[0] is None:
            raise InputError("the environment draws no pictures: it needs render_mode='rgb_array'")
        self.frames.append(np.asarray(pictures[0], np.uint8))
        self.struck.append(bool(self._disturbed() - self._pending))
        if self._shot is not None:
            self._shot()

    def _disturbed(self) -> set[int]:
        """Where the state differs from an undisturbed one: what is still to come does from the start, and what is
        acting does besides."""
        env = branching(self.env)
        if env is None:
            return set()
        state = env.get_state()[:1]
        return set(np.flatnonzero((state != env.undisturbed(state))[0]).tolist())

    def reset(self, **options: Any) -> Any:
        result = self.env.reset(**options)
        if not self.frames and FAULT not in result[1]:
            self._pending = self._disturbed()
            self._shoot()
        return result

    def step(self, actions: Any) -> Any:
        result = self.env.step(actions)
        if FAULT not in result[-1]:
            self._shoot()
        return result


def film(
    environment: str,
    make: Callable[[Vector], Predictor],
    seed: int,
    condition: str = "clean",
    size: int = 256,
    shot: Callable[[], object] | None = None,
    camera: str | None = None,
) -> Clip:
    """Pictures (size, size, 3) of the episode that ``seed`` names.

    An environment that is not ours draws in a size of its own, and does not say when a disturbance strikes.

    Args:
        environment: gymnasium id.
        make: the actor in a given environment.
        seed: reset seed.
        condition: disturbance to play under.
        size: height and width [px].
        shot: called after each picture.
        camera: name of a camera in the model; by default the environment's own.

    Raises:
        InputError: the environment cannot draw, or breaks the episode.
    """
    options: dict[str, Any] = {"render_mode": "rgb_array"}
    ours = task_of(environment) is not None
    if ours:
        options |= {"width": size, "height": size}
    elif (backend := resolve_backend().name) != "software":  # gymnasium's own choice fails without a display
        os.environ.setdefault("MUJOCO_GL", backend)
    if camera is not None:
        options["camera" if ours else "camera_name"] = camera
    env = _Filmed(make_vector(environment, 1, condition, **options), shot)
    try:
        record = play(env, make(env), [seed], condition=condition)
    finally:
        env.close()
    (episode,) = record.episodes
    return Clip(env.frames, episode, env.struck, episode.success if record.reports_success else None)
