"""A decision at batch 1: what observations, noise, sampler and units cost beside the network's own calls."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

import diffpolicy_envs  # noqa: F401  (registers the environment)
from benchmarks.timing.clock import alternated, row
from benchmarks.timing.schedulers import pairs
from diffpolicy.diffusion.noise import counter_noise
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec
from diffpolicy.policy.checkpoint import load_checkpoint
from diffpolicy.policy.export import export_onnx, traced
from diffpolicy.policy.graph import feed, open_session
from diffpolicy.recipes.export import replanning
from diffpolicy.runtime import OnnxPolicy

__all__ = ["default_policy", "measure"]

ENVIRONMENT = "diffpolicy/PickPlace-v0"
STEPS = (1, 2, 8)  # denoiser calls a decision
BATCHES = {1: None, 32: "<= 1.05", 256: "<= 1.05"}  # of the sampler alone, with their bars
EAGER, EXPORTED = "<= 1.5", "<= 1.3"

Call = Callable[[], object]


def measure(checkpoint: str | Path | None = None, blocks: int = 25, calls: int = 20) -> list[dict[str, Any]]:
    """Rows of a checkpoint, by default of an untrained policy for PickPlace: times do not depend on weights.

    One thread; batch 1, save for the sampler's own rows. Calls of both sides take turns one by one, so that each finds
    the caches as other work has left them, as in a control loop; a ratio is that of the medians of a block of `calls`
    calls each.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _no_collection():
            policy = default_policy() if checkpoint is None else load_checkpoint(checkpoint).policy
            rows = [_eager(policy.resampled(steps=steps), steps, blocks, calls) for steps in STEPS]
            rows += [_sampler(policy, batch, blocks, calls) for batch in BATCHES]
            rows += [_queued(policy, blocks, calls), *_exported(policy, blocks, calls)]
            chains = pairs(default_policy())
            return rows + [
                _row(what, [ours, theirs], other, None, blocks, calls) for what, other, ours, theirs in chains
            ]
    finally:
        torch.set_num_threads(threads)


def default_policy() -> Policy:
    """An untrained policy of default size for PickPlace."""
    env = gymnasium.make(ENVIRONMENT)
    spaces = SpaceSpec.from_spaces(env.observation_space, env.action_space)
    env.close()
    torch.manual_seed(0)
    return Policy(PolicyConfig(), spaces).eval()


@contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _observation(policy: Policy) -> dict[str, Any]:
    centre, scale = (side.numpy() for side in policy.normaliser.ranges())
    place = np.random.default_rng(0).uniform(-1, 1, len(centre))
    return policy.layout.split((centre + scale * place).astype(np.float32))


def _eager(policy: Policy, steps: int, blocks: int, calls: int) -> dict[str, Any]:
    """Re-planning calls of `predict` beside K calls of the network on fixed tensors."""
    observation = _observation(policy)
    state = replanning(policy, observation)
    bare = _bare_eager(policy, steps)
    return _row(
        f"predict, batch 1, K = {steps}",
        [lambda: policy.predict(observation, state), bare],
        "1 eager call of the network alone" if steps == 1 else f"{steps} eager calls of the network alone",
        EAGER,
        blocks,
        calls,
    )


def _sampler(policy: Policy, batch: int, blocks: int, calls: int) -> dict[str, Any]:
    """The sampler's loop beside K calls of the network: what schedule, solver and clipping cost."""
    given, steps = _network_inputs(policy, batch), policy.sampler.calls

    def draw() -> None:
        with torch.inference_mode():
            policy.sampler.draw(given["obs"], given["x"])

    return _row(
        f"sampler, batch {batch}, K = {steps}",
        [draw, _bare_eager(policy, steps, batch)],
        f"{steps} eager calls of the network alone",
        BATCHES[batch],
        blocks,
        calls,
    )


def _bare_eager(policy: Policy, steps: int, batch: int = 1) -> Call:
    network, (x, t, obs) = policy.denoiser.network, _network_inputs(policy, batch).values()

    def bare() -> None:
        with torch.inference_mode():
            for _ in range(steps):
                network(x, t, obs)

    return bare


def _network_inputs(policy: Policy, batch: int = 1) -> dict[str, Tensor]:
    shape = (batch, policy.config.horizon, policy.action_size)
    return {"x": torch.randn(shape), "t": torch.rand(batch), "obs": torch.randn(batch, policy.encoder.features)}


def _queued(policy: Policy, blocks: int, calls: int) -> dict[str, Any]:
    """Calls that take the next action of the queue."""
    observation = _observation(policy)
    _, state = policy.predict(observation)
    return _row(
        "predict, batch 1, an action from the queue",
        [lambda: policy.predict(observation, state), _bare_eager(policy, 1)],
        "1 eager call of the network alone",
        None,
        blocks,
        calls,
    )


def _exported(policy: Policy, blocks: int, calls: int) -> list[dict[str, Any]]:
    """The exported graph, and `predict` on it, beside K runs of the bare network in the same runtime."""
    steps = policy.sampler.calls
    network = traced(policy.denoiser.network, _network_inputs(policy, 2), "y")
    session = open_session(network.SerializeToString())
    inputs = {name: value.numpy() for name, value in _network_inputs(policy).items()}

    def bare() -> None:
        for _ in range(steps):
            session.run(["y"], inputs)

    with TemporaryDirectory() as folder:
        path = export_onnx(policy, Path(folder) / "policy.onnx").path
        actor = OnnxPolicy(path)
    observation = _observation(policy)
    state = replanning(actor, observation)
    draws = actor._draws(False)
    noise = counter_noise(0, state.episode, state.decision, (draws, policy.config.horizon, policy.action_size))
    given = feed(policy.layout, state.past, noise)
    against = f"{steps} runs of the network alone in onnxruntime"
    return [
        _row(
            f"exported graph, batch 1, K = {steps}",
            [lambda: actor.chunk(given), bare],
            against,
            EXPORTED,
            blocks,
            calls,
        ),
        _row(
            f"OnnxPolicy.predict, batch 1, K = {steps}",
            [lambda: actor.predict(observation, state), bare],
            against,
            EXPORTED,
            blocks,
            calls,
        ),
    ]


def _row(what: str, loops: Sequence[Call], against: str, bar: str | None, blocks: int, calls: int) -> dict[str, Any]:
    ours, theirs = (times.reshape(blocks, calls) for times in alternated(loops, blocks * calls, 1))
    return row(
        what,
        np.median(ours, axis=1) / np.median(theirs, axis=1),
        against,
        bar,
        p50_us=round(1e6 * float(np.median(ours)), 1),
        p99_us=round(1e6 * float(np.quantile(ours, 0.99)), 1),
        against_p50_us=round(1e6 * float(np.median(theirs)), 1),
        against_p99_us=round(1e6 * float(np.quantile(theirs, 0.99)), 1),
    )
