"""Conditions: what differs between a clean episode and one that tests a policy, and the draw of it for one episode."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from diffpolicy_envs.checks import is_real, is_whole

__all__ = ["CONDITIONS", "Condition", "Disturbance", "Start", "condition_named", "draw_disturbance"]

Start = Literal["narrow", "wide"]
"""Which of a task's two start distributions an episode begins in."""

LONGEST_DELAY = 100  # control steps; the delay line is a part of every state row


@dataclass(frozen=True)
class Condition:
    """Ranges from which an episode's disturbance is drawn at its reset; the defaults disturb nothing."""

    name: str = "clean"
    start: Start = "narrow"
    """Start distribution: the task's usual one, or one beyond it."""
    shove_speed: tuple[float, float] | None = None
    """Speed given to the object, or to the hand where there is none, in a random horizontal direction [m/s]."""
    shove_window: tuple[int, int] = (6, 36)
    """Control step at which the shove comes: first, last + 1."""
    slip_height: tuple[float, float] | None = None
    """Height of the object at which the gripper loses it, once an episode [m]."""
    sensor_noise: float = 0.0
    """Standard deviation of white noise, as a share of each observed range; the simulator's state stays clean."""
    action_delay: int = 0
    """Control steps between a command and its effect."""
    mass_scale: tuple[float, float] | None = None
    """Factor on the object's mass, log-uniform."""
    friction_scale: tuple[float, float] | None = None
    """Factor on the object's sliding friction, log-uniform."""

    def __post_init__(self) -> None:
        """Raises ValueError where a range is reversed, negative or not finite, or the start is unknown."""
        if not isinstance(self.name, str):
            raise ValueError(f"a condition's name must be a string, got {self.name!r}")
        if self.start not in get_args(Start):
            raise ValueError(f"condition {self.name!r}: expected start 'narrow' or 'wide', got {self.start!r}")
        for name in ("shove_speed", "shove_window", "slip_height", "mass_scale", "friction_scale"):
            limits = getattr(self, name)
            least = 1e-6 if name.endswith("scale") else 0
            whole = name == "shove_window"
            if (limits is not None or whole) and not _is_range(limits, least, whole):
                raise ValueError(
                    f"condition {self.name!r}: expected {name} as (low, high) with {least} <= low <= high"
                    f"{', whole steps' * whole}, got {limits!r}"
                )
        if not is_real(self.sensor_noise) or not 0 <= self.sensor_noise < np.inf:
            raise ValueError(f"condition {self.name!r}: expected sensor_noise of 0 or more, got {self.sensor_noise!r}")
        if not is_whole(self.action_delay) or not 0 <= self.action_delay <= LONGEST_DELAY:
            raise ValueError(
                f"condition {self.name!r}: expected a whole action_delay from 0 to {LONGEST_DELAY} control steps, "
                f"got {self.action_delay!r}"
            )

    def uses(self) -> tuple[str, ...]:
        """Which of ``CONDITIONS``, by name, this one has something of."""
        parts = {
            "shove": self.shove_speed is not None,
            "slip": self.slip_height is not None,
            "sensor_noise": self.sensor_noise > 0,
            "action_delay": self.action_delay > 0,
            "dynamics": self.mass_scale is not None or self.friction_scale is not None,
            "wide": self.start == "wide",
        }
        return tuple(name for name, used in parts.items() if used)


def _is_range(limits: Any, least: float, whole: bool) -> bool:
    return (
        isinstance(limits, tuple | list)
        and len(limits) == 2
        and all((is_whole if whole else is_real)(limit) for limit in limits)
        and least <= limits[0] <= limits[1] < np.inf
    )


CONDITIONS: dict[str, Condition] = {
    condition.name: condition
    for condition in (
        Condition(),
        Condition("shove", shove_speed=(0.7, 1.5)),
        Condition("slip", slip_height=(0.02, 0.06)),
        Condition("sensor_noise", sensor_noise=0.01),
        Condition("action_delay", action_delay=2),
        Condition("dynamics", mass_scale=(0.5, 2.0), friction_scale=(0.6, 1.4)),
        Condition("wide", start="wide"),
    )
}


def condition_named(
    condition: str | Condition, known: Mapping[str, Condition] = CONDITIONS, task: str = ""
) -> Condition:
    """A condition by its name, or the given one; ``Task.condition`` is the one to ask for a task's.

    Args:
        condition: name or condition.
        known: those to choose from by name.
        task: name of the task that knows them, for the message.

    Raises:
        ValueError: neither a name nor a condition, or an unknown name; the message lists the known ones.
    """
    if isinstance(condition, Condition):
        return condition
    if not isinstance(condition, str):
        raise ValueError(f"expected the name of a condition or a diffpolicy_envs.Condition, got {condition!r}")
    if condition not in known:
        near = difflib.get_close_matches(condition, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        hint = "; it means nothing there" if condition in CONDITIONS else hint
        one_of = f"task {task} knows" if task else "expected one of"
        raise ValueError(f"unknown condition {condition!r}: {one_of} {', '.join(known)}{hint}")
    return known[condition]


@dataclass(frozen=True)
class Disturbance:
    """What one episode will suffer, drawn once at its reset."""

    shove_step: int = -1  # control step of the shove; -1 never
    shove_angle: float = 0.0  # direction on the table [rad]
    shove_speed: float = 0.0  # [m/s]
    slip_height: float = np.inf  # [m]; infinite never
    mass_scale: float = 1.0
    friction_scale: float = 1.0


def draw_disturbance(condition: Condition, rng: np.random.Generator) -> Disturbance:
    """One episode's disturbance.

    Every number is drawn whatever the condition uses, so that the start of an episode and its disturbance
    depend on the seed alone and conditions can be compared on the same seeds.
    """
    step, angle, speed, height, mass, friction = rng.uniform(size=6)

    def between(share: float, limits: tuple[float, float]) -> float:
        return float(limits[0] + share * (limits[1] - limits[0]))

    def log_between(share: float, limits: tuple[float, float] | None) -> float:
        return 1.0 if limits is None else float(limits[0] * (limits[1] / limits[0]) ** share)

    shoved = condition.shove_speed is not None
    return Disturbance(
        shove_step=int(between(step, condition.shove_window)) if shoved else -1,
        shove_angle=between(angle, (0.0, 2 * np.pi)),
        shove_speed=between(speed, condition.shove_speed) if condition.shove_speed else 0.0,
        slip_height=between(height, condition.slip_height) if condition.slip_height else np.inf,
        mass_scale=log_between(mass, condition.mass_scale),
        friction_scale=log_between(friction, condition.friction_scale),
    )
