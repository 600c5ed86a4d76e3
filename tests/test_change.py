"""Laws of `diffpolicy change` and `evaluate --change`: other settings, the same weights, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffpolicy import cli
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.policy import ActingConfig, Policy, PolicyConfig, SpaceSpec, load_checkpoint, save_checkpoint
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.change import Change
from diffpolicy.recipes.describe import cost
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.rollout.environment import make_vector

TASK = "diffpolicy/Reach-v0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    env = make_vector(TASK, 1)
    spaces = SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)
    env.close()
    torch.manual_seed(0)
    policy = Policy(PolicyConfig(network=MLPConfig(16, 1), sampler=SamplerConfig(steps=4)), spaces)
    provenance = {"steps": 7, "dataset": "demos", "rollouts": []}
    return save_checkpoint(policy, tmp_path / "bc" / "checkpoint", environment=TASK, provenance=provenance)


def test_change_writes_the_same_weights_with_other_settings(folder: Path, tmp_path: Path) -> None:
    made = Change(str(folder), ("sampler.steps=2", "acting.latency=1"), tmp_path / "quick")()
    old, new = load_checkpoint(folder), load_checkpoint(made)
    assert new.policy.config == replace(
        old.policy.config, sampler=replace(old.policy.config.sampler, steps=2), acting=ActingConfig(latency=1)
    )
    for name, tensor in old.policy.state_dict().items():
        assert torch.equal(tensor, new.policy.state_dict()[name])
    assert (new.environment, new.provenance["steps"]) == (TASK, 7)
    assert new.provenance["changes"] == ["sampler.steps=2", "acting.latency=1"]
    assert Change(str(folder), ("sampler.steps=2", "acting.latency=1"), tmp_path / "quick")() == made  # again


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sampler.step=2"], "did you mean sampler.steps"),
        (["network.width=2"], "may change after training"),
        ([], "expected a setting"),
    ],
)
def test_a_bad_change_leaves_nothing(
    folder: Path, tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["change", str(folder), *words, "--out", str(tmp_path / "new")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_evaluate_counts_the_calls_of_what_it_acts_with(folder: Path, tmp_path: Path) -> None:
    found = {}
    for name, change in (("as it is", ()), ("two", ("sampler.steps=2",)), ("warm", ("acting.warm_start=0.25",))):
        out = tmp_path / f"{name}.json"
        Evaluate(str(folder), episodes=2, conditions=("clean",), change=change, out=out)()
        found[name] = read_json(out)["rows"][0]
    assert [found[name]["nfe"] for name in found] == [4, 2, 1]
    decisions = found["as it is"]["network_calls"] // 4
    assert found["two"]["network_calls"] == 2 * decisions
    assert found["warm"]["network_calls"] == decisions + 2 * (4 - 1)  # the first of two episodes takes all steps


def test_a_changed_policy_is_evaluated_beside_the_run_and_under_a_name_of_its_own(folder: Path) -> None:
    out = Evaluate(str(folder), episodes=2, conditions=("clean",), change=("sampler.steps=2",))()
    assert out == folder.parent / "evaluation-changed.json"
    assert read_json(out)["rows"][0]["method"] == "bc, sampler.steps=2"


def test_describe_counts_the_calls_of_a_warm_start(folder: Path) -> None:
    policy = load_checkpoint(folder).policy
    warm = policy.reconfigured(replace(policy.config, acting=ActingConfig(warm_start=0.5)))
    assert [cost(each)["network_calls"] for each in (policy, warm)] == [4, 2]
    assert cost(warm)["flops_per_decision"] == cost(policy)["flops_per_decision"] / 2


def test_only_checkpoints_have_settings_to_change(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "expert", "--environment", TASK, "--change", "sampler.steps=2"]
    assert cli.main(words) == 2
    assert "expected a checkpoint folder, whose sampler.steps=2 could be changed" in capsys.readouterr().err
