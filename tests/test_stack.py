"""Laws of Stack: what counts as stacked, a goal that goes with the blue cube, an expert that starts from anywhere."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.tasks.stack import APART, STARTS, Stack

ONE = np.arange(1)
BLUE = np.array([0.5, 0.1, 0.025])


def begun(num: int = 1, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(Stack, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def put(sim: Simulations, i: int, name: str, position: np.ndarray, yaw: float = 0.0) -> None:
    start = int(sim.model.jnt_qposadr[sim.model.joint(name).id])
    sim.batch.bind("qpos")[i, start : start + 7] = [*position, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
    dof = int(sim.model.jnt_dofadr[sim.model.joint(name).id])
    sim.batch.bind("qvel")[i, dof : dof + 6] = 0.0


def task_of(sim: Simulations) -> Stack:
    assert isinstance(sim.task, Stack)
    return sim.task


def settled(sim: Simulations) -> None:
    """Make what was written felt."""
    ids = np.arange(sim.num)
    sim.set_state(ids, sim.get_state(ids))


def arranged(offset: np.ndarray, yaw: float = 0.0) -> Simulations:
    """The blue cube at its place and the red one ``offset`` [m] from it; the hand as at home."""
    sim = begun()
    put(sim, 0, "support", BLUE)
    put(sim, 0, "object", BLUE + offset, yaw)
    settled(sim)
    return sim


def finished(sim: Simulations) -> np.ndarray:
    """Whether the expert succeeds from here, (N,)."""
    live, success = np.arange(sim.num), np.zeros(sim.num, bool)
    for _ in range(Stack.max_steps):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~step.success]
        if not len(live):
            break
    return success


@pytest.mark.parametrize(
    ("offset", "stacked"),
    [
        ([0.0, 0.0, 0.05], True),
        ([0.024, 0.0, 0.05], True),
        ([0.0, -0.026, 0.05], False),  # too far out
        ([0.0, 0.0, 0.056], False),  # in the air
        ([0.05, 0.0, 0.0], False),  # beside it
        ([0.0, 0.0, -0.05], False),
    ],
)
def test_success_is_a_red_cube_that_rests_on_the_blue_one(offset: list[float], stacked: bool) -> None:
    sim = arranged(np.array(offset))
    assert sim.task.success(ONE)[0] == stacked
    sim.batch.bind("qpos")[0, 7:9] = 0.025  # with the gripper closed on it, it is not let go of
    settled(sim)
    assert not sim.task.success(ONE)[0]


def test_cubes_in_the_air_or_on_the_move_are_not_stacked() -> None:
    sim = arranged(np.array([0.0, 0.0, 0.05]))
    assert sim.task.success(ONE)[0]
    put(sim, 0, "support", BLUE + [0.0, 0.0, 0.05])
    put(sim, 0, "object", BLUE + [0.0, 0.0, 0.10])
    settled(sim)
    assert not sim.task.success(ONE)[0]
    sim = arranged(np.array([0.0, 0.0, 0.05]))
    sim.batch.bind("qvel")[0, sim.model.jnt_dofadr[sim.model.joint("object").id]] = 0.1
    settled(sim)
    assert not sim.task.success(ONE)[0]


def test_goal_is_the_upper_face_of_the_blue_cube_wherever_it_goes() -> None:
    sim = arranged(np.array([0.0, -0.2, 0.0]))
    for place, yaw in ((BLUE, 0.3), (BLUE + [0.05, -0.02, 0.0], -0.6)):
        put(sim, 0, "support", place, yaw)
        settled(sim)
        seen = sim.observe(ONE)
        expected = [*(place + [0.0, 0.0, 0.025]), np.cos(yaw), np.sin(yaw)]
        assert np.allclose(seen["goal"][0], expected, atol=1e-6)
        put(sim, 0, "support", place, yaw + np.pi / 2)  # a cube looks the same after a quarter turn
        settled(sim)
        assert np.allclose(sim.observe(ONE)["goal"], seen["goal"], atol=1e-6)


@pytest.mark.parametrize("start", ["narrow", "wide"])
def test_cubes_start_apart_and_within_reach(start: str) -> None:
    sim = begun(50, Condition("start", start))  # type: ignore[arg-type]
    red, blue = task_of(sim).object_position(np.arange(50)), task_of(sim).support_position(np.arange(50))
    low, high = STARTS[start]
    assert (np.linalg.norm(red - blue, axis=1) >= APART).all()
    for cube in (red, blue):
        assert ((cube[:, :2] >= low) & (cube[:, :2] <= high)).all()


def test_reward_grows_as_the_red_cube_comes_to_its_place() -> None:
    way = [(-0.2, 0.0), (-0.2, 0.08), (-0.1, 0.08), (0.0, 0.08), (0.0, 0.06)]
    place = [arranged(np.array([0.0, y, z])).task.reward_terms(ONE)["place"][0] for y, z in way]
    assert np.all(np.diff(place) > 0.001)
    done = arranged(np.array([0.0, 0.0, 0.05])).task
    assert done.reward_terms(ONE)["place"][0] == pytest.approx(0.0, abs=1e-6)
    assert done.success(ONE)[0]


def test_expert_goes_on_from_odd_places() -> None:
    """Beside the blue cube on each side and at its corner, on its edge, on the far side, turned."""
    places = [
        ([0.051, 0.0, 0.0], 0.0),
        ([-0.051, 0.0, 0.0], 0.0),
        ([0.0, 0.051, 0.0], 0.0),
        ([0.0, -0.051, 0.0], 0.0),
        ([0.055, -0.055, 0.0], 0.0),
        ([0.0, 0.062, 0.0], 0.7),
        ([0.0, -0.024, 0.05], 0.0),
        ([0.0, 0.14, 0.0], 0.3),
        ([0.08, 0.0, 0.1], 0.0),  # falling
    ]
    sim = begun(len(places))
    for i, (offset, yaw) in enumerate(places):
        put(sim, i, "support", BLUE)
        put(sim, i, "object", BLUE + offset, yaw)
    settled(sim)
    assert finished(sim).all()


def test_shove_knocks_the_red_cube_and_a_tower_with_it() -> None:
    for offset, together in (([0.0, 0.0, 0.05], True), ([0.0, -0.15, 0.0], False)):
        sim = arranged(np.array(offset))
        before = [task_of(sim).object_position(ONE).copy(), task_of(sim).support_position(ONE).copy()]
        sim.task.shove(ONE, np.array([-1.5]), np.array([1.0]))
        for _ in range(8):
            sim.step(ONE, sim.task.idle_action(ONE))
        after = [task_of(sim).object_position(ONE), task_of(sim).support_position(ONE)]
        red, blue = (np.linalg.norm((a - b)[0, :2]) for a, b in zip(after, before, strict=True))
        assert red > 0.03
        assert (blue > 0.03) == together
