"""Laws of Reach: where it succeeds, what its reward pays for, and what a shove does to the target."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.tasks.reach import ASKEW, STARTS, TOLERANCE, Reach

ROW = np.arange(1)


def begun(seed: int = 0, condition: str | Condition = "clean") -> tuple[Simulations, Reach]:
    sim = Simulations(Reach, 1, condition, threads=1)
    sim.reset(ROW, [seed])
    assert isinstance(sim.task, Reach)
    return sim, sim.task


def put(sim: Simulations, task: Reach, offset: tuple[float, float, float], turn: float) -> None:
    """The target at ``offset`` from the tool, turned by ``turn`` against it."""
    for name in ("object", "goal"):
        task.set_mocap(0, name, task.tool(ROW)[0] + offset, float(task.tool_yaw(ROW)[0]) + turn)
    sim.batch.forward(ROW)


@pytest.mark.parametrize(
    ("offset", "turn", "expected"),
    [
        ((0.0, 0.0, 0.0), 0.0, True),
        ((0.0, 0.95 * TOLERANCE, 0.0), 0.0, True),
        ((0.0, 0.0, -1.05 * TOLERANCE), 0.0, False),
        ((0.8 * TOLERANCE, 0.8 * TOLERANCE, 0.0), 0.0, False),
        ((0.0, 0.0, 0.0), 0.95 * ASKEW, True),
        ((0.0, 0.0, 0.0), -1.05 * ASKEW, False),
    ],
)
def test_success_is_a_still_hand_in_place_and_turned_as_the_target(
    offset: tuple[float, float, float], turn: float, expected: bool
) -> None:
    sim, task = begun()
    put(sim, task, offset, turn)
    assert task.success(ROW)[0] == expected
    sim.batch.bind("qvel")[0, 0] = 0.5  # swings about the base
    sim.batch.forward(ROW)
    assert not task.success(ROW)[0]


def test_reward_grows_all_the_way_to_the_target() -> None:
    sim, _ = begun(3)
    rewards = []
    while True:
        step = sim.step(ROW, sim.expert(ROW))
        rewards.append(step.reward[0])
        if step.success[0]:
            break
    assert all(-1.0 <= reward < 0.0 for reward in rewards[:-1])
    assert (np.diff(rewards) > -0.01).all()
    assert rewards[-1] > 9.0


def test_target_is_object_and_goal_at_once_and_nothing_can_touch_it() -> None:
    sim, _ = begun(5, "wide")
    seen = sim.observe(ROW)
    assert np.array_equal(seen["object"][0, :3], seen["goal"][0, :3])
    assert np.array_equal(seen["relative"][0, 3:], np.zeros(3, np.float32))
    assert np.allclose(seen["relative"][0, :3], seen["goal"][0, :3] - seen["robot"][0, :3], atol=1e-6)
    for name in ("object", "goal"):
        for geom in range(sim.model.ngeom):
            if sim.model.geom_bodyid[geom] == sim.model.body(name).id:
                assert sim.model.geom_contype[geom] == sim.model.geom_conaffinity[geom] == 0


def test_shoved_target_jumps_within_the_wide_start_and_keeps_height_and_yaw() -> None:
    low, high = (limit[:2] - 1e-9 for limit in STARTS["wide"])
    for seed in range(20):
        sim, task = begun(seed, Condition("now", "wide", shove_speed=(1.5, 1.5), shove_window=(2, 3)))
        before, yaw = task.goal(ROW).copy(), task.goal_yaw(ROW).copy()
        for _ in range(3):
            sim.step(ROW, task.idle_action(ROW))
        after = task.goal(ROW)
        assert 0.1 < np.hypot(*(after - before)[0, :2]) < 0.2251
        assert after[0, 2] == before[0, 2]
        assert task.goal_yaw(ROW) == pytest.approx(yaw)
        assert (after[0, :2] >= low).all()
        assert (after[0, :2] <= high + 2e-9).all()
        assert np.array_equal(task.object_position(ROW), after)


def test_expert_reaches_the_target_from_wherever_random_actions_left_the_hand() -> None:
    ids, rng = np.arange(20), np.random.default_rng(0)
    sim = Simulations(Reach, 20, "wide", threads=1)
    sim.reset(ids, list(range(20)))
    for time in range(40):
        if time % 8 == 0:
            action = rng.uniform(-1, 1, (20, 5))
        sim.step(ids, action)
    success = np.zeros(20, bool)
    for _ in range(60):
        success |= sim.step(ids, sim.expert(ids)).success
    assert success.all()
