"""Distillation by the difference of two scores: a target that trains a network of its own beside the student.

Shapes: B batch, K steps of the student, H chunk length, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.training.ema import Ema
from diffpolicy.updates.distilling import chains_of
from diffpolicy.updates.targets import Draw, Regressand

__all__ = ["ScoreDifference"]

BAND = (0.02, 0.98)  # where in the denoiser's time the scores are compared


class ScoreDifference:
    """A student's chunk, moved from where its own density is too high to where the teacher's is higher.

    y = a + (D(x_t) - F(x_t)) / mean |a - D(x_t)|, with x_t = alpha_t a + sigma_t eps of the student's chunk a: the
    gradient of the divergence KL(student || teacher), averaged over times (DMD, arXiv 2311.18828, eq. 7 and 8; for
    policies OneDP, arXiv 2410.21257). F denoises the student's chunks: it begins as the teacher D and is trained here.
    Every step of the student's own chain is asked; a is its clean chunk, and each step has an F of its own, since their
    chunks are of different densities.
    """

    def __init__(self, teacher: Policy, steps: int, lr: float = 1e-3) -> None:
        """For a student of `steps` steps; F learns at a rate of `lr`."""
        self.fakes = [teacher.resampled().train() for _ in range(steps)]
        self._parameters = [p for fake in self.fakes for p in fake.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=lr, betas=(0.0, 0.999), fused=True)

    @torch.no_grad()
    def __call__(self, draw: Draw, student: Policy, average: Ema, teacher: Policy | None) -> Regressand:
        """The chunk to regress each step of the student's chains on, and one update of F."""
        del average
        if teacher is None:
            raise InputError("expected a teacher for this target, got none; name its checkpoint")
        chain = chains_of(student).sample(draw.obs, draw.noise).x  # (K + 1, B, H, A)
        times = [t.expand_as(draw.t) for t in student.sampler.times[:-1]]
        chunks = [student.denoiser(x, t, draw.obs) for x, t in zip(chain[:-1], times, strict=True)]
        self._learn(draw, chunks)
        low, high = BAND
        at = (low + (high - low) * draw.t.roll(2)) * teacher.denoiser.t_max
        ys = []
        for chunk, fake in zip(chunks, self.fakes, strict=True):
            x = self._mixed(chunk, at, draw.noise.roll(2, 0))
            real = teacher.denoiser(x, at, draw.obs)
            size = (chunk - real).abs().mean((1, 2), keepdim=True).clamp(min=1e-3)
            ys.append(chunk + (real - fake.denoiser(x, at, draw.obs)) / size)
        ones = torch.ones_like(draw.t).repeat(len(ys))
        return Regressand(chain[:-1].flatten(0, 1), torch.cat(times), None, torch.cat(ys), ones)

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to continue: the tensors are live, not copies."""
        return {"fakes": [fake.state_dict() for fake in self.fakes], "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises KeyError, RuntimeError or ValueError on what is none."""
        for fake, weights in zip(self.fakes, state["fakes"], strict=True):
            fake.load_state_dict(weights)
        self._optimiser.load_state_dict(state["optimiser"])

    def _mixed(self, chunk: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        schedule = self.fakes[0].denoiser.schedule
        return schedule.alpha(t)[:, None, None] * chunk + schedule.sigma(t)[:, None, None] * noise

    @torch.enable_grad()
    def _learn(self, draw: Draw, chunks: list[Tensor]) -> None:
        """One update of each F on its step's chunks; times and noise of other samples are as good as new ones."""
        t, loss = draw.t.roll(1), torch.zeros((), device=draw.t.device)
        for chunk, fake in zip(chunks, self.fakes, strict=True):
            said: Tensor = fake.denoiser(self._mixed(chunk, t, draw.noise.roll(1, 0)), t, draw.obs)
            loss = loss + (fake.denoiser.weight(t)[:, None, None] * (said - chunk) ** 2).mean()
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
