"""What a policy was trained on as windows again, for a student of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from diffpolicy.recipes.lineage import Lineage

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.data.windows import Windows
    from diffpolicy.policy.policy import Policy

__all__ = ["observations", "observed"]


def observed(origin: Lineage, teacher: Policy, actions: bool = False) -> list[Windows]:
    """Windows of the data, and of each of the teacher's own rollouts: observations alone, or actions too.

    Raises InputError on data that are not of the teacher's kind.
    """
    from diffpolicy.data.checks import require_usable
    from diffpolicy.data.dataset import read_dataset
    from diffpolicy.data.windows import windows

    parts = []
    for path, count in ((origin.dataset, origin.demonstrations), *((path, None) for path in origin.rollouts)):
        episodes = read_dataset(path).episodes[:count]
        require_usable(episodes, teacher.spaces, str(path))
        whole = windows(episodes, teacher.config.n_obs_steps, teacher.config.horizon)
        parts.append(whole if actions else observations(episodes, teacher))
    return parts


def observations(episodes: Sequence[Episode], policy: Policy) -> Windows:
    """Windows whose chunks all count, since the teacher answers for each of their actions."""
    import torch

    from diffpolicy.data.windows import windows

    table = windows(
        [replace(episode, labels=None) for episode in episodes], policy.config.n_obs_steps, policy.config.horizon
    )
    return replace(table, mask=torch.ones_like(table.mask))
