"""Who acts: anything with Stable-Baselines3's ``predict``; here the ones that need the environment itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from diffpolicy.diffusion.noise import counter_noise
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Scripted, Vector, name_of
from diffpolicy.rollout.faults import UnansweredError, told
from diffpolicy_envs import Task, TaskVectorEnv
from diffpolicy_envs.observed import UnfitError
from diffpolicy_envs.planner import NoPlanError

__all__ = ["EpisodicPredictor", "Mixture", "Predictor", "Rows", "ScriptedExpert", "everywhere", "knows_expert"]

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


@runtime_checkable
class Predictor(Protocol):
    """Observation (N, ...) in, action (N, A) out; ``state`` carries memory from call to call."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[Any], Any]: ...


def everywhere(actor: Predictor) -> Callable[[Vector], Predictor]:
    """The same actor in whichever environment: what makers of actors are where nothing depends on it."""
    return lambda _: actor


@runtime_checkable
class EpisodicPredictor(Predictor, Protocol):
    """A predictor that wants to know which episode each row is in.

    Its state has ``select(rows)``: the state of some of the rows only.
    """

    def begin(self, state: Any, mask: Flags, episodes: Numbers) -> Any:
        """The state with the rows of ``mask`` (N,) at the start of ``episodes`` (N,)."""


@dataclass(frozen=True)
class Rows:
    """Which simulations the rows of an observation are."""

    index: npt.NDArray[np.intp]  # (n,)

    def select(self, rows: npt.NDArray[np.intp]) -> Rows:
        """The state of some rows only."""
        return Rows(self.index[rows])


class ScriptedExpert:
    """The environment's own expert, which looks at the true state and not at the observation."""

    def __init__(self, env: Vector) -> None:
        unwrapped = env.unwrapped
        if not isinstance(unwrapped, Scripted) or not knows_expert(env):
            plan = "write its `cost` so that it can be planned in; or " if isinstance(unwrapped, TaskVectorEnv) else ""
            raise InputError(
                f"{name_of(env)} knows no scripted expert and has no cost to plan by; {plan}name another (--labeller, "
                "--expert): a checkpoint folder, the zip file of a Stable-Baselines3 model, or module:function; or "
                "train one (diffpolicy expert)"
            )
        self._env: Scripted = unwrapped

    def begin(self, state: Rows | None, mask: Flags, episodes: Numbers) -> Rows:
        """No memory: only remembers which simulations it is asked about."""
        del episodes
        return Rows(np.arange(len(mask))) if state is None else state

    def predict(
        self, observation: Any, state: Rows | None = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.float32], Rows]:
        """The expert's actions (n, A) in the simulations' present states.

        Raises:
            UnansweredError: the expert plans, and from some of them no plan has a finite cost.
            InputError: the planner fails otherwise, or the script gives what is no action.
        """
        del observation, episode_start, deterministic
        if isinstance(self._env, TaskVectorEnv):  # ours can be asked about some simulations alone
            state = Rows(np.arange(self._env.num_envs)) if state is None else state
            return self._asked(self._env, state.index), state
        actions = self._env.expert()
        state = Rows(np.arange(len(actions))) if state is None else state
        return actions[state.index], state

    def _asked(self, env: TaskVectorEnv, ids: npt.NDArray[np.intp]) -> npt.NDArray[np.float32]:
        """What a planner refuses that stands in for a script is told in words; a script's own faults go through."""
        try:
            return env.expert(ids)
        except NoPlanError as error:
            raise _unanswered(env, ids) or InputError(str(error)) from error
        except UnfitError as error:
            raise InputError(str(error)) from error
        except (AttributeError, TypeError, ValueError) as error:
            task = type(env.simulations.task)
            if task.scripted():
                raise
            raise InputError(f"the planner of {task.__name__} failed: {told(error)}") from error


def _unanswered(env: TaskVectorEnv, ids: npt.NDArray[np.intp]) -> UnansweredError | None:
    """For which of some simulations there is no plan: the others' are made by then, and are not made again."""
    faults: dict[int, str] = {}
    for place, i in enumerate(ids):
        try:
            env.expert(np.array([i]))
        except NoPlanError as error:
            faults[place] = f"the planner failed: {error}"
    return UnansweredError(faults) if faults else None


def knows_expert(env: Vector) -> bool:
    """Whether an environment has an expert of its own: a scripted one, or a planner where its task has a cost."""
    unwrapped = env.unwrapped
    if isinstance(unwrapped, TaskVectorEnv):
        task = type(unwrapped.simulations.task)
        return task.scripted() or task.cost is not Task.cost
    return isinstance(unwrapped, Scripted)


@dataclass(frozen=True)
class _MixtureState:
    learner: Any
    expert: Any
    episode: Numbers  # (N,)
    step: Numbers  # (N,)

    def select(self, rows: npt.NDArray[np.intp]) -> _MixtureState:
        return _MixtureState(self.learner.select(rows), self.expert.select(rows), self.episode[rows], self.step[rows])


class Mixture:
    """DAgger's beta-mixture (arXiv 1011.0686, algorithm 3.1) for a chunked learner.

    For each ``period`` of control steps of an episode a coin is tossed: with probability ``beta`` the expert
    acts, else the learner. The coin depends on (seed, episode, period) alone.
    """

    def __init__(
        self, learner: EpisodicPredictor, expert: EpisodicPredictor, beta: float, period: int, seed: int = 0
    ) -> None:
        if not 0.0 <= beta <= 1.0 or period < 1:
            raise InputError(f"beta must lie in [0, 1] and period be at least 1; got {beta} and {period}")
        self._learner, self._expert, self._period, self._seed = learner, expert, period, seed
        self._threshold = NormalDist().inv_cdf(min(max(beta, 1e-12), 1 - 1e-12))

    def begin(self, state: _MixtureState | None, mask: Flags, episodes: Numbers) -> _MixtureState:
        """Both start the episode."""
        old = state or _MixtureState(None, None, np.zeros(len(mask), np.int64), np.zeros(len(mask), np.int64))
        return _MixtureState(
            self._learner.begin(old.learner, mask, episodes),
            self._expert.begin(old.expert, mask, episodes),
            np.where(mask, episodes, old.episode),
            np.where(mask, 0, old.step),
        )

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[np.float32], _MixtureState]:
        """Actions (N, A) of whoever the coin chose."""
        if not isinstance(state, _MixtureState):
            raise InputError("a mixture acts from a state; call begin first")
        ours, learner = self._learner.predict(observation, state.learner, episode_start, deterministic)
        theirs, expert = self._expert.predict(observation, state.expert, episode_start, deterministic)
        coin = counter_noise(self._seed, state.episode, state.step // self._period, (1,))[:, 0]
        action = np.where((coin < self._threshold)[:, None], theirs, ours).astype(np.float32)
        return action, replace(state, learner=learner, expert=expert, step=state.step + 1)
