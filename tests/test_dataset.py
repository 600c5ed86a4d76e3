"""Laws of datasets on disk: nothing is lost, Minari and we read each other, bad files are refused."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from diffpolicy.data.dataset import read_dataset, write_dataset
from diffpolicy.data.episode import Episode, Labels
from diffpolicy.errors import InputError

ACTION = Box(-1.0, 1.0, (2,), np.float32)
NAMED = Dict({"hand": Box(-2.0, 2.0, (3,), np.float32), "cube/pose": Box(-np.inf, np.inf, (4,), np.float32)})
BOXED = Box(-np.inf, np.inf, (3,), np.float64)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def record(number: int, boxed: bool = False, **changes: Any) -> Episode:
    rng, steps = np.random.default_rng(number), 3 + number
    obs = {"hand": noise(rng, steps + 1, 3), "cube/pose": noise(rng, steps + 1, 4)}
    fields: dict[str, Any] = {
        "obs": {"observation": obs["hand"]} if boxed else obs,
        "actions": noise(rng, steps, 2),
        "rewards": noise(rng, steps),
        "terminated": number % 2 == 0,
        "truncated": number % 3 == 1,
        "success": number % 2 == 0,
        "seed": number - 1,
        "condition": ("clean", "shove")[number % 2],
    }
    return Episode(**{**fields, **changes})


def full(number: int) -> Episode:
    """An episode with everything that Minari has no place for."""
    rng, steps = np.random.default_rng(100 + number), 3 + number
    labels = Labels(noise(rng, steps, 5, 2), rng.random((steps, 5)) < 0.5)
    return record(number, labels=labels, states=rng.standard_normal((steps, 11)))


def save(path: Path, episodes: list[Episode], **changes: Any) -> Path:
    about = {"environment": "diffpolicy/Nowhere-v0", "observation_space": NAMED, "action_space": ACTION}
    return write_dataset(path, episodes, **{**about, **changes})


def assert_same(one: Episode, other: Episode) -> None:
    def bits(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.dtype, value.shape, value.tobytes()
        if isinstance(value, Episode | Labels):
            value = vars(value)
        return {name: bits(part) for name, part in value.items()} if isinstance(value, dict) else value

    assert bits(one) == bits(other)


def test_the_round_trip_loses_nothing(tmp_path: Path) -> None:
    episodes = [record(0), full(1), full(2), record(3), *(record(n) for n in range(4, 12))]
    provenance = {"commit": "abc", "seed": 3, "parents": ["x", None]}
    path = save(tmp_path / "deep" / "demos", episodes, provenance=provenance, description="Two hands.")
    back = read_dataset(path)
    for one, other in zip(episodes, back.episodes, strict=True):
        assert_same(one, other)
    assert (back.environment, back.provenance) == ("diffpolicy/Nowhere-v0", provenance)
    assert (back.observation_space, back.action_space) == (NAMED, ACTION)
    assert back.success_known
    assert [entry.name for entry in path.parent.iterdir()] == ["demos"]


def test_a_box_stays_a_box(tmp_path: Path) -> None:
    back = read_dataset(save(tmp_path / "demos", [record(0, boxed=True)], observation_space=BOXED))
    assert back.observation_space == BOXED
    assert_same(back.episodes[0], record(0, boxed=True))


def test_minari_reads_ours(tmp_path: Path) -> None:
    episodes = [full(0), record(1), record(4)]
    stored = minari.MinariDataset(save(tmp_path / "demos", episodes, environment="Pendulum-v1") / "data")
    assert (len(stored), stored.total_steps) == (3, sum(map(len, episodes)))
    assert stored.spec.namespace == "diffpolicy"
    assert stored.env_spec.id == "Pendulum-v1"
    assert stored.observation_space == Dict({"cube": Dict({"pose": NAMED["cube/pose"]}), "hand": NAMED["hand"]})
    assert stored.action_space == ACTION
    for one, other in zip(episodes, stored.iterate_episodes(), strict=True):
        np.testing.assert_array_equal(other.observations["cube"]["pose"], one.obs["cube/pose"])
        np.testing.assert_array_equal(other.actions, one.actions)
        np.testing.assert_array_equal(other.rewards, one.rewards)
        assert other.terminations.tolist() == [False] * (len(one) - 1) + [one.terminated]
        assert other.truncations.tolist() == [False] * (len(one) - 1) + [one.truncated]
        assert other.infos["success"].shape == (len(one) + 1,)
        assert other.infos["success"].any() == one.success


def test_minari_loads_ours_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    save(tmp_path / "arm" / "demos-v0", [record(0, boxed=True)], observation_space=BOXED)
    assert minari.load_dataset("arm/demos-v0").total_episodes == 1
    assert_same(read_dataset("arm/demos-v0").episodes[0], record(0, boxed=True))
    with pytest.raises(InputError, match="does not exist"):
        read_dataset("arm/demos-v1")


def foreign(path: Path, observation_space: Any, observations: Any, **changes: Any) -> Path:
    """What Minari itself writes, in the layout of its D4RL datasets."""
    steps = 4
    path.mkdir(exist_ok=True)
    action_space = changes.pop("action_space", Box(-1.0, 1.0, (2,), np.float32))
    storage = MinariStorage.new(path / "data", observation_space, action_space)
    storage.update_metadata({"dataset_id": "D4RL/door/human-v2", "minari_version": "0.4.3"})
    fields: dict[str, Any] = {
        "seed": 5,
        "actions": np.linspace(-1, 1, 2 * steps).reshape(steps, 2),
        "rewards": [0.0, 0.0, 0.5, 1.0],
        "terminations": [False] * steps,
        "truncations": [False, False, False, True],
        "infos": {"success": [False, False, True, False, False], "goal": np.zeros((5, 2))},
    }
    storage.update_episodes([EpisodeBuffer(observations=observations, **{**fields, **changes})])
    return path


def test_we_read_what_minari_writes(tmp_path: Path) -> None:
    rows = np.arange(15.0).reshape(5, 3)
    space = Dict({"state": BOXED, "goal": Dict({"xyz": BOXED})})
    back = read_dataset(foreign(tmp_path / "dict", space, {"state": rows, "goal": {"xyz": -rows}}))
    (episode,) = back.episodes
    np.testing.assert_array_equal(episode.obs["goal/xyz"], -rows.astype(np.float32))
    assert back.observation_space == Dict({"state": BOXED, "goal/xyz": BOXED})
    assert (episode.seed, episode.terminated, episode.truncated, episode.success) == (5, False, True, True)
    assert episode.total_reward == 1.5
    assert (back.environment, back.provenance, back.success_known) == ("", {}, True)


def test_success_that_nobody_recorded_is_said_to_be_unknown(tmp_path: Path) -> None:
    rows = np.arange(15.0).reshape(5, 3)
    back = read_dataset(foreign(tmp_path / "box", BOXED, rows, infos=None, seed=None))
    assert set(back.episodes[0].obs) == {"observation"}
    assert (back.episodes[0].success, back.success_known, back.episodes[0].seed) == (False, False, -1)
    said = read_dataset(foreign(tmp_path / "said", BOXED, rows, infos={"is_success": np.eye(5)[4]}))
    assert (said.episodes[0].success, said.success_known) == (True, True)


def test_jax_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)  # importing it raises
    assert len(read_dataset(save(tmp_path / "demos", [full(0)])).episodes) == 1


def test_foreign_data_that_we_cannot_use_is_refused(tmp_path: Path) -> None:
    rows = np.arange(15.0).reshape(5, 3)
    holed = rows.copy()
    holed[2, 1] = np.nan
    cases: list[tuple[str, Any, Any, dict[str, Any]]] = [
        (r"episode 0: obs\['observation'\].*nan", BOXED, holed, {}),
        ("T\\+1 observations", BOXED, rows[:4], {}),
        ("action space.*Discrete", BOXED, rows, {"action_space": Discrete(3), "actions": [0, 1, 2, 0]}),
        ("observation space.*Tuple", Tuple((BOXED,)), (rows,), {}),
        ("widths", BOXED, rows[:, :2], {}),
    ]
    for number, (named, space, observations, changes) in enumerate(cases):
        path = foreign(tmp_path / str(number), space, observations, **changes)
        with pytest.raises(InputError, match=named):
            read_dataset(path)


def test_files_that_are_missing_cut_off_or_foreign_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no dataset"):
        read_dataset(tmp_path)
    path = save(tmp_path / "demos", [record(0)])
    theirs = foreign(tmp_path / "theirs", BOXED, np.zeros((5, 3)))
    for folder, named in ((path, "its checksum is another"), (theirs, "cannot be read")):
        table = folder / "data" / "main_data.hdf5"
        whole = table.read_bytes()
        for broken in (whole[: len(whole) // 2], b"", b"not HDF5 at all" * 100):
            table.write_bytes(broken)
            with pytest.raises(InputError, match=named):
                read_dataset(folder)
        with h5py.File(table, "w") as file:
            file["data/demo_0/actions"] = np.zeros(3)
        with pytest.raises(InputError, match=named):
            read_dataset(folder)
        table.unlink()
        with pytest.raises(InputError, match="cannot be read"):
            read_dataset(folder)


@pytest.mark.parametrize(
    ("episodes", "changes", "named"),
    [
        ([], {}, "at least one"),
        ([record(0), record(1, boxed=True)], {}, "episode 1"),
        ([record(0)], {"observation_space": BOXED}, "episode 0"),
        ([record(0)], {"action_space": Box(-1.0, 1.0, (3,))}, r"\(action\)"),
        ([record(0)], {"action_space": Discrete(2)}, "action space"),
        ([record(0)], {"observation_space": Dict({"image": Box(0, 255, (8, 8), np.uint8)})}, "1-D Box"),
        ([record(0)], {"provenance": {"time": object()}}, "provenance"),
        ([record(0)], {"provenance": {"loss": float("nan")}}, "provenance"),
    ],
)
def test_what_does_not_fit_is_not_written(
    tmp_path: Path, episodes: list[Episode], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(InputError, match=named):
        save(tmp_path / "demos", episodes, **changes)
    assert not list(tmp_path.iterdir())


def test_only_a_dataset_of_ours_is_replaced_and_only_when_asked(tmp_path: Path) -> None:
    path = save(tmp_path / "demos", [record(0)])
    with pytest.raises(InputError, match="overwrite=True"):
        save(path, [record(1)])
    assert_same(read_dataset(path).episodes[0], record(0))
    save(path, [record(1), record(2)], overwrite=True)
    assert len(read_dataset(path).episodes) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["demos"]
    (path / "notes.txt").write_text("mine")
    theirs = foreign(tmp_path / "theirs", BOXED, np.zeros((5, 3)))
    for taken in (path, path / "notes.txt", theirs):
        with pytest.raises(InputError, match="choose another"):
            save(taken, [record(1)], overwrite=True)
    assert (path / "notes.txt").read_text() == "mine"


def test_a_write_that_fails_leaves_the_old_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "demos", [record(0)])

    def full_disk(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match=r"demos of 0\.0 MB, got No space left on device; free some space") as raised:
        save(path, [record(1)], overwrite=True)
    assert raised.value.errno == errno.ENOSPC
    assert_same(read_dataset(path).episodes[0], record(0))
    assert [entry.name for entry in tmp_path.iterdir()] == ["demos"]
