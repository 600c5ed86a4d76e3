"""Success of an actor under conditions, as rows per episode and one table row each, on seeds never trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.evaluation.report import TableRow
from diffpolicy.evaluation.seams import seam_jerk
from diffpolicy.evaluation.statistics import Interval, wilson
from diffpolicy.evaluation.ways import way_entropy
from diffpolicy.rollout.environment import Vector, make_vector, task_of
from diffpolicy.rollout.faults import Drop, Dropped, count_of
from diffpolicy.rollout.loop import Finished, Record, play
from diffpolicy.rollout.predictor import Predictor

__all__ = ["EpisodeRow", "Evaluation", "evaluate"]


@dataclass(frozen=True)
class EpisodeRow:
    """What became of one evaluated episode."""

    method: str
    task: str
    condition: str
    seed: int  # reset seed
    success: bool | None  # None: the environment reports none
    total_reward: float
    length: int  # [control steps]
    seam_jerk: float | None  # see diffpolicy.evaluation.seams; None: no seam
    nfe: int  # denoiser calls per decision
    network_calls: int  # denoiser calls of the episode
    latency_us: float  # median wall-clock of the predict calls that decided in it, each for the whole batch [us]
    records: Mapping[str, float] = field(default_factory=dict)  # what else the environment says of it, at its end


@dataclass(frozen=True)
class Evaluation:
    """One actor under one condition; dropped episodes are in no number but their own."""

    method: str
    task: str
    condition: str
    episodes: tuple[EpisodeRow, ...]
    nfe: int  # denoiser calls per decision; 0: no denoiser
    network_calls: int  # denoiser calls of all episodes
    seconds: float  # wall-clock of the evaluation
    dropped: tuple[Dropped, ...] = ()  # episodes that the environment broke
    num_envs: int = 1  # simulations at once
    latency_p50_us: float | None = None  # of the predict calls that decided, each for the whole batch [us]
    latency_p99_us: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)  # seconds as env_s + predict_s + rest_s
    ways: int | None = None  # how many the task has, of which the record ``way`` names one

    @property
    def success(self) -> Interval | None:
        """Wilson's 95% interval; None where the environment reports no success."""
        outcomes = [e.success for e in self.episodes if e.success is not None]
        return wilson(sum(outcomes), len(outcomes)) if outcomes else None

    @property
    def records(self) -> dict[str, float]:
        """Means of the episodes' records; of ``way``, a category, the entropy over successful episodes [bit].

        That is an estimate, and at most what all ways of the task taken alike have.
        """
        names = dict.fromkeys(name for episode in self.episodes for name in episode.records)
        means = {n: float(np.mean([e.records[n] for e in self.episodes if n in e.records])) for n in names}
        if "way" in means:
            del means["way"]
            most = np.inf if self.ways is None else float(np.log2(self.ways))
            means["way_entropy"] = min(way_entropy([e.records["way"] for e in self.episodes if e.success]), most)
        return {name: round(value, 4) for name, value in means.items()}

    def row(self, **cost: float | int | None) -> dict[str, Any]:
        """The row of a committed table; ``cost`` adds ``train_s``, ``expert_queries``, ``env_steps``, ..."""
        rate = self.success
        jerks = [e.seam_jerk for e in self.episodes if e.seam_jerk is not None]
        return {
            "method": self.method,
            "task": self.task,
            "condition": self.condition,
            "seeds": 1,
            "episodes": len(self.episodes),
            "dropped": len(self.dropped),
            "success": None if rate is None else round(rate.point, 4),
            "ci_low": None if rate is None else round(rate.low, 4),
            "ci_high": None if rate is None else round(rate.high, 4),
            "return": round(float(np.mean([e.total_reward for e in self.episodes])), 3),
            "length": round(float(np.mean([e.length for e in self.episodes])), 2),
            "seam_jerk": round(float(np.mean(jerks)), 5) if jerks else None,
            "nfe": self.nfe,
            "network_calls": self.network_calls,
            "latency_p50_us": self.latency_p50_us,
            "latency_p99_us": self.latency_p99_us,
            "num_envs": self.num_envs,
            **self.records,
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
            dropped=len(self.dropped) or None,
            return_mean=row["return"],
            episode_length=row["length"],
            nfe=self.nfe or None,
            **cost,
        )

    def rows(self) -> list[dict[str, Any]]:
        """The episodes as plain values."""
        return [asdict(episode) for episode in self.episodes]

    def dropped_rows(self) -> list[dict[str, Any]]:
        """The dropped episodes as plain values."""
        return [{"method": self.method, **asdict(each)} for each in self.dropped]


def evaluate(
    environment: str,
    make: Callable[[Vector], Predictor],
    seeds: Sequence[int],
    *,
    method: str,
    condition: str = "clean",
    nfe: int = 0,
    n_action_steps: int = 1,
    first_nfe: int | None = None,
    latency: int = 0,
    num_envs: int = 64,
    finished: Finished | None = None,
    dropped: Drop | None = None,
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
        first_nfe: denoiser calls of an episode's first decision, where they are others.
        latency: control steps from a decision to its first action, for the seams.
        num_envs: simulations at once.
        finished: called with each episode as it ends.
        dropped: called with each episode that the environment broke, by an exception or a number that is not
            finite; it is left out, and listed in the evaluation.

    Raises:
        InputError: what ``make_vector`` and ``rollout`` refuse, or more than half of the episodes were dropped.
    """
    began = time.perf_counter()
    lost: list[Dropped] = []

    def lose(episode: Dropped) -> None:
        lost.append(episode)
        if dropped is not None:
            dropped(episode)
        if 2 * len(lost) > len(seeds):
            raise InputError(
                f"more than half of {len(seeds)} episodes are lost: {count_of(lost)}; mend the environment"
            )

    env = make_vector(environment, min(num_envs, len(seeds)), condition)
    try:
        record = play(env, make(env), seeds, condition=condition, finished=finished, dropped=lose)
        space, count = env.single_action_space, env.num_envs
    finally:
        env.close()
    pace = _Pace(n_action_steps, nfe, nfe if first_nfe is None else first_nfe, latency)
    rows = _rows(record, (method, environment), pace, space)
    p50, p99 = _percentiles(record, n_action_steps)
    seconds, predict_s = time.perf_counter() - began, float(record.calls.sum())
    rest_s = seconds - record.env_s - predict_s
    return Evaluation(
        method,
        environment,
        condition,
        rows,
        nfe,
        sum(row.network_calls for row in rows),
        seconds,
        tuple(lost),
        count,
        p50,
        p99,
        {"env_s": record.env_s, "predict_s": predict_s, "rest_s": rest_s},
        None if (task := task_of(environment)) is None else task.ways,
    )


class _Pace(NamedTuple):
    """How an actor decides; see `evaluate`."""

    n_action_steps: int
    nfe: int
    first_nfe: int
    latency: int


def _rows(record: Record, about: tuple[str, str], pace: _Pace, space: Any) -> tuple[EpisodeRow, ...]:
    def row(episode: Episode) -> EpisodeRow:
        jerk = seam_jerk(episode.actions, pace.n_action_steps, space.low, space.high, pace.latency)
        decisions = _decisions(record, episode, pace.n_action_steps)
        latency = np.median(record.calls[decisions])
        return EpisodeRow(
            *about,
            episode.condition,
            episode.seed,
            episode.success if record.reports_success else None,
            episode.total_reward,
            len(episode),
            None if jerk is None else round(jerk, 6),
            pace.nfe,
            pace.first_nfe + pace.nfe * (len(decisions) - 1),
            round(1e6 * float(latency), 1),
            episode.records,
        )

    return tuple(map(row, record.episodes))


def _decisions(record: Record, episode: Episode, n_action_steps: int) -> npt.NDArray[np.int64]:
    """The predict calls in which an episode got a new chunk."""
    return record.begins[episode.seed] + np.arange(0, len(episode), n_action_steps)


def _percentiles(record: Record, n_action_steps: int) -> tuple[float, float]:
    """Median and 99th percentile of the calls that decided [us]; the first call, which warms up, only if alone."""
    calls = np.unique(np.concatenate([_decisions(record, episode, n_action_steps) for episode in record.episodes]))
    p50, p99 = np.percentile(1e6 * record.calls[calls[1:] if len(calls) > 1 else calls], (50, 99))
    return round(float(p50), 1), round(float(p99), 1)
