"""Noise that depends on what is being decided and on nothing else: not on the batch, not on the order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["counter_noise"]

_WORD = 2**64 - 1  # keys and counters are unsigned 64-bit words


def counter_noise(
    seed: int, episodes: NDArray[np.int64], decisions: NDArray[np.int64], shape: Sequence[int]
) -> NDArray[np.float32]:
    """Standard normal numbers (N, *shape), row n a pure function of (seed, episodes[n], decisions[n]).

    Each row is a stream of the counter-based generator Philox (Salmon et al., SC 2011), keyed by (seed,
    episode) with the decision in the highest word of its counter. A longer shape continues a shorter one: the
    first (H, A) numbers of a row of (K+1, H, A) are those of a row of (H, A).
    """
    bits = np.random.Philox(key=0)
    generator = np.random.Generator(bits)
    rows = np.empty((len(episodes), *shape), np.float32)
    for row, episode, decision in zip(rows, episodes.tolist(), decisions.tolist(), strict=True):
        key = np.array([seed & _WORD, episode & _WORD], np.uint64)
        counter = np.array([0, 0, 0, decision & _WORD], np.uint64)
        bits.state = {
            "bit_generator": "Philox",
            "state": {"counter": counter, "key": key},
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,  # 4: empty
            "has_uint32": 0,
            "uinteger": 0,
        }
        generator.standard_normal(dtype=np.float32, out=row)
    return rows
