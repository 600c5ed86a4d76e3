"""Targets of distillation without reinforcement learning: what a student of few steps is regressed on.

Shapes: B batch, K steps of the student, H chunk length, A action.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffpolicy.data.batch import Demo
from diffpolicy.diffusion.mixture import MixtureHead
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.errors import InputError
from diffpolicy.policy.models import FRAMES
from diffpolicy.policy.policy import Policy
from diffpolicy.training.ema import Ema
from diffpolicy.updates.targets import Draw, Regressand

__all__ = ["aligned", "chains_of", "consistency", "disagreement", "noiseless", "paired", "student_of", "walk"]


_PLAIN: dict[str, Any] = {"eta": 0.0, "floor": 0.0, "churn": 0.0, "schedule": None, "t_min": 0.0, "grid": "uniform"}


def student_of(teacher: Policy, steps: int, clean: bool = False) -> Policy:
    """A student with the teacher's weights, that takes so many noiseless steps of first order, unguided.

    Where the teacher predicts the noise and `clean` is asked for, the student predicts the chunk, and has to learn that
    from the start: at the first of few steps, which is all noise, the chunk divides an error of the noise by nearly 0
    (arXiv 2202.00512, section 4). Raises InputError where the teacher draws no chain, or takes any number of steps as
    it is.
    """
    chains_of(teacher)
    if teacher.config.network.two_times:
        raise InputError(
            f"expected a teacher of one time, got one of model {teacher.config.model!r}, which takes any number of "
            "steps as it is; change its sampler.steps"
        )
    sampler = replace(teacher.config.sampler, steps=steps, times=None, solver="ddim", guidance=0.0, **_PLAIN)
    config = replace(teacher.config, model="student", sampler=sampler, condition_dropout=0.0)
    if clean and config.prediction == "eps":  # on the times of the noise's chain, which does not begin quite at 1
        times = tuple(Policy(config, teacher.spaces).sampler.times.tolist())
        config = replace(config, prediction="x0", sampler=replace(sampler, times=times))
    student = Policy(config, teacher.spaces).to(teacher.device)
    weights = teacher.state_dict()
    student.load_state_dict({name: weights[name] for name in student.state_dict()})
    return student


def aligned(teacher: Policy, student: Policy, steps: int) -> Policy:
    """The teacher on a grid of at least `steps` steps that holds every time of the student's, all noiseless.

    Each of the student's K steps is cut into as many equal parts. Raises InputError where `steps` < K.
    """
    grid = student.sampler.times
    if steps < len(grid) - 1:
        raise InputError(f"expected a teacher of at least the student's {len(grid) - 1} steps, got {steps}")
    parts = -(-steps // (len(grid) - 1))
    ends = [torch.linspace(float(t), float(s), parts + 1)[:-1] for t, s in pairwise(grid)]
    times = [*torch.cat(ends).tolist(), float(grid[-1])]
    return teacher.resampled(steps=len(times) - 1, times=tuple(times), **_PLAIN)


def noiseless(teacher: Policy, steps: int) -> Policy:
    """The teacher in so many noiseless steps of its own; raises InputError where it draws no chain from noise."""
    chains_of(teacher)
    return teacher.resampled(**{**_PLAIN, "steps": steps, "times": None})


@torch.no_grad()
def disagreement(student: Policy, teacher: Policy, batch: Demo, noise: Tensor) -> float:
    """Root mean square of the difference between their chunks from the same noise (B, H, A) [normalised action]."""
    obs = student.encoder(batch.obs)
    return float((student.sampler.draw(obs, noise) - teacher.sampler.draw(obs, noise)).square().mean().sqrt())


@torch.no_grad()
def paired(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """Each of the student's steps, begun on the teacher's chain, lands on it: from the same noise, for each sample.

    y is the clean chunk with which the student's step from x_k is x_{k+1} of the teacher, `aligned` with it. K = 1 is
    regression on noise and chunk of the teacher (FQL's distillation term, arXiv 2502.02538, eq. 5); a teacher of 2 K
    steps gives progressive distillation's target (arXiv 2202.00512, appendix G). The chain is the draw's own, where it
    has one.
    """
    del average
    teacher, ours = _required(teacher), chains_of(student)
    steps = len(ours)
    chain = walk(teacher, draw.obs, draw.noise, steps) if draw.chain is None else draw.chain  # (K + 1, B, H, A)
    xs, ys, times = [], [], []
    for k in range(steps):
        x_weight, clean_weight = ours.coefficients(k)
        xs.append(chain[k])
        ys.append((chain[k + 1] - x_weight * chain[k]) / clean_weight)
        times.append(ours.grid()[k].expand_as(draw.t))
    ones = torch.ones_like(draw.t).repeat(steps)
    return Regressand(torch.cat(xs), torch.cat(times), None, torch.cat(ys), ones)


@torch.no_grad()
def walk(teacher: Policy, obs: Tensor, noise: Tensor, steps: int) -> Tensor:
    """The states (K+1, B, H, A) of the teacher's noiseless chains at the times of a student of K `steps`.

    The teacher is `aligned` with it; obs are features (B, C), noise is (B, H, A).
    """
    theirs = chains_of(teacher)
    return theirs.sample(obs, noise).x[:: len(theirs) // steps]


@torch.no_grad()
def consistency(draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
    """What the student says one step of the teacher further on, from where the teacher's step leads.

    x_t = alpha_t chunk + sigma_t eps with t on the teacher's grid; at its last step the chunk that the teacher says.
    The student of the second call has the same weights, without a gradient (arXiv 2310.14189; consistency
    distillation, arXiv 2303.01469, algorithm 2).
    """
    del average
    teacher = _required(teacher)
    schedule, grid = teacher.denoiser.schedule, teacher.sampler.grid()
    count = len(grid) - 1
    k = (draw.t / float(grid[0]) * count).long().clamp(max=count - 1)  # (B,), each as likely
    t, s = grid[count - 1 - k], grid[count - k]
    x = schedule.alpha(t)[:, None, None] * draw.chunk + schedule.sigma(t)[:, None, None] * draw.noise
    clean: Tensor = teacher.denoiser(x, t, draw.obs)
    noise = (x - schedule.alpha(t)[:, None, None] * clean) / schedule.sigma(t)[:, None, None]
    further = schedule.alpha(s)[:, None, None] * clean + schedule.sigma(s)[:, None, None] * noise
    said: Tensor = student.denoiser(further, s, draw.obs)
    y = torch.where((s > 0)[:, None, None], said, clean)
    return Regressand(x, t, None, y, torch.ones_like(t))


def chains_of(policy: Policy) -> Sampler:
    """A policy's sampler; raises InputError where it draws no chain from noise."""
    frame = FRAMES.get(policy.config.model)
    if isinstance(policy.sampler, MixtureHead) or (frame is not None and not frame.chains):
        raise InputError(
            f"expected a policy that draws chains, got one of model {policy.config.model!r}, which is quick as it is; "
            "use it so, or train one of model 'diffusion'"
        )
    return policy.sampler


def _required(teacher: Policy | None) -> Policy:
    if teacher is None:
        raise InputError("expected a teacher for this target, got none; name its checkpoint")
    return teacher
