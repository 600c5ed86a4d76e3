"""Laws of ButtonPress: what counts as pressed, a guard that a finger fits into, and an expert that finds it again."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.tasks.button_press import CLEAR, ENOUGH, TIP, TOP, TRAVEL, ButtonPress

ROW = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> tuple[Simulations, ButtonPress]:
    sim = Simulations(ButtonPress, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    assert isinstance(sim.task, ButtonPress)
    return sim, sim.task


def placed(sim: Simulations, name: str) -> np.ndarray:
    """Place (N, 3) of a mocap body [m]."""
    return np.array(sim.batch.bind("mocap_pos")[:, int(sim.model.body(name).mocapid[0])])


def finished(sim: Simulations, live: np.ndarray) -> np.ndarray:
    """Success (n,) of the expert from here on."""
    success = np.zeros(sim.num, bool)
    while len(live):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~(step.terminated | step.truncated)]
    return success


def test_success_is_nine_tenths_of_the_travel() -> None:
    sim, task = begun()
    cap = sim.batch.bind("qpos")
    limits = sim.model.joint("object").range
    assert limits[1] - limits[0] == pytest.approx(TRAVEL)
    for share, pressed in ((0.0, False), (ENOUGH - 0.01, False), (ENOUGH + 0.01, True), (1.0, True)):
        cap[0, -1] = -share * TRAVEL
        sim.set_state(ROW, sim.get_state(ROW))
        assert task.success(ROW)[0] == pressed
    assert np.allclose(task.object_position(ROW), task.goal(ROW), atol=1e-9)  # the goal is the cap pressed home


def test_cap_springs_back_and_stays_up_by_itself() -> None:
    sim, task = begun()
    still = task.idle_action(ROW)
    sim.batch.bind("qpos")[0, -1] = -TRAVEL
    for _ in range(10):
        sim.step(ROW, still)
    assert abs(task.depth(ROW)[0]) < 0.1 * TRAVEL
    assert task.object_position(ROW)[0, 2] == pytest.approx(TOP, abs=0.002)


def test_closed_fingers_fit_into_the_guard_and_open_ones_do_not() -> None:
    model = begun()[0].model
    pad = model.geom("left_pad")
    width, depth = 2 * pad.size[0], 2 * (pad.size[1] + abs(pad.pos[1]))
    wall = model.geom("guard")
    opening = 2 * (wall.pos[1] - wall.size[1])
    assert max(width, depth) + 0.010 < opening < 0.08  # to 5 mm on every side
    assert np.hypot(width, depth) < opening  # at any yaw
    assert opening > 2 * model.geom("object").size[0]
    assert wall.pos[2] + wall.size[2] < TOP  # and the cap stands out of it
    sim, task = begun()
    open_hand = task.command(task.goal(ROW) + [0.0, 0.0, TIP - 0.03], task.tool_yaw(ROW), np.ones(1))
    for _ in range(60):
        step = sim.step(ROW, open_hand)
    assert not step.success[0]


def test_reward_grows_all_the_way_to_the_press() -> None:
    sim, _ = begun()
    rewards = [sim.step(ROW, sim.expert(ROW)).reward[0] for _ in range(24)]
    end = int(np.argmax(rewards))
    assert rewards[end] > 9
    assert (np.diff(rewards[2 : end + 1]) > -1e-3).all()


def test_expert_finds_the_cap_from_odd_places_of_the_hand() -> None:
    rng = np.random.default_rng(0)
    sim, task = begun(60, "wide")
    ids, cap = np.arange(60), placed(sim, "housing")
    around = cap + np.concatenate([rng.uniform(-0.12, 0.12, (60, 2)), rng.uniform(0.0, 0.2, (60, 1))], axis=1)
    for _ in range(25):  # beside the housing, against it, on the guard, high above; open or closed, at any yaw
        sim.step(ids, task.command(around, np.sin(ids), np.cos(ids)))
    up = np.flatnonzero(~task.success(ids))
    assert len(up) > 40
    assert finished(sim, up)[up].mean() > 0.95


def test_shove_slides_the_housing_within_reach_and_throws_the_hand_but_never_into_a_finger() -> None:
    now = Condition("now", shove_speed=(1.0, 1.5), shove_window=(4, 16))
    sim, task = begun(60, now)
    clean, other = begun(60)
    ids, before, thrown = np.arange(60), placed(sim, "housing"), np.zeros(60)
    for time in range(22):
        tip, was = task.tool(ids)[:, 2] - TIP, placed(sim, "housing")
        action = clean.expert(ids)
        sim.step(ids, action)
        clean.step(ids, action)
        slid = (placed(sim, "housing") != was).any(axis=1)
        assert time >= 4 or not slid.any()
        assert (tip[slid] > was[slid, 2] + TOP + CLEAR).all()
        thrown = np.maximum(thrown, np.abs(task.tool(ids) - other.tool(ids)).max(axis=1))
    after = placed(sim, "housing")
    way = np.linalg.norm(after - before, axis=1)
    assert (way > 0.05).mean() > 0.4
    assert way.max() < 0.1
    assert np.allclose(placed(sim, "goal") - after, [0.0, 0.0, TOP - TRAVEL])
    assert (thrown > 0.02).mean() > 0.9


def test_guard_turned_by_a_quarter_looks_the_same() -> None:
    sim, task = begun()
    turns = sim.batch.bind("mocap_quat")
    seen = []
    for yaw in (0.3, 0.3 + np.pi / 2, 0.3 - np.pi):
        turns[0, int(sim.model.body("housing").mocapid[0])] = [np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        sim.set_state(ROW, sim.get_state(ROW))
        seen.append(np.concatenate([task.observe(ROW)["object"][0], sim.expert(ROW)[0]]))
    assert np.allclose(seen[0], seen[1], atol=1e-6)
    assert np.allclose(seen[0], seen[2], atol=1e-6)
