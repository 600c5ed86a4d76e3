"""Laws of carrying cells over: only fresh ones, only where everything agrees, and told in the cell."""

from __future__ import annotations

from pathlib import Path

from benchmarks.carry import carried, differing
from benchmarks.probe import digests
from diffpolicy.policy.files import read_json, write_json

ORIGIN = {"from": "a", "to": "b"}


def cell(folder: Path, name: str, asked: str, key: str) -> Path:
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({"asked": asked, "key": key, "row": {"success": 0.5}}, path)
    return path


def test_fresh_cells_get_the_new_key_and_say_from_where(tmp_path: Path) -> None:
    path = cell(tmp_path, "envs/one", "q", "old")
    assert carried({"envs/one": ("q", "old")}, {"envs/one": ("Q", "new")}, ORIGIN, tmp_path) == ["envs/one"]
    about = read_json(path)
    assert (about["asked"], about["key"], about["row"]) == ("Q", "new", {"success": 0.5})
    assert about["carried"] == [ORIGIN]
    carried({"envs/one": ("Q", "new")}, {"envs/one": ("Q", "newer")}, {"from": "b", "to": "c"}, tmp_path)
    assert [step["to"] for step in read_json(path)["carried"]] == ["b", "c"]


def test_stale_unknown_and_unchanged_cells_stay_as_they_are(tmp_path: Path) -> None:
    stale = cell(tmp_path, "envs/stale", "q", "older")
    same = cell(tmp_path, "envs/same", "q", "old")
    gone = cell(tmp_path, "envs/gone", "q", "old")
    before = [path.read_text() for path in (stale, same, gone)]
    old = dict.fromkeys(("envs/stale", "envs/same", "envs/gone", "envs/never made"), ("q", "old"))
    new = {"envs/stale": ("q", "new"), "envs/same": ("q", "old"), "envs/never made": ("q", "new")}
    assert carried(old, new, ORIGIN, tmp_path) == []
    assert [path.read_text() for path in (stale, same, gone)] == before


def test_what_is_probed_on_one_side_alone_counts_as_a_difference() -> None:
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert differing({"a": "1"}, {"a": "1"}) == []


def test_the_same_code_gives_the_same_digests(tmp_path: Path) -> None:
    found = [dict(digests("diffpolicy/Reach-v0", tmp_path / name)) for name in ("one", "two")]
    assert found[0] == found[1]
    assert len(found[0]) == 6
    assert len(set(found[0].values())) == 6
