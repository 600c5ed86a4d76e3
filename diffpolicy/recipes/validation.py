"""Validation within a training stage: what the averaged policy is worth now and then, and the best of them kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffpolicy.data.windows import Windows
from diffpolicy.errors import InputError
from diffpolicy.policy.checkpoint import load_checkpoint, mend_checkpoint, save_checkpoint
from diffpolicy.policy.policy import Policy
from diffpolicy.rollout.seeds import episode_seeds
from diffpolicy.updates.regression import Regression
from diffpolicy.updates.validation import WINDOWS_MOST, chosen, fixed_loss

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.recipes.training import Stage, Trained

__all__ = ["SHOWN", "Validation", "Validator", "best_line", "chosen_in", "playable", "played"]

SHOWN = ("train_loss", "val_loss", "val_episodes", "val_success")  # beside the loss, as training goes on
_RISING = ("val_success",)  # the others are better where they are lower


@dataclass(frozen=True)
class Validation:
    """What is validated, how often, and on what."""

    every: int  # updates between validations; the last update is always validated
    held: Windows | None = None  # of episodes that are not trained on; None: no loss is computed
    seeds: Sequence[int] = ()  # reset seeds of the episodes to play; none: nothing is played
    conditions: tuple[str, ...] = ("clean",)  # that the episodes are shared among


class Validator:
    """Validates a stage's averaged policy, and keeps the best one in ``best`` beside the stage's checkpoint.

    Best is the highest success where episodes are played, else the lowest loss on what was held out; of two that are
    equal, the later.
    """

    def __init__(self, update: Trained[Any], windows: Windows | None, stage: Stage, plan: Validation) -> None:
        """`windows` is what is trained on, to tell its loss beside that of what is held out; None: neither is."""
        self._update, self._windows, self._stage, self._plan = update, windows, stage, plan
        self.folder: Path = stage.folder / "best"
        self.best: dict[str, Any] = {}  # step (updates made), by (name of the figure), figure
        self.env_steps = 0
        self.busy = False  # whether an update has been made whose validation is not complete

    def __call__(
        self, step: int, show: Callable[[Mapping[str, float]], object], took: Callable[[], float]
    ) -> dict[str, float]:
        """What the policy is worth after an update, {} where that is not due.

        `show` is told of episodes meanwhile; `took` says the seconds of training up to now.

        Raises InputError where the environment says nothing of success or breaks more than half of the episodes.
        """
        if (step + 1) % self._plan.every and step + 1 != self._stage.steps:
            return {}
        self.busy = True
        policy = self._update.averaged()
        found = {**self._losses(policy), **self._success(policy, show)}
        self._keep(policy, "val_success" if self._plan.seeds else "val_loss", found, took())
        self.busy = False
        return found

    def about(self) -> dict[str, Any]:
        """What a checkpoint's provenance says about its validation."""
        paid = {"validation_env_steps": self.env_steps} if self._plan.seeds else {}
        return {"best": self.best, **paid}

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs to choose as this one would."""
        return {"best": self.best, "env_steps": self.env_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; raises KeyError, TypeError or ValueError on what is none."""
        best = dict(state["best"])
        if best:
            best = {"step": int(best["step"]), "by": str(best["by"]), "figure": float(best["figure"])}
        self.best, self.env_steps = best, int(state["env_steps"])

    def require_best(self) -> None:
        """Raises InputError where the best policy so far is not in its folder, so that it could not be kept."""
        if not self.best:
            return
        try:
            if not mend_checkpoint(self.folder):
                raise InputError("there is none")
            found = chosen_in(self.folder)  # a later one, where validation was interrupted after it was saved
            if found is None or found["by"] != self.best["by"] or found["step"] < self.best["step"]:
                raise InputError("one that this training did not choose")
        except InputError as error:
            raise InputError(
                f"expected in {self.folder} the best policy up to now, of step {self.best['step']}, got: {error}; put "
                "it back, or train from the start with --overwrite, or into another --out"
            ) from error

    def _losses(self, policy: Policy) -> dict[str, float]:
        """On held-out windows, and on as many that were trained on under the same times and noise."""
        if self._plan.held is None or self._windows is None or not isinstance(self._update, Regression):
            return {}
        size = min(len(self._plan.held), WINDOWS_MOST)
        found = {}
        for name, table in (("train_loss", self._windows), ("val_loss", self._plan.held)):
            found[name] = fixed_loss(self._update, policy, table, chosen(table, size, self._stage.seed))
        return found

    def _success(self, policy: Policy, show: Callable[[Mapping[str, float]], object]) -> dict[str, float]:
        if not self._plan.seeds:
            return {}
        ended = count(1)

        def finished(_: Episode) -> None:
            show({"val_episodes": next(ended)})

        rate, steps, dropped = played(policy, self._stage.environment, self._plan, finished)
        self.env_steps += steps
        return {"val_success": rate, **({"val_dropped": float(dropped)} if dropped else {})}

    def _keep(self, policy: Policy, by: str, found: Mapping[str, float], seconds: float) -> None:
        """Save the policy where it is the best up to now."""
        figure, sign = found[by], -1 if by in _RISING else 1
        if not math.isfinite(figure) or (self.best and sign * figure > sign * self.best["figure"]):
            return
        self.best = {"step": self._update.step, "by": by, "figure": figure}
        spent = {"steps": self._update.step, "train_s": round(seconds, 2)}
        provenance = {**self._stage.provenance, **spent, "chosen": {**self.best, **found}}
        save_checkpoint(policy, self.folder, environment=self._stage.environment, provenance=provenance)


def played(
    policy: Policy, environment: str, plan: Validation, finished: Callable[[Episode], object] | None = None
) -> tuple[float, int, int]:
    """Play a plan's episodes: the share of successes, environment steps, and how many the environment broke.

    Raises InputError where the environment says nothing of success, or breaks more than half of the episodes.
    """
    from diffpolicy.evaluation.evaluate import evaluate
    from diffpolicy.rollout.predictor import everywhere

    good, rows, steps, dropped = 0, 0, 0, 0
    for number, condition in enumerate(plan.conditions):
        seeds = plan.seeds[number :: len(plan.conditions)]
        if not seeds:
            continue
        result = evaluate(
            environment,
            everywhere(policy),
            seeds,
            method="validation",
            condition=condition,
            nfe=policy.sampler.calls,
            n_action_steps=policy.config.n_action_steps,
            finished=finished,
        )
        if result.success is None:
            raise InputError(
                f"expected an environment that reports success (success or is_success in info), got {environment}, "
                "which does not; leave --validation-episodes out, and hold demonstrations out by --validation"
            )
        good += sum(bool(episode.success) for episode in result.episodes)
        rows += len(result.episodes)
        dropped += len(result.dropped)
        steps += sum(episode.length for episode in result.episodes)
    return good / rows, steps, dropped


def playable(
    policy: Policy, environment: str, seed: int, size: int, conditions: tuple[str, ...] = ("clean",)
) -> Sequence[int]:
    """Reset seeds of `size` episodes for validation, kept apart from all others; the first is played, to see it work.

    Raises InputError where the environment is unknown, other than the policy's, or says nothing of success.
    """
    from diffpolicy.rollout.environment import spaces_of

    if not environment:
        raise InputError("the data do not say in which environment to play for validation; add --environment")
    if differing := policy.spaces.differences(spaces_of(environment)):
        raise InputError(
            f"expected for validation an environment of the policy's spaces, got {environment} ({differing}); name "
            "theirs by --environment, or leave --validation-episodes out"
        )
    seeds = episode_seeds("validation", seed, size)
    played(policy, environment, Validation(1, None, seeds[:1], conditions))
    return seeds


def best_line(out: Path) -> str:
    """What to tell of the best policy of a run that has validated, or that there is none of its own."""
    folder = out / "best"
    if (chosen := chosen_in(folder)) is None:
        return f"note: {folder} is not there, or holds no policy that a validation chose"
    return f"best: {folder} ({chosen['by']} {chosen['figure']:.4g} at step {chosen['step']})"


def chosen_in(folder: Path) -> dict[str, Any] | None:
    """What a checkpoint's provenance says of the validation that chose it; None where there is no such checkpoint.

    Raises InputError where it is damaged.
    """
    if not folder.is_dir():
        return None
    chosen = load_checkpoint(folder).provenance.get("chosen")
    return dict(chosen) if isinstance(chosen, dict) and {"step", "by", "figure"} <= chosen.keys() else None
