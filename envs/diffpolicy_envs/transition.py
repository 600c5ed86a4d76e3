"""What one control step of many simulations gave."""

from __future__ import annotations

from functools import reduce

import numpy as np
import numpy.typing as npt

from diffpolicy_envs.task import Array

__all__ = ["Transition"]


class Transition:
    """What one control step of n simulations gave."""

    __slots__ = ("diverged", "observation", "records", "reward", "success", "terminated", "terms", "truncated")

    def __init__(
        self,
        observation: dict[str, npt.NDArray[np.float32]],
        terms: dict[str, Array],
        success: npt.NDArray[np.bool_],
        failure: npt.NDArray[np.bool_],
        truncated: npt.NDArray[np.bool_],
        records: dict[str, Array],
        diverged: npt.NDArray[np.bool_],
    ) -> None:
        self.observation = observation
        self.terms = terms
        self.reward: Array = reduce(np.add, terms.values())
        self.success = success & ~diverged
        self.terminated = success | failure | diverged
        self.truncated = truncated & ~self.terminated
        self.records = records
        self.diverged = diverged  # MuJoCo gave the simulation up and started it afresh: what it says means nothing
