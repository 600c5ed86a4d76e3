"""The training step in bfloat16 and compiled, for each kind of network, beside the same step without."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.timing.clock import Times, alternated, row
from benchmarks.timing.training import BATCH, block_ratios, full_step, percentiles, torch_threads
from diffpolicy.diffusion import MLPConfig, NetworkConfig, TransformerConfig, UNetConfig
from diffpolicy.updates import RegressionConfig

__all__ = ["NETWORKS", "VARIANTS", "measure"]

NETWORKS: dict[str, NetworkConfig] = {"MLP": MLPConfig(), "U-Net": UNetConfig(), "transformer": TransformerConfig()}
VARIANTS = {
    "float32": RegressionConfig(),
    "bfloat16": RegressionConfig(precision="bfloat16"),
    "compiled": RegressionConfig(compile=True),
    "bfloat16, compiled": RegressionConfig(precision="bfloat16", compile=True),
}


def measure(blocks: int = 20, calls: int = 6, networks: Iterable[str] = tuple(NETWORKS)) -> list[dict[str, Any]]:
    """Rows of every variant but the first, on one thread; ``blocks`` of ``calls`` steps of each take turns."""
    with torch_threads(1):
        return [each for name in networks for each in _beside_float32(name, blocks, calls)]


def _beside_float32(name: str, blocks: int, calls: int) -> list[dict[str, Any]]:
    steps = [full_step(NETWORKS[name], config) for config in VARIANTS.values()]
    first = []  # [s], of which all but a step's time is lazy initialisation and compilation
    for step in steps:
        began = time.perf_counter()
        step()
        first.append(time.perf_counter() - began)
    plain, *others = alternated(steps, blocks, calls)
    return [
        row(
            f"{name}, {variant}, batch {BATCH}, 1 thread",
            block_ratios(ours, plain),
            "the same step in float32, not compiled",
            None,
            **percentiles(ours, plain),
            first_step_s=round(seconds, 2),
            pays_after_steps=_pays(seconds, ours, plain),
        )
        for variant, ours, seconds in zip([*VARIANTS][1:], others, first[1:], strict=True)
    ]


def _pays(seconds: float, ours: Times, plain: Times) -> int | None:
    """After how many steps the first one is made up for; None: never."""
    saved = float(np.median(plain) - np.median(ours))
    return round(seconds / saved) if saved > 0 else None
