"""What a chunk is worth by itself, without playing it: small functions, to be weighted freely.

Shapes: B chunks, M samples, H chunk length, A action; actions are normalised, in [-1, 1] over the action's range.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["agreement", "energy_distance", "excess", "likeness", "prefix", "roughness"]


def prefix(horizon: int, first: int, count: int, rest: float = 0.0) -> Tensor:
    """Weights (H,): 1 for the `count` actions of a chunk that are executed, from `first` on, `rest` for the others."""
    weight = torch.full((horizon,), rest)
    weight[first : first + count] = 1.0
    return weight


def agreement(chunk: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Minus the weighted mean squared distance (B,) of chunks (B, H, A) from the teacher's of the same noise.

    The paired reward of ReDiF (arXiv 2512.22802): 0 at best.
    """
    share = weight[:, None].expand_as(chunk)
    return -((chunk - teacher).square() * share).sum((1, 2)) / share[0].sum()


def likeness(chunk: Tensor, ours: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """How much each chunk (B, H, A) lessens the energy distance between student and teacher, (B,).

        r = mean_j |a - ours_j| - mean_j |a - teacher_j|

    with `ours` (B, M, H, A) other chunks of the student and `teacher` (B, M', H, A) of the teacher, all of noises of
    their own. What a chunk gains by moving is half of what `energy_distance` loses, whose estimate leaves a chunk's
    distance from itself out; the mean reward itself is no measure of it. A student that gives up one of the teacher's
    modes loses by the first term.
    """
    return _far(chunk[:, None], ours, weight).mean((1, 2)) - _far(chunk[:, None], teacher, weight).mean((1, 2))


def energy_distance(ours: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """2 E|S - T| - E|S - S'| - E|T - T'| (B,) of samples (B, M, H, A) and (B, M', H, A): 0 where they are alike.

    S and S' are the student's, T and T' the teacher's; distances of a chunk from itself are left out (Szekely and
    Rizzo, 2013, eq. 2.1, without its bias), so that an estimate may lie below 0.
    """

    def within(x: Tensor) -> Tensor:
        return _far(x, x, weight).sum((1, 2)) / (x.shape[1] * (x.shape[1] - 1))

    return 2 * _far(ours, teacher, weight).mean((1, 2)) - within(ours) - within(teacher)


def _far(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Weighted distances (B, M, M') between chunks (B, M, H, A) and (B, M', H, A)."""
    apart = (a[:, :, None] - b[:, None]) * weight.sqrt()[:, None]
    away: Tensor = torch.linalg.vector_norm(apart, dim=(3, 4))
    return away


def roughness(actions: Tensor) -> Tensor:
    """Mean squared second difference (B,) of consecutive actions (B, T, A), whichever chunks they are of; T >= 3."""
    return (actions[:, 2:] - 2 * actions[:, 1:-1] + actions[:, :-2]).square().mean((1, 2))


def excess(actions: Tensor) -> Tensor:
    """Mean squared distance (B,) by which actions (B, T, A) leave [-1, 1], where they are cut off."""
    return (actions.abs() - 1).clamp(min=0).square().mean((1, 2))
