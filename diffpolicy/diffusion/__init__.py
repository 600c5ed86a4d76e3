"""The mathematics of diffusion: schedules, denoisers, samplers and their settings, with nothing about robots.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use. Shapes: B batch, K denoising steps, H chunk length, A action, C features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from diffpolicy.diffusion.architectures import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from diffpolicy.diffusion.settings import Among, Falling, Number, Pair, Whole, check_settings
from diffpolicy.errors import InputError
from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.diffusion.chain import Chain, Gaussian, reduce_log_prob
    from diffpolicy.diffusion.coefficients import Kernel, kernel
    from diffpolicy.diffusion.denoiser import PREDICTIONS, Denoiser, Prediction
    from diffpolicy.diffusion.mixture import Components, MixtureHead
    from diffpolicy.diffusion.networks import MLP, Network, Transformer, UNet, make_network
    from diffpolicy.diffusion.noise import counter_noise
    from diffpolicy.diffusion.sampler import Sampler
    from diffpolicy.diffusion.schedule import (
        SCHEDULES,
        CosineSchedule,
        LinearBeta,
        Schedule,
        StraightLine,
        Tabulated,
        VarianceExploding,
    )

__all__ = [
    "MLP",
    "PREDICTIONS",
    "SCHEDULES",
    "Chain",
    "Components",
    "CosineSchedule",
    "Denoiser",
    "Gaussian",
    "GridName",
    "Kernel",
    "LinearBeta",
    "MLPConfig",
    "MixtureHead",
    "Network",
    "NetworkConfig",
    "Prediction",
    "PredictionName",
    "Sampler",
    "SamplerConfig",
    "Schedule",
    "ScheduleName",
    "SolverName",
    "StraightLine",
    "Tabulated",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "VarianceExploding",
    "WeightName",
    "counter_noise",
    "kernel",
    "make_network",
    "reduce_log_prob",
]

ScheduleName = Literal["cosine", "straight", "linear", "squaredcos", "edm"]
PredictionName = Literal["eps", "v", "x0", "flow", "edm"]
WeightName = Literal["own", "min-snr", "edm"]
SolverName = Literal["ddim", "heun", "dpm++"]
GridName = Literal["uniform", "karras", "log-snr"]


@dataclass(frozen=True)
class SamplerConfig:
    """How chunks are drawn: `steps` steps from noise to the time `t_min`."""

    steps: int = 8
    eta: float = 0.0  # of ddim; 0: Euler where the schedule is straight or edm; 1: the DDPM posterior
    floor: float = 0.0  # of ddim: least standard deviation of a step [normalised action]
    t_min: float = 0.0  # diffusion time where the grid ends; > 0 where log-probabilities are needed
    clip: float | None = 1.0  # clean predictions are kept within [-clip, clip]; None: not
    guidance: float = 0.0  # w of classifier-free guidance, for policies trained with condition_dropout; 0: none
    solver: SolverName = "ddim"  # heun: second order by two calls a step; dpm++: second order by one, DPM-Solver++(2M)
    schedule: ScheduleName | None = None  # that the chain runs in; None: the one that was trained
    grid: GridName = "uniform"  # in time; karras and log-snr: in sigma / alpha
    times: tuple[float, ...] | None = None  # the whole grid, steps + 1 falling times, in the place of `grid`
    rho: float = 7.0  # of karras: sigma / alpha is uniform to the power 1 / rho
    sigma_min: float = 0.002  # of karras and log-snr: last sigma / alpha before clean, where t_min is 0
    sigma_max: float = 80.0  # of karras and log-snr: the first, where there are so late ones
    churn: float = 0.0  # of ddim and heun: noise that is added to a chain on its way, S_churn of EDM
    churn_range: tuple[float, float] = (0.0, 1e6)  # where sigma / alpha lies in it: S_tmin, S_tmax
    temperature: float | None = None  # of all noise, the start's too; 0: none; None: 1, or 0 where a baseline acts

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for settings that define no sampler."""
        positive = Number(0, 1e6, above=True)
        check_settings(
            self,
            steps=Whole(1, 10_000),
            eta=Number(0, 100),
            floor=Number(0, 100),
            t_min=Number(0, 1, below=True),
            clip=Number(0, 1e6, above=True, none=True),
            guidance=Number(0, 100),
            solver=Among(get_args(SolverName)),
            schedule=Among(get_args(ScheduleName), none=True),
            grid=Among(get_args(GridName)),
            times=Falling(1, 0),
            rho=Number(1, 100),
            sigma_min=positive,
            sigma_max=positive,
            churn=Number(0, 1e6),
            churn_range=Pair(Number(0, 1e6)),
            temperature=Number(0, 1, none=True),
        )
        if self.solver != "ddim" and (self.eta or self.floor):
            raise InputError(
                f"SamplerConfig: expected eta = 0 and floor = 0 with solver {self.solver!r}, got {self.eta} and "
                f"{self.floor}; take ddim for noisy steps, or churn with heun"
            )
        if self.solver == "dpm++" and self.churn:
            raise InputError(
                f"SamplerConfig.churn: expected 0 with solver 'dpm++', which looks back over noiseless steps, got "
                f"{self.churn}; take heun"
            )
        if self.churn_range[0] > self.churn_range[1]:
            raise InputError(
                f"SamplerConfig.churn_range: expected its first number not above its second, got {self.churn_range}; "
                "exchange them"
            )
        if self.times is not None and len(self.times) != self.steps + 1:
            raise InputError(
                f"SamplerConfig.times: expected steps + 1 = {self.steps + 1} times, got {len(self.times)}; "
                "give the steps that they make"
            )

    @property
    def calls(self) -> int:
        """Denoiser calls a chunk (NFE)."""
        last = self.t_min if self.times is None else self.times[-1]
        return self.steps if self.solver != "heun" else 2 * self.steps - (last == 0)


_HOMES = {
    "MLP": "networks",
    "PREDICTIONS": "denoiser",
    "SCHEDULES": "schedule",
    "Chain": "chain",
    "Components": "mixture",
    "CosineSchedule": "schedule",
    "Denoiser": "denoiser",
    "Gaussian": "chain",
    "Kernel": "coefficients",
    "MixtureHead": "mixture",
    "LinearBeta": "schedule",
    "Network": "networks",
    "Prediction": "denoiser",
    "Sampler": "sampler",
    "Schedule": "schedule",
    "StraightLine": "schedule",
    "Tabulated": "schedule",
    "Transformer": "networks",
    "UNet": "networks",
    "VarianceExploding": "schedule",
    "counter_noise": "noise",
    "kernel": "coefficients",
    "make_network": "networks",
    "reduce_log_prob": "chain",
}

__getattr__ = loader(__name__, _HOMES)
