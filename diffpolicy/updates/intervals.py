"""Targets of models of two times, which learn steps of any length from data alone, without a teacher.

Shapes: B batch, n of its samples, H chunk length, A action, C features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffpolicy.policy.policy import Policy
from diffpolicy.training.ema import Ema
from diffpolicy.updates.targets import Draw, Regressand

__all__ = ["mean_flow", "shortcut"]

SHARE = 0.25  # of the samples that ask for a step of some length; the others ask for the velocity itself
HALVINGS = 5  # a shortcut's steps are 1, 1/2, ..., 2**(1 - HALVINGS); the halves of the shortest are Euler's


@torch.no_grad()
def shortcut(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """Flow matching, and for a share of the samples: a step as two of half its length lead.

    Source: arXiv 2410.12557, eq. 5.
    """
    del average, teacher
    rows = _asked(draw)
    halvings = torch.arange(len(rows), device=rows.device) % HALVINGS
    size = 2.0 ** -halvings.to(draw.t)  # of the whole step
    t = ((draw.t[rows] / size).floor().minimum(1 / size - 1) + 1) * size  # multiples of the step, from it to 1
    middle, s, shortest = t - size / 2, t - size, halvings == HALVINGS - 1
    x = _mixed(draw.chunk[rows], draw.noise[rows], t)
    first = _velocity(student, x, t, draw.obs[rows], torch.where(shortest, t, middle))
    half = x + (middle - t)[:, None, None] * first
    second = _velocity(student, half, middle, draw.obs[rows], torch.where(shortest, middle, s))
    return _flowing(draw, rows, t, s, (first + second) / 2)


@torch.no_grad()
def mean_flow(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """The mean velocity from t to s, by its own derivative: u = v - (t - s) du/dt (arXiv 2505.13447, eq. 6 and 11)."""
    del average, teacher
    rows = _asked(draw)
    t = draw.t[rows]
    s = t * torch.linspace(0, 1, len(rows) + 1, device=t.device)[:-1].to(t)
    x, v = _mixed(draw.chunk[rows], draw.noise[rows], t), draw.noise[rows] - draw.chunk[rows]

    def mean(x: Tensor, t: Tensor) -> Tensor:
        return _velocity(student, x, t, draw.obs[rows], s)

    # forward mode (torch.func.jvp) warns of what it imports
    _, change = torch.autograd.functional.jvp(mean, (x, t), (v, torch.ones_like(t)))  # type: ignore[no-untyped-call]
    return _flowing(draw, rows, t, s, v - (t - s)[:, None, None] * change)


def _asked(draw: Draw) -> Tensor:
    """The rows of a batch that ask for a step."""
    return torch.arange(max(1, round(SHARE * len(draw.t))), device=draw.t.device)


def _mixed(chunk: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    return (1 - t)[:, None, None] * chunk + t[:, None, None] * noise


def _velocity(student: Policy, x: Tensor, t: Tensor, obs: Tensor, s: Tensor) -> Tensor:
    """The student's mean velocity (B, H, A) between two times, which its clean chunk x - t u stands for."""
    clean: Tensor = student.denoiser(x, t, obs, s)
    return (x - clean) / t[:, None, None]


def _flowing(draw: Draw, rows: Tensor, t: Tensor, s: Tensor, velocity: Tensor) -> Regressand:
    """Flow matching of a batch, but for some rows: there from t to s with a velocity (n, H, A)."""
    times, ends, v = draw.t.clone(), draw.t.clone(), draw.noise - draw.chunk
    times[rows], ends[rows], v[rows] = t, s, velocity
    x = _mixed(draw.chunk, draw.noise, times)
    return Regressand(x, times, ends, x - times[:, None, None] * v, times.clamp(min=1e-4).pow(-2))
