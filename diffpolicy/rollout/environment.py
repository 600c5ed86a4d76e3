"""Vector environments by id, all behind one contract: autoreset disabled, Box actions, observations by name."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import diffpolicy_envs
from diffpolicy.data.episode import as_float32, flattened
from diffpolicy.errors import InputError

__all__ = ["Branchable", "Scripted", "checked_action", "conditions_of", "make_vector", "named", "shown", "stands_still"]

Vector = VectorEnv[Any, Any, Any]
_OURS = "diffpolicy_envs.vector:TaskVectorEnv"


@runtime_checkable
class Branchable(Protocol):
    """A vector environment whose simulations can continue from a saved state."""

    def get_state(self) -> npt.NDArray[np.float64]:
        """Whole states (N, S)."""

    def set_state(self, states: npt.ArrayLike, ids: npt.NDArray[np.intp] | None = None) -> Any:
        """Continue simulations ``ids`` (all by default) from states; the observation of all of them."""

    def undisturbed(self, states: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The same states without the disturbances still to come."""


@runtime_checkable
class Scripted(Protocol):
    """A vector environment that knows an expert."""

    def expert(self) -> npt.NDArray[np.float32]:
        """The expert's actions (N, A) in the present states."""


def make_vector(environment: str, num_envs: int, condition: str = "clean", threads: int = 0, **options: Any) -> Vector:
    """N copies of a gymnasium environment with ``AutoresetMode.DISABLED``.

    Args:
        environment: gymnasium id; one of ours runs on MuJoCo's thread pool, any other in a loop.
        num_envs: number of copies N.
        condition: a disturbance that the environment knows; only ours know others than "clean".
        threads: physics threads of ours; 0 takes all cores.
        options: handed to the environment (``render_mode``, ``width``, ...).

    Raises:
        InputError: no environment asked for, unknown id or condition, or actions that are not a Box.
    """
    if num_envs < 1:
        raise InputError(f"expected at least 1 environment, got num_envs={num_envs}")
    spec = _spec(environment)
    if condition not in conditions_of(environment):
        known = ", ".join(conditions_of(environment))
        raise InputError(f"{environment} knows the conditions {known}; got {condition!r}: choose one of these")
    env: Vector
    if spec.vector_entry_point == _OURS:
        env = gymnasium.make_vec(
            environment,
            num_envs=num_envs,
            vectorization_mode="vector_entry_point",
            condition=condition,
            threads=threads,
            autoreset_mode=AutoresetMode.DISABLED,
            **options,
        )
    else:
        env = SyncVectorEnv(
            [lambda: gymnasium.make(environment, **options)] * num_envs, autoreset_mode=AutoresetMode.DISABLED
        )
        env.spec = spec
    if not isinstance(env.single_action_space, spaces.Box):
        kind = type(env.single_action_space).__name__
        env.close()
        raise InputError(f"{environment} has {kind} actions; a diffusion policy needs a Box of continuous actions")
    return env


def conditions_of(environment: str) -> tuple[str, ...]:
    """Names of the conditions that an environment knows."""
    if _spec(environment).vector_entry_point == _OURS:
        return tuple(diffpolicy_envs.CONDITIONS)
    return ("clean",)


def _spec(environment: str) -> gymnasium.envs.registration.EnvSpec:
    try:
        module, _, name = environment.rpartition(":")
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ImportError, TypeError, ValueError) as error:
        raise InputError(
            f"unknown environment {environment!r}: {error}. Ours are {', '.join(diffpolicy_envs.TASKS)}; "
            "another package's is named 'module:id', so that it is imported first"
        ) from error


def named(observation: Any) -> dict[str, npt.NDArray[np.float32]]:
    """An observation as float32 arrays by name; a Box is the one name "observation"."""
    if not isinstance(observation, Mapping):
        return {"observation": as_float32("observation", observation)}
    return {name: as_float32(name, value) for name, value in flattened(observation).items()}


def shown(env: Vector, obs: Mapping[str, npt.NDArray[np.float32]], rows: npt.NDArray[np.intp]) -> Any:
    """What an actor sees of some rows: a bare array where the environment's space is a Box, else arrays by name."""
    seen = {name: value[rows] for name, value in obs.items()}
    return seen if isinstance(env.single_observation_space, spaces.Dict) else seen["observation"]


def checked_action(env: Vector, action: Any, count: int, actor: object) -> npt.NDArray[np.float32]:
    """An actor's answer as float32 of shape (count, A).

    Raises:
        InputError: another shape, or a number that is not finite; the message names the actor.
    """
    shape = (count, *(env.single_action_space.shape or ()))
    try:
        answer = np.asarray(action, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected actions of shape {shape} from {type(actor).__name__}, got {action!r}") from error
    if answer.shape != shape:
        raise InputError(
            f"expected actions of shape {shape} from {type(actor).__name__}, got {answer.shape}; predict is given "
            "a batch of observations and returns an action for each"
        )
    if not np.isfinite(answer).all():
        raise InputError(f"expected finite actions from {type(actor).__name__}, got NaN or infinity; it has diverged")
    return answer


def stands_still(env: Vector) -> bool:
    """Whether finished simulations may be stepped on (ours stand still) or must be reset first (gymnasium's)."""
    return isinstance(env.unwrapped, diffpolicy_envs.TaskVectorEnv)
