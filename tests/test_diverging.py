"""Laws of physics that diverges: MuJoCo starts it afresh by itself, and what was played then is kept nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.wrappers import FlattenObservation
from test_task import Cart, carted

from diffpolicy.data.episode import Episode
from diffpolicy.evaluation.evaluate import evaluate
from diffpolicy.rollout.environment import branching, make_vector
from diffpolicy.rollout.faults import Dropped, Watched
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout
from diffpolicy_envs import register

STEPS = 12
RAIL = """
<mujoco>
  <option timestep="0.01"/>
  <worldbody>
    <light pos="0 0 2"/>
    <body><joint name="slide" type="slide" axis="1 0 0"/><geom type="sphere" size="0.1" mass="1"/></body>
  </worldbody>
  <actuator><motor joint="slide" gear="5" ctrlrange="-1 1" ctrllimited="true"/></actuator>
</mujoco>
"""


class Rail(MujocoEnv):
    """A cart of gymnasium's kind; a push of more than 0.95 blows it up, and it shows nothing of that."""

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 20,
    }

    def __init__(self, path: str, **options: Any) -> None:
        super().__init__(path, 5, spaces.Box(-np.inf, np.inf, (2,), np.float64), **options)

    def step(self, action: Any) -> Any:
        if action[0] > 0.95:
            self.data.qvel[0] = 1e12
        self.do_simulation(np.asarray(action), self.frame_skip)
        return self._get_obs(), 0.0, False, False, {}

    def _get_obs(self) -> Any:
        return np.concatenate([self.data.qpos, np.clip(self.data.qvel, -5, 5)])

    def reset_model(self) -> Any:
        self.set_state(self.np_random.uniform(-1, 1, 1), np.zeros(1))
        return self._get_obs()


class Pusher:
    """Pushes towards the middle; in episodes that begin beyond 0.5, with all might from the fourth step on."""

    def __init__(self, wild: bool = True) -> None:
        self.wild = wild

    def begin(self, state: Any, mask: Any, episodes: Any) -> Any:
        old = np.zeros((len(mask), 2)) if state is None else state
        return np.where(np.asarray(mask)[:, None], [np.nan, 0.0], old)

    def predict(self, observation: Any, state: Any = None, *_: Any) -> Any:
        begun = np.where(np.isnan(state[:, 0]), observation[:, 0], state[:, 0])
        action = np.clip(-observation[:, :1], -0.9, 0.9)
        strike = self.wild & (begun > 0.5) & (state[:, 1] >= 3)
        return np.where(strike[:, None], 1.0, action).astype(np.float32), _State([begun, state[:, 1] + 1])


class _State(np.ndarray[Any, Any]):
    def __new__(cls, columns: Any) -> _State:
        return np.stack(columns, axis=1).view(cls)

    def select(self, rows: Any) -> Any:
        return self[rows]


@pytest.fixture(scope="module")
def rail(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The id of the cart, registered."""
    path = tmp_path_factory.mktemp("rail") / "rail.xml"
    path.write_text(RAIL, encoding="utf-8")
    if "Rail-v0" not in gymnasium.registry:
        gymnasium.register("Rail-v0", Rail, max_episode_steps=STEPS, kwargs={"path": str(path)})
    return "Rail-v0"


def played(name: str, num: int, wild: bool = True) -> tuple[list[Episode], list[Dropped]]:
    lost: list[Dropped] = []
    env = make_vector(name, num)
    episodes = rollout(env, Pusher(wild), range(16), dropped=lost.append)
    env.close()
    return episodes, lost


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num", [1, 3])
def test_episode_of_gymnasiums_mujoco_that_diverges_is_dropped_and_no_other_changes(rail: str, num: int) -> None:
    calm = played(rail, num, wild=False)[0]
    assert len(calm) == 16
    struck = {episode.seed for episode in calm if episode.obs["observation"][0, 0] > 0.5}
    assert 0 < len(struck) < 16
    episodes, lost = played(rail, num)
    assert {each.seed for each in lost} == struck
    assert {(each.step, each.error) for each in lost} == {(4, "the physics diverged")}
    kept = [episode for episode in calm if episode.seed not in struck]
    assert [episode.seed for episode in episodes] == [episode.seed for episode in kept]
    for one, other in zip(episodes, kept, strict=True):
        assert np.array_equal(one.obs["observation"], other.obs["observation"])


def test_evaluation_counts_it_as_dropped(rail: str) -> None:
    found = evaluate(rail, lambda _: Pusher(), range(16), method="pusher")
    assert len(found.episodes) + len(found.dropped) == 16
    assert len(found.dropped) > 0


def test_label_whose_branch_diverges_is_none(rail: str) -> None:
    env = make_vector(rail, 1)
    assert branching(env) is not None
    episodes = rollout(env, Pusher(wild=False), range(4), record_states=True)

    class Once:
        """Strikes in its third step in branches whose cart is right of the middle."""

        def predict(self, observation: Any, state: Any = None, *_: Any) -> Any:
            step = 0 if state is None else state
            strike = (observation[:, :1] > 0) & (step == 2)
            return np.where(strike, 1.0, 0.0).astype(np.float32), step + 1

    branches = make_vector(rail, 8)
    labelled, cost = label_by_branching(branches, Once(), episodes, 6)
    assert 0 < cost.failed < cost.queries
    invalid = sum(int((~episode.labels.valid.any(axis=1)).sum()) for episode in labelled if episode.labels is not None)
    assert invalid == cost.failed
    for each in (env, branches):
        each.close()


class Blown(Cart):
    """Ours; blows up where the cart begins beyond 0.5."""

    def control(self, ids: Any, action: Any) -> None:
        super().control(ids, action)
        far = ids[self.qpos[ids, 0] > 0.5]
        self.qvel[far, 0] = 1e12


def flat() -> gymnasium.Env[Any, Any]:
    return FlattenObservation(gymnasium.make("mylab/Blown-v0"))


def test_episode_of_ours_that_diverges_is_dropped_also_in_a_wrapper(tmp_path: Path) -> None:
    register("mylab/Blown-v0", type("Blown", (Blown,), {"model": carted(tmp_path).model}))
    gymnasium.register("mylab/Flat-v0", flat)
    bare = make_vector("mylab/Blown-v0", 2, threads=1)
    theirs: list[Dropped] = []
    rollout(bare, Pusher0(), range(16), dropped=theirs.append)
    ours: list[Dropped] = []
    kept = rollout(make_vector("mylab/Flat-v0", 2), Pusher0(), range(16), dropped=ours.append)
    assert {(each.seed, each.step, each.error) for each in ours} == {(e.seed, e.step, e.error) for e in theirs}
    assert 0 < len(ours) < 16
    assert len(kept) == 16 - len(ours)
    del gymnasium.registry["mylab/Flat-v0"]


class Pusher0:
    """Does nothing."""

    def predict(self, observation: Any, *_: Any) -> Any:
        rows = observation["cart"] if isinstance(observation, dict) else observation
        return np.zeros((len(rows), 1), np.float32), None


def test_training_elsewhere_hears_of_it_at_once(rail: str) -> None:
    env = Watched(gymnasium.make(rail))
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    with pytest.raises(ValueError, match="the physics diverged"):
        env.step(np.ones(1, np.float32))


def test_an_environment_that_resets_its_simulation_itself_is_left_alone(rail: str) -> None:
    env = Watched(gymnasium.make(rail))
    env.reset(seed=0)
    core: Any = env.unwrapped
    mujoco.mj_resetData(core.model, core.data)
    env.step(np.zeros(1, np.float32))
