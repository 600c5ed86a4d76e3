"""What the fields of a settings class may hold: each is checked when one is made, and named where it is wrong.

A settings class may come from a command line, from Python or from a file that somebody edited, so that types are
checked as well as ranges, and ranges have an upper end: no network of a hundred gigabytes is begun.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral, Real
from types import UnionType
from typing import Any, Protocol, get_args

from diffpolicy.errors import InputError

__all__ = ["Among", "Falling", "Flag", "Kind", "Number", "Pair", "Rule", "Whole", "check_settings"]


class Rule(Protocol):
    """What a field may hold; `str(rule)` says it in words."""

    def admit(self, value: Any) -> Any:
        """The value as a plain one; raises ValueError, with a hint or none, where it is not allowed."""
        ...


@dataclass(frozen=True)
class Whole:
    """A whole number from `low` to `high`, true and false are none; with `none`, None as well."""

    low: int
    high: int
    none: bool = False

    def __str__(self) -> str:
        return f"a whole number from {self.low} to {self.high}{', or None' if self.none else ''}"

    def admit(self, value: Any) -> int | None:
        """The value as an int; raises ValueError on any other."""
        if self.none and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Integral) or not self.low <= int(value) <= self.high:
            raise ValueError
        return int(value)


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, the ends included unless told; with `none`, None as well."""

    low: float
    high: float
    above: bool = False  # low itself is not allowed
    below: bool = False  # high itself is not allowed
    none: bool = False

    def __str__(self) -> str:
        ends = f"{'above' if self.above else 'from'} {self.low:g} {'and below' if self.below else 'to'} {self.high:g}"
        return f"a number {ends}{', or None' if self.none else ''}"

    def admit(self, value: Any) -> float | None:
        """The value as a plain number; raises ValueError on any other, NaN included."""
        if self.none and value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            raise ValueError
        plain: Any = value
        if not self.low <= plain <= self.high or (self.above and plain == self.low):
            raise ValueError
        if self.below and plain == self.high:
            raise ValueError
        return plain if isinstance(value, int) else float(plain)


@dataclass(frozen=True)
class Pair:
    """Two numbers."""

    each: Number

    def __str__(self) -> str:
        return f"a pair, each {self.each}"

    def admit(self, value: Any) -> tuple[Any, Any]:
        """The value as a tuple; raises ValueError on any other."""
        if not isinstance(value, tuple | list) or len(value) != 2:
            raise ValueError
        return self.each.admit(value[0]), self.each.admit(value[1])


@dataclass(frozen=True)
class Falling:
    """None, or two or more numbers from `high` to `low`, each less than the one before."""

    high: float
    low: float

    def __str__(self) -> str:
        return f"None, or two or more falling numbers from {self.high:g} to {self.low:g}"

    def admit(self, value: Any) -> tuple[float, ...] | None:
        """The value as a tuple of plain numbers; raises ValueError on any other."""
        if value is None:
            return None
        if not isinstance(value, tuple | list) or len(value) < 2:
            raise ValueError
        each = Number(self.low, self.high)
        numbers = tuple(float(each.admit(one) or 0) for one in value)
        if not all(one > other for one, other in pairwise(numbers)):
            raise ValueError
        return numbers


@dataclass(frozen=True)
class Among:
    """One of some names; with `none`, None as well."""

    names: Sequence[str]
    none: bool = False

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}{', or None' if self.none else ''}"

    def admit(self, value: Any) -> str | None:
        """The value itself; raises ValueError, with the nearest name, on any other."""
        if self.none and value is None:
            return None
        if not isinstance(value, str):
            raise ValueError
        if value not in self.names:
            near = difflib.get_close_matches(value.lower(), self.names, 1, 0.4)
            raise ValueError(f"did you mean {near[0]!r}?" if near else "")
        return value


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def __str__(self) -> str:
        return "true or false"

    def admit(self, value: Any) -> bool:
        """The value itself; raises ValueError on what is merely like one."""
        if not isinstance(value, bool):
            raise ValueError
        return value


@dataclass(frozen=True)
class Kind:
    """An object of a class, or of one of some."""

    kind: type | UnionType

    def __str__(self) -> str:
        return f"a {' or '.join(each.__name__ for each in get_args(self.kind) or (self.kind,))}"

    def admit(self, value: Any) -> Any:
        """The value itself; raises ValueError on an object of another class."""
        if not isinstance(value, self.kind):
            raise ValueError
        return value


def check_settings(settings: Any, **rules: Rule) -> None:
    """Hold each field of a frozen dataclass to its rule, and put plain numbers in; raises InputError by its name."""
    for name, rule in rules.items():
        value = getattr(settings, name)
        try:
            object.__setattr__(settings, name, rule.admit(value))
        except ValueError as error:
            came = f"{value!r:.100} in {settings!r:.400}"
            hint = f"{error} " if str(error) else ""
            raise InputError(
                f"{type(settings).__name__}.{name}: expected {rule}, got {came}; {hint}correct it"
            ) from None
