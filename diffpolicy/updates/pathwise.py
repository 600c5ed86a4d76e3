"""The gradient of a reward through the whole chain, where the reward has one: what the policy gradient is held against.

Shapes: N observations, To observation steps, C joined observation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diffpolicy.policy.policy import Policy
from diffpolicy.training.fit import Metrics, taken_up
from diffpolicy.updates.judged import Judge, Observed

__all__ = ["Pathwise"]

_JUDGED_EVERY = 100  # updates


class Pathwise:
    """Climbs the mean reward of noiseless chains by back-propagation (DRaFT, arXiv 2309.17400, without truncation)."""

    def __init__(
        self, student: Policy, steps: int, judge: Judge, observed: Observed, lr: float, grad_clip: float = 1.0
    ) -> None:
        """Trains the student in place for so many updates; raises InputError where no reward looks at chunks."""
        judge.require_needed()
        self.student, self.steps, self.step = student.eval(), steps, 0
        self._judge, self._observed, self._clip = judge, observed, grad_clip
        self._parameters = [p for p in student.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=lr, weight_decay=0.0, fused=True)

    def __call__(self, batch: tuple[Tensor, torch.Generator]) -> Metrics:
        """One update on observations (N, To, C); raises FloatingPointError where the gradient is not finite."""
        told = {}
        if (self.step + 1) % _JUDGED_EVERY == 0 or self.step + 1 == self.steps:
            with torch.no_grad():
                told["held_out"] = float(self._judge.worth(self._observed.held, self._observed.fixed()))
        worth = self._judge.worth(*batch)
        for parameter in self._parameters:
            parameter.grad = None
        (-worth).backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self._parameters, self._clip))
        if not math.isfinite(norm):
            raise FloatingPointError(f"at batch {self.step} the gradient's norm is {norm}; lower the learning rate")
        self._optimiser.step()
        self.step += 1
        return {**told, "reward": float(worth.detach()), "grad_norm": norm}

    def averaged(self) -> Policy:
        """A copy of the student, ready to act: these weights are no average."""
        return self.student.resampled().eval()

    def state_dict(self) -> dict[str, Any]:
        """All that a later run needs to continue: the tensors are live, not copies."""
        return {"step": self.step, "student": self.student.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises InputError where it is of another student."""
        with taken_up("student"):
            self.student.load_state_dict(state["student"])
            self._optimiser.load_state_dict(state["optimiser"])
            self.step = int(state["step"])
