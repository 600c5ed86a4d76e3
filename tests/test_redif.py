"""Laws of the recipe that reinforces: what it begins with, what it is rewarded for, how it goes on, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small import NOISY

from diffpolicy import Bc, Collect, Distil, Evaluate, Redif
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, load_checkpoint
from diffpolicy.recipes.change import Change
from diffpolicy.recipes.training import Interrupt
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.exploration import explore
from diffpolicy.updates import PolicyGradientConfig, RewardConfig
from diffpolicy.updates.critic import Critic
from diffpolicy.updates.distilling import student_of
from diffpolicy.updates.judged import Judge
from diffpolicy.updates.played import Rollouts
from diffpolicy.updates.policy_gradient import PolicyGradient
from diffpolicy.updates.rewards import roughness

REACH = "diffpolicy/Reach-v0"
OPTIMISER = PolicyGradientConfig(critic_warmup=1, critic_epochs=1, epochs=2, critic_width=8)
DATA: dict[str, Any] = {"observations": "data", "reward": RewardConfig(agreement=1.0)}
PATH = PolicyGradientConfig(lr=1e-3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A noisy policy of six steps, with its demonstrations."""
    root = tmp_path_factory.mktemp("teacher")
    Collect(REACH, out=root / "demos", episodes=3)()
    Bc(root / "demos", root / "bc", policy=NOISY, steps=8, batch_size=8)()
    return root / "bc"


def redif(checkpoint: Path, out: Path, **changes: Any) -> Redif:
    small: dict[str, Any] = {"steps": 3, "optimiser": OPTIMISER}
    data = changes.get("observations") == "data"
    small |= {"windows": 4} if data else {"rollouts": 4}
    small |= {"group": 2} if changes.get("gradient") != "path" and (data or changes.get("baseline") == "group") else {}
    reward = changes.get("reward", RewardConfig())
    small |= {"teacher_steps": 6} if reward.agreement or reward.likeness else {}
    return Redif(checkpoint, out, **{**small, **changes})


def weights(folder: Path) -> bytes:
    return (folder / "checkpoint" / "model.safetensors").read_bytes()


def logged(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": "group"},
        {"reward": RewardConfig(agreement=1.0, likeness=0.5, smooth=0.1, limits=0.1, samples=2)},
        DATA,
        {**DATA, "gradient": "path", "optimiser": PATH},
        {"student_steps": 3, "optimiser": replace(OPTIMISER, last_steps=1, anchor=0.1, demos=0.1)},
    ],
    ids=["critic", "group", "all", "data", "path", "dppo"],
)
def test_a_student_is_reinforced(changes: dict[str, Any], teacher: Path, tmp_path: Path) -> None:
    run = redif(teacher, tmp_path / "s", **changes)
    assert run() == tmp_path / "s" / "checkpoint"
    loaded, before = load_checkpoint(tmp_path / "s"), load_checkpoint(teacher)
    assert loaded.policy.config.model == "student"
    assert loaded.policy.calls == changes.get("student_steps", 2)
    about, records = loaded.provenance, logged(tmp_path / "s")
    assert about["method"] == "redif"
    if changes.get("gradient") == "path":
        assert [record["step"] for record in records] == [2]
        assert records[-1]["reward"] < 0
        return
    assert [record["step"] for record in records] == [0, 1, 2]
    assert records[-1]["ratio_first"] == pytest.approx(1, abs=1e-6)
    assert records[-1]["kl"] > 0
    plays = changes.get("observations") != "data"
    assert ("success" in records[0]) == plays
    if plays:
        assert [record["dropped"] for record in records] == [0, 0, 0]
        assert all(record["spread"] > 0 for record in records)
        assert about["dropped"] == 0
    assert (about["env_steps"] > before.provenance["env_steps"]) == plays
    reward = changes.get("reward", RewardConfig())
    assert (about["teacher_calls"] > 0) == bool(reward.agreement or reward.likeness)
    assert about["expert_queries"] == before.provenance["expert_queries"]
    assert ("held_out" in records[0]) == (not plays)
    assert all(name in records[0] for name in ("agreement", "likeness", "smooth", "limits") if getattr(reward, name))
    assert Evaluate(str(tmp_path / "s"), episodes=1, conditions=("clean",))().is_file()
    whole = weights(tmp_path / "s")
    run()  # finished before
    assert weights(tmp_path / "s") == whole


@pytest.mark.parametrize("observations", ["own", "data"])
def test_an_interrupted_run_ends_as_one_that_was_not(
    observations: Any, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"observations": observations, "reward": RewardConfig(agreement=1.0), "steps": 4}
    redif(teacher, tmp_path / "whole", **changes)()
    asked = 0

    def stopping(self: Interrupt, *_: object) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:  # as if Ctrl-C had been pressed during the third update
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Interrupt, "__call__", stopping)
        with pytest.raises(KeyboardInterrupt):
            redif(teacher, tmp_path / "part", **changes)()
    redif(teacher, tmp_path / "part", **changes)()
    assert weights(tmp_path / "part") == weights(tmp_path / "whole")
    ends = [load_checkpoint(tmp_path / name).provenance for name in ("part", "whole")]
    assert ends[0]["env_steps"] == ends[1]["env_steps"]
    assert logged(tmp_path / "part")[-1] == logged(tmp_path / "whole")[-1]


def test_it_goes_on_with_a_student_and_knows_its_teacher(teacher: Path, tmp_path: Path) -> None:
    Distil(teacher, tmp_path / "one", teacher_steps=6, steps=2, batch_size=8)()
    reward = RewardConfig(agreement=1.0)
    redif(tmp_path / "one", tmp_path / "two", reward=reward)()
    loaded = load_checkpoint(tmp_path / "two")
    assert loaded.policy.calls == 1
    assert (tmp_path / "two" / loaded.provenance["teacher"]).resolve() == (teacher / "checkpoint").resolve()
    redif(tmp_path / "one", tmp_path / "plain")()  # nobody is compared with, and still it knows
    redif(tmp_path / "plain", tmp_path / "three", reward=reward, steps=2)()
    asked = load_checkpoint(tmp_path / "three").provenance["teacher"]
    assert (tmp_path / "three" / asked).resolve() == (teacher / "checkpoint").resolve()
    with pytest.raises(InputError, match="student_steps 1, those of the student"):
        redif(tmp_path / "one", tmp_path / "x", student_steps=2)()
    with pytest.raises(InputError, match="got a student; name one by --teacher"):
        redif(tmp_path / "one", tmp_path / "x", reward=reward, teacher=tmp_path / "one")()


def test_the_best_student_of_a_run_is_kept(teacher: Path, tmp_path: Path) -> None:
    redif(teacher, tmp_path / "s", validation_episodes=2, validate_every=1)()
    chosen = load_checkpoint(tmp_path / "s" / "best").provenance["chosen"]
    assert chosen["by"] == "val_success"
    assert load_checkpoint(tmp_path / "s").provenance["validation_env_steps"] > 0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"steps": 0}, "steps"),
        ({"group": 1}, "group >= 2"),
        ({"group": 4}, "expected no group, which"),
        ({"rollouts": 5, "baseline": "group"}, "whole groups of 2, got 5"),
        ({"student_steps": 0}, "steps"),
        ({"observations": "data"}, "above 0 for one of agreement"),
        ({"observations": "data", "reward": RewardConfig(success=2.0, agreement=1.0)}, "a weight of success"),
        ({**DATA, "validation_episodes": 2}, "got validation episodes"),
        ({"gradient": "path"}, "--observations data with the gradient of path"),
        (
            {**DATA, "gradient": "path"},
            "lr and grad_clip alone with path, got epochs, critic_width, critic_epochs, critic_warmup",
        ),
        ({"environment": "diffpolicy/Avoid-v0"}, "teacher's spaces, got diffpolicy/Avoid-v0"),
        ({"conditions": ("rain",)}, "rain"),
        ({"optimiser": replace(OPTIMISER, last_steps=3)}, "last_steps from 1 to the student's 2"),
        ({**DATA, "data": Path("nowhere")}, "nowhere"),
        ({"teacher": Path("nowhere"), "reward": RewardConfig(agreement=1.0)}, "nowhere"),
        ({"steps": 200_000}, "at most 400000 episodes in all"),
        ({"steps": 1}, "more steps than the 1 of optimiser.critic_warmup"),
        ({"rollouts": 1}, "for each of 2 conditions an update, got 1"),
        ({"teacher": Path("nowhere")}, "expected no teacher, which"),
        ({"data": Path("nowhere")}, "expected no data, which"),
        ({"windows": 2**20}, "expected no windows, which"),
        ({**DATA, "windows": 2**20, "group": 2}, "at most 1048576 chains"),
        ({**DATA, "rollouts": 2}, "expected no rollouts, which"),
    ],
)
def test_what_cannot_be_reinforced_is_refused_before_anything_is_made(
    changes: dict[str, Any], match: str, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=match):
        redif(teacher, tmp_path / "s", **changes)()
    assert not (tmp_path / "s").exists()


def test_an_environment_that_says_nothing_of_success_is_paid_for_by_its_own_reward(tmp_path: Path) -> None:
    Collect("Reacher-v5", out=tmp_path / "demos", episodes=2, keep_failures=True)()
    Bc(tmp_path / "demos", tmp_path / "bc", policy=NOISY, steps=2, batch_size=8)()
    redif(tmp_path / "bc", tmp_path / "s")()
    assert "success" not in logged(tmp_path / "s")[0]
    assert logged(tmp_path / "s")[0]["return"] < 0
    with pytest.raises(InputError, match=r"reports success .* got Reacher-v5, and nothing else is rewarded"):
        redif(tmp_path / "bc", tmp_path / "t", reward=RewardConfig(environment=0.0))()
    assert not (tmp_path / "t").exists()


def test_a_teacher_whose_chunks_are_other_ones_is_refused(teacher: Path, tmp_path: Path) -> None:
    longer = replace(NOISY, horizon=6)
    Bc(teacher.parent / "demos", tmp_path / "other", policy=longer, steps=2, batch_size=8)()
    with pytest.raises(InputError, match="teacher of horizon 4, as the student's"):
        redif(teacher, tmp_path / "s", teacher=tmp_path / "other", reward=RewardConfig(agreement=1.0))()
    head = PolicyConfig(horizon=4, n_action_steps=2, model="regression", network=NOISY.network)
    Bc(teacher.parent / "demos", tmp_path / "head", policy=head, steps=2, batch_size=8)()
    with pytest.raises(InputError, match="draws chains, got one of model 'regression'"):
        redif(teacher, tmp_path / "s", teacher=tmp_path / "head", reward=RewardConfig(agreement=1.0))()
    assert not (tmp_path / "s").exists()


def test_chunks_that_do_not_replace_one_another_are_refused(teacher: Path, tmp_path: Path) -> None:
    late = Change(str(teacher), ("acting.latency=1",), out=tmp_path / "late")()
    with pytest.raises(InputError, match="chunks replace one another, got ActingConfig"):
        redif(late, tmp_path / "s")()


def test_a_policy_that_predicts_the_noise_is_distilled_first(teacher: Path, tmp_path: Path) -> None:
    noise = replace(NOISY, schedule="squaredcos", prediction="eps")
    Bc(teacher.parent / "demos", tmp_path / "eps", policy=noise, steps=4, batch_size=8)()
    with pytest.raises(InputError, match="expected 4 steps or more of a student that predicts the noise"):
        redif(tmp_path / "eps", tmp_path / "s")()
    assert not (tmp_path / "s").exists()
    Distil(tmp_path / "eps", tmp_path / "two", student_steps=2, teacher_steps=6, steps=4, batch_size=8)()
    assert load_checkpoint(tmp_path / "two").policy.config.prediction == "x0"
    redif(tmp_path / "two", tmp_path / "s", reward=RewardConfig(agreement=1.0))()
    assert load_checkpoint(tmp_path / "s").policy.calls == 2
    redif(tmp_path / "eps", tmp_path / "many", student_steps=4)()
    assert load_checkpoint(tmp_path / "many").policy.config.prediction == "eps"


# -- rollouts as a source -------------------------------------------------------------------------------------------


def source(teacher: Path, rewards: RewardConfig, members: int = 1, critic: bool = True) -> Rollouts:
    policy = load_checkpoint(teacher).policy
    student = student_of(policy, 2)
    update = PolicyGradient(student, 9, OPTIMISER, Critic(student, OPTIMISER) if critic else None)
    judge = Judge(student, update.sampler, policy, 6, rewards)
    return Rollouts(update, judge, rewards, REACH, ("clean",), lambda i: range(100 * i, 100 * i + 4), members)


def test_decisions_are_paid_for_what_was_executed_because_of_them(teacher: Path) -> None:
    policy = load_checkpoint(teacher).policy
    student = student_of(policy, 2)
    update = PolicyGradient(student, 1, OPTIMISER)
    env = make_vector(REACH, 2)
    for got in explore(env, student, update.sampler, range(3)):
        episode = got.episode
        decisions = -(-len(episode) // 2)
        assert got.rewards.shape == (decisions,)
        assert got.x.shape[:2] == (3, decisions)
        assert got.past.shape == (decisions + 1, 1, student.layout.width)
        assert got.rewards.sum() == pytest.approx(float(episode.rewards.sum()), rel=1e-5)
        assert got.rewards[1] == pytest.approx(float(episode.rewards[2:4].sum()))
        chunk = student.normaliser.unnormalise_action(torch.from_numpy(got.x[-1])).numpy()
        limits = env.single_action_space
        assert isinstance(limits.low, np.ndarray)  # type: ignore[attr-defined]
        executed = chunk[:, :2].reshape(-1, chunk.shape[-1])[: len(episode)]
        np.testing.assert_allclose(np.clip(executed, limits.low, limits.high), episode.actions, atol=1e-5)  # type: ignore[attr-defined]
        seen = np.concatenate([episode.obs[name] for name, _ in student.layout.sizes], axis=1)
        np.testing.assert_array_equal(got.past[:-1, -1], seen[:-1:2])
        np.testing.assert_array_equal(got.past[-1, -1], seen[-1])
    env.close()


def test_a_batch_of_rollouts_depends_on_weights_and_index_alone(teacher: Path) -> None:
    (one,), (same,), (other,) = (source(teacher, RewardConfig())(index) for index in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.advantage, same.advantage)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x)
    assert one.returns is not None
    assert len(one.returns) == len(one.obs) == one.x.shape[1] == one.advantage.shape[1]


def test_a_group_begins_alike_and_is_compared_with_itself(teacher: Path) -> None:
    (batch,) = source(teacher, RewardConfig(), members=3, critic=False)(0)
    assert batch.returns is None
    starts = {tuple(row) for row in batch.obs[:, -1].tolist()}
    assert len(starts) < len(batch.obs)
    gains = batch.advantage[0].unique()
    assert 2 < len(gains) <= 12  # an episode's decisions share one
    with pytest.raises(InputError, match="groups of 2 members or more"):
        source(teacher, RewardConfig(), critic=False)


@pytest.mark.parametrize("executed", [1, 2])
def test_smoothness_sees_the_actions_before_a_chunk(executed: int, teacher: Path) -> None:
    found = source(teacher, RewardConfig(smooth=1.0))
    chunks = torch.arange(5.0)[:, None, None] * executed + torch.arange(4.0)[None, :, None].expand(5, 4, 5)
    found._judge.executed = slice(0, executed)
    before = found._before(chunks)  # actions go on straight over all seams
    assert float(roughness(torch.cat([before, chunks[:, :executed]], 1)).max()) == pytest.approx(0, abs=1e-10)


def test_rewards_are_added_by_their_weights(teacher: Path) -> None:
    told = {}
    for weight in (0.0, 3.0):
        found = source(teacher, RewardConfig(success=0.0, environment=1.0, limits=weight))
        (batch,) = found(0)
        told[weight] = batch.told
    plain, with_limits = told[0.0], told[3.0]
    assert "limits" not in plain
    assert with_limits["return"] == plain["return"]
    assert plain["reward"] == pytest.approx(plain["return"], rel=1e-5)
    assert with_limits["reward"] <= plain["reward"]
