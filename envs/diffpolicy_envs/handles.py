"""What tasks share in which furniture is opened by a bar: what can befall it, the way to the bar and along its path."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.motion import along_funnel, bounded_step, length, wrapped
from diffpolicy_envs.tabletop import OPENING, TabletopTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["HandleTask"]

LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
SPREAD = 0.06  # opening with which the fingers come down beside the bar [m]
PAD = np.array([0.012, 0.011, 0.016])  # thickness, half width and half height of a finger's pad [m]
AJAR = 0.03  # opening from which a slip counts [m]


class HandleTask(TabletopTask):
    """A mocap body ``furniture`` whose part ``object`` has one joint, 0 where shut, and its frame at a bar's middle.

    The bar is the capsule ``object``, level or upright; its frame's x axis lies along the front, -y points the way in
    which the part opens. The geom ``roof`` covers the furniture. Goal: where the bar is at the opening ``target``;
    success: opened to ``enough``, whatever the hand does.
    """

    fields = ("body_mass", "body_inertia", "geom_friction", "dof_frictionloss", "dof_damping")
    looks_same = "nothing"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TabletopTask.needs,
        "body": ("object", "goal", "furniture"),
        "geom": ("object", "roof"),
        "joint": ("object",),
    }
    target: ClassVar[float]  # opening at the goal, in the joint's unit
    enough: ClassVar[float]  # opening that counts as open
    lever: ClassVar[float]  # what the bar moves per unit of the joint [m]

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        radius, half = batch.model.geom("object").size[:2]
        upright = float(batch.model.geom_quat[self._object_geom, 0]) > 0.99
        self._radius = float(radius)
        self._half = 0.0 if upright else float(half)  # half of the bar's level length [m]
        self._upward = float(half) if upright else 0.0  # how far the bar reaches up from its middle [m]
        self._roof, self._roof_size = batch.model.geom("roof").pos.copy(), batch.model.geom("roof").size.copy()
        self._furniture_index = int(batch.model.body("furniture").mocapid[0])

    # -- what a task says of itself -------------------------------------------------------------------------

    @abstractmethod
    def bar(self, origin: Array, yaw: Array, opening: Array) -> tuple[Array, Array]:
        """Place (n, 3) [m] and yaw (n,) [rad] of the bar of furniture at ``origin``, ``yaw`` that is opened so far."""

    # -- what the array functions read ----------------------------------------------------------------------

    def opened(self, ids: Ids) -> Array:
        """Opening (n,) in the joint's unit: 0 where shut."""
        return np.asarray(self._qpos[ids, self._object_qpos])

    def bar_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand that has a finger on either side of the bar (n,) [rad]."""
        rotation = self.object_rotation(ids)
        return np.asarray(np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0]))

    def astride(self, ids: Ids) -> Array:
        """The tool seen from the bar, (n, 3) [m]: along the bar's front, across it (+ is behind it), above it."""
        return _turned_back(self.tool(ids) - self.object_position(ids), self.bar_yaw(ids))

    def held(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether the bar is between closed fingers (n,)."""
        along, across, above = self.astride(ids).T
        near = (np.abs(across) < 0.015) & (np.abs(along) < self._half - 0.012 if self._half else np.abs(along) < 0.012)
        return np.asarray(near & (np.abs(above) < 0.03) & (self.opening(ids) < 2 * self._radius + 0.005))

    # -- place, reward, success -----------------------------------------------------------------------------

    def put(self, i: int, handle: Array, yaw: float, opening: float) -> None:
        """Furniture of simulation ``i`` turned by ``yaw`` [rad], ajar; its bar is at ``handle`` (2,) [m] where shut."""
        turn, none = np.array([yaw]), np.zeros(1)
        shut, _ = self.bar(np.zeros((1, 3)), turn, none)
        origin = np.array([[handle[0] - shut[0, 0], handle[1] - shut[0, 1], 0.0]])
        goal, goal_yaw = self.bar(origin, turn, none + self.target)
        self.set_mocap(i, "furniture", origin[0], yaw)
        self.set_mocap(i, "goal", goal[0], float(goal_yaw[0]))
        self._qpos[i, self._object_qpos] = opening

    def furniture(self, ids: Ids) -> tuple[Array, Array]:
        """Place (n, 3) [m] and yaw (n,) [rad] of the furniture."""
        index = self._furniture_index
        turn = self._mocap_turn[ids, index]
        return np.asarray(self._mocap[ids, index]), np.asarray(2.0 * np.arctan2(turn[:, 3], turn[:, 0]))

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        handle = self.object_position(ids)
        return {
            "reach": -0.3 * np.tanh(length(self.tool(ids) - handle) / 0.1),
            "open": -0.7 * np.tanh(length(self.goal(ids) - handle) / 0.1),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray(self.opened(ids) >= self.enough)

    # -- what can befall it ---------------------------------------------------------------------------------

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Slammed: the bar moves towards where it is shut."""
        del angle
        self._qvel[ids, self._object_dof] = -speed / self.lever

    def lifted(self, ids: Ids) -> Array:
        return np.where(self.held(ids), self.opened(ids) * self.lever - AJAR, 0.0)

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        super().vary(ids, mass_scale, friction_scale)
        for name in ("dof_frictionloss", "dof_damping"):
            default = getattr(self.batch.model, name)[self._object_dof]
            self.batch.expand(name)[ids, self._object_dof] = default * friction_scale

    # -- the expert -----------------------------------------------------------------------------------------

    def expert(self, ids: Ids) -> Array:
        """Reach above, come down astride the bar, close, pull along its path: decided from the present state alone."""
        tool, handle, yaw, spread = self.tool(ids), self.object_position(ids), self.bar_yaw(ids), self.opening(ids)
        along, across, above = self.astride(ids).T
        turn = np.abs(wrapped(yaw - self.tool_yaw(ids)))
        held = self.held(ids)
        inside = np.abs(across) < np.maximum(0.5 * spread - self._radius + 0.004, 0.015 * held)  # between the fingers
        deep = (np.abs(along) < 0.02) & (np.abs(above) < 0.018)
        between = inside & deep & ((np.abs(across) < 0.018) | (above < 0.010))
        closing = between & (turn < 0.2) & ((above < 0.008) | (spread < SPREAD - 0.01))  # once begun, go on

        # to the bar: up, over it, down a funnel around it as the fingers line up with it
        velocity = np.clip(self.object_velocity(ids), -0.4, 0.4)
        off = np.sqrt(across**2 + np.maximum(np.abs(along) - 0.01, 0.0) ** 2)
        astray = np.maximum(off - 0.008, 0.0) + 0.2 * np.maximum(turn - 0.1, 0.0) + 0.1 * length(velocity)
        up = np.where(between, 0.0, np.clip(4.0 * astray, 0.0, 0.08))
        approach = along_funnel(tool, handle + 0.15 * velocity, handle[:, 2] + up)
        caught = self._caught(ids)
        approach = np.where(caught[:, None], self._outwards(tool, yaw), approach)

        # with the bar along its path
        further, further_yaw = self._further(ids)
        target = np.where(held[:, None], further, approach)
        low = (above < PAD[2] + self._radius + self._upward) & ~inside  # there the hand neither spreads nor turns
        turned = np.where(held, further_yaw, np.where(low & ~caught, self.tool_yaw(ids), yaw))
        width = np.where(held | closing, 0.0, np.where(low, np.maximum(spread - 0.01, 0.0), SPREAD))
        return self.command(bounded_step(tool, target, LEAD), turned, 2.0 * width / OPENING - 1.0)

    def _caught(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether a finger on its way up would hit the bar, its posts or the roof of the furniture from below."""
        along, across, above = self.astride(ids).T
        half, reach = 0.5 * self.opening(ids), self._radius + 0.004
        beside = np.minimum(np.abs(across - half - 0.5 * PAD[0]), np.abs(across + half + 0.5 * PAD[0]))
        bar = (np.abs(along) < self._half + PAD[1]) & (beside < 0.5 * PAD[0] + reach)
        post = (np.abs(np.abs(along) - self._half) < PAD[1] + reach) & (np.abs(across) < 0.07)
        hooked = (above < -PAD[2]) & (bar | post) & (self._half > 0)

        origin, yaw = self.furniture(ids)
        x, y, z = (_turned_back(self.tool(ids) - origin, yaw) - self._roof).T
        deep, wide = self._roof_size[1] + half + PAD[0], self._roof_size[0] + PAD[1]
        return np.asarray(hooked | ((np.abs(x) < wide) & (np.abs(y) < deep) & (z < 0.0)))

    def _outwards(self, tool: Array, yaw: Array) -> Array:
        """A place at the tool's height (n, 3), further on in the direction in which the bar opens."""
        return tool + 0.05 * np.stack([np.sin(yaw), -np.cos(yaw), np.zeros(len(yaw))], axis=1)

    def _further(self, ids: Ids) -> tuple[Array, Array]:
        """Place and yaw of the bar a ``LEAD`` further along its path: where a hand that holds it goes."""
        origin, yaw = self.furniture(ids)
        return self.bar(origin, yaw, np.minimum(self.opened(ids) + LEAD / self.lever, self.target))


def _turned_back(vector: Array, yaw: Array) -> Array:
    """The vectors (n, 3) as seen from a frame that is turned by ``yaw`` (n,) [rad]."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([cos * vector[:, 0] + sin * vector[:, 1], cos * vector[:, 1] - sin * vector[:, 0], vector[:, 2]], 1)
