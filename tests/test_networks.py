"""Laws of the networks: one call, rows apart, any chunk, zero at first; and an MLP that is what it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffpolicy.diffusion import (
    MLP,
    SCHEDULES,
    Denoiser,
    MLPConfig,
    Network,
    NetworkConfig,
    TransformerConfig,
    UNetConfig,
    make_network,
)
from diffpolicy.errors import InputError

KINDS: dict[str, Callable[[bool], NetworkConfig]] = {
    "mlp": lambda two: MLPConfig(16, 2, 6, two),
    "unet": lambda two: UNetConfig(16, 3, 3, 6, two),
    "unet of one level": lambda two: UNetConfig(16, 1, 5, 6, two),
    "transformer": lambda two: TransformerConfig(16, 2, 2, 6, two),
}
every_kind = pytest.mark.parametrize("kind", KINDS)
one_time_or_two = pytest.mark.parametrize("two", [False, True], ids=["t", "t and s"])


def inputs(batch: int, horizon: int, action: int, two: bool = False) -> list[Tensor]:
    """x, t, obs, and s where there is one."""
    some = [torch.randn(batch, horizon, action), torch.rand(batch), torch.randn(batch, 5)]
    return [*some, torch.rand(batch)] if two else some


def trained(kind: str, two: bool = False, horizon: int = 5, action: int = 3, steps: int = 4) -> Network:
    """A network after a few steps of training on noise."""
    torch.manual_seed(0)
    network = make_network(KINDS[kind](two), horizon, action, 5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        given = inputs(8, horizon, action, two)
        (network(*given) - torch.randn(8, horizon, action)).square().mean().backward()
        optimiser.step()
    return network


@every_kind
@one_time_or_two
@pytest.mark.parametrize("horizon", [1, 5, 16])
@pytest.mark.parametrize("action", [1, 7])
def test_any_chunk_goes_in_and_comes_out(kind: str, two: bool, horizon: int, action: int) -> None:
    torch.manual_seed(0)
    network = make_network(KINDS[kind](two), horizon, action, 5)
    for batch in (1, 3):
        out = network(*inputs(batch, horizon, action, two))
        assert torch.equal(out, torch.zeros(batch, horizon, action)), "an untrained network puts out 0"
    assert trained(kind, two, horizon, action)(*inputs(2, horizon, action, two)).abs().min() > 0


@every_kind
@one_time_or_two
def test_a_row_does_not_depend_on_the_others(kind: str, two: bool) -> None:
    network, given, others = trained(kind, two), inputs(4, 5, 3, two), inputs(4, 5, 3, two)
    together = network(*given)
    for row in range(4):
        mixed = [torch.cat([b[:row], a[row : row + 1], b[row + 1 :]]) for a, b in zip(given, others, strict=True)]
        torch.testing.assert_close(network(*mixed)[row], together[row], atol=1e-6, rtol=1e-6)
        alone = network(*(a[row : row + 1] for a in given))
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=1e-6)


@every_kind
@one_time_or_two
def test_every_input_matters_and_every_parameter_learns_after_a_few_steps(kind: str, two: bool) -> None:
    network = trained(kind, two)
    given = [value.requires_grad_() for value in inputs(8, 5, 3, two)]
    network.zero_grad()
    network(*given).square().sum().backward()
    for value in given:
        assert value.grad is not None
        assert (value.grad.flatten(1) if value.dim() > 1 else value.grad[:, None]).abs().sum(1).min() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0, name


@every_kind
def test_each_action_of_a_chunk_reaches_each_other(kind: str) -> None:
    network = trained(kind, horizon=8)
    x, t, obs = inputs(1, 8, 3)
    sensitivity = torch.func.jacrev(lambda x: network(x, t, obs))(x)
    assert (sensitivity.abs().sum(dim=(0, 2, 3, 5)) > 0).all()  # (H, H)


@every_kind
@one_time_or_two
def test_times_may_be_given_as_what_embed_makes_of_them(kind: str, two: bool) -> None:
    network, (x, t, obs, *s) = trained(kind, two), inputs(3, 5, 3, two)
    expected = network(x, t, obs, *s)
    assert torch.equal(network(x, network.embed(t), obs, *map(network.embed, s)), expected)
    frozen = network.embed(t)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    assert torch.equal(network.embed(t), frozen), "a function without weights"


@every_kind
def test_a_moment_stands_for_its_time_to_the_bit(kind: str) -> None:
    denoiser = Denoiser(SCHEDULES["cosine"], "v", trained(kind))
    t = torch.tensor([0.37])
    for batch in (1, 4):
        x, _, obs = inputs(batch, 5, 3)
        assert torch.equal(denoiser(x, denoiser.at(t), obs), denoiser(x, t.expand(batch), obs))


@every_kind
def test_a_second_time_is_asked_for_where_it_is_read_and_refused_elsewhere(kind: str) -> None:
    with pytest.raises(InputError, match="expected s=None, got a target time"):
        make_network(KINDS[kind](False), 4, 3, 5)(*inputs(2, 4, 3, two=True))
    with pytest.raises(InputError, match="expected a target time s, got None"):
        make_network(KINDS[kind](True), 4, 3, 5)(*inputs(2, 4, 3))


@every_kind
@one_time_or_two
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, the first time
def test_forward_derivatives_exist(kind: str, two: bool) -> None:
    """As methods of two times take them, along the flow; against a difference, in double precision."""
    network = trained(kind, two).double()
    x, t, *rest = (value.double() for value in inputs(3, 5, 3, two))
    along = torch.randn_like(x)
    derivative = torch.func.jvp(lambda x, t: network(x, t, *rest), (x, t), (along, torch.ones_like(t)))[1]
    step = 1e-5
    ends = [network(x + sign * step * along, t + sign * step, *rest) for sign in (1, -1)]
    torch.testing.assert_close(derivative, (ends[0] - ends[1]) / (2 * step), atol=1e-6, rtol=1e-6)


@every_kind
def test_a_compiler_takes_each_as_one_graph(kind: str) -> None:
    network, given = trained(kind), inputs(3, 5, 3)
    torch.compiler.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*given), network(*given))


@pytest.mark.parametrize(
    ("config", "least", "most"), [(MLPConfig(), 4e5, 6e5), (UNetConfig(), 5e5, 1e6), (TransformerConfig(), 7e5, 1.3e6)]
)
def test_default_sizes_suit_two_cores(config: NetworkConfig, least: float, most: float) -> None:
    assert least < sum(parameter.numel() for parameter in make_network(config, 16, 7, 40).parameters()) < most


def test_the_mlp_is_the_one_of_earlier_checkpoints() -> None:
    """Names, shapes, order of initialisation and output as they were before there were other networks."""
    torch.manual_seed(0)
    network = MLP(6, 3, 5, MLPConfig(width=16, blocks=2, time_dim=6))
    block = ["norm.weight", "norm.bias", "inner.weight", "inner.bias", "outer.weight", "outer.bias"]
    assert list(network.state_dict()) == [
        *("enter.weight", "enter.bias", "condition.weight", "condition.bias"),
        *(f"blocks.{number}.{name}" for number in (0, 1) for name in block),
        *("leave.0.weight", "leave.0.bias", "leave.1.weight", "leave.1.bias"),
    ]
    sums = torch.tensor([float(value.double().abs().sum()) for value in network.state_dict().values()])
    drawn = [33.6307, 1.4124, 82.6284, 5.8364, 16, 0, 33.3966, 2.1987, 33.7572, 1.971, 16, 0, 31.4034, 2.357, 30.9447]
    torch.testing.assert_close(sums, torch.tensor([*drawn, 2.1873, 16, 0, 0, 0]), atol=1e-3, rtol=0)
    with torch.no_grad():
        for number, value in enumerate(network.parameters()):
            wave = torch.arange(value.numel(), dtype=torch.float64) * 0.7 + number
            value.copy_((0.5 * wave.sin()).view_as(value))
    x = torch.linspace(-1, 1, 36, dtype=torch.float64).float().view(2, 6, 3)
    out = network(x, torch.tensor([0.25, 0.8]), torch.linspace(-2, 2, 10).view(2, 5)).detach()
    recorded = [2.35234, 3.00722, 3.6512, 1.85859, -0.35353, -2.90647, -2.9178, -3.44547]
    torch.testing.assert_close(out.flatten()[::5], torch.tensor(recorded), atol=3e-5, rtol=0)
