"""Laws of windows: none crosses an episode's end, padding is masked, labels stand in for actions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.data.episode import Episode, Labels
from diffpolicy.data.windows import Windows, windows
from diffpolicy.errors import InputError


def episode(number: int, steps: int, labels: Labels | None = None, width: int = 1) -> Episode:
    """An episode whose every observation and action says (episode, time)."""
    stamp = np.stack([np.full(steps + 1, number), np.arange(steps + 1)], axis=1).astype(np.float32)
    obs = {"stamp": stamp, "other": -stamp[:, :1].repeat(width, axis=1)}
    return Episode(obs, stamp[:-1].copy(), np.zeros(steps, np.float32), False, True, False, labels=labels)


def stamped_labels(steps: int, valid: np.ndarray) -> Labels:
    """Labels whose every action says (time of the state, offset)."""
    chunks = np.stack(np.broadcast_arrays(np.arange(steps)[:, None], np.arange(valid.shape[1])), axis=2)
    return Labels(chunks.astype(np.float32), valid)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    n_obs_steps=st.integers(1, 4),
    extra=st.integers(0, 6),
)
def test_no_window_crosses_the_end_of_an_episode(lengths: list[int], n_obs_steps: int, extra: int) -> None:
    horizon = n_obs_steps + extra
    table = windows([episode(i, n) for i, n in enumerate(lengths)], n_obs_steps, horizon)
    starts = [(i, t) for i, n in enumerate(lengths) for t in range(n)]
    assert len(table) == len(starts)
    batch = table.gather(torch.arange(len(table)))
    for window, (number, t) in enumerate(starts):
        seen = [[number, max(s, 0)] for s in range(t - n_obs_steps + 1, t + 1)]
        assert batch.obs["stamp"][window].tolist() == seen
        assert batch.obs["other"][window, :, 0].tolist() == [-number] * n_obs_steps
        times = range(t - n_obs_steps + 1, t - n_obs_steps + 1 + horizon)
        last = lengths[number] - 1
        assert batch.mask[window].tolist() == [float(0 <= s <= last) for s in times]
        assert batch.chunk[window].tolist() == [[number, min(max(s, 0), last)] for s in times]


def test_shapes_and_types_of_a_batch() -> None:
    batch = windows([episode(0, 5), episode(1, 3)], 2, 4).gather(torch.tensor([7, 0, 0]))
    assert {name: tuple(x.shape) for name, x in batch.obs.items()} == {"stamp": (3, 2, 2), "other": (3, 2, 1)}
    assert batch.chunk.shape == (3, 4, 2)
    assert batch.mask.shape == (3, 4)
    assert {x.dtype for x in (*batch.obs.values(), batch.chunk, batch.mask)} == {torch.float32}
    assert torch.equal(batch.to("cpu").chunk, batch.chunk)


def test_before_the_start_the_first_row_is_repeated_and_the_action_masked() -> None:
    first = windows([episode(7, 6)], 3, 4).gather(torch.tensor([0]))
    assert first.obs["stamp"][0].tolist() == [[7, 0], [7, 0], [7, 0]]
    assert first.mask[0].tolist() == [0, 0, 1, 1]
    assert first.chunk[0].tolist() == [[7, 0], [7, 0], [7, 0], [7, 1]]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_take_the_place_of_actions_from_the_present_on(data: st.DataObject) -> None:
    steps, length = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 5))
    n_obs_steps, extra = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 4))
    bits = data.draw(st.lists(st.booleans(), min_size=steps * length, max_size=steps * length))
    valid = np.array(bits, np.bool_).reshape(steps, length)
    table = windows([episode(0, steps, stamped_labels(steps, valid))], n_obs_steps, n_obs_steps + extra)
    reach = min(length, extra + 1)
    kept = [t for t in range(steps) if valid[t, :reach].any()]
    assert len(table) == len(kept)
    batch = table.gather(torch.arange(len(table)))
    for window, t in enumerate(kept):
        assert batch.obs["stamp"][window, -1].tolist() == [0, t]
        mask = [0.0] * (n_obs_steps - 1) + [float(v) for v in valid[t, :reach]]
        assert batch.mask[window].tolist() == mask + [0.0] * (n_obs_steps + extra - len(mask))
        allowed = [[t, k] for k in range(reach) if valid[t, k]]
        for offset, (action, real) in enumerate(zip(batch.chunk[window].tolist(), mask, strict=False)):
            assert action in allowed  # padding repeats a real label, never an invalid one
            assert not real or action == [t, offset - n_obs_steps + 1]


def test_tables_of_several_rounds_concatenate_as_if_built_at_once() -> None:
    rounds = [[episode(0, 4)], [episode(1, 3), episode(2, 5)], [episode(3, 1)]]
    whole = windows([one for part in rounds for one in part], 2, 4)
    joined = Windows.concat([windows(part, 2, 4) for part in rounds])
    everything = torch.arange(len(whole))
    assert len(joined) == len(whole)
    a, b = whole.gather(everything), joined.gather(everything)
    assert all(torch.equal(a.obs[name], b.obs[name]) for name in ("stamp", "other"))
    assert torch.equal(a.chunk, b.chunk)
    assert torch.equal(a.mask, b.mask)


def test_a_round_without_a_valid_label_adds_no_window() -> None:
    empty = windows([episode(0, 3, stamped_labels(3, np.zeros((3, 2), np.bool_)))], 1, 2)
    assert len(empty) == 0
    assert len(Windows.concat([windows([episode(1, 3)], 1, 2), empty])) == 3


def test_mixed_observations_are_refused() -> None:
    with pytest.raises(InputError, match="episode 1"):
        windows([episode(0, 3), episode(1, 3, width=2)], 1, 2)
    plain = Episode(
        {"x": np.zeros((3, 1), np.float32)},
        np.zeros((2, 2), np.float32),
        np.zeros(2, np.float32),
        *[False] * 3,
    )
    with pytest.raises(InputError, match="stamp"):
        windows([episode(0, 3), plain], 1, 2)
    with pytest.raises(InputError, match="table 1"):
        Windows.concat([windows([episode(0, 3)], 1, 2), windows([episode(0, 3)], 1, 3)])


def test_nothing_to_cut_and_impossible_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="at least one"):
        windows([], 1, 2)
    with pytest.raises(InputError, match="at least one"):
        Windows.concat([])
    for n_obs_steps, horizon in ((0, 2), (3, 2)):
        with pytest.raises(InputError, match="n_obs_steps"):
            windows([episode(0, 3)], n_obs_steps, horizon)
