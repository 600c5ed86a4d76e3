"""The loss of a policy on windows of a table under times and noise that are the same at every call.

Shapes: M windows, N those of them that count.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from diffpolicy.data.windows import Windows
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.updates.regression import Regression

__all__ = ["WINDOWS_MOST", "chosen", "fixed_loss"]

WINDOWS_MOST = 8192  # that validation looks at: more would cost as much as training does
WINDOWS_AT_ONCE = 512
_KEY = 0x56414C4944415445  # of times and noise: longer than any seed of training, so that no draw is shared


def chosen(windows: Windows, size: int, seed: int) -> Tensor:
    """`size` of the M windows by number (N,), in an order that the seed draws; where M < size, some come again."""
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_KEY,)))
    return torch.from_numpy(np.resize(random.permutation(len(windows)), size))


def fixed_loss(update: Regression, policy: Policy, windows: Windows, index: Tensor) -> float:
    """The loss that `update` trains, but of `policy`, which is of the same make, on the windows `index` (N,).

    The i-th of them has the same time and noise in every call, and nothing of the update is drawn or changed: two
    losses differ by weights and windows alone. It is computed in float32 and not compiled, a few windows at a time;
    its mean is over the real entries of all chunks. Raises InputError where there is no window.
    """
    if not len(index):
        raise InputError("expected at least one window to compute a loss on, got none; hold out more demonstrations")
    config = replace(update.config, precision="float32", compile=False)
    probe = Regression(policy, 1, config, seed=_KEY, target=update.target, teacher=update.teacher)
    policy.eval()
    total, count = 0.0, 0.0
    with torch.no_grad():
        for number, rows in enumerate(torch.split(index, WINDOWS_AT_ONCE)):
            probe.step, batch = number, windows.gather(rows)
            real = float(batch.mask.sum())
            total += real * float(probe.loss(batch))
            count += real
    return total / max(count, 1.0)
