"""Laws of the times that are trained and of the weights of their losses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_regression import A, H, make_batch, make_policy

from diffpolicy.diffusion.schedule import ratio
from diffpolicy.training.fit import fit
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Draw, Regression


def test_lognormal_times_are_those_of_edm_whatever_the_schedule() -> None:
    for schedule in ("straight", "linear", "edm"):
        update = Regression(make_policy("edm", schedule), 10, RegressionConfig(times="lognormal", t_min=1e-6))
        draw = update._draw(torch.zeros(4096, 1), torch.zeros(4096, H, A))
        levels = ratio(update.policy.denoiser.schedule, draw.t.double()).log()
        assert float(levels.mean()) == pytest.approx(-1.2, abs=0.06)
        assert float(levels.std()) == pytest.approx(1.2, abs=0.05)


def test_weights_of_the_loss_can_be_chosen() -> None:
    losses = []
    for weights in ("own", "min-snr", "edm"):
        policy = make_policy()
        asked = Regression(policy, 10, RegressionConfig(weights=weights)).target(  # type: ignore[arg-type]
            Draw(torch.zeros(3, 1), torch.zeros(3, H, A), torch.tensor([0.1, 0.5, 0.9]), torch.zeros(3, H, A)),
            policy,
            None,  # type: ignore[arg-type]
            None,
        )
        assert torch.equal(asked.weight, policy.denoiser.weight(torch.tensor([0.1, 0.5, 0.9]), weights))
        losses.append(asked.weight.tolist())
    assert losses[0] != losses[1] != losses[2]


@pytest.mark.parametrize("schedule", ["linear", "squaredcos", "edm"])
def test_edms_preconditioned_network_learns_on_every_schedule(schedule: str) -> None:
    losses: list[float] = []
    update = Regression(make_policy("edm", schedule), 100, RegressionConfig(warmup=10, times="lognormal"))
    fit(update, lambda _: make_batch(size=64), 100, lambda _, metrics: losses.append(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.7 * np.mean(losses[:10])
