"""Laws of how chunks follow one another: latency, ensembling, warm starts, and pulling towards the last chunk."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpolicy.diffusion import Denoiser, MLPConfig, Sampler, SamplerConfig
from diffpolicy.diffusion.chain import Hint
from diffpolicy.diffusion.schedule import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.policy import ActingConfig, Bounds, Policy, PolicyConfig, SpaceSpec, acting
from diffpolicy.policy.changes import changed

SPACES = SpaceSpec({"a": Bounds((-1.0,) * 3, (1.0,) * 3)}, Bounds((-2.0, -2.0), (2.0, 2.0)), False)


def make(seed: int = 0, **settings: Any) -> Policy:
    """A small policy with random output that depends on its inputs."""
    torch.manual_seed(seed)
    given = {"horizon": 10, "n_obs_steps": 1, "n_action_steps": 4, **settings}
    sampler = given.pop("sampler", SamplerConfig(steps=4, clip=None))
    policy = Policy(PolicyConfig(network=MLPConfig(width=16, blocks=1), sampler=sampler, **given), SPACES)
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight, std=0.3)  # type: ignore[union-attr, index, arg-type]
    return policy.eval()


def observations(steps: int, count: int = 3) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"a": rng.uniform(-1, 1, (count, 3)).astype(np.float32)} for _ in range(steps)]


def played(policy: Policy, steps: int, count: int = 3) -> np.ndarray:
    """The actions (T, N, A) of an episode in which the observations do not depend on them."""
    state, actions = None, []
    for obs in observations(steps, count):
        action, state = policy.predict(obs, state)
        actions.append(action)
    return np.stack(actions)


def chunks(policy: Policy, steps: int, count: int = 3) -> list[np.ndarray]:
    """The chunks (N, H, A) that a policy draws on its way, whatever it does with them."""
    found: list[np.ndarray] = []
    original = policy._draw
    policy._draw = lambda *given: found.append(original(*given)) or found[-1]  # type: ignore[method-assign, func-returns-value]
    played(policy, steps, count)
    return found


def with_acting(policy: Policy, **settings: Any) -> Policy:
    return policy.reconfigured(replace(policy.config, acting=ActingConfig(**settings)))


def test_after_a_latency_each_chunk_is_entered_where_its_time_has_come() -> None:
    policy = with_acting(make(), latency=2)
    first, second, third = chunks(policy, 12)
    expected = np.concatenate([first[:, :6], second[:, 2:6], third[:, 2:4]], axis=1)  # 4 + 2, then from the 2nd on
    assert np.array_equal(played(policy, 12).swapaxes(0, 1), expected)


def test_no_latency_is_what_it_was() -> None:
    assert np.array_equal(played(make(), 9), played(with_acting(make(), latency=0), 9))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.7])
@pytest.mark.parametrize("n_action_steps", [1, 3])
def test_ensemble_is_the_weighted_mean_of_all_chunks_that_reach_a_moment(rate: float, n_action_steps: int) -> None:
    policy = with_acting(make(n_action_steps=n_action_steps), ensemble=rate)
    drawn, actions = chunks(policy, 12), played(policy, 12)
    for time in range(12):
        held = [(k, time - k * n_action_steps) for k in range(len(drawn)) if 0 <= time - k * n_action_steps < 10]
        weights = np.exp(-rate * np.arange(len(held)))  # oldest first
        wanted = sum(w * drawn[k][:, i] for w, (k, i) in zip(weights, held, strict=True)) / weights.sum()
        np.testing.assert_allclose(actions[time], wanted, atol=2e-6)


def test_a_strong_decay_keeps_the_oldest_and_a_new_episode_forgets_them_all() -> None:
    policy = with_acting(make(), ensemble=100.0)
    first, *_ = chunks(policy, 9)
    assert np.allclose(played(policy, 9)[4:6], first[:, 4:6].swapaxes(0, 1))
    state, starts = None, np.array([False, True, False])
    for time, obs in enumerate(observations(5)):
        action, state = policy.predict(obs, state, starts if time == 4 else None)
    assert np.allclose(action[[0, 2]], first[[0, 2], 4], atol=1e-6)
    assert not np.allclose(action[1], first[1, 4], atol=1e-3)
    assert state is not None
    assert state.votes[:, 0].tolist() == [2, 1, 2]


def test_latency_and_ensemble_go_together() -> None:
    policy = with_acting(make(), latency=2, ensemble=0.0)
    first, second = chunks(policy, 8)
    actions = played(policy, 8).swapaxes(0, 1)
    assert np.array_equal(actions[:, :6], first[:, :6])
    np.testing.assert_allclose(actions[:, 6:8], (first[:, 6:8] + second[:, 2:4]) / 2, atol=1e-6)


@pytest.mark.parametrize("n_obs_steps", [1, 3])
def test_what_is_left_over_lines_up_with_the_present(n_obs_steps: int) -> None:
    config = PolicyConfig(horizon=10, n_obs_steps=n_obs_steps, n_action_steps=4, acting=ActingConfig(real_time=5.0))
    layout = make().layout
    state = acting.start(1, layout, config, 1, 0)
    times = np.arange(config.queued, dtype=np.float32)[None, :, None]  # the moment that each action is for
    state = acting.enqueue(state, np.zeros(1, np.int64), times)
    last = acting.left_over(state, np.zeros(1, np.int64), config)[0, :, 0]
    present = np.arange(10) - n_obs_steps + 1 + 4
    assert np.array_equal(last, np.clip(present, 0, config.queued - 1))


def test_overlap_is_one_until_the_latency_is_over_and_zero_where_the_last_chunk_ends() -> None:
    config = PolicyConfig(horizon=10, n_action_steps=4, acting=ActingConfig(latency=2, real_time=5.0))
    weight = acting.overlap(config)
    assert weight[:2].tolist() == [1, 1]
    assert (weight[6:] == 0).all()
    c = np.array([4, 3, 2, 1]) / 5
    np.testing.assert_allclose(weight[2:6], c * (np.exp(c) - 1) / (math.e - 1), rtol=1e-6)


class Linear(torch.nn.Module):
    """A denoiser whose clean prediction is gain x + bias, of no observation."""

    def __init__(self, gain: float, schedule: str = "straight") -> None:
        super().__init__()
        self.gain, self.schedule, self.t_max = gain, SCHEDULES[schedule], 1.0

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        return self.gain * x + 0.1


@pytest.mark.parametrize("time", [0.75, 0.5, 0.25])
def test_pull_is_real_time_chunkings_change_of_the_velocity(time: float) -> None:
    denoiser: Any = Linear(0.5)
    steps = SamplerConfig(steps=1, times=(time, 0.0), clip=None)
    sampler = Sampler(denoiser, steps)
    x, wanted, weight = torch.randn(2, 3, 1), torch.randn(2, 3, 1), torch.tensor([1.0, 0.5, 0.0])
    clean = 0.5 * x + 0.1
    tau = 1 - time  # the paper's time
    guidance = min(5.0, (1 - tau) / tau * (tau**2 + (1 - tau) ** 2) / (1 - tau) ** 2)
    velocity = (clean - x) / (1 - tau) + guidance * 0.5 * weight[:, None] * (wanted - clean)
    hint = Hint(wanted, 0, weight, 5.0)
    gaussian, _ = sampler.step(x, 0, torch.zeros(2, 1), hint=hint)
    torch.testing.assert_close(gaussian.mean, x + (1 - tau) * velocity)


def test_pull_is_the_same_for_the_same_ratio_on_every_schedule() -> None:
    """A denoiser of one ratio of noise, met by two schedules: x differs by a scale, the clean chunk does not."""
    wanted, noise, data = torch.randn(2, 3, 1), torch.randn(2, 3, 1), torch.randn(2, 3, 1)
    found = []
    for name in ("straight", "cosine"):
        schedule = SCHEDULES[name]
        time = float(schedule.time(torch.tensor(0.8, dtype=torch.float64)))
        alpha, sigma = schedule.alpha(torch.tensor(time)), schedule.sigma(torch.tensor(time))
        denoiser: Any = Linear(float(0.3 / alpha), name)
        sampler = Sampler(denoiser, SamplerConfig(steps=1, times=(time, 0.0), clip=None))
        x = alpha * data + sigma * noise
        found.append(sampler.step(x, 0, torch.zeros(2, 1), hint=Hint(wanted, 0, torch.ones(3), 5.0))[0].mean)
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_real_time_chunks_agree_with_the_last_one_where_it_is_binding() -> None:
    plain = make(sampler=SamplerConfig(steps=10, clip=None))
    config = replace(plain.config, acting=ActingConfig(latency=2))
    away = {}
    for name, real_time in (("plain", None), ("pulled", 5.0)):
        policy = plain.reconfigured(replace(config, acting=replace(config.acting, real_time=real_time)))
        drawn = chunks(policy, 8, count=32)
        away[name] = np.abs(drawn[1][:, :2] - drawn[0][:, 4:6]).mean()
    assert away["pulled"] < 0.5 * away["plain"]


def test_a_pull_of_no_weight_changes_nothing() -> None:
    policy = make()
    obs, noise = torch.randn(2, 3), torch.randn(2, 10, 2)
    free = policy.sampler.draw(obs, noise)
    held = policy.sampler.draw(obs, noise, Hint(torch.randn(2, 10, 2), 0, torch.zeros(10)))
    torch.testing.assert_close(free, held)


def test_warm_start_begins_at_the_last_chunk_and_asks_less() -> None:
    policy = with_acting(make(sampler=SamplerConfig(steps=8, clip=None)), warm_start=0.5)
    assert (policy.sampler.calls, policy.calls) == (8, 4)
    calls: list[int] = []
    policy.denoiser.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    played(policy, 8)
    assert calls == [3] * 8 + [3] * 4
    last, noise = torch.randn(1, 10, 2), torch.randn(1, 10, 2)
    obs = torch.randn(1, 3)
    x = 0.5 * last + 0.5 * noise
    for k in range(4, 8):
        x = policy.sampler.step(x, k, obs)[0].mean
    torch.testing.assert_close(policy.sampler.draw(obs, noise, Hint(last, 4)), x)


def test_warm_start_of_a_mixed_batch_starts_the_new_row_at_pure_noise() -> None:
    policy = with_acting(make(), warm_start=0.5)
    state = None
    for obs in observations(4):
        _, state = policy.predict(obs, state)
    obs = observations(5)[4]
    mixed, _ = policy.predict(obs, state, np.array([False, True, False]))
    going, _ = policy.predict(obs, state)
    np.testing.assert_allclose(mixed[[0, 2]], going[[0, 2]], atol=1e-6)
    alone = policy.begin(None, np.ones(1, np.bool_), np.array([4]))  # the row's next episode
    fresh, _ = policy.predict({"a": obs["a"][1:2]}, alone)
    np.testing.assert_allclose(mixed[1], fresh[0], atol=1e-6)


def test_at_temperature_zero_a_warm_start_adds_no_noise() -> None:
    policy = with_acting(make(sampler=SamplerConfig(steps=4, clip=None, temperature=0.0)), warm_start=0.5)
    again = policy.reconfigured(policy.config)
    again.seed = 5
    assert np.array_equal(played(policy, 9), played(again, 9))


def test_a_warm_start_that_would_begin_at_noise_is_refused() -> None:
    for steps, time in ((1, 0.5), (4, 1.0)):
        with pytest.raises(InputError, match="lower it, or take more steps"):
            with_acting(make(sampler=SamplerConfig(steps=steps, clip=None)), warm_start=time)


def test_a_pull_works_where_gradients_are_off() -> None:
    policy = with_acting(make(), real_time=5.0)
    usual = played(policy, 9)
    with torch.inference_mode():
        assert np.array_equal(played(policy, 9), usual)


@pytest.mark.parametrize(
    "settings",
    [{"latency": 2}, {"ensemble": 0.01}, {"warm_start": 0.5}, {"real_time": 5.0}, {"latency": 1, "real_time": 2.0}],
)
def test_a_batch_acts_like_its_rows_alone(settings: dict[str, Any]) -> None:
    policy = with_acting(make(), **settings)
    together = played(policy, 9)
    for row in range(3):
        state = policy.begin(None, np.ones(1, np.bool_), np.array([row]))
        for time, obs in enumerate(observations(9)):
            action, state = policy.predict({"a": obs["a"][row : row + 1]}, state)
            np.testing.assert_allclose(action[0], together[time, row], atol=2e-5)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"acting": ActingConfig(latency=5)}, "acting.latency <= n_action_steps"),
        ({"acting": ActingConfig(latency=4), "n_action_steps": 7}, "lower the latency"),
        ({"acting": ActingConfig(ensemble=0.0), "n_action_steps": 10}, "chunks that overlap"),
        ({"acting": ActingConfig(warm_start=0.5), "n_action_steps": 10}, "execute fewer actions"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PolicyConfig(**{"horizon": 10, "n_action_steps": 4, **settings})


def test_a_state_of_other_acting_is_refused() -> None:
    policy = make()
    _, state = policy.predict(observations(1)[0])
    for settings in ({"latency": 1}, {"ensemble": 0.0}, {"real_time": 5.0}):
        with pytest.raises(InputError, match="another policy"):
            with_acting(policy, **settings).predict(observations(1)[0], state)


def test_settings_change_in_words() -> None:
    config = make().config
    words = ["sampler.steps=2", "sampler.solver=heun", "acting.latency=1", "n_action_steps=3", "acting.ensemble=null"]
    found = changed(config, words)
    assert (found.sampler.steps, found.sampler.solver, found.acting.latency, found.n_action_steps) == (2, "heun", 1, 3)
    assert changed(config, ["sampler.times=[1, 0.1, 0]", "sampler.steps=2"]).sampler.times == (1.0, 0.1, 0.0)
    assert changed(config, []) == config


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sampler.step=4", "did you mean sampler.steps"),
        ("sampler.steps", "expected sampler.steps=VALUE"),
        ("horizon=4", "may change after training"),
        ("sampler.steps=0", "a whole number from 1"),
        ("sampler.solver=huen", "did you mean 'heun'"),
        ("acting.latency=9", "lower the latency"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_in_words(word: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        changed(make().config, [word])


def test_a_setting_is_changed_once() -> None:
    with pytest.raises(InputError, match=r"expected sampler\.steps once"):
        changed(make().config, ["sampler.steps=4", "sampler.steps=8"])


def test_what_a_model_fixes_is_not_changed_and_says_so() -> None:
    for word in ("sampler.steps=3", "sampler.steps=8"):
        with pytest.raises(InputError, match="which model 'mip' fixes"):
            changed(PolicyConfig(model="mip"), [word])
    assert changed(PolicyConfig(model="mip"), ["sampler.steps=2", "n_action_steps=4"]).n_action_steps == 4


def test_settings_of_the_weights_cannot_be_reconfigured() -> None:
    policy = make()
    with pytest.raises(InputError, match="train one with the others"):
        policy.reconfigured(replace(policy.config, horizon=12))


def test_two_times_are_given_to_a_network_that_reads_them() -> None:
    torch.manual_seed(0)
    config = PolicyConfig(horizon=4, n_action_steps=2, network=MLPConfig(16, 1, 6, two_times=True))
    policy = Policy(config, SPACES)
    seen: list[tuple[Tensor, Tensor]] = []
    denoiser: Denoiser = policy.denoiser
    original = denoiser.network.forward
    denoiser.network.forward = lambda x, t, obs, s: seen.append((t, s)) or original(x, t, obs, s)  # type: ignore
    policy.sampler.draw(torch.randn(2, 3), torch.randn(2, 4, 2))
    times = policy.sampler.grid()
    for k, (_, s) in enumerate(seen):
        torch.testing.assert_close(s, times[k + 1].expand(2))
    with pytest.raises(InputError, match="take ddim"):
        policy.resampled(solver="heun")
