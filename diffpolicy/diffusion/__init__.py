"""The mathematics of diffusion: schedules, denoisers, samplers and their settings, with nothing about robots.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use. Shapes: B batch, K denoising steps, H chunk length, A action, C features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from diffpolicy.diffusion.architectures import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from diffpolicy.diffusion.settings import Number, Whole, check_settings
from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.diffusion.denoiser import PREDICTIONS, Denoiser, Prediction
    from diffpolicy.diffusion.networks import MLP, Network, Transformer, UNet, make_network
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
    "Network",
    "NetworkConfig",
    "Prediction",
    "PredictionName",
    "Sampler",
    "SamplerConfig",
    "Schedule",
    "ScheduleName",
    "StraightLine",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "counter_noise",
    "kernel",
    "make_network",
    "reduce_log_prob",
]

ScheduleName = Literal["cosine", "straight"]
PredictionName = Literal["eps", "v", "x0", "flow"]


@dataclass(frozen=True)
class SamplerConfig:
    """How chunks are drawn: `steps` denoiser calls from noise to the time `t_min`."""

    steps: int = 8
    eta: float = 0.0  # 0: DDIM, or Euler on straight lines; 1: the DDPM posterior
    floor: float = 0.0  # least standard deviation of a step [normalised action]
    t_min: float = 0.0  # diffusion time where the grid ends; > 0 where log-probabilities are needed
    clip: float | None = 1.0  # clean predictions are kept within [-clip, clip]; None: not
    guidance: float = 0.0  # w of classifier-free guidance, for policies trained with condition_dropout; 0: none

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for settings that define no sampler."""
        check_settings(
            self,
            steps=Whole(1, 10_000),
            eta=Number(0, 100),
            floor=Number(0, 100),
            t_min=Number(0, 1, below=True),
            clip=Number(0, 1e6, above=True, none=True),
            guidance=Number(0, 100),
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
    "Network": "networks",
    "Prediction": "denoiser",
    "Sampler": "sampler",
    "Schedule": "schedule",
    "StraightLine": "schedule",
    "Transformer": "networks",
    "UNet": "networks",
    "counter_noise": "noise",
    "kernel": "sampler",
    "make_network": "networks",
    "reduce_log_prob": "sampler",
}

__getattr__ = loader(__name__, _HOMES)
