"""Laws of grids and of changes of schedule, on Gaussian data whose exact flow is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gaussian import NOISE, OBS, every_schedule, flow, sampler, trained

from diffpolicy.diffusion import SCHEDULES
from diffpolicy.diffusion.schedule import ratio
from diffpolicy.errors import InputError


@every_schedule
@pytest.mark.parametrize("inside", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_on_matched_grids_the_schedule_makes_no_difference(schedule: str, inside: str, eta: float, solver: str) -> None:
    """x' = c x at an equal sigma / alpha: DDIM, DDPM and DPM-Solver++ are the same chain in other clothes."""
    if eta and solver != "ddim":
        return
    levels = torch.tensor([60.0, 9.0, 2.0, 0.5, 0.1, 0.02], dtype=torch.float64)
    noise = torch.randn(6, 64, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = []
    for chosen in (schedule, inside):
        times = tuple(SCHEDULES[chosen].time(levels).tolist())
        chain = sampler(schedule, steps=5, times=times, schedule=chosen, eta=eta, solver=solver)
        x = chain.sample(OBS, noise).x
        found.append(x / chain.schedule.alpha(chain.grid())[:, None, None, None])
    torch.testing.assert_close(found[0], found[1], rtol=2e-5, atol=1e-6)  # times are kept in 32 bits


@every_schedule
@pytest.mark.parametrize("inside", SCHEDULES)
def test_a_change_of_schedule_leaves_the_end_of_the_flow_where_it_is(schedule: str, inside: str) -> None:
    """From an equal start, since where noise is not pure the flow itself begins elsewhere."""
    errors = []
    for steps in (64, 256):
        chain = sampler(schedule, steps=steps, schedule=inside, solver="heun", grid="karras", sigma_max=60.0)
        x = chain.sample(OBS, NOISE).x
        ours, theirs = chain.grid()[:1], SCHEDULES[schedule].time(ratio(chain.schedule, chain.grid()[:1]))
        start = x[0] / chain.schedule.alpha(ours) * SCHEDULES[schedule].alpha(theirs)
        end = flow(SCHEDULES[schedule], start, theirs, torch.zeros(1, dtype=torch.float64))
        errors.append(float((x[-1] - end).abs().mean()))
    assert errors[1] < 1.5e-4
    assert errors[1] < errors[0] / 8


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow", "edm"])
@every_schedule
@pytest.mark.parametrize("inside", SCHEDULES)
def test_one_network_runs_under_every_schedule_and_solver(schedule: str, inside: str, prediction: str) -> None:
    noise, obs = torch.randn(3, 4, 2), torch.randn(3, 3)
    for solver, grid in (("ddim", "uniform"), ("heun", "karras"), ("dpm++", "log-snr")):
        chain = trained(prediction, schedule, schedule=inside, solver=solver, grid=grid, steps=3)
        assert chain.draw(obs, noise).isfinite().all()


@every_schedule
def test_grids_in_sigma_have_their_ends_and_their_spacing(schedule: str) -> None:
    for grid, spaced in (("karras", lambda r: r ** (1 / 5)), ("log-snr", torch.log)):
        given = {"rho": 5.0, "sigma_min": 0.01, "sigma_max": 20.0, "steps": 9, "grid": grid}
        levels = ratio(SCHEDULES[schedule], sampler(schedule, **given).grid())
        assert levels[-1] == 0
        assert levels[[0, -2]].tolist() == pytest.approx([20, 0.01], rel=1e-3)
        torch.testing.assert_close(spaced(levels[:-1]).diff(2), torch.zeros(7, dtype=torch.float64), rtol=0, atol=2e-4)
        last = ratio(SCHEDULES[schedule], sampler(schedule, **given, t_min=0.3).grid())
        assert last[-1] == pytest.approx(float(ratio(SCHEDULES[schedule], torch.tensor(0.3))), rel=1e-4)
        torch.testing.assert_close(spaced(last).diff(2), torch.zeros(8, dtype=torch.float64), rtol=0, atol=2e-4)


def test_a_chain_starts_from_as_much_noise_as_its_schedule_says() -> None:
    for name, first in (("straight", 1.0), ("edm", 80.0), ("linear", 1.0)):
        x = sampler(name).sample(OBS, NOISE).x[0]
        torch.testing.assert_close(x, first * NOISE, rtol=1e-4, atol=0)
    assert torch.equal(sampler("straight").sample(OBS, NOISE).x[0], NOISE)
    early = sampler("straight", steps=2, times=(0.6, 0.3, 0.0)).sample(OBS, NOISE).x[0]
    torch.testing.assert_close(early, 0.6 * NOISE, rtol=1e-6, atol=0)


def test_a_chain_in_another_schedule_starts_no_later_than_was_trained() -> None:
    chain = trained("eps", "linear", schedule="cosine")
    assert ratio(chain.schedule, chain.grid().double())[0] <= 153
    with pytest.raises(InputError, match="begin the grid later"):
        trained("eps", "linear", schedule="cosine", steps=1, times=(1.0, 0.0))


def test_a_grid_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="sigma_min"):
        sampler("straight", grid="karras", sigma_min=5.0, sigma_max=1.0)


@pytest.mark.parametrize("times", [(1.0, 1 - 1e-11, 0.0), None])
def test_times_that_are_the_same_in_32_bits_are_refused(times: tuple[float, ...] | None) -> None:
    settings: dict[str, Any] = {"steps": 2, "times": times} if times else {"steps": 4, "t_min": 1 - 1e-11}
    with pytest.raises(InputError, match="times that fall, also in 32 bits"):
        sampler("straight", **settings)
