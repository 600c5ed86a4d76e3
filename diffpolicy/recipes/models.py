"""Stable-Baselines3 models as actors: read from their zip files, and only where the spaces are theirs."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import Vector, name_of
from diffpolicy.rollout.predictor import Predictor

__all__ = ["load_model"]


def load_model(path: Path) -> Callable[[Vector], Predictor]:
    """A PPO, A2C, SAC or TD3 model by its zip file, which is a pickle; it acts where the spaces fit.

    Raises:
        InputError: no such file; and, in an environment, other shapes of observations or another action space.
    """
    import stable_baselines3 as sb3

    algorithms: dict[str, Any] = {"sac": sb3.SAC, "td3": sb3.TD3, "common": sb3.PPO, "ppo": sb3.PPO, "a2c": sb3.A2C}
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("data"))["policy_class"]["__module__"]
        package, family, *_ = described.split(".")
        if package != "stable_baselines3" or family not in algorithms:
            raise InputError(f"{path} holds a policy of {described}; expected PPO, A2C, SAC or TD3")
        model = algorithms[family].load(path, device="cpu")
    except (AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"expected the zip file of a Stable-Baselines3 model, got {path} ({error})") from error

    def make(env: Vector) -> Predictor:
        _require_fit(path, model, env)
        return _Deterministic(model)

    return make


def _require_fit(path: Path, model: Any, env: Vector) -> None:
    """Raises InputError where an environment has other observations or actions than the model."""
    here, there = env.single_action_space, model.action_space
    pairs = [("observations", _shape(model.observation_space), _shape(env.single_observation_space))]
    if isinstance(here, spaces.Box) and isinstance(there, spaces.Box) and here.shape == there.shape:
        same = np.allclose(here.low, there.low) and np.allclose(here.high, there.high)
        pairs.append(("actions", "same" if same else there, "same" if same else here))
    else:
        pairs.append(("actions", there, here))
    for what, trained, found in pairs:
        if trained != found:
            raise InputError(
                f"{path} was trained for {what} of {trained}, but {name_of(env)} has {found}; use the environment that "
                "it was trained in"
            )


def _shape(space: spaces.Space[Any]) -> Any:
    """Of an observation, by name where it has names; an image's axes are sorted, since colours may come first."""
    if isinstance(space, spaces.Dict):
        return {name: _shape(part) for name, part in space.spaces.items()}
    return tuple(sorted(space.shape or ()))


class _Deterministic:
    """A Stable-Baselines3 model without the noise that it explores with, so that an episode repeats."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[Any], Any]:
        """The model's most likely action (N, A)."""
        del deterministic
        action, state = self._model.predict(observation, state, episode_start, deterministic=True)
        return action, state
