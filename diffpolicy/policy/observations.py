"""Observations as a policy takes them: checked, in single precision, joined to one row for each environment."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy.data.episode import BOX_NAME, flattened
from diffpolicy.errors import InputError

__all__ = ["Layout", "finite"]

_SINGLE = np.dtype(np.float32)


@dataclass(frozen=True)
class Layout:
    """Names and lengths of observations in the order in which they are joined: that of their sorted names."""

    sizes: tuple[tuple[str, int], ...]
    boxed: bool  # whether the environment's observation is a bare array

    @classmethod
    def of(cls, observations: Mapping[str, Sized], boxed: bool) -> Layout:
        """Of a policy's spaces: the bounds of each observation by name."""
        return cls(tuple((name, len(observations[name])) for name in sorted(observations)), boxed)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.sizes)

    @property
    def width(self) -> int:
        """Length C of a joined row."""
        return sum(size for _, size in self.sizes)

    def split(self, joined: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Joined rows (..., C) as views by name, each (..., O)."""
        views, start = {}, 0
        for name, size in self.sizes:
            views[name] = joined[..., start : start + size]
            start += size
        return views

    def rows(self, observation: Any) -> tuple[NDArray[np.float32], bool]:
        """An environment's observation as rows (N, C) of their own memory, and whether it was a single one.

        Raises InputError, with the name, what was expected and what came, where an observation is missing,
        unknown, of a wrong shape or type, not finite, or of another batch than the others.
        """
        named = self._named(observation)
        parts = [
            value
            if type(value) is np.ndarray and value.dtype is _SINGLE and value.shape == (size,)
            else _array(name, value, size)
            for name, size in self.sizes
            for value in (named[name],)
        ]
        single = parts[0].ndim == 1
        try:
            joined = np.concatenate(parts, axis=-1)
        except ValueError as error:
            shapes = {name: part.shape for (name, _), part in zip(self.sizes, parts, strict=True)}
            raise InputError(f"expected observations of one batch, got shapes {shapes}; batch all or none") from error
        if not finite(joined):
            self._refuse_infinite(named)
        return (joined[None] if single else joined), single

    def _named(self, observation: Any) -> Mapping[str, Any]:
        """The observations by name, if they are just those of this layout."""
        if self.boxed and not isinstance(observation, Mapping):
            return {BOX_NAME: observation}
        if isinstance(observation, Mapping):
            if observation.keys() == self._names:
                return observation
            flat = flattened(observation)
            if flat.keys() == self._names:
                return flat
        came = sorted(map(str, observation)) if isinstance(observation, Mapping) else _described(observation)
        raise InputError(
            f"expected a mapping with observations {[name for name, _ in self.sizes]}, got {came}; pass what the "
            f"policy was trained on, in shapes {[(size,) for _, size in self.sizes]} or batched"
        )

    def _refuse_infinite(self, named: Mapping[str, Any]) -> None:
        for name, size in self.sizes:
            given = np.asarray(named[name])
            if not np.isfinite(given).all():
                came, do = "NaN or infinity", "look for a diverged simulation"
            elif np.abs(given).max(initial=0.0) > np.finfo(_SINGLE).max:
                came, do = "numbers beyond single precision's range", "look for a diverged simulation or a wrong unit"
            else:
                continue
            raise InputError(
                f"expected finite numbers in observation {name!r} of shape {given.shape}, got {came}; "
                f"the policy reads {size} of them in single precision: {do}"
            )


def finite(array: NDArray[np.float32]) -> bool:
    """Whether every number is finite; a few numbers are summed, in double precision, which is quickest."""
    if array.size <= 128:
        return math.isfinite(sum((array if array.ndim == 1 else array.ravel()).tolist()))
    return bool(np.isfinite(array).all())


def _array(name: str, value: Any, size: int) -> NDArray[np.float32]:
    """One observation (O,) or (N, O) in single precision."""
    wanted = f"expected observation {name!r} to be an array of {size} numbers, shape ({size},) or (N, {size})"
    if isinstance(value, tuple):
        raise InputError(f"{wanted}, got a tuple; unpack env.reset() and env.step() first")
    if type(value).__module__.partition(".")[0] == "torch":
        raise InputError(f"{wanted}, got a torch.{type(value).__name__}; pass its .numpy(force=True)")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:  # ragged, or nothing that numpy knows
        raise InputError(f"{wanted}, got {_described(value)}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{wanted}, got {_described(value)} of type {array.dtype}; pass what the environment gave")
    if array.ndim not in (1, 2) or array.shape[-1] != size:
        raise InputError(
            f"expected observation {name!r} of shape ({size},) or (N, {size}), got {array.shape}; "
            "use the environment that the policy was trained for"
        )
    with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
        return array.astype(_SINGLE, copy=False)


def _described(value: Any) -> str:
    """A short word for something of any type."""
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else f"{type(value).__name__} of shape {tuple(shape)}"
