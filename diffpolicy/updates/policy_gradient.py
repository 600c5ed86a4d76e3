"""The policy gradient over the denoising chain: PPO's clipped surrogate, where each step of the chain is an action.

Shapes: B batch, K steps, To observation steps, C joined observation, H chunk length, A action.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy.data.batch import Demo, hold
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.training.fit import Metrics, taken_up
from diffpolicy.updates import PolicyGradientConfig
from diffpolicy.updates.critic import Critic
from diffpolicy.updates.distilling import chains_of

__all__ = ["Played", "PolicyGradient"]

_OFF = 1.01  # a first ratio that is off, and not by rounding


@dataclass(frozen=True, eq=False)
class Played:
    """Chains that were drawn, and how good they turned out to be."""

    obs: Tensor  # (B, To, C), joined and raw
    x: Tensor  # (K+1, B, H, A), noise first
    logp: Tensor  # (K, B, H, A), element by element, when they were drawn
    advantage: Tensor  # (K, B)
    returns: Tensor | None  # (B,), for the critic; None: it has nothing to learn here
    mask: Tensor  # (H,), 1 where an action of the chunk counts
    told: Mapping[str, float] = field(default_factory=dict)  # what to report of them


class PolicyGradient:
    """PPO-clip over steps of the chain (arXiv 1707.06347, eq. 7; DDPO, arXiv 2305.13301; DPPO, arXiv 2409.00588).

    A ratio is that of the mean log-probabilities over the n elements that count (DDPO's convention), and clipped to
    1 +- clip / n, so that `clip` is the change of a whole chunk's log-probability [nats], whatever its size. It is
    exactly 1 before the first step of a batch, which `ratio_first` says. A step of the chain counts by
    its deviation, over the mean one: the gradient of its log-probability goes with the inverse (ReDiF's code, as
    `step_weighting=sigma`), so that late and quiet steps do not eat the update.
    """

    def __init__(
        self,
        student: Policy,
        steps: int,
        config: PolicyGradientConfig | None = None,
        critic: Critic | None = None,
        demos: Callable[[int], Demo] | None = None,
        seed: int = 0,
    ) -> None:
        """Trains the student in place for so many batches, and the critic where there is one.

        `demos` gives demonstrations to stay near, by the number of the optimiser's step. Raises InputError where the
        student draws no chain, has fewer steps than shall be trained, or there are no demonstrations to stay near.
        """
        self.config = config or PolicyGradientConfig()
        self.student, self.steps, self.critic, self.seed, self._demos = student.eval(), steps, critic, seed, demos
        self.sampler = Exploring(chains_of(student), self.config.explore)
        whole = len(self.sampler)
        last = whole if self.config.last_steps is None else self.config.last_steps
        if not 1 <= last <= whole:
            raise InputError(f"expected last_steps from 1 to the student's {whole}, got {last}; correct it")
        if self.config.demos and demos is None:
            raise InputError("expected demonstrations to stay near, got none; leave PolicyGradientConfig.demos at 0")
        self.trained = range(whole - last, whole)
        self.first = student.resampled().requires_grad_(False).eval()
        self._parameters = [p for p in student.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=self.config.lr, weight_decay=0.0, fused=True)
        self.step = self._taken = 0  # batches; steps of the optimiser

    def __call__(self, batches: Sequence[Played]) -> Metrics:
        """Some passes over the batches, the critic first; in the first few the critic alone learns.

        Raises FloatingPointError where a gradient is not finite, with the weights as the last minibatch left them, or
        where what was drawn is not what is scored.
        """
        found = _Means()
        for batch in batches:
            found.add(**batch.told)
            if self.critic is not None and batch.returns is not None:
                found.add(**self.critic.learn(self.critic.features(batch.obs, batch.x[0]), batch.returns))
        if self.critic is None or self.critic.ready:
            self._pass(batches, found)
        self.step += 1
        return found.means()

    def _pass(self, batches: Sequence[Played], found: _Means) -> None:
        """Passes over all batches until they are enough, or the student has gone far enough from who drew them."""
        masks = torch.stack([batch.mask for batch in batches])[:, :, None]  # (parts, H, 1)
        part = torch.cat([torch.full((len(batch.obs),), i) for i, batch in enumerate(batches)])
        whole = Played(
            torch.cat([batch.obs for batch in batches]),
            torch.cat([batch.x for batch in batches], 1),
            torch.cat([batch.logp for batch in batches], 1),
            torch.cat([batch.advantage for batch in batches], 1),
            None,
            masks[part],
        )
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        passes = 0
        for _ in range(self.config.epochs):
            kls: list[float] = []
            for rows in torch.split(torch.randperm(len(part), generator=random), self.config.minibatch):
                told = self._learn(whole, rows, first=not kls and not passes)
                kls.append(told["kl"])
                found.add(**told)
            passes += 1
            if self.config.target_kl is not None and sum(kls) / len(kls) > self.config.target_kl:
                break
        found.add(passes=passes)

    def _learn(self, batch: Played, rows: Tensor, first: bool) -> dict[str, float]:
        config, mask = self.config, batch.mask[rows]  # (b, H, 1)
        elements = mask.sum((1, 2)) * batch.x.shape[-1]  # (b,)
        most = config.clip / elements
        features = self.student.encoder(batch.obs[rows])
        loss = torch.zeros((), device=features.device)
        stds = torch.stack([self.sampler.step(batch.x[k, :1], k, features[:1]).std for k in self.trained]).detach()
        logs, drifts = [], []
        for k, weight in zip(self.trained, stds / stds.mean(), strict=True):
            gaussian = self.sampler.step(batch.x[k, rows], k, features)
            logp = gaussian.log_prob(batch.x[k + 1, rows])
            log_ratio = ((logp - batch.logp[k, rows]) * mask).sum((1, 2)) / elements  # (b,)
            ratio, gain = log_ratio.exp(), batch.advantage[k, rows]
            clipped = torch.minimum(torch.maximum(ratio, 1 - most), 1 + most)
            loss = loss - weight * torch.minimum(ratio * gain, clipped * gain).mean()
            logs.append(log_ratio.detach())
            if config.anchor or first:
                with torch.no_grad():
                    there = chains_of(self.first).step(batch.x[k, rows], k, features)[0].mean
                drifts.append((((gaussian.mean - there).square() * mask).sum((1, 2)) / elements).mean())
        # a mean over elements makes gradients smaller than the surrogate's of whole chunks: this makes up for it
        loss = loss * float(elements.mean()) / len(self.trained)
        if config.anchor:
            loss = loss + config.anchor * torch.stack(drifts).mean()
        if config.demos and self._demos is not None:
            loss = loss + config.demos * self._apart(self._demos(self._taken))
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, config.grad_clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"at batch {self.step} the gradient's norm is {norm}; lower the learning rate")
        self._optimiser.step()
        self._taken += 1
        apart = torch.stack(logs)  # (trained, b)
        told = {
            "grad_norm": norm,
            "clipped": float(((apart.exp() - 1).abs() > most).float().mean()),
            "kl": float(0.5 * (apart * elements).square().mean()),
        }
        if first:
            told["ratio_first"] = 1.0 + float((apart.exp() - 1).abs().max())
            if not told["ratio_first"] < _OFF:
                raise FloatingPointError(
                    f"before the first step of batch {self.step} a ratio is {told['ratio_first'] - 1:.3g} from 1: "
                    f"densities of a deviation of {config.explore} are too narrow for single precision; raise explore"
                )
            told["drift"] = float(torch.stack(drifts).detach().mean())
        return told

    def _apart(self, batch: Demo) -> Tensor:
        """Mean squared distance () of what the student says from demonstrations, noised to one time of its grid."""
        student, schedule = self.student, self.student.denoiser.schedule
        batch = batch.to(student.device)
        chunk = student.normaliser.normalise_action(batch.chunk if batch.held else hold(batch.chunk, batch.mask))
        k = self.trained[self._taken % len(self.trained)]
        t = chains_of(student).grid()[k].expand(len(chunk))
        random = torch.Generator().manual_seed(self.seed * 1_000_003 + self._taken)
        noise = torch.randn(chunk.shape, generator=random).to(chunk)
        x = schedule.alpha(t)[:, None, None] * chunk + schedule.sigma(t)[:, None, None] * noise
        said: Tensor = student.denoiser(x, t, student.encoder(batch.obs))
        share = batch.mask[:, :, None]
        return ((said - chunk).square() * share).sum() / (share.sum() * chunk.shape[-1]).clamp(min=1)

    def averaged(self) -> Policy:
        """A copy of the student, ready to act: these weights are no average."""
        return self.student.resampled().eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to continue: the tensors are live, not copies."""
        return {
            "step": self.step,
            "taken": self._taken,
            "student": self.student.state_dict(),
            "first": self.first.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            **({} if self.critic is None else {"critic": self.critic.state_dict()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises InputError where it is of another student."""
        with taken_up("student"):
            self.student.load_state_dict(state["student"])
            self.first.load_state_dict(state["first"])
            self._optimiser.load_state_dict(state["optimiser"])
            if self.critic is not None:
                self.critic.load_state_dict(state["critic"])
            self.step, self._taken = int(state["step"]), int(state["taken"])


class _Means:
    """Means of what was measured, by name."""

    def __init__(self) -> None:
        self._all: dict[str, list[float]] = {}

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self._all.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        return {name: sum(values) / len(values) for name, values in self._all.items()}
