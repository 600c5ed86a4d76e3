"""The only loop that plays episodes: any actor in any vector environment, each episode by its own seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Branchable, Vector, checked_action, named, shown, stands_still
from diffpolicy.rollout.predictor import EpisodicPredictor, Predictor

__all__ = ["Finished", "rollout"]

Finished = Callable[[Episode], object]
"""Called with each episode as it ends."""


def rollout(
    env: Vector,
    actor: Predictor,
    seeds: Sequence[int],
    *,
    condition: str = "clean",
    deterministic: bool = False,
    record_states: bool = False,
    finished: Finished | None = None,
) -> list[Episode]:
    """Play one episode for each reset seed and return them in the order of ``seeds``.

    Simulations that finish go on with the next seed at once. What an episode becomes depends on its seed and
    the actor, not on the simulation that it ran in: an actor with ``begin`` is told the seed as the episode's
    number. An episode is a success if ``is_success`` or ``success`` was true at any of its steps.

    Args:
        env: autoreset disabled (``make_vector``); N simulations, of which at most ``len(seeds)`` are used.
        actor: who acts.
        seeds: reset seeds, distinct and not negative.
        condition: recorded in the episodes.
        deterministic: handed to the actor.
        record_states: keep the simulator's state (T, S) before each action; needs a branchable environment.
        finished: called with each episode as it ends, in order of ending.
    """
    if record_states and not isinstance(env.unwrapped, Branchable):
        raise InputError("states can only be recorded of an environment with get_state and set_state")
    if len(set(seeds)) != len(seeds) or any(seed < 0 for seed in seeds):
        raise InputError("seeds must be distinct and not negative: each names one episode")
    if not seeds:
        return []
    return _Rollout(env, actor, seeds, condition, deterministic, record_states, finished).play()


class _Rollout:
    """The bookkeeping of one call: which simulation plays which seed, and what each has seen so far."""

    def __init__(
        self,
        env: Vector,
        actor: Predictor,
        seeds: Sequence[int],
        condition: str,
        deterministic: bool,
        record_states: bool,
        finished: Finished | None,
    ) -> None:
        self.env, self.actor, self.seeds = env, actor, list(seeds)
        self.condition, self.deterministic, self.finished = condition, deterministic, finished
        self.states: Branchable | None = env.unwrapped if record_states else None  # type: ignore[assignment]
        self.next = 0  # index of the next seed to start
        self.playing = np.full(env.num_envs, -1)  # (N,) index of the seed that a simulation plays; -1 none
        self.tapes: list[_Tape] = [_Tape() for _ in range(env.num_envs)]
        self.episodes: list[Episode | None] = [None] * len(self.seeds)
        self.state: Any = None
        self.rows = np.arange(min(env.num_envs, len(self.seeds)))  # simulations in use

    def play(self) -> list[Episode]:
        starting = np.zeros(self.env.num_envs, dtype=bool)
        starting[self.rows] = True
        if not starting.all() and not stands_still(self.env):
            self.env.reset()  # the unused ones are stepped along
        obs = self._start(starting)
        action_shape = self.env.action_space.shape or (self.env.num_envs,)
        while len(self.rows):
            action = np.zeros(action_shape, dtype=np.float32)
            action[self.rows] = self._act(obs, starting[self.rows])
            before = self.states.get_state() if self.states is not None else None
            raw, reward, terminated, truncated, info = self.env.step(action)
            obs = named(raw)
            success = _success(info, self.env.num_envs)
            for row in map(int, self.rows):
                state = None if before is None else before[row]
                self.tapes[row].add(action[row], float(reward[row]), bool(success[row]), obs, row, state)
            starting = np.zeros(self.env.num_envs, dtype=bool)
            ended = terminated | truncated
            done = self.rows[ended[self.rows]]
            if len(done):
                for row in map(int, done):
                    self._finish(row, bool(terminated[row]))
                obs = self._refill(done, starting, obs)
            self._rouse(ended)
        return [episode for episode in self.episodes if episode is not None]

    def _act(self, obs: dict[str, npt.NDArray[np.float32]], starting: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
        seen = shown(self.env, obs, self.rows)
        if isinstance(self.actor, EpisodicPredictor) and (self.state is None or starting.any()):
            episodes = np.array([self.seeds[i] for i in self.playing[self.rows]], dtype=np.int64)
            self.state = self.actor.begin(self.state, starting, episodes)
        action, self.state = self.actor.predict(seen, self.state, starting, self.deterministic)
        return checked_action(self.env, action, len(self.rows), self.actor)

    def _start(self, mask: npt.NDArray[np.bool_]) -> dict[str, npt.NDArray[np.float32]]:
        seeds: list[int | None] = [None] * self.env.num_envs
        for row in np.flatnonzero(mask):
            self.playing[row] = self.next
            seeds[row] = self.seeds[self.next]
            self.next += 1
        raw, _ = self.env.reset(seed=seeds, options={"reset_mask": mask.copy()})  # type: ignore[arg-type]
        obs = named(raw)
        for row in np.flatnonzero(mask):
            self.tapes[row] = _Tape({name: value[row].copy() for name, value in obs.items()})
        return obs

    def _finish(self, row: int, terminated: bool) -> None:
        number = self.playing[row]
        episode = self.tapes[row].episode(terminated, self.seeds[number], self.condition)
        self.episodes[number] = episode
        if self.finished is not None:
            self.finished(episode)

    def _refill(
        self,
        done: npt.NDArray[np.intp],
        starting: npt.NDArray[np.bool_],
        obs: dict[str, npt.NDArray[np.float32]],
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Start the next seeds in the simulations that are done; retire those for which none is left."""
        left = len(self.seeds) - self.next
        starting[done[:left]] = True
        retired = done[left:]
        if len(retired):
            keep = ~np.isin(self.rows, retired)
            if hasattr(self.state, "select"):
                self.state = self.state.select(np.flatnonzero(keep))
            self.rows = self.rows[keep]
        if starting.any():
            obs = self._start(starting)
        return obs

    def _rouse(self, ended: npt.NDArray[np.bool_]) -> None:
        """Reset the unused simulations that ended, where they may not be stepped on otherwise."""
        idle = ended.copy()
        idle[self.rows] = False
        if len(self.rows) and idle.any() and not stands_still(self.env):
            self.env.reset(options={"reset_mask": idle})


class _Tape:
    """What one simulation has recorded of its present episode."""

    def __init__(self, first: dict[str, npt.NDArray[np.float32]] | None = None) -> None:
        self.obs = {name: [value] for name, value in (first or {}).items()}
        self.actions: list[npt.NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.states: list[npt.NDArray[np.float64]] = []
        self.success = False

    def add(
        self,
        action: npt.NDArray[np.float32],
        reward: float,
        success: bool,
        obs: dict[str, npt.NDArray[np.float32]],
        row: int,
        state: npt.NDArray[np.float64] | None,
    ) -> None:
        for name, value in obs.items():
            self.obs[name].append(value[row].copy())
        self.actions.append(action)
        self.rewards.append(reward)
        self.success |= success
        if state is not None:
            self.states.append(state)

    def episode(self, terminated: bool, seed: int, condition: str) -> Episode:
        return Episode(
            obs={name: np.stack(rows) for name, rows in self.obs.items()},
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, dtype=np.float32),
            terminated=terminated,
            truncated=not terminated,
            success=self.success,
            seed=seed,
            condition=condition,
            states=np.stack(self.states) if self.states else None,
        )


def _success(info: dict[str, Any], count: int) -> npt.NDArray[np.bool_]:
    """Both names that environments use, as gymnasium's vector infos hold them."""
    success = np.zeros(count, dtype=bool)
    for name in ("is_success", "success"):
        if name in info:
            success |= np.asarray(info[name], dtype=np.float64) > 0.5
    return success
