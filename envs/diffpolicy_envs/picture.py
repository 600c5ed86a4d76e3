"""Pictures of one simulation out of many, through whichever renderer works here."""

from __future__ import annotations

import mujoco
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.checks import checked_whole
from diffpolicy_envs.rendering import Renderer, make_renderer
from diffpolicy_envs.simulation import Simulations

__all__ = ["Picture"]


class Picture:
    """Draws simulations; the renderer is made at the first picture."""

    def __init__(
        self, simulations: Simulations, render_mode: str | None, width: int, height: int, camera: str | None
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        self._simulations = simulations
        self._mode = render_mode
        self._size = (checked_whole("width", width, 1), checked_whole("height", height, 1))
        self._camera: str | int = camera or simulations.task.camera or (0 if simulations.model.ncam else -1)
        self._renderer: Renderer | None = None
        self._data: mujoco.MjData | None = None

    def draw(self, i: int) -> npt.NDArray[np.uint8] | None:
        """Picture (height, width, 3) of simulation ``i``, or None without a render mode."""
        if self._mode is None:
            return None
        model, batch = self._simulations.model, self._simulations.batch
        if self._renderer is None:
            width, height = self._size
            self._renderer = make_renderer(model, width=width, height=height, camera=self._camera)
            self._data = mujoco.MjData(model)
        batch.get_data(i, self._data)
        mujoco.mj_forward(model, self._data)
        return self._renderer.render(self._data)

    def close(self) -> None:
        """Free the renderer; a later picture makes a new one."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
