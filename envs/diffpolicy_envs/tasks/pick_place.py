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
LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
TOLERANCE = 0.04  # largest distance of a placed cube from the goal [m]


class PickPlace(TabletopTask):
    """Success: the cube rests on the table within 4 cm of the goal and the gripper has let go of it."""

    model = "pick_place"

    def place(self, ids: Ids, rngs: list[np.random.Generator]) -> None:
        for i, rng in zip(ids, rngs, strict=True):
            cube, goal = _start(rng), _start(rng)
            while np.hypot(*(goal - cube)) < APART:
                goal = _start(rng)
            yaw = rng.uniform(-np.pi / 4, np.pi / 4)
            joints = rng.uniform(-0.04, 0.04, size=7)
            start = self._object_qpos
            self._qpos[i, :7] += joints
            self._qpos[i, start : start + 3] = [cube[0], cube[1], self._rest]
            self._qpos[i, start + 3 : start + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
            self._goal[i] = [goal[0], goal[1], 0.0]

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step, and a bonus for it."""
        reach = _length(self.tool(ids) - self.object_position(ids))
        return {
            "reach": -0.3 * np.tanh(reach / 0.1),
            "place": -0.7 * np.tanh(self._goal_distance(ids) / 0.1),
            "success": np.where(self.success(ids), 10.0, 0.0),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        resting = self.object_position(ids)[:, 2] < self._rest + 0.005
        still = _length(self.object_velocity(ids)) < 0.05
        released = self.opening(ids) > 2 * self._rest + 0.012
        placed = self._goal_distance(ids) < TOLERANCE
        return np.asarray(placed & resting & still & released)

    def _goal_distance(self, ids: Ids) -> Array:
        return _length((self.object_position(ids) - self.goal(ids))[:, :2])

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
        yaw, opening, width = self._grasp_yaw(ids), self.opening(ids), 2 * self._rest
        off = _length((tool - cube)[:, :2])
        far = _length((goal - cube)[:, :2])
        turn = np.abs(yaw - self.tool_yaw(ids))
        between = (off < 0.018) & (np.abs(tool[:, 2] - cube[:, 2]) < 0.018)
        held = between & (opening < width + 0.004)
        grounded = cube[:, 2] < self._rest + 0.010
        done = (far < 0.036) & grounded & ~held

        # to the cube: the fingers come down a funnel around it, as they line up with its sides
        velocity = np.clip(self.object_velocity(ids)[:, :2], -0.4, 0.4)
        astray = np.maximum(off - 0.008, 0.0) + 0.2 * np.maximum(turn - 0.1, 0.0) + 0.1 * _length(velocity)
        above = np.where(between, 0.0, np.clip(2.5 * astray, 0.0, 0.09))
        approach = cube.copy()
        approach[:, :2] += 0.15 * velocity
        approach = _along_funnel(tool, approach, np.maximum(cube[:, 2], self._rest) + above)
        closing = between & (turn < 0.2) & ((tool[:, 2] < cube[:, 2] + 0.008) | (opening < 0.07))  # once begun, go on

        # with the cube to the goal: up and down a funnel around it, then let go
        above = np.clip(2.5 * (far - 0.02), -0.004, 0.07)
        carry = _along_funnel(tool, tool + goal - cube, tool[:, 2] - cube[:, 2] + self._rest + above)
        let_go = (far < 0.03) & grounded

        leave = tool + np.array([0.0, 0.0, 0.05])
        target = np.where(held[:, None], carry, np.where(done[:, None], leave, approach))
        open_hand = np.where(held, let_go, done | ~closing)
        target = bounded_step(tool, target, LEAD)
        return self.command(target, np.where(done, self.tool_yaw(ids), yaw), np.where(open_hand, 1.0, -1.0))


def _start(rng: np.random.Generator) -> Array:
    """A place (2,) where the cube or the goal may start [m]."""
    return np.asarray(START_LOW + (START_HIGH - START_LOW) * rng.random(2))


def _length(vector: Array) -> Array:
    return np.asarray(np.sqrt((vector**2).sum(axis=1)))


def _along_funnel(tool: Array, target: Array, height: Array) -> Array:
    """The target (n, 3) at ``height`` (n,) [m], its sideways part held back while the tool is below that height."""
    share = np.clip(1.0 - (height - tool[:, 2]) / 0.03, 0.0, 1.0)[:, None]
    sideways = tool[:, :2] + share * (target[:, :2] - tool[:, :2])
    return np.concatenate([sideways, height[:, None]], axis=1)
