"""DPPO where there is no success to be told: `python -m benchmarks.dppo`, on Hopper-v5, from two demonstrations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.pool import Pool
from benchmarks.stage import Output, Stage
from benchmarks.tables import ROOT, insert, markdown, write_table
from diffpolicy.errors import InputError
from diffpolicy.evaluation.statistics import bootstrap
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.recipes.redif import Redif
from diffpolicy.updates import PolicyGradientConfig, RewardConfig

__all__ = ["NAME", "PAGE", "Dppo", "row", "stages", "table"]

NAME = "dppo"
COMMAND = "python -m benchmarks.dppo"
PAGE = ROOT / "docs" / "reinforcement.md"
TASK = "Hopper-v5"
CLEAN = ("clean",)


@dataclass(frozen=True)
class Dppo:
    """Train, evaluate, and write the table and the page that prints it."""

    store: Path = Path("runs/benchmarks")
    """Where stages live; what is there is not made again."""
    jobs: int = 2
    """Stages at once."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training."""
    episodes: int = 100
    """Of each evaluation."""

    def __call__(self) -> int:
        """Run; returns the exit status."""
        wanted = {seed: stages(seed, self.episodes) for seed in self.seeds}
        pool = Pool(self.store, self.jobs, 1)
        pool.add([stage for by in wanted.values() for stage in by.values()])
        pool.run()
        if failed := [job for job in pool.plan.values() if job.state != "done"]:
            print("\n".join(f"{job.stage.folder(self.store).name}: {job.said.rstrip() or job.state}" for job in failed))
            return 1
        found = {seed: {m: read_json(s.output(self.store)) for m, s in by.items()} for seed, by in wanted.items()}
        rows = [row(method, [by[method] for by in found.values()]) for method in ("expert", "bc", "DPPO")]
        asked = "" if self.seeds == Dppo.seeds else f" --seeds {' '.join(map(str, self.seeds))}"
        write_table(NAME, COMMAND + asked, rows)
        insert(PAGE, NAME, table(rows))
        print(table(rows))
        return 0


def stages(seed: int, episodes: int) -> dict[str, Stage]:
    """The evaluations of a training seed, by method: the expert's is the same for all."""
    demos = Output(Stage(Collect(TASK, episodes=2, keep_failures=True, seed=seed)))
    bc = Output(Stage(Bc(seed=seed, policy=PolicyConfig(n_action_steps=4)), {"data": demos}))
    recipe = Redif(
        student_steps=8,
        conditions=CLEAN,
        rollouts=32,
        steps=60,
        reward=RewardConfig(success=0.0),
        optimiser=PolicyGradientConfig(last_steps=4),
        seed=seed,
    )
    dppo = Output(Stage(recipe, {"checkpoint": bc}))
    evaluated = {
        method: Stage(Evaluate("", episodes, CLEAN, TASK, seed=seed), {"checkpoint": actor})
        for method, actor in (("bc", bc), ("DPPO", dppo))
    }
    return {"expert": Stage(Evaluate("expert", episodes, CLEAN, TASK)), **evaluated}


def row(method: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean return over training seeds and episodes, and what it cost.

    Its 95% interval is a bootstrap over episodes: of these policies, not of newly trained ones.
    """
    returns = [np.array([e["total_reward"] for e in each["episodes"]]) for each in found]
    mean = bootstrap(returns if method != "expert" else returns[:1])
    lengths = [e["length"] for each in found for e in each["episodes"]]
    costs = [each["trained"].get("env_steps") for each in found]
    return {
        "task": TASK,
        "method": method,
        "seeds": 1 if method == "expert" else len(found),
        "episodes": len(returns[0]),
        "return_mean": round(mean.point, 1),
        "ci_low": round(mean.low, 1),
        "ci_high": round(mean.high, 1),
        "per_seed": [round(float(each.mean()), 1) for each in returns][: 1 if method == "expert" else None],
        "length": round(float(np.mean(lengths)), 1),
        "env_steps": None if method == "expert" else round(float(np.mean(costs))),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = []
    for each in rows:
        seeds = ", ".join(f"{value:,.0f}" for value in each["per_seed"])
        shown = f"{each['return_mean']:,.0f} ({each['ci_low']:,.0f} to {each['ci_high']:,.0f})"
        steps = "" if each["env_steps"] is None else f"{each['env_steps']:,}"
        lines.append([each["method"], shown, seeds, f"{each['length']:.0f}", steps])
    return markdown(["Hopper-v5", "return", "by training seed", "length", "environment steps"], lines)


if __name__ == "__main__":
    try:
        raise SystemExit(tyro.cli(Dppo)())
    except InputError as error:
        raise SystemExit(f"benchmarks: {error}") from error
