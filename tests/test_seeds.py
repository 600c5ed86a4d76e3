"""Reset seeds: purposes never share an episode, and the same words give the same seeds."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import pytest

from diffpolicy.errors import InputError
from diffpolicy.rollout.seeds import Purpose, episode_seeds

PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def test_purposes_and_seeds_never_share_an_episode() -> None:
    blocks = [episode_seeds(purpose, seed, 1_000_000) for purpose in PURPOSES for seed in (0, 1, 498, 499)]
    for one, other in combinations(blocks, 2):
        assert one.stop <= other.start or other.stop <= one.start


def test_every_seed_is_one_that_environments_take() -> None:
    ends = [(episode_seeds(each, 0, 1)[0], episode_seeds(each, 499, 1_000_000)[-1]) for each in PURPOSES]
    assert all(0 <= first < last < 2**31 for first, last in ends)


def test_what_chooses_a_policy_and_what_it_is_reported_on_never_meet() -> None:
    purposes: tuple[Purpose, ...] = ("validation", "evaluation")
    one, other = (range(episode_seeds(p, 0, 1)[0], episode_seeds(p, 499, 1_000_000)[-1] + 1) for p in purposes)
    assert one.stop <= other.start or other.stop <= one.start


@pytest.mark.parametrize("purpose", PURPOSES)
def test_later_episodes_go_on_where_earlier_ones_ended(purpose: Purpose) -> None:
    whole = list(episode_seeds(purpose, 3, 12))
    assert list(episode_seeds(purpose, 3, 5)) + list(episode_seeds(purpose, 3, 7, start=5)) == whole
    assert len(set(whole)) == 12


@pytest.mark.parametrize(
    ("seed", "count", "start"), [(-1, 1, 0), (500, 1, 0), (0, -1, 0), (0, 1, -1), (0, 1_000_000, 1)]
)
def test_seeds_that_would_leave_their_block_are_refused(seed: int, count: int, start: int) -> None:
    with pytest.raises(InputError, match=r"expected a seed in 0\.\.499"):
        episode_seeds("evaluation", seed, count, start)
