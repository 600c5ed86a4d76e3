"""PushT: push the T onto the T that is painted on the table, until it covers 95% of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import Condition, Start
from diffpolicy_envs.motion import length, wrapped
from diffpolicy_envs.overlap import covered
from diffpolicy_envs.planner import PlannerConfig
from diffpolicy_envs.strokes import CENTRE, OUTLINE, PARTS, RADIUS, SIDE, strokes
from diffpolicy_envs.task import Array, Bounds, Ids, Task

__all__ = ["PushT"]

TURN = 0.06  # how far the T starts turned from its goal at most, narrow [rad]
SHORT = np.array([-0.006, -0.03]), np.array([0.006, -0.01])  # where it starts, from the goal and in its axes [m]
BEHIND = np.array([-0.01, -0.045]), np.array([0.01, -0.03])  # where the pusher starts, from the T and in its axes [m]
COVERAGE = 0.95  # at which it counts as done
KICK = 2.5  # how much faster the T is kicked than a condition's shove, since the table stops it in 20 ms

_MIDDLE = OUTLINE.mean(axis=0)
_SPREAD = float(((OUTLINE - _MIDDLE) ** 2).sum(axis=1).mean())  # [m^2]


class PushT(Task):
    """A T within a frame of 512 mm; its goal is the middle, at 45 degrees. Success: 95% covered.

    Narrow: the T is 1 to 3 cm short of the goal, within 6 mm and 3.4 degrees of its line, the pusher behind its bar.
    Wide: it is anywhere, often at a wall or in a corner, turned any way.

    Action (2,): x and y of where the pusher shall be, each in [-1, 1] over the frame.

    Observation: ``pusher`` (4,) position [m] and velocity [m/s]; ``block`` (7,) position of the T's origin, the
    middle of its bar's outer edge [m], cosine and sine of its angle, velocity [m/s] and rate of turning [rad/s];
    ``goal`` (4,) position [m], cosine and sine of its angle; ``corners`` (16,) of the T [m]; ``relative`` (5,)
    the pusher and the goal from the T's origin, in the T's own axes [m], and the turn to the goal [rad]: within
    narrow bounds, so that in units of these a millimetre is no small number.
    """

    model = "push_t"
    substeps = 20
    max_steps = 300
    camera = "top"
    action_size = 2
    bonus = 10.0
    observation: ClassVar[Mapping[str, Bounds]] = {
        "pusher": ([0.0, 0.0, -2.0, -2.0], [SIDE, SIDE, 2.0, 2.0]),
        "block": ([0.0, 0.0, -1.0, -1.0, -1.0, -1.0, -10.0], [SIDE, SIDE, 1.0, 1.0, 1.0, 1.0, 10.0]),
        "goal": ([0.0, 0.0, -1.0, -1.0], [SIDE, SIDE, 1.0, 1.0]),
        "corners": ([0.0] * 16, [SIDE] * 16),
        "relative": ([-0.15, -0.15, -0.06, -0.06, -0.5], [0.15, 0.15, 0.06, 0.06, 0.5]),
    }
    fields = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
    records = ("coverage", "max_coverage")
    unfit = ("slip",)
    hard = Condition("hard", shove_speed=(0.3, 0.7), sensor_noise=0.001)
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "body": ("block", "goal", "pusher"),
        "joint": ("block_x", "block_y", "block_yaw", "pusher_x", "pusher_y"),
        "geom": ("pusher",),
    }
    planning: ClassVar[PlannerConfig] = PlannerConfig(
        samples=64,
        horizon=25,
        noise=(0.005, 0.015, 0.04),
        proposals=0.5,
        mean=0.0,
        least=1.0,
        soon=0.1,
        smoothness=0.3,
        margin=0.1,
        substeps=4,
    )

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        model = batch.model
        self._ctrl, self._qpos, self._qvel = batch.bind("ctrl"), batch.bind("qpos"), batch.bind("qvel")
        quaternion = model.body("goal").quat
        self._goal = np.array([*model.body("goal").pos[:2], 2.0 * np.arctan2(quaternion[3], quaternion[0])])
        self.step_time = float(model.opt.timestep) * self.substeps  # [s]
        self._block, self._pusher = int(model.body("block").id), int(model.geom("pusher").id)

    # -- what the array functions read ------------------------------------------------------------------------

    def pose(self, ids: Ids) -> tuple[Array, Array]:
        """Origin (n, 2) [m] and angle (n,) [rad] of the T."""
        centre, angle = self._qpos[ids, :2], self._qpos[ids, 2]
        return centre - CENTRE[1] * np.stack([-np.sin(angle), np.cos(angle)], axis=1), angle

    def pusher(self, ids: Ids) -> Array:
        """Position (n, 2) of the pusher [m]."""
        return np.asarray(self._qpos[ids, 3:5])

    def coverage(self, ids: Ids) -> Array:
        """Share (n,) of the painted T that the T covers."""
        origin, angle = self.pose(ids)
        return covered(PARTS, _turned(origin - self._goal[:2], -self._goal[2]), angle - self._goal[2])

    # -- Task -------------------------------------------------------------------------------------------------

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        for i, rng in zip(ids, rngs, strict=True):
            self._qpos[i] = self._before(rng) if start == "narrow" else self._anywhere(rng)
            self._ctrl[i] = self._qpos[i, 3:5]

    def _before(self, rng: np.random.Generator) -> Array:
        """The T short of its goal, the pusher behind its bar: x, y of the centre of mass, angle, x, y of the pusher."""
        angle = self._goal[2] + rng.uniform(-TURN, TURN)
        origin = self._goal[:2] + _turned(rng.uniform(*SHORT)[None], self._goal[2:])[0]
        pusher = origin + _turned(rng.uniform(*BEHIND)[None], np.array([angle]))[0]
        return np.array([*(origin + _turned(CENTRE[None], np.array([angle]))[0]), angle, *pusher])

    def _anywhere(self, rng: np.random.Generator) -> Array:
        """The T anywhere in the frame, often at a wall or in a corner, and the pusher clear of it."""
        angle = rng.uniform(-np.pi, np.pi)
        corners = _turned(OUTLINE - CENTRE, np.full(8, angle))
        low, high = 0.001 - corners.min(axis=0), SIDE - 0.001 - corners.max(axis=0)
        middle = low + np.clip(rng.uniform(-0.15, 1.15, 2), 0.0, 1.0) * (high - low)
        pusher = rng.uniform(2 * RADIUS, SIDE - 2 * RADIUS, 2)
        while np.hypot(*(pusher - middle)) < 0.11:
            pusher = rng.uniform(2 * RADIUS, SIDE - 2 * RADIUS, 2)
        return np.array([*middle, angle, *pusher])

    def control(self, ids: Ids, action: Array) -> None:
        self._ctrl[ids] = (action + 1.0) * (0.5 * SIDE)

    def observe(self, ids: Ids) -> dict[str, Array]:
        (origin, angle), pusher, rates = self.pose(ids), self.pusher(ids), self._qvel[ids]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
        arm = CENTRE[1] * rates[:, 2:3]  # the origin's velocity is that of the centre of mass and of the turn
        velocity = rates[:, :2] + arm * np.concatenate([cos, sin], axis=1)
        x = origin[:, :1] + cos * OUTLINE[:, 0] - sin * OUTLINE[:, 1]  # (n, 8)
        y = origin[:, 1:] + sin * OUTLINE[:, 0] + cos * OUTLINE[:, 1]
        relative = (_turned(pusher - origin, -angle), _turned(self._goal[:2] - origin, -angle))
        turn = wrapped(self._goal[2] - angle)[:, None]
        goal = np.tile([*self._goal[:2], np.cos(self._goal[2]), np.sin(self._goal[2])], (len(ids), 1))
        return {
            "pusher": np.concatenate([pusher, rates[:, 3:5]], axis=1),
            "block": np.concatenate([origin, cos, sin, velocity, rates[:, 2:3]], axis=1),
            "goal": goal,
            "corners": np.stack([x, y], axis=2).reshape(len(ids), 16),
            "relative": np.concatenate([*relative, turn], axis=1),
        }

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Costs until the success that ends the episode, each at most 1 a step."""
        coverage = self.coverage(ids)
        return {
            "coverage": -0.7 * (1.0 - coverage),
            "distance": -0.3 * np.tanh(self.distance(ids) / 0.1),
        }

    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        return self.coverage(ids) >= COVERAGE

    def record(self, ids: Ids, so_far: Array) -> Array:
        coverage = self.coverage(ids)
        return np.stack([coverage, np.maximum(coverage, so_far[:, 1])], axis=1)

    def distance(self, ids: Ids) -> Array:
        """Root mean square (n,) of the way that the T's corners have to go [m]: place and angle in one."""
        origin, angle = self.pose(ids)
        turn = angle - self._goal[2]
        gap = origin + _turned(np.broadcast_to(_MIDDLE, origin.shape), angle)
        gap = gap - self._goal[:2] - _turned(_MIDDLE[None], self._goal[2:])
        return np.asarray(np.sqrt((gap**2).sum(axis=1) + 2.0 * _SPREAD * (1.0 - np.cos(turn))))

    def cost(self, ids: Ids) -> Array:
        away = length(self.pusher(ids) - self._qpos[ids, :2])
        return self.distance(ids) + 0.02 * np.maximum(away - 0.1, 0.0)

    def idle_action(self, ids: Ids) -> Array:
        return np.clip(self.pusher(ids) / (0.5 * SIDE) - 1.0, -1.0, 1.0)

    def propose(self, i: int, rng: np.random.Generator, count: int, horizon: int) -> Array:
        times = self.step_time * np.arange(1.0, horizon + 1.0)
        paths = strokes(self._qpos[i, :3], self._qpos[i, 3:5], rng, count, times)
        return paths / (0.5 * SIDE) - 1.0

    # -- what can befall it -----------------------------------------------------------------------------------

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        """The T's mass, with it how the table slows it down, and the pusher's friction."""
        model, block = self.batch.model, self._block
        self.batch.expand("body_mass")[ids, block] = model.body_mass[block] * mass_scale
        self.batch.expand("body_inertia")[ids, block] = model.body_inertia[block] * mass_scale[:, None]
        self.batch.expand("dof_damping")[ids, :3] = model.dof_damping[:3] * mass_scale[:, None]
        friction = model.geom_friction[self._pusher, 0] * friction_scale
        self.batch.expand("geom_friction")[ids, self._pusher, 0] = friction

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Kick the T: it slides by 2 to 8 cm and turns."""
        self._qvel[ids, 0] = KICK * speed * np.cos(angle)
        self._qvel[ids, 1] = KICK * speed * np.sin(angle)
        self._qvel[ids, 2] = 20.0 * speed * np.sin(3.0 * angle)


def _turned(vector: Array, angle: Array) -> Array:
    """Vectors (n, 2) turned by angles (n,) or (1,) or by one [rad]."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos * vector[:, 0] - sin * vector[:, 1], sin * vector[:, 0] + cos * vector[:, 1]], axis=1)
