"""The regression of a policy on chunks: one update, towards any target, or towards the likelihood of a density.

Shapes: B batch, To observation steps, H chunk length, A action, O observation, C features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from diffpolicy.data.batch import Demo, hold
from diffpolicy.diffusion.mixture import MixtureHead
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.training.compiling import compiled
from diffpolicy.training.ema import Ema
from diffpolicy.training.fit import Metrics, taken_up
from diffpolicy.updates import RegressionConfig, require_trainable
from diffpolicy.updates.intervals import mean_flow, shortcut
from diffpolicy.updates.targets import Draw, Regressand, Target, denoising, direct, two_steps

__all__ = ["TARGETS", "Draw", "Learning", "Regressand", "Regression", "Target", "cosine_rate", "denoising"]


LOG_MEAN, LOG_STD = -1.2, 1.2  # of log(sigma / alpha) in lognormal times (arXiv:2206.00364, table 1)
TARGETS: dict[str, Target] = {  # by the policy's model
    "diffusion": denoising,
    "regression": direct,
    "mip": two_steps,
    "shortcut": shortcut,
    "mean_flow": mean_flow,
}
KEYS_AT_ONCE = 256  # keys made at a time: one alone, in the middle of training, takes ten times as long


def cosine_rate(step: int, steps: int, lr: float, warmup: int) -> float:
    """The learning rate of an update: a linear rise over `warmup` updates, then half a cosine to 0 at `steps`.

    Source: Loshchilov and Hutter (2017), arXiv 1608.03983, eq. 5, without restarts.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(steps - warmup, 1)
    return lr * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


@runtime_checkable
class Learning(Protocol):
    """A target that learns something beside the student, which a later run needs to continue."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class Regression:
    """Trains a policy, encoder included, on demonstrations; `averaged()` is the policy to use.

    `steps` is the whole length of training, which the learning rate falls over. Times and noise are a function of
    (seed, step) alone, so that a run resumed by `load_state_dict` continues bit for bit on the same machine.
    """

    def __init__(
        self,
        policy: Policy,
        steps: int,
        config: RegressionConfig | None = None,
        *,
        seed: int = 0,
        target: Target | None = None,
        teacher: Policy | None = None,
    ) -> None:
        """Trains `policy` in place, towards its model's own target by default.

        Raises InputError where steps < 1, no time is left to train, the settings are not of the policy's model, or
        nothing can be compiled that was to be.
        """
        self.config = config or RegressionConfig()
        require_trainable(policy.config, self.config, told=target is not None)
        self._head = policy.sampler if isinstance(policy.sampler, MixtureHead) else None
        self._t_max = 1.0 if self._head else policy.denoiser.t_max
        if steps < 1 or self.config.t_min >= self._t_max:
            raise InputError(
                f"expected steps >= 1 and t_min < {self._t_max}, got {steps} and {self.config.t_min}; correct them"
            )
        self.policy, self.steps, self.seed = policy.train(), steps, seed
        target = target or TARGETS.get(policy.config.model, denoising)
        self.target = partial(denoising, weights=self.config.weights) if target is denoising else target
        self.teacher = teacher
        self.step = 0
        self.ema = Ema(policy, self.config.ema_decay)
        self._parameters: list[Tensor] = [p for p in policy.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(
            self._parameters,
            lr=self.config.lr,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self._device, self._generator = policy.device, torch.Generator(policy.device)
        self._wanted = (policy.config.horizon, len(policy.spaces.action))
        if self._head is None:
            self._clean: Callable[..., Tensor] = policy.denoiser
            if self.config.compile:
                self._clean = compiled(policy.denoiser.forward, self._device)

    def __call__(self, batch: Demo) -> Metrics:
        """One update: the loss is the mean of weight (clean - y)^2 over the real entries of the chunks.

        With l1 it is that of sqrt(weight) |clean - y|, and where the policy is a density, of its -log.

        Raises InputError where the batch does not fit the policy, and FloatingPointError, with the weights as
        they were before, where loss or gradient is not finite.
        """
        for parameter in self._parameters:
            parameter.grad = None
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        loss_value, norm_value = torch.stack([loss.detach(), norm]).tolist()  # the only wait for the device
        if not math.isfinite(loss_value) or not math.isfinite(norm_value):
            raise FloatingPointError(
                f"at step {self.step} the loss is {loss_value} and the gradient's norm {norm_value}; resume from "
                "the last checkpoint with a lower learning rate, and check the data for NaN or huge values"
            )
        if norm_value > self.config.clip:
            clip_grads_with_norm_(self._parameters, self.config.clip, norm)
        rate = cosine_rate(self.step, self.steps, self.config.lr, self.config.warmup)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()
        self.ema.update(self.step)
        self.step += 1
        return {"loss": loss_value, "lr": rate, "grad_norm": norm_value}

    def averaged(self) -> Policy:
        """A copy of the policy with the averaged weights, ready to act."""
        policy = self.policy.resampled()
        self.ema.copy_to(policy)
        return policy.eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to continue: the tensors are live, not copies."""
        return {
            "step": self.step,
            "policy": self.policy.state_dict(),
            "ema": self.ema.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            **({"target": self.target.state_dict()} if isinstance(self.target, Learning) else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises InputError where it is of another policy."""
        with taken_up("policy"):
            self.ema.load_state_dict(state["ema"])
            self.policy.load_state_dict(state["policy"])
            self._optimiser.load_state_dict(state["optimiser"])
            if isinstance(self.target, Learning):
                self.target.load_state_dict(state["target"])
            self.step = int(state["step"])

    def loss(self, batch: Demo) -> Tensor:
        """The loss () of a batch under the times and noise of the present step; it changes nothing."""
        batch = batch.to(self._device)
        self._require_shapes(batch)
        obs = self.policy.encoder(batch.obs)  # (B, C)
        chunk = batch.chunk if batch.held else hold(batch.chunk, batch.mask)
        chunk = self.policy.normaliser.normalise_action(chunk)
        if self._head is None:
            errors = self._errors(obs, chunk, batch)
        else:
            errors = -self._head.components(obs).objective(chunk, batch.mask)  # (B,)
        return errors.sum() / (batch.mask.sum() * chunk.shape[-1]).clamp(min=1)

    def _errors(self, obs: Tensor, chunk: Tensor, batch: Demo) -> Tensor:
        """Weighted errors (B, H, A) of the denoiser, 0 where the batch's mask (B, H) is."""
        draw = self._draw(obs, chunk)
        if batch.chain is not None:
            draw = draw._replace(chain=batch.chain)
        asked = self.target(draw, self.policy, self.ema, self.teacher)
        obs, weight, mask = draw.obs, asked.weight, batch.mask
        if (times := len(weight) // len(chunk)) > 1:
            obs, mask = obs.repeat(times, 1), mask.repeat(times, 1)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            clean = self._clean(asked.x, asked.t, obs, asked.s)
        loss, weight = (mse_loss, weight) if self.config.loss == "l2" else (l1_loss, weight.sqrt())
        share = mask * weight[:, None]  # (B, H)
        return loss(clean, asked.y, reduction="none") * share[:, :, None]

    def _draw(self, obs: Tensor, chunk: Tensor) -> Draw:
        random, low, high = self._generator, self.config.t_min, self._t_max
        random.manual_seed(_keys(self.seed, self.step // KEYS_AT_ONCE)[self.step % KEYS_AT_ONCE])
        if self.config.times == "uniform":
            t = low + (high - low) * torch.rand(len(chunk), generator=random, device=chunk.device)
        else:
            ratio = (LOG_MEAN + LOG_STD * torch.randn(len(chunk), generator=random, device=chunk.device)).exp()
            t = self.policy.denoiser.schedule.time(ratio).clamp(low, high)
        noise = torch.randn(chunk.shape, generator=random, device=chunk.device)
        if share := self.policy.config.condition_dropout:
            dropped = torch.rand(len(chunk), generator=random, device=chunk.device) < share
            obs = self.policy.denoiser.without(obs, dropped)
        return Draw(obs, chunk, t, noise)

    def _require_shapes(self, batch: Demo) -> None:
        (horizon, width), size = self._wanted, len(batch.chunk)
        good = size > 0 and batch.chunk.shape == (size, horizon, width) and batch.mask.shape == (size, horizon)
        if not good or any(len(rows) != size for rows in batch.obs.values()):
            raise InputError(
                f"expected a batch of chunks (B, {horizon}, {width}), masks (B, {horizon}) and B rows of every "
                f"observation, got {tuple(batch.chunk.shape)}, {tuple(batch.mask.shape)} and "
                f"{[len(rows) for rows in batch.obs.values()]} rows; use the policy's n_obs_steps and horizon"
            )


@lru_cache(maxsize=4)
def _keys(seed: int, block: int) -> list[int]:
    """Seeds of the generators of the updates KEYS_AT_ONCE * block, ...: functions of (seed, step) alone."""
    steps = range(KEYS_AT_ONCE * block, KEYS_AT_ONCE * (block + 1))
    return [int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1) for step in steps]
