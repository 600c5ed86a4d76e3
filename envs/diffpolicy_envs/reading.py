"""What is read of a task: its observation with a condition's sensor noise, within the declared bounds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.rows import COUNT, QUIET, SEED, STEP
from diffpolicy_envs.task import Array, Ids, Task

__all__ = ["Reading"]


class Reading:
    """Observations from noise-free ones.

    Args:
        task: the task.
        noise: standard deviation of white noise, as a share of each observed range.
        kept: how many episodes' noise is kept.
    """

    def __init__(self, task: type[Task], noise: float, kept: int) -> None:
        self._task = task
        self._noise = noise
        self._kept = kept
        self._bottom = np.concatenate([np.asarray(low, np.float64) for low, _ in task.observation.values()])
        self._top = np.concatenate([np.asarray(high, np.float64) for _, high in task.observation.values()])
        sizes = np.cumsum([0] + [len(np.asarray(low)) for low, _ in task.observation.values()])
        self._columns = {name: slice(*sizes[i : i + 2]) for i, name in enumerate(task.observation)}
        self._tables: dict[tuple[int, int], Array] = {}

    def read(self, clean: dict[str, Array], ids: Ids, episode: Array) -> dict[str, npt.NDArray[np.float32]]:
        """What is seen of ``ids``, name -> (n, O), of which ``clean`` is true, in episodes with variables (N, 9)."""
        if self._noise:
            clean = self._noisy(clean, episode[ids])
        seen = np.empty((len(ids), len(self._bottom)))  # of all names at once: each call of numpy's has its price
        for name, columns in self._columns.items():
            seen[:, columns] = clean[name]
        np.minimum(np.maximum(seen, self._bottom, out=seen), self._top, out=seen)
        within = seen.astype(np.float32)
        return {name: within[:, columns] for name, columns in self._columns.items()}

    def _noisy(self, clean: dict[str, Array], episode: Array) -> dict[str, Array]:
        noisy = episode[:, QUIET] == 0
        steps = np.minimum(episode[:, STEP], self._task.max_steps).astype(int)  # one may step on past the end
        rows = np.stack([self._table(*key)[step] for key, step in zip(episode[:, [SEED, COUNT]], steps, strict=True)])
        scale = self._noise * (self._top - self._bottom)
        return {
            name: clean[name]
            if name in self._task.noiseless
            else clean[name] + noisy[:, None] * scale[columns] * rows[:, columns]
            for name, columns in self._columns.items()
        }

    def _table(self, seed: float, count: float) -> Array:
        """White noise (T + 1, O) of an episode."""
        key = (int(seed), int(count))
        if key not in self._tables:
            if len(self._tables) > self._kept:
                self._tables.clear()
            rng = np.random.default_rng([*key, 1])
            self._tables[key] = rng.standard_normal((self._task.max_steps + 1, len(self._bottom)))
        return self._tables[key]
