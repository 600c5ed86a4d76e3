"""A policy that trains in a second, and is no good."""

from __future__ import annotations

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.policy import PolicyConfig

__all__ = ["NOISY"]

NOISY = PolicyConfig(
    horizon=4,
    n_action_steps=2,
    network=MLPConfig(width=8, blocks=1, time_dim=4),
    sampler=SamplerConfig(steps=6, eta=1.0),
)
