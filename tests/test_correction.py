"""On-policy correction as learning: in the states that the learner visits itself, it comes nearer to the expert."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from diffpolicy.data.episode import Episode
from diffpolicy.data.source import shuffled
from diffpolicy.data.windows import Windows, windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec
from diffpolicy.rollout.correction import play_and_label
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.labeller import Cost
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy.rollout.seeds import episode_seeds
from diffpolicy.training.fit import fit
from diffpolicy.updates.regression import Regression

TASK = "diffpolicy/PickPlace-v0"
CONFIG = PolicyConfig(network=MLPConfig(width=128, blocks=2, time_dim=16), sampler=SamplerConfig(steps=4))


def trained(policy: Policy, table: Windows, steps: int) -> Policy:
    update = Regression(policy, steps)
    fit(update, shuffled(table, 64, seed=0), steps, lambda *_: None)
    return update.averaged()


def imitator(steps: int = 300) -> tuple[Policy, Windows]:
    """A small policy that imitates three demonstrations, and these as windows."""
    env = make_vector(TASK, 3)
    demos = rollout(env, ScriptedExpert(env), episode_seeds("demonstration", 0, 3))
    torch.manual_seed(0)
    policy = Policy(CONFIG, SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space))
    env.close()
    policy.normaliser.fit(
        {name: torch.cat([torch.as_tensor(e.obs[name]) for e in demos]) for name in demos[0].obs},
        torch.cat([torch.as_tensor(e.actions) for e in demos]),
    )
    policy.normaliser.freeze()
    table = windows(demos, CONFIG.n_obs_steps, CONFIG.horizon)
    return trained(policy, table, steps), table


@torch.no_grad()
def chunk_error(policy: Policy, labelled: list[Episode]) -> float:
    """Mean square distance between the policy's chunks and the expert's, in visited states [normalised action]."""
    table = windows(labelled, CONFIG.n_obs_steps, CONFIG.horizon)
    batch = table.gather(torch.arange(len(table)))
    noise = torch.randn(batch.chunk.shape, generator=torch.Generator().manual_seed(0))
    chunk = policy.sampler.sample(policy.encoder(batch.obs), noise).action
    wanted = policy.normaliser.normalise_action(batch.chunk)
    return float(((chunk - wanted).square().mean(dim=2) * batch.mask).sum() / batch.mask.sum())


def test_one_round_brings_the_learner_nearer_to_the_expert_where_it_goes_itself() -> None:
    before, demos = imitator()
    seeds, unseen = list(episode_seeds("correction", 0, 8)), list(episode_seeds("evaluation", 0, 6))
    labelled, cost = play_and_label(TASK, before, ScriptedExpert, seeds, condition="shove")
    assert cost.queries == sum(map(len, labelled))
    table = Windows.concat([demos, windows(labelled, CONFIG.n_obs_steps, CONFIG.horizon)])
    after = trained(before.resampled(), table, 300)
    without = trained(before.resampled(), demos, 300)  # as many updates more, but no correction
    visited, _ = play_and_label(TASK, before, ScriptedExpert, unseen, condition="shove")
    errors = {name: chunk_error(who, visited) for name, who in (("after", after), ("without", without))}
    assert errors["after"] < 0.5 * chunk_error(before, visited)
    assert errors["after"] < 0.5 * errors["without"]


def test_nobody_plays_where_there_is_no_seed() -> None:
    policy, _ = imitator(steps=1)
    assert play_and_label(TASK, policy, ScriptedExpert, []) == ([], Cost())


def test_what_cannot_be_asked_together_is_refused() -> None:
    policy, _ = imitator(steps=1)
    with pytest.raises(InputError, match="beta mixes learner and expert before branching"):
        play_and_label(TASK, policy, ScriptedExpert, [1], method="takeover", beta=0.5)
    with pytest.raises(InputError, match="cannot save and set its state"):
        play_and_label("Pendulum-v1", policy, ScriptedExpert, [1], method="branch")


def test_labels_are_as_long_as_the_learner_reaches_and_every_so_manieth_state_has_one() -> None:
    policy, _ = imitator(steps=1)
    longer = Policy(replace(CONFIG, horizon=7, n_obs_steps=3, n_action_steps=4), policy.spaces)
    longer.load_state_dict({**longer.state_dict(), **statistics(policy)})
    (episode,), cost = play_and_label(TASK, longer.eval(), ScriptedExpert, [5], every=4)
    assert episode.labels is not None
    assert episode.labels.chunks.shape == (len(episode), 5, 5)
    asked = np.flatnonzero(episode.labels.valid.any(axis=1))
    np.testing.assert_array_equal(asked, np.arange(0, len(episode), 4))
    assert cost == Cost(len(asked), int(episode.labels.valid.sum()))
    assert episode.states is None


def statistics(policy: Policy) -> dict[str, torch.Tensor]:
    """The normaliser's part of a policy's state."""
    return {name: value for name, value in policy.state_dict().items() if name.startswith("normaliser.")}
