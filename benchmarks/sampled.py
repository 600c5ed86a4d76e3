"""The suites of samplers: one network under many, other heads beside it, and how chunks follow one another."""

from __future__ import annotations

from benchmarks.suite import Actor, Method, Suite
from benchmarks.trained import ROUNDS, corrected_for_hard, imitated

__all__ = ["ACTING", "NETWORKS", "PUSH_T", "SAMPLERS", "SAMPLERS_MORE", "SOLVERS"]

DEMONSTRATIONS = 50
NAMES = ("PickPlace", "PushT", "Avoid", "PegInsert")
TASKS_HERE = tuple(f"diffpolicy/{name}-v0" for name in NAMES)
PUSH_T = "diffpolicy/PushT-v0"

SOLVERS: dict[
    str, tuple[str, tuple[str, ...]]
] = {  # a sampler: what is trained, and the settings that it is sampled with
    "DDPM, 100 steps": ("eps", ()),
    "DDIM, 10 steps": ("eps", ("sampler.steps=10", "sampler.eta=0")),
    "Heun, 4 steps": ("flow", ("sampler.steps=4", "sampler.solver=heun")),
    "DPM-Solver++, 4 steps": ("flow", ("sampler.steps=4", "sampler.solver=dpm++")),
    "Euler, 8 steps": ("flow", ()),
    "Euler, 4 steps": ("flow", ("sampler.steps=4",)),
    "Euler, 2 steps": ("flow", ("sampler.steps=2",)),
    "Euler, 1 step": ("flow", ("sampler.steps=1",)),
    "x0, Euler, 8 steps": ("x0", ()),
    "x0, Euler, 2 steps": ("x0", ("sampler.steps=2",)),
    "MIP": ("mip", ()),
    "regression": ("regression", ()),
    "gaussian": ("gaussian", ()),
    "mixture": ("mixture", ()),
}


def trained(kind: str, rounds: int) -> Actor:
    """A policy of some kind, from demonstrations alone or corrected."""
    if rounds:
        return lambda task, seed: corrected_for_hard(task, DEMONSTRATIONS, seed, kind)
    return lambda task, seed: imitated(task, DEMONSTRATIONS, seed, kind)


def _sampled(rounds: int, seeds: tuple[int, ...], tasks: tuple[str, ...], kinds: tuple[str, ...]) -> list[Method]:
    return [
        Method(name, trained(kind, rounds), {"rounds": rounds}, seeds, change=change, tasks=tasks)
        for name, (kind, change) in SOLVERS.items()
        if kind in kinds
    ]


_ALL = ("flow", "eps", "x0", "mip", "regression", "gaussian", "mixture")
_SCRIPTED = tuple(task for task in TASKS_HERE if task != PUSH_T)  # whose labels are cheap
SAMPLERS = Suite(
    "samplers",
    "samplers, heads and solvers, from 50 demonstrations, and flow corrected",
    TASKS_HERE,
    (
        *_sampled(0, (0, 1, 2), TASKS_HERE, _ALL),
        *_sampled(ROUNDS, (0, 1, 2), _SCRIPTED, ("flow",)),
        *_sampled(ROUNDS, (0,), (PUSH_T,), ("flow",)),
    ),
    ("clean", "hard"),
)
SAMPLERS_MORE = Suite(
    "samplers-more",
    "corrections of the others, one seed",
    TASKS_HERE,
    tuple(_sampled(ROUNDS, (0,), TASKS_HERE, tuple(kind for kind in _ALL if kind != "flow"))),
    ("clean", "hard"),
)
NETWORKS = Suite(
    "networks",
    "the residual MLP, the temporal U-Net and the transformer on PushT, 50 demonstrations, one seed",
    (PUSH_T,),
    tuple(
        Method(name, trained(kind, 0), {"rounds": 0})
        for name, kind in (("MLP", "flow"), ("U-Net", "unet"), ("transformer", "transformer"))
    ),
    ("clean", "hard"),
)


def _late(task: str, every: str, often: str) -> list[Method]:
    """One policy with chunks that follow one another in different ways, and later and later.

    `every` and `often` say how many actions of a chunk are executed, the latter where chunks are averaged.
    """
    flow = trained("flow", 0)
    ways: dict[str, tuple[str, ...]] = {
        "replaced": (every,),
        "replaced, 1 step": ("sampler.steps=1", every),
        "ensembled": ("acting.ensemble=0.01", often),
        "real-time": ("acting.real_time=5", every),
        "warm start": ("acting.warm_start=0.5", every),
    }
    return [
        Method(name, flow, {"late": late}, change=(*filter(None, change), f"acting.latency={late}"), tasks=(task,))
        for name, change in ways.items()
        for late in (0, 1, 2, 4)
    ]


_STANDING, _SWERVING = "diffpolicy/PickPlace-v0", "diffpolicy/Avoid-v0"
ACTING = Suite(
    "acting",
    "how chunks follow one another, with a simulated latency of 0 to 4 control steps, on PickPlace and Avoid",
    (_STANDING, _SWERVING),
    (*_late(_STANDING, "", "n_action_steps=4"), *_late(_SWERVING, "n_action_steps=4", "n_action_steps=4")),
    ("clean", "hard"),
    seeds=(0, 1, 2),
)
