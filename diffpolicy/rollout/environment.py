"""Vector environments by id, all behind one contract: autoreset disabled, Box actions, observations by name."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

import diffpolicy_envs
from diffpolicy.data.episode import as_float32, flattened
from diffpolicy.errors import InputError, nearest
from diffpolicy.policy.spaces import SpaceSpec
from diffpolicy.rollout.faults import told
from diffpolicy.rollout.foreign import Roused, RousedBranchable, resets_in_part
from diffpolicy.rollout.mujoco_log import log_to_console_only
from diffpolicy_envs.simulation import MOST

__all__ = [
    "Branchable",
    "Scripted",
    "branching",
    "checked_action",
    "conditions_of",
    "divergences",
    "longest",
    "make_vector",
    "name_of",
    "named",
    "shown",
    "spaces_of",
    "task_of",
]

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
    """N copies of a gymnasium environment with ``AutoresetMode.DISABLED``, in which what is finished stands still.

    Args:
        environment: gymnasium id; one of ours runs on MuJoCo's thread pool, another with a vector environment
            registered that can do without autoreset runs in that, any other in a loop of guarded copies.
        num_envs: number of copies N.
        condition: a disturbance that the environment knows; only ours know others than "clean".
        threads: physics threads of ours; 0 takes all cores.
        options: handed to the environment (``render_mode``, ``width``, ...).

    Raises:
        InputError: no environment asked for, or more than 65,536; unknown id or condition, an environment that cannot
            be made, or actions that are not a Box.
    """
    if not 1 <= num_envs <= MOST:
        wanted = "at least 1 environment" if num_envs < 1 else f"at most {MOST:,} environments"
        raise InputError(f"expected {wanted}, got num_envs={num_envs}")
    spec = _spec(environment)
    known = conditions_of(environment)
    if condition not in known:
        near = nearest(condition, known) or ": choose one of these"
        raise InputError(f"{environment} knows the conditions {', '.join(known)}; got {condition!r}{near}")
    log_to_console_only()
    if spec.vector_entry_point != _OURS:
        return _theirs(environment, spec, num_envs, options)
    options |= {"condition": condition, "threads": threads, "autoreset_mode": AutoresetMode.DISABLED}
    try:
        return gymnasium.make_vec(environment, num_envs, vectorization_mode="vector_entry_point", **options)
    except (ValueError, TypeError, AttributeError, FileNotFoundError) as error:
        raise InputError(f"{environment} could not be made: {told(error)}") from error


def _theirs(
    environment: str, spec: gymnasium.envs.registration.EnvSpec, num_envs: int, options: dict[str, Any]
) -> Vector:
    """Another package's environment: its own vector environment where that will do, else a loop."""
    from diffpolicy.rollout.gymnasium_mujoco import looped

    env = None if spec.vector_entry_point is None else _their_vector(environment, num_envs, options)
    if env is None:
        try:
            env = looped(lambda: gymnasium.make(environment, **options), num_envs, spec)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except Exception as error:
            raise InputError(f"{environment} could not be made: {told(error)}") from error
        env.spec = spec
    if not isinstance(env.single_action_space, spaces.Box):
        kind = type(env.single_action_space).__name__
        env.close()
        raise InputError(f"{environment} has {kind} actions; a diffusion policy needs a Box of continuous actions")
    return env


def _their_vector(environment: str, num_envs: int, options: dict[str, Any]) -> Vector | None:
    """The vector environment that is registered, where it does without autoreset and can be reset in part."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may not say its autoreset mode: then it is not taken
            env = gymnasium.make_vec(
                environment,
                num_envs=num_envs,
                vectorization_mode="vector_entry_point",
                autoreset_mode=AutoresetMode.DISABLED,
                **options,
            )
    except MemoryError:
        raise
    except Exception:  # it may know no autoreset_mode
        return None
    if env.metadata.get("autoreset_mode") is not AutoresetMode.DISABLED or not resets_in_part(env):
        env.close()
        return None
    return RousedBranchable(env) if isinstance(env.unwrapped, Branchable) else Roused(env)


def conditions_of(environment: str) -> tuple[str, ...]:
    """Names of the conditions that an environment knows."""
    task = task_of(environment)
    return ("clean",) if task is None else tuple(task.conditions())


def task_of(environment: str) -> type[diffpolicy_envs.Task] | None:
    """The task that an environment of ours was registered with; None of another package's."""
    spec = _spec(environment)
    return spec.kwargs["task"] if spec.vector_entry_point == _OURS else None


def _spec(environment: str) -> gymnasium.envs.registration.EnvSpec:
    module, _, name = str(environment).rpartition(":")
    advice = (
        f"Ours are {', '.join(diffpolicy_envs.TASKS)}; another package's is named 'module:id', so that it is "
        "imported first"
    )
    try:
        if module:
            importlib.import_module(module)
    except MemoryError:
        raise
    except Exception as error:
        raise InputError(
            f"unknown environment {environment!r}: module {module!r} cannot be imported ({told(error)}). {advice}"
        ) from error
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, TypeError, ValueError) as error:
        near = nearest(name, gymnasium.registry) or "."
        raise InputError(f"unknown environment {environment!r}{near} {advice}") from error


def name_of(env: Vector) -> str:
    """The id that an environment is registered by, else its class."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__


def spaces_of(env: Vector | str) -> SpaceSpec:
    """The spaces of an environment, or of the one with that id, as a policy keeps them.

    Raises InputError where it is unknown, or its spaces are none that a policy can be made for.
    """
    if isinstance(env, str):
        made = make_vector(env, 1)
        found = spaces_of(made)
        made.close()
        return found
    return SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)


def longest(environment: str, otherwise: int = 100) -> int:
    """Control steps of an episode at most, as far as the environment's registration says, else ``otherwise``."""
    task = task_of(environment)
    return int((_spec(environment).max_episode_steps or otherwise) if task is None else task.max_steps)


def branching(env: Vector) -> Branchable | None:
    """The part of an environment that saves and sets states, or None."""
    layer: Any = env
    while not isinstance(layer, Branchable):
        if layer is layer.unwrapped:
            return None
        layer = layer.env
    return layer


def divergences(env: Vector) -> npt.NDArray[np.int64]:
    """How often (N,) MuJoCo gave up a simulation of ours and started it afresh, since its last reset."""
    if not isinstance(env.unwrapped, diffpolicy_envs.TaskVectorEnv):
        return np.zeros(env.num_envs, dtype=np.int64)
    return env.unwrapped.simulations.divergences(np.arange(env.num_envs))


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
    who = actor if isinstance(actor, str) else type(actor).__name__
    shape = (count, *(env.single_action_space.shape or ()))
    try:
        answer = np.asarray(action, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected actions of shape {shape} from {who}, got {action!r}") from error
    if answer.shape != shape:
        raise InputError(
            f"expected actions of shape {shape} from {who}, got {answer.shape}; predict is given "
            "a batch of observations and returns an action for each"
        )
    if not np.isfinite(answer).all():
        raise InputError(f"expected finite actions from {who}, got NaN or infinity; it has diverged")
    return answer
