"""The coefficients of one step of the reverse chain, for every solver: functions of the schedule and of two times."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diffpolicy.diffusion.schedule import Schedule, ratio

__all__ = ["Kernel", "kernel", "lifted", "second_order"]

ROOT_MIN = 1e-12  # least number under a square root: at 0 the gradient of a learned grid would be NaN
RATIO_MAX = 1e9  # sigma / alpha from which on nothing is left of the data


class Kernel(NamedTuple):
    """The coefficients of one step: mean = x_weight x + clean_weight clean."""

    x_weight: Tensor
    clean_weight: Tensor
    std: Tensor


def kernel(schedule: Schedule, t: Tensor, s: Tensor, eta: float, floor: float) -> Kernel:
    """The step from time t to an earlier time s, of any one shape; differentiable in both times.

        noise = (x - alpha_t clean) / sigma_t
        std   = min(max(eta sigma_s/sigma_t sqrt(sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2), floor), sigma_s)
        mean  = alpha_s clean + sqrt(sigma_s^2 - std^2) noise

    eta = 1 is DDPM's posterior (arXiv:2006.11239, eq. 7), eta = 0 is DDIM (arXiv:2010.02502, eq. 12), which
    on straight lines is flow matching's Euler step.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        schedule.alpha(t),
        schedule.sigma(t),
        schedule.alpha(s),
        schedule.sigma(s),
    )
    added = sigma_t.square() - (alpha_t / alpha_s * sigma_s).square()
    posterior = eta * sigma_s / sigma_t * added.clamp(min=ROOT_MIN).sqrt()
    std = posterior.clamp(min=floor).minimum(sigma_s)
    x_weight = (sigma_s.square() - std.square()).clamp(min=ROOT_MIN).sqrt() / sigma_t
    return Kernel(x_weight, alpha_s - x_weight * alpha_t, std)


def lifted(schedule: Schedule, table: Kernel, s: Tensor, up: Tensor) -> Kernel:
    """Steps that come down to times s and are then carried up to later ones, (K,), by fresh noise.

    It is the forward process: x_up = (alpha_up / alpha_s) x_s + sqrt(sigma_up^2 - (alpha_up/alpha_s sigma_s)^2) eps.
    EDM's churn (arXiv:2206.00364, algorithm 2) opens a step with it; here it closes the one before, which is the same
    chain, and makes each state a Gaussian around a function of the last.
    """
    scale = schedule.alpha(up) / schedule.alpha(s)
    added = (schedule.sigma(up).square() - (scale * schedule.sigma(s)).square()).clamp(min=0)
    std = ((scale * table.std).square() + added).sqrt()
    still = up == s
    return Kernel(
        torch.where(still, table.x_weight, scale * table.x_weight),
        torch.where(still, table.clean_weight, scale * table.clean_weight),
        torch.where(still, table.std, std),
    )


def second_order(solver: str, schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """The weights (K,) of what second-order solvers add to the clean prediction, for steps from times t to s.

    Both are what is left of the solver once mean = x_weight x + clean_weight clean is taken out of it:

        heun   clean += sigma_t / (2 sigma_s) (clean at x_s - clean): the trapezoidal rule of dx = clean d alpha +
               noise d sigma, which is arXiv:2206.00364, algorithm 1, where alpha = 1, and Heun's rule on straight lines
        dpm++  clean += h / (2 h_last) (clean - the last one), h = log(alpha_s / sigma_s) - log(alpha_t / sigma_t):
               DPM-Solver++(2M) (arXiv:2211.01095, algorithm 2)

    0, a step of first order, where that is infinite or there is no last one: into time 0, and out of pure noise.
    """
    if solver == "ddim":
        return torch.zeros_like(t)
    if solver == "heun":
        weight = 0.5 * schedule.sigma(t) / schedule.sigma(s)
    else:
        ratios = torch.cat([ratio(schedule, t), ratio(schedule, s[-1:])]).abs()
        h = -torch.where(ratios < RATIO_MAX, ratios, torch.inf).log().diff()
        weight = torch.cat([torch.zeros_like(t[:1]), 0.5 * h[1:] / h[:-1]])
    return torch.where(weight.isfinite(), weight, 0)
