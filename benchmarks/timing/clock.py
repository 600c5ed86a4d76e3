"""Ratios of times: two loops run in turns in one process, so that what slows the machine slows both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Times", "alternated", "median_interval", "meets", "row"]

Times = npt.NDArray[np.float64]


def alternated(loops: Sequence[Callable[[], object]], blocks: int, calls: int) -> list[Times]:
    """Seconds of every call, (blocks, calls) for each loop; blocks of the loops take turns, back and forth."""
    times = [np.zeros((blocks, calls)) for _ in loops]
    for loop in loops:
        loop()  # caches and lazy initialisation
    for block in range(blocks):
        order = range(len(loops)) if block % 2 == 0 else reversed(range(len(loops)))
        for which in order:
            for call in range(calls):
                began = time.perf_counter()
                loops[which]()
                times[which][block, call] = time.perf_counter() - began
    return times


def median_interval(values: Times) -> tuple[float, float, float]:
    """Median of independent values with its 95% interval from order statistics (no shape is assumed)."""
    ordered = np.sort(values)
    half = 0.98 * math.sqrt(len(ordered))  # 1.96 standard deviations of a binomial with p = 1/2
    low = max(math.floor(len(ordered) / 2 - half), 0)
    high = min(math.ceil(len(ordered) / 2 + half), len(ordered) - 1)
    return float(np.median(ordered)), float(ordered[low]), float(ordered[high])


def row(what: str, ratios: Times, against: str, bar: str | None, **more: Any) -> dict[str, Any]:
    """A row of ``speed.json``: the median of the blocks' ratios; a bar is such as "<= 1.15", or None."""
    ratio, low, high = (round(value, 3) for value in median_interval(ratios))
    return {
        "what": what,
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "unit": "x",
        "against": against,
        "bar": bar,
        **more,
    }


def meets(entry: Mapping[str, Any]) -> bool:
    """Whether a row keeps its bar."""
    if entry["bar"] is None:
        return True
    sign, number = entry["bar"].split()
    return bool(entry["ratio"] <= float(number) if sign == "<=" else entry["ratio"] >= float(number))
