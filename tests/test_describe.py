"""Laws of `diffpolicy describe`: what it counts is what is there, and what it says is JSON where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpolicy import cli
from diffpolicy.diffusion import MLPConfig, SamplerConfig, TransformerConfig, UNetConfig
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec, save_checkpoint
from diffpolicy.recipes.describe import Describe, cost

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,)), "b": Bounds((-1.0,) * 2, (1.0,) * 2)}, Bounds((-2.0,), (2.0,)), False)
MLP = MLPConfig(16, 2, 6)


def make(network: Any = MLP, dropout: float = 0.0, **sampler: Any) -> Policy:
    settings = SamplerConfig(**{"steps": 3, **sampler})
    return Policy(PolicyConfig(6, 2, 3, network=network, sampler=settings, condition_dropout=dropout), SPACES)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    provenance = {"seed": 3, "parent": "runs/bc", "settings": {"steps": 7}}
    policy = make(dropout=0.1, guidance=0.5)
    return str(save_checkpoint(policy, tmp_path / "bc", environment="Pendulum-v1", provenance=provenance))


def test_flops_of_an_mlp_are_two_for_each_weight_of_its_layers() -> None:
    policy = make()
    found = cost(policy)
    layers = sum(p.numel() for p in policy.denoiser.network.parameters() if p.dim() == 2)
    assert found["flops_per_call"] == 2 * layers
    assert found["parameters"] == sum(p.numel() for p in policy.parameters())
    assert (found["network_calls"], found["network_rows"]) == (3, 3)
    assert found["flops_per_decision"] == 3 * 2 * layers


@pytest.mark.parametrize(
    "network", [MLP, UNetConfig(16, 2, 3, 6), TransformerConfig(16, 2, 2, 6)], ids=lambda n: n.kind
)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_guidance_doubles_the_rows_and_the_flops_of_a_decision(network: Any, eta: float) -> None:
    plain, guided = (cost(make(network, 0.1, eta=eta, guidance=weight)) for weight in (0.0, 1.0))
    assert guided["flops_per_call"] == plain["flops_per_call"] > 0
    assert (guided["network_calls"], guided["network_rows"]) == (3, 6)
    assert guided["flops_per_decision"] == 2 * plain["flops_per_decision"] == 6 * plain["flops_per_call"]


@pytest.mark.parametrize("solver", ["ddim", "heun", "dpm++"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_calls_are_those_of_the_solver_each_guided(solver: str, weight: float) -> None:
    policy = make(MLP, 0.1, solver=solver, guidance=weight)
    found = cost(policy)
    assert found["network_calls"] == policy.config.sampler.calls == (5 if solver == "heun" else 3)
    assert found["network_rows"] == found["network_calls"] * (2 if weight else 1)


def test_counting_leaves_no_hook_and_no_gradient() -> None:
    policy = make()
    cost(policy)
    assert not policy.denoiser.network._forward_pre_hooks
    assert all(p.grad is None and p.requires_grad for p in policy.parameters())


def test_json_holds_all_that_is_known(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    assert cli.main(["describe", folder, "--json", "--calls", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["checkpoint"], found["environment"]) == (folder, "Pendulum-v1")
    assert PolicyConfig.from_json(found["policy"]) == make(dropout=0.1, guidance=0.5).config
    assert SpaceSpec.from_json(found["spaces"]) == SPACES
    assert found["grid"] == [1.0, 0.666667, 0.333333, 0.0]
    assert found["provenance"] == {"seed": 3, "parent": "runs/bc", "settings": {"steps": 7}}
    assert [(row["batch"], row["threads"], row["calls"]) for row in found["latency"]] == [(1, 1, 5), (32, 1, 5)]
    assert all(0 < row["p50_us"] <= row["p99_us"] for row in found["latency"])


def test_the_text_says_what_was_measured_and_against_what(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = Describe(folder, calls=3)()
    shown = " ".join(capsys.readouterr().out.split())
    parts = ["Pendulum-v1", "a 1, b 2", "mlp, width 16", "schedule straight, prediction flow", "guidance 0.5"]
    parts += [f"{content['parameters']:,} parameters", "3 network calls of 2 rows", "against nothing", "parent runs/bc"]
    assert [part for part in parts if part not in shown] == []
    Describe(folder, calls=0)()
    assert "latency" not in capsys.readouterr().out


@pytest.mark.parametrize("words", [["nothing-here"], ["nothing-here", "--calls", "-1"]])
def test_what_cannot_be_described_is_said_in_a_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
