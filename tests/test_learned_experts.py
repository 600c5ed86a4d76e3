"""Learned experts: what a training leaves acts by itself, goes on after Ctrl-C, and refuses what it cannot learn."""

from __future__ import annotations

import inspect
import io
import json
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import stable_baselines3 as sb3
import torch
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from benchmarks import learned_experts
from benchmarks.tables import RESULTS
from diffpolicy import cli
from diffpolicy.errors import InputError
from diffpolicy.recipes import expert as recipe
from diffpolicy.recipes.actors import load_actor
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.expert import PPO, SAC, TUNED, Expert, numbers_of
from diffpolicy.recipes.folding import fold, plain_zip
from diffpolicy.recipes.learner import Learner, Lesson
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.labeller import label_by_branching
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy_envs.paths import assets_folder

SHIPPED = ["Hopper-v5", "Walker2d-v5", "HalfCheetah-v5", "Reacher-v5", "Pusher-v5"]
ZIPS = sorted((assets_folder() / "experts").glob("*.zip"))
TASK = "Reacher-v5"
pytestmark = pytest.mark.filterwarnings("ignore:.*out of date.*:DeprecationWarning")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of few steps."""
    monkeypatch.setitem(PPO, "copies", 2)
    monkeypatch.setitem(PPO, "n_steps", 64)
    monkeypatch.setitem(PPO, "n_epochs", 1)
    monkeypatch.setitem(SAC, "learning_starts", 190)
    monkeypatch.setattr("diffpolicy.recipes.learner._WARM_UP", 100)
    monkeypatch.setattr("diffpolicy.recipes.learner._LOG_EVERY", 64)


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C be pressed at an environment step."""
    from diffpolicy.recipes import learner

    listen = learner._Listener._on_step

    def pressed(self: Any) -> bool:
        if self.num_timesteps >= step:
            monkeypatch.setattr(learner._Listener, "_on_step", listen)
            raise KeyboardInterrupt
        return listen(self)

    monkeypatch.setattr(learner._Listener, "_on_step", pressed)


@pytest.mark.parametrize("activation", [torch.nn.Tanh, torch.nn.ReLU])
def test_the_folded_network_equals_the_normalised_one(activation: Any) -> None:
    env = VecNormalize(DummyVecEnv([lambda: Monitor(gymnasium.make("Hopper-v5"))]), clip_obs=np.inf)
    model = sb3.PPO("MlpPolicy", env, n_steps=64, device="cpu", policy_kwargs={"activation_fn": activation})
    model.learn(256)
    draw = np.random.default_rng(0)
    seen = (env.obs_rms.mean + 3 * np.sqrt(env.obs_rms.var) * draw.normal(size=(500, 11))).astype(np.float32)  # type: ignore[union-attr]

    def answers(observation: Any) -> list[np.ndarray]:
        tensor = torch.as_tensor(observation)
        with torch.no_grad():
            mean = model.policy.get_distribution(tensor).distribution.mean  # type: ignore[attr-defined]
            return [mean.numpy(), model.policy.predict_values(tensor).numpy()]  # type: ignore[attr-defined]

    before = answers(env.normalize_obs(seen))
    fold(model.policy, env.obs_rms.mean, np.sqrt(env.obs_rms.var + env.epsilon))  # type: ignore[union-attr]
    loaded = sb3.PPO.load(io.BytesIO(plain_zip(model)), device="cpu")
    for one, other in zip(before, answers(seen), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        loaded.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )
    assert not loaded.policy.optimizer.state_dict()["state"]
    env.close()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_a_training_leaves_a_model_an_evaluation_and_nothing_else(algorithm: Any, tmp_path: Path) -> None:
    model = Expert(TASK, tmp_path / "run", algorithm, steps=220, episodes=4)()
    assert {path.name for path in model.parent.iterdir()} == {
        "model.zip", "run.json", "train.json", "train.jsonl", "evaluation.json"
    }  # fmt: skip
    loaded = {"ppo": sb3.PPO, "sac": sb3.SAC}[algorithm].load(model, device="cpu")  # type: ignore[attr-defined]
    assert loaded.predict(np.zeros((3, 10), np.float32), deterministic=True)[0].shape == (3, 2)
    with zipfile.ZipFile(model) as archive:
        assert "system_info.txt" not in archive.namelist()
        assert "diffpolicy" not in archive.read("data").decode()
    told = json.loads((model.parent / "evaluation.json").read_text(encoding="utf-8"))
    (row,) = told["rows"]
    assert row["ci_low"] <= row["return_mean"] <= row["ci_high"]
    assert row["env_steps"] >= 220
    assert len(told["episodes"]) == row["episodes"] == 4
    assert min(each["seed"] for each in told["episodes"]) >= 1_000_000_000
    assert told["trained"]["hyperparameters"]["gamma"] == numbers_of(algorithm, TASK)["gamma"]
    assert Expert(TASK, tmp_path / "run", algorithm, steps=220, episodes=4)() == model  # only finds it


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("algorithm", ["ppo", "sac"])
def test_ctrl_c_saves_and_the_same_command_goes_on(
    algorithm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train = Expert(TASK, tmp_path, algorithm, steps=300, episodes=2)
    interrupted_at(200, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train()
    state, numbers = tmp_path / "train-state.zip", numbers_of(algorithm, TASK)
    assert state.is_file()
    kept = Learner(Lesson(TASK, algorithm, 300, 0, {k: v for k, v in numbers.items() if k != "steps"}), state)
    assert 200 <= kept.done < 300
    if algorithm == "sac":
        assert kept.model.replay_buffer.pos == kept.done - 1  # type: ignore[attr-defined]
        assert kept.model.replay_buffer.rewards[: kept.done - 1].all()  # type: ignore[attr-defined]
    else:
        assert kept.normalised is not None
        assert kept.normalised.obs_rms.count > 300  # type: ignore[union-attr]
    kept.env.close()
    capsys.readouterr()
    train()
    assert f"goes on from step {kept.done} of 300" in capsys.readouterr().out
    assert not state.exists()
    assert json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))["env_steps"] >= 300


@pytest.mark.usefixtures("small")
def test_a_training_repeats_bit_for_bit(tmp_path: Path) -> None:
    one, other = (Expert(TASK, tmp_path / name, steps=128, episodes=2)() for name in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.usefixtures("small")
def test_what_cannot_be_learnt_or_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a Box of continuous actions"):
        Expert("CartPole-v1", tmp_path / "a")()
    with pytest.raises(InputError, match="did you mean"):
        Expert("Hoper-v5", tmp_path / "a")()
    with pytest.raises(InputError, match="expected a Box of one axis"):
        Expert("diffpolicy/PickPlace-v0", tmp_path / "a")()
    for bad in ({"steps": -1}, {"episodes": 1}, {"seed": 500}):
        with pytest.raises(InputError, match="expected steps"):
            Expert(TASK, tmp_path / "a", **bad)()  # type: ignore[arg-type]
    assert not (tmp_path / "a").exists()
    (tmp_path / "thesis.txt").write_text("five years of work", encoding="utf-8")
    with pytest.raises(InputError, match="holds no run of ours"):
        Expert(TASK, tmp_path, steps=1)()


class Brittle(gymnasium.Env[Any, Any]):
    """Breaks in its 200th step."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if self.steps == 200:
            raise RuntimeError("a cable broke")
        return np.zeros(2, np.float32), 0.0, False, False, {}


@pytest.mark.usefixtures("small")
def test_what_goes_wrong_in_a_training_is_told(tmp_path: Path) -> None:
    if "Brittle-v1" not in gymnasium.registry:
        gymnasium.register("Brittle-v1", Brittle, max_episode_steps=20)
    with pytest.raises(InputError, match=r"Brittle-v1 failed in training .*a cable broke"):
        Expert("Brittle-v1", tmp_path / "a", steps=300)()
    lesson = Lesson(TASK, "ppo", 1, 0, {k: v for k, v in numbers_of("ppo", TASK).items() if k != "steps"})
    learner = Learner(lesson, tmp_path / "state.zip")
    with torch.no_grad():
        learner.model.policy.log_std[0] = np.nan  # type: ignore[index, operator]
    with pytest.raises(FloatingPointError, match="not finite"):
        learner.finished()
    learner.env.close()


@pytest.mark.usefixtures("small")
def test_a_run_is_replaced_only_when_asked(tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = Expert(TASK, out, steps=1, episodes=2)().read_bytes()
    with pytest.raises(InputError, match="seed: 0 there, 1 now"):
        Expert(TASK, out, steps=1, episodes=2, seed=1)()
    assert Expert(TASK, out, steps=1, episodes=2, seed=1, overwrite=True)().read_bytes() != first
    (out / "train-state.zip").write_bytes(b"damaged")
    (out / "model.zip").unlink()
    with pytest.raises(InputError, match="expected the state of this training"):
        Expert(TASK, out, steps=1, episodes=2, seed=1)()


def test_the_table_of_hyperparameters_speaks_the_language_of_stable_baselines() -> None:
    ours = {"copies", "steps", "annealed", "net_arch", "activation", "log_std_init"}
    for algorithm, made in {"ppo": sb3.PPO, "sac": sb3.SAC}.items():
        known = set(inspect.signature(made.__init__).parameters) | ours
        for environment in [*SHIPPED, "Another-v0"]:
            assert set(numbers_of(algorithm, environment)) <= known
    assert {name for _, name in TUNED} <= set(SHIPPED)
    assert numbers_of("ppo", "HalfCheetah-v5")["gamma"] == 0.98 != numbers_of("ppo", "Hopper-v5")["gamma"]


def test_an_expert_ships_for_each_of_the_five() -> None:
    assert {f"{name}.zip" for name in SHIPPED} <= {path.name for path in ZIPS}
    assert any(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["method"] == "sac" for path in ZIPS)


@pytest.mark.parametrize("path", ZIPS, ids=lambda path: path.stem)
def test_a_shipped_expert_is_a_small_plain_model_far_above_chance(path: Path) -> None:
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert path.stat().st_size < 150_000
    model = {"ppo": sb3.PPO, "sac": sb3.SAC}[about["method"]].load(path, device="cpu")  # type: ignore[attr-defined]
    floors = {"Hopper-v5": 500, "Walker2d-v5": 500, "HalfCheetah-v5": 1500, "Reacher-v5": -12, "Pusher-v5": -60}
    env = make_vector(about["environment"], 2)
    actor = load_actor(path, about["environment"]).make(env)
    played = rollout(env, actor, range(1_400_000_000, 1_400_000_002))
    assert np.mean([episode.total_reward for episode in played]) > floors[about["environment"]]
    assert model.num_timesteps == about["env_steps"]
    env.close()


def test_expert_means_the_learned_one_where_none_is_scripted() -> None:
    env, ours = make_vector("Hopper-v5", 2), make_vector("diffpolicy/PickPlace-v0", 2)
    learned = load_actor("expert", "Hopper-v5")
    assert (learned.name, learned.environment, learned.provenance["method"]) == ("expert", "Hopper-v5", "ppo")
    obs, _ = env.reset(seed=[0, 1])
    action, _ = learned.make(env).predict(obs)
    assert action.shape == (2, 3)
    assert isinstance(load_actor("expert", "diffpolicy/PickPlace-v0").make(ours), ScriptedExpert)
    with pytest.raises(InputError, match="knows no scripted expert"):
        load_actor("expert", "Pendulum-v1").make(make_vector("Pendulum-v1", 1))
    env.close()
    ours.close()


def test_a_learned_expert_labels_by_branching() -> None:
    env = make_vector("Pusher-v5", 8)
    teacher = load_actor("expert", "Pusher-v5").make(env)
    (episode,) = rollout(env, teacher, [7], record_states=True)
    (labelled,), cost = label_by_branching(env, teacher, [episode], 5, every=10)
    assert (cost.queries, cost.failed) == (10, 0)
    assert labelled.labels is not None
    for start in range(0, 90, 10):  # float32 sums differ in their last bit with the size of the batch
        np.testing.assert_allclose(labelled.labels.chunks[start], episode.actions[start : start + 5], atol=1e-3)
    env.close()


def test_demonstrations_of_a_learned_expert(tmp_path: Path) -> None:
    Collect("Reacher-v5", tmp_path / "demos", episodes=3, keep_failures=True)()
    assert (tmp_path / "demos" / "data").is_dir()


def test_the_command_line_trains(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.RECIPES["expert"] is Expert
    assert cli.main(["expert", "--environment", "Pusher-v5", "--algorithm", "sac", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["recipe"], shown["algorithm"]) == ("expert", "sac")


def test_committed_rows_are_of_the_shipped_experts() -> None:
    content = json.loads((RESULTS / "learned-experts.json").read_text(encoding="utf-8"))
    assert content["command"] == "python -m benchmarks.learned_experts"
    assert content["commit"]
    assert content["machine"]
    assert {row["expert"] for row in content["rows"]} == {path.name for path in ZIPS}
    for row in content["rows"]:
        about = json.loads((assets_folder() / "experts" / row["expert"]).with_suffix(".json").read_text("utf-8"))
        assert (row["method"], row["task"]) == (about["method"], about["environment"])
        assert (row["train_s"], row["env_steps"]) == (about["train_s"], about["env_steps"])
        assert row["episodes"] >= 100
        assert row["ci_low"] < row["return_mean"] < row["ci_high"]
        if row["published"] is not None:
            assert row["gap"] == pytest.approx(row["return_mean"] - row["published"], abs=0.01)
            assert row["published_source"].startswith("https://")


def test_the_page_prints_the_committed_rows() -> None:
    rows = json.loads((RESULTS / "learned-experts.json").read_text(encoding="utf-8"))["rows"]
    assert learned_experts.printed() == learned_experts.table(rows), "python -m benchmarks.learned_experts"


def test_returns_carry_an_interval_and_a_robust_mean() -> None:
    class Row:
        def __init__(self, value: float) -> None:
            self.total_reward = value

    found = recipe.returns([Row(v) for v in [0.0, 1.0, 1.0, 100.0]])
    assert found["return_mean"] == 25.5
    assert found["return_iqm"] == 1.0
    assert found["ci_low"] < 25.5 < found["ci_high"]


HOPPER = assets_folder() / "experts" / "Hopper-v5.zip"


@pytest.mark.parametrize("environment", ["Walker2d-v5", "diffpolicy/Reach-v0", "Pendulum-v1"])
def test_a_model_of_another_environment_is_refused_in_words(environment: str) -> None:
    said = rf"Hopper-v5.zip was trained for .* but {environment} has"
    with closing(make_vector(environment, 1)) as env, pytest.raises(InputError, match=said):
        load_actor(HOPPER, environment).make(env)


def test_a_model_in_other_units_of_action_is_refused_in_words(tmp_path: Path) -> None:
    sb3.SAC("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, buffer_size=1).save(tmp_path / "weak.zip")
    with closing(make_vector("Pendulum-v1", 1)) as env:
        actor = load_actor(tmp_path / "weak.zip", "Pendulum-v1")
        actor.make(env)
        env.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        with pytest.raises(InputError, match="was trained for actions of"):
            actor.make(env)


@pytest.mark.parametrize("damage", ["weights", "description"])
def test_a_damaged_model_is_refused_in_words(damage: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(HOPPER) as whole, zipfile.ZipFile(tmp_path / "cut.zip", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            if damage == "weights" and name == "policy.pth":
                content = content[:1000]
            cut.writestr(name, b"[]" if damage == "description" and name == "data" else content)
    with pytest.raises(InputError, match="expected the zip file of a Stable-Baselines3 model"):
        load_actor(tmp_path / "cut.zip", "Hopper-v5")


@pytest.mark.usefixtures("small")
def test_the_run_of_a_training_is_an_actor_in_its_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Expert(TASK, tmp_path / "run", steps=1, episodes=2)()
    assert "128 steps at a time" in capsys.readouterr().out
    actor, same = load_actor(model.parent), load_actor(model, TASK)
    assert (actor.environment, actor.name, actor.provenance["method"]) == (TASK, "run", "ppo")
    assert actor.folder is None  # its evaluation.json is the training's
    with closing(make_vector(TASK, 2)) as env:
        seen, _ = env.reset(seed=[1, 2])
        assert np.array_equal(actor.make(env).predict(seen)[0], same.make(env).predict(seen)[0])
    (model.parent / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"evaluation\.json is no evaluation of a model"):
        Expert(TASK, tmp_path / "run", steps=1, episodes=2)()


class Rough(Brittle):
    """Breaks by a number, or by an exception, in its n-th step; its actions may have no bounds."""

    def __init__(self, how: str, when: int = 50, bound: float = 1.0) -> None:
        self.how, self.when = how, when
        self.action_space = gymnasium.spaces.Box(-1.0, bound, (1,), np.float32)

    def step(self, action: Any) -> Any:
        self.steps += 1
        seen, reward = np.zeros(2, np.float32), 0.0
        if self.steps == self.when:
            if self.how == "raise":
                raise RuntimeError("a cable broke")
            seen, reward = (seen * np.nan, reward) if self.how == "observation" else (seen, float("nan"))
        return seen, reward, False, False, {}


if "Rough-v0" not in gymnasium.registry:
    gymnasium.register("Rough-v0", Rough, max_episode_steps=20, disable_env_checker=True)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"how": "raise"}, "Rough-v0 failed in training .*a cable broke"),
        ({"how": "observation"}, "Rough-v0 failed in training .*the observation is not finite"),
        ({"how": "reward", "when": 150}, "Rough-v0 failed in training .*the reward is nan"),
        ({"how": "raise", "when": 1}, "Rough-v0 broke at once.*a cable broke"),
        ({"how": "raise", "bound": np.inf}, "expected a Box of one axis with finite bounds"),
    ],
)
def test_an_environment_that_breaks_in_a_training_is_named(
    words: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gymnasium.spec("Rough-v0").kwargs, "how", "raise")
    for name, value in words.items():
        monkeypatch.setitem(gymnasium.spec("Rough-v0").kwargs, name, value)
    old = tmp_path / "a" / "model.zip"
    if "bound" in words or words.get("when") == 1:
        old.parent.mkdir()
        (old.parent / "run.json").write_text('{"recipe": "expert"}', encoding="utf-8")
        old.write_bytes(b"a model")
    with pytest.raises(InputError, match=said):
        Expert("Rough-v0", tmp_path / "a", steps=300, overwrite=True)()
    if old.parent.exists() and ("bound" in words or words.get("when") == 1):
        assert old.read_bytes() == b"a model"  # it is not given up for what cannot be trained
