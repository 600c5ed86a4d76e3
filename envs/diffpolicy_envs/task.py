"""What a task is: one MJCF file and array functions over the simulations that run it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import mujoco
import mujoco.batch
import numpy as np
import numpy.typing as npt

from diffpolicy_envs.condition import CONDITIONS, Condition, Start, condition_named

__all__ = ["Array", "Bounds", "Ids", "Plans", "Task"]

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]
Bounds = tuple[npt.ArrayLike, npt.ArrayLike]

_METHODS = {"shove": ("shove",), "slip": ("lifted", "seized"), "dynamics": ("vary",)}  # without which it does nothing


class Plans(Protocol):
    """Makes plans whose first action is ``action`` (A,), each from a state row (S,) and the plan before it."""

    def plan(self, state: Array, before: Any = None) -> Any: ...


class Task(ABC):
    """Array functions over the simulations ``ids`` (n,) of a batch of N.

    Results must not depend on N (no matrix product over the batch), which makes one simulation and many
    bit-identical. A task keeps no state of its own: everything it reads lies in the batch's state rows, in
    the per-simulation model fields named by ``fields``, or in the episode's records.

    A task knows the conditions "clean", "sensor_noise", "action_delay" and "wide", and those for which it has
    methods: "shove" with ``shove``, "slip" with ``lifted`` and ``seized``, "dynamics" with ``vary``. What it
    inherits but does not mean it names in ``unfit``. A condition that would do nothing is refused.
    """

    model: ClassVar[str | Path]  # file in assets/models, or the path of one's own
    substeps: ClassVar[int]  # physics steps per control step
    max_steps: ClassVar[int]  # control steps per episode
    camera: ClassVar[str] = ""  # camera of the rendered picture; by default the model's first, or a free one
    observation: ClassVar[Mapping[str, Bounds]]  # name -> low, high, each (O,)
    action_size: ClassVar[int]
    bonus: ClassVar[float] = 0.0  # reward for success, as the term "success" beside those of ``reward_terms``
    fields: ClassVar[tuple[str, ...]] = ()  # model fields that differ between simulations
    records: ClassVar[tuple[str, ...]] = ()  # what an episode is reported by beside success, in its info
    ways: ClassVar[int | None] = None  # how many equally good ways there are, of which the record ``way`` names one
    noiseless: ClassVar[tuple[str, ...]] = ()  # observations that no sensor measures
    unfit: ClassVar[tuple[str, ...]] = ()  # conditions that mean nothing here, though the methods for them are there
    planned: ClassVar[bool] = False  # its expert plans, which takes time
    hard: ClassVar[Condition | None] = None  # the frozen condition on which methods are told apart
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # kind ("sensor", "joint", ...) -> names in the MJCF file
    sensor_sizes: ClassVar[Mapping[str, int]] = {}  # name of a sensor -> how many numbers it must give

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        """Raises ValueError where the model lacks what ``needs`` and ``camera`` name, or a sensor has another size."""
        self.batch = batch
        lacking = [
            f"{kind} {name!r}"
            for kind, names in (*self.needs.items(), ("camera", (self.camera,) if self.camera else ()))
            for name in names
            if mujoco.mj_name2id(batch.model, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), name) < 0
        ]
        if lacking:
            raise ValueError(
                f"task {type(self).__name__} needs {', '.join(lacking)} in its MJCF file {self.model}; add them there"
            )
        for name, size in self.sensor_sizes.items():
            if (found := int(batch.model.sensor(name).dim[0])) != size:
                raise ValueError(
                    f"task {type(self).__name__}: the sensor {name!r} in {self.model} gives {found} numbers, expected "
                    f"{size}; give it the right type"
                )

    @classmethod
    def conditions(cls) -> dict[str, Condition]:
        """The conditions that mean something here, by name; ``hard`` is the task's own."""
        known = {name: condition for name, condition in CONDITIONS.items() if not cls.lacks(condition)}
        return known if cls.hard is None else {**known, "hard": cls.hard}

    @classmethod
    def lacks(cls, condition: Condition) -> tuple[str, ...]:
        """What of a condition means nothing here, by the names of ``CONDITIONS``."""
        return tuple(name for name in condition.uses() if name in cls.unfit or not cls._written(name))

    @classmethod
    def _written(cls, name: str) -> bool:
        return all(getattr(cls, method) is not getattr(Task, method) for method in _METHODS.get(name, ()))

    @classmethod
    def condition(cls, condition: str | Condition) -> Condition:
        """A condition that means something here, by its name or as given.

        Raises:
            ValueError: unknown here, or it has something that means nothing here; the message lists what is known.
        """
        known = cls.conditions()
        found = condition_named(condition, known, cls.__name__)
        lacking = cls.lacks(found)
        if lacking:
            raise ValueError(
                f"condition {found.name!r} has {' and '.join(lacking)}, which means nothing to task {cls.__name__}; "
                f"it knows {', '.join(known)}: leave that out, or write the methods that diffpolicy_envs.Task names"
            )
        return found

    @classmethod
    def scripted(cls) -> bool:
        """Whether the task has a scripted expert; else its expert is a planner."""
        return cls.expert is not Task.expert and not cls.planned

    @classmethod
    def planner(cls, condition: str | Condition = "clean") -> Plans:
        """A planner for the task under a condition, with the settings that the task names in ``planning``.

        Raises:
            ValueError: the task has no cost.
        """
        from diffpolicy_envs.planner import Planner

        return Planner(cls, condition)

    @abstractmethod
    def place(self, ids: Ids, rngs: list[np.random.Generator], start: Start) -> None:
        """Write a drawn start into the state rows, which hold the home keyframe; one generator each."""

    @abstractmethod
    def control(self, ids: Ids, action: Array) -> None:
        """Write the controls for a normalised action (n, A) in [-1, 1]."""

    @abstractmethod
    def observe(self, ids: Ids) -> dict[str, Array]:
        """Noise-free observation, name -> (n, O)."""

    @abstractmethod
    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        """Reward by named terms, each (n,); the reward is their sum."""

    @abstractmethod
    def success(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether the task is done, (n,); ends the episode."""

    # -- what a task may have beside --------------------------------------------------------------------------

    def failure(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether the task can no longer be done, (n,); ends the episode too."""
        return np.zeros(len(ids), dtype=bool)

    def record(self, ids: Ids, so_far: Array) -> Array:
        """The episode's records (n, R) after a step, from those ``so_far``, which are 0 before the first state."""
        del ids
        return so_far

    def expert(self, ids: Ids) -> Array:
        """Scripted expert's action (n, A): a memoryless function of the true state.

        Raises:
            ValueError: the task has none.
        """
        del ids
        raise ValueError(f"task {type(self).__name__} has no scripted expert: define expert(ids), or plan")

    def cost(self, ids: Ids) -> Array:
        """What a planner shall make small, (n,): a smooth function of the true state.

        Raises:
            ValueError: the task has none.
        """
        del ids
        raise ValueError(f"task {type(self).__name__} has no cost to plan by: define cost(ids) -> (n,), or expert(ids)")

    def propose(self, i: int, rng: np.random.Generator, count: int, horizon: int) -> Array:
        """Whole courses of action (at most count, horizon, A) that a planner shall try from simulation ``i``."""
        del i, rng, count
        return np.zeros((0, horizon, self.action_size))

    def idle_action(self, ids: Ids) -> Array:
        """The action (n, A) that holds still: fills the delay line at a reset."""
        return np.zeros((len(ids), self.action_size))

    # -- what can befall it: a task knows the conditions whose methods it has ----------------------------------

    def vary(self, ids: Ids, mass_scale: Array, friction_scale: Array) -> None:
        """Scale the object's mass and friction (n,)."""
        del ids, mass_scale, friction_scale

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        """Push the object along ``angle`` (n,) [rad] with ``speed`` (n,) [m/s]."""
        del ids, angle, speed

    def seized(self, ids: Ids, action: Array, angle: Array, speed: Array) -> Array:
        """What is commanded (n, A) instead of ``action`` in the steps after a shove or at a slip."""
        del ids, angle, speed
        return action

    def lifted(self, ids: Ids) -> Array:
        """Height of the object above its rest [m], 0 while nothing holds it: (n,)."""
        return np.zeros(len(ids))
