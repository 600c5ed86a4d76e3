"""What a chunked policy remembers between calls: the last observations and the actions still to be executed.

Every function takes a state and gives a new one; none writes into what it was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError
from diffpolicy.policy import ActingConfig, PolicyConfig
from diffpolicy.policy.observations import Layout

__all__ = ["ActingState", "act", "begin", "enqueue", "left_over", "observe", "overlap", "start"]

_ONLY, _NONE = np.zeros(1, np.int64), np.zeros(0, np.int64)  # the row of a single environment, and no row
_ACTED = np.zeros(1, np.bool_)
for _shared in (_ONLY, _NONE, _ACTED):
    _shared.flags.writeable = False


@dataclass(frozen=True)
class ActingState:
    """The memory of N environments, one row each."""

    layout: Layout  # of the observations in `past`
    past: NDArray[np.float32]  # (N, To, C) joined observations, oldest first
    queue: NDArray[np.float32]  # (N, L, A) from the last decision on, in the environment's units; L >= Ta
    votes: NDArray[np.int64]  # (N, L) chunks that each of them is the mean of; (N, 0) where none are averaged
    cursor: NDArray[np.int64]  # (N,) next action of the queue; Ta: it is time to decide
    executed: int  # Ta, the actions from one decision to the next
    acting: ActingConfig  # how chunks follow one another in it
    decision: NDArray[np.int64]  # (N,) number of chunks drawn in this episode
    episode: NDArray[np.int64]  # (N,) with the decision, it numbers the noise
    fresh: NDArray[np.bool_]  # (N,) no action was taken in this episode yet
    seed: int

    def __len__(self) -> int:
        return len(self.cursor)

    @property
    def history(self) -> Mapping[str, NDArray[np.float32]]:
        """The past observations by name, each (N, To, O), oldest first."""
        return self.layout.split(self.past)

    @property
    def waiting(self) -> NDArray[np.int64]:
        """The rows that are to decide."""
        if len(self) == 1:
            return _ONLY if self.cursor.item() >= self.executed else _NONE
        return np.flatnonzero(self.cursor >= self.executed)

    def fits(self, layout: Layout, config: PolicyConfig, action_size: int) -> bool:
        """Whether this is the state of a policy with these observations, chunks and actions."""
        same = self.layout is layout or self.layout == layout
        return (
            same
            and self.past.shape[1] == config.n_obs_steps
            and self.executed == config.n_action_steps
            and self.queue.shape[1:] == (config.queued, action_size)
            and self.acting == config.acting
        )

    def select(self, rows: NDArray[np.intp]) -> ActingState:
        """The state of some rows only."""
        return replace(
            self,
            past=self.past[rows],
            queue=self.queue[rows],
            votes=self.votes[rows],
            cursor=self.cursor[rows],
            decision=self.decision[rows],
            episode=self.episode[rows],
            fresh=self.fresh[rows],
        )


def start(count: int, layout: Layout, config: PolicyConfig, action_size: int, seed: int) -> ActingState:
    """The state of `count` environments before their first observation; row n is in episode n."""
    return ActingState(
        layout=layout,
        past=np.zeros((count, config.n_obs_steps, layout.width), np.float32),
        queue=np.zeros((count, config.queued, action_size), np.float32),
        votes=np.zeros((count, 0 if config.acting.ensemble is None else config.queued), np.int64),
        executed=config.n_action_steps,
        acting=config.acting,
        cursor=np.full(count, config.n_action_steps, np.int64),
        decision=np.zeros(count, np.int64),
        episode=np.arange(count, dtype=np.int64),
        fresh=np.ones(count, np.bool_),
        seed=seed,
    )


def begin(state: ActingState, mask: NDArray[np.bool_], episodes: NDArray[np.int64]) -> ActingState:
    """Clear the rows where mask (N,) is true and give them the episode numbers of episodes (N,)."""
    return replace(
        state,
        cursor=np.where(mask, state.executed, state.cursor),
        decision=np.where(mask, 0, state.decision),
        episode=np.where(mask, episodes, state.episode),
        fresh=state.fresh | mask,
    )


def observe(state: ActingState, rows: NDArray[np.float32], starts: NDArray[np.bool_] | None) -> ActingState:
    """Add joined observations (N, C) to the past; the state keeps them.

    A row where `starts` (N,) is true and which has acted begins its next episode, N further on, so that no
    two rows ever share a number. The past of a row that has not acted is filled with the observation.
    """
    if starts is not None and (again := starts & ~state.fresh).any():
        state = begin(state, again, state.episode + len(state))
    new, steps = rows[:, None], state.past.shape[1]
    if steps > 1:
        shifted = np.concatenate([state.past[:, 1:], new], axis=1)
        new = np.where(state.fresh[:, None, None], new, shifted) if state.fresh.any() else shifted
    return _changed(state, past=new)


def enqueue(state: ActingState, rows: NDArray[np.int64], actions: NDArray[np.float32]) -> ActingState:
    """Fill the queues of some rows (n,) with new actions (n, L, A), put together with the old ones as `acting` says."""
    votes = state.votes
    if state.acting.latency or state.acting.ensemble is not None:
        actions, mine = _together(state, rows, actions)
        if votes.shape[1]:
            votes = votes.copy()
            votes[rows] = mine
    if len(state) == len(rows) == 1:
        return _changed(state, queue=actions, votes=votes, cursor=_ONLY, decision=np.array([state.decision.item() + 1]))
    queue, cursor, decision = state.queue.copy(), state.cursor.copy(), state.decision.copy()
    queue[rows] = actions
    cursor[rows] = 0
    decision[rows] += 1
    return _changed(state, queue=queue, votes=votes, cursor=cursor, decision=decision)


def _together(
    state: ActingState, rows: NDArray[np.int64], actions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Actions (n, L, A) with the queue's before the latency is over, and of the means after it; their votes (n, L)."""
    config = state.acting
    steps, length = np.arange(actions.shape[1]), actions.shape[1] - state.executed
    held = (state.decision[rows] > 0)[:, None] & (steps < length)  # (n, L), where the queue has an action too
    then = np.minimum(steps + state.executed, len(steps) - 1)
    old = np.where(held[:, :, None], state.queue[rows][:, then], actions)
    votes = np.zeros(held.shape, np.int64)
    if config.ensemble is not None:
        votes = np.where(held, state.votes[rows][:, then], 0)
        newest = np.exp(-config.ensemble * votes)  # the oldest has weight 1
        total = votes if config.ensemble == 0 else np.expm1(-config.ensemble * votes) / np.expm1(-config.ensemble)
        share = (newest / (total + newest)).astype(np.float32)[:, :, None]
        actions = old + share * (actions - old)
    return np.where((steps < config.latency)[:, None], old, actions), votes + 1


def left_over(state: ActingState, rows: NDArray[np.int64], config: PolicyConfig) -> NDArray[np.float32]:
    """What some rows (n,) still have of their last chunk, as a chunk (n, H, A) of the present, its ends repeated."""
    present = np.arange(config.horizon) - config.n_obs_steps + 1 + state.executed
    return state.queue[rows][:, np.clip(present, 0, state.queue.shape[1] - 1)]


def overlap(config: PolicyConfig) -> NDArray[np.float32]:
    """How much each action (H,) of the last chunk counts for the next: 1 before the latency is over, then falling to 0.

    It is c (e^c - 1) / (e - 1), c falling linearly to where the last chunk ends (arXiv 2506.07339, eq. 5).
    """
    first = config.n_obs_steps - 1
    start, end = first + config.acting.latency, config.horizon - config.n_action_steps
    falling = np.clip((end - np.arange(config.horizon)) / (end - start + 1), 0, 1)
    weight = falling * np.expm1(falling) / np.expm1(1)
    weight[:start] = 1
    weight[: max(0, first - config.n_action_steps)] = 0  # before what the queue remembers
    return np.asarray(weight, np.float32)


def act(state: ActingState) -> tuple[NDArray[np.float32], ActingState]:
    """Take the next action (N, A) of every row; raises InputError where a queue is empty."""
    if (empty := state.waiting).size:
        raise InputError(f"expected an action in every queue, got rows {empty.tolist()} empty; enqueue first")
    if (count := len(state)) == 1:
        slot = state.cursor.item()
        return state.queue[:, slot].copy(), _changed(state, cursor=np.array([slot + 1]), fresh=_ACTED)
    action = state.queue[np.arange(count), state.cursor]
    return action, _changed(state, cursor=state.cursor + 1, fresh=np.zeros(count, np.bool_))


def _changed(state: ActingState, **changes: Any) -> ActingState:
    """`dataclasses.replace`, three times as fast: a control loop does this for every action."""
    new = object.__new__(ActingState)
    fields = new.__dict__
    fields.update(state.__dict__)
    fields.update(changes)
    return new
