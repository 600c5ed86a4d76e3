"""The quickstart as a user meets it: one command in a folder of their own, and everything it promises."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import diffpolicy
import diffpolicy_envs
from diffpolicy.cli import main
from diffpolicy.recipes.quickstart import Quickstart

pytestmark = pytest.mark.slow

COLUMNS = {
    "method", "task", "condition", "seeds", "episodes", "success", "ci_low", "ci_high", "nfe", "train_s", "env_steps",
    "expert_queries", "network_calls",
}  # fmt: skip
METHODS = ["expert", "bc", "correct, round 1"]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command wrote, run from an unrelated one."""
    folder = tmp_path_factory.mktemp("somewhere")
    done = subprocess.run(
        [Path(sys.executable).with_name("diffpolicy"), "quickstart", "--size", "tiny", "--out", "quick"],
        cwd=folder,
        env={**os.environ, "DIFFPOLICY_RENDERER": "software"},
        capture_output=True,
        text=True,
        check=False,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    assert "Try next:" in done.stdout
    assert "Traceback" not in done.stderr
    assert {path.name for path in folder.iterdir()} <= {"quick", "MUJOCO_LOG.TXT"}
    return folder / "quick"


def content(quickstart: Path) -> Any:
    return json.loads((quickstart / "results.json").read_text(encoding="utf-8"))


def test_the_table_has_a_row_for_every_policy_and_condition(quickstart: Path) -> None:
    found = content(quickstart)
    assert [(row["method"], row["condition"]) for row in found["rows"]] == [
        (method, condition) for method in METHODS for condition in ("clean", "shove")
    ]
    for row in found["rows"]:
        assert set(row) >= COLUMNS
        assert 0 <= row["ci_low"] <= row["success"] <= row["ci_high"] <= 1
        assert row["task"] == "diffpolicy/PickPlace-v0"
    expert, bc, corrected = found["rows"][::2]
    assert expert["success"] == 1
    assert expert["nfe"] == expert["network_calls"] == 0
    assert bc["nfe"] > 0
    for name in ("train_s", "expert_queries", "env_steps"):
        assert 0 < bc[name] < corrected[name]


def test_every_row_is_backed_by_its_episodes_and_all_met_the_same_ones(quickstart: Path) -> None:
    found = content(quickstart)
    for row in found["rows"]:
        its = [e for e in found["episodes"] if (e["method"], e["condition"]) == (row["method"], row["condition"])]
        assert len(its) == row["episodes"]
        assert np.isclose(np.mean([e["success"] for e in its]), row["success"], atol=1e-4)
        assert [e["seed"] for e in its] == [e["seed"] for e in found["episodes"][: row["episodes"]]]


def test_the_report_needs_nothing_but_itself(quickstart: Path) -> None:
    page = (quickstart / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://([^/\"'\s<]+)", page)) <= {"www.w3.org"}
    linked = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", page)
    assert linked
    assert all(link.startswith(("data:", "#")) for link in linked)
    assert "<table" in page
    assert page.count("<svg") >= 2
    assert all(method in page for method in METHODS)
    clips = [base64.b64decode(code) for code in re.findall(r"data:video/mp4;base64,([A-Za-z0-9+/=]+)", page)]
    assert [clip[4:8] for clip in clips] == [b"ftyp", b"ftyp"]
    assert sorted(clips) == sorted(path.read_bytes() for path in (quickstart / "videos").iterdir())


def test_the_checkpoint_acts_in_stable_baselines_and_in_a_plain_loop(quickstart: Path) -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    loaded = diffpolicy.load_checkpoint(quickstart / "checkpoint")
    name = loaded.environment
    assert name in diffpolicy_envs.TASKS
    vector = DummyVecEnv([lambda: Monitor(gymnasium.make(name)) for _ in range(2)])
    rewards, lengths = evaluate_policy(loaded.policy, vector, n_eval_episodes=2, return_episode_rewards=True)
    assert np.all(np.isfinite(rewards))
    assert np.all(np.array(lengths) > 1)
    vector.close()
    env = gymnasium.make(name)
    observation, _ = env.reset(seed=3)
    state, start = None, True
    for _ in range(12):
        action, state = loaded.policy.predict(observation, state, np.array([start]))
        assert env.action_space.contains(action)
        observation, _, terminated, truncated, _ = env.step(action)
        start = terminated or truncated
    env.close()


def test_run_again_it_is_done_at_once_and_changes_nothing(
    quickstart: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(quickstart.parent)
    before = {path: path.read_bytes() for path in quickstart.rglob("*") if path.is_file()}
    assert Quickstart(Path("quick"), size="tiny")() == Path("quick/report.html")
    assert "finished before" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in quickstart.rglob("*") if path.is_file()} == before


def test_its_checkpoint_can_be_corrected_further_on_all_the_data(quickstart: Path) -> None:
    noted = diffpolicy.load_checkpoint(quickstart / "checkpoint").provenance
    assert (noted["dataset"], noted["rollouts"]) == ("demos", ["correct/round-1/rollouts"])
    assert all((quickstart / path).is_dir() for path in (noted["dataset"], *noted["rollouts"], noted["parent"]))


def test_interrupted_while_it_evaluates_it_leaves_whole_files_and_goes_on(
    quickstart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(quickstart, tmp_path / "quick")
    for made in ("report.html", "results.json"):
        (copy / made).unlink()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffpolicy.recipes.evaluate.measured", interrupted)
    assert main(["quickstart", "--size", "tiny", "--out", str(copy)]) == 130
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_tiny_fills_in_only_what_was_not_asked_for() -> None:
    tiny = Quickstart(size="tiny", demonstrations=5).resolved()
    assert (tiny.demonstrations, tiny.rounds, tiny.episodes) == (5, 1, 4)
    assert Quickstart(rounds=2).resolved() == Quickstart(rounds=2)
