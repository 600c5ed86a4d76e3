"""What would happen next: many copies of one simulation, driven apart by different actions."""

from __future__ import annotations

import mujoco
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.task import Array, Task

__all__ = ["Futures"]


class Futures(Simulations):
    """N simulations that all start from one state row and of which only the cost is looked at.

    Args:
        task: the task.
        num: number of futures N.
        condition: that of the state rows.
        threads: physics threads; 0 takes all cores.
        substeps: physics steps per control step, if other than the task's own: a control step lasts as long as
            there, and a physics step the longer or shorter.
    """

    def __init__(
        self, task: type[Task], num: int, condition: str | Condition, threads: int = 0, substeps: int | None = None
    ) -> None:
        super().__init__(task, num, condition, threads)
        self.all = np.arange(num)
        self.substeps = substeps or task.substeps
        if self.substeps != task.substeps:
            self.batch.expand("opt.timestep")[:] = self.step_time / self.substeps
            self.batch.set_const()

    def branch(self, state: Array) -> None:
        """Set all to a state row (S,), with no disturbance still to come."""
        self.set_state(self.all, np.tile(self.undisturbed(np.asarray(state)[None]), (self.num, 1)))

    def moment(self) -> tuple[int, int, int]:
        """Seed, count and step of the episode that all are in."""
        step, seed, count = self._episode[0, :3]
        return int(seed), int(count), int(step)

    def costs(self, state: Array, actions: Array) -> Array:
        """Costs (N, T) after each step of the courses of action (N, T, A) from a state row (S,).

        Infinite where the physics diverges.
        """
        self.branch(state)
        self.batch.warning[:] = 0
        found = np.empty(actions.shape[:2])
        for t in range(actions.shape[1]):
            self.advance(actions[:, t])
            found[:, t] = self.look()
        found[self.divergences(self.all) > 0] = np.inf
        return found

    def advance(self, action: Array) -> None:
        """A control step of all under actions (N, A), unseen."""
        if self.condition.action_delay:
            line = np.concatenate([self._delay, action[:, None]], axis=1)
            action, self._delay[:] = line[:, 0], line[:, 1:]
        self.task.control(self.all, action)
        self.batch.step(self.all, nstep=self.substeps, stage=int(mujoco.mjtStage.mjSTAGE_VEL))

    def look(self) -> Array:
        """The task's present costs (N,).

        Raises:
            ValueError: it has none, or they are not one number each.
        """
        cost: npt.NDArray[np.float64] = np.asarray(self.task.cost(self.all), dtype=np.float64)
        if cost.shape != (self.num,):
            raise ValueError(f"cost(ids) of task {type(self.task).__name__}: expected one for each, got {cost.shape}")
        return np.where(np.isfinite(cost), cost, np.inf)
