"""The one exception that means that the caller gave us something we cannot use, and how it names what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "nearest"]


class InputError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do about it."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """``"; did you mean A or B?"`` with up to ``count`` of the known names, nearest first; "" where none is near."""
    by_lower = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), by_lower, count, 0.6)
    return f"; did you mean {' or '.join(by_lower[each] for each in near)}?" if near else ""
