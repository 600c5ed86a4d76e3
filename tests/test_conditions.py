"""Laws of the conditions: what befalls an episode, how much of it, and that the expert copes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from registry import every_case, every_task, knowing

from diffpolicy_envs import CONDITIONS, Condition, Simulations, Task, condition_named
from diffpolicy_envs.checks import checked_seed
from diffpolicy_envs.condition import Disturbance, draw_disturbance
from diffpolicy_envs.rows import SEIZED
from diffpolicy_envs.tasks.reach import Reach

ROW = np.arange(1)


def begun(task: type[Task], num: int, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(task, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def physics(sim: Simulations) -> np.ndarray:
    return np.array(sim.batch.state[:])


def watched(sim: Simulations, monkeypatch: pytest.MonkeyPatch) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Lists that grow by the commands (n, A) that reach the task, and by those that a shove or a slip dictated."""
    reached: list[np.ndarray] = []
    forced: list[np.ndarray] = []
    control, seized = sim.task.control, sim.task.seized

    def controlled(ids: np.ndarray, action: np.ndarray) -> None:
        reached.append(action.copy())
        control(ids, action)

    def dictated(*how: np.ndarray) -> np.ndarray:
        forced.append(seized(*how))
        return forced[-1]

    monkeypatch.setattr(sim.task, "control", controlled)
    monkeypatch.setattr(sim.task, "seized", dictated)
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


@pytest.mark.parametrize("wrong", [None, 3, ("clean",)])
def test_condition_is_a_name_or_a_condition(wrong: Any) -> None:
    with pytest.raises(ValueError, match="expected the name of a condition or a"):
        condition_named(wrong)
    with pytest.raises(ValueError, match="expected the name of a condition or a"):
        Simulations(Reach, 1, wrong)


def test_condition_says_what_it_uses() -> None:
    assert CONDITIONS["clean"].uses() == ()
    for name in [name for name in CONDITIONS if name != "clean"]:
        assert CONDITIONS[name].uses() == (name,)
    assert Condition("own", "wide", slip_height=(0, 1), friction_scale=(1, 2)).uses() == ("slip", "dynamics", "wide")


WRONG = [
    {"shove_window": None, "shove_speed": (1.0, 2.0)},
    {"shove_speed": 3},
    {"shove_speed": "12"},
    {"slip_height": ("a", "b")},
    {"slip_height": (0.1,)},
    {"mass_scale": (True, True)},
    {"sensor_noise": "0.1"},
    {"sensor_noise": None},
    {"action_delay": True},
    {"action_delay": 10**9},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_condition_of_what_is_no_number_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"condition 'mine': expected .*got"):
        Condition("mine", **wrong)


def test_condition_takes_the_numbers_of_numpy() -> None:
    late = Condition("late", action_delay=np.int64(2), sensor_noise=np.float32(0.1))  # type: ignore[arg-type]
    assert Simulations(Reach, 1, late).state_size == Simulations(Reach, 1, "action_delay").state_size


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("slip", r"unknown condition 'slip': task Reach knows clean, shove, .*hard; it means nothing there"),
        ("shov", r"unknown condition 'shov': task Reach knows clean, .*; did you mean 'shove'"),
        (
            Condition("greasy", slip_height=(0.02, 0.03)),
            "condition 'greasy' has slip, which means nothing to task Reach",
        ),
        (Condition("heavy", mass_scale=(2, 3), friction_scale=(1, 2)), "condition 'heavy' has dynamics, which"),
    ],
)
def test_condition_that_means_nothing_to_a_task_is_refused(condition: str | Condition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Simulations(Reach, 1, condition)


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
    for seed in (-1, 2**53, 0.0, None, True, np.True_):
        with pytest.raises(ValueError, match="from 0 to"):
            checked_seed(seed)


# -- what befalls -----------------------------------------------------------------------------------------------


@knowing("shove")
def test_shove_comes_at_its_step_and_holds_the_controls_for_a_while(
    task: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = begun(task, 1, Condition("now", shove_speed=(1.0, 1.0), shove_window=(6, 7)))
    clean = begun(task, 1)
    reached, forced = watched(sim, monkeypatch)
    still, apart = sim.task.idle_action(ROW), 0.0
    for time in range(16):
        if time <= 6:
            assert np.array_equal(physics(sim), physics(clean))
        shoved, other = sim.step(ROW, still), clean.step(ROW, still)
        held = 6 <= time < 6 + SEIZED
        assert len(forced) == min(max(time - 5, 0), SEIZED)
        assert np.array_equal(reached[time], forced[-1] if held else still)
        for name, (low, high) in task.observation.items():
            change = np.abs(shoved.observation[name] - other.observation[name])[0]
            apart = max(apart, float(np.max(change / (np.asarray(high) - np.asarray(low) + 1e-9))))
    assert apart > 0.02  # of an observed range


@knowing("slip")
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
    assert when == list(range(first, first + SEIZED))
    assert all(np.array_equal(reached[time], opened) for time, opened in zip(when, forced, strict=True))
    assert min(height[first : first + SEIZED + 6]) < 0.03  # it was lost
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


@knowing("dynamics")
def test_dynamics_change_the_fields_of_each_simulation_within_their_ranges(task: type[Task]) -> None:
    condition = CONDITIONS["dynamics"]
    assert condition.mass_scale is not None
    low, high = condition.mass_scale  # the wider of the two ranges
    sim, clean = begun(task, 8, "dynamics"), begun(task, 8)
    touched = 0
    for name in task.fields:
        original = np.asarray(getattr(sim.model, name))
        assert np.array_equal(clean.batch.expand(name), np.broadcast_to(original, (8, *original.shape)))
        values = np.array(sim.batch.expand(name))
        changed = (values != original).reshape(8, -1)
        if not changed.any():
            continue
        touched += 1
        assert changed.any(axis=1).all()
        assert len(np.unique(values.reshape(8, -1), axis=0)) == 8
        ratio = values.reshape(8, -1)[changed] / np.broadcast_to(original, values.shape).reshape(8, -1)[changed]
        assert (low - 1e-9 <= ratio).all()
        assert (ratio <= high + 1e-9).all()
    assert touched


@knowing("dynamics")
def test_dynamics_are_those_of_the_episode_and_not_of_the_one_before(task: type[Task]) -> None:
    def fields(sim: Simulations) -> np.ndarray:
        return np.concatenate([np.array(sim.batch.expand(name)).ravel() for name in task.fields])

    sim = begun(task, 2, "dynamics")
    first = fields(sim)
    sim.reset(np.arange(2), [8, 9])
    assert not np.array_equal(fields(sim), first)
    sim.reset(np.arange(2), [0, 1])
    assert np.array_equal(fields(sim), first)


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
            if name in task.noiseless:
                assert np.array_equal(again[name], true.observation[name])
                continue
            errors.append(((again[name] - true.observation[name]) / (np.asarray(high) - np.asarray(low))).ravel())
    error = np.concatenate(errors)
    within = error[error != 0]  # what was clipped at a bound aside
    assert 0.7 * 0.01 < within.std() < 1.1 * 0.01
    assert abs(within.mean()) < 0.002


@every_task
def test_slipping_heights_and_shoves_are_off_unless_asked_for(
    task: type[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in {"clean", "sensor_noise", "dynamics"} & set(task.conditions()):
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
        live = live[~(step.terminated | step.truncated)]
    return float(success.mean())


@every_case
def test_expert_solves_the_task_under_every_condition(task: type[Task], condition: str) -> None:
    if not task.scripted():
        pytest.skip("a good planner is slow: its own test asks it for less")
    assert success_rate(task, condition, 60) >= (0.98 if condition == "clean" else 0.95)


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
