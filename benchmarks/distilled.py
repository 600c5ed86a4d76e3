"""The suites of distillation: one teacher, students of one and two steps by every route, and what each costs."""

from __future__ import annotations

from functools import cache

from benchmarks.stage import Output, Stage
from benchmarks.suite import Actor, Method, Suite
from benchmarks.trained import imitated
from diffpolicy.recipes.distil import Distil
from diffpolicy.recipes.redif import Redif
from diffpolicy.updates import PolicyGradientConfig, RegressionConfig, RewardConfig

__all__ = ["DISTILLATION"]

DEMONSTRATIONS = 50
TEACHER_STEPS = 50
UPDATES = 3000  # of a distillation
NAMES = ("PickPlace", "Stack", "PegInsert", "PushT", "Avoid")
TASKS_HERE = tuple(f"diffpolicy/{name}-v0" for name in NAMES)
WIDE = tuple(f"diffpolicy/{name}-v0" for name in ("Avoid", "PegInsert"))  # where every route is taken
CONDITIONS = ("clean", "hard")
SEEDS = (0, 1, 2)
ROLLOUTS = {"diffpolicy/Avoid-v0": 256}  # whose episodes are short; 128 elsewhere
BATCHES = {"diffpolicy/Avoid-v0": 150}  # of the policy gradient; 100 elsewhere
RATE = {"diffpolicy/Avoid-v0": 2e-4}  # of the policy gradient; 5e-5 elsewhere


@cache
def distilled(task: str, seed: int, steps: int, method: str, rounds: int = 0) -> Output:
    """A student of the teacher that imitates 50 demonstrations."""
    recipe = Distil(
        method=method,  # type: ignore[arg-type]
        student_steps=steps,
        teacher_steps=TEACHER_STEPS,
        rounds=rounds,
        conditions=CONDITIONS,
        optimiser=RegressionConfig(lr=1e-3),
        steps=UPDATES,
        seed=seed,
    )
    return Output(Stage(recipe, {"checkpoint": imitated(task, DEMONSTRATIONS, seed)}))


@cache
def reinforced(task: str, seed: int, steps: int, start: str) -> Output:
    """A student that is rewarded for success on what it meets itself, from its teacher's weights or as distilled."""
    recipe = Redif(
        student_steps=None if start == "paired" else steps,
        conditions=CONDITIONS,
        rollouts=ROLLOUTS.get(task, 128),
        steps=BATCHES.get(task, 100),
        optimiser=PolicyGradientConfig(lr=RATE.get(task, 5e-5)),
        seed=seed,
    )
    begun = distilled(task, seed, steps, "paired") if start == "paired" else imitated(task, DEMONSTRATIONS, seed)
    return Output(Stage(recipe, {"checkpoint": begun}))


@cache
def agreeing(task: str, seed: int, steps: int, gradient: str) -> Output:
    """A student that is rewarded for its teacher's chunks, by trying out or through its chain; of data alone."""
    path = gradient == "path"
    recipe = Redif(
        student_steps=steps,
        observations="data",
        gradient=gradient,  # type: ignore[arg-type]
        reward=RewardConfig(agreement=1.0),
        teacher_steps=TEACHER_STEPS,
        steps=UPDATES if path else UPDATES // 10,  # each of the latter makes up to ten passes over eight times as many
        optimiser=PolicyGradientConfig(lr=1e-3 if path else 5e-5),
        seed=seed,
    )
    return Output(Stage(recipe, {"checkpoint": imitated(task, DEMONSTRATIONS, seed)}))


def _student(steps: int, method: str, rounds: int = 0) -> Actor:
    return lambda task, seed: distilled(task, seed, steps, method, rounds)


def _reinforced(steps: int, start: str) -> Actor:
    return lambda task, seed: reinforced(task, seed, steps, start)


def _agreeing(steps: int, gradient: str) -> Actor:
    return lambda task, seed: agreeing(task, seed, steps, gradient)


def _teacher(task: str, seed: int) -> Output:
    return imitated(task, DEMONSTRATIONS, seed)


def _of_kind(kind: str) -> Actor:
    return lambda task, seed: imitated(task, DEMONSTRATIONS, seed, kind)


def _in(steps: int) -> tuple[str, ...]:
    return (f"sampler.steps={steps}",)


def _methods() -> list[Method]:
    found = [
        Method("teacher", _teacher, {"steps": n}, SEEDS if n in (1, 2, TEACHER_STEPS) else (0,), change=_in(n))
        for n in (TEACHER_STEPS, 8, 4, 2, 1)
    ]
    for steps in (1, 2):
        told = {"steps": steps}
        found += [
            Method("paired", _student(steps, "paired"), told),
            Method("paired, 2 rounds", _student(steps, "paired", 2), told, tasks=None if steps == 1 else WIDE),
            Method("redif", _reinforced(steps, "paired"), told),
            *(
                Method(name, _student(steps, name), told, tasks=WIDE)
                for name in ("progressive", "consistency", "score")
                if steps == 1 or name != "progressive"
            ),
            Method("redif, agreement", _agreeing(steps, "policy"), told, tasks=WIDE),
            Method("pathwise, agreement", _agreeing(steps, "path"), told, tasks=WIDE),
            Method("shortcut", _of_kind("shortcut"), told, change=_in(steps), tasks=WIDE),
            Method("mean flow", _of_kind("mean_flow"), told, change=_in(steps), tasks=WIDE),
        ]
    return [
        *found,
        Method("redif, from the teacher", _reinforced(2, "teacher"), {"steps": 2}, SEEDS),
        Method("MIP", _of_kind("mip"), {"steps": 2}),
        Method("regression", _of_kind("regression"), {"steps": 1}),
    ]


DISTILLATION = Suite(
    "distillation",
    "students of one and two steps of a teacher of 50, with and without reinforcement; the main rows of three seeds",
    TASKS_HERE,
    tuple(_methods()),
    CONDITIONS,
)
