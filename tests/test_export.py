"""Laws of the exported policy: one file, the same actions, nothing but numpy and onnxruntime, and no bad file."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from diffpolicy.diffusion import MLPConfig, NetworkConfig, SamplerConfig, TransformerConfig, UNetConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec, export, save_checkpoint
from diffpolicy.policy.export import Exported, export_onnx
from diffpolicy.policy.graph import UNSEALED, sealed
from diffpolicy.recipes.export import Export, latencies
from diffpolicy.rollout.environment import make_vector
from diffpolicy.runtime import OnnxPolicy

SMALL = MLPConfig(width=16, blocks=1, time_dim=6)
SAMPLERS = {
    "diffpolicy/PickPlace-v0": (1, SamplerConfig(steps=8)),
    "Pendulum-v1": (2, SamplerConfig(steps=2, eta=1.0, clip=None)),  # a Box; noisy steps, two observations
}


@dataclass(frozen=True)
class Pair:
    """A policy in torch, and in its file."""

    policy: Policy
    onnx: OnnxPolicy
    done: Exported


def make(environment: str) -> Policy:
    """A small policy with random, not zero, output."""
    torch.manual_seed(0)
    env = make_vector(environment, 1)
    spaces = SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)
    env.close()
    n_obs_steps, sampler = SAMPLERS[environment]
    policy = Policy(PolicyConfig(6, n_obs_steps, 3, network=SMALL, sampler=sampler), spaces)
    torch.nn.init.normal_(policy.denoiser.network.leave[1].weight, std=0.3)
    policy.environment, policy.provenance = environment, {"command": "diffpolicy bc", "seed": 3}
    return policy


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    made = {}
    for environment in SAMPLERS:
        policy = make(environment)
        done = export_onnx(policy, tmp_path_factory.mktemp("export") / "policy.onnx", {"why": "test"})
        made[environment] = Pair(policy, OnnxPolicy(done.path), done)
    return made


@pytest.fixture(params=list(SAMPLERS))
def pair(request: pytest.FixtureRequest, pairs: dict[str, Pair]) -> Pair:
    return pairs[request.param]


@pytest.fixture
def file(pairs: dict[str, Pair]) -> bytes:
    return pairs["Pendulum-v1"].done.path.read_bytes()


def observed(pair: Pair, num: int, steps: int) -> Iterator[Any]:
    """The observations of a real episode that torch's policy plays."""
    assert pair.policy.environment
    env = make_vector(pair.policy.environment, num)
    seen, _ = env.reset(seed=list(range(num)))
    state = None
    for _ in range(steps):
        yield seen
        action, state = pair.policy.predict(seen, state)
        seen, *_ = env.step(action)
    env.close()


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_file_acts_like_torch_through_episodes(pair: Pair, deterministic: bool) -> None:
    states: list[Any] = [
        actor.begin(None, np.ones(3, bool), np.array([40, 7, 23])) for actor in (pair.policy, pair.onnx)
    ]
    for time, seen in enumerate(observed(pair, 3, 12)):
        start = np.array([False, time == 4, False])  # from then on, rows decide at different times
        ours, states[0] = pair.policy.predict(seen, states[0], start, deterministic)
        theirs, states[1] = pair.onnx.predict(seen, states[1], start, deterministic)
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=0)
    assert states[1].decision.tolist() == states[0].decision.tolist()
    assert states[0].decision.min() > 1


def test_one_observation_and_another_seed(pair: Pair) -> None:
    single = next(observed(pair, 1, 1))
    row = {name: value[0] for name, value in single.items()} if isinstance(single, dict) else single[0]
    seeds = []
    for seed in (0, 5):
        pair.policy.seed = pair.onnx.seed = seed
        (ours, _), (theirs, _) = pair.policy.predict(row), pair.onnx.predict(row)
        assert theirs.shape == (pair.onnx.action_size,)
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=0)
        seeds.append(theirs)
    pair.policy.seed = pair.onnx.seed = 0
    assert not np.allclose(*seeds)


def test_parity_is_that_of_single_precision(pair: Pair) -> None:
    """No factor near 1 was taken for 1, no small one for 0: that would be seen at 1e-6."""
    assert pair.done.parity < 2e-6
    assert pair.done.chunks == 3 * (1 + 2 + 5 + 32)


@pytest.mark.parametrize("network", [UNetConfig(16, 2, 3, 6), TransformerConfig(16, 1, 2, 6)], ids=lambda n: n.kind)
def test_every_network_goes_into_a_file_and_so_does_guidance(network: NetworkConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    spaces = SpaceSpec({"a": Bounds((-1.0, 0.0), (1.0, 2.0))}, Bounds((-1.0,) * 3, (1.0,) * 3), False)
    sampler = SamplerConfig(steps=1, guidance=0.7)
    policy = Policy(PolicyConfig(5, 1, 3, network=network, sampler=sampler, condition_dropout=0.1), spaces)
    for parameter in policy.denoiser.network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    done = export_onnx(policy, tmp_path / "policy.onnx")
    assert done.parity < 1e-5
    onnx, rows = OnnxPolicy(done.path), {"a": np.random.default_rng(0).uniform(-1, 1, (3, 2)).astype(np.float32)}
    assert onnx.config == policy.config
    np.testing.assert_allclose(onnx.predict(rows)[0], policy.predict(rows)[0], atol=1e-5, rtol=0)


def test_one_file_tells_all(pair: Pair) -> None:
    path = pair.done.path
    assert [other.name for other in path.parent.iterdir()] == ["policy.onnx"]
    assert path.stat().st_size == pair.done.size
    assert pair.onnx.config == pair.policy.config
    assert pair.onnx.layout == pair.policy.layout
    assert pair.onnx.environment == pair.policy.environment
    assert pair.onnx.provenance == pair.policy.provenance
    assert SpaceSpec.from_json(pair.onnx.metadata["space_spec"]) == pair.policy.spaces
    assert pair.onnx.metadata["about"] == {"why": "test"}
    assert {"diffpolicy", "torch", "onnxruntime"} <= pair.onnx.metadata["versions"].keys()


def test_its_weights_are_known_by_the_checkpoints_checksum(pair: Pair, tmp_path: Path) -> None:
    folder = save_checkpoint(pair.policy, tmp_path / "checkpoint")
    content = (folder / "model.safetensors").read_bytes()
    assert pair.onnx.metadata["weights_sha256"] == hashlib.sha256(content).hexdigest()


def test_the_graph_is_plain_onnx_of_a_fixed_opset_and_any_batch(pair: Pair) -> None:
    model = onnx.load(pair.done.path)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 18)]
    assert not model.functions
    session = onnxruntime.InferenceSession(pair.done.path, providers=["CPUExecutionProvider"])
    config, draws = pair.policy.config, (3,) if pair.policy.sampler.stochastic else ()
    shapes = {name: (config.n_obs_steps, size) for name, size in pair.policy.layout.sizes}
    shapes["noise"] = (*draws, config.horizon, pair.policy.action_size)
    assert {one.name: tuple(one.shape[1:]) for one in session.get_inputs()} == shapes
    assert all(isinstance(one.shape[0], str) for one in [*session.get_inputs(), *session.get_outputs()])
    for batch in (1, 3, 100):
        feed = {name: np.zeros((batch, *shape), np.float32) for name, shape in shapes.items()}
        (chunk,) = session.run(["chunk"], feed)
        assert chunk.shape == (batch, config.horizon, pair.policy.action_size)


def test_actions_stay_within_bounds(pairs: dict[str, Pair]) -> None:
    pair = pairs["Pendulum-v1"]
    feed = {"observation": np.full((1, 2, 3), 0.5, np.float32), "noise": np.full((1, 3, 6, 1), 1e4, np.float32)}
    assert pair.onnx.chunk(feed).tolist() == [[[2.0]] * 6]


def test_exporting_leaves_the_policy_as_it_was(tmp_path: Path) -> None:
    policy = make("Pendulum-v1").train()
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    export_onnx(policy, tmp_path / "policy.onnx")
    assert policy.training
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
    policy.chunk(torch.randn(2, 2, 3), torch.randn(3, 2, 6, 1)).sum().backward()


@pytest.mark.parametrize("there", [b"", b"an older file"])
def test_a_graph_that_differs_from_torch_is_not_written(
    there: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "policy.onnx"
    if there:
        path.write_bytes(there)
    right = export._Whole.forward
    monkeypatch.setattr(export._Whole, "forward", lambda self, *inputs: right(self, *inputs) + 5e-5)
    with pytest.raises(InputError, match=r"within 1e-05 of torch's.*Nothing written"):
        export_onnx(make("Pendulum-v1"), path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == ({path.name: there} if there else {})


def test_what_cannot_be_exported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, action = tmp_path / "policy.onnx", Bounds((-1.0,), (1.0,))
    config = PolicyConfig(network=SMALL)
    unfitted = Policy(config, SpaceSpec({"a": Bounds((-np.inf,), (np.inf,))}, action, False))
    with pytest.raises(InputError, match="fitted normaliser"):
        export_onnx(unfitted, path)
    with pytest.raises(InputError, match=r"\['noise'\]; rename"):
        export_onnx(Policy(config, SpaceSpec({"noise": action}, action, False)), path)
    diverged = make("Pendulum-v1")
    torch.nn.init.constant_(diverged.denoiser.network.enter.bias, np.inf)
    with pytest.raises(InputError, match=r"enter\.bias"):
        export_onnx(diverged, path)
    with pytest.raises(InputError, match="a folder there"):
        export_onnx(make("Pendulum-v1"), tmp_path)
    monkeypatch.setattr(export, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(InputError, match=r'onnxscript; run: pip install "diffpolicy\[export\]"'):
        export_onnx(make("Pendulum-v1"), path)
    assert not list(tmp_path.iterdir())


def changed(content: bytes, **fields: Any) -> bytes:
    """The file with other metadata, sealed as if it were ours."""
    model = onnx.load_from_string(content)
    data = {**json.loads(model.metadata_props[0].value), **fields, "sha256": UNSEALED.decode()}
    model.metadata_props[0].value = json.dumps({name: value for name, value in data.items() if value is not None})
    return sealed(model.SerializeToString())


def foreign() -> bytes:
    """A whole ONNX file of somebody else's."""
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value],
                                   [onnx.helper.make_tensor_value_info("y", 1, [1])])  # fmt: skip
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def test_a_file_that_is_no_whole_policy_is_refused(file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    cases = {
        "whole ONNX file": [b"", b"not a graph", file[: len(file) // 2]],
        "expected": [file[:-7]],
        "without its metadata": [foreign()],
        "format 1 to 1, got 2.*newer diffpolicy": [changed(file, format=2)],
        "inputs that the metadata": [changed(file, space_spec={"observations": {"a": {}}})],
        "describe a policy": [changed(file, draws=None), changed(file, policy={"horizon": 3})],
    }
    for words, contents in cases.items():
        for content in contents:
            path.write_bytes(content)
            with pytest.raises(InputError, match=words):
                OnnxPolicy(path)
    with pytest.raises(InputError, match="readable file"):
        OnnxPolicy(tmp_path / "none.onnx")
    path.write_bytes(file)
    with pytest.raises(InputError, match="threads from 1 to 1024, got 0"):
        OnnxPolicy(path, threads=0)
    assert OnnxPolicy(path, threads=2).config.n_obs_steps == 2


def test_a_flipped_weight_is_noticed(file: bytes, tmp_path: Path) -> None:
    model = onnx.load_from_string(file)
    weight = next(one for one in model.graph.initializer if len(one.raw_data) > 1000)
    damaged = bytearray(file)
    damaged[file.index(weight.raw_data) + 401] ^= 1
    (tmp_path / "policy.onnx").write_bytes(bytes(damaged))
    with pytest.raises(InputError, match="other content than its SHA-256 says"):
        OnnxPolicy(tmp_path / "policy.onnx")


BLOCKED = """
import importlib.abc, sys
heavy = {"torch", "gymnasium", "mujoco", "minari", "stable_baselines3", "h5py", "safetensors", "huggingface_hub",
         "onnx", "onnxscript", "scipy", "matplotlib", "tyro", "rich", "einops", "diffpolicy_envs"}
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise ImportError(f"{name} is not to be imported")
sys.meta_path.insert(0, Blocked())
import numpy as np
from diffpolicy.runtime import OnnxPolicy
policy = OnnxPolicy(sys.argv[1])
state = None
for time in range(4):
    action, state = policy.predict(np.full(3, time / 8), state)
print(action.tolist())
"""


def test_acting_takes_numpy_and_onnxruntime_alone(pairs: dict[str, Pair]) -> None:
    pair = pairs["Pendulum-v1"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED, str(pair.done.path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    state = None
    for time in range(4):
        action, state = pair.policy.predict(np.full(3, time / 8), state)
    np.testing.assert_allclose(json.loads(done.stdout), action, atol=1e-5, rtol=0)


def test_the_command_writes_the_file_and_says_how_good_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(make("Pendulum-v1"), tmp_path / "run" / "checkpoint")
    path = Export(str(tmp_path / "run"), calls=5)()
    assert path == tmp_path / "run" / "policy.onnx"
    said = capsys.readouterr().out
    for words in (
        "MiB; parity with torch",
        "bar 1e-05",
        "torch ",
        "onnxruntime ",
        "(p50)",
        "(p99)",
        f"written to {path}",
    ):
        assert words in said
    assert OnnxPolicy(path).metadata["about"]["settings"]["recipe"] == "export"
    before = path.read_bytes()
    save_checkpoint(make("Pendulum-v1"), tmp_path / "run" / "best")
    assert Export(str(tmp_path / "run" / "best"), calls=0)() == tmp_path / "run" / "policy-best.onnx"
    assert path.read_bytes() == before


def test_the_command_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"end in \.onnx"):
        Export("run", tmp_path / "policy.pt")()
    with pytest.raises(InputError, match="calls"):
        Export("run", calls=-1)()
    with pytest.raises(InputError, match="expected a checkpoint folder"):
        Export(str(tmp_path), calls=0)()


def test_an_exported_file_is_evaluated_as_its_checkpoint_is(tmp_path: Path) -> None:
    from diffpolicy.recipes.actors import load_actor
    from diffpolicy.recipes.bc import Bc
    from diffpolicy.recipes.collect import Collect
    from diffpolicy.recipes.evaluate import measured
    from diffpolicy.recipes.export import Export

    run = Bc(Collect(out=tmp_path / "demos", episodes=2)(), tmp_path / "bc", steps=20, batch_size=16)().parent
    file = Export(str(run), calls=0)()
    assert file == run / "policy.onnx"
    actor = load_actor(file)
    assert (actor.nfe, actor.n_action_steps, actor.environment) == (8, 8, "diffpolicy/PickPlace-v0")
    (ours,), (theirs,) = (measured(who, None, ("clean",), 4, 0) for who in (file, run))
    for a, b in zip(ours.episodes, theirs.episodes, strict=True):
        assert (a.seed, a.success, a.length) == (b.seed, b.success, b.length)
    with pytest.raises(InputError, match="other spaces"):
        measured(file, "Pendulum-v1", ("clean",), 2, 0)


@pytest.mark.parametrize(("calls", "row"), [(7, 1), (25, 10), (3, 20)])
def test_decisions_are_timed_in_rows_by_turns(
    calls: int, row: int, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[type] = []
    for kind in (Policy, OnnxPolicy):
        predict = kind.predict

        def noted(self: Any, *rest: Any, kind: type = kind, predict: Any = predict) -> Any:
            asked.append(kind)
            return predict(self, *rest)

        monkeypatch.setattr(kind, "predict", noted)
    taken = latencies([pair.policy, pair.onnx], pair.policy, calls, row=row)
    assert [len(times) for times in taken] == [calls, calls]
    assert all(time > 0 for times in taken for time in times)
    turns = [asked[begin : begin + row] for begin in range(0, len(asked), row)]
    assert turns == [row * [Policy], row * [OnnxPolicy]] * (len(turns) // 2)
    assert len(turns) * row // 2 >= calls + 10  # the first ones warm up
