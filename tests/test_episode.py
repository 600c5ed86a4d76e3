"""Laws of Episode: every invariant is held, and what breaks it is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from diffpolicy.data.episode import Episode, Labels, flattened, from_arrays, nested
from diffpolicy.errors import InputError

T, A, W, N, S = 4, 2, 3, 5, 7  # steps, action, observation width, labels, state


def fields(**changes: Any) -> dict[str, Any]:
    good: dict[str, Any] = {
        "obs": {"hand": np.ones((T + 1, W), np.float32), "cube": np.ones((T + 1, 1), np.float32)},
        "actions": np.ones((T, A), np.float32),
        "rewards": np.full(T, 0.5, np.float32),
        "terminated": True,
        "truncated": False,
        "success": np.True_,
        "seed": np.int64(3),
        "states": np.ones((T, S)),
        "labels": Labels(np.ones((T, N, A), np.float32), np.ones((T, N), np.bool_)),
    }
    return {**good, **changes}


def with_nan(*shape: int) -> np.ndarray:
    array = np.ones(shape, np.float32)
    array.flat[-1] = np.nan
    return array


def test_a_good_episode_knows_its_length_and_total_reward() -> None:
    episode = Episode(**fields())
    assert len(episode) == T
    assert episode.total_reward == 2.0
    assert episode.success is True
    assert type(episode.seed) is int
    assert episode.condition == "clean"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"obs": {}}, "obs"),
        ({"obs": np.ones((T + 1, W), np.float32)}, "obs"),
        ({"obs": {"a//b": np.ones((T + 1, W), np.float32)}}, "obs"),
        ({"obs": {"a/.": np.ones((T + 1, W), np.float32)}}, "obs"),  # HDF5 takes it for the group itself
        ({"obs": {"a\0b": np.ones((T + 1, W), np.float32)}}, "obs"),
        ({"obs": {"hand": np.ones((T, W), np.float32)}}, r"obs\['hand'\]"),
        ({"obs": {"hand": np.ones((T + 1, W))}}, r"obs\['hand'\].*float64"),
        ({"obs": {"hand": np.ones(T + 1, np.float32)}}, r"obs\['hand'\]"),
        ({"obs": {"hand": with_nan(T + 1, W)}}, r"obs\['hand'\].*nan at \(4, 2\)"),
        ({"actions": with_nan(T, A)}, "actions.*nan"),
        ({"actions": np.ones((0, A), np.float32)}, "actions"),
        ({"actions": np.ones(T, np.int64)}, "actions.*int64"),
        ({"actions": [[1.0, 2.0]]}, "actions.*list"),
        ({"rewards": np.ones(T + 1, np.float32)}, "rewards"),
        ({"rewards": with_nan(T)}, "rewards"),
        ({"terminated": 1}, "terminated"),
        ({"success": "yes"}, "success"),
        ({"seed": -2}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"condition": ""}, "condition"),
        ({"condition": "a\0b"}, "condition"),
        ({"labels": np.ones((T, N, A))}, "labels.*Labels"),
        ({"states": np.ones((T + 1, S))}, "states"),
        ({"states": np.ones((T, S), np.float32)}, "states"),
        ({"labels": Labels(np.ones((T + 1, N, A), np.float32), np.ones((T + 1, N), np.bool_))}, "labels"),
        ({"labels": Labels(np.ones((T, N, A + 1), np.float32), np.ones((T, N), np.bool_))}, "labels"),
    ],
)
def test_what_breaks_an_invariant_is_refused_by_name(change: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Episode(**fields(**change))


def test_labels_refuse_a_mask_of_another_shape_and_values_that_are_not_finite() -> None:
    with pytest.raises(InputError, match=r"labels\.valid"):
        Labels(np.ones((T, N, A), np.float32), np.ones((T, N + 1), np.bool_))
    with pytest.raises(InputError, match=r"labels\.chunks.*nan"):
        Labels(with_nan(T, N, A), np.ones((T, N), np.bool_))


def test_arrays_end_to_end_become_episodes_that_keep_every_action() -> None:
    obs, actions = np.arange(10.0).reshape(5, 2), np.arange(5.0)[:, None]
    first, second = from_arrays(obs, actions, [2, 5], success=np.array([False, True]))
    np.testing.assert_array_equal(first.actions, [[0], [1]])
    np.testing.assert_array_equal(second.actions, [[2], [3], [4]])
    np.testing.assert_array_equal(second.obs["observation"], obs[[2, 3, 4, 4]])
    assert (first.success, second.success) == (False, True)
    assert second.truncated
    assert not second.terminated


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"episode_ends": [2, 4]}, "expected the 4 rows"),
        ({"episode_ends": [3, 3, 5]}, "ascending"),
        ({"episode_ends": []}, "episode_ends"),
        ({"rewards": np.ones(4)}, "rewards"),
        ({"success": [True]}, "success"),
        ({"obs": np.full((5, 2), np.inf)}, "finite"),
        ({"obs": np.full((5, 2), 1e300)}, "finite"),
        ({"actions": np.array(["left"] * 5)}, "numbers"),
    ],
)
def test_arrays_that_disagree_are_refused(change: dict[str, Any], named: str) -> None:
    good = {"obs": np.ones((5, 2)), "actions": np.ones((5, 1)), "episode_ends": [2, 5]}
    with pytest.raises(InputError, match=named):
        from_arrays(**{**good, **change})


def test_nested_names_flatten_and_return() -> None:
    tree = {"robot": {"arm": {"q": 1}, "hand": 2}, "cube": 3}
    assert flattened(tree) == {"robot/arm/q": 1, "robot/hand": 2, "cube": 3}
    assert nested(flattened(tree)) == tree
    for clash in ({"a": 1, "a/b": 2}, {"a/b": 2, "a": 1}):
        with pytest.raises(InputError, match="rename"):
            nested(clash)
