"""Windows over episodes: which observation rows and which actions belong to one training example.

At time t the observation window is rows t-To+1..t (the first row repeated before the start) and the chunk
covers times t-To+1..t-To+H, so that the actions to execute are chunk[To-1 : To-1+Ta] (Chi et al., arXiv
2303.04137).

Shapes: M windows, R observation rows, T environment steps, To observation steps, H chunk length, A action,
O observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffpolicy.data.batch import Demo, hold
from diffpolicy.data.episode import Episode, Labels, check_alike
from diffpolicy.errors import InputError

__all__ = ["Windows", "windows"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Windows:
    """A table of M windows: observation rows are stored once and looked up, chunks and masks whole."""

    obs: dict[str, Tensor]  # each (R, O), the rows of all episodes end to end
    rows: Tensor  # (M, To) int64, which rows each window sees
    chunk: Tensor  # (M, H, A), held (see `hold`): once here, and not again in each batch
    mask: Tensor  # (M, H) float32

    def __post_init__(self) -> None:
        object.__setattr__(self, "chunk", hold(self.chunk, self.mask))

    def __len__(self) -> int:
        """Number of windows, M."""
        return len(self.rows)

    def gather(self, index: Tensor) -> Demo:
        """The windows `index` (B,) int64 as one batch, on the device of the table."""
        index = index.to(self.rows.device)
        rows = self.rows.index_select(0, index)  # (B, To); index_select is quicker than indexing by brackets
        seen, shape = rows.flatten(), rows.shape
        obs = {n: table.index_select(0, seen).view(*shape, *table.shape[1:]) for n, table in self.obs.items()}
        return Demo(obs, self.chunk.index_select(0, index), self.mask.index_select(0, index), held=True)

    def to(self, device: torch.device | str) -> Windows:
        """The same table on another device."""
        obs = {name: table.to(device) for name, table in self.obs.items()}
        return Windows(obs, self.rows.to(device), self.chunk.to(device), self.mask.to(device))

    @staticmethod
    def concat(parts: Sequence[Windows]) -> Windows:
        """One table of the windows of all `parts`, in order, on the device of the first part.

        Raises InputError where there is no part, or where parts differ in observation names or any width.
        """
        if not parts:
            raise InputError("concat: expected at least one table of windows, got none.")
        shapes = [_shapes(part) for part in parts]
        for number, shape in enumerate(shapes):
            if shape != shapes[0]:
                raise InputError(
                    f"concat: expected every table to have the shapes of the first, {shapes[0]}, but table "
                    f"{number} has {shape}. Use one n_obs_steps, one horizon and one environment for all."
                )
        parts = [part.to(parts[0].rows.device) for part in parts]
        first_row, rows = 0, []
        for part in parts:
            rows.append(part.rows + first_row)
            first_row += len(next(iter(part.obs.values())))
        obs = {name: torch.cat([part.obs[name] for part in parts]) for name in parts[0].obs}
        chunk = torch.cat([part.chunk for part in parts])
        return Windows(obs, torch.cat(rows), chunk, torch.cat([part.mask for part in parts]))


def windows(episodes: Sequence[Episode], n_obs_steps: int, horizon: int) -> Windows:
    """Every window of every episode, one for each time t = 0..T-1; none crosses the end of an episode.

    Times before 0 and past T-1 are padding: mask 0, with the nearest real action as value. Where an episode
    has labels, the window at t takes labels.chunks[t] from offset To-1 on, masked by labels.valid; a t with
    no valid label in reach gives no window. Raises InputError where there is no episode, where episodes
    differ in observation names or widths, or unless 1 <= n_obs_steps <= horizon.
    """
    if not 1 <= n_obs_steps <= horizon:
        raise InputError(
            f"windows: expected 1 <= n_obs_steps <= horizon, got n_obs_steps={n_obs_steps}, "
            f"horizon={horizon}. Choose a horizon of at least n_obs_steps - 1 + n_action_steps."
        )
    check_alike(episodes)
    first_row, rows, chunks, masks = 0, [], [], []
    for episode in episodes:
        if episode.labels is None:
            chunk, mask = _played(episode.actions, n_obs_steps, horizon)
        else:
            chunk, mask = _labelled(episode.labels, n_obs_steps, horizon)
        kept = np.flatnonzero(mask.any(axis=1))  # times t that give a window
        seen = np.maximum(kept[:, None] + np.arange(1 - n_obs_steps, 1), 0)  # (M, To)
        rows.append(first_row + seen)
        chunks.append(chunk[kept])
        masks.append(mask[kept])
        first_row += len(episode) + 1
    obs = {name: np.concatenate([episode.obs[name] for episode in episodes]) for name in episodes[0].obs}
    return Windows(
        {name: torch.from_numpy(table) for name, table in obs.items()},
        torch.from_numpy(np.concatenate(rows)),
        torch.from_numpy(np.concatenate(chunks)),
        torch.from_numpy(np.concatenate(masks).astype(np.float32)),
    )


def _played(actions: Array, n_obs_steps: int, horizon: int) -> tuple[Array, Array]:
    """Chunks (T, H, A) and masks (T, H) of the actions (T, A) that were executed."""
    last = len(actions) - 1
    times = np.arange(last + 1)[:, None] + np.arange(horizon) - (n_obs_steps - 1)  # (T, H)
    return actions[np.clip(times, 0, last)], (times >= 0) & (times <= last)


def _labelled(labels: Labels, n_obs_steps: int, horizon: int) -> tuple[Array, Array]:
    """Chunks (T, H, A), masks (T, H) of the labels; padding repeats the last valid label, else the first."""
    steps, length, width = labels.chunks.shape
    begin = n_obs_steps - 1
    used = min(length, horizon - begin)
    chunk = np.zeros((steps, horizon, width), np.float32)
    mask = np.zeros((steps, horizon), np.bool_)
    chunk[:, begin : begin + used] = labels.chunks[:, :used]
    mask[:, begin : begin + used] = labels.valid[:, :used]
    before = np.maximum.accumulate(np.where(mask, np.arange(horizon), -1), axis=1)  # last valid offset so far
    source = np.where(before >= 0, before, mask.argmax(axis=1)[:, None])  # (T, H)
    return np.take_along_axis(chunk, source[:, :, None], axis=1), mask


def _shapes(part: Windows) -> dict[str, tuple[int, ...]]:
    obs = {name: tuple(table.shape[1:]) for name, table in part.obs.items()}
    return {**obs, "(rows)": tuple(part.rows.shape[1:]), "(chunk)": tuple(part.chunk.shape[1:])}
