"""The batches that sources yield and updates take.

Shapes: B batch, To observation steps, H chunk length, A action, O observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Demo"]


@dataclass(frozen=True, eq=False)
class Demo:
    """What was seen, and what was then done: a batch for imitation, in raw units."""

    obs: dict[str, Tensor]  # each (B, To, O)
    chunk: Tensor  # (B, H, A)
    mask: Tensor  # (B, H) float32, 1 where the action is real and 0 where it is padding

    def to(self, device: torch.device | str) -> Demo:
        """The same batch on another device."""
        obs = {name: x.to(device) for name, x in self.obs.items()}
        return Demo(obs, self.chunk.to(device), self.mask.to(device))
