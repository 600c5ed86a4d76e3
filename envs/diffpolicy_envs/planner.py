"""An expert for any task that has a cost: sampling-based planning over copies of its simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diffpolicy_envs.condition import Condition
from diffpolicy_envs.futures import Futures
from diffpolicy_envs.planning import Method, PlannerConfig
from diffpolicy_envs.task import Array, Task

__all__ = ["Method", "NoPlanError", "Plan", "Planner", "PlannerConfig", "spline"]


class NoPlanError(ValueError):
    """From this state no plan has a finite cost: the episode is lost, and says nothing of others."""


@dataclass(frozen=True)
class Plan:
    """What to do, and what the next plan has to know of this one."""

    actions: Array  # (H, A), the first one now
    last: Array  # (A,) what was done before
    cost: float  # of the best of the samples
    lowest: float  # cost at the last progress
    stalled: int  # plans made since then

    @property
    def action(self) -> Array:
        """What to do now, (A,)."""
        return np.asarray(self.actions[0])


class Planner:
    """Plans for one simulation at a time, of a task that has a cost.

    A plan is a pure function of the state row, the plan before it and the configuration: its random numbers are
    drawn from the episode's seed, count and step, which the row says.

    Args:
        task: the task, with ``cost``.
        condition: that of the state rows from which it will plan.
        config: settings; by default the task's own, its class variable ``planning``, where it has one.
        threads: physics threads; 0 takes all cores, which pays off for heavy models only.

    Raises:
        ValueError: the task is none or has no cost, or the settings are none.
    """

    def __init__(
        self,
        task: type[Task],
        condition: str | Condition = "clean",
        config: PlannerConfig | None = None,
        threads: int = 1,
    ) -> None:
        if config is not None and not isinstance(config, PlannerConfig):
            raise ValueError(f"expected config as a PlannerConfig or None, got {config!r}")
        self.config: PlannerConfig = config or getattr(task, "planning", None) or PlannerConfig()
        self.futures = Futures(task, self.config.samples, condition, threads, self.config.substeps)
        self.futures.look()  # a task without a cost says so
        self._spline = spline(self.config.knots, self.config.horizon)

    def plan(self, state: Array, before: Plan | None = None) -> Plan:
        """The plan from a state row (S,), begun with the one that was made a control step before.

        Disturbances still to come are not foreseen.

        Raises:
            ValueError: a state of another length, a plan of another horizon, or proposals of another shape than was
                asked for.
            NoPlanError: no plan has a finite cost.
        """
        config, task = self.config, self.futures.task
        if before is not None and not isinstance(before, Plan):
            raise ValueError(f"expected the plan before as a Plan or None, got {before!r}")
        if before is not None and before.actions.shape != (config.horizon, task.action_size):
            raise ValueError(
                f"expected the plan before to have actions of shape {(config.horizon, task.action_size)}, "
                f"got {before.actions.shape}: it is another planner's"
            )
        self.futures.branch(state)
        rng = np.random.default_rng([*self.futures.moment(), config.seed, 2])
        idle = np.repeat(task.idle_action(self.futures.all[:1]), config.horizon, axis=0)  # (H, A)
        stuck = before is not None and before.stalled >= config.patience
        given = [idle]
        if before is not None:
            given.insert(int(stuck), np.concatenate([before.actions[1:], before.actions[-1:]]))
        middle = given[0]
        past = np.stack([idle[0], idle[0]] if before is None else [before.last, before.action])  # (2, A)
        same = rng if stuck else np.random.default_rng([config.seed, 3])
        given += self._proposed(same)
        widths = np.resize(np.array(config.noise) * (3.0 if stuck else 1.0), config.samples)[:, None, None]
        cost = np.inf
        for iteration in range(config.iterations):
            whole = np.stack(given if iteration == 0 else [middle])[: config.samples]
            knots = rng.standard_normal((config.samples, config.knots, past.shape[1])) * widths  # (N, K, A)
            knots[: len(whole)] = 0.0
            tried = middle + np.einsum("hk,nka->nha", self._spline, knots)  # (N, H, A)
            tried[: len(whole)] = whole
            tried = np.clip(tried, -1.0, 1.0)
            totals = self._totals(self.futures.costs(state, tried), tried, past)
            margin = 0.0 if stuck else config.margin  # what leads nowhere is not gone on with
            middle, widths = self._chosen(tried, totals, knots, widths, len(whole), margin)
            cost = float(totals.min())
        if before is None or stuck or _lower(cost, before.lowest, config.progress):
            return Plan(middle, past[1], cost, cost, 0)
        return Plan(middle, past[1], cost, before.lowest, before.stalled + 1)

    def _proposed(self, rng: np.random.Generator) -> list[Array]:
        """What the task itself would try, each (H, A)."""
        config, task = self.config, self.futures.task
        asked = round(config.proposals * config.samples)
        found = np.asarray(task.propose(0, rng, asked, config.horizon), dtype=np.float64)
        course = (config.horizon, task.action_size)
        if found.ndim != 3 or found.shape[1:] != course or len(found) > asked or not np.isfinite(found).all():
            raise ValueError(
                f"task {type(task).__name__}: expected propose to give at most {asked} finite courses of action of "
                f"shape {course}, got shape {found.shape}{'' if np.isfinite(found).all() else ' with a NaN'}"
            )
        return list(found)

    def _totals(self, costs: Array, tried: Array, past: Array) -> Array:
        """One number (N,) for each of the plans (N, H, A), from the costs (N, H) on its way and the past (2, A)."""
        config = self.config
        sound = np.asarray(np.isfinite(costs).all(axis=1))
        if not sound.any():
            task = type(self.futures.task).__name__
            raise NoPlanError(
                f"task {task}: no plan from this state has a finite cost: cost(ids) is not finite, or the physics "
                "diverges whatever is done; look at both in this state"
            )
        costs = np.where(sound[:, None], costs, 0.0)
        total = config.end * costs[:, -1] + config.mean * costs.mean(axis=1) + config.least * costs.min(axis=1)
        if config.soon:
            total = total + config.soon * np.minimum.accumulate(costs, axis=1).mean(axis=1)
        if config.smoothness:
            change = np.diff(tried, n=2, axis=1, prepend=np.broadcast_to(past, (len(tried), *past.shape)))
            total = total + config.smoothness * (change**2).sum(axis=2).mean(axis=1)
        return np.where(sound, total, np.inf)

    def _chosen(
        self, tried: Array, totals: Array, knots: Array, widths: Array, whole: int, margin: float
    ) -> tuple[Array, Array]:
        """The plan (H, A) that comes of the samples (N, H, A), and the next iteration's widths of noise.

        The first one varies nothing, and the others of the first ``whole`` are given; a given one that is the best
        is taken as it is: half of one way round and half of another is no way.
        """
        config, best = self.config, int(totals.argmin())
        if not _lower(totals[best], totals[0], margin):
            best = 0
        if config.method == "predictive" or 0 < best < whole or not np.isfinite(totals[best]):
            return tried[best], widths
        varied = np.concatenate([[0], np.arange(whole, len(tried))])
        varied = varied[np.isfinite(totals[varied])]
        ranked = varied[np.argsort(totals[varied], kind="stable")]
        if config.method == "mppi":
            above = totals[ranked] - totals[ranked[0]]
            weight = np.exp(-above / max(config.temperature * float(above.mean()), 1e-12))
            return np.einsum("n,nha->ha", weight / weight.sum(), tried[ranked]), widths
        elite = ranked[: max(2, round(config.elites * len(ranked)))]
        return tried[elite].mean(axis=0), np.maximum(knots[elite].std(axis=0), 1e-3)[None]


def spline(knots: int, steps: int) -> Array:
    """Weights (H, K) that draw a smooth curve through K knots evenly spread over H steps (Catmull and Rom's)."""
    place = np.linspace(0.0, knots - 1.0, steps)
    left = np.minimum(place.astype(int), knots - 2)
    u = place - left
    four = (-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3)
    weights = np.zeros((steps, knots))
    for offset, part in enumerate(four):
        np.add.at(weights, (np.arange(steps), np.clip(left + offset - 1, 0, knots - 1)), 0.5 * part)
    return weights


def _lower(cost: float, other: float, share: float) -> bool:
    """Whether a cost is lower than another by more than a share of it."""
    return bool(cost < other and (not np.isfinite(other) or cost < other - share * abs(other)))
