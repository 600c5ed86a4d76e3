"""Laws of labels: each is what the expert really does from the state in which the learner was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.labeller import Cost, Takeover, label_by_branching, label_by_takeover
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs import TASKS

every_name = pytest.mark.parametrize("name", ["diffpolicy/PickPlace-v0"])  # what is tested does not depend on it
LENGTH = 12


class Steps:
    def __init__(self, count: np.ndarray) -> None:
        self.count = count

    def select(self, rows: np.ndarray) -> Steps:
        return Steps(self.count[rows])


class Wanderer:
    """A learner that waves its arm about, and remembers for how long."""

    def __init__(self, size: int) -> None:
        self.size = size

    def begin(self, state: Steps | None, mask: np.ndarray, episodes: np.ndarray) -> Steps:
        del episodes
        return Steps(np.where(mask, 0, 0 if state is None else state.count))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, Steps]:
        del observation, episode_start, deterministic
        wave = 0.6 * np.sin(0.15 * state.count[:, None] + np.arange(self.size))
        return wave.astype(np.float32), Steps(state.count + 1)


def wandered(name: str, condition: str, seeds: list[int]) -> list[Episode]:
    env = make_vector(name, 2, condition, threads=1)
    learner = Wanderer(TASKS[name].action_size)
    return rollout(env, learner, seeds, condition=condition, record_states=True)


def branched(
    name: str, episodes: list[Episode], condition: str = "clean", num: int = 32, length: int = LENGTH, every: int = 1
) -> tuple[list[Episode], Cost]:
    env = make_vector(name, num, condition, threads=1)
    return label_by_branching(env, ScriptedExpert(env), episodes, length, every)


# -- branching --------------------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("condition", TASKS["diffpolicy/PickPlace-v0"].conditions())
def test_label_is_what_the_expert_executes_from_that_state(name: str, condition: str) -> None:
    episodes = wandered(name, condition, [3, 8])
    labelled, _ = branched(name, episodes, condition, every=7)
    single: Any = gymnasium.make(name, condition=condition).unwrapped
    for episode, given in zip(episodes, labelled, strict=True):
        assert given.labels is not None
        assert given.states is None
        assert np.array_equal(given.actions, episode.actions)
        assert episode.states is not None
        for t in (0, 21, 70, 140, 147):
            single.set_state(single.simulations.undisturbed(episode.states[t][None])[0])
            for k in range(LENGTH):
                action = single.expert()
                assert given.labels.valid[t, k]
                assert np.array_equal(given.labels.chunks[t, k], action)
                _, _, terminated, truncated, _ = single.step(action)
                if terminated or truncated:
                    assert not given.labels.valid[t, k + 1 :].any()
                    break


@every_name
@pytest.mark.parametrize("condition", ["clean", "dynamics", "action_delay"])
def test_experts_own_episode_is_its_label(name: str, condition: str) -> None:
    env = make_vector(name, 3, condition, threads=1)
    episodes = rollout(env, ScriptedExpert(env), [0, 1, 2], condition=condition, record_states=True)
    labelled, cost = branched(name, episodes, condition, num=50)
    for episode in labelled:
        steps = len(episode)
        times = np.arange(steps)[:, None] + np.arange(LENGTH)
        assert episode.labels is not None
        assert np.array_equal(episode.labels.valid, times < steps)  # a label ends where its episode does
        assert np.array_equal(
            episode.labels.chunks[times < steps], episode.actions[np.minimum(times, steps - 1)][times < steps]
        )
    valid = sum(int(episode.labels.valid.sum()) for episode in labelled)  # type: ignore[union-attr]
    assert cost == Cost(queries=sum(map(len, episodes)), env_steps=valid)


@every_name
def test_labels_do_not_depend_on_how_many_are_branched_at_once(name: str) -> None:
    episodes = [replace(e, states=e.states[::30], **_thinned(e, 30)) for e in wandered(name, "slip", [5, 6])]  # type: ignore[index]
    (one, cost), (other, _), (third, _) = (branched(name, episodes, "slip", num) for num in (1, 4, 64))
    for a, b, c in zip(one, other, third, strict=True):
        assert a.labels is not None
        assert b.labels is not None
        assert c.labels is not None
        assert np.array_equal(a.labels.chunks, b.labels.chunks)
        assert np.array_equal(a.labels.chunks, c.labels.chunks)
        assert np.array_equal(a.labels.valid, b.labels.valid)
        assert np.array_equal(a.labels.valid, c.labels.valid)
    assert cost.queries == 10


def _thinned(episode: Episode, every: int) -> dict[str, Any]:
    rows = np.arange(0, len(episode), every)
    obs = {name: value[np.append(rows, len(episode))] for name, value in episode.obs.items()}
    return {"obs": obs, "actions": episode.actions[rows], "rewards": episode.rewards[rows]}


@every_name
def test_every_labels_some_states_as_it_would_all(name: str) -> None:
    episodes = wandered(name, "clean", [2])
    (some,), cost = branched(name, episodes, every=40, length=5)
    (all_,), dear = branched(name, episodes, every=10, length=5)
    assert some.labels is not None
    assert all_.labels is not None
    taken = np.arange(0, len(some), 40)
    assert np.array_equal(some.labels.chunks[taken], all_.labels.chunks[taken])
    assert np.flatnonzero(some.labels.valid.any(axis=1)).tolist() == taken.tolist()
    assert np.flatnonzero(all_.labels.valid.any(axis=1)).tolist() == list(range(0, len(some), 10))
    assert cost == Cost(len(taken), int(some.labels.valid.sum()))
    assert dear.queries == 15
    assert cost + dear == Cost(cost.queries + dear.queries, cost.env_steps + dear.env_steps)


@every_name
@pytest.mark.parametrize("condition", ["shove", "slip", "sensor_noise"])
def test_disturbance_still_to_come_is_not_in_the_label(name: str, condition: str) -> None:
    seeds = [0, 1, 2, 3]
    played = {}
    for which in ("clean", condition):
        env = make_vector(name, 4, which, threads=1)
        played[which] = rollout(env, ScriptedExpert(env), seeds, condition=which, record_states=True)
    first = [
        replace(e, obs={k: v[:2] for k, v in e.obs.items()}, actions=e.actions[:1], rewards=e.rewards[:1], states=s[:1])
        for e in played[condition]
        if (s := e.states) is not None
    ]
    labelled, _ = branched(name, first, condition, length=40)
    for given, clean, disturbed in zip(labelled, played["clean"], played[condition], strict=True):
        assert given.labels is not None
        valid = given.labels.valid[0]
        assert np.array_equal(given.labels.chunks[0][valid], clean.actions[:40][valid[: len(clean)]])
        if condition == "shove":
            assert not np.array_equal(given.labels.chunks[0][valid], disturbed.actions[:40][valid[: len(disturbed)]])


@every_name
def test_memory_of_the_expert_starts_fresh_in_each_branch(name: str) -> None:
    size = TASKS[name].action_size
    env = make_vector(name, 8, threads=1)
    labelled, _ = label_by_branching(env, Wanderer(size), wandered(name, "clean", [4]), 6, every=12)
    assert labelled[0].labels is not None
    expected = (0.6 * np.sin(0.15 * np.arange(6)[:, None] + np.arange(size))).astype(np.float32)
    for t in range(0, len(labelled[0]) - 6, 12):
        assert np.array_equal(labelled[0].labels.chunks[t], expected)


@every_name
def test_what_cannot_be_branched_is_refused(name: str) -> None:
    (episode,) = wandered(name, "clean", [1])
    with pytest.raises(InputError, match="record_states=True"):
        branched(name, [replace(episode, states=None)])
    foreign = make_vector("Pendulum-v1", 1)
    with pytest.raises(InputError, match="label by takeover"):
        label_by_branching(foreign, Wanderer(1), [episode], LENGTH)
    foreign.close()


# -- takeover ---------------------------------------------------------------------------------------------------


@every_name
@pytest.mark.parametrize("num", [1, 3])
def test_expert_takes_over_at_the_drawn_step_and_its_segment_is_the_label(name: str, num: int) -> None:
    env, size = make_vector(name, num, threads=1), TASKS[name].action_size
    takeover = Takeover(Wanderer(size), ScriptedExpert(env), latest=40, seed=3)
    episodes = rollout(env, takeover, [5, 1, 9, 2], record_states=True)
    labelled, cost = label_by_takeover(takeover, episodes, LENGTH)
    single: Any = gymnasium.make(name).unwrapped
    queries = 0
    for episode, given in zip(episodes, labelled, strict=True):
        steps, when = len(episode), takeover.step_of(episode.seed)
        assert episode.success  # the expert still finishes
        wave = (0.6 * np.sin(0.15 * np.arange(when)[:, None] + np.arange(size))).astype(np.float32)
        assert np.array_equal(episode.actions[:when], wave)
        assert episode.states is not None
        for t in range(when, steps):
            single.set_state(episode.states[t])
            assert np.array_equal(episode.actions[t], single.expert())
        assert given.labels is not None
        assert given.states is None
        assert not given.labels.valid[:when].any()
        for t in range(when, steps):
            count = min(LENGTH, steps - t)
            assert given.labels.valid[t].tolist() == [True] * count + [False] * (LENGTH - count)
            assert np.array_equal(given.labels.chunks[t, :count], episode.actions[t : t + count])
        queries += steps - when
    assert cost == Cost(queries, 0)


def test_takeover_is_drawn_evenly_by_seed_and_episode() -> None:
    takeover = Takeover(Wanderer(1), Wanderer(1), latest=10, seed=0)
    drawn = [takeover.step_of(episode) for episode in range(2000)]
    assert drawn == [takeover.step_of(episode) for episode in range(2000)]
    share = np.bincount(drawn, minlength=10) / 2000
    assert len(share) == 10
    assert np.allclose(share, 0.1, atol=0.03)
    other = Takeover(Wanderer(1), Wanderer(1), latest=10, seed=1)
    assert drawn != [other.step_of(episode) for episode in range(2000)]


def test_takeover_works_where_nothing_can_be_branched() -> None:
    env = make_vector("Pendulum-v1", 2)

    class Still:
        """An expert without memory, as a model of Stable-Baselines3 is."""

        def predict(
            self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
        ) -> tuple[np.ndarray, None]:
            del state, episode_start
            assert deterministic
            return np.full((len(observation), 1), 1.5, np.float32), None

    takeover = Takeover(Wanderer(1), Still(), latest=100)
    labelled, cost = label_by_takeover(takeover, rollout(env, takeover, [0, 1, 2]), 4)
    for episode in labelled:
        when = takeover.step_of(episode.seed)
        assert (episode.actions[when:] == 1.5).all()
        assert (np.abs(episode.actions[:when]) < 1).all()
    assert cost.queries == sum(200 - takeover.step_of(episode.seed) for episode in labelled)
    env.close()


def test_bad_takeovers_are_refused() -> None:
    with pytest.raises(InputError, match="latest must be at least 1"):
        Takeover(Wanderer(1), Wanderer(1), latest=0)
    with pytest.raises(InputError, match="call begin first"):
        Takeover(Wanderer(1), Wanderer(1), latest=3).predict(np.zeros((1, 1)))
