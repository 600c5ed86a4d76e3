"""Laws of the predictions, the denoiser and its network."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from diffpolicy.diffusion import MLP, PREDICTIONS, SCHEDULES, Denoiser, MLPConfig
from diffpolicy.diffusion.denoiser import SIGMA_DATA
from diffpolicy.errors import InputError

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES)
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS)


class Constant(nn.Module):
    """A network whose output is given."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *_: Tensor | None) -> Tensor:
        return self.output


def noisy(schedule: str, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Clean chunks, noise, their mixture at times (B,), and alpha and sigma (B,1,1)."""
    torch.manual_seed(0)
    clean, noise = torch.randn(2, len(t), 4, 3, dtype=t.dtype)
    alpha, sigma = (f(t)[:, None, None] for f in (SCHEDULES[schedule].alpha, SCHEDULES[schedule].sigma))
    return clean, noise, alpha * clean + sigma * noise, alpha, sigma


@every_schedule
@every_prediction
def test_clean_inverts_target(schedule: str, prediction: str) -> None:
    t = torch.linspace(0, 0.99, 20, dtype=torch.float64)
    clean, noise, x, alpha, sigma = noisy(schedule, t)
    target = PREDICTIONS[prediction].target(clean, noise, alpha, sigma)
    torch.testing.assert_close(PREDICTIONS[prediction].clean(x, target, alpha, sigma), clean)


@every_schedule
@every_prediction
def test_a_perfect_network_gives_the_clean_chunk(schedule: str, prediction: str) -> None:
    t = torch.linspace(0.01, 0.99, 20, dtype=torch.float64)
    clean, noise, x, alpha, sigma = noisy(schedule, t)
    network = Constant(PREDICTIONS[prediction].target(clean, noise, alpha, sigma))
    denoiser = Denoiser(SCHEDULES[schedule], prediction, network)
    torch.testing.assert_close(denoiser(x, t, torch.zeros(20, 0)), clean)


@every_schedule
@every_prediction
def test_weight_turns_the_clean_error_into_the_networks_own(schedule: str, prediction: str) -> None:
    t = torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    clean, noise, x, alpha, sigma = noisy(schedule, t)
    output = torch.randn_like(x)
    denoiser = Denoiser(SCHEDULES[schedule], prediction, Constant(output))
    of_clean = (denoiser(x, t, torch.zeros(20, 0)) - clean).square().mean(dim=(1, 2))
    of_output = (output - PREDICTIONS[prediction].target(clean, noise, alpha, sigma)).square().mean(dim=(1, 2))
    under_cap = denoiser.weight(t) < PREDICTIONS[prediction].weight_cap
    assert under_cap.sum() >= (2 if (schedule, prediction) == ("edm", "v") else 8)
    torch.testing.assert_close((denoiser.weight(t) * of_clean)[under_cap], of_output[under_cap])


@every_schedule
def test_the_weight_of_noise_predictions_is_min_snr(schedule: str) -> None:
    t = torch.linspace(0.02, 0.98, 30, dtype=torch.float64)
    alpha, sigma = SCHEDULES[schedule].alpha(t), SCHEDULES[schedule].sigma(t)
    weight = Denoiser(SCHEDULES[schedule], "eps", Constant(torch.zeros(1))).weight(t)
    torch.testing.assert_close(weight, torch.minimum((alpha / sigma).square(), torch.tensor(5.0, dtype=torch.float64)))


@every_schedule
@every_prediction
def test_every_prediction_can_have_the_weights_of_others(schedule: str, prediction: str) -> None:
    t = torch.linspace(0.05, 0.95, 20, dtype=torch.float64)
    squared = (SCHEDULES[schedule].alpha(t) / SCHEDULES[schedule].sigma(t)).square()
    denoiser = Denoiser(SCHEDULES[schedule], prediction, Constant(torch.zeros(1)))
    torch.testing.assert_close(denoiser.weight(t, "min-snr"), squared.clamp(max=5))
    torch.testing.assert_close(denoiser.weight(t, "edm"), squared + 1 / SIGMA_DATA**2)
    assert torch.equal(denoiser.weight(t, "own"), denoiser.weight(t))


@every_schedule
def test_edms_network_reads_and_is_asked_for_numbers_of_unit_variance(schedule: str) -> None:
    """The three scalings of arXiv:2206.00364, appendix B.6, as their own formulas for alpha = 1."""
    torch.manual_seed(0)
    t = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    alpha, sigma = (f(t)[:, None, None] for f in (SCHEDULES[schedule].alpha, SCHEDULES[schedule].sigma))
    clean, noise = SIGMA_DATA * torch.randn(7, 200, 100, dtype=t.dtype), torch.randn(7, 200, 100, dtype=t.dtype)
    x, seen = alpha * clean + sigma * noise, []
    network = nn.Module()
    network.forward = lambda x, *_: (seen.append(x), target)[1]  # type: ignore[method-assign]
    target = PREDICTIONS["edm"].target(clean, noise, alpha, sigma)
    torch.testing.assert_close(Denoiser(SCHEDULES[schedule], "edm", network)(x, t, torch.zeros(7, 0)), clean)
    for value in (seen[0], target):
        torch.testing.assert_close(value.std((1, 2)), torch.ones_like(t), rtol=0.02, atol=0)
    level, skipped = sigma / alpha, SIGMA_DATA**2 / ((sigma / alpha) ** 2 + SIGMA_DATA**2)
    out = level * SIGMA_DATA / (level**2 + SIGMA_DATA**2).sqrt()
    torch.testing.assert_close(target, (clean - skipped * x / alpha) / out)


@every_prediction
def test_a_network_reads_numbers_of_order_one_where_the_noise_explodes(prediction: str) -> None:
    seen: list[Tensor] = []
    network = nn.Module()
    network.forward = lambda x, *_: (seen.append(x), x)[1]  # type: ignore[method-assign]
    denoiser = Denoiser(SCHEDULES["edm"], prediction, network)
    denoiser(80 * torch.randn(1, 50, 50), torch.ones(1), torch.zeros(1, 0))
    assert float(seen[0].std()) == pytest.approx(1, rel=0.1)


@every_schedule
@every_prediction
def test_clean_chunk_and_weight_are_finite_at_both_ends(schedule: str, prediction: str) -> None:
    denoiser = Denoiser(SCHEDULES[schedule], prediction, Constant(torch.ones(2, 4, 3)))
    ends = torch.tensor([0.0, 1.0])
    assert denoiser(torch.ones(2, 4, 3), ends, torch.zeros(2, 0)).isfinite().all()
    assert denoiser.weight(ends).isfinite().all()
    assert SCHEDULES[schedule].alpha(torch.tensor(denoiser.t_max)) >= (0.999e-3 if prediction == "eps" else -1e-6)


def test_unknown_prediction_is_refused() -> None:
    with pytest.raises(InputError, match="score"):
        Denoiser(SCHEDULES["cosine"], "score", Constant(torch.zeros(1)))


def test_denoiser_can_be_copied_and_pickled() -> None:
    denoiser = Denoiser(SCHEDULES["cosine"], "v", MLP(4, 3, 5, MLPConfig(width=8, blocks=1)))
    args = torch.randn(2, 4, 3), torch.rand(2), torch.randn(2, 5)
    for other in (copy.deepcopy(denoiser), pickle.loads(pickle.dumps(denoiser))):
        assert torch.equal(other(*args), denoiser(*args))


def test_untrained_mlp_puts_out_zero_and_every_input_gets_a_gradient_once_it_does_not() -> None:
    torch.manual_seed(0)
    network = MLP(4, 3, 5, MLPConfig(width=16, blocks=2))
    x, t, obs = torch.randn(2, 4, 3), torch.rand(2), torch.randn(2, 5)
    assert torch.equal(network(x, t, obs), torch.zeros(2, 4, 3))
    nn.init.normal_(network.leave[1].weight)
    inputs = [value.requires_grad_() for value in (x, t, obs)]
    for gradient in torch.autograd.grad(network(x, t, obs).square().sum(), inputs):
        assert (gradient != 0).all()


def test_default_mlp_has_about_half_a_million_weights() -> None:
    count = sum(parameter.numel() for parameter in MLP(8, 5, 40).parameters())
    assert 400_000 < count < 600_000


def test_mlp_is_the_composition_of_its_layers() -> None:
    """As modules call them, hooks and all; the network applies their functions, which is quicker."""
    torch.manual_seed(0)
    network = MLP(4, 3, 5, MLPConfig(width=16, blocks=2))
    nn.init.normal_(network.leave[1].weight)
    x, t, obs = torch.randn(7, 4, 3), torch.rand(7), torch.randn(7, 5)
    first, *others = network.condition(torch.cat([obs, network.embed(t)], -1)).chunk(3, dim=-1)
    hidden = network.enter(x.flatten(1)) + first
    for block, shift in zip(network.blocks, others, strict=True):
        hidden = hidden + block.outer(nn.functional.silu(block.inner(block.norm(hidden)) + shift))
    assert torch.equal(network(x, t, obs), network.leave(hidden).view_as(x))
    assert torch.equal(network(x, network.embed(t), obs), network(x, t, obs))


def test_a_layer_that_was_replaced_is_called() -> None:
    network = MLP(4, 3, 5, MLPConfig(width=16, blocks=1))
    network.enter = nn.Sequential(network.enter, Constant(torch.zeros(2, 16)))  # type: ignore[assignment]
    outputs = [network(torch.full((2, 4, 3), value), torch.rand(2), torch.zeros(2, 5)) for value in (0.0, 9.0)]
    assert torch.equal(*outputs)


@every_schedule
@every_prediction
def test_a_moment_stands_for_its_time_to_the_bit(schedule: str, prediction: str) -> None:
    torch.manual_seed(0)
    network = MLP(4, 3, 5, MLPConfig(width=16, blocks=1))
    nn.init.normal_(network.leave[1].weight)
    denoiser = Denoiser(SCHEDULES[schedule], prediction, network)
    for t in (torch.tensor([0.37]), torch.tensor([denoiser.t_max]), torch.tensor([0.0])):
        for batch in (1, 4):
            x, obs = torch.randn(batch, 4, 3), torch.randn(batch, 5)
            assert torch.equal(denoiser(x, denoiser.at(t), obs), denoiser(x, t.expand(batch), obs))


def test_mlp_of_one_time_refuses_a_second() -> None:
    with pytest.raises(InputError, match="target time"):
        MLP(4, 3, 5)(torch.zeros(1, 4, 3), torch.zeros(1), torch.zeros(1, 5), torch.zeros(1))


@pytest.mark.parametrize("sizes", [{"width": 0}, {"blocks": 0}, {"time_dim": 3}])
def test_impossible_network_sizes_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(InputError, match="time_dim"):
        MLPConfig(**sizes)
