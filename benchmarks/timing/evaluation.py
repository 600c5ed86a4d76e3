"""Evaluation episodes: seconds for a thousand, and where they go."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mujoco.batch
import numpy as np
import torch

from benchmarks.timing.clock import Times, row
from benchmarks.timing.environment import ENVIRONMENT
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import windows
from diffpolicy.evaluation.evaluate import evaluate
from diffpolicy.policy import PolicyConfig, SpaceSpec
from diffpolicy.policy.policy import Policy
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert, everywhere
from diffpolicy.rollout.seeds import episode_seeds
from diffpolicy.training.fit import fit
from diffpolicy.updates.regression import Regression

__all__ = ["hasty_policy", "measure"]


def measure(episodes: int = 1000, parts: int = 4, updates: int = 300) -> list[dict[str, Any]]:
    """Rows of an evaluation in ``parts``, each of which is an evaluation by itself; one thread for the network."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        policy = hasty_policy(updates)
        seeds = episode_seeds("evaluation", 0, episodes)
        spent = np.array([_spent(policy, seeds[i::parts]) for i in range(parts)])
    finally:
        torch.set_num_threads(before)
    whole, physics, environment, network, rest, steps = spent.T  # each (parts,) [s], the last in control steps
    what = f"{episodes} evaluation episodes, 64 simulations, 8 network calls for 8 actions"
    totals = {"seconds": round(float(whole.sum()), 2), "steps_per_s": round(float(steps.sum() / whole.sum()))}
    parts_of = {
        "physics": physics,
        "observation, reward and resets": environment - physics,
        "policy.predict": network,
        "the rest": rest,
    }
    rows = [row(what, whole / physics, "the physics in it", None, **totals)]
    return rows + [_share(what, name, seconds, whole) for name, seconds in parts_of.items()]


def hasty_policy(updates: int, demonstrations: int = 20) -> Policy:
    """A policy of default size after a few updates: it moves the arm about as a trained one does."""
    env = make_vector(ENVIRONMENT, demonstrations)
    try:
        played = rollout(env, ScriptedExpert(env), episode_seeds("demonstration", 0, demonstrations))
        spaces = SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)
    finally:
        env.close()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = Policy(PolicyConfig(), spaces)
    policy.normaliser.freeze()
    update = Regression(policy, updates)
    config = policy.config
    fit(update, shuffled(windows(played, config.n_obs_steps, config.horizon), 128, 0), updates, lambda *_: None)
    return update.averaged()


def _spent(policy: Policy, seeds: Sequence[int]) -> tuple[float, ...]:
    """Seconds of the whole, the physics, the environment with its physics, predict, the rest; and control steps."""
    with _physics() as physics:
        evaluation = evaluate(ENVIRONMENT, everywhere(policy), seeds, method="policy")
    shares = evaluation.shares
    steps = sum(episode.length for episode in evaluation.episodes)
    return evaluation.seconds, sum(physics), shares["env_s"], shares["predict_s"], shares["rest_s"], steps


def _share(what: str, name: str, seconds: Times, whole: Times) -> dict[str, Any]:
    total = round(float(seconds.sum()), 2)
    return row(f"of these: {name}", seconds / whole, what, None, seconds=total)


@contextmanager
def _physics() -> Iterator[list[float]]:
    """Collects the seconds of every call that steps physics."""
    plain, seconds = mujoco.batch.Batch.step, []

    def timed(*args: Any, **options: Any) -> None:
        began = time.perf_counter()
        plain(*args, **options)
        seconds.append(time.perf_counter() - began)

    mujoco.batch.Batch.step = timed
    try:
        yield seconds
    finally:
        mujoco.batch.Batch.step = plain
