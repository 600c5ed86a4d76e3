"""Laws of how a student is compared with its teacher: nothing apart where they are one, and what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import NOISY

from benchmarks import agreement as benchmark
from benchmarks.tables import printed
from diffpolicy import Agree, Bc, Collect, Distil
from diffpolicy.data.dataset import read_dataset
from diffpolicy.data.windows import windows
from diffpolicy.diffusion import SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.evaluation.agreement import agreement, asked
from diffpolicy.policy import load_checkpoint
from diffpolicy.policy.policy import Policy
from diffpolicy.updates.distilling import student_of

REACH = "diffpolicy/Reach-v0"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Demonstrations, a noisy policy of six steps and its student of two, and a policy of one call."""
    root = tmp_path_factory.mktemp("agreement")
    Collect(REACH, out=root / "demos", episodes=3)()
    Bc(root / "demos", root / "bc", policy=NOISY, steps=8, batch_size=8)()
    once = replace(NOISY, model="regression", sampler=SamplerConfig())
    Bc(root / "demos", root / "once", policy=once, steps=8, batch_size=8)()
    Distil(root / "bc", root / "two", student_steps=2, teacher_steps=8, steps=6, batch_size=8)()
    return root


def agree(who: Path, **changes: Any) -> Agree:
    small: dict[str, Any] = {"episodes": 2, "observations": 8, "samples": 2, "calls": 3, "conditions": ("clean",)}
    return Agree(str(who), **{**small, "teacher_steps": 8, **changes})


def seen(house: Path) -> dict[str, torch.Tensor]:
    episodes = read_dataset(house / "demos").episodes[:1]
    return windows(episodes, 1, 4).gather(torch.arange(6)).obs


def test_a_teacher_agrees_with_itself(house: Path) -> None:
    teacher = load_checkpoint(house / "bc").policy
    student = student_of(teacher, 8)
    found = agreement(student, asked(teacher, student, 8), seen(house), "data", samples=32)
    assert (found.states, found.observations) == ("data", 6)
    assert found.executed is not None
    assert found.executed < 1e-6
    assert found.chunk is not None
    assert found.chunk < 1e-6
    assert abs(found.energy) < 0.02


def test_what_is_apart_is_told_in_half_ranges(house: Path) -> None:
    teacher = load_checkpoint(house / "bc").policy
    student = student_of(teacher, 8)
    elder = asked(teacher, student, 8)
    draw = student.sampler.draw

    def shifted(obs: torch.Tensor, noise: torch.Tensor, hint: Any = None) -> torch.Tensor:
        chunk = draw(obs, noise)
        offset = torch.zeros(4, 1)
        offset[:2] = 0.3  # of the four actions the first two are executed
        return chunk + offset

    student.sampler.draw = shifted  # type: ignore[method-assign]
    found = agreement(student, elder, seen(house), "data", samples=16)
    assert found.executed == pytest.approx(0.3, abs=1e-6)
    assert found.chunk == pytest.approx(0.3 / 2**0.5, abs=1e-6)
    student.sampler.draw = draw  # type: ignore[method-assign]
    assert agreement(student, elder, seen(house), "data", samples=16).energy < found.energy


def test_energy_is_the_distance_of_two_points(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = load_checkpoint(house / "bc").policy
    student = student_of(teacher, 2)
    elder = asked(teacher, student, 8)

    def point(value: float) -> Any:
        return lambda obs, noise, hint=None: torch.full((len(obs), 4, 5), value)

    monkeypatch.setattr(student.sampler, "draw", point(0.5))
    monkeypatch.setattr(elder.sampler, "draw", point(0.1))
    found = agreement(student, elder, seen(house), "data", samples=3)
    assert found.energy == pytest.approx(2 * 0.4, abs=1e-6)  # 2 E|S - T|, with nothing within


def test_a_policy_without_noise_is_compared_by_how_it_is_spread(house: Path) -> None:
    once, teacher = (load_checkpoint(house / name).policy for name in ("once", "bc"))
    found = agreement(once, asked(teacher, once, 8), seen(house), "data", samples=4)
    assert found.executed is None
    assert found.chunk is None
    assert found.energy > 0
    noisy = asked(teacher, once, 8)
    assert agreement(teacher, noisy, seen(house), "data", samples=4).executed is None  # whose steps add noise


def test_the_teacher_is_asked_without_noise_on_the_students_times(house: Path) -> None:
    teacher, student = (load_checkpoint(house / name).policy for name in ("bc", "two"))
    elder = asked(teacher, student, 7)
    assert (len(elder.sampler), elder.sampler.stochastic) == (8, False)
    assert set(student.sampler.times.tolist()) <= set(elder.sampler.times.tolist())
    once: Policy = load_checkpoint(house / "once").policy
    assert len(asked(teacher, once, 7).sampler) == 7


def test_a_student_is_compared_with_the_teacher_that_it_names(
    house: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = agree(house / "two", conditions=("clean", "shove"))()
    assert path == house / "two" / "agreement.json"
    found = json.loads(path.read_text())
    assert [row["states"] for row in found["rows"]] == ["data", "clean, own", "shove, own"]
    for row in found["rows"]:
        assert 2 <= row["observations"] <= 8
        assert 0 < row["executed"] < 2
        assert 0 < row["chunk"] < 2
    assert found["latency"]["calls"] == 3
    ratio = found["latency"]["teacher"]["p50_us"] / found["latency"]["student"]["p50_us"]
    assert found["latency"]["ratio"] == pytest.approx(ratio, abs=0.01)
    said = capsys.readouterr().out
    assert "clean, own" in said
    assert "times as quick" in said
    again = agree(house / "two", out=tmp_path / "again.json", conditions=("clean", "shove"), calls=0)()
    assert json.loads(again.read_text())["rows"] == found["rows"]
    assert json.loads(again.read_text())["latency"] is None


def test_any_policy_is_compared_with_a_teacher_that_is_named(house: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = agree(house / "once", teacher=house / "bc", episodes=0)()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["states"] == "data"
    assert row["executed"] is None
    assert "of no noise" in capsys.readouterr().out
    plain = ("sampler.eta=0", "sampler.steps=8")
    path = agree(house / "bc", teacher=house / "bc", change=plain, episodes=0, out=house / "plain.json")()
    (row,) = json.loads(path.read_text())["rows"]
    assert row["executed"] < 1e-6


@pytest.mark.parametrize(
    ("who", "changes", "words"),
    [
        ("bc", {}, "does not say who its teacher is"),
        ("two", {"teacher": Path("two")}, "expected a teacher of many steps"),
        ("two", {"teacher": Path("once")}, "expected a policy that draws chains"),
        ("two", {"teacher": Path("long")}, "expected a teacher of horizon 4"),
        ("two", {"samples": 1}, "expected samples from 2"),
        ("two", {"observations": 0}, "expected observations from 2"),
        ("two", {"teacher_steps": 0}, "expected teacher_steps from 1"),
        ("two", {"conditions": ("storm",)}, "storm"),
        ("two", {"change": ("sampler.steps=4",)}, "student"),
        ("two", {"environment": "diffpolicy/Avoid-v0"}, "of its teacher's spaces"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    who: str, changes: dict[str, Any], words: str, house: Path, tmp_path: Path
) -> None:
    if changes.get("teacher") == Path("long") and not (house / "long").exists():
        Bc(house / "demos", house / "long", policy=replace(NOISY, horizon=6), steps=2, batch_size=8)()
    if "teacher" in changes:
        changes = {**changes, "teacher": house / changes["teacher"]}
    with pytest.raises(InputError, match=words):
        agree(house / who, out=tmp_path / "x.json", **changes)()
    assert not (tmp_path / "x.json").exists()


def test_the_page_prints_the_committed_rows() -> None:
    rows = benchmark.agreements()
    assert printed(benchmark.PAGE, benchmark.NAME) == benchmark.table(rows)
    assert all(row[states]["energy"] is not None for row in rows.values() for states in benchmark.STATES)


def test_a_row_without_a_chain_of_one_noise_is_blank_there() -> None:
    figures = {states: {"executed": None, "chunk": None, "energy": 0.25} for states in benchmark.STATES}
    line = benchmark.table({("diffpolicy/Avoid-v0", "MIP, 2 steps"): figures}).splitlines()[-1]
    assert line.replace(" ", "") == "|Avoid,MIP,2steps||||0.250|0.250|0.250|"
