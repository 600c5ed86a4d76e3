"""What an expert would have done in states that the learner visited: by branching there, or by taking over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode, Labels
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Branchable, Vector, branching, checked_action, divergences, named, shown
from diffpolicy.rollout.faults import broken_rows, reported_faults, told
from diffpolicy.rollout.predictor import EpisodicPredictor, Predictor

__all__ = ["Cost", "Labeller", "Takeover", "label_by_branching", "label_by_takeover"]

Labeller = Callable[[Vector], Predictor]
"""Makes the expert for an environment: ``ScriptedExpert``, or a function that gives a loaded policy or model."""


@dataclass(frozen=True)
class Cost:
    """What labelling took."""

    queries: int = 0  # chunks labelled: times that an expert was asked from a visited state
    env_steps: int = 0  # control steps simulated for it, beyond the learner's own
    failed: int = 0  # queries that gave no label, since the expert or its branch broke

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.queries + other.queries, self.env_steps + other.env_steps, self.failed + other.failed)


def label_by_branching(
    env: Vector, expert: Predictor, episodes: list[Episode], length: int, every: int = 1
) -> tuple[list[Episode], Cost]:
    """Label visited states with whole chunks: set each state, let the expert act for ``length`` steps.

    DAgger (arXiv 1011.0686) asks for one action in each visited state; a chunked policy executes several, so
    the label is the chunk that the expert's own closed loop produces from there. Disturbances still to come
    are left out of the branch, since nobody could foresee them. A label ends where the branch's episode ends.

    Args:
        env: a branchable environment with as many simulations as shall be branched at once.
        expert: labels; if it has memory, it starts fresh in each branch.
        episodes: recorded with states.
        length: actions per label L.
        every: label each ``every``-th visited state; the others get no label.

    Returns:
        The episodes with labels and without states, and the cost.
    """
    branchable = branching(env)
    if branchable is None:
        raise InputError("this environment has no get_state and set_state: label by takeover instead")
    if any(episode.states is None for episode in episodes):
        raise InputError("episodes were recorded without states; call rollout with record_states=True")
    states = np.concatenate([_states(episode)[::every] for episode in episodes])  # (M, S)
    branches = _Branches(env, branchable, expert, branchable.undisturbed(states), length)
    for start in range(0, len(states), env.num_envs):
        branches.label(slice(start, min(start + env.num_envs, len(states))))
    labelled, start = [], 0
    for episode in episodes:
        taken = range(0, len(episode), every)
        count, width = len(taken), episode.actions.shape[1]
        labels = Labels(np.zeros((len(episode), length, width), np.float32), np.zeros((len(episode), length), bool))
        labels.chunks[::every] = branches.chunks[start : start + count]
        labels.valid[::every] = branches.valid[start : start + count]
        start += count
        labelled.append(replace(episode, labels=labels, states=None))
    return labelled, Cost(len(states), branches.steps, branches.failed)


def _states(episode: Episode) -> npt.NDArray[np.float64]:
    if episode.states is None:
        raise InputError("episode has no states")
    return episode.states


class _Branches:
    """Labels of M states, filled in part by part; a branch that breaks leaves no label.

    Raises InputError where more than half of them break.
    """

    def __init__(
        self, env: Vector, branchable: Branchable, expert: Predictor, states: npt.NDArray[np.float64], length: int
    ) -> None:
        self.env, self.branchable, self.expert, self.states, self.length = env, branchable, expert, states, length
        width = int(np.prod(env.single_action_space.shape or (1,)))
        self.chunks = np.zeros((len(states), length, width), np.float32)  # (M, L, A)
        self.valid = np.zeros((len(states), length), bool)  # (M, L)
        self.steps = self.failed = 0

    def label(self, part: slice) -> None:
        """Label some of the states, as many as there are simulations at most.

        Where something raises, nothing says which branch it was: the part is halved until one stands alone.
        """
        try:
            self._branch(part)
        except (MemoryError, _HopelessError):
            raise
        except Exception as error:
            self.valid[part] = False
            if part.stop - part.start == 1:
                self._fail(1, told(error), error)
                return
            middle = (part.start + part.stop) // 2
            self.label(slice(part.start, middle))
            self.label(slice(middle, part.stop))

    def _fail(self, count: int, why: str, error: Exception | None = None) -> None:
        self.failed += count
        if 2 * self.failed > len(self.states):
            raise _HopelessError(
                f"more than half of {len(self.states)} labels failed, the last one so: {why}; mend the labeller"
            ) from error

    def _branch(self, part: slice) -> None:
        """Set the states and let the expert act; what the simulations do after an end or a fault is no label."""
        env, ids = self.env, np.arange(part.stop - part.start)
        obs = named(self.branchable.set_state(self.states[part], ids))
        before = divergences(env)
        live, sound, starting = np.ones((3, len(ids)), bool)
        memory = None
        for k in range(self.length):
            if isinstance(self.expert, EpisodicPredictor) and memory is None:
                memory = self.expert.begin(None, starting, np.arange(part.start, part.stop))
            action, memory = self.expert.predict(shown(env, obs, ids), memory, starting, True)
            action = checked_action(env, action, len(ids), self.expert)
            starting = np.zeros(len(ids), bool)
            self.chunks[part, k], self.valid[part, k] = action, live
            full = np.zeros(env.action_space.shape or (env.num_envs, action.shape[1]), np.float32)
            full[ids] = action
            self.steps += int(live.sum())
            raw, reward, terminated, truncated, info = env.step(full)
            obs = named(raw)
            sound[list(broken_rows(obs, reward, ids[live]) | reported_faults(info, ids[live]))] = False
            sound &= (divergences(env) == before)[ids]
            live &= ~(terminated | truncated)[ids] & sound
            if not live.any():
                break
        self.valid[part] &= sound[:, None]
        if not sound.all():
            self._fail(int((~sound).sum()), "its simulation broke or diverged")


class _HopelessError(InputError):
    """So many labels failed that the rest is not worth having."""


class Takeover:
    """The learner acts, and from a drawn step on the expert: for environments that cannot be branched.

    The step is drawn uniformly from ``latest`` control steps by (seed, episode), so that over the rollouts
    the expert is met with states from every part of what the learner visits.
    """

    def __init__(self, learner: EpisodicPredictor, expert: Predictor, latest: int, seed: int = 0) -> None:
        if latest < 1:
            raise InputError(f"latest must be at least 1 control step, got {latest}")
        self._learner, self._expert, self._latest, self._seed = learner, expert, latest, seed

    def step_of(self, episode: int) -> int:
        """Control step at which the expert takes over in an episode."""
        return int(np.random.default_rng([self._seed, episode]).integers(self._latest))

    def begin(self, state: _TakeoverState | None, mask: Any, episodes: npt.NDArray[np.int64]) -> _TakeoverState:
        """Both start the episode; the step of the takeover is drawn."""
        n = len(mask)
        old = state or _TakeoverState(None, None, np.zeros(n, np.int64), np.zeros(n, np.int64))
        drawn = np.array([self.step_of(int(e)) for e in episodes])
        expert = old.expert
        if isinstance(self._expert, EpisodicPredictor):
            expert = self._expert.begin(old.expert, mask, episodes)
        learner = self._learner.begin(old.learner, mask, episodes)
        return _TakeoverState(learner, expert, np.where(mask, drawn, old.when), np.where(mask, 0, old.step))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[Any], _TakeoverState]:
        """The learner's action before the takeover, the expert's after it."""
        if not isinstance(state, _TakeoverState):
            raise InputError("a takeover acts from a state; call begin first")
        ours, learner = self._learner.predict(observation, state.learner, episode_start, deterministic)
        theirs, expert = self._expert.predict(observation, state.expert, episode_start, True)
        action = np.where((state.step >= state.when)[:, None], theirs, ours)
        return action, replace(state, learner=learner, expert=expert, step=state.step + 1)


@dataclass(frozen=True)
class _TakeoverState:
    learner: Any
    expert: Any
    when: npt.NDArray[np.int64]  # (N,) control step of the takeover
    step: npt.NDArray[np.int64]  # (N,)

    def select(self, rows: npt.NDArray[np.intp]) -> _TakeoverState:
        """The state of some rows only."""
        expert = self.expert.select(rows) if hasattr(self.expert, "select") else self.expert
        return _TakeoverState(self.learner.select(rows), expert, self.when[rows], self.step[rows])


def label_by_takeover(takeover: Takeover, episodes: list[Episode], length: int) -> tuple[list[Episode], Cost]:
    """The expert's executed segment is the label: of the steps after the takeover, none before it."""
    labelled, queries = [], 0
    for episode in episodes:
        steps = len(episode)
        times = np.arange(steps)[:, None] + np.arange(length)  # (T, L)
        valid = (times < steps) & (np.arange(steps)[:, None] >= takeover.step_of(episode.seed))
        chunks = episode.actions[np.minimum(times, steps - 1)]
        labelled.append(replace(episode, labels=Labels(chunks, valid), states=None))
        queries += int(valid[:, 0].sum())
    return labelled, Cost(queries, 0)
