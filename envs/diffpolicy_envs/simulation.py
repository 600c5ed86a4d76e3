"""The only file that steps physics: N simulations of one task, with whole-state get and set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.befalling import befall, disturb
from diffpolicy_envs.checks import as_numbers, checked_ids, checked_seed, checked_whole
from diffpolicy_envs.condition import Condition
from diffpolicy_envs.declared import require_declared
from diffpolicy_envs.mjcf import compiled
from diffpolicy_envs.observed import checked_actions, require_acting, require_observed
from diffpolicy_envs.reading import Reading
from diffpolicy_envs.rows import COUNT, EPISODE, SEED, STEP, Rows
from diffpolicy_envs.task import Array, Ids, Plans, Task
from diffpolicy_envs.transition import Transition

__all__ = ["MOST", "Simulations"]

_GIVEN_UP = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)


MOST = 65_536  # simulations


class Simulations:
    """N simulations of one task under one condition, stepped on MuJoCo's thread pool.

    An episode is a function of (seed, count): ``seed`` as given at a reset, ``count`` the number of resets
    without a seed since. All that is random in it follows from the two, so they are part of the state.

    The state row (S,) of a simulation holds MuJoCo's integration state with its warm start, the model fields
    that differ between simulations, the episode's variables and the delay line: a row set into any simulation
    of the same task continues bit for bit.

    Raises:
        ValueError: no whole numbers of simulations, 65,536 at most, and of threads; a condition that the task does not
            know; a task that declares what makes no sense, whose file cannot be read, or whose methods, tried at its
            home state, raise or give what they must not.
    """

    def __init__(self, task: type[Task], num: int, condition: str | Condition = "clean", threads: int = 0) -> None:
        num = checked_whole("the number of simulations", num, 1, MOST)
        threads = checked_whole("threads", threads, 0)
        require_declared(task)
        self.condition = task.condition(condition)
        self.model = compiled(task)
        self.batch = mujoco.batch.Batch(self.model, num, threads)
        self._given_up = self.batch.warning[:, _GIVEN_UP, 1]  # (N, 4), a view: state, velocity, acceleration, control
        self._varied = [self.batch.expand(name) for name in task.fields]
        self.task = task(self.batch)
        self.num = num
        self.step_time = float(self.model.opt.timestep) * task.substeps  # [s]
        self._reading = Reading(task, self.condition.sensor_noise, 4 * num)
        self._episode = np.zeros((num, EPISODE))
        self._delay = np.zeros((num, self.condition.action_delay, task.action_size))
        self._records = np.zeros((num, len(task.records)))
        sizes = [int(field[0].size) for field in self._varied]
        self._rows = Rows(task, int(self.batch.nstate), sizes, self.condition.action_delay)
        self._planner: Plans | None = None
        self._plans: dict[int, tuple[int, Any]] = {}  # simulation -> step in which it was planned, plan
        self.batch.reset(keyframe=0, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._home = self.batch.state[0].copy()  # the row of the home keyframe
        self.batch.forward(stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        require_observed(self.task, num)
        tried = require_acting(self.task, num, self.condition.start)
        self.batch.state[tried], self.batch.warning[tried] = self._home, 0
        self.batch.forward(tried, stage=int(mujoco.mjtStage.mjSTAGE_VEL))

    # -- episodes ---------------------------------------------------------------------------------------------

    def reset(self, ids: Ids, seeds: Sequence[int | None]) -> dict[str, npt.NDArray[np.float32]]:
        """Start a new episode in each of ``ids`` (n,), as ``begin`` does; returns its first observation."""
        self.begin(ids, seeds)
        return self.observe(ids)

    def begin(self, ids: Ids, seeds: Sequence[int | None]) -> None:
        """Start a new episode in each of ``ids`` (n,); a seed of None continues that simulation's own stream.

        Raises:
            ValueError: a seed that is none, or a start from which MuJoCo cannot go on.
        """
        for i, seed in zip(ids, [None if s is None else checked_seed(s) for s in seeds], strict=True):
            if seed is None:
                self._episode[i, COUNT] += 1
            else:
                self._episode[i, SEED], self._episode[i, COUNT] = seed, 0
        self._forget(ids)
        self.batch.state[ids], self.batch.warning[ids] = self._home, 0  # as Batch.reset does, in a tenth of the time
        rngs = [np.random.default_rng([int(s), int(c)]) for s, c in self._episode[ids][:, [SEED, COUNT]]]
        self.task.place(ids, rngs, self.condition.start)
        disturb(self.task, self.condition, self._episode, ids, rngs)
        if self.condition.mass_scale is not None:
            self.batch.set_const(ids)
        self.batch.forward(ids, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        if self.condition.action_delay:
            self._delay[ids] = self.task.idle_action(ids)[:, None]
        self._records[ids] = 0.0
        self._record(ids)

    def _record(self, ids: Ids) -> None:
        if not self.task.records:
            return
        found, wanted = self.task.record(ids, self._records[ids]), (len(ids), len(self.task.records))
        if np.shape(found) != wanted:
            name = type(self.task).__name__
            raise ValueError(f"task {name}: expected record(ids, so_far) of shape {wanted}, got {np.shape(found)}")
        self._records[ids] = found

    def step(self, ids: Ids, action: npt.ArrayLike, seen: Ids | None = None) -> Transition:
        """Advance ``ids`` (n,) by a control step under actions (n, A), clipped to [-1, 1]; observe ``seen`` or them."""
        command = as_numbers("actions", action)
        if command.shape != (len(ids), self.task.action_size) or not np.isfinite(command).all():
            raise ValueError(
                f"expected finite actions of shape {(len(ids), self.task.action_size)}, "
                f"got shape {command.shape}, or a NaN or an infinity"
            )
        command = np.clip(command, -1.0, 1.0)
        if self.condition.action_delay:
            line = np.concatenate([self._delay[ids], command[:, None]], axis=1)
            command, self._delay[ids] = line[:, 0], line[:, 1:]
        self.task.control(ids, befall(self.task, self.condition, self._episode, ids, command))
        self.batch.step(ids, nstep=self.task.substeps, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        self._episode[ids, STEP] += 1
        self._record(ids)
        terms, success = dict(self.task.reward_terms(ids)), self.task.success(ids)
        if self.task.bonus:
            terms["success"] = np.where(success, self.task.bonus, 0.0)
        return Transition(
            self.observe(ids if seen is None else seen),
            terms,
            success,
            self.task.failure(ids),
            self._episode[ids, STEP] >= self.task.max_steps,
            {name: self._records[ids, i] for i, name in enumerate(self.task.records)},
            self.divergences(ids) > 0,
        )

    def divergences(self, ids: Ids) -> npt.NDArray[np.int64]:
        """How often (n,) MuJoCo gave up a simulation and started it afresh, since its episode began or was set."""
        return np.asarray(self._given_up[ids].sum(axis=1), dtype=np.int64)

    # -- what is seen -----------------------------------------------------------------------------------------

    def observe(self, ids: Ids) -> dict[str, npt.NDArray[np.float32]]:
        """Observation of ``ids``, name -> (n, O), with the condition's sensor noise, within its bounds."""
        return self._reading.read(self.task.observe(ids), ids, self._episode)

    def expert(self, ids: Ids) -> npt.NDArray[np.float32]:
        """The expert's normalised actions (n, A), from the true state: scripted, or else planned.

        Raises:
            UnfitError: the script gives no finite numbers of that shape.
        """
        if not type(self.task).scripted():
            return self.planned(ids)
        return checked_actions(self.task, "expert", self.task.expert(ids), len(ids)).astype(np.float32)

    def planned(self, ids: Ids) -> npt.NDArray[np.float32]:
        """A planner's normalised actions (n, A), from the true state.

        A plan starts from the one before, where that was asked for in the step before; a simulation that was
        reset or set since starts afresh. Asked again in the same step, the answer is the same.

        Raises:
            ValueError: the task has no cost.
        """
        if self._planner is None:
            self._planner = type(self.task).planner(self.condition)
        for i, row in zip(map(int, ids), self.get_state(ids), strict=True):
            step, (when, before) = int(self._episode[i, STEP]), self._plans.get(i, (-1, None))
            if when != step:
                self._plans[i] = step, self._planner.plan(row, before if when == step - 1 else None)
        return np.stack([self._plans[int(i)][1].action for i in ids]).astype(np.float32)

    def _forget(self, ids: Ids) -> None:
        for i in ids if self._plans else ():
            self._plans.pop(int(i), None)

    # -- whole state ------------------------------------------------------------------------------------------

    @property
    def state_size(self) -> int:
        """Length S of a state row."""
        return self._rows.size

    def get_state(self, ids: Ids) -> Array:
        """State rows (n, S) of ``ids``."""
        n = len(ids)
        fields = [f[ids].reshape(n, -1) for f in self._varied]
        rest = [self._episode[ids], self._delay[ids].reshape(n, -1), self._records[ids]]
        return np.concatenate([self.batch.state[ids], *fields, *rest], axis=1)

    def set_state(self, ids: Ids, states: npt.ArrayLike) -> dict[str, npt.NDArray[np.float32]]:
        """Continue ``ids`` (n,), in any order, from state rows (n, S); returns the observation there.

        Raises:
            ValueError: simulations that there are not, or named twice; rows of another task or condition (their
                length differs), not finite, or of an episode that cannot be. Nothing is written then.
        """
        named = checked_ids(ids, self.num)
        rows = self._rows.checked(states, len(named))
        order = np.argsort(named)
        ids, rows = named[order], rows[order]
        physics, fields, episode, delay, records = self._rows.split(rows)
        self._forget(ids)
        self.batch.state[ids], self.batch.warning[ids] = physics, 0
        for target, values in zip(self._varied, fields, strict=True):
            target[ids] = values.reshape(len(ids), *target.shape[1:])
        self._episode[ids] = episode
        self._delay[ids] = delay.reshape(len(ids), *self._delay.shape[1:])
        self._records[ids] = records
        if self._varied:
            self.batch.set_const(ids)
        self.batch.forward(ids, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        return self.observe(named)

    def undisturbed(self, states: npt.ArrayLike) -> Array:
        """The same states (n, S) with no shove, slip or sensor noise still to come: what a labeller continues.

        Mass, friction and delay stay: they belong to the world, not to the future.

        Raises:
            ValueError: no state rows of this task and condition.
        """
        return self._rows.undisturbed(states)
