"""The software renderer: MuJoCo's ray casting and NumPy shading, no OpenGL anywhere."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from .bounds import whole_boxes
from .camera import pixel_rays, pose, turned
from .shading import Light, Lookup, Surfaces, fill, illuminate, lights, surfaces
from .sites import cast_sites
from .textures import sky_colours

__all__ = ["SoftwareRenderer"]

_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)  # what MuJoCo shows by default
_HIDDEN = 5
_CUTOFF = 1e10


@dataclass(frozen=True)
class _Scene:
    """What stays the same for all rays of one picture."""

    model: mujoco.MjModel
    data: mujoco.MjData
    eye: np.ndarray  # (3,) [m]
    surfaces: Surfaces
    lamps: list[Light]
    translucent: np.ndarray  # geoms that are seen through
    pixel: float  # angle of a pixel [rad]


@dataclass(frozen=True)
class _Hits:
    surface: np.ndarray  # (B,), -1 where a ray leaves the scene
    distance: np.ndarray  # (B,) [m], inf where it does
    normal: np.ndarray  # (B, 3)


class SoftwareRenderer:
    """Draws one model from one camera by casting rays.

    Light, materials and flat textures follow MuJoCo's OpenGL pictures, without mirrors. While it draws,
    translucent geoms change their group in the model for a moment: draw one model from one thread.

    Args:
        model: what is drawn; left as it was.
        width, height: size of the picture [pixel].
        camera: number of the camera, -1 for the free one.
        samples: rays a pixel along edges.

    Raises:
        ValueError: an orthographic camera; all rays start at one point.
    """

    backend = "software"

    def __init__(self, model: mujoco.MjModel, width: int, height: int, camera: int, samples: int) -> None:
        if camera >= 0 and int(model.cam_projection[camera]) != int(mujoco.mjtProjection.mjPROJ_PERSPECTIVE):
            raise ValueError("expected a camera with perspective, got an orthographic one; use another or OpenGL")
        self._model, self._camera, self._samples = model, camera, samples
        self._width, self._height = width, height
        self._sky = sky_colours(model)
        self._textures = Lookup(model)
        self._fovy = -1.0
        self._rays = np.empty((0, 3))

    def render(self, data: mujoco.MjData, model: mujoco.MjModel | None = None) -> np.ndarray:
        """Picture of `data`, (height, width, 3) uint8."""
        model = model or self._model
        eye, axes, fovy = pose(model, data, self._camera)
        if fovy != self._fovy:
            self._fovy = fovy
            self._rays = self._through(np.arange(self._width * self._height), 0.5, 0.5)
        table = surfaces(model)
        alpha = table.rgba[: model.ngeom, 3]
        seen_through = np.flatnonzero((alpha < 1) & (model.geom_group < 3))
        pixel = np.radians(fovy) / self._height
        lamps = lights(model, data, eye, -axes[:, 2])
        scene = _Scene(model, data, eye, table, lamps, seen_through, float(pixel))
        with whole_boxes(model):
            colours, keys = self._trace(scene, turned(self._rays, axes))
            if self._samples > 1:
                self._smooth(scene, axes, colours, keys)
        picture = (np.clip(colours, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        return np.reshape(picture, (self._height, self._width, 3))

    def close(self) -> None:
        """Nothing to release."""

    def _through(self, pixels: np.ndarray, down: float, right: float) -> np.ndarray:
        rows, columns = np.divmod(pixels, self._width)
        return pixel_rays(rows + down, columns + right, self._width, self._height, self._fovy)

    def _smooth(self, scene: _Scene, axes: np.ndarray, colours: np.ndarray, keys: np.ndarray) -> None:
        """Draw again, with four rays each, the pixels whose neighbours show something else."""
        grid = keys.reshape(self._height, self._width)
        edge = np.zeros(grid.shape, bool)
        across, down = grid[:, 1:] != grid[:, :-1], grid[1:] != grid[:-1]
        edge[:, 1:] |= across
        edge[:, :-1] |= across
        edge[1:] |= down
        edge[:-1] |= down
        pixels = np.flatnonzero(edge)
        if len(pixels) == 0:
            return
        offsets = ((0.125, 0.625), (0.375, 0.125), (0.625, 0.875), (0.875, 0.375))  # a rotated grid
        rays = np.concatenate([self._through(pixels, *offset) for offset in offsets])
        fine, _ = self._trace(scene, turned(rays, axes))
        colours[pixels] = np.clip(fine, 0.0, 1.0).reshape(len(offsets), -1, 3).mean(0)

    def _trace(self, scene: _Scene, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Colours (B, 3), and keys (B,) that differ where neighbours show different things."""
        model = scene.model
        solid = _cast(scene, rays, solid=True)
        colours, keys = self._look(scene, rays, solid)
        layers = [_cast(scene, rays, solid=False)] if len(scene.translucent) else []
        if model.nsite:
            number, distance, normal = cast_sites(model, scene.data, scene.eye, rays, _GROUPS)
            layers.append(_Hits(np.where(number >= 0, number + model.ngeom, -1), distance, normal))
        if len(layers) == 2:  # the farther one first
            layers = _sorted(*layers)
        for layer in layers:
            seen = np.flatnonzero(layer.distance < solid.distance)
            if len(seen):
                part = _Hits(layer.surface[seen], layer.distance[seen], layer.normal[seen])
                over, _ = self._look(scene, rays[seen], part)
                alpha = 1.0 - (1.0 - scene.surfaces.rgba[part.surface, 3:]) ** 2  # a ray goes in and out
                colours[seen] += alpha * (over - colours[seen])
                keys[seen] = keys[seen] * 31 + part.surface + 7
        return colours, keys

    def _look(self, scene: _Scene, rays: np.ndarray, hits: _Hits) -> tuple[np.ndarray, np.ndarray]:
        """Colours (B, 3) of what was hit, sky elsewhere; keys as in `_trace`, aware of shadows."""
        height = (rays[:, 2] * 0.5 + 0.5) * (len(self._sky) - 1)
        colours = self._sky[height.astype(np.int32)]
        keys = hits.surface.astype(np.int64) << 8
        found = np.flatnonzero(hits.surface >= 0)
        if len(found) == 0:
            return colours, keys
        surface, distance = hits.surface[found], hits.distance[found]
        places = scene.eye + rays[found] * distance[:, None]
        points, way = places.astype(np.float32), rays[found].astype(np.float32)
        normals = hits.normal[found].astype(np.float32)
        table = scene.surfaces
        albedo = table.rgba[surface, :3]
        self._paint(scene, surface, points, distance, normals, way, albedo)
        light = fill(scene.lamps, normals) + table.emission[surface][:, None]
        shine = np.zeros_like(albedo)
        exponent, gloss = table.shininess[surface], table.specular[surface]
        for bit, lamp in enumerate(scene.lamps):
            diffuse, highlight = illuminate(lamp, points, normals, way, exponent)
            if lamp.shadow:
                lit = _reached(scene, lamp, places, diffuse > 0)
                diffuse, highlight = diffuse * lit, highlight * lit
                keys[found] += lit.astype(np.int64) << min(bit, 7)
            light += diffuse[:, None] * lamp.diffuse.astype(np.float32)
            shine += (highlight * gloss)[:, None] * lamp.specular.astype(np.float32)
        colours[found] = albedo * light + shine
        return colours, keys

    def _paint(
        self,
        scene: _Scene,
        surface: np.ndarray,
        points: np.ndarray,
        distance: np.ndarray,
        normals: np.ndarray,
        way: np.ndarray,
        albedo: np.ndarray,
    ) -> None:
        """Multiply `albedo` (B, 3) by the textures of the geoms that have one."""
        for geom in np.flatnonzero(scene.surfaces.texture[: scene.model.ngeom] >= 0):
            rows = np.flatnonzero(surface == geom)
            if len(rows):
                slant = np.maximum(-np.einsum("bi,bi->b", normals[rows], way[rows]), 0.02)
                footprint = scene.pixel * distance[rows].astype(np.float32) / slant**0.75
                albedo[rows] *= self._textures.paint(scene.model, scene.data, int(geom), points[rows], footprint)


def _sorted(first: _Hits, second: _Hits) -> list[_Hits]:
    """The same hits, the farther of each ray's two in the first layer."""
    swap = np.flatnonzero(first.distance < second.distance)
    for one, other in (
        (first.surface, second.surface),
        (first.distance, second.distance),
        (first.normal, second.normal),
    ):
        one[swap], other[swap] = other[swap], one[swap]
    return [first, second]


def _cast(scene: _Scene, rays: np.ndarray, solid: bool) -> _Hits:
    """The first solid (or else the first translucent) geom on each ray from the eye."""
    surface, distance, normal = _multi_ray(scene, scene.eye, rays, solid, _CUTOFF, True)
    return _Hits(surface, np.where(surface >= 0, distance, np.inf), normal)


def _reached(scene: _Scene, lamp: Light, places: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Which of `places` (B, 3) [m] see the lamp, (B,) float32: rays run from the lamp to them."""
    rows = np.flatnonzero(facing)
    rays = places[rows] - lamp.position
    length = np.sqrt(np.einsum("bi,bi->b", rays, rays)) + 1e-12
    rays /= length[:, None]
    surface, distance, _ = _multi_ray(scene, lamp.position, rays, True, _CUTOFF, False)
    lit = np.zeros(len(places), np.float32)
    slack = 1e-6 * length + 1e-4 * float(scene.model.stat.extent)
    lit[rows] = (surface < 0) | (distance > length - slack)
    return lit


def _multi_ray(
    scene: _Scene, origin: np.ndarray, rays: np.ndarray, solid: bool, cutoff: float, normals: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MuJoCo's `mj_multiRay` with the translucent geoms, or all others, hidden for its duration."""
    model, count = scene.model, len(rays)
    surface, distance = np.full(count, -1, np.int32), np.full(count, -1.0)
    normal = np.zeros(3 * count if normals else 0)
    hidden = scene.translucent if solid else np.setdiff1d(np.arange(model.ngeom), scene.translucent)
    groups = model.geom_group[hidden].copy()
    try:
        model.geom_group[hidden] = _HIDDEN
        mujoco.mj_multiRay(
            model,
            scene.data,
            np.ascontiguousarray(origin, float),
            np.ascontiguousarray(rays).reshape(-1),
            _GROUPS,
            True,
            -1,
            surface,
            distance,
            normal if normals else None,
            count,
            cutoff,
        )
    finally:
        model.geom_group[hidden] = groups
    return surface, distance, normal.reshape(-1, 3)
