"""A student and whom it is compared with: whether their chunks mean the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.policy.policy import Policy

__all__ = ["require_pair"]


def require_pair(student: Policy, teacher: Policy, taught: Path) -> None:
    """Raises InputError where a teacher, of folder `taught`, cannot be compared with a student, chunk by chunk.

    It draws no chain or is a student itself, or its spaces, lengths or units of actions are others.
    """
    import torch

    from diffpolicy.updates.distilling import chains_of

    if differing := student.spaces.differences(teacher.spaces):
        raise InputError(f"expected a teacher of the student's spaces in {taught}, got others: {differing}")
    if teacher.config.model == "student":
        raise InputError(f"expected a teacher of many steps in {taught}, got a student; name one by --teacher")
    chains_of(teacher)
    for name in ("n_obs_steps", "horizon"):
        ours, theirs = (getattr(policy.config, name) for policy in (student, teacher))
        if ours != theirs:
            raise InputError(f"expected a teacher of {name} {ours}, as the student's, in {taught}, got {theirs}")
    ends = torch.tensor([[-1.0], [1.0]]).expand(2, student.action_size)
    if not torch.allclose(student.normaliser.unnormalise_action(ends), teacher.normaliser.unnormalise_action(ends)):
        raise InputError(
            f"expected a teacher with the student's units of actions in {taught}, got one that was trained on data of "
            "another range; take the student's own"
        )
