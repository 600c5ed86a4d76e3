"""Success of an actor under conditions, as rows per episode and one table row each, on seeds never trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffpolicy.evaluation.report import TableRow
from diffpolicy.evaluation.statistics import Interval, wilson
from diffpolicy.rollout.environment import Vector, make_vector
from diffpolicy.rollout.loop import Finished, rollout
from diffpolicy.rollout.predictor import Predictor

__all__ = ["EpisodeRow", "Evaluation", "evaluate"]


@dataclass(frozen=True)
class EpisodeRow:
    """What became of one evaluated episode."""

    method: str
    task: str
    condition: str
    seed: int  # reset seed
    success: bool
    total_reward: float
    length: int  # [control steps]


@dataclass(frozen=True)
class Evaluation:
    """One actor under one condition."""

    method: str
    task: str
    condition: str
    episodes: tuple[EpisodeRow, ...]
    nfe: int  # denoiser calls per decision; 0: no denoiser
    network_calls: int  # denoiser calls of all episodes
    seconds: float  # wall-clock of the evaluation

    @property
    def success(self) -> Interval:
        """Wilson's 95% interval."""
        return wilson(sum(e.success for e in self.episodes), len(self.episodes))

    def row(self, **cost: float | int | None) -> dict[str, Any]:
        """The row of a committed table; ``cost`` adds ``train_s``, ``expert_queries``, ``env_steps``, ..."""
        rate = self.success
        return {
            "method": self.method,
            "task": self.task,
            "condition": self.condition,
            "seeds": 1,
            "episodes": len(self.episodes),
            "success": round(rate.point, 4),
            "ci_low": round(rate.low, 4),
            "ci_high": round(rate.high, 4),
            "return": round(float(np.mean([e.total_reward for e in self.episodes])), 3),
            "length": round(float(np.mean([e.length for e in self.episodes])), 2),
            "nfe": self.nfe,
            "network_calls": self.network_calls,
            **cost,
        }

    def table_row(self, **cost: Any) -> TableRow:
        """The row of a report."""
        row = self.row()
        return TableRow(
            method=self.method,
            condition=self.condition,
            success=self.success,
            episodes=len(self.episodes),
            return_mean=row["return"],
            episode_length=row["length"],
            nfe=self.nfe or None,
            **cost,
        )

    def rows(self) -> list[dict[str, Any]]:
        """The episodes as plain values."""
        return [asdict(episode) for episode in self.episodes]


def evaluate(
    environment: str,
    make: Callable[[Vector], Predictor],
    seeds: Sequence[int],
    *,
    method: str,
    condition: str = "clean",
    nfe: int = 0,
    n_action_steps: int = 1,
    num_envs: int = 64,
    finished: Finished | None = None,
) -> Evaluation:
    """Play one episode per seed and count.

    Args:
        environment: gymnasium id.
        make: the actor in a given environment.
        seeds: reset seeds; methods that are compared get the same.
        method: name in the table.
        condition: disturbance to play under.
        nfe: denoiser calls per decision, to count network calls.
        n_action_steps: actions executed per decision.
        num_envs: simulations at once.
        finished: called with each episode as it ends.
    """
    began = time.perf_counter()
    env = make_vector(environment, min(num_envs, len(seeds)), condition)
    try:
        played = rollout(env, make(env), seeds, condition=condition, finished=finished)
    finally:
        env.close()
    rows = tuple(EpisodeRow(method, environment, condition, e.seed, e.success, e.total_reward, len(e)) for e in played)
    calls = nfe * sum(-(-len(e) // n_action_steps) for e in played)
    return Evaluation(method, environment, condition, rows, nfe, calls, time.perf_counter() - began)
