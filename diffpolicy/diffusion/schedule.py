"""How much data and how much noise there is at a diffusion time: x_t = alpha(t) x_0 + sigma(t) eps.

Time t = 0 is clean and t = 1 is noise, for every schedule. What a chain does depends on the ratio sigma / alpha alone,
which rises from 0; each schedule is a scale and a clock for it, and says at what time a ratio comes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from diffpolicy.errors import InputError

__all__ = [
    "SCHEDULES",
    "CosineSchedule",
    "LinearBeta",
    "Schedule",
    "StraightLine",
    "Tabulated",
    "VarianceExploding",
    "ratio",
]


class Schedule(Protocol):
    """Two differentiable functions of time, and the inverse of their ratio; alpha(0) = 1 and sigma(0) = 0."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        ...

    def time(self, ratio: Tensor) -> Tensor:
        """The time in [0, 1] at which sigma / alpha is `ratio` in [0, inf]; the last one where none is so late."""
        ...


def ratio(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma / alpha at time t, of t's shape; infinite where nothing is left of the data."""
    return schedule.sigma(t) / schedule.alpha(t)


@dataclass(frozen=True)
class CosineSchedule:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2), variance preserving (arXiv:2102.09672, eq. 17, s = 0)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return torch.cos(t * (math.pi / 2))

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return torch.sin(t * (math.pi / 2))

    def time(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio`: 2 / pi atan(ratio)."""
        return ratio.atan() * (2 / math.pi)


@dataclass(frozen=True)
class StraightLine:
    """alpha = 1 - t, sigma = t: flow matching's straight paths (arXiv:2210.02747, eq. 22, sigma_min 0)."""

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return t

    def time(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio`: ratio / (1 + ratio)."""
        return 1 / (1 + 1 / ratio)


@dataclass(frozen=True)
class LinearBeta:
    """DDPM's linear rise of beta in continuous time, variance preserving (arXiv:2011.13456, appendix C, eq. 33).

    alpha^2 = exp(-B), B = low t + (high - low) t^2 / 2. With the default ends it is the limit of the 1000 steps of
    arXiv:2006.11239, section 4; alpha(1) = 0.0066, so that noise is never quite pure.
    """

    low: float = 0.1
    high: float = 20.0

    def _integral(self, t: Tensor) -> Tensor:
        return t * (self.low + (self.high - self.low) / 2 * t)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return torch.exp(-0.5 * self._integral(t))

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        square = -torch.expm1(-self._integral(t))
        noisy = square > 0
        return torch.where(noisy, torch.where(noisy, square, 1).sqrt(), 0)  # whose gradient at 0 is not NaN

    def time(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio` (arXiv:2206.00927, appendix D.4)."""
        integral = torch.log1p(ratio.square()).clamp(max=(self.low + self.high) / 2)
        return 2 * integral / (self.low + (self.low**2 + 2 * (self.high - self.low) * integral).sqrt())


@dataclass(frozen=True)
class VarianceExploding:
    """alpha = 1; sigma is uniform in t once raised to 1 / rho, as Karras's grid is (arXiv:2206.00364, eq. 5).

    sigma(t) = ((1 + c t)^rho - 1) sigma_min: their curve, moved down by sigma_min so that time 0 is clean, with c such
    that sigma(1) = sigma_max. Chunks are of the order of sigma_data = 0.5.
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    @property
    def _slope(self) -> float:
        return math.expm1(math.log1p(self.sigma_max / self.sigma_min) / self.rho)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape: 1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return self.sigma_min * torch.expm1(self.rho * torch.log1p(self._slope * t))

    def time(self, ratio: Tensor) -> Tensor:
        """The time at which sigma is `ratio`."""
        return (torch.expm1(torch.log1p(ratio / self.sigma_min) / self.rho) / self._slope).clamp(max=1)


@dataclass(frozen=True)
class Tabulated:
    """A variance-preserving table alpha_n^2, n = 1 .. N, at the times n / N, as other libraries have it.

    Between them the angle atan(sigma / alpha) is linear in t; at t = 0 it is 0.
    """

    alphas_cumprod: tuple[float, ...]
    _angles: Tensor = field(init=False, repr=False, compare=False)  # (N+1,), 64-bit

    def __post_init__(self) -> None:
        """Raises InputError unless the table falls strictly, within (0, 1) or to 0 at its end."""
        squares = torch.tensor([1.0, *self.alphas_cumprod], dtype=torch.float64)
        if len(squares) < 2 or not bool((squares.diff() < 0).all()) or squares[-1] < 0:
            raise InputError(
                f"expected alphas_cumprod that fall strictly from below 1 to 0 or more, got "
                f"{self.alphas_cumprod!s:.100}; give alpha^2 from the least noise to the most"
            )
        object.__setattr__(self, "_angles", torch.atan2((1 - squares).sqrt(), squares.sqrt()))

    @classmethod
    def from_betas(cls, betas: Sequence[float]) -> Tabulated:
        """alpha_n^2 = (1 - beta_1) ... (1 - beta_n) (arXiv:2006.11239, eq. 4)."""
        return cls(tuple((1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0).tolist()))

    @classmethod
    def squared_cosine(cls, steps: int = 100) -> Tabulated:
        """beta_n = 1 - f(n) / f(n - 1) <= 0.999, f the squared cosine of offset 0.008 (arXiv:2102.09672, eq. 17).

        With 100 steps it is Diffusion Policy's table (arXiv:2303.04137), `squaredcos_cap_v2` elsewhere.
        """
        level = [math.cos((n / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for n in range(steps + 1)]
        return cls.from_betas([min(1 - level[n + 1] / level[n], 0.999) for n in range(steps)])

    def _angle(self, t: Tensor) -> Tensor:
        angles = self._angles.to(t)
        place = t * (len(angles) - 1)
        below = place.detach().floor().clamp(0, len(angles) - 2)
        low, high = angles[below.long()], angles[below.long() + 1]
        return low + (high - low) * (place - below)

    def alpha(self, t: Tensor) -> Tensor:
        """Weight of the data at time t, of t's shape."""
        return self._angle(t).cos()

    def sigma(self, t: Tensor) -> Tensor:
        """Weight of the noise at time t, of t's shape."""
        return self._angle(t).sin()

    def time(self, ratio: Tensor) -> Tensor:
        """The time at which sigma / alpha is `ratio`."""
        angles = self._angles.to(ratio)
        angle = ratio.atan().minimum(angles[-1])
        above = torch.searchsorted(angles, angle.detach().contiguous()).clamp(1, len(angles) - 1)
        low, high = angles[above - 1], angles[above]
        return (above - 1 + (angle - low) / (high - low)) / (len(angles) - 1)


SCHEDULES: dict[str, Schedule] = {
    "cosine": CosineSchedule(),
    "straight": StraightLine(),
    "linear": LinearBeta(),
    "squaredcos": Tabulated.squared_cosine(),
    "edm": VarianceExploding(),
}
