"""Laws of checkpoint folders: what is saved comes back, and what is damaged is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
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
from diffpolicy.policy.checkpoint import copy_checkpoint
from diffpolicy.policy.files import write_json
from diffpolicy.policy.sealed import write_sealed

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
    """Change config.json, its checksum with it."""

    def damage(folder: Path) -> None:
        path = folder / "config.json"
        data = json.loads(path.read_text())
        files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in data["files"]}
        del data["files"], data["sha256"]
        write_sealed(data | change, files, path)

    return damage


def damage_model(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Change the weights, the checksums with them."""

    def damage(folder: Path) -> None:
        tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        damage_config()(folder)

    return damage


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def truncate(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


BIAS = "sampler.denoiser.network.enter.bias"
LEROBOT = {"type": "diffusion", "n_obs_steps": 2, "input_features": {}, "output_features": {}, "device": "cuda"}
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no folder": (lambda folder: folder.rename(folder.with_name("away")), "checkpoint folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "checkpoint folder"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "readable file"),
    "not JSON": (truncate("config.json", 50), "whole .json"),
    "not text": (write("config.json", b"\xff\xfe\x00"), "whole .json"),
    "bottomless": (write("config.json", "[" * 100_000), "whole .json"),
    "not a number": (edit("config.json", "0.5", "NaN"), "NaN is not JSON"),
    "a list": (write("config.json", "[]"), "got list; it was made by another program"),
    "another library's": (write("config.json", json.dumps(LEROBOT)), "'input_features'.* another program"),
    "edited": (edit("config.json", '"steps": 2', '"steps": 9'), r"edited or is damaged.*diffpolicy change"),
    "newer": (damage_config(format=99), "format 1 to 2 .* got 99; install a newer"),
    "no version": (damage_config(format=None), "format"),
    "true for a version": (damage_config(format=True), "format 1 to 2 .* got True"),
    "called older": (edit("config.json", '"format": 2', '"format": 1'), "edited or is damaged"),
    "no policy": (damage_config(policy=None), "restore"),
    "unknown field": (damage_config(policy={"depth": 3}), "restore"),
    "unknown schedule": (damage_config(policy={**asdict(CONFIG), "schedule": "x"}), "x"),
    "no spaces": (damage_config(space_spec={}), "restore"),
    "no environment": (damage_config(environment=["a"]), r"environment \['a'\]"),
    "no provenance": (damage_config(provenance=[1]), r"provenance \[1\]"),
    "truncated": (truncate("model.safetensors", 500), "whole .safetensors .* 500 bytes"),
    "empty": (truncate("model.safetensors", 0), "whole .safetensors"),
    "foreign": (write("model.safetensors", b"PK" + b"x" * 99), "whole .safetensors"),
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


@pytest.mark.parametrize("name", checkpoint.FILES)
def test_no_bit_of_any_file_can_flip_unnoticed(policy: Policy, tmp_path: Path, name: str) -> None:
    folder = save_checkpoint(policy, tmp_path / "run", provenance={"x": 0.30000000000000004}, train_state={"a": (1, 2)})
    path, numbers = folder / name, np.random.default_rng(0)
    good = path.read_bytes()
    places = range(len(good)) if len(good) < 4000 else [0, len(good) - 1, *numbers.integers(len(good), size=200)]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << numbers.integers(8)
        path.write_bytes(bad)
        with pytest.raises(InputError, match="expected"):
            load_checkpoint(folder)
        if "train" in name:
            with pytest.raises(InputError, match="expected"):
                load_train_state(folder)
    path.write_bytes(good)
    assert same(load_checkpoint(folder).policy, policy)


def test_a_training_state_may_be_left_out_but_not_be_another_s(policy: Policy, tmp_path: Path) -> None:
    one, other = (save_checkpoint(policy, tmp_path / str(i), train_state={"a": i}) for i in range(2))
    for name in ("train_state.json", "train_state.safetensors"):
        (one / name).replace(other / name)
    assert same(load_checkpoint(one).policy, policy)
    with pytest.raises(InputError, match="from another checkpoint"):
        load_checkpoint(other)


def test_the_first_format_without_checksums_is_still_read(policy: Policy, tmp_path: Path) -> None:
    folder = save_checkpoint(policy, tmp_path / "run", environment="E-v0", train_state={"a": torch.ones(2), "b": 3})
    for name, old in (
        ("config.json", lambda data: {**data, "format": 1}),
        ("train_state.json", lambda data: data["state"]),
    ):
        data = json.loads((folder / name).read_text())
        del data["files"], data["sha256"]
        write_json(old(data), folder / name)
    loaded = load_checkpoint(folder)
    assert same(loaded.policy, policy)
    assert loaded.environment == "E-v0"
    assert load_train_state(folder)["b"] == 3
    copy = copy_checkpoint(folder, tmp_path / "copy")
    assert {path.name for path in copy.iterdir()} == set(checkpoint.FILES)
    edit("config.json", '"E-v0"', "7")(folder)
    with pytest.raises(InputError, match="environment 7"):
        load_checkpoint(folder)


def test_a_copy_is_the_same_to_the_byte_and_of_whole_checkpoints_only(policy: Policy, tmp_path: Path) -> None:
    source = save_checkpoint(policy, tmp_path / "a", train_state={"step": 1})
    save_checkpoint(Policy(CONFIG, SPACES), tmp_path / "b", provenance={"old": True})
    copy = copy_checkpoint(source, tmp_path / "b")
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    before = (copy / "config.json").stat().st_mtime_ns
    copy_checkpoint(source, copy)
    assert (copy / "config.json").stat().st_mtime_ns == before  # nothing to do
    truncate("model.safetensors", 100)(source)
    with pytest.raises(InputError, match="whole"):
        copy_checkpoint(source, save_checkpoint(policy, tmp_path / "c"))
    assert same(load_checkpoint(tmp_path / "c").policy, policy)
    assert same(load_checkpoint(copy).policy, policy)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "c"}


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


TREES = [
    '{"dict": [["a", {"tensor": "9"}]]}', '{"dict": 3}', '{"dict": [[{"list": []}, 1]]}', "{}", "3", '{"a": 1, "b": 2}',
    "{", '{"dict": [["a", {"set": [1]}]]}', "[" * 99_999,
]  # fmt: skip


@pytest.mark.parametrize("text", TREES, ids=range(len(TREES)))
def test_a_damaged_train_state_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match="readable"):
        load_train_state(tmp_path)
    save_train_state({"a": torch.zeros(2)}, tmp_path)
    (tmp_path / checkpoint.TRAIN_TREE).write_text(text)
    with pytest.raises(InputError, match="expected"):
        load_train_state(tmp_path)
