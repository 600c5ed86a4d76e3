"""Where a scripted hand goes next: geometry that experts share, each an array function over simulations."""

from __future__ import annotations

import numpy as np

from diffpolicy_envs.task import Array

__all__ = ["along_funnel", "bounded_step", "length", "wrapped"]


def length(vector: Array) -> Array:
    """Lengths (n,) of vectors (n, d)."""
    return np.asarray(np.sqrt((vector**2).sum(axis=1)))


def wrapped(angle: Array) -> Array:
    """The same angles (n,) within -pi..pi [rad]."""
    return np.asarray(np.remainder(angle + np.pi, 2 * np.pi) - np.pi)


def bounded_step(current: Array, desired: Array, limit: float) -> Array:
    """The point (n, d) on the way from ``current`` to ``desired``, at most ``limit`` [m] ahead."""
    gap = desired - current
    distance = np.sqrt((gap**2).sum(axis=1, keepdims=True))
    return np.asarray(current + gap * np.minimum(1.0, limit / np.maximum(distance, 1e-9)))


def along_funnel(tool: Array, target: Array, height: Array) -> Array:
    """The target (n, 3) at ``height`` (n,) [m], its sideways part held back while the tool is below that height."""
    share = np.clip(1.0 - (height - tool[:, 2]) / 0.03, 0.0, 1.0)[:, None]
    sideways = tool[:, :2] + share * (target[:, :2] - tool[:, :2])
    return np.concatenate([sideways, height[:, None]], axis=1)
