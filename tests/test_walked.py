"""Laws of paired distillation's source: whose chains it holds, how often each is used, what a batch depends on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from diffpolicy.data.episode import Episode
from diffpolicy.data.windows import Windows, windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.training.ema import Ema
from diffpolicy.updates import walked
from diffpolicy.updates.distilling import aligned, paired, student_of, walk
from diffpolicy.updates.targets import Draw
from diffpolicy.updates.walked import Walked

SPACES = SpaceSpec({"x": Bounds((0.0,), (100.0,))}, Bounds((-1.0, -1.0), (1.0, 1.0)), False)
COUNT = 40


@pytest.fixture(scope="module")
def teacher() -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(
        horizon=4, n_obs_steps=1, n_action_steps=2, network=MLPConfig(8, 1, 4), sampler=SamplerConfig(steps=6)
    )
    made = Policy(config, SPACES)
    torch.nn.init.normal_(made.network.leave[1].weight, std=0.3)  # type: ignore[union-attr, index, arg-type]
    return made.eval()


def table() -> Windows:
    """Windows whose observation is their number."""
    obs = {"x": np.arange(COUNT + 1, dtype=np.float32)[:, None]}
    return windows(
        [Episode(obs, np.zeros((COUNT, 2), np.float32), np.zeros(COUNT, np.float32), False, True, False)], 1, 4
    )


def source(teacher: Policy, steps: int = 2, batch_size: int = 8, updates: int = 60, reuse: int = 3) -> Walked:
    fine = aligned(teacher, student_of(teacher, steps), 6)
    return Walked(table(), fine, steps, batch_size, updates, reuse, seed=5)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_chain_is_the_teachers_from_its_noise_and_its_observation(steps: int, teacher: Policy) -> None:
    fine = aligned(teacher, student_of(teacher, steps), 6)
    for index in (0, 25):
        batch = source(teacher, steps)(index)
        assert batch.chain is not None
        assert batch.chain.shape == (steps + 1, 8, 4, 2)
        again = walk(fine, fine.encoder(batch.obs), batch.chain[0], steps)
        torch.testing.assert_close(again, batch.chain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("reuse", [1, 3])
def test_each_chain_is_used_so_often_and_each_window_has_many(
    reuse: int, teacher: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walked, "_CHAINS", 80)  # two of each window in a block, which is whole after 10 x reuse updates
    batches = source(teacher, updates=40 * reuse, reuse=reuse)
    seen: Counter[tuple[float, ...]] = Counter()
    of: Counter[int] = Counter()
    for index in range(20 * reuse):
        batch = batches(index)
        assert batch.chain is not None
        seen.update(tuple(row.flatten().tolist()) for row in batch.chain[0])
        of.update(int(x) for x in batch.obs["x"].flatten())
    assert set(seen.values()) == {reuse}
    assert len(seen) == 160
    assert set(of.values()) == {4 * reuse}
    assert batches.teacher_calls == 4 * 80 * 6


def test_passes_over_a_block_differ_in_order(teacher: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walked, "_CHAINS", 80)
    batches = source(teacher)
    orders = [
        [float(x) for index in range(10 * p, 10 * p + 10) for x in batches(index).chain[0, :, 0, 0]] for p in (0, 1)
    ]  # type: ignore[index]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_a_batch_does_not_depend_on_what_was_asked_before(teacher: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walked, "_CHAINS", 16)
    forwards, backwards = source(teacher), source(teacher)
    want = [forwards(index).chain for index in range(60)]
    for index in (*reversed(range(60)), 7, 59, 0):
        assert torch.equal(backwards(index).chain, want[index])  # type: ignore[arg-type]


def test_a_short_training_draws_no_more_than_it_needs(teacher: Policy) -> None:
    assert source(teacher, batch_size=8, updates=2, reuse=8).teacher_calls == 8 * 6
    assert source(teacher, batch_size=8, updates=40, reuse=1).teacher_calls == 40 * 8 * 6


def test_the_target_takes_the_batchs_chain_and_asks_nobody(teacher: Policy) -> None:
    student = student_of(teacher, 2)
    fine = aligned(teacher, student, 6)
    batch = source(teacher)(0)
    assert batch.chain is not None
    obs = student.encoder(batch.obs)
    drawn = Draw(obs, torch.zeros(8, 4, 2), torch.zeros(8), torch.randn(8, 4, 2), batch.chain)
    plain = Draw(obs, torch.zeros(8, 4, 2), torch.zeros(8), batch.chain[0])
    for ours, theirs in zip(
        paired(drawn, student, Ema(student), fine), paired(plain, student, Ema(student), fine), strict=True
    ):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["batch_size", "updates", "reuse"])
def test_what_gives_no_batch_is_refused(name: str, teacher: Policy) -> None:
    with pytest.raises(InputError, match="reuse >= 1"):
        source(teacher, **{name: 0})
