"""The neural networks inside a denoiser, behind one call: they map arrays to arrays and know nothing of schedules."""

from __future__ import annotations

from diffpolicy.diffusion.architectures import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from diffpolicy.diffusion.networks.conditioning import Network
from diffpolicy.diffusion.networks.mlp import MLP
from diffpolicy.diffusion.networks.transformer import Transformer
from diffpolicy.diffusion.networks.unet import UNet

__all__ = ["MLP", "MLPConfig", "Network", "Transformer", "UNet", "make_network"]


def make_network(
    config: NetworkConfig, horizon: int, action_dim: int, obs_dim: int, outputs: int | None = None
) -> Network:
    """An untrained network of the kind and size that the settings say; see `Network` for `outputs`."""
    match config:
        case UNetConfig():
            return UNet(horizon, action_dim, obs_dim, config, outputs)
        case TransformerConfig():
            return Transformer(horizon, action_dim, obs_dim, config, outputs)
        case _:
            return MLP(horizon, action_dim, obs_dim, config, outputs)
