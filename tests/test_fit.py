"""Laws of the loop and of the average of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from diffpolicy.errors import InputError
from diffpolicy.training.ema import Ema
from diffpolicy.training.fit import fit

PAIRING = """
from collections.abc import Mapping
from typing import Any
from diffpolicy.training.fit import fit

class Apple: ...
class Pear: ...

class Press:
    def __call__(self, batch: Apple) -> Mapping[str, float]: return {}
    def state_dict(self) -> dict[str, Any]: return {}
    def load_state_dict(self, state: dict[str, Any]) -> None: ...

def apples(index: int) -> Apple: return Apple()
def pears(index: int) -> Pear: return Pear()

fit(Press(), %s, 3, lambda step, metrics: None)
"""


class Counter:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, batch: int) -> Mapping[str, float]:
        self.seen.append(batch)
        return {"batch": float(batch)}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = list(state["seen"])


def test_stopping_and_resuming_sees_the_same_batches() -> None:
    whole, halves = Counter(), Counter()
    reported: list[tuple[int, float]] = []
    fit(whole, lambda index: index * index, 6, lambda *_: None)
    for start, steps in [(0, 4), (4, 6)]:
        fit(halves, lambda index: index * index, steps, lambda s, m: reported.append((s, m["batch"])), start)
    assert whole.seen == halves.seen == [0, 1, 4, 9, 16, 25]
    assert reported == [(step, float(step * step)) for step in range(6)]


def test_nothing_is_done_when_all_steps_are_made() -> None:
    update = Counter()
    fit(update, lambda index: index, 3, lambda *_: pytest.fail("an update was made"), start=3)
    assert update.seen == []


@pytest.mark.parametrize(("source", "accepted"), [("apples", True), ("pears", False)])
def test_the_type_checker_rejects_a_source_of_the_wrong_batch(source: str, accepted: bool) -> None:
    api = pytest.importorskip("mypy.api")
    text, errors, _ = api.run(["--strict", "--no-error-summary", "--config-file=", "-c", PAIRING % source])
    assert not errors
    assert (text == "") is accepted, text
    assert accepted or text.count("error:") == 1


def linear(value: float) -> nn.Linear:
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        nn.init.constant_(parameter, value)
    return module


def test_the_decay_warms_up_to_its_value() -> None:
    ema = Ema(linear(0.0), decay=0.5)
    assert [ema.decay_at(step) for step in (0, 1, 8, 1000)] == pytest.approx([1 / 10, 2 / 11, 0.5, 0.5])


def test_the_average_follows_its_recursion() -> None:
    network = linear(0.0)
    ema, expected = Ema(network, decay=0.9), 0.0
    for step in range(20):
        network.load_state_dict(linear(float(step)).state_dict())
        ema.update(step)
        expected = ema.decay_at(step) * expected + (1 - ema.decay_at(step)) * step
    target = linear(-1.0)
    ema.copy_to(target)
    for parameter in target.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, expected))


def test_the_average_survives_saving_and_shares_nothing_with_the_network() -> None:
    network = linear(2.0)
    ema, other = Ema(network), Ema(linear(0.0))
    other.load_state_dict(ema.state_dict())
    nn.init.zeros_(network.weight)
    assert all(bool((tensor == 2.0).all()) for tensor in other.state_dict().values())


def test_the_average_of_another_network_is_refused() -> None:
    ema = Ema(nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"\['bias'\]"):
        ema.load_state_dict({"weight": torch.zeros(2, 3)})
    with pytest.raises(InputError, match=r"\(2, 4\)"):
        ema.load_state_dict({"weight": torch.zeros(2, 4), "bias": torch.zeros(2)})
    with pytest.raises(InputError, match="decay"):
        Ema(nn.Linear(3, 2), decay=1.0)
