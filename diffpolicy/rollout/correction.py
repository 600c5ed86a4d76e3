"""Corrected rollouts: the learner plays, and the states that it visited come back labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.policy.policy import Policy
from diffpolicy.rollout.environment import Vector, branching, longest, make_vector
from diffpolicy.rollout.faults import Drop, Dropped
from diffpolicy.rollout.labeller import Cost, Takeover, label_by_branching, label_by_takeover
from diffpolicy.rollout.loop import Finished, rollout
from diffpolicy.rollout.predictor import EpisodicPredictor, Mixture, Predictor

__all__ = ["play_and_label"]

BRANCHES = 256  # simulations in which the labeller is branched at once


def play_and_label(
    environment: str,
    learner: Policy,
    expert: Callable[[Vector], Predictor],
    seeds: Sequence[int],
    *,
    condition: str = "clean",
    method: Literal["auto", "branch", "takeover"] = "auto",
    beta: float = 0.0,
    every: int = 1,
    seed: int = 0,
    finished: Finished | None = None,
    dropped: Drop | None = None,
) -> tuple[list[Episode], Cost]:
    """Play one episode per seed and label it with chunks of the learner's reach.

    Args:
        environment: gymnasium id.
        learner: plays, except where ``beta`` lets the expert act.
        expert: the labeller in a given environment.
        seeds: reset seeds.
        condition: disturbance to play under.
        method: "branch" continues the expert from each saved state; "takeover" lets it finish the episode from
            a drawn step on; "auto" branches where the environment can.
        beta: chance that the expert acts for a chunk's time (branching only).
        every: label each ``every``-th visited state.
        seed: of the mixture's coins and the takeover's steps.
        finished: called with each episode as it ends.
        dropped: called with each episode that its environment broke, which is left out; by default a line is
            printed.

    Raises:
        InputError: what cannot be asked together, or more than half of the labels failed. Where fewer fail,
            they are invalid, and a line is printed.
    """
    if not seeds:
        return [], Cost()
    lose = dropped or _say
    length = learner.config.horizon - learner.config.n_obs_steps + 1
    env = make_vector(environment, min(len(seeds), 64), condition)
    try:
        branchable = branching(env) is not None
        if method == "branch" and not branchable:
            raise InputError(f"{environment} cannot save and set its state; use --method takeover")
        if method == "takeover" or not branchable:
            if beta:
                raise InputError("beta mixes learner and expert before branching; with takeover it must be 0")
            takeover = Takeover(learner, expert(env), longest(environment), seed)
            played = rollout(env, takeover, seeds, condition=condition, finished=finished, dropped=lose)
            return label_by_takeover(takeover, played, length)
        actor: Predictor = learner
        if beta > 0:
            helper = expert(env)
            if not isinstance(helper, EpisodicPredictor):
                raise InputError("beta > 0 needs the scripted expert or a checkpoint as labeller")
            actor = Mixture(learner, helper, beta, learner.config.n_action_steps, seed)
        played = rollout(env, actor, seeds, condition=condition, record_states=True, finished=finished, dropped=lose)
    finally:
        env.close()
    if not played:
        return [], Cost()
    branches = make_vector(environment, min(BRANCHES, sum(map(len, played))), condition)
    try:
        labelled, cost = label_by_branching(branches, expert(branches), played, length, every)
    finally:
        branches.close()
    if cost.failed:
        print(f"{cost.failed} of {cost.queries} labels failed and are left out ({environment}, {condition})")
    return labelled, cost


def _say(episode: Dropped) -> None:
    print(f"dropped: {episode}")
