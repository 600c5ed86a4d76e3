"""The tasks, by gymnasium id: one MJCF file and one Python file each."""

from __future__ import annotations

from diffpolicy_envs.task import Task
from diffpolicy_envs.tasks.pick_place import PickPlace

__all__ = ["TASKS"]

TASKS: dict[str, type[Task]] = {
    "diffpolicy/PickPlace-v0": PickPlace,
}
