"""The tasks, by gymnasium id: one MJCF file and one Python file each."""

from __future__ import annotations

from diffpolicy_envs.task import Task
from diffpolicy_envs.tasks.avoid import Avoid
from diffpolicy_envs.tasks.button_press import ButtonPress
from diffpolicy_envs.tasks.door_open import DoorOpen
from diffpolicy_envs.tasks.drawer_open import DrawerOpen
from diffpolicy_envs.tasks.peg_insert import PegInsert
from diffpolicy_envs.tasks.pick_place import PickPlace
from diffpolicy_envs.tasks.push import Push
from diffpolicy_envs.tasks.push_t import PushT
from diffpolicy_envs.tasks.reach import Reach
from diffpolicy_envs.tasks.stack import Stack

__all__ = ["TASKS"]

TASKS: dict[str, type[Task]] = {
    "diffpolicy/Reach-v0": Reach,
    "diffpolicy/Push-v0": Push,
    "diffpolicy/PickPlace-v0": PickPlace,
    "diffpolicy/Stack-v0": Stack,
    "diffpolicy/PegInsert-v0": PegInsert,
    "diffpolicy/DrawerOpen-v0": DrawerOpen,
    "diffpolicy/DoorOpen-v0": DoorOpen,
    "diffpolicy/ButtonPress-v0": ButtonPress,
    "diffpolicy/PushT-v0": PushT,
    "diffpolicy/Avoid-v0": Avoid,
}
