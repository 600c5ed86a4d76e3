"""Laws of sources: a batch is fixed by (seed, index), and an epoch holds every window once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.data import source
from diffpolicy.data.episode import Episode
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import Windows, windows
from diffpolicy.errors import InputError


def numbered(size: int) -> Windows:
    """A table of windows whose one action is the number of the window."""
    actions = np.arange(size, dtype=np.float32)[:, None]
    obs = {"x": np.zeros((size + 1, 1), np.float32)}
    return windows([Episode(obs, actions, np.zeros(size, np.float32), False, True, False)], 1, 1)


def drawn(size: int, batch_size: int, seed: int, indices: range) -> list[int]:
    batches = shuffled(numbered(size), batch_size, seed)
    return [int(x) for index in indices for x in batches(index).chunk.flatten()]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**40))
def test_every_epoch_holds_every_window_once(size: int, batch_size: int, seed: int) -> None:
    stream = drawn(size, batch_size, seed, range(3 * size))  # 3 * batch_size epochs
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_a_batch_does_not_depend_on_what_was_asked_before() -> None:
    table = numbered(50)
    forwards, backwards = shuffled(table, 8, 3), shuffled(table, 8, 3)
    want = [forwards(index).chunk for index in range(30)]
    for index in (*reversed(range(30)), 7, 7, 29, 0):
        assert torch.equal(backwards(index).chunk, want[index])


def test_batches_are_cut_from_blocks_as_if_each_were_gathered_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_in_blocks = drawn(50, 8, 3, range(600))  # more than two blocks
    monkeypatch.setattr(source, "ROWS_AT_ONCE", 1)
    assert drawn(50, 8, 3, range(600)) == drawn_in_blocks


def test_epochs_and_seeds_differ_in_order() -> None:
    first, second = drawn(50, 50, 0, range(1)), drawn(50, 50, 0, range(1, 2))
    assert first != second
    assert first != drawn(50, 50, 1, range(1))
    assert first != sorted(first)


def test_a_small_table_is_repeated_to_fill_the_batch() -> None:
    batch = shuffled(numbered(3), 8, 0)(0)
    counts = np.bincount(batch.chunk.flatten().int().numpy())
    assert batch.chunk.shape == (8, 1, 1)
    assert sorted(counts) == [2, 3, 3]


@pytest.mark.parametrize(("batch_size", "seed"), [(0, 0), (4, -1)])
def test_a_source_of_nothing_is_refused(batch_size: int, seed: int) -> None:
    with pytest.raises(InputError, match="expected"):
        shuffled(numbered(3), batch_size, seed)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(InputError, match="index"):
        shuffled(numbered(3), 2, 0)(-1)
