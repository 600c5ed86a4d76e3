"""The vector environment: what observation, reward and resets cost beside bare physics, and beside other vectors."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import mujoco.batch
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

import diffpolicy_envs
from benchmarks.timing.clock import row
from diffpolicy_envs import TASKS, Task, TaskVectorEnv

__all__ = ["Pair", "beside_bare", "beside_processes", "each_task", "measure"]

ENVIRONMENT = "diffpolicy/PickPlace-v0"


def measure(steps: int = 320, workers: int = 16) -> list[dict[str, Any]]:
    """Rows of the environment; ``steps`` control steps at 64 simulations, a quarter of that at 256.

    The vectors of processes have only ``workers`` simulations: each is a process with a Python of its own.
    """
    rows = [
        beside_bare(num, mode, steps * 64 // num)
        for num in (64, 256)
        for mode in (AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP)
    ]
    return rows + beside_processes(workers, max(steps // 8, 10))


def each_task(num: int = 64, threads: int = 2, steps: int = 240) -> list[dict[str, Any]]:
    """A row for each task: control steps a second, and their share of what bare stepping reaches."""
    return [
        {**beside_bare(num, AutoresetMode.NEXT_STEP, steps, name=name, threads=threads), "task": name, "bar": None}
        for name in TASKS
    ]


def beside_bare(
    num: int, mode: AutoresetMode, steps: int, block: int = 8, name: str = ENVIRONMENT, threads: int = 0
) -> dict[str, Any]:
    """Simulated control steps a second against bare stepping of the same states under the same controls."""
    pair = Pair(num, mode, TASKS[name], threads)
    pair.step()
    times = np.array([pair.step() for _ in range(steps)])  # (steps, 4): ours [s], simulated, bare [s], simulated
    ours, done, bare, stepped = times[: steps // block * block].reshape(-1, block, 4).sum(axis=1).T
    return row(
        f"vector environment, {num} simulations, {pair.whose} actions, resets ({mode.name})",
        (done / ours) / (stepped / bare),
        "mujoco.batch.Batch.step of the same states with the same controls and threads",
        ">= 0.8",
        p50_us=round(1e6 * float(np.median(times[:, 0])), 1),
        p99_us=round(1e6 * float(np.quantile(times[:, 0], 0.99)), 1),
        against_p50_us=round(1e6 * float(np.median(times[:, 2])), 1),
        against_p99_us=round(1e6 * float(np.quantile(times[:, 2], 0.99)), 1),
        steps_per_s=round(float(done.sum() / ours.sum())),
    )


class Pair:
    """Our environment beside a bare batch, which makes the same step from the same states a moment later.

    The simulations are spread over an episode first, so that resets come at every step and not all at once.
    """

    def __init__(self, num: int, mode: AutoresetMode, task: type[Task], threads: int = 0) -> None:
        self.env = TaskVectorEnv(task, num, threads=threads, autoreset_mode=mode)
        self.whose = "expert's" if task.scripted() else "random"
        self.random = np.random.default_rng(0)
        self.mode, self.substeps, self.turn = mode, task.substeps, 0
        self.done = np.zeros(num, dtype=bool)
        self.seed = num
        physics = self.env.simulations.batch
        self.state, self.control = physics.state, physics.bind("ctrl")
        self.bare = mujoco.batch.Batch(self.env.simulations.model, num, threads)
        self.bare_control = self.bare.bind("ctrl")
        self.env.reset(seed=0)
        for part in range(16):  # every 16th of the simulations starts 4 control steps after the one before
            for _ in range(4):
                self.step()
            mask = np.arange(num) % 16 == part
            if mask.any():
                self.env.reset(seed=list(range(num)), options={"reset_mask": mask})
                self.done &= ~mask

    def step(self) -> tuple[float, int, float, int]:
        """Seconds and simulated steps: ours, with whatever resets are due, and bare."""
        action = self._action()
        began = time.perf_counter()
        if self.mode is AutoresetMode.DISABLED and self.done.any():
            seeds = list(range(self.seed, self.seed + len(action)))
            self.seed += len(action)
            self.env.reset(seed=seeds, options={"reset_mask": self.done})
            resets = time.perf_counter() - began
            action, self.done = self._action(), np.zeros_like(self.done)  # that is no part of the environment
        else:
            resets = 0.0
        before = self.state.copy()
        live = int((~self.done).sum())  # in NEXT_STEP what has finished is reset in this step
        began = time.perf_counter()
        _, _, terminated, truncated, _ = self.env.step(action)
        ours = resets + time.perf_counter() - began
        self.done = terminated | truncated
        return ours, live, self._bare(before), len(action)

    def _action(self) -> Any:
        """The expert's where it takes no planning, else random ones."""
        if self.whose == "random":
            return self.random.uniform(-1, 1, self.env.action_space.shape or ())
        return self.env.expert()

    def _bare(self, before: Any) -> float:
        self.bare.state[:] = before
        control = self.control.copy()
        began = time.perf_counter()
        self.bare_control[:] = control
        self.bare.step(nstep=self.substeps)
        return time.perf_counter() - began


def beside_processes(num: int, steps: int) -> list[dict[str, Any]]:
    """Ours against gymnasium's and Stable-Baselines3's vectors of the single environment, a process for each."""
    from stable_baselines3.common.vec_env import SubprocVecEnv

    makers = [_single] * num
    rows = []
    actions = np.random.default_rng(0).uniform(-1, 1, (steps + 1, num, 5)).astype(np.float32)
    for name, make in (
        ("gymnasium's AsyncVectorEnv", lambda: AsyncVectorEnv(makers, context="forkserver")),
        ("Stable-Baselines3's SubprocVecEnv", lambda: SubprocVecEnv(makers, start_method="forkserver")),
    ):
        ours, other = TaskVectorEnv(TASKS[ENVIRONMENT], num), make()
        try:
            ours.reset(seed=0)
            other.reset()
            times = np.zeros((steps + 1, 2))
            for times_now, action in zip(times, actions, strict=True):
                for which, env in enumerate((ours, other)):
                    began = time.perf_counter()
                    env.step(action)
                    times_now[which] = time.perf_counter() - began
        finally:
            other.close()
        what = f"vector environment, {num} simulations, random actions"
        rows.append(
            row(
                what,
                times[1:, 1] / times[1:, 0],
                f"{name} of the single environment, {num} processes",
                None,
                p50_us=round(1e6 * float(np.median(times[1:, 0])), 1),
                p99_us=round(1e6 * float(np.quantile(times[1:, 0], 0.99)), 1),
                against_p50_us=round(1e6 * float(np.median(times[1:, 1])), 1),
                against_p99_us=round(1e6 * float(np.quantile(times[1:, 1], 0.99)), 1),
            )
        )
    return rows


def _single() -> gymnasium.Env[Any, Any]:
    return gymnasium.make(f"{diffpolicy_envs.__name__}:{ENVIRONMENT}")
