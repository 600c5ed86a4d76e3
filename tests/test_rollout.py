"""Laws of playing episodes: one for each seed, whatever the batch, and nothing in it that is not its own."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from diffpolicy.data.episode import Episode
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs import TASKS

every_name = pytest.mark.parametrize("name", ["diffpolicy/PickPlace-v0"])  # what is tested does not depend on it


class Countdown(gymnasium.Env[np.ndarray, np.ndarray]):
    """Shows (seed, time); ends after 1 + seed % 7 steps, by the time limit where that is odd; then may not go on."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Box(-10.0, 10.0, (1,), np.float32)

    def __init__(self, key: str = "is_success", when: str = "last") -> None:
        self.key, self.when = key, when

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed, options=options)
        self.seed, self.time = -2 if seed is None else seed, 0
        self.length = 1 if seed is None else 1 + seed % 7
        return np.array([self.seed, 0], np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.time < self.length
        self.time += 1
        done, odd = self.time == self.length, self.length % 2 == 1
        success = (done if self.when == "last" else self.time == 1) and self.seed % 3 == 0
        info = {self.key: float(success)} if self.key else {}
        return np.array([self.seed, self.time], np.float32), float(action[0]), done and not odd, done and odd, info


if "Countdown-v0" not in gymnasium.registry:
    gymnasium.register("Countdown-v0", Countdown, disable_env_checker=True)


class Function:
    """An actor that only looks."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        del state, episode_start, deterministic
        return self.function(observation), None


def tiny_policy(env: Any) -> Policy:
    """A policy that was never trained, with random, not zero, output."""
    torch.manual_seed(0)
    config = PolicyConfig(
        horizon=8,
        n_obs_steps=2,
        n_action_steps=6,
        network=MLPConfig(width=16, blocks=1),
        sampler=SamplerConfig(steps=3, eta=1.0),
    )
    policy = Policy(config, SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space))
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight, std=0.2)
    return policy.eval()


def assert_same(one: Episode, other: Episode) -> None:
    assert one.obs.keys() == other.obs.keys()
    assert all(np.array_equal(one.obs[name], other.obs[name]) for name in one.obs)
    assert np.array_equal(one.actions, other.actions)
    assert np.array_equal(one.rewards, other.rewards)
    assert (one.terminated, one.truncated, one.success, one.seed, one.condition) == (
        (other.terminated, other.truncated, other.success, other.seed, other.condition)
    )
    assert (one.states is None) == (other.states is None)
    assert one.states is None or np.array_equal(one.states, other.states)  # type: ignore[arg-type]


# -- ours -------------------------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("condition", TASKS["diffpolicy/PickPlace-v0"].conditions())
def test_experts_episode_depends_on_its_seed_alone(name: str, condition: str) -> None:
    seeds = [4, 11, 2, 7, 0]
    played = {}
    for num in (1, 3, 8):
        env = make_vector(name, num, condition, threads=1)
        played[num] = rollout(env, ScriptedExpert(env), seeds, condition=condition, record_states=True)
        assert [episode.seed for episode in played[num]] == seeds
        if num == 3:
            backwards = rollout(env, ScriptedExpert(env), seeds[::-1], condition=condition, record_states=True)
            for one, other in zip(played[3], backwards[::-1], strict=True):
                assert_same(one, other)
    for alone, three, eight in zip(*played.values(), strict=True):
        assert_same(alone, three)
        assert_same(alone, eight)
        assert alone.condition == condition


@every_name
def test_policys_episode_depends_on_its_seed_alone(name: str) -> None:
    seeds = [4, 11, 2]
    played = []
    for num, order in ((1, seeds), (3, seeds), (8, seeds), (2, seeds[::-1])):
        env = make_vector(name, num, "sensor_noise", threads=1)
        played.append(sorted(rollout(env, tiny_policy(env), order), key=lambda episode: seeds.index(episode.seed)))
    for alone, *others in zip(*played, strict=True):
        assert len(np.unique(alone.actions[:6], axis=0)) == 6
        for other in others:
            assert np.allclose(alone.actions[:6], other.actions[:6], rtol=0, atol=1e-5)
    assert not np.allclose(played[0][0].actions[:6], played[0][1].actions[:6], atol=1e-2)


@every_name
def test_policy_repeats_itself_bit_for_bit_and_deterministic_is_handed_on(name: str) -> None:
    env = make_vector(name, 2, threads=1)
    once, again = (rollout(env, tiny_policy(env), [1, 2, 3]) for _ in range(2))
    for one, other in zip(once, again, strict=True):
        assert_same(one, other)
    calm = rollout(env, tiny_policy(env), [1, 2, 3], deterministic=True)
    assert not np.array_equal(calm[0].actions[:6], once[0].actions[:6])


@every_name
def test_episode_replays_by_hand_in_the_single_environment(name: str) -> None:
    env = make_vector(name, 2, "shove", threads=1)
    seen: list[int] = []
    episodes = rollout(
        env,
        ScriptedExpert(env),
        [3, 5, 8],
        condition="shove",
        record_states=True,
        finished=lambda episode: seen.append(episode.seed),
    )
    assert sorted(seen) == [3, 5, 8]
    single: Any = gymnasium.make(name, condition="shove").unwrapped
    for episode in episodes:
        assert episode.success
        assert episode.terminated
        assert not episode.truncated
        observation, _ = single.reset(seed=episode.seed)
        steps = len(episode)
        assert all(len(value) == steps + 1 for value in episode.obs.values())
        assert episode.states is not None
        assert len(episode.states) == len(episode.actions) == len(episode.rewards) == steps
        for t in range(steps):
            assert all(np.array_equal(episode.obs[key][t], observation[key]) for key in observation)
            assert np.array_equal(episode.states[t], single.get_state())
            observation, reward, terminated, truncated, _ = single.step(episode.actions[t])
            assert episode.rewards[t] == np.float32(reward)
            assert (terminated, truncated) == (t == steps - 1, False)
        assert all(np.array_equal(episode.obs[key][steps], observation[key]) for key in observation)


@every_name
def test_time_limit_truncates_an_episode(name: str) -> None:
    env = make_vector(name, 2, threads=1)
    size = env.single_action_space.shape[0]  # type: ignore[index]
    episodes = rollout(env, Function(lambda obs: np.zeros((len(obs["goal"]), size))), [0, 1, 2])
    for episode in episodes:
        assert len(episode) == TASKS[name].max_steps
        assert (episode.terminated, episode.truncated, episode.success) == (False, True, False)
        assert episode.actions.dtype == episode.rewards.dtype == np.float32
        assert episode.states is None


# -- other people's ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 2, 4, 20])
def test_no_row_of_another_episode_is_ever_stored(num: int) -> None:
    env = make_vector("Countdown-v0", num)
    seeds = [20, 3, 5, 13, 0, 7, 6, 1, 2]
    episodes = rollout(env, Function(lambda obs: obs[:, 1:] + 1), seeds)
    assert [episode.seed for episode in episodes] == seeds
    for episode in episodes:
        steps = 1 + episode.seed % 7
        assert episode.obs["observation"].tolist() == [[episode.seed, t] for t in range(steps + 1)]
        assert episode.actions[:, 0].tolist() == list(range(1, steps + 1))
        assert episode.rewards.tolist() == list(range(1, steps + 1))
        assert episode.terminated == (steps % 2 == 0)
        assert episode.truncated == (steps % 2 == 1)
        assert episode.success == (episode.seed % 3 == 0)
    env.close()


@pytest.mark.parametrize("key", ["is_success", "success", ""])
@pytest.mark.parametrize("when", ["last", "once"])
def test_success_is_read_from_both_names_and_at_any_step(key: str, when: str) -> None:
    env = make_vector("Countdown-v0", 3, key=key, when=when)
    episodes = rollout(env, Function(lambda obs: obs[:, 1:]), [3, 4, 5, 6, 9])
    assert [episode.success for episode in episodes] == [key != "" and e.seed % 3 == 0 for e in episodes]
    env.close()


def test_actor_is_told_which_rows_start_an_episode() -> None:
    class Told(Function):
        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> tuple[np.ndarray, None]:
            del state, deterministic
            assert np.array_equal(episode_start, observation[:, 1] == 0)
            return observation[:, 1:], None

    env = make_vector("Countdown-v0", 3)
    assert len(rollout(env, Told(None), list(range(12)))) == 12
    env.close()


@pytest.mark.parametrize("num", [1, 2, 5])
def test_foreign_environment_plays_as_in_gymnasiums_own_loop(num: int) -> None:
    def swing(obs: np.ndarray) -> np.ndarray:
        return np.clip(2 * obs[:, 2:], -2, 2)

    env = make_vector("Pendulum-v1", num)
    episodes = rollout(env, Function(swing), [5, 0, 9])
    single = gymnasium.make("Pendulum-v1")
    for episode, seed in zip(episodes, [5, 0, 9], strict=True):
        assert len(episode) == 200
        assert episode.truncated
        observation, _ = single.reset(seed=seed)
        for t in range(200):
            assert np.array_equal(episode.obs["observation"][t], observation)
            observation, reward, *_ = single.step(episode.actions[t])
            assert episode.rewards[t] == np.float32(reward)
    env.close()


def test_stable_baselines_model_is_an_actor() -> None:
    model = PPO(
        "MlpPolicy", "Pendulum-v1", n_steps=8, batch_size=8, seed=0, device="cpu", policy_kwargs={"net_arch": [4]}
    )
    env = make_vector("Pendulum-v1", 2)
    episodes = rollout(env, model, [1, 2, 3], deterministic=True)
    single = gymnasium.make("Pendulum-v1")
    for episode in episodes:
        observation, _ = single.reset(seed=episode.seed)
        for t in range(20):
            action, _ = model.predict(observation, deterministic=True)
            assert np.allclose(action, episode.actions[t], rtol=0, atol=1e-4)
            observation, *_ = single.step(episode.actions[t])
    env.close()


def test_policy_plays_a_foreign_environment_with_fewer_seeds_than_simulations() -> None:
    env = make_vector("Countdown-v0", 5)
    policy = tiny_policy(env)
    alone = make_vector("Countdown-v0", 1)
    for one, other in zip(rollout(env, policy, [6, 3]), rollout(alone, policy, [6, 3]), strict=True):
        assert len(one) == len(other) == 1 + one.seed % 7
        assert np.allclose(one.actions[:6], other.actions[:6], rtol=0, atol=1e-4)
    env.close()
    alone.close()


# -- bad input --------------------------------------------------------------------------------------------------


def test_bad_seeds_and_states_that_cannot_be_had_are_refused() -> None:
    env = make_vector("Pendulum-v1", 2)
    actor = Function(lambda obs: np.zeros((len(obs), 1)))
    for seeds in ([1, 2, 1], [0, -1]):
        with pytest.raises(InputError, match="seeds must be distinct and not negative"):
            rollout(env, actor, seeds)
    with pytest.raises(InputError, match="get_state and set_state"):
        rollout(env, actor, [0], record_states=True)
    assert rollout(env, actor, []) == []
    env.close()
