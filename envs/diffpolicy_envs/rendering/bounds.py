"""Bounding boxes that hold all that a body shows: MuJoCo's own leave out geoms that cannot collide."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np

__all__ = ["whole_boxes"]

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


@contextmanager
def whole_boxes(model: mujoco.MjModel) -> Iterator[None]:
    """While open, each body's root bounding box in ``model`` encloses all of its geoms.

    ``mj_multiRay`` passes over bodies by that box. A body with both colliding and visual geoms has a box of
    the colliding ones only, so that the visual ones were not drawn (seen with MuJoCo 4.0).
    """
    kept = model.bvh_aabb.copy()
    try:
        for body in np.flatnonzero((model.body_geomnum > 1) & (model.body_bvhnum > 0)):
            _enclose(model, int(body))
        yield
    finally:
        model.bvh_aabb[:] = kept


def _enclose(model: mujoco.MjModel, body: int) -> None:
    root = model.bvh_aabb[model.body_bvhadr[body]]  # centre and half sizes in the body's inertial frame
    low, high = root[:3] - root[3:], root[:3] + root[3:]
    inertial = _matrix(model.body_iquat[body])
    for geom in range(model.body_geomadr[body], model.body_geomadr[body] + model.body_geomnum[body]):
        centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
        corners = (centre + _CORNERS * half) @ _matrix(model.geom_quat[geom]).T + model.geom_pos[geom]
        local = (corners - model.body_ipos[body]) @ inertial
        low, high = np.minimum(low, local.min(0)), np.maximum(high, local.max(0))
    root[:3], root[3:] = (low + high) / 2, (high - low) / 2


def _matrix(quaternion: np.ndarray) -> np.ndarray:
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)
