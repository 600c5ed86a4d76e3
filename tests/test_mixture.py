"""Laws of the Gaussian and of the mixture head: a density that integrates to one, and draws that follow it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from diffpolicy.diffusion import (
    Components,
    MixtureHead,
    MLPConfig,
    NetworkConfig,
    SamplerConfig,
    TransformerConfig,
    UNetConfig,
    make_network,
)
from diffpolicy.diffusion.mixture import STD_MAX, STD_MIN
from diffpolicy.errors import InputError

H, A, C = 3, 2, 4
NETWORKS = [MLPConfig(16, 1, 6), UNetConfig(16, 2, 3, 6), TransformerConfig(16, 1, 2, 6)]


def make(modes: int = 3, network: NetworkConfig = NETWORKS[0], shape: tuple[int, int] = (H, A), **sampler: Any) -> Any:
    """A head with random, not zero, output."""
    torch.manual_seed(0)
    horizon, width = shape
    made = make_network(network, horizon, width, C, MixtureHead.outputs(modes, width))
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    settings = SamplerConfig(**{"steps": 1, "temperature": 1.0, "clip": None, **sampler})
    return MixtureHead(made, modes, horizon, width, settings)


def observed(rows: int) -> Tensor:
    return torch.randn(rows, C, generator=torch.Generator().manual_seed(1))


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("modes", [1, 4])
def test_the_density_integrates_to_one(modes: int) -> None:
    head, grid = make(modes, shape=(1, 1)), torch.linspace(-12, 12, 40_001, dtype=torch.float64)
    with torch.no_grad():
        density = head.log_prob(grid[:, None, None], observed(1).expand(len(grid), C)).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=1e-5)


def test_the_density_is_scipys_and_the_mask_takes_a_marginal() -> None:
    head, obs, chunk = make(), observed(5), drawn(5, H, A)
    mask = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 1]])
    with torch.no_grad():
        logits, mean, std = head.components(obs)
        found, marginal = head.log_prob(chunk, obs), head.log_prob(chunk, obs, mask)
    each = stats.norm.logpdf(chunk[:, None].numpy(), mean.numpy(), std.numpy())  # (B, M, H, A)
    weights = logits.softmax(-1).numpy()
    np.testing.assert_allclose(found, np.log((weights * np.exp(each.sum((2, 3)))).sum(1)), rtol=1e-4)
    each = (each * mask[:, None, :, None].numpy()).sum((2, 3))
    np.testing.assert_allclose(marginal, np.log((weights * np.exp(each)).sum(1)), rtol=1e-4, atol=1e-6)
    assert float(marginal[3]) == pytest.approx(0, abs=1e-6)  # of nothing


def test_training_raises_the_likelihood_and_weighs_each_element_by_its_std() -> None:
    """In value it is the log-density; its gradient is that of each element times the element's std."""
    torch.manual_seed(0)
    chunk, mask = drawn(5, H, A), torch.ones(5, H)
    mask[1:, -1] = 0
    told, untold = (
        Components(*(x.clone().requires_grad_() for x in (drawn(5, 4), drawn(5, 4, H, A), drawn(5, 4, H, A).exp())))
        for _ in range(2)
    )
    found, expected = told.objective(chunk, mask), untold.log_prob(chunk, mask)
    torch.testing.assert_close(found, expected)
    for one in (found, expected):
        one.sum().backward()
    torch.testing.assert_close(told.logits.grad, untold.logits.grad)
    for ours, plain in ((told.mean, untold.mean), (told.std, untold.std)):
        assert plain.grad is not None
        torch.testing.assert_close(ours.grad, told.std.detach() * plain.grad)


def test_components_are_drawn_in_their_shares() -> None:
    rows, share = 200_000, torch.tensor([0.5, 0.02, 0.18, 0.3])
    components = Components(share.log().expand(rows, 4), torch.zeros(rows, 4, 1, 1), torch.ones(rows, 4, 1, 1))
    found = components.chosen(drawn(rows)).bincount(minlength=4) / rows
    torch.testing.assert_close(found, share, atol=4e-3, rtol=0)
    far = components.chosen(torch.tensor([-40.0, 40.0]).repeat(rows // 2))
    assert far.unique().tolist() == [0, 3]


def test_draws_follow_the_density() -> None:
    """The probability integral transform of draws is uniform, which the Kolmogorov-Smirnov test holds them to."""
    head, rows = make(2, shape=(1, 1)), 20_000
    with torch.no_grad():
        obs = observed(1).expand(rows, C)
        logits, mean, std = (one[:1].double().flatten() for one in head.components(obs))
        chunk = head.draw(obs, drawn(2, rows, 1, 1)).flatten().double()
    levels = (logits.softmax(-1) * torch.special.ndtr((chunk[:, None] - mean) / std)).sum(-1)
    assert stats.kstest(levels.numpy(), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: n.kind)
def test_a_draw_is_a_whole_component_and_its_noise_is_scaled(network: NetworkConfig) -> None:
    head, obs, noise = make(3, network, temperature=0.5), observed(64), drawn(2, 64, H, A)
    with torch.no_grad():
        logits, mean, std = head.components(obs)
        means, chunk = head.draw(obs, noise[0]), head.draw(obs, noise)
        index = Components(logits, mean, std).chosen(noise[0, :, 0, 0])
    assert len(index.unique()) > 1
    rows = torch.arange(64)
    torch.testing.assert_close(means, mean[rows, index])
    torch.testing.assert_close(chunk - means, 0.5 * std[rows, index] * noise[1], atol=1e-6, rtol=1e-5)
    assert ((std > STD_MIN) & (std < STD_MAX)).all()
    other = noise[0].clone()
    other[:, 1:] += 1.0  # only the first number chooses
    assert torch.equal(head.draw(obs, other), means)


def test_one_call_a_chunk_and_means_stay_within_the_clip() -> None:
    head, calls = make(clip=0.1, temperature=0.0), list[int]()
    head.network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    with torch.no_grad():
        chunk = head.draw(observed(7), drawn(7, H, A))
    assert calls == [7]
    assert (head.calls, len(head), head.stochastic) == (1, 1, False)
    assert float(chunk.abs().max()) == pytest.approx(0.1)


def test_a_gaussian_does_not_look_at_the_noise_that_chooses() -> None:
    head, obs = make(1), observed(4)
    assert torch.equal(head.draw(obs, drawn(4, H, A)), head.draw(obs, -drawn(4, H, A)))


def test_untrained_components_differ_and_their_weights_are_equal() -> None:
    network = make_network(MLPConfig(16, 1, 6), H, A, C, MixtureHead.outputs(4, A))
    with torch.no_grad():
        logits, mean, std = MixtureHead(network, 4, H, A).components(observed(2))
    assert len({tuple(row.flatten().tolist()) for row in mean[0]}) == 4
    assert torch.equal(logits, torch.zeros(2, 4))
    assert float(std.min()) == float(std.max()) == pytest.approx((STD_MIN + STD_MAX) / 2)


def test_what_has_no_density_and_what_is_no_noise_is_refused() -> None:
    with pytest.raises(InputError, match="temperature > 0, got 0"):
        make(temperature=0.0).log_prob(drawn(1, H, A), observed(1))
    for shape in ((3, 1, H, A), (1, 1, H, A), (H, A)):
        with pytest.raises(InputError, match=r"\(2, B, H, A\)"):
            make().draw(observed(1), torch.zeros(shape))


def test_the_likelihood_of_a_constant_is_bounded() -> None:
    """However long a head is trained on an action that never changes, its density there stays below its bound."""
    head = make(1, shape=(1, 1))
    torch.nn.init.constant_(head.network.leave[1].bias, -1e4)
    with torch.no_grad():
        logits, mean, std = head.components(observed(3))
        density = Components(logits, mean, std).log_prob(mean[:, 0])
    torch.testing.assert_close(density, torch.full((3,), float(stats.norm.logpdf(0, 0, STD_MIN))))
