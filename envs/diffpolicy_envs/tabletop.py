"""What every task of the arm on the table shares: action, robot observation, and what can befall the object."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from typing import ClassVar, Literal

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.task import Array, Bounds, Ids, Task

__all__ = ["HIGH", "LOW", "Symmetry", "TabletopTask", "canonical_rotation", "quaternion_matrix", "task_code"]

Symmetry = Literal["cube", "prism", "nothing"]
"""Turns after which an object looks the same: all 24 of a cube's, the 4 of a standing square prism, or none."""

_OBJECT_SENSORS = ("object_position", "object_quaternion", "object_velocity")

LOW = np.array([0.30, -0.30, 0.0])  # workspace of the tool [m]
HIGH = np.array([0.66, 0.30, 0.30])
YAW = np.pi / 2  # largest yaw of the hand [rad]
OPENING = 0.08  # largest distance between the pads [m]
REACHABLE_LOW = np.array([0.33, -0.27])  # where a shove may leave the object [m]
REACHABLE_HIGH = np.array([0.63, 0.27])


class TabletopTask(Task):
    """One arm, one object to move, one goal: the same action and observation in every task.

    Action (5,): x, y, z, yaw, grip of the hand's target, each in [-1, 1]: absolute within the workspace
    0.30..0.66 x -0.30..0.30 x 0..0.30 [m], yaw in -pi/2..pi/2 [rad], opening in 0..0.08 [m].

    Observation: ``robot`` (9,) position of the tool [m], cosine and sine of its yaw, velocity [m/s], opening
    [m]; ``object`` (12,) of what is to be moved (cube, peg, handle, button): position [m], first two columns of
    its rotation matrix turned into its canonical orientation (of those that look the same the one that is
    nearest to the identity), velocity [m/s]; ``goal`` (5,) position [m], cosine and sine of its yaw;
    ``relative`` (6,) from the tool to the object and from the object to the goal [m]; ``task`` (16,) a code
    drawn from the task's name, so that a policy of many tasks knows which one it is in.

    The model names the body ``object``, the mocap body ``goal`` and the sensors of ``needs``.
    """

    substeps = 10
    max_steps = 150
    camera = "front"
    action_size = 5
    bonus = 10.0
    observation: ClassVar[Mapping[str, Bounds]] = {
        "robot": (
            [0.2, -0.4, -0.05, -1.0, -1.0, -1.5, -1.5, -1.5, 0.0],
            [0.8, 0.4, 0.4, 1.0, 1.0, 1.5, 1.5, 1.5, 0.085],
        ),
        "object": (
            [0.2, -0.4, -0.05, -1, -1, -1, -1, -1, -1, -1.5, -1.5, -1.5],
            [0.8, 0.4, 0.4, 1, 1, 1, 1, 1, 1, 1.5, 1.5, 1.5],
        ),
        "goal": ([0.2, -0.4, -0.05, -1.0, -1.0], [0.8, 0.4, 0.4, 1.0, 1.0]),
        "relative": ([-0.3] * 6, [0.3] * 6),
        "task": ([-1.0] * 16, [1.0] * 16),
    }
    fields: ClassVar[tuple[str, ...]] = ("body_mass", "body_inertia", "geom_friction")
    noiseless: ClassVar[tuple[str, ...]] = ("task",)
    unfit: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "body": ("object", "goal"),
        "geom": ("object",),
        "sensor": ("tool_position", "tool_x", "tool_velocity", "opening", *_OBJECT_SENSORS),
    }
    sensor_sizes: ClassVar[Mapping[str, int]] = {
        **dict.fromkeys(("tool_position", "tool_x", "tool_velocity", "object_position", "object_velocity"), 3),
        "opening": 1,
        "object_quaternion": 4,
    }
    looks_same: ClassVar[Symmetry] = "cube"  # turns after which the object looks the same

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        model = batch.model
        self._ctrl = batch.bind("ctrl")
        self._qpos = batch.bind("qpos")
        self._qvel = batch.bind("qvel")
        self._mocap = batch.bind("mocap_pos")  # (N, bodies, 3)
        self._mocap_turn = batch.bind("mocap_quat")  # (N, bodies, 4)
        self._goal_index = int(model.body("goal").mocapid[0])
        if self._goal_index < 0:
            raise ValueError(f"task {type(self).__name__}: the body 'goal' in {self.model} must have mocap=\"true\"")
        self._sensors = batch.bind("sensordata")  # (N, sum of their lengths)
        self._columns = {
            model.sensor(i).name: slice(adr, adr + dim)
            for i, (adr, dim) in enumerate(zip(model.sensor_adr, model.sensor_dim, strict=True))
        }
        self._sensor = {name: self._sensors[:, columns] for name, columns in self._columns.items()}
        self._object_body = int(model.body("object").id)
        self._object_geom = int(model.geom("object").id)
        jointed = bool(model.body("object").jntnum[0])
        joint = int(model.body("object").jntadr[0])
        self._object_qpos = int(model.jnt_qposadr[joint]) if jointed else -1
        self._object_dof = int(model.jnt_dofadr[joint]) if jointed else -1
        self._rest = float(model.geom("object").size[2])  # half height [m]
        self._code = np.tile(task_code(type(self).__name__), (self._ctrl.shape[0], 1))

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
        return self._canonical(quaternion_matrix(self._sensor["object_quaternion"][ids]))

    def object_velocity(self, ids: Ids) -> Array:
        """Linear velocity of the object (n, 3) [m/s]."""
        return np.asarray(self._sensor["object_velocity"][ids])

    def goal(self, ids: Ids) -> Array:
        """Goal (n, 3) [m]."""
        return np.asarray(self._mocap[ids, self._goal_index])

    def goal_yaw(self, ids: Ids) -> Array:
        """Yaw of the goal (n,) [rad]."""
        turn = self._mocap_turn[ids, self._goal_index]
        return np.asarray(2.0 * np.arctan2(turn[:, 3], turn[:, 0]))

    def _canonical(self, rotation: Array) -> Array:
        return rotation if self.looks_same == "nothing" else canonical_rotation(rotation, self.looks_same)

    # -- what place writes ----------------------------------------------------------------------------------

    def set_mocap(self, i: int, name: str, position: npt.ArrayLike, yaw: float = 0.0) -> None:
        """Put the mocap body ``name`` of simulation ``i`` somewhere [m], [rad]."""
        index = int(self.batch.model.body(name).mocapid[0])
        self._mocap[i, index] = position
        self._mocap_turn[i, index] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def set_object(self, i: int, position: npt.ArrayLike, yaw: float = 0.0) -> None:
        """Put the free object of simulation ``i`` somewhere [m], [rad]."""
        start = self._object_qpos
        self._qpos[i, start : start + 3] = position
        self._qpos[i, start + 3 : start + 7] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]

    def jitter_arm(self, i: int, rng: np.random.Generator, reach: float = 0.04) -> None:
        """Move each joint of simulation ``i`` by up to ``reach`` [rad]."""
        self._qpos[i, :7] += rng.uniform(-reach, reach, size=7)

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

    def seized(self, ids: Ids, action: Array, angle: Array, speed: Array) -> Array:
        """The gripper is forced open."""
        del ids, angle, speed
        released = action.copy()
        released[:, 4] = 1.0
        return released

    def thrown(self, action: Array, angle: Array, speed: Array) -> Array:
        """The action (n, 5) with its place moved along ``angle``, by a tenth of what ``speed`` covers in a second."""
        moved = action.copy()
        way = 0.1 * speed[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # (n, 2) [m]
        moved[:, :2] = np.clip(action[:, :2] + 2.0 * way / (HIGH - LOW)[:2], -1.0, 1.0)
        return moved

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
        rows = self._sensors[ids]  # all at once: looking up each sensor by itself costs as much as the rest
        seen = {name: rows[:, columns] for name, columns in self._columns.items()}
        tool, thing, goal = seen["tool_position"], seen["object_position"], self.goal(ids)
        yaw, turn = np.arctan2(seen["tool_x"][:, 1], seen["tool_x"][:, 0])[:, None], self.goal_yaw(ids)[:, None]
        rotation = self._canonical(quaternion_matrix(seen["object_quaternion"]))
        robot = (tool, np.cos(yaw), np.sin(yaw), seen["tool_velocity"], seen["opening"])
        pose = (thing, rotation[:, :, 0], rotation[:, :, 1], seen["object_velocity"])
        return {
            "robot": np.concatenate(robot, axis=1),
            "object": np.concatenate(pose, axis=1),
            "goal": np.concatenate((goal, np.cos(turn), np.sin(turn)), axis=1),
            "relative": np.concatenate((thing - tool, goal - thing), axis=1),
            "task": self._code[: len(ids)],
        }


def task_code(name: str) -> Array:
    """Sixteen numbers in [-1, 1] drawn from a task's name: any new task gets its own, and no old one changes."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.frombuffer(digest, dtype=">u2").astype(np.float64) / 65535.0 * 2.0 - 1.0


def quaternion_matrix(quaternion: npt.ArrayLike) -> Array:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4), scalar first."""
    w, x, y, z = np.array(np.asarray(quaternion, dtype=np.float64).T, order="C")  # each (n,), contiguous
    matrix = np.empty((3, 3, len(w)))
    matrix[0] = 1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)
    matrix[1] = 2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)
    matrix[2] = 2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)
    return matrix.transpose(2, 0, 1)


def canonical_rotation(rotation: Array, symmetry: Symmetry = "cube") -> Array:
    """Of the rotations (n, 3, 3) that look the same on an object, the one nearest to the identity.

    A cube has 24 of them, a square prism that stands on an end 4. Nearest is the largest trace of R P over the
    signed permutations P of determinant 1; of traces that are equal within 1e-9 the first counts, so that a cube
    between two orientations does not flicker.
    """
    columns, signs = _GROUPS[symmetry]
    parts = np.ascontiguousarray(rotation.transpose(1, 2, 0))  # (3, 3, n): whole rows are quicker than columns
    first, second, third = (parts[i][columns[i]] * signs[i][:, None] for i in range(3))
    traces = first + second + third  # (24, n)
    near = traces > traces.max(axis=0) - 2e-9
    chosen = near.argmax(axis=0)  # (n,)
    for i in np.flatnonzero(near.sum(axis=0) != 1):
        chosen[i] = _first_of_equals(traces[:, i])
    turned = parts[:, columns[:, chosen], np.arange(len(chosen))] * signs[:, chosen]
    return np.asarray(turned.transpose(2, 0, 1))


def _first_of_equals(traces: Array) -> int:
    """The last of the traces (24,) that is larger than all before it by more than 1e-9; 0 where they are NaN."""
    best, chosen = -np.inf, 0
    for i, trace in enumerate(traces):
        if trace > best + 1e-9:
            best, chosen = trace, i
    return chosen


def _cube_group() -> tuple[npt.NDArray[np.intp], Array]:
    """Columns (3, 24) and signs (3, 24) of the signed permutations of determinant 1."""
    columns, signs = [], []
    for order in itertools.permutations(range(3)):
        parity = float(np.round(np.linalg.det(np.eye(3)[:, order])))
        for s0, s1 in itertools.product((1.0, -1.0), repeat=2):
            columns.append(order)
            signs.append((s0, s1, parity * s0 * s1))
    return np.array(columns).T, np.array(signs).T


def _upright(group: tuple[npt.NDArray[np.intp], Array]) -> tuple[npt.NDArray[np.intp], Array]:
    """Those of them that leave the vertical axis alone: (3, 4) each."""
    columns, signs = group
    kept = (columns[2] == 2) & (signs[2] > 0)
    return columns[:, kept], signs[:, kept]


_GROUPS = {"cube": _cube_group(), "prism": _upright(_cube_group())}
