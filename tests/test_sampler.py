"""Laws of the reverse chain, on Gaussian data whose exact denoiser and exact flow are known."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian import MEAN, SCALE, Exact

from diffpolicy.diffusion import (
    MLP,
    SCHEDULES,
    Denoiser,
    Gaussian,
    MLPConfig,
    Sampler,
    SamplerConfig,
    Schedule,
    kernel,
    reduce_log_prob,
)
from diffpolicy.errors import InputError

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
every_setting = pytest.mark.parametrize(("eta", "floor"), [(0, 0), (1, 0), (0, 0.1), (1, 0.1), (0.5, 2.0)])


def exact_sampler(schedule: Schedule, **config: float | None) -> Sampler:
    return Sampler(Exact(schedule), SamplerConfig(**{"clip": None, **config}))  # type: ignore[arg-type]


def untrained(**config: float) -> Sampler:
    torch.manual_seed(0)
    network = MLP(4, 2, 3, MLPConfig(width=16, blocks=1))
    torch.nn.init.normal_(network.leave[1].weight, std=0.1)
    return Sampler(Denoiser(SCHEDULES["cosine"], "v", network), SamplerConfig(**config))  # type: ignore[arg-type]


NO_OBS = torch.zeros(64, 0, dtype=torch.float64)


@every_schedule
def test_error_of_the_deterministic_chain_falls_at_first_order(schedule: Schedule) -> None:
    noise = torch.randn(64, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    truth = MEAN + SCALE * noise  # the flow keeps each sample's quantile
    errors = []
    for steps in (32, 64, 128):
        drawn = exact_sampler(schedule, steps=steps).sample(NO_OBS, noise).action
        errors.append(float((drawn - truth).abs().mean()))
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(1, abs=0.25)


@every_schedule
def test_stochastic_chain_has_the_datas_mean_and_spread(schedule: Schedule) -> None:
    sampler = exact_sampler(schedule, steps=256, eta=1.0)
    noise = torch.randn(257, 64, 64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = sampler.sample(NO_OBS, noise).action
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(drawn.std()) == pytest.approx(SCALE, rel=0.07)


@every_schedule
def test_eta_one_is_the_posterior_of_the_forward_process(schedule: Schedule) -> None:
    """q(x_s | x_t, x_0) by Bayes' rule from q(x_s | x_0) and q(x_t | x_s)."""
    t = torch.linspace(0.99, 0.1, 20, dtype=torch.float64)
    s = t - 0.05
    at, st, as_, ss = schedule.alpha(t), schedule.sigma(t), schedule.alpha(s), schedule.sigma(s)
    ratio = at / as_
    added = st.square() - (ratio * ss).square()
    precision = ss.pow(-2) + ratio.square() / added
    x, clean = torch.tensor(0.7), torch.tensor(-0.4)
    x_weight, clean_weight, std = kernel(schedule, t, s, eta=1.0, floor=0.0)
    torch.testing.assert_close(std, precision.rsqrt())
    torch.testing.assert_close(
        x_weight * x + clean_weight * clean, (as_ * clean / ss.square() + ratio * x / added) / precision
    )


def test_eta_zero_on_straight_lines_is_an_euler_step_of_the_flow() -> None:
    t, s, x, clean = (torch.tensor(value, dtype=torch.float64) for value in (0.8, 0.55, 0.7, -0.4))
    x_weight, clean_weight, std = kernel(SCHEDULES["straight"], t, s, eta=0.0, floor=0.0)
    torch.testing.assert_close(x_weight * x + clean_weight * clean, x + (s - t) * (x - clean) / t)
    assert std == 0


@every_schedule
@every_setting
def test_kernel_is_finite_with_finite_gradients_down_to_time_zero(schedule: Schedule, eta: float, floor: float) -> None:
    times = torch.linspace(1, 0, 9, dtype=torch.float64, requires_grad=True)
    table = kernel(schedule, times[:-1], times[1:], eta, floor)
    (gradient,) = torch.autograd.grad(sum(column.sum() for column in table), times)
    assert all(column.isfinite().all() for column in table)
    assert gradient.isfinite().all()
    assert (table.std <= schedule.sigma(times[1:]) + 1e-12).all()
    assert table.std[-1] == 0


@every_setting
def test_chains_are_finite_and_carry_finite_gradients(eta: float, floor: float) -> None:
    sampler = untrained(steps=4, eta=eta, floor=floor)
    chain = sampler.sample(torch.randn(3, 3), torch.randn(5, 3, 4, 2))
    chain.action.sum().backward()
    assert chain.x.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in sampler.parameters())


def test_denoiser_is_called_exactly_once_a_step() -> None:
    sampler = exact_sampler(SCHEDULES["cosine"], steps=7)
    sampler.sample(NO_OBS, torch.randn(64, 1, 1))
    assert sampler.denoiser.calls == len(sampler) == 7  # type: ignore[attr-defined]


def test_steps_grid_and_chain_agree_and_can_be_changed_on_the_same_denoiser() -> None:
    sampler = untrained(steps=5, t_min=0.1)
    fewer = sampler.with_steps(2)
    assert (len(sampler), len(fewer)) == (5, 2)
    assert fewer.denoiser is sampler.denoiser
    torch.testing.assert_close(fewer.grid(), torch.tensor([1.0, 0.55, 0.1]))
    noise = torch.randn(3, 4, 2)
    chain = fewer.sample(torch.randn(3, 3), noise)
    assert chain.x.shape == (3, 3, 4, 2)
    assert torch.equal(chain.x[0], noise)
    assert torch.equal(chain.x[-1], chain.action)


@every_schedule
def test_grid_of_an_eps_prediction_starts_where_alpha_has_not_vanished(schedule: Schedule) -> None:
    sampler = Sampler(Denoiser(schedule, "eps", MLP(4, 2, 3, MLPConfig(width=8))))
    assert schedule.alpha(sampler.grid()[0]) >= 0.999e-3
    assert sampler.sample(torch.randn(3, 3), torch.randn(3, 4, 2)).x.isfinite().all()


def test_log_prob_of_a_chain_is_that_of_its_sampling() -> None:
    sampler = untrained(steps=4, eta=1.0, t_min=0.05)
    obs = torch.randn(3, 3)
    chain = sampler.sample(obs, torch.randn(5, 3, 4, 2), log_prob=True)
    assert chain.logp is not None
    assert chain.logp.shape == (4, 3, 4, 2)
    assert torch.equal(sampler.log_prob(chain, obs), chain.logp)
    gaussian, _ = sampler.step(chain.x[1], 1, obs)
    reference = torch.distributions.Normal(gaussian.mean, gaussian.std).log_prob(chain.x[2])
    torch.testing.assert_close(chain.logp[1], reference)


def test_density_of_a_step_integrates_to_one() -> None:
    x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    density = Gaussian(torch.tensor(0.4), torch.tensor(0.7)).log_prob(x).exp()
    assert float(torch.trapezoid(density, x)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("config", [{}, {"eta": 1.0}, {"floor": 0.1}], ids=["eta 0", "ends at 0", "floor at 0"])
def test_log_prob_of_a_deterministic_step_is_refused(config: dict[str, float]) -> None:
    with pytest.raises(InputError, match="t_min > 0"):
        untrained(steps=3, **config).sample(torch.randn(2, 3), torch.randn(4, 2, 4, 2), log_prob=True)


def test_log_prob_is_summed_over_real_actions_only() -> None:
    logp = torch.randn(5, 3, 4, 2)
    mask = torch.tensor([[1.0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]])
    expected = torch.stack([logp[:, 0].sum((1, 2)), logp[:, 1, :2].sum((1, 2)), torch.zeros(5)], dim=1)
    torch.testing.assert_close(reduce_log_prob(logp, mask), expected)
    torch.testing.assert_close(reduce_log_prob(logp, mask[1]), logp[:, :, :2].sum((2, 3)))


def test_clean_predictions_are_clipped() -> None:
    chain = exact_sampler(SCHEDULES["straight"], steps=8, clip=0.1).sample(NO_OBS, torch.randn(64, 1, 1))
    assert chain.action.abs().max() <= 0.1 + 1e-5
    assert exact_sampler(SCHEDULES["straight"]).sample(NO_OBS, torch.randn(64, 1, 1)).action.abs().max() > 0.1


@pytest.mark.parametrize("shape", [(4, 2), (3, 2, 4, 2), (5, 2, 4, 2)])
def test_noise_of_a_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected noise"):
        untrained(steps=3).sample(torch.randn(2, 3), torch.randn(shape))


@pytest.mark.parametrize("change", [{"steps": 0}, {"eta": -1}, {"floor": -1}, {"t_min": 1}, {"clip": 0}])
def test_impossible_sampler_settings_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(InputError, match=rf"SamplerConfig\.{next(iter(change))}: expected"):
        replace(SamplerConfig(), **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [{}, {"eta": 1.0}, {"eta": 1.0, "t_min": 0.1}, {"clip": None}])
@pytest.mark.parametrize("prediction", ["flow", "v", "eps", "x0"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_what_is_known_of_the_grid_beforehand_changes_no_bit(schedule: str, prediction: str, config: Any) -> None:
    torch.manual_seed(0)
    network = MLP(4, 2, 3, MLPConfig(width=16, blocks=1, time_dim=6))
    torch.nn.init.normal_(network.leave[1].weight, std=0.1)
    sampler = Sampler(Denoiser(SCHEDULES[schedule], prediction, network), SamplerConfig(steps=3, **config))
    for batch in (1, 2, 5, 33):
        obs, noise = torch.randn(batch, 3), torch.randn(4, batch, 4, 2)
        chain = sampler.sample(obs, noise)
        for k in range(3):
            x, t = chain.x[k], sampler.grid()[k].expand(batch)
            clean = sampler.denoiser(x, t, obs)
            if sampler.config.clip is not None:
                clean = clean.clamp(-sampler.config.clip, sampler.config.clip)
            x_weight, clean_weight, std = sampler._kernels[k]
            assert torch.equal(chain.x[k + 1], x_weight * x + clean_weight * clean + std * noise[k + 1])
        assert torch.equal(sampler.draw(obs, noise), chain.action)
        assert torch.equal(sampler.draw(obs, noise[0]), sampler.sample(obs, noise[0]).action)


def test_a_sampler_follows_its_network_to_another_precision() -> None:
    sampler = untrained(steps=3, t_min=0.1)
    obs, noise = torch.randn(2, 3), torch.randn(2, 4, 2)
    single = sampler.draw(obs, noise)
    double = sampler.double().draw(obs.double(), noise.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double.float(), single, atol=1e-5, rtol=0)


def test_gradients_flow_after_a_chain_was_drawn_in_inference_mode() -> None:
    sampler = untrained(steps=2, eta=1.0, t_min=0.1)
    with torch.inference_mode():
        sampler.draw(torch.randn(2, 3), torch.randn(3, 2, 4, 2))
    sampler.sample(torch.randn(2, 3), torch.randn(3, 2, 4, 2), log_prob=True).logp.sum().backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in sampler.denoiser.network.leave[1].parameters())


@pytest.mark.parametrize("config", [{"eta": 1.0}, {"floor": 0.05}, {"eta": 1.0, "churn": 1.0}])
def test_a_temperature_scales_the_start_and_every_std_and_no_mean(config: dict[str, float]) -> None:
    plain, half, none = (untrained(steps=4, t_min=0.05, temperature=heat, **config) for heat in (1.0, 0.5, 0.0))
    obs, noise = torch.randn(5, 3), torch.randn(5, 5, 4, 2)
    for k in range(4):
        (hot, _), (warm, _), (cold, _) = (one.step(noise[0], k, obs) for one in (plain, half, none))
        assert torch.equal(hot.mean, warm.mean)
        assert torch.equal(hot.mean, cold.mean)
        torch.testing.assert_close(warm.std, 0.5 * hot.std)
        assert cold.std == 0
    torch.testing.assert_close(half.sample(obs, noise).x[0], 0.5 * plain.sample(obs, noise).x[0])
    chain = half.sample(obs, noise, log_prob=True)
    assert torch.equal(half.log_prob(chain, obs), chain.logp)
    assert (plain.stochastic, half.stochastic, none.stochastic) == (True, True, False)
    assert torch.equal(none.draw(obs, noise), none.draw(obs, -noise))
    with pytest.raises(InputError, match="temperature > 0"):
        none.log_prob(chain, obs)


def test_a_temperature_of_one_is_none_to_the_bit() -> None:
    obs, noise = torch.randn(5, 3), torch.randn(5, 5, 4, 2)
    told, untold = (untrained(steps=4, eta=1.0, **heat).draw(obs, noise) for heat in ({}, {"temperature": 1.0}))
    assert torch.equal(told, untold)
