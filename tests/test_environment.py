"""Laws of vector environments by id: one contract for ours and other people's, and clear refusals."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import (
    Branchable,
    Scripted,
    branching,
    conditions_of,
    longest,
    make_vector,
    name_of,
    named,
)
from diffpolicy_envs import TASKS, TaskVectorEnv

every_name = pytest.mark.parametrize("name", TASKS)


@pytest.mark.parametrize(("name", "condition"), [(n, c) for n, task in TASKS.items() for c in task.conditions()])
def test_ours_run_batched_under_any_condition(name: str, condition: str) -> None:
    env = make_vector(name, 3, condition, threads=1)
    assert isinstance(env.unwrapped, TaskVectorEnv)
    assert env.unwrapped.simulations.condition is TASKS[name].conditions()[condition]
    assert env.num_envs == 3
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert isinstance(env.unwrapped, Branchable)
    assert isinstance(env.unwrapped, Scripted)
    assert branching(env) is env
    assert (longest(name), name_of(env)) == (TASKS[name].max_steps, name)
    assert conditions_of(name) == tuple(TASKS[name].conditions())


def test_others_run_in_a_loop() -> None:
    env = make_vector("Pendulum-v1", 2, g=5.0)
    assert env.num_envs == 2
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED
    assert [one.unwrapped.g for one in env.envs] == [5.0, 5.0]  # type: ignore[attr-defined]
    assert not isinstance(env.unwrapped, Branchable)
    assert not isinstance(env.unwrapped, Scripted)
    assert branching(env) is None
    assert (longest("Pendulum-v1"), name_of(env)) == (200, "Pendulum-v1")
    assert conditions_of("Pendulum-v1") == ("clean",)
    env.close()


@every_name
def test_options_reach_the_environment(name: str) -> None:
    env = make_vector(name, 1, threads=1, render_mode="rgb_array", width=20, height=10)
    env.reset(seed=0)
    frames = env.render()
    assert frames is not None
    assert frames[0].shape == (10, 20, 3)
    env.close()


@every_name
def test_module_of_an_environment_is_imported_first(name: str) -> None:
    assert isinstance(make_vector(f"diffpolicy_envs:{name}", 1, "hard").unwrapped, TaskVectorEnv)
    assert conditions_of(f"diffpolicy_envs:{name}") == tuple(TASKS[name].conditions())


@pytest.mark.parametrize("name", ["diffpolicy/PickPlac-v0", "Nothing-v0", "no_such_module:Nothing-v0", "???", ""])
def test_unknown_environment_is_refused_and_ours_are_named(name: str) -> None:
    with pytest.raises(InputError, match="unknown environment") as caught:
        make_vector(name, 1)
    assert all(ours in str(caught.value) for ours in TASKS)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("Pendulm-v1", "Pendulum-v1"),
        ("diffpolicy/pickplace-v0", "diffpolicy/PickPlace-v0"),
        ("Pendulum-v9", "Pendulum"),
    ],
)
def test_unknown_environment_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(InputError, match=f"did you mean .*{near}.*\\? Ours are"):
        make_vector(name, 1)


def test_a_module_that_fails_to_load_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"module 'torn' cannot be imported .ZeroDivisionError: division by zero"):
        make_vector("torn:Anything-v0", 1)


@pytest.mark.parametrize("name", [*TASKS, "Pendulum-v1"])
def test_a_finished_simulation_stands_still_until_it_is_reset(name: str) -> None:
    env = make_vector(name, 2)
    env.reset(seed=[3, 4])
    action = np.zeros(env.action_space.shape or (), np.float32)
    if isinstance(env.unwrapped, TaskVectorEnv):
        action = env.unwrapped.simulations.task.idle_action(np.arange(2)).astype(np.float32)
    for _ in range(longest(name)):
        seen, _, _, truncated, _ = env.step(action)
    assert truncated.all()
    again, reward, terminated, truncated, _ = env.step(action)
    assert all(np.array_equal(a, b) for a, b in zip(named(seen).values(), named(again).values(), strict=True))
    assert not any(value.any() for value in (reward, terminated, truncated))
    first, _ = env.reset(seed=[None, 9], options={"reset_mask": np.array([False, True])})  # type: ignore[arg-type]
    after, *_ = env.step(action)
    for seen, now, then in zip(named(again).values(), named(first).values(), named(after).values(), strict=True):
        assert np.array_equal(seen[0], now[0])
        assert np.array_equal(now[0], then[0])
    assert any(
        not np.array_equal(a[1], b[1]) for a, b in zip(named(first).values(), named(after).values(), strict=True)
    )
    env.close()


def test_unknown_condition_is_refused_and_the_known_are_named() -> None:
    with pytest.raises(InputError, match=r"knows the conditions clean, shove.*got 'storm'"):
        make_vector("diffpolicy/PickPlace-v0", 1, "storm")
    with pytest.raises(InputError, match=r"got 'shov'; did you mean shove\?"):
        make_vector("diffpolicy/PickPlace-v0", 1, "shov")
    with pytest.raises(InputError, match="knows the conditions clean; got 'shove'"):
        make_vector("Pendulum-v1", 1, "shove")


def test_other_than_continuous_actions_are_refused() -> None:
    with pytest.raises(InputError, match="CartPole-v1 has Discrete actions"):
        make_vector("CartPole-v1", 1)


@pytest.mark.parametrize("name", [*TASKS, "Pendulum-v1"])
def test_no_environment_at_all_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="at least 1 environment, got num_envs=0"):
        make_vector(name, 0)


def test_observations_go_by_name_in_single_precision() -> None:
    box = named(np.ones((2, 3)))
    assert list(box) == ["observation"]
    assert box["observation"].dtype == np.float32
    nested = named({"a": np.ones((2, 1)), "b": {"c": np.zeros((2, 2), np.float32)}})
    assert set(nested) == {"a", "b/c"}
    assert all(value.dtype == np.float32 for value in nested.values())


def test_named_observations_are_copies() -> None:
    original = np.ones((2, 3), np.float32)
    named(original)["observation"][:] = 5
    assert (original == 1).all()


def test_registry_is_complete_on_import() -> None:
    assert set(TASKS) <= set(gymnasium.registry)
