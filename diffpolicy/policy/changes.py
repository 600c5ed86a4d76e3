"""Settings of a policy that may be changed after training, as words: ``sampler.steps=4``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from diffpolicy.errors import InputError, nearest
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.models import FRAMES

__all__ = ["FREE", "changed", "replaced"]

FREE = ("n_action_steps", "sampler", "acting")
_OF_STUDENTS = ("clip",)  # all of its sampler that does not change the chains that it was distilled to


def changed(config: PolicyConfig, changes: Sequence[str]) -> PolicyConfig:
    """The settings with others in the place of some: ``n_action_steps=4``, ``sampler.solver=heun``, ...

    A value is JSON (``4``, ``0.5``, ``null``, ``[1, 0.5, 0]``), else text. All take effect at once. Raises
    InputError on what is no such setting, and where they do not fit together.
    """
    new: dict[str, dict[str, Any]] = {}
    names = _names(config)
    for change in changes:
        name, equals, text = change.partition("=")
        group, _, inner = name.rpartition(".")
        if name in names and not equals:
            raise InputError(f"expected {name}=VALUE, got {change!r}; say what it shall be")
        if not equals or name not in names:
            raise InputError(
                f"expected a setting that may change after training and its value, such as sampler.steps=4, got "
                f"{change!r}{nearest(name, names)}; the settings are {', '.join(names)}"
            )
        if inner in new.setdefault(group, {}):
            raise InputError(f"expected {name} once, got it again as {change!r}; leave one out")
        if config.model == "student" and group == "sampler" and inner not in _OF_STUDENTS:
            raise InputError(
                f"expected no change of {name} for a student, which knows the chains alone that it was distilled to "
                f"(sampler.steps={config.sampler.steps}); distil another from its teacher"
            )
        new[group][inner] = _value(text)
    return replaced(config, new.pop("", {}), **new)


def replaced(config: PolicyConfig, own: Mapping[str, Any] | None = None, **groups: Mapping[str, Any]) -> PolicyConfig:
    """The settings with some of their own and of their groups', such as `sampler`, replaced.

    Raises InputError where the model fixes one.
    """
    free = FRAMES[config.model].free if config.model in FRAMES else None
    for name, value in groups.get("sampler", {}).items():
        if free is not None and name not in free and value != getattr(config.sampler, name, value):
            raise InputError(f"expected no change of sampler.{name}, which model {config.model!r} fixes; leave it out")
    asked = {group: replace(getattr(config, group), **each) for group, each in groups.items()}
    return replace(config, **(own or {}), **asked)


def _names(config: PolicyConfig) -> list[str]:
    top, *groups = FREE
    return [top, *(f"{group}.{field.name}" for group in groups for field in fields(getattr(config, group)))]


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
