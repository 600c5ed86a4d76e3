"""Tasks in which a cube is carried to a place and let go of there: what success is, and the expert that does it."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.motion import along_funnel, bounded_step, length
from diffpolicy_envs.tabletop import TabletopTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["CarryTask"]

LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]


class CarryTask(TabletopTask):
    """The object is a cube; ``goal`` is the point of the surface on which it shall come to rest.

    Success: the cube rests at the goal's height within ``tolerance`` of it, still, and the gripper has let go.
    """

    tolerance: ClassVar[float]  # largest distance of a placed cube from the goal [m]
    left: ClassVar[float]  # the expert leaves a cube alone that is within this of the goal [m]
    let_go: ClassVar[float]  # and lets go of it within this
    aim: ClassVar[float]  # it comes down to the surface within this
    height: ClassVar[float]  # largest height of the carried cube above the surface [m]

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step."""
        reach = length(self.tool(ids) - self.object_position(ids))
        return {
            "reach": -0.3 * np.tanh(reach / 0.1),
            "place": -0.7 * np.tanh(self.goal_distance(ids) / 0.1),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        resting = np.abs(self.object_position(ids)[:, 2] - self._level(ids)) < 0.005
        still = length(self.object_velocity(ids)) < 0.05
        released = self.opening(ids) > 2 * self._rest + 0.012
        placed = length((self.object_position(ids) - self.goal(ids))[:, :2]) < self.tolerance
        return np.asarray(placed & resting & still & released)

    def goal_distance(self, ids: Ids) -> Array:
        """Distance (n,) of the cube from the goal [m], as the reward counts it: horizontally."""
        return length((self.object_position(ids) - self.goal(ids))[:, :2])

    def grasp_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand that faces two sides of the cube, the nearest to its present one (n,) [rad]."""
        rotation = self.object_rotation(ids)
        cube = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
        now = self.tool_yaw(ids)
        quarter = np.pi / 2
        yaw = cube + quarter * np.round((now - cube) / quarter)
        return np.where(np.abs(yaw) > 0.45 * np.pi, cube, yaw)

    def _level(self, ids: Ids) -> Array:
        """Height (n,) of the centre of a cube that rests at the goal [m]."""
        return np.asarray(self.goal(ids)[:, 2] + self._rest)

    def expert(self, ids: Ids) -> Array:
        """Reach above, descend, close, carry, lower, let go: decided from the present state alone."""
        tool, cube, goal = self.tool(ids), self.object_position(ids), self.goal(ids)
        yaw, opening, width, level = self.grasp_yaw(ids), self.opening(ids), 2 * self._rest, self._level(ids)
        off = length((tool - cube)[:, :2])
        far = length((goal - cube)[:, :2])
        turn = np.abs(yaw - self.tool_yaw(ids))
        between = (off < 0.018) & (np.abs(tool[:, 2] - cube[:, 2]) < 0.018)
        held = between & (opening < width + 0.004)
        grounded = np.abs(cube[:, 2] - level) < 0.010
        done = (far < self.left) & grounded & ~held

        # to the cube: the fingers come down a funnel around it, as they line up with its sides
        velocity = np.clip(self.object_velocity(ids)[:, :2], -0.4, 0.4)
        astray = np.maximum(off - 0.008, 0.0) + 0.2 * np.maximum(turn - 0.1, 0.0) + 0.1 * length(velocity)
        above = np.where(between, 0.0, np.clip(2.5 * astray, 0.0, 0.09))
        approach = cube.copy()
        approach[:, :2] += 0.15 * velocity
        approach = along_funnel(tool, approach, np.maximum(cube[:, 2], self._rest) + above)
        closing = between & (turn < 0.2) & ((tool[:, 2] < cube[:, 2] + 0.008) | (opening < 0.07))  # once begun, go on

        # with the cube to the goal: up and down a funnel around it, then let go
        above = np.clip(2.5 * (far - self.aim), -0.004, self.height)
        carry = along_funnel(tool, tool + goal - cube, tool[:, 2] - cube[:, 2] + level + above)
        let_go = (far < self.let_go) & grounded

        leave = tool + np.array([0.0, 0.0, 0.05])
        target = np.where(held[:, None], carry, np.where(done[:, None], leave, approach))
        open_hand = np.where(held, let_go, done | ~closing)
        target = bounded_step(tool, target, LEAD)
        return self.command(target, np.where(done, self.tool_yaw(ids), yaw), np.where(open_hand, 1.0, -1.0))
