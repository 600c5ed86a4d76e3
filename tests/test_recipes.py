"""The recipes, end to end in small: what each writes loads, costs are counted, interruption leaves no trace."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import minari
import numpy as np
import pytest

import diffpolicy.rollout.correction
from diffpolicy.data.dataset import read_dataset
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig, load_checkpoint
from diffpolicy.recipes.actors import load_actor
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy.recipes.video import Video
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.loop import rollout
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy.training.ema import Ema
from diffpolicy.training.logs import read_lines
from diffpolicy.updates.regression import Regression

TASK = "diffpolicy/PickPlace-v0"
TINY = PolicyConfig(network=MLPConfig(width=16, blocks=1, time_dim=8), sampler=SamplerConfig(steps=2))


@dataclass(frozen=True)
class House:
    """The settings of three stages that have run, one on the other."""

    collect: Collect
    bc: Bc
    correct: Correct


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    root = tmp_path_factory.mktemp("house")
    collect = Collect(out=root / "demos", episodes=3)
    bc = Bc(collect.out, root / "bc", policy=TINY, steps=25, batch_size=16, checkpoint_every=10)
    correct = Correct(
        bc.out, root / "correct", rounds=2, rollouts=3, label_every=2, steps=12, batch_size=16, checkpoint_every=5
    )
    for recipe in (collect, bc, correct):
        recipe()
    return House(collect, bc, correct)


def weights(run: Path) -> bytes:
    """The weights in a run's checkpoint, bit for bit."""
    return (run / "checkpoint" / "model.safetensors").read_bytes()


def snapshot(folder: Path) -> dict[str, bytes]:
    """All that is in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def results(path: Path) -> dict[str, Any]:
    """An evaluation's file, without how long its decisions took."""
    found = dict(json.loads(path.read_text(encoding="utf-8")))
    for row in found["episodes"]:
        row.pop("latency_us", None)
    return found


def provenance(run: Path) -> Any:
    return load_checkpoint(run / "checkpoint").provenance


def test_collect_writes_successes_that_minari_itself_opens(house: House) -> None:
    ours = read_dataset(house.collect.out)
    theirs = minari.MinariDataset(house.collect.out / "data")
    assert ours.environment == TASK
    assert theirs.total_episodes == len(ours.episodes) == 3
    assert all(episode.success for episode in ours.episodes)
    for mine, other in zip(ours.episodes, theirs.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(mine.actions, other.actions)
    assert ours.provenance["env_steps"] >= sum(map(len, ours.episodes))


def test_what_each_stage_writes_loads_and_says_where_it_comes_from(house: House) -> None:
    for out, steps in ((house.bc.out, 25), (house.correct.out / "round-1", 12), (house.correct.out, 12)):
        loaded = load_checkpoint(out / "checkpoint")
        assert loaded.environment == TASK
        assert loaded.policy.config == TINY
        assert loaded.provenance["steps"] == steps
        assert loaded.provenance["train_s"] > 0
        assert {"settings", "versions", "commit", "machine"} <= set(loaded.provenance)
    assert provenance(house.correct.out)["parent"] == "../bc/checkpoint"
    assert [line["step"] for line in read_lines(house.bc.out / "train.jsonl")] == [9, 19, 24]
    assert weights(house.correct.out) == weights(house.correct.out / "round-2") != weights(house.bc.out)


def test_correction_counts_queries_and_environment_steps_exactly(house: House) -> None:
    demonstrated = sum(map(len, read_dataset(house.collect.out).episodes))
    queries = steps = demonstrated
    assert provenance(house.bc.out)["expert_queries"] == provenance(house.bc.out)["env_steps"] == demonstrated
    seeds = []
    for number in (1, 2):
        played = read_dataset(house.correct.out / f"round-{number}" / "rollouts").episodes
        seeds += [episode.seed for episode in played]
        assert sorted({episode.condition for episode in played}) == ["clean", "shove"]
        for episode in played:
            assert episode.labels is not None
            asked = episode.labels.valid.any(axis=1)
            assert list(np.flatnonzero(asked)) == list(range(0, len(episode), 2))
            queries += int(asked.sum())
            steps += len(episode) + int(episode.labels.valid.sum())
        spent = provenance(house.correct.out / f"round-{number}")
        assert (spent["expert_queries"], spent["env_steps"]) == (queries, steps)
    assert len(set(seeds)) == 6


@pytest.mark.parametrize("stop", [1, 10, 24, *random.Random(0).sample(range(2, 24), 3)])
@pytest.mark.parametrize("within", [False, True], ids=["between updates", "within an update"])
def test_interrupted_imitation_goes_on_bit_for_bit(
    house: House, stop: int, within: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bc = replace(house.bc, out=tmp_path / "bc")
    with monkeypatch.context() as patched:
        interrupt_at(stop, within, patched)
        with pytest.raises(KeyboardInterrupt):
            bc()
    assert 0 < provenance(bc.out)["steps"] <= stop + within
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    bc()
    assert weights(bc.out) == weights(house.bc.out)
    assert read_lines(bc.out / "train.jsonl") == read_lines(house.bc.out / "train.jsonl")


def interrupt_at(stop: int, within: bool, patched: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C in update number `stop`: before it begins, or while it moves the average of the weights."""
    call, move = Regression.__call__, Ema.update

    def before(self: Regression, batch: Any) -> Any:
        if self.step == stop:
            raise KeyboardInterrupt
        return call(self, batch)

    def amid(self: Ema, *arguments: Any) -> None:
        if arguments[-1] == stop:
            signal.raise_signal(signal.SIGINT)
        move(self, *arguments)

    if within:
        patched.setattr(Ema, "update", amid)
    else:
        patched.setattr(Regression, "__call__", before)


PLACES = {"label": [1], "play": [1, 3], "update": [5, 12, *random.Random(2).sample(range(6, 24), 3)]}  # calls made


@pytest.mark.parametrize(("what", "made"), [(what, made) for what, counts in PLACES.items() for made in counts])
def test_interrupted_correction_goes_on_bit_for_bit(
    house: House, what: str, made: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = replace(house.correct, out=tmp_path / "correct")
    home, name = {
        "label": (Correct, "_labelled"),
        "play": (diffpolicy.rollout.correction, "play_and_label"),
        "update": (Regression, "__call__"),
    }[what]
    real, calls = getattr(home, name), iter(range(99))

    def counted(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == made:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(home, name, counted)
        with pytest.raises(KeyboardInterrupt):
            correct()
    assert not [path for path in correct.out.rglob("*") if path.name.startswith(".")]
    assert not (correct.out / "checkpoint").exists()
    correct()
    assert weights(correct.out) == weights(house.correct.out)


def test_a_finished_stage_run_again_changes_nothing(house: House) -> None:
    root = house.bc.out.parent
    before = snapshot(root)
    for recipe in (house.collect, house.bc, house.correct):
        recipe()
    assert snapshot(root) == before


def test_a_folder_keeps_its_run_unless_told_to_replace_it(house: House, tmp_path: Path) -> None:
    bc, collect = replace(house.bc, out=tmp_path / "bc", steps=2), replace(house.collect, out=tmp_path / "demos")
    bc()
    collect()
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match="steps: 2 there, 3 now"):
        replace(bc, steps=3)()
    with pytest.raises(InputError, match="episodes: 3 there, 1 now"):
        replace(collect, episodes=1)()
    assert snapshot(tmp_path) == before
    replace(bc, steps=3, overwrite=True)()
    replace(collect, episodes=1, overwrite=True)()
    assert provenance(bc.out)["steps"] == 3
    assert len(read_dataset(collect.out).episodes) == 1


def test_a_folder_with_other_peoples_files_is_left_alone(house: House, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("five years of work")
    for overwrite in (False, True):
        for recipe in (house.bc, house.correct):
            with pytest.raises(InputError, match="holds no run of ours"):
                replace(recipe, out=tmp_path, overwrite=overwrite)()
        with pytest.raises(InputError, match=r"this holds something else|expected a folder with"):
            replace(house.collect, episodes=1, out=tmp_path, overwrite=overwrite)()
    assert snapshot(tmp_path) == {"thesis.txt": b"five years of work"}


def test_a_run_that_failed_before_it_made_anything_can_be_run_with_better_settings(
    house: House, tmp_path: Path
) -> None:
    bc = replace(house.bc, out=tmp_path / "bc", steps=0)
    with pytest.raises(InputError, match="steps"):
        bc()
    replace(bc, steps=2)()
    assert provenance(bc.out)["steps"] == 2


def test_wholly_mixed_rollouts_are_the_experts(house: House, tmp_path: Path) -> None:
    correct = replace(house.correct, out=tmp_path / "c", rounds=1, rollouts=2, beta=1.0, conditions=("clean",), steps=1)
    correct()
    played = read_dataset(correct.out / "round-1" / "rollouts").episodes
    env = make_vector(TASK, 2)
    for ours, theirs in zip(played, rollout(env, ScriptedExpert(env), [e.seed for e in played]), strict=True):
        np.testing.assert_array_equal(ours.actions, theirs.actions)
        assert ours.success
    env.close()


def test_takeover_labels_with_what_the_expert_did(house: House, tmp_path: Path) -> None:
    correct = replace(
        house.correct, out=tmp_path / "c", rounds=1, rollouts=6, method="takeover", label_every=1, steps=2
    )
    correct()
    played = read_dataset(correct.out / "round-1" / "rollouts").episodes
    starts = 0
    for episode in played:
        assert episode.labels is not None
        for t in np.flatnonzero(episode.labels.valid[:, 0]):
            reach = int(episode.labels.valid[t].sum())
            np.testing.assert_array_equal(episode.labels.chunks[t, :reach], episode.actions[t : t + reach])
            starts += 1
    spent, before = provenance(correct.out), provenance(house.bc.out)
    assert starts > 0
    assert spent["expert_queries"] == before["expert_queries"] + starts
    assert spent["env_steps"] == before["env_steps"] + sum(map(len, played))


@pytest.mark.parametrize("who", ["run", "checkpoint"])
def test_a_run_or_its_checkpoint_is_evaluated_without_further_flags(house: House, who: str, tmp_path: Path) -> None:
    folder = house.bc.out if who == "run" else house.bc.out / "checkpoint"
    out = Evaluate(str(folder), episodes=2)()
    assert out == house.bc.out / "evaluation.json"
    found = results(out)
    assert [row["condition"] for row in found["rows"]] == ["clean", "shove"]
    assert len(found["episodes"]) == 4
    assert all(row["nfe"] == 2 and row["network_calls"] > 0 for row in found["rows"])
    again = results(Evaluate(str(folder), episodes=2, out=tmp_path / "again.json")())
    assert again["episodes"] == found["episodes"]
    out.unlink()


def test_the_experts_episodes_do_not_depend_on_how_many_run_at_once(tmp_path: Path) -> None:
    expert = Evaluate("expert", environment=TASK, episodes=3)
    rows = [
        results(replace(expert, num_envs=count, out=tmp_path / f"{count}.json")())["episodes"] for count in (1, 2, 64)
    ]
    assert rows[0] == rows[1] == rows[2]
    assert sum(row["success"] for row in rows[0]) >= 5


def test_a_video_shows_every_actor(house: House) -> None:
    out = Video(("expert", str(house.bc.out / "checkpoint")), episodes=1, size=32, out=house.bc.out / "v.mp4")()
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-i", str(out), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, capture_output=True, check=True)
    found = re.search(r", (\d+)x(\d+)", raw.stderr.decode())
    assert found
    width, height = int(found[1]), int(found[2])
    frames = np.frombuffer(raw.stdout, np.uint8).reshape(-1, height, width, 3)
    assert len(frames) > 30
    assert width >= 2 * 32
    assert frames[0].std() > 1
    assert np.abs(frames[0].astype(float) - frames[-1]).max() > 10
    out.unlink()


def test_a_video_films_checkpoints_with_changed_settings(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Sequence[str]]] = []

    def noted(who: str, environment: str | None = None, change: Sequence[str] = ()) -> Any:
        asked.append((who, change))
        return load_actor(who, environment, change)

    monkeypatch.setattr("diffpolicy.recipes.actors.load_actor", noted)
    who, out = str(house.bc.out / "checkpoint"), house.bc.out / "v.mp4"
    Video((who, "expert"), out, environment=TASK, change=("acting.latency=2",), episodes=1, size=16)()
    assert asked == [(who, ("acting.latency=2",)), ("expert", ())]
    out.unlink()
    with pytest.raises(InputError, match=r"acting\.latency=2 could be changed, got expert"):
        Video(("expert",), out, environment=TASK, change=("acting.latency=2",))()
    assert not out.exists()


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "SAC"])
def test_another_environment_and_a_model_that_labels_it(algorithm: str, tmp_path: Path) -> None:
    import stable_baselines3

    zipped = tmp_path / "model.zip"
    getattr(stable_baselines3, algorithm)("MlpPolicy", "Pendulum-v1", device="cpu", seed=0).save(zipped)
    collect = Collect("Pendulum-v1", tmp_path / "demos", 1, expert=str(zipped), keep_failures=True)
    bc = Bc(collect.out, tmp_path / "bc", policy=TINY, steps=3, batch_size=16)
    correct = Correct(bc.out, tmp_path / "c", labeller=str(zipped), rounds=1, rollouts=2, steps=3, batch_size=16)
    for recipe in (collect, bc, correct):
        recipe()
    played = read_dataset(correct.out / "round-1" / "rollouts").episodes
    assert [len(episode) for episode in played] == [200, 200]
    assert provenance(correct.out)["expert_queries"] > 200
    assert provenance(correct.out)["env_steps"] == 600
    (row,) = results(Evaluate(str(correct.out), episodes=1)())["rows"]
    assert (row["task"], row["condition"], row["length"]) == ("Pendulum-v1", "clean", 200)
    model = Evaluate(str(zipped), environment="Pendulum-v1", episodes=1, out=tmp_path / "model.json")
    assert results(model())["episodes"] == results(model())["episodes"]


def test_a_function_of_ones_own_demonstrates_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "import numpy as np\n"
        "class Still:\n"
        "    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        return np.full((len(observation), 1), 0.5, np.float32), state\n"
        "def expert(env):\n"
        "    return Still()\n"
    )
    (tmp_path / "still.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    collect = Collect("Pendulum-v1", tmp_path / "demos", 1, expert="still:expert", keep_failures=True)
    collect()
    assert (read_dataset(collect.out).episodes[0].actions == 0.5).all()
    for wrong in ("still:nobody", "nowhere:expert"):
        with pytest.raises(InputError, match="module:function"):
            Collect("Pendulum-v1", tmp_path / "other", 1, expert=wrong, keep_failures=True)()
