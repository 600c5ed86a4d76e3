"""Off-screen rendering: pictures of a simulation, with or without OpenGL on the machine."""

from __future__ import annotations

from typing import Protocol

import mujoco
import numpy as np

from .backend import Backend, demote, probe, resolve_backend
from .opengl import OpenGLRenderer
from .raycast import SoftwareRenderer

__all__ = ["Backend", "Renderer", "make_renderer", "resolve_backend"]


class Renderer(Protocol):
    """Draws simulations of one model from one camera."""

    backend: str

    def render(self, data: mujoco.MjData, model: mujoco.MjModel | None = None) -> np.ndarray:
        """Picture of `data`, (height, width, 3) uint8; `mj_forward` must have run on it.

        `model` may differ from the renderer's own in sizes, colours and lights, not in structure.
        """
        ...

    def close(self) -> None:
        """Release what the renderer holds; it must not be used afterwards."""
        ...


def make_renderer(
    model: mujoco.MjModel,
    *,
    width: int = 256,
    height: int = 256,
    camera: str | int = 0,
    backend: str = "auto",
    samples: int = 4,
) -> Renderer:
    """Make a renderer of `width` x `height` [pixel].

    Args:
        model: what is drawn.
        camera: name or number of a camera of the model; -1 is MuJoCo's default free camera.
        backend: "auto" takes the best that works here; "software" needs no OpenGL at all;
            "egl", "osmesa", "glfw" and "cgl" insist on one.
        samples: 4 smooths edges, 1 is faster.

    Raises:
        ValueError: no such camera or backend, or a picture without pixels.
        RuntimeError: the OpenGL that was insisted on does not work here.
    """
    if width < 1 or height < 1:
        raise ValueError(f"expected a picture of at least 1 x 1 pixels, got {width} x {height}")
    if samples not in (1, 4):
        raise ValueError(f"expected samples of 1 or 4, got {samples}")
    number = _camera_number(model, camera)
    name = resolve_backend().name if backend == "auto" else backend
    if backend not in ("auto", "software"):
        failure = probe(backend)
        if failure is not None:
            raise RuntimeError(f"the {backend} renderer does not work here ({failure}); use backend='auto'")
    if name != "software":
        try:
            return OpenGLRenderer(model, name, width, height, number, samples)
        except Exception as error:
            if backend != "auto":
                raise RuntimeError(f"the {name} renderer failed: {error}; use backend='software'") from error
            demote(f"{name} failed in this process: {type(error).__name__}: {error}")
    return SoftwareRenderer(model, width, height, number, samples)


def _camera_number(model: mujoco.MjModel, camera: str | int) -> int:
    names = [model.camera(i).name for i in range(model.ncam)]
    if isinstance(camera, str):
        if camera not in names:
            raise ValueError(f"expected a camera among {names}, got {camera!r}; -1 is the free camera")
        return names.index(camera)
    if not -1 <= camera < model.ncam:
        raise ValueError(f"expected a camera from -1 (free) to {model.ncam - 1}, got {camera}")
    return int(camera)
