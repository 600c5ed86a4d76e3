"""How much data and how much noise there is at a diffusion time: x_t = alpha(t) x_0 + sigma(t) eps.

Time t = 0 is clean and t = 1 is noise, for every schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["SCHEDULES", "CosineSchedule", "Schedule", "StraightLine"]


class Schedule(Protocol):
    """Two differentiable functions of time; alpha falls from 1, sigma rises from 0."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        ...


@dataclass(frozen=True)
class CosineSchedule:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), variance preserving (arXiv:2102.09672, eq. 17, s = 0)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return torch.cos(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return torch.sin(t * (math.pi / 2))


@dataclass(frozen=True)
class StraightLine:
    """alpha = 1 - t, sigma = t: flow matching's straight paths (arXiv:2210.02747, eq. 22, sigma_min 0)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return t


SCHEDULES: dict[str, Schedule] = {"cosine": CosineSchedule(), "straight": StraightLine()}
