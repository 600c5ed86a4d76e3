"""The gymnasium vector environment: N simulations on MuJoCo's thread pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from diffpolicy_envs.checks import checked_ids, checked_seed
from diffpolicy_envs.condition import Condition
from diffpolicy_envs.declared import action_space, observation_space
from diffpolicy_envs.picture import Picture
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.task import Array, Ids, Task
from diffpolicy_envs.transition import Transition

__all__ = ["TaskVectorEnv"]

Observation = dict[str, npt.NDArray[np.float32]]
Floats = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]


class TaskVectorEnv(VectorEnv[Observation, Floats, Floats]):
    """N simulations of a task, bit-identical to N single environments.

    In the autoreset mode DISABLED a finished simulation stands still (reward 0, no flag raised again) until
    ``reset(options={"reset_mask": mask})``; ``seed`` may then be a list with one entry per simulation, of
    which the unmasked ones are ignored.

    Args:
        task: the task.
        num_envs: number of simulations N.
        condition: name of a condition, or one of your own.
        threads: physics threads; 0 takes all cores.
        autoreset_mode: gymnasium's NEXT_STEP (default), SAME_STEP or DISABLED.
        render_mode, width, height, camera: as in the single environment.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (gymnasium's own declaration)
        "render_modes": ["rgb_array"],
        "render_fps": 20,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }
    branchable: ClassVar[bool] = True

    def __init__(
        self,
        task: type[Task],
        num_envs: int = 1,
        condition: str | Condition = "clean",
        threads: int = 0,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera: str | None = None,
    ) -> None:
        super().__init__()
        self.simulations = Simulations(task, num_envs, condition, threads)
        self.num_envs = num_envs = self.simulations.num
        self.render_mode = render_mode
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single_observation_space = observation_space(task)
        self.single_action_space = action_space(task)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._picture = Picture(self.simulations, render_mode, width, height, camera)
        self._all = np.arange(num_envs)
        self._done = np.zeros(num_envs, dtype=bool)
        self._seeded = np.zeros(num_envs, dtype=bool)

    # -- gymnasium --------------------------------------------------------------------------------------------

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start episodes everywhere, or where ``options["reset_mask"]`` (N,) is true.

        An integer seed gives simulation i the seed ``seed + i``, as gymnasium's vector environments do; without
        one, a simulation goes on with its own stream of episodes.
        """
        ids = np.flatnonzero(self._mask(options))
        if seed is None:
            seeds: list[int | None] = [None] * self.num_envs
        elif isinstance(seed, Sequence | np.ndarray) and not isinstance(seed, str | bytes):
            seeds = list(seed)
            if len(seeds) != self.num_envs:
                raise ValueError(f"expected {self.num_envs} seeds, one per simulation, got {len(seeds)}")
        else:
            super().reset(seed=checked_seed(seed))
            seeds = [int(seed) + i for i in range(self.num_envs)]
        if any(seeds[i] is None and not self._seeded[i] for i in ids):
            base = int(self.np_random.integers(2**31))
            seeds = [base + i if s is None and not self._seeded[i] else s for i, s in enumerate(seeds)]
        self.simulations.begin(ids, [seeds[i] for i in ids])
        self._seeded[ids], self._done[ids] = True, False
        return self.simulations.observe(self._all), {}

    def _mask(self, options: dict[str, Any] | None) -> Flags:
        if options is not None and not isinstance(options, Mapping):
            raise ValueError(f"expected options as a mapping such as {{'reset_mask': mask}}, got {options!r}")
        mask = (options or {}).get("reset_mask")
        if mask is None:
            return np.ones(self.num_envs, dtype=bool)
        mask = np.asarray(mask)
        if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
            raise ValueError(
                f"reset_mask must be a boolean array of shape ({self.num_envs},) with a true entry, "
                f"got dtype {mask.dtype} and shape {mask.shape}"
            )
        return mask

    def step(self, actions: Floats) -> tuple[Observation, Floats, Flags, Flags, dict[str, Any]]:
        """One control step of every simulation; what a finished one does is up to the autoreset mode."""
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ValueError(f"expected actions of shape {self.action_space.shape}, got {actions.shape}")
        if not self._done.any():
            return self._outcome(self._all, self.simulations.step(self._all, actions))
        finished, live = np.flatnonzero(self._done), np.flatnonzero(~self._done)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self.simulations.begin(finished, [None] * len(finished))
            self._done[finished] = False
        if not len(live):
            zeros = np.zeros(self.num_envs)
            return self.simulations.observe(self._all), zeros, zeros.astype(bool), zeros.astype(bool), {}
        return self._outcome(live, self.simulations.step(live, actions[live], seen=self._all))

    def _outcome(self, ids: Ids, result: Transition) -> tuple[Observation, Floats, Flags, Flags, dict[str, Any]]:
        observation = result.observation  # of all simulations
        reward = self._spread(ids, result.reward)
        terminated, truncated = self._spread(ids, result.terminated), self._spread(ids, result.truncated)
        stepped = np.zeros(self.num_envs, dtype=bool)
        stepped[ids] = True
        values: dict[str, Floats] = {f"reward/{name}": term for name, term in result.terms.items()}
        values.update({f"record/{name}": value for name, value in result.records.items()})
        info: dict[str, Any] = {}
        values.update(diverged=result.diverged, success=result.success, is_success=result.success)
        for name, value in values.items():
            info[name], info[f"_{name}"] = self._spread(ids, value), stepped
        done = terminated | truncated
        if self.autoreset_mode is AutoresetMode.SAME_STEP and done.any():
            observation = self._reset_now(done, observation, info)
        elif self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._done |= done
        return observation, reward, terminated, truncated, info

    def _reset_now(self, done: Flags, observation: Observation, info: dict[str, Any]) -> Observation:
        """SAME_STEP: the last observation and info move to ``final_obs`` and ``final_info``."""
        final = np.empty(self.num_envs, dtype=object)
        for i in np.flatnonzero(done):
            final[i] = {name: value[i].copy() for name, value in observation.items()}
        keys = [name for name in info if not name.startswith("_")]
        final_info: dict[str, Any] = {}
        for name in keys:
            final_info[name] = np.where(done, info[name], np.zeros_like(info[name]))
            final_info[f"_{name}"] = done.copy()
            info[name] = np.where(done, np.zeros_like(info[name]), info[name])
            info[f"_{name}"] = info[f"_{name}"] & ~done
        info.update(final_obs=final, _final_obs=done.copy(), final_info=final_info, _final_info=done.copy())
        ids = np.flatnonzero(done)
        self.simulations.begin(ids, [None] * len(ids))
        return self.simulations.observe(self._all)

    def _spread(self, ids: Ids, values: Floats) -> Floats:
        if len(ids) == self.num_envs:
            return values
        full = np.zeros(self.num_envs, dtype=values.dtype)
        full[ids] = values
        return full

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """Pictures (height, width, 3) of all simulations, or None without a render mode."""
        if self.render_mode is None:
            return None
        frames = [self._picture.draw(i) for i in range(self.num_envs)]
        return tuple(frame for frame in frames if frame is not None)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the renderer."""
        del kwargs
        self._picture.close()

    # -- beyond gymnasium -------------------------------------------------------------------------------------

    def expert(self, ids: Ids | None = None) -> npt.NDArray[np.float32]:
        """The expert's actions (n, A) in the present states of ``ids``, by default of all."""
        return self.simulations.expert(self._all if ids is None else ids)

    def planned(self, ids: Ids | None = None) -> npt.NDArray[np.float32]:
        """A planner's actions (n, A) in the present states of ``ids``, by default of all.

        Raises:
            ValueError: the task has no cost.
        """
        return self.simulations.planned(self._all if ids is None else ids)

    def get_state(self) -> Array:
        """Whole states (N, S)."""
        return self.simulations.get_state(self._all)

    def set_state(self, states: npt.ArrayLike, ids: Ids | None = None) -> Observation:
        """Continue ``ids`` (n,), in any order, all by default, from state rows (n, S); the observation of all."""
        ids = self._all if ids is None else checked_ids(ids, self.num_envs)
        self.simulations.set_state(ids, states)
        self._seeded[ids], self._done[ids] = True, False
        return self.simulations.observe(self._all)

    def undisturbed(self, states: npt.ArrayLike) -> Array:
        """The same states without the disturbances still to come."""
        return self.simulations.undisturbed(states)
