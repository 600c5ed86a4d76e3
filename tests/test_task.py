"""Laws of a task of one's own: what it must declare, what its model must hold, what becomes of one that diverges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from registry import every_name

import diffpolicy_envs
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluate import evaluate
from diffpolicy.rollout.environment import conditions_of, make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy_envs import TASKS, Condition, Simulations, Task, TaskEnv, TaskVectorEnv, register
from diffpolicy_envs.tabletop import TabletopTask, task_code
from diffpolicy_envs.task import Bounds

MODEL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <body name="cart">
      <joint name="slide" type="slide" axis="1 0 0" damping="1"/>
      <geom type="sphere" size="0.1" mass="1"/>
    </body>
  </worldbody>
  <actuator><motor joint="slide" gear="5"/></actuator>
  {keyframe}
</mujoco>
"""
KEYFRAME = '<keyframe><key name="home" qpos="0"/></keyframe>'


class Cart(Task):
    """A cart on a rail goes to the middle."""

    substeps = 5
    max_steps = 60
    action_size = 1
    observation: ClassVar[Mapping[str, Bounds]] = {"cart": ([-2.0, -5.0], [2.0, 5.0])}
    records = ("furthest",)
    reach: ClassVar[float] = np.inf

    def __init__(self, batch: Any) -> None:
        super().__init__(batch)
        self.qpos, self.qvel, self.ctrl = (batch.bind(name) for name in ("qpos", "qvel", "ctrl"))

    def place(self, ids: Any, rngs: Any, start: str) -> None:
        for i, rng in zip(ids, rngs, strict=True):
            self.qpos[i, 0] = rng.uniform(-1, 1) * (1.5 if start == "wide" else 1.0)

    def control(self, ids: Any, action: Any) -> None:
        self.ctrl[ids] = action

    def observe(self, ids: Any) -> dict[str, Any]:
        return {"cart": np.concatenate([self.qpos[ids], self.qvel[ids]], axis=1)}

    def reward_terms(self, ids: Any) -> dict[str, Any]:
        return {"distance": -np.abs(self.qpos[ids, 0])}

    def success(self, ids: Any) -> Any:
        return np.abs(self.qpos[ids, 0]) < 0.05

    def failure(self, ids: Any) -> Any:
        return np.abs(self.qpos[ids, 0]) > self.reach

    def record(self, ids: Any, so_far: Any) -> Any:
        return np.maximum(so_far, np.abs(self.qpos[ids]))

    def expert(self, ids: Any) -> Any:
        return np.clip(-4.0 * self.qpos[ids] - 2.0 * self.qvel[ids], -1.0, 1.0)


def carted(folder: Path, keyframe: str = KEYFRAME, **declared: Any) -> type[Task]:
    """The task with its model in a folder of its own, and other class variables."""
    path = folder / "cart.xml"
    path.write_text(MODEL.format(keyframe=keyframe), encoding="utf-8")
    return type("Cart", (Cart,), {"model": path, **declared})


# -- what a task declares ---------------------------------------------------------------------------------------


def test_own_task_runs_everywhere_by_its_name(tmp_path: Path) -> None:
    register("mylab/Cart-v0", carted(tmp_path))
    assert conditions_of("mylab/Cart-v0") == ("clean", "sensor_noise", "action_delay", "wide")
    found = evaluate("mylab/Cart-v0", diffpolicy_scripted, range(40), method="expert", condition="wide")
    assert found.success is not None
    assert found.success.point == 1.0
    assert 0.5 < found.row()["furthest"] <= 1.5
    assert all(0 < row.records["furthest"] <= 1.5 for row in found.episodes)
    with pytest.raises(InputError, match=r"knows the conditions clean, sensor_noise, action_delay, wide; got 'shove'"):
        make_vector("mylab/Cart-v0", 1, "shove")


def diffpolicy_scripted(env: Any) -> Any:
    from diffpolicy.rollout.predictor import ScriptedExpert

    return ScriptedExpert(env)


@pytest.mark.parametrize("name", ["model", "substeps", "max_steps", "observation", "action_size"])
def test_missing_declaration_is_named(tmp_path: Path, name: str) -> None:
    class Bare(Task):
        pass

    for other in ("model", "substeps", "max_steps", "observation", "action_size"):
        if other != name:
            setattr(Bare, other, getattr(carted(tmp_path), other))
    Bare.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=f"task Bare must declare {name}"):
        Simulations(Bare, 1)
    with pytest.raises(ValueError, match=f"task Bare must declare {name}"):
        register("mylab/Bare-v0", Bare)


def test_model_without_a_keyframe_or_without_what_the_task_needs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"task Cart needs a keyframe in its MJCF file .*cart.xml"):
        Simulations(carted(tmp_path, keyframe=""), 1)
    needy = carted(tmp_path, needs={"sensor": ("speed",), "joint": ("slide", "hinge")})
    with pytest.raises(ValueError, match=r"task Cart needs sensor 'speed', joint 'hinge' in its MJCF file"):
        Simulations(needy, 1)
    arm = type("Arm", (TabletopTask,), {"model": carted(tmp_path).model})
    arm.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"needs body 'object', body 'goal', .*sensor 'tool_position'"):
        Simulations(arm, 1)
    with pytest.raises(ValueError, match=r"task Cart: no MJCF file .*nowhere.xml; put the file there"):
        Simulations(type("Cart", (Cart,), {"model": tmp_path / "nowhere.xml"}), 1)


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        ({"cart": ([-1.0], [1.0])}, "observe gives .* declares .* make them agree"),
        ({"wagon": ([-1.0, -1.0], [1.0, 1.0])}, "make them agree"),
        ({"cart": ([-1.0, -np.inf], [1.0, 1.0])}, "expected finite bounds low < high"),
        ({"cart": ([1.0, 1.0], [-1.0, 2.0])}, "expected finite bounds low < high"),
        ({"cart": ([-1.0, -1.0], [1.0])}, "expected finite bounds low < high of equal length"),
    ],
)
def test_observation_that_differs_from_the_declared_is_refused(
    tmp_path: Path, observation: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Simulations(carted(tmp_path, observation=observation), 1)


def test_names_that_are_taken_and_what_is_no_task_are_refused(tmp_path: Path) -> None:
    task = carted(tmp_path)
    register("mylab/Again-v0", task)
    register("mylab/Again-v0", task)
    with pytest.raises(ValueError, match="'Pendulum-v1' is taken"):
        register("Pendulum-v1", task)
    with pytest.raises(ValueError, match=r"'diffpolicy/PickPlace-v0' is taken by .*PickPlace"):
        register("diffpolicy/PickPlace-v0", task)
    with pytest.raises(ValueError, match="expected a subclass of"):
        register("mylab/None-v0", Simulations)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected a name such as"):
        register(None, task)  # type: ignore[arg-type]


def test_task_without_an_expert_or_a_cost_says_so(tmp_path: Path) -> None:
    task = carted(tmp_path, expert=Task.expert)
    sim = Simulations(task, 1)
    with pytest.raises(
        ValueError, match=r"task Cart has no cost to plan by: define cost\(ids\) -> \(n,\), or expert\(ids\)"
    ):
        sim.expert(np.arange(1))
    with pytest.raises(ValueError, match="task Cart has no cost to plan by: define cost"):
        sim.task.cost(np.arange(1))


def test_start_is_narrow_or_wide() -> None:
    with pytest.raises(ValueError, match="expected start 'narrow' or 'wide', got 'anywhere'"):
        Condition("odd", start="anywhere")  # type: ignore[arg-type]


# -- what becomes of an episode ---------------------------------------------------------------------------------


def test_failure_ends_the_episode_without_success(tmp_path: Path) -> None:
    env = TaskEnv(carted(tmp_path, reach=1.2))
    env.reset(seed=0)
    done, steps = False, 0
    while not done:
        _, _, terminated, truncated, info = env.step(np.ones(1))
        done, steps = terminated or truncated, steps + 1
    assert terminated
    assert not truncated
    assert info["success"] is False
    assert info["record/furthest"] >= 1.2
    assert steps < Cart.max_steps


def test_success_earns_the_bonus_once_and_only_in_the_step_that_succeeds(tmp_path: Path) -> None:
    env = TaskEnv(carted(tmp_path, bonus=7.0))
    env.reset(seed=0)
    done, paid = False, []
    while not done:
        _, reward, done, _, info = env.step(env.expert())
        assert reward == info["reward/distance"] + info["reward/success"]
        paid.append(info["reward/success"])
    assert paid == [0.0] * (len(paid) - 1) + [7.0]


def test_records_are_part_of_the_state(tmp_path: Path) -> None:
    sim, ids = Simulations(carted(tmp_path), 2), np.arange(2)
    sim.reset(ids, [0, 1])
    for _ in range(5):
        sim.step(ids, np.ones((2, 1)))
    saved = sim.get_state(ids)
    first = sim.step(ids, np.zeros((2, 1))).records["furthest"].copy()
    sim.reset(ids, [5, 6])
    sim.set_state(ids, saved)
    assert np.array_equal(sim.step(ids, np.zeros((2, 1))).records["furthest"], first)


class Explosive(Cart):
    """From a step on, its physics is nonsense."""

    def control(self, ids: Any, action: Any) -> None:
        super().control(ids, action)
        bad = np.asarray(action)[:, 0] > 0.9
        self.qvel[np.asarray(ids)[bad]] = np.nan


def test_diverged_simulation_ends_says_so_and_is_dropped(tmp_path: Path) -> None:
    path = carted(tmp_path).model
    task = type("Explosive", (Explosive,), {"model": path})
    env = TaskVectorEnv(task, 2, autoreset_mode="Disabled")
    env.reset(seed=2)
    _, _, terminated, truncated, info = env.step(np.array([[1.0], [0.0]]))
    assert terminated.tolist() == [True, False]
    assert info["diverged"].tolist() == [True, False]
    assert not info["success"][0]
    assert not truncated.any()
    state = env.get_state()[1:]
    env.set_state(state, np.array([0]))  # it lives again
    *_, info = env.step(np.zeros((2, 1)))
    assert info["diverged"].tolist() == [False, False]

    register("mylab/Explosive-v0", task)

    class Right:
        """Pushes hard where the cart began on the right, which stay those where it was not pushed."""

        def predict(self, observation: Any, state: Any = None, *_: Any) -> tuple[Any, Any]:
            return (observation["cart"][:, :1] > 0).astype(np.float32), state

    lost: list[Any] = []
    kept = rollout(make_vector("mylab/Explosive-v0", 4), Right(), range(2, 12), dropped=lost.append)
    assert len(kept) + len(lost) == 10
    assert min(len(kept), len(lost)) >= 2
    assert all((episode.obs["cart"][:, 0] <= 0).all() for episode in kept)
    assert all("diverged" in each.error for each in lost)


# -- codes ------------------------------------------------------------------------------------------------------


def test_codes_of_tasks_are_fixed_and_far_apart() -> None:
    codes = np.stack([task_code(task.__name__) for task in TASKS.values()])
    assert codes.shape == (len(TASKS), 16)
    assert np.abs(codes).max() <= 1.0
    apart = np.linalg.norm(codes[:, None] - codes[None], axis=-1) + 10 * np.eye(len(codes))
    assert apart.min() > 1.0
    assert task_code("PickPlace")[0] == pytest.approx(2 * 0xD53B / 0xFFFF - 1)


@every_name
def test_tasks_of_the_arm_share_their_spaces_and_tell_their_code(name: str) -> None:
    env: Any = gymnasium.make(name).unwrapped
    task = TASKS[name]
    if issubclass(task, TabletopTask):
        reference: Any = gymnasium.make("diffpolicy/PickPlace-v0").unwrapped
        assert env.observation_space == reference.observation_space
        assert env.action_space == reference.action_space
        observation, _ = env.reset(seed=0)
        assert np.allclose(observation["task"], task_code(task.__name__), atol=1e-6)
        assert np.hypot(*observation["goal"][3:]) == pytest.approx(1.0, abs=1e-6)
    assert diffpolicy_envs.TASKS[name].hard is not None
    assert TASKS[name].conditions()["hard"].name == "hard"
    assert {"clean", "wide", "sensor_noise", "action_delay", "hard"} <= set(task.conditions())
