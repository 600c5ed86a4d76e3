"""Stable-Baselines3's PPO and SAC as a stage on disk: settings, progress, interruption, and the zip that is left."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

from diffpolicy.errors import InputError
from diffpolicy.policy.files import write_bytes
from diffpolicy.recipes.folding import fold, plain_zip
from diffpolicy.rollout.faults import Watched, blamed
from diffpolicy.rollout.mujoco_log import hushed
from diffpolicy.training.logs import JsonLines, Progress

__all__ = ["Learner", "Lesson"]

_SAVE_EVERY = 120.0  # seconds between saved states, beside Ctrl-C
_WARM_UP = 500  # random steps per copy, so that no first observation lies a hundred deviations out
_LOG_EVERY = 2048  # steps between lines of the log
_ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


@dataclass(frozen=True)
class Lesson:
    """What is learnt, how long, and by which numbers."""

    environment: str  # gymnasium id
    algorithm: str  # "ppo" or "sac"
    steps: int  # environment steps in all
    seed: int
    numbers: Mapping[str, Any] = field(default_factory=dict)  # of Stable-Baselines3, by its names, and our `copies`


class Learner:
    """A model that learns, with all that it needs to go on after an interruption.

    Raises InputError where a saved state is damaged or of another stage.
    """

    def __init__(self, lesson: Lesson, state: Path) -> None:
        self.lesson, self._state, self.seconds = lesson, state, 0.0
        copies = int(lesson.numbers.get("copies", 1))
        with hushed():
            plain = DummyVecEnv([lambda: Monitor(Watched(gymnasium.make(lesson.environment)))] * copies)
        self.normalised: VecNormalize | None = None
        self.env: VecEnv = plain
        if lesson.algorithm == "ppo":
            gamma = float(lesson.numbers.get("gamma", 0.99))
            self.env = self.normalised = VecNormalize(plain, gamma=gamma, clip_obs=np.inf)
        try:
            if state.is_file():
                self.model = self._restored()
            else:
                self.model = _untrained(lesson, self.env)
                with blamed(lesson.environment):
                    self._warm_up()
        except BaseException:
            self.env.close()
            raise

    @property
    def done(self) -> int:
        """Environment steps so far."""
        return int(self.model.num_timesteps)

    def learn(self, log: Path) -> None:
        """Learn the rest; Ctrl-C and SIGTERM save, and raise KeyboardInterrupt.

        Raises InputError where the environment raises.
        """
        from diffpolicy.recipes.training import Interrupt

        self.model.set_logger(Logger(None, []))
        began, before = time.monotonic(), self.seconds
        with (
            JsonLines(log, self.done) as lines,
            Progress(self.lesson.steps, self.done, metric="return", title=self.lesson.algorithm, smooth=0.0) as bar,
            Interrupt() as interrupt,
        ):

            def count() -> None:
                self.seconds = before + time.monotonic() - began

            def save() -> None:
                count()
                self.save()

            callback = _Listener(lines, bar, interrupt, save)
            try:
                with blamed(self.lesson.environment):
                    left = self.lesson.steps - self.done
                    self.model.learn(left, callback, log_interval=10**9, reset_num_timesteps=False)
                interrupt()
            except KeyboardInterrupt:
                save()
                raise
            count()

    def save(self) -> None:
        """Write the state, whole or not at all."""
        arrays: dict[str, Any] = {"seconds": self.seconds}
        if self.normalised is not None:
            for name, rms in _statistics(self.normalised).items():
                arrays |= {f"{name}_{part}": getattr(rms, part) for part in ("mean", "var", "count")}
        else:
            arrays |= _replay(self.model.replay_buffer)  # type: ignore[attr-defined]
        model, table, both = io.BytesIO(), io.BytesIO(), io.BytesIO()
        self.model.save(model, exclude=["_last_obs", "_last_original_obs"])
        np.savez(table, **arrays)
        with zipfile.ZipFile(both, "w") as archive:
            archive.writestr("model.zip", model.getvalue())
            archive.writestr("arrays.npz", table.getvalue())
        write_bytes(both.getvalue(), self._state)

    def finished(self) -> bytes:
        """The zip file of a model that needs nothing beside it: normalisation inside, no optimiser.

        Raises FloatingPointError where a weight is not finite.
        """
        if not all(bool(weight.isfinite().all()) for weight in self.model.policy.state_dict().values()):
            raise FloatingPointError("a weight is not finite; train from the start with another --seed")
        if self.normalised is not None:
            rms = _statistics(self.normalised)["obs"]
            fold(self.model.policy, rms.mean, np.sqrt(rms.var + self.normalised.epsilon))
        return plain_zip(self.model)

    def _restored(self) -> BaseAlgorithm:
        try:
            with zipfile.ZipFile(self._state) as archive:
                model = _class(self.lesson.algorithm).load(
                    io.BytesIO(archive.read("model.zip")), env=self.env, device="cpu"
                )
                arrays = np.load(io.BytesIO(archive.read("arrays.npz")), allow_pickle=False)
                self.seconds = float(arrays["seconds"])
                if self.normalised is not None:
                    for name, rms in _statistics(self.normalised).items():
                        rms.mean, rms.var = arrays[f"{name}_mean"], arrays[f"{name}_var"]
                        rms.count = float(arrays[f"{name}_count"])
                else:
                    _refill(model.replay_buffer, arrays)  # type: ignore[attr-defined]
        except (OSError, KeyError, ValueError, zipfile.BadZipFile, RuntimeError) as error:
            raise InputError(
                f"expected the state of this training in {self._state}, got {error!r:.200}; train from the start with "
                "--overwrite, or into another --out"
            ) from error
        model.set_random_seed(self._fresh_seed(model.num_timesteps))
        return model

    def _fresh_seed(self, step: int) -> int:
        """Of what follows a step; below 2**29, where no episode of an evaluation begins."""
        return int(np.random.SeedSequence([self.lesson.seed, step]).generate_state(1)[0] >> 3)

    def _warm_up(self) -> None:
        """Let random actions give the first statistics of the observations."""
        if self.normalised is None:
            return
        space, env = self.normalised.action_space, self.normalised
        space.seed(self.lesson.seed)
        env.reset()
        for _ in range(_WARM_UP):
            env.step(np.stack([space.sample() for _ in range(env.num_envs)]))


class _Listener(BaseCallback):
    """What listens to Stable-Baselines3's loop: log, bar, Ctrl-C, and a saved state now and then."""

    def __init__(self, lines: JsonLines, bar: Progress, interrupt: Any, save: Any) -> None:
        super().__init__()
        self._lines, self._bar, self._interrupt, self._save = lines, bar, interrupt, save
        self._saved, self._logged = time.monotonic(), 0
        self._shown: dict[str, float] = {}

    def _on_rollout_start(self) -> None:
        if time.monotonic() - self._saved > _SAVE_EVERY:
            self._save()
            self._saved = time.monotonic()

    def _on_step(self) -> bool:
        step = self.num_timesteps
        if step - self._logged >= _LOG_EVERY:
            ended = self.model.ep_info_buffer or ()
            if ended:
                self._shown = {
                    "return": float(np.mean([each["r"] for each in ended])),
                    "length": float(np.mean([each["l"] for each in ended])),
                }
                self._lines(step, self._shown)
            self._logged = step
        if step <= self._bar.steps:  # the last rollout is played to its end
            self._bar(step - 1, self._shown)
        self._interrupt()
        return True


def _class(algorithm: str) -> type[BaseAlgorithm]:
    return sb3.SAC if algorithm == "sac" else sb3.PPO


def _statistics(env: VecNormalize) -> dict[str, Any]:
    return {"obs": env.obs_rms, "ret": env.ret_rms}


def _untrained(lesson: Lesson, env: VecEnv) -> BaseAlgorithm:
    numbers = {k: v for k, v in lesson.numbers.items() if k != "copies"}
    network = {"net_arch": list(numbers.pop("net_arch")), "activation_fn": _ACTIVATIONS[numbers.pop("activation")]}
    network["optimizer_kwargs"] = {"fused": True} | ({"eps": 1e-5} if lesson.algorithm == "ppo" else {})
    if "log_std_init" in numbers:
        network["log_std_init"] = numbers.pop("log_std_init")
    if lesson.algorithm == "sac":
        numbers["buffer_size"] = min(lesson.steps, 1_000_000)
    if numbers.pop("annealed", False):
        numbers["learning_rate"] = LinearSchedule(numbers["learning_rate"], 0.0, 1.0)
    return _class(lesson.algorithm)("MlpPolicy", env, seed=lesson.seed, device="cpu", policy_kwargs=network, **numbers)


_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def _replay(buffer: Any) -> dict[str, Any]:
    size = buffer.buffer_size if buffer.full else buffer.pos
    return {name: getattr(buffer, name)[:size] for name in _BUFFER} | {"pos": buffer.pos, "full": buffer.full}


def _refill(buffer: Any, arrays: Any) -> None:
    buffer.pos, buffer.full = int(arrays["pos"]), bool(arrays["full"])
    for name in _BUFFER:
        rows = arrays[name]
        getattr(buffer, name)[: len(rows)] = rows
