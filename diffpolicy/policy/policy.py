"""The policy: observations in, actions out, in the environment's own units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from diffpolicy.diffusion.denoiser import Denoiser
from diffpolicy.diffusion.networks import MLP
from diffpolicy.diffusion.noise import counter_noise
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.diffusion.schedule import SCHEDULES
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, acting
from diffpolicy.policy.acting import ActingState
from diffpolicy.policy.encoder import Encoder
from diffpolicy.policy.normaliser import Normaliser
from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["Policy", "PolicyConfig"]

MODEL_CARD = """---
{{ card_data }}
---

A diffusion policy for robot control. Load it with `diffpolicy.policy.Policy.from_pretrained`.
"""


class Policy(nn.Module, ModelHubMixin, library_name="diffpolicy", tags=["robotics"], model_card_template=MODEL_CARD):
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
        self.seed = 0
        self.environment: str | None = None  # the gymnasium id that it was trained for, as far as its checkpoint says
        self.provenance: dict[str, Any] = {}  # where its weights come from, likewise
        self.encoder = Encoder(spaces, config.n_obs_steps)
        network = MLP(config.horizon, len(spaces.action), self.encoder.features, config.network)
        self.sampler = Sampler(Denoiser(SCHEDULES[config.schedule], config.prediction, network), config.sampler)

    @property
    def normaliser(self) -> Normaliser:
        """The encoder's normaliser, which also knows the action's range."""
        return self.encoder.normaliser

    @property
    def denoiser(self) -> Denoiser:
        """The sampler's denoiser."""
        return self.sampler.denoiser

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.sampler.times.device

    def resampled(self, **changes: Any) -> Policy:
        """A copy, with weights of its own, that has these fields of its SamplerConfig changed."""
        config = replace(self.config, sampler=replace(self.config.sampler, **changes))
        other = Policy(config, self.spaces).to(self.device)
        other.load_state_dict(self.state_dict())
        other.seed = self.seed
        return other.train(self.training)

    def chunk(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Chunks (B,H,A) in raw units for raw observation windows, each (B,To,O).

        `noise` is the sampler's: (K+1,B,H,A), or (B,H,A) for no noise in the steps.
        """
        return self.normaliser.unnormalise_action(self.sampler.sample(self.encoder(obs), noise).action)

    def begin(self, state: ActingState | None, mask: NDArray[np.bool_], episodes: NDArray[np.int64]) -> ActingState:
        """Clear the rows where mask (N,) is true and give them explicit episode numbers from episodes (N,).

        With these, noise depends on the episode and not on the slot of a vector environment that it runs in.
        Without a state, the state of N environments is started.
        """
        mask = np.asarray(mask, np.bool_)
        state = acting.start(len(mask), self.spaces, self.config, self.seed) if state is None else state
        if mask.shape != (len(state),) or np.shape(episodes) != (len(state),):
            raise InputError(
                f"expected mask and episodes of shape ({len(state)},), got {mask.shape} and "
                f"{np.shape(episodes)}; give one number to every environment of the state"
            )
        return acting.begin(state, mask, np.asarray(episodes, np.int64))

    def predict(
        self,
        observation: NDArray[Any] | Mapping[str, NDArray[Any]],
        state: ActingState | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], ActingState]:
        """The next action of every environment, within the action space, and the state for the next call.

        `observation` is an array or a mapping of arrays, (O,) or batched (N, O); the action is (A,) or (N, A)
        accordingly. Rows where `episode_start` is true start anew. The network runs, as one batch, for the
        rows whose chunk is used up. `deterministic` leaves the noise of the steps out; the start of a chain
        stays random.

        Raises InputError where an observation is missing, of a wrong shape or not finite.
        """
        obs, single = self.spaces.batch(observation)
        count = len(next(iter(obs.values())))
        if state is None:
            state = acting.start(count, self.spaces, self.config, self.seed)
        starts = np.zeros(count, np.bool_) if episode_start is None else np.atleast_1d(episode_start).astype(bool)
        if not isinstance(state, ActingState) or not state.fits(self.spaces, self.config):
            raise InputError(
                f"expected the state that this policy's last predict returned, got {type(state).__name__}"
                f"{' of another policy' if isinstance(state, ActingState) else ''}; start with state=None"
            )
        if len(state) != count or starts.shape != (count,):
            raise InputError(
                f"expected state and episode_start of {count} rows like the observation, got "
                f"{len(state)} and {starts.shape}; pass state=None when the number of environments changes"
            )
        state = acting.observe(state, obs, starts)
        if (rows := state.waiting).size:
            state = acting.enqueue(state, rows, self._decide(state, rows, deterministic))
        action, state = acting.act(state)
        return (action[0] if single else action), state

    def _decide(self, state: ActingState, rows: NDArray[np.int64], deterministic: bool) -> NDArray[np.float32]:
        """The actions (n, Ta, A) to execute next in some rows."""
        draws = len(self.sampler) + 1 if self.sampler.stochastic and not deterministic else 1
        shape = (draws, self.config.horizon, len(self.spaces.action))
        noise = counter_noise(state.seed, state.episode[rows], state.decision[rows], shape)  # (n, draws, H, A)
        with torch.inference_mode():
            windows = {name: torch.as_tensor(past[rows], device=self.device) for name, past in state.history.items()}
            start = torch.as_tensor(noise, device=self.device).transpose(0, 1)
            chunk: NDArray[np.float32] = self.chunk(windows, start if draws > 1 else start[0]).cpu().numpy()
        first = self.config.n_obs_steps - 1
        return chunk[:, first : first + self.config.n_action_steps]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Policy:
        """Load a checkpoint folder, or a repository of the Hugging Face Hub (`snapshot_download`'s options).

        Raises InputError where there is none, or it cannot be used.
        """
        from diffpolicy.policy.checkpoint import load_checkpoint

        folder = Path(pretrained_model_name_or_path)
        if not folder.is_dir():
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
