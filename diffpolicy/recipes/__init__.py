"""Recipes: a stage in a file, each a frozen dataclass of settings that is called; torch is imported only then."""

from __future__ import annotations

__all__: list[str] = []
