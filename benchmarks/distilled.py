"""The suites of distillation: one teacher, students of one and two steps by every route, and what each costs."""

from __future__ import annotations

from functools import cache

from benchmarks.stage import Output, Stage
from benchmarks.suite import Actor, Method, Suite
from benchmarks.trained import corrected_for_hard, imitated
from diffpolicy.recipes.distil import Distil
from diffpolicy.recipes.redif import Redif
from diffpolicy.updates import PolicyGradientConfig, RegressionConfig, RewardConfig

__all__ = ["DISTILLATION", "DISTILLATION_MORE", "STUDENTS", "TEACHER", "TEACHER_STEPS"]

DEMONSTRATIONS = 50
TEACHER_STEPS = 50  # as it acts
ASKED_STEPS = 20  # as it is asked by students: its chunks are the same to a hundredth, in two fifths of the time
UPDATES = 8000  # of a distillation: with 3000 a paired student of one step has 74.5 of PickPlace, clean, not 91
NAMES = ("PickPlace", "Stack", "PegInsert", "PushT", "Avoid")
TASKS_HERE = tuple(f"diffpolicy/{name}-v0" for name in NAMES)
WIDE = tuple(f"diffpolicy/{name}-v0" for name in ("Avoid", "PegInsert"))  # where every route is taken
SWERVING = ("diffpolicy/Avoid-v0",)  # where there are ways to keep, and correction leaves something to gain
CONDITIONS = ("clean", "hard")
SEEDS = (0, 1, 2)
ROLLOUTS = {"diffpolicy/Avoid-v0": 256, "diffpolicy/PushT-v0": 64}  # by the length of an episode; 128 elsewhere
BATCHES = {"diffpolicy/Avoid-v0": 150}  # of the policy gradient; 100 elsewhere
RATE = {"diffpolicy/Avoid-v0": 2e-4}  # of the policy gradient; 5e-5 elsewhere
# 0.1 of half a frame is 26 mm, where 5 mm decide; on Stack 0.1 takes clean success along; 0.1 elsewhere
EXPLORE = {"diffpolicy/PushT-v0": 0.02, "diffpolicy/Stack-v0": 0.05}


def _taught(task: str, seed: int) -> dict[str, Output]:
    """The teacher, and what it was trained on."""
    teacher = imitated(task, DEMONSTRATIONS, seed)
    return {"checkpoint": teacher, "data": teacher.stage.inputs["data"]}


def _named(name: str, steps: int) -> str:
    return f"{name}, {steps} step{'s' if steps > 1 else ''}"


TEACHER = _named("teacher", TEACHER_STEPS)


@cache
def distilled(task: str, seed: int, steps: int, method: str, rounds: int = 0) -> Output:
    """A student of the teacher that imitates 50 demonstrations."""
    recipe = Distil(
        method=method,  # type: ignore[arg-type]
        student_steps=steps,
        teacher_steps=ASKED_STEPS,
        rounds=rounds,
        conditions=CONDITIONS,
        optimiser=RegressionConfig(lr=1e-3),
        steps=UPDATES,
        seed=seed,
    )
    return Output(Stage(recipe, _taught(task, seed)))


@cache
def reinforced(task: str, seed: int, steps: int, start: str) -> Output:
    """A student that is rewarded for success on what it meets itself.

    It starts as distilled (paired), with the weights of its teacher, or with those of the corrected one.
    """
    recipe = Redif(
        student_steps=None if start == "paired" else steps,
        conditions=CONDITIONS,
        rollouts=ROLLOUTS.get(task, 128),
        steps=BATCHES.get(task, 100),
        optimiser=PolicyGradientConfig(lr=RATE.get(task, 5e-5), explore=EXPLORE.get(task, 0.1)),
        seed=seed,
    )
    starts = {
        "paired": lambda: distilled(task, seed, steps, "paired"),
        "teacher": lambda: imitated(task, DEMONSTRATIONS, seed),
        "corrected": lambda: corrected_for_hard(task, DEMONSTRATIONS, seed),
    }
    return Output(Stage(recipe, {"checkpoint": starts[start]()}))


@cache
def anchored(task: str, seed: int) -> Output:
    """A paired student of two steps that is rewarded for success and held near its own first steps, ways and all."""
    recipe = Redif(
        conditions=CONDITIONS,
        rollouts=ROLLOUTS.get(task, 128),
        optimiser=PolicyGradientConfig(lr=RATE.get(task, 5e-5), anchor=100.0, critic_chunk=True),
        seed=seed,
    )
    return Output(Stage(recipe, {"checkpoint": distilled(task, seed, 2, "paired")}))


@cache
def dppo(task: str, seed: int) -> Output:
    """The teacher in eight steps, of which the last four are trained by the rewards of a student."""
    recipe = Redif(
        student_steps=8,
        conditions=CONDITIONS,
        optimiser=PolicyGradientConfig(last_steps=4),
        seed=seed,
    )
    return Output(Stage(recipe, {"checkpoint": imitated(task, DEMONSTRATIONS, seed)}))


@cache
def agreeing(task: str, seed: int, steps: int, gradient: str) -> Output:
    """A student that is rewarded for its teacher's chunks, by trying out or through its chain; of data alone."""
    path = gradient == "path"
    recipe = Redif(
        student_steps=steps,
        observations="data",
        gradient=gradient,  # type: ignore[arg-type]
        reward=RewardConfig(agreement=1.0),
        teacher_steps=ASKED_STEPS,
        windows=16 if path else 128,  # so that all routes ask the teacher for some 128,000 chains
        steps=UPDATES if path else UPDATES // 10,  # each of the latter makes up to ten passes over eight times as many
        optimiser=PolicyGradientConfig(lr=1e-3 if path else 5e-5),
        seed=seed,
    )
    return Output(Stage(recipe, _taught(task, seed)))


def _student(steps: int, method: str, rounds: int = 0) -> Actor:
    return lambda task, seed: distilled(task, seed, steps, method, rounds)


def _reinforced(steps: int, start: str) -> Actor:
    return lambda task, seed: reinforced(task, seed, steps, start)


def _corrected(task: str, seed: int) -> Output:
    return corrected_for_hard(task, DEMONSTRATIONS, seed)


def _agreeing(steps: int, gradient: str) -> Actor:
    return lambda task, seed: agreeing(task, seed, steps, gradient)


def _teacher(task: str, seed: int) -> Output:
    return imitated(task, DEMONSTRATIONS, seed)


def _of_kind(kind: str) -> Actor:
    return lambda task, seed: imitated(task, DEMONSTRATIONS, seed, kind)


def _in(steps: int) -> tuple[str, ...]:
    return (f"sampler.steps={steps}",)


def _main() -> list[Method]:
    teachers = [
        Method(_named("teacher", n), _teacher, {}, SEEDS if n in (1, 2, TEACHER_STEPS) else (0,), change=_in(n))
        for n in (TEACHER_STEPS, 8, 4, 2, 1)
    ]
    return [
        *teachers,
        *(Method(_named("paired", steps), _student(steps, "paired")) for steps in (1, 2)),
        Method(_named("paired, 2 rounds", 1), _student(1, "paired", 2)),
        Method(_named("redif", 2), _reinforced(2, "teacher"), {}, SEEDS),
        Method(_named("MIP", 2), _of_kind("mip")),
        Method(_named("regression", 1), _of_kind("regression")),
    ]


def _more() -> list[Method]:
    found = [
        Method(_named("paired, 2 rounds", 2), _student(2, "paired", 2), tasks=WIDE),
        Method(_named("DPPO", 8), dppo, tasks=("diffpolicy/PickPlace-v0",)),
        Method(_named("corrected teacher", TEACHER_STEPS), _corrected, change=_in(TEACHER_STEPS), tasks=SWERVING),
        Method(_named("redif, from corrected", 2), _reinforced(2, "corrected"), tasks=SWERVING),
        Method(_named("redif, anchored", 2), anchored, {}, SEEDS, tasks=SWERVING),
        Method(_named("redif, from paired", 1), _reinforced(1, "paired")),
    ]
    for steps in (1, 2):
        routes = ("progressive", "consistency", "score") if steps == 1 else ("consistency", "score")
        actors: dict[str, Actor] = {
            "redif, agreement": _agreeing(steps, "policy"),
            "pathwise, agreement": _agreeing(steps, "path"),
            **{name: _student(steps, name) for name in routes},
        }
        found += [
            *(Method(_named(name, steps), actor, tasks=WIDE) for name, actor in actors.items()),
            *(
                Method(_named(kind.replace("_", " "), steps), _of_kind(kind), change=_in(steps), tasks=WIDE)
                for kind in ("shortcut", "mean_flow")
            ),
        ]
    return found


def _but(tasks: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(task for task in TASKS_HERE if task not in tasks)


DISTILLATION = Suite(
    "distillation",
    "students of one and two steps of a teacher of 50, by regression and reinforcement; the main rows of three seeds",
    TASKS_HERE,
    tuple(_main()),
    CONDITIONS,
)
DISTILLATION_MORE = Suite(
    "distillation-more",
    "every other route to a student, on Avoid and PegInsert; reinforcement of paired students, and DPPO; one seed",
    TASKS_HERE,
    tuple(_more()),
    CONDITIONS,
)
STUDENTS = Suite(
    "students",
    "the teacher of 50 steps beside its students of one and two over 1000 episodes a training seed",
    TASKS_HERE,
    (
        Method(TEACHER, _teacher),
        Method(_named("redif", 2), _reinforced(2, "teacher")),
        *(
            Method(_named("paired", steps), _student(steps, "paired"), {}, (0,), tasks=_but(SWERVING))
            for steps in (1, 2)
        ),
        *(Method(_named("paired", steps), _student(steps, "paired"), tasks=SWERVING) for steps in (1, 2)),
        Method(_named("redif, anchored", 2), anchored, tasks=SWERVING),
    ),
    CONDITIONS,
    SEEDS,
    episodes=1000,
)
