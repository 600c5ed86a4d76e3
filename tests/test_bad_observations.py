"""Laws of refusal: whatever is wrong with what `predict` gets, torch's policy and the exported one say so alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.policy.chunked import ChunkedPredictor
from diffpolicy.policy.export import export_onnx
from diffpolicy.runtime import OnnxPolicy

NAMED = SpaceSpec({"a": Bounds((-1.0,), (1.0,)), "b": Bounds((-1.0,) * 2, (1.0,) * 2)}, Bounds((0.0,), (4.0,)), False)
BOXED = SpaceSpec({"observation": Bounds((-1.0,) * 3, (1.0,) * 3)}, Bounds((-2.0,), (2.0,)), True)
GOOD: dict[str, Any] = {"a": np.zeros(1, np.float32), "b": np.zeros(2, np.float32)}
HUGE = np.array([0.0, 1e300])


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChunkedPredictor]:
    """Each kind of policy with named and with bare observations."""
    torch.manual_seed(0)
    made: dict[str, ChunkedPredictor] = {}
    for name, spaces in {"named": NAMED, "boxed": BOXED}.items():
        sizes = {"network": MLPConfig(width=8, blocks=1, time_dim=4), "sampler": SamplerConfig(steps=1)}
        policy = Policy(PolicyConfig(horizon=3, n_action_steps=2, **sizes), spaces)  # type: ignore[arg-type]
        path = export_onnx(policy, tmp_path_factory.mktemp("export") / "policy.onnx").path
        made |= {f"torch {name}": policy, f"onnx {name}": OnnxPolicy(path)}
    return made


@pytest.fixture(params=["torch", "onnx"])
def named(request: pytest.FixtureRequest, policies: dict[str, ChunkedPredictor]) -> ChunkedPredictor:
    return policies[f"{request.param} named"]


@pytest.fixture(params=["torch", "onnx"])
def boxed(request: pytest.FixtureRequest, policies: dict[str, ChunkedPredictor]) -> ChunkedPredictor:
    return policies[f"{request.param} boxed"]


SHAPE = r"shape \(2,\) or \(N, 2\)"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([0.0, np.nan]), ["finite", r"shape \(2,\)", "NaN or infinity"]),
        (np.array([[0, -np.inf], [0, 0]], np.float32), ["finite", r"shape \(2, 2\)", "NaN or infinity"]),
        (HUGE, ["finite", r"shape \(2,\)", "single precision's range"]),
        (np.zeros(3), [SHAPE, r"got \(3,\)"]),
        (np.zeros((2, 3), np.float32), [SHAPE, r"got \(2, 3\)"]),
        (np.zeros((1, 1, 2)), [SHAPE, r"got \(1, 1, 2\)"]),
        (np.float32(1), [SHAPE, r"got \(\)"]),
        (np.zeros(2, np.complex64), [SHAPE, "type complex64"]),
        (np.array(["1", "2"]), [SHAPE, "type <U1"]),
        (["1", "2"], [SHAPE, "got list of type <U1"]),
        (np.array([1.0, None]), [SHAPE, "type object"]),
        ([[1.0], [1.0, 2.0]], [SHAPE, "got list"]),
        (None, [SHAPE, "got NoneType"]),
        ((np.zeros(2), {}), [SHAPE, "tuple", r"unpack env.reset\(\)"]),
        (torch.zeros(2), [SHAPE, r"torch\.Tensor", "numpy"]),
    ],
)
def test_what_an_observation_may_not_be(named: ChunkedPredictor, value: Any, words: list[str]) -> None:
    rows = value.shape[:1] if isinstance(value, np.ndarray) and value.ndim == 2 else ()
    observation = {"a": np.zeros((*rows, 1)), "b": value}
    with pytest.raises(InputError, match="observation 'b'") as caught:
        named.predict(observation)
    for word in words:
        caught.match(word)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.bool_, np.float64])
def test_whole_numbers_and_flags_are_read_as_numbers(boxed: ChunkedPredictor, kind: type) -> None:
    given = np.array([0, 1, 1])
    action, _ = boxed.predict(given.astype(kind))
    np.testing.assert_array_equal(action, boxed.predict(given.astype(np.float32))[0])


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.array([0, np.nan, 0]), ["'observation'", r"shape \(3,\)", "NaN"]),
        (np.zeros(2), ["'observation'", r"\(3,\) or \(N, 3\)", r"got \(2,\)"]),
        (torch.zeros(3), ["'observation'", r"\(3,\) or \(N, 3\)", r"torch\.Tensor"]),
        ("abc", ["'observation'", "got str"]),
        ({"other": np.zeros(3)}, [r"\['observation'\]", r"got \['other'\]"]),
        ({}, [r"\['observation'\]", r"got \[\]"]),
        (None, ["'observation'", "NoneType"]),
    ],
)
def test_what_a_bare_observation_may_not_be(boxed: ChunkedPredictor, observation: Any, words: list[str]) -> None:
    for word in words:
        with pytest.raises(InputError, match=word):
            boxed.predict(observation)


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ({"a": np.zeros(1)}, r"observations \['a', 'b'\], got \['a'\].*\(1,\), \(2,\)"),
        ({**GOOD, "c": np.zeros(1)}, r"got \['a', 'b', 'c'\]"),
        ({"a": np.zeros(1), "B": np.zeros(2)}, r"got \['B', 'a'\]"),
        ({"a": np.zeros(1), "b": {}}, "observation 'b' to be an array.*got dict"),
        ({"a": np.zeros(1), 2: np.zeros(2)}, r"got \['2', 'a'\]"),
        (np.zeros(3), r"mapping with observations \['a', 'b'\], got ndarray of shape \(3,\)"),
        (None, "mapping.*got NoneType"),
        ({"a": np.zeros((2, 1)), "b": np.zeros(2)}, r"one batch, got shapes {'a': \(2, 1\), 'b': \(2,\)}"),
        ({"a": np.zeros((2, 1)), "b": np.zeros((3, 2))}, r"one batch, got shapes {'a': \(2, 1\), 'b': \(3, 2\)}"),
    ],
)
def test_observations_must_be_just_those_it_was_trained_on(
    named: ChunkedPredictor, observation: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        named.predict(observation)


def test_a_state_of_something_else_is_refused(named: ChunkedPredictor, boxed: ChunkedPredictor) -> None:
    _, ours = named.predict(GOOD)
    _, others = boxed.predict(np.zeros(3))
    two = {"a": np.zeros((2, 1)), "b": np.zeros((2, 2))}
    with pytest.raises(InputError, match="got ActingState of another policy; start with state=None"):
        named.predict(GOOD, others)
    with pytest.raises(InputError, match="got str"):
        named.predict(GOOD, "state")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="2 rows like the observation, got 1"):
        named.predict(two, ours)
    with pytest.raises(InputError, match=r"1 rows like the observation, got 1 and \(2,\)"):
        named.predict(GOOD, ours, np.zeros(2, bool))
    with pytest.raises(InputError, match=r"got 1 and \(1, 1\)"):
        named.predict(GOOD, ours, np.zeros((1, 1), bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_network_that_puts_out_what_is_not_finite_is_an_error(
    named: ChunkedPredictor, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunk = np.zeros((1, 3, 1), np.float32)
    chunk[0, 1] = bad
    monkeypatch.setattr(named, "_draw", lambda past, noise: chunk)
    with pytest.raises(InputError, match=r"finite actions.*weights have diverged"):
        named.predict(GOOD)


def test_diverged_weights_give_an_error_and_no_actions() -> None:
    policy = Policy(PolicyConfig(network=MLPConfig(width=8, blocks=1)), BOXED)
    torch.nn.init.constant_(policy.denoiser.network.leave[1].weight, float("nan"))
    for observation in (np.zeros(3), np.zeros((70, 3))):
        with pytest.raises(InputError, match="weights have diverged"):
            policy.predict(observation)


def test_one_bad_row_of_a_large_batch_is_found(boxed: ChunkedPredictor) -> None:
    rows = np.zeros((500, 3))
    rows[499, 2] = np.nan
    with pytest.raises(InputError, match=r"'observation' of shape \(500, 3\), got NaN"):
        boxed.predict(rows)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2),
        np.zeros(2, np.float16),
        np.zeros(2, ">f4"),
        [0.0, 0.0],
        np.zeros(4, np.float32)[::2],
        np.full(2, 3.4e38),  # the sum of which is not finite in single precision
    ],
)
def test_numbers_in_any_floating_point_are_fine(named: ChunkedPredictor, value: Any) -> None:
    action, _ = named.predict({**GOOD, "b": value})
    assert action.dtype == np.float32
    assert action.shape == (1,)


def test_nested_observations_go_by_joined_names() -> None:
    spaces = SpaceSpec({"a/x": Bounds((-1.0,), (1.0,)), "b": Bounds((-1.0,), (1.0,))}, Bounds((0.0,), (4.0,)), False)
    policy = Policy(PolicyConfig(network=MLPConfig(width=8, blocks=1)), spaces)
    nested, _ = policy.predict({"b": np.ones(1), "a": {"x": np.zeros(1)}})
    flat, _ = policy.predict({"a/x": np.zeros(1), "b": np.ones(1)})
    assert np.array_equal(nested, flat)


def test_what_the_caller_does_with_its_arrays_later_changes_no_state(boxed: ChunkedPredictor) -> None:
    observation = np.full(3, 0.5, np.float32)
    action, state = boxed.predict(observation)
    queue = state.queue.copy()
    observation[:] = 9
    action[:] = 9
    assert np.array_equal(state.past[0, -1], np.full(3, 0.5, np.float32))
    assert np.array_equal(state.queue, queue)


def test_one_kind_of_policy_goes_on_from_the_others_state(policies: dict[str, ChunkedPredictor]) -> None:
    ours, theirs = policies["torch named"], policies["onnx named"]
    _, state = ours.predict(GOOD)
    for _ in range(4):
        (one, mine), (two, _) = ours.predict(GOOD, state), theirs.predict(GOOD, state)
        np.testing.assert_allclose(one, two, atol=1e-5)
        state = mine
