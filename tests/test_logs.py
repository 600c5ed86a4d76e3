"""Laws of the logs: what a kill may cost, what resuming rewrites, when a callback is called."""

from __future__ import annotations

import errno
import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from diffpolicy.errors import InputError
from diffpolicy.recipes.progress import FilmProgress
from diffpolicy.training.logs import JsonLines, Progress, TensorBoard, chain, every, read_lines


def test_each_record_is_on_disk_before_the_next_step(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "run" / "log.jsonl") as log:
        for step in range(3):
            log(step, {"loss": 0.5 * step})
            assert read_lines(log.path)[-1] == {"step": step, "loss": 0.5 * step}


def test_a_kill_costs_at_most_the_line_being_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with JsonLines(path) as log:
        log(0, {"loss": 2.0})
        log(1, {"loss": 1.0})
    path.write_bytes(path.read_bytes()[:-4])
    assert read_lines(path) == [{"step": 0, "loss": 2.0}]
    with JsonLines(path, start=1) as log:
        log(1, {"loss": 1.5})
    assert [record["loss"] for record in read_lines(path)] == [2.0, 1.5]


def test_resuming_drops_the_records_that_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with JsonLines(path) as log:
        for step in range(6):
            log(step, {"loss": 1.0})
    with JsonLines(path, start=4) as log:
        log(4, {"loss": 9.0})
    assert [(r["step"], r["loss"]) for r in read_lines(path)] == [*((s, 1.0) for s in range(4)), (4, 9.0)]
    assert list(tmp_path.iterdir()) == [path]


def test_every_line_is_strict_json_even_for_numbers_that_are_not_finite(tmp_path: Path) -> None:
    with JsonLines(tmp_path / "log.jsonl") as log:
        log(0, {"loss": float("nan"), "lr": float("inf")})
    text = (tmp_path / "log.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 0, "loss": None, "lr": None}


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 2"):
        read_lines(path)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_record_that_the_disk_has_no_room_for_is_left_out_and_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with JsonLines(tmp_path / "log.jsonl") as log:
        with no_file_longer_than(100):
            for step in range(6):
                log(step, {"loss": 0.1234567})
        log(6, {"loss": 1.0})  # there is room again
    assert [record["step"] for record in read_lines(log.path)] == [0, 1, 2, 6]
    said = capsys.readouterr().err
    assert said.count("note:") == 1
    assert "log.jsonl" in said


@pytest.mark.parametrize("place", ["__init__", "add_scalar", "close"])
def test_tensorboard_on_a_full_disk_ends_and_training_does_not(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = getattr(SummaryWriter, place)

    def full(*arguments: Any, **named: Any) -> None:
        real(*arguments, **named)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, place, full)
    with TensorBoard(tmp_path) as board:
        for step in range(3):
            board(step, {"loss": 1.0})
    assert capsys.readouterr().err.count("note:") == 1


def test_tensorboard_keeps_each_scalar(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with TensorBoard(tmp_path) as board:
        board(0, {"loss": 2.0})
        board(1, {"loss": 1.0})
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(0, 2.0), (1, 1.0)]


def test_every_counts_updates_and_includes_the_last() -> None:
    called: list[int] = []
    report = every(3, lambda step, _: called.append(step), last=8)
    for step in range(8):
        report(step, {})
    assert called == [2, 5, 7]
    with pytest.raises(InputError, match="n >= 1"):
        every(0, report)


def test_chained_reports_hear_the_same_in_order() -> None:
    heard: list[tuple[str, int, float]] = []
    both = chain(
        lambda step, metrics: heard.append(("first", step, metrics["loss"])),
        lambda step, metrics: heard.append(("second", step, metrics["loss"])),
    )
    both(7, {"loss": 0.25})
    assert heard == [("first", 7, 0.25), ("second", 7, 0.25)]


def test_off_a_terminal_progress_prints_plain_lines_at_intervals() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=False, width=200)
    with Progress(steps=4, title="bc", console=console, interval=3600.0) as progress:
        for step in range(4):
            progress(step, {"loss": 0.5})
    (line,) = text.getvalue().splitlines()
    assert line.startswith("bc 4/4")
    assert line.endswith("loss 0.5")
    assert "\x1b" not in line


def test_progress_shows_the_last_value_of_what_is_beside_and_nothing_of_what_never_came() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=False, width=200)
    with Progress(steps=4, console=console, interval=0.0, beside=("val_loss", "val_success")) as progress:
        for step in range(4):
            progress(step, {"loss": 0.5, **({"val_loss": step / 4} if step % 2 else {})})
    found = [line.partition("left  ")[2] for line in text.getvalue().splitlines()]
    assert found == ["loss 0.5", *["loss 0.5  val_loss 0.25"] * 2, "loss 0.5  val_loss 0.75"]


def test_on_a_terminal_the_bar_is_closed_when_an_exception_passes() -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    show_cursor = "\x1b[?25h"

    def fail_midway() -> None:
        with Progress(steps=3, console=console, metric="success") as progress:
            progress(0, {"success": 0.75})
            assert show_cursor not in text.getvalue()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert text.getvalue().rstrip("\n").endswith(show_cursor)
    with Progress(steps=3, start=2, console=console) as progress:  # a second bar can open: the first let go
        progress(2, {"loss": 1.0})
    assert "3/3" in text.getvalue()


def test_slow_work_shows_its_rate_and_the_end_is_said_once() -> None:
    told = io.StringIO()
    with Progress(2, interval=0.0, console=Console(file=told)) as bar:
        bar._began -= 100.0
        bar(0, {})
        bar(1, {})
        bar(1, {})
    assert [line.split("  ")[1] for line in told.getvalue().splitlines()] == ["0.01/s", "0.02/s"]


def test_frames_that_never_come_are_not_waited_for() -> None:
    with FilmProgress(3, longest=10) as bar:
        bar._console, bar.interval = Console(file=(told := io.StringIO())), 0.0
        for frames in (4, 10, 1):
            for _ in range(frames):
                bar.shot()
            bar.cut()
    assert [line.split()[1] for line in told.getvalue().splitlines()][-4:] == ["13/24", "14/24", "15/24", "15/15"]
