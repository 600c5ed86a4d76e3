"""Stack: put the red 5 cm cube on the blue one and let go of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.carrying import CarryTask
from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import length
from diffpolicy_envs.tabletop import TabletopTask, canonical_rotation, quaternion_matrix
from diffpolicy_envs.task import Array, Ids

__all__ = ["Stack"]

STARTS = {  # where the two cubes start: x, y from, to [m]
    "narrow": (np.array([0.40, -0.16]), np.array([0.58, 0.16])),
    "wide": (np.array([0.36, -0.24]), np.array([0.62, 0.24])),
}
APART = 0.12  # least distance between the cubes' centres [m]
FINGER = 0.05  # of a finger's middle from the tool while the hand is open [m]


class Stack(CarryTask):
    """Success: the red cube rests on the blue one, within 2.5 cm of its middle, still, and the hand has let go."""

    model = "stack"
    hard = Condition("hard", "wide", shove_speed=(0.5, 1.2), shove_window=(2, 20))
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TabletopTask.needs,
        "body": ("object", "goal", "support"),
        "sensor": (*TabletopTask.needs["sensor"], "support_position", "support_quaternion"),
    }
    sensor_sizes: ClassVar[Mapping[str, int]] = {
        **TabletopTask.sensor_sizes,
        "support_position": 3,
        "support_quaternion": 4,
    }
    tolerance = 0.025
    left = 0.022
    let_go = 0.012
    aim = 0.006
    height = 0.05

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        joint = int(batch.model.body("support").jntadr[0])
        self._support_qpos = int(batch.model.jnt_qposadr[joint])
        self._support_dof = int(batch.model.jnt_dofadr[joint])

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            red, blue = rng.uniform(low, high), rng.uniform(low, high)
            while np.hypot(*(blue - red)) < APART:
                blue = rng.uniform(low, high)
            yaws = rng.uniform(-np.pi / 4, np.pi / 4, size=2)
            self.jitter_arm(i, rng)
            self.set_object(i, [red[0], red[1], self._rest], yaws[0])
            at = self._support_qpos
            self._qpos[i, at : at + 3] = blue[0], blue[1], self._rest
            self._qpos[i, at + 3 : at + 7] = np.cos(yaws[1] / 2), 0.0, 0.0, np.sin(yaws[1] / 2)

    def support_position(self, ids: Ids) -> Array:
        """Centre of the blue cube (n, 3) [m]."""
        return np.asarray(self._sensor["support_position"][ids])

    def goal(self, ids: Ids) -> Array:
        """Middle of the blue cube's upper face (n, 3) [m]."""
        place = self.support_position(ids).copy()
        place[:, 2] += self._rest
        return place

    def goal_yaw(self, ids: Ids) -> Array:
        """Yaw of the blue cube (n,) [rad], within an eighth of a turn."""
        rotation = canonical_rotation(quaternion_matrix(self._sensor["support_quaternion"][ids]))
        return np.asarray(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))

    def goal_distance(self, ids: Ids) -> Array:
        place = self.goal(ids)
        place[:, 2] += self._rest
        return length(self.object_position(ids) - place)

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return super().success(ids) & (self.support_position(ids)[:, 2] < self._rest + 0.005)

    def grasp_yaw(self, ids: Ids) -> Array:
        """The yaw (n,) [rad] that faces two sides of the red cube with the blue one in no finger's way."""
        near = super().grasp_yaw(ids)
        other = near - np.copysign(np.pi / 2, near)
        return np.where(self._in_the_way(ids, near) > self._in_the_way(ids, other) + 1e-9, other, near)

    def _in_the_way(self, ids: Ids, yaw: Array) -> Array:
        """How far (n,) the blue cube reaches into where the fingers go at that yaw [m]."""
        gap = self.support_position(ids) - self.object_position(ids)
        along = np.abs(-np.sin(yaw) * gap[:, 0] + np.cos(yaw) * gap[:, 1])
        across = np.abs(np.cos(yaw) * gap[:, 0] + np.sin(yaw) * gap[:, 1])
        clear = np.maximum(np.abs(along - FINGER) - 0.048, across - 0.048)
        return np.where(np.abs(gap[:, 2]) < 0.03, np.maximum(-clear, 0.0), 0.0)

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        super().shove(ids, angle, speed)
        gap = self.object_position(ids) - self.support_position(ids)
        stacked = (length(gap[:, :2]) < 0.04) & (np.abs(gap[:, 2] - 2 * self._rest) < 0.01)
        tower, red, blue = ids[stacked], self._object_dof, self._support_dof
        self._qvel[tower, blue : blue + 2] = self._qvel[tower, red : red + 2]
