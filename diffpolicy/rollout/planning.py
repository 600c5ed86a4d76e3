"""The planner as somebody who acts: one plan for each simulation, carried from step to step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Vector, name_of
from diffpolicy.rollout.faults import UnansweredError
from diffpolicy_envs import TaskVectorEnv
from diffpolicy_envs.planner import NoPlanError, Plan, Planner, PlannerConfig

__all__ = ["PlanningExpert", "Plans"]


@dataclass(frozen=True)
class Plans:
    """Which simulations the rows are, and the plan that each made last; None before the first."""

    index: npt.NDArray[np.intp]  # (n,)
    plans: tuple[Plan | None, ...]  # (n,)

    def select(self, rows: npt.NDArray[np.intp]) -> Plans:
        """The state of some rows only."""
        return Plans(self.index[rows], tuple(self.plans[row] for row in rows))


class PlanningExpert:
    """Plans anew in every control step, from the plan before: an expert for any task of ours that has a cost.

    It looks at the true state and not at the observation. What it does in an episode depends on the episode
    alone, and not on the simulation that it runs in or on what runs beside it.

    Args:
        env: a ``TaskVectorEnv``.
        config: the planner's settings; by default the task's own.
        threads: physics threads of the planner's simulations; 0 takes all cores, which pays off for heavy models only.

    Raises:
        InputError: another environment, or a task without a cost.
    """

    def __init__(self, env: Vector, config: PlannerConfig | None = None, threads: int = 1) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, TaskVectorEnv):
            raise InputError(
                f"{name_of(env)} cannot be planned in: the planner needs a task of diffpolicy_envs with a cost; name "
                "another expert: a checkpoint folder, the zip file of a Stable-Baselines3 model, or module:function"
            )
        self._simulations = unwrapped.simulations
        task = type(self._simulations.task)
        try:
            self._planner = Planner(task, self._simulations.condition, config, threads)
        except ValueError as error:
            raise InputError(f"{name_of(env)} cannot be planned in: {error}") from error

    def begin(self, state: Plans | None, mask: npt.NDArray[np.bool_], episodes: npt.NDArray[np.int64]) -> Plans:
        """The rows of ``mask`` (n,) forget their plans."""
        del episodes  # the state row says which episode it is
        if state is None:
            return Plans(np.arange(len(mask)), (None,) * len(mask))
        return Plans(state.index, tuple(None if new else old for new, old in zip(mask, state.plans, strict=True)))

    def predict(
        self, observation: Any, state: Plans | None = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.float32], Plans]:
        """Actions (n, A) in the present states; only of the rows that are asked about.

        Raises:
            UnansweredError: from some of them no plan has a finite cost.
            InputError: the task gives the planner what it must not.
        """
        del observation, deterministic
        if state is None:
            every = np.arange(self._simulations.num)
            state = Plans(every, (None,) * len(every))
        elif episode_start is not None:
            state = self.begin(state, np.asarray(episode_start), np.zeros(0, np.int64))
        rows = self._simulations.get_state(state.index)  # (n, S)
        plans: list[Plan] = []
        faults: dict[int, str] = {}
        for place, (row, before) in enumerate(zip(rows, state.plans, strict=True)):
            try:
                plans.append(self._planner.plan(row, before))
            except NoPlanError as error:
                faults[place] = f"the planner failed: {error}"
            except ValueError as error:
                raise InputError(f"the planner failed: {error}") from error
        if faults:
            raise UnansweredError(faults)
        return np.stack([plan.action for plan in plans]).astype(np.float32), Plans(state.index, tuple(plans))
