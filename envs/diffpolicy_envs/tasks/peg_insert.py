"""PegInsert: push a 30 mm square peg into a 32 mm square hole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import along_funnel, bounded_step, length
from diffpolicy_envs.tabletop import TabletopTask, quaternion_matrix
from diffpolicy_envs.task import Array, Ids

__all__ = ["PegInsert"]

STARTS = {  # where the fixture starts: x, y from, to [m]
    "narrow": (np.array([0.44, -0.08]), np.array([0.56, 0.08])),
    "wide": (np.array([0.40, -0.20]), np.array([0.60, 0.20])),
}
TURNS = {"narrow": 0.15, "wide": 0.5}  # largest yaw of the fixture at the start [rad]
GRASP = np.array([0.003, 0.0, 0.004])  # the peg lies in the hand off the usual place by up to this [m]
TILT = 0.03  # and turned about the pads' axis by up to this [rad]
GRIP = 0.02  # of the tool above the peg's middle [m]
RIM = 0.04  # height of the fixture [m]
DEPTH = 0.03  # of the peg in the hole at success [m]
LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
PRESS = 0.018  # and how far below it while it holds the peg [m]
OVER = 1.4  # factor on the sideways error that it aims to undo, since the springs of the arm hold it back
SLANT = 0.12  # a peg that slants by more is not grasped [rad]
BRAKE = 7.0  # deceleration of the sliding fixture [m/s^2]
QUARTER = np.pi / 2


class PegInsert(TabletopTask):
    """Success: the peg stands at least 30 mm deep in the hole, in the hand or out of it.

    The episode ends without it (failure) once the peg lies on its side: the hand cannot set it up again.
    """

    model = "peg_insert"
    hard = Condition("hard", "wide", shove_speed=(1.1, 1.8), shove_window=(4, 18), sensor_noise=0.004)
    unfit = ("slip",)
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TabletopTask.needs,
        "joint": ("fixture_x", "fixture_y"),
        "sensor": (*TabletopTask.needs["sensor"], "seat", "tool_quaternion"),
    }
    sensor_sizes: ClassVar[Mapping[str, int]] = {**TabletopTask.sensor_sizes, "seat": 3, "tool_quaternion": 4}
    looks_same = "prism"

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        self._fixture_dof = int(batch.model.joint("fixture_x").dofadr[0])

    # -- start ----------------------------------------------------------------------------------------------

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        offset, tilt = np.zeros((len(ids), 3)), np.zeros(len(ids))
        for k, (i, rng) in enumerate(zip(ids, rngs, strict=True)):
            where, turn = rng.uniform(low, high), rng.uniform(-TURNS[start], TURNS[start])
            offset[k], tilt[k] = rng.uniform(-GRASP, GRASP), rng.uniform(-TILT, TILT)
            self.jitter_arm(i, rng)
            self.set_mocap(i, "goal", [where[0], where[1], 0.0], turn)
        self.batch.forward(ids, stage=int(mujoco.mjtStage.mjSTAGE_POS))  # where the hand is now
        offset[:, 2] -= GRIP
        hand = self._sensor["tool_quaternion"][ids]
        axes, at = quaternion_matrix(hand), self._object_qpos
        for k in range(3):
            self._qpos[ids, at + k] = self.tool(ids)[:, k] + (axes[:, k] * offset).sum(axis=1)
        (w, x, y, z), c, s = hand.T, np.cos(tilt / 2), np.sin(tilt / 2)
        self._qpos[ids, at + 3 : at + 7] = np.stack([w * c - y * s, x * c - z * s, y * c + w * s, z * c + x * s], 1)

    # -- what there is --------------------------------------------------------------------------------------

    def goal(self, ids: Ids) -> Array:
        """Where the peg's middle is once it is seated (n, 3) [m]."""
        return np.asarray(self._sensor["seat"][ids])

    def _tip(self, ids: Ids) -> Array:
        """Middle of the peg's lower end (n, 3) [m]."""
        return self.object_position(ids) - self._rest * self._axis(ids, "object")

    def _axis(self, ids: Ids, name: str) -> Array:
        """Which way (n, 3) the upward axis of the peg ("object") or of the hand ("tool") points."""
        return np.asarray(quaternion_matrix(self._sensor[f"{name}_quaternion"][ids])[:, :, 2])

    def _aside(self, ids: Ids) -> Array:
        """Horizontal distance (n,) of the peg's lower end from the hole's middle [m]."""
        return length((self._tip(ids) - self.goal(ids))[:, :2])

    def depth(self, ids: Ids) -> Array:
        """How deep the peg is in the hole (n,) [m]; 0 while it is elsewhere."""
        return np.where(self._aside(ids) < 0.005, np.maximum(RIM - self._tip(ids)[:, 2], 0.0), 0.0)

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step."""
        return {
            "align": -0.5 * np.tanh(self._aside(ids) / 0.05),
            "insert": -0.5 * np.tanh(length(self.object_position(ids) - self.goal(ids)) / 0.1),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray(self.depth(ids) >= DEPTH)

    def failure(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether the peg has fallen over."""
        return np.asarray(self._axis(ids, "object")[:, 2] < 0.5)

    def idle_action(self, ids: Ids) -> Array:
        """The hand holds still and keeps the peg."""
        return self.command(self.tool(ids), self.tool_yaw(ids), -np.ones(len(ids)))

    # -- what can befall it ---------------------------------------------------------------------------------

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """The fixture slides away, unless the peg is in the hole or right above it."""
        where = self.goal(ids)[:, :2]
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        landing = where + direction * (0.5 * speed**2 / BRAKE)[:, None]
        low, high = STARTS["wide"]
        direction = np.where(
            (landing < low) | (landing > high), np.abs(direction) * np.sign((low + high) / 2 - where), direction
        )
        yaw, free = self.goal_yaw(ids), ~self._engaged(ids)
        along = np.cos(yaw) * direction[:, 0] + np.sin(yaw) * direction[:, 1]
        across = np.cos(yaw) * direction[:, 1] - np.sin(yaw) * direction[:, 0]
        self._qvel[ids[free], self._fixture_dof] = (along * speed)[free]
        self._qvel[ids[free], self._fixture_dof + 1] = (across * speed)[free]

    def seized(self, ids: Ids, action: Array, angle: Array, speed: Array) -> Array:
        """The hand is thrown off, unless the peg is in the hole or right above it."""
        return np.where(self._engaged(ids)[:, None], action, self.thrown(action, angle, speed))

    def _engaged(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray((self._aside(ids) < 0.01) & (self._tip(ids)[:, 2] < RIM + 0.01))

    # -- the expert -----------------------------------------------------------------------------------------

    def expert(self, ids: Ids) -> Array:
        """Carry the peg above the hole, turn it to fit, lower it; pick up a peg that was left standing.

        It does not let go of a peg that sits askew to grasp it better: a label to open the hand, in states that
        hardly differ from those where it must stay shut, taught policies to drop the peg.
        """
        tool, peg, yaw = self.tool(ids), self.object_position(ids), self.tool_yaw(ids)
        off = length((tool - peg)[:, :2])
        level = tool[:, 2] - peg[:, 2]
        held = (off < 0.018) & (np.abs(level - 0.01) < 0.045) & (self.opening(ids) < 0.034)
        low = held & (level < 0.01) & (self.depth(ids) > 0.01)  # the fingers would meet the rim: grasp higher
        grasp = self._grasp_yaw(ids)
        turn = np.abs(grasp - yaw)

        between = (off < 0.014) & (np.abs(level - 0.018) < 0.028)
        above = np.where(between, 0.0, np.clip(2.5 * (off - 0.006 + 0.2 * np.maximum(turn - 0.1, 0.0)), 0.0, 0.09))
        reach = bounded_step(tool, along_funnel(tool, peg, peg[:, 2] + GRIP + above), LEAD)
        upright = self._axis(ids, "object")[:, 2] > np.cos(SLANT)
        closing = between & (turn < 0.15) & (np.abs(level - GRIP) < 0.008) & upright

        insert, fitting = self._insert(ids)
        keep = held & ~low
        return self.command(
            np.where(keep[:, None], insert, reach),
            np.where(keep, fitting, grasp),
            np.where(keep | closing, -1.0, 1.0),
        )

    def _insert(self, ids: Ids) -> tuple[Array, Array]:
        """Target (n, 3) [m] and yaw (n,) [rad] of a hand that holds the peg."""
        tool, tip, seat = self.tool(ids), self._tip(ids), self.goal(ids)
        turn = _quarter(self.goal_yaw(ids) - self._peg_yaw(ids))
        yaw = self.tool_yaw(ids) + turn
        yaw = np.where(np.abs(yaw) > 0.97 * QUARTER, yaw - np.copysign(QUARTER, yaw), yaw)
        astray = np.where(self.depth(ids) > 0.002, 0.0, self._aside(ids) + 0.05 * np.maximum(np.abs(turn) - 0.03, 0.0))
        height = RIM + np.interp(astray, [0.0035, 0.006, 0.02], [-0.045, 0.012, 0.05])  # of the tip
        desired = along_funnel(tool, tool + OVER * (seat - tip), tool[:, 2] - tip[:, 2] + height)
        target = bounded_step(tool, desired, LEAD)
        target[:, 2] = np.maximum(target[:, 2], tool[:, 2] - PRESS)
        return target, yaw

    def _peg_yaw(self, ids: Ids) -> Array:
        rotation = self.object_rotation(ids)
        return np.asarray(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))

    def _grasp_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand that faces two sides of the peg, the nearest to its present one (n,) [rad]."""
        peg, now = self._peg_yaw(ids), self.tool_yaw(ids)
        yaw = now + _quarter(peg - now)
        return np.where(np.abs(yaw) > 0.9 * QUARTER, peg, yaw)


def _quarter(angle: Array) -> Array:
    """The same angles (n,) but for whole quarter turns, within an eighth of a turn [rad]."""
    return np.asarray(angle - QUARTER * np.round(angle / QUARTER))
