"""Avoid: a puck crosses three rows of pillars by any of eight equally good ways, without touching one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import bounded_step, length
from diffpolicy_envs.task import Array, Bounds, Ids, Task

__all__ = ["WAYS", "Avoid"]

WAYS = 8  # left or right at each of three rows
HALF = np.array([0.30, 0.40])  # half the board, which actions span [m]
ROWS = np.array([0.04, 0.15, 0.26])  # y of the rows of one, two and three pillars [m]
PITCH = 0.16  # between the pillars of a row [m]
PILLARS = np.array([[(j - k / 2) * PITCH, y] for k, y in enumerate(ROWS) for j in range(k + 1)])  # (6, 2) [m]
FINISH = 0.325  # y of the finish line [m]
TOUCH = 0.011 + 0.013  # distance of the centres at which the puck touches a pillar [m]
STARTS = {  # where the puck starts: x, y from, to [m]
    "narrow": (np.array([-0.03, -0.28]), np.array([0.03, -0.22])),
    "wide": (np.array([-0.20, -0.32]), np.array([0.20, -0.12])),
}
JITTER = {"narrow": 0.003, "wide": 0.010}  # how far a pillar stands from its place, along x and y [m]
GAIN = 3.0  # the expert's target lies to the side by this times the way that is left: the drive is weak
ASIDE = 0.20  # but by no more [m]
ONWARD = 0.12  # how far ahead of the puck it lies: from here on the drive gives its full force [m]
NEAR = 0.03  # how far ahead it looks for pillars [m]
DECIDE = 0.11  # how far before the first row the expert, coming straight at it, turns aside [m]
DECIDED = 0.008  # how far beside a pillar, LEAD from now, it goes by on that side whatever was wished for [m]
LEAD = 0.1  # [s]
INTO = 0.015  # how far before a row it is to be in line with the gap that it goes through [m]
MARGIN = 0.010  # by which the expert's targets keep clear of a touch [m]
LAG = 1.0 / 30.0  # time constant of the puck's drive: what a knock carries it is speed times this [s]
TOUCHED = -50.0  # reward of a touch: what standing still for a whole episode would have cost


class Avoid(Task):
    """Success: the puck's centre crosses the finish line; an episode in which it touches a pillar has failed.

    Action (2,): x, y of the puck's target, each in [-1, 1]: absolute within -0.30..0.30 x -0.40..0.40 [m].

    Observation: ``agent`` (4,) position [m] and velocity [m/s]; ``pillars`` (12,) x, y of the six pillars [m];
    ``finish`` (1,) distance to the finish line [m].

    Record ``way``: 0..7 once all rows are passed, the binary digits of which say right (1) or left (0) of the
    pillar straight ahead, first row first; before that -1, and -2..-7 after one or two rows.

    Which way the expert wishes to go is drawn at the reset. It is part of the state and not of the observation,
    so that demonstrations are multimodal.
    """

    model = "avoid"
    substeps = 5
    max_steps = 100
    camera = "front"
    action_size = 2
    bonus = 10.0
    observation: ClassVar[Mapping[str, Bounds]] = {
        "agent": ([-0.30, -0.40, -0.4, -0.4], [0.30, 0.40, 0.4, 0.4]),
        "pillars": ([-0.18, 0.02] * 6, [0.18, 0.28] * 6),
        "finish": ([-0.05], [0.70]),
    }
    fields = ("body_mass", "dof_damping")
    records = ("way",)
    ways = WAYS
    unfit = ("slip",)
    hard = Condition("hard", "wide", shove_speed=(0.7, 1.5), sensor_noise=0.002)
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "body": ("agent", "wish", *(f"pillar{j}" for j in range(len(PILLARS)))),
        "joint": ("x", "y"),
        "sensor": ("x", "y", "x_velocity", "y_velocity"),
    }
    sensor_sizes: ClassVar[Mapping[str, int]] = dict.fromkeys(("x", "y", "x_velocity", "y_velocity"), 1)

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        model = batch.model
        self._ctrl = batch.bind("ctrl")
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self._mocap = batch.bind("mocap_pos")  # (N, bodies, 3)
        self._sensors = batch.bind("sensordata")  # (N, 4): position, velocity
        self._pillars = np.array([int(model.body(f"pillar{j}").mocapid[0]) for j in range(len(PILLARS))])
        self._wish = int(model.body("wish").mocapid[0])
        self._body = int(model.body("agent").id)

    # -- what the array functions read ----------------------------------------------------------------------

    def agent(self, ids: Ids) -> Array:
        """Centre of the puck (n, 2) [m]."""
        return np.asarray(self._sensors[ids, :2])

    def pillars(self, ids: Ids) -> Array:
        """Centres of the pillars (n, 6, 2) [m], row by row from the left."""
        return np.asarray(self._mocap[ids][:, self._pillars, :2])

    def wish(self, ids: Ids) -> Array:
        """Which side the expert would take at each row (n, 3): 0 left, 1 right."""
        return np.asarray(self._mocap[ids, self._wish])

    def clearance(self, ids: Ids) -> Array:
        """Gap between the puck and the nearest pillar (n,) [m], 0 or less where it touches."""
        gap = self.pillars(ids) - self.agent(ids)[:, None]
        return np.asarray(np.sqrt((gap**2).sum(axis=2)).min(axis=1) - TOUCH)

    # -- Task -----------------------------------------------------------------------------------------------

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        low, high = STARTS[start]
        for i, rng in zip(ids, rngs, strict=True):
            self._qpos[i] = self._ctrl[i] = rng.uniform(low, high)
            moved = rng.uniform(-JITTER[start], JITTER[start], size=PILLARS.shape)
            self._mocap[i, self._pillars, :2] = PILLARS + moved
            self._mocap[i, self._wish] = rng.integers(2, size=3)

    def control(self, ids: Ids, action: Array) -> None:
        self._ctrl[ids] = action * HALF

    def idle_action(self, ids: Ids) -> Array:
        return np.asarray(np.clip(self.agent(ids) / HALF, -1.0, 1.0))

    def observe(self, ids: Ids) -> dict[str, Array]:
        seen = np.asarray(self._sensors[ids])
        return {
            "agent": seen,
            "pillars": self.pillars(ids).reshape(len(ids), -1),
            "finish": FINISH - seen[:, 1:2],
        }

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """A cost until the success that ends the episode, at most 0.5 a step, and a touch's price."""
        left = np.clip((FINISH - self.agent(ids)[:, 1]) / 0.6, 0.0, 1.0)
        return {
            "finish": -0.5 * left,
            "touch": np.where(self.failure(ids), TOUCHED, 0.0),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return np.asarray((self.agent(ids)[:, 1] >= FINISH) & ~self.failure(ids))

    def failure(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return self.clearance(ids) <= 0.0

    def record(self, ids: Ids, so_far: Array) -> Array:
        """Decisions taken: -(1 then the digits) while rows are ahead, the digits alone once none is."""
        x, y = self.agent(ids).T
        pillars = self.pillars(ids)
        path = np.where(so_far[:, 0] < 0, -so_far[:, 0], so_far[:, 0] + 8).astype(int)  # 1, then 2-3, 4-7, 8-15
        for k, row in enumerate(ROWS):
            first = 2**k
            back = (path >= 2 * first) & (y < row)
            path = np.where(back, path >> (np.frexp(path)[1] - 1 - k), path)
            ahead = k * (k + 1) // 2 + np.where(path & 1, 1, 0) * (k > 0) + np.where(path & 2, 1, 0) * (k > 1)
            right = x > pillars[np.arange(len(ids)), ahead, 0]
            path = np.where((path >= first) & (path < 2 * first) & (y >= row), 2 * path + right, path)
        return np.where(path < 8, -path, path - 8)[:, None].astype(np.float64)

    # -- what can befall it ---------------------------------------------------------------------------------

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        """Scale the puck's mass and the drag of its drive (n,)."""
        model = self.batch.model
        self.batch.expand("body_mass")[ids, self._body] = model.body_mass[self._body] * mass_scale
        self.batch.expand("dof_damping")[ids] = model.dof_damping * friction_scale[:, None]

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Knock the puck along ``angle``, or the other way where there is more room, so far as no pillar is hit."""
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        there, back = self._room(ids, direction), self._room(ids, -direction)
        sign = np.where(there >= np.minimum(back, speed * LAG), 1.0, -1.0)
        speed = np.minimum(speed, np.maximum(there, back) / LAG)
        self._qvel[ids] = direction * (sign * speed)[:, None]

    def _room(self, ids: Ids, direction: Array) -> Array:
        """How far the puck can go along ``direction`` (n, 2) before a pillar or the edge of the board (n,) [m]."""
        where = self.agent(ids)
        gap = self.pillars(ids) - where[:, None]  # (n, 6, 2)
        along = (gap * direction[:, None]).sum(axis=2)
        aside = (gap**2).sum(axis=2) - along**2
        reach = along - np.sqrt(np.maximum((TOUCH + MARGIN) ** 2 - aside, 0.0))
        blocked = (aside < (TOUCH + MARGIN) ** 2) & (along > 0)
        edge = (HALF - where * np.sign(direction)) / np.maximum(np.abs(direction), 1e-9)
        room = np.minimum(np.where(blocked, reach, np.inf).min(axis=1), edge.min(axis=1))
        return np.asarray(np.maximum(room, 0.0))

    # -- the expert -----------------------------------------------------------------------------------------

    def expert(self, ids: Ids) -> Array:
        """Straight to the gap wished for in the next row, or, where a pillar is in that way, to one that is free."""
        agent = self.agent(ids)
        dx, dy = (self._aim(ids, agent) - agent).T
        pace = np.where(np.abs(dx) < 0.012, 1.0, np.clip(dy / np.maximum(np.abs(dx) - 0.012, 1e-9), 0.0, 1.0))
        lead = np.stack([np.clip(GAIN * dx, -ASIDE, ASIDE), ONWARD * pace], axis=1)
        near = bounded_step(agent, agent + np.clip(lead, -ONWARD, ONWARD), NEAR)
        aside = near.copy()
        for j in range(len(PILLARS)):  # round a pillar that is in the way
            away = aside - self.pillars(ids)[:, j]
            far = length(away)[:, None]
            aside = aside + away / np.maximum(far, 1e-9) * np.maximum(TOUCH + MARGIN - far, 0.0)
        target = agent + lead + ONWARD / NEAR * (aside - near)
        return np.asarray(np.clip(target / HALF, -1.0, 1.0))

    def _aim(self, ids: Ids, agent: Array) -> Array:
        """The gap of the next row to go to, or the finish (n, 2) [m].

        It is beside the pillar straight ahead: on the side to which the puck leans already, else on that wished for.
        A label from wherever a learner went is so one for the way that the learner is on.
        """
        n, pillars, wish = len(ids), self.pillars(ids), self.wish(ids)
        leans = agent[:, 0] + LEAD * self._sensors[ids, 2]  # (n,)
        aim = np.stack([agent[:, 0], np.full(n, HALF[1])], axis=1)
        for k in (2, 1, 0):
            x = pillars[:, k * (k + 1) // 2 : (k + 1) * (k + 2) // 2, 0]  # (n, k + 1), left to right
            inner = (x[:, 1:] + x[:, :-1]) / 2
            gaps = np.concatenate([x[:, :1] - PITCH / 2, inner, x[:, -1:] + PITCH / 2], axis=1)  # (n, k + 2)
            line = np.maximum(agent[:, 1], ROWS[k] - INTO)
            score = np.stack([self._score(pillars, agent, gaps[:, g], line) for g in range(k + 2)], axis=1)
            ahead = np.abs(x - leans[:, None]).argmin(axis=1)
            aside = leans - x[np.arange(n), ahead]
            right = np.where(np.abs(aside) > DECIDED, aside > 0, wish[:, k] > 0.5)
            score += np.where(np.arange(k + 2) == (ahead + right)[:, None], 10.0, 0.0) * (score > -0.2)
            best = np.stack([gaps[np.arange(n), score.argmax(axis=1)], line], axis=1)
            aim = np.where((agent[:, 1] < ROWS[k])[:, None], best, aim)
        first = np.stack([pillars[:, 0, 0], np.full(n, ROWS[0] - DECIDE)], axis=1)
        return np.where((agent[:, 1] < ROWS[0] - DECIDE)[:, None], first, aim)

    @staticmethod
    def _score(pillars: Array, agent: Array, gap: Array, line: Array) -> Array:
        """How good the straight way to x = ``gap``, y = ``line`` is (n,): 0 where free, less where long or blocked."""
        way = np.stack([gap, line], axis=1) - agent
        span = np.maximum((way**2).sum(axis=1), 1e-9)
        to = pillars - agent[:, None]
        share = np.clip((to * way[:, None]).sum(axis=2) / span[:, None], 0.0, 1.0)
        nearest = np.sqrt(((to - share[:, :, None] * way[:, None]) ** 2).sum(axis=2)).min(axis=1)
        blocked = np.clip((TOUCH + 0.004 - nearest) / 0.02, 0.0, 1.0)
        return np.asarray(-blocked - 0.1 * np.abs(way[:, 0]))
