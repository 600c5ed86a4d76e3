"""The only file that steps physics: N simulations of one task, with whole-state get and set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, checked_seed, condition_named, draw_disturbance
from diffpolicy_envs.declared import require_declared, require_observed
from diffpolicy_envs.paths import model_path
from diffpolicy_envs.task import Array, Ids, Plans, Task

__all__ = ["Simulations", "Transition"]

SEIZED = 5  # control steps for which a shove or a slip holds the controls
_NEVER = -1.0  # no shove is due
_GIVEN_UP = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADCTRL) + 1)
_UNREACHED = 1e6  # a height at which nothing slips [m]
# columns of an episode's own variables, kept beside MuJoCo's state
_STEP, _SEED, _COUNT, _SHOVE_STEP, _SHOVE_ANGLE, _SHOVE_SPEED, _SLIP_HEIGHT, _SEIZED_LEFT, _QUIET = range(9)
_EPISODE_COLUMNS = 9


class Transition:
    """What one control step of n simulations gave."""

    __slots__ = ("diverged", "observation", "records", "reward", "success", "terminated", "terms", "truncated")

    def __init__(
        self,
        observation: dict[str, npt.NDArray[np.float32]],
        terms: dict[str, Array],
        success: npt.NDArray[np.bool_],
        failure: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
        records: dict[str, Array],
        diverged: npt.NDArray[np.bool_],
    ) -> None:
        self.observation = observation
        self.terms = terms
        self.reward: Array = reduce(np.add, terms.values())
        self.success = success & ~diverged
        self.terminated = success | failure | diverged
        self.truncated = truncated & ~self.terminated
        self.records = records
        self.diverged = diverged  # MuJoCo gave the simulation up and started it afresh: what it says means nothing


class Simulations:
    """N simulations of one task under one condition, stepped on MuJoCo's thread pool.

    An episode is a function of (seed, count): ``seed`` as given at a reset, ``count`` the number of resets
    without a seed since. All that is random in it follows from the two, so they are part of the state.

    The state row (S,) of a simulation holds MuJoCo's integration state with its warm start, the model fields
    that differ between simulations, the episode's variables and the delay line: a row set into any simulation
    of the same task continues bit for bit.
    """

    def __init__(self, task: type[Task], num: int, condition: str | Condition = "clean", threads: int = 0) -> None:
        if num < 1:
            raise ValueError(f"the number of simulations must be at least 1, got {num}")
        require_declared(task)
        self.condition = condition_named(condition, task.conditions())
        self.model = mujoco.MjModel.from_xml_path(str(model_path(task.model)))
        if not self.model.nkey:
            raise ValueError(
                f"task {task.__name__} needs a keyframe in its MJCF file {task.model}: the first is the home state"
            )
        self.batch = mujoco.batch.Batch(self.model, num, threads)
        self._given_up = self.batch.warning[:, _GIVEN_UP, 1]  # (N, 4), a view: state, velocity, acceleration, control
        self._varied = [self.batch.expand(name) for name in task.fields]
        self.task = task(self.batch)
        self.num = num
        self.step_time = float(self.model.opt.timestep) * task.substeps  # [s]
        self._bottom = np.concatenate([np.asarray(low, np.float64) for low, _ in task.observation.values()])
        self._top = np.concatenate([np.asarray(high, np.float64) for _, high in task.observation.values()])
        sizes = np.cumsum([0] + [len(np.asarray(low)) for low, _ in task.observation.values()])
        self._columns = {name: slice(*sizes[i : i + 2]) for i, name in enumerate(task.observation)}
        self._episode = np.zeros((num, _EPISODE_COLUMNS))
        self._delay = np.zeros((num, self.condition.action_delay, task.action_size))
        self._records = np.zeros((num, len(task.records)))
        self._noise: dict[tuple[int, int], Array] = {}
        self._planner: Plans | None = None
        self._plans: dict[int, tuple[int, Any]] = {}  # simulation -> step in which it was planned, plan
        self.batch.reset(keyframe=0, stage=int(mujoco.mjtStage.mjSTAGE_NONE))
        self._home = self.batch.state[0].copy()  # the row of the home keyframe
        self.batch.forward(np.arange(1), stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        require_observed(task, self.task.observe(np.arange(1)))

    # -- episodes ---------------------------------------------------------------------------------------------

    def reset(self, ids: Ids, seeds: Sequence[int | None]) -> dict[str, npt.NDArray[np.float32]]:
        """Start a new episode in each of ``ids`` (n,), as ``begin`` does; returns its first observation."""
        self.begin(ids, seeds)
        return self.observe(ids)

    def begin(self, ids: Ids, seeds: Sequence[int | None]) -> None:
        """Start a new episode in each of ``ids`` (n,); a seed of None continues that simulation's own stream."""
        for i, seed in zip(ids, [None if s is None else checked_seed(s) for s in seeds], strict=True):
            if seed is None:
                self._episode[i, _COUNT] += 1
            else:
                self._episode[i, _SEED], self._episode[i, _COUNT] = seed, 0
        self._forget(ids)
        self.batch.state[ids], self.batch.warning[ids] = self._home, 0  # as Batch.reset does, in a tenth of the time
        rngs = [np.random.default_rng([int(s), int(c)]) for s, c in self._episode[ids][:, [_SEED, _COUNT]]]
        self.task.place(ids, rngs, self.condition.start)
        self._disturb(ids, rngs)
        self.batch.forward(ids, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        if self.condition.action_delay:
            self._delay[ids] = self.task.idle_action(ids)[:, None]
        if self.task.records:
            self._records[ids] = self.task.record(ids, np.zeros((len(ids), len(self.task.records))))

    def _disturb(self, ids: Ids, rngs: list[np.random.Generator]) -> None:
        drawn = [draw_disturbance(self.condition, rng) for rng in rngs]
        rows = self._episode[ids]
        rows[:, [_STEP, _SEIZED_LEFT, _QUIET]] = 0
        rows[:, [_SHOVE_STEP, _SHOVE_ANGLE, _SHOVE_SPEED, _SLIP_HEIGHT]] = [
            (d.shove_step, d.shove_angle, d.shove_speed, min(d.slip_height, _UNREACHED)) for d in drawn
        ]
        self._episode[ids] = rows
        mass = np.array([d.mass_scale for d in drawn])
        friction = np.array([d.friction_scale for d in drawn])
        self.task.vary(ids, mass, friction)
        if self.condition.mass_scale is not None:
            self.batch.set_const(ids)

    def step(self, ids: Ids, action: npt.ArrayLike, seen: Ids | None = None) -> Transition:
        """Advance ``ids`` (n,) by a control step under actions (n, A), clipped to [-1, 1]; observe ``seen`` or them."""
        command = np.clip(np.asarray(action, dtype=np.float64), -1.0, 1.0)
        if command.shape != (len(ids), self.task.action_size) or not np.isfinite(command).all():
            raise ValueError(
                f"expected finite actions of shape {(len(ids), self.task.action_size)}, "
                f"got shape {command.shape} or a NaN"
            )
        if self.condition.action_delay:
            line = np.concatenate([self._delay[ids], command[:, None]], axis=1)
            command, self._delay[ids] = line[:, 0], line[:, 1:]
        self.task.control(ids, self._befall(ids, command))
        self.batch.step(ids, nstep=self.task.substeps, stage=int(mujoco.mjtStage.mjSTAGE_VEL))
        self._episode[ids, _STEP] += 1
        if self.task.records:
            self._records[ids] = self.task.record(ids, self._records[ids])
        terms, success = dict(self.task.reward_terms(ids)), self.task.success(ids)
        if self.task.bonus:
            terms["success"] = np.where(success, self.task.bonus, 0.0)
        return Transition(
            self.observe(ids if seen is None else seen),
            terms,
            success,
            self.task.failure(ids),
            self._episode[ids, _STEP] >= self.task.max_steps,
            {name: self._records[ids, i] for i, name in enumerate(self.task.records)},
            self.divergences(ids) > 0,
        )

    def divergences(self, ids: Ids) -> npt.NDArray[np.int64]:
        """How often (n,) MuJoCo gave up a simulation and started it afresh, since its episode began or was set."""
        return np.asarray(self._given_up[ids].sum(axis=1), dtype=np.int64)

    def _befall(self, ids: Ids, command: Array) -> Array:
        """Shove and slip where they are due; what is commanded instead in the steps after them."""
        episode = self._episode
        if self.condition.shove_speed is not None:
            due = ids[episode[ids, _STEP] == episode[ids, _SHOVE_STEP]]
            if len(due):
                self.task.shove(due, episode[due, _SHOVE_ANGLE], episode[due, _SHOVE_SPEED])
                episode[due, _SEIZED_LEFT] = SEIZED
        if self.condition.slip_height is not None:
            due = ids[self.task.lifted(ids) > episode[ids, _SLIP_HEIGHT]]
            episode[due, _SEIZED_LEFT] = SEIZED
            episode[due, _SLIP_HEIGHT] = _UNREACHED
        forced = episode[ids, _SEIZED_LEFT] > 0
        if forced.any():
            angle, speed = episode[ids, _SHOVE_ANGLE], episode[ids, _SHOVE_SPEED]
            command = np.where(forced[:, None], self.task.seized(ids, command, angle, speed), command)
            episode[ids, _SEIZED_LEFT] -= forced
        return command

    # -- what is seen -----------------------------------------------------------------------------------------

    def observe(self, ids: Ids) -> dict[str, npt.NDArray[np.float32]]:
        """Observation of ``ids``, name -> (n, O), with the condition's sensor noise, within its bounds."""
        clean = self.task.observe(ids)
        if self.condition.sensor_noise:
            self._add_noise(ids, clean)
        seen = np.empty((len(ids), len(self._bottom)))  # of all names at once: each call of numpy's has its price
        for name, columns in self._columns.items():
            seen[:, columns] = clean[name]
        np.minimum(np.maximum(seen, self._bottom, out=seen), self._top, out=seen)
        within = seen.astype(np.float32)
        return {name: within[:, columns] for name, columns in self._columns.items()}

    def _add_noise(self, ids: Ids, clean: dict[str, Array]) -> None:
        noisy = self._episode[ids, _QUIET] == 0
        steps = np.minimum(self._episode[ids, _STEP], self.task.max_steps).astype(int)  # one may step on past the end
        rows = np.stack([self._noise_table(i)[step] for i, step in zip(ids, steps, strict=True)])
        scale = self.condition.sensor_noise * (self._top - self._bottom)
        for name, columns in self._columns.items():
            if name not in self.task.noiseless:
                clean[name] = clean[name] + noisy[:, None] * scale[columns] * rows[:, columns]

    def _noise_table(self, i: int) -> Array:
        """White noise (T + 1, O) of the episode that simulation ``i`` runs."""
        key = (int(self._episode[i, _SEED]), int(self._episode[i, _COUNT]))
        if key not in self._noise:
            if len(self._noise) > 4 * self.num:
                self._noise.clear()
            rng = np.random.default_rng([*key, 1])
            self._noise[key] = rng.standard_normal((self.task.max_steps + 1, len(self._bottom)))
        return self._noise[key]

    def expert(self, ids: Ids) -> npt.NDArray[np.float32]:
        """The expert's normalised actions (n, A), from the true state: scripted, or else planned."""
        return self.task.expert(ids).astype(np.float32) if type(self.task).scripted() else self.planned(ids)

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
            step, (when, before) = int(self._episode[i, _STEP]), self._plans.get(i, (-1, None))
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
        fields = sum(f[0].size for f in self._varied)
        return int(self.batch.nstate + fields + _EPISODE_COLUMNS + self._delay[0].size + self._records[0].size)

    def get_state(self, ids: Ids) -> Array:
        """State rows (n, S) of ``ids``."""
        n = len(ids)
        fields = [f[ids].reshape(n, -1) for f in self._varied]
        rest = [self._episode[ids], self._delay[ids].reshape(n, -1), self._records[ids]]
        return np.concatenate([self.batch.state[ids], *fields, *rest], axis=1)

    def set_state(self, ids: Ids, states: npt.ArrayLike) -> dict[str, npt.NDArray[np.float32]]:
        """Continue ``ids`` from state rows (n, S); returns the observation there.

        Raises:
            ValueError: rows of another task or condition (their length differs), or not finite.
        """
        rows = np.asarray(states, dtype=np.float64)
        if rows.shape != (len(ids), self.state_size) or not np.isfinite(rows).all():
            raise ValueError(
                f"expected finite states of shape {(len(ids), self.state_size)}, got shape {rows.shape} or a NaN; "
                "states fit only the task and the action delay that they were saved under"
            )
        sizes = [self.batch.nstate, *(f[0].size for f in self._varied), _EPISODE_COLUMNS, self._delay[0].size]
        physics, *fields, episode, delay, records = np.split(rows, np.cumsum(sizes), axis=1)
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
        return self.observe(ids)

    def undisturbed(self, states: npt.ArrayLike) -> Array:
        """The same states (n, S) with no shove, slip or sensor noise still to come: what a labeller continues.

        Mass, friction and delay stay: they belong to the world, not to the future.
        """
        rows = np.array(states, dtype=np.float64)
        start = int(self.batch.nstate + sum(f[0].size for f in self._varied))
        rows[:, start + _SHOVE_STEP] = _NEVER
        rows[:, start + _SLIP_HEIGHT] = _UNREACHED
        rows[:, start + _SEIZED_LEFT] = 0
        rows[:, start + _QUIET] = 1
        return rows
