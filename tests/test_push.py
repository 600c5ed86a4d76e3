"""Laws of Push: where it succeeds, what can be felt of the parcel, and that the expert brings it back from anywhere."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from diffpolicy_envs import Condition
from diffpolicy_envs.simulation import Simulations
from diffpolicy_envs.tabletop import HIGH, LOW, OPENING
from diffpolicy_envs.tasks.push import FINGERS, HALF, STARTS, TOLERANCE, Push

ROW = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> tuple[Simulations, Push]:
    sim = Simulations(Push, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    assert isinstance(sim.task, Push)
    return sim, sim.task


def solved(sim: Simulations, steps: int = 150) -> np.ndarray:
    """Whether the expert succeeds from the present states, (N,)."""
    ids = np.arange(sim.num)
    success = np.zeros(sim.num, bool)
    for _ in range(steps):
        success |= sim.step(ids, sim.expert(ids)).success
        if success.all():
            break
    return success


@pytest.mark.parametrize(("away", "expected"), [(0.0, True), (0.95 * TOLERANCE, True), (1.05 * TOLERANCE, False)])
def test_success_is_a_parcel_that_rests_flat_near_the_goal(away: float, expected: bool) -> None:
    sim, task = begun()
    goal = task.goal(ROW)[0]
    task.set_object(0, [goal[0], goal[1] + away, 0.02])
    sim.batch.forward(ROW)
    assert task.success(ROW)[0] == expected
    sim.batch.bind("qvel")[0, task._object_dof] = 0.1
    sim.batch.forward(ROW)
    assert not task.success(ROW)[0]  # on the move
    sim.batch.bind("qvel")[0] = 0.0
    task.set_object(0, [goal[0], goal[1], HALF])
    sim.batch.forward(ROW)
    assert not task.success(ROW)[0]  # not on the table's top


def test_parcel_is_wider_than_the_hand_opens_and_the_hand_gets_behind_every_start() -> None:
    sim, _ = begun()
    assert 2 * sim.model.geom("object").size[0] > OPENING + 0.005
    for low, high in np.concatenate(list(STARTS.values())):
        assert (low - HALF - 2 * FINGERS >= LOW[:2] - 0.01).all()
        assert (high + HALF + 2 * FINGERS <= HIGH[:2] + 0.01).all()


def test_parcel_turned_by_a_quarter_looks_the_same_and_one_on_its_edge_does_not() -> None:
    sim, task = begun()
    seen = []
    for yaw in (0.3, 0.3 + np.pi / 2, 0.3 - np.pi):
        task.set_object(0, [0.5, 0.0, 0.02], yaw)
        sim.batch.forward(ROW)
        seen.append(sim.observe(ROW)["object"])
        assert np.allclose(seen[-1], seen[0], atol=1e-6)
    start = task._object_qpos
    sim.batch.bind("qpos")[0, start + 3 : start + 7] = [np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    sim.batch.forward(ROW)
    assert not np.allclose(sim.observe(ROW)["object"][:, 3:9], seen[0][:, 3:9], atol=0.3)


def test_mat_is_felt_by_the_fingers_alone() -> None:
    sim, _ = begun()
    data = mujoco.MjData(sim.model)
    mujoco.mj_resetDataKeyframe(sim.model, data, 0)
    for _ in range(100):
        mujoco.mj_step(sim.model, data)
    mat, box, table = (sim.model.geom(name).id for name in ("mat", "object", "table"))
    pairs = {tuple(sorted(map(int, pair))) for pair in data.contact.geom}
    assert tuple(sorted((box, table))) in pairs
    assert not any(mat in pair for pair in pairs)


def test_reward_is_better_the_nearer_the_parcel_is() -> None:
    sim, task = begun()
    goal = task.goal(ROW)[0]
    rewards = []
    for away in (0.3, 0.2, 0.1, 0.05):
        task.set_object(0, [goal[0], goal[1] - away, 0.02])
        sim.batch.forward(ROW)
        rewards.append(sum(task.reward_terms(ROW).values())[0])
    assert np.all(np.diff(rewards) > 0.0)
    assert -1.0 <= min(rewards) < max(rewards) < 0.0


def test_shove_leaves_the_parcel_where_the_hand_can_bring_it_back() -> None:
    sim, task = begun(40, Condition("now", "wide", shove_speed=(1.5, 1.5), shove_window=(2, 3)))
    ids = np.arange(40)
    before = task.object_position(ids).copy()
    for _ in range(12):
        sim.step(ids, task.idle_action(ids))
    after = task.object_position(ids)
    assert (np.hypot(*(after - before)[:, :2].T) > 0.05).all()
    assert (after[:, :2] > LOW[:2]).all()
    assert (after[:, :2] < HIGH[:2]).all()
    assert solved(sim).mean() >= 0.95


@pytest.mark.parametrize("start", [(0.32, 0.0), (0.66, 0.1), (0.5, 0.29), (0.62, -0.28)], ids=str)
def test_expert_drags_the_parcel_back_from_where_it_cannot_get_behind_it(start: tuple[float, float]) -> None:
    sim, task = begun()
    task.set_object(0, [*start, 0.02], 0.3)
    task.set_mocap(0, "goal", [0.48, 0.02, 0.0])
    sim.batch.forward(ROW)
    assert solved(sim).all()


def test_expert_lays_down_a_parcel_that_stands_on_its_edge() -> None:
    sim, task = begun()
    task.set_object(0, [0.48, 0.12, HALF])
    start = task._object_qpos
    sim.batch.bind("qpos")[0, start + 3 : start + 7] = [np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0]
    task.set_mocap(0, "goal", [0.48, -0.1, 0.0])
    sim.batch.forward(ROW)
    assert solved(sim).all()


def test_expert_recovers_from_what_random_actions_leave() -> None:
    ids, rng = np.arange(24), np.random.default_rng(0)
    sim, task = begun(24, "wide")
    for time in range(60):
        if time % 10 == 0:
            goal = rng.uniform([-1, -1, -1, -0.5, -1], [1, 1, -0.5, 0.5, 1], (24, 5))
        here = task.idle_action(ids)
        sim.step(ids, here + np.clip(goal - here, -0.3, 0.3))
    assert solved(sim).mean() >= 0.9  # some lie out of the arm's reach
