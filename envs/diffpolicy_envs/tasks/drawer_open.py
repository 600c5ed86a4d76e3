"""DrawerOpen: pull a drawer open by its bar."""

from __future__ import annotations

import numpy as np

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.handles import HandleTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["DrawerOpen"]

BAR = np.array([0.0, -0.058, 0.08])  # the bar of the shut drawer, seen from the furniture [m]
STARTS = {  # where the bar of the shut drawer is: x, y from, to [m]; yaw [rad]; opening from, to [m]
    "narrow": (np.array([0.42, 0.15]), np.array([0.54, 0.20]), 0.15, (0.025, 0.040)),
    "wide": (np.array([0.38, 0.10]), np.array([0.60, 0.23]), 0.90, (0.0, 0.10)),
}
REACH = (0.34, 0.62)  # x of the goal from, to [m]


class DrawerOpen(HandleTask):
    """Success: the drawer is open by 13 cm."""

    model = "drawer_open"
    hard = Condition("hard", "wide", shove_speed=(1.2, 2.5), shove_window=(9, 17))
    target = 0.15
    enough = 0.13
    lever = 1.0

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high, most, ajar = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            bar, yaw = rng.uniform(low, high), rng.uniform(-most, most)
            while not REACH[0] < bar[0] + self.target * np.sin(yaw) < REACH[1]:
                bar, yaw = rng.uniform(low, high), rng.uniform(-most, most)
            self.put(i, bar, yaw, rng.uniform(*ajar))
            self.jitter_arm(i, rng)

    def bar(self, origin: Array, yaw: Array, opening: Array) -> tuple[Array, Array]:
        cos, sin, y = np.cos(yaw), np.sin(yaw), BAR[1] - opening
        return origin + np.stack([cos * BAR[0] - sin * y, sin * BAR[0] + cos * y, 0.0 * y + BAR[2]], axis=1), yaw
