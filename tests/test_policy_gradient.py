"""Laws of the policy gradient over chains: densities, ratios, advantages, and that it climbs a reward."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffpolicy.data.batch import Demo
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.diffusion.exploring import Exploring
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec
from diffpolicy.training.advantage import gae, group_relative
from diffpolicy.updates import PolicyGradientConfig
from diffpolicy.updates.critic import Critic
from diffpolicy.updates.distilling import chains_of
from diffpolicy.updates.policy_gradient import Played, PolicyGradient

SPACES = SpaceSpec({"a": Bounds((-1.0,), (1.0,))}, Bounds((-1.0, -1.0), (1.0, 1.0)), False)
GOAL = torch.tensor([0.5, -0.4])
SIZE = 256
QUICK = {"lr": 2e-3, "epochs": 4, "minibatch": 128, "clip": 0.3, "target_kl": None, "critic_warmup": 0}


def student(steps: int = 2, **sampler: Any) -> Policy:
    torch.manual_seed(0)
    settings = SamplerConfig(steps=steps, clip=None, **sampler)
    policy = Policy(PolicyConfig(1, 1, 1, network=MLPConfig(32, 1, 8), sampler=settings), SPACES)
    policy.normaliser.fit({"a": torch.randn(9, 1)}, torch.randn(9, 2).clamp(-1, 1))
    policy.normaliser.freeze()
    return policy


def updating(policy: Policy, steps: int = 100, **settings: Any) -> PolicyGradient:
    return PolicyGradient(policy, steps, PolicyGradientConfig(**{**QUICK, **settings}))


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
    config = PolicyGradientConfig(**QUICK)
    update = PolicyGradient(policy, 60, config, Critic(policy, config))
    first = last = torch.zeros(())
    for number in range(60):
        batch, reward = played(policy, update.sampler, number)
        first = reward.mean() if number == 0 else first
        found = update([batch])
        if number:  # in the first the critic has learned nothing to judge by
            assert found["ratio_first"] == pytest.approx(1, abs=1e-6)
        last = reward.mean()
    assert float(first) < -0.9
    assert float(last) > -0.5
    assert found["clipped"] < 0.6
    assert found["drift"] > 0.05


def test_the_ratio_is_exactly_one_before_the_first_step() -> None:
    policy = student(2, eta=0.5)
    update = updating(policy)
    found = update([played(policy, update.sampler, 0)[0]])
    assert found["ratio_first"] == 1.0
    assert found["drift"] == 0.0


def test_passes_end_where_the_student_has_gone_far_enough() -> None:
    passes = {}
    for most in (1e-4, None):
        policy = student(2)
        update = updating(policy, epochs=6, target_kl=most)
        found = update([played(policy, update.sampler, 0)[0]])
        passes[most] = found["passes"]
        assert found["kl"] > 0
    assert passes == {1e-4: 1, None: 6}


def test_an_anchor_holds_the_student_back() -> None:
    ends = []
    for weight in (0.0, 30.0):
        policy = student(1)
        update = updating(policy, anchor=weight)
        for number in range(30):
            batch, reward = played(policy, update.sampler, number)
            update([batch])
        ends.append(float(reward.mean()))
    assert ends[1] < ends[0] - 0.1


def test_demonstrations_hold_it_where_they_are() -> None:
    shown = torch.tensor([-0.6, 0.2]).expand(64, 1, 2)
    batch = Demo({"a": torch.zeros(64, 1, 1)}, shown, torch.ones(64, 1), held=True)
    policy = student(2)
    wanted = policy.normaliser.normalise_action(shown)[0, 0]
    config = PolicyGradientConfig(**{**QUICK, "demos": 50.0})
    update = PolicyGradient(policy, 100, config, demos=lambda _: batch)
    for number in range(40):
        update([played(policy, update.sampler, number)[0]])
    end = played(policy, update.sampler, 99)[0].x[-1].mean(dim=(0, 1))
    assert float((end - wanted).norm()) < 0.3 < float((GOAL - wanted).norm())
    with pytest.raises(InputError, match="demonstrations to stay near, got none"):
        PolicyGradient(policy, 1, config)


def test_elements_that_do_not_count_do_not_move_the_ratio() -> None:
    torch.manual_seed(0)
    config = PolicyConfig(2, 1, 1, network=MLPConfig(32, 1, 8), sampler=SamplerConfig(steps=1, clip=None))
    policy = Policy(config, SPACES)
    policy.normaliser.fit({"a": torch.randn(9, 1)}, torch.randn(9, 2).clamp(-1, 1))
    policy.normaliser.freeze()
    obs, noise = torch.zeros(SIZE, 1, 1), torch.randn(2, SIZE, 2, 2, generator=torch.Generator().manual_seed(0))
    update = updating(policy)
    with torch.no_grad():
        chain = update.sampler.sample(policy.encoder(obs), noise)
    assert chain.logp is not None
    logp, mask = chain.logp.clone(), torch.tensor([1.0, 0.0])
    logp[:, :, mask == 0] = 7.0  # as if another had drawn it
    assert update([Played(obs, chain.x, logp, torch.randn(1, SIZE), None, mask)])["ratio_first"] == 1.0


def test_a_step_counts_by_its_deviation() -> None:
    """The gradient of a step's log-probability goes with 1 / std: weighted, a quiet step does not eat the update."""
    policy = student(4, eta=1.0)
    sampler = updating(policy, explore=0.01).sampler
    batch, _ = played(policy, sampler, 0)
    stds, found = [], []
    for k in range(4):
        gaussian = sampler.step(batch.x[k], k, torch.zeros(SIZE, 1))
        gain = torch.zeros(4, SIZE)
        gain[k] = ((batch.x[k + 1] - gaussian.mean) / gaussian.std)[:, 0, 0].detach()
        update = updating(policy.resampled(), explore=0.01, epochs=1, minibatch=SIZE)
        norm = update([Played(batch.obs, batch.x, batch.logp, gain, None, batch.mask)])["grad_norm"]
        found.append(norm)
        stds.append(float(gaussian.std))
    assert max(stds) > 10 * min(stds)
    assert max(found) < 2 * min(found)


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
    assert list(updating(policy, last_steps=1).trained) == [2]
    with pytest.raises(InputError, match="last_steps from 1 to the student's 3"):
        updating(policy, last_steps=4)


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
    rewards, groups = np.array([1.0, 0.0, 1.0, 0.0, 3.0]), np.array([4, 2, 4, 2, 2])
    found = group_relative(rewards, groups)
    assert (found[groups == 4] == 0).all()
    assert found.sum() == pytest.approx(0)
    assert found[4] > 0 > found[1] == found[3]
    assert found.std() == pytest.approx(1)
    assert (group_relative(np.ones(6), np.arange(6) // 3) == 0).all()
    with pytest.raises(InputError, match="a group"):
        group_relative(np.ones((3, 1)), np.arange(3))


def test_a_critic_learns_what_is_to_be_expected() -> None:
    config = PolicyGradientConfig(critic_warmup=2)
    critic = Critic(student(1), config)
    told = []
    for number in range(12):
        features = torch.randn(200, 1, generator=torch.Generator().manual_seed(number))
        told.append(critic.learn(features, features[:, 0].sin())["explained"])
        assert critic.ready == (number >= 2)
    assert told[0] < 0.5
    assert told[-1] > 0.99


def test_a_critic_that_sees_the_chunk_foresees_what_the_start_decides() -> None:
    policy = student(2)
    told = {}
    for sees in (False, True):
        critic = Critic(policy, PolicyGradientConfig(critic_warmup=0, critic_chunk=sees))
        for number in range(8):
            batch, reward = played(policy, Exploring(policy.sampler, 0.05), number)  # type: ignore[arg-type]
            features = critic.features(batch.obs, batch.x[0])
            assert features.shape == (SIZE, 3 if sees else 1)
            told[sees] = critic.learn(features, reward)["explained"]
    assert told[True] > 0.9
    assert told[False] < 0.2


def test_it_goes_on_where_it_was_stopped() -> None:
    ends = []
    for stop in (None, 2):
        policy = student(2)
        config = PolicyGradientConfig(anchor=0.1, critic_warmup=0, minibatch=64)
        update = PolicyGradient(policy, 4, config, Critic(policy, config))
        for number in range(4):
            if number == stop:
                state = dict(update.state_dict())
                torch.manual_seed(5)
                policy = student(2)
                torch.nn.init.normal_(next(policy.parameters()))
                other = PolicyGradient(policy, 4, config, Critic(policy, config))
                assert other.critic is not None
                torch.nn.init.normal_(next(other.critic.network.parameters()))
                other.load_state_dict(state)
                update = other
            batch, _ = played(policy, update.sampler, number)
            update([batch])
        ends.append(torch.cat([p.detach().flatten() for p in policy.parameters()]))
        assert update.critic is not None
        ends.append(update.critic(torch.ones(1, 1)))
    assert torch.equal(ends[0], ends[2])
    assert torch.equal(ends[1], ends[3])
    with pytest.raises(InputError, match="does not fit this student"):
        updating(student(2)).load_state_dict({"student": {}})
