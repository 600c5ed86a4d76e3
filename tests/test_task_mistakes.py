"""Laws of mistakes in a task of one's own: each is refused in words before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_task import MODEL, Cart, carted

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs import Condition, Simulations, Task, TaskVectorEnv, assets_folder, register
from diffpolicy_envs.tasks.reach import Reach

BOUNDS = ([-2.0, -5.0], [2.0, 5.0])


def giving(value: Any) -> Any:
    """A method that gives that, or what a function of n gives."""
    return lambda self, ids, *_: value(len(ids)) if callable(value) else value


# -- what it declares -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"max_steps": 0}, "`max_steps` must be a whole number of at least 1, got 0"),
        ({"substeps": 2.5}, r"`substeps` must be a whole number of at least 1, got 2\.5"),
        ({"action_size": True}, "`action_size` must be a whole number"),
        ({"bonus": np.nan}, "expected a finite `bonus`"),
        ({"model": 3}, r"expected `model` as the pathlib\.Path"),
        ({"fields": ("body_mess",)}, r"`fields` names body_mess; expected names of mujoco\.batch\.MODEL_FIELDS"),
        ({"fields": "body_mass"}, "expected `fields` as a tuple of distinct names"),
        ({"unfit": ("shov",)}, "`unfit` names shov; expected names of shove, slip"),
        ({"hard": "x"}, r"expected `hard` to be a diffpolicy_envs\.Condition or None"),
        (
            {"hard": Condition("hard", slip_height=(1, 2))},
            "condition 'hard' has slip, which means nothing to task Cart",
        ),
        ({"planning": {"samples": 3}}, "expected `planning` as a PlannerConfig"),
        ({"records": "ab"}, "expected `records` as a tuple of distinct names, got 'ab'"),
        ({"records": ("a", "a")}, "expected `records` as a tuple of distinct names"),
        ({"record": Task.record}, r"has records furthest: define record\(ids, so_far\)"),
        ({"observation": {}}, "expected `observation` as a mapping of names"),
        ({"observation": [BOUNDS]}, "expected `observation` as a mapping of names"),
        ({"observation": {None: BOUNDS}}, "expected `observation` as a mapping of names"),
        ({"observation": {"cart": 3}}, r"expected \(low, high\), two lists of numbers, for the observation 'cart'"),
        ({"observation": {"cart": ([], [])}}, "expected finite bounds low < high"),
        ({"observation": {"cart": ([-1e39, 0], [1, 1])}}, "expected finite bounds low < high"),
        ({"needs": {"foo": ("x",)}}, "expected `needs` to map kinds of MuJoCo's objects"),
        ({"needs": {"body": "cart"}}, "expected `needs` to map kinds of MuJoCo's objects"),
        ({"needs": {"body": (3,)}}, "expected `needs` to map kinds of MuJoCo's objects"),
        ({"sensor_sizes": {"where": 3}}, "expected `sensor_sizes` to map sensors that `needs` names to sizes"),
        ({"action_size": 10**9}, "`action_size` must be a whole number of at most 10,000, got 1000000000"),
    ],
    ids=str,
)
def test_declaration_that_makes_no_sense_is_refused(tmp_path: Path, declared: dict[str, Any], message: str) -> None:
    task = carted(tmp_path, **declared)
    for use in (lambda: Simulations(task, 1), lambda: register("mylab/Wrong-v0", task)):
        with pytest.raises(ValueError, match=message):
            use()


def test_methods_that_are_not_written_are_named(tmp_path: Path) -> None:
    declared = {name: getattr(Cart, name) for name in ("substeps", "max_steps", "observation", "action_size", "place")}
    bare = type("Bare", (Task,), {**declared, "model": carted(tmp_path).model})
    with pytest.raises(ValueError, match="task Bare must define control, observe, reward_terms, success"):
        register("mylab/Bare-v0", bare)


# -- its file ---------------------------------------------------------------------------------------------------


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    task = carted(tmp_path, keyframe="<body>")
    with pytest.raises(ValueError, match=r"task Cart: MuJoCo cannot read .*cart.xml \(.*[Ll]ine.*\); mend the file"):
        Simulations(task, 1)
    with pytest.raises(ValueError, match=r"task Cart: no model 'cart.xml' in the package \(a file of your own is a"):
        Simulations(carted(tmp_path, model="cart.xml"), 1)
    with pytest.raises(ValueError, match=r"task Cart needs camera 'side' in its MJCF file .*cart.xml"):
        Simulations(carted(tmp_path, camera="side"), 1)


def test_own_file_includes_the_models_of_the_package(tmp_path: Path) -> None:
    source = (assets_folder() / "models" / "reach.xml").read_text(encoding="utf-8")
    (tmp_path / "mine.xml").write_text(source, encoding="utf-8")
    mine = type("Reach", (Reach,), {"model": tmp_path / "mine.xml"})
    ids, ours, theirs = np.arange(2), Simulations(mine, 2), Simulations(Reach, 2)
    ours.reset(ids, [0, 1])
    theirs.reset(ids, [0, 1])
    assert np.array_equal(ours.get_state(ids), theirs.get_state(ids))
    (tmp_path / "tabletop.xml").write_text(MODEL.format(keyframe=""), encoding="utf-8")  # one's own comes first
    with pytest.raises(ValueError, match="MuJoCo cannot read"):
        Simulations(mine, 1)


# -- what its functions give ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"observe": giving(None)}, r"observe\(ids\) must give a mapping"),
        ({"observe": giving({"cart": [[0.0, 0.0]]})}, r"observe\(ids\)\['cart'\] .* got list"),
        ({"observe": giving({"cart": np.zeros((1, 2))})}, "observe gives .* for 3 simulations, .* make them agree"),
        ({"observe": giving(lambda n: {"cart": np.full((n, 2), "a")})}, "expected one for each, an array of real numb"),
        ({"observe": giving(lambda n: {"cart": np.zeros((n, 2), complex)})}, "real numbers .* got an array of complex"),
        ({"reward_terms": giving({})}, r"reward_terms\(ids\) must give names and arrays"),
        ({"reward_terms": giving({"a": 1.0})}, r"reward_terms\(ids\)\['a'\] for one simulation: .* got float 1\.0"),
        ({"reward_terms": giving(lambda n: {"a": np.zeros((n, 1))})}, r"of shape \(1,\).* got .*\(1, 1\)"),
        ({"reward_terms": giving(lambda n: {"success": np.zeros(n)}), "bonus": 1.0}, "leave one of them out"),
        ({"success": giving(lambda n: np.zeros(n))}, r"success\(ids\) .* array of bool of shape \(1,\).*float64"),
        ({"success": giving(lambda n: np.zeros((n, 1), bool))}, r"success\(ids\) .* of shape \(1, 1\)"),
        ({"success": giving(False)}, r"success\(ids\) .* got bool False"),
        ({"failure": giving(lambda n: np.zeros(n, int))}, r"failure\(ids\) .* got an array of int"),
        (
            {"records": ("a", "b"), "record": giving(lambda n: np.zeros((n, 1)))},
            r"record\(ids, so_far\) for one simulation: .* of shape \(1, 2\)",
        ),
        ({"cost": giving(lambda n: np.zeros((n, 1)))}, r"cost\(ids\) .*expected one for each"),
        ({"cost": giving(lambda n: np.full(n, np.nan))}, r"cost\(ids\) at the home state must be finite"),
        ({"cost": lambda self, ids: 1 / 0}, r"cost, tried at the home state, raised ZeroDivisionError \(division by"),
        ({"expert": giving(None)}, r"expert\(ids\) for 2 simulations: .* of shape \(2, 1\); got NoneType None"),
        ({"expert": giving(lambda n: np.zeros((n, 3)))}, r"expert\(ids\) .* got an array of float64 of shape \(2, 3\)"),
        ({"expert": giving(lambda n: np.full((n, 1), np.nan))}, r"expert\(ids\) must give finite actions, got NaN"),
        ({"idle_action": giving(None)}, r"idle_action\(ids\) for 2 simulations"),
        (
            {"action_size": 3, "expert": Task.expert},
            r"control with actions of 3 numbers \(`action_size`\), tried at the home state, raised ValueError",
        ),
        ({"place": lambda self, ids: None}, "place, tried at the home state, raised TypeError"),
    ],
)
def test_function_that_gives_what_it_must_not_is_refused(tmp_path: Path, written: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"task Cart: .*{message}|task Cart: {message}"):
        Simulations(carted(tmp_path, **written), 3)


def test_expert_that_gives_no_action_later_is_told_by_task_and_method(tmp_path: Path) -> None:
    def lost(self: Any, ids: Any) -> Any:
        return np.where(self.qpos[ids] > 0.3, np.nan, 0.0)

    register("mylab/Lost-v0", carted(tmp_path, expert=lost))
    env = make_vector("mylab/Lost-v0", 3, threads=1)
    with pytest.raises(InputError, match=r"task Cart: expert\(ids\) must give finite actions"):
        rollout(env, ScriptedExpert(env), range(20))
    env.close()


def test_what_is_tried_leaves_the_home_state_alone(tmp_path: Path) -> None:
    sim, ids = Simulations(carted(tmp_path), 3), np.arange(3)
    assert np.array_equal(sim.get_state(ids), np.repeat(sim.get_state(ids[2:]), 3, axis=0))
    assert not sim.observe(ids)["cart"].any()


@pytest.mark.parametrize("num", [65_537, 10**12])
def test_more_simulations_than_can_be_meant_are_refused_before_memory_is_taken(tmp_path: Path, num: int) -> None:
    with pytest.raises(ValueError, match="the number of simulations must be a whole number of at most 65,536, got"):
        Simulations(carted(tmp_path), num)
    for name in ("diffpolicy/Reach-v0", "CartPole-v1"):
        with pytest.raises(InputError, match=f"expected at most 65,536 environments, got num_envs={num}"):
            make_vector(name, num)


def test_record_of_another_shape_in_a_step_is_refused(tmp_path: Path) -> None:
    sim, ids = Simulations(carted(tmp_path), 2), np.arange(2)
    sim.reset(ids, [0, 1])
    sim.task.record = lambda *_: np.zeros(2)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"expected record\(ids, so_far\) of shape \(2, 1\), got \(2,\)"):
        sim.step(ids, np.zeros((2, 1)))
    with pytest.raises(ValueError, match="expected record"):
        sim.begin(ids, [0, 1])


@pytest.mark.parametrize("number", [np.nan, 1e30])
def test_start_that_is_no_state_says_so_ends_at_once_and_is_dropped(tmp_path: Path, number: float) -> None:
    def place(self: Any, ids: Any, rngs: Any, start: str) -> None:
        for i, rng in zip(ids, rngs, strict=True):
            where = rng.uniform(-1, 1)
            self.qpos[i, 0] = number if where > 0.5 else where

    def broken(seed: int) -> bool:
        return bool(np.random.default_rng([seed, 0]).uniform(-1, 1) > 0.5)

    env = TaskVectorEnv(carted(tmp_path, place=place), 3, autoreset_mode="Disabled")
    bad = next(seed for seed in range(99) if broken(seed))
    good = next(seed for seed in range(99) if not broken(seed))
    env.reset(seed=[good, bad, good])
    _, _, terminated, _, info = env.step(np.zeros((3, 1)))
    assert (terminated & info["diverged"]).tolist() == [False, True, False]
    faults: list[tuple[int, int]] = []
    played = rollout(env, ScriptedExpert(env), range(12), dropped=lambda drop: faults.append((drop.seed, drop.step)))
    assert sorted(faults) == [(seed, 0) for seed in range(12) if broken(seed)]
    assert sorted(episode.seed for episode in played) == [seed for seed in range(12) if not broken(seed)]


# -- conditions -------------------------------------------------------------------------------------------------


def test_task_knows_the_conditions_that_it_has_methods_for(tmp_path: Path) -> None:
    def nothing(self: Any, *_: Any) -> None: ...

    def known(**written: Any) -> set[str]:
        return set(carted(tmp_path, **written).conditions()) - {"clean", "sensor_noise", "action_delay", "wide"}

    lifted = giving(lambda n: np.zeros(n))
    assert known() == set()
    assert known(shove=nothing) == {"shove"}
    assert known(vary=nothing) == {"dynamics"}
    assert known(lifted=lifted) == set()
    assert known(lifted=lifted, seized=nothing) == {"slip"}
    assert known(shove=nothing, vary=nothing, unfit=("dynamics",)) == {"shove"}
    with pytest.raises(ValueError, match=r"condition 'k' has shove, which means nothing to task Cart; it knows clean"):
        Simulations(carted(tmp_path), 1, Condition("k", shove_speed=(1, 2)))
