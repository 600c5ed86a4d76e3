"""MuJoCo's OpenGL renderer on a context of our choosing; run as a script, it is the probe."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any

import mujoco
import numpy as np

__all__ = ["OpenGLRenderer"]

SHADOW_PIXELS = 2048  # MuJoCo's own 4096 costs most of a frame on a software rasteriser; 1024 shows specks
_MAX_GEOMS = 10_000


class OpenGLRenderer:
    """Draws one model from one camera by OpenGL.

    Args:
        model: what is drawn; left as it was.
        backend: "egl", "osmesa", "glfw" or "cgl".
        width, height: size of the picture [pixel].
        camera: number of the camera, -1 for the free one.
        samples: samples a pixel against jagged edges.

    Raises:
        Exception: whatever the driver raises; only a backend that passed the probe is safe to try.
    """

    def __init__(self, model: mujoco.MjModel, backend: str, width: int, height: int, camera: int, samples: int) -> None:
        self._context: Any = None
        self._drawer: Any = None
        self.backend = backend
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._camera = _view(model, camera)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._picture = np.empty((height, width, 3), np.uint8)
        self._context = importlib.import_module(f"mujoco.{backend}").GLContext(width, height)
        self._context.make_current()
        with _quality(model, width, height, samples):
            self._drawer = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_100))
        mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), self._drawer)

    def render(self, data: mujoco.MjData, model: mujoco.MjModel | None = None) -> np.ndarray:
        """Picture of `data`, (height, width, 3) uint8."""
        if self._context is None:
            raise ValueError("expected an open renderer, got a closed one; make another")
        self._context.make_current()
        every = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(model or self._model, data, self._option, None, self._camera, every, self._scene)
        mujoco.mjr_render(self._rect, self._scene, self._drawer)
        mujoco.mjr_readPixels(self._picture, None, self._rect, self._drawer)
        return self._picture[::-1].copy()

    def close(self) -> None:
        """Free the OpenGL context; harmless when repeated."""
        if self._context is not None:
            context, self._context = self._context, None
            context.make_current()
            if self._drawer is not None:
                self._drawer.free()
            context.free()

    def __del__(self) -> None:
        # Left to itself, MuJoCo would free this context's buffers in whichever context is current by then.
        with contextlib.suppress(Exception):
            self.close()


def _view(model: mujoco.MjModel, camera: int) -> mujoco.MjvCamera:
    view = mujoco.MjvCamera()
    if camera < 0:
        mujoco.mjv_defaultFreeCamera(model, view)
    else:
        view.type = int(mujoco.mjtCamera.mjCAMERA_FIXED)
        view.fixedcamid = camera
    return view


@contextlib.contextmanager
def _quality(model: mujoco.MjModel, width: int, height: int, samples: int) -> Iterator[None]:
    """Our sizes in the model while its context is made; MuJoCo reads them there and nowhere else."""
    ours = (
        (model.vis.quality, "shadowsize", SHADOW_PIXELS),
        (model.vis.quality, "offsamples", samples if samples > 1 else 0),
        (model.vis.global_, "offwidth", width),
        (model.vis.global_, "offheight", height),
    )
    before = [getattr(part, name) for part, name, _ in ours]
    try:
        for part, name, value in ours:
            setattr(part, name, value)
        yield
    finally:
        for (part, name, _), value in zip(ours, before, strict=True):
            setattr(part, name, value)


def _draw_red_box(backend: str) -> None:
    """Draw a red box with `backend`; RuntimeError where the picture is not that of a red box."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><camera pos='0 0 3'/><geom type='box' size='.4 .4 .4' rgba='1 0 0 1'/></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = OpenGLRenderer(model, backend, 64, 64, 0, 1)
    picture = renderer.render(data).astype(int)
    renderer.close()
    red = picture[..., 0] - picture[..., 1:].max(-1)
    if red[32, 32] < 50 or red[2, 2] > 20:
        raise RuntimeError("the picture is wrong")


if __name__ == "__main__":
    _draw_red_box(sys.argv[1])
