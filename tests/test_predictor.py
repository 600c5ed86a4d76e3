"""Laws of who acts: the scripted expert, and DAgger's mixture of learner and expert."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import EpisodicPredictor, Mixture, Predictor, ScriptedExpert
from diffpolicy_envs import TASKS

every_name = pytest.mark.parametrize("name", TASKS)


class Steps:
    """The number of calls so far of a row's episode."""

    def __init__(self, count: np.ndarray) -> None:
        self.count = count

    def select(self, rows: np.ndarray) -> Steps:
        return Steps(self.count[rows])


class Metronome:
    """Acts on the time since its episode began, and on nothing else."""

    def __init__(self, base: float, size: int = 1) -> None:
        self.base, self.size = base, size

    def begin(self, state: Steps | None, mask: np.ndarray, episodes: np.ndarray) -> Steps:
        assert len(mask) == len(episodes)
        return Steps(np.where(mask, 0, 0 if state is None else state.count))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Steps]:
        del observation, episode_start, deterministic
        wave = 0.5 * np.sin(0.2 * state.count[:, None] + np.arange(self.size)) + self.base
        return wave.astype(np.float32), Steps(state.count + 1)


def choices(mixture: Mixture, episodes: list[int], steps: int) -> np.ndarray:
    """(T, N) whether the expert, whose base is 10, acted."""
    numbers = np.array(episodes)
    state = mixture.begin(None, np.ones(len(numbers), bool), numbers)
    chosen = []
    for _ in range(steps):
        action, state = mixture.predict(np.zeros((len(numbers), 1)), state)
        assert action.dtype == np.float32
        chosen.append(action[:, 0] > 5)
    return np.stack(chosen)


def mixture(beta: float = 0.5, period: int = 4, seed: int = 0) -> Mixture:
    return Mixture(Metronome(0.0), Metronome(10.0), beta, period, seed)


# -- scripted expert --------------------------------------------------------------------------------------------


@every_name
def test_scripted_expert_acts_for_the_simulations_it_is_asked_about(name: str) -> None:
    env = make_vector(name, 4, threads=1)
    env.reset(seed=0)
    expert = ScriptedExpert(env)
    everyone = env.unwrapped.expert()  # type: ignore[attr-defined]
    assert np.array_equal(expert.predict(None)[0], everyone)
    state = expert.begin(None, np.ones(4, bool), np.arange(4))
    some = state.select(np.array([0, 2, 3])).select(np.array([1, 2]))
    assert np.array_equal(expert.predict(None, some)[0], everyone[[2, 3]])
    assert expert.begin(some, np.ones(2, bool), np.arange(2)) is some  # a new episode runs in the same simulation


def test_scripted_expert_needs_an_environment_that_has_one() -> None:
    env = make_vector("Pendulum-v1", 1)
    with pytest.raises(InputError, match="Pendulum-v1 knows no scripted expert"):
        ScriptedExpert(env)
    env.close()


def test_kinds_of_predictors_are_told_apart() -> None:
    class Plain:
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> Any: ...

    assert isinstance(Plain(), Predictor)
    assert not isinstance(Plain(), EpisodicPredictor)
    assert isinstance(Metronome(0.0), EpisodicPredictor)
    assert isinstance(mixture(), EpisodicPredictor)


# -- mixture ----------------------------------------------------------------------------------------------------


def test_beta_is_the_share_of_the_expert() -> None:
    for beta in (0.0, 0.2, 0.7, 1.0):
        share = choices(mixture(beta), list(range(400)), 40)[::4].mean()
        assert share == pytest.approx(beta, abs=0.03 if 0 < beta < 1 else 0)


def test_coin_holds_for_a_whole_period() -> None:
    chosen = choices(mixture(period=5), list(range(50)), 30).reshape(6, 5, 50)
    assert (chosen == chosen[:, :1]).all()
    assert len(np.unique(chosen[:, 0], axis=1).T) > 10  # episodes differ
    assert len(np.unique(chosen[:, 0], axis=0)) == 6  # so do periods


def test_coin_depends_on_the_seed_and_the_episode_and_not_on_the_batch() -> None:
    episodes = [3, 17, 4, 900]
    together = choices(mixture(), episodes, 40)
    for column, episode in enumerate(episodes):
        assert np.array_equal(choices(mixture(), [episode], 40)[:, 0], together[:, column])
    assert np.array_equal(choices(mixture(), episodes[::-1], 40)[:, ::-1], together)
    assert not np.array_equal(choices(mixture(seed=1), episodes, 40), together)


def test_new_episode_of_a_row_tosses_its_own_coins() -> None:
    mixed = mixture()
    state = mixed.begin(None, np.ones(2, bool), np.array([1, 2]))
    for _ in range(7):
        _, state = mixed.predict(np.zeros((2, 1)), state)
    state = mixed.begin(state, np.array([False, True]), np.array([1, 5]))
    chosen = []
    for _ in range(30):
        action, state = mixed.predict(np.zeros((2, 1)), state)
        chosen.append(action[:, 0] > 5)
    assert np.array_equal(np.stack(chosen)[:, 1], choices(mixture(), [5], 30)[:, 0])
    assert np.array_equal(np.stack(chosen)[:, 0], choices(mixture(), [1], 37)[7:, 0])


@every_name
def test_mixture_is_the_learner_at_beta_zero_and_the_expert_at_one(name: str) -> None:
    env = make_vector(name, 2, threads=1)
    size = env.single_action_space.shape[0]  # type: ignore[index]
    seeds = [0, 1, 2]
    for beta, actor in ((0.0, Metronome(0.0, size)), (1.0, ScriptedExpert(env))):
        mixed = rollout(env, Mixture(Metronome(0.0, size), ScriptedExpert(env), beta, 8), seeds)
        for one, other in zip(mixed, rollout(env, actor, seeds), strict=True):  # type: ignore[arg-type]
            assert np.array_equal(one.actions, other.actions)
            assert np.array_equal(one.rewards, other.rewards)


@every_name
def test_mixture_of_an_episode_does_not_depend_on_the_batch_it_is_played_in(name: str) -> None:
    played = []
    for num in (1, 3):
        env = make_vector(name, num, threads=1)
        size = env.single_action_space.shape[0]  # type: ignore[index]
        mixed = Mixture(Metronome(0.0, size), ScriptedExpert(env), 0.5, 8)
        played.append(rollout(env, mixed, [7, 3, 5, 4]))
    for one, other in zip(*played, strict=True):
        assert np.array_equal(one.actions, other.actions)


def test_bad_mixtures_are_refused() -> None:
    for beta, period in ((-0.1, 1), (1.1, 1), (np.nan, 1), (0.5, 0)):
        with pytest.raises(InputError, match="beta must lie in"):
            mixture(beta, period)
    with pytest.raises(InputError, match="call begin first"):
        mixture().predict(np.zeros((1, 1)))
