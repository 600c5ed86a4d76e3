"""Strokes for PushT's planner: ways for the pusher to go round the T, meet it somewhere and push."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.task import Array

__all__ = ["CENTRE", "OUTLINE", "PARTS", "RADIUS", "SIDE", "strokes"]

PARTS = ((0.0, 0.015, 0.060, 0.015), (0.0, 0.075, 0.015, 0.045))  # bar and stem: centre, half sizes [m]
OUTLINE = np.array([[-60, 0], [60, 0], [60, 30], [15, 30], [15, 120], [-15, 120], [-15, 30], [-60, 30]]) / 1000
CENTRE = np.array([0.0, 0.285 / 7])  # of mass, from the T's origin [m]
RADIUS = 0.015  # of the pusher [m]
SIDE = 0.512  # of the frame, within which the pusher stays [m]

_ROUND = 0.112  # radius of the way round the T, about its centre of mass [m]
_SPARE = 0.003  # distance at which the pusher passes the T [m]
TRAVEL, PUSH = 0.25, 0.03  # speeds [m/s] on the way round and of most pushes
_ARC = 12  # points of the way round


def _gap(points: Array) -> Array:
    """Distance (...) from points (..., 2), about the T's centre of mass, to the T [m]."""
    x, y = np.abs(points[..., 0]), points[..., 1] + CENTRE[1]
    apart = [np.hypot(np.maximum(x - hx, 0.0), np.maximum(np.abs(y - cy) - hy, 0.0)) for _, cy, hx, hy in PARTS]
    return np.asarray(np.minimum(*apart))


def _contacts(spacing: float = 0.01) -> tuple[Array, Array]:
    """Points (P, 2) where a pusher can touch the T, about its centre of mass [m], and normals (P, 2) there."""
    points, normals = [], []
    for begin, end in zip(OUTLINE, np.roll(OUTLINE, -1, axis=0), strict=True):
        edge = end - begin
        size = float(np.hypot(*edge))
        shares = (np.arange(round(size / spacing)) + 0.5) / round(size / spacing)
        points.append(begin + shares[:, None] * edge - CENTRE)
        normals.append(np.tile([edge[1] / size, -edge[0] / size], (len(shares), 1)))
    at, normal = np.concatenate(points), np.concatenate(normals)
    free = _gap(at + normal * RADIUS) > RADIUS - 1e-9
    return at[free], normal[free]


_POINTS, _NORMALS = _contacts()


def strokes(pose: Array, pusher: Array, rng: np.random.Generator, count: int, times: Array) -> Array:
    """Where the pusher is at ``times`` (T,) [s] on each of the strokes, (count, T, 2) [m].

    Args:
        pose: x, y of the T's centre of mass [m] and its angle [rad], (3,).
        pusher: where the pusher is, (2,) [m].
        rng: draws which point is met, which way round, and how the pusher pushes there.
        count: number of strokes.
        times: increasing [s].
    """
    cos, sin = np.cos(pose[2]), np.sin(pose[2])
    into = np.array([[cos, sin], [-sin, cos]])  # from the world's axes to the T's
    here = into @ (pusher - pose[:2])
    which = np.resize(rng.permutation(len(_POINTS)), count)
    normal = _NORMALS[which]
    meet = _POINTS[which] + normal * (RADIUS + 0.001)  # (count, 2)
    odd = np.arange(count) % 3 == 2  # two of three go straight
    lean = np.where(odd, rng.uniform(-0.6, 0.6, size=count), 0.0)  # of the push from the normal [rad]
    side = np.where(odd, rng.integers(-1, 2, size=count), 0)
    push = np.where(odd, rng.uniform(0.03, 0.12, size=count), PUSH)
    speed = np.stack([np.full(count, TRAVEL), push], axis=1)  # [m/s]
    far = np.exp(rng.uniform(np.log(0.003), np.log(0.15), size=count))  # [m]
    way = -_turned(normal, lean)
    round_it = _round(here, meet, normal, side)
    path = np.concatenate([round_it, meet[:, None], (meet + way * far[:, None])[:, None]], axis=1)
    return _walked(np.clip(path @ into + pose[:2], RADIUS, SIDE - RADIUS), speed, times)


def _turned(vector: Array, angle: Array) -> Array:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * vector[:, 0] - sin * vector[:, 1], sin * vector[:, 0] + cos * vector[:, 1]], axis=1)


def _round(here: Array, meet: Array, normal: Array, side: npt.NDArray[np.int64]) -> Array:
    """Ways (count, P, 2) from ``here`` (2,) round the T to where a meeting point's normal leaves the circle.

    Points of the way before the last that can be reached in a straight line are left out: put where the pusher is.
    """
    along = (meet * normal).sum(axis=1)
    out = np.sqrt(np.maximum(along**2 + _ROUND**2 - (meet**2).sum(axis=1), 0.0)) - along
    arrive = meet + normal * out[:, None]
    start, end = np.arctan2(here[1], here[0]), np.arctan2(arrive[:, 1], arrive[:, 0])
    turn = np.remainder(end - start, 2 * np.pi)
    left = np.where(np.abs(side) == 1, side > 0, turn < np.pi)
    turn = np.where(left, turn, turn - 2 * np.pi)
    angle = start + turn[:, None] * np.linspace(0.0, 1.0, _ARC)
    arc = _ROUND * np.stack([np.cos(angle), np.sin(angle)], axis=2)  # (count, P, 2)
    goals = np.concatenate([arc, meet[:, None]], axis=1)
    between = here + (goals - here)[:, :, None] * np.linspace(0.0, 1.0, 13)[1:-1, None]  # (count, P + 1, 11, 2)
    now = float(_gap(here))  # it may begin at the T, and end there
    least = np.full(_ARC + 1, min(RADIUS + _SPARE, now - 1e-4))
    least[-1] = min(RADIUS - 0.001, now - 1e-4)
    clear = np.all(_gap(between) >= least[:, None], axis=2)  # (count, P + 1)
    last = np.where(np.any(clear, axis=1), _ARC - clear[:, ::-1].argmax(axis=1), 0)  # index of the last goal in sight
    arc = np.where((np.arange(_ARC) < last[:, None])[:, :, None], here, arc)
    return np.concatenate([np.broadcast_to(here, (len(arc), 1, 2)), arc], axis=1)


def _walked(path: Array, speed: Array, times: Array) -> Array:
    """Where one is at ``times`` on paths (count, P, 2), the last leg at the second of the speeds (count, 2)."""
    legs = np.sqrt((np.diff(path, axis=1) ** 2).sum(axis=2))
    legs[:, :-1] /= speed[:, :1]
    legs[:, -1] /= speed[:, 1]
    clock = np.concatenate([np.zeros((len(path), 1)), np.cumsum(legs, axis=1)], axis=1)
    walked = np.zeros((len(path), len(times), 2))
    for row, (when, where) in enumerate(zip(clock, path, strict=True)):
        walked[row, :, 0], walked[row, :, 1] = np.interp(times, when, where[:, 0]), np.interp(times, when, where[:, 1])
    return walked
