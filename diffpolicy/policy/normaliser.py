"""Units: between what an environment speaks and the range [-1, 1] in which networks learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from diffpolicy.data.checks import SCALE_FLOOR, UNBOUNDED
from diffpolicy.errors import InputError
from diffpolicy.policy.spaces import Bounds, SpaceSpec

__all__ = ["SCALE_FLOOR", "UNBOUNDED", "Normaliser", "Range"]


class Range(nn.Module):
    """Maps [low, high] of each dimension to [-1, 1]; `known` is false where there is no range yet."""

    centre: Tensor
    scale: Tensor
    known: Tensor

    def __init__(self, bounds: Bounds) -> None:
        """The range of the bounds, where these are finite."""
        super().__init__()
        low, high = torch.tensor(bounds.low).double(), torch.tensor(bounds.high).double()
        known = (high - low) < UNBOUNDED
        self.register_buffer("known", known)
        self.register_buffer("centre", torch.where(known, (low + high) / 2, 0.0).float())
        scale = torch.where(high > low, (high - low) / 2, SCALE_FLOOR)  # a range that is given is taken as it is
        self.register_buffer("scale", torch.where(known, scale, 1.0).float().clamp(min=torch.finfo(torch.float32).tiny))

    def forward(self, value: Tensor) -> Tensor:
        """Raw (..., O) -> normalised (..., O)."""
        return (value - self.centre) / self.scale

    def fit(self, rows: Tensor) -> None:
        """Take the range of rows (M, O) where none is known."""
        low, high = rows.amin(0), rows.amax(0)
        self.centre.copy_(torch.where(self.known, self.centre, (low + high) / 2))
        self.scale.copy_(torch.where(self.known, self.scale, ((high - low) / 2).clamp(min=SCALE_FLOOR)))
        self.known.fill_(True)


class Normaliser(nn.Module):
    """Ranges of the observations and of the action: from the spaces where finite, else from demonstrations.

    Fitting freezes it: a network that was trained with one set of ranges is of no use with another. Its
    statistics are buffers, saved with the weights.
    """

    frozen_flag: Tensor
    action_low: Tensor
    action_high: Tensor

    def __init__(self, spaces: SpaceSpec) -> None:
        """Ranges of the finite bounds; `fit` finds the others."""
        super().__init__()
        self.names = sorted(spaces.observations)
        self.observations = nn.ModuleDict({_key(name): Range(b) for name, b in spaces.observations.items()})
        self._ordered = tuple(self._range(name) for name in self.names)  # a tuple registers no module twice
        self.action = Range(spaces.action)
        self.register_buffer("frozen_flag", torch.tensor(False))
        self.register_buffer("action_low", torch.tensor(spaces.action.low), persistent=False)
        self.register_buffer("action_high", torch.tensor(spaces.action.high), persistent=False)
        self._fitted = False
        self._joined: tuple[Tensor, Tensor] | None = None  # what `ranges` gave, until it may have changed
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    @property
    def fitted(self) -> bool:
        """Whether every dimension has a range."""
        if not self._fitted:  # once true, it stays true, and need not be asked again
            spans = [self.action, *map(self._range, self.names)]
            self._fitted = all(bool(span.known.all()) for span in spans)
        return self._fitted

    @property
    def frozen(self) -> bool:
        """Whether `fit` has been called, or `freeze`."""
        return bool(self.frozen_flag)

    def freeze(self) -> None:
        """Forbid any further fit."""
        self.frozen_flag.fill_(True)

    def fit(self, observations: Mapping[str, Tensor], actions: Tensor) -> None:
        """Take the ranges that the spaces lack from observations (M, O) and actions (M, A), then freeze.

        Raises InputError where it is frozen, or the rows are none, of a wrong shape, or not finite.
        """
        if self.frozen:
            raise InputError("expected a normaliser that may be fitted, got a frozen one; train a new policy")
        if sorted(observations) != self.names:
            raise InputError(f"expected rows of {self.names}, got {sorted(observations)}; pass just these")
        pairs = [(name, self._range(name), rows) for name, rows in observations.items()]
        pairs.append(("action", self.action, actions))
        for name, span, rows in pairs:
            if rows.dim() != 2 or len(rows) == 0 or rows.shape[1] != len(span.scale):
                raise InputError(
                    f"expected rows (M, {len(span.scale)}) of {name!r} with M >= 1, got {tuple(rows.shape)}; "
                    "pass the demonstrations' rows"
                )
            if not bool(torch.isfinite(rows).all()):
                raise InputError(f"expected finite rows of {name!r}, got NaN or infinity; clean the data")
        for _, span, rows in pairs:
            span.fit(rows.to(span.scale))
        self._joined = None
        self.freeze()

    def normalise_obs(self, observations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raw observations (..., O) -> the same in units of their ranges."""
        self._require_fitted()
        return {name: self._range(name)(value) for name, value in observations.items()}

    def ranges(self) -> tuple[Tensor, Tensor]:
        """Centre and half-range (C,) of all observations, joined in the order of their sorted names.

        They are joined once and not for each decision; do not write into them.
        """
        if torch.compiler.is_compiling():  # a tracer's tensors are of no use afterwards
            return self._join()
        if self._joined is None:
            with torch.inference_mode(False), torch.no_grad():
                self._joined = self._join()
        return self._joined

    def _join(self) -> tuple[Tensor, Tensor]:
        self._require_fitted()
        return torch.cat([span.centre for span in self._ordered]), torch.cat([span.scale for span in self._ordered])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved, or of another precision: so are the ranges."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._joined = None
        return self

    def normalise_action(self, action: Tensor) -> Tensor:
        """Raw actions (..., A) -> the same in units of their range."""
        self._require_fitted()
        normalised: Tensor = self.action(action)
        return normalised

    def unnormalise_action(self, action: Tensor) -> Tensor:
        """The inverse, clipped to the action space's bounds."""
        self._require_fitted()
        return (action * self.action.scale + self.action.centre).clamp(self.action_low, self.action_high)

    def _range(self, name: str) -> Range:
        key = _key(name)
        if key not in self.observations:
            raise InputError(f"expected an observation of this policy's spaces, got {name!r}; leave it out")
        span = self.observations[key]
        assert isinstance(span, Range)
        return span

    def _require_fitted(self) -> None:
        if not self.fitted:
            raise InputError(
                "expected a fitted normaliser, got one with unbounded dimensions of unknown range; "
                "call policy.normaliser.fit(observations, actions) with the demonstrations first"
            )


def _forget(normaliser: Normaliser, keys: object) -> None:
    """Other ranges were loaded."""
    del keys
    normaliser._joined = None


def _key(name: str) -> str:
    """A key of its own for each name: without dots, as names of modules are, and unlike any attribute of a module."""
    if "." not in name:
        return f"obs_{name}"
    return "dotted_" + name.replace("%", "%25").replace(".", "%2E")
