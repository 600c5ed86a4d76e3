"""What a denoiser can be regressed on: a target is a function of a few lines.

Shapes: B batch, K steps of a chain, H chunk length, A action, C features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffpolicy.diffusion import WeightName
from diffpolicy.policy.policy import Policy
from diffpolicy.training.ema import Ema

__all__ = ["Draw", "Regressand", "Target", "denoising", "direct", "two_steps"]


class Draw(NamedTuple):
    """A batch in the network's units, with the diffusion time and the noise drawn for it."""

    obs: Tensor  # (B, C); the null condition's where the observation was dropped
    chunk: Tensor  # (B, H, A), in [-1, 1] over the action's range
    t: Tensor  # (B,)
    noise: Tensor  # (B, H, A)
    chain: Tensor | None = None  # (K+1, B, H, A), noise first, where the batch has a teacher's


class Regressand(NamedTuple):
    """What the student is asked, (x, t, s), what it should answer, y, and how much each sample counts.

    A target may ask about every sample n times, for which B stands for n B here: the whole batch, n times over.
    """

    x: Tensor  # (B, H, A)
    t: Tensor  # (B,)
    s: Tensor | None  # (B,), the target time of two-time models
    y: Tensor  # (B, H, A)
    weight: Tensor  # (B,)


Target = Callable[[Draw, Policy, Ema, Policy | None], Regressand]
"""(draw, student, the student's average, teacher) -> what to regress on."""


def denoising(
    draw: Draw, student: Policy, average: Ema, teacher: Policy | None, weights: WeightName = "own"
) -> Regressand:
    """The chunk itself, from x_t = alpha_t x_0 + sigma_t eps, weighted as the network's own output is, or as told.

    Source: Ho et al. (2020), arXiv 2006.11239, eq. 14; for the other predictions see `diffusion.denoiser`.
    """
    del average, teacher
    schedule, t = student.denoiser.schedule, draw.t
    x = schedule.alpha(t)[:, None, None] * draw.chunk + schedule.sigma(t)[:, None, None] * draw.noise
    return Regressand(x, t, None, draw.chunk, student.denoiser.weight(t, weights))


def direct(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """The chunk itself, from nothing but the observation: x = 0 and t = 1, as a sampler of temperature 0 asks."""
    del student, average, teacher
    one = torch.ones_like(draw.t)
    return Regressand(torch.zeros_like(draw.chunk), one, None, draw.chunk, one)


def two_steps(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """The chunk itself, both from nothing and from 0.9 of itself with 0.1 of noise: MIP, t* = 0.9 (arXiv 2512.01809).

    Both errors count the same, as in the paper's equation; its public code divides them by t*^2 and (1 - t*)^2.
    """
    first = direct(draw, student, average, teacher)
    schedule, t = student.denoiser.schedule, student.sampler.times[1].expand_as(draw.t)
    x = schedule.alpha(t)[:, None, None] * draw.chunk + schedule.sigma(t)[:, None, None] * draw.noise
    twice = (torch.cat(pair) for pair in ((first.t, t), (draw.chunk, draw.chunk), (first.weight, first.weight)))
    times, y, weight = twice
    return Regressand(torch.cat([first.x, x]), times, None, y, weight)
