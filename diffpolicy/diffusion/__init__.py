"""The mathematics of diffusion: schedules, denoisers, samplers and their settings, with nothing about robots.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use. Shapes: B batch, K denoising steps, H chunk length, A action, C features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffpolicy.errors import InputError
from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.diffusion.denoiser import PREDICTIONS, Denoiser, Prediction
    from diffpolicy.diffusion.networks import MLP
    from diffpolicy.diffusion.noise import counter_noise
    from diffpolicy.diffusion.sampler import Chain, Gaussian, Kernel, Sampler, kernel, reduce_log_prob
    from diffpolicy.diffusion.schedule import SCHEDULES, CosineSchedule, Schedule, StraightLine

__all__ = [
    "MLP",
    "PREDICTIONS",
    "SCHEDULES",
    "Chain",
    "CosineSchedule",
    "Denoiser",
    "Gaussian",
    "Kernel",
    "MLPConfig",
    "Prediction",
    "PredictionName",
    "Sampler",
    "SamplerConfig",
    "Schedule",
    "ScheduleName",
    "StraightLine",
    "counter_noise",
    "kernel",
    "reduce_log_prob",
]

ScheduleName = Literal["cosine", "straight"]
PredictionName = Literal["eps", "v", "x0", "flow"]


@dataclass(frozen=True)
class MLPConfig:
    """Size of the denoising network: the defaults give about half a million weights."""

    width: int = 256  # of the residual stream
    blocks: int = 3
    time_dim: int = 64  # sines and cosines of the diffusion time

    def __post_init__(self) -> None:
        """Raises InputError for sizes that no network can have."""
        if min(self.width, self.blocks) < 1 or self.time_dim < 2 or self.time_dim % 2:
            raise InputError(f"expected width and blocks >= 1 and an even time_dim >= 2, got {self}; correct it")


@dataclass(frozen=True)
class SamplerConfig:
    """How chunks are drawn: `steps` denoiser calls from noise to the time `t_min`."""

    steps: int = 8
    eta: float = 0.0  # 0: DDIM, or Euler on straight lines; 1: the DDPM posterior
    floor: float = 0.0  # least standard deviation of a step [normalised action]
    t_min: float = 0.0  # diffusion time where the grid ends; > 0 where log-probabilities are needed
    clip: float | None = 1.0  # clean predictions are kept within [-clip, clip]; None: not

    def __post_init__(self) -> None:
        """Raises InputError for settings that define no sampler."""
        good = self.steps >= 1 and self.eta >= 0 and self.floor >= 0 and 0 <= self.t_min < 1
        if not good or (self.clip is not None and not self.clip > 0):
            raise InputError(
                "expected steps >= 1, eta >= 0, floor >= 0, 0 <= t_min < 1 and clip > 0 or None, "
                f"got {self}; correct it"
            )


_HOMES = {
    "MLP": "networks",
    "PREDICTIONS": "denoiser",
    "SCHEDULES": "schedule",
    "Chain": "sampler",
    "CosineSchedule": "schedule",
    "Denoiser": "denoiser",
    "Gaussian": "sampler",
    "Kernel": "sampler",
    "Prediction": "denoiser",
    "Sampler": "sampler",
    "Schedule": "schedule",
    "StraightLine": "schedule",
    "counter_noise": "noise",
    "kernel": "sampler",
    "reduce_log_prob": "sampler",
}

__getattr__ = loader(__name__, _HOMES)
