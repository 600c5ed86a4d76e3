"""The policy as people use it: spaces, units, chunked acting and checkpoints around a diffusion sampler.

The settings live here and need no torch, so that a command line can show them quickly; every other name is
loaded from its module on first use. Shapes: N environments, B batch, H chunk length, A action, O observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from diffpolicy.diffusion import MLPConfig, NetworkConfig, PredictionName, SamplerConfig, ScheduleName
from diffpolicy.diffusion.architectures import network_from_json
from diffpolicy.diffusion.settings import Among, Kind, Number, Whole, check_settings
from diffpolicy.errors import InputError
from diffpolicy.lazy import loader
from diffpolicy.policy.models import MODES, ModelName, enter_frame

if TYPE_CHECKING:
    from diffpolicy.policy.acting import ActingState
    from diffpolicy.policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from diffpolicy.policy.encoder import Encoder
    from diffpolicy.policy.normaliser import Normaliser
    from diffpolicy.policy.policy import Policy
    from diffpolicy.policy.spaces import Bounds, SpaceSpec
    from diffpolicy.policy.train_state import load_train_state, save_train_state

__all__ = [
    "ActingState",
    "Bounds",
    "Checkpoint",
    "Encoder",
    "Normaliser",
    "Policy",
    "PolicyConfig",
    "SpaceSpec",
    "load_checkpoint",
    "load_train_state",
    "save_checkpoint",
    "save_train_state",
]


@dataclass(frozen=True)
class PolicyConfig:
    """What a policy is, apart from its spaces and weights.

    At each decision the last `n_obs_steps` observations give a chunk of `horizon` actions, which begins at the
    oldest of those observations; `n_action_steps` of it, from the present on, are executed.
    """

    horizon: int = 16
    """Length of a chunk of actions."""
    n_obs_steps: int = 1
    """Observations that the policy sees, the present one included."""
    n_action_steps: int = 8
    """Actions of a chunk that are executed before the next decision."""
    schedule: ScheduleName = "straight"
    """From data to noise: flow matching's straight line, cosine, DDPM's linear beta, squaredcos_cap_v2 or EDM's."""
    prediction: PredictionName = "flow"
    """What the network puts out."""
    network: NetworkConfig = field(default_factory=MLPConfig)
    """Kind and size of the network."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """How chunks are drawn."""
    condition_dropout: float = 0.0
    """Share of the training samples that are denoised without their observation, which guidance needs (such as 0.1)."""
    model: ModelName = "diffusion"
    """A denoiser of many steps, or a baseline, which fixes schedule, prediction and sampler: regression, MIP (two
    steps), a Gaussian, a mixture of Gaussians."""
    modes: int = MODES
    """Components of a mixture."""

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, where one is wrong or the executed actions do not fit in the chunk."""
        check_settings(
            self,
            horizon=Whole(1, 10_000),
            n_obs_steps=Whole(1, 1000),
            n_action_steps=Whole(1, 10_000),
            model=Among(get_args(ModelName)),
            modes=Whole(1, 1000),
            schedule=Among(get_args(ScheduleName)),
            prediction=Among(get_args(PredictionName)),
            network=Kind(NetworkConfig),
            sampler=Kind(SamplerConfig),
            condition_dropout=Number(0, 1, below=True),
        )
        enter_frame(self)
        if self.sampler.guidance and not self.condition_dropout:
            raise InputError(
                f"expected sampler.guidance=0 for a policy that always saw its observation in training, got "
                f"{self.sampler.guidance}; train one with condition_dropout > 0 (such as 0.1)"
            )
        if self.n_obs_steps - 1 + self.n_action_steps > self.horizon:
            raise InputError(
                f"expected n_obs_steps - 1 + n_action_steps <= horizon, got {self.n_obs_steps} - 1 + "
                f"{self.n_action_steps} > {self.horizon}; lengthen the horizon or execute fewer actions"
            )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyConfig:
        """The inverse of `dataclasses.asdict`; raises InputError where the data are not what it gave."""
        try:
            nested = {"network": network_from_json(data["network"]), "sampler": SamplerConfig(**data["sampler"])}
            return cls(**{**data, **nested})
        except (KeyError, TypeError) as error:
            raise InputError(f"expected the fields of PolicyConfig, got {data} ({error}); correct them") from error


_HOMES = {
    "ActingState": "acting",
    "Bounds": "spaces",
    "Checkpoint": "checkpoint",
    "Encoder": "encoder",
    "Normaliser": "normaliser",
    "Policy": "policy",
    "SpaceSpec": "spaces",
    "load_checkpoint": "checkpoint",
    "load_train_state": "train_state",
    "save_checkpoint": "checkpoint",
    "save_train_state": "train_state",
}

__getattr__ = loader(__name__, _HOMES)
