"""What a number given by hand must be: whole, real, within its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_numbers", "checked_ids", "checked_seed", "checked_whole", "is_real", "is_whole"]


def as_numbers(name: str, value: Any) -> npt.NDArray[np.float64]:
    """A value as an array of float64, not copied where it is one.

    Raises:
        ValueError: it holds something else than real numbers; the message begins with its name.
    """
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "cSUmM":
            return found.astype(np.float64, copy=False)
    except (TypeError, ValueError):  # ragged, or an object in it is no number
        pass
    raise ValueError(f"{name} must be an array of real numbers, got {' '.join(repr(value).split()):.80}")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, Python's or numpy's; true and false are none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_real(value: Any) -> bool:
    """Whether a value is a real number, Python's or numpy's; true and false are none."""
    return is_whole(value) or isinstance(value, float | np.floating)


def checked_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """A whole number of at least ``least``, and of at most ``most`` where that is given.

    Raises:
        ValueError: it is not; the message begins with its name.
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be a whole number of at most {most:,}, got {value!r}")
    return int(value)


def checked_seed(seed: Any) -> int:
    """The seed of an episode, which is kept in a float64 state row.

    Raises:
        ValueError: not an integer from 0 to 2**53 - 1.
    """
    if not is_whole(seed) or not 0 <= seed < 2**53:
        raise ValueError(f"expected a seed that is an integer from 0 to 2**53 - 1, got {seed!r}")
    return int(seed)


def checked_ids(ids: Any, num: int) -> np.ndarray:
    """Numbers (n,) of simulations, in any order.

    Raises:
        ValueError: not distinct integers from 0 to ``num`` - 1.
    """
    found = np.asarray(ids)
    if found.size == 0:
        found = found.astype(np.intp)
    if (
        found.ndim != 1
        or not np.issubdtype(found.dtype, np.integer)
        or len(np.unique(found)) < len(found)
        or ((found < 0) | (found >= num)).any()
    ):
        raise ValueError(f"expected ids that are distinct whole numbers from 0 to {num - 1}, got {ids!r}")
    return found.astype(np.intp, copy=False)
