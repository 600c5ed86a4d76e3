"""The times of a chain, from noise to clean, and where on its way noise is added to it again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffpolicy.diffusion import SamplerConfig
from diffpolicy.diffusion.schedule import Schedule, ratio
from diffpolicy.errors import InputError

__all__ = ["churned", "grid"]

GAMMA_MAX = math.sqrt(2) - 1  # churn at most doubles the variance of the noise (arXiv:2206.00364, algorithm 2)


def grid(config: SamplerConfig, schedule: Schedule, t_max: float) -> Tensor:
    """The times (K+1,), 32-bit, falling from t_max at most.

    `karras` is arXiv:2206.00364, eq. 5, in sigma / alpha, and `log-snr` its limit of an infinite rho. Raises InputError
    where the settings leave no time, or two are the same in 32 bits.
    """
    times = _times(config, schedule, t_max)
    if not bool((times[1:] < times[:-1]).all()):
        raise InputError(
            f"expected times that fall, also in 32 bits, got {[round(float(t), 9) for t in times][:8]}; take fewer "
            "steps, or times further apart"
        )
    return times


def _times(config: SamplerConfig, schedule: Schedule, t_max: float) -> Tensor:
    if config.times is not None:
        if config.times[0] > t_max + 1e-6:  # of rounding
            raise InputError(f"expected times of at most {t_max}, got {config.times[0]}; begin the grid later")
        return torch.tensor(config.times).clamp(max=t_max)
    if config.t_min >= t_max:
        raise InputError(f"expected t_min < {t_max}, got {config.t_min}; end the grid earlier")
    if config.grid == "uniform":
        return torch.linspace(t_max, config.t_min, config.steps + 1)
    ends = ratio(schedule, torch.tensor([t_max, config.t_min], dtype=torch.float64))
    high = min(float(ends[0]), config.sigma_max)
    low = float(ends[1]) or config.sigma_min
    if low >= high:
        raise InputError(f"expected sigma_min and sigma / alpha at t_min < {high}, got {low}; end the grid earlier")
    share = torch.linspace(0, 1, config.steps + (config.t_min > 0), dtype=torch.float64)
    if config.grid == "karras":
        ratios = (high ** (1 / config.rho) * (1 - share) + low ** (1 / config.rho) * share) ** config.rho
    else:
        ratios = (math.log(high) * (1 - share) + math.log(low) * share).exp()
    times = schedule.time(ratios)
    return (times if config.t_min > 0 else torch.cat([times, times.new_zeros(1)])).float()


def churned(config: SamplerConfig, schedule: Schedule, times: Tensor) -> Tensor:
    """The times (K+1,) to which noise lifts a chain once it has come down to `times`, without its two ends.

    sigma / alpha rises by the factor 1 + min(churn / K, sqrt(2) - 1) within the range (arXiv:2206.00364, algorithm 2).
    """
    if not config.churn:
        return times
    ratios = ratio(schedule, times.double())
    low, high = config.churn_range
    lifted = ratios * (1 + min(config.churn / config.steps, GAMMA_MAX))
    lifted = torch.where((ratios >= low) & (ratios <= high), lifted.clamp(max=float(ratios[0])), ratios)
    return torch.cat([times[:1], schedule.time(lifted[1:-1]).to(times), times[-1:]])
