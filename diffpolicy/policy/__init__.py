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
from diffpolicy.policy.models import FRAMES, MODES, ModelName, enter_frame

if TYPE_CHECKING:
    from diffpolicy.policy.acting import ActingState
    from diffpolicy.policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
    from diffpolicy.policy.encoder import Encoder
    from diffpolicy.policy.normaliser import Normaliser
    from diffpolicy.policy.policy import Policy
    from diffpolicy.policy.spaces import Bounds, SpaceSpec
    from diffpolicy.policy.train_state import load_train_state, save_train_state

__all__ = [
    "ActingConfig",
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
class ActingConfig:
    """How chunks follow one another; by default each replaces the last one."""

    latency: int = 0
    """Simulated time from an observation to the first action that is chosen with it [control steps]. Until then what
    the last chunk holds goes on; the first decision of an episode is not delayed."""
    ensemble: float | None = None
    """Execute the mean of all chunks that hold an action for the moment, the i-th oldest weighted by exp(-ensemble i)
    (ACT, arXiv 2304.13705, whose value is 0.01; 0 weighs all alike); None: the newest chunk alone."""
    warm_start: float | None = None
    """Diffusion time from which chains begin at the last chunk, noised to there, and not at pure noise."""
    real_time: float | None = None
    """Pull chains towards the last chunk where both overlap, by guidance of at most this weight: real-time chunking
    (arXiv 2506.07339, whose value is 5), for samplers of several steps."""

    def __post_init__(self) -> None:
        """Raises InputError, naming the field, where one is wrong."""
        check_settings(
            self,
            latency=Whole(0, 10_000),
            ensemble=Number(0, 1e3, none=True),
            warm_start=Number(0, 1, above=True, none=True),
            real_time=Number(0, 1e6, above=True, none=True),
        )

    @property
    def looks_back(self) -> bool:
        """Whether a chunk is drawn with the last one in view."""
        return self.warm_start is not None or self.real_time is not None


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
    acting: ActingConfig = field(default_factory=ActingConfig)
    """How chunks follow one another."""
    condition_dropout: float = 0.0
    """Share of the training samples that are denoised without their observation, which guidance needs (such as 0.1)."""
    model: ModelName = "diffusion"
    """A denoiser of many steps, or a baseline, which fixes schedule, prediction and sampler: regression, MIP (two
    steps), a Gaussian, a mixture of Gaussians, or of any number of steps a shortcut model or MeanFlow. A student is
    what `distil` makes."""
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
            acting=Kind(ActingConfig),
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
        self._check_acting()

    def _check_acting(self) -> None:
        latency, ahead = self.acting.latency, self.horizon - self.n_obs_steps + 1  # actions from the present on
        if latency and not (latency <= self.n_action_steps <= ahead - latency):
            raise InputError(
                f"expected acting.latency <= n_action_steps <= horizon - n_obs_steps + 1 - acting.latency, so that a "
                f"chunk lasts until the next one comes, got latency {latency}, n_action_steps {self.n_action_steps} "
                f"and {ahead} actions ahead; lower the latency, or change n_action_steps"
            )
        if self.acting.looks_back and self.model in FRAMES and not FRAMES[self.model].chains:
            raise InputError(
                f"expected acting.warm_start and acting.real_time to be None for model {self.model!r}, which draws no "
                "chain; leave them out"
            )
        overlapping = self.acting.ensemble is not None or self.acting.looks_back
        if overlapping and self.n_action_steps == ahead:
            raise InputError(
                f"expected chunks that overlap for acting.ensemble, warm_start and real_time, got n_action_steps = "
                f"{self.n_action_steps}, all that lies ahead in a chunk; execute fewer actions"
            )

    @property
    def queued(self) -> int:
        """Actions of a chunk that are kept: those to execute before the next, or all where chunks are put together."""
        if self.acting.ensemble is not None or self.acting.looks_back:
            return self.horizon - self.n_obs_steps + 1
        return self.n_action_steps + self.acting.latency

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyConfig:
        """The inverse of `dataclasses.asdict`; raises InputError where the data are not what it gave."""
        try:
            nested: dict[str, Any] = {
                "network": network_from_json(data["network"]),
                "sampler": SamplerConfig(**data["sampler"]),
            }
            nested["acting"] = ActingConfig(**data.get("acting", {}))  # there is none in older checkpoints
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
