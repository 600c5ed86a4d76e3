"""From the observations of a few time steps to the one feature vector that a denoiser is conditioned on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffpolicy.errors import InputError
from diffpolicy.policy.normaliser import Normaliser
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
        self.sizes = {name: len(spaces.observations[name]) for name in sorted(spaces.observations)}

    @property
    def features(self) -> int:
        """Length of the feature vector."""
        return self.n_obs_steps * sum(self.sizes.values())

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Raw observations, each (B,To,O), -> features (B,C).

        Raises InputError where one is missing or of a wrong shape.
        """
        for name, size in self.sizes.items():
            shape = tuple(obs[name].shape) if name in obs else None
            if shape is None or len(shape) != 3 or shape[1:] != (self.n_obs_steps, size):
                raise InputError(
                    f"expected observation {name!r} of shape (B, {self.n_obs_steps}, {size}), got {shape}; "
                    "pass windows of n_obs_steps rows"
                )
        normalised = self.normaliser.normalise_obs({name: obs[name] for name in self.sizes})
        joined = torch.cat(list(normalised.values()), dim=-1)  # (B, To, sum of O)
        return joined.clamp(-OBS_CLIP, OBS_CLIP).flatten(1)
