"""What a chunked policy remembers between calls: the last observations and the actions still to be executed.

Every function takes a state and gives a new one; none writes into what it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["ActingState", "act", "begin", "enqueue", "observe", "start"]


@dataclass(frozen=True)
class ActingState:
    """The memory of N environments, one row each."""

    history: Mapping[str, NDArray[np.float32]]  # each (N, To, O), oldest first
    queue: NDArray[np.float32]  # (N, Ta, A), in the environment's units
    cursor: NDArray[np.int64]  # (N,) next action of the queue; Ta: the queue is empty
    decision: NDArray[np.int64]  # (N,) number of chunks drawn in this episode
    episode: NDArray[np.int64]  # (N,) with the decision, it numbers the noise
    fresh: NDArray[np.bool_]  # (N,) no action was taken in this episode yet
    seed: int

    def __len__(self) -> int:
        return len(self.cursor)

    @property
    def waiting(self) -> NDArray[np.int64]:
        """The rows whose queue is empty."""
        return np.flatnonzero(self.cursor >= self.queue.shape[1])

    def fits(self, spaces: SpaceSpec, config: PolicyConfig) -> bool:
        """Whether the shapes are those of a policy's states."""
        past = {name: rows.shape[1:] for name, rows in self.history.items()}
        wanted = {name: (config.n_obs_steps, len(bounds)) for name, bounds in spaces.observations.items()}
        return past == wanted and self.queue.shape[1:] == (config.n_action_steps, len(spaces.action))

    def select(self, rows: NDArray[np.intp]) -> ActingState:
        """The state of some rows only."""
        return replace(
            self,
            history={name: past[rows] for name, past in self.history.items()},
            queue=self.queue[rows],
            cursor=self.cursor[rows],
            decision=self.decision[rows],
            episode=self.episode[rows],
            fresh=self.fresh[rows],
        )


def start(count: int, spaces: SpaceSpec, config: PolicyConfig, seed: int) -> ActingState:
    """The state of `count` environments before their first observation; row n is in episode n."""
    rows = np.arange(count, dtype=np.int64)
    return ActingState(
        history={
            name: np.zeros((count, config.n_obs_steps, len(bounds)), np.float32)
            for name, bounds in spaces.observations.items()
        },
        queue=np.zeros((count, config.n_action_steps, len(spaces.action)), np.float32),
        cursor=np.full(count, config.n_action_steps, np.int64),
        decision=np.zeros(count, np.int64),
        episode=rows,
        fresh=np.ones(count, np.bool_),
        seed=seed,
    )


def begin(state: ActingState, mask: NDArray[np.bool_], episodes: NDArray[np.int64]) -> ActingState:
    """Clear the rows where mask (N,) is true and give them the episode numbers of episodes (N,)."""
    return replace(
        state,
        cursor=np.where(mask, state.queue.shape[1], state.cursor),
        decision=np.where(mask, 0, state.decision),
        episode=np.where(mask, episodes, state.episode),
        fresh=state.fresh | mask,
    )


def observe(state: ActingState, obs: Mapping[str, NDArray[np.float32]], starts: NDArray[np.bool_]) -> ActingState:
    """Add observations, each (N, O), to the history.

    A row where `starts` (N,) is true and which has acted begins its next episode, N further on, so that no
    two rows ever share a number. The history of a row that has not acted is filled with the observation.
    """
    state = begin(state, starts & ~state.fresh, state.episode + len(state))
    history = {}
    for name, old in state.history.items():
        new = np.broadcast_to(obs[name][:, None], old.shape)
        shifted = np.concatenate([old[:, 1:], new[:, :1]], axis=1)
        history[name] = np.where(state.fresh[:, None, None], new, shifted)
    return replace(state, history=history)


def enqueue(state: ActingState, rows: NDArray[np.int64], actions: NDArray[np.float32]) -> ActingState:
    """Fill the queues of some rows (n,) with new actions (n, Ta, A)."""
    queue, cursor, decision = state.queue.copy(), state.cursor.copy(), state.decision.copy()
    queue[rows] = actions
    cursor[rows] = 0
    decision[rows] += 1
    return replace(state, queue=queue, cursor=cursor, decision=decision)


def act(state: ActingState) -> tuple[NDArray[np.float32], ActingState]:
    """Take the next action (N, A) of every row; raises InputError where a queue is empty."""
    if state.waiting.size:
        raise InputError(f"expected an action in every queue, got rows {state.waiting.tolist()} empty; enqueue first")
    action = state.queue[np.arange(len(state)), state.cursor]
    return action, replace(state, cursor=state.cursor + 1, fresh=np.zeros_like(state.fresh))
