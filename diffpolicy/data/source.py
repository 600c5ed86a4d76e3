"""Sources: a source is a pure function of (seed, index) that gives a batch, walked lazily."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffpolicy.data.batch import Demo
from diffpolicy.data.windows import Windows
from diffpolicy.errors import InputError

__all__ = ["shuffled"]

ROWS_AT_ONCE = 2048  # windows looked up at a time: a small batch costs little more than the calls that gather it


def shuffled(windows: Windows, batch_size: int, seed: int) -> Callable[[int], Demo]:
    """Batches of `batch_size` windows, each epoch in a new order; batch `index` is fixed by (seed, index).

    The epochs lie end to end and are cut into batches, so a batch may span two epochs, every window comes
    exactly once an epoch, and a table smaller than the batch is repeated to fill it. Batches are views of a
    block that is gathered at once: do not write into them. Raises InputError on an empty table, a batch_size
    below 1, or a negative seed or index.
    """
    size = len(windows)
    if size < 1 or batch_size < 1 or seed < 0:
        raise InputError(
            f"shuffled: expected at least 1 window, batch_size >= 1 and seed >= 0, got {size} windows, "
            f"batch_size={batch_size}, seed={seed}. A table is empty where no label is valid."
        )

    @lru_cache(maxsize=2)
    def order(epoch: int) -> Tensor:  # (M,)
        random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch,)))
        return torch.from_numpy(random.permutation(size))

    count = max(ROWS_AT_ONCE // batch_size, 1)  # batches in a block

    @lru_cache(maxsize=1)
    def block(number: int) -> list[Demo]:
        begin, end = number * count * batch_size, (number + 1) * count * batch_size
        parts = []
        while begin < end:
            epoch, offset = divmod(begin, size)
            parts.append(order(epoch)[offset : offset + end - begin])
            begin += len(parts[-1])
        return windows.gather(torch.cat(parts)).split(batch_size)

    def batch(index: int) -> Demo:
        if index < 0:
            raise InputError(f"source: expected an index from 0, got {index}.")
        return block(index // count)[index % count]

    return batch
