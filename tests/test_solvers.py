"""Laws of solvers, churn and densities, on Gaussian data whose exact flow is known."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian import MEAN, NOISE, OBS, SCALE, Exact, every_schedule, flow, sampler, trained
from torch import Tensor

from diffpolicy.diffusion import SCHEDULES, Sampler, SamplerConfig, kernel
from diffpolicy.diffusion.coefficients import lifted
from diffpolicy.errors import InputError


def error(chain: Sampler) -> float:
    x = chain.sample(OBS, NOISE).x
    return float((x[-1] - flow(chain.schedule, x[0], chain.grid()[0], chain.grid()[-1])).abs().mean())


@every_schedule
@pytest.mark.parametrize("grid", ["uniform", "karras", "log-snr"])
@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("heun", 2), ("dpm++", 2)])
def test_error_falls_with_the_number_of_steps_at_the_solvers_order(
    schedule: str, grid: str, solver: str, order: int
) -> None:
    errors = [error(sampler(schedule, steps=steps, grid=grid, solver=solver, t_min=0.02)) for steps in (128, 256, 512)]
    for coarse, fine in pairwise(errors):
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.35)
    assert math.log2(errors[-2] / errors[-1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("solver", ["heun", "dpm++"])
def test_the_second_order_pays_at_few_steps(solver: str) -> None:
    second, first = (sampler("straight", steps=16, grid="log-snr", solver=one) for one in (solver, "ddim"))
    assert error(second) < 0.3 * error(first)


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("t_min", [0.0, 0.1])
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm++"])
def test_calls_are_counted_truly(solver: str, t_min: float, steps: int) -> None:
    chain = sampler("cosine", steps=steps, solver=solver, t_min=t_min)
    chain.sample(OBS, NOISE)
    expected = steps if solver != "heun" else 2 * steps - (t_min == 0)
    assert chain.denoiser.calls == chain.calls == chain.config.calls == expected  # type: ignore[attr-defined]
    assert len(chain) == steps


@every_schedule
@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm++"])
@pytest.mark.parametrize("grid", ["uniform", "karras", "log-snr"])
def test_one_step_is_the_denoisers_own_prediction(schedule: str, grid: str, solver: str) -> None:
    chain = sampler(schedule, steps=1, grid=grid, solver=solver)
    x = chain.sample(OBS, NOISE).x
    clean = Exact(SCHEDULES[schedule])(x[0], chain.grid()[:1])
    torch.testing.assert_close(x[-1], clean, rtol=0, atol=1e-5)


def test_heun_on_straight_lines_is_heuns_rule_for_the_velocity() -> None:
    chain = sampler("straight", steps=2, solver="heun", times=(1.0, 0.5, 0.2))
    exact = Exact(SCHEDULES["straight"])

    def velocity(x: Tensor, t: float) -> Tensor:
        return (x - exact(x, torch.tensor([t], dtype=torch.float64))) / t  # eps - x0

    x = NOISE
    for t, s in ((1.0, 0.5), (0.5, float(torch.tensor(0.2)))):
        first = velocity(x, t)
        x = x + (s - t) * (first + velocity(x + (s - t) * first, s)) / 2
    torch.testing.assert_close(chain.sample(OBS, NOISE).action, x)


@pytest.mark.parametrize("churn", [0.0, 0.5, 100.0])
def test_churn_is_edms_algorithm_2(churn: float) -> None:
    """Theirs opens a step with the noise with which ours closes the one before; their first is put into the start."""
    steps, low, high = 6, 0.05, 30.0
    chain = sampler("edm", steps=steps, solver="heun", grid="karras", churn=churn, churn_range=(low, high))
    noise = torch.randn(steps + 1, 64, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    quiet = sampler("edm", steps=steps, grid="karras")
    levels, exact = SCHEDULES["edm"].sigma(quiet.grid()), Exact(SCHEDULES["edm"])

    def slope(x: Tensor, level: Tensor) -> Tensor:
        return (x - exact(x, SCHEDULES["edm"].time(level)[None])) / level

    x = levels[0] * noise[0]
    for i, (level, following) in enumerate(pairwise(levels)):
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= level <= high else 0.0
        raised = level * (1 + gamma)
        x = x + (raised.square() - level.square()).sqrt() * noise[i]
        first = slope(x, raised)
        euler = x + (following - raised) * first
        x = euler if following == 0 else x + (following - raised) * (first + slope(euler, following)) / 2
    torch.testing.assert_close(chain.sample(OBS, noise).action, x, rtol=0, atol=2e-6)


@every_schedule
def test_churn_is_the_forward_process_and_keeps_the_datas_law(schedule: str) -> None:
    chain = sampler(schedule, steps=64, solver="heun", grid="karras", churn=20.0)
    noise = torch.randn(65, 64, 64, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = chain.sample(OBS, noise).action
    assert chain.stochastic
    assert float(drawn.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(drawn.std()) == pytest.approx(SCALE, rel=0.05)
    t, s, up = (torch.tensor([value], dtype=torch.float64) for value in (0.8, 0.5, 0.6))
    schedule_, table = SCHEDULES[schedule], kernel(SCHEDULES[schedule], t, s, 1.0, 0.0)
    x_weight, clean_weight, std = lifted(schedule_, table, s, up)
    level = torch.hypot(schedule_.sigma(t) * x_weight, std)  # of what clean + noise at t becomes
    torch.testing.assert_close(level, schedule_.sigma(up))
    torch.testing.assert_close(x_weight * schedule_.alpha(t) + clean_weight, schedule_.alpha(up))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_density_of_a_chain_integrates_to_one_and_is_that_of_its_samples(schedule: str) -> None:
    """Two steps in one dimension: p(x2 | x0) = sum over x1 of p(x1 | x0) p(x2 | x1), by quadrature."""
    chain = sampler(schedule, steps=2, eta=1.0, t_min=0.3, grid="karras", sigma_max=3.0)
    spread = float(torch.hypot(chain.schedule.alpha(chain.grid()[1]), chain.schedule.sigma(chain.grid()[1])))
    x1 = torch.linspace(-9, 9, 601, dtype=torch.float64) * spread
    x2 = torch.linspace(-6, 6, 401, dtype=torch.float64) * spread
    start = torch.full((1, 1, 1), 0.4, dtype=torch.float64)
    first, _ = chain.step(start, 0, OBS[:1])
    second, _ = chain.step(x1[:, None, None], 1, OBS[:1].expand(601, 0))
    along = first.log_prob(x1[:, None, None]).exp()[:, 0]  # (601, 1)
    after = second.log_prob(x2.expand(601, 1, 401)).exp()[:, 0]  # (601, 401)
    density = torch.trapezoid(along * after, x1, dim=0)
    assert float(torch.trapezoid(density, x2)) == pytest.approx(1, abs=1e-5)
    count = 40_000
    noise = torch.randn(3, count, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise[0] = 0.4 / chain.schedule.sigma(chain.grid()[0])
    drawn = chain.draw(torch.zeros(count, 0, dtype=torch.float64), noise)
    mean = torch.trapezoid(density * x2, x2)
    spread_2 = torch.trapezoid(density * (x2 - mean).square(), x2).sqrt()
    assert float(drawn.mean() - mean) == pytest.approx(0, abs=4 * float(spread_2) / math.sqrt(count))
    assert float(drawn.std()) == pytest.approx(float(spread_2), rel=0.02)


def test_log_prob_of_a_churned_chain_is_that_of_its_sampling_but_for_the_noiseless_last_step() -> None:
    chain = trained(solver="heun", churn=2.0, t_min=0.05, steps=3)
    obs = torch.randn(3, 3)
    x = chain.sample(obs, torch.randn(4, 3, 4, 2)).x
    assert chain.step(x[0], 0, obs)[0].log_prob(x[1]).isfinite().all()
    with pytest.raises(InputError, match="deterministic"):
        chain.step(x[2], 2, obs)[0].log_prob(x[3])


@pytest.mark.parametrize("config", [{"solver": "heun"}, {"solver": "dpm++"}, {"solver": "heun", "churn": 1.0}])
def test_log_prob_of_a_solver_that_draws_nothing_is_refused(config: dict[str, Any]) -> None:
    chain = trained(steps=3, t_min=0.05, **config)
    drawn = chain.sample(torch.randn(2, 3), torch.randn(4, 2, 4, 2))
    with pytest.raises(InputError, match="no density"):
        chain.log_prob(drawn, torch.randn(2, 3))


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"solver": "heun", "eta": 1.0}, "eta"),
        ({"solver": "dpm++", "floor": 0.1}, "floor"),
        ({"solver": "dpm++", "churn": 1.0}, "churn"),
        ({"times": (1.0, 0.0)}, "steps"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(config: dict[str, Any], field: str) -> None:
    with pytest.raises(InputError, match=field):
        SamplerConfig(**config)


@pytest.mark.parametrize("config", [{"solver": "heun", "churn": 2.0}, {"solver": "dpm++"}, {"schedule": "edm"}])
@pytest.mark.parametrize("prediction", ["flow", "edm"])
def test_single_and_double_precision_agree_and_so_do_sampling_and_drawing(config: Any, prediction: str) -> None:
    chain = trained(prediction, "straight", steps=4, **config)
    obs, noise = torch.randn(5, 3), torch.randn(5, 5, 4, 2)
    single = chain.draw(obs, noise)
    assert torch.equal(single, chain.sample(obs, noise).action)
    torch.testing.assert_close(chain.double().draw(obs.double(), noise.double()).float(), single, rtol=0, atol=2e-5)
