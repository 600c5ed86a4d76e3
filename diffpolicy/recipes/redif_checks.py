"""What `redif` is asked for that cannot be done, or would be ignored, told before anything is made."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from diffpolicy.errors import InputError
from diffpolicy.updates import CHUNK_REWARDS, PLAYED_REWARDS, PolicyGradientConfig, RewardConfig

if TYPE_CHECKING:
    from diffpolicy.recipes.redif import Redif

__all__ = ["require_sensible"]

_MOST = 2**20  # chains or episodes an update


def require_sensible(recipe: Redif) -> None:
    """Raises InputError where settings contradict each other, would be ignored, or are beyond what memory holds."""
    least = {"group": 2, "rollouts": 1, "windows": 1, "teacher_steps": 1}
    for name, low in least.items():
        if getattr(recipe, name) < low:
            raise InputError(f"expected {name} >= {low}, got {getattr(recipe, name)}; correct it")
    own = recipe.observations == "own"
    if recipe.gradient == "path":
        _require_path(recipe)
    if not own:
        _require_judging(recipe)
    _require_used(recipe, own)
    if max(recipe.windows * recipe.group, recipe.rollouts) > _MOST:
        raise InputError(f"expected at most {_MOST} chains or episodes an update, got more; lower group or windows")
    if own and recipe.baseline == "group" and recipe.rollouts % recipe.group:
        raise InputError(f"expected rollouts in whole groups of {recipe.group}, got {recipe.rollouts}; change either")
    if own and recipe.baseline == "critic" and recipe.steps <= recipe.optimiser.critic_warmup:
        raise InputError(
            f"expected more steps than the {recipe.optimiser.critic_warmup} of optimiser.critic_warmup, in which the "
            f"critic alone learns, got {recipe.steps}; raise them, or lower it"
        )


def _require_used(recipe: Redif, own: bool) -> None:
    """Raises InputError on settings that would be ignored."""
    compared = recipe.reward.agreement or recipe.reward.likeness
    unused = {
        "windows": own,
        "group": recipe.baseline == "critic" if own else recipe.gradient == "path",
        "rollouts": not own,
        "baseline": not own,
        "conditions": not own,
        "data": own and not recipe.optimiser.demos,
        "teacher": not compared,
        "teacher_steps": not compared,
    }
    usual = {each.name: each.default for each in fields(recipe)}
    for name, ignored in unused.items():
        if ignored and getattr(recipe, name) != usual[name]:
            raise InputError(
                f"expected no {name}, which these observations, rewards, gradient and baseline do not use, got "
                f"{getattr(recipe, name)}; leave it out"
            )


def _require_judging(recipe: Redif) -> None:
    """Raises InputError where a reward needs an environment, and there is none."""
    if not any(getattr(recipe.reward, name) for name in CHUNK_REWARDS):
        raise InputError(
            f"expected a weight above 0 for one of {', '.join(CHUNK_REWARDS)} with observations of data, which are "
            "not played, got none; add --reward.agreement 1, or take --observations own"
        )
    usual = RewardConfig()
    asked = [name for name in PLAYED_REWARDS if getattr(recipe.reward, name) not in (0.0, getattr(usual, name))]
    if asked or recipe.validation_episodes:
        raise InputError(
            "expected nothing that has to be played with observations of data, got "
            + (f"a weight of {asked[0]}" if asked else "validation episodes")
            + "; leave it out, or take --observations own"
        )


def _require_path(recipe: Redif) -> None:
    """Raises InputError on what a gradient through the chain does not use, and would ignore."""
    if recipe.observations != "data":
        raise InputError("expected --observations data with the gradient of path, which cannot see through playing")
    usual, free = PolicyGradientConfig(), ("lr", "grad_clip")
    other = [f.name for f in fields(usual) if getattr(recipe.optimiser, f.name) != getattr(usual, f.name)]
    if unused := [name for name in other if name not in free]:
        raise InputError(f"expected of the optimiser {' and '.join(free)} alone with path, got {', '.join(unused)}")
