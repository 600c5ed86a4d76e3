"""Episodes that a policy plays within a recipe, on disk once they are complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy.errors import InputError
from diffpolicy.recipes.progress import EpisodeProgress
from diffpolicy.recipes.run import conditions_in

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.policy.policy import Policy
    from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["keep", "play", "require_playable", "require_success"]

_AT_ONCE = 64  # simulations


def require_playable(spaces: SpaceSpec, environment: str, source: Path, conditions: Sequence[str]) -> None:
    """Raises InputError where a student of a teacher with these spaces, in `source`, cannot be played there."""
    from diffpolicy.rollout.environment import spaces_of

    if not environment:
        raise InputError(f"{source} does not say in which environment to play its student; add --environment")
    if differing := spaces.differences(spaces_of(environment)):
        raise InputError(
            f"expected to play the student in an environment of its teacher's spaces, got {environment} "
            f"({differing}); name the teacher's own by --environment"
        )
    conditions_in(environment, conditions)


def require_success(policy: Policy, environment: str, seeds: range) -> None:
    """Raises InputError where an environment says nothing of success in these episodes."""
    from diffpolicy.rollout import loop
    from diffpolicy.rollout.environment import make_vector

    env = make_vector(environment, len(seeds))
    try:
        told = loop.play(env, policy, seeds, dropped=lambda _: None).reports_success
    finally:
        env.close()
    if not told:
        raise InputError(
            f"expected an environment that reports success (success or is_success in info), got {environment}, and "
            "nothing else is rewarded; give --reward.environment a weight"
        )


def play(policy: Policy, environment: str, conditions: Sequence[str], seeds: range, title: str) -> list[Episode]:
    """An episode for each reset seed, shared among the conditions that the environment knows."""
    from diffpolicy.rollout.environment import make_vector
    from diffpolicy.rollout.loop import rollout

    known = conditions_in(environment, conditions)
    episodes: list[Episode] = []
    with EpisodeProgress(len(seeds), title) as progress:
        for place, condition in enumerate(known):
            if share := seeds[place :: len(known)]:
                env = make_vector(environment, min(len(share), _AT_ONCE), condition)
                lost = progress.dropped
                episodes += rollout(env, policy, share, condition=condition, finished=progress, dropped=lost)
                env.close()
    return episodes


def keep(
    path: Path, episodes: Sequence[Episode], environment: str, description: str, provenance: Mapping[str, Any]
) -> Sequence[Episode]:
    """Write episodes of an environment as a dataset; returns them as they stand there."""
    from diffpolicy.data.dataset import read_dataset, write_dataset
    from diffpolicy.rollout.environment import make_vector

    env = make_vector(environment, 1)
    write_dataset(
        path,
        episodes,
        environment=environment,
        observation_space=env.single_observation_space,
        action_space=env.single_action_space,
        description=description,
        provenance=dict(provenance),
    )
    env.close()
    return read_dataset(path).episodes
