"""The single gymnasium environment: a batch of one."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.checks import checked_seed
from diffpolicy_envs.condition import Condition
from diffpolicy_envs.declared import action_space, observation_space
from diffpolicy_envs.picture import Picture
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.task import Array, Task

__all__ = ["TaskEnv"]

Observation = dict[str, npt.NDArray[np.float32]]


class TaskEnv(gymnasium.Env[Any, Any]):
    """One simulation of a task.

    Args:
        task: the task.
        condition: name of a condition, or one of your own.
        render_mode: ``"rgb_array"`` or None.
        width, height: size of the rendered picture [px].
        camera: a camera of the model; the task's own by default.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (gymnasium's own)

    def __init__(
        self,
        task: type[Task],
        condition: str | Condition = "clean",
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera: str | None = None,
    ) -> None:
        self.simulations = Simulations(task, 1, condition, threads=1)
        self.observation_space = observation_space(task)
        self.action_space = action_space(task)
        self.render_mode = render_mode
        self._picture = Picture(self.simulations, render_mode, width, height, camera)
        self._ids = np.arange(1)
        self._seeded = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: the one that ``seed`` names, or the next of this environment's own stream."""
        super().reset(seed=None if seed is None else checked_seed(seed), options=options)
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**31))
        self._seeded = True
        observation = self.simulations.reset(self._ids, [seed])
        return _first(observation), {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step; info has ``success``, ``is_success`` the reward's terms and the episode's records."""
        result = self.simulations.step(self._ids, np.asarray(action)[None])
        info: dict[str, Any] = {f"reward/{name}": float(term[0]) for name, term in result.terms.items()}
        info.update({f"record/{name}": float(value[0]) for name, value in result.records.items()})
        info["diverged"] = bool(result.diverged[0])
        info["success"] = info["is_success"] = bool(result.success[0])
        return (
            _first(result.observation),
            float(result.reward[0]),
            bool(result.terminated[0]),
            bool(result.truncated[0]),
            info,
        )

    def expert(self) -> npt.NDArray[np.float32]:
        """The expert's action (A,) in the present state."""
        return np.asarray(self.simulations.expert(self._ids)[0])

    def get_state(self) -> Array:
        """Whole state (S,)."""
        return np.asarray(self.simulations.get_state(self._ids)[0])

    def set_state(self, state: npt.ArrayLike) -> Observation:
        """Continue from a state (S,); returns the observation there."""
        observation = self.simulations.set_state(self._ids, np.asarray(state)[None])
        self._seeded = True
        return _first(observation)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The picture (height, width, 3), or None without a render mode."""
        return self._picture.draw(0)

    def close(self) -> None:
        """Free the renderer."""
        self._picture.close()


def _first(observation: Observation) -> Observation:
    return {name: value[0] for name, value in observation.items()}
