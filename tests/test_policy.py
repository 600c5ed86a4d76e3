"""Laws of acting: the chunk queue, episode starts, noise, batches, and other people's loops."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import ActingState, Bounds, Policy, PolicyConfig, SpaceSpec

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,)), "b": Bounds((-1.0, -1.0), (1.0, 1.0))}, Bounds((0.0,), (4.0,)), False)
BOX = SpaceSpec({"observation": Bounds((-1.0,) * 3, (1.0,) * 3)}, Bounds((-2.0,), (2.0,)), True)


def make(spec: SpaceSpec = SPACES, n_obs_steps: int = 2, n_action_steps: int = 3, **sampler: Any) -> Policy:
    """A small policy with random, not zero, output."""
    torch.manual_seed(0)
    policy = Policy(
        PolicyConfig(
            horizon=6,
            n_obs_steps=n_obs_steps,
            n_action_steps=n_action_steps,
            network=MLPConfig(width=16, blocks=1),
            sampler=SamplerConfig(**{"steps": 3, "clip": None, **sampler}),
        ),
        spec,
    )
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight, std=0.2)
    return policy


def observations(time: int, count: int = 3) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(time)
    return {"a": rng.uniform(-1, 1, (count, 1)), "b": rng.uniform(-1, 1, (count, 2))}


def count_rows(policy: Policy) -> list[int]:
    """A list that grows by the batch size of each call of the policy's network, K calls a decision."""
    calls: list[int] = []
    policy.denoiser.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    return calls


def arrays(state: ActingState) -> list[np.ndarray]:
    values = [getattr(state, field.name) for field in fields(state)]
    return [array for value in values for array in (value.values() if isinstance(value, dict) else [np.array(value)])]


def test_queue_executes_its_actions_and_then_plans_anew() -> None:
    policy = make()
    calls, state = count_rows(policy), None
    for time in range(7):
        _, state = policy.predict(observations(time), state)
        assert len(calls) == 3 * (time // 3 + 1)  # K = 3 calls at times 0, 3, 6
    assert state is not None
    assert state.decision.tolist() == [3, 3, 3]


def test_executed_actions_are_the_chunks_from_the_present_on() -> None:
    policy = make()
    seen: list[torch.Tensor] = []
    original = policy.chunk
    policy.chunk = lambda obs, noise: seen.append(original(obs, noise)) or seen[-1]  # type: ignore[method-assign]
    actions, state = [], None
    for time in range(3):
        action, state = policy.predict(observations(time), state)
        actions.append(action)
    assert np.array_equal(np.stack(actions, 1), seen[0][:, 1:4].numpy())  # n_obs_steps - 1 = 1


def test_history_is_filled_at_a_start_and_shifted_afterwards() -> None:
    policy = make()
    first, second = observations(0), observations(1)
    _, state = policy.predict(first)
    np.testing.assert_allclose(state.history["b"], np.stack([first["b"]] * 2, 1), rtol=1e-6)
    _, state = policy.predict(second, state)
    np.testing.assert_allclose(state.history["b"], np.stack([first["b"], second["b"]], 1), rtol=1e-6)


def test_episode_start_resets_only_its_row() -> None:
    policy = make()
    _, state = policy.predict(observations(0))
    calls = count_rows(policy)
    _, reset = policy.predict(observations(1), state, np.array([False, True, False]))
    _, kept = policy.predict(observations(1), state)
    assert calls == [1, 1, 1]  # K calls for the one row that started
    assert reset.cursor.tolist() == [2, 1, 2]
    assert reset.episode.tolist() == [0, 4, 2]
    assert reset.decision.tolist() == [1, 1, 1]
    np.testing.assert_allclose(reset.history["a"][1, 0], observations(1)["a"][1], rtol=1e-6)
    for row in (0, 2):
        assert np.array_equal(reset.queue[row], kept.queue[row])
        assert np.array_equal(reset.history["a"][row], kept.history["a"][row])


def test_first_start_keeps_the_episode_number() -> None:
    policy = make()
    _, state = policy.predict(observations(0), None, np.ones(3, bool))
    assert state.episode.tolist() == [0, 1, 2]
    state = policy.begin(state, np.array([True, False, True]), np.array([70, 80, 90]))
    _, state = policy.predict(observations(1), state, np.array([True, False, True]))
    assert state.episode.tolist() == [70, 1, 90]
    _, state = policy.predict(observations(2), state, np.array([True, False, False]))
    assert state.episode.tolist() == [73, 1, 90]


def test_states_passed_in_are_never_changed() -> None:
    policy = make()
    _, state = policy.predict(observations(0))
    before = copy.deepcopy(state)
    policy.predict(observations(1), state, np.array([True, False, False]))
    policy.begin(state, np.ones(3, bool), np.arange(3) + 9)
    for old, new in zip(arrays(before), arrays(state), strict=True):
        assert np.array_equal(old, new)
    again = [policy.predict(observations(1), state)[0] for _ in range(2)]
    assert np.array_equal(*again)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_batch_acts_like_its_rows_alone(eta: float) -> None:
    policy = make(eta=eta)
    episodes = np.array([11, 5, 23])
    together = policy.begin(None, np.ones(3, bool), episodes)
    alone = [policy.begin(None, np.ones(1, bool), episodes[row : row + 1]) for row in range(3)]
    for time in range(5):
        obs = observations(time)
        actions, together = policy.predict(obs, together)
        for row in range(3):
            single = {name: value[row] for name, value in obs.items()}
            action, alone[row] = policy.predict(single, alone[row])
            np.testing.assert_allclose(action, actions[row], atol=1e-5)


def test_noise_depends_on_seed_episode_and_decision() -> None:
    policy = make(n_action_steps=1)
    obs = {name: np.repeat(value[:1], 3, 0) for name, value in observations(0).items()}
    actions, state = policy.predict(obs)
    assert len(np.unique(actions)) == 3
    assert not np.allclose(actions, policy.predict(obs, state)[0])
    policy.seed = 1
    assert not np.allclose(actions, policy.predict(obs)[0])


def test_deterministic_leaves_out_the_noise_of_the_steps_only() -> None:
    policy = make(eta=1.0)
    obs = {name: np.repeat(value[:1], 2, 0) for name, value in observations(0, 2).items()}
    mean, _ = policy.predict(obs, deterministic=True)
    drawn, _ = policy.predict(obs)
    assert not np.allclose(mean, drawn)
    assert mean[0] != mean[1]
    plain = make(eta=0.0)
    assert np.array_equal(plain.predict(obs)[0], plain.predict(obs, deterministic=True)[0])


def test_actions_are_single_precision_within_the_space() -> None:
    policy = make()
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight, std=50)
    actions, _ = policy.predict(observations(0, 40))
    assert actions.dtype == np.float32
    assert actions.shape == (40, 1)
    assert actions.min() == 0
    assert actions.max() == 4


def test_one_observation_gives_one_action() -> None:
    action, state = make(BOX).predict(np.zeros(3))
    assert action.shape == (1,)
    assert len(state) == 1
    named, _ = make(BOX).predict({"observation": np.zeros(3)})
    assert np.array_equal(named, action)


@pytest.mark.parametrize(
    ("observation", "match"),
    [
        (np.zeros((3, 4)), r"'observation' of shape \(3,\) or \(N, 3\), got \(3, 4\)"),
        (np.zeros((2, 2, 3)), r"got \(2, 2, 3\)"),
        (np.array([0, np.nan, 0]), r"'observation' of shape \(3,\), got NaN"),
        ((np.zeros(3), {}), "tuple"),
        ({"other": np.zeros(3)}, "other"),
        (["x", None, object()], "array of 3 numbers"),
    ],
)
def test_unusable_observations_are_refused(observation: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        make(BOX).predict(observation)


def test_named_observations_must_be_complete_and_of_one_batch() -> None:
    with pytest.raises(InputError, match=r"\['a', 'b'\], got \['a'\]"):
        make().predict({"a": np.zeros(1)})
    with pytest.raises(InputError, match="mapping"):
        make().predict(np.zeros(3))
    with pytest.raises(InputError, match="one batch"):
        make().predict({"a": np.zeros((2, 1)), "b": np.zeros(2)})


def test_a_state_of_another_number_of_environments_is_refused() -> None:
    policy = make()
    _, state = policy.predict(observations(0))
    with pytest.raises(InputError, match="2 rows"):
        policy.predict(observations(1, 2), state)
    with pytest.raises(InputError, match="2 rows"):
        policy.predict(observations(1, 2), None, np.zeros(3, bool))
    with pytest.raises(InputError, match="mask and episodes"):
        policy.begin(state, np.ones(2, bool), np.arange(2))


def test_resampled_policy_has_the_weights_but_other_steps() -> None:
    policy = make()
    other = policy.resampled(steps=7, eta=1.0)
    assert (len(policy.sampler), len(other.sampler)) == (3, 7)
    assert other.config.sampler.eta == 1
    for old, new in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(old, new)
        assert old is not new


def test_policy_can_be_copied_and_pickled() -> None:
    policy = make()
    for other in (copy.deepcopy(policy), pickle.loads(pickle.dumps(policy))):
        assert np.array_equal(other.predict(observations(0))[0], policy.predict(observations(0))[0])


@pytest.mark.parametrize("change", [{"n_action_steps": 6}, {"n_obs_steps": 0}, {"n_action_steps": 0}])
def test_more_actions_than_the_chunk_has_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match="horizon"):
        make(**change)  # type: ignore[arg-type]


class Follow(gym.Env[Any, Any]):
    """Ten steps of one number that moves as it is told; its observation is a Box or a Dict."""

    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, named: bool) -> None:
        box = spaces.Box(-20, 20, (1,), np.float32)
        self.named = named
        self.observation_space = spaces.Dict({"position": box}) if named else box

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.position, self.time = self.np_random.uniform(-1, 1, 1).astype(np.float32), 0
        return self.look(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.position, self.time = (self.position + action).astype(np.float32), self.time + 1
        return self.look(), -abs(float(self.position[0])), False, self.time == 10, {}

    def look(self) -> Any:
        return {"position": self.position} if self.named else self.position


@pytest.mark.parametrize("named", [False, True])
def test_stable_baselines_evaluates_the_policy(named: bool) -> None:
    env = DummyVecEnv([lambda: Follow(named)] * 3)
    policy = make(SpaceSpec.from_spaces(env.observation_space, env.action_space))
    returns, lengths = evaluate_policy(policy, env, 5, return_episode_rewards=True, warn=False)  # type: ignore[arg-type]
    assert lengths == [10] * 5
    assert np.isfinite(returns).all()


@pytest.mark.parametrize("named", [False, True])
def test_plain_gymnasium_loop_runs_the_policy(named: bool) -> None:
    env = Follow(named)
    policy = make(SpaceSpec.from_spaces(env.observation_space, env.action_space))
    (obs, _), state, over = env.reset(seed=0), None, False
    while not over:
        action, state = policy.predict(obs, state)
        obs, _, _, over, _ = env.step(action)
    assert state is not None
    assert state.decision.tolist() == [4]  # 10 steps, 3 actions a decision


def test_joined_windows_are_the_named_ones_in_the_order_of_names() -> None:
    spec = SpaceSpec({"b": Bounds((-2.0,) * 2, (3.0,) * 2), "a": Bounds((-1.0,), (1.0,))}, SPACES.action, False)
    encoder = make(spec).encoder
    named = {"b": torch.randn(5, 2, 2), "a": torch.randn(5, 2, 1)}
    expected = torch.cat([named["a"], (named["b"] - 0.5) / 2.5], -1).clamp(-5, 5).flatten(1)
    torch.testing.assert_close(encoder(named), expected)
    assert torch.equal(encoder(torch.cat([named["a"], named["b"]], -1)), encoder(named))


def test_ranges_that_are_loaded_are_used() -> None:
    open_ended = SpaceSpec({"observation": Bounds((-np.inf,), (np.inf,))}, BOX.action, True)
    policies = [make(open_ended), make(open_ended)]
    with pytest.raises(InputError, match="fitted"):
        policies[0].predict(np.zeros(1))
    for policy, spread in zip(policies, (1.0, 3.0), strict=True):
        policy.normaliser.fit({"observation": torch.tensor([[-spread], [spread]])}, torch.zeros(2, 1))
    before = policies[0].encoder(torch.ones(1, 2, 1))
    policies[0].load_state_dict(policies[1].state_dict())
    assert torch.equal(before, torch.ones(1, 2))
    assert torch.equal(policies[0].encoder(torch.ones(1, 2, 1)), torch.ones(1, 2) / 3)
