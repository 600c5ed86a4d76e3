"""What a denoising network is and how large: the settings of each kind, which need no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from diffpolicy.diffusion.settings import Among, Flag, Whole, check_settings
from diffpolicy.errors import InputError

__all__ = ["NETWORKS", "MLPConfig", "NetworkConfig", "TransformerConfig", "UNetConfig", "network_from_json"]

WEIGHTS_MAX = 1e9  # half the weights of the widest network: 8 GB in single precision
GROUPS = 8  # of channels, that a temporal U-Net normalises over


@dataclass(frozen=True)
class MLPConfig:
    """A residual network over the whole chunk: the defaults give about half a million weights."""

    width: int = 256  # of the residual stream
    blocks: int = 3
    time_dim: int = 64  # sines and cosines of the diffusion time
    two_times: bool = False  # reads a target time s as well
    # tells the kinds apart in a file
    kind: Literal["mlp"] = field(default="mlp", init=False)

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for sizes that no network can have, or no machine can hold."""
        _check(self, blocks=Whole(1, 256))
        _require_room(self, self.blocks * self.width**2, "blocks * width ** 2", "take fewer blocks, or narrower ones")


@dataclass(frozen=True)
class UNetConfig:
    """A temporal U-Net with FiLM: the defaults give about two thirds of a million weights."""

    width: int = 64  # channels at full length; they double wherever the length is halved
    levels: int = 2  # lengths: each is half the one before
    kernel: int = 5  # actions that a convolution spans
    time_dim: int = 64  # sines and cosines of the diffusion time
    two_times: bool = False  # reads a target time s as well
    # tells the kinds apart in a file
    kind: Literal["unet"] = field(default="unet", init=False)

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for sizes that no network can have, or no machine can hold."""
        _check(self, levels=Whole(1, 8), kernel=Whole(1, 63))
        if self.kernel % 2 == 0:
            raise InputError(f"UNetConfig.kernel: expected an odd number, got {self.kernel}; correct it")
        if self.width % GROUPS or self.width < 2 * GROUPS:
            raise InputError(
                f"UNetConfig.width: expected a multiple of {GROUPS} from {2 * GROUPS} on, got {self.width}; correct it"
            )
        weights = 8 * self.kernel * (self.width * 2 ** (self.levels - 1)) ** 2
        _require_room(
            self, weights, "8 * kernel * (width * 2 ** (levels - 1)) ** 2", "take fewer levels, or narrower ones"
        )


@dataclass(frozen=True)
class TransformerConfig:
    """A diffusion transformer whose tokens are the chunk's actions: the defaults give about a million weights."""

    width: int = 128  # of a token
    blocks: int = 3
    heads: int = 4
    time_dim: int = 64  # sines and cosines of the diffusion time
    two_times: bool = False  # reads a target time s as well
    # tells the kinds apart in a file
    kind: Literal["transformer"] = field(default="transformer", init=False)

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, for sizes that no network can have, or no machine can hold."""
        _check(self, blocks=Whole(1, 256), heads=Whole(1, 256))
        if self.width % self.heads:
            raise InputError(
                f"TransformerConfig.heads: expected a divisor of the width {self.width}, got {self.heads}; correct it"
            )
        weights = 9 * self.blocks * self.width**2
        _require_room(self, weights, "9 * blocks * width ** 2", "take fewer blocks, or narrower ones")


NetworkConfig = MLPConfig | UNetConfig | TransformerConfig

NETWORKS: dict[str, type[MLPConfig] | type[UNetConfig] | type[TransformerConfig]] = {
    "mlp": MLPConfig,
    "unet": UNetConfig,
    "transformer": TransformerConfig,
}


def network_from_json(data: Any) -> NetworkConfig:
    """The inverse of `dataclasses.asdict`; without a `kind`, as configurations once were, it is an MLP's.

    Raises InputError on an unknown kind, and InputError or TypeError where the fields are not those of the kind.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"a network's settings are a mapping, not {type(data).__name__}")
    fields = dict(data)
    known = Among(tuple(NETWORKS))
    kind = fields.pop("kind", "mlp")
    try:
        return NETWORKS[str(known.admit(kind))](**fields)
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"expected a network's kind to be {known}, got {kind!r:.100}; {error} correct it") from None


def _check(config: NetworkConfig, **rules: Whole) -> None:
    """What every network's settings have, and the rules of one kind's own."""
    check_settings(config, width=Whole(1, 2**14), time_dim=Whole(2, 2**14), two_times=Flag(), **rules)
    if config.time_dim % 2:
        name = type(config).__name__
        raise InputError(f"{name}.time_dim: expected an even number, got {config.time_dim}; correct it")


def _require_room(config: NetworkConfig, weights: int, formula: str, advice: str) -> None:
    if weights > WEIGHTS_MAX:
        raise InputError(
            f"{type(config).__name__}: expected {formula} <= {WEIGHTS_MAX:g}, got {weights:g} for {config}; {advice}"
        )
