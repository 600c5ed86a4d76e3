"""What listens to the training loop: records on disk, TensorBoard, a progress bar, and their combinations."""

from __future__ import annotations

import json
import math
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from diffpolicy.errors import InputError
from diffpolicy.policy.files import write_bytes
from diffpolicy.training.fit import Metrics, Report

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["JsonLines", "Progress", "TensorBoard", "chain", "every", "read_lines"]


def chain(*reports: Report) -> Report:
    """One report that calls each of the given ones in order."""

    def report(step: int, metrics: Metrics) -> None:
        for each in reports:
            each(step, metrics)

    return report


def every(n: int, callback: Report, last: int | None = None) -> Report:
    """Call `callback` after each n-th update, and after update number `last` in any case.

    Steps count from 0, so that every(100, ...) is first called with step 99, when 100 updates have been made.
    Raises InputError where n < 1.
    """
    if n < 1:
        raise InputError(f"every(n, ...) wants n >= 1 updates between calls; got {n}")

    def report(step: int, metrics: Metrics) -> None:
        if (step + 1) % n == 0 or step + 1 == last:
            callback(step, metrics)

    return report


class _Closing(ABC):
    """Closes itself at the end of a with block, whether or not the block failed."""

    @abstractmethod
    def close(self) -> None:
        """Free what is held open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: str | Path) -> list[dict[str, Any]]:
    """Records of a JSON-lines file; a last line that a kill cut short is left out.

    Raises InputError where any other line is not a JSON object with a `step`.
    """
    whole = Path(path).read_bytes().split(b"\n")[:-1]  # what follows the last newline was never finished
    records: list[dict[str, Any]] = []
    for number, line in enumerate(whole, start=1):
        try:
            record = json.loads(line)
            record["step"] = int(record["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"line {number} of {path} is not a JSON object with a step; the file was edited or damaged: "
                "remove the line, or move the file away and start anew"
            ) from error
        records.append(record)
    return records


class JsonLines(_Closing):
    """Appends one whole line {"step": ..., metrics} per record, so that a kill costs at most the last line.

    start: the step at which training starts or resumes; records of this step and later are dropped first,
    since they are about to be made again. Numbers that are not finite are written as null. A record that the
    disk has no room for is left out, and said so once: training does not end for it.
    """

    def __init__(self, path: str | Path, start: int = 0) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            kept = [record for record in read_lines(self.path) if record["step"] < start]
            write_bytes("".join(json.dumps(record) + "\n" for record in kept).encode(), self.path)
        self._file = self.path.open("ab", buffering=0)
        self._end = self.path.stat().st_size
        self._failed = False

    def __call__(self, step: int, metrics: Metrics) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = (json.dumps({"step": step, **finite}, allow_nan=False) + "\n").encode()
        try:
            if self._file.write(line) != len(line):
                raise OSError("no room for a whole line")
            self._end += len(line)
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)  # of whole lines
            if not self._failed:
                _tell(self.path, error)
            self._failed = True

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


class TensorBoard(_Closing):
    """Writes each metric as a TensorBoard scalar; on resume the scalars from `start` on are purged.

    Where the disk has no room it ends, and says so: training does not.
    """

    def __init__(self, folder: str | Path, start: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = Path(folder)
        self._writer: Any = None
        with self._ending():
            self._writer = SummaryWriter(str(folder), purge_step=start or None)

    def __call__(self, step: int, metrics: Metrics) -> None:
        if self._writer is None:
            return
        with self._ending():
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            with self._ending():
                self._writer.close()

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            writer, self._writer = self._writer, None
            _tell(self._folder, error)
            if writer is not None:
                with suppress(OSError):
                    writer.close()


def _tell(path: Path, error: OSError) -> None:
    print(f"note: the log {path} goes on without what it could not take ({error}); training goes on", file=sys.stderr)


class Progress(_Closing):
    """A progress bar with rate, time left and metrics; off a terminal, a plain line every few seconds.

    metric: the name in the metrics whose running mean is shown; beside: further ones, of which it is the last value,
    once there is one. interval: seconds between plain lines. Use it in a with block, which clears the bar up.
    """

    def __init__(
        self,
        steps: int,
        start: int = 0,
        metric: str = "loss",
        title: str = "training",
        interval: float = 10.0,
        console: Console | None = None,
        smooth: float = 0.98,
        beside: Sequence[str] = (),
    ) -> None:
        from rich.console import Console

        self.steps, self.start, self.metric, self.title, self.interval = steps, start, metric, title, interval
        self._console = console or Console(stderr=True)
        self._smooth, self._beside = smooth, dict.fromkeys(beside, math.nan)
        self._mean: float | None = None
        self._began = self._spoke = time.monotonic()
        self._said = (start, steps)
        self._advance: Callable[[int], None] = self._print_line
        self._stop: Callable[[], None] = lambda: None
        if self._console.is_terminal:
            self._open_bar()

    def __call__(self, step: int, metrics: Metrics) -> None:
        value = metrics.get(self.metric)
        if value is not None and math.isfinite(value):
            self._mean = value if self._mean is None else self._smooth * self._mean + (1 - self._smooth) * value
        self._beside |= {name: metrics[name] for name in self._beside if name in metrics}
        self._advance(step + 1)

    def close(self) -> None:
        self._stop()
        self._stop = lambda: None

    def _shown(self) -> str:
        values = {self.metric: math.nan if self._mean is None else self._mean, **self._beside}
        return "  ".join(f"{name} {value:.4g}" for name, value in values.items() if math.isfinite(value))

    def _open_bar(self) -> None:
        from rich import progress

        bar = progress.Progress(
            progress.TextColumn("[bold]{task.description}"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}/s"),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("{task.fields[metric]}"),
            console=self._console,
        )
        task = bar.add_task(self.title, total=self.steps, completed=self.start, rate="-", metric="")

        def advance(done: int) -> None:
            now = time.monotonic()
            if now - self._spoke < 0.1 and done < self.steps:
                return
            self._spoke = now
            bar.update(task, total=self.steps, completed=done, rate=self._rate(done, now)[1], metric=self._shown())

        bar.start()
        self._advance, self._stop = advance, bar.stop

    def _rate(self, done: int, now: float) -> tuple[float, str]:
        """Steps a second, and as it is shown."""
        rate = (done - self.start) / max(now - self._began, 1e-9)
        return rate, f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"

    def _print_line(self, done: int) -> None:
        now = time.monotonic()
        if (now - self._spoke < self.interval and done < self.steps) or (done, self.steps) == self._said:
            return
        self._spoke, self._said = now, (done, self.steps)
        rate, shown = self._rate(done, now)
        left = (self.steps - done) / max(rate, 1e-9)
        line = f"{self.title} {done}/{self.steps}  {shown}/s  {left:.0f} s left  {self._shown()}"
        self._console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)
