"""How a planner looks for actions, and what it calls good: its settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

__all__ = ["Method", "PlannerConfig"]

Method = Literal["predictive", "mppi", "cem"]
"""Which plan comes of the samples: the best one (predictive sampling, arXiv 2212.00541, section 4.2); their mean,
weighted by exp(-cost / temperature) (MPPI, arXiv 1707.02342, algorithm 2); or the mean of the elites, from whose
spread the next iteration samples (cross-entropy method, doi 10.1007/s10479-005-5724-z)."""


@dataclass(frozen=True)
class PlannerConfig:
    """How a planner looks for actions, and what it calls good."""

    method: Method = "predictive"
    samples: int = 48
    """Plans tried in each iteration."""
    horizon: int = 15
    """Control steps planned ahead."""
    knots: int = 4
    """Knots of the spline by which a plan is varied."""
    noise: tuple[float, ...] = (0.01, 0.04, 0.12)
    """Standard deviations of the knots, in turn; the range of an action is 2."""
    iterations: int = 1
    """Rounds of sampling, each around the plan of the one before."""
    proposals: float = 0.5
    """Share of the samples for which the task is asked (``Task.propose``), in the first iteration."""
    elites: float = 0.1
    """Share of the samples that the cross-entropy method keeps."""
    temperature: float = 0.1
    """MPPI's, as a share of the distance from the least cost to the mean one."""
    mean: float = 1.0
    """Weight of the mean cost on the way."""
    end: float = 0.0
    """Weight of the cost in which a plan ends."""
    least: float = 0.0
    """Weight of the least cost on the way."""
    soon: float = 0.0
    """Weight of the mean, over the way, of the least cost so far: the sooner, the better; what follows is no matter."""
    smoothness: float = 0.0
    """Weight of the mean squared change of the action's speed from step to step (its second difference)."""
    margin: float = 0.0
    """Share by which another plan's cost must be lower to take the place of the present plan."""
    patience: int = 10
    """Control steps without progress after which a plan is begun anew, from standing still and with wider noise."""
    progress: float = 0.02
    """Share by which the cost must fall to be progress."""
    substeps: int | None = None
    """Physics steps per control step, fewer and longer or more and shorter ones; None takes the task's."""
    seed: int = 0
    """Of the random numbers, beside what the state row says."""

    def __post_init__(self) -> None:
        """Raises ValueError where a number is out of its range."""
        if self.method not in get_args(Method):
            raise ValueError(f"expected method {', '.join(get_args(Method))}, got {self.method!r}")
        if not (isinstance(self.noise, tuple) and self.noise and all(_within(sd, 1e-9, np.inf) for sd in self.noise)):
            raise ValueError(f"expected a tuple of standard deviations above 0 as noise, got {self.noise!r}")
        for name in ("samples", "horizon", "iterations", "patience", "knots", "seed", "substeps"):
            value, fewest = getattr(self, name), 0 if name == "seed" else 1
            if not _whole(value, fewest) and not (name == "substeps" and value is None):
                raise ValueError(f"expected {name} as a whole number of at least {fewest}, got {value!r}")
        if not 2 <= self.knots <= self.horizon:
            raise ValueError(f"expected from 2 knots to one per step ({self.horizon}), got {self.knots}")
        for name, least in (("proposals", 0.0), ("elites", 1e-9), ("margin", 0.0), ("progress", 0.0)):
            if not _within(getattr(self, name), least, 1.0):
                raise ValueError(f"expected {name} as a share of at most 1, got {getattr(self, name)!r}")
        for name in ("mean", "end", "least", "soon", "smoothness"):
            if not _within(getattr(self, name), 0.0, np.inf):
                raise ValueError(f"expected {name} as a finite weight of at least 0, got {getattr(self, name)!r}")
        if self.mean + self.end + self.least + self.soon == 0:
            raise ValueError("expected a weight above 0 among mean, end, least and soon: without, all plans are alike")
        if not _within(self.temperature, 1e-12, np.inf):
            raise ValueError(f"expected a finite temperature above 0, got {self.temperature!r}")


def _whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _within(value: object, low: float, high: float) -> bool:
    """Whether a value is a finite number in a range."""
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value < np.inf
