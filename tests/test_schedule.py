"""Laws of the noise schedules."""

from __future__ import annotations

import pytest
import torch

from diffpolicy.diffusion import SCHEDULES, Schedule

every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)


@every_schedule
def test_time_zero_is_clean_and_time_one_is_noise(schedule: Schedule) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(schedule.alpha(ends), torch.tensor([1.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(schedule.sigma(ends), torch.tensor([0.0, 1.0], dtype=torch.float64))


@every_schedule
def test_signal_to_noise_ratio_falls_strictly(schedule: Schedule) -> None:
    t = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    ratio = (schedule.alpha(t) / schedule.sigma(t)).log()
    assert (ratio.diff() < 0).all()


def test_cosine_schedule_preserves_variance() -> None:
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    schedule = SCHEDULES["cosine"]
    total = schedule.alpha(t).square() + schedule.sigma(t).square()
    torch.testing.assert_close(total, torch.ones_like(t))


def test_straight_line_has_constant_velocity() -> None:
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    schedule = SCHEDULES["straight"]
    torch.testing.assert_close(schedule.alpha(t).diff(), torch.full((10,), -0.1, dtype=torch.float64))
    torch.testing.assert_close(schedule.sigma(t).diff(), torch.full((10,), 0.1, dtype=torch.float64))
