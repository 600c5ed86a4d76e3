"""Laws of PushT: what covers what, when it is done, and that a warm planner does it."""

from __future__ import annotations

from typing import Any

import numpy as np
from registry import THOROUGH

from diffpolicy_envs import TASKS, Condition, Simulations, Task
from diffpolicy_envs.overlap import covered
from diffpolicy_envs.strokes import PARTS

PUSH_T = TASKS["diffpolicy/PushT-v0"]


def begun(num: int, condition: str | Condition = "clean", task: type[Task] = PUSH_T, seed: int = 0) -> Simulations:
    sim = Simulations(task, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(seed, seed + num)))
    return sim


def laid(sim: Simulations, shift: np.ndarray, turn: np.ndarray) -> Any:
    """The task, its Ts moved from the goal by ``shift`` (N, 2) [m] and ``turn`` (N,) [rad]."""
    task: Any = sim.task
    ids = np.arange(sim.num)
    goal = task._goal
    angle = goal[2] + turn
    centre = goal[:2] + shift + 0.285 / 7 * np.stack([-np.sin(angle), np.cos(angle)], axis=1)
    task._qpos[ids, :3] = np.column_stack([centre, angle])
    return task


def test_overlap_is_what_a_fine_grid_counts() -> None:
    rng = np.random.default_rng(0)
    shift, turn = rng.uniform(-0.08, 0.08, (20, 2)), rng.uniform(-np.pi, np.pi, 20)
    x, y = np.meshgrid(np.arange(-0.06, 0.06, 0.0004) + 0.0002, np.arange(0.0, 0.12, 0.0004) + 0.0002)

    def inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.any([(abs(x - cx) <= hx) & (abs(y - cy) <= hy) for cx, cy, hx, hy in PARTS], axis=0)

    ours = covered(PARTS, shift, turn)
    shape = inside(x, y)
    for (dx, dy), angle, share in zip(shift, turn, ours, strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        there = inside(cos * (x - dx) + sin * (y - dy), -sin * (x - dx) + cos * (y - dy))
        assert abs((shape & there).sum() / shape.sum() - share) < 0.003
    assert np.allclose(covered(PARTS, np.zeros((3, 2)), np.array([0.0, 2 * np.pi, -4 * np.pi])), 1.0)
    assert np.array_equal(covered(PARTS, shift[4:5], turn[4:5]), ours[4:5])  # whatever else is asked


def test_success_is_95_percent_covered() -> None:
    sim, ids = begun(4), np.arange(4)
    shift = np.array([[0.0, 0.0], [0.002, 0.002], [0.001, 0.001], [0.0, 0.0]])
    task = laid(sim, shift, np.array([0.0, 0.0, 0.0, 0.06]))
    coverage = task.coverage(ids)
    assert coverage[0] > 1 - 1e-9
    assert 0.94 < coverage[1] < 0.95
    assert np.array_equal(task.success(ids), coverage >= 0.95)
    assert task.success(ids).tolist() == [True, False, True, False]


def test_cost_and_reward_get_better_towards_the_goal() -> None:
    sim, ids = begun(5), np.arange(5)
    way = np.linspace(1.0, 0.0, 5)
    task = laid(sim, way[:, None] * [0.1, -0.05], 1.5 * way)
    assert (np.diff(task.distance(ids)) < 0).all()
    assert (np.diff(sum(task.reward_terms(ids).values())) > 0).all()


def test_most_coverage_is_kept() -> None:
    sim, ids = begun(2, Condition("kicked", shove_speed=(1.5, 1.5), shove_window=(6, 7))), np.arange(2)
    laid(sim, np.array([[0.004, 0.0], [0.0, 0.004]]), np.zeros(2))
    still = sim.task.idle_action(ids)
    seen = [sim.step(ids, still).records for _ in range(12)]
    now, most = (np.stack([each[name] for each in seen]) for name in ("coverage", "max_coverage"))
    assert (np.diff(most, axis=0) >= 0).all()
    assert np.array_equal(most, np.maximum.accumulate(np.maximum(now, most[0]), axis=0))
    assert (now[-1] < most[-1] - 0.05).all()  # it was kicked away


def test_starts_lie_within_the_frame_and_wide_ones_reach_the_walls() -> None:
    for start in ("narrow", "wide"):
        sim = begun(60, Condition("own", start=start))  # type: ignore[arg-type]
        corners = sim.observe(np.arange(60))["corners"]
        assert (corners > -1e-4).all()
        assert (corners < 0.512 + 1e-4).all()
        assert not sim.task.success(np.arange(60)).any()
    assert (np.minimum(corners, 0.512 - corners).min(axis=1) < 0.005).sum() > 10


def test_planner_solves_it() -> None:
    thorough = type("PushT", (PUSH_T,), {"planning": THOROUGH[PUSH_T]})
    sim = begun(4, "clean", thorough, seed=1000)
    live, success = np.arange(4), np.zeros(4, bool)
    while len(live):
        step = sim.step(live, sim.expert(live))
        success[live] = step.success
        live = live[~(step.terminated | step.truncated)]
    assert success.all()


def test_a_pusher_far_from_the_t_sets_out_for_it() -> None:
    """The way there betters the cost by less than the margin, which must not hold it where it idles."""
    sim = begun(1, "wide", PUSH_T, seed=1_000_000_001)
    one = np.arange(1)

    def apart() -> float:
        return float(np.hypot(*(sim.task.pusher(one) - sim.task.pose(one)[0])[0]))

    far = apart()
    for _ in range(40):
        sim.step(one, sim.expert(one))
    assert far > 0.35
    assert apart() < 0.2
