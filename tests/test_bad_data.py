"""Laws of datasets that are damaged, edited, cut short by a kill or a full disk, or unfit to train on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffpolicy.data.checks import require_usable, warnings_about
from diffpolicy.data.dataset import read_dataset, write_dataset
from diffpolicy.data.episode import Episode, Labels, from_arrays
from diffpolicy.data.storage import METADATA, TABLE, restore
from diffpolicy.errors import InputError
from diffpolicy.policy import SpaceSpec

UNIT = Box(-1.0, 1.0, (2,))


def play(steps: int = 20, number: int = 0, **changes: Any) -> Episode:
    """An episode without anything odd: all dimensions vary over most of their bounds."""
    rng = np.random.default_rng(number)
    rows = rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32)
    fields = {"obs": {"x": rows}, "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32)}
    flags = {"rewards": np.zeros(steps, np.float32), "terminated": True, "truncated": False, "success": True}
    return Episode(**{**fields, **flags, **changes})


def save(path: Path, number: int = 0, **changes: Any) -> Path:
    about: dict[str, Any] = {"environment": "", "observation_space": Dict({"x": UNIT}), "action_space": UNIT}
    return write_dataset(path, [play(number=number)], **{**about, **changes})


# --- files that were changed ---------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_in_the_table_is_noticed(tmp_path: Path) -> None:
    folder = save(tmp_path / "demos")
    whole, rng = (folder / TABLE).read_bytes(), np.random.default_rng(0)
    for place in rng.integers(0, len(whole), 25):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(rng.integers(8))
        (folder / TABLE).write_bytes(changed)
        with pytest.raises(InputError, match="its checksum is another"):
            read_dataset(folder)
    (folder / TABLE).write_bytes(whole)
    read_dataset(folder)


def test_a_dataset_of_ours_without_checksum_is_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "demos")
    metadata = json.loads((folder / METADATA).read_text())
    del metadata["diffpolicy"]["sha256"]  # as earlier versions wrote it
    (folder / METADATA).write_text(json.dumps(metadata))
    assert len(read_dataset(folder).episodes) == 1


EDITS: list[tuple[str, Any, str]] = [
    ("diffpolicy", None, "edited"),
    ("diffpolicy", [], "edited"),
    ("diffpolicy", "ours", "edited"),
    ("diffpolicy", {}, "got None"),
    ("diffpolicy", {"format": "1"}, "got '1'"),
    ("diffpolicy", {"format": 2}, "upgrade"),
    ("diffpolicy", {"format": 1e300}, "edited"),
    ("diffpolicy", {"format": 1, "environment": 3}, '"environment"'),
    ("diffpolicy", {"format": 1, "provenance": None}, '"provenance"'),
    ("diffpolicy", {"format": 1, "sha256": 5}, "checksum"),
    ("total_episodes", 0, "at least one"),
    ("total_episodes", 2, "cannot be read"),
    ("total_episodes", -1, "episodes"),
    ("total_episodes", 10**12, "at most"),
    ("total_episodes", float("inf"), "edited"),
    ("total_episodes", "many", "edited"),
    ("total_episodes", [1], "edited"),
    ("total_steps", 7, "expected 7 steps"),
    ("total_steps", None, "expected None steps"),
    ("observation_space", None, "cannot be read"),
    ("observation_space", "{}", "cannot be read"),
    ("observation_space", '{"type": "Discrete", "dtype": "int64", "start": 0, "n": 3}', "cannot be read"),
    ("action_space", 3, "cannot be read"),
    ("env_spec", "{", "cannot be read"),
    ("data_format", "pickle", "cannot be read"),
    ("minari_version", "99.0", "99.0"),
]


@pytest.mark.parametrize(("field", "value", "named"), EDITS, ids=lambda value: str(value)[:30])
def test_edited_metadata_are_refused_in_words(tmp_path: Path, field: str, value: Any, named: str) -> None:
    folder = save(tmp_path / "demos")
    metadata = json.loads((folder / METADATA).read_text())
    (folder / METADATA).write_text(json.dumps({**metadata, field: value}))
    with pytest.raises(InputError, match=named) as raised:
        read_dataset(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("text", ["", "null", "[]", "3", '{"total_', "{}", "[" * 100_000])
def test_metadata_that_are_no_mapping_are_refused(tmp_path: Path, text: str) -> None:
    folder = save(tmp_path / "demos")
    (folder / METADATA).write_text(text)
    with pytest.raises(InputError, match="edited"):
        read_dataset(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_the_metadata_raises_anything_but_input_error(data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / "demos"
    if not folder.exists():
        save(folder)
        (tmp_path / "kept").write_bytes((folder / METADATA).read_bytes())
    text = bytearray((tmp_path / "kept").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.sampled_from(b'0189"{}[],:-.e \x00\xff'))
    (folder / METADATA).write_bytes(text)
    with suppress(InputError):
        assert len(read_dataset(folder).episodes) == 1


# --- a full disk and a kill ----------------------------------------------------------------------------------------

CHILD = """
import errno, os, resource, shutil, signal, sys
from pathlib import Path
from diffpolicy.data import storage
from diffpolicy.data.dataset import read_dataset, write_dataset
sys.path.insert(0, sys.argv[1])
from test_bad_data import save
folder = Path(sys.argv[2]) / "demos"
seeds = lambda: [episode.obs["x"][0, 0] for episode in read_dataset(folder).episodes]
save(folder, 1)
old = seeds()
"""

FULL = """
size = (folder / storage.TABLE).stat().st_size
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (0, 1, 1000, size // 2, size - 1):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    for place, overwrite in ((folder, True), (folder.with_name("other"), False)):
        try:
            save(place, 2, overwrite=overwrite)
        except OSError as error:
            assert error.errno == errno.EFBIG and "free some space" in str(error), error
        else:
            raise AssertionError(f"{place} was written within {limit} bytes")
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert seeds() == old
    assert os.listdir(folder.parent) == ["demos"], os.listdir(folder.parent)
"""

KILLED = """
moments = [(os, "fsync"), (Path, "replace"), (Path, "mkdir"), (shutil, "rmtree")]
new, at = None, 0
while True:
    child = os.fork()
    if not child:
        left = [at]
        def killing(call):
            def instead(*args, **options):
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left[0] -= 1
                return call(*args, **options)
            return instead
        for home, name in moments:
            setattr(home, name, killing(getattr(home, name)))
        save(folder, 2, overwrite=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    found = seeds()  # whole, at any moment
    if found != old:
        new = new or found
        assert found == new
    save(folder, 1, overwrite=True)
    assert seeds() == old
    assert os.listdir(folder.parent) == ["demos"], os.listdir(folder.parent)
    at += 1
    if status == 0:
        break
    assert status == signal.SIGKILL, status
assert new is not None and at > 9, at
"""


@pytest.mark.parametrize("program", [FULL, KILLED], ids=["full disk", "killed"])
def test_old_or_new_stands_whole_after_a_full_disk_and_after_a_kill_at_any_moment(tmp_path: Path, program: str) -> None:
    pytest.importorskip("resource", reason="limits and forks are of Unix")
    command = [sys.executable, "-c", CHILD + program, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def pair(tmp_path: Path) -> Path:
    """What a kill between the two moves leaves: the new and the old dataset beside an empty place."""
    folder = tmp_path / "demos"
    save(tmp_path / "a", 1).rename(tmp_path / ".demos.0123abcd.new")
    save(tmp_path / "b", 2).rename(tmp_path / ".demos.0123abcd.old")
    return folder


def first(folder: Path) -> float:
    return float(read_dataset(folder).episodes[0].actions[0, 0])


@pytest.mark.parametrize("damaged", [False, True])
def test_a_pair_left_by_a_kill_gives_the_new_dataset_if_it_is_whole_else_the_old(tmp_path: Path, damaged: bool) -> None:
    folder = pair(tmp_path)
    if damaged:
        (tmp_path / ".demos.0123abcd.new" / TABLE).write_bytes(b"cut off")
    assert first(folder) == play(number=2 if damaged else 1).actions[0, 0]
    assert not restore(folder)
    save(folder, 3, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["demos"]


def test_a_writer_restores_before_it_asks_whether_it_may_replace(tmp_path: Path) -> None:
    folder = pair(tmp_path)
    with pytest.raises(InputError, match="overwrite=True"):
        save(folder, 3)
    assert first(folder) == play(number=1).actions[0, 0]


def test_what_was_never_reported_as_written_or_was_removed_does_not_come_back(tmp_path: Path) -> None:
    folder = pair(tmp_path)
    for kind in ("new", "old"):
        kept = (tmp_path / f".demos.0123abcd.{kind}").rename(tmp_path / "aside")
        with pytest.raises(InputError, match="does not exist"):
            read_dataset(folder)
        kept.rename(tmp_path / f".demos.0123abcd.{kind}")


def test_a_writer_clears_only_what_is_its_own(tmp_path: Path) -> None:
    mine = [".demos.0123abcd.new", ".demos.notes.old", ".demo.0123abcd.old", "demos.0123abcd.new"]
    for name in mine:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.txt").write_text("five years of work")
    (tmp_path / ".demos.89abcdef.old").write_text("a file")
    save(tmp_path / "demos")
    save(tmp_path / "demos", 2, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*mine, ".demos.89abcdef.old", "demos"])


# --- data that nobody should train on ------------------------------------------------------------------------------

SPACES = SpaceSpec.from_spaces(Dict({"x": UNIT}), UNIT)


def test_good_demonstrations_pass_without_a_word() -> None:
    episodes = [play(number=n) for n in range(3)]
    require_usable(episodes, SPACES)
    assert warnings_about(episodes, SPACES) == []


def short(labelled: bool = False) -> Episode:
    labels = Labels(np.zeros((1, 4, 2), np.float32), np.ones((1, 4), np.bool_))
    return play(1, labels=labels if labelled else None)


def outside(factor: float) -> Episode:
    return replace(play(), actions=play().actions * np.float32(factor))


@pytest.mark.parametrize(
    ("episodes", "named"),
    [
        ([], "runs/x: episodes: expected at least one"),
        ([play(), play(obs={"y": play().obs["x"]})], "runs/x: episode 1: .*'y'"),
        ([play(obs={"x": play().obs["x"][:, :1]})], "episode 0: expected the names and widths .*'x': 2.*'x': 1"),
        ([replace(play(), actions=play().actions[:, :1])], r"episode 0: .*'\(action\)': 1"),
        ([play(), short(), play(), short()], r"runs/x, got one step in episodes 1, 3: .*len\(e\) > 1"),
        ([outside(100)], r"actions of runs/x within .* outside \[-1, 1\]"),
        (
            [play(labels=Labels(np.zeros((20, 4, 2), np.float32), np.zeros((20, 4), np.bool_)))],
            "none of which is valid",
        ),
        ([play(labels=Labels(np.full((20, 4, 2), 9, np.float32), np.ones((20, 4), np.bool_)))], "100% of dimension 0"),
    ],
)
def test_unfit_demonstrations_are_refused_with_where_and_what_to_do(episodes: list[Episode], named: str) -> None:
    with pytest.raises(InputError, match=named):
        require_usable(episodes, SPACES, "runs/x")


def test_labelled_rollouts_may_be_one_step_long_and_what_they_executed_is_not_looked_at() -> None:
    labels = Labels(np.zeros((20, 4, 2), np.float32), np.ones((20, 4), np.bool_))
    require_usable([short(labelled=True), replace(outside(100), labels=labels)], SPACES)


def test_rounding_at_a_bound_is_inside() -> None:
    bounds = Box(np.array([0.1, -np.inf]), np.array([0.1, 0.3]), dtype=np.float64)
    actions = np.tile(np.array([0.1, 0.3], np.float32), (20, 1))
    episodes = [replace(play(), actions=actions, obs={"x": np.zeros((21, 2), np.float32)})]
    require_usable(episodes, SpaceSpec.from_spaces(Dict({"x": bounds}), bounds))


RAMP = np.linspace(-1, 1, 200)
FREE = (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("column", "bounds", "said"),
    [
        (RAMP, (-1, 1), ""),
        (RAMP, FREE, ""),
        (0 * RAMP + 7, FREE, "constant"),
        (0 * RAMP + 1, (1, 1), ""),  # the space says so
        (RAMP, (-1000, 1000), r"less than 1% of the bounds is used \(-1 to 1 in \[-1000, 1000\]\)"),
        (RAMP, (-1e7, 1e7), ""),  # bounds that tell nothing are not used
        (RAMP * 1e-3, FREE, "varies by less than 0.01 .*change the unit"),
        (RAMP * 300 + 1.7e9, FREE, "too finely for single precision .* in steps of 1e.02.*offset"),
        (RAMP * 2, (-1, 1), r"outside the bounds in up to 5\d% of the steps \(-2 to 2 for \[-1, 1\]\)"),
        (np.where(RAMP > 0.995, 60, RAMP), (-1, 1), r"outside the bounds in up to 1% .*60"),
        (RAMP * 1.02, (-1, 1), ""),
    ],
)
def test_an_observation_that_a_network_hardly_sees_is_spoken_of(
    column: np.ndarray, bounds: tuple[float, float], said: str
) -> None:
    rows = np.stack([RAMP, column], axis=1)
    box = Box(np.array([-1, bounds[0]]), np.array([1, bounds[1]]), dtype=np.float64)
    (episode,) = from_arrays({"x": rows}, np.stack([RAMP, -RAMP], 1), [len(rows)])
    lines = warnings_about([episode], SpaceSpec.from_spaces(Dict({"x": box}), UNIT))
    assert len(lines) == bool(said)
    if said:
        assert lines[0].startswith("observation 'x', dimension 1: ")
        assert re.search(said, lines[0]), lines


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (RAMP, ""),
        (0 * RAMP, "constant"),
        (np.clip(2 * RAMP, -1, 1), r"at a bound in up to 50% of the steps"),
        (np.clip(1.2 * RAMP, -1, 1), ""),
        (np.sign(RAMP), ""),  # a gripper
        (RAMP * 1e-3, "less than 1%"),
    ],
)
def test_an_action_that_is_cut_off_or_never_used_is_spoken_of(column: np.ndarray, said: str) -> None:
    (episode,) = from_arrays({"x": np.stack([RAMP, RAMP], 1)}, np.stack([column, RAMP], 1), [len(column)])
    lines = warnings_about([episode], SPACES)
    assert [line.startswith("action, dimension 0: ") for line in lines] == [True] * bool(said)
    if said:
        assert re.search(said, lines[0]), lines


def test_many_dimensions_take_one_line() -> None:
    wide = Box(-1.0, 1.0, (13,))
    seen = np.concatenate([np.zeros((200, 12)), RAMP[:, None]], axis=1)
    (episode,) = from_arrays(seen, np.stack([RAMP, RAMP], 1), [200])
    (line,) = warnings_about([episode], SpaceSpec.from_spaces(wide, UNIT))
    assert "dimensions 0, 1, 2, 3, 4, 5, 6, 7 and 4 more: constant" in line


# --- and data that are good ----------------------------------------------------------------------------------------

NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"], exclude_characters="/"), min_size=1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_good_episode_comes_back_bit_for_bit(data: st.DataObject, tmp_path: Path) -> None:
    names = data.draw(st.lists(NAMES.filter(lambda name: name != "."), min_size=1, max_size=3, unique=True))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    number = st.floats(width=32, allow_nan=False, allow_infinity=False)

    def episode() -> Episode:
        steps = data.draw(st.integers(1, 4))
        actions = rng.standard_normal((steps, 1)).astype(np.float32)
        actions[0] = data.draw(number)
        return Episode(
            {f"a/{name}": rng.standard_normal((steps + 1, 2)).astype(np.float32) for name in names},
            actions,
            np.full(steps, data.draw(number), np.float32),
            *data.draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
            seed=data.draw(st.integers(-1, 2**63 - 1)),
            condition=data.draw(NAMES),
        )

    episodes = [episode() for _ in range(data.draw(st.integers(1, 3)))]
    space = Dict({f"a/{name}": UNIT for name in names})
    about: dict[str, Any] = {"environment": data.draw(st.text()), "description": data.draw(st.text())}
    one = Box(-np.inf, np.inf, (1,))
    folder = write_dataset(
        tmp_path / "demos", episodes, observation_space=space, action_space=one, overwrite=True, **about
    )
    back = read_dataset(folder)
    assert back.environment == about["environment"]
    for one_before, one_after in zip(episodes, back.episodes, strict=True):
        before, after = vars(one_before), vars(one_after)
        for array in ("actions", "rewards"):
            assert before.pop(array).tobytes() == after.pop(array).tobytes()
        for name, rows in before.pop("obs").items():
            assert rows.tobytes() == after["obs"].pop(name).tobytes()
        assert after.pop("obs") == {}
        assert before == after


def test_a_range_that_is_rounding_is_none_and_what_a_task_means_is_not_spoken_of() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([1e-17 * rng.normal(size=40), rng.uniform(-1, 1, 40)], axis=1).astype(np.float32)
    episodes = from_arrays({"code": rows}, rng.uniform(-1, 1, (40, 2)), [20, 40])
    spaces = SpaceSpec.from_spaces(Dict(code=Box(-1, 1, (2,))), Box(-1, 1, (2,)))
    (said,) = warnings_about(episodes, spaces)
    assert said.startswith("observation 'code', dimension 0: constant")
    assert warnings_about(episodes, spaces, ("code",)) == []
