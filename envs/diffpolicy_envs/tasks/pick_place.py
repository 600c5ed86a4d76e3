"""PickPlace: carry a 5 cm cube to the green disc and let go of it."""

from __future__ import annotations

import numpy as np

from diffpolicy_envs.carrying import CarryTask
from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.task import Ids

__all__ = ["PickPlace"]

STARTS = {  # where the cube and the goal start: x, y from, to [m]
    "narrow": (np.array([0.38, -0.20]), np.array([0.60, 0.20])),
    "wide": (np.array([0.34, -0.26]), np.array([0.63, 0.26])),
}
APART = 0.12  # least distance between cube and goal [m]


class PickPlace(CarryTask):
    """Success: the cube rests on the table within 4 cm of the goal and the gripper has let go of it."""

    model = "pick_place"
    hard = Condition("hard", "wide", shove_speed=(0.5, 1.2), shove_window=(2, 20))
    tolerance = 0.04
    left = 0.036
    let_go = 0.03
    aim = 0.02
    height = 0.07

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            cube, goal = rng.uniform(low, high), rng.uniform(low, high)
            while np.hypot(*(goal - cube)) < APART:
                goal = rng.uniform(low, high)
            yaw = rng.uniform(-np.pi / 4, np.pi / 4)
            self.jitter_arm(i, rng)
            self.set_object(i, [cube[0], cube[1], self._rest], yaw)
            self.set_mocap(i, "goal", [goal[0], goal[1], 0.0])
