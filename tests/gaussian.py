"""Gaussian data, whose exact denoiser and exact flow are known, and samplers around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffpolicy.diffusion import MLP, SCHEDULES, Denoiser, MLPConfig, Sampler, SamplerConfig, Schedule

__all__ = ["MEAN", "NOISE", "OBS", "SCALE", "Exact", "every_schedule", "flow", "sampler", "trained"]

MEAN, SCALE = 0.3, 0.2  # of the data
NOISE = torch.randn(64, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OBS = torch.zeros(64, 0, dtype=torch.float64)
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)


class Exact:
    """The best denoiser for independent normal data: E[x0 | x]; it counts its calls."""

    t_max = 1.0

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.calls = schedule, 0

    def __call__(self, x: Tensor, t: Tensor, *_: Tensor | None) -> Tensor:
        self.calls += 1
        alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        gain = alpha * SCALE**2 / (alpha.square() * SCALE**2 + sigma.square())
        return MEAN + gain * (x - alpha * MEAN)


def sampler(schedule: str, /, **config: Any) -> Sampler:
    """In double precision."""
    return Sampler(Exact(SCHEDULES[schedule]), SamplerConfig(**{"clip": None, **config})).double()  # type: ignore[arg-type]


def trained(prediction: str = "v", schedule: str = "cosine", /, **config: Any) -> Sampler:
    torch.manual_seed(0)
    network = MLP(4, 2, 3, MLPConfig(width=16, blocks=1))
    torch.nn.init.normal_(network.leave[1].weight, std=0.1)
    return Sampler(Denoiser(SCHEDULES[schedule], prediction, network), SamplerConfig(**config))


def flow(schedule: Schedule, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Where the exact flow takes x from time t to time s: each keeps its quantile."""

    def law(t: Tensor) -> tuple[Tensor, Tensor]:
        return schedule.alpha(t) * MEAN, torch.hypot(schedule.alpha(t) * SCALE, schedule.sigma(t))

    (mean, spread), (mean_s, spread_s) = law(t), law(s)
    return mean_s + spread_s * (x - mean) / spread
