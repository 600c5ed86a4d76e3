"""PickPlace: carry a 5 cm cube to the green disc and let go of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.tabletop import TabletopTask, bounded_step
from diffpolicy_envs.task import Array, Ids

__all__ = ["PickPlace"]

START_LOW = np.array([0.38, -0.20])  # where the cube and the goal start [m]
START_HIGH = np.array([0.60, 0.20])
APART = 0.12  # least distance between cube and goal [m]
LEAD = 0.045  # how far ahead of the tool the expert sets its target [m]
TOLERANCE = 0.025  # largest distance of a placed cube from the goal [m]


class PickPlace(TabletopTask):
    """Success: the cube rests on the table within 2.5 cm of the goal and the gripper has let go of it."""

    model = "pick_place"

    def place(self, ids: Ids, rngs: list[np.random.Generator]) -> None:
        for i, rng in zip(ids, rngs, strict=True):
            cube = rng.uniform(START_LOW, START_HIGH)
            goal = rng.uniform(START_LOW, START_HIGH)
            while np.hypot(*(goal - cube)) < APART:
                goal = rng.uniform(START_LOW, START_HIGH)
            yaw = rng.uniform(-np.pi / 4, np.pi / 4)
            joints = rng.uniform(-0.04, 0.04, size=7)
            start = self._object_qpos
            self._qpos[i, :7] += joints
            self._qpos[i, start : start + 3] = [cube[0], cube[1], self._rest]
            self._qpos[i, start + 3 : start + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
            self._goal[i] = [goal[0], goal[1], 0.0]

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step, and a bonus for it."""
        reach = np.sqrt(((self.tool(ids) - self.object_position(ids)) ** 2).sum(axis=1))
        return {
            "reach": -0.3 * np.tanh(reach / 0.1),
            "place": -0.7 * np.tanh(self._goal_distance(ids) / 0.1),
            "success": 10.0 * self.success(ids),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        resting = self.object_position(ids)[:, 2] < self._rest + 0.005
        still = np.sqrt((self.object_velocity(ids) ** 2).sum(axis=1)) < 0.05
        released = self.opening(ids) > 2 * self._rest + 0.012
        placed: npt.NDArray[np.bool_] = self._goal_distance(ids) < TOLERANCE
        return placed & resting & still & released

    def _goal_distance(self, ids: Ids) -> Array:
        return np.sqrt(((self.object_position(ids)[:, :2] - self.goal(ids)[:, :2]) ** 2).sum(axis=1))

    def _grasp_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand that faces two sides of the cube, the nearest to its present one (n,) [rad]."""
        rotation = self.object_rotation(ids)
        cube = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
        now = self.tool_yaw(ids)
        quarter = np.pi / 2
        yaw = cube + quarter * np.round((now - cube) / quarter)
        return np.where(np.abs(yaw) > 0.45 * np.pi, cube, yaw)

    def expert(self, ids: Ids) -> Array:
        """Reach above, descend, close, carry, lower, let go: decided from the present state alone."""
        tool, cube, goal = self.tool(ids), self.object_position(ids), self.goal(ids)
        yaw, width = self._grasp_yaw(ids), 2 * self._rest
        opening = self.opening(ids)
        off = np.sqrt(((tool - cube)[:, :2] ** 2).sum(axis=1))
        turn = np.abs(yaw - self.tool_yaw(ids))
        moving = np.sqrt((self.object_velocity(ids)[:, :2] ** 2).sum(axis=1))
        between = (off < 0.018) & (np.abs(tool[:, 2] - cube[:, 2]) < 0.018)
        held = between & (opening < width + 0.004)

        # not held: over the cube on a funnel that lets the fingers down only when they are lined up
        lined_up = (off < 0.012) & (turn < 0.12) & (moving < 0.08)
        clearance = np.where(lined_up, 0.0, np.clip(3.0 * (off - 0.006) + 0.5 * turn, 0.03, 0.09))
        inside = between & (turn < 0.2)
        approach = cube.copy()
        approach[:, :2] += 0.15 * np.clip(self.object_velocity(ids)[:, :2], -0.4, 0.4)
        approach[:, 2] = np.maximum(cube[:, 2], self._rest) + np.where(inside, 0.0, clearance)
        # rise before travelling, so that the fingers do not sweep the cube away
        low = (tool[:, 2] < cube[:, 2] + 0.055) & (off > 0.02) & (off < 0.12)
        approach[:, :2] = np.where(low[:, None], tool[:, :2], approach[:, :2])
        approach[:, 2] = np.where(low, cube[:, 2] + 0.09, approach[:, 2])
        grip = np.where(inside & (tool[:, 2] < cube[:, 2] + 0.006), -1.0, 1.0)

        # held: over the goal on a funnel of the same kind, then let go
        far = np.sqrt(((cube - goal)[:, :2] ** 2).sum(axis=1))
        height = self._rest + np.where(far < 0.008, -0.002, np.clip(2.0 * (far - 0.004), 0.0, 0.07))
        carry = tool + (goal - cube)
        carry[:, 2] = tool[:, 2] + height - cube[:, 2]
        grounded = cube[:, 2] < self._rest + 0.012
        lifting = grounded & (far > 0.02)
        carry[:, :2] = np.where(lifting[:, None], tool[:, :2], carry[:, :2])
        let_go = (far < 0.012) & (cube[:, 2] < self._rest + 0.006)

        # done: keep away from the placed cube
        done = (far < 0.016) & grounded & ~held
        leave = tool.copy()
        leave[:, 2] = np.minimum(tool[:, 2] + 0.05, 0.2)
        target = np.where(held[:, None], carry, approach)
        target = np.where(done[:, None], leave, target)
        grip = np.where(held, np.where(let_go, 1.0, -1.0), grip)
        grip = np.where(done, 1.0, grip)
        target = bounded_step(tool, target, LEAD)
        return self.command(target, np.where(done, self.tool_yaw(ids), yaw), grip)
