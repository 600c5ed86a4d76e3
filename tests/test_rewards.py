"""Laws of what a chunk is worth by itself, and of the source that judges chains by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from diffpolicy.data.windows import Windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.updates import PolicyGradientConfig, RewardConfig
from diffpolicy.updates.distilling import chains_of, student_of
from diffpolicy.updates.judged import Judge, Judged, Observed, ahead_of
from diffpolicy.updates.pathwise import Pathwise
from diffpolicy.updates.policy_gradient import PolicyGradient
from diffpolicy.updates.rewards import agreement, energy_distance, excess, likeness, prefix, roughness

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,))}, Bounds((-1.0, -1.0), (1.0, 1.0)), False)
NOTHING = {"success": 0.0, "environment": 0.0}


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_agreement_counts_what_is_executed_most() -> None:
    weight = prefix(4, 1, 2, 0.1)
    assert weight.tolist() == pytest.approx([0.1, 1, 1, 0.1])
    teacher = rand(3, 4, 2)
    assert agreement(teacher, teacher, weight).tolist() == [0, 0, 0]
    off = torch.zeros(3, 4, 2)
    off[0, 1], off[1, 3], off[2, :] = 1.0, 1.0, 1.0
    worth = agreement(teacher + off, teacher, weight)
    assert worth.tolist() == pytest.approx([-1 / 2.2, -0.1 / 2.2, -1.0], abs=1e-5)


def test_likeness_is_the_energy_distance_s_own_gradient() -> None:
    """What a student's chunks gain by moving, the others held, is half of what the energy distance loses."""
    weight, count = prefix(3, 0, 2, 0.1), 7
    ours, theirs = rand(1, count, 3, 2), rand(1, 9, 3, 2, seed=1) + 0.5
    ours.requires_grad_()
    (wanted,) = torch.autograd.grad(energy_distance(ours, theirs, weight).sum(), ours)
    rewards = torch.zeros(())
    for i in range(count):
        others = torch.cat([ours[:, :i], ours[:, i + 1 :]], 1).detach()
        rewards = rewards + likeness(ours[:, i], others, theirs, weight)[0] / count
    (found,) = torch.autograd.grad(rewards, ours)
    torch.testing.assert_close(found, -0.5 * wanted, atol=1e-5, rtol=1e-4)


def test_the_energy_distance_of_two_alike_is_none() -> None:
    weight = prefix(2, 0, 2)
    same = energy_distance(rand(50, 40, 2, 2), rand(50, 40, 2, 2, seed=1), weight)
    assert abs(float(same.mean())) < 3 * float(same.std()) / 50**0.5
    apart = energy_distance(rand(50, 40, 2, 2), rand(50, 40, 2, 2, seed=1) + 1.0, weight)
    narrow = energy_distance(rand(50, 40, 2, 2), 0.5 * rand(50, 40, 2, 2, seed=1), weight)
    assert float(apart.min()) > 0.5
    assert float(narrow.mean()) > 0.1


def test_a_student_that_gives_a_mode_up_is_worth_less() -> None:
    modes = torch.tensor([-1.0, 1.0]).repeat(50)[:, None, None].expand(100, 1, 2)
    one = torch.ones(100, 1, 2)
    weight = prefix(1, 0, 1)

    def worth(ours: Tensor) -> float:
        total = [likeness(ours[i : i + 1], ours[None], modes[None], weight) for i in range(len(ours))]
        return float(torch.stack(total).mean())

    assert worth(modes) == pytest.approx(0, abs=1e-6)
    assert worth(one) < -1.0


def test_smooth_actions_have_no_second_difference_and_lead_on_straight() -> None:
    line = torch.arange(5.0)[None, :, None] * torch.tensor([0.1, -0.2])
    assert float(roughness(line)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(torch.cat([ahead_of(line[:, 2:]), line[:, 2:]], 1), line)
    bent = line.clone()
    bent[0, 2, 0] += 0.3
    assert float(roughness(bent)) == pytest.approx((0.3**2 + 0.6**2 + 0.3**2) / 6)
    assert ahead_of(line[:, :1]).shape == (1, 2, 2)


def test_only_what_leaves_the_range_is_excess() -> None:
    assert excess(torch.tensor([[[1.0, -1.0], [0.3, 0.0]]])).tolist() == [0.0]
    assert excess(torch.tensor([[[1.5, -1.0], [0.3, -2.0]]])).tolist() == pytest.approx([(0.25 + 1.0) / 4])


@pytest.mark.parametrize("settings", [dict.fromkeys(("success", "environment"), 0.0), {"agreement": -1.0}])
def test_a_reward_of_nothing_or_less_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"above 0|from 0"):
        RewardConfig(**settings)


# -- judged chains --------------------------------------------------------------------------------------------------


def teacher() -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(2, 1, 1, network=MLPConfig(32, 1, 8), sampler=SamplerConfig(steps=8, clip=None))
    policy = Policy(config, SPACES)
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    policy.normaliser.fit({"a": rand(9, 1)}, rand(9, 2).clamp(-1, 1))
    policy.normaliser.freeze()
    return policy.eval()


def table(size: int = 60) -> Windows:
    return Windows({"a": rand(size, 1)}, torch.arange(size)[:, None], torch.zeros(size, 2, 2), torch.ones(size, 2))


def begun(weights: dict[str, float], steps: int = 1) -> tuple[Policy, Judge, Observed]:
    """A student that begins somewhere else than its teacher, who judges it, and where."""
    policy = teacher()
    student = student_of(policy, steps)
    for number, parameter in enumerate(student.parameters()):
        parameter.data += 0.1 * rand(*parameter.shape, seed=number)
    config = RewardConfig(**{**NOTHING, **weights}, samples=4)
    judge = Judge(student, Exploring(chains_of(student), 0.1), policy, 8, config)
    return student, judge, Observed(student, table(), 32, 0)


def judged(weights: dict[str, float], **settings: Any) -> tuple[Judged, PolicyGradient]:
    student, judge, seen = begun(weights)
    update = PolicyGradient(student, 100, PolicyGradientConfig(lr=1e-3, minibatch=256, critic_warmup=0, **settings))
    return Judged(update, judge, seen, 8), update


@pytest.mark.parametrize("weights", [{"agreement": 1.0}, {"likeness": 1.0}, {"agreement": 1.0, "smooth": 0.5}])
def test_a_student_comes_nearer_to_its_teacher_by_rewards_alone(weights: dict[str, float]) -> None:
    source, update = judged(weights, explore=0.1, target_kl=0.2, epochs=4)
    held = []
    for index in range(41):
        told = update(source(index))
        if index % 10 == 0:
            held.append(told["held_out"])
    assert held[-1] > held[0] + 0.3 * abs(held[0])
    assert told["within_group"] > 0


def test_a_batch_is_a_function_of_weights_and_index() -> None:
    (one,), (same,), (other,) = (judged({"agreement": 1.0})[0](index) for index in (3, 3, 4))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.advantage, same.advantage)
    assert not torch.equal(one.x, other.x)
    apart = one.x[:, :8]
    assert (apart[0] == apart[0, :1]).all()  # members of a group begin at one noise,
    assert (apart[1] != apart[1, :1])[1:].all()  # and part from there
    assert (one.obs[:8] == one.obs[:1]).all()


def test_what_is_held_out_is_never_trained_on() -> None:
    source, _ = judged({"limits": 1.0})
    rows = {tuple(row) for index in range(30) for row in source(index)[0].obs.flatten(1).tolist()}
    kept_out = {tuple(row) for row in table().gather(torch.arange(0, 60, 10)).obs["a"].flatten(1).tolist()}
    assert len(rows) == 54
    assert not rows & kept_out


def test_the_teacher_is_asked_once_for_members_of_a_group() -> None:
    student, judge, seen = begun({"agreement": 1.0})
    Judged(PolicyGradient(student, 1), judge, seen, 8)(1)
    assert judge.about() == {"teacher_calls": 32 * 8}  # observations, steps of the teacher


@pytest.mark.parametrize(
    ("weights", "steps"), [({"agreement": 1.0}, 1), ({"agreement": 1.0}, 2), ({"likeness": 1.0}, 1)]
)
def test_the_gradient_through_the_chain_climbs_too(weights: dict[str, float], steps: int) -> None:
    student, judge, seen = begun(weights, steps)
    update = Pathwise(student, 101, judge, seen, 3e-3)
    with torch.no_grad():
        first = float(judge.worth(seen.held, seen.fixed()))
    held = [told["held_out"] for told in (update(seen(index)) for index in range(101)) if "held_out" in told]
    assert len(held) == 2  # of the hundredth and of the last update
    assert held[1] > 0.3 * first  # both below 0


def test_the_gradient_through_the_chain_goes_on_where_it_was_stopped() -> None:
    ends = []
    for stop in (None, 3):
        student, judge, seen = begun({"agreement": 1.0}, 2)
        update = Pathwise(student, 6, judge, seen, 3e-3)
        for index in range(6):
            if index == stop:
                state = update.state_dict()
                student, judge, seen = begun({"agreement": 1.0}, 2)
                update = Pathwise(student, 6, judge, seen, 3e-3)
                update.load_state_dict(state)
            update(seen(index))
        ends.append(torch.cat([p.detach().flatten() for p in student.parameters()]))
    assert torch.equal(*ends)
    with pytest.raises(InputError, match="does not fit this student"):
        update.load_state_dict({"student": {}})


def test_chains_cannot_be_judged_by_what_only_playing_tells() -> None:
    student, judge, seen = begun({"success": 1.0})
    update = PolicyGradient(student, 1)
    with pytest.raises(InputError, match="agreement, likeness, smooth, limits"):
        Judged(update, judge, seen, 8)
    with pytest.raises(InputError, match="agreement, likeness, smooth, limits"):
        Pathwise(student, 1, judge, seen, 1e-3)
    with pytest.raises(InputError, match="20 observations or more"):
        Observed(student, table(19), 8, 0)
    student, judge, seen = begun({"agreement": 1.0})
    with pytest.raises(InputError, match="2 chains"):
        Judged(PolicyGradient(student, 1), judge, seen, 1)
