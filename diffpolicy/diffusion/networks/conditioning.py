"""What all networks share: their inputs, and what each reads of the diffusion times and the observation."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn

from diffpolicy.diffusion.architectures import NetworkConfig
from diffpolicy.errors import InputError

__all__ = ["Network"]


class Network(nn.Module):
    """(x (B,H,A), t, obs (B,C), s) -> (B,H,A): any array to any array, with nothing known of schedules.

    A row of the output depends on the same row of the inputs alone. Made with `outputs`, it puts out so many numbers
    for each action of the chunk in the place of A.
    """

    frequencies: Tensor

    def __init__(self, obs_dim: int, config: NetworkConfig) -> None:
        """For features (B, obs_dim)."""
        super().__init__()
        octaves = torch.linspace(0.0, math.log(20.0), config.time_dim // 2)
        self.register_buffer("frequencies", octaves.exp(), persistent=False)  # 1 to 20 [rad per unit of t]
        self.two_times = config.two_times
        self.conditions = obs_dim + config.time_dim * (2 if config.two_times else 1)  # length of `condition_on`

    def embed(self, t: Tensor) -> Tensor:
        """Times (B,) -> (B, time_dim): all that the network reads of them; a function without weights."""
        phase = t[:, None] * self.frequencies  # (B, time_dim / 2)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def condition_on(self, obs: Tensor, t: Tensor, s: Tensor | None) -> Tensor:
        """Features (B,C) and times, each (B,) or what `embed` makes of them, side by side: (B, conditions).

        Raises InputError where the network reads two times and `s` is None, or one and it is not.
        """
        times = [self.embed(t) if t.dim() == 1 else t]
        if s is None:
            if self.two_times:
                raise InputError(
                    "expected a target time s, got None; this network was made with two_times=True: train and sample "
                    "it by a method of two times, or make one with two_times=False"
                )
        elif self.two_times:
            times.append(self.embed(s) if s.dim() == 1 else s)
        else:
            raise InputError("expected s=None, got a target time; use a network of two times (two_times=True)")
        return torch.cat([obs, *times], dim=-1)

    @abstractmethod
    def forward(self, x: Tensor, t: Tensor, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """Noisy chunk (B,H,A), time (B,) or what `embed` makes of it, features (B,C), target time -> (B,H,A).

        Raises InputError where the network reads two times and `s` is None, or one and it is not.
        """
