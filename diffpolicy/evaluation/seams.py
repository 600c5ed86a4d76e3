"""How roughly one chunk of actions is followed by the next."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy.errors import InputError

__all__ = ["seam_jerk"]


def seam_jerk(
    actions: npt.ArrayLike,  # (T, A), as executed
    n_action_steps: int,
    low: npt.ArrayLike,  # (A,)
    high: npt.ArrayLike,  # (A,)
    latency: int = 0,
) -> float | None:
    """Jerk of the executed actions where chunks meet, in half-ranges of the action space per control step cubed.

    A seam is a moment n_action_steps, 2 n_action_steps, ..., each `latency` [control steps] later, at which a new
    chunk begins; an actor that decides every step (n_action_steps = 1) has one before each action but the first.
    The jerk is the mean, over all windows of four consecutive actions that straddle a seam, each window once, of

        || (a[t+3] - 3 a[t+2] + 3 a[t+1] - a[t]) / half-range ||_2.

    None where there is no such window: an episode of fewer than four actions, or without a seam. A dimension
    without finite bounds, or with equal ones, is taken in units of its own.

    Raises:
        InputError: actions or bounds of another shape, or n_action_steps < 1.
    """
    played = np.asarray(actions, np.float64)
    lows, highs = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if played.ndim != 2 or lows.shape != highs.shape or lows.shape != played.shape[1:] or n_action_steps < 1:
        raise InputError(
            f"expected actions (T, A), bounds (A,) and n_action_steps >= 1, got {played.shape}, {lows.shape}, "
            f"{highs.shape} and {n_action_steps}"
        )
    with np.errstate(invalid="ignore", over="ignore"):
        half = (highs - lows) / 2
    half = np.where(np.isfinite(half) & (half > 0), half, 1.0)
    jerk = np.linalg.norm(np.diff(played, n=3, axis=0) / half, axis=1)  # (T - 3,)
    chunk = np.maximum((np.arange(len(played)) - latency) // n_action_steps, 0)  # that each action is of
    straddles = chunk[3:] > chunk[:-3]
    return float(jerk[straddles].mean()) if straddles.any() else None
