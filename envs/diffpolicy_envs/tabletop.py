"""What every task of the arm on the table shares: action, robot observation, and what can befall the object."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.task import Array, Bounds, Ids, Task

__all__ = ["TabletopTask", "bounded_step", "canonical_cube_rotation", "quaternion_matrix"]

LOW = np.array([0.30, -0.30, 0.0])  # workspace of the tool [m]
HIGH = np.array([0.66, 0.30, 0.30])
YAW = np.pi / 2  # largest yaw of the hand [rad]
OPENING = 0.08  # largest distance between the pads [m]
REACHABLE_LOW = np.array([0.33, -0.27])  # where a shove may leave the object [m]
REACHABLE_HIGH = np.array([0.63, 0.27])


class TabletopTask(Task):
    """One arm, one free object, one goal.

    Action (5,): x, y, z, yaw, grip of the hand's target, each in [-1, 1]: absolute within the workspace
    0.30..0.66 x -0.30..0.30 x 0..0.30 [m], yaw in -pi/2..pi/2 [rad], opening in 0..0.08 [m].

    Observation: ``robot`` (9,) position of the tool [m], cosine and sine of its yaw, velocity [m/s], opening
    [m]; ``object`` (12,) position [m], first two columns of its rotation matrix turned into the object's
    canonical orientation (the symmetric equal that is nearest to the identity), velocity [m/s]; ``goal``
    (3,) position [m]; ``relative`` (6,) from the tool to the object and from the object to the goal [m].
    """

    substeps = 10
    max_steps = 150
    camera = "front"
    action_size = 5
    observation: ClassVar[Mapping[str, Bounds]] = {
        "robot": (
            [0.2, -0.4, -0.05, -1.0, -1.0, -1.5, -1.5, -1.5, 0.0],
            [0.8, 0.4, 0.4, 1.0, 1.0, 1.5, 1.5, 1.5, 0.085],
        ),
        "object": (
            [0.2, -0.4, -0.05, -1, -1, -1, -1, -1, -1, -1.5, -1.5, -1.5],
            [0.8, 0.4, 0.4, 1, 1, 1, 1, 1, 1, 1.5, 1.5, 1.5],
        ),
        "goal": ([0.2, -0.4, -0.05], [0.8, 0.4, 0.4]),
        "relative": ([-0.3] * 6, [0.3] * 6),
    }
    fields = ("body_mass", "body_inertia", "geom_friction")

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        model = batch.model
        self._ctrl = batch.bind("ctrl")
        self._qpos = batch.bind("qpos")
        self._qvel = batch.bind("qvel")
        self._goal = batch.bind("mocap_pos")[:, 0]  # (N, 3)
        sensors = batch.bind("sensordata")
        self._sensor = {
            model.sensor(i).name: sensors[:, adr : adr + dim]
            for i, (adr, dim) in enumerate(zip(model.sensor_adr, model.sensor_dim, strict=True))
        }
        self._object_qpos = int(model.jnt_qposadr[model.joint("object").id])
        self._object_dof = int(model.jnt_dofadr[model.joint("object").id])
        self._object_body = int(model.body("object").id)
        self._object_geom = int(model.geom("object").id)
        self._rest = float(model.geom("object").size[2])  # half height [m]

    # -- what the array functions read ----------------------------------------------------------------------

    def tool(self, ids: Ids) -> Array:
        """Tool centre point (n, 3) [m]."""
        return np.asarray(self._sensor["tool_position"][ids])

    def tool_yaw(self, ids: Ids) -> Array:
        """Yaw of the hand (n,) [rad]."""
        x = self._sensor["tool_x"][ids]
        return np.asarray(np.arctan2(x[:, 1], x[:, 0]))

    def opening(self, ids: Ids) -> Array:
        """Distance between the pads (n,) [m]."""
        return np.asarray(self._sensor["opening"][ids, 0])

    def object_position(self, ids: Ids) -> Array:
        """Centre of the object (n, 3) [m]."""
        return np.asarray(self._sensor["object_position"][ids])

    def object_rotation(self, ids: Ids) -> Array:
        """Canonical rotation of the object (n, 3, 3)."""
        return canonical_cube_rotation(quaternion_matrix(self._sensor["object_quaternion"][ids]))

    def object_velocity(self, ids: Ids) -> Array:
        """Linear velocity of the object (n, 3) [m/s]."""
        return np.asarray(self._sensor["object_velocity"][ids])

    def goal(self, ids: Ids) -> Array:
        """Goal (n, 3) [m]."""
        return np.asarray(self._goal[ids])

    # -- Task -----------------------------------------------------------------------------------------------

    def control(self, ids: Ids, action: Array) -> None:
        ctrl = np.zeros((len(ids), 7))
        ctrl[:, :3] = LOW + (action[:, :3] + 1.0) * 0.5 * (HIGH - LOW)
        ctrl[:, 5] = action[:, 3] * YAW
        ctrl[:, 6] = (action[:, 4] + 1.0) * 0.5 * OPENING
        self._ctrl[ids] = ctrl

    def command(self, position: Array, yaw: Array, grip: Array) -> Array:
        """The action (n, 5) for a target position [m], yaw [rad] and grip in [-1, 1]."""
        action = np.empty((len(position), 5))
        action[:, :3] = (position - LOW) / (HIGH - LOW) * 2.0 - 1.0
        action[:, 3] = yaw / YAW
        action[:, 4] = grip
        return np.clip(action, -1.0, 1.0)

    def idle_action(self, ids: Ids) -> Array:
        return self.command(self.tool(ids), self.tool_yaw(ids), np.ones(len(ids)))

    def release(self, ids: Ids, action: Array) -> Array:
        del ids
        released = action.copy()
        released[:, 4] = 1.0
        return released

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        # turned towards the middle where the object would otherwise slide out of the arm's reach
        direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        where = self.object_position(ids)[:, :2]
        landing = where + direction * (0.12 * speed + 0.04)[:, None]
        outside = (landing < REACHABLE_LOW) | (landing > REACHABLE_HIGH)
        inward = np.sign((REACHABLE_LOW + REACHABLE_HIGH) / 2 - where)
        direction = np.where(outside, np.abs(direction) * inward, direction)
        dof = self._object_dof
        self._qvel[ids, dof : dof + 2] = direction * speed[:, None]

    def lifted(self, ids: Ids) -> Array:
        height = self.object_position(ids)[:, 2] - self._rest
        near = np.sqrt(((self.object_position(ids) - self.tool(ids)) ** 2).sum(axis=1)) < 0.03
        return np.where(near, height, 0.0)

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        model = self.batch.model
        body, geom = self._object_body, self._object_geom
        self.batch.expand("body_mass")[ids, body] = model.body_mass[body] * mass_scale
        self.batch.expand("body_inertia")[ids, body] = model.body_inertia[body] * mass_scale[:, None]
        friction = self.batch.expand("geom_friction")
        friction[ids, geom, 0] = model.geom_friction[geom, 0] * friction_scale

    def observe(self, ids: Ids) -> dict[str, Array]:
        yaw = self.tool_yaw(ids)
        heading = np.stack([np.cos(yaw), np.sin(yaw)], axis=1)
        velocity = self._sensor["tool_velocity"][ids]
        robot = np.concatenate([self.tool(ids), heading, velocity, self._sensor["opening"][ids]], axis=1)
        rotation = self.object_rotation(ids)
        thing = np.concatenate(
            [self.object_position(ids), rotation[:, :, 0], rotation[:, :, 1], self.object_velocity(ids)],
            axis=1,
        )
        tool, cube, goal = self.tool(ids), self.object_position(ids), self.goal(ids)
        relative = np.concatenate([cube - tool, goal - cube], axis=1)
        return {"robot": robot, "object": thing, "goal": goal, "relative": relative}


def bounded_step(current: Array, desired: Array, limit: float) -> Array:
    """The point (n, 3) on the way from ``current`` to ``desired``, at most ``limit`` [m] ahead."""
    gap = desired - current
    distance = np.sqrt((gap**2).sum(axis=1, keepdims=True))
    return np.asarray(current + gap * np.minimum(1.0, limit / np.maximum(distance, 1e-9)))


def quaternion_matrix(quaternion: npt.ArrayLike) -> Array:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4), scalar first."""
    w, x, y, z = np.moveaxis(np.asarray(quaternion, dtype=np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def canonical_cube_rotation(rotation: Array) -> Array:
    """Of the 24 rotations (n, 3, 3) that look the same on a cube, the one nearest to the identity.

    Nearest is the largest trace of R P over the signed permutations P of determinant 1.
    """
    best = np.full(len(rotation), -np.inf)
    result = rotation.copy()
    for columns, signs in _CUBE_GROUP:
        c0, c1, c2 = columns
        s0, s1, s2 = signs
        trace = rotation[:, 0, c0] * s0 + rotation[:, 1, c1] * s1 + rotation[:, 2, c2] * s2
        better = trace > best + 1e-9
        best = np.where(better, trace, best)
        result = np.where(better[:, None, None], rotation[:, :, columns] * np.array(signs), result)
    return result


def _cube_group() -> list[tuple[list[int], list[float]]]:
    parity = {c: float(np.round(np.linalg.det(np.eye(3)[:, c]))) for c in itertools.permutations(range(3))}
    return [
        (list(columns), [s0, s1, sign * s0 * s1])
        for columns, sign in parity.items()
        for s0, s1 in itertools.product((1.0, -1.0), repeat=2)
    ]


_CUBE_GROUP = _cube_group()
