"""Reach: bring the tool to a floating target, turned as it is, and come to rest there."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import bounded_step, length, wrapped
from diffpolicy_envs.tabletop import TabletopTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["Reach"]

STARTS = {  # where the target starts: x, y, z [m], yaw [rad] from, to
    "narrow": (np.array([0.42, -0.10, 0.08, -0.3]), np.array([0.54, 0.10, 0.18, 0.3])),
    "wide": (np.array([0.33, -0.28, 0.03, -1.3]), np.array([0.63, 0.28, 0.27, 1.3])),
}
SCATTER = {"narrow": 0.04, "wide": 0.15}  # by how much each joint of the arm starts off its home [rad]
APART = 0.08  # least distance between tool and target at the start [m]
JUMP = 0.15  # a shoved target jumps as far as its speed covers in this time [s]
LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
TURN = 0.25  # how far ahead of the hand the expert sets its yaw [rad]
TOLERANCE = 0.015  # largest distance of the tool from the target [m]
ASKEW = 0.08  # largest difference of yaw [rad]
STILL = 0.05  # largest speed of the tool [m/s]


class Reach(TabletopTask):
    """Success: the tool within 1.5 cm and 0.08 rad of the target, slower than 0.05 m/s."""

    model = "reach"
    unfit: ClassVar[tuple[str, ...]] = ("slip", "dynamics")
    looks_same = "nothing"
    hard = Condition("hard", "wide", shove_speed=(0.7, 1.5), shove_window=(4, 14), sensor_noise=0.005, action_delay=2)

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        home = self.batch.model.key_ctrl[0, :3]
        for i, rng in zip(ids, rngs, strict=True):
            target = rng.uniform(low, high)
            while np.sqrt(((target[:3] - home) ** 2).sum()) < APART:
                target = rng.uniform(low, high)
            self.jitter_arm(i, rng, SCATTER[start])
            self._move_target(int(i), target[:3], target[3])

    def _move_target(self, i: int, position: npt.ArrayLike, yaw: float) -> None:
        for name in ("object", "goal"):
            self.set_mocap(i, name, position, yaw)

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, together at most 1 a step."""
        return {
            "reach": -0.8 * np.tanh(self._distance(ids) / 0.1),
            "turn": -0.2 * np.tanh(self._askew(ids) / 0.5),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        still = length(self._sensor["tool_velocity"][ids]) < STILL
        return np.asarray((self._distance(ids) < TOLERANCE) & (self._askew(ids) < ASKEW) & still)

    def _distance(self, ids: Ids) -> Array:
        return length(self.tool(ids) - self.goal(ids))

    def _askew(self, ids: Ids) -> Array:
        return np.abs(wrapped(self.goal_yaw(ids) - self.tool_yaw(ids)))

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """The target jumps sideways, turned inwards where it would leave the wide start."""
        low, high = (limit[:2] for limit in STARTS["wide"])
        where = self.goal(ids)
        way = JUMP * speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (n, 2) [m]
        outside = (where[:, :2] + way < low) | (where[:, :2] + way > high)
        way = np.where(outside, np.abs(way) * np.sign((low + high) / 2 - where[:, :2]), way)
        for i, position, step, yaw in zip(ids, where, way, self.goal_yaw(ids), strict=True):
            self._move_target(int(i), [*np.clip(position[:2] + step, low, high), position[2]], float(yaw))

    def expert(self, ids: Ids) -> Array:
        """Straight to the target, turning on the way."""
        tool, yaw = self.tool(ids), self.tool_yaw(ids)
        turn = np.clip(wrapped(self.goal_yaw(ids) - yaw), -TURN, TURN)
        return self.command(bounded_step(tool, self.goal(ids), LEAD), yaw + turn, np.ones(len(ids)))
