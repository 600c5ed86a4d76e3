"""The suites, by name."""

from __future__ import annotations

from benchmarks.distilled import DISTILLATION, DISTILLATION_MORE, STUDENTS
from benchmarks.sampled import ACTING, NETWORKS, PUSH_T, SAMPLERS, SAMPLERS_MORE
from benchmarks.suite import Actor, Method, Suite
from benchmarks.trained import ROUNDS, corrected, corrected_for_hard, imitated, shoved, tiny
from diffpolicy_envs import CONDITIONS, TASKS

__all__ = ["DEMONSTRATIONS", "ENVS", "ENVS_MORE", "EXPERTS", "HELD_OUT", "QUICKSTART", "SMOKE", "SUITES"]

PICK_PLACE = ("diffpolicy/PickPlace-v0",)
MAIN = tuple(f"diffpolicy/{name}-v0" for name in ("Push", "PickPlace", "Stack", "PegInsert", "Avoid"))


def from_bc(demonstrations: int) -> Actor:
    """Imitation alone."""
    return lambda task, seed: imitated(task, demonstrations, seed)


def from_correction(demonstrations: int, number: int) -> Actor:
    """After a round of correction."""
    return lambda task, seed: corrected(task, demonstrations, seed, number)


def expert(task: str, seed: int) -> str:
    """The environment's scripted expert."""
    del task, seed
    return "expert"


def ladder(demonstrations: int, seeds: tuple[int, ...] | None = None) -> tuple[Method, ...]:
    """Imitation, and each round of correction after it."""
    columns = {"demonstrations": demonstrations}
    rounds = [
        Method(f"correct, round {n}", from_correction(demonstrations, n), columns, seeds) for n in range(1, ROUNDS + 1)
    ]
    return (Method("bc", from_bc(demonstrations), columns, seeds), *rounds)


SMOKE = Suite(
    "smoke",
    "a few updates and episodes of everything, to see that it runs; its numbers mean nothing",
    PICK_PLACE,
    (Method("expert", expert), Method("bc", tiny(0)), Method("correct", tiny(1))),
    ("clean", "shove"),
    episodes=4,
    committed=False,
)
QUICKSTART = Suite(
    "quickstart",
    "imitation of 20 demonstrations and three rounds of on-policy correction on PickPlace",
    PICK_PLACE,
    (Method("expert", expert), *ladder(20)),
    ("clean", "shove"),
    seeds=(0, 1, 2),
)
DEMONSTRATIONS = Suite(
    "demonstrations",
    "the same with fewer and with more demonstrations, one seed",
    PICK_PLACE,
    tuple(method for count in (1, 3, 5, 10, 50) for method in ladder(count)),
    ("clean", "shove"),
)
HELD_OUT = Suite(
    "held-out",
    "imitation of as many shoved states as correction labels, and conditions that nobody was trained on; one seed",
    PICK_PLACE,
    (
        Method("bc", from_bc(20), {"demonstrations": 20}),
        Method("bc, shoved", shoved(140, 15_000), {"demonstrations": 140}),
        Method("correct, round 3", from_correction(20, ROUNDS), {"demonstrations": 20}),
    ),
    ("clean", "shove", "slip", "sensor_noise", "action_delay", "dynamics"),
)
_IN_EACH_TASK = (
    Method("bc", from_bc(50), {"demonstrations": 50}),
    Method(
        "correct, round 3",
        lambda task, seed: corrected_for_hard(task, 50, seed),
        {"demonstrations": 50},
    ),
)
ENVS = Suite(
    "envs",
    "imitation of 50 clean demonstrations, and its correction under clean and hard, on the five main tasks",
    MAIN,
    _IN_EACH_TASK,
    ("clean", "hard"),
    seeds=(0, 1, 2),
)
_OTHERS = tuple(task for task in TASKS if task not in MAIN)
ENVS_MORE = Suite(
    "envs-more",
    "the same on the other tasks, one seed; imitation of PushT three",
    _OTHERS,
    (
        Method("bc", from_bc(50), {"demonstrations": 50}, tasks=tuple(task for task in _OTHERS if task != PUSH_T)),
        Method("bc", from_bc(50), {"demonstrations": 50}, (0, 1, 2), tasks=(PUSH_T,)),
        _IN_EACH_TASK[1],
    ),
    ("clean", "hard"),
)
EXPERTS = Suite(
    "experts",
    "the experts under every condition that their tasks know",
    tuple(TASKS),
    (Method("expert", expert),),
    (*CONDITIONS, "hard"),
    episodes=500,
)
_ALL = (
    SMOKE,
    QUICKSTART,
    DEMONSTRATIONS,
    HELD_OUT,
    ENVS,
    ENVS_MORE,
    EXPERTS,
    SAMPLERS,
    SAMPLERS_MORE,
    NETWORKS,
    ACTING,
    DISTILLATION,
    DISTILLATION_MORE,
    STUDENTS,
)
SUITES: dict[str, Suite] = {suite.name: suite for suite in _ALL}
