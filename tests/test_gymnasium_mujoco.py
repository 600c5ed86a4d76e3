"""Laws of gymnasium's MuJoCo environments as branchable ones: a saved state is all of the state."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco.hopper_v5 import HopperEnv

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Branchable, branching, make_vector
from diffpolicy.rollout.gymnasium_mujoco import BranchableMujocoVectorEnv, rewinds
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout

SHIPPED = ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Reacher-v5", "Pusher-v5"]
# reward from positions before the step; forces and inertias in the observation
DERIVED = ["Ant-v5", "Humanoid-v5"]
pytestmark = pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")


def actions(env: Any, steps: int, seed: int = 0) -> np.ndarray:
    """Random actions (T, N, A) within the bounds."""
    space = env.single_action_space
    draw = np.random.default_rng(seed).random((steps, env.num_envs, *space.shape), np.float32)
    return space.low + draw * (space.high - space.low)


def played(env: Any, moves: np.ndarray) -> list[Any]:
    """What each step gives."""
    return [tuple(np.array(part) for part in env.step(move)[:4]) for move in moves]


def same(one: list[Any], other: list[Any], rows: Any = slice(None)) -> bool:
    """Whether two plays are equal, bit for bit."""
    return all(
        np.array_equal(a[rows], b[rows]) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("name", SHIPPED + DERIVED)
def test_a_branch_repeats_bit_for_bit(name: str) -> None:
    env = make_vector(name, 3)
    assert isinstance(env, BranchableMujocoVectorEnv)
    assert isinstance(branching(env), Branchable)
    moves = actions(env, 12)
    env.reset(seed=[3, 4, 5])
    played(env, moves[:5])
    seen, states = env.step(moves[5].astype(np.float64) * 0.9)[0], env.get_state()  # of whatever precision
    first = played(env, moves[6:])
    played(env, actions(env, 4, seed=1))
    assert np.array_equal(env.set_state(states), seen)
    assert np.array_equal(env.get_state(), states)
    assert same(played(env, moves[6:]), first)
    env.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_branch_repeats_in_another_simulation_and_another_environment(name: str) -> None:
    env, other = make_vector(name, 2), make_vector(name, 3)
    moves = actions(env, 8)
    env.reset(seed=[8, 9])
    played(env, moves[:3])
    states = env.get_state()
    first = played(env, moves[3:])
    seen = other.set_state(states, np.array([2, 0]))  # never reset before
    assert np.array_equal(seen[[2, 0]], env.set_state(states))
    far = np.zeros((5, 3, moves.shape[2]), np.float32)
    far[:, [2, 0]] = moves[3:]
    for ours, theirs in zip(first, played(other, far), strict=True):
        assert all(np.array_equal(a, b[[2, 0]]) for a, b in zip(ours, theirs, strict=True))
    env.close()
    other.close()


@pytest.mark.parametrize("name", SHIPPED)
def test_a_state_after_a_reset_is_a_state_too(name: str) -> None:
    env = make_vector(name, 2)
    moves = actions(env, 6)
    seen, _ = env.reset(seed=[1, 2])
    states = env.get_state()
    first = played(env, moves)
    assert np.array_equal(env.set_state(states), seen)
    assert same(played(env, moves), first)
    env.close()


def test_the_random_stream_goes_on_where_it_was() -> None:
    env = make_vector("Reacher-v5", 1)
    env.reset(seed=[1])
    states = env.get_state()
    first, _ = env.reset()  # without a seed: drawn from the stream
    assert not np.array_equal(env.reset()[0], first)
    env.set_state(states)
    assert np.array_equal(env.reset()[0], first)
    env.close()


def test_the_step_count_is_in_the_state_and_a_finished_simulation_revives() -> None:
    env = make_vector("Reacher-v5", 2)  # 50 steps an episode
    moves = actions(env, 50)
    env.reset(seed=[1, 2])
    played(env, moves[:40])
    states = env.get_state()
    first = played(env, moves[40:])
    assert first[-1][3].all()
    assert not env.step(moves[0])[3].any()  # it stands still
    assert np.array_equal(env.step(moves[0])[0], first[-1][0])
    env.set_state(states[1:], np.array([1]))
    again = played(env, moves[40:])
    assert same(again, first, slice(1, 2))
    assert all(not step[3][0] for step in again)  # the other one still stands
    env.close()


def test_a_hopper_that_fell_revives() -> None:
    env = make_vector("Hopper-v5", 1)
    env.reset(seed=[0])
    moves = actions(env, 300)
    states, ended = env.get_state(), 0
    for move in moves:
        ended += int(env.step(move)[2].sum())
    assert ended == 1
    env.set_state(states)
    again = [bool(env.step(move)[2][0]) for move in moves]
    assert sum(again) == 1
    env.close()


def test_rows_that_no_simulation_gave_are_refused() -> None:
    env = make_vector("Hopper-v5", 2)
    assert not env.get_state().any()  # never reset
    with pytest.raises(InputError, match="after a reset"):
        env.set_state(env.get_state())
    env.reset(seed=[0, 1])
    states = env.get_state()
    with pytest.raises(InputError, match="expected a row of"):
        env.set_state(states[:, :-1])
    with pytest.raises(InputError, match="each of 1 simulations"):
        env.set_state(states, np.array([0]))
    assert np.array_equal(env.undisturbed(states), states)
    env.close()


def test_what_mujoco_says_of_a_model_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    make_vector("HalfCheetah-v5", 3).close()
    assert capfd.readouterr().err.count("WARNING") <= 1
    make_vector("HalfCheetah-v5", 3).close()
    assert not hasattr(mujoco, "MjLogConfig") or mujoco.MjLogConfig.get().logto_console


class Ageing(HopperEnv):
    """A hopper that keeps something of its own from step to step."""

    age = 0

    def step(self, action: Any) -> Any:
        self.age += 1
        return super().step(action)


class Plain(HopperEnv):
    """A hopper of somebody's own that keeps nothing."""


def test_only_what_is_wholly_known_branches() -> None:
    for name, entry in {"Ageing-v0": Ageing, "Plain-v0": Plain}.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry, max_episode_steps=20)
    assert branching(make_vector("Plain-v0", 1)) is not None
    assert branching(make_vector("Ageing-v0", 1)) is None
    assert branching(make_vector("Pendulum-v1", 1)) is None
    assert not rewinds(gymnasium.wrappers.FrameStackObservation(gymnasium.make("Hopper-v5"), 2))


class Balance:
    """Pushes against what it sees."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        return np.clip(-observation[:, 5:8], -1, 1).astype(np.float32), state


def test_labels_of_an_expert_are_what_it_would_have_done() -> None:
    env = make_vector("Hopper-v5", 4)
    episodes = rollout(env, Balance(), [5, 6], record_states=True)
    labelled, cost = label_by_branching(env, Balance(), episodes, 4, every=3)
    assert cost.failed == 0
    for episode in labelled:
        assert episode.labels is not None
        for start in range(0, len(episode), 3):
            valid = episode.labels.valid[start]
            count = int(valid.sum())
            assert count == min(4, len(episode) - start)
            assert np.array_equal(episode.labels.chunks[start][valid], episode.actions[start : start + count])
    env.close()


def test_what_mujoco_says_of_an_environment_is_said_once_in_a_process() -> None:
    program = "from diffpolicy import make_vector\nfor _ in range(3): make_vector('HalfCheetah-v5', 2)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.count("WARNING") <= 1


class Heavier(HopperEnv):
    """Draws a mass at each reset, which no state of the simulation holds."""

    def reset_model(self) -> Any:
        self.model.body_mass[1] = 3.0 * self.np_random.uniform(0.5, 2.0)
        return super().reset_model()


class Elsewhere(HopperEnv):
    """Draws a goal at each reset, which it keeps in Python."""

    def reset_model(self) -> Any:
        self.goal = float(self.np_random.uniform(0.0, 100.0))
        return super().reset_model()

    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        return seen, reward + self.goal, *rest


@pytest.mark.parametrize("kind", [Heavier, Elsewhere])
def test_an_environment_whose_reset_draws_what_no_row_holds_is_not_branched(kind: Any) -> None:
    assert rewinds(HopperEnv())
    assert not rewinds(kind())
