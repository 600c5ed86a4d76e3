"""What a training recipe is asked for that cannot be done, told before anything is made."""

from __future__ import annotations

from typing import Any

from diffpolicy.errors import InputError

__all__ = ["checked_training"]

_COUNTS = ("steps", "batch_size", "checkpoint_every", "validate_every")  # settings of a recipe; some have no last one
_VALIDATED_BY = ("validation", "validation_episodes")  # settings of a recipe, of which some have the second alone


def checked_training(recipe: Any) -> None:
    """Raises InputError where the numbers of a training recipe cannot train, or nothing compiles that is to be."""
    names = [name for name in _COUNTS if hasattr(recipe, name)]
    good = min(getattr(recipe, name) for name in names) >= 1 and recipe.batch_size <= 2**20
    if not good or not 0 <= recipe.seed < 2**32:
        raise InputError(
            f"expected {', '.join(names[:-1])} and {names[-1]} >= 1, batch_size <= {2**20} and a seed of 0 or "
            "more, got " + ", ".join(f"{name} {getattr(recipe, name)}" for name in (*names, "seed"))
        )
    if hasattr(recipe, "validate_every"):
        _check_validation(recipe)
    if getattr(recipe.optimiser, "compile", False):
        from diffpolicy.training.compiling import require_compiler

        require_compiler("cpu")


def _check_validation(recipe: Any) -> None:
    if recipe.validation_episodes < 0:
        raise InputError(f"expected validation_episodes >= 0, got {recipe.validation_episodes}; 0 plays none")
    validated = recipe.validation_episodes or getattr(recipe, "validation", 0)
    if not validated and recipe.validate_every != type(recipe).validate_every:
        means = " or ".join(f"--{name.replace('_', '-')}" for name in _VALIDATED_BY if hasattr(recipe, name))
        raise InputError(f"expected {means} with validate_every {recipe.validate_every}: nothing else is validated")
