"""Laws of the conditions: what befalls an episode, how much of it, and that the expert copes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from diffpolicy_envs import CONDITIONS, TASKS, Condition, Simulations, Task, condition_named
from diffpolicy_envs.condition import Disturbance, checked_seed, draw_disturbance
from diffpolicy_envs.simulation import FORCED_OPEN

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.__name__)
ROW = np.arange(1)


def begun(task: type[Task], num: int, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(task, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def physics(sim: Simulations) -> np.ndarray:
    return np.array(sim.batch.state[:])


def watched(sim: Simulations, monkeypatch: pytest.MonkeyPatch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Lists that grow by the commands (n, A) that reach the arm, and by those that forced its gripper open."""
    reached: list[np.ndarray] = []
    forced: list[np.ndarray] = []
    control, release = sim.task.control, sim.task.release

    def controlled(ids: np.ndarray, action: np.ndarray) -> None:
        reached.append(action.copy())
        control(ids, action)

    def released(ids: np.ndarray, action: np.ndarray) -> np.ndarray:
        forced.append(release(ids, action))
        return forced[-1]

    monkeypatch.setattr(sim.task, "control", controlled)
    monkeypatch.setattr(sim.task, "release", released)
    return reached, forced


# -- names and draws --------------------------------------------------------------------------------------------


def test_conditions_go_by_their_names() -> None:
    for name, condition in CONDITIONS.items():
        assert condition.name == name
        assert condition_named(name) is condition
    own = Condition("own", sensor_noise=0.5)
    assert condition_named(own) is own
    with pytest.raises(ValueError, match=r"expected one of clean.*did you mean 'shove'"):
        condition_named("shov")


def test_clean_disturbs_nothing() -> None:
    drawn = draw_disturbance(CONDITIONS["clean"], np.random.default_rng(0))
    assert replace(drawn, shove_angle=0.0) == Disturbance()  # an angle without a shove does nothing


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
def test_draws_stay_in_their_ranges_and_use_the_stream_alike(condition: Condition) -> None:
    for seed in range(200):
        rng, other = np.random.default_rng(seed), np.random.default_rng(seed)
        drawn = draw_disturbance(condition, rng)
        draw_disturbance(CONDITIONS["clean"], other)
        assert rng.bit_generator.state == other.bit_generator.state
        if condition.shove_speed is not None:
            assert condition.shove_window[0] <= drawn.shove_step < condition.shove_window[1]
            assert condition.shove_speed[0] <= drawn.shove_speed <= condition.shove_speed[1]
        else:
            assert drawn.shove_step == -1
        low, high = condition.slip_height or (np.inf, np.inf)
        assert low <= drawn.slip_height <= high
        for factor, limits in (
            (drawn.mass_scale, condition.mass_scale),
            (drawn.friction_scale, condition.friction_scale),
        ):
            low, high = limits or (1.0, 1.0)
            assert low <= factor <= high


def test_seed_of_an_episode_is_a_whole_number_that_a_float_can_hold() -> None:
    assert checked_seed(np.int32(7)) == 7
    assert checked_seed(2**53 - 1) == int(float(2**53 - 1))
    for seed in (-1, 2**53, 0.0, None):
        with pytest.raises(ValueError, match="from 0 to"):
            checked_seed(seed)


# -- what befalls -----------------------------------------------------------------------------------------------


@every_task
def test_shove_moves_the_object_and_opens_the_gripper(task: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    sim = begun(task, 1, Condition("now", shove_speed=(1.0, 1.0), shove_window=(6, 7)))
    clean = begun(task, 1)
    reached, forced = watched(sim, monkeypatch)
    closing = sim.task.idle_action(ROW)
    closing[:, -1] = -1.0
    for time in range(20):
        if time <= 6:
            assert np.array_equal(physics(sim), physics(clean))
        sim.step(ROW, closing)
        clean.step(ROW, closing)
        opened = 6 <= time < 6 + FORCED_OPEN
        assert np.array_equal(reached[time], sim.task.release(ROW, closing) if opened else closing)
    assert np.linalg.norm(sim.observe(ROW)["object"][0, :3] - clean.observe(ROW)["object"][0, :3]) > 0.02
    assert forced


@every_task
def test_slip_opens_the_gripper_once_in_an_episode(task: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    sim = begun(task, 1, Condition("slippery", slip_height=(0.03, 0.03)))
    reached, forced = watched(sim, monkeypatch)
    when, height = [], []
    for time in range(task.max_steps):
        height.append(sim.task.lifted(ROW)[0])
        count = len(forced)
        step = sim.step(ROW, sim.expert(ROW))
        when += [time] * (len(forced) - count)
        if step.success[0]:
            break
    first = int(np.argmax(np.array(height) > 0.03))
    assert when == list(range(first, first + FORCED_OPEN))
    assert all(np.array_equal(reached[time], opened) for time, opened in zip(when, forced, strict=True))
    assert min(height[first : first + FORCED_OPEN + 3]) < 0.03  # it fell
    assert step.success[0]


@every_task
def test_delayed_action_takes_effect_two_steps_later(task: type[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    late, prompt = begun(task, 2, "action_delay"), begun(task, 2)
    reached, _ = watched(late, monkeypatch)
    ids, rng = np.arange(2), np.random.default_rng(0)
    actions = [late.task.idle_action(ids)] * 2 + list(rng.uniform(-1, 1, (30, 2, task.action_size)))
    for time in range(30):
        late.step(ids, actions[time + 2])
        prompt.step(ids, actions[time])
        assert np.array_equal(reached[time], actions[time])
        assert np.array_equal(physics(late), physics(prompt))


@every_task
def test_dynamics_change_mass_and_friction_of_each_simulation(task: type[Task]) -> None:
    condition = CONDITIONS["dynamics"]
    for name, limits in (("body_mass", condition.mass_scale), ("geom_friction", condition.friction_scale)):
        assert limits is not None
        sim, clean = begun(task, 8, "dynamics"), begun(task, 8)
        original = np.asarray(getattr(sim.model, name))
        assert np.array_equal(clean.batch.expand(name), np.broadcast_to(original, (8, *original.shape)))
        values = np.array(sim.batch.expand(name))
        changed = (values != original).reshape(8, -1)
        assert changed.any(axis=1).all()
        assert len(np.unique(values.reshape(8, -1), axis=0)) == 8
        ratio = values.reshape(8, -1)[changed] / np.broadcast_to(original, values.shape).reshape(8, -1)[changed]
        assert (limits[0] <= ratio).all()
        assert (ratio <= limits[1]).all()


@every_task
def test_dynamics_are_those_of_the_episode_and_not_of_the_one_before(task: type[Task]) -> None:
    sim = begun(task, 2, "dynamics")
    mass = sim.batch.expand("body_mass").copy()
    sim.reset(np.arange(2), [8, 9])
    assert not np.array_equal(sim.batch.expand("body_mass"), mass)
    sim.reset(np.arange(2), [0, 1])
    assert np.array_equal(sim.batch.expand("body_mass"), mass)


@every_task
def test_sensor_noise_is_in_the_reading_only(task: type[Task]) -> None:
    noisy, clean, ids = begun(task, 3, "sensor_noise"), begun(task, 3), np.arange(3)
    rng, errors = np.random.default_rng(0), []
    for _ in range(40):
        action = rng.uniform(-1, 1, (3, task.action_size))
        seen, true = noisy.step(ids, action), clean.step(ids, action)
        assert np.array_equal(physics(noisy), physics(clean))
        assert np.array_equal(seen.reward, true.reward)
        assert np.array_equal(noisy.expert(ids), clean.expert(ids))
        again = noisy.observe(ids)
        for name, (low, high) in task.observation.items():
            assert np.array_equal(again[name], seen.observation[name])
            assert (again[name] >= np.asarray(low, np.float32)).all()
            assert (again[name] <= np.asarray(high, np.float32)).all()
            errors.append(((again[name] - true.observation[name]) / (np.asarray(high) - np.asarray(low))).ravel())
    error = np.concatenate(errors)
    within = error[error != 0]  # what was clipped at a bound aside
    assert 0.7 * 0.01 < within.std() < 1.1 * 0.01
    assert abs(within.mean()) < 0.002


@every_task
def test_slipping_heights_and_shoves_are_off_unless_asked_for(
    task: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("clean", "sensor_noise", "dynamics"):
        sim = begun(task, 2, replace(CONDITIONS[name], name="own"))
        reached, forced = watched(sim, monkeypatch)
        for _ in range(60):
            action = sim.expert(np.arange(2))
            sim.step(np.arange(2), action)
            assert np.array_equal(reached[-1], action)
        assert not forced


# -- the expert -------------------------------------------------------------------------------------------------


def success_rate(task: type[Task], condition: str, count: int) -> float:
    sim = begun(task, count, condition)
    live, success = np.arange(count), np.zeros(count, bool)
    while len(live):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~(step.success | step.truncated)]
    return float(success.mean())


@every_task
def test_expert_solves_the_clean_task(task: type[Task]) -> None:
    assert success_rate(task, "clean", 200) >= 0.98


@every_task
@pytest.mark.parametrize("condition", [name for name in CONDITIONS if name != "clean"])
def test_expert_solves_every_disturbed_task(task: type[Task], condition: str) -> None:
    assert success_rate(task, condition, 100) >= 0.95


@every_task
def test_expert_commands_within_the_action_space_wherever_the_arm_is(task: type[Task]) -> None:
    sim, ids, rng = begun(task, 4), np.arange(4), np.random.default_rng(0)
    for _ in range(60):
        expert = sim.expert(ids)
        assert expert.dtype == np.float32
        assert np.isfinite(expert).all()
        assert np.abs(expert).max() <= 1.0
        assert np.array_equal(sim.expert(ids[::-1])[::-1], expert)
        sim.step(ids, rng.uniform(-1, 1, (4, task.action_size)))
