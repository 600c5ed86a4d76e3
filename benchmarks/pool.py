"""A local pool that runs a graph of stages, each in a process of its own, and survives what happens to them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from benchmarks.stage import Stage
from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json, write_json
from diffpolicy.recipes.run import commit, versions

__all__ = ["Job", "Pool", "is_done"]

State = Literal["waiting", "running", "done", "failed", "blocked"]
_WARM = ["torch", "mujoco", "diffpolicy.recipes.training", "diffpolicy.evaluation.evaluate"]


def is_done(stage: Stage, store: Path) -> bool:
    """Whether a stage has ended well in a store and its output is still there."""
    return (stage.folder(store) / "done.json").is_file() and stage.output(store).exists()


@dataclass
class Job:
    """A stage on its way."""

    stage: Stage
    state: State = "waiting"
    process: BaseProcess | None = None
    began: float = 0.0
    seconds: float = 0.0  # how long it took
    said: str = ""  # why it failed, or what is in its way


@dataclass
class Pool:
    """Runs what is missing in a store, in the order given, as soon as its inputs are there.

    A stage that fails keeps only those from running that start from it. Ctrl-C reaches every running stage,
    which saves what it can; the same call goes on from there.
    """

    store: Path
    jobs: int = 2  # stages at once
    threads: int = 1  # of torch, each
    on_change: Callable[[], object] = lambda: None  # called after each event, and twice a second
    plan: dict[str, Job] = field(default_factory=dict)  # by key, in order

    def add(self, stages: Sequence[Stage]) -> None:
        """Take stages and all that lead to them into the plan."""
        for stage in (each for last in stages for each in last.chain()):
            if stage.key not in self.plan:
                self.plan[stage.key] = Job(stage, "done" if is_done(stage, self.store) else "waiting")

    def run(self) -> None:
        """Run until nothing is left that can; raises KeyboardInterrupt once all have stopped."""
        context = _context()
        try:
            while True:
                for job in self._ready():
                    self._start(job, context)
                running = [job for job in self.plan.values() if job.state == "running"]
                if not running:
                    break
                wait([job.process.sentinel for job in running if job.process], timeout=0.5)
                for job in running:
                    if job.process is not None and job.process.exitcode is not None:
                        self._end(job)
                self.on_change()
        except BaseException:
            self._stop()
            raise

    def _ready(self) -> list[Job]:
        free = self.jobs - sum(job.state == "running" for job in self.plan.values())
        ready = []
        for job in self.plan.values():
            if job.state == "waiting":
                before = [self.plan[output.stage.key] for output in job.stage.inputs.values()]
                lost = next((b for b in before if b.state in ("failed", "blocked")), None)
                if lost is not None:
                    job.state, job.said = "blocked", f"needs {lost.stage.folder(self.store).name}"
                elif all(b.state == "done" for b in before):
                    ready.append(job)
        return ready[: max(free, 0)]

    def _start(self, job: Job, context: Any) -> None:
        folder = job.stage.folder(self.store)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").unlink(missing_ok=True)
        job.process = context.Process(target=_work, args=(job.stage, self.store, self.threads), name=folder.name)
        job.began = time.monotonic()
        job.state = "running"
        job.process.start()

    def _end(self, job: Job) -> None:
        assert job.process is not None
        code = job.process.exitcode
        job.process.join()
        job.process.close()
        job.process, job.seconds = None, time.monotonic() - job.began
        folder = job.stage.folder(self.store)
        if code == 0 and is_done(job.stage, self.store):
            job.state, job.seconds = "done", float(read_json(folder / "done.json")["seconds"])
            return
        job.state = "failed"
        told = folder / "failed.txt"
        job.said = told.read_text(encoding="utf-8") if told.is_file() else f"its process ended with {code}"

    def _stop(self) -> None:
        """Ask what runs to save and stop; end it after a minute."""
        running = [job.process for job in self.plan.values() if job.process is not None]
        for process in running:
            process.terminate()
        until = time.monotonic() + 60
        for process in running:
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()


def _context() -> Any:
    """Processes that begin with the slow imports made, where the system can."""
    for name, value in (("OMP_WAIT_POLICY", "PASSIVE"), ("OMP_NUM_THREADS", "1"), ("OPENBLAS_NUM_THREADS", "1")):
        os.environ.setdefault(name, value)
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_WARM)
    return context


def _work(stage: Stage, store: Path, threads: int) -> None:
    """Run one stage in this process, with its output in a log."""
    from dataclasses import replace

    folder = stage.folder(store)
    log = (folder / "log.txt").open("a", encoding="utf-8")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    _end_with_parent()
    recipe: Any = stage.placed(store)
    if hasattr(recipe, "threads"):
        recipe = replace(recipe, threads=threads)
    began = time.perf_counter()
    try:
        recipe()
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        traceback.print_exc()
        told = f"{error}" if isinstance(error, InputError) else traceback.format_exc()
        (folder / "failed.txt").write_text(told, encoding="utf-8")
        sys.exit(1)
    seconds = time.perf_counter() - began  # of the last attempt, where an earlier one was interrupted
    about = {"stage": stage.name, "key": stage.key, "settings": stage.settings, "seconds": round(seconds, 1)}
    write_json({**about, "threads": threads, "commit": commit(), "versions": versions()}, folder / "done.json")


def _end_with_parent() -> None:
    """Interrupt this process when the one that started it is gone, as if by Ctrl-C."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
