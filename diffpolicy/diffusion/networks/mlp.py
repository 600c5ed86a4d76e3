"""The residual network over a flattened chunk."""

from __future__ import annotations

from torch import Tensor, nn

from diffpolicy.diffusion.architectures import MLPConfig
from diffpolicy.diffusion.networks.conditioning import Network

__all__ = ["MLP", "Block"]


class MLP(Network):
    """Residual pre-LayerNorm SiLU network over the flattened chunk.

    Observation and time enter every block: one matrix product over both gives the shifts of all blocks at
    once, which costs less than one in each. The last layer starts at zero: an untrained network puts out 0.
    """

    def __init__(
        self,
        horizon: int,
        action_dim: int,
        obs_dim: int,
        config: MLPConfig | None = None,
        outputs: int | None = None,
    ) -> None:
        """A network for chunks (B, horizon, action_dim) and features (B, obs_dim)."""
        config = config or MLPConfig()
        super().__init__(obs_dim, config)
        self.config, self.outputs = config, outputs or action_dim
        width, chunk = config.width, horizon * action_dim
        self.enter = nn.Linear(chunk, width)
        self.condition = nn.Linear(self.conditions, (config.blocks + 1) * width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(config.blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, horizon * self.outputs))
        for parameter in self.leave[1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        shifts = self.condition(self.condition_on(obs, t, s))
        first, *others = shifts.chunk(len(self.blocks) + 1, dim=-1)
        hidden = self.enter(x.flatten(1)) + first  # (B, width)
        for block, shift in zip(self.blocks, others, strict=True):
            hidden = block(hidden, shift)
        out: Tensor = self.leave(hidden)
        return out.view(*x.shape[:2], self.outputs)


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
