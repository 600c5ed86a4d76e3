"""How much of one shape lies within another: exact areas of overlapping rectangles, for many simulations at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffpolicy_envs.task import Array

__all__ = ["Rectangle", "covered"]

Rectangle = tuple[float, float, float, float]
"""Centre x, y and half sizes x, y [m]."""


def covered(shape: Sequence[Rectangle], shift: Array, turn: Array) -> Array:
    """Share (n,) of a shape that its moved copy covers, exact up to rounding.

    Both are one union of rectangles that do not overlap; the copy is turned by ``turn`` (n,) [rad] about the
    shape's origin and then moved by ``shift`` (n, 2) [m]. The area of a polygon within an upright rectangle is
    the sum over its edges of the integral of y dx, with x and y held within the rectangle (Green's theorem):
    along an edge that integrand is linear between the edge's four crossings of the rectangle's lines.
    """
    parts = np.array(shape)  # (R, 4)
    cx, cy, hx, hy = parts.T[:, :, None]  # (R, 1) each
    x, y = cx + hx * np.array([-1.0, 1.0, 1.0, -1.0]), cy + hy * np.array([-1.0, -1.0, 1.0, 1.0])  # (R, 4) corners
    cos, sin = np.cos(turn)[:, None, None], np.sin(turn)[:, None, None]
    px = (shift[:, 0, None, None] + cos * x - sin * y)[:, None]  # (n, 1, R, 4)
    py = (shift[:, 1, None, None] + sin * x + cos * y)[:, None]
    dx, dy = (np.concatenate([p[..., 1:], p[..., :1]], axis=-1) - p for p in (px, py))
    low_x, high_x, low_y, high_y = (v[:, :, None] for v in (cx - hx, cx + hx, cy - hy, cy + hy))  # (R, 1, 1)
    begin, end = _between(px, dx, low_x, high_x, 0.0, 1.0)  # the edge's part within the rectangle's columns
    first, last = _between(py, dy, low_y, high_y, begin, end)  # and of that the part within its rows
    at = np.stack([begin, first, last, end])  # (4, n, R, R, 4) shares of the edge
    height = np.minimum(np.maximum(py + at * dy, low_y), high_y)
    pieces = (at[1:] - at[:-1]) * (height[1:] + height[:-1])  # (3, n, R, R, 4)
    signed = -0.5 * (pieces[0] + pieces[1] + pieces[2]) * dx  # an upper edge runs to the left
    area = 4.0 * (parts[:, 2] * parts[:, 3]).sum()
    return np.asarray(np.ascontiguousarray(signed).reshape(len(turn), -1).sum(axis=1) / area)


def _between(
    start: Array, step: Array, low: Array, high: Array, begin: Array | float, end: Array | float
) -> tuple[Array, Array]:
    """Shares of the way ``start + share * step``, within ``begin`` to ``end``, from which and to which it is between.

    Where it does not move, any share will do: what is integrated is constant, or covers no ground.
    """
    safe = np.where(step == 0.0, 1.0, step)
    one, other = (low - start) / safe, (high - start) / safe
    return (
        np.minimum(np.maximum(np.minimum(one, other), begin), end),
        np.minimum(np.maximum(np.maximum(one, other), begin), end),
    )
