"""Push: slide a parcel that is too wide to be gripped onto the green disc."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import along_funnel, bounded_step, length
from diffpolicy_envs.tabletop import HIGH, LOW, TabletopTask
from diffpolicy_envs.task import Array, Ids

__all__ = ["Push"]

STARTS = {  # where the parcel and where the goal starts: x, y from, to [m]
    "narrow": np.array([[[0.42, -0.16], [0.54, -0.03]], [[0.42, 0.03], [0.54, 0.16]]]),  # from the right to the left
    "wide": np.array([[[0.39, -0.21], [0.57, 0.21]], [[0.39, -0.21], [0.57, 0.21]]]),  # from anywhere to anywhere
}
TURNED = {"narrow": 0.15, "wide": np.pi / 4}  # largest yaw of the parcel at the start [rad]
APART = 0.14  # least distance between parcel and goal [m]
LEAD = 0.035  # how far ahead of the tool the expert sets its target [m]
SLOW = 0.025  # the same while it pushes [m]
TOLERANCE = 0.04  # largest distance of the parcel from the goal [m]
LOW_HAND = 0.02  # height of the tool that pushes [m]
CLIMB = 0.06  # how far it rises to pass over the parcel [m]
HALF = 0.045  # half a side of the parcel [m]
FINGERS = 0.014  # half the closed fingers' width [m]
BACK = 0.105  # how far behind the parcel's centre the hand comes down [m]
TIPS = 0.014  # from the fingers' tips up to the tool [m]
LANE = 0.028  # sideways error within which it pushes [m]


class Push(TabletopTask):
    """Success: the parcel rests within 4 cm of the goal."""

    model = "push"
    unfit: ClassVar[tuple[str, ...]] = ("slip",)
    looks_same = "prism"
    hard = Condition(
        "hard", shove_speed=(0.3, 1.1), sensor_noise=0.005, mass_scale=(0.5, 2.0), friction_scale=(0.6, 1.4)
    )

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        of_parcel, of_goal = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            parcel, goal = rng.uniform(of_parcel[0], of_parcel[1]), rng.uniform(of_goal[0], of_goal[1])
            while np.hypot(*(goal - parcel)) < APART:
                goal = rng.uniform(of_goal[0], of_goal[1])
            self.jitter_arm(i, rng)
            self.set_object(i, [parcel[0], parcel[1], self._rest], rng.uniform(-1.0, 1.0) * TURNED[start])
            self.set_mocap(i, "goal", [goal[0], goal[1], 0.0])

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, together at most 1 a step."""
        reach = length(self.tool(ids) - self.object_position(ids))
        return {
            "reach": -0.2 * np.tanh(np.maximum(reach - HALF, 0.0) / 0.1),
            "push": -0.8 * np.tanh(self._goal_distance(ids) / 0.1),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        still = length(self.object_velocity(ids)) < 0.05
        flat = self.object_position(ids)[:, 2] < self._rest + 0.005
        return np.asarray((self._goal_distance(ids) < TOLERANCE) & still & flat)

    def _goal_distance(self, ids: Ids) -> Array:
        return length((self.object_position(ids) - self.goal(ids))[:, :2])

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Knocked away, and turned inwards where the hand could no longer get behind it."""
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        where, (low, high) = self.object_position(ids)[:, :2], STARTS["wide"][0]
        landing = where + direction * (0.064 * speed**2)[:, None]
        inward = np.sign((low + high) / 2 - where)
        direction = np.where((landing < low) | (landing > high), np.abs(direction) * inward, direction)
        self._qvel[ids, self._object_dof : self._object_dof + 2] = direction * speed[:, None]

    def idle_action(self, ids: Ids) -> Array:
        return self.command(self.tool(ids), self.tool_yaw(ids), -np.ones(len(ids)))

    def _aim(self, ids: Ids) -> tuple[Array, Array, Array]:
        """Which way to push (n, 2), how far (n,), and how far behind the parcel's centre the hand then is (n,) [m].

        A parcel that stands on its edge is pushed over first.
        """
        rotation, way = self.object_rotation(ids), (self.goal(ids) - self.object_position(ids))[:, :2]
        far = np.maximum(length(way), 1e-6)
        flat = way / far[:, None]
        own = np.abs((rotation[:, :2, :2] * flat[:, :, None]).sum(axis=1))  # (n, 2), along the parcel's own axes
        side = HALF / np.maximum(own.max(axis=1), 0.5)
        edge = np.abs(rotation[:, 2, 2]) < 0.7
        over = rotation[:, :2, 2] * np.where((rotation[:, :2, 2] * way).sum(axis=1) < 0, -1.0, 1.0)[:, None]
        over /= np.maximum(length(over), 1e-6)[:, None]
        ahead = np.where(edge[:, None], over, flat)
        return ahead, np.where(edge, 0.1, far), np.where(edge, self._rest, side) + FINGERS

    def _beside(self, ids: Ids, one: Array, other: Array) -> Array:
        """By how much a side of the parcel keeps clear of the fingers from place ``one`` to ``other``: (n,) [m]."""
        rotation, parcel = self.object_rotation(ids)[:, :2, :2], self.object_position(ids)[:, :2]
        own = [(rotation * (place - parcel)[:, :, None]).sum(axis=1) for place in (one, other)]  # each (n, 2)
        least, most = np.minimum(*own), np.maximum(*own)
        return np.asarray(np.maximum(least, -most).max(axis=1) - HALF - FINGERS)

    def expert(self, ids: Ids) -> Array:
        """Over the parcel to the place behind it, down, and along the line to the goal; astray, up and round again."""
        tool, parcel, goal = self.tool(ids), self.object_position(ids), self.goal(ids)
        ahead, far, touch = self._aim(ids)
        offset = (tool - parcel)[:, :2]
        behind = -(offset * ahead).sum(axis=1)
        aside = np.abs(offset[:, 0] * ahead[:, 1] - offset[:, 1] * ahead[:, 0])
        tall = (np.abs(self.object_rotation(ids)[:, 2]) * np.array([HALF, HALF, self._rest])).sum(axis=1)  # half height
        level = LOW_HAND + 2.0 * np.maximum(parcel[:, 2] - self._rest - 0.005, 0.0)  # higher where it stands on edge
        entry = parcel[:, :2] - ahead * np.minimum(touch + 0.046, BACK)[:, None]
        room = np.minimum(entry - LOW[:2], HIGH[:2] - entry).min(axis=1)  # [m] between the entry and the reach's end

        # along the line while behind the parcel, the hand low
        lane = LANE + 0.5 * np.clip(behind - touch, 0.0, 0.03)
        pushing = (tool[:, 2] < level + 0.02) & (aside < lane) & (behind > 0.03) & (behind < touch + 0.055)
        brake = np.where(far < 0.015, 0.0, 0.35 * far + 0.004)  # it comes to rest within the goal, not beyond
        push = np.concatenate(
            [tool[:, :2] + ahead * brake[:, None], level[:, None]], axis=1
        )  # it moves as the hand does

        # else to the entry, passing over the parcel
        entry = np.clip(entry + 0.1 * np.clip(self.object_velocity(ids)[:, :2], -0.4, 0.4), LOW[:2], HIGH[:2])
        off = length(tool[:, :2] - entry)
        above = np.clip(4.0 * np.minimum(off - 0.01, 0.008 - self._beside(ids, tool[:, :2], entry)), 0.0, CLIMB)
        approach = along_funnel(tool, entry, level + above)
        target = np.where(pushing[:, None], bounded_step(tool, push, SLOW), bounded_step(tool, approach, LEAD))

        # where there is no room behind it, press on the mat and drag
        on_top = (length(offset) < 0.035) & (tool[:, 2] < parcel[:, 2] + tall + 0.035)
        dragging = ~pushing & (room < np.where(on_top, 0.03, -0.005))
        target = np.where(dragging[:, None], self._drag(tool, parcel, goal, tall, on_top), target)
        return self.command(target, np.zeros(len(ids)), -np.ones(len(ids)))

    @staticmethod
    def _drag(tool: Array, parcel: Array, goal: Array, tall: Array, on_top: npt.NDArray[np.bool_]) -> Array:
        """Come down on the parcel, press, and draw it towards the goal: where the hand goes next (n, 3)."""
        top = parcel[:, 2] + tall + TIPS
        place = np.clip(parcel[:, :2], LOW[:2], HIGH[:2])
        above = np.clip(2.5 * (length(tool[:, :2] - place) - 0.015), -0.004, 0.05)
        down = bounded_step(tool, along_funnel(tool, place, top + above), LEAD)
        draw = np.concatenate(
            [bounded_step(tool[:, :2], tool[:, :2] + (goal - parcel)[:, :2], 0.02), tool[:, 2:] - 0.015], axis=1
        )
        pressing = on_top & (tool[:, 2] < top + 0.004)
        return np.where(pressing[:, None], draw, down)
