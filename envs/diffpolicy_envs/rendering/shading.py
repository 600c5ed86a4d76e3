"""What a point of a surface looks like: material, light, highlight."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from .camera import turned
from .textures import Texture, image

__all__ = ["Light", "Lookup", "Surfaces", "fill", "illuminate", "lights", "surfaces"]

_SKY_FILL = np.array([1.08, 1.14, 1.24], np.float32)
_GROUND_FILL = np.array([0.66, 0.60, 0.54], np.float32)
_FILL = 0.22  # ambient light even where the model has none
_EVERYWHERE = np.float32(1.0)


@dataclass(frozen=True)
class Surfaces:
    """Materials of all geoms, then of all sites; G of them."""

    rgba: np.ndarray  # (G, 4)
    specular: np.ndarray  # (G,)
    shininess: np.ndarray  # (G,), exponent of the highlight
    emission: np.ndarray  # (G,)
    texture: np.ndarray  # (G,), -1 for none


@dataclass(frozen=True)
class Light:
    """One lamp; a directional one stands very far away."""

    position: np.ndarray  # (3,) [m]
    direction: np.ndarray  # (3,)
    ambient: np.ndarray  # (3,)
    diffuse: np.ndarray  # (3,)
    specular: np.ndarray  # (3,)
    attenuation: np.ndarray  # (3,): constant, linear [1/m], quadratic [1/m^2]
    cutoff: float  # cosine of half the cone's angle; -1 shines all round
    exponent: float
    shadow: bool


def surfaces(model: mujoco.MjModel) -> Surfaces:
    """Materials as MuJoCo mixes them: an own colour wins over the material's, unless it is the default."""
    rgba = np.concatenate([model.geom_rgba, model.site_rgba]).astype(np.float32)
    material = np.concatenate([model.geom_matid, model.site_matid]).astype(int)
    count = len(material)
    specular, shininess = np.full(count, 0.5, np.float32), np.full(count, 0.5, np.float32)
    emission, texture = np.zeros(count, np.float32), np.full(count, -1)
    has = np.flatnonzero(material >= 0)
    if len(has):
        own = material[has]
        plain = np.all(rgba[has] == np.array([0.5, 0.5, 0.5, 1.0], np.float32), axis=-1)
        rgba[has[plain]] = model.mat_rgba[own[plain]]
        specular[has], shininess[has] = model.mat_specular[own], model.mat_shininess[own]
        emission[has] = model.mat_emission[own]
        texture[has] = model.mat_texid[own, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)]
    return Surfaces(rgba, specular, np.maximum(shininess * 128.0, 1.0), emission, texture)


def lights(model: mujoco.MjModel, data: mujoco.MjData, eye: np.ndarray, gaze: np.ndarray) -> list[Light]:
    """The camera's own lamp and the model's; a key light from above where the model has none."""
    head, extent = model.vis.headlight, float(model.stat.extent)
    none, ones = np.zeros(3), np.array([1.0, 0.0, 0.0])
    found = []
    if head.active:
        found.append(Light(eye, gaze, head.ambient, head.diffuse, head.specular, ones, -1.0, 0.0, False))
    active = np.flatnonzero(model.light_active)
    for i in active:
        direction = np.asarray(data.light_xdir[i])
        distant = int(model.light_type[i]) == int(mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
        spot = int(model.light_type[i]) == int(mujoco.mjtLightType.mjLIGHT_SPOT)
        found.append(
            Light(
                position=np.asarray(model.stat.center) - 500 * extent * direction if distant else data.light_xpos[i],
                direction=direction,
                ambient=model.light_ambient[i],
                diffuse=model.light_diffuse[i],
                specular=model.light_specular[i],
                attenuation=ones if distant else model.light_attenuation[i],
                cutoff=float(np.cos(np.radians(model.light_cutoff[i]))) if spot else -1.0,
                exponent=float(model.light_exponent[i]) if spot else 0.0,
                shadow=bool(model.light_castshadow[i]),
            )
        )
    if len(active) == 0:
        position = np.asarray(model.stat.center) + extent * np.array([-3.0, -4.0, 8.0])
        bright = np.full(3, 0.45)
        found.append(Light(position, none, none, bright, bright * 0.5, ones, -1.0, 0.0, True))
    return found


class Lookup:
    """The textures of one model, read once."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._textures: dict[int, Texture] = {}

    def texture(self, number: int) -> Texture:
        """A texture by its number."""
        if number not in self._textures:
            self._textures[number] = Texture(image(self._model, number))
        return self._textures[number]

    def paint(
        self,
        model: mujoco.MjModel,
        data: mujoco.MjData,
        geom: int,
        points: np.ndarray,
        footprint: np.ndarray,
    ) -> np.ndarray:
        """Texture colours (B, 3) at `points` (B, 3) [m] of a geom; `footprint` (B,) is a pixel there [m].

        A flat texture is projected along the geom's z axis, as MuJoCo does; wherever the true mapping
        needs what rays do not give (cubes, meshes), the texture's mean colour stands for it.
        """
        material = int(model.geom_matid[geom])
        number = int(model.mat_texid[material, int(mujoco.mjtTextureRole.mjTEXROLE_RGB)])
        texture = self.texture(number)
        flat = int(model.tex_type[number]) == int(mujoco.mjtTexture.mjTEXTURE_2D)
        if not flat or int(model.geom_type[geom]) == int(mujoco.mjtGeom.mjGEOM_MESH):
            return np.broadcast_to(texture.mean, points.shape)
        axes = data.geom_xmat[geom].reshape(3, 3)[:, :2].astype(np.float32)
        local = turned(points - data.geom_xpos[geom].astype(np.float32), axes.T)  # (B, 2)
        repeat = np.asarray(model.mat_texrepeat[material], np.float32) / 2
        if not model.mat_texuniform[material]:
            size = np.asarray(model.geom_size[geom][:2], np.float32)
            repeat = repeat / np.where(size > 0, size, 1.0).astype(np.float32)
        per_metre = float(np.max(np.abs(repeat) * np.array(texture.size[::-1])))
        return texture.sample(local[:, 0] * repeat[0] - 0.5, -local[:, 1] * repeat[1] - 0.5, footprint * per_metre)


def illuminate(
    light: Light, points: np.ndarray, normals: np.ndarray, rays: np.ndarray, exponent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse and highlight factors (B,) of one lamp, before any shadow (Blinn and Phong's model).

    `points` [m], `normals` and `rays` (from the eye) are (B, 3); `exponent` (B,) sharpens the highlight.
    """
    towards = light.position.astype(np.float32) - points
    distance = np.sqrt(np.einsum("bi,bi->b", towards, towards)) + 1e-9
    towards /= distance[:, None]
    diffuse = np.maximum(np.einsum("bi,bi->b", normals, towards), 0.0)
    strength: np.ndarray | np.float32 = _EVERYWHERE
    if light.cutoff > -1.0:
        aim = -np.einsum("bi,i->b", towards, light.direction.astype(np.float32))
        edge = np.clip((aim - light.cutoff) / max(0.1 * (1 - light.cutoff), 1e-6), 0.0, 1.0)
        strength = edge * np.maximum(aim, 0.0) ** light.exponent
    constant, linear, quadratic = (float(a) for a in light.attenuation)
    if linear or quadratic:
        strength = strength / np.maximum(constant + distance * (linear + distance * quadratic), 1e-6)
    halfway = towards - rays
    halfway /= np.sqrt(np.einsum("bi,bi->b", halfway, halfway))[:, None] + 1e-9
    shine = np.maximum(np.einsum("bi,bi->b", normals, halfway), 0.0) ** exponent
    return diffuse * strength, shine * strength * (diffuse > 0)


def fill(lamps: list[Light], normals: np.ndarray) -> np.ndarray:
    """Light from everywhere (B, 3): bluish from above, brownish from below."""
    ambient = np.sum([light.ambient for light in lamps], axis=0) if lamps else np.zeros(3)
    upward = normals[:, 2:3] * 0.5 + 0.5
    shade: np.ndarray = (_GROUND_FILL + (_SKY_FILL - _GROUND_FILL) * upward) * np.maximum(ambient, _FILL).astype(
        np.float32
    )
    return shade
