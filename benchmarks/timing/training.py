"""The training step: what an update costs beside the bare network, on idle cores and beside a busy process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from benchmarks.tables import ROOT
from benchmarks.timing.clock import Times, alternated, row
from diffpolicy.data.episode import Episode
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import windows
from diffpolicy.diffusion import MLPConfig, NetworkConfig
from diffpolicy.diffusion.networks import make_network
from diffpolicy.policy import PolicyConfig, SpaceSpec
from diffpolicy.policy.policy import Policy
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Regression
from diffpolicy_envs import TASKS
from diffpolicy_envs.declared import action_space, observation_space

__all__ = [
    "bare_step",
    "beside_bare",
    "block_ratios",
    "contended",
    "episodes",
    "full_step",
    "measure",
    "percentiles",
    "torch_threads",
]

BATCH = 128
ENVIRONMENT = "diffpolicy/PickPlace-v0"


def measure(blocks: int = 60, calls: int = 20) -> list[dict[str, Any]]:
    """Rows of the training step; ``blocks`` of ``calls`` steps for each loop."""
    rows = [beside_bare(blocks, calls)]
    cores = os.cpu_count() or 1
    for threads, policy, busy in (
        (1, "PASSIVE", 1),
        (1, "PASSIVE", cores),
        (2, "PASSIVE", cores),
        (2, "ACTIVE", cores),
    ):
        numbers = [str(number) for number in (threads, busy, blocks // 5, calls)]
        words = [sys.executable, "-m", "benchmarks.timing.training", policy, *numbers]
        done = subprocess.run(
            words, env={**os.environ, "OMP_WAIT_POLICY": policy}, cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        rows += json.loads(done.stdout)
    return rows


def beside_bare(blocks: int, calls: int) -> dict[str, Any]:
    """The whole step against the bare network, on one thread."""
    with torch_threads(1):
        bare, ours = alternated([bare_step(), full_step()], blocks, calls)
    against = "forward, mse, backward and AdamW(fused=True) of the same network on a fixed batch"
    return row(
        f"training step, batch {BATCH}, 1 thread",
        block_ratios(ours, bare),
        against,
        "<= 1.15",
        **percentiles(ours, bare),
    )


def contended(policy: str, threads: int, busy: int, blocks: int, calls: int) -> list[dict[str, Any]]:
    """What a step costs where ``busy`` other processes want a core each: in CPU time, and on the clock.

    A step that waits only for its turn takes the same CPU time, and is slower by nothing but the others' share;
    threads that spin while they wait for each other take more. On the clock it is slower by the others' share of
    the cores where they are more than the cores that it leaves, and by what else the machine does. The wait
    policy is that of OMP_WAIT_POLICY when torch was imported; ``policy`` only names it.
    """
    wall: dict[bool, list[Times]] = {False: [], True: []}
    used: dict[bool, list[float]] = {False: [], True: []}
    with torch_threads(threads):
        step = full_step()
        alternated([step], 1, calls)
        for _ in range(max(blocks, 1)):
            for others in (False, True):
                with _spinning(busy if others else 0):
                    began = time.process_time()
                    wall[others] += alternated([step], 1, calls)
                    used[others].append(time.process_time() - began)
    who = "1 busy process" if busy == 1 else f"{busy} busy processes"
    what = f"training step, {threads} thread{'s'[: threads - 1]}, {policy.lower()} wait, beside {who}"
    times = percentiles(np.concatenate(wall[True]), np.concatenate(wall[False]))
    cpu = np.array(used[True]) / np.array(used[False])
    rows = [row(what, cpu, "the CPU time of the same step without", "<= 1.25" if threads == 1 else None, **times)]
    if threads == 1:
        fair = max((busy + threads) / (os.cpu_count() or 1), 1.0)
        clock = np.array([a.mean() / b.mean() for a, b in zip(wall[True], wall[False], strict=True)])
        against = f"the same on the clock; a fair share of the cores: {fair:.2f}"
        rows.append(row(what, clock, against, f"<= {1.15 * fair:.3g}", **times))
    return rows


def full_step(network: NetworkConfig | None = None, optimiser: RegressionConfig | None = None) -> Callable[[], object]:
    """A step of a policy's training, by default the default's: batch, loss, backward, clip, optimiser, average."""
    spaces, config = _spaces(), PolicyConfig(network=network or MLPConfig())
    policy = Policy(config, spaces)
    policy.normaliser.freeze()
    update = Regression(policy, 10**6, optimiser)
    source = shuffled(windows(episodes(20), config.n_obs_steps, config.horizon), BATCH, 0)
    return lambda: update(source(update.step))


def bare_step() -> Callable[[], object]:
    """The least that trains the same network: one fixed batch, nothing clipped, averaged, gathered or drawn."""
    spaces, config = _spaces(), PolicyConfig()
    action, features = len(spaces.action), config.n_obs_steps * sum(map(len, spaces.observations.values()))
    network = make_network(config.network, config.horizon, action, features)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    x, t, obs = torch.randn(BATCH, config.horizon, action), torch.rand(BATCH), torch.randn(BATCH, features)
    y = torch.randn_like(x)

    def step() -> None:
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(network(x, t, obs), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    return step


def episodes(count: int, length: int = 50) -> list[Episode]:
    """Episodes of random numbers with the shapes of the environment's: a step's cost does not depend on more."""
    random, spaces = np.random.default_rng(0), _spaces()
    return [
        Episode(
            {
                name: random.uniform(bounds.low, bounds.high, (length + 1, len(bounds))).astype(np.float32)
                for name, bounds in spaces.observations.items()
            },
            random.uniform(-1, 1, (length, len(spaces.action))).astype(np.float32),
            np.zeros(length, np.float32),
            terminated=True,
            truncated=False,
            success=True,
        )
        for _ in range(count)
    ]


def block_ratios(ours: Times, other: Times) -> Times:
    """The ratio of two loops' times in each pair of blocks."""
    return np.asarray(ours.mean(axis=1) / other.mean(axis=1))


def percentiles(ours: Times, other: Times) -> dict[str, float]:
    """Columns of a row: median and 99th percentile of single calls of both loops [us]."""
    return {
        "p50_us": round(1e6 * float(np.median(ours)), 1),
        "p99_us": round(1e6 * float(np.quantile(ours, 0.99)), 1),
        "against_p50_us": round(1e6 * float(np.median(other)), 1),
        "against_p99_us": round(1e6 * float(np.quantile(other, 0.99)), 1),
    }


def _spaces() -> SpaceSpec:
    task = TASKS[ENVIRONMENT]
    return SpaceSpec.from_spaces(observation_space(task), action_space(task))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use so many threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _spinning(count: int) -> Iterator[None]:
    """Processes that do nothing but want a core each."""
    words = [sys.executable, "-S", "-c", "print(flush=True)\nwhile True: pass"]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # it runs
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    print(json.dumps(contended(sys.argv[1], *map(int, sys.argv[2:]))))
