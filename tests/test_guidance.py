"""Laws of classifier-free guidance: observations are dropped in training, and left out on purpose when sampling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffpolicy.data.batch import Demo
from diffpolicy.diffusion import SCHEDULES, Denoiser, MLPConfig, SamplerConfig, UNetConfig
from diffpolicy.diffusion.denoiser import guided
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec, load_checkpoint, save_checkpoint
from diffpolicy.updates.regression import Draw, Regression, denoising

SPACES = SpaceSpec({"observation": Bounds((-1.0,) * 3, (1.0,) * 3)}, Bounds((-2.0,) * 2, (2.0,) * 2), True)
H, A, C = 6, 2, 3


def make(dropout: float = 0.2, network: Any = None, **sampler: Any) -> Policy:
    """A small policy with random, not zero, output."""
    torch.manual_seed(0)
    network = network or MLPConfig(16, 1, 6)
    settings = SamplerConfig(**{"steps": 3, **sampler})
    policy = Policy(PolicyConfig(H, 1, 3, network=network, sampler=settings, condition_dropout=dropout), SPACES)
    for parameter in policy.denoiser.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return policy


def batch(size: int = 64) -> Demo:
    random = torch.Generator().manual_seed(1)
    obs = torch.rand(size, 1, C, generator=random) * 2 - 1
    return Demo({"observation": obs}, obs[:, :, :A].expand(size, H, A).clone(), torch.ones(size, H))


@pytest.mark.parametrize("network", [MLPConfig(16, 1, 6), UNetConfig(16, 2, 3, 6)], ids=lambda n: n.kind)
@pytest.mark.parametrize("known", [False, True], ids=["times", "a moment"])
def test_a_guided_chunk_is_the_two_denoised_apart_and_drawn_out(network: Any, known: bool) -> None:
    denoiser = make(network=network).denoiser
    assert denoiser.null is not None
    x, t, obs = torch.randn(5, H, A), torch.full((5,), 0.37), torch.randn(5, C)
    with_obs, without = denoiser(x, t, obs), denoiser(x, t, denoiser.null.expand(5, C))
    assert not torch.allclose(with_obs, without)
    time = denoiser.at(t[:1]) if known else t
    for weight in (0.5, 2.0):
        together = denoiser.guided(weight, x, time, obs)
        torch.testing.assert_close(together, (1 + weight) * with_obs - weight * without, atol=1e-5, rtol=1e-5)
    assert guided(denoiser, 0.0) is denoiser


def test_both_times_are_guided() -> None:
    denoiser = make(network=MLPConfig(16, 1, 6, two_times=True)).denoiser
    assert denoiser.null is not None
    x, t, s, obs = torch.randn(5, H, A), torch.rand(5), torch.rand(5), torch.randn(5, C)
    expected = 2 * denoiser(x, t, obs, s) - denoiser(x, t, denoiser.null.expand(5, C), s)
    torch.testing.assert_close(denoiser.guided(1.0, x, t, obs, s), expected, atol=1e-5, rtol=1e-5)


def test_a_step_is_one_call_of_twice_the_rows() -> None:
    policy = make(guidance=1.0)
    calls: list[int] = []
    policy.denoiser.network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    policy.predict(np.zeros((4, C), np.float32))
    assert calls == [8, 8, 8]


def test_guidance_moves_the_action_and_can_be_changed_without_training() -> None:
    policy, seen = make(clip=None), np.full((4, C), 0.5, np.float32)
    plain, _ = policy.predict(seen)
    assert np.array_equal(policy.resampled(guidance=0.0).predict(seen)[0], plain)
    assert not np.allclose(policy.resampled(guidance=1.0).predict(seen)[0], plain)


def test_a_network_blind_to_its_observation_is_not_moved() -> None:
    policy = make()
    network: Any = policy.denoiser.network
    with torch.no_grad():
        network.condition.weight[:, :C] = 0
    seen = np.full((4, C), 0.5, np.float32)
    guided_action, _ = policy.resampled(guidance=3.0).predict(seen)
    np.testing.assert_allclose(guided_action, policy.predict(seen)[0], atol=1e-5)


def test_a_policy_that_never_missed_its_observation_refuses() -> None:
    policy = make(dropout=0.0)
    assert policy.denoiser.null is None
    assert not any("null" in name for name in policy.state_dict())
    with pytest.raises(InputError, match="condition_dropout > 0"):
        policy.resampled(guidance=1.0)
    with pytest.raises(InputError, match="condition_dropout > 0"):
        policy.denoiser.guided(1.0, torch.zeros(1, H, A), torch.zeros(1), torch.zeros(1, C))
    with pytest.raises(InputError, match="condition_dropout > 0"):
        policy.denoiser.without(torch.zeros(1, C), torch.ones(1, dtype=torch.bool))


def draws(dropout: float, steps: int = 20) -> list[Draw]:
    """What a training asks for, step by step."""
    seen: list[Draw] = []

    def target(draw: Draw, *others: Any) -> Any:
        seen.append(draw)
        return denoising(draw, *others)

    update = Regression(make(dropout), steps, target=target)
    for _ in range(steps):
        update(batch())
    return seen


def test_the_share_that_was_asked_for_is_dropped_and_nothing_else_is_drawn_anew() -> None:
    with_dropout, without = draws(0.2), draws(0.0)
    dropped = [(one.obs != other.obs).any(dim=1) for one, other in zip(with_dropout, without, strict=True)]
    assert float(torch.stack(dropped).float().mean()) == pytest.approx(0.2, abs=0.04)
    for one, other, where in zip(with_dropout, without, dropped, strict=True):
        assert torch.equal(one.t, other.t)
        assert torch.equal(one.noise, other.noise)
        assert torch.equal(one.chunk, other.chunk)
        assert (one.obs[where] == one.obs[where][:1]).all(), "all dropped rows are the null condition"


def test_the_null_condition_is_learnt_averaged_and_saved(tmp_path: Path) -> None:
    policy = make()
    assert policy.denoiser.null is not None
    before = policy.denoiser.null.detach().clone()
    update = Regression(policy, 20)
    for _ in range(20):
        update(batch())
    averaged = update.averaged()
    assert averaged.denoiser.null is not None
    assert not torch.equal(policy.denoiser.null, before)
    assert not torch.equal(averaged.denoiser.null, policy.denoiser.null)
    save_checkpoint(averaged, tmp_path / "checkpoint")
    loaded = load_checkpoint(tmp_path / "checkpoint").policy.resampled(guidance=1.0)
    seen = np.full((4, C), 0.5, np.float32)
    assert np.array_equal(loaded.predict(seen)[0], averaged.resampled(guidance=1.0).predict(seen)[0])


def test_a_denoiser_may_hold_a_null_condition_of_ones_own() -> None:
    null = torch.nn.Parameter(torch.full((C,), 9.0))
    denoiser = Denoiser(SCHEDULES["straight"], "flow", make().denoiser.network, null)
    obs = denoiser.without(torch.zeros(2, C), torch.tensor([False, True]))
    assert obs.tolist() == [[0.0] * C, [9.0] * C]
