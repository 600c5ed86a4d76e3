"""Nothing that was reported as saved is lost when a process is killed; training goes on to the bit."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from diffpolicy.data.episode import Episode
from diffpolicy.data.windows import windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec, load_checkpoint, load_train_state, save_checkpoint
from diffpolicy.policy.checkpoint import mend_checkpoint
from diffpolicy.recipes import training
from diffpolicy.updates import RegressionConfig

pytestmark = pytest.mark.slow

KILLS = 20
CONFIG = PolicyConfig(
    horizon=4, n_action_steps=2, network=MLPConfig(width=8, blocks=1, time_dim=4), sampler=SamplerConfig(steps=2)
)
BOX = spaces.Box(-1, 1, (2,))
CHILDREN = multiprocessing.get_context("forkserver")  # a child costs milliseconds: torch is imported once, for all
CHILDREN.set_forkserver_preload(["diffpolicy.recipes.training", "torch.utils.tensorboard", "torch._dynamo", "pytest"])


def tiny() -> Policy:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Policy(CONFIG, SpaceSpec.from_spaces(BOX, BOX))


def save(folder: Path, step: int) -> None:
    """A checkpoint in which every file knows its step."""
    policy = tiny()
    for parameter in policy.parameters():
        torch.nn.init.constant_(parameter, step)
    save_checkpoint(policy, folder, provenance={"steps": step}, train_state={"step": torch.tensor(step)})


def step_of(folder: Path) -> int:
    """The step of a checkpoint that is sound and of one piece."""
    loaded = load_checkpoint(folder)
    step = int(loaded.provenance["steps"])
    assert all(bool((parameter == step).all()) for parameter in loaded.policy.parameters())
    return step


def say(said: Path, step: int) -> None:
    with said.open("a", encoding="utf-8") as lines:
        lines.write(f"{step}\n")


def heard(said: Path) -> int:
    """The last step that was reported as saved; 0 where there was none."""
    whole = said.read_text(encoding="utf-8").rpartition("\n")[0] if said.exists() else ""
    return int(whole.rpartition("\n")[2] or 0)


def kill_when(ready: Callable[[], bool], delay: float, target: Callable[..., None], *args: Any) -> None:
    """Run something in a process of its own, and kill it `delay` [s] after it is ready."""
    child = CHILDREN.Process(target=target, args=args)
    child.start()
    deadline = time.monotonic() + 60
    while child.is_alive() and not ready() and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(delay)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def save_for_ever(folder: Path, said: Path) -> None:
    step = heard(said)
    while True:
        step += 1
        save(folder, step)
        say(said, step)


def test_killed_at_random_moments_of_saving_it_has_what_was_reported(tmp_path: Path) -> None:
    folder, said, moments = tmp_path / "run", tmp_path / "said", random.Random(0)
    for _ in range(KILLS):
        before = heard(said)
        kill_when(lambda: heard(said) > before, moments.uniform(0.0, 0.05), save_for_ever, folder, said)  # noqa: B023
        assert step_of(folder) >= heard(said) > before
    save(folder, 10**6)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "said"}


def save_and_die(folder: Path, operation: int) -> None:
    """Save, but be killed before the given operation on a file or folder."""
    done = 0

    def count(event: str, args: tuple[Any, ...]) -> None:
        nonlocal done
        if event in ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir") and str(folder.parent) in str(args[0]):
            done += 1
            if done == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    save(folder, 2)


def test_killed_before_each_of_its_operations_on_files_one_of_the_two_is_there(tmp_path: Path) -> None:
    found, operation, killed = [], 0, True
    while killed:
        operation += 1
        folder = tmp_path / str(operation) / "run"
        save(folder, 1)
        child = CHILDREN.Process(target=save_and_die, args=(folder, operation))
        child.start()
        child.join()
        killed = child.exitcode == -signal.SIGKILL
        assert killed or child.exitcode == 0
        missing = not folder.exists()
        found.append((step_of(folder), missing))
        assert mend_checkpoint(folder)
        assert int(load_train_state(folder)["step"]) == step_of(folder) == found[-1][0]
        save(folder, 3)
        assert step_of(folder) == 3
        assert [path.name for path in folder.parent.iterdir()] == ["run"]
    steps = [step for step, _ in found]
    assert steps == sorted(steps)
    assert {steps[0], steps[-1]} == {1, 2}
    assert (2, True) in found  # the moment between the two renames


def data() -> Any:
    numbers = np.random.default_rng(0)
    rows = numbers.uniform(-1, 1, (40, 2)).astype(np.float32)
    episode = Episode({"observation": rows}, rows[1:], np.zeros(39, np.float32), True, False, True)
    return windows([episode], CONFIG.n_obs_steps, CONFIG.horizon)


def train(folder: Path, said: Path, checkpoint_every: int) -> None:
    """A training stage that reports each save once it is made."""
    real = training.save_checkpoint

    def saved(*args: Any, **kwargs: Any) -> Path:
        path = real(*args, **kwargs)
        say(said, kwargs["provenance"]["steps"])
        return path

    training.save_checkpoint = saved
    try:
        stage = training.Stage(folder, "", 450, 8, 0, checkpoint_every, "training", {})
        training.train(tiny(), data(), RegressionConfig(warmup=5), stage)
    finally:
        training.save_checkpoint = real


def test_killed_at_random_moments_of_training_it_goes_on_to_the_bit(tmp_path: Path) -> None:
    train(tmp_path / "whole", tmp_path / "nobody", 450)
    folder, said, moments = tmp_path / "run", tmp_path / "said", random.Random(1)
    for _ in range(KILLS):
        wanted = heard(said) + moments.randint(1, 12)
        kill_when(lambda: heard(said) >= wanted, moments.uniform(0.0, 0.02), train, folder, said, 3)  # noqa: B023
        assert load_checkpoint(folder).provenance["steps"] >= heard(said) > 0
    train(folder, said, 3)
    one, other = (path / "checkpoint" / "model.safetensors" for path in (tmp_path / "whole", folder))
    assert one.read_bytes() == other.read_bytes()
    assert {path.name for path in folder.iterdir()} == {"checkpoint", "tensorboard", "train.jsonl"}
