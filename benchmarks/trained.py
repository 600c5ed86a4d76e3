"""How the policies of suites come about: stages from demonstrations to a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from benchmarks.stage import Output, Stage
from benchmarks.suite import Actor
from diffpolicy.diffusion import SamplerConfig, TransformerConfig, UNetConfig
from diffpolicy.policy import PolicyConfig
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy_envs import TASKS

__all__ = ["KINDS", "ROUNDS", "corrected", "corrected_for_hard", "imitated", "shoved", "tiny"]

ROUNDS = 3
EXECUTED = {"diffpolicy/PushT-v0": 4}  # actions of a chunk, as long as eight are in the tasks of 20 actions a second
USUAL = {"diffpolicy/PushT-v0": "x0"}  # flow elsewhere, which misses millimetres that count there (docs/samplers.md)
KINDS = {
    "flow": PolicyConfig(),
    "x0": PolicyConfig(prediction="x0"),
    "eps": PolicyConfig(schedule="squaredcos", prediction="eps", sampler=SamplerConfig(steps=100, eta=1.0)),
    "regression": PolicyConfig(model="regression"),
    "gaussian": PolicyConfig(model="gaussian"),
    "mixture": PolicyConfig(model="mixture"),
    "mip": PolicyConfig(model="mip"),
    "shortcut": PolicyConfig(model="shortcut"),
    "mean_flow": PolicyConfig(model="mean_flow"),
    "unet": PolicyConfig(network=UNetConfig()),
    "transformer": PolicyConfig(network=TransformerConfig()),
}


@cache
def imitated(task: str, demonstrations: int, seed: int, kind: str | None = None) -> Output:
    """A policy of some kind, the task's usual one where none is named, trained on an expert's clean demonstrations."""
    demos = Stage(Collect(task, episodes=demonstrations, seed=seed))
    policy = replace(
        KINDS[kind or USUAL.get(task, "flow")], n_action_steps=EXECUTED.get(task, PolicyConfig().n_action_steps)
    )
    return Output(Stage(Bc(seed=seed, policy=policy), {"data": Output(demos)}))


@cache
def corrected(task: str, demonstrations: int, seed: int, number: int) -> Output:
    """That policy after so many rounds of correction."""
    start = imitated(task, demonstrations, seed)
    stage = Stage(
        Correct(rounds=ROUNDS, seed=seed),
        {"checkpoint": start, "data": start.stage.inputs["data"]},
    )
    return Output(stage, f"round-{number}")


@cache
def corrected_for_hard(task: str, demonstrations: int, seed: int, kind: str | None = None) -> Output:
    """That policy after three rounds of correction under clean and hard, of twice the usual updates.

    A planner takes its time for a label, so that it labels every 32nd state only: some 200 a round.
    """
    start = imitated(task, demonstrations, seed, kind)
    recipe = Correct(
        rounds=ROUNDS,
        seed=seed,
        conditions=("clean", "hard"),
        steps=6000,
        label_every=1 if TASKS[task].scripted() else 32,
    )
    return Output(Stage(recipe, {"checkpoint": start, "data": start.stage.inputs["data"]}), f"round-{ROUNDS}")


def shoved(demonstrations: int, steps: int) -> Actor:
    """Imitation of demonstrations under shoves, for as many updates as correction makes in all."""

    def actor(task: str, seed: int) -> Output:
        demos = Stage(Collect(task, episodes=demonstrations, condition="shove", seed=seed))
        return Output(Stage(Bc(steps=steps, seed=seed), {"data": Output(demos)}))

    return actor


def tiny(rounds: int) -> Actor:
    """A policy of a few updates."""

    def actor(task: str, seed: int) -> Output:
        demos = Output(Stage(Collect(task, episodes=2, seed=seed)))
        bc = Output(Stage(Bc(steps=40, batch_size=32, seed=seed), {"data": demos}))
        if not rounds:
            return bc
        correct = Correct(rounds=rounds, rollouts=2, steps=20, batch_size=32, seed=seed)
        return Output(Stage(correct, {"checkpoint": bc, "data": demos}), f"round-{rounds}")

    return actor
