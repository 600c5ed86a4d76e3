"""Rays against sites, which MuJoCo's own ray casting passes through."""

from __future__ import annotations

import mujoco
import numpy as np

from .camera import turned

__all__ = ["cast_sites"]

_FAR = np.inf


def cast_sites(
    model: mujoco.MjModel, data: mujoco.MjData, origin: np.ndarray, rays: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nearest visible site on each ray.

    Args:
        origin: where all rays start, (3,) [m].
        rays: unit directions, (B, 3).
        groups: which groups are visible, (6,).

    Returns:
        number of the site (B,), -1 for none; distance (B,) [m], inf for none; outward normal (B, 3).
    """
    number = np.full(len(rays), -1)
    distance = np.full(len(rays), _FAR)
    normal = np.zeros((len(rays), 3))
    for site in np.flatnonzero(groups[np.clip(model.site_group, 0, 5)]):
        if model.site_rgba[site, 3] == 0:
            continue
        axes = data.site_xmat[site].reshape(3, 3)
        offset = origin - data.site_xpos[site]
        kind, size = (
            int(model.site_type[site]),
            _half_extent(int(model.site_type[site]), model.site_size[site]),
        )
        along = np.einsum("bi,i->b", rays, offset)
        near = np.flatnonzero((along**2 >= offset @ offset - size @ size) & (along < 0))
        if len(near) == 0:
            continue
        found, way = _cast(kind, size, offset @ axes, turned(rays[near], axes.T))
        better = (found > 0) & (found < distance[near])
        near = near[better]
        number[near], distance[near], normal[near] = site, found[better], turned(way[better], axes)
    return number, distance, normal


def _half_extent(kind: int, size: np.ndarray) -> np.ndarray:
    """Half the side lengths of the box around a site in its own frame, (3,) [m]."""
    geom = mujoco.mjtGeom
    if kind == int(geom.mjGEOM_SPHERE):
        return np.full(3, size[0])
    if kind == int(geom.mjGEOM_CYLINDER):
        return np.array([size[0], size[0], size[1]])
    if kind == int(geom.mjGEOM_CAPSULE):
        return np.array([size[0], size[0], size[0] + size[1]])
    return np.asarray(size, float)


def _cast(kind: int, size: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (B,), inf for none, and normal (B, 3) where rays enter a shape in its own frame."""
    geom = mujoco.mjtGeom
    if kind == int(geom.mjGEOM_BOX):
        return _enter(_slabs(size, origin, rays))
    if kind == int(geom.mjGEOM_CYLINDER):
        slabs = _slabs(np.array([np.inf, np.inf, size[2]]), origin, rays)
        return _enter([_quadric(np.array([size[0], size[1], np.inf]), origin, rays), slabs[2]])
    if kind == int(geom.mjGEOM_CAPSULE):
        radius, half = size[0], np.array([0.0, 0.0, size[2] - size[0]])
        tube = _slabs(np.array([np.inf, np.inf, half[2]]), origin, rays)[2]
        parts = [_enter([_quadric(np.array([radius, radius, np.inf]), origin, rays), tube])]
        parts += [_enter([_quadric(np.full(3, radius), origin + way * half, rays)]) for way in (-1, 1)]
        first = np.argmin([part[0] for part in parts], axis=0)
        rows = np.arange(len(rays))
        return np.stack([p[0] for p in parts])[first, rows], np.stack([p[1] for p in parts])[first, rows]
    return _enter([_quadric(size, origin, rays)])


_Span = tuple[np.ndarray, np.ndarray, np.ndarray]  # enters at (B,), leaves at (B,), normal on entering (B, 3)


def _enter(spans: list[_Span]) -> tuple[np.ndarray, np.ndarray]:
    """Where rays enter the part that all spans share."""
    enters = np.stack([span[0] for span in spans])
    last = enters.argmax(0)
    rows = np.arange(enters.shape[1])
    distance = enters[last, rows]
    leaves = np.min([span[1] for span in spans], axis=0)
    return np.where(distance < leaves, distance, _FAR), np.stack([span[2] for span in spans])[last, rows]


def _slabs(half: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> list[_Span]:
    spans = []
    for axis in range(3):
        step = np.where(abs(rays[:, axis]) < 1e-12, 1e-12, rays[:, axis])
        ends = np.sort([(-half[axis] - origin[axis]) / step, (half[axis] - origin[axis]) / step], axis=0)
        normal = np.zeros_like(rays)
        normal[:, axis] = -np.sign(step)
        spans.append((ends[0], ends[1], normal))
    return spans


def _quadric(radii: np.ndarray, origin: np.ndarray, rays: np.ndarray) -> _Span:
    """An ellipsoid of these radii; an infinite one makes it a tube."""
    o, d = origin / radii, rays / radii
    a, b, c = np.maximum((d * d).sum(-1), 1e-12), np.einsum("bi,i->b", d, o), o @ o - 1.0
    root = b * b - a * c
    width = np.sqrt(np.maximum(root, 0.0)) / a
    middle = -b / a
    normal = (o + (middle - width)[:, None] * d) / radii
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    miss = root <= 0
    return np.where(miss, _FAR, middle - width), np.where(miss, -_FAR, middle + width), normal
