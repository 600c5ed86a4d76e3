"""Updates: what changes a policy's parameters, given one batch.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffpolicy.errors import InputError
from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.updates.regression import Regression, denoising

__all__ = ["Regression", "RegressionConfig", "denoising"]


@dataclass(frozen=True)
class RegressionConfig:
    """Settings of the optimiser and of the times that are trained."""

    lr: float = 3e-3  # the highest learning rate, reached after the warm-up
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.95, 0.999)
    warmup: int = 100  # [updates]
    clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.995
    t_min: float = 1e-3  # times are uniform in [t_min, t_max of the denoiser]

    def __post_init__(self) -> None:
        """Raises InputError on settings that cannot train."""
        good = self.lr > 0 and self.weight_decay >= 0 and self.warmup >= 0 and self.clip > 0
        good = good and all(0 <= beta < 1 for beta in self.betas)
        if not (good and 0 < self.t_min < 1 and 0 <= self.ema_decay < 1):
            raise InputError(
                "expected lr and clip > 0, weight_decay and warmup >= 0, betas and ema_decay in [0, 1) and "
                f"0 < t_min < 1, got {self}; correct it"
            )


_HOMES = {"Regression": "regression", "denoising": "regression"}

__getattr__ = loader(__name__, _HOMES)
