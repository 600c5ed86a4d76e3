"""The diffusion transformer: attention among the actions of a chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffpolicy.diffusion.architectures import TransformerConfig
from diffpolicy.diffusion.networks.conditioning import Network

__all__ = ["AttentionBlock", "Transformer"]


class Transformer(Network):
    """Tokens are the actions of the chunk; observation and time scale, shift and gate every layer (adaLN-zero).

    One matrix product gives the scales, shifts and gates of all blocks. It and the last layer start at zero: an
    untrained network puts out 0, and its blocks change nothing.

    Source: Peebles and Xie, arXiv 2212.09748.
    """

    def __init__(
        self,
        horizon: int,
        action_dim: int,
        obs_dim: int,
        config: TransformerConfig | None = None,
        outputs: int | None = None,
    ) -> None:
        """A network for chunks (B, horizon, action_dim) and features (B, obs_dim)."""
        config = config or TransformerConfig()
        super().__init__(obs_dim, config)
        self.config = config
        width = config.width
        self.enter = nn.Linear(action_dim, width)
        self.places = nn.Parameter(0.02 * torch.randn(horizon, width))  # what tells the chunk's actions apart
        self.condition = nn.Sequential(nn.Linear(self.conditions, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.modulate = nn.Linear(width, (6 * config.blocks + 2) * width)
        self.blocks = nn.ModuleList(AttentionBlock(width, config.heads) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.leave = nn.Linear(width, outputs or action_dim)
        for parameter in (*self.modulate.parameters(), *self.leave.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        condition = self.condition(self.condition_on(obs, t, s))
        modulation = self.modulate(condition).unsqueeze(1)  # (B, 1, (6 blocks + 2) width)
        *blocks, last = modulation.split(6 * self.config.width, dim=-1)
        hidden = self.enter(x) + self.places  # (B, H, width)
        for block, own in zip(self.blocks, blocks, strict=True):
            hidden = block(hidden, own)
        scale, shift = last.chunk(2, dim=-1)
        out: Tensor = self.leave(self.norm(hidden) * (1 + scale) + shift)
        return out


class AttentionBlock(nn.Module):
    """hidden + gate attention(norm(hidden)), then hidden + gate mlp(norm(hidden)), the norms scaled and shifted."""

    def __init__(self, width: int, heads: int) -> None:
        """A block on tokens of `width` numbers."""
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.attend = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, hidden: Tensor, modulation: Tensor) -> Tensor:
        """Tokens (B, H, width), scales, shifts and gates (B, 1, 6 width) -> (B, H, width)."""
        scale, shift, gate, scale_mlp, shift_mlp, gate_mlp = modulation.chunk(6, dim=-1)
        hidden = hidden + gate * self._attention(self.norm(hidden) * (1 + scale) + shift)
        change: Tensor = self.mlp(self.norm(hidden) * (1 + scale_mlp) + shift_mlp)
        return hidden + gate_mlp * change

    def _attention(self, tokens: Tensor) -> Tensor:
        """In plain products: chunks are short, and these have forward derivatives and are counted as FLOPs."""
        size = tokens.shape[-1] // self.heads
        queries, keys, values = (
            self.attend(tokens).unflatten(-1, (3, self.heads, size)).unbind(2)
        )  # (B, H, heads, size)
        scores = (queries * size**-0.5).transpose(1, 2) @ keys.permute(0, 2, 3, 1)  # (B, heads, H, H)
        mixed = scores.softmax(-1) @ values.transpose(1, 2)  # (B, heads, H, size)
        joined: Tensor = self.join(mixed.transpose(1, 2).flatten(2))
        return joined
