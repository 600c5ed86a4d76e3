"""Acting in chunks through Stable-Baselines3's `predict`, whatever it is that draws the chunks."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffpolicy.diffusion.noise import counter_noise
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, acting
from diffpolicy.policy.acting import ActingState
from diffpolicy.policy.observations import Layout, finite

__all__ = ["ChunkedPredictor"]


class ChunkedPredictor:
    """What every chunked policy has in common: it needs neither torch nor gymnasium."""

    config: PolicyConfig
    layout: Layout  # of its observations
    action_size: int  # A
    seed: int  # of its noise

    def begin(self, state: ActingState | None, mask: NDArray[np.bool_], episodes: NDArray[np.int64]) -> ActingState:
        """Clear the rows where mask (N,) is true and give them explicit episode numbers from episodes (N,).

        With these, noise depends on the episode and not on the slot of a vector environment that it runs in.
        Without a state, the state of N environments is started.
        """
        mask = np.asarray(mask, np.bool_)
        state = self._start(len(mask)) if state is None else state
        if mask.shape != (len(state),) or np.shape(episodes) != (len(state),):
            raise InputError(
                f"expected mask and episodes of shape ({len(state)},), got {mask.shape} and "
                f"{np.shape(episodes)}; give one number to every environment of the state"
            )
        return acting.begin(state, mask, np.asarray(episodes, np.int64))

    def predict(
        self,
        observation: Any,
        state: ActingState | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[np.float32], ActingState]:
        """The next action of every environment, within the action space, and the state for the next call.

        `observation` is an array or a mapping of arrays, (O,) or batched (N, O); the action is
        (A,) or (N, A) accordingly. Rows where `episode_start` is true start anew. The network runs, as one
        batch, for the rows whose chunk is used up. `deterministic` leaves the noise of the steps out; the start
        of a chain stays random.

        Raises InputError where an observation is missing, of a wrong shape or type or not finite, where the
        state is not this policy's, and where the network puts out what is not finite.
        """
        rows, single = self.layout.rows(observation)  # (N, C)
        count = len(rows)
        starts = None if episode_start is None else np.asarray(episode_start, np.bool_)
        if starts is not None and starts.ndim == 0:
            starts = starts[None]
        if starts is not None and np.asarray(episode_start).dtype.kind not in "biu":
            raise InputError(f"expected episode_start of {count} booleans, got {episode_start!r:.100}")
        if state is None:
            state = self._start(count)
        elif not isinstance(state, ActingState) or not state.fits(self.layout, self.config, self.action_size):
            raise InputError(
                f"expected the state that this policy's last predict returned, got {type(state).__name__}"
                f"{' of another policy' if isinstance(state, ActingState) else ''}; start with state=None"
            )
        if len(state) != count or (starts is not None and starts.shape != (count,)):
            raise InputError(
                f"expected state and episode_start of {count} rows like the observation, got {len(state)} and "
                f"{None if starts is None else starts.shape}; pass state=None when the number of environments changes"
            )
        state = acting.observe(state, rows, starts)
        if (waiting := state.waiting).size:
            state = acting.enqueue(state, waiting, self._decide(state, waiting, deterministic))
        action, state = acting.act(state)
        return (action[0] if single else action), state

    def _start(self, count: int) -> ActingState:
        return acting.start(count, self.layout, self.config, self.action_size, self.seed)

    def _decide(self, state: ActingState, rows: NDArray[np.int64], deterministic: bool) -> NDArray[np.float32]:
        """The actions (n, L, A) from the present on that some rows are to execute or keep."""
        past, episode, decision = state.past, state.episode, state.decision
        if len(rows) < len(state):
            past, episode, decision = past[rows], episode[rows], decision[rows]
        shape = (self._draws(deterministic), self.config.horizon, self.action_size)
        noise = counter_noise(state.seed, episode, decision, shape)
        if self.config.acting.looks_back and (going := decision > 0).any():
            chunk = np.empty((len(rows), *shape[1:]), np.float32)
            last = acting.left_over(state, rows[going], self.config)
            chunk[going] = self._draw(past[going], noise[going], last)
            if not going.all():
                chunk[~going] = self._draw(past[~going], noise[~going])
        else:
            chunk = self._draw(past, noise)
        first = self.config.n_obs_steps - 1
        actions = chunk[:, first : first + self.config.queued]
        if not finite(actions):
            raise InputError(
                "expected finite actions from the network, got NaN or infinity for finite observations; "
                "its weights have diverged: go back to an earlier checkpoint"
            )
        return actions

    @abstractmethod
    def _draws(self, deterministic: bool) -> int:
        """Draws of noise D for each chunk: the start, and one a step where the steps are noisy."""

    @abstractmethod
    def _draw(
        self, past: NDArray[np.float32], noise: NDArray[np.float32], last: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Chunks (n,H,A) in raw units for joined observation windows (n,To,C) and noise (n,D,H,A).

        `last` (n,H,A), in raw units, is what is left of the chunk before, where the settings look back.
        """
