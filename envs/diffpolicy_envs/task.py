"""What a task is: one MJCF file and array functions over the simulations that run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Bounds", "Ids", "Task"]

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
Bounds = tuple[npt.ArrayLike, npt.ArrayLike]


class Task(ABC):
    """Array functions over the simulations ``ids`` (n,) of a batch of N.

    Results must not depend on N (no matrix product over the batch), which makes one simulation and many
    bit-identical. A task keeps no state of its own: everything it reads lies in the batch's state rows or
    in the per-simulation model fields named by ``fields``.
    """

    model: ClassVar[str]  # file in assets/models
    substeps: ClassVar[int]  # physics steps per control step
    max_steps: ClassVar[int]  # control steps per episode
    camera: ClassVar[str]  # camera of the rendered picture
    observation: ClassVar[Mapping[str, Bounds]]  # name -> low, high, each (O,)
    action_size: ClassVar[int]
    fields: ClassVar[tuple[str, ...]] = ()  # model fields that differ between simulations

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        self.batch = batch

    @abstractmethod
    def place(self, ids: Ids, rngs: list[np.random.Generator]) -> None:
        """Write a drawn start into the state rows, which hold the home keyframe; one generator each."""

    @abstractmethod
    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        """Scale the object's mass and friction (n,)."""

    @abstractmethod
    def control(self, ids: Ids, action: Array) -> None:
        """Write the controls for a normalised action (n, A) in [-1, 1]."""

    @abstractmethod
    def idle_action(self, ids: Ids) -> Array:
        """The action (n, A) that holds still: fills the delay line at a reset."""

    @abstractmethod
    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Push the object along ``angle`` (n,) [rad] with ``speed`` (n,) [m/s]."""

    @abstractmethod
    def release(self, ids: Ids, action: Array) -> Array:
        """The action (n, A) with the gripper forced open."""

    @abstractmethod
    def lifted(self, ids: Ids) -> Array:
        """Height of the object above its rest [m], 0 while nothing holds it: (n,)."""

    @abstractmethod
    def observe(self, ids: Ids) -> dict[str, Array]:
        """Noise-free observation, name -> (n, O)."""

    @abstractmethod
    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Reward by named terms, each (n,); the reward is their sum."""

    @abstractmethod
    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether the task is done, (n,); ends the episode."""

    @abstractmethod
    def expert(self, ids: Ids) -> Array:
        """Scripted expert's action (n, A): a memoryless function of the true state."""
