"""What befalls an episode: its disturbance, drawn at its reset, and the shove and slip where they are due."""

from __future__ import annotations

import numpy as np

from diffpolicy_envs.condition import Condition, draw_disturbance
from diffpolicy_envs.rows import (
    QUIET,
    SEIZED,
    SEIZED_LEFT,
    SHOVE_ANGLE,
    SHOVE_SPEED,
    SHOVE_STEP,
    SLIP_HEIGHT,
    STEP,
    UNREACHED,
)
from diffpolicy_envs.task import Array, Ids, Task

__all__ = ["befall", "disturb"]


def disturb(task: Task, condition: Condition, episode: Array, ids: Ids, rngs: list[np.random.Generator]) -> None:
    """Draw what ``ids`` will suffer into the episodes' variables (N, 9); vary their masses and frictions."""
    drawn = [draw_disturbance(condition, rng) for rng in rngs]
    rows = episode[ids]
    rows[:, [STEP, SEIZED_LEFT, QUIET]] = 0
    rows[:, [SHOVE_STEP, SHOVE_ANGLE, SHOVE_SPEED, SLIP_HEIGHT]] = [
        (d.shove_step, d.shove_angle, d.shove_speed, min(d.slip_height, UNREACHED)) for d in drawn
    ]
    episode[ids] = rows
    task.vary(ids, np.array([d.mass_scale for d in drawn]), np.array([d.friction_scale for d in drawn]))


def befall(task: Task, condition: Condition, episode: Array, ids: Ids, command: Array) -> Array:
    """Shove and slip where they are due; what is commanded (n, A) instead in the steps after them."""
    if condition.shove_speed is not None:
        due = ids[episode[ids, STEP] == episode[ids, SHOVE_STEP]]
        if len(due):
            task.shove(due, episode[due, SHOVE_ANGLE], episode[due, SHOVE_SPEED])
            episode[due, SEIZED_LEFT] = SEIZED
    if condition.slip_height is not None:
        due = ids[task.lifted(ids) > episode[ids, SLIP_HEIGHT]]
        episode[due, SEIZED_LEFT] = SEIZED
        episode[due, SLIP_HEIGHT] = UNREACHED
    forced = episode[ids, SEIZED_LEFT] > 0
    if forced.any():
        angle, speed = episode[ids, SHOVE_ANGLE], episode[ids, SHOVE_SPEED]
        command = np.where(forced[:, None], task.seized(ids, command, angle, speed), command)
        episode[ids, SEIZED_LEFT] -= forced
    return command
