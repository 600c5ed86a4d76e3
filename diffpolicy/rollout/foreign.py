"""Other people's environments behind our contract: what is over stands still, what breaks says so and is replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate

from diffpolicy.errors import InputError
from diffpolicy.rollout.faults import FAULT, Physics, finite, misfit, told
from diffpolicy.rollout.success import NAMES, verdict

__all__ = ["Guard", "GuardedVectorEnv", "Roused", "RousedBranchable", "resets_in_part"]

Vector = VectorEnv[Any, Any, Any]
Flags = npt.NDArray[np.bool_]


class Guard(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A single environment that never raises, and that may be stepped on when its episode is over.

    An exception, an observation that does not fit its space, a number that is not finite, or physics that diverged
    ends the episode and stands in info under ``FAULT``; the environment is made again before its next episode. After
    the end of an episode nothing moves: reward 0, no flag.

    Args:
        make: makes the environment.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        super().__init__(make())
        self._make, self._space = make, self.observation_space
        self.seen = _blank(self._space)  # the last observation
        self._over, self.broken = True, False
        self._physics = Physics(self.env)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode; where that fails, info says so and the observation is blank."""
        self.seen = _blank(self._space)
        try:
            if self.broken:
                self._remake()
            observation, info = self.env.reset(seed=seed, options=options)
            fault = self._physics.fault(info) or misfit(self._space, observation)
        except MemoryError:
            raise
        except Exception as error:
            fault = told(error)
        if fault:
            self._over = self.broken = True
            return self.seen, {FAULT: fault}
        self._over, self.seen = False, observation
        return observation, _settled(info)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; where that fails, info says so and the episode is truncated."""
        if self._over:
            return self.seen, 0.0, False, False, {}
        try:
            observation, given, terminated, truncated, info = self.env.step(action)
            reward, terminated, truncated = float(given), bool(terminated), bool(truncated)
            fault = self._physics.fault(info) or misfit(self._space, observation)
            if not fault and not finite(reward):
                fault = f"the reward is {reward}"
        except MemoryError:
            raise
        except Exception as error:
            fault = told(error)
        if fault:
            self._over = self.broken = True
            return self.seen, 0.0, False, True, {FAULT: fault}
        self._over, self.seen = terminated or truncated, observation
        return observation, reward, terminated, truncated, _settled(info)

    def revive(self, observation: Any) -> None:
        """Go on with an episode whose environment was set to a state in which it shows this observation."""
        self._over, self.seen = False, observation
        self._physics = Physics(self.env)

    def close(self) -> None:
        """Free the environment; a fault in that costs nothing any more."""
        with suppress(Exception, SystemExit):
            self.env.close()

    def _remake(self) -> None:
        self.close()
        self.env = self._make()
        self.broken, self._physics = False, Physics(self.env)


class GuardedVectorEnv(SyncVectorEnv):
    """N guarded copies of an environment in a loop, as ours run: one that is over stands still until it is reset.

    Args:
        make: makes one of them.
        num_envs: number of copies N.
    """

    def __init__(self, make: Callable[[], gymnasium.Env[Any, Any]], num_envs: int) -> None:
        super().__init__([lambda: Guard(make)] * num_envs, autoreset_mode=AutoresetMode.DISABLED)
        self.guards: list[Guard] = self.envs  # type: ignore[assignment]

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes everywhere, or where ``options["reset_mask"]`` (N,) is true."""
        rest = dict(options or {})
        mask = np.broadcast_to(np.asarray(rest.pop("reset_mask", True), bool), self.num_envs)
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        infos: dict[str, Any] = {}
        for i in map(int, np.flatnonzero(mask)):
            _, info = self.guards[i].reset(seed=seed[i], options=rest or None)
            infos = self._gathered(infos, info, i)
        return self._seen(), infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of each whose episode is not over."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros((2, self.num_envs), dtype=bool)
        infos: dict[str, Any] = {}
        for i, (guard, action) in enumerate(zip(self.guards, iterate(self.action_space, actions), strict=True)):
            _, rewards[i], terminated[i], truncated[i], info = guard.step(action)
            infos = self._gathered(infos, info, i)
        return self._seen(), rewards, terminated, truncated, infos

    def _seen(self) -> Any:
        out: Any = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, [guard.seen for guard in self.guards], out)

    def _gathered(self, infos: dict[str, Any], info: Mapping[str, Any], i: int) -> dict[str, Any]:
        """Add one environment's info; a value that cannot stand in one array with the others' is left out."""
        for key, value in info.items():
            with suppress(TypeError, ValueError):
                infos = self._add_info(infos, {key: value}, i)
        return infos


class Roused(VectorWrapper[Any, Any, Any, Any, Any]):
    """Other people's vector environment with autoreset disabled, in which a finished simulation seems to stand still.

    It goes on by itself, reset without a seed, where nobody asked for it; its rewards and flags are not shown.
    """

    def __init__(self, env: Vector) -> None:
        super().__init__(env)
        self._waits = np.ones(env.num_envs, dtype=bool)  # must be reset before it is stepped on
        self._hidden = np.ones(env.num_envs, dtype=bool)  # what it does is nobody's episode
        self._name = env.spec.id if env.spec else type(env.unwrapped).__name__

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start episodes everywhere, or where ``options["reset_mask"]`` (N,) is true."""
        mask = np.broadcast_to(np.asarray((options or {}).get("reset_mask", True), bool), self.num_envs)
        if not mask.all():
            self._begin()
        result = self._asked("reset", seed=seed, options=None if options is None else dict(options))
        self._show(mask)
        return result  # type: ignore[no-any-return]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """One step of all."""
        if self._waits.any():
            self._asked("reset", options={"reset_mask": self._waits.copy()})
            self._waits[:] = False
        obs, reward, terminated, truncated, info = self._asked("step", actions)
        self._waits = terminated | truncated
        shown = ~self._hidden
        self._hidden = self._hidden | self._waits
        return obs, np.where(shown, reward, 0.0), terminated & shown, truncated & shown, info

    def _begin(self) -> None:
        if self._waits.all():  # it was never reset, or is over everywhere
            self._asked("reset")
            self._waits[:] = False

    def _show(self, rows: Any) -> None:
        self._waits[rows] = self._hidden[rows] = False

    def _asked(self, method: str, *words: Any, **options: Any) -> Any:
        try:
            return getattr(self.env, method)(*words, **options)
        except MemoryError:
            raise
        except Exception as error:
            raise InputError(
                f"{self._name} failed in {method} ({told(error)}); it runs its simulations together, so none can be "
                "dropped alone: mend it, or register it without vector_entry_point"
            ) from error


class RousedBranchable(Roused):
    """A roused environment whose simulations can continue from a saved state."""

    def get_state(self) -> npt.NDArray[np.float64]:
        """Whole states (N, S)."""
        return np.asarray(self._asked_within("get_state"), np.float64)

    def set_state(self, states: npt.ArrayLike, ids: npt.NDArray[np.intp] | None = None) -> Any:
        """Continue simulations ``ids`` (all by default) from states; the observation of all of them."""
        rows = np.arange(self.num_envs) if ids is None else ids
        self._begin()
        observation = self._asked_within("set_state", states, rows)
        self._show(rows)
        return observation

    def undisturbed(self, states: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The same states without the disturbances still to come."""
        return np.asarray(self._asked_within("undisturbed", states), np.float64)

    def _asked_within(self, method: str, *words: Any) -> Any:
        return getattr(self.env.unwrapped, method)(*words)


def resets_in_part(env: Vector) -> bool:
    """Whether a vector environment leaves simulations alone that ``reset_mask`` leaves out; it is reset to see."""
    first = np.arange(env.num_envs) == 0
    try:
        before, _ = env.reset(seed=[7] * env.num_envs)  # type: ignore[arg-type]
        kept = [np.array(value[1:]) for value in _leaves(before)]
        seeds = [8] + [None] * (env.num_envs - 1)
        after, _ = env.reset(seed=seeds, options={"reset_mask": first})  # type: ignore[arg-type]
        return all(np.array_equal(a, b[1:]) for a, b in zip(kept, _leaves(after), strict=True))
    except MemoryError:
        raise
    except Exception:
        return False


def _leaves(observation: Any) -> list[Any]:
    if isinstance(observation, Mapping):
        return [leaf for key in sorted(observation) for leaf in _leaves(observation[key])]
    return [observation]


def _blank(space: gymnasium.Space[Any]) -> Any:
    """An observation of zeros."""
    return next(iter(iterate(batch_space(space, 1), create_empty_array(space, 1))))


def _settled(info: Any) -> dict[str, Any]:
    """Info with success as a truth value, or without it where nothing is said.

    Raises:
        InputError: a success that is no truth value.
    """
    settled = dict(info) if isinstance(info, Mapping) else {}
    for name in NAMES:
        if name in settled:
            said = verdict(name, settled.pop(name))
            if said is not None:
                settled[name] = said
    return settled
