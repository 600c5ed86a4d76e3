"""Laws of PegInsert: the clearance of the compiled model, what counts as inserted, and an expert that recovers."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.tasks.peg_insert import GRASP, GRIP, STARTS, TURNS, PegInsert

ONE = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(PegInsert, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def task_of(sim: Simulations) -> PegInsert:
    assert isinstance(sim.task, PegInsert)
    return sim.task


def settled(sim: Simulations) -> None:
    """Make what was written felt."""
    ids = np.arange(sim.num)
    sim.set_state(ids, sim.get_state(ids))


def put(sim: Simulations, i: int, position: np.ndarray, yaw: float, slant: float = 0.0) -> None:
    """The peg at rest somewhere [m], turned and slanted about the pads' axis [rad]."""
    task_of(sim).set_object(i, position, yaw)
    dof = int(sim.model.jnt_dofadr[sim.model.joint("object").id])
    at = int(sim.model.jnt_qposadr[sim.model.joint("object").id])
    turn, lean = (
        np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]),
        np.array([np.cos(slant / 2), 0, np.sin(slant / 2), 0]),
    )
    quaternion = np.zeros(4)
    mujoco.mju_mulQuat(quaternion, turn, lean)
    sim.batch.bind("qpos")[i, at + 3 : at + 7] = quaternion
    sim.batch.bind("qvel")[i, dof : dof + 6] = 0.0


def seated(depth: float, aside: float = 0.0) -> Simulations:
    """The peg upright, ``depth`` [m] below the rim and ``aside`` [m] from the hole's middle along x."""
    sim = begun()
    put(sim, 0, task_of(sim).goal(ONE)[0] + [aside, 0.0, 0.04 - depth], float(task_of(sim).goal_yaw(ONE)[0]))
    settled(sim)
    return sim


def finished(sim: Simulations) -> np.ndarray:
    """Whether the expert succeeds from here, (N,)."""
    live, success = np.arange(sim.num), np.zeros(sim.num, bool)
    for _ in range(PegInsert.max_steps):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~step.terminated]
        if not len(live):
            break
    return success


# -- geometry ---------------------------------------------------------------------------------------------------


def distance(data: mujoco.MjData, start: list[float], way: list[float]) -> float:
    """From a point of the fixture's frame to the fixture along ``way`` [m]."""
    model = data.model
    origin, turn = data.body("fixture").xpos, data.body("fixture").xmat.reshape(3, 3)
    ray = np.array(way) / np.linalg.norm(way)
    found = np.zeros(1, np.int32)
    aside = int(model.body("object").id)
    return float(mujoco.mj_ray(model, data, origin + turn @ start, turn @ ray, None, 1, aside, found))


@pytest.fixture(scope="module")
def still() -> mujoco.MjData:
    model = Simulations(PegInsert, 1).model
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    return data


def test_clearance_is_two_millimetres_and_the_hole_forty_deep(still: mujoco.MjData) -> None:
    peg = 2 * still.model.geom("object").size
    assert np.allclose(peg, [0.030, 0.030, 0.080])
    for axis in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]):
        for height in (0.001, 0.02, 0.0355):
            for sideways in (-0.0155, 0.0, 0.0155):
                start = [sideways * axis[1], sideways * axis[0], height]
                width = sum(distance(still, start, [s * a for a in axis]) for s in (1.0, -1.0))
                assert width - peg[0] == pytest.approx(0.002, abs=1e-6)
    rim = 0.1 - distance(still, [0.03, 0.0, 0.1], [0.0, 0.0, -1.0])
    bottom = 0.1 - distance(still, [0.0, 0.0, 0.1], [0.0, 0.0, -1.0])
    assert rim - bottom == pytest.approx(0.040, abs=1e-6)


def test_chamfer_is_four_millimetres_at_forty_five_degrees_all_round(still: mujoco.MjData) -> None:
    for way in ([1, 0], [-1, 0], [0, 1], [0, -1], [1, 0.9], [-0.95, 1]):  # the last two towards corners
        for out in (0.0162, 0.017, 0.018, 0.019, 0.0198):
            start = [way[0] * out, way[1] * out, 0.1]
            height = 0.1 - distance(still, start, [0.0, 0.0, -1.0])
            assert height == pytest.approx(0.036 + out - 0.016, abs=1e-6)


# -- the task ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "aside", "inserted"),
    [(0.0301, 0.0, True), (0.0299, 0.0, False), (0.0301, 0.0009, True), (0.04, 0.1, False)],
)
def test_success_is_a_peg_thirty_millimetres_deep_in_the_hole(depth: float, aside: float, inserted: bool) -> None:
    assert seated(depth, aside).task.success(ONE)[0] == inserted


def test_reward_grows_on_the_way_into_the_hole() -> None:
    way = [(-0.08, 0.2), (-0.08, 0.05), (-0.05, 0.0), (-0.02, 0.0), (0.0, 0.0), (0.01, 0.0), (0.02, 0.0), (0.0305, 0.0)]
    rewards = [sum(float(term[0]) for term in seated(*at).task.reward_terms(ONE).values()) for at in way]
    assert np.all(np.diff(rewards) > 0.01)
    assert rewards[0] > -1.0
    assert 0.0 >= rewards[-1] > -0.1


def test_peg_that_lies_on_its_side_ends_the_episode_without_success() -> None:
    sim = begun()
    put(sim, 0, np.array([0.5, -0.2, 0.015]), 0.0, np.pi / 2)
    settled(sim)
    step = sim.step(ONE, sim.expert(ONE))
    assert step.terminated[0]
    assert not step.success[0]


@pytest.mark.parametrize("start", ["narrow", "wide"])
def test_peg_starts_in_the_hand_and_stays_there(start: str) -> None:
    ids = np.arange(30)
    sim = begun(30, Condition("start", start))  # type: ignore[arg-type]
    low, high = STARTS[start]
    fixture = task_of(sim).goal(ids)
    assert ((fixture[:, :2] >= low) & (fixture[:, :2] <= high)).all()
    assert (np.abs(task_of(sim).goal_yaw(ids)) <= TURNS[start]).all()
    idle = sim.task.idle_action(ids)
    for _ in range(12):
        sim.step(ids, idle)
    gap = task_of(sim).object_position(ids) - task_of(sim).tool(ids) + [0.0, 0.0, GRIP]
    assert (np.abs(gap) <= GRASP + [0.004, 0.002, 0.004]).all()
    assert np.ptp(gap, axis=0)[[0, 2]].min() > 0.003


def test_peg_looks_the_same_after_a_quarter_turn() -> None:
    sim = begun()
    seen = []
    for quarter in range(4):
        put(sim, 0, np.array([0.5, -0.2, 0.04]), 0.2 + quarter * np.pi / 2)
        settled(sim)
        seen.append(sim.observe(ONE)["object"][0])
    assert np.allclose(seen, seen[0], atol=1e-6)
    put(sim, 0, np.array([0.5, -0.2, 0.04]), 0.2, np.pi / 2)  # but not on its side
    settled(sim)
    assert np.abs(sim.observe(ONE)["object"][0] - seen[0]).max() > 0.5


# -- what befalls it, and the expert ----------------------------------------------------------------------------


def test_shove_slides_the_fixture_within_reach_but_not_with_the_peg_in_it() -> None:
    ids, angle = np.arange(16), np.linspace(0, 6, 16)
    sim = begun(16, "wide")
    before, yaw = task_of(sim).goal(ids).copy(), task_of(sim).goal_yaw(ids).copy()
    inside = ids % 4 == 0
    for i in ids[inside]:
        put(sim, i, before[i] + [0.0, 0.0, 0.02], yaw[i])
    settled(sim)
    sim.task.shove(ids, angle, np.full(16, 1.2))
    hold = sim.task.idle_action(ids)
    thrown = sim.task.seized(ids, hold, angle, np.full(16, 1.2))
    assert np.array_equal((thrown != hold).any(axis=1), ~inside)
    assert np.array_equal(thrown[:, 2:], hold[:, 2:])  # it keeps hold of the peg
    hold[inside, 4] = 1.0
    for _ in range(16):
        sim.step(ids, hold)
    moved = np.linalg.norm(task_of(sim).goal(ids) - before, axis=1)
    assert (moved[~inside] > 0.05).all()
    assert (moved[~inside] < 0.16).all()
    assert (moved[inside] < 0.002).all()
    assert np.allclose(task_of(sim).goal_yaw(ids), yaw)
    low, high = STARTS["wide"]
    assert ((task_of(sim).goal(ids)[:, :2] > low - 0.03) & (task_of(sim).goal(ids)[:, :2] < high + 0.03)).all()
    speed = np.linalg.norm(sim.batch.bind("qvel")[:, 9:11], axis=1)
    assert speed.max() < 0.01


def test_expert_goes_on_from_odd_places() -> None:
    """A peg that stands on the table, or half in the hole, or lies badly in the hand; a hole turned by 45 degrees."""
    sim, ids = begun(8), np.arange(8)
    tool, goal, yaw = task_of(sim).tool(ids).copy(), task_of(sim).goal(ids).copy(), task_of(sim).goal_yaw(ids)
    put(sim, 0, np.array([0.5, -0.2, 0.04]), 0.5)  # stands on the table, the hand open or empty
    put(sim, 1, goal[1] + [0.085, 0.0, 0.0], 0.0)  # and right by the fixture
    put(sim, 2, goal[2] + [0.0, 0.0, 0.022], yaw[2])  # half in the hole
    sim.batch.bind("qpos")[:3, 7:9] = 0.04
    put(sim, 3, tool[3] + [0.004, 0.0, -0.02], 0.0, 0.25)  # slants in the hand
    put(sim, 4, tool[4] + [0.0, 0.0, -0.02], 0.0, -0.2)
    put(sim, 5, tool[5] + [0.0, 0.0, 0.01], 0.0)  # is held too low
    put(sim, 6, tool[6] + [0.01, 0.0, -0.035], 0.0)  # and too high, near its edge
    task_of(sim).set_mocap(7, "goal", [0.55, -0.1, 0.0], 0.7)
    settled(sim)
    assert finished(sim).all()
