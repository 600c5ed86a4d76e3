"""What one simulation has recorded of its present episode, row by row, until the episode is whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode

__all__ = ["Observation", "Tape", "records_in"]

Observation = dict[str, npt.NDArray[np.float32]]  # each (N, O)


class Tape:
    """Starts with the observation after the reset, each (O,)."""

    def __init__(self, first: Observation | None = None) -> None:
        self.obs = {name: [value] for name, value in (first or {}).items()}
        self.actions: list[npt.NDArray[np.float32]] = []
        self.rewards: list[float] = []
        self.states: list[npt.NDArray[np.float64]] = []
        self.success = False

    def add(
        self,
        action: npt.NDArray[np.float32],
        reward: float,
        success: bool,
        obs: Observation,
        row: int,
        state: npt.NDArray[np.float64] | None,
    ) -> None:
        """One step of simulation ``row``: its action (A,), what came of it, and the state (S,) before it."""
        for name, value in obs.items():
            self.obs[name].append(value[row].copy())
        self.actions.append(action)
        self.rewards.append(reward)
        self.success |= success
        if state is not None:
            self.states.append(state)

    def episode(self, terminated: bool, seed: int, condition: str, records: Mapping[str, float]) -> Episode:
        """The episode, which ended here with these records."""
        return Episode(
            obs={name: np.stack(rows) for name, rows in self.obs.items()},
            actions=np.stack(self.actions),
            rewards=np.array(self.rewards, dtype=np.float32),
            terminated=terminated,
            truncated=not terminated,
            success=self.success,
            seed=seed,
            condition=condition,
            states=np.stack(self.states) if self.states else None,
            records=records,
        )


def records_in(info: Mapping[str, Any], row: int) -> dict[str, float]:
    """What a vector environment's info calls ``record/...`` of simulation ``row``."""
    numbers = {k: v for k, v in info.items() if k.startswith("record/") and isinstance(v, np.ndarray)}
    return {k.removeprefix("record/"): float(v[row]) for k, v in numbers.items() if v.dtype.kind in "biuf"}
