"""Laws of the regression update: it learns, ignores what is masked, and resumes bit for bit."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from diffpolicy.data.batch import Demo, hold
from diffpolicy.data.windows import Windows
from diffpolicy.diffusion import MLPConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, SpaceSpec
from diffpolicy.policy.policy import Policy
from diffpolicy.policy.train_state import load_train_state, save_train_state
from diffpolicy.training import compiling
from diffpolicy.training.fit import Metrics, fit
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Draw, Regression, cosine_rate, denoising

H, A, OBS, TO = 4, 2, 3, 2


def make_policy(prediction: str = "flow", schedule: str = "straight") -> Policy:
    torch.manual_seed(0)
    spec = SpaceSpec.from_spaces(spaces.Box(-2.0, 2.0, (OBS,), np.float32), spaces.Box(-3.0, 3.0, (A,), np.float32))
    network = MLPConfig(width=32, blocks=1, time_dim=8)
    config = PolicyConfig(H, TO, 2, prediction=prediction, schedule=schedule, network=network)  # type: ignore[arg-type]
    return Policy(config, spec)


def make_batch(index: int = 0, size: int = 16) -> Demo:
    random = torch.Generator().manual_seed(index)
    obs = torch.rand(size, TO, OBS, generator=random) * 2 - 1
    chunk = 2 * obs[:, -1:, :A].expand(size, H, A).clone()
    mask = torch.ones(size, H)
    mask[: size // 2, -1] = 0
    mask[: size // 4, 0] = 0
    return Demo({"observation": obs}, chunk, mask)


def gradients(batch: Demo) -> list[Tensor]:
    update = Regression(make_policy(), 10)
    update(batch)
    return [p.grad for p in update.policy.parameters() if p.grad is not None]


def weights(update: Regression) -> dict[str, Tensor]:
    return {**update.policy.state_dict(), **{f"ema {name}": x for name, x in update.ema.state_dict().items()}}


@pytest.mark.parametrize(("prediction", "schedule"), [("flow", "straight"), ("eps", "cosine"), ("v", "cosine")])
def test_the_loss_falls_on_one_batch(prediction: str, schedule: str) -> None:
    losses: list[float] = []
    update = Regression(make_policy(prediction, schedule), 150, RegressionConfig(lr=3e-3, warmup=10))
    fit(update, lambda _: make_batch(size=64), 150, lambda _, metrics: losses.append(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])


def test_the_averaged_policy_acts_on_what_was_learnt() -> None:
    update = Regression(make_policy(), 400, RegressionConfig(lr=5e-3, warmup=10, ema_decay=0.97))
    fit(update, lambda index: make_batch(index, 64), 400, lambda *_: None)
    batch = make_batch(10**6, 64)
    with torch.no_grad():
        chunk = update.averaged().chunk(batch.obs, torch.randn(64, H, A, generator=torch.Generator().manual_seed(1)))
    assert (chunk - batch.chunk).abs().mean() < 0.5 * batch.chunk.abs().mean()


def test_masked_entries_have_no_influence_on_gradients() -> None:
    batch = make_batch()
    spoilt = batch.chunk.clone()
    spoilt[batch.mask == 0] = torch.tensor([float("nan"), 1e6])
    for clean, dirty in zip(gradients(batch), gradients(replace(batch, chunk=spoilt)), strict=True):
        assert torch.equal(clean, dirty)
    moved = batch.chunk.clone()
    moved[-1, 0] += 1.0
    pairs = zip(gradients(batch), gradients(replace(batch, chunk=moved)), strict=True)
    assert any(not torch.equal(before, after) for before, after in pairs)


def test_a_table_holds_its_padding_once_and_its_batches_need_not() -> None:
    batch = make_batch()
    spoilt = batch.chunk.clone()
    spoilt[batch.mask == 0] = float("nan")
    rows = torch.arange(16)[:, None]
    table = Windows({"observation": batch.obs["observation"][:, -1]}, rows.expand(16, TO), spoilt, batch.mask)
    gathered = table.gather(torch.arange(16))
    assert gathered.held
    assert not batch.held
    assert torch.equal(gathered.chunk, hold(spoilt, batch.mask))
    assert torch.equal(gathered.chunk[batch.mask > 0], batch.chunk[batch.mask > 0])
    for told, untold in zip(gradients(gathered), gradients(replace(gathered, held=False)), strict=True):
        assert torch.equal(told, untold)


def test_the_gradient_is_clipped_to_its_largest_norm_and_otherwise_left_alone() -> None:
    free, loose, tight = (Regression(make_policy(), 10, RegressionConfig(clip=clip)) for clip in (1e9, 10.0, 1e-3))
    norms = [update(make_batch())["grad_norm"] for update in (free, loose, tight)]
    assert norms[0] == norms[1] == norms[2] > 1e-3
    found = [torch.cat([p.grad.flatten() for p in u.policy.parameters() if p.grad is not None]) for u in (free, tight)]
    torch.testing.assert_close(torch.linalg.vector_norm(found[0]), torch.tensor(norms[0]))
    torch.testing.assert_close(found[1], found[0] * (1e-3 / norms[0]), rtol=1e-3, atol=0)
    for name, tensor in weights(free).items():
        assert torch.equal(tensor, weights(loose)[name]), name


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    policy = make_policy()
    policy.register_parameter("idle", torch.nn.Parameter(torch.ones(2)))
    update = Regression(policy, 10)
    for index in range(3):
        update(make_batch(index))
    assert torch.equal(policy.state_dict()["idle"], torch.ones(2))


def test_each_real_entry_counts_the_same_whatever_the_share_of_padding() -> None:
    full = make_batch(size=1)
    full = replace(full, mask=torch.ones(1, H))
    padded = Demo(
        {name: x.expand(2, TO, OBS) for name, x in full.obs.items()},
        full.chunk.expand(2, H, A),
        torch.stack([torch.ones(H), torch.zeros(H)]),
    )

    def fixed(draw: Draw, *_: object) -> object:
        one = Draw(draw.obs, draw.chunk, torch.full_like(draw.t, 0.5), torch.ones_like(draw.noise))
        return denoising(one, policy, update.ema, None)

    found = []
    for batch in (full, padded):
        policy = make_policy()
        update = Regression(policy, 10, target=fixed)  # type: ignore[arg-type]
        found.append(update(batch)["loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_weighted_loss_is_that_of_the_networks_own_output() -> None:
    policy, random = make_policy("v", "cosine"), torch.Generator().manual_seed(3)
    draw = Draw(
        torch.randn(5, TO * OBS, generator=random),
        torch.rand(5, H, A, generator=random),
        torch.linspace(0.4, 0.9, 5),  # where v's weight is not capped
        torch.randn(5, H, A, generator=random),
    )
    asked = denoising(draw, policy, Regression(policy, 1).ema, None)
    alpha, sigma = (f(draw.t)[:, None, None] for f in (policy.denoiser.schedule.alpha, policy.denoiser.schedule.sigma))
    with torch.no_grad():
        ours = (policy.denoiser(asked.x, asked.t, draw.obs) - asked.y).square() * asked.weight[:, None, None]
        output = policy.denoiser.network(asked.x, asked.t, draw.obs, None)
    natural = (output - (alpha * draw.noise - sigma * draw.chunk)).square()
    torch.testing.assert_close(ours, natural, rtol=1e-4, atol=1e-5)


def test_saving_and_continuing_is_bit_exact(tmp_path: Path) -> None:
    straight, first, second = (Regression(make_policy(), 8, seed=5) for _ in range(3))
    rows: dict[str, list[Metrics]] = {"straight": [], "resumed": []}
    fit(straight, make_batch, 8, lambda _, metrics: rows["straight"].append(metrics))
    fit(first, make_batch, 3, lambda _, metrics: rows["resumed"].append(metrics))
    save_train_state(first.state_dict(), tmp_path)
    second.load_state_dict(load_train_state(tmp_path))
    fit(second, make_batch, 8, lambda _, metrics: rows["resumed"].append(metrics), start=second.step)
    assert rows["straight"] == rows["resumed"]
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(second)[name]), name


def resumed(config: RegressionConfig, folder: Path) -> tuple[Regression, Regression]:
    """A training of eight updates, and one that was interrupted after three."""
    straight, first, second = (Regression(make_policy(), 8, config, seed=5) for _ in range(3))
    fit(straight, make_batch, 8, lambda *_: None)
    fit(first, make_batch, 3, lambda *_: None)
    save_train_state(first.state_dict(), folder)
    second.load_state_dict(load_train_state(folder))
    fit(second, make_batch, 8, lambda *_: None, start=second.step)
    return straight, second


def test_bfloat16_learns_with_weights_and_average_in_float32(tmp_path: Path) -> None:
    losses: list[float] = []
    update = Regression(make_policy(), 150, RegressionConfig(warmup=10, precision="bfloat16"))
    fit(update, lambda _: make_batch(size=64), 150, lambda _, metrics: losses.append(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])
    kinds = {tensor.dtype for tensor in weights(update).values() if tensor.is_floating_point()}
    moments = {x.dtype for state in update._optimiser.state.values() for x in state.values()}
    assert kinds == moments == {torch.float32}
    straight, second = resumed(update.config, tmp_path)
    plain, _ = resumed(RegressionConfig(warmup=10), tmp_path)
    assert all(torch.equal(x, weights(second)[name]) for name, x in weights(straight).items())
    assert any(not torch.equal(x, weights(plain)[name]) for name, x in weights(straight).items())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of its own parts, which it imports to compile
def test_compiled_training_is_the_same_training_and_resumes_to_the_bit(tmp_path: Path) -> None:
    straight, second = resumed(RegressionConfig(compile=True), tmp_path)
    plain, _ = resumed(RegressionConfig(), tmp_path)
    for name, tensor in weights(straight).items():
        assert torch.equal(tensor, weights(second)[name]), name
        torch.testing.assert_close(tensor, weights(plain)[name], rtol=1e-3, atol=1e-4)
    assert set(straight.policy.state_dict()) == set(make_policy().state_dict())


def test_a_machine_that_cannot_compile_says_so_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise RuntimeError("No working C++ compiler found")

    compiling.require_compiler.cache_clear()
    monkeypatch.setattr(torch, "compile", missing)
    with pytest.raises(InputError, match=r"g\+\+.*got RuntimeError: No working.*leave --optimiser.compile out"):
        Regression(make_policy(), 10, RegressionConfig(compile=True))
    Regression(make_policy(), 10)


def test_noise_depends_on_seed_and_step_and_on_nothing_global() -> None:
    one, same, other = (Regression(make_policy(), 8, seed=seed) for seed in (1, 1, 2))
    losses: list[float] = []
    for update in (one, same, other):
        torch.manual_seed(len(losses))
        losses.append(update(make_batch())["loss"])
    assert losses[0] == losses[1] != losses[2]
    frozen = copy.deepcopy(make_policy().state_dict())
    one.policy.load_state_dict(frozen)
    assert one(make_batch())["loss"] != losses[0]


def test_the_learning_rate_rises_then_falls_to_nothing() -> None:
    rates = [cosine_rate(step, 100, 1.0, 10) for step in range(101)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[10] == 1.0
    assert all(a >= b for a, b in pairwise(rates[10:]))
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0.0)


@pytest.mark.parametrize("field", ["chunk", "mask", "obs"])
def test_a_batch_of_the_wrong_shape_is_refused(field: str) -> None:
    batch = make_batch()
    wrong: dict[str, Any] = {
        "chunk": torch.zeros(16, H + 1, A),
        "mask": torch.ones(16, H - 1),
        "obs": {"observation": torch.zeros(15, TO, OBS)},
    }
    with pytest.raises(InputError, match=rf"\(B, {H}, {A}\)"):
        Regression(make_policy(), 10)(replace(batch, **{field: wrong[field]}))


def test_a_loss_that_is_not_finite_names_the_step_and_spares_the_weights() -> None:
    update = Regression(make_policy(), 10)
    update(make_batch())
    before = copy.deepcopy(weights(update))
    batch = make_batch()
    with pytest.raises(FloatingPointError, match=r"step 1 .*lower learning rate"):
        update(replace(batch, chunk=batch.chunk * float("nan")))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(update).items())


def test_a_state_of_another_policy_is_refused() -> None:
    state = Regression(make_policy(), 10).state_dict()
    with pytest.raises(InputError, match="not fit"):
        Regression(make_policy(), 10).load_state_dict({"step": 3})
    state["ema"] = {name: tensor[..., :1] for name, tensor in state["ema"].items()}
    with pytest.raises(InputError, match="shape"):
        Regression(make_policy(), 10).load_state_dict(state)


@pytest.mark.parametrize(
    "changes",
    [{"lr": 0.0}, {"t_min": 0.0}, {"ema_decay": 1.0}, {"clip": -1.0}, {"precision": "float16"}, {"compile": 1}],
)
def test_settings_that_cannot_train_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="correct it"):
        RegressionConfig(**changes)
