"""What an observation is worth: a critic that is fitted to the returns of the last few batches.

Shapes: B decisions, To observation steps, C features, H chunk length, A action.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy.policy.policy import Policy
from diffpolicy.updates import PolicyGradientConfig

__all__ = ["Critic"]

_MINIBATCH = 256
_KEPT = 3  # batches that it is fitted to, the newest last


class Critic:
    """A network of two hidden layers on a policy's features; layer norms keep it calm while its targets move."""

    def __init__(self, student: Policy, config: PolicyGradientConfig | None = None, seed: int = 0) -> None:
        """A critic of a student, which it asks for features, and for its chunks where it sees them."""
        self.config = config or PolicyGradientConfig()
        self.seed, self._student = seed, student
        seen = student.config.horizon * student.action_size if self.config.critic_chunk else 0
        features = student.encoder.features + seen
        width = self.config.critic_width
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                nn.Linear(features, width), nn.LayerNorm(width), nn.SiLU(),
                nn.Linear(width, width), nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, 1),
            )  # fmt: skip
        self._optimiser = torch.optim.AdamW(self.network.parameters(), lr=self.config.critic_lr, weight_decay=1e-3)
        self._kept: list[tuple[Tensor, Tensor]] = []
        self.step = 0

    @property
    def ready(self) -> bool:
        """Whether it has learned long enough to judge by."""
        return self.step > self.config.critic_warmup

    @torch.no_grad()
    def features(self, obs: Tensor, start: Tensor) -> Tensor:
        """What it sees (B, C) of raw obs (B, To, O) and the noise (B, H, A) at which their chains start.

        The observation, and with `critic_chunk` the chunk to which the student's chain leads from there without
        exploration. That is part of the state (x_0, o) in which a chain begins, and no function of what is tried out.
        """
        features: Tensor = self._student.encoder(obs)
        if not self.config.critic_chunk:
            return features
        return torch.cat([features, self._student.sampler.draw(features, start).flatten(1)], dim=1)

    @torch.no_grad()
    def __call__(self, features: Tensor) -> Tensor:
        """Values (B,) of features (B, C)."""
        value: Tensor = self.network(features)[:, 0]
        return value

    def learn(self, features: Tensor, returns: Tensor) -> dict[str, float]:
        """Fit to returns (B,) and those of the batches before; says how much of the new ones it had explained.

        Raises FloatingPointError where it diverges.
        """
        spread = returns.var(correction=0).clamp(min=1e-12)
        told = {"explained": float(1 - (returns - self(features)).var(correction=0) / spread)}
        self._kept = [*self._kept, (features, returns)][-_KEPT:]
        features, returns = (torch.cat(column) for column in zip(*self._kept, strict=True))
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        loss = torch.zeros(())
        passes = self.config.critic_epochs * (1 if self.ready else 3)
        for _ in range(passes):
            for rows in torch.split(torch.randperm(len(returns), generator=random), _MINIBATCH):
                loss = (self.network(features[rows])[:, 0] - returns[rows]).square().mean()
                self._optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
                self._optimiser.step()
        if not math.isfinite(float(loss.detach())):
            raise FloatingPointError(f"the critic's loss is {float(loss.detach())}; lower critic_lr")
        self.step += 1
        return told

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to continue: the tensors are live, not copies."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "kept": list(self._kept),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises KeyError, RuntimeError or ValueError on what is none."""
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._kept = [(features, returns) for features, returns in state["kept"]]
        self.step = int(state["step"])
