"""Laws of the baselines: what each learns of data whose law is known, and that they are policies like any other."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpolicy import Bc, Collect, Correct, cli
from diffpolicy.data.batch import Demo
from diffpolicy.diffusion import MLPConfig, NetworkConfig, SamplerConfig, TransformerConfig, UNetConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec, load_checkpoint, save_checkpoint
from diffpolicy.policy.export import export_onnx
from diffpolicy.policy.models import FRAMES
from diffpolicy.policy.train_state import load_train_state, save_train_state
from diffpolicy.recipes.describe import cost
from diffpolicy.runtime import OnnxPolicy
from diffpolicy.training.fit import fit
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Regression

MODELS = list(FRAMES)
every_model = pytest.mark.parametrize("model", MODELS)
without_chains = pytest.mark.parametrize("model", [name for name in MODELS if not FRAMES[name].chains])
SPACES = SpaceSpec({"observation": Bounds((-1.0,) * 2, (1.0,) * 2)}, Bounds((-2.0,), (2.0,)), True)
H, ROWS = 4, 256
SMALL = MLPConfig(16, 1, 6)


def make(model: str, network: NetworkConfig = SMALL, random: bool = True, **settings: Any) -> Policy:
    torch.manual_seed(0)
    sampler = SamplerConfig(**settings.pop("sampler", {}))
    policy = Policy(PolicyConfig(H, 1, 2, model=model, network=network, sampler=sampler, **settings), SPACES)  # type: ignore[arg-type]
    if random:
        for parameter in policy.network.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    return policy


def two_ways(index: int, share: float = 0.7) -> Demo:
    """Chunks that stand at obs + 1.2 in a share of the cases, and else at obs - 0.8: whole chunks, in raw units."""
    random = torch.Generator().manual_seed(index)
    obs = 0.5 * (2 * torch.rand(ROWS, 1, 2, generator=random) - 1)
    up = torch.rand(ROWS, 1, 1, generator=random) < share
    chunk = (obs[:, :, :1] + torch.where(up, 1.2, -0.8)).expand(ROWS, H, 1)
    return Demo({"observation": obs}, chunk.clone(), torch.ones(ROWS, H))


@cache
def learnt(model: str, steps: int = 400, loss: Any = "l2", **settings: Any) -> Policy:
    policy = make(model, MLPConfig(32, 1, 6), random=False, **settings)
    update = Regression(policy, steps, RegressionConfig(lr=1e-2, warmup=20, ema_decay=0.95, loss=loss))
    fit(update, two_ways, steps, lambda *_: None)
    return update.averaged()


def answers(policy: Policy) -> tuple[Tensor, Tensor]:
    """Chunks (B, H, A) for observations of the data, less the observation, and these."""
    batch = two_ways(10**6)
    noise = torch.randn(policy._draws(False), ROWS, H, 1, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        chunk = policy.chunk(batch.obs, noise if len(noise) > 1 else noise[0])
    return chunk - batch.obs["observation"][:, :, :1], chunk


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Collect(environment="diffpolicy/Reach-v0", out=tmp_path_factory.mktemp("demos") / "demos", episodes=2)()


@pytest.mark.parametrize(("loss", "expected"), [("l2", 0.7 * 1.2 - 0.3 * 0.8), ("l1", 1.2)])
def test_regression_learns_the_mean_and_with_l1_the_median(loss: str, expected: float) -> None:
    found, _ = answers(learnt("regression", loss=loss))
    assert float(found.mean()) == pytest.approx(expected, abs=0.08)
    assert float(found.std()) < 0.1


def test_a_gaussian_learns_mean_and_spread() -> None:
    policy = learnt("gaussian").resampled(temperature=1.0)
    found, _ = answers(policy)
    assert float(found.mean()) == pytest.approx(0.6, abs=0.1)
    assert float(found.std()) == pytest.approx(2 * (0.7 * 0.3) ** 0.5, rel=0.15)


def test_a_mixture_finds_both_ways_and_takes_each_in_its_share() -> None:
    policy = learnt("mixture", modes=4)
    found, _ = answers(policy)
    up = found > 0.2
    assert float((found - torch.where(up, 1.2, -0.8)).abs().mean()) < 0.05
    assert bool((up.all(1) | ~up.any(1)).all())  # a chunk keeps to its way
    assert float(up.float().mean()) == pytest.approx(0.7, abs=0.08)


def test_mip_begins_at_the_mean_and_goes_on_to_the_nearer_way() -> None:
    """The chunks that it is shown at t* tell their way, so that the second answer lies by one, the same for all."""
    policy = learnt("mip")
    found, _ = answers(policy)
    first, _ = answers(learnt("regression"))
    assert float(first.mean()) == pytest.approx(0.6, abs=0.1)
    assert float(found.std()) < 0.3
    assert float(found.mean()) > float(first.mean()) + 0.2


def test_mips_second_input_is_nine_tenths_of_its_first_answer() -> None:
    policy = make("mip", sampler={"clip": None})
    asked, said = list[tuple[Tensor, float]](), list[Tensor]()
    policy.network.register_forward_pre_hook(lambda _, args: asked.append((args[0], args[1])))
    policy.network.register_forward_hook(lambda *call: said.append(call[-1]))
    chunk = policy.sampler.draw(torch.randn(3, 2), torch.randn(3, H, 1))
    assert len(asked) == policy.sampler.calls == 2
    assert not asked[0][0].any()
    torch.testing.assert_close(asked[1][0], 0.9 * said[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(chunk, said[1], rtol=1e-4, atol=1e-4)
    times = [policy.network.embed(torch.tensor([t])) for t in (1.0, 0.1)]  # type: ignore[operator]
    for (_, time), expected in zip(asked, times, strict=True):
        torch.testing.assert_close(time, expected.expand_as(time))


@pytest.mark.parametrize("model", ["regression", "mip", "gaussian"])
def test_nothing_depends_on_the_noise(model: str) -> None:
    policy, seen = make(model), np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    first, _ = policy.predict(seen)
    policy.seed = 9
    assert np.array_equal(policy.predict(seen)[0], first)
    assert len(np.unique(first)) == 5


@every_model
def test_a_policy_is_saved_loaded_and_resumed_to_the_bit(model: str, tmp_path: Path) -> None:
    straight, first, second = (Regression(make(model), 6, seed=5) for _ in range(3))
    fit(straight, two_ways, 6, lambda *_: None)
    fit(first, two_ways, 3, lambda *_: None)
    save_train_state(first.state_dict(), tmp_path)
    second.load_state_dict(load_train_state(tmp_path))
    fit(second, two_ways, 6, lambda *_: None, start=second.step)
    for name, tensor in straight.averaged().state_dict().items():
        assert torch.equal(tensor, second.averaged().state_dict()[name]), name
    loaded = load_checkpoint(save_checkpoint(second.averaged(), tmp_path / "checkpoint")).policy
    assert loaded.config == straight.policy.config
    assert torch.equal(answers(loaded)[1], answers(straight.averaged())[1])


@every_model
@pytest.mark.parametrize("network", [UNetConfig(16, 2, 3, 6), TransformerConfig(16, 1, 2, 6)], ids=lambda n: n.kind)
def test_every_network_learns_as_every_model(model: str, network: NetworkConfig) -> None:
    update, losses = Regression(make(model, network), 12, RegressionConfig(warmup=0)), list[float]()
    fit(update, lambda _: two_ways(0), 12, lambda _, metrics: losses.append(metrics["loss"]))
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(("model", "temperature"), [("mip", None), ("gaussian", None), ("mixture", 0.5)])
def test_the_exported_file_acts_alike(model: str, temperature: float | None, tmp_path: Path) -> None:
    policy = make(model, sampler={"temperature": temperature})
    done = export_onnx(policy, tmp_path / "policy.onnx")
    assert done.parity < 1e-5
    onnx, rows = OnnxPolicy(done.path), np.random.default_rng(0).uniform(-1, 1, (7, 2)).astype(np.float32)
    assert onnx.config == policy.config
    for deterministic in (False, True):
        ours, theirs = (actor.predict(rows, deterministic=deterministic)[0] for actor in (policy, onnx))
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=0)


@without_chains
def test_its_cost_is_one_call_and_two_for_mip(model: str) -> None:
    policy = make(model)
    found = cost(policy)
    calls = 2 if model == "mip" else 1
    assert found["network_calls"] == found["network_rows"] == calls
    assert policy.sampler.calls == policy.config.sampler.calls == calls
    assert found["flops_per_call"] == 2 * sum(p.numel() for p in policy.network.parameters() if p.dim() == 2)


@without_chains
def test_the_settings_tell_the_frame_and_can_be_written_and_changed(model: str) -> None:
    config = PolicyConfig(model=model)  # type: ignore[arg-type]
    assert (config.schedule, config.prediction, config.sampler.temperature) == ("straight", "x0", 0.0)
    assert config.sampler.steps == (2 if model == "mip" else 1)
    assert config.modes == (1 if model == "gaussian" else 5)
    assert PolicyConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    other = replace(config, horizon=20, sampler=replace(config.sampler, clip=None))
    assert (other.horizon, other.sampler.clip, other.sampler.temperature) == (20, None, 0.0)
    policy = make(model)
    assert policy.resampled(clip=0.5).config.sampler.clip == 0.5
    for changes in ({"steps": 8, "times": None}, {"steps": 3, "times": None}, {"eta": 0.5}, {"schedule": "cosine"}):
        with pytest.raises(InputError, match=f"model '{model}' fixes"):
            policy.resampled(**changes)


@pytest.mark.parametrize("model", ["shortcut", "mean_flow"])
def test_models_of_two_times_take_any_number_of_steps(model: str) -> None:
    policy = make(model)
    config = policy.config
    assert (config.schedule, config.prediction, config.network.two_times) == ("straight", "flow", True)
    assert PolicyConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    assert [policy.resampled(steps=steps).calls for steps in (1, 2, 8)] == [1, 2, 8]
    for changes in ({"eta": 0.5}, {"schedule": "cosine"}, {"solver": "heun"}):
        with pytest.raises(InputError, match=f"model '{model}' fixes"):
            policy.resampled(**changes)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"model": "regression", "schedule": "cosine"},
            r"schedule: expected 'straight', which model 'regression' fixes",
        ),
        ({"model": "mip", "prediction": "eps"}, r"prediction: expected 'x0'"),
        ({"model": "mip", "sampler": SamplerConfig(steps=4)}, r"sampler\.steps: expected 2"),
        ({"model": "regression", "sampler": SamplerConfig(temperature=1.0)}, r"sampler\.temperature: expected 0\.0"),
        ({"model": "mixture", "sampler": SamplerConfig(eta=1.0)}, r"sampler\.eta: expected 0\.0"),
        ({"model": "gaussian", "condition_dropout": 0.1}, r"condition_dropout: expected 0\.0"),
        ({"model": "gaussian", "modes": 3}, r"modes: expected 1"),
        ({"modes": 3}, r"modes: expected 5, which model 'diffusion' fixes"),
        (
            {"model": "gmm"},
            r"one of diffusion, regression, mip, gaussian, mixture, shortcut, mean_flow, student, got 'gmm'",
        ),
        ({"model": "mixture", "modes": 0}, r"a whole number from 1"),
    ],
)
def test_what_a_model_fixes_is_not_changed(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        PolicyConfig(**settings)


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("mixture", {"loss": "l1"}),
        ("gaussian", {"loss": "l1"}),
        ("mip", {"weights": "edm"}),
        ("regression", {"times": "lognormal"}),
    ],
)
def test_training_settings_of_another_model_are_refused_before_the_work(
    model: str, settings: dict[str, Any], demos: Path, tmp_path: Path
) -> None:
    words = rf"RegressionConfig\.{next(iter(settings))}: .*model '{model}'"
    policy, optimiser = make(model), RegressionConfig(**settings)
    with pytest.raises(InputError, match=words):
        Regression(policy, 3, optimiser)
    with pytest.raises(InputError, match=words):
        Bc(demos, tmp_path / "bc", policy=policy.config, optimiser=optimiser)()
    checkpoint = save_checkpoint(policy, tmp_path / "checkpoint", environment="diffpolicy/Reach-v0")
    with pytest.raises(InputError, match=words):
        Correct(checkpoint, tmp_path / "c", data=demos, optimiser=optimiser)()
    assert not (tmp_path / "bc").exists()
    assert not (tmp_path / "c").exists()


def test_a_density_has_no_denoiser() -> None:
    with pytest.raises(InputError, match="one of model 'mixture', whose network puts out a density"):
        _ = make("mixture").denoiser


def test_l1_is_that_of_the_networks_own_output_too() -> None:
    """On straight lines a flow's own absolute error is 1 / t that of the chunk."""
    policy, batch = make("diffusion"), two_ways(0)
    update = Regression(policy, 1, RegressionConfig(loss="l1"))
    chunk = policy.normaliser.normalise_action(batch.chunk)
    draw = update._draw(policy.encoder(batch.obs), chunk)
    with torch.no_grad():
        x = (1 - draw.t)[:, None, None] * chunk + draw.t[:, None, None] * draw.noise
        own = (policy.network(x, draw.t, draw.obs, None) - (draw.noise - chunk)).abs().mean()
    assert update(batch)["loss"] == pytest.approx(float(own), rel=1e-4)


@every_model
def test_a_corrected_policy_is_still_of_its_model(model: str, demos: Path, tmp_path: Path) -> None:
    config = PolicyConfig(H, 1, 2, network=SMALL, model=model, modes=2 if model == "mixture" else 5)  # type: ignore[arg-type]
    few: dict[str, Any] = {"steps": 2, "batch_size": 8}
    Bc(demos, tmp_path / "bc", policy=config, **few)()
    Correct(tmp_path / "bc", tmp_path / "c", rounds=1, rollouts=2, conditions=("clean",), **few)()
    before, after = (load_checkpoint(tmp_path / name).policy for name in ("bc", "c"))
    assert after.config == before.config == config
    assert any(not torch.equal(x, y) for x, y in zip(before.parameters(), after.parameters(), strict=True))


def test_the_command_line_knows_the_models(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--policy.model", "mixture", "--policy.modes", "3", "--policy.sampler.temperature", "1"]
    assert cli.main(["bc", *words, "--dry-run"]) == 0
    policy = json.loads(capsys.readouterr().out)["policy"]
    assert (policy["model"], policy["modes"], policy["sampler"]["temperature"]) == ("mixture", 3, 1.0)
    with pytest.raises(SystemExit) as ended:
        cli.main(["bc", "--policy.model", "mip", "--policy.sampler.steps", "3", "--dry-run"])
    assert ended.value.code == 2
    assert "'mip' fixes" in capsys.readouterr().err
