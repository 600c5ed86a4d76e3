"""Laws of the recipe that distils: what a student is, what it is trained on, how it goes on, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpolicy import Bc, Collect, Correct, Distil, Evaluate
from diffpolicy.data.dataset import read_dataset
from diffpolicy.data.windows import Windows, windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, load_checkpoint
from diffpolicy.recipes import training
from diffpolicy.updates.distilling import aligned, disagreement, student_of
from diffpolicy.updates.regression import Regression

CONFIG = PolicyConfig(
    horizon=4,
    n_action_steps=2,
    condition_dropout=0.1,
    network=MLPConfig(width=8, blocks=1, time_dim=4),
    sampler=SamplerConfig(steps=6, eta=1.0, guidance=0.5),
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy, guided policy of six steps, with its demonstrations."""
    root = tmp_path_factory.mktemp("teacher")
    Collect(out=root / "demos", episodes=3)()
    Bc(root / "demos", root / "bc", policy=CONFIG, steps=8, batch_size=8)()
    return root / "bc"


def distil(teacher: Path, out: Path, **changes: Any) -> Distil:
    return replace(Distil(teacher, out, teacher_steps=8, steps=6, batch_size=8, rollouts=2), **changes)


def weights(folder: Path) -> bytes:
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("method", "steps", "stages"),
    [("paired", 1, 1), ("paired", 2, 1), ("consistency", 2, 1), ("score", 2, 1), ("progressive", 1, 3)],
)
def test_a_student_takes_the_steps_that_it_is_asked_to(
    method: Any, steps: int, stages: int, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = distil(teacher, tmp_path / "s", method=method, student_steps=steps)
    assert run() == tmp_path / "s" / "checkpoint"
    assert "apart from the teacher on the data" in capsys.readouterr().out
    loaded = load_checkpoint(tmp_path / "s")
    assert loaded.policy.config.model == "student"
    assert loaded.policy.calls == steps
    assert not loaded.policy.sampler.stochastic
    assert loaded.environment == load_checkpoint(teacher).environment
    about = loaded.provenance
    assert (about["method"], about["round"]) == ("distil", stages)
    assert sum(load_checkpoint(tmp_path / "s" / f"round-{n + 1}").provenance["steps"] for n in range(stages)) == 6
    assert Evaluate(str(tmp_path / "s"), episodes=1, conditions=("clean",))().is_file()
    before = weights(tmp_path / "s")
    assert run() == tmp_path / "s" / "checkpoint"  # finished before
    assert weights(tmp_path / "s") == before


def test_progressive_students_halve_their_steps(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "s", method="progressive", teacher_steps=9)()
    calls = [load_checkpoint(tmp_path / "s" / f"round-{n}").policy.calls for n in (1, 2, 3)]
    assert calls == [4, 2, 1]


def test_a_student_learns_on_what_it_meets_itself(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Windows] = []
    train = training.train

    def noted(policy: Any, windows: Windows, *rest: Any) -> Any:
        seen.append(windows)
        return train(policy, windows, *rest)

    monkeypatch.setattr(training, "train", noted)
    run = distil(teacher, tmp_path / "s", rounds=2)
    run()
    assert "on its own observations" in capsys.readouterr().out
    played = [read_dataset(tmp_path / "s" / f"round-{n}" / "rollouts").episodes for n in (2, 3)]
    demos = sum(map(len, read_dataset(teacher.parent / "demos").episodes))
    lengths = [sum(map(len, episodes)) for episodes in played]
    assert [len(table) for table in seen] == [demos, demos + lengths[0], demos + sum(lengths)]
    assert all(bool((table.mask == 1).all()) for table in seen)
    seeds = [episode.seed for episodes in played for episode in episodes]
    assert len(set(seeds)) == 4
    assert {episode.condition for episode in played[0]} == {"clean", "shove"}
    about, before = load_checkpoint(tmp_path / "s").provenance, load_checkpoint(teacher).provenance
    assert about["env_steps"] == before["env_steps"] + sum(lengths)
    assert about["expert_queries"] == before["expert_queries"]
    assert about["parent_train_s"] >= before["train_s"]
    assert about["teacher_calls"] == 3 * 8 * 8  # stages, chains of each, calls of a chain


@pytest.mark.parametrize("method", ["paired", "score"])
@pytest.mark.parametrize("stop", [1, 4])
def test_an_interrupted_distillation_ends_as_one_that_was_not(
    method: Any, stop: int, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distil(teacher, tmp_path / "whole", method=method, rounds=1)()
    call, made = Regression.__call__, 0

    def stopping(self: Regression, batch: Any) -> Any:
        nonlocal made
        if made == stop:
            raise KeyboardInterrupt
        made += 1
        return call(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Regression, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            distil(teacher, tmp_path / "part", method=method, rounds=1)()
    distil(teacher, tmp_path / "part", method=method, rounds=1)()
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")


def test_a_student_begins_as_its_teacher(teacher: Path) -> None:
    policy = load_checkpoint(teacher).policy
    one, many = student_of(policy, 1), student_of(policy, 8)
    episode = read_dataset(teacher.parent / "demos").episodes[0]
    batch = windows([episode], 1, 4).gather(torch.arange(5))
    noise = torch.randn(5, 4, 5, generator=torch.Generator().manual_seed(0))
    plain = policy.resampled(guidance=0.0)
    assert one.state_dict().keys() < policy.state_dict().keys()  # without the null condition
    assert disagreement(many, aligned(plain, many, 8), batch, noise) < 1e-6
    assert disagreement(one, aligned(plain, one, 8), batch, noise) > 1e-5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"student_steps": 0}, "student_steps >= 1, got 0"),
        ({"rounds": -1}, "rounds >= 0"),
        ({"reuse": 0}, "reuse >= 1, got 0"),
        ({"teacher_steps": 1}, "teacher_steps >= 2"),
        ({"rounds": 1, "method": "progressive"}, "rounds 0 with method 'progressive'"),
        ({"rounds": 1, "method": "consistency"}, "take paired or score"),
        ({"steps": 2, "method": "progressive"}, "steps >= 3"),
        ({"rounds": 1, "environment": "diffpolicy/Avoid-v0"}, "teacher's spaces, got diffpolicy/Avoid-v0"),
        ({"batch_size": 0}, "batch_size and checkpoint_every >= 1"),
        ({"rounds": 1, "conditions": ("rain",)}, "rain"),
        ({"data": Path("nowhere")}, "nowhere"),
    ],
)
def test_what_cannot_be_distilled_is_refused_before_anything_is_made(
    changes: dict[str, Any], match: str, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=match):
        distil(teacher, tmp_path / "s", **changes)()
    assert not (tmp_path / "s").exists()


def test_a_teacher_of_one_call_is_refused(teacher: Path, tmp_path: Path) -> None:
    demos, network = teacher.parent / "demos", CONFIG.network
    for model in ("regression", "gaussian"):
        config = PolicyConfig(horizon=4, n_action_steps=2, model=model, network=network)  # type: ignore[arg-type]
        Bc(demos, tmp_path / model, policy=config, steps=2, batch_size=8)()
        with pytest.raises(InputError, match=f"model '{model}', which is quick as it is"):
            distil(tmp_path / model, tmp_path / "s")()


def test_a_student_is_neither_trained_on_actions_nor_given_other_steps(teacher: Path, tmp_path: Path) -> None:
    distil(teacher, tmp_path / "s")()
    with pytest.raises(InputError, match="got a student of one; distil its own teacher"):
        distil(tmp_path / "s", tmp_path / "t")()
    with pytest.raises(InputError, match="learns from its teacher alone"):
        Correct(tmp_path / "s", tmp_path / "c", rounds=1, steps=2)()
    with pytest.raises(InputError, match="learns from its teacher alone"):
        Bc(teacher.parent / "demos", tmp_path / "b", policy=PolicyConfig(model="student"), steps=2)()
    with pytest.raises(InputError, match=r"no change of sampler\.steps for a student"):
        Evaluate(str(tmp_path / "s"), episodes=1, change=("sampler.steps=4",))()
    with pytest.raises(InputError, match=r"no change of sampler\.temperature for a student"):
        Evaluate(str(tmp_path / "s"), episodes=1, change=("sampler.temperature=0.5",))()
    assert Evaluate(str(tmp_path / "s"), episodes=1, conditions=("clean",), change=("n_action_steps=1",))().is_file()
    shutil.rmtree(tmp_path / "s")


@pytest.mark.parametrize("model", ["shortcut", "mean_flow"])
def test_models_of_two_times_are_quick_as_they_are(model: Any, teacher: Path, tmp_path: Path) -> None:
    config = PolicyConfig(horizon=4, n_action_steps=2, model=model, network=CONFIG.network)
    assert config.network.two_times
    demos = teacher.parent / "demos"
    Bc(demos, tmp_path / "m", policy=config, steps=4, batch_size=8)()
    Correct(tmp_path / "m", tmp_path / "c", rounds=1, rollouts=2, steps=2, batch_size=8)()
    one = Evaluate(str(tmp_path / "c"), episodes=1, conditions=("clean",), change=("sampler.steps=1",))
    assert one().is_file()
    with pytest.raises(InputError, match=r"any number of steps as it is; change its sampler\.steps"):
        distil(tmp_path / "c", tmp_path / "s")()
