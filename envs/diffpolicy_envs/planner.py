"""An expert for any task that has a cost: sampling-based planning over the task's own simulations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import mujoco.batch
import numpy as np

from diffpolicy_envs.condition import Condition
from diffpolicy_envs.futures import Futures
from diffpolicy_envs.task import Array, Ids, Task

__all__ = ["Method", "Plan", "Planner", "PlannerConfig", "spline"]

Method = Literal["predictive", "mppi", "cem"]


@dataclass(frozen=True)
class PlannerConfig:
    """How a planner looks for actions."""

    method: Method = "predictive"
    """Which sample becomes the plan: the best (predictive sampling, arXiv 2212.00541); the mean weighted by
    exp(-cost) (MPPI, arXiv 1707.02342); the mean of the elites, whose spread the next iteration samples with (CEM,
    doi 10.1007/s10479-005-5724-z)."""
    samples: int = 48
    """Plans tried in each iteration."""
    horizon: int = 15
    """Control steps planned ahead."""
    knots: int = 4
    """Knots of the spline by which a plan is varied."""
    noise: tuple[float, ...] = (0.01, 0.04, 0.12)
    """Standard deviations of the knots, in turn, as shares of half an action's range."""
    iterations: int = 1
    """Rounds of sampling, each around the plan of the one before."""
    proposals: float = 0.5
    """Share of the samples that the task proposes (``Task.propose``), in the first iteration."""
    elites: float = 0.1
    """Share of the samples that CEM keeps."""
    temperature: float = 0.1
    """MPPI's, as a share of the distance from the least to the mean cost."""
    weights: tuple[float, float, float, float] = (1.0, 0.3, 0.3, 0.0)
    """Of the cost at the end of a plan, of its mean and of its least value."""
    smoothness: float = 0.0
    """Weight of the mean squared change of the action from step to step."""
    margin: float = 0.0
    """By which share of the cost another plan must be better than the present one."""
    patience: int = 10
    """Control steps without progress after which the plan is given up for a cold start with wider noise."""
    progress: float = 0.02
    """Share by which the planned cost must fall to count as progress."""
    substeps: int | None = None
    """Physics steps per control step; None takes the task's."""
    seed: int = 0
    """Of the random numbers, beside the state's own."""

    def __post_init__(self) -> None:
        """Raises ValueError where a number is out of its range."""
        if self.method not in get_args(Method):
            raise ValueError(f"expected method {', '.join(get_args(Method))}, got {self.method!r}")
        for name in ("samples", "horizon", "iterations", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if not 2 <= self.knots <= self.horizon:
            raise ValueError(f"expected from 2 knots to one per step ({self.horizon}), got {self.knots}")
        if not self.noise or min(self.noise) <= 0:
            raise ValueError(f"expected positive noise, got {self.noise}")
        if not (0 <= self.proposals <= 1 and 0 < self.elites <= 1 and self.temperature > 0):
            raise ValueError(
                "expected proposals from 0 to 1, elites above 0 to 1 and a positive temperature, got "
                f"{self.proposals}, {self.elites} and {self.temperature}"
            )
        if self.substeps is not None and self.substeps < 1:
            raise ValueError(f"expected at least 1 physics step per control step, got substeps={self.substeps}")


@dataclass(frozen=True)
class Plan:
    """What to do, and what the next plan wants to know of this one."""

    actions: Array  # (H, A), the first one now
    cost: float  # of the plan, by the weights of the configuration
    least: float = field(default=np.inf)  # of the costs since the last progress
    stalled: int = 0  # plans made since then

    @property
    def action(self) -> Array:
        """What to do now, (A,)."""
        return np.asarray(self.actions[0])


class Planner:
    """Plans for a task that has a cost.

    A plan is a pure function of the state row, of the plan before it and of the configuration: random numbers are
    drawn from the episode's seed, count and step, which are in the row.

    Args:
        task: the task, with ``cost``.
        condition: that of the state rows that will be planned from.
        config: settings; by default the task's own ``planning``, where it has that, else ``PlannerConfig()``.
        threads: physics threads; 0 takes all cores.

    Raises:
        ValueError: the task has no cost.
    """

    def __init__(
        self,
        task: type[Task],
        condition: str | Condition = "clean",
        config: PlannerConfig | None = None,
        threads: int = 0,
    ) -> None:
        self.config = config or getattr(task, "planning", None) or PlannerConfig()
        self.futures = Futures(task, self.config.samples, condition, threads, self.config.substeps)
        self.futures.look()  # a task without a cost says so
        self._spline = spline(self.config.knots, self.config.horizon)

    def plan(self, state: Array, before: Plan | None = None) -> Plan:
        """The plan from a state row (S,), starting from the one that was made a control step before.

        Disturbances still to come are not foreseen.
        """
        config, futures = self.config, self.futures
        futures.branch(state)
        rng = np.random.default_rng([*futures.moment(), config.seed, 2])
        idle = futures.task.idle_action(futures.all[:1])  # (1, A)
        stuck = before is not None and before.stalled >= config.patience
        kept = None if before is None else np.concatenate([before.actions[1:], before.actions[-1:]])  # (H, A)
        middle = np.repeat(idle, config.horizon, axis=0) if kept is None or stuck else kept
        now = idle[0] if before is None else before.action
        widths = np.resize(np.array(config.noise), config.samples)[:, None, None] * (3.0 if stuck else 1.0)
        proposed = futures.task.propose(0, rng, round(config.proposals * config.samples), config.horizon)
        cost = np.inf
        for iteration in range(config.iterations):
            whole = [middle[None]] + ([proposed] if iteration == 0 else [])
            if stuck and kept is not None and iteration == 0:
                whole.append(kept[None])
            knots = rng.standard_normal((config.samples, config.knots, middle.shape[1])) * widths  # (N, K, A)
            tried = middle + np.einsum("hk,nka->nha", self._spline, knots)
            given = np.concatenate(whole)[: config.samples]
            tried[: len(given)] = given
            tried = np.clip(tried, -1.0, 1.0)
            totals = self._totals(futures.costs(state, tried), tried, now)
            middle, widths = self._chosen(tried, totals, knots, widths, len(given))
            cost = float(totals.min())
        return self._judged(middle, cost, before, stuck)

    def _totals(self, costs: Array, tried: Array, now: Array) -> Array:
        """One number (N,) for each of the plans (N, H, A), from the costs (N, H) on its way."""
        end, mean, least, early = self.config.weights
        total = end * costs[:, -1] + mean * costs.mean(axis=1) + least * costs.min(axis=1)
        total = total + early * np.minimum.accumulate(costs, axis=1).mean(axis=1)
        if self.config.smoothness:
            change = np.diff(tried, axis=1, prepend=np.broadcast_to(now, (len(tried), 1, len(now))))
            total = total + self.config.smoothness * (change**2).sum(axis=2).mean(axis=1)
        return np.asarray(total)

    def _chosen(self, tried: Array, totals: Array, knots: Array, widths: Array, given: int) -> tuple[Array, Array]:
        """The plan (H, A) that comes of the samples, and the widths for the next iteration.

        The first ``given`` are whole courses; of these and of the varied ones the best leads. Means are taken of
        varied ones alone, since half of one way round and half of another is no way.
        """
        config, best = self.config, int(totals.argmin())
        if totals[best] > (1.0 - config.margin) * totals[0]:
            best = 0
        if config.method == "predictive" or 0 < best < given or not np.isfinite(totals[best]):
            return tried[best], widths
        varied = np.concatenate([[0], np.arange(given, len(tried))])
        if config.method == "mppi":
            ours = totals[varied]
            ours = np.where(np.isfinite(ours), ours, 1e12)
            scale = config.temperature * max(float(np.mean(ours) - ours.min()), 1e-12)
            weight = np.exp(-(ours - ours.min()) / scale)
            return np.einsum("n,nha->ha", weight / weight.sum(), tried[varied]), widths
        elite = varied[np.argsort(totals[varied], kind="stable")[: max(2, round(config.elites * len(varied)))]]
        spread = np.where((elite > 0)[:, None, None], knots[elite], 0.0).std(axis=0)
        return tried[elite].mean(axis=0), np.broadcast_to(np.maximum(spread, 1e-3), knots.shape)

    def _judged(self, actions: Array, cost: float, before: Plan | None, fresh: bool) -> Plan:
        """The plan with its count of steps without progress."""
        if before is None or fresh or cost < (1.0 - self.config.progress) * before.least:
            return Plan(actions, cost, cost, 0)
        return Plan(actions, cost, before.least, before.stalled + 1)

    def actions(self, batch: mujoco.batch.Batch, ids: Ids) -> Array:
        """Memoryless actions (n, A) for simulations of another batch of this task: what ``Task.expert`` may be.

        Each is the first of a cold plan from that simulation's physical state. No clock and no seed goes in, so
        that a state has one answer, whatever the episode.
        """
        return np.stack([self.plan(self.futures.row(batch, int(i))).action for i in ids])


def spline(knots: int, steps: int) -> Array:
    """Weights (H, K) that draw a smooth curve through K knots, evenly spread over H steps (Catmull-Rom)."""
    place = np.linspace(0.0, knots - 1.0, steps)
    left = np.minimum(place.astype(int), knots - 2)
    u = (place - left)[:, None]
    cubic = np.concatenate(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], axis=1
    )
    weights = np.zeros((steps, knots))
    for offset in range(4):
        np.add.at(weights, (np.arange(steps), np.clip(left + offset - 1, 0, knots - 1)), 0.5 * cubic[:, offset])
    return weights
