"""The neural networks inside a denoiser: they map arrays to arrays and know nothing of schedules."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffpolicy.diffusion import MLPConfig
from diffpolicy.errors import InputError

__all__ = ["MLP", "Block", "MLPConfig"]


class MLP(nn.Module):
    """Residual pre-LayerNorm SiLU network over the flattened chunk.

    Observation and time enter every block: one matrix product over both gives the shifts of all blocks at
    once, which costs less than one in each. The last layer starts at zero: an untrained network puts out 0.
    """

    frequencies: Tensor

    def __init__(self, horizon: int, action_dim: int, obs_dim: int, config: MLPConfig | None = None) -> None:
        """A network for chunks (B, horizon, action_dim) and features (B, obs_dim)."""
        super().__init__()
        self.config = config = config or MLPConfig()
        width, chunk = config.width, horizon * action_dim
        octaves = torch.linspace(0.0, math.log(20.0), config.time_dim // 2)
        self.register_buffer("frequencies", octaves.exp(), persistent=False)  # 1 to 20 [rad per unit of t]
        self.enter = nn.Linear(chunk, width)
        self.condition = nn.Linear(obs_dim + config.time_dim, (config.blocks + 1) * width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, chunk))
        for parameter in self.leave[1].parameters():
            nn.init.zeros_(parameter)

    def embed(self, t: Tensor) -> Tensor:
        """Times (B,) -> (B, time_dim): all that the network reads of them; a function without weights."""
        phase = t[:, None] * self.frequencies  # (B, time_dim / 2)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """Noisy chunk (B,H,A), time (B,) or what `embed` makes of it, features (B,C) -> output (B,H,A).

        Raises InputError when a target time `s` is given: this network reads one time.
        """
        if s is not None:
            raise InputError("expected s=None, got a target time; use a network of two times")
        time = self.embed(t) if t.dim() == 1 else t
        shifts = self.condition(torch.cat([obs, time], dim=-1))
        first, *others = shifts.chunk(len(self.blocks) + 1, dim=-1)
        hidden = self.enter(x.flatten(1)) + first  # (B, width)
        for block, shift in zip(self.blocks, others, strict=True):
            hidden = block(hidden, shift)
        out: Tensor = self.leave(hidden)
        return out.view_as(x)


class Block(nn.Module):
    """hidden + W2 silu(W1 norm(hidden) + shift)."""

    def __init__(self, width: int) -> None:
        """A block on a residual stream of `width` numbers."""
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self, hidden: Tensor, shift: Tensor) -> Tensor:
        """(B, width), (B, width) -> (B, width)."""
        change: Tensor = self.outer(nn.functional.silu(self.inner(self.norm(hidden)) + shift))
        return hidden + change
