"""Laws of DrawerOpen: what counts as open, where the bar goes, what a slam does, and an expert that recovers."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.handles import PAD, SPREAD
from diffpolicy_envs.motion import length
from diffpolicy_envs.tasks.drawer_open import DrawerOpen

ONE = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(DrawerOpen, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def task_of(sim: Simulations) -> DrawerOpen:
    assert isinstance(sim.task, DrawerOpen)
    return sim.task


def opened_to(sim: Simulations, opening: float) -> None:
    """The drawer of every simulation stands still at an opening [m]."""
    ids = np.arange(sim.num)
    sim.batch.bind("qpos")[:, -1] = opening
    sim.batch.bind("qvel")[:, -1] = 0.0
    sim.set_state(ids, sim.get_state(ids))


def steered(sim: Simulations, offsets: np.ndarray, grip: float, steps: int = 20) -> None:
    """Send the hands to places (N, 3) along, across and above the bar [m]: from above, or, below it, from the front."""
    ids, task = np.arange(sim.num), task_of(sim)
    low = offsets[:, 2:] < -0.025
    first = offsets + np.where(low, [0.0, -0.12, 0.1], [0.0, 0.0, 0.1])
    then = offsets + np.where(low, [0.0, -0.12, 0.0], [0.0, 0.0, 0.1])
    for place in np.repeat([first, then, offsets], steps, axis=0):
        yaw = task.bar_yaw(ids)
        cos, sin = np.cos(yaw), np.sin(yaw)
        turned = [cos * place[:, 0] - sin * place[:, 1], sin * place[:, 0] + cos * place[:, 1], place[:, 2]]
        target = task.object_position(ids) + np.stack(turned, axis=1)
        sim.step(ids, task.command(target, yaw, np.full(sim.num, grip)))


def finished(sim: Simulations) -> np.ndarray:
    """Whether the expert succeeds from here, (N,)."""
    live, success = np.arange(sim.num), np.zeros(sim.num, bool)
    for _ in range(DrawerOpen.max_steps):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~step.success]
        if not len(live):
            break
    return success


def test_drawer_is_open_from_thirteen_centimetres_on() -> None:
    sim = begun()
    for opening, is_open in ((0.0, False), (0.12, False), (0.129, False), (0.131, True), (0.15, True)):
        opened_to(sim, opening)
        assert task_of(sim).success(ONE).tolist() == [is_open]


@pytest.mark.parametrize("start", ["narrow", "wide"])
def test_bar_moves_straight_to_the_goal_within_reach(start: str) -> None:
    sim = begun(20, Condition("own", start=start))  # type: ignore[arg-type]
    ids, task = np.arange(20), task_of(sim)
    for opening in (0.0, 0.07, 0.15):
        opened_to(sim, opening)
        origin, yaw = task.furniture(ids)
        place, turn = task.bar(origin, yaw, np.full(20, opening))
        assert np.allclose(place, task.object_position(ids), atol=1e-9)
        assert np.allclose(turn, task.bar_yaw(ids), atol=1e-9)
        assert (place > [0.33, -0.10, 0.0]).all()
        assert (place < [0.63, 0.24, 0.30]).all()
    assert np.allclose(task.object_position(ids), task.goal(ids), atol=1e-9)
    assert np.allclose(task.bar_yaw(ids), task.goal_yaw(ids), atol=1e-9)


def test_wide_starts_contain_the_narrow_ones() -> None:
    def spread(condition: str) -> tuple[np.ndarray, np.ndarray]:
        sim, ids = begun(200, condition), np.arange(200)
        task = task_of(sim)
        seen = np.column_stack([task.furniture(ids)[0][:, :2], task.furniture(ids)[1], task.opened(ids)])
        return seen.min(axis=0), seen.max(axis=0)

    (low, high), (lowest, highest) = spread("clean"), spread("wide")
    assert (lowest < low).all()
    assert (highest > high).all()
    assert (highest - lowest > 1.5 * (high - low)).all()


def test_open_fingers_fit_between_bar_and_front_and_the_palm_clears_the_roof() -> None:
    model = begun().model
    front = model.geom("front").pos[1] - model.geom("front").size[1]  # behind the bar's middle
    assert front - (SPREAD / 2 + PAD[0]) > 0.01
    assert front - (0.08 / 2 + PAD[0]) > 0.004  # forced open
    palm = model.geom("palm").pos[2] + model.geom("palm").size[2]
    tool = model.site("tool").pos[2]
    roof = model.geom("roof").pos[2] + model.geom("roof").size[2]
    assert model.body("object").pos[2] + (tool - palm) - roof > 0.01


def test_drawer_stays_where_it_is_left_and_a_slam_shuts_it() -> None:
    sim, ids = begun(4), np.arange(4)
    opened_to(sim, 0.06)
    idle = sim.task.idle_action(ids)
    for _ in range(20):
        sim.step(ids, idle)
    assert np.allclose(task_of(sim).opened(ids), 0.06, atol=1e-3)
    sim.task.shove(ids, np.array([0.0, 1.5, 3.0, 4.5]), np.full(4, 1.0))  # whatever the angle
    for _ in range(20):
        sim.step(ids, idle)
    assert (task_of(sim).opened(ids) < 0.015).all()


def test_slam_and_slip_cost_the_hand_its_hold() -> None:
    for condition in (
        Condition("a", shove_speed=(1, 1), shove_window=(26, 27)),
        Condition("b", slip_height=(0.03, 0.03)),
    ):
        sim = begun(8, condition)
        ids, lost = np.arange(8), np.zeros(8, bool)
        held = task_of(sim).held(ids)
        assert not held.any()
        for _ in range(50):
            sim.step(ids, sim.expert(ids))
            now = task_of(sim).held(ids)
            lost |= held & ~now
            held = now
        assert lost.all()
        assert finished(sim).all()


def test_reward_grows_as_the_hand_nears_and_as_the_drawer_opens() -> None:
    sim, task = begun(8), task_of(begun(1))
    ids = np.arange(8)
    assert isinstance(sim.task, DrawerOpen)
    task = sim.task
    shaped = []
    for _ in range(28):
        terms = sim.step(ids, sim.expert(ids)).terms
        shaped.append(terms["reach"] + terms["open"])
    assert (np.diff(np.array(shaped)[::7], axis=0) > 0).all()
    assert (length(task.goal(ids) - task.object_position(ids)) < 0.125).all()


def test_heavy_stiff_drawers_have_their_own_friction_and_damping() -> None:
    sim, ids = begun(1, "dynamics"), np.arange(1)
    sim.task.vary(ids, np.array([2.0]), np.array([1.4]))
    for name in ("dof_frictionloss", "dof_damping"):
        ratio = sim.batch.expand(name)[0] / np.where(getattr(sim.model, name) > 0, getattr(sim.model, name), 1.0)
        assert ratio[-1] == pytest.approx(1.4)
        assert np.isin(ratio[:-1], [0.0, 1.0]).all()


@pytest.mark.parametrize("grip", [-1.0, 0.0, 1.0])
def test_expert_recovers_from_odd_places_of_the_hand(grip: float) -> None:
    places = [
        (0.0, -0.06, -0.03),  # before the bar and below it
        (0.0, -0.01, -0.06),  # under the bar
        (0.0, 0.03, 0.0),  # in the gap between bar and front
        (0.0, 0.03, -0.04),
        (0.05, 0.03, -0.04),  # under a post
        (0.05, 0.0, 0.0),  # at the bar's end
        (0.0, 0.02, 0.0),  # touching it
        (0.0, -0.02, 0.0),
        (0.0, 0.11, 0.02),  # over the drawer
        (0.16, 0.1, -0.05),  # beside the cabinet
    ]
    sim = begun(len(places), "wide")
    steered(sim, np.array(places), grip)
    assert task_of(sim).astride(np.arange(len(places)))[1, 2] < -0.03
    assert finished(sim).all()


def test_expert_recovers_from_under_the_roof() -> None:
    sim = begun(6)
    opened_to(sim, 0.15)
    steered(sim, np.tile([0.02, 0.13, -0.03], (6, 1)), -1.0, steps=12)
    assert finished(sim).all()
