"""What a sampler's steps give and are given: a Gaussian each, their chain, and a chunk to keep in view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from diffpolicy.errors import InputError

__all__ = ["Chain", "Gaussian", "Hint", "reduce_log_prob"]


class Gaussian(NamedTuple):
    """A normal distribution with independent elements."""

    mean: Tensor  # (B, H, A)
    std: Tensor  # (), the same for all elements

    def sample(self, noise: Tensor) -> Tensor:
        """The sample (B,H,A) that standard normal noise (B,H,A) stands for."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (B,H,A) of each element of x; raises InputError where the step is deterministic."""
        if not bool((self.std > 0).all()):
            raise InputError(
                "expected a step with std > 0, got a deterministic one, which has no density; "
                "use eta > 0 or floor > 0, a grid that ends at t_min > 0 and a temperature > 0"
            )
        return -0.5 * ((x - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Chain:
    """A reverse chain, noise first."""

    x: Tensor  # (K+1, B, H, A)
    logp: Tensor | None  # (K, B, H, A), element by element

    @property
    def action(self) -> Tensor:
        """The chunk (B,H,A) at the end of the chain, in normalised units."""
        return self.x[-1]


def reduce_log_prob(logp: Tensor, mask: Tensor) -> Tensor:
    """Sum log-probabilities (K,B,H,A) over the chunk where mask (B,H) or (H,) is 1 -> (K,B)."""
    return (logp * mask.unsqueeze(-1)).sum(dim=(-2, -1))


class Hint(NamedTuple):
    """A chunk that another is drawn with in view of."""

    chunk: Tensor  # (B, H, A), in normalised units
    begin: int = 0  # step from which the chain begins, at this chunk with noise; 0: at pure noise
    weight: Tensor | None = None  # (H,), how much of it the chain is pulled towards; None: it is not
    most: float = 5.0  # the largest weight of that pull
