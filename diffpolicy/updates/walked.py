"""Windows with the teacher's chains on them, each in several updates: a source for paired distillation.

Shapes: B batch, K steps of the student, H chunk length, A action.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from diffpolicy.data.batch import Demo
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import Windows
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.updates.distilling import walk

__all__ = ["Walked"]

_CHAINS = 8192  # of a block: several hundred updates lie between two uses of most of its chains
_AT_ONCE = 512  # chains that are drawn together


class Walked:
    """Batches (B) of windows with chains (K+1, B, H, A) of an `aligned` teacher, drawn in blocks as they are needed.

    A block is windows in their next order, each with a noise of its own, shuffled anew for each of its `reuse` passes:
    a chain of twenty calls is drawn once and learned from `reuse` times. Batch `index` is fixed by (seed, index) and
    the other arguments.
    """

    def __init__(
        self, windows: Windows, teacher: Policy, steps: int, batch_size: int, updates: int, reuse: int, seed: int
    ) -> None:
        """For a student of K `steps` that makes so many `updates`; raises InputError on what gives no batch."""
        if min(steps, batch_size, updates, reuse) < 1:
            raise InputError(
                f"expected steps, batch_size, updates and reuse >= 1, got {steps}, {batch_size}, {updates} and {reuse}"
            )
        self._teacher, self._steps, self._batch, self._reuse, self._seed = teacher, steps, batch_size, reuse, seed
        self._size = max(batch_size, min(_CHAINS, math.ceil(updates * batch_size / reuse)))  # chains of a block
        self._updates = self._size * reuse // batch_size  # of a block
        self._blocks = math.ceil(updates / self._updates)
        self._source = shuffled(windows, self._size, seed)
        self._block = lru_cache(maxsize=1)(self._drawn)  # of this object, and gone with it

    @property
    def teacher_calls(self) -> int:
        """Calls of the teacher's network for all of the updates, each for one chain."""
        return self._blocks * self._size * self._teacher.calls

    def __call__(self, index: int) -> Demo:
        """The batch of an update. Raises InputError on a negative index."""
        number, place = divmod(index, self._updates)
        whole, order = self._block(number)
        rows = order[place * self._batch : (place + 1) * self._batch]
        assert whole.chain is not None
        obs = {name: value[rows] for name, value in whole.obs.items()}
        return Demo(obs, whole.chunk[rows], whole.mask[rows], whole.held, whole.chain[:, rows])

    def _drawn(self, number: int) -> tuple[Demo, torch.Tensor]:
        """A block, and the order of its rows in all of its passes."""
        whole = self._source(number)
        random = torch.Generator().manual_seed(
            int(np.random.SeedSequence([self._seed, number]).generate_state(1, np.uint64)[0] >> 1)
        )
        parts = []
        with torch.no_grad():
            for features in torch.split(self._teacher.encoder(whole.obs), _AT_ONCE):
                shape = (len(features), *whole.chunk.shape[1:])
                noise = torch.randn(shape, generator=random).to(features)
                parts.append(walk(self._teacher, features, noise, self._steps).cpu())
        passes = [torch.randperm(self._size, generator=random) for _ in range(self._reuse)]
        return Demo(whole.obs, whole.chunk, whole.mask, whole.held, torch.cat(parts, 1)), torch.cat(passes)
