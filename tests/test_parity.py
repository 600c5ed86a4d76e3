"""Parity with the schedulers of `diffusers`: the same network and the same noise give the same chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.schedulers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    HeunDiscreteScheduler,
)
from torch import Tensor

from diffpolicy.diffusion import MLP, SCHEDULES, Denoiser, LinearBeta, MLPConfig, Sampler, SamplerConfig, Tabulated

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # of tensors made arrays, in theirs

B, H, A, N = 16, 4, 2, 100
BETAS = {"beta_schedule": "linear", "beta_start": 1e-2, "beta_end": 0.1, "num_train_timesteps": N}
PARITY = {"rtol": 1e-5, "atol": 1e-5}
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}
every_prediction = pytest.mark.parametrize("prediction", NAMES)


def make_network() -> MLP:
    torch.manual_seed(0)
    network = MLP(H, A, 3, MLPConfig(width=32, blocks=1))
    torch.nn.init.normal_(network.leave[1].weight, std=0.03)
    return network


NETWORK, OBS = make_network(), torch.randn(B, 3, generator=torch.Generator().manual_seed(1))


def ours(scheduler: Any, prediction: str, noise: Tensor, **config: Any) -> Tensor:
    """The chain of a sampler on the scheduler's own table, at its own times unless told."""
    schedule = Tabulated(tuple(scheduler.alphas_cumprod.double().tolist()))
    if "times" not in config and "grid" not in config:
        times = tuple((float(t) + 1) / N for t in dict.fromkeys(scheduler.timesteps.tolist()))
        config = {**config, "times": (*times, 0.0), "steps": len(times)}
    return chain(Denoiser(schedule, prediction, NETWORK), noise, **config)


def chain(denoiser: Denoiser, noise: Tensor, **config: Any) -> Tensor:
    with torch.no_grad():
        return Sampler(denoiser, SamplerConfig(**{"clip": None, **config})).sample(OBS, noise).x


def theirs(scheduler: Any, x: Tensor, time: Callable[[Tensor], Tensor], extras: Any = lambda k: {}) -> Tensor:
    """The usual loop around a scheduler; the network reads the time as ours does."""
    with torch.no_grad():
        for k, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = NETWORK(scaled, time(t).expand(B).float(), OBS)
            x = scheduler.step(output, t, x, **extras(k)).prev_sample
    return x


def of_table(t: Tensor) -> Tensor:
    return (t.double() + 1) / N


def of_line(t: Tensor) -> Tensor:
    return t.double() / 1000


def of_sigma(t: Tensor) -> Tensor:
    return SCHEDULES["edm"].time((4 * t.double()).exp())


def draws(steps: int) -> Tensor:
    return torch.randn(steps + 1, B, H, A, generator=torch.Generator().manual_seed(2))


@every_prediction
@pytest.mark.parametrize("clip", [None, 1.0])
def test_ddpm(prediction: str, clip: float | None) -> None:
    scheduler = DDPMScheduler(**BETAS, prediction_type=NAMES[prediction], clip_sample=clip is not None)
    scheduler.set_timesteps(20)
    noise = draws(20)
    x = ours(scheduler, prediction, noise, eta=1.0, clip=clip)
    generator = torch.Generator().manual_seed(2)  # that of `noise`
    torch.randn(B, H, A, generator=generator)
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_table, lambda _: {"generator": generator}), **PARITY)


@every_prediction
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(prediction: str, clip: float | None, eta: float) -> None:
    scheduler = DDIMScheduler(**BETAS, prediction_type=NAMES[prediction], clip_sample=clip is not None)
    scheduler.set_timesteps(10)
    noise = draws(10)
    x = ours(scheduler, prediction, noise, eta=eta, clip=clip)
    settings = {"eta": eta, "use_clipped_model_output": True}
    step = lambda k: {**settings, "variance_noise": noise[k + 1]}  # noqa: E731
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_table, step), **PARITY)


@pytest.mark.parametrize("steps", [3, 10, 20])
@every_prediction
def test_dpm_solver_multistep(prediction: str, steps: int) -> None:
    scheduler = DPMSolverMultistepScheduler(**BETAS, prediction_type=NAMES[prediction])
    scheduler.set_timesteps(steps)
    x = ours(scheduler, prediction, draws(steps)[0], solver="dpm++")
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_table), **PARITY)


@pytest.mark.parametrize(
    ("kind", "solver"), [(EulerDiscreteScheduler, "ddim"), (HeunDiscreteScheduler, "heun")], ids=["Euler", "Heun"]
)
@every_prediction
def test_euler_and_heun_in_sigma_run_the_same_trained_network(kind: Any, solver: str, prediction: str) -> None:
    """They leave the trained schedule for alpha = 1: the change of time and scale is ours."""
    scheduler = kind(**BETAS, prediction_type=NAMES[prediction])
    scheduler.set_timesteps(10)
    sigmas = torch.tensor([*dict.fromkeys(scheduler.sigmas.tolist())], dtype=torch.float64)
    times = tuple(SCHEDULES["edm"].time(sigmas).tolist())
    x = ours(scheduler, prediction, draws(10)[0], solver=solver, schedule="edm", times=times, steps=10)
    torch.testing.assert_close(x[0], scheduler.sigmas[0] * draws(10)[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_table), **PARITY)


@pytest.mark.parametrize(
    ("kind", "solver"), [(EDMEulerScheduler, "ddim"), (EDMDPMSolverMultistepScheduler, "dpm++")], ids=["Euler", "DPM++"]
)
@pytest.mark.parametrize(("grid", "name"), [("karras", "karras"), ("log-snr", "exponential")])
def test_edm(kind: Any, solver: str, grid: str, name: str) -> None:
    scheduler = kind(sigma_schedule=name)
    scheduler.set_timesteps(12)
    x = chain(Denoiser(SCHEDULES["edm"], "edm", NETWORK), draws(12)[0], solver=solver, grid=grid, steps=12)
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_sigma), **PARITY)


@pytest.mark.parametrize(
    ("kind", "solver"),
    [(FlowMatchEulerDiscreteScheduler, "ddim"), (FlowMatchHeunDiscreteScheduler, "heun")],
    ids=["Euler", "Heun"],
)
def test_flow_matching(kind: Any, solver: str) -> None:
    scheduler = kind()
    scheduler.set_timesteps(8)
    times = tuple(dict.fromkeys(scheduler.sigmas.tolist()))
    x = chain(Denoiser(SCHEDULES["straight"], "flow", NETWORK), draws(8)[0], solver=solver, times=times, steps=8)
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_line), **PARITY)


def test_squared_cosine_is_diffusion_policys_table() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=N, beta_schedule="squaredcos_cap_v2")
    found = torch.tensor(Tabulated.squared_cosine(N).alphas_cumprod, dtype=torch.float64)
    torch.testing.assert_close(found, scheduler.alphas_cumprod.double(), rtol=1e-4, atol=1e-7)
    t = torch.arange(1, N + 1, dtype=torch.float64) / N
    torch.testing.assert_close(SCHEDULES["squaredcos"].alpha(t).square(), found)


@pytest.mark.parametrize("prediction", ["v", "x0"])
def test_all_steps_of_the_squared_cosine_agree(prediction: str) -> None:
    scheduler = DDPMScheduler(
        num_train_timesteps=N, beta_schedule="squaredcos_cap_v2", prediction_type=NAMES[prediction]
    )
    scheduler.set_timesteps(N)
    x = chain(Denoiser(SCHEDULES["squaredcos"], prediction, NETWORK), draws(N), eta=1.0, steps=N, clip=1.0)
    generator = torch.Generator().manual_seed(2)
    torch.randn(B, H, A, generator=generator)
    torch.testing.assert_close(x[-1], theirs(scheduler, x[0], of_table, lambda _: {"generator": generator}), **PARITY)


def test_the_linear_schedule_is_the_limit_of_ddpms_table() -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(LinearBeta().alpha(t), scheduler.alphas_cumprod.double().sqrt(), rtol=0, atol=2e-3)
