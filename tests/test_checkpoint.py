"""Laws of checkpoint folders: what is saved comes back, and what is damaged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import (
    Bounds,
    Policy,
    PolicyConfig,
    SpaceSpec,
    checkpoint,
    load_checkpoint,
    load_train_state,
    save_checkpoint,
    save_train_state,
)

INF = float("inf")
SPACES = SpaceSpec({"observation": Bounds((-1.0, -INF), (1.0, INF))}, Bounds((-2.0,), (2.0,)), True)
CONFIG = PolicyConfig(network=MLPConfig(width=8, blocks=1), sampler=SamplerConfig(steps=2, eta=0.5, clip=None))


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    policy = Policy(CONFIG, SPACES)
    policy.normaliser.fit({"observation": torch.randn(50, 2)}, torch.randn(50, 1))
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight)
    return policy


def same(one: Policy, other: Policy) -> bool:
    states = one.state_dict(), other.state_dict()
    equal = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    return equal and states[0].keys() == states[1].keys() and one.config == other.config


def test_a_policy_comes_back_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    save_checkpoint(policy, tmp_path / "run", environment="Pendulum-v1", provenance={"seed": 3})
    loaded = load_checkpoint(tmp_path / "run")
    assert same(loaded.policy, policy)
    assert (loaded.environment, loaded.provenance, loaded.folder) == ("Pendulum-v1", {"seed": 3}, tmp_path / "run")
    obs = np.zeros((4, 2))
    assert np.array_equal(loaded.policy.predict(obs)[0], policy.predict(obs)[0])
    assert loaded.policy.normaliser.frozen


def test_a_checkpoint_is_four_files_at_most_and_leaves_nothing_beside_it(policy: Policy, tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(policy, tmp_path / "run", train_state={"step": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "model.safetensors", "train_state.json", "train_state.safetensors"}


def test_hub_methods_read_and_write_the_same_folder(policy: Policy, tmp_path: Path) -> None:
    policy.save_pretrained(tmp_path / "hub")
    assert same(Policy.from_pretrained(tmp_path / "hub"), policy)
    assert same(load_checkpoint(tmp_path / "hub").policy, policy)
    assert "diffpolicy" in (tmp_path / "hub" / "README.md").read_text()
    save_checkpoint(policy, tmp_path / "run")
    assert same(Policy.from_pretrained(str(tmp_path / "run")), policy)
    with pytest.raises(InputError, match="check the name"):
        Policy.from_pretrained(tmp_path / "nowhere" / "at" / "all")


def test_saving_beside_other_files_leaves_them_alone(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        save_checkpoint(policy, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def damage_config(**change: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return damage


def damage_model(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def truncate(name: str, size: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


BIAS = "sampler.denoiser.network.enter.bias"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("away")), "readable file|checkpoint folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "readable file|checkpoint folder"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "readable file|checkpoint folder"),
    "not JSON": (truncate("config.json", 50), "whole .json"),
    "not text": (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "whole .json"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "format"),
    "newer": (damage_config(format=99), "99"),
    "no version": (damage_config(format=None), "format"),
    "no policy": (damage_config(policy=None), "restore"),
    "unknown field": (damage_config(policy={"depth": 3}), "restore"),
    "unknown schedule": (damage_config(policy={**vars(CONFIG), "schedule": "x", "network": {}, "sampler": {}}), "x"),
    "no spaces": (damage_config(space_spec={}), "restore"),
    "truncated": (truncate("model.safetensors", 500), "whole .safetensors"),
    "empty": (truncate("model.safetensors", 0), "whole .safetensors"),
    "foreign": (lambda folder: (folder / "model.safetensors").write_bytes(b"PK" + b"x" * 99), "whole .safetensors"),
    "missing key": (damage_model(lambda tensors: tensors.pop(BIAS)), f"missing keys .*{BIAS}"),
    "extra key": (damage_model(lambda tensors: tensors.update(more=torch.zeros(1))), "unknown keys .*more"),
    "wrong shape": (damage_model(lambda tensors: tensors.update({BIAS: torch.zeros(3)})), r"\(8,\).*\(3,\)"),
    "wrong type": (damage_model(lambda tensors: tensors.update({BIAS: torch.zeros(8).half()})), "float16"),
    "NaN": (damage_model(lambda tensors: tensors[BIAS].fill_(float("nan"))), f"NaN .*{BIAS}"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_checkpoint_is_refused(policy: Policy, tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(policy, tmp_path / "run")
    damage, match = DAMAGES[name]
    damage(folder)
    with pytest.raises(InputError, match=match):
        load_checkpoint(folder)


def test_old_checkpoint_survives_every_failed_save(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_checkpoint(policy, tmp_path / "run")
    other = Policy(CONFIG, SPACES)
    with pytest.raises(InputError, match="JSON"):
        save_checkpoint(other, folder, provenance={"when": object()})
    with pytest.raises(InputError, match="convert"):
        save_checkpoint(other, folder, train_state={"optimiser": object()})
    original = Path.replace

    def fail_at_the_last_move(path: Path, target: Path) -> Path:
        if target == folder and ".new-" in path.name:
            raise OSError("disk on fire")
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_at_the_last_move)
        with pytest.raises(OSError, match="disk on fire"):
            save_checkpoint(other, folder)
    with torch.no_grad():
        next(other.parameters()).fill_(float("inf"))
    with pytest.raises(InputError, match="finite"):
        save_checkpoint(other, folder)
    assert same(load_checkpoint(folder).policy, policy)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_train_state_of_an_optimiser_comes_back_bit_for_bit(policy: Policy, tmp_path: Path) -> None:
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-3)
    policy.denoiser.network(torch.randn(2, policy.config.horizon, 1), torch.rand(2), torch.randn(2, 2)).sum().backward()
    optimiser.step()
    state = {"optimiser": optimiser.state_dict(), "step": 7, "rng": torch.get_rng_state(), "tree": (1, [None, True])}
    save_train_state(state, tmp_path)
    loaded = load_train_state(tmp_path)
    assert (loaded["step"], loaded["tree"]) == (7, (1, [None, True]))
    assert torch.equal(loaded["rng"], state["rng"])  # type: ignore[arg-type]
    assert loaded["optimiser"]["param_groups"] == optimiser.state_dict()["param_groups"]
    for index, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            assert torch.equal(loaded["optimiser"]["state"][index][name], value)
    torch.optim.AdamW(policy.parameters()).load_state_dict(loaded["optimiser"])


@pytest.mark.parametrize(
    "text", ['{"dict": [["a", {"tensor": "9"}]]}', '{"dict": 3}', "{}", "3", '{"a": 1, "b": 2}', "{"]
)
def test_a_damaged_train_state_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="readable"):
        load_train_state(tmp_path)
    save_train_state({"a": torch.zeros(2)}, tmp_path)
    (tmp_path / checkpoint.TRAIN_TREE).write_text(text)
    with pytest.raises(InputError, match="expected"):
        load_train_state(tmp_path)
