"""What planning costs and gives: ``python -m benchmarks.planner`` writes ``results/planner.json`` and its table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.tables import RESULTS, ROOT, insert, markdown, percent, write_table
from benchmarks.timing.clock import alternated, median_interval
from diffpolicy.evaluation.statistics import wilson
from diffpolicy.policy.files import read_json
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.planning import PlanningExpert
from diffpolicy_envs.planner import Plan, Planner, PlannerConfig
from diffpolicy_envs.task import Array
from diffpolicy_envs.tasks.push_t import PushT

__all__ = ["COMMAND", "SETTINGS", "crossed", "main"]

COMMAND = "python -m benchmarks.planner"
PAGE = ROOT / "docs" / "planner.md"
TASK = "diffpolicy/PushT-v0"
FIRST = 1_000_000_000  # the first reset seed
OWN = PushT.planning
SETTINGS: dict[str, PlannerConfig] = {
    "as it is": OWN,
    "16 samples": replace(OWN, samples=16),
    "32 samples": replace(OWN, samples=32),
    "128 samples": replace(OWN, samples=128),
    "horizon 10": replace(OWN, horizon=10),
    "horizon 30": replace(OWN, horizon=30),
    **{f"{n} samples, horizon {h}": replace(OWN, samples=n, horizon=h) for n in (16, 128) for h in (10, 30)},
    "no proposals": replace(OWN, proposals=0.0),
    "proposals alone": replace(OWN, proposals=1.0),
    "no restart": replace(OWN, patience=10_000),
    "mppi": replace(OWN, method="mppi"),
    "cem, 2 iterations": replace(OWN, method="cem", samples=32, iterations=2),
}
Row = dict[str, Any]


def played(config: PlannerConfig, condition: str, episodes: int, cold: bool = False) -> Row:
    """Success over episodes of a condition."""
    num = min(episodes, 50)
    env: Any = make_vector(TASK, num, condition, threads=1).unwrapped
    planner = Planner(PushT, condition, config, threads=1)
    simulations, found, steps, most, calls = env.simulations, 0, 0, 0.0, 0
    for first in range(FIRST, FIRST + episodes, num):
        live = np.arange(min(num, FIRST + episodes - first))
        simulations.begin(live, [first + i for i in live])
        plans: list[Plan | None] = [None] * num
        while len(live):
            rows = simulations.get_state(live)
            for i, row in zip(live, rows, strict=True):
                plans[i] = planner.plan(row, None if cold else plans[i])
            actions = np.stack([plan.action for i in live if (plan := plans[i]) is not None])
            step = simulations.step(live, actions)
            done = step.terminated | step.truncated
            found, steps, calls = found + int(step.success.sum()), steps + len(live), calls + len(live)
            most += float(step.records["max_coverage"][done].sum())
            live = live[~done]
    env.close()
    rate = wilson(found, episodes)
    return {
        "task": "PushT",
        "condition": condition,
        "seeds": 1,
        "episodes": episodes,
        "success": round(rate.point, 4),
        "ci_low": round(rate.low, 4),
        "ci_high": round(rate.high, 4),
        "max_coverage": round(most / episodes, 4),
        "length": round(steps / episodes, 1),
        "samples": config.samples,
        "horizon": config.horizon,
        "physics_steps": config.samples * config.horizon * config.iterations * (config.substeps or PushT.substeps),
    }


def timed(configs: Sequence[PlannerConfig], blocks: int) -> list[dict[str, float]]:
    """Time of a plan by each of the settings, as ratios to the first, all of the same states in turns."""
    states = _states(8)
    planners = [Planner(PushT, "wide", config, threads=1) for config in configs]

    def loop(planner: Planner) -> None:
        for state in states:
            planner.plan(state)

    times = alternated([lambda planner=planner: loop(planner) for planner in planners], blocks, 1)  # type: ignore[misc]
    found = []
    for each in times:
        ratio, low, high = median_interval((each / times[0]).ravel())
        found.append({"ratio": round(ratio, 2), "ratio_low": round(low, 2), "ratio_high": round(high, 2)})
    return found


def _states(count: int) -> Array:
    env: Any = make_vector(TASK, count, "wide", threads=1).unwrapped
    env.simulations.begin(np.arange(count), [FIRST + i for i in range(count)])
    states: Array = env.simulations.get_state(np.arange(count))
    env.close()
    return states


def relabelled(states: int, length: int = 16) -> Row:
    """What it takes to label so many visited states with chunks, beside playing the episodes they are taken from."""
    env = make_vector(TASK, 8, "wide", threads=1)
    expert = PlanningExpert(env, threads=1)
    began = time.perf_counter()
    episodes = rollout(env, expert, range(FIRST, FIRST + 8), record_states=True)
    played_s = time.perf_counter() - began
    visited = sum(len(episode) for episode in episodes)
    every = max(1, visited // states)
    began = time.perf_counter()
    labelled, cost = label_by_branching(env, expert, episodes, length, every)
    seconds = time.perf_counter() - began
    env.close()
    return {
        "method": "relabelling",
        "task": "PushT",
        "condition": "wide",
        "episodes": len(labelled),
        "states": cost.queries,
        "length": length,
        "plans": cost.env_steps,
        "seconds": round(seconds, 1),
        "ratio": round(seconds / played_s, 2),
        "unit": "x",
        "what": "time of labelling",
        "against": "playing the episodes",
    }


def main(args: Sequence[str] | None = None) -> int:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--episodes", type=int, default=60, help="of each setting, in wide starts")
    parser.add_argument("--states", type=int, default=300, help="to be labelled anew")
    parser.add_argument("--only", nargs="*", choices=[*SETTINGS], help="measure these alone; other rows stay")
    chosen = parser.parse_args(args)
    settings = {name: SETTINGS[name] for name in chosen.only or SETTINGS}
    times = timed([OWN, *settings.values()], blocks=20)[1:]
    rows: list[Row] = []
    for (name, config), ratio in zip(settings.items(), times, strict=True):
        spent = {**ratio, "unit": "x", "what": "time of a plan", "against": "as it is"}
        rows.append({"method": name, **played(config, "wide", chosen.episodes), **spent})
        print(rows[-1], flush=True)
    if chosen.only:
        rows = _among(rows, read_json(RESULTS / "planner.json")["rows"])
    else:
        rows.append({"method": "cold", **played(OWN, "wide", chosen.episodes, cold=True)})
        print(rows[-1], flush=True)
        rows.append(relabelled(chosen.states))
        print(rows[-1], flush=True)
    write_table("planner", COMMAND, rows)
    publish(rows)
    return 0


def _among(fresh: Sequence[Row], known: Sequence[Row]) -> list[Row]:
    """Fresh rows among the known ones, in the order of the settings, with what is no setting at the end."""
    by = {row["method"]: row for row in (*known, *fresh)}
    return [by[name] for name in sorted(by, key=lambda name: [*SETTINGS, "cold", "relabelling"].index(name))]


def crossed(rows: Sequence[Row]) -> str:
    """Samples against horizon: success, and what an episode takes to plan, its length times the time of a plan."""
    first = next(row for row in rows if row["method"] == "as it is")
    by = {(row["samples"], row["horizon"]): row for row in rows if _plain(SETTINGS.get(row["method"]))}

    def shown(row: Row) -> str:
        spent = row["length"] * row["ratio"] / first["length"]
        return f"{100 * row['success']:.0f}, {row['length']:.0f} steps, {spent:.2f}"

    horizons = sorted({horizon for _, horizon in by})
    samples = [n for n in sorted({n for n, _ in by}) if all((n, h) in by for h in horizons)]
    lines = [[str(n), *(shown(by[n, h]) for h in horizons)] for n in samples]
    return markdown(["samples", *(f"horizon {h}" for h in horizons)], lines)


def _plain(config: PlannerConfig | None) -> bool:
    """Whether a setting is as it is but for its samples and its horizon."""
    return config is not None and replace(config, samples=OWN.samples, horizon=OWN.horizon) == OWN


def publish(rows: Sequence[Row]) -> None:
    """Print them on the planner's page."""
    lines = [
        [
            row["method"],
            str(row["samples"]),
            str(row["horizon"]),
            percent(row),
            f"{row['length']:.0f}",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
        ]
        for row in rows
        if "success" in row
    ]
    header = ["setting", "samples", "horizon", "success %", "mean length [control steps]", "time of a plan"]
    insert(PAGE, "planner", markdown(header, lines))
    insert(PAGE, "planner-crossed", crossed(rows))
    cost = next(row for row in rows if row["method"] == "relabelling")
    insert(
        PAGE,
        "planner-relabelling",
        f"Labelling {cost['states']} visited states with chunks of {cost['length']} actions took {cost['plans']} plans "
        f"and {cost['seconds']:.0f} s, one thread: {cost['ratio']:.1f} times as long as it takes to play the "
        f"{cost['episodes']} episodes that they were taken from.",
    )


if __name__ == "__main__":
    sys.exit(main())
