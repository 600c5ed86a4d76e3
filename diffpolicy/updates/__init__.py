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
    from diffpolicy.updates.policy_gradient import PolicyGradient
    from diffpolicy.updates.regression import Regression
    from diffpolicy.updates.targets import denoising, direct, two_steps

__all__ = [
    "CHUNK_REWARDS",
    "PLAYED_REWARDS",
    "PolicyGradient",
    "PolicyGradientConfig",
    "Regression",
    "RegressionConfig",
    "RewardConfig",
    "denoising",
    "direct",
    "require_trainable",
    "two_steps",
]

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


@dataclass(frozen=True)
class PolicyGradientConfig:
    """Settings of the policy gradient over chains."""

    lr: float = 5e-5
    epochs: int = 10  # passes over a batch at most
    minibatch: int = 1024  # chains a step of the optimiser
    clip: float = 0.3  # of a ratio: how far the log-probability of a whole chunk is rewarded to go [nats]
    target_kl: float | None = (
        0.03  # passes end where a step of the chain is so far from who drew it [nats]; None: never
    )
    grad_clip: float = 1.0  # largest norm of the gradient
    explore: float = 0.1  # deviation of every step [normalised action]
    last_steps: int | None = None  # only so many last steps of a chain are trained; None: all
    anchor: float = 0.0  # weight of the squared distance of the steps' means from those of the first student
    demos: float = 0.0  # weight of the squared distance from demonstrations, noised to the times of the chain
    discount: float = 0.97  # of rewards, a decision
    trace: float = 0.9  # of later decisions' errors in an advantage (lambda of arXiv 1506.02438)
    chain_discount: float = 1.0  # of an advantage, a step away from the end of the chain (DPPO's gamma_denoise)
    critic_lr: float = 1e-3
    critic_width: int = 256
    critic_epochs: int = 8  # passes a batch
    critic_warmup: int = 4  # batches in which the critic alone learns
    critic_chunk: bool = False  # the critic sees where a chain would end without exploration, beside the observation

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, on settings that cannot train."""
        rate, many = Number(0, 10, above=True), Whole(1, 10**6)
        check_settings(
            self,
            lr=rate,
            epochs=many,
            minibatch=Whole(1, 10**9),
            clip=Number(0, 1e9, above=True),
            target_kl=Number(0, 1e9, above=True, none=True),
            grad_clip=Number(0, 1e9, above=True),
            explore=Number(0, 10, above=True),
            last_steps=Whole(1, 1000, none=True),
            anchor=Number(0, 1e6),
            demos=Number(0, 1e6),
            discount=Number(0, 1),
            trace=Number(0, 1),
            chain_discount=Number(0, 1, above=True),
            critic_lr=rate,
            critic_width=Whole(1, 65536),
            critic_epochs=many,
            critic_warmup=Whole(0, 10**6),
        )


@dataclass(frozen=True)
class RewardConfig:
    """What a student is rewarded for: the weight of each term, 0 to leave it out."""

    success: float = 1.0  # of an episode, in its last decision; needs rollouts
    environment: float = 0.05  # the environment's own reward, summed over the actions of a decision; needs rollouts
    agreement: float = 0.0  # minus the mean squared distance from the teacher's chunk of the same noise
    likeness: float = 0.0  # that chunks are spread as the teacher's are, whichever noise becomes which
    smooth: float = 0.0  # minus the mean squared second difference of actions, over the seams between chunks too
    limits: float = 0.0  # minus the mean squared distance by which actions leave their range
    rest: float = 0.1  # what an action of a chunk counts that is not executed, in agreement and likeness
    samples: int = 8  # chunks each of student and teacher that likeness compares with

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, on what is no weight, and where nothing is rewarded."""
        names = (*PLAYED_REWARDS, *CHUNK_REWARDS)
        weights = {name: Number(0, 1e6) for name in names}
        check_settings(self, **weights, rest=Number(0, 1), samples=Whole(2, 64))
        if not any(getattr(self, name) for name in names):
            raise InputError(f"expected a weight above 0 for one of {', '.join(names)}, got none; give one")


PLAYED_REWARDS = ("success", "environment")  # of RewardConfig: what only an environment can say
CHUNK_REWARDS = ("agreement", "likeness", "smooth", "limits")  # what a chunk says by itself


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


_HOMES = {
    "PolicyGradient": "policy_gradient",
    "Regression": "regression",
    "denoising": "targets",
    "direct": "targets",
    "two_steps": "targets",
}

__getattr__ = loader(__name__, _HOMES)
