"""The batches that sources yield and updates take.

Shapes: B batch, K steps of a chain, To observation steps, H chunk length, A action, O observation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Demo", "hold"]


@dataclass(frozen=True, eq=False)
class Demo:
    """What was seen, and what was then done: a batch for imitation, in raw units."""

    obs: dict[str, Tensor]  # each (B, To, O)
    chunk: Tensor  # (B, H, A)
    mask: Tensor  # (B, H) float32, 1 where the action is real and 0 where it is padding
    held: bool = False  # whether the padding of `chunk` is what `hold` would write there
    chain: Tensor | None = None  # (K+1, B, H, A), noise first, in the network's units: what a teacher drew for it

    def to(self, device: torch.device | str) -> Demo:
        """The same batch on another device; itself where it is there already."""
        if self.chunk.device == torch.device(device):
            return self
        obs = {name: x.to(device) for name, x in self.obs.items()}
        chain = None if self.chain is None else self.chain.to(device)
        return Demo(obs, self.chunk.to(device), self.mask.to(device), self.held, chain)

    def split(self, size: int) -> list[Demo]:
        """Batches of `size` rows, without chains, the last of what is left; they are views of this one."""
        columns = zip(*(torch.split(rows, size) for rows in self.obs.values()), strict=True)
        parts = zip(columns, torch.split(self.chunk, size), torch.split(self.mask, size), strict=True)
        return [Demo(dict(zip(self.obs, obs, strict=True)), chunk, mask, self.held) for obs, chunk, mask in parts]


def hold(chunk: Tensor, mask: Tensor) -> Tensor:
    """Chunks (B, H, A) with each masked action replaced by the last real one before it, else by the first real one.

    A network sees whole chunks, so what stands in a masked entry would otherwise reach its gradient.
    """
    real = mask > 0  # (B, H)
    offsets = torch.arange(chunk.shape[1], device=chunk.device)
    before = torch.where(real, offsets, -1).cummax(dim=1).values
    first = real.to(torch.int8).argmax(dim=1, keepdim=True)
    source = torch.where(before >= 0, before, first)  # (B, H)
    return chunk.gather(1, source[:, :, None].expand_as(chunk))
