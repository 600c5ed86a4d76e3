"""The policy: observations in, actions out, in the environment's own units."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from numpy.typing import NDArray
from torch import Tensor, nn

from diffpolicy.diffusion.chain import Hint
from diffpolicy.diffusion.denoiser import Denoiser
from diffpolicy.diffusion.mixture import MixtureHead
from diffpolicy.diffusion.networks import make_network
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.diffusion.schedule import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.acting import overlap
from diffpolicy.policy.changes import FREE, replaced
from diffpolicy.policy.chunked import ChunkedPredictor
from diffpolicy.policy.encoder import Encoder
from diffpolicy.policy.models import FRAMES
from diffpolicy.policy.normaliser import Normaliser
from diffpolicy.policy.observations import Layout
from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["Policy", "PolicyConfig"]

MODEL_CARD = """---
{{ card_data }}
---

A diffusion policy for robot control. Load it with `diffpolicy.policy.Policy.from_pretrained`.
"""


class Policy(
    ChunkedPredictor,
    nn.Module,
    ModelHubMixin,
    library_name="diffpolicy",
    tags=["robotics"],
    model_card_template=MODEL_CARD,
):
    """A diffusion policy over chunks of actions, which acts through Stable-Baselines3's `predict`.

    `seed` keys its noise: the noise of a decision depends on (seed, episode, decision) alone. Set it before
    the first `predict`; it then travels in the state.
    """

    def __init__(self, config: PolicyConfig, spaces: SpaceSpec) -> None:
        """An untrained policy; raises InputError on an unknown schedule or prediction."""
        super().__init__()
        if config.schedule not in SCHEDULES:
            raise InputError(f"expected a schedule of {sorted(SCHEDULES)}, got {config.schedule!r}; choose one")
        self.config = config
        self.spaces = spaces
        self.layout = Layout.of(spaces.observations, spaces.boxed)
        self.action_size = len(spaces.action)
        self.seed = 0
        self.environment: str | None = None  # the gymnasium id that it was trained for, as far as its checkpoint says
        self.provenance: dict[str, Any] = {}  # where its weights come from, likewise
        self.encoder = Encoder(spaces, config.n_obs_steps)
        self.sampler = self._made(config, self.encoder.features, len(spaces.action))
        if config.acting.warm_start is not None and self._begin == 0:
            raise InputError(
                f"expected a sampler of two steps or more and acting.warm_start below its first time, "
                f"{float(self.sampler.times[0]):g}, since chains would begin at noise all the same, got "
                f"{len(self.sampler)} steps and {config.acting.warm_start}; lower it, or take more steps"
            )

    @staticmethod
    def _made(config: PolicyConfig, features: int, width: int) -> Sampler | MixtureHead:
        """What draws the chunks, by the model."""
        if config.model in FRAMES and FRAMES[config.model].head:
            outputs = MixtureHead.outputs(config.modes, width)
            network = make_network(config.network, config.horizon, width, features, outputs)
            return MixtureHead(network, config.modes, config.horizon, width, config.sampler)
        network = make_network(config.network, config.horizon, width, features)
        null = nn.Parameter(torch.randn(features)) if config.condition_dropout else None
        return Sampler(Denoiser(SCHEDULES[config.schedule], config.prediction, network, null), config.sampler)

    @property
    def normaliser(self) -> Normaliser:
        """The encoder's normaliser, which also knows the action's range."""
        return self.encoder.normaliser

    @property
    def denoiser(self) -> Denoiser:
        """The sampler's denoiser; raises InputError where the model is a density, which has none."""
        if isinstance(self.sampler, MixtureHead):
            raise InputError(
                f"expected a policy that denoises, got one of model {self.config.model!r}, whose network puts out a "
                "density; use policy.network and policy.sampler.log_prob, or train a policy of another model"
            )
        return self.sampler.denoiser

    @property
    def network(self) -> nn.Module:
        """The network, whatever its output means."""
        return self.sampler.network if isinstance(self.sampler, MixtureHead) else self.sampler.denoiser.network

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sampler.times.device

    @property
    def calls(self) -> int:
        """Denoiser calls a decision, the first of an episode apart, which takes all of the sampler's."""
        return self.sampler.calls if isinstance(self.sampler, MixtureHead) else self.sampler.calls_from(self._begin)

    @property
    def _begin(self) -> int:
        """The step at which chains begin that begin at the last chunk."""
        warm = self.config.acting.warm_start
        return 0 if warm is None or isinstance(self.sampler, MixtureHead) else self.sampler.begin_at(warm)

    def resampled(self, **changes: Any) -> Policy:
        """A copy, with weights of its own, that has these fields of its SamplerConfig changed.

        Raises InputError on what its model fixes.
        """
        return self.reconfigured(replaced(self.config, sampler=changes))

    def reconfigured(self, config: PolicyConfig) -> Policy:
        """A copy, with weights of its own, that has other settings of sampler, acting or executed actions.

        Raises InputError where a setting differs that its weights were trained with.
        """
        free = {name: getattr(self.config, name) for name in FREE}
        if replace(config, **free) != self.config:
            raise InputError(
                f"expected settings that differ in {', '.join(free)} alone, got {config} for a policy of "
                f"{self.config}; train one with the others"
            )
        other = Policy(config, self.spaces).to(self.device)
        other.load_state_dict(self.state_dict())
        other.seed, other.environment, other.provenance = self.seed, self.environment, self.provenance
        return other.train(self.training)

    def chunk(self, obs: Mapping[str, Tensor] | Tensor, noise: Tensor, last: Tensor | None = None) -> Tensor:
        """Chunks (B,H,A) in raw units for raw observation windows, each (B,To,O), or all joined (B,To,C).

        `noise` is the sampler's: (K+1,B,H,A), or (B,H,A) for no noise in the steps. `last` (B,H,A), in raw units, is
        what is left of the chunk before, which `config.acting` says how to use.
        """
        features, acts = self.encoder(obs), self.config.acting
        if last is None or not acts.looks_back or isinstance(self.sampler, MixtureHead):
            return self.normaliser.unnormalise_action(self.sampler.draw(features, noise))
        weight = None if acts.real_time is None else torch.from_numpy(overlap(self.config)).to(noise)
        hint = Hint(self.normaliser.normalise_action(last), self._begin, weight, acts.real_time or 0.0)
        return self.normaliser.unnormalise_action(self.sampler.draw(features, noise, hint))

    def _draws(self, deterministic: bool) -> int:
        return len(self.sampler) + 1 if self.sampler.stochastic and not deterministic else 1

    def _draw(
        self, past: NDArray[np.float32], noise: NDArray[np.float32], last: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        draws = noise[:, 0] if noise.shape[1] == 1 else noise.swapaxes(0, 1)  # (n,H,A) or (K+1,n,H,A)
        pulled = last is not None and self.config.acting.real_time is not None
        plain = torch.no_grad() if pulled else nullcontext()
        with torch.inference_mode(not pulled), plain:  # a pull is a gradient of the denoiser's
            given = [torch.from_numpy(each) for each in (past, draws, last) if each is not None]
            if self.device.type == "cpu":
                chunk: NDArray[np.float32] = self.chunk(*given).numpy()
            else:
                chunk = self.chunk(*(each.to(self.device) for each in given)).cpu().numpy()
        return chunk

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Policy:
        """Load a checkpoint folder, or a repository of the Hugging Face Hub (`snapshot_download`'s options).

        Raises InputError where there is none, or it cannot be used.
        """
        from diffpolicy.policy.checkpoint import checkpoint_of, load_checkpoint

        folder = Path(pretrained_model_name_or_path)
        try:
            folder = checkpoint_of(folder)
        except InputError:
            if folder.is_dir():
                raise
            try:
                folder = Path(snapshot_download(str(pretrained_model_name_or_path), **options))
            except (OSError, ValueError) as error:
                raise InputError(
                    f"expected a checkpoint folder or a repository of the Hub, got "
                    f"{str(pretrained_model_name_or_path)!r} ({error}); check the name"
                ) from error
        return load_checkpoint(folder).policy

    def _save_pretrained(self, save_directory: Path) -> None:
        from diffpolicy.policy.checkpoint import write_policy

        write_policy(self, save_directory)
