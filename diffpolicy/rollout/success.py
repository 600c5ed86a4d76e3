"""Success as environments report it: under either of two names in info, as any kind of truth value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from diffpolicy.errors import InputError

__all__ = ["NAMES", "reported", "verdict"]

NAMES = ("is_success", "success")


def reported(info: Mapping[str, Any], count: int) -> tuple[npt.NDArray[np.bool_], bool]:
    """Success (N,) out of a vector environment's info, and whether the info says anything about it.

    Raises:
        InputError: something that is no truth value; see ``verdict``.
    """
    success, known = np.zeros(count, dtype=bool), False
    for name in NAMES:
        if name not in info:
            continue
        values = info[name]
        if isinstance(values, np.ndarray) and values.shape == (count,) and values.dtype.kind in "biu":
            success |= values > 0
            known |= bool(np.any(info.get(f"_{name}", True)))
            continue
        rows = np.flatnonzero(np.broadcast_to(info.get(f"_{name}", True), count))
        if isinstance(values, str | Mapping) or np.shape(values)[:1] != (count,):
            raise _refusal(name, values)
        for row in rows:
            said = verdict(name, values[row])
            success[row] |= bool(said)
            known |= said is not None
    return success, known


def verdict(name: str, value: Any) -> bool | None:
    """A reported success as a truth value: a number counts from above 0.5; None and NaN say nothing.

    Raises:
        InputError: a text, a mapping or several numbers.
    """
    if value is None:
        return None
    array = np.asarray(value) if isinstance(value, bool | int | float | np.generic | np.ndarray) else None
    if array is None or array.size != 1 or array.dtype.kind not in "biuf":
        raise _refusal(name, value)
    number = float(array.reshape(()))
    return None if math.isnan(number) else number > 0.5


def _refusal(name: str, value: Any) -> InputError:
    shown = repr(value) if len(repr(value)) < 60 else type(value).__name__
    return InputError(
        f"expected info[{name!r}] to be true, false or a number, got {shown}; wrap the environment so that its step "
        "says one of these"
    )
