"""Laws of the counter-based noise."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from diffpolicy.diffusion.noise import counter_noise


def draw(episodes: list[int], decisions: list[int], seed: int = 3, shape: tuple[int, ...] = (4, 2)) -> np.ndarray:
    return counter_noise(seed, np.array(episodes, np.int64), np.array(decisions, np.int64), shape)


def test_a_row_does_not_depend_on_its_batch() -> None:
    batch = draw([7, 5, 9, 5], [0, 1, 2, 3])
    for row, (episode, decision) in enumerate([(7, 0), (5, 1), (9, 2), (5, 3)]):
        assert np.array_equal(batch[row], draw([episode], [decision])[0])


def test_seed_episode_and_decision_each_give_other_noise() -> None:
    rows = np.concatenate(
        [draw([1, 2, 1], [0, 0, 1]), draw([1], [0], seed=4), draw([0], [1]), draw([-1], [0], seed=-3)]
    )
    assert len({row.tobytes() for row in rows}) == len(rows)


def test_a_longer_shape_continues_a_shorter_one() -> None:
    assert np.array_equal(draw([6], [2], shape=(5, 4, 2))[:, 0], draw([6], [2]))


def test_noise_is_standard_normal_within_and_across_rows() -> None:
    rows = draw(list(range(500)), [0] * 500, shape=(40,))
    assert rows.dtype == np.float32
    assert abs(rows.mean()) < 0.03
    assert abs(rows.std() - 1) < 0.03
    within = (rows[:, 1:] * rows[:, :-1]).mean()
    across = (rows[1:] * rows[:-1]).mean()
    assert max(abs(within), abs(across)) < 0.03


def test_a_row_is_one_stream_of_philox() -> None:
    key, counter = np.array([3, 7], np.uint64), np.array([0, 0, 0, 2], np.uint64)
    stream = np.random.Generator(np.random.Philox(key=key, counter=counter))
    assert np.array_equal(draw([7], [2])[0], stream.standard_normal((4, 2), np.float32))


def test_threads_do_not_disturb_each_other() -> None:
    alone = [draw([episode], [0], shape=(5000,)) for episode in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda episode: draw([episode], [0], shape=(5000,)), range(8)))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_no_rows_give_no_noise() -> None:
    assert draw([], []).shape == (0, 4, 2)


def test_noise_and_settings_need_no_torch() -> None:
    code = "import sys, diffpolicy.diffusion.noise, diffpolicy.policy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
