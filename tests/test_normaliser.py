"""Laws of spaces, units and features."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Encoder, Normaliser, SpaceSpec

INF = float("inf")
BOUNDED = SpaceSpec({"a.b": Bounds((-1.0, 0.0), (3.0, 10.0))}, Bounds((-2.0,), (4.0,)), False)
MIXED = SpaceSpec({"x": Bounds((-1.0, -INF), (3.0, INF))}, Bounds((-2.0,), (4.0,)), False)
ROWS = torch.tensor([[0.0, 5.0], [1.0, 9.0]])
ACTIONS = torch.tensor([[0.0], [1.0]])


def test_finite_bounds_map_to_the_unit_range_without_any_data() -> None:
    normaliser = Normaliser(BOUNDED)
    assert normaliser.fitted
    low_and_high = torch.tensor([[-1.0, 0.0], [3.0, 10.0]])
    normalised = normaliser.normalise_obs({"a.b": low_and_high})["a.b"]
    torch.testing.assert_close(normalised, torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    torch.testing.assert_close(normaliser.normalise_action(torch.tensor([-2.0, 1.0, 4.0])[:, None]),
                               torch.tensor([-1.0, 0.0, 1.0])[:, None])  # fmt: skip


def test_actions_survive_the_round_trip_and_are_clipped_to_their_space() -> None:
    normaliser = Normaliser(BOUNDED)
    actions = torch.linspace(-2, 4, 13)[:, None]
    torch.testing.assert_close(normaliser.unnormalise_action(normaliser.normalise_action(actions)), actions)
    assert torch.equal(normaliser.unnormalise_action(torch.tensor([[-9.0], [9.0]])), torch.tensor([[-2.0], [4.0]]))


def test_ranges_come_from_data_only_where_the_space_has_none() -> None:
    normaliser = Normaliser(MIXED)
    normaliser.fit({"x": ROWS}, ACTIONS)
    normalised = normaliser.normalise_obs({"x": ROWS})["x"]
    torch.testing.assert_close(normalised, torch.tensor([[-0.5, -1.0], [0.0, 1.0]]))


def test_a_constant_dimension_is_divided_by_the_floor() -> None:
    normaliser = Normaliser(MIXED)
    normaliser.fit({"x": torch.full((5, 2), 7.0)}, ACTIONS)
    shifted = normaliser.normalise_obs({"x": torch.tensor([[1.0, 7.01]])})["x"]
    assert float(shifted[0, 1]) == pytest.approx(1, abs=1e-3)


def test_use_before_fitting_and_fitting_twice_are_refused() -> None:
    normaliser = Normaliser(MIXED)
    with pytest.raises(InputError, match="fitted"):
        normaliser.normalise_obs({"x": ROWS})
    with pytest.raises(InputError, match="fitted"):
        normaliser.normalise_action(ACTIONS)
    normaliser.fit({"x": ROWS}, ACTIONS)
    assert normaliser.frozen
    with pytest.raises(InputError, match="frozen"):
        normaliser.fit({"x": ROWS}, ACTIONS)


def test_statistics_and_frozenness_travel_in_the_state_dict() -> None:
    fitted, other = Normaliser(MIXED), Normaliser(MIXED)
    fitted.fit({"x": ROWS}, ACTIONS)
    assert not other.fitted
    other.load_state_dict(fitted.state_dict())
    assert other.fitted
    assert other.frozen
    assert torch.equal(other.normalise_obs({"x": ROWS})["x"], fitted.normalise_obs({"x": ROWS})["x"])


def test_names_that_differ_in_a_dot_alone_have_ranges_of_their_own() -> None:
    names = ["a.b", "a/b", "a%2Eb", "a%b", "dotted_a%2Eb", "ab", ".", "..", "obs_ab", "keys", "%2E"]
    spec = SpaceSpec(
        {name: Bounds((0.0,), (float(i + 1),)) for i, name in enumerate(names)}, Bounds((0.0,), (1.0,)), False
    )
    normaliser = Normaliser(spec)
    for i, name in enumerate(names):
        assert float(normaliser.normalise_obs({name: torch.tensor([i + 1.0])})[name]) == pytest.approx(1.0)
    other = Normaliser(spec)
    other.load_state_dict(normaliser.state_dict())
    assert {f"observations.obs_{name}.scale" for name in names if "." not in name} <= set(normaliser.state_dict())


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ({}, "expected rows of"),
        ({"y": ROWS}, "expected rows of"),
        ({"x": ROWS[:0]}, "M >= 1"),
        ({"x": ROWS[:, :1]}, "M, 2"),
        ({"x": ROWS * float("nan")}, "finite"),
    ],
)
def test_unusable_rows_are_refused_and_change_nothing(rows: dict[str, torch.Tensor], match: str) -> None:
    normaliser = Normaliser(MIXED)
    with pytest.raises(InputError, match=match):
        normaliser.fit(rows, ACTIONS)
    assert not normaliser.frozen
    assert not normaliser.fitted


def test_features_are_sorted_by_name_and_clipped() -> None:
    unit = Bounds((-1.0,), (1.0,))
    encoder = Encoder(SpaceSpec({"z": unit, "a": unit}, unit, False), n_obs_steps=2)
    features = encoder({"z": torch.tensor([[[0.1], [0.2]]]), "a": torch.tensor([[[0.3], [99.0]]])})
    torch.testing.assert_close(features, torch.tensor([[0.3, 0.1, 5.0, 0.2]]))
    assert encoder.features == 4
    with pytest.raises(InputError, match=r"'z' of shape \(B, 2, 1\)"):
        encoder({"z": torch.zeros(1, 1, 1), "a": torch.zeros(1, 2, 1)})


def test_spaces_survive_json() -> None:
    for spec in (BOUNDED, MIXED):
        assert SpaceSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec
    with pytest.raises(InputError, match="SpaceSpec"):
        SpaceSpec.from_json({"observations": {}})


def test_spaces_are_read_from_boxes_and_dicts_of_boxes() -> None:
    box, action = spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (2,))
    assert SpaceSpec.from_spaces(box, action).boxed
    named = SpaceSpec.from_spaces(spaces.Dict({"b": box, "a": action}), action)
    assert not named.boxed
    assert list(named.observations) == ["a", "b"]
    assert named.action == Bounds((-2.0, -2.0), (2.0, 2.0))


BOX, TWO = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))


@pytest.mark.parametrize(
    ("observation", "action", "named"),
    [
        (spaces.Box(-1, 1, (3, 3)), TWO, "observation space.*FlattenObservation"),
        (spaces.Box(-1, 1, ()), TWO, "observation space.*FlattenObservation"),
        (spaces.Box(0, 255, (8, 8, 3), np.uint8), TWO, "vectors, not pictures"),
        (
            spaces.Dict({"x": BOX, "camera": spaces.Box(0, 255, (8, 8, 3), np.uint8)}),
            TWO,
            "'camera'.*FilterObservation",
        ),
        (spaces.Dict({"a": spaces.Discrete(3)}), TWO, "'a'.*FlattenObservation"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.MultiBinary(3)})}), TWO, "'a/b'.*FlattenObservation"),
        (spaces.Tuple((BOX, BOX)), TWO, "FlattenObservation"),
        (spaces.Dict({}), TWO, "at least one"),
        (spaces.Dict({"a": spaces.Dict({"": BOX})}), TWO, "names of their own"),
        (spaces.Dict({"a/b": BOX, "a": spaces.Dict({"b": BOX})}), TWO, "'a/b'.*rename"),
        (spaces.Box(-1, 1, (0,)), TWO, "no numbers"),
        (spaces.Box(np.inf, np.inf, (3,)), TWO, "'observation'.*finite number between"),
        (BOX, spaces.Discrete(4), "choose an environment whose actions are a Box"),
        (BOX, spaces.MultiDiscrete([2, 2]), "choose an environment"),
        (BOX, spaces.Dict({"arm": TWO}), "choose an environment"),
        (BOX, spaces.Box(0, 3, (2,), np.int64), "Box of floats"),
        (BOX, spaces.Box(-1, 1, (4, 2)), "single_action_space"),
        (BOX, spaces.Box(-np.inf, -np.inf, (2,)), "action space.*finite number between"),
    ],
)
def test_other_spaces_are_refused_with_what_to_do(observation: spaces.Space, action: spaces.Space, named: str) -> None:
    with pytest.raises(InputError, match=named):
        SpaceSpec.from_spaces(observation, action)


def test_unusual_bounds_are_taken_as_they_are() -> None:
    low, high = np.array([0.0, -np.inf, 2.0, -1e300]), np.array([np.inf, 1.0, 2.0, 1e300])
    spec = SpaceSpec.from_spaces(spaces.Box(low, high, dtype=np.float64), spaces.Box(low, high, dtype=np.float64))
    normaliser = Normaliser(spec)
    rows = torch.tensor([[0.0, 0.0, 2.0, 0.0], [4.0, -4.0, 2.0, 4.0]])
    normaliser.fit({"observation": rows}, rows)
    torch.testing.assert_close(normaliser.normalise_action(rows), torch.tensor([[-1.0, 1, 0, -1], [1, -1, 0, 1]]))
    far = normaliser.unnormalise_action(torch.tensor([[-9.0, 9.0, 9.0, 9.0]]))
    torch.testing.assert_close(far, torch.tensor([[0.0, 1.0, 2.0, 20.0]]))  # each within its bounds


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_spaces_survive_json(data: st.DataObject) -> None:
    def bounds() -> Bounds:
        pairs = data.draw(
            st.lists(st.tuples(st.floats(allow_nan=False), st.floats(allow_nan=False)), min_size=1, max_size=3)
        )
        low = [min(min(pair), 1e308) for pair in pairs]
        return Bounds(tuple(low), tuple(max(max(pair), -1e308) for pair in pairs))

    names = data.draw(st.lists(st.text(min_size=1), min_size=1, max_size=3, unique=True))
    spec = SpaceSpec({name: bounds() for name in names}, bounds(), False)
    assert SpaceSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False))) == spec


WRONG_SPACES = [
    None,
    [],
    {"observations": {}},
    {"observations": [], "action": {"low": [0], "high": [1]}, "boxed": False},
    {"observations": {}, "action": {"low": [0], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": "12", "high": [1, 2]}}, "action": {"low": [0], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": [True], "high": [1]}}, "action": {"low": [0], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": [2], "high": [1]}}, "action": {"low": [0], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": [0], "high": [1]}}, "action": {"low": [float("nan")], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": [0], "high": [1]}}, "action": {"low": [10**400], "high": [1]}, "boxed": False},
    {"observations": {"x": {"low": [0], "high": [1]}}, "action": {"low": [0], "high": [1]}, "boxed": True},
    {"observations": {"x": {"low": [0], "high": [1]}}, "action": {"low": [0], "high": [1]}, "boxed": "no"},
]


@pytest.mark.parametrize("wrong", WRONG_SPACES, ids=str)
def test_edited_spaces_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"SpaceSpec\.to_json"):
        SpaceSpec.from_json(wrong)


def test_bounds_must_be_ordered() -> None:
    for low, high in [((1.0,), (0.0,)), ((), ()), ((0.0,), (1.0, 2.0)), ((float("nan"),), (1.0,))]:
        with pytest.raises(InputError, match="low <= high"):
            Bounds(low, high)
    for side in (INF, -INF):
        with pytest.raises(InputError, match="finite number between"):
            Bounds((side,), (side,))


def test_joined_ranges_follow_what_is_loaded_and_moved() -> None:
    spaces = SpaceSpec({"a": Bounds((-2.0,), (2.0,)), "b": Bounds((0.0,), (8.0,))}, Bounds((-1.0,), (1.0,)), False)
    wider = SpaceSpec({"a": Bounds((-4.0,), (4.0,)), "b": Bounds((0.0,), (8.0,))}, Bounds((-1.0,), (1.0,)), False)
    ours, theirs = Normaliser(spaces), Normaliser(wider)
    with torch.inference_mode():
        centre, scale = ours.ranges()
    assert (centre.tolist(), scale.tolist()) == ([0.0, 4.0], [2.0, 4.0])
    assert not scale.is_inference()  # good for training, too
    holder = torch.nn.ModuleDict({"normaliser": ours})
    holder.load_state_dict(torch.nn.ModuleDict({"normaliser": theirs}).state_dict())
    assert ours.ranges()[1].tolist() == [4.0, 4.0]
    assert holder.double().normaliser.ranges()[1].dtype == torch.float64  # type: ignore[union-attr, operator]
    endless = SpaceSpec({"a": Bounds((-np.inf,), (np.inf,))}, Bounds((-1.0,), (1.0,)), False)
    fitted = Normaliser(endless)
    with pytest.raises(InputError, match="fitted"):
        fitted.ranges()
    fitted.fit({"a": torch.tensor([[0.0], [6.0]])}, torch.zeros(2, 1))
    assert fitted.ranges()[1].tolist() == [3.0]
