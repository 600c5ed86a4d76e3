"""Laws of the gymnasium environments: the contract of gymnasium, and one environment equal to one of many."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from registry import every_case, every_name, every_scripted, every_task
from stable_baselines3.common.env_checker import check_env as check_env_sb3

from diffpolicy_envs import TASKS, Task, TaskEnv, TaskVectorEnv


def shortened(task: type[Task], steps: int) -> type[Task]:
    """The task with a time limit of ``steps``."""
    return type("Short", (task,), {"max_steps": steps})


def mixed(env: TaskVectorEnv, time: int) -> np.ndarray:
    """The expert's actions (N, A), with random ones at the start and at every eighth step."""
    rng = np.random.default_rng(time)
    random = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
    return random if time < 4 or time % 8 == 7 else env.expert()


def alike(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


# -- gymnasium --------------------------------------------------------------------------------------------------


@every_case
def test_gymnasium_finds_nothing_wrong(task: type[Task], condition: str) -> None:
    name = next(name for name, registered in TASKS.items() if registered is task)
    env = gymnasium.make(name, condition=condition, render_mode="rgb_array", width=32, height=24)
    check_env(env.unwrapped)
    env.close()


@every_name
def test_stable_baselines_finds_nothing_wrong(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array", width=16, height=12)
    check_env_sb3(env.unwrapped)
    env.close()


@every_name
def test_environments_are_made_by_name(name: str) -> None:
    single = gymnasium.make(f"diffpolicy_envs:{name}", condition="hard")
    many = gymnasium.make_vec(name, num_envs=2, vectorization_mode="vector_entry_point")
    assert isinstance(single.unwrapped, TaskEnv)
    assert isinstance(many.unwrapped, TaskVectorEnv)
    assert many.single_observation_space == single.observation_space
    assert many.single_action_space == single.action_space
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for space in single.observation_space.spaces.values():  # type: ignore[attr-defined]
        assert space.dtype == np.float32
        assert len(space.shape) == 1
        assert np.isfinite([space.low, space.high]).all()
    with pytest.raises(ValueError, match=f"unknown condition 'storm': task {TASKS[name].__name__} knows clean, "):
        gymnasium.make(name, condition="storm")


@every_case
def test_observations_stay_in_bounds_under_random_actions(task: type[Task], condition: str) -> None:
    env = TaskVectorEnv(task, 2, condition, threads=1)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    for _ in range(150):
        assert env.observation_space.contains(observation)
        assert all(v.dtype == np.float32 and np.isfinite(v).all() for v in observation.values())
        observation, reward, *_ = env.step(env.action_space.sample())
        assert np.isfinite(reward).all()


@every_task
def test_reward_is_the_sum_of_its_terms(task: type[Task]) -> None:
    many, single = TaskVectorEnv(task, 3, threads=1), TaskEnv(task)
    many.reset(seed=0)
    single.reset(seed=0)
    for time in range(70):
        action = mixed(many, time)
        _, reward, _, _, info = many.step(action)
        terms = [value for name, value in info.items() if name.startswith("reward/")]
        assert len(terms) >= 2
        assert np.allclose(np.sum(terms, axis=0), reward, rtol=0, atol=1e-12)
        _, one, terminated, _, info = single.step(action[0])
        assert one == pytest.approx(sum(v for name, v in info.items() if name.startswith("reward/")), abs=1e-12)
        if terminated:
            break


@every_scripted
def test_success_ends_the_episode_and_is_told_by_both_names(task: type[Task]) -> None:
    env = TaskVectorEnv(task, 4, threads=1, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    ended = np.zeros(4, bool)
    while not ended.all():
        _, _, terminated, truncated, info = env.step(env.expert())
        for name in ("success", "is_success"):
            assert info[name].dtype == bool
            assert not (info[name] & ~terminated).any()
        assert not (terminated & truncated).any()
        assert not (terminated & ended).any()
        ended |= terminated | truncated

    single = TaskEnv(task)
    single.reset(seed=0)
    terminated = False
    while not terminated:
        _, _, terminated, truncated, info = single.step(single.expert())
        assert info["success"] is info["is_success"] is terminated
        assert not truncated


@every_task
def test_time_limit_truncates(task: type[Task]) -> None:
    env = TaskEnv(task)
    env.reset(seed=0)
    still = env.simulations.task.idle_action(np.arange(1))[0]
    flags = [env.step(still)[2:4] for _ in range(task.max_steps)]
    assert flags == [(False, False)] * (task.max_steps - 1) + [(False, True)]


# -- single and vector ------------------------------------------------------------------------------------------


@every_case
def test_single_and_vector_are_bit_identical(task: type[Task], condition: str) -> None:
    many = TaskVectorEnv(task, 3, condition, threads=2)
    singles = [TaskEnv(task, condition) for _ in range(3)]
    together, _ = many.reset(seed=5)
    for i, env in enumerate(singles):
        alone, _ = env.reset(seed=5 + i)
        assert alike(alone, {name: value[i] for name, value in together.items()})
    live = np.ones(3, bool)
    for time in range(40):
        action = mixed(many, time)
        together, reward, terminated, truncated, info = many.step(action)
        expert, state = many.expert(), many.get_state()
        for i, env in enumerate(singles):
            if not live[i]:
                continue
            alone, *rest = env.step(action[i])
            assert alike(alone, {name: value[i] for name, value in together.items()})
            assert rest[:3] == [reward[i], terminated[i], truncated[i]]
            assert rest[3] == {name: info[name][i] for name in info if not name.startswith("_")}
            assert np.array_equal(env.expert(), expert[i])
            assert np.array_equal(env.get_state(), state[i])
        live &= ~(terminated | truncated)


@every_task
def test_reset_with_a_seed_gives_its_episode_and_without_one_the_next(task: type[Task]) -> None:
    one, other = TaskEnv(task), TaskEnv(task)
    many, listed = TaskVectorEnv(task, 2, threads=1), TaskVectorEnv(task, 2, threads=1)
    other.reset(seed=99)
    starts = []
    for seed in (3, None, None, 3):
        start, _ = one.reset(seed=seed)
        assert alike(other.reset(seed=seed)[0], start)
        for env, seeds in ((many, seed), (listed, None if seed is None else [3, 4])):
            assert alike({name: v[0] for name, v in env.reset(seed=seeds)[0].items()}, start)
        starts.append(np.concatenate(list(start.values())))
    assert np.array_equal(starts[0], starts[3])
    assert len(np.unique(starts, axis=0)) == 3


@every_task
def test_first_reset_without_a_seed_is_a_surprise(task: type[Task]) -> None:
    envs = [TaskEnv(task), TaskEnv(task), TaskVectorEnv(task, 2, threads=1), TaskVectorEnv(task, 2, threads=1)]
    assert envs[1].np_random.random() < 1  # looking at the generator changes nothing about it
    starts = [np.concatenate(list(env.reset()[0].values()), axis=-1) for env in envs]
    assert len(np.unique(np.concatenate([np.atleast_2d(start) for start in starts]), axis=0)) == 6
    partly, _ = envs[2].reset(seed=[1, None])
    again, _ = TaskVectorEnv(task, 2, threads=1).reset(seed=[1, None])
    assert all(np.array_equal(partly[name][0], again[name][0]) for name in partly)


# -- autoreset --------------------------------------------------------------------------------------------------


def paired(task: type[Task], mode: AutoresetMode, num: int = 3) -> tuple[TaskVectorEnv, SyncVectorEnv]:
    ours = TaskVectorEnv(task, num, "sensor_noise", threads=1, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: TaskEnv(task, "sensor_noise")] * num, autoreset_mode=mode)
    return ours, theirs


def assert_same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What gymnasium tells of an environment, ours tells too; and where ours tells more, it is masked out."""
    for name in theirs:
        if name == "final_info":
            assert_same_infos(ours[name], theirs[name])
        elif name == "final_obs":
            for one, other in zip(ours[name], theirs[name], strict=True):
                assert (one is None and other is None) or alike(one, other)
        else:
            assert np.array_equal(ours[name], theirs[name]), name
    assert not any(np.any(ours[name]) for name in ours.keys() - theirs.keys())


@every_task
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_autoreset_follows_gymnasiums_own_vector_environment(task: type[Task], mode: AutoresetMode) -> None:
    ours, theirs = paired(shortened(task, 48), mode)
    assert ours.metadata["autoreset_mode"] is mode
    assert alike(ours.reset(seed=2)[0], theirs.reset(seed=2)[0])
    ends = 0
    for time in range(120):
        action = ours.expert()
        if time == 10:  # out of step with the others from now on
            mask = np.array([False, True, False])
            reset = [
                e.reset(seed=[None, 40, None], options={"reset_mask": mask.copy()})[0]  # type: ignore[arg-type]
                for e in (ours, theirs)
            ]
            assert alike(*reset)
        one, other = ours.step(action), theirs.step(action)
        assert alike(one[0], other[0])
        for i in (1, 2, 3):
            assert np.array_equal(one[i], other[i])
            assert one[i].dtype == other[i].dtype
        assert_same_infos(one[4], other[4])
        done = one[2] | one[3]
        ends += int(done.sum())
        if mode is AutoresetMode.DISABLED and done.any():
            assert alike(*(e.reset(options={"reset_mask": done.copy()})[0] for e in (ours, theirs)))
    assert ends >= 6


@every_task
def test_finished_simulation_stands_still_when_autoreset_is_disabled(task: type[Task]) -> None:
    env = TaskVectorEnv(shortened(task, 6), 3, threads=1, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    still = env.simulations.task.idle_action(np.arange(3))
    for _ in range(3):
        env.step(still)
    env.reset(seed=[None, 5, None], options={"reset_mask": np.array([False, True, False])})
    for _ in range(3):
        observation, _, terminated, truncated, _ = env.step(still)
    assert (terminated | truncated).tolist() == [True, False, True]
    state = env.get_state()
    for time in range(5):
        later, reward, terminated, truncated, info = env.step(still)
        assert (terminated | truncated).tolist() == [False, time == 2, False]
        assert np.array_equal(reward != 0, [False, time < 3, False])
        for name in observation:
            assert np.array_equal(later[name][[0, 2]], observation[name][[0, 2]])
        assert np.array_equal(env.get_state()[[0, 2]], state[[0, 2]])
        assert "_success" not in info or info["_success"].tolist() == [False, time < 3, False]
    env.set_state(state[1:2], np.array([0]))  # another life
    assert env.step(still)[1][0] != 0


# -- bad input --------------------------------------------------------------------------------------------------


@every_task
def test_bad_seeds_masks_and_actions_are_refused(task: type[Task]) -> None:
    env, single = TaskVectorEnv(task, 2, threads=1), TaskEnv(task)
    env.reset(seed=0)
    single.reset(seed=0)
    before = env.get_state()
    for seed in (-1, 1.5, 2**60, [1, -1], [1, 0.5]):
        with pytest.raises(ValueError, match="expected a seed"):
            env.reset(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected 2 seeds, one per simulation, got 3"):
        env.reset(seed=[1, 2, 3])
    for seed in (-1, 1.5, 2**60):
        with pytest.raises(ValueError, match="expected a seed"):
            single.reset(seed=seed)  # type: ignore[arg-type]
    for mask in (np.zeros(2, bool), np.ones(3, bool), np.ones(2, int)):
        with pytest.raises(ValueError, match="reset_mask must be a boolean array"):
            env.reset(options={"reset_mask": mask})
    size = task.action_size
    for action in (np.zeros((2, size + 1)), np.zeros(size), np.full((2, size), np.nan)):
        with pytest.raises(ValueError, match=r"expected .*actions of shape"):
            env.step(action)
    for action in (np.zeros(size + 1), np.zeros((1, size)), np.full(size, np.nan)):
        with pytest.raises(ValueError, match=r"expected .*actions of shape"):
            single.step(action)
    with pytest.raises(ValueError, match="expected finite states of shape"):
        env.set_state(before[:, 1:])
    assert np.array_equal(env.get_state(), before)


# -- pictures ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=list(TASKS.values()), ids=lambda task: task.__name__)
def drawing(request: pytest.FixtureRequest) -> Iterator[TaskEnv]:
    env = TaskEnv(request.param, render_mode="rgb_array", width=48, height=32)
    env.reset(seed=0)
    yield env
    env.close()


def test_picture_shows_the_state_and_does_not_change_it(drawing: TaskEnv) -> None:
    state = drawing.get_state()
    first = drawing.render()
    assert first is not None
    assert first.shape == (32, 48, 3)
    assert first.dtype == np.uint8
    assert first.std() > 5
    assert np.array_equal(drawing.get_state(), state)
    drawing.reset(seed=1)
    assert not np.array_equal(drawing.render(), first)
    drawing.set_state(state)
    assert np.array_equal(drawing.render(), first)


@every_task
def test_vector_environment_draws_every_simulation_as_the_single_one_would(task: type[Task]) -> None:
    many = TaskVectorEnv(task, 2, threads=1, render_mode="rgb_array", width=32, height=24)
    many.reset(seed=0)
    frames = many.render()
    assert frames is not None
    single = TaskEnv(task, render_mode="rgb_array", width=32, height=24)
    for i, frame in enumerate(frames):
        single.reset(seed=i)
        assert np.array_equal(frame, single.render())
    assert not np.array_equal(*frames)
    many.close()
    single.close()


@every_task
def test_render_mode_is_none_or_an_array(task: type[Task]) -> None:
    assert TaskEnv(task).render() is None
    assert TaskVectorEnv(task, 2).render() is None
    with pytest.raises(ValueError, match="render_mode must be"):
        TaskEnv(task, render_mode="human")
