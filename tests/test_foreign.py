"""Laws of other people's vector environments: taken as they are where they can do without autoreset, else in a loop."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec
from diffpolicy.rollout.correction import play_and_label
from diffpolicy.rollout.environment import branching, make_vector
from diffpolicy.rollout.faults import Dropped
from diffpolicy.rollout.foreign import GuardedVectorEnv, Roused
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout

BOX = spaces.Box(-100.0, 100.0, (3,), np.float32)
PUSH = spaces.Box(-1.0, 1.0, (1,), np.float32)


def length_of(seed: np.ndarray) -> np.ndarray:
    return 3 + seed % 5


class Sled(gymnasium.Env[Any, Any]):
    """Shows (seed, time, place); a push moves it; ends after 3 + seed % 5 steps, in success where it is beyond 0.5."""

    observation_space, action_space = BOX, PUSH

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.row = np.array([50 if seed is None else seed, 0, 0], np.float32)
        return self.row.copy(), {}

    def step(self, action: Any) -> Any:
        self.row += np.array([0, 1, action[0]], np.float32)
        done = self.row[1] == length_of(self.row[0])
        return self.row.copy(), float(self.row[2]), bool(done), False, {"is_success": self.row[2] > 0.5}


class Sleds(VectorEnv[Any, Any, Any]):
    """The same, N at once and branchable; a finished one must not be stepped."""

    def __init__(self, num_envs: int = 1, autoreset_mode: Any = None, broken: str = "", **options: Any) -> None:
        self.num_envs, self.broken = num_envs, broken
        self.metadata = {"autoreset_mode": autoreset_mode}
        self.single_observation_space, self.single_action_space = BOX, PUSH
        self.observation_space, self.action_space = batch_space(BOX, num_envs), batch_space(PUSH, num_envs)
        self.rows = np.zeros((num_envs, 3), np.float32)
        self.over = np.ones(num_envs, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        if self.broken == "mask":
            mask = np.ones(self.num_envs, bool)
        seeds = [None] * self.num_envs if seed is None else seed
        for i in np.flatnonzero(mask):
            self.rows[i] = [50 if seeds[i] is None else seeds[i], 0, 0]
        self.over[mask] = False
        return self.rows.copy(), {}

    def step(self, actions: Any) -> Any:
        assert not self.over.any()
        self.rows += np.concatenate([np.zeros_like(actions), np.ones_like(actions), actions], axis=1)
        seen, reward = self.rows.copy(), self.rows[:, 2].astype(np.float64)
        self.over = self.rows[:, 1] == length_of(self.rows[:, 0])
        struck = (self.rows[:, 0] == 4) & (self.rows[:, 1] == 2)
        if self.broken == "nan":
            seen[struck] = np.nan
        if self.broken == "raise" and struck.any():
            raise RuntimeError("a cable broke")
        return seen, reward, self.over.copy(), np.zeros(self.num_envs, bool), {"is_success": self.rows[:, 2] > 0.5}


class BranchableSleds(Sleds):
    def get_state(self) -> Any:
        return self.rows.astype(np.float64)

    def set_state(self, states: Any, ids: Any = None) -> Any:
        rows = np.arange(self.num_envs) if ids is None else ids
        self.rows[rows] = states
        self.over[rows] = False
        return self.rows.copy()

    def undisturbed(self, states: Any) -> Any:
        return np.array(states)


class OldSleds(Sleds):
    """Knows no autoreset mode."""

    def __init__(self, num_envs: int = 1) -> None:
        super().__init__(num_envs, AutoresetMode.NEXT_STEP)


for name, entry in {
    "Sled-v0": None,
    "Sleds-v0": Sleds,
    "BranchableSleds-v0": BranchableSleds,
    "OldSleds-v0": OldSleds,
}.items():
    if name not in gymnasium.registry:
        gymnasium.register(name, Sled, vector_entry_point=entry, disable_env_checker=True)


class Pusher:
    """Pushes by the seed and the time."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Any]:
        assert np.array_equal(episode_start, observation[:, 1] == 0)
        return np.sin(observation[:, :1] + observation[:, 1:2]), state


SEEDS = [4, 11, 2, 7, 0, 3]


@pytest.mark.parametrize("name", ["Sleds-v0", "BranchableSleds-v0"])
@pytest.mark.parametrize("num", [1, 2, 4, 9])
def test_a_vector_environment_of_others_plays_what_its_single_one_plays(name: str, num: int) -> None:
    looped, own = make_vector("Sled-v0", num), make_vector(name, num)
    assert isinstance(looped, GuardedVectorEnv)
    assert isinstance(own, Roused)
    assert isinstance(own.unwrapped, Sleds)
    for one, other in zip(rollout(looped, Pusher(), SEEDS), rollout(own, Pusher(), SEEDS), strict=True):
        assert len(one) == length_of(np.array(one.seed))
        assert np.array_equal(one.obs["observation"], other.obs["observation"])
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.rewards, other.rewards)
        assert (one.seed, one.success, one.terminated) == (other.seed, other.success, other.terminated)


def test_what_cannot_do_without_autoreset_runs_in_a_loop() -> None:
    assert isinstance(make_vector("OldSleds-v0", 3), GuardedVectorEnv)
    assert isinstance(make_vector("Sled-v0", 3), GuardedVectorEnv)
    with pytest.raises(InputError, match="could not be made"):  # resets all: then the loop, which knows no broken=
        make_vector("Sleds-v0", 3, broken="mask")


def test_a_vector_environment_of_others_is_branched_as_ours_is() -> None:
    env = make_vector("BranchableSleds-v0", 3)
    assert branching(env) is env
    assert branching(make_vector("Sleds-v0", 3)) is None
    episodes = rollout(env, Pusher(), SEEDS, record_states=True)
    branches = make_vector("BranchableSleds-v0", 4)
    labelled, cost = label_by_branching(branches, FreshPusher(), episodes, 3)
    for episode in labelled:
        steps = len(episode)
        times = np.arange(steps)[:, None] + np.arange(3)
        assert episode.labels is not None
        assert np.array_equal(episode.labels.valid, times < steps)
        chunks = episode.actions[np.minimum(times, steps - 1)]
        assert np.array_equal(episode.labels.chunks[times < steps], chunks[times < steps])
    assert (cost.queries, cost.failed) == (sum(map(len, episodes)), 0)


class FreshPusher(Pusher):
    def predict(self, observation: Any, *words: Any, **options: Any) -> tuple[np.ndarray, Any]:
        return np.sin(observation[:, :1] + observation[:, 1:2]), None


def tiny_policy(env: Any) -> Policy:
    config = PolicyConfig(
        horizon=4, n_action_steps=2, network=MLPConfig(width=8, blocks=1, time_dim=4), sampler=SamplerConfig(steps=2)
    )
    return Policy(config, SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)).eval()


def test_correction_branches_a_vector_environment_of_others() -> None:
    policy = tiny_policy(make_vector("Sled-v0", 1))
    labelled, cost = play_and_label("BranchableSleds-v0", policy, lambda _: FreshPusher(), SEEDS, method="branch")
    assert [episode.seed for episode in labelled] == SEEDS
    assert cost.queries == sum(map(len, labelled))
    with pytest.raises(InputError, match="cannot save and set its state"):
        play_and_label("Sleds-v0", policy, lambda _: FreshPusher(), SEEDS, method="branch")


def test_a_row_that_is_not_finite_is_dropped_and_what_fails_as_a_whole_is_refused_in_words() -> None:
    env = make_vector("Sleds-v0", 3)
    healthy = rollout(env, Pusher(), SEEDS)
    lost: list[Dropped] = []
    env.unwrapped.broken = "nan"  # type: ignore[attr-defined]
    episodes = rollout(env, Pusher(), SEEDS, dropped=lost.append)
    assert [(each.environment, each.seed, each.step) for each in lost] == [("Sleds-v0", 4, 2)]
    for one, other in zip(episodes, healthy[1:], strict=True):
        assert np.array_equal(one.obs["observation"], other.obs["observation"])
    env.unwrapped.broken = "raise"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"Sleds-v0 failed in step .*a cable broke.*none can be dropped alone"):
        rollout(env, Pusher(), SEEDS, dropped=lost.append)


class Brittle(Sled):
    """Breaks in its second step where the seed is even."""

    def step(self, action: Any) -> Any:
        if self.row[0] % 2 == 0 and self.row[1] == 1:
            raise RuntimeError("snapped")
        return super().step(action)


if "Brittle-v0" not in gymnasium.registry:
    gymnasium.register("Brittle-v0", Brittle, disable_env_checker=True)


@pytest.mark.parametrize("method", ["auto", "takeover"])
def test_correction_goes_on_without_the_rollouts_that_broke(method: Any, capsys: pytest.CaptureFixture[str]) -> None:
    policy = tiny_policy(make_vector("Sled-v0", 1))
    labelled, _ = play_and_label("Brittle-v0", policy, lambda _: FreshPusher(), SEEDS, method=method)
    assert [episode.seed for episode in labelled] == [11, 7, 3]
    said = capsys.readouterr().out
    assert said.count("dropped: Brittle-v0, clean, reset seed") == 3
    assert "step 2: RuntimeError: snapped" in said
    lost: list[Dropped] = []
    assert play_and_label("Brittle-v0", policy, lambda _: FreshPusher(), [4, 2], dropped=lost.append)[0] == []
    assert {each.seed for each in lost} == {4, 2}
    assert capsys.readouterr().out == ""
