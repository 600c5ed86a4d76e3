"""A suite is a value: tasks x methods x conditions x seeds, and the graph of stages that it stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from benchmarks.stage import Output, Stage
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.rollout.environment import conditions_of

__all__ = ["Cell", "Method", "Suite", "slug"]

Actor = Callable[[str, int], Output | str]
"""(task, training seed) -> who is evaluated: a stage's output, or "expert"."""


@dataclass(frozen=True)
class Method:
    """Somebody to be evaluated, and how they come about."""

    name: str
    actor: Actor
    columns: Mapping[str, Any] = field(default_factory=dict)  # further columns of its rows
    seeds: tuple[int, ...] | None = None  # training seeds; by default the suite's
    conditions: tuple[str, ...] | None = None  # by default the suite's
    change: tuple[str, ...] = ()  # settings that it acts with instead of its checkpoint's
    tasks: tuple[str, ...] | None = None  # by default the suite's


@dataclass(frozen=True)
class Cell:
    """One task, method, condition and training seed."""

    suite: str
    task: str
    method: str
    condition: str
    seed: int
    evaluate: Stage
    columns: Mapping[str, Any]

    @cached_property
    def name(self) -> str:
        """A file's name."""
        more = [f"{value} {name}" for name, value in self.columns.items()]
        return slug(" ".join((self.task.rpartition("/")[2], self.method, *more, self.condition, f"seed {self.seed}")))

    @property
    def path(self) -> str:
        """Where it is kept, without an ending; no two cells share it."""
        return f"{self.suite}/{self.name}"

    @property
    def line(self) -> tuple[Any, ...]:
        """Which line of a board or table it belongs to."""
        return (self.task, self.method, *self.columns.values())


@dataclass(frozen=True)
class Suite:
    """Cells that are run together; a condition that a task does not know gives none there."""

    name: str
    about: str
    tasks: tuple[str, ...]
    methods: tuple[Method, ...]
    conditions: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    episodes: int = 200
    committed: bool = True  # whether its cells are kept in benchmarks/results; else they stay in the store

    def cells(self) -> Iterator[Cell]:
        """All of them, the ones that share stages beside each other; the first seed of every task comes first."""
        for seed in sorted({s for m in self.methods for s in self._seeds(m)}):
            for task in self.tasks:
                for method in self.methods:
                    if seed in self._seeds(method) and (method.tasks is None or task in method.tasks):
                        yield from self._cells(task, method, seed)

    def _cells(self, task: str, method: Method, seed: int) -> Iterator[Cell]:
        actor = method.actor(task, seed)
        inputs = {"checkpoint": actor} if isinstance(actor, Output) else {}
        known = conditions_of(task)
        for condition in self.conditions if method.conditions is None else method.conditions:
            if condition not in known:
                continue
            recipe = Evaluate(
                actor if isinstance(actor, str) else "",
                episodes=self.episodes,
                conditions=(condition,),
                environment=task,
                change=method.change,
                seed=seed,
            )
            yield Cell(self.name, task, method.name, condition, seed, Stage(recipe, inputs), method.columns)

    def _seeds(self, method: Method) -> Sequence[int]:
        return self.seeds if method.seeds is None else method.seeds


def slug(text: str) -> str:
    """Lower case, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
