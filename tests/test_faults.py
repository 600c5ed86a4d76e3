"""Laws of environments that break: the episode is dropped and reported, all others are what they would have been."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

import diffpolicy_envs
from diffpolicy.data.episode import Episode
from diffpolicy.errors import InputError
from diffpolicy.rollout.environment import branching, make_vector
from diffpolicy.rollout.faults import Dropped, count_of
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import play, rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs import TASKS

TASK = "diffpolicy/PickPlace-v0"
BOX = spaces.Box(-1000.0, 1000.0, (2,), np.float32)
SEEDS = [4, 1, 6, 3, 0, 5, 2, 9, 8]
STEPS = 5


class Faulty(gymnasium.Env[Any, Any]):
    """Shows (seed, time) for five steps; where seed % 4 == 1 something goes wrong, and nothing works from then on."""

    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    made: ClassVar[int] = 0

    def __init__(self, how: str = "nothing", where: int = 3, named: bool = False) -> None:
        self.observation_space = spaces.Dict({"a": BOX, "b": BOX}) if named else BOX
        self.how, self.where, self.named, self.dead = how, where, named, False
        type(self).made += 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.seed, self.time = seed, 0
        return self.seen(), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        seen, reward = self.seen(), float(action[0])
        if self.strikes and self.how.startswith("reward"):
            reward = {"reward nan": np.nan, "reward text": "much", "reward huge": 1e300}[self.how]  # type: ignore
        return seen, reward, False, self.time == STEPS, {"success": self.seed == 0}

    @property
    def strikes(self) -> bool:
        return self.seed is not None and self.seed % 4 == 1 and self.time == self.where

    def seen(self) -> Any:
        if self.dead:
            raise RuntimeError("broken before")
        row: Any = np.array([self.seed, self.time], np.float32)
        if self.strikes and self.how != "nothing":
            self.dead = True
            match self.how:
                case "raise":
                    raise RuntimeError("the gripper\nfell off")
                case "exit":
                    raise SystemExit(3)
                case "interrupt":
                    raise KeyboardInterrupt
                case "memory":
                    raise MemoryError
            others = {
                "nan": row * np.nan, "inf": row + np.inf, "huge": row.astype(np.float64) + 1e300, "long": np.zeros(3),
                "text": "hello", "ragged": [[1.0], 2.0], "nothing there": None, "missing": {"a": row},
            }  # fmt: skip
            row = others.get(self.how, row)
        return row if not self.named or isinstance(row, dict) else {"a": row, "b": row}


if "Faulty-v0" not in gymnasium.registry:
    gymnasium.register("Faulty-v0", Faulty, disable_env_checker=True)


class Still:
    """An actor that pushes as hard as its observation's time says."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        rows = observation["a"] if isinstance(observation, dict) else observation
        return rows[:, 1:] / 10, None


def played(num: int, seeds: list[int] = SEEDS, **options: Any) -> tuple[list[Episode], list[Dropped]]:
    lost: list[Dropped] = []
    env = make_vector("Faulty-v0", num, **options)
    episodes = rollout(env, Still(), seeds, dropped=lost.append)
    env.close()
    return episodes, lost


def assert_same(some: list[Episode], others: list[Episode]) -> None:
    assert [episode.seed for episode in some] == [episode.seed for episode in others]
    for one, other in zip(some, others, strict=True):
        assert all(np.array_equal(one.obs[name], other.obs[name]) for name in one.obs)
        assert np.array_equal(one.actions, other.actions)
        assert np.array_equal(one.rewards, other.rewards)
        assert (one.truncated, one.terminated, one.success) == (other.truncated, other.terminated, other.success)


HOW = {
    "raise": "RuntimeError: the gripper fell off",
    "nan": "not finite",
    "inf": "not finite",
    "huge": "not finite",
    "long": r"should be float32 of shape \(2,\), got float64 of shape \(3,\)",
    "text": "should be float32",
    "ragged": "should be an array",
    "nothing there": "should be float32",
}


@pytest.mark.parametrize("where", [0, 1, 3, STEPS])
@pytest.mark.parametrize("how", HOW)
def test_an_episode_that_breaks_is_dropped_and_the_others_are_what_they_would_have_been(how: str, where: int) -> None:
    healthy, none = played(3)
    assert none == []
    for num in (1, 3, 20):
        before = Faulty.made
        episodes, lost = played(num, how=how, where=where)
        assert_same(episodes, [episode for episode in healthy if episode.seed % 4 != 1])
        assert sorted(each.seed for each in lost) == [1, 5, 9]
        for each in lost:
            assert (each.environment, each.condition, each.step) == ("Faulty-v0", "clean", where)
            assert "\n" not in each.error
            assert re.search(HOW[how], each.error)
        assert num > 1 or Faulty.made == before + 1 + 3  # made again after each


@pytest.mark.parametrize("how", ["reward nan", "reward text", "reward huge"])
def test_a_reward_that_is_no_number_drops_its_episode(how: str) -> None:
    episodes, lost = played(4, how=how)
    assert_same(episodes, [episode for episode in played(4)[0] if episode.seed % 4 != 1])
    assert {(each.seed, each.step) for each in lost} == {(1, 3), (5, 3), (9, 3)}
    assert all("reward" in each.error or "float" in each.error for each in lost)


@pytest.mark.parametrize("how", ["missing", "nan", "text"])
def test_a_named_observation_that_breaks_is_named(how: str) -> None:
    episodes, lost = played(2, how=how, named=True)
    assert_same(episodes, [episode for episode in played(2, named=True)[0] if episode.seed % 4 != 1])
    assert "['a', 'b'], got ['a']" in lost[0].error if how == "missing" else "'a'" in lost[0].error


@pytest.mark.parametrize("where", [0, 3])
def test_without_a_listener_the_error_says_which_episode_broke_and_how(where: int) -> None:
    env = make_vector("Faulty-v0", 2, how="raise", where=where)
    when = "step 3" if where else "the reset"
    with pytest.raises(InputError, match=f"Faulty-v0, clean, reset seed 5, {when}: RuntimeError: the gripper fell off"):
        rollout(env, Still(), [4, 5, 6])
    env.close()


@pytest.mark.parametrize(
    ("how", "error"), [("interrupt", KeyboardInterrupt), ("exit", SystemExit), ("memory", MemoryError)]
)
@pytest.mark.parametrize("where", [0, 2])
def test_what_is_no_fault_of_an_episode_goes_through(how: str, error: type[BaseException], where: int) -> None:
    with pytest.raises(error):
        played(2, how=how, where=where)
    if how == "interrupt":  # the loop may also be interrupted by its listener
        with pytest.raises(KeyboardInterrupt):
            rollout(make_vector("Faulty-v0", 1), Still(), [2], finished=_interrupt)


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def test_where_every_reset_fails_nothing_is_left() -> None:
    assert played(2, [1, 5, 9, 13], how="raise", where=0)[0] == []


def test_an_environment_that_cannot_be_made_again_says_so(monkeypatch: Any) -> None:
    made = itertools.count()

    def once(self: Faulty, how: str = "raise") -> None:
        if next(made) >= 2:
            raise OSError("no more licences")
        self.how, self.where, self.named, self.dead, self.observation_space = how, 3, False, False, BOX

    monkeypatch.setattr(Faulty, "__init__", once)
    env = make_vector("Faulty-v0", 2)
    lost: list[Dropped] = []
    episodes = rollout(env, Still(), [1, 2, 3, 4, 6, 7], dropped=lost.append)
    assert sorted([e.seed for e in episodes] + [each.seed for each in lost]) == [1, 2, 3, 4, 6, 7]
    assert {each.error for each in lost[1:]} == {"OSError: no more licences"}


def test_an_environment_that_cannot_be_made_at_all_is_refused_in_words() -> None:
    with pytest.raises(InputError, match=r"Faulty-v0 could not be made: TypeError: .*colour"):
        make_vector("Faulty-v0", 1, colour="red")


def test_what_is_dropped_is_told_by_reason() -> None:
    lost = played(3, how="raise")[1]
    assert count_of(lost).startswith("3 episodes dropped: 3 x Faulty-v0, clean, reset seed")
    assert count_of(lost[:1]).startswith("1 episode dropped: ")
    many = [Dropped("E", "clean", n, n, f"error {n}") for n in range(9)]
    assert "6 further reasons" in count_of(many)


# -- success ----------------------------------------------------------------------------------------------------


class Saying(gymnasium.Env[Any, Any]):
    """One step; then info has the success that it was told."""

    observation_space, action_space = BOX, spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, said: Any, other: Any = None) -> None:
        self.said, self.other = said, other

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.odd = bool(seed is not None and seed % 2)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        said = self.other if self.odd and self.other is not None else self.said
        info = {} if isinstance(said, str) and said == "silence" else {"success": said}
        return np.zeros(2, np.float32), 0.0, True, False, {**info, "free": {} if self.odd else [1.0, 2.0]}


if "Saying-v0" not in gymnasium.registry:
    gymnasium.register("Saying-v0", Saying, disable_env_checker=True)


@pytest.mark.parametrize(
    ("said", "known", "success"),
    [
        (True, True, True), (np.bool_(True), True, True), (1, True, True), (1.0, True, True),
        (np.array([1.0]), True, True), (np.float32(0.0), True, False), (False, True, False), (0, True, False),
        (None, False, False), (float("nan"), False, False), ("silence", False, False),
    ],
)  # fmt: skip
def test_any_truth_value_is_a_success_and_silence_is_none(said: Any, known: bool, success: bool) -> None:
    record = play(make_vector("Saying-v0", 2, said=said), Still(), [0, 1, 2])
    assert record.reports_success == known
    assert [episode.success for episode in record.episodes] == [success] * 3


@pytest.mark.parametrize("said", ["yes", {"left": True}, np.zeros(3), [True, False]])
def test_a_success_that_is_no_truth_value_is_refused_in_words(said: Any) -> None:
    with pytest.raises(InputError, match=r"expected info\['success'\] to be true, false or a number"):
        rollout(make_vector("Saying-v0", 2, said=said), Still(), [0, 1, 2])


def test_kinds_of_truth_values_may_change_from_episode_to_episode() -> None:
    env = make_vector("Saying-v0", 2, said=True, other=np.array(0.0))
    assert [episode.success for episode in rollout(env, Still(), [0, 1, 2, 3])] == [True, False, True, False]


# -- ours -------------------------------------------------------------------------------------------------------


class Saboteur(ScriptedExpert):
    """The expert, who also makes the physics of simulation 1 diverge at its twentieth decision."""

    def __init__(self, env: Any, value: float) -> None:
        super().__init__(env)
        self.batch, self.value, self.left = env.unwrapped.simulations.batch, value, 20

    def predict(self, *words: Any, **options: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.batch.state[1, 5:] = self.value
        return super().predict(*words, **options)


@pytest.mark.parametrize("value", [np.nan, 1e15])
def test_an_episode_of_ours_whose_physics_diverges_is_dropped(value: float, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_vector(TASK, 3, "shove", threads=1)
    healthy = rollout(env, ScriptedExpert(env), [3, 8, 5, 1, 2], condition="shove")
    lost: list[Dropped] = []
    episodes = rollout(env, Saboteur(env, value), [3, 8, 5, 1, 2], condition="shove", dropped=lost.append)
    assert [(each.environment, each.condition, each.seed, each.step) for each in lost] == [(TASK, "shove", 8, 20)]
    assert_same(episodes, [episode for episode in healthy if episode.seed != 8])
    assert list(tmp_path.iterdir()) == []  # MuJoCo writes no log into the working folder


def test_a_row_of_ours_that_is_not_finite_is_dropped() -> None:
    env = make_vector(TASK, 2, threads=1)
    observe, left = env.unwrapped.simulations.observe, itertools.count()  # type: ignore[attr-defined]

    def blind(ids: Any) -> Any:
        seen = observe(ids)
        if next(left) == 7:
            next(iter(seen.values()))[0] = np.nan
        return seen

    healthy = rollout(env, ScriptedExpert(env), [3, 8, 5])
    env.unwrapped.simulations.observe = blind  # type: ignore[attr-defined]
    lost: list[Dropped] = []
    episodes = rollout(env, ScriptedExpert(env), [3, 8, 5], dropped=lost.append)
    assert [each.seed for each in lost] == [3]
    assert lost[0].error.startswith("observation '")
    assert_same(episodes, [episode for episode in healthy if episode.seed != 3])


# -- labels -----------------------------------------------------------------------------------------------------


class Moody(ScriptedExpert):
    """The expert, who refuses in states that were marked, or answers with NaN there."""

    def __init__(self, env: Any, marked: np.ndarray, nan: bool = False) -> None:
        super().__init__(env)
        self.env, self.marked, self.nan = branching(env), marked, nan

    def predict(self, observation: Any, state: Any = None, *words: Any, **options: Any) -> Any:
        actions, rows = super().predict(observation, state, *words, **options)
        assert self.env is not None
        now = self.env.undisturbed(self.env.get_state()[rows.index])
        bad = (now[:, None] == self.marked[None]).all(axis=2).any(axis=1)
        if bad.any() and not self.nan:
            raise ValueError("I do not know this one")
        return np.where(bad[:, None], np.nan, actions), rows


@pytest.mark.parametrize("nan", [False, True])
def test_a_label_that_breaks_is_invalid_and_the_others_are_what_they_would_have_been(nan: bool) -> None:
    env = make_vector(TASK, 2, threads=1)
    episodes = rollout(env, ScriptedExpert(env), [3, 8], record_states=True)
    branches = make_vector(TASK, 16, threads=1)
    labelled, cost = label_by_branching(branches, ScriptedExpert(branches), episodes, 6, every=3)
    marked = branches.unwrapped.undisturbed(episodes[1].states[[9, 30]])  # type: ignore[attr-defined, index]
    moody, paid = label_by_branching(branches, Moody(branches, marked, nan), episodes, 6, every=3)
    assert (cost.failed, paid.queries) == (0, cost.queries)
    broken = {(1, t) for m in (9, 30) for t in range(m - 5, m + 1) if t % 3 == 0}  # branches that come by
    assert paid.failed == len(broken)
    for number, (one, other) in enumerate(zip(labelled, moody, strict=True)):
        assert one.labels is not None
        assert other.labels is not None
        for t in range(0, len(one), 3):
            if (number, t) in broken:
                assert not other.labels.valid[t].any()
            else:
                assert np.array_equal(one.labels.valid[t], other.labels.valid[t])
                assert np.array_equal(one.labels.chunks[t], other.labels.chunks[t])


def test_a_labeller_that_always_breaks_is_refused_in_words() -> None:
    class Never(ScriptedExpert):
        def predict(self, *words: Any, **options: Any) -> Any:
            raise ValueError("never")

    env = make_vector(TASK, 4, threads=1)
    episodes = rollout(env, ScriptedExpert(env), [3], record_states=True)
    with pytest.raises(InputError, match=r"more than half of \d+ labels failed.*ValueError: never"):
        label_by_branching(env, Never(env), episodes, 6)


class Numberless(TASKS["diffpolicy/Reach-v0"]):  # type: ignore[misc]
    """Reach whose third episode has a record that is no number."""

    records = ("miss",)

    def __init__(self, batch: Any) -> None:
        super().__init__(batch)
        self.begun, self.odd = -1, np.zeros(len(batch.state))  # it is placed once before, to see whether that works

    def place(self, ids: Any, rngs: Any, start: Any) -> None:
        super().place(ids, rngs, start)
        for i in ids:
            self.begun += 1
            self.odd[i] = np.nan if self.begun == 3 else 0.0

    def record(self, ids: Any, so_far: Any) -> Any:
        return self.odd[ids][:, None] + np.zeros_like(so_far)


diffpolicy_envs.register("Numberless-v0", Numberless)


def test_a_record_that_is_no_number_drops_its_episode() -> None:
    lost: list[Dropped] = []
    env = make_vector("Numberless-v0", 1, threads=1)
    episodes = rollout(env, ScriptedExpert(env), [3, 8, 5, 6, 2], dropped=lost.append)
    assert [episode.seed for episode in episodes] == [3, 8, 6, 2]
    assert [(each.seed, each.error) for each in lost] == [(5, "record 'miss' is not finite")]
    assert lost[0].step > 0
    env.close()
