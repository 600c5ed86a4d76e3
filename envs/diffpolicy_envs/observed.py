"""What a task's functions do and give, tried at its home state: the errors where it is not what a task must."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffpolicy_envs.condition import Start
from diffpolicy_envs.task import Array, Ids, Task

__all__ = ["UnfitError", "checked_actions", "require_acting", "require_observed"]

_TRIED = 2  # simulations in which a task is placed, acts and is driven before its first episode


class UnfitError(ValueError):
    """A task's function gives what it must not; the message names both."""


def require_observed(task: Task, num: int) -> None:
    """Raises UnfitError where for one of ``num`` simulations, or for all, a method raises or gives what it must not."""
    for ids in [np.arange(1)] + [np.arange(num)] * (num > 1):
        _require_observation(task, ids)
        _require_terms(task, ids)
        for name in ("success", "failure"):
            _require(task, f"{name}(ids)", _tried(task, name, ids), (len(ids),), "b")
        if task.records:
            shape = (len(ids), len(task.records))
            _require(task, "record(ids, so_far)", _tried(task, "record", ids, np.zeros(shape)), shape)
        if type(task).cost is not Task.cost:
            cost = _tried(task, "cost", ids)
            _require(task, "cost(ids)", cost, (len(ids),))
            if not np.isfinite(cost).all():
                raise UnfitError(f"task {type(task).__name__}: cost(ids) at the home state must be finite, got {cost}")


def require_acting(task: Task, num: int, start: Start) -> Ids:
    """Try a task's expert, control and place in some of ``num`` simulations, whose state changes; returns which.

    Raises:
        UnfitError: one of them raises, or an action is not one.
    """
    ids = np.arange(min(num, _TRIED))
    idle = checked_actions(task, "idle_action", _tried(task, "idle_action", ids), len(ids))
    if type(task).scripted():
        checked_actions(task, "expert", _tried(task, "expert", ids), len(ids))
    _tried(task, "control", ids, idle)
    _tried(task, "place", ids, [np.random.default_rng([0, int(i)]) for i in ids], start)
    return ids


def checked_actions(task: Task, name: str, value: Any, count: int) -> Array:
    """Actions (count, A) that the method ``name`` of a task gave.

    Raises:
        UnfitError: something else, or a number that is not finite.
    """
    _require(task, f"{name}(ids)", value, (count, task.action_size))
    if not np.isfinite(value).all():
        raise UnfitError(
            f"task {type(task).__name__}: {name}(ids) must give finite actions, got NaN or infinity; mend it"
        )
    actions: Array = value
    return actions


def _tried(task: Task, name: str, *given: Any) -> Any:
    """What a method of a task gives at the home state; what it raises is told in words."""
    try:
        return getattr(task, name)(*given)
    except MemoryError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        of = f" with actions of {task.action_size} numbers (`action_size`)" if name == "control" else ""
        raise UnfitError(
            f"task {type(task).__name__}: {name}{of}, tried at the home state, raised {type(error).__name__} ({said}); "
            "mend it, or what the task declares"
        ) from error


def _require_observation(task: Task, ids: Ids) -> None:
    name, seen = type(task).__name__, _tried(task, "observe", ids)
    if not isinstance(seen, Mapping):
        raise ValueError(f"task {name}: observe(ids) must give a mapping of names to arrays (n, O), got {_kind(seen)}")
    found = {name: np.shape(value) for name, value in seen.items()}
    said = {name: (len(ids), len(np.asarray(low))) for name, (low, _) in task.observation.items()}
    if found != said:
        raise ValueError(
            f"task {name}: observe gives {found} for {_many(len(ids))}, but `observation` declares {said}; "
            "make them agree"
        )
    for part, value in seen.items():
        _require(task, f"observe(ids)[{part!r}]", value, said[part])


def _require_terms(task: Task, ids: Ids) -> None:
    name, terms = type(task).__name__, _tried(task, "reward_terms", ids)
    if not isinstance(terms, Mapping) or not terms:
        raise ValueError(f"task {name}: reward_terms(ids) must give names and arrays (n,), one at least, got {terms!r}")
    if task.bonus and "success" in terms:
        raise ValueError(
            f"task {name}: reward_terms(ids) gives a term 'success', which `bonus` would replace; leave one of them out"
        )
    for term, value in terms.items():
        _require(task, f"reward_terms(ids)[{term!r}]", value, (len(ids),))


def _require(task: Task, what: str, value: Any, shape: tuple[int, ...], kinds: str = "biuf") -> None:
    """One array of that shape, of real numbers or of ``kinds`` as numpy abbreviates them."""
    if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind not in kinds:
        wanted = "bool" if kinds == "b" else "real numbers"
        raise UnfitError(
            f"task {type(task).__name__}: {what} for {_many(shape[0])}: expected one for each, an array of {wanted} of "
            f"shape {shape}; got {_kind(value)}"
        )


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} of shape {value.shape}"
    return f"{type(value).__name__} {value!r}"


def _many(count: int) -> str:
    return "one simulation" if count == 1 else f"{count} simulations"
