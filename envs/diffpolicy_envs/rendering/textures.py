"""The colours of textures and of the sky, which rays do not bring back."""

from __future__ import annotations

import mujoco
import numpy as np

__all__ = ["Texture", "image", "sky_colours"]

_SKY_ROWS = 129
_DEFAULT_SKY = np.array(  # from straight down, over the horizon, to straight up
    [[0.45, 0.46, 0.48], [0.66, 0.67, 0.69], [0.87, 0.90, 0.93], [0.66, 0.77, 0.89], [0.46, 0.62, 0.83]]
)


class Texture:
    """A picture at every halved resolution, so that far floors do not flicker.

    Args:
        picture: (rows, columns, 3) in [0, 1].
    """

    def __init__(self, picture: np.ndarray) -> None:
        levels: list[np.ndarray] = [picture.astype(np.float32)]
        while min(levels[-1].shape[:2]) > 1:
            last = levels[-1][: levels[-1].shape[0] // 2 * 2, : levels[-1].shape[1] // 2 * 2]
            levels.append((last[::2, ::2] + last[1::2, ::2] + last[::2, 1::2] + last[1::2, 1::2]) / 4)
        self.mean = picture.reshape(-1, 3).mean(0).astype(np.float32)
        self.size = picture.shape[0], picture.shape[1]
        self._rows = np.array([level.shape[0] for level in levels], np.int32)
        self._columns = np.array([level.shape[1] for level in levels], np.int32)
        self._starts = np.cumsum([0] + [level.shape[0] * level.shape[1] for level in levels[:-1]]).astype(np.int32)
        self._texels = np.concatenate([level.reshape(-1, 3) for level in levels])

    def sample(self, u: np.ndarray, v: np.ndarray, footprint: np.ndarray) -> np.ndarray:
        """Colours (B, 3) at `u` along columns and `v` along rows (B,), repeating with period 1.

        `footprint` (B,) is how many texels of the full picture lie under one pixel.
        """
        level = (np.log2(np.maximum(footprint, 1.0)) + 0.5).astype(np.int32)
        level = np.minimum(level, len(self._starts) - 1)
        rows, columns, start = self._rows[level], self._columns[level], self._starts[level]
        y, x = (v - np.floor(v)) * rows - 0.5, (u - np.floor(u)) * columns - 0.5
        y0, x0 = np.floor(y).astype(np.int32), np.floor(x).astype(np.int32)
        fy, fx = (y - y0)[:, None], (x - x0)[:, None]
        y1, x1 = (y0 + 1) % rows, (x0 + 1) % columns
        y0, x0 = y0 % rows, x0 % columns
        top = start + y0 * columns
        bottom = start + y1 * columns
        texels = self._texels
        upper = texels[top + x0] * (1 - fx) + texels[top + x1] * fx
        lower = texels[bottom + x0] * (1 - fx) + texels[bottom + x1] * fx
        colours: np.ndarray = upper * (1 - fy) + lower * fy
        return colours


def image(model: mujoco.MjModel, texture: int) -> np.ndarray:
    """The picture of a texture, (rows, columns, 3) in [0, 1]."""
    rows, columns = int(model.tex_height[texture]), int(model.tex_width[texture])
    channels, start = int(model.tex_nchannel[texture]), int(model.tex_adr[texture])
    values = np.asarray(model.tex_data[start : start + rows * columns * channels])
    picture = values.reshape(rows, columns, channels).astype(np.float32) / 255.0
    return picture[..., :3] if channels >= 3 else np.repeat(picture[..., :1], 3, axis=-1)


def sky_colours(model: mujoco.MjModel) -> np.ndarray:
    """Colour of the sky against the sine of elevation, from -1 to 1 in equal steps, (129, 3) in [0, 1].

    A model's skybox is reduced to its mean colour at each elevation; without one the sky is pale blue.
    """
    height = np.linspace(-1.0, 1.0, _SKY_ROWS)
    boxes = np.flatnonzero(model.tex_type == int(mujoco.mjtTexture.mjTEXTURE_SKYBOX))
    if len(boxes) == 0:
        stops = np.array([-1.0, -0.35, 0.0, 0.35, 1.0])
        return np.stack([np.interp(height, stops, _DEFAULT_SKY[:, i]) for i in range(3)], -1).astype(np.float32)
    picture = image(model, int(boxes[0]))
    width = picture.shape[1]
    faces = picture.reshape(-1, width, width, 3)  # right, left, up, down, front, back; or one face for all
    faces = faces if len(faces) == 6 else np.repeat(faces[:1], 6, axis=0)
    middle = width // 2
    side = faces[[0, 1, 4, 5], :, middle].mean(0)
    up, down = (faces[i, middle, middle:] for i in (2, 3))  # from the centre outwards
    level = np.sqrt(np.maximum(1.0 - height**2, 1e-12))
    slope = height / level  # tangent of elevation
    colours = side[np.clip(((1.0 - slope) / 2.0 * width).astype(int), 0, width - 1)]
    for face, steep in ((up, slope > 1.0), (down, slope < -1.0)):
        outward = np.clip((middle / np.maximum(abs(slope), 1.0)).astype(int), 0, len(face) - 1)
        colours = np.where(steep[:, None], face[outward], colours)
    return np.asarray(colours, np.float32)
