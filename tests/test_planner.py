"""Laws of the planner: a cost alone makes an expert, for any task, and a plan follows from what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import gymnasium
import mujoco.batch
import numpy as np
import pytest

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.planning import PlanningExpert
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs import Condition, Simulations, Task, TaskVectorEnv
from diffpolicy_envs.futures import Futures
from diffpolicy_envs.planner import Plan, Planner, PlannerConfig, spline
from diffpolicy_envs.task import Array, Bounds, Ids
from diffpolicy_envs.tasks.pick_place import PickPlace

ROW = np.arange(1)
PENDULUM = """
<mujoco>
  <option timestep="0.01" integrator="implicitfast"/>
  <worldbody>
    <light pos="0 -1 2"/>
    <camera name="side" pos="0 -2 0" xyaxes="1 0 0 0 0 1"/>
    <body name="pole">
      <joint name="hinge" axis="0 -1 0" damping="0.02"/>
      <geom type="capsule" size="0.03" fromto="0 0 0 0 0 -0.5" mass="0.5"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" ctrlrange="-0.5 0.5"/></actuator>
  <keyframe><key qpos="0"/></keyframe>
</mujoco>
"""  # the motor holds it at 24 degrees at most: it must be swung up


class SwingUp(Task):
    """Success: the pole stands on its head, and stands still."""

    substeps = 5
    max_steps = 120
    camera = "side"
    action_size = 1
    observation: ClassVar[Mapping[str, Bounds]] = {"pole": ([-1, -1, -20], [1, 1, 20])}
    unfit = ("slip", "dynamics")
    planning: ClassVar[PlannerConfig] = PlannerConfig(samples=16, horizon=30, knots=6, noise=(0.3, 1.0))

    def __init__(self, batch: mujoco.batch.Batch) -> None:
        super().__init__(batch)
        self._qpos, self._qvel, self._ctrl = batch.bind("qpos"), batch.bind("qvel"), batch.bind("ctrl")

    def place(self, ids: Ids, rngs: list[np.random.Generator], start: str) -> None:
        self._qpos[ids, 0] = [rng.uniform(-0.3, 0.3) for rng in rngs]

    def control(self, ids: Ids, action: Array) -> None:
        self._ctrl[ids] = 0.5 * action

    def observe(self, ids: Ids) -> dict[str, Array]:
        angle = self._qpos[ids]
        return {"pole": np.concatenate([np.cos(angle), np.sin(angle), self._qvel[ids]], axis=1)}

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        return {"height": -self.cost(ids), "success": 10.0 * self.success(ids)}

    def success(self, ids: Ids) -> np.ndarray:
        return (np.cos(self._qpos[ids, 0]) < -0.95) & (np.abs(self._qvel[ids, 0]) < 1.0)

    def shove(self, ids: Ids, angle: Array, speed: Array) -> None:
        self._qvel[ids, 0] += 3.0 * speed * np.cos(angle)

    def cost(self, ids: Ids) -> Array:
        return 1.0 + np.cos(self._qpos[ids, 0]) + 0.01 * self._qvel[ids, 0] ** 2


class Costless(SwingUp):
    """Nothing to plan by."""

    cost = Task.cost

    def reward_terms(self, ids: Ids) -> dict[str, Array]:
        return {"nothing": np.zeros(len(ids))}


class Pointing(PickPlace):
    """Success: the arm's tool is within 1 cm of a point above the goal."""

    max_steps = 40
    planning: ClassVar[PlannerConfig] = PlannerConfig(samples=16, horizon=6, knots=2, noise=(0.03, 0.2))

    def success(self, ids: Ids) -> np.ndarray:
        return self._gap(ids) < 0.01

    def cost(self, ids: Ids) -> Array:
        return self._gap(ids)

    def _gap(self, ids: Ids) -> Array:
        return np.sqrt(((self.tool(ids) - self.goal(ids) - [0.0, 0.0, 0.15]) ** 2).sum(axis=1))


@pytest.fixture(scope="module", autouse=True)
def swing_up(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pendulum's environment, whose file is wherever its owner put it."""
    SwingUp.model = tmp_path_factory.mktemp("own") / "pendulum.xml"
    SwingUp.model.write_text(PENDULUM)
    for name, task in (("own/SwingUp-v0", SwingUp), ("own/Costless-v0", Costless), ("own/Pointing-v0", Pointing)):
        gymnasium.register(
            name,
            "diffpolicy_envs.single:TaskEnv",
            vector_entry_point="diffpolicy_envs.vector:TaskVectorEnv",
            kwargs={"task": task},
        )
    return "own/SwingUp-v0"


def begun(task: type[Task], num: int, condition: str | Condition = "clean") -> Simulations:
    sim = Simulations(task, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    return sim


def alike(one: Plan, other: Plan) -> bool:
    return np.array_equal(one.actions, other.actions) and one.cost == other.cost


# -- what it can do ---------------------------------------------------------------------------------------------


def test_a_file_and_a_cost_of_ones_own_give_an_expert_that_chance_is_not(swing_up: str) -> None:
    env = make_vector(swing_up, 4, threads=1)
    planned = rollout(env, ScriptedExpert(env), range(4))
    assert [episode.success for episode in planned] == [True] * 4
    rng = np.random.default_rng(0)
    sim, ids, reached = begun(SwingUp, 50), np.arange(50), np.zeros(50, bool)
    for _ in range(SwingUp.max_steps):
        reached |= sim.step(ids, rng.uniform(-1, 1, (50, 1))).success
    assert reached.mean() < 0.1


@pytest.mark.parametrize("method", ["predictive", "mppi", "cem"])
def test_each_method_lowers_the_cost_that_it_started_with(method: str) -> None:
    sim = begun(SwingUp, 1)
    config = replace(SwingUp.planning, method=method, iterations=4, samples=32)
    planner = Planner(SwingUp, "clean", config, threads=1)
    state = sim.get_state(ROW)[0]
    costs = planner.futures.costs(state, np.zeros((32, 30, 1)))
    still = planner._totals(costs, np.zeros((32, 30, 1)), np.zeros((2, 1)))[0]
    found = planner.plan(state)
    assert found.cost < 0.95 * still
    executed = planner.futures.costs(state, np.repeat(found.actions[None], 32, axis=0))
    assert planner._totals(executed, np.zeros((32, 30, 1)), np.zeros((2, 1)))[0] < 0.97 * still  # a mean is no sample


def test_the_arm_goes_where_its_cost_is_least() -> None:
    env = make_vector("own/Pointing-v0", 2, threads=1)
    assert all(episode.success for episode in rollout(env, PlanningExpert(env, threads=1), range(2)))


def test_a_plan_that_goes_nowhere_is_given_up_for_a_wider_search() -> None:
    sim = begun(SwingUp, 1)
    planner = Planner(SwingUp, "clean", replace(SwingUp.planning, noise=(1e-6,), patience=3), threads=1)
    plan, counts = planner.plan(sim.get_state(ROW)[0]), []
    for _ in range(8):
        sim.step(ROW, plan.action[None])
        plan = planner.plan(sim.get_state(ROW)[0], plan)
        counts.append(plan.stalled)
    assert counts == [1, 2, 3, 0, 1, 2, 3, 0]


# -- what a plan depends on -------------------------------------------------------------------------------------


def test_a_plan_follows_from_the_state_the_plan_before_and_the_seed() -> None:
    sim = begun(SwingUp, 3)
    states = sim.get_state(np.arange(3))
    planner, other = Planner(SwingUp, threads=1), Planner(SwingUp, threads=2)
    first = [planner.plan(state) for state in states]
    again = [other.plan(state) for state in states[::-1]][::-1]
    assert all(map(alike, first, again))
    assert not np.array_equal(first[0].actions, first[1].actions)
    warm = planner.plan(states[0], first[0])
    assert alike(warm, other.plan(states[0], again[0]))
    assert not alike(warm, first[0])
    assert not alike(Planner(SwingUp, config=replace(SwingUp.planning, seed=1), threads=1).plan(states[0]), first[0])


def test_an_episode_is_planned_alike_in_whatever_company(swing_up: str) -> None:
    episodes = []
    for num, seeds in ((3, [4, 5, 6]), (2, [6, 9, 4, 5]), (1, [5])):
        env = make_vector(swing_up, num, threads=1)
        quick = replace(SwingUp.planning, samples=4, horizon=12)
        played = rollout(env, PlanningExpert(env, quick, threads=1), seeds)
        episodes.append({seed: episode.actions for seed, episode in zip(seeds, played, strict=True)})
    for seed in (4, 5, 6):
        assert all(np.array_equal(episodes[0][seed], e[seed]) for e in episodes[1:] if seed in e)


def test_a_shove_to_come_is_not_foreseen() -> None:
    soon = Condition("soon", shove_speed=(1.0, 1.0), shove_window=(2, 3))
    shoved, clean = begun(SwingUp, 1, soon), begun(SwingUp, 1)
    plans = [Planner(SwingUp, sim.condition, threads=1).plan(sim.get_state(ROW)[0]) for sim in (shoved, clean)]
    assert alike(*plans)


def test_actions_on_their_way_are_counted_in() -> None:
    sim = begun(SwingUp, 1, "action_delay")
    futures = Futures(SwingUp, 2, "action_delay", threads=1)
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (5, 1, 1)):
        sim.step(ROW, action)
    course = rng.uniform(-1, 1, (1, 12, 1))
    foreseen = futures.costs(sim.get_state(ROW)[0], np.repeat(course, 2, axis=0))
    seen = []
    for t in range(12):
        sim.step(ROW, course[:, t])
        seen.append(sim.task.cost(ROW)[0])
    assert np.array_equal(foreseen, [seen, seen])


def test_longer_physics_steps_leave_the_control_step_as_long() -> None:
    state = begun(SwingUp, 1).get_state(ROW)[0]
    course = np.full((2, 20, 1), 0.3)
    fine, coarse = (Futures(SwingUp, 2, "clean", 1, substeps).costs(state, course) for substeps in (None, 2))
    assert not np.array_equal(fine, coarse)
    assert np.allclose(fine, coarse, rtol=0.05)


# -- as expert and labeller ---------------------------------------------------------------------------------------


def test_the_planner_labels_by_branching_and_the_same_each_time(swing_up: str) -> None:
    env = make_vector(swing_up, 2, threads=1)
    quick = replace(SwingUp.planning, samples=4, horizon=12)
    played = rollout(env, PlanningExpert(env, quick, threads=1), [3], record_states=True)
    labels = []
    for num in (2, 3):
        branches = make_vector(swing_up, num, threads=1)
        expert = PlanningExpert(branches, quick, threads=1)
        labelled, cost = label_by_branching(branches, expert, played, length=4, every=20)
        assert cost.queries == len(played[0].actions[::20])
        labels.append(labelled[0].labels)
    assert labels[0] is not None
    assert labels[0].valid.any()
    assert np.array_equal(labels[0].chunks, labels[1].chunks)


def test_the_expert_of_a_task_with_a_cost_alone_is_the_planner(swing_up: str) -> None:
    env, other = make_vector(swing_up, 2, threads=1), make_vector(swing_up, 2, threads=1)
    expert, planner = rollout(env, ScriptedExpert(env), [1]), rollout(other, PlanningExpert(other, threads=1), [1])
    assert np.array_equal(expert[0].actions, planner[0].actions)


def test_what_cannot_be_planned_is_refused_before_the_first_step(swing_up: str) -> None:
    with pytest.raises(ValueError, match="no cost to plan by: define cost"):
        Planner(Costless)
    with pytest.raises(InputError, match=r"own/Costless-v0 cannot be planned in.*no cost"):
        PlanningExpert(make_vector("own/Costless-v0", 1))
    with pytest.raises(InputError, match=r"Pendulum-v1 cannot be planned in"):
        PlanningExpert(make_vector("Pendulum-v1", 1))
    crooked = type("Crooked", (SwingUp,), {"cost": lambda self, ids: np.zeros((len(ids), 2))})
    with pytest.raises(ValueError, match="expected one for each"):
        Planner(crooked)
    for wrong in (
        {"method": "guess"},
        {"samples": 0},
        {"knots": 1},
        {"knots": 99},
        {"noise": ()},
        {"elites": 0.0},
        {"temperature": 0.0},
        {"substeps": 0},
        {"proposals": 1.5},
        {"margin": -1.0},
        {"noise": (0.1, float("nan"))},
        {"noise": 0.1},
        {"samples": 2.5},
        {"mean": float("nan")},
        {"end": float("inf")},
        {"smoothness": -1.0},
        {"mean": 0.0},
        {"seed": -1},
    ):
        with pytest.raises(ValueError, match="expected"):
            PlannerConfig(**wrong)


def test_a_future_that_diverges_is_no_choice() -> None:
    state = begun(SwingUp, 1).get_state(ROW)[0]
    futures = Futures(SwingUp, 3, "clean", 1)
    control = futures.task.control

    def mad(ids: Ids, action: Array) -> None:
        control(ids, action)
        futures.batch.bind("qvel")[1] = 1e12

    futures.task.control = mad  # type: ignore[method-assign]
    found = futures.costs(state, np.zeros((3, 4, 1)))
    assert np.isinf(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_a_future_that_diverges_leaves_the_others_to_choose_from(end: float) -> None:
    """A weight of 0 times an infinite cost is no number, and must not be the least."""
    planner = Planner(SwingUp, config=replace(SwingUp.planning, end=end, samples=4), threads=1)
    costs = np.array([[1.0] * 30, [np.inf] * 30, [0.5] * 30, [0.7] * 29 + [np.inf]])
    totals = planner._totals(costs, np.zeros((4, 30, 1)), np.zeros((2, 1)))
    assert np.isinf(totals).tolist() == [False, True, False, True]
    assert totals.argmin() == 2
    with pytest.raises(ValueError, match="no plan from this state has a finite cost"):
        planner._totals(np.full((4, 30), np.inf), np.zeros((4, 30, 1)), np.zeros((2, 1)))


@pytest.mark.parametrize(
    "proposals", [np.zeros((3, 30)), np.zeros((3, 29, 1)), np.zeros((9, 30, 1)), np.full((2, 30, 1), np.nan)]
)
def test_proposals_of_another_shape_are_refused(proposals: np.ndarray) -> None:
    odd = type("Odd", (SwingUp,), {"propose": lambda self, i, rng, count, horizon: proposals})
    planner = Planner(odd, config=replace(SwingUp.planning, samples=16, proposals=0.5), threads=1)
    with pytest.raises(ValueError, match=r"expected propose to give at most 8 finite courses of action"):
        planner.plan(begun(SwingUp, 1).get_state(ROW)[0])


def test_plan_of_another_planner_is_refused() -> None:
    state = begun(SwingUp, 1).get_state(ROW)[0]
    shorter = Planner(SwingUp, config=replace(SwingUp.planning, horizon=10), threads=1).plan(state)
    with pytest.raises(ValueError, match="another planner's"):
        Planner(SwingUp, threads=1).plan(state, shorter)


def test_a_spline_goes_through_its_knots_and_stays_level_between_equal_ones() -> None:
    weights = spline(4, 16)
    assert weights.shape == (16, 4)
    assert np.allclose(weights[[0, 5, 10, 15]], np.eye(4))
    assert np.allclose(weights.sum(axis=1), 1.0)


def test_the_environment_itself_is_left_alone(swing_up: str) -> None:
    env = make_vector(swing_up, 2, threads=1)
    assert isinstance(env.unwrapped, TaskVectorEnv)
    observation, _ = env.reset(seed=0)
    before = env.unwrapped.get_state()
    PlanningExpert(env, threads=1).predict(observation)
    assert np.array_equal(env.unwrapped.get_state(), before)
    assert Path(SwingUp.model).is_file()
