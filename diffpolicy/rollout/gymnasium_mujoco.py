"""Gymnasium's own MuJoCo environments as branchable simulations: their whole state in a row of numbers, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco import MujocoEnv
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

from diffpolicy.errors import InputError
from diffpolicy.rollout.foreign import GuardedVectorEnv
from diffpolicy.rollout.mujoco_log import hushed, said_once

__all__ = ["BranchableMujocoVectorEnv", "Rewindable", "looped", "rewinds"]

Make = Callable[[], gymnasium.Env[Any, Any]]
Row = npt.NDArray[np.float64]
_KNOWN = (TimeLimit, OrderEnforcing, PassiveEnvChecker)  # wrappers whose state is the step count, or none
_PHYSICS = mujoco.mjtState.mjSTATE_INTEGRATION  # with the solver's warm start
_BITS = 32  # of a random stream's state in each number of a row
_WORDS = 16  # PCG64: state, increment, whether there is a buffered word, and that; 128 bits each
_NEVER, _RESET, _STEPPED = 0.0, 1.0, 2.0


class Rewindable(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of gymnasium's MuJoCo environments, with its whole state as a row (S,) of float64.

    After a step MuJoCo's derived quantities (body positions, contact forces) are older than its positions by one
    physics step, and observations and rewards read them. No saved state holds them. So a row holds the state
    *before* the last control step and its action, and that step is made again: all that it leaves is then there,
    bit for bit. A row is [kind, integration state, action (A), steps since the reset, random stream].

    Args:
        env: the environment as ``gymnasium.make`` gives it.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._core: MujocoEnv = env.unwrapped  # type: ignore[assignment]
        self._before = np.zeros(mujoco.mj_stateSize(self._core.model, _PHYSICS))
        self._action = np.zeros(int(np.prod(self._core.action_space.shape or (1,))))
        self._kind = _NEVER
        self._limit = next((layer for layer in _layers(env) if isinstance(layer, TimeLimit)), None)

    @property
    def size(self) -> int:
        """Numbers in a row, S."""
        return 1 + len(self._before) + len(self._action) + 1 + _WORDS

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        result = self.env.reset(seed=seed, options=options)
        self._kind = _RESET
        self._action[:] = 0.0
        self._read(self._before)
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One control step; the state before it is kept."""
        self._read(self._before)
        self._kind, self._action[:] = _STEPPED, np.ravel(action)
        return self.env.step(action)

    def row(self) -> Row:
        """The whole state (S,); zeros before the first reset."""
        if self._kind == _NEVER:
            return np.zeros(self.size)
        elapsed = 0 if self._limit is None else self._limit._elapsed_steps or 0
        return np.concatenate([[self._kind], self._before, self._action, [elapsed], _words(self._core.np_random)])

    def rewind(self, row: Row) -> Any:
        """Continue from a row; returns the observation there.

        Raises:
            InputError: a row that no environment of this kind gave.
        """
        if row.shape != (self.size,) or row[0] not in (_RESET, _STEPPED) or not np.isfinite(row).all():
            raise InputError(
                f"expected a row of {self.size} numbers that get_state gave of this environment after a reset, got "
                f"{row.shape} with kind {row[0] if row.size else None}"
            )
        if self._kind == _NEVER:
            self.env.reset()  # wrappers want one first
        cut = np.cumsum([1, len(self._before), len(self._action), 1])
        _, before, action, (elapsed,), words = np.split(row, cut)
        self._kind, self._before[:], self._action[:] = row[0], before, action
        observation = self._again()
        if self._limit is not None:
            vars(self._limit)["_elapsed_steps"] = int(elapsed)
        self._core.np_random = _stream(words)
        return observation

    def _again(self) -> Any:
        """What the last call of reset or step left behind, made again; the observation."""
        core = self._core
        mujoco.mj_resetData(core.model, core.data)
        mujoco.mj_setState(core.model, core.data, self._before, _PHYSICS)
        if self._kind == _STEPPED:
            action: Any = self._action.reshape(core.action_space.shape or ())
            return core.step(action)[0]
        core.data.qacc_warmstart[:] = 0.0  # as a reset begins
        mujoco.mj_forward(core.model, core.data)
        mujoco.mj_setState(core.model, core.data, self._before, _PHYSICS)
        return core._get_obs()  # type: ignore[attr-defined]

    def _read(self, out: Row) -> None:
        mujoco.mj_getState(self._core.model, self._core.data, out, _PHYSICS)


class BranchableMujocoVectorEnv(GuardedVectorEnv):
    """N guarded copies of one of gymnasium's MuJoCo environments, whose simulations continue from saved states.

    Args:
        make: makes one of them; ``rewinds`` is true of it.
        num_envs: number of copies N.
    """

    def __init__(self, make: Make, num_envs: int) -> None:
        super().__init__(lambda: Rewindable(make()), num_envs)

    def get_state(self) -> Row:
        """Whole states (N, S); zeros where nothing was reset yet."""
        return np.stack([self._rewindable(i).row() for i in range(self.num_envs)])

    def set_state(self, states: npt.ArrayLike, ids: npt.NDArray[np.intp] | None = None) -> Any:
        """Continue simulations ``ids`` (all by default) from states, also those that are over; all observations.

        Raises InputError where a row is not one that ``get_state`` gave after a reset.
        """
        rows = np.arange(self.num_envs) if ids is None else np.asarray(ids)
        given = np.asarray(states, np.float64)
        if given.ndim != 2 or len(given) != len(rows):
            raise InputError(f"expected a row for each of {len(rows)} simulations, got an array of {given.shape}")
        for i, row in zip(map(int, rows), given, strict=True):
            guard = self.guards[i]
            if guard.broken:
                guard.reset()
            guard.revive(self._rewindable(i).rewind(row))
        return self._seen()

    def undisturbed(self, states: npt.ArrayLike) -> Row:
        """The same states: nothing disturbs these environments."""
        return np.array(states, np.float64)

    def _rewindable(self, i: int) -> Rewindable:
        env = self.guards[i].env
        assert isinstance(env, Rewindable)
        return env


def looped(make: Make, num_envs: int, spec: EnvSpec) -> GuardedVectorEnv:
    """A loop of N guarded copies of an environment, branchable where it is one of gymnasium's MuJoCo environments."""
    entry = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
    if not (isinstance(entry, type) and issubclass(entry, MujocoEnv)):
        return GuardedVectorEnv(make, num_envs)
    with said_once(spec.id):
        one = make()
    known = rewinds(one)
    one.close()
    with hushed():
        return (BranchableMujocoVectorEnv if known else GuardedVectorEnv)(make, num_envs)


def rewinds(env: gymnasium.Env[Any, Any], steps: int = 3) -> bool:
    """Whether an environment is a MuJoCo one whose whole state is known here; it is played a few steps to see.

    That is: a ``MujocoEnv`` in gymnasium's usual wrappers, which repeats a branch bit for bit, also after another
    reset, and in which no number of its own in Python changes from step to step. It is used up by this.
    """
    core = env.unwrapped
    if not isinstance(core, MujocoEnv) or not all(isinstance(layer, _KNOWN) for layer in _layers(env)[:-1]):
        return False
    try:
        tried = Rewindable(env)
        tried.reset(seed=0)
        tried.action_space.seed(0)
        actions = [tried.action_space.sample() for _ in range(steps)]
        first, start = _numbers(core), tried.row()
        seen = [_told(tried.step(action)) for action in actions[:1]]
        middle = tried.row()
        seen += [_told(tried.step(action)) for action in actions[1:]]

        def repeats(row: Row, since: int = 0) -> bool:
            tried.rewind(row)
            return [_told(tried.step(action)) for action in actions[since:]] == seen[since:]

        if _numbers(core) != first or not repeats(middle, 1) or not repeats(start):
            return False
        tried.reset(seed=1)  # draws anew what no row holds, if there is such
        return repeats(start)
    except MemoryError:
        raise
    except Exception:
        return False


def _layers(env: Any) -> list[Any]:
    """An environment's wrappers from outside in, and itself at the end."""
    layers = [env]
    while layers[-1] is not layers[-1].unwrapped:
        layers.append(layers[-1].env)
    return layers


def _numbers(core: Any) -> dict[str, bytes]:
    """The numbers and arrays that an environment keeps in Python."""
    kept = {name: value for name, value in vars(core).items() if isinstance(value, bool | int | float | np.ndarray)}
    return {name: np.asarray(value).tobytes() for name, value in kept.items()}


def _told(result: tuple[Any, Any, bool, bool, dict[str, Any]]) -> tuple[bytes, float, bool, bool]:
    observation, reward, terminated, truncated, _ = result
    return np.asarray(observation).tobytes(), float(reward), bool(terminated), bool(truncated)


def _words(stream: np.random.Generator) -> Row:
    """The state of a random stream, a PCG64 as gymnasium's are, as numbers."""
    state: Any = stream.bit_generator.state
    whole = (state["state"]["state"], state["state"]["inc"], state["has_uint32"], state["uinteger"])
    return np.array([number >> shift & (1 << _BITS) - 1 for number in whole for shift in range(0, 128, _BITS)], float)


def _stream(words: Row) -> np.random.Generator:
    """The random stream whose state these numbers are."""
    parts = words.reshape(4, -1)
    state, inc, has, buffered = (sum(int(word) << _BITS * i for i, word in enumerate(part)) for part in parts)
    generator = np.random.Generator(np.random.PCG64())
    inner = {"state": state, "inc": inc}
    generator.bit_generator.state = {"bit_generator": "PCG64", "state": inner, "has_uint32": has, "uinteger": buffered}
    return generator
