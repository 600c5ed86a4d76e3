"""Laws of the simulations: an episode follows from its seed alone, and a state row from which it can go on."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from registry import every_case, every_task, knowing

from diffpolicy_envs import Simulations, Task, TaskEnv, TaskVectorEnv
from diffpolicy_envs.tabletop import canonical_rotation, quaternion_matrix
from diffpolicy_envs.tasks.reach import Reach


def begun(task: type[Task], num: int, condition: str = "clean", threads: int = 1, seed: int = 0) -> Simulations:
    sim = Simulations(task, num, condition, threads)
    sim.reset(np.arange(num), list(range(seed, seed + num)))
    return sim


def mixed(sim: Simulations, ids: np.ndarray, time: int, seed: int = 0) -> np.ndarray:
    """The expert's actions (n, A), but random ones at the start and at every eighth step."""
    rng = np.random.default_rng([seed, time])
    random = rng.uniform(-1, 1, (len(ids), sim.task.action_size))
    return random if time < 4 or time % 8 == 7 else sim.expert(ids)


def recorded(sim: Simulations, ids: np.ndarray, actions: Any) -> list[np.ndarray]:
    """Everything that can be seen of ``ids`` while they are driven by actions (T, n, A)."""
    seen = []
    for action in actions:
        step = sim.step(ids, action)
        seen += [*step.observation.values(), step.reward, step.success, step.truncated, sim.expert(ids)]
        seen += list(step.terms.values())
    return [*seen, sim.get_state(ids)]


def driven(sim: Simulations, ids: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Drive by mixed actions; returns them (T, n, A)."""
    actions = []
    for time in range(start, stop):
        actions.append(mixed(sim, ids, time))
        sim.step(ids, actions[-1])
    return np.stack(actions)


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@every_case
def test_saved_state_continues_bit_for_bit_anywhere(task: type[Task], condition: str) -> None:
    ids = np.arange(4)
    sim = begun(task, 4, condition)
    driven(sim, ids, 0, 12)
    states, observation = sim.get_state(ids), sim.observe(ids)
    actions = driven(sim, ids, 12, 52)
    end = sim.get_state(ids)

    other, rows = begun(task, 7, condition, threads=2, seed=100), np.array([0, 2, 5, 6])
    driven(other, np.arange(7), 0, 3)
    there = other.set_state(rows, states)
    assert all(np.array_equal(there[name], observation[name]) for name in observation)
    assert np.array_equal(other.get_state(rows), states)
    replayed = recorded(other, rows, actions)
    assert np.array_equal(replayed[-1], end)
    sim.set_state(ids, states)
    assert same(recorded(sim, ids, actions), replayed)


@every_case
def test_disturbance_still_to_come_is_part_of_the_state(task: type[Task], condition: str) -> None:
    if condition not in ("shove", "slip"):
        pytest.skip("nothing comes later")
    ids = np.arange(4)
    sim = begun(task, 4, condition)
    states = sim.get_state(ids)
    actions = []
    for _ in range(60):
        actions.append(sim.expert(ids))
        sim.step(ids, actions[-1])
    sim.set_state(ids, sim.undisturbed(states))
    assert not same(recorded(sim, ids, actions)[:-1], recorded(begun_from(sim, states), ids, actions)[:-1])


def begun_from(sim: Simulations, states: np.ndarray) -> Simulations:
    other = begun(type(sim.task), sim.num, sim.condition.name, seed=50)
    other.set_state(np.arange(sim.num), states)
    return other


@every_case
def test_undisturbed_state_continues_as_a_clean_episode(task: type[Task], condition: str) -> None:
    if condition not in ("shove", "slip", "sensor_noise"):
        pytest.skip("what it changes stays")
    ids = np.arange(4)
    clean, sim = begun(task, 4), begun(task, 4, condition)
    before = sim.get_state(ids)
    quiet = sim.undisturbed(before)
    assert not np.array_equal(quiet, before)
    assert np.array_equal(before, sim.get_state(ids))  # the argument and the simulations are left alone
    sim.set_state(ids, quiet)
    actions = driven(clean, ids, 0, 60)
    clean.reset(ids, [0, 1, 2, 3])
    assert same(recorded(clean, ids, actions)[:-1], recorded(sim, ids, actions)[:-1])


@knowing("shove")
def test_undisturbed_opens_a_gripper_that_was_forced_open_no_longer(
    task: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.arange(6)
    sim = begun(task, 6, "shove")
    forced = np.zeros(6, bool)
    seized = type(sim.task).seized

    def seen(self: Task, rows: np.ndarray, action: np.ndarray, *how: np.ndarray) -> np.ndarray:
        forced[:] = True
        return seized(self, rows, action, *how)

    monkeypatch.setattr(type(sim.task), "seized", seen)
    while not forced.any():
        sim.step(ids, sim.expert(ids))
    sim.set_state(ids, sim.undisturbed(sim.get_state(ids)))
    forced[:] = False
    for _ in range(40):
        sim.step(ids, sim.expert(ids))
    assert not forced.any()


@every_case
def test_trajectory_depends_neither_on_the_number_of_simulations_nor_on_threads(
    task: type[Task], condition: str
) -> None:
    five = begun(task, 5, condition, threads=2)
    actions = driven(five, np.arange(5), 0, 40)
    five.reset(np.arange(5), [0, 1, 2, 3, 4])
    whole = recorded(five, np.arange(5), actions)
    for i in (0, 3):
        alone = recorded(begun(task, 1, condition, seed=i), np.arange(1), actions[:, i : i + 1])
        assert same(alone, [value[i : i + 1] for value in whole])


@every_task
def test_simulations_that_are_not_addressed_stand_still(task: type[Task]) -> None:
    sim = begun(task, 4, "action_delay")
    before = sim.get_state(np.arange(4))
    driven(sim, np.array([1, 3]), 0, 5)
    sim.reset(np.array([3]), [7])
    after = sim.get_state(np.arange(4))
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[[1, 3]], before[[1, 3]])


@every_task
def test_reset_forgets_as_the_batchs_own_does(task: type[Task]) -> None:
    sim, ids = begun(task, 3), np.array([0, 2])
    driven(sim, np.arange(3), 0, 5)
    sim.batch.warning[:] = 1
    states = sim.batch.state[:].copy()
    sim.batch.reset(ids, keyframe=0, stage=0)
    expected, warnings = sim.batch.state[:].copy(), sim.batch.warning[:].copy()
    sim.batch.state[:], sim.batch.warning[:] = states, 1
    sim.task.place = lambda *_: None  # type: ignore[method-assign]
    sim.begin(ids, [None, None])
    assert np.array_equal(sim.batch.state, expected)
    assert np.array_equal(sim.batch.warning, warnings)


@every_case
def test_episode_is_a_function_of_its_seed(task: type[Task], condition: str) -> None:
    used, ids = begun(task, 3, condition), np.arange(3)
    driven(used, ids, 0, 20)
    used.reset(ids, [11, 12, 13])
    fresh = begun(task, 3, condition, threads=2, seed=11)
    assert np.array_equal(used.get_state(ids), fresh.get_state(ids))
    actions = driven(fresh, ids, 0, 30)
    driven(used, ids, 0, 30)
    assert np.array_equal(used.get_state(ids), fresh.get_state(ids))
    one = begun(task, 1, condition, seed=12)
    for action in actions:
        one.step(np.arange(1), action[1:2])
    assert np.array_equal(one.get_state(np.arange(1))[0], fresh.get_state(ids)[1])


@every_task
def test_start_under_a_seed_is_the_same_in_every_condition_of_that_start(task: type[Task]) -> None:
    for start in ("narrow", "wide"):
        alike = [name for name, condition in task.conditions().items() if condition.start == start]
        starts = [begun(task, 4, name).batch.state[:].copy() for name in alike]
        assert all(np.array_equal(one, starts[0]) for one in starts)
        assert len(np.unique(starts[0], axis=0)) == 4


@every_case
def test_episodes_without_a_seed_differ_and_follow_from_the_first(task: type[Task], condition: str) -> None:
    one, other, row = begun(task, 1, condition, seed=5), begun(task, 2, condition, seed=4), np.arange(1)
    starts = [one.get_state(row)]
    for _ in range(3):
        one.reset(row, [None])
        other.reset(row + 1, [None])
        assert np.array_equal(one.get_state(row), other.get_state(row + 1))
        starts.append(one.get_state(row))
    assert len(np.unique(np.concatenate(starts), axis=0)) == 4


@every_task
def test_sensor_noise_may_be_read_past_the_end_of_an_episode(task: type[Task]) -> None:
    sim, row = begun(task, 1, "sensor_noise"), np.arange(1)
    still = sim.task.idle_action(row)
    for _ in range(task.max_steps + 2):
        step = sim.step(row, still)
    assert step.truncated.all()
    assert all(np.isfinite(value).all() for value in step.observation.values())


@every_task
def test_bad_states_seeds_and_numbers_are_refused(task: type[Task]) -> None:
    sim, ids = begun(task, 2), np.arange(2)
    states = sim.get_state(ids)
    assert states.shape == (2, sim.state_size)
    delayed = begun(task, 2, "action_delay").get_state(ids)
    for wrong in (states[:1], states[:, :-1], delayed, states[0], np.full_like(states, np.nan)):
        with pytest.raises(ValueError, match="expected finite states of shape"):
            sim.set_state(ids, wrong)
    assert np.array_equal(sim.get_state(ids), states)
    for seed in (-1, 2**53, 1.5, "1"):
        with pytest.raises(ValueError, match="expected a seed"):
            sim.reset(ids, [1, seed])  # type: ignore[list-item]
    assert np.array_equal(sim.get_state(ids), states)
    with pytest.raises(ValueError, match="at least 1"):
        Simulations(task, 0)
    with pytest.raises(ValueError, match="unknown condition"):
        Simulations(task, 1, "weather")


@every_task
def test_states_are_set_in_any_order_and_nothing_is_written_where_they_are_refused(task: type[Task]) -> None:
    sim, ids = begun(task, 3), np.arange(3)
    driven(sim, ids, 0, 3)
    states = sim.get_state(ids)
    other = begun(task, 3, seed=50)
    there = other.set_state(np.array([2, 0, 1]), states)
    assert np.array_equal(other.get_state(np.array([2, 0, 1])), states)
    assert all(np.array_equal(value, sim.observe(ids)[name]) for name, value in there.items())
    for wrong in ([0, 0], [-1, 0], [0, 3], [0.0, 1.0], [True, False], [[0, 1]], "ab"):
        with pytest.raises(ValueError, match="expected ids that are distinct whole numbers from 0 to 2"):
            sim.set_state(wrong, np.zeros_like(states[:2]))  # type: ignore[arg-type]
    first = sim.batch.nstate + sum(sim.batch.expand(name)[0].size for name in task.fields)
    for column, value in ((0, 1e9), (0, -3), (0, 0.5), (1, -1), (1, 2.0**53), (3, -2), (7, 6), (8, 2)):
        odd = states.copy()
        odd[1, first + column] = value
        with pytest.raises(ValueError, match=r"step, seed or disturbance, .* out of range"):
            sim.set_state(ids, odd)
    for rows in (states[0], states[:, 1:], 1.0):
        with pytest.raises(ValueError, match="expected finite states of shape"):
            sim.undisturbed(rows)
    assert np.array_equal(sim.get_state(ids), states)


def test_infinite_actions_are_refused() -> None:
    sim, ids = begun(Reach, 2), np.arange(2)
    before = sim.get_state(ids)
    for wrong in (np.inf, -np.inf, np.nan):
        action = np.zeros((2, 5))
        action[1, 3] = wrong
        with pytest.raises(ValueError, match=r"expected finite actions of shape \(2, 5\)"):
            sim.step(ids, action)
    assert np.array_equal(sim.get_state(ids), before)


def test_numbers_of_simulations_threads_and_pixels_are_whole() -> None:
    for wrong in (0, 1.5, True, "2", None):
        with pytest.raises(ValueError, match="the number of simulations must be a whole number of at least 1"):
            TaskVectorEnv(Reach, wrong)  # type: ignore[arg-type]
    assert TaskVectorEnv(Reach, np.int64(2)).num_envs == 2  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads must be a whole number of at least 0, got -1"):
        Simulations(Reach, 1, threads=-1)
    for size in ({"width": 0}, {"height": -5}, {"width": 2.5}):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            TaskEnv(Reach, **size)  # type: ignore[arg-type]


def test_canonical_rotation_is_the_nearest_of_the_cubes_equals() -> None:
    random = np.random.default_rng(0)
    turns = random.normal(size=(300, 4))
    turns[0] = [1, 0, 0, 0]
    turns[1:4] = np.sqrt(0.5) * np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]])
    turns[4:7] = np.cos(np.pi / 8) * np.eye(4)[0] + np.sin(np.pi / 8) * np.eye(4)[1:]  # between two of them
    rotations = quaternion_matrix(turns / np.linalg.norm(turns, axis=1, keepdims=True))
    assert np.allclose(rotations @ rotations.transpose(0, 2, 1), np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(rotations), 1)
    equals = [
        np.eye(3)[:, columns] * signs
        for columns in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    ]
    equals = [equal for equal in equals if np.linalg.det(equal) > 0]
    found = canonical_rotation(rotations)
    traces = np.stack([np.trace(rotations @ equal, axis1=1, axis2=2) for equal in equals])
    assert len(equals) == 24
    assert np.allclose(np.trace(found, axis1=1, axis2=2), traces.max(axis=0), atol=1e-8)
    among = np.stack([np.abs(rotations @ equal - found).max(axis=(1, 2)) for equal in equals])
    assert (among.min(axis=0) < 1e-12).all()
    for i in (0, 4, 5, 299):  # alone or among others, and whichever of its equals is seen, it is the same
        assert np.array_equal(canonical_rotation(rotations[i : i + 1]), found[i : i + 1])
    for equal in equals:
        assert np.allclose(canonical_rotation(rotations[10:] @ equal), found[10:], atol=1e-12)
