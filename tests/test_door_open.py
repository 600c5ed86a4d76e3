"""Laws of DoorOpen: what counts as open, the bar's arc, what a slam does, and an expert that recovers."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.handles import LEAD, PAD
from diffpolicy_envs.tasks.door_open import DoorOpen

ONE = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(DoorOpen, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def task_of(sim: Simulations) -> DoorOpen:
    assert isinstance(sim.task, DoorOpen)
    return sim.task


def opened_to(sim: Simulations, opening: float) -> None:
    """The door of every simulation stands still at an opening [rad]."""
    ids = np.arange(sim.num)
    sim.batch.bind("qpos")[:, -1] = opening
    sim.batch.bind("qvel")[:, -1] = 0.0
    sim.set_state(ids, sim.get_state(ids))


def steered(sim: Simulations, offsets: np.ndarray, grip: float, steps: int = 20) -> None:
    """Send the hands to places (N, 3) along, across and above the bar [m], from above."""
    ids, task = np.arange(sim.num), task_of(sim)
    for place in np.repeat([offsets + [0.0, 0.0, 0.1], offsets], steps, axis=0):
        yaw = task.bar_yaw(ids)
        cos, sin = np.cos(yaw), np.sin(yaw)
        turned = [cos * place[:, 0] - sin * place[:, 1], sin * place[:, 0] + cos * place[:, 1], place[:, 2]]
        target = task.object_position(ids) + np.stack(turned, axis=1)
        sim.step(ids, task.command(target, yaw, np.full(sim.num, grip)))


def finished(sim: Simulations) -> np.ndarray:
    """Whether the expert succeeds from here, (N,)."""
    live, success = np.arange(sim.num), np.zeros(sim.num, bool)
    for _ in range(DoorOpen.max_steps):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~step.success]
        if not len(live):
            break
    return success


def test_door_is_open_from_nine_tenths_of_a_radian_on() -> None:
    sim = begun()
    for opening, is_open in ((0.0, False), (0.5, False), (0.89, False), (0.91, True), (1.2, True)):
        opened_to(sim, opening)
        assert task_of(sim).success(ONE).tolist() == [is_open]


@pytest.mark.parametrize("start", ["narrow", "wide"])
def test_bar_swings_on_its_arc_to_the_goal_within_reach(start: str) -> None:
    sim = begun(20, Condition("own", start=start))  # type: ignore[arg-type]
    ids, task = np.arange(20), task_of(sim)
    before = None
    for opening in (0.0, 0.25, 0.5, 0.75, 1.0):
        opened_to(sim, opening)
        origin, yaw = task.furniture(ids)
        place, turn = task.bar(origin, yaw, np.full(20, opening))
        assert np.allclose(place, task.object_position(ids), atol=1e-9)
        assert np.allclose(turn, task.bar_yaw(ids), atol=1e-9)
        assert (place > [0.305, -0.20, 0.0]).all()
        assert (place < [0.65, 0.24, 0.30]).all()
        assert (np.abs(turn) < np.pi / 2).all()
        if before is not None:
            way = np.linalg.norm(place - before, axis=1)
            assert np.allclose(way, 2 * task.lever * np.sin(0.125))  # the chord of a quarter radian
        before = place
    assert np.allclose(task.object_position(ids), task.goal(ids), atol=1e-9)
    assert np.allclose(task.bar_yaw(ids), task.goal_yaw(ids), atol=1e-9)


def test_forced_open_fingers_fit_between_bar_and_door_and_the_palm_clears_bar_and_roof() -> None:
    model = begun().model
    leaf = model.geom("leaf").pos[1] - model.geom("leaf").size[1]  # behind the bar's middle
    assert leaf - (0.08 / 2 + PAD[0]) > 0.004
    palm = model.site("tool").pos[2] - model.geom("palm").pos[2] - model.geom("palm").size[2]  # above the tool
    radius, half = model.geom("object").size[:2]
    assert palm - (half + radius) > 0.01
    assert model.body("object").pos[2] + palm - model.geom("roof").pos[2] - model.geom("roof").size[2] > 0.005


def test_door_stays_where_it_is_left_and_a_slam_shuts_it() -> None:
    sim, ids = begun(4), np.arange(4)
    opened_to(sim, 0.4)
    idle = sim.task.idle_action(ids)
    for _ in range(20):
        sim.step(ids, idle)
    assert np.allclose(task_of(sim).opened(ids), 0.4, atol=1e-3)
    sim.task.shove(ids, np.array([0.0, 1.5, 3.0, 4.5]), np.full(4, 1.0))
    for _ in range(20):
        sim.step(ids, idle)
    assert (task_of(sim).opened(ids) < 0.1).all()


def test_slam_and_slip_cost_the_hand_its_hold() -> None:
    for condition in (
        Condition("a", shove_speed=(1, 1), shove_window=(26, 27)),
        Condition("b", slip_height=(0.03, 0.03)),
    ):
        sim = begun(8, condition)
        ids, lost, held = np.arange(8), np.zeros(8, bool), np.zeros(8, bool)
        for _ in range(50):
            sim.step(ids, sim.expert(ids))
            now = task_of(sim).held(ids)
            lost |= held & ~now
            held = now
        assert lost.all()
        assert finished(sim).all()


def test_hand_that_holds_the_bar_is_sent_on_along_the_arc_and_turns_with_it() -> None:
    sim, ids = begun(8), np.arange(8)
    task = task_of(sim)
    while not task.held(ids).all():
        sim.step(ids, sim.expert(ids))
    action, here = task.expert(ids), task.opened(ids)
    yaw = action[:, 3] * np.pi / 2
    assert (yaw < task.bar_yaw(ids)).all()
    assert (yaw > task.bar_yaw(ids) - LEAD / task.lever - 0.02).all()
    sim.step(ids, action)
    sim.step(ids, sim.expert(ids))
    assert (task.opened(ids) > here).all()


@pytest.mark.parametrize("grip", [-1.0, 0.0, 1.0])
def test_expert_recovers_from_odd_places_of_the_hand(grip: float) -> None:
    places = [
        (0.0, 0.0, 0.05),  # on top of the bar
        (0.0, 0.03, 0.0),  # in the gap between bar and door
        (0.04, 0.03, -0.03),
        (-0.04, 0.03, -0.03),
        (0.02, 0.0, 0.0),  # at the bar's side
        (0.0, 0.02, 0.0),  # touching it
        (0.0, -0.02, 0.0),
        (0.0, -0.08, -0.05),  # before it, on the table
        (0.0, 0.10, 0.03),  # over the cabinet
        (0.14, 0.08, -0.04),  # beside the cabinet
    ]
    sim = begun(len(places), "wide")
    steered(sim, np.array(places), grip)
    assert finished(sim).all()


def test_expert_recovers_from_behind_the_open_door() -> None:
    sim, ids = begun(6), np.arange(6)
    opened_to(sim, 0.8)
    steered(sim, np.tile([0.0, 0.12, -0.03], (6, 1)), -1.0)
    assert (task_of(sim).astride(ids)[:, 1] > 0.06).all()
    assert finished(sim).all()
