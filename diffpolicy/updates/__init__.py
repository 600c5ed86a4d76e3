"""Updates: what changes a policy's parameters, given one batch.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from diffpolicy.diffusion import WeightName
from diffpolicy.diffusion.settings import Among, Flag, Number, Pair, Whole, check_settings
from diffpolicy.errors import InputError
from diffpolicy.lazy import loader
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.models import FRAMES

if TYPE_CHECKING:
    from diffpolicy.updates.regression import Regression
    from diffpolicy.updates.targets import denoising, direct, two_steps

__all__ = ["Regression", "RegressionConfig", "denoising", "direct", "require_trainable", "two_steps"]

TimesName = Literal["uniform", "lognormal"]
LossName = Literal["l2", "l1"]
PrecisionName = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class RegressionConfig:
    """Settings of the optimiser and of the times that are trained."""

    lr: float = 3e-3  # the highest learning rate, reached after the warm-up
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.95, 0.999)
    warmup: int = 100  # [updates]
    clip: float = 1.0  # largest norm of the gradient
    ema_decay: float = 0.995
    t_min: float = 1e-3  # times lie in [t_min, t_max of the denoiser]
    times: TimesName = "uniform"  # lognormal: EDM's, log(sigma / alpha) is normal of mean -1.2 and deviation 1.2
    weights: WeightName = "own"  # of the clean chunk's error: own is the plain loss of the prediction
    loss: LossName = "l2"  # of that error: squared, whose best answer is a mean, or l1, absolute: a median
    precision: PrecisionName = "float32"  # of the forward pass; weights, optimiser and average stay float32
    compile: bool = False  # forward and backward by torch.compile, which needs a C++ compiler; see docs/training.md

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, on settings that cannot train."""
        share = Number(0, 1, below=True)
        check_settings(
            self,
            lr=Number(0, 10, above=True),
            weight_decay=Number(0, 100),
            betas=Pair(share),
            warmup=Whole(0, 10**9),
            clip=Number(0, math.inf, above=True),
            ema_decay=share,
            t_min=Number(0, 1, above=True, below=True),
            times=Among(get_args(TimesName)),
            weights=Among(get_args(WeightName)),
            loss=Among(get_args(LossName)),
            precision=Among(get_args(PrecisionName)),
            compile=Flag(),
        )


def require_trainable(policy: PolicyConfig, config: RegressionConfig, told: bool = False) -> None:
    """Raises InputError where the settings are of another model than the policy's, which would ignore them.

    Or where the model has no target of its own, and none is told.
    """
    if policy.model == "student" and not told:
        raise InputError(
            "expected a policy that learns from actions, got a student, which learns from its teacher alone; train or "
            "correct the teacher, and distil that"
        )
    frame, usual = FRAMES.get(policy.model), RegressionConfig()
    of_head = ("loss", "precision", "compile")
    fixed = () if frame is None else ("t_min", "times", "weights", *(of_head if frame.head else ()))
    for name in fixed:
        if (came := getattr(config, name)) != (value := getattr(usual, name)):
            raise InputError(
                f"RegressionConfig.{name}: expected {value!r}, which alone model {policy.model!r} is trained with, got "
                f"{came!r}; leave it out, or take another model"
            )


_HOMES = {"Regression": "regression", "denoising": "targets", "direct": "targets", "two_steps": "targets"}

__getattr__ = loader(__name__, _HOMES)
