"""Where the rays of a picture start and which way they go."""

from __future__ import annotations

import math

import mujoco
import numpy as np

__all__ = ["pixel_rays", "pose", "turned"]


def pixel_rays(rows: np.ndarray, columns: np.ndarray, width: int, height: int, fovy: float) -> np.ndarray:
    """Unit rays (B, 3) through points of the picture, in the camera's frame (x right, y up, looks along -z).

    `rows` and `columns` (B,) count in pixels from the upper left corner; a pixel's centre lies at .5.
    `fovy` is the vertical field of view [deg].
    """
    scale = 2.0 * math.tan(math.radians(fovy) / 2.0) / height
    rays = np.stack(
        [(columns - width / 2.0) * scale, (height / 2.0 - rows) * scale, np.full(rows.shape, -1.0)], axis=-1
    )
    unit: np.ndarray = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
    return unit


def pose(model: mujoco.MjModel, data: mujoco.MjData, camera: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Position (3,) [m], axes (3, 3) as columns, and vertical field of view [deg]."""
    if camera >= 0:
        return (
            data.cam_xpos[camera].copy(),
            data.cam_xmat[camera].reshape(3, 3).copy(),
            float(model.cam_fovy[camera]),
        )
    view = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, view)
    azimuth, elevation = math.radians(view.azimuth), math.radians(view.elevation)
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    forward = np.array([ce * ca, ce * sa, se])
    right = np.array([sa, -ca, 0.0])
    axes = np.stack([right, np.cross(right, forward), -forward], axis=1)
    return np.asarray(view.lookat) - view.distance * forward, axes, float(model.vis.global_.fovy)


def turned(vectors: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Vectors (B, 3) given along the columns of `axes` (D, 3), in the outer frame (B, D).

    Not a matrix product: for rows of three, its threads cost more than they bring, most of all on busy cores.
    """
    outer: np.ndarray = vectors[:, :1] * axes[:, 0] + vectors[:, 1:2] * axes[:, 1] + vectors[:, 2:] * axes[:, 2]
    return outer
