"""Returns of the learned experts that ship, beside published ones: ``python -m benchmarks.learned_experts``."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.tables import ROOT, insert, markdown, write_table
from diffpolicy_envs.paths import assets_folder

__all__ = ["PAGE", "PUBLISHED", "main", "printed", "row", "shipped", "table"]

COMMAND = "python -m benchmarks.learned_experts"
PAGE = ROOT / "docs" / "experts.md"
NAME = "learned-experts"
_SHORT = 100  # control steps of an episode whose evaluation is cheap
_ZOO = "https://github.com/DLR-RM/rl-baselines3-zoo/blob/master/benchmark.md"
_TIANSHOU = "https://github.com/thu-ml/tianshou/blob/master/examples/mujoco/README.md"
_HUB = "https://huggingface.co/arabellako22/ppo-pusher-v5-vecnormalize"

PUBLISHED: dict[tuple[str, str], tuple[float, str, str]] = {
    ("ppo", "Hopper-v5"): (2410.435, "Hopper-v3, 1M steps, one run", _ZOO),
    ("ppo", "Walker2d-v5"): (3478.798, "Walker2d-v3, 1M steps, one run", _ZOO),
    ("ppo", "HalfCheetah-v5"): (5819.099, "HalfCheetah-v3, 1M steps, one run", _ZOO),
    ("ppo", "Reacher-v5"): (-4.1, "Reacher-v2, 1M steps, ten runs, each at its best", _TIANSHOU),
    ("ppo", "Pusher-v5"): (-28.93, "Pusher-v5, 1M steps, one run at its best", _HUB),
}
"""Mean return, what it was measured on, and where it stands, by (algorithm, our environment)."""


def main(args: Sequence[str] | None = None) -> int:
    """Evaluate what ships, and write the table and the page that prints it."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--episodes", type=int, default=500, help="of each expert; 2 in 5 of them where they are long")
    parser.add_argument("--only", nargs="+", help="names of zip files; evaluate only these, and write nothing")
    chosen = parser.parse_args(args)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported, as the command line does
    paths = [path for path in shipped() if not chosen.only or path.name in chosen.only]
    rows = [row(path, chosen.episodes) for path in paths]
    if not chosen.only:
        write_table(NAME, COMMAND, rows)
        insert(PAGE, NAME, table(rows))
    print(table(rows))
    return 0


def shipped() -> list[Path]:
    """The zip files of the experts that came with the package."""
    return sorted((assets_folder() / "experts").glob("*.zip"))


def row(path: Path, episodes: int) -> dict[str, Any]:
    """One expert's returns on seeds of evaluations, its cost, and the published figure for its task."""
    import torch

    from diffpolicy.recipes.evaluate import measured
    from diffpolicy.recipes.expert import returns
    from diffpolicy.rollout.environment import longest

    torch.set_num_threads(1)
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    method, task = str(about["method"]), str(about["environment"])
    count = episodes if longest(task) <= _SHORT else max(2, 2 * episodes // 5)
    (found,) = measured(path, task, ("clean",), count, seed=0, method=method)
    figure, on, source = PUBLISHED.get((method, task), (None, None, None))
    told = found.row()
    mean = returns(found.episodes)
    return {
        **{name: told[name] for name in ("method", "task", "condition", "seeds", "episodes", "dropped", "length")},
        **mean,
        "published": figure,
        "gap": None if figure is None else round(mean["return_mean"] - figure, 3),
        "published_on": on,
        "published_source": source,
        "train_s": about["train_s"],
        "env_steps": about["env_steps"],
        "expert": path.name,
        "bytes": path.stat().st_size,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The Markdown of the rows."""
    header = [
        "Expert",
        "environment steps",
        "return (95% of the mean)",
        "interquartile mean",
        "published",
        "gap",
        "measured on",
    ]
    return markdown(
        header,
        [
            [
                f"{each['task']}, {each['method'].upper()}",
                f"{each['env_steps']:,}",
                f"{_told(each['return_mean'])} ({_told(each['ci_low'])} to {_told(each['ci_high'])})",
                _told(each["return_iqm"]),
                "-" if each["published"] is None else f"[{_told(each['published'])}]({each['published_source']})",
                "-" if each["gap"] is None else f"{'+' if each['gap'] > 0 else ''}{_told(each['gap'])}",
                each["published_on"] or "-",
            ]
            for each in rows
        ],
    )


def printed() -> str:
    """What the page prints."""
    return tables.printed(PAGE, NAME)


def _told(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
