"""Laws of the noise schedules."""

from __future__ import annotations

import pytest
import torch

from diffpolicy.diffusion import SCHEDULES, Schedule, Tabulated
from diffpolicy.diffusion.schedule import ratio
from diffpolicy.errors import InputError

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@every_schedule
def test_time_zero_is_clean(schedule: Schedule) -> None:
    zero = torch.zeros(1, dtype=torch.float64)
    assert (float(schedule.alpha(zero)), float(schedule.sigma(zero))) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "alpha", "sigma"),
    [("cosine", 0, 1), ("straight", 0, 1), ("linear", 0.00657, 1), ("squaredcos", 0.000493, 1), ("edm", 1, 80)],
)
def test_time_one_is_noise(name: str, alpha: float, sigma: float) -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert float(SCHEDULES[name].alpha(one)) == pytest.approx(alpha, rel=1e-3, abs=1e-9)
    assert float(SCHEDULES[name].sigma(one)) == pytest.approx(sigma, rel=1e-4)


@every_schedule
def test_the_time_of_a_ratio_is_its_inverse(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    torch.testing.assert_close(schedule.time(ratio(schedule, t)), t, rtol=0, atol=1e-12)
    ends = schedule.time(torch.tensor([0.0, 1e300, float("inf")], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([0, 1, 1])
    assert ends.max() <= 1


@every_schedule
def test_both_weights_have_finite_gradients_at_every_time(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 11, requires_grad=True)
    for weight in (schedule.alpha, schedule.sigma):
        assert torch.autograd.grad((t + weight(t)).sum(), t)[0].isfinite().all()


@every_schedule
def test_signal_to_noise_ratio_falls_strictly(schedule: Schedule) -> None:
    t = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    ratio = (schedule.alpha(t) / schedule.sigma(t)).log()
    assert (ratio.diff() < 0).all()


@pytest.mark.parametrize("name", ["cosine", "linear", "squaredcos"])
def test_variance_is_preserved(name: str) -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = SCHEDULES[name]
    total = schedule.alpha(t).square() + schedule.sigma(t).square()
    torch.testing.assert_close(total, torch.ones_like(t))


def test_straight_line_has_constant_velocity() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule = SCHEDULES["straight"]
    torch.testing.assert_close(schedule.alpha(t).diff(), torch.full((10,), -0.1, dtype=torch.float64))
    torch.testing.assert_close(schedule.sigma(t).diff(), torch.full((10,), 0.1, dtype=torch.float64))


def test_uniform_times_of_the_exploding_schedule_are_nearly_karrass_grid() -> None:
    t = torch.linspace(1, 0, 18, dtype=torch.float64)
    root = 80 ** (1 / 7) * t + 0.002 ** (1 / 7) * (1 - t)
    torch.testing.assert_close(SCHEDULES["edm"].sigma(t), root**7 - 0.002, rtol=1e-4, atol=1e-12)


def test_a_table_is_met_at_its_times_and_angles_are_straight_between() -> None:
    squares = (0.9, 0.6, 0.1, 0.0)
    table, at = Tabulated(squares), torch.arange(1, 5, dtype=torch.float64) / 4
    torch.testing.assert_close(table.alpha(at).square(), torch.tensor(squares, dtype=torch.float64), rtol=0, atol=1e-12)
    fine = torch.linspace(0.25, 0.5, 5, dtype=torch.float64)
    assert ratio(table, fine).atan().diff(2).abs().max() < 1e-12


@pytest.mark.parametrize("squares", [(), (1.0, 0.5), (0.5, 0.5), (0.5, 0.6), (0.5, -0.1), (float("nan"),)])
def test_a_table_that_does_not_fall_is_refused(squares: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="fall strictly"):
        Tabulated(squares)
