"""Export: one file that acts without torch, and how close and how quick it is."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro

from diffpolicy.errors import InputError
from diffpolicy.recipes.run import provenance, use_threads

if TYPE_CHECKING:
    from diffpolicy.policy.acting import ActingState
    from diffpolicy.policy.chunked import ChunkedPredictor
    from diffpolicy.policy.policy import Policy

__all__ = ["Export", "latencies", "replanning"]


@dataclass(frozen=True)
class Export:
    """Export a checkpoint to one ONNX file, which acts with numpy and onnxruntime alone."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A checkpoint folder, or the run that holds one."""
    out: Path | None = None
    """File to write, .onnx; by default policy.onnx, of the best one policy-best.onnx, beside the checkpoint, replaced
    by a later one."""
    calls: int = 200
    """Decisions at batch 1 whose latency is measured, of torch and of the file in turn; 0: none."""
    threads: int = 0
    """Threads of torch and of onnxruntime; 0 takes one."""

    def __call__(self) -> Path:
        """Export, print size, parity and latency, and return the file."""
        from diffpolicy.policy.checkpoint import load_checkpoint
        from diffpolicy.policy.export import PARITY, export_onnx
        from diffpolicy.runtime import OnnxPolicy

        if self.out is not None and self.out.suffix != ".onnx":
            raise InputError(f"expected --out to end in .onnx, got {self.out}")
        if self.calls < 0:
            raise InputError(f"expected --calls of 0 or more, got {self.calls}")
        threads = use_threads(self.threads)
        checkpoint = load_checkpoint(self.checkpoint)
        name = "policy-best.onnx" if checkpoint.folder.name == "best" else "policy.onnx"
        out = self.out or checkpoint.folder.with_name(name)
        done = export_onnx(checkpoint.policy, out, provenance(self))
        print(f"{done.size / 2**20:.2f} MiB; parity with torch {done.parity:.1e}, bar {PARITY:.0e} (normalised units)")
        if self.calls:
            ours, theirs = latencies([checkpoint.policy, OnnxPolicy(out, threads)], checkpoint.policy, self.calls)
            for name, taken in (("torch", ours), ("onnxruntime", theirs)):
                middle, late = np.percentile(taken, (50, 99))
                print(f"{name:12} {middle:6.0f} us a decision (p50), {late:6.0f} us (p99)")
        print(f"written to {out}")
        return out


def replanning(actor: ChunkedPredictor, observation: Any) -> ActingState:
    """A state in which the next call decides, and not for the first time in its episode."""
    _, state = actor.predict(observation)
    while not state.waiting.size:
        _, state = actor.predict(observation, state)
    return state


def latencies(
    actors: list[ChunkedPredictor], policy: Policy, calls: int, batch: int = 1, row: int = 1
) -> list[list[float]]:
    """Microseconds of each of `calls` decisions, by actor; the actors take turns, with so many decisions in a `row`.

    With 1 each finds the processor's caches full of the others, with more it finds its own weights there.
    """
    rng = np.random.default_rng(0)
    centre, scale = (side.cpu().numpy() for side in policy.normaliser.ranges())
    taken: list[list[float]] = [[] for _ in actors]
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(-(-(calls + 10) // row)):  # the first ones warm up
            places = rng.uniform(-1, 1, (row, *centre.shape) if batch == 1 else (row, batch, *centre.shape))
            seen: list[Any] = [policy.layout.split((centre + scale * at).astype(np.float32)) for at in places]
            for actor, times in zip(actors, taken, strict=True):
                for named in seen:
                    state = replanning(actor, named) if actor.config.acting.looks_back else None
                    began = time.perf_counter_ns()
                    actor.predict(named, state)
                    times.append((time.perf_counter_ns() - began) / 1000)
    finally:
        if collecting:
            gc.enable()
    return [times[-calls:] for times in taken]
