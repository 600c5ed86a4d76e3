"""The one exception that means: the caller gave us something we cannot use."""

from __future__ import annotations

__all__ = ["InputError"]


class InputError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do about it."""
