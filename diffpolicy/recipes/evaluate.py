"""Evaluate: success with its interval, per condition, and a row per episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json, require_writable, write_json
from diffpolicy.recipes.run import CONDITIONS_BY_DEFAULT, conditions_in, provenance, use_threads, warn_of_endless

if TYPE_CHECKING:
    from diffpolicy.evaluation.evaluate import Evaluation

__all__ = ["Evaluate", "measured", "print_table"]


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a checkpoint: success with Wilson's 95% interval under each condition."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A checkpoint folder, the run that holds one, an exported .onnx file, "expert", "planner", module:function, or
    a Stable-Baselines3 zip file."""
    episodes: int = 200
    """Episodes per condition."""
    conditions: tuple[str, ...] = CONDITIONS_BY_DEFAULT
    """Disturbances to evaluate under; "all" takes every one that the environment knows, and the default only these."""
    environment: str | None = None
    """Gymnasium id; by default the checkpoint's."""
    change: tuple[str, ...] = ()
    """Settings to act with instead of the checkpoint's: sampler.steps=4, n_action_steps=4, acting.latency=2, ..."""
    out: Path | None = None
    """File for the results; by default evaluation.json, evaluation-best.json or, with --change,
    evaluation-changed.json, in the run's folder, replaced by a
    later one."""
    seed: int = 0
    """Names the reset seeds: the same seed gives every method the same episodes."""
    num_envs: int = 64
    """Simulations at once."""
    threads: int = 0
    """Threads of torch; 0 takes one."""

    def __call__(self) -> Path:
        """Evaluate, print the table, and return the results' file."""
        from diffpolicy.recipes.actors import load_actor

        use_threads(self.threads)
        actor = load_actor(self.checkpoint, self.environment, self.change)
        folder = actor.folder
        name = actor.name.replace("/", "-").replace(":", "-")
        kind = ("-best" if Path(self.checkpoint).name == "best" else "") + ("-changed" if self.change else "")
        file = f"evaluation{kind}.json"
        out = self.out or (folder / file if folder else Path("runs") / f"evaluation-{name}.json")
        conditions_in(actor.environment, self.conditions)  # before anything is made
        _require_replaceable(out)
        evaluations = measured(
            self.checkpoint,
            actor.environment,
            self.conditions,
            self.episodes,
            self.seed,
            num_envs=self.num_envs,
            change=self.change,
        )
        print_table(evaluations)
        timing = ("method", "condition", "num_envs", "seconds")
        content = {
            **provenance(self, trained=dict(actor.provenance)),
            "rows": [e.row() for e in evaluations],
            "timing": [{**{k: getattr(e, k) for k in timing}, **e.shares} for e in evaluations],
            "dropped": [row for e in evaluations for row in e.dropped_rows()],
            "episodes": [row for e in evaluations for row in e.rows()],
        }
        write_json(content, out)
        print(f"written to {out}")
        return out


def _require_replaceable(out: Path) -> None:
    """Raises InputError where the results cannot be written, or would replace what is no evaluation."""
    if out.is_file():
        try:
            found = read_json(out)
        except InputError:
            found = None
        if not isinstance(found, dict) or not {"rows", "episodes"} <= found.keys():
            raise InputError(
                f"{out} is there and holds no evaluation, which alone would be replaced; name another --out"
            )
    require_writable(out)


def measured(
    who: str | Path,
    environment: str | None,
    conditions: tuple[str, ...],
    episodes: int,
    seed: int,
    *,
    method: str | None = None,
    num_envs: int = 64,
    change: Sequence[str] = (),
) -> list[Evaluation]:
    """Evaluations of an actor, one for each condition that its environment knows."""
    from diffpolicy.evaluation.evaluate import evaluate
    from diffpolicy.recipes.actors import load_actor
    from diffpolicy.recipes.progress import EpisodeProgress
    from diffpolicy.rollout.seeds import episode_seeds

    if episodes < 1 or num_envs < 1:
        raise InputError(f"expected at least 1 episode and 1 simulation, got {episodes} and {num_envs}")
    actor = load_actor(who, environment, change)
    seeds = episode_seeds("evaluation", seed, episodes)
    warn_of_endless(actor.environment)
    results = []
    for condition in conditions_in(actor.environment, conditions):
        with EpisodeProgress(episodes, f"{method or actor.name}, {condition}") as progress:
            result = evaluate(
                actor.environment,
                actor.make,
                seeds,
                method=method or actor.name,
                condition=condition,
                nfe=actor.nfe,
                n_action_steps=actor.n_action_steps,
                first_nfe=actor.first_nfe,
                latency=actor.latency,
                num_envs=num_envs,
                finished=progress,
                dropped=progress.dropped,
            )
        results.append(result)
    return results


def print_table(evaluations: list[Evaluation]) -> None:
    """Print success, interval, return, length and cost, one line per evaluation, and what was dropped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from diffpolicy.rollout.faults import count_of

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("method", "condition", "success", "95%", "episodes", "return", "length", "NFE"):
        long = name == "method"  # which gives way where there is no room: figures are never cut short
        justify = "left" if name in ("method", "condition") else "right"
        table.add_column(name, no_wrap=not long, overflow="fold" if long else "ellipsis", justify=justify)  # type: ignore[arg-type]
    for e in evaluations:
        row, rate = e.row(), e.success
        table.add_row(
            e.method,
            e.condition,
            "-" if rate is None else f"{100 * rate.point:.1f}%",
            "-" if rate is None else f"{100 * rate.low:.0f}-{100 * rate.high:.0f}",
            str(len(e.episodes)),
            f"{row['return']:.2f}",
            f"{row['length']:.1f}",
            str(e.nfe or "-"),
        )
    console = Console()
    Console(width=max(console.width, 100)).print(table)  # numbers must not be cut short
    for e in evaluations:
        if e.dropped:
            print(f"{e.method}, {e.condition}: {count_of(e.dropped)}")
    if any(e.success is None for e in evaluations):
        print("success -: the environment reports none (no success or is_success in info)")
