"""Noise that depends on what is being decided and on nothing else: not on the batch, not on the order."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["counter_noise"]

_WORD = 2**64 - 1  # keys and counters are unsigned 64-bit words


class _Stream(threading.local):
    """One generator a thread: to make one takes longer than to draw a chunk's noise."""

    def __init__(self) -> None:
        self.bits = np.random.Philox(key=0)
        self.generator = np.random.Generator(self.bits)


_STREAM = _Stream()


def counter_noise(
    seed: int, episodes: NDArray[np.int64], decisions: NDArray[np.int64], shape: Sequence[int]
) -> NDArray[np.float32]:
    """Standard normal numbers (N, *shape), row n a pure function of (seed, episodes[n], decisions[n]).

    Each row is a stream of the counter-based generator Philox (Salmon et al., SC 2011), keyed by (seed,
    episode) with the decision in the highest word of its counter. A longer shape continues a shorter one: the
    first (H, A) numbers of a row of (K+1, H, A) are those of a row of (H, A).
    """
    if len(episodes) == 1:
        return _stream(seed, episodes.item(), decisions.item()).standard_normal((1, *shape), np.float32)
    rows = np.empty((len(episodes), *shape), np.float32)
    for row, episode, decision in zip(rows, episodes.tolist(), decisions.tolist(), strict=True):
        _stream(seed, episode, decision).standard_normal(dtype=np.float32, out=row)
    return rows


def _stream(seed: int, episode: int, decision: int) -> np.random.Generator:
    """The thread's generator at the beginning of a stream."""
    state: Any = {  # tuples are taken for arrays, and sooner made
        "bit_generator": "Philox",
        "state": {"counter": (0, 0, 0, decision & _WORD), "key": (seed & _WORD, episode & _WORD)},
        "buffer": (0, 0, 0, 0),
        "buffer_pos": 4,  # 4: empty
        "has_uint32": 0,
        "uinteger": 0,
    }
    _STREAM.bits.state = state
    return _STREAM.generator
