"""The only loop that plays episodes: any actor in any vector environment, each episode by its own seed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import (
    Branchable,
    Vector,
    branching,
    checked_action,
    divergences,
    name_of,
    named,
    shown,
)
from diffpolicy.rollout.faults import DIVERGED, Drop, Dropped, UnansweredError, broken_rows, reported_faults
from diffpolicy.rollout.predictor import EpisodicPredictor, Predictor
from diffpolicy.rollout.success import reported
from diffpolicy.rollout.tape import Observation, Tape, records_in

__all__ = ["Finished", "Record", "play", "rollout"]

Finished = Callable[[Episode], object]
"""Called with each episode as it ends."""


@dataclass(frozen=True)
class Record:
    """What a call of ``play`` gave, and how long its parts took."""

    episodes: list[Episode]  # in the order of the seeds
    dropped: list[Dropped]  # in the order in which they broke
    reports_success: bool  # whether any info said something about success
    calls: npt.NDArray[np.float64]  # (C,) wall-clock of each predict, for all simulations in use at once [s]
    begins: Mapping[int, int]  # reset seed -> the call that chose the episode's first action
    env_s: float  # wall-clock of all resets and steps [s]


def rollout(
    env: Vector,
    actor: Predictor,
    seeds: Sequence[int],
    *,
    condition: str = "clean",
    deterministic: bool = False,
    record_states: bool = False,
    finished: Finished | None = None,
    dropped: Drop | None = None,
) -> list[Episode]:
    """Play one episode for each reset seed and return them in the order of ``seeds``.

    Simulations that finish go on with the next seed at once. What an episode becomes depends on its seed and
    the actor, not on the simulation that it ran in: an actor with ``begin`` is told the seed as the episode's
    number. An episode is a success if ``is_success`` or ``success`` was true at any of its steps.

    Args:
        env: autoreset disabled, and what is finished stands still (``make_vector``); N simulations, of which at
            most ``len(seeds)`` are used.
        actor: who acts.
        seeds: reset seeds, distinct and not negative.
        condition: recorded in the episodes.
        deterministic: handed to the actor.
        record_states: keep the simulator's state (T, S) before each action; needs a branchable environment.
        finished: called with each episode as it ends, in order of ending.
        dropped: called with each episode that its environment broke, by an exception or by a number that is not
            finite; the others are what they would have been.

    Raises:
        InputError: seeds or states that cannot be had; an actor whose answer is no action; a success that is no
            truth value; and, without ``dropped``, an episode that its environment broke.
    """
    return play(
        env,
        actor,
        seeds,
        condition=condition,
        deterministic=deterministic,
        record_states=record_states,
        finished=finished,
        dropped=dropped,
    ).episodes


def play(
    env: Vector,
    actor: Predictor,
    seeds: Sequence[int],
    *,
    condition: str = "clean",
    deterministic: bool = False,
    record_states: bool = False,
    finished: Finished | None = None,
    dropped: Drop | None = None,
) -> Record:
    """As ``rollout``, with what was dropped and measured beside the episodes."""
    branchable = branching(env) if record_states else None
    if record_states and branchable is None:
        raise InputError("states can only be recorded of an environment with get_state and set_state")
    if len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise InputError("seeds must be distinct and not negative: each names one episode")
    run = _Run(env, actor, seeds, condition, deterministic, branchable, finished, dropped)
    run.play()
    episodes = [episode for episode in run.episodes if episode is not None]
    return Record(episodes, run.lost, run.reports_success, np.array(run.calls), run.begins, run.env_s)


class _Run:
    """The bookkeeping of one call: which simulation plays which seed, and what each has seen so far."""

    def __init__(
        self,
        env: Vector,
        actor: Predictor,
        seeds: Sequence[int],
        condition: str,
        deterministic: bool,
        branchable: Branchable | None,
        finished: Finished | None,
        dropped: Drop | None,
    ) -> None:
        self.env, self.actor, self.seeds = env, actor, list(seeds)
        self.condition, self.deterministic, self.branchable = condition, deterministic, branchable
        self.finished, self.dropped = finished, dropped
        self.next = 0  # index of the next seed to start
        self.playing = np.full(env.num_envs, -1)  # (N,) index of the seed that a simulation plays; -1 none
        self.tapes: list[Tape] = [Tape() for _ in range(env.num_envs)]
        self.episodes: list[Episode | None] = [None] * len(self.seeds)
        self.lost: list[Dropped] = []
        self.reports_success, self.env_s = False, 0.0
        self.calls: list[float] = []
        self.begins: dict[int, int] = {}
        self.state: Any = None
        self.rows = np.arange(min(env.num_envs, len(self.seeds)))  # simulations in use

    def play(self) -> None:
        starting = np.zeros(self.env.num_envs, dtype=bool)
        obs = self._refill(self.rows, starting, {})
        action_shape = self.env.action_space.shape or (self.env.num_envs,)
        while len(self.rows):
            action = np.zeros(action_shape, dtype=np.float32)
            try:
                action[self.rows] = self._act(obs, starting[self.rows])
            except UnansweredError as error:
                obs = self._leave({int(self.rows[i]): why for i, why in error.faults.items()}, starting, obs)
                continue
            obs, ended = self._step(action)
            starting = np.zeros(self.env.num_envs, dtype=bool)
            if len(done := self.rows[ended[self.rows]]):
                obs = self._refill(done, starting, obs)

    def _act(self, obs: Observation, starting: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        seen = shown(self.env, obs, self.rows)
        if isinstance(self.actor, EpisodicPredictor) and (self.state is None or starting.any()):
            episodes = np.array([self.seeds[i] for i in self.playing[self.rows]], dtype=np.int64)
            self.state = self.actor.begin(self.state, starting, episodes)
        began = time.perf_counter()
        action, self.state = self.actor.predict(seen, self.state, starting, self.deterministic)
        self.calls.append(time.perf_counter() - began)
        return checked_action(self.env, action, len(self.rows), self.actor)

    def _leave(self, faults: Mapping[int, str], starting: npt.NDArray[np.bool_], obs: Observation) -> Observation:
        """Drop the episodes in which the actor knows no action, and start the next seeds there."""
        for row, why in faults.items():
            self._drop(row, len(self.tapes[row].actions) + 1, why)
        return self._refill(np.array(sorted(faults), dtype=np.intp), starting, obs)

    def _step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, npt.NDArray[np.bool_]]:
        """Step all, keep what was seen, and finish or drop episodes; the observation, and where one ended."""
        before = None if self.branchable is None else self.branchable.get_state()
        began = time.perf_counter()
        raw, reward, terminated, truncated, info = self.env.step(action)
        self.env_s += time.perf_counter() - began
        obs = named(raw)
        success, known = reported(info, self.env.num_envs)
        self.reports_success |= known
        ended = np.array(terminated | truncated)
        faults = self._faults(self.rows, obs, reward, info)
        for row in map(int, self.rows):
            if row in faults:
                self._drop(row, len(self.tapes[row].actions) + 1, faults[row])
                ended[row] = True
                continue
            state = None if before is None else before[row]
            self.tapes[row].add(action[row], float(reward[row]), bool(success[row]), obs, row, state)
            if ended[row]:
                self._finish(row, bool(terminated[row]), records_in(info, row))
        return obs, ended

    def _faults(
        self, rows: npt.NDArray[np.intp], obs: Observation, reward: Any, info: Mapping[str, Any]
    ) -> dict[int, str]:
        """Which of some simulations broke in a step, or in a reset (no reward), and how."""
        faults = broken_rows(obs, reward, rows)
        for row in rows[divergences(self.env)[rows] > 0]:
            faults[int(row)] = DIVERGED
        return faults | reported_faults(info, rows)

    def _refill(self, done: npt.NDArray[np.intp], starting: npt.NDArray[np.bool_], obs: Observation) -> Observation:
        """Start the next seeds in the simulations that are done; retire those for which none is left."""
        while len(done):
            left = len(self.seeds) - self.next
            fresh, retired = done[:left], done[left:]
            starting[fresh], starting[retired] = True, False
            if len(retired):
                keep = ~np.isin(self.rows, retired)
                if hasattr(self.state, "select"):
                    self.state = self.state.select(np.flatnonzero(keep))
                self.rows = self.rows[keep]
            if not len(fresh):
                break
            obs, done = self._start(fresh)
        return obs

    def _start(self, rows: npt.NDArray[np.intp]) -> tuple[Observation, npt.NDArray[np.intp]]:
        """Start the next seed in each of some simulations; the observation, and where the reset failed."""
        seeds: list[int | None] = [None] * self.env.num_envs
        mask = np.isin(np.arange(self.env.num_envs), rows)
        for row in rows:
            self.playing[row] = self.next
            seeds[row] = self.seeds[self.next]
            self.begins[self.seeds[self.next]] = len(self.calls)
            self.next += 1
        began = time.perf_counter()
        raw, info = self.env.reset(seed=seeds, options={"reset_mask": mask})  # type: ignore[arg-type]
        self.env_s += time.perf_counter() - began
        obs = named(raw)
        faults = self._faults(rows, obs, None, info)
        for row in rows:
            self.tapes[row] = Tape({name: value[row].copy() for name, value in obs.items()})
        for row in sorted(faults):
            self._drop(row, 0, faults[row])
        return obs, np.array(sorted(faults), dtype=np.intp)

    def _finish(self, row: int, terminated: bool, records: Mapping[str, float]) -> None:
        if broken := [name for name, value in records.items() if not np.isfinite(value)]:
            self._drop(row, len(self.tapes[row].actions), f"record {broken[0]!r} is not finite")
            return
        number = self.playing[row]
        episode = self.tapes[row].episode(terminated, self.seeds[number], self.condition, records)
        self.episodes[number] = episode
        if self.finished is not None:
            self.finished(episode)

    def _drop(self, row: int, step: int, error: str) -> None:
        lost = Dropped(name_of(self.env), self.condition, self.seeds[self.playing[row]], step, error)
        if self.dropped is None:
            raise InputError(f"the environment broke an episode: {lost}; mend it, or pass dropped= to go on without")
        self.lost.append(lost)
        self.dropped(lost)
