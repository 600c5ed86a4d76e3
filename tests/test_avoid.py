"""Laws of Avoid: what counts as a touch, which way was taken, and an expert that wishes for any way and copes."""

from __future__ import annotations

import numpy as np
import pytest

from diffpolicy_envs import Condition, Simulations
from diffpolicy_envs.tasks.avoid import FINISH, PILLARS, ROWS, WAYS, Avoid

ROW = np.arange(1)


def begun(num: int = 1, condition: str | Condition = "clean") -> tuple[Simulations, Avoid]:
    sim = Simulations(Avoid, num, condition, threads=1)
    sim.reset(np.arange(num), list(range(num)))
    assert isinstance(sim.task, Avoid)
    return sim, sim.task


def put(sim: Simulations, places: np.ndarray, wishes: np.ndarray | None = None) -> None:
    """Rest the pucks at places (n, 2) [m] among pillars in their own places, with wishes (n, 3) of their experts."""
    task, ids = sim.task, np.arange(len(places))
    assert isinstance(task, Avoid)
    sim.batch.bind("qpos")[ids], sim.batch.bind("qvel")[ids], sim.batch.bind("ctrl")[ids] = places, 0.0, places
    mocap = sim.batch.bind("mocap_pos")
    for j, pillar in enumerate(PILLARS):
        mocap[ids, int(sim.model.body(f"pillar{j}").mocapid[0]), :2] = pillar
    if wishes is not None:
        mocap[ids, int(sim.model.body("wish").mocapid[0])] = wishes
    sim.set_state(ids, sim.get_state(ids))


def played(sim: Simulations) -> tuple[np.ndarray, np.ndarray]:
    """Success (N,) and way (N,) of the expert from here on."""
    live = np.arange(sim.num)
    success, way = np.zeros(sim.num, bool), np.full(sim.num, np.nan)
    while len(live):
        step = sim.step(live, sim.expert(live))
        success[live], way[live] = step.success, step.records["way"]
        live = live[~(step.terminated | step.truncated)]
    return success, way


def digits(ways: np.ndarray) -> np.ndarray:
    """Left (0) or right (1) at each row (n, 3)."""
    return np.asarray((ways[:, None] >> np.array([2, 1, 0])) & 1)


def test_touch_is_where_puck_and_pillar_meet_and_ends_the_episode_as_a_failure() -> None:
    sim, task = begun()
    radii = sim.model.geom("agent").size[0] + sim.model.geom("pillar0").size[0]
    for gap, touched in ((0.0005, False), (-0.0005, True)):
        for angle in np.linspace(0, 2 * np.pi, 7):
            put(sim, PILLARS[:1] + (radii + gap) * np.array([[np.cos(angle), np.sin(angle)]]))
            assert task.clearance(ROW) == pytest.approx(gap, abs=1e-6)
            assert task.failure(ROW)[0] == touched
    put(sim, PILLARS[:1] - [0.0, radii + 0.004])
    step = sim.step(ROW, np.ones((1, 2)))
    assert step.terminated[0]
    assert not step.success[0]
    assert step.terms["touch"][0] <= -0.5 * task.max_steps  # to crash is never cheaper than to stand still


def test_success_is_to_cross_the_line() -> None:
    sim, task = begun()
    for y, crossed in ((FINISH - 1e-4, False), (FINISH + 1e-4, True)):
        put(sim, np.array([[0.1, y]]))
        assert task.success(ROW)[0] == crossed
        assert task.observe(ROW)["finish"][0] == pytest.approx(FINISH - y)


def test_expert_takes_the_way_that_it_wishes_for_and_the_record_tells_it() -> None:
    sim, _ = begun(2 * WAYS)
    ways = np.repeat(np.arange(WAYS), 2)
    put(sim, np.stack([np.tile([-0.04, 0.04], WAYS), np.full(2 * WAYS, -0.25)], axis=1), digits(ways))
    success, taken = played(sim)
    assert success.all()
    assert np.array_equal(taken, ways)


def test_expert_goes_on_by_the_side_that_the_puck_is_on_already_whatever_it_wished_for() -> None:
    sim, _ = begun(8)
    before = np.array([ROWS[0] - 0.06, ROWS[1] - 0.06])
    sides = np.array([-0.02, 0.02])
    ahead = np.array([PILLARS[0, 0], PILLARS[1, 0]])  # straight ahead in the first row, and left in the second
    places = np.array([[ahead[k] + sides[j], before[k]] for k in (0, 1) for j in (0, 1) for _ in (0, 1)])
    put(sim, places, digits(np.array([0, 7] * 4)))
    action = sim.expert(np.arange(8))
    assert np.array_equal(np.sign(action[:, 0] * 0.30 - places[:, 0]), np.sign(np.tile(np.repeat(sides, 2), 2)))
    assert played(sim)[0].all()


def test_wishes_are_all_alike_likely_and_not_observed() -> None:
    sim, task = begun(400)
    wishes = task.wish(np.arange(400)) @ [4, 2, 1]
    assert np.bincount(wishes.astype(int), minlength=WAYS).min() > 30
    before = task.observe(np.arange(400))
    sim.batch.bind("mocap_pos")[:, int(sim.model.body("wish").mocapid[0])] = 1.0
    assert all(np.array_equal(seen, before[name]) for name, seen in task.observe(np.arange(400)).items())


def test_record_counts_decisions_and_takes_back_what_is_undone() -> None:
    sim, task = begun()
    so_far = task.record(ROW, np.zeros((1, 1)))
    assert so_far[0, 0] == -1
    path = (
        ((-0.07, ROWS[0] + 0.02), -2),  # left of the first
        ((-0.07, ROWS[0] - 0.02), -1),  # and back
        ((0.07, ROWS[0] + 0.02), -3),  # right of it
        ((0.0, ROWS[1] + 0.02), -6),  # left of the right one
        ((-0.06, ROWS[2] + 0.02), 4),  # left of the middle one of three
        ((0.06, ROWS[2] - 0.02), -6),
        ((0.06, ROWS[2] + 0.02), 5),
        ((0.06, ROWS[0] - 0.02), -1),
    )
    for place, way in path:
        put(sim, np.array([place]))
        so_far = task.record(ROW, so_far)
        assert so_far[0, 0] == way


def test_expert_copes_from_wherever_a_puck_may_be() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform([-0.25, -0.35], [0.25, 0.30], size=(600, 2))
    gaps = np.sqrt(((places[:, None] - PILLARS) ** 2).sum(axis=2)).min(axis=1)
    places = places[gaps > 0.037 + 0.004]
    sim, _ = begun(len(places))
    put(sim, places, rng.integers(2, size=(len(places), 3)))
    success, _ = played(sim)
    assert success.mean() > 0.98


def test_expert_that_is_already_beside_a_pillar_goes_on_there() -> None:
    sim, _ = begun(2)
    put(sim, np.array([[0.05, ROWS[0] - 0.02], [-0.05, ROWS[0] - 0.02]]), np.array([[0, 0, 0], [1, 1, 1]]))
    success, way = played(sim)
    assert success.all()
    assert way[0] >= 4 > way[1]


def test_knock_moves_the_puck_sideways_yet_never_into_a_pillar() -> None:
    rng = np.random.default_rng(1)
    places = rng.uniform([-0.2, -0.2], [0.2, 0.3], size=(400, 2))
    places = places[np.sqrt(((places[:, None] - PILLARS) ** 2).sum(axis=2)).min(axis=1) > 0.05]
    sim, task = begun(len(places))
    put(sim, places)
    ids = np.arange(sim.num)
    task.shove(ids, rng.uniform(0, 2 * np.pi, sim.num), np.full(sim.num, 1.2))
    still = task.idle_action(ids)
    for _ in range(3):
        sim.step(ids, still)
        assert (task.clearance(ids) > 0).all()
    put(sim, places)
    task.shove(ids, rng.uniform(0, 2 * np.pi, sim.num), np.full(sim.num, 1.2))
    sim.step(ids, still)
    assert np.median(np.linalg.norm(task.agent(ids) - places, axis=1)) > 0.02


def test_wide_starts_hold_the_narrow_ones_and_go_well_beyond() -> None:
    spread = {}
    for condition in ("clean", "wide"):
        _, task = begun(200, condition)
        agent, ids = task.agent(np.arange(200)), np.arange(200)
        spread[condition] = np.concatenate([np.ptp(agent, axis=0), [np.abs(task.pillars(ids) - PILLARS).max()]])
        assert (task.clearance(ids) > 0.05).all()
    assert (spread["wide"] > 2.5 * spread["clean"]).all()
