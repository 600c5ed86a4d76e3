"""Laws of values of the wrong type, given from Python: each is an error in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest

from diffpolicy_envs import TASKS, Condition, Simulations, TaskVectorEnv
from diffpolicy_envs.planner import Planner, PlannerConfig
from diffpolicy_envs.tasks.reach import Reach

PushT: Any = TASKS["diffpolicy/PushT-v0"]
CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "settings": (lambda: Planner(PushT, config={"samples": 3}), r"config as a PlannerConfig or None, got {'samples'"),  # type: ignore[arg-type]
    "task": (lambda: Planner("PushT"), r"expected a subclass of diffpolicy_envs\.Task, got 'PushT'"),  # type: ignore[arg-type]
    "instance": (lambda: Simulations(object(), 1), r"expected a subclass of diffpolicy_envs\.Task, got <object"),  # type: ignore[arg-type]
    "before": (lambda: _planned("x"), "expected the plan before as a Plan or None, got 'x'"),
    "state": (lambda: _planner().plan("x"), "states must be an array of real numbers"),  # type: ignore[arg-type]
    "options": (lambda: _env().reset(options=[1]), r"expected options as a mapping .* got \[1\]"),  # type: ignore[arg-type]
    "seed": (lambda: _env().reset(seed="ab"), "expected a seed that is an integer from 0 .* got 'ab'"),
    "seed of one": (lambda: _single().reset(seed="a"), "expected a seed that is an integer from 0 .* got 'a'"),  # type: ignore[arg-type]
    "window": (
        lambda: Condition("x", shove_speed=(1, 2), shove_window=(3.5, 7)),  # type: ignore[arg-type]
        r"shove_window as \(low, high\) with 0 <= low <= high, whole steps, got \(3\.5, 7\)",
    ),
}


def _planner() -> Planner:
    return Planner(PushT, config=PlannerConfig(samples=2))


def _planned(before: Any) -> Any:
    planner = _planner()
    return planner.plan(planner.futures.get_state(np.arange(1))[0], before)


def _env() -> TaskVectorEnv:
    return TaskVectorEnv(Reach, 2, threads=1)


def _single() -> Any:
    return gymnasium.make("diffpolicy/Reach-v0").unwrapped


@pytest.mark.parametrize("what", CALLS)
def test_value_of_another_type_is_refused_in_words(what: str) -> None:
    call, message = CALLS[what]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("value", ["a", "0.5", 1j])
def test_actions_that_are_no_numbers_are_refused_and_nothing_moves(value: Any) -> None:
    env, one = _env(), _single()
    env.reset(seed=0)
    one.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match="actions must be an array of real numbers, got"):
        env.step(np.full((2, 5), value))
    with pytest.raises(ValueError, match="actions must be an array of real numbers, got"):
        one.step([value] * 5)
    assert np.array_equal(env.get_state(), before)
