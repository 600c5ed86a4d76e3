"""Laws of the policy gradient over chains: densities, ratios, advantages, and that it climbs a reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.training.advantage import gae, group_relative
from diffpolicy.updates.distilling import chains_of
from diffpolicy.updates.policy_gradient import Critic, Played, PolicyGradient, PolicyGradientConfig

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,))}, Bounds((-1.0, -1.0), (1.0, 1.0)), False)
GOAL = torch.tensor([0.5, -0.4])
SIZE = 256


def student(steps: int = 2, **sampler: Any) -> Policy:
    torch.manual_seed(0)
    settings = SamplerConfig(steps=steps, clip=None, **sampler)
    policy = Policy(PolicyConfig(1, 1, 1, network=MLPConfig(32, 1, 8), sampler=settings), SPACES)
    policy.normaliser.fit({"a": torch.randn(9, 1)}, torch.randn(9, 2).clamp(-1, 1))
    policy.normaliser.freeze()
    return policy


def played(policy: Policy, sampler: Exploring, seed: int) -> tuple[Played, Tensor]:
    """Chains with the reward of their ends' nearness to the goal, relative to the batch, and the rewards."""
    random = torch.Generator().manual_seed(seed)
    obs = torch.zeros(SIZE, 1, 1)
    noise = torch.randn(len(sampler) + 1, SIZE, 1, 2, generator=random)
    with torch.no_grad():
        chain = sampler.sample(policy.encoder(obs), noise)
    assert chain.logp is not None
    reward = -(chain.action[:, 0] - GOAL).norm(dim=1)
    gain = ((reward - reward.mean()) / reward.std()).expand(len(sampler), -1)
    return Played(obs, chain.x, chain.logp, gain, reward, torch.ones(1)), reward


@pytest.mark.parametrize("steps", [1, 2])
def test_it_climbs_a_reward_that_is_only_known_at_the_end(steps: int) -> None:
    policy = student(steps)
    update = PolicyGradient(policy, PolicyGradientConfig(lr=2e-3, clip=0.1, minibatch=128), Critic(1, 16))
    first = last = torch.zeros(())
    for number in range(60):
        batch, reward = played(policy, update.sampler, number)
        first = reward.mean() if number == 0 else first
        found = update(batch)
        assert found["ratio_first"] < 1e-6
        last = reward.mean()
    assert float(first) < -0.9
    assert float(last) > -0.5
    assert found["clipped"] < 0.6
    assert found["value_loss"] < 0.1


def test_an_anchor_holds_the_student_back() -> None:
    ends = []
    for weight in (0.0, 30.0):
        policy = student(1)
        update = PolicyGradient(policy, PolicyGradientConfig(lr=2e-3, clip=0.1, minibatch=128, anchor=weight))
        for number in range(30):
            batch, reward = played(policy, update.sampler, number)
            update(batch)
        ends.append(float(reward.mean()))
    assert ends[1] < ends[0] - 0.1


def test_what_was_drawn_has_the_density_that_it_is_given() -> None:
    policy = student(2)
    sampler = Exploring(chains_of(policy), 0.1)
    obs, noise = torch.zeros(5, 1), torch.randn(3, 5, 1, 2)
    chain = sampler.sample(obs, noise)
    assert chain.logp is not None
    for k in range(2):
        gaussian = sampler.step(chain.x[k], k, obs)
        torch.testing.assert_close(gaussian.log_prob(chain.x[k + 1]), chain.logp[k])
        torch.testing.assert_close((chain.x[k + 1] - gaussian.mean) / gaussian.std, noise[k + 1], atol=1e-4, rtol=1e-4)
    silent = torch.cat([noise[:1], torch.zeros(2, 5, 1, 2)])
    torch.testing.assert_close(sampler.sample(obs, silent).action, policy.sampler.draw(obs, noise[0]))


def test_only_the_last_steps_are_trained_where_it_is_said() -> None:
    policy = student(3)
    update = PolicyGradient(policy, PolicyGradientConfig(last_steps=1))
    assert list(update.trained) == [2]
    with pytest.raises(InputError, match="last_steps from 1 to the student's 3"):
        PolicyGradient(policy, PolicyGradientConfig(last_steps=4))


def test_a_chain_that_looks_back_has_no_density() -> None:
    with pytest.raises(InputError, match="'ddim'"):
        Exploring(chains_of(student(3, solver="heun")), 0.1)
    with pytest.raises(InputError, match="above 0"):
        Exploring(chains_of(student(3)), 0.0)


def test_advantages_are_those_of_the_definition() -> None:
    random = np.random.default_rng(0)
    rewards, values, discount, trace = random.normal(size=7), random.normal(size=8), 0.9, 0.8
    advantages, returns = gae(rewards, values, discount, trace)
    deltas = [rewards[t] + discount * values[t + 1] - values[t] for t in range(7)]
    for t in range(7):
        wanted = sum((discount * trace) ** (u - t) * deltas[u] for u in range(t, 7))
        assert advantages[t] == pytest.approx(wanted)
        assert returns[t] == pytest.approx(wanted + values[t])
    whole, _ = gae(rewards, values, 1.0, 1.0)
    assert whole[0] == pytest.approx(rewards.sum() + values[-1] - values[0])
    with pytest.raises(InputError, match="8 values for 7 rewards"):
        gae(rewards, values[:-1], 1.0, 1.0)


def test_a_group_of_equals_teaches_nothing() -> None:
    rewards = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 3.0]])
    found = group_relative(rewards)
    assert (found[0] == 0).all()
    assert found.sum(axis=1) == pytest.approx([0, 0])
    assert found[1, 2] > 0 > found[1, 0]
    assert (group_relative(np.ones((2, 3))) == 0).all()
    with pytest.raises(InputError, match="2 members or more"):
        group_relative(np.ones((3, 1)))


def test_it_goes_on_where_it_was_stopped() -> None:
    ends = []
    for stop in (None, 2):
        policy = student(2)
        update = PolicyGradient(policy, PolicyGradientConfig(anchor=0.1), Critic(1, 8))
        for number in range(4):
            if number == stop:
                state = dict(update.state_dict())
                torch.manual_seed(5)
                policy = student(2)
                torch.nn.init.normal_(next(policy.parameters()))
                other = PolicyGradient(policy, PolicyGradientConfig(anchor=0.1), Critic(1, 8))
                other.load_state_dict(state)
                update = other
            update(played(policy, update.sampler, number)[0])
        ends.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
    assert torch.equal(ends[0], ends[1])
