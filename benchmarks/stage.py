"""A stage: a recipe whose inputs are other stages' outputs, addressed by what goes into it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.code import Code, referenced
from diffpolicy.recipes.agree import Agree
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.recipes.run import settings
from diffpolicy_envs import TASKS, model_path

__all__ = ["Output", "Stage"]

CODE = Code()
_FILES = {Evaluate: "evaluation.json", Agree: "agreement.json"}  # of recipes that write one; the others, a folder
_ELSEWHERE = {"out", "overwrite", "threads"}  # where and how fast, not what


@dataclass(frozen=True)
class Output:
    """What a stage leaves behind, or a part of it."""

    stage: Stage
    part: str = ""  # folder within it: "round-1"


@dataclass(frozen=True)
class Stage:
    """One recipe with all its settings, and whose outputs it starts from."""

    recipe: Any
    inputs: Mapping[str, Output] = field(default_factory=dict)  # by the recipe's field that takes the path
    code: Code = field(default=CODE, compare=False)

    @property
    def name(self) -> str:
        """The recipe's, in lower case."""
        return type(self.recipe).__name__.lower()

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe's settings, but for paths and what does not change the result."""
        left_out = _ELSEWHERE | set(self.inputs)
        return {name: value for name, value in settings(self.recipe).items() if name not in left_out}

    @cached_property
    def asked(self) -> str:
        """Digest of what is asked for: the settings, and what was asked of the inputs."""
        inputs = {name: [output.stage.asked, output.part] for name, output in sorted(self.inputs.items())}
        return _sha(json.dumps([self.settings, inputs], sort_keys=True))

    @cached_property
    def key(self) -> str:
        """Digest of what is asked for and of the code that answers, here and in the inputs."""
        task = TASKS.get(self.environment)
        files = referenced(model_path(task.model)) if task else []
        modules = {type(self.recipe).__module__} | ({task.__module__} if task else set())
        inputs = [output.stage.key for _, output in sorted(self.inputs.items())]
        return _sha(json.dumps([self.asked, self.code.digest(modules, files), inputs]))

    @property
    def environment(self) -> str:
        """The gymnasium id, as this stage or one before it names it."""
        named = getattr(self.recipe, "environment", None)
        if named:
            return str(named)
        return next((e for e in (output.stage.environment for output in self.inputs.values()) if e), "")

    def folder(self, store: Path) -> Path:
        """Where the stage lives in a store: its output, its log, and the mark of its end."""
        return store / f"{self.name}-{self.key[:16]}"

    def output(self, store: Path) -> Path:
        """Where the recipe writes."""
        return self.folder(store) / _FILES.get(type(self.recipe), "out")

    def placed(self, store: Path) -> Callable[[], object]:
        """The recipe with its paths filled in."""
        paths: dict[str, Any] = {}
        for name, came in self.inputs.items():
            path = came.stage.output(store) / came.part
            paths[name] = str(path) if isinstance(getattr(self.recipe, name), str) else path
        recipe: Callable[[], object] = replace(self.recipe, out=self.output(store), **paths)
        return recipe

    def chain(self) -> Iterator[Stage]:
        """The stages that lead here, first things first, this one last."""
        seen: set[str] = set()
        for output in self.inputs.values():
            for stage in output.stage.chain():
                if stage.key not in seen:
                    seen.add(stage.key)
                    yield stage
        yield self


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
