"""How near a student's chunks lie to its teacher's, on given observations.

Shapes: B observations, M samples, H chunk length, A action.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from diffpolicy.diffusion.mixture import MixtureHead
from diffpolicy.policy.models import FRAMES
from diffpolicy.policy.policy import Policy
from diffpolicy.updates.distilling import aligned, noiseless
from diffpolicy.updates.rewards import energy_distance, prefix

__all__ = ["Agreement", "agreement", "asked"]

_AT_ONCE = 64  # observations


@dataclass(frozen=True)
class Agreement:
    """How far apart two policies are on some observations [half range of the action]."""

    states: str  # where the observations come from
    observations: int
    executed: (
        float | None
    )  # root mean square over the executed actions, from the same noise; None: it has no such noise
    chunk: float | None  # and over whole chunks
    energy: float  # energy distance of executed actions, of noises of their own: 0 where they are spread alike

    def row(self) -> dict[str, str | int | float | None]:
        """As plain values."""
        return dict(vars(self))


def asked(teacher: Policy, student: Policy, steps: int) -> Policy:
    """The teacher as a student is compared with it: noiseless, in at least so many steps, with the student's times.

    Raises InputError where it draws no chain.
    """
    if student.config.model == "student":
        return aligned(teacher, student, steps).eval()
    return noiseless(teacher, steps).eval()


@torch.no_grad()
def agreement(
    student: Policy, teacher: Policy, obs: Mapping[str, Tensor], states: str, samples: int = 16, seed: int = 0
) -> Agreement:
    """Compare `samples` M chunks of each for raw observation windows (B, To, O), the teacher `asked` as it stands.

    Distances are Euclidean over the executed actions, divided by the root of how many numbers these are, so that the
    energy distance is in an action's units as the root mean square is.
    """
    random = torch.Generator().manual_seed(seed)
    config = student.config
    first, count = config.n_obs_steps - 1, config.n_action_steps
    weight = prefix(config.horizon, first, count) / (count * student.action_size)
    draws = student._draws(False)
    squares, apart = [], []
    for ours, theirs in zip(*(each.encoder(obs).split(_AT_ONCE) for each in (student, teacher)), strict=True):
        shape = (len(ours) * samples, config.horizon, student.action_size)
        noise, other = torch.randn((draws, *shape), generator=random), torch.randn(shape, generator=random)
        chunk = student.sampler.draw(ours.repeat_interleave(samples, 0), noise if draws > 1 else noise[0])
        paired, apiece = (teacher.sampler.draw(theirs.repeat_interleave(samples, 0), x) for x in (noise[0], other))
        squares.append((chunk - paired).square())
        drawn, taught = (x.reshape(len(ours), samples, *x.shape[1:]) for x in (chunk, apiece))
        apart.append(energy_distance(drawn, taught, weight))
    square, same = torch.cat(squares), _noisy(student)
    return Agreement(
        states,
        len(square) // samples,
        float(square[:, first : first + count].mean().sqrt()) if same else None,
        float(square.mean().sqrt()) if same else None,
        float(torch.cat(apart).mean()),
    )


def _noisy(policy: Policy) -> bool:
    """Whether it turns the noise that it begins with, and no other, into a chunk."""
    if isinstance(policy.sampler, MixtureHead):
        return False
    frame = FRAMES.get(policy.config.model)
    return (frame is None or frame.chains) and not policy.sampler.stochastic and policy.config.sampler.temperature != 0
