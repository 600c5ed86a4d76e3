"""DoorOpen: swing a door open by its upright bar."""

from __future__ import annotations

import numpy as np

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.handles import HandleTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["DoorOpen"]

HINGE = np.array([-0.107, 0.005, 0.07])  # seen from the furniture, at the height of the bar's middle [m]
ARM = np.array([0.175, -0.063])  # from the hinge to the bar of the shut door [m]
STARTS = {  # where the bar of the shut door is: x, y from, to [m]; yaw [rad]; opening from, to [rad]
    "narrow": (np.array([0.50, 0.11]), np.array([0.59, 0.17]), 0.15, (0.14, 0.22)),
    "wide": (np.array([0.46, 0.07]), np.array([0.61, 0.20]), 0.40, (0.0, 0.40)),
}


class DoorOpen(HandleTask):
    """Success: the door is open by 0.9 rad."""

    model = "door_open"
    hard = Condition("hard", "wide", shove_speed=(0.7, 1.5), shove_window=(8, 30), slip_height=(0.02, 0.06))
    target = 1.0
    enough = 0.9
    lever = float(np.hypot(*ARM))

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high, turn, ajar = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            self.put(i, rng.uniform(low, high), rng.uniform(-turn, turn), rng.uniform(*ajar))
            self.jitter_arm(i, rng)

    def bar(self, origin: Array, yaw: Array, opening: Array) -> tuple[Array, Array]:
        door = yaw - opening
        cos, sin = np.cos(yaw), np.sin(yaw)
        x = HINGE[0] * cos - HINGE[1] * sin + ARM[0] * np.cos(door) - ARM[1] * np.sin(door)
        y = HINGE[0] * sin + HINGE[1] * cos + ARM[0] * np.sin(door) + ARM[1] * np.cos(door)
        return origin + np.stack([x, y, 0.0 * x + HINGE[2]], axis=1), door
