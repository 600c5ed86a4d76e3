"""Nothing is lost and nothing stale is used when people overwrite, change inputs, kill, or mix up units."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

from diffpolicy import Bc, Collect, Correct, InputError, SpaceSpec, from_arrays, load_checkpoint, write_dataset
from diffpolicy.policy import MLPConfig, Policy, PolicyConfig
from diffpolicy.policy.normaliser import Normaliser
from diffpolicy.rollout import rollout
from diffpolicy.rollout.environment import make_vector
from diffpolicy_envs import Condition

SMALL = PolicyConfig(horizon=4, n_action_steps=2, network=MLPConfig(width=8, blocks=1, time_dim=4))


class House:
    """Demonstrations and a finished, tiny imitation run."""

    def __init__(self, folder: Path) -> None:
        self.collect = Collect(out=folder / "demos", episodes=1)
        self.collect()
        self.bc = Bc(self.collect.out, folder / "bc", policy=SMALL, steps=3, batch_size=8)
        self.bc()
        self.correct = Correct(
            self.bc.out, folder / "c", rounds=1, rollouts=1, conditions=("clean",), steps=2, batch_size=8
        )

    def weights(self) -> bytes:
        return (self.bc.out / "checkpoint" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def house(built: House, tmp_path: Path) -> House:
    """A copy to break."""
    copy: House = object.__new__(House)
    root = shutil.copytree(built.bc.out.parent, tmp_path / "house")
    copy.collect = replace(built.collect, out=root / "demos")
    copy.bc = replace(built.bc, data=root / "demos", out=root / "bc")
    copy.correct = replace(built.correct, checkpoint=root / "bc", out=root / "c")
    return copy


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"threads": -1}, {"threads": 10**6}, {"batch_size": 0}, {"seed": -1}])
def test_bad_input_with_overwrite_deletes_nothing(house: House, wrong: dict[str, Any]) -> None:
    before = house.weights()
    with pytest.raises(InputError):
        replace(house.bc, overwrite=True, **wrong)()
    assert house.weights() == before


def test_overwrite_never_deletes_what_the_command_reads_or_what_is_not_ours(house: House) -> None:
    with pytest.raises(InputError, match="would delete"):
        replace(house.correct, out=house.bc.out, overwrite=True)()
    (house.bc.out / "thesis.tex").write_text("years", encoding="utf-8")
    with pytest.raises(InputError, match=r"not ours \(thesis.tex\)"):
        replace(house.bc, overwrite=True)()
    assert (house.bc.out / "thesis.tex").is_file()
    assert house.weights()


def test_a_run_whose_inputs_have_changed_is_not_taken_for_finished(house: House) -> None:
    house.correct()
    replace(house.bc, seed=3, overwrite=True)()
    with pytest.raises(InputError, match="checkpoint has changed"):
        house.correct()
    replace(house.collect, seed=5, overwrite=True)()
    with pytest.raises(InputError, match="data has changed"):
        replace(house.bc, seed=3)()


def test_a_moved_tree_goes_on(house: House) -> None:
    house.correct()
    root = house.bc.out.parent
    moved = root.rename(root.with_name("elsewhere"))
    bc = replace(house.bc, data=moved / "demos", out=moved / "bc")
    before = (moved / "c" / "checkpoint" / "model.safetensors").read_bytes()
    bc()
    replace(house.correct, checkpoint=bc.out, out=moved / "c")()
    assert (moved / "c" / "checkpoint" / "model.safetensors").read_bytes() == before


def test_a_finished_run_with_a_broken_checkpoint_is_made_whole_again(house: House) -> None:
    before = house.weights()
    model = house.bc.out / "checkpoint" / "model.safetensors"
    model.write_bytes(before[:100])
    house.bc()
    assert house.weights() == before


def test_sigterm_saves_like_ctrl_c(house: House) -> None:
    out = house.bc.out.parent / "long"
    command = [sys.executable, "-m", "diffpolicy.cli", "bc", "--data", str(house.collect.out), "--out", str(out)]
    command += ["--steps", "100000", "--checkpoint-every", "100000", "--policy.network.width", "8"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        lines = out / "train.jsonl"
        while not (lines.is_file() and lines.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert load_checkpoint(out).provenance["steps"] > 0


def test_actions_in_other_units_are_refused_before_training(tmp_path: Path) -> None:
    rows = np.zeros((6, 2), np.float32)
    episodes = from_arrays(rows, rows + 40, [6])
    box = spaces.Box(-1, 1, (2,))
    data = write_dataset(tmp_path / "d", episodes, environment="", observation_space=box, action_space=box)
    with pytest.raises(InputError, match="100% of dimension 0 outside"):
        Bc(data, tmp_path / "bc", policy=SMALL, steps=1)()
    assert not (tmp_path / "bc").exists()


def test_small_ranges_that_are_given_are_taken_as_they_are() -> None:
    small = spaces.Box(-1e-4, 1e-4, (2,))
    normaliser = Normaliser(SpaceSpec.from_spaces(small, small))
    assert torch.allclose(normaliser.normalise_action(torch.full((1, 2), 5e-5)), torch.full((1, 2), 0.5))


class Nested(gym.Env[Any, Any]):
    """A nested Dict, or a Dict whose only name is "observation"."""

    def __init__(self, kind: str) -> None:
        box = spaces.Box(-1, 1, (2,))
        inner = {
            "deep": spaces.Dict({"p": spaces.Dict({"x": box}), "z": box}),
            "named": spaces.Dict({"observation": box}),
        }
        self.observation_space = inner[kind]
        self.action_space = spaces.Box(-1, 1, (1,))
        self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.left = 5
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.left -= 1
        return self.observation_space.sample(), 0.0, self.left == 0, False, {}


@pytest.mark.parametrize("kind", ["deep", "named"])
def test_a_policy_acts_on_any_dict(kind: str) -> None:
    name = f"Nested-{kind}-v0"
    gym.register(name, entry_point=lambda: Nested(kind))
    try:
        env = make_vector(name, 2)
        policy = Policy(SMALL, SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)).eval()
        assert [len(e) for e in rollout(env, policy, range(3))] == [5, 5, 5]
        single = Nested(kind)
        assert policy.predict(single.reset()[0])[0].shape == (1,)
    finally:
        del gym.registry[name]


class Answering:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        return self.answer, state


@pytest.mark.parametrize("answer", [0.5, np.zeros(2), np.zeros((2, 3)), None, np.full((2, 1), np.nan)])
def test_an_actor_that_answers_in_another_shape_is_named(answer: Any) -> None:
    env = make_vector("Pendulum-v1", 2)
    with pytest.raises(InputError, match="from Answering"):
        rollout(env, Answering(answer), range(2))


def test_a_state_of_another_policy_is_refused() -> None:
    box = spaces.Box(-1, 1, (2,))
    spec = SpaceSpec.from_spaces(box, box)
    ours, other = Policy(SMALL, spec).eval(), Policy(replace(SMALL, n_action_steps=3), spec).eval()
    _, state = other.predict(np.zeros(2))
    for wrong in (state, (1,), 5):
        with pytest.raises(InputError, match="state=None"):
            ours.predict(np.zeros(2), wrong)  # type: ignore[arg-type]


WRONG = [
    {"sensor_noise": np.nan},
    {"sensor_noise": -1.0},
    {"mass_scale": (0.0, 0.0)},
    {"mass_scale": (2.0, 1.0)},
    {"shove_speed": (np.nan, 1.0)},
    {"shove_window": (10, 5)},
    {"action_delay": -1},
    {"action_delay": 1.5},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_condition_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="condition 'mine'"):
        Condition("mine", **wrong)
