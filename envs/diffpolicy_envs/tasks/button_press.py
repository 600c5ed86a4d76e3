"""ButtonPress: press a sprung button home, which stands within a guard that a finger only just fits into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import along_funnel, bounded_step, length
from diffpolicy_envs.tabletop import REACHABLE_HIGH, REACHABLE_LOW, TabletopTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["TRAVEL", "ButtonPress"]

STARTS = {  # where the housing stands: x, y, height, yaw from, to [m], [rad]
    "narrow": (np.array([0.40, -0.18, 0.0, -0.25]), np.array([0.58, 0.18, 0.0, 0.25])),
    "wide": (np.array([0.35, -0.25, 0.0, -np.pi / 4]), np.array([0.62, 0.25, 0.10, np.pi / 4])),
}
TOP = 0.067  # height of the cap's top over the housing's origin [m]
TRAVEL = 0.015  # how far the cap goes down [m]
ENOUGH = 0.9  # share of the travel that counts as pressed
TIP = 0.014  # from the tool centre point down to the fingertips [m]
LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
SLIDE = 0.06  # how far a shove of 1 m/s moves the housing [m]
CLEAR = 0.010  # height of the fingertips over the cap from which the housing may slide below them [m]


class ButtonPress(TabletopTask):
    """Success: the cap is down by at least 90% of its travel of 15 mm; it need not be held there.

    The object is the cap, its frame the middle of its top; the goal is where that is when pressed home. The
    gripper is best closed: the fingers are 22 x 24 mm then, the opening of the guard is 38 x 38 mm.
    """

    model = "button_press"
    looks_same = "prism"
    fields = ("jnt_stiffness", "dof_damping")
    unfit = ("slip",)
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TabletopTask.needs,
        "body": ("object", "goal", "housing"),
        "joint": ("object",),
    }
    hard = Condition("hard", "wide", shove_speed=(1.0, 1.6), shove_window=(6, 20), sensor_noise=0.004)

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        self._housing = int(batch.model.body("housing").mocapid[0])
        self._joint = int(batch.model.joint("object").id)

    # -- what the array functions read ----------------------------------------------------------------------

    def depth(self, ids: Ids) -> Array:
        """How far the cap is down (n,) [m]."""
        return np.asarray(-self._qpos[ids, self._object_qpos])

    def _press_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand along the guard's sides, the nearest to its present one (n,) [rad]."""
        rotation = self.object_rotation(ids)
        guard, quarter = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]), np.pi / 2
        yaw = guard + quarter * np.round((self.tool_yaw(ids) - guard) / quarter)
        return np.where(np.abs(yaw) > 0.45 * np.pi, guard, yaw)

    # -- Task -----------------------------------------------------------------------------------------------

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            x, y, height, yaw = rng.uniform(low, high)
            self.jitter_arm(i, rng)
            self._put(i, np.array([x, y, height]), yaw)

    def _put(self, i: int, origin: Array, yaw: float) -> None:
        self.set_mocap(i, "housing", origin, yaw)
        self.set_mocap(i, "goal", origin + np.array([0.0, 0.0, TOP - TRAVEL]), yaw)

    def idle_action(self, ids: Ids) -> Array:
        return self.command(self.tool(ids), self.tool_yaw(ids), -np.ones(len(ids)))

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step."""
        reach = length(self.tool(ids) - np.array([0.0, 0.0, TIP]) - self.object_position(ids))
        return {
            "reach": -0.5 * np.tanh(reach / 0.1),
            "press": -0.5 * np.clip(1.0 - self.depth(ids) / TRAVEL, 0.0, 1.0),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return self.depth(ids) >= ENOUGH * TRAVEL

    # -- what can befall it ---------------------------------------------------------------------------------

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        """Scale the stiffness of the cap's spring and its damping (n,)."""
        model, joint, dof = self.batch.model, self._joint, self._object_dof
        self.batch.expand("jnt_stiffness")[ids, joint] = model.jnt_stiffness[joint] * mass_scale
        self.batch.expand("dof_damping")[ids, dof] = model.dof_damping[dof] * friction_scale

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Slide the housing by 6 cm per m/s, inwards where it would leave the arm's reach, if no finger is near it."""
        where = np.array(self._mocap[ids, self._housing])
        way = SLIDE * speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        landing = where[:, :2] + way
        outside = (landing < REACHABLE_LOW) | (landing > REACHABLE_HIGH)
        way = np.where(outside, -way, way)
        free = self.tool(ids)[:, 2] - TIP > where[:, 2] + TOP + CLEAR
        where[:, :2] += np.where(free[:, None], way, 0.0)
        for k, i in enumerate(ids):
            turn = self._mocap_turn[i, self._housing]
            self._put(i, where[k], float(2.0 * np.arctan2(turn[3], turn[0])))

    def seized(self, ids: Ids, action: Array, angle: Array, speed: Array) -> Array:
        """The hand is thrown off, up and the other way."""
        del ids
        moved = self.thrown(action, angle + np.pi, speed)
        moved[:, 2] = np.clip(moved[:, 2] + 0.3, -1.0, 1.0)
        return moved

    # -- the expert -----------------------------------------------------------------------------------------

    def expert(self, ids: Ids) -> Array:
        """Above the cap, down a funnel as the finger lines up with the guard, and down on the cap."""
        tool, cap, goal = self.tool(ids), self.object_position(ids), self.goal(ids)
        yaw = self._press_yaw(ids)
        off = length((tool - goal)[:, :2])
        turn = np.abs(yaw - self.tool_yaw(ids))
        within = (off < 0.010) & (tool[:, 2] - TIP < goal[:, 2] + 0.008)  # the finger is in the guard: go on
        astray = np.maximum(off - 0.005, 0.0) + 0.05 * np.maximum(turn - 0.15, 0.0)
        astray = np.where(within, 0.0, astray)
        rest = goal[:, 2] + TRAVEL + TIP
        height = np.where(astray > 0.0, rest + 0.006 + np.clip(3.0 * astray, 0.0, 0.07), cap[:, 2] + TIP - LEAD)
        beyond = tool + 1.7 * (goal - tool)  # the arm's posture spring holds it back by some mm
        target = bounded_step(tool, along_funnel(tool, beyond, height), LEAD)
        return self.command(target, yaw, -np.ones(len(ids)))
