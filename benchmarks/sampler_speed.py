"""How long a decision takes under each sampler: ``python -m benchmarks.sampler_speed`` writes it down.

Batch 1, one thread, decisions of all samplers in turns; latency does not depend on what the weights are. The rows go to
``results/sampler-speed.json``.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch

from benchmarks.sampled import SOLVERS
from benchmarks.tables import RESULTS, write_table
from benchmarks.trained import KINDS
from diffpolicy.policy import Policy, SpaceSpec
from diffpolicy.policy.changes import changed
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.export import latencies
from diffpolicy.rollout.environment import make_vector

__all__ = ["COMMAND", "committed", "main"]

COMMAND = "python -m benchmarks.sampler_speed"
TASK = "diffpolicy/PickPlace-v0"
AGAINST = "Euler, 1 step"
CALLS = 400
NETWORKS = {"MLP": "flow", "U-Net": "unet", "transformer": "transformer"}


def policies() -> dict[str, Policy]:
    """Every sampler with an untrained network, and every network under the default sampler."""
    env = make_vector(TASK, 1)
    spaces = SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)
    env.close()
    torch.manual_seed(0)
    found = {}
    for name, (kind, change) in SOLVERS.items():
        found[name] = Policy(KINDS[kind], spaces).reconfigured(changed(KINDS[kind], change)).eval()
    return found | {name: Policy(KINDS[kind], spaces).eval() for name, kind in NETWORKS.items()}


def committed() -> dict[str, dict[str, Any]]:
    """The committed rows by sampler; nothing where there are none."""
    path = RESULTS / "sampler-speed.json"
    return {row["what"]: row for row in read_json(path)["rows"]} if path.is_file() else {}


def main() -> int:
    """Measure and write; returns the exit status."""
    torch.set_num_threads(1)
    made = policies()
    taken = dict(zip(made, latencies(list(made.values()), next(iter(made.values())), CALLS), strict=True))
    base = float(np.median(taken[AGAINST]))
    rows = []
    for name, times in taken.items():
        p50, p99 = np.percentile(times, (50, 99))
        row = {"what": name, "ratio": round(p50 / base, 2), "unit": "time of a decision", "against": AGAINST}
        rows.append({**row, "nfe": made[name].calls, "latency_p50_us": round(p50, 1), "latency_p99_us": round(p99, 1)})
        print(f"{name:24} {p50:8.0f} us (p50) {p99:8.0f} us (p99) {p50 / base:6.2f} x")
    write_table("sampler-speed", COMMAND, rows, batch=1, threads=1, calls=CALLS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
