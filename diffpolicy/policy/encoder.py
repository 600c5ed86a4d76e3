"""From the observations of a few time steps to the one feature vector that a denoiser is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffpolicy.errors import InputError
from diffpolicy.policy.normaliser import Normaliser
from diffpolicy.policy.observations import Layout
from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["OBS_CLIP", "Encoder"]

OBS_CLIP = 5.0  # normalised observations are kept within +-5, so that an outlier cannot carry the network away


class Encoder(nn.Module):
    """Normalises, clips to +-5, and concatenates observations in the order of their sorted names."""

    def __init__(self, spaces: SpaceSpec, n_obs_steps: int) -> None:
        """For windows of `n_obs_steps` rows; holds the policy's normaliser."""
        super().__init__()
        self.normaliser = Normaliser(spaces)
        self.n_obs_steps = n_obs_steps
        self.layout = Layout.of(spaces.observations, spaces.boxed)

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.n_obs_steps * self.layout.width

    def forward(self, obs: Mapping[str, Tensor] | Tensor) -> Tensor:
        """Raw observations, each (B,To,O), or joined in the order of their names (B,To,C) -> features.

        Raises InputError where one is missing or of a wrong shape.
        """
        joined = obs if isinstance(obs, Tensor) else self._joined(obs)
        centre, scale = self.normaliser.ranges()
        return ((joined - centre) / scale).clamp(-OBS_CLIP, OBS_CLIP).flatten(1)

    def _joined(self, obs: Mapping[str, Tensor]) -> Tensor:
        for name, size in self.layout.sizes:
            shape = tuple(obs[name].shape) if name in obs else None
            if shape is None or len(shape) != 3 or shape[1:] != (self.n_obs_steps, size):
                raise InputError(
                    f"expected observation {name!r} of shape (B, {self.n_obs_steps}, {size}), got {shape}; "
                    "pass windows of n_obs_steps rows"
                )
        return torch.cat([obs[name] for name, _ in self.layout.sizes], dim=-1)  # (B, To, C)
