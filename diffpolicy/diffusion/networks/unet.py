"""The temporal U-Net: convolutions along the chunk, at its whole length and at halves of it."""

from __future__ import annotations

from torch import Tensor, cat, nn

from diffpolicy.diffusion.architectures import GROUPS, UNetConfig
from diffpolicy.diffusion.networks.conditioning import Network

__all__ = ["FilmBlock", "UNet"]

FILM = 128  # numbers that the condition becomes before the scales and shifts are read off it


class UNet(Network):
    """Residual convolutions along time, whose channels observation and time scale and shift (FiLM).

    Two blocks at each level on the way down, and two on the way up, which also get what the way down had at that
    level. Chunks are padded with zeros to a length that can be halved, within. One matrix product gives the scales
    and shifts of all blocks. The last layer starts at zero: an untrained network puts out 0.

    Source: Chi et al., Diffusion Policy, arXiv 2303.04137; FiLM: Perez et al., arXiv 1709.07871.
    """

    def __init__(
        self,
        horizon: int,
        action_dim: int,
        obs_dim: int,
        config: UNetConfig | None = None,
        outputs: int | None = None,
    ) -> None:
        """A network for chunks (B, horizon, action_dim) and features (B, obs_dim)."""
        config = config or UNetConfig()
        super().__init__(obs_dim, config)
        self.config = config
        self.padding = -horizon % 2 ** (config.levels - 1)
        widths = [config.width * 2**level for level in range(config.levels)]
        down = [(a, b) for b, a in zip(widths, [action_dim, *widths[:-1]], strict=True)]
        self.down = nn.ModuleList(_Level(a, b, config.kernel) for a, b in down)
        self.shorten = nn.ModuleList(nn.Conv1d(width, width, 3, stride=2, padding=1) for width in widths[:-1])
        up = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.lengthen = nn.ModuleList(nn.ConvTranspose1d(a, b, 4, stride=2, padding=1) for a, b in up)
        self.up = nn.ModuleList(_Level(2 * b, b, config.kernel) for _, b in up)
        self.sizes = [4 * width for width in (*widths, *widths[-2::-1])]  # of the scales and shifts, by level
        self.condition = nn.Sequential(nn.Linear(self.conditions, FILM), nn.SiLU(), nn.Linear(FILM, sum(self.sizes)))
        leave = nn.Conv1d(widths[0], outputs or action_dim, 1)
        self.leave = nn.Sequential(nn.GroupNorm(GROUPS, widths[0]), nn.SiLU(), leave)
        for parameter in self.leave[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """See `Network.forward`."""
        films = iter(self.condition(self.condition_on(obs, t, s)).split(self.sizes, dim=-1))
        hidden = nn.functional.pad(x.transpose(1, 2), (0, self.padding))  # (B, A, L)
        passed: list[Tensor] = []
        for level, blocks in enumerate(self.down):
            hidden = blocks(hidden, next(films))  # (B, widths[level], L / 2^level)
            if level < len(self.shorten):
                passed.append(hidden)
                hidden = self.shorten[level](hidden)
        for lengthen, blocks in zip(self.lengthen, self.up, strict=True):
            hidden = blocks(cat([lengthen(hidden), passed.pop()], dim=1), next(films))
        out: Tensor = self.leave(hidden)  # (B, A, L)
        return out[:, :, : x.shape[1]].transpose(1, 2)


class FilmBlock(nn.Module):
    """skip(x) + conv(silu(norm(scale * silu(norm(conv(x))) + shift))), with 1 added to each scale."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        """From (B, channels, L) to (B, width, L)."""
        super().__init__()
        self.inner = nn.Conv1d(channels, width, kernel, padding=kernel // 2)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, width) for _ in range(2))
        self.outer = nn.Conv1d(width, width, kernel, padding=kernel // 2)
        self.skip = nn.Identity() if channels == width else nn.Conv1d(channels, width, 1)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(B, channels, L), scales and shifts (B, 2 width) -> (B, width, L)."""
        scale, shift = film.unsqueeze(-1).chunk(2, dim=1)  # (B, width, 1)
        inner, outer = self.norms
        hidden = nn.functional.silu(inner(self.inner(x))) * (1 + scale) + shift
        skip: Tensor = self.skip(x)
        return skip + nn.functional.silu(outer(self.outer(hidden)))


class _Level(nn.Module):
    """Two blocks, one after the other."""

    def __init__(self, channels: int, width: int, kernel: int) -> None:
        super().__init__()
        self.first, self.second = FilmBlock(channels, width, kernel), FilmBlock(width, width, kernel)

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """(B, channels, L), scales and shifts of both (B, 4 width) -> (B, width, L)."""
        first, second = film.chunk(2, dim=-1)
        out: Tensor = self.second(self.first(x, first), second)
        return out
