"""Laws of carrying cells over: only fresh ones, only where everything agrees, and told in the cell."""

from __future__ import annotations

from pathlib import Path

from benchmarks.carry import carried, differing, moved
from benchmarks.probe import cells as probed
from benchmarks.probe import digests
from diffpolicy.policy.files import read_json, write_json

ORIGIN = {"from": "a", "to": "b"}


def cell(folder: Path, name: str, asked: str, key: str) -> Path:
    path = folder / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json({"asked": asked, "key": key, "row": {"success": 0.5}}, path)
    return path


def keys(asked: str, key: str, vouched: str = "Push expert clean") -> dict[str, str]:
    return {"asked": asked, "key": key, "vouched": vouched}


def test_fresh_cells_get_the_new_key_and_say_from_where(tmp_path: Path) -> None:
    path = cell(tmp_path, "envs/one", "q", "old")
    old, new = {"envs/one": keys("q", "old")}, {"envs/one": keys("Q", "new")}
    assert carried(old, new, [], ORIGIN, tmp_path) == ["envs/one"]
    about = read_json(path)
    assert (about["asked"], about["key"], about["row"]) == ("Q", "new", {"success": 0.5})
    assert about["carried"] == [ORIGIN]
    carried(new, {"envs/one": keys("Q", "newer")}, [], {"from": "b", "to": "c"}, tmp_path)
    assert [step["to"] for step in read_json(path)["carried"]] == ["b", "c"]


def test_stale_unknown_and_unchanged_cells_stay_as_they_are(tmp_path: Path) -> None:
    stale = cell(tmp_path, "envs/stale", "q", "older")
    same = cell(tmp_path, "envs/same", "q", "old")
    gone = cell(tmp_path, "envs/gone", "q", "old")
    before = [path.read_text() for path in (stale, same, gone)]
    old = {name: keys("q", "old") for name in ("envs/stale", "envs/same", "envs/gone", "envs/never made")}
    new = {"envs/stale": keys("q", "new"), "envs/same": keys("q", "old"), "envs/never made": keys("q", "new")}
    assert carried(old, new, [], ORIGIN, tmp_path) == []
    assert [path.read_text() for path in (stale, same, gone)] == before


def test_what_changed_holds_back_the_cells_that_it_concerns(tmp_path: Path) -> None:
    vouched = {"a": "Push expert clean", "b": "Push expert wide", "c": "Push ", "d": "Stack "}
    for name in vouched:
        cell(tmp_path, name, "q", "old")
    old = {name: keys("q", "old", named) for name, named in vouched.items()}
    new = {name: keys("q", "new", named) for name, named in vouched.items()}
    assert carried(old, new, ["Push expert wide"], ORIGIN, tmp_path) == ["a", "c", "d"]
    old, new = new, {name: keys("q", "newer", named) for name, named in vouched.items()}
    assert carried(old, new, ["Push bc"], ORIGIN, tmp_path) == ["a", "d"]


def test_a_route_to_a_student_concerns_those_who_went_it(tmp_path: Path) -> None:
    routes = {"a": [], "b": ["any student paired"], "c": ["any student paired", "any student redif played"]}
    for name in routes:
        cell(tmp_path, name, "q", "old")
    old = {name: {**keys("q", "old", "Push "), "routes": went} for name, went in routes.items()}
    new = {name: {**keys("q", "new", "Push "), "routes": went} for name, went in routes.items()}
    assert carried(old, new, ["any student redif played", "any kind flow"], ORIGIN, tmp_path) == []
    assert carried(old, new, ["any student redif played"], ORIGIN, tmp_path) == ["a", "b"]
    assert carried(old, new, ["any student paired"], ORIGIN, tmp_path) == []


def test_every_route_of_the_suites_is_probed(tmp_path: Path) -> None:
    known = {"paired", "progressive", "consistency", "score", "redif played", "redif agreement", "redif path"}
    went = {route for about in probed().values() for route in about["routes"]}
    assert went == {f"any student {name}" for name in known}


def test_stages_of_a_store_are_found_again_and_half_made_ones_are_not_taken(tmp_path: Path) -> None:
    for name in ("bc-old", "evaluate-old", "bc-stale"):
        (tmp_path / name).mkdir()
    (tmp_path / "bc-old" / "done.json").write_text("{}")
    old = {"envs/one": {"stages": [["bc", "old"], ["evaluate", "old"]], "vouched": "Push "}}
    new = {"envs/one": {"stages": [["bc", "new"], ["evaluate", "new"]], "vouched": "Push "}}
    assert moved(old, new, ["Push correct"], tmp_path) == 0
    assert moved(old, new, ["any kind flow"], tmp_path) == 0
    assert moved(old, new, ["Stack bc"], tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bc-new", "bc-stale", "evaluate-old"]


def test_a_suite_that_asks_something_else_under_an_old_name_gets_nothing(tmp_path: Path) -> None:
    """More updates in a suite are another question, a field that only the new code knows is not."""
    (tmp_path / "bc-old").mkdir()
    (tmp_path / "bc-old" / "done.json").write_text("{}")
    cell(tmp_path, "envs/one", "q", "old")

    def one(asked: str, key: str, **settings: object) -> dict[str, dict[str, object]]:
        stages = {"stages": [["bc", key]], "settings": [{"steps": 100, "policy": {"horizon": 16, **settings}}]}
        return {"envs/one": {**keys(asked, key, "Push "), **stages}}

    old = one("q", "old")
    for other in (
        one("Q", "new", horizon=8),
        one("Q", "new") | {"envs/one": {**one("Q", "new")["envs/one"], "stages": []}},
    ):
        assert carried(old, other, [], ORIGIN, tmp_path) == []
        assert moved(old, other, [], tmp_path) == 0
    assert moved(old, one("Q", "new", modes=5), [], tmp_path) == 1
    assert carried(old, one("Q", "new", modes=5), [], ORIGIN, tmp_path) == ["envs/one"]


def test_what_is_probed_on_one_side_alone_counts_as_a_difference() -> None:
    assert differing({"a": "1", "b": "2"}, {"a": "1", "b": "3", "c": "4"}) == ["b", "c"]
    assert differing({"a": "1"}, {"a": "1"}) == []
    assert differing({"any kind flow": "1"}, {"any kind flow": "2", "any kind new": "3"}) == ["any kind flow"]
    assert differing({"any kind gone": "1"}, {}) == ["any kind gone"]


def test_the_same_code_gives_the_same_digests(tmp_path: Path) -> None:
    found = [dict(digests("diffpolicy/Reach-v0", tmp_path / name)) for name in ("one", "two")]
    assert found[0] == found[1]
    assert {"diffpolicy/Reach-v0 bc", "diffpolicy/Reach-v0 expert wide"} < found[0].keys()
    assert len(set(found[0].values())) == len(found[0])
