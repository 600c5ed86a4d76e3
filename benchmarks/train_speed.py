"""bfloat16 and compilation of the training step, as ratios of one run: ``python -m benchmarks.train_speed``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.speed import show
from benchmarks.tables import RESULTS, ROOT, insert, markdown, write_table

__all__ = ["PAGE", "PART", "committed", "main", "table"]

COMMAND = "python -m benchmarks.train_speed"
NETWORKS = ("MLP", "U-Net", "transformer")
NAME, PART, PAGE = "train-speed", "precision", ROOT / "docs" / "training.md"


def main(args: Sequence[str] | None = None) -> int:
    """Measure, write ``results/train-speed.json`` and print its table on the page: some ten minutes."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, help="measure only these, and write nothing")
    chosen = parser.parse_args(args).only
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # what was compiled once shall not count as quick to compile
    import torch

    from benchmarks.timing.precision import measure

    rows = [{"part": PART, **each} for each in measure(networks=chosen or NETWORKS)]
    show(rows)
    if chosen is not None:
        return 0
    write_table(NAME, COMMAND, rows, threads={"torch": 1}, instructions=torch.backends.cpu.get_cpu_capability())
    insert(PAGE, PART, table(rows))
    return 0


def committed() -> list[dict[str, Any]]:
    """The rows of ``results/train-speed.json``."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / f"{NAME}.json").read_text(encoding="utf-8"))["rows"]
    return rows


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The Markdown table of the page."""
    header = ["What", "time, float32 = 1 (95%)", "p50", "float32's p50", "first step", "pays after"]
    return markdown(
        header,
        [
            [
                each["what"],
                f"{each['ratio']:.2f} ({each['ratio_low']:.2f} to {each['ratio_high']:.2f})",
                f"{each['p50_us'] / 1000:.1f} ms",
                f"{each['against_p50_us'] / 1000:.1f} ms",
                f"{each['first_step_s']:.1f} s",
                "no saving seen" if each["ratio_high"] >= 1 else f"{each['pays_after_steps']} steps",
            ]
            for each in rows
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
