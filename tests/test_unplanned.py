"""Laws of states from which no plan has a finite cost: the episode is dropped and reported, and no other changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_task import Cart, carted

from diffpolicy.errors import InputError
from diffpolicy.recipes.collect import Collect
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.faults import Dropped
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.planning import PlanningExpert
from diffpolicy.rollout.predictor import Mixture, ScriptedExpert
from diffpolicy_envs import Task, register


class Blind(Cart):
    """Has no finite cost left of -0.5, and no script."""

    expert = Task.expert
    hopeless = -0.5

    def cost(self, ids: Any) -> Any:
        where = self.qpos[ids, 0]
        return np.where(where < self.hopeless, np.nan, np.abs(where))


def blind(folder: Path, **declared: Any) -> str:
    register("mylab/Blind-v0", type("Blind", (Blind,), {"model": carted(folder).model, "max_steps": 6, **declared}))
    return "mylab/Blind-v0"


@pytest.mark.parametrize("planner", [PlanningExpert, ScriptedExpert])
@pytest.mark.parametrize("num", [1, 4])
def test_episode_without_a_finite_plan_is_dropped_and_no_other_changes(tmp_path: Path, planner: Any, num: int) -> None:
    env = make_vector(blind(tmp_path, hopeless=-9.0), num, threads=1)
    calm = rollout(env, planner(env), range(12))
    struck = {episode.seed for episode in calm if episode.obs["cart"][0, 0] < -0.5}
    assert 0 < len(struck) < 12
    env = make_vector(blind(tmp_path), num, threads=1)
    lost: list[Dropped] = []
    episodes = rollout(env, planner(env), range(12), dropped=lost.append)
    assert {each.seed for each in lost} >= struck
    assert all("no plan from this state has a finite cost" in each.error for each in lost)
    assert {each.step for each in lost if each.seed in struck} == {1}
    assert [episode.seed for episode in episodes] == [n for n in range(12) if n not in {each.seed for each in lost}]
    for episode in episodes:
        if (calm[episode.seed].obs["cart"] > -0.4).all():
            assert np.array_equal(episode.actions, calm[episode.seed].actions)
    with pytest.raises(InputError, match=r"reset seed \d+, step 1: the planner failed: task Blind: no plan"):
        rollout(env, planner(env), range(12))


def test_mixture_with_a_planner_loses_only_the_episodes_that_cannot_be_planned(tmp_path: Path) -> None:
    env = make_vector(blind(tmp_path), 3, threads=1)
    lost: list[Dropped] = []
    mixed = Mixture(ScriptedExpert(env), PlanningExpert(env), 0.5, 2)
    episodes = rollout(env, mixed, range(12), dropped=lost.append)
    assert len(lost) > 0
    assert sorted([e.seed for e in episodes] + [e.seed for e in lost]) == list(range(12))


def test_collect_goes_on_without_what_cannot_be_planned_and_refuses_where_nothing_can(tmp_path: Path) -> None:
    name = blind(tmp_path)
    folder = Collect(name, tmp_path / "some", 4, "planner", keep_failures=True)()
    assert folder.is_dir()
    name = blind(tmp_path, hopeless=-1e-9, place=_left)
    with pytest.raises(InputError, match=r"\d+ of \d+ episodes were broken by mylab/Blind-v0; mend it first"):
        Collect(name, tmp_path / "none", 2, "planner", keep_failures=True)()
    assert not (tmp_path / "none").exists()


def _left(self: Any, ids: Any, rngs: Any, start: str) -> None:
    self.qpos[ids, 0] = -0.8


def test_a_planner_that_fails_for_another_reason_ends_it(tmp_path: Path) -> None:
    name = blind(tmp_path, propose=lambda self, i, rng, count, horizon: np.zeros((1, 2, 3)))
    env = make_vector(name, 2, threads=1)
    with pytest.raises(InputError, match="the planner failed: task Blind: expected propose"):
        rollout(env, PlanningExpert(env), range(4), dropped=lambda _: None)
