"""The benchmark runner: cells are addressed by what goes into them, run once, and outlive what happens to a run."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from benchmarks import cells as disk
from benchmarks.code import Code, referenced
from benchmarks.pool import Pool, is_done
from benchmarks.published import TABLES
from benchmarks.reproduce import cells_of, compared
from benchmarks.rows import merged, versus
from benchmarks.runner import Runner
from benchmarks.stage import Output, Stage
from benchmarks.suite import Cell, Method, Suite
from benchmarks.suites import QUICKSTART, SUITES
from benchmarks.tables import ROOT
from benchmarks.trained import imitated
from diffpolicy.errors import InputError
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.evaluate import Evaluate
from diffpolicy_envs import model_path

TASK = "diffpolicy/PickPlace-v0"


@dataclass(frozen=True)
class Note:
    """A stage for tests: writes a word, after what was said to happen."""

    word: str = "well"
    out: Path = Path("unused")
    data: Path | None = None
    threads: int = 0

    def __call__(self) -> None:
        attempts = self.out.parent / "attempts.txt"
        with attempts.open("a", encoding="utf-8") as file:
            file.write("x")
        if self.word == "raise":
            raise RuntimeError("this stage fails on purpose")
        if self.word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.word == "wait":
            time.sleep(60)
        self.out.mkdir()
        (self.out / "word.txt").write_text(self.word, encoding="utf-8")


def quiet(tmp_path: Path, **more: Any) -> Runner:
    return Runner(tmp_path / "store", tmp_path / "cells", console=Console(file=io.StringIO()), **more)


def suite(*methods: Method, **more: Any) -> Suite:
    return Suite("trial", "", (TASK,), methods, ("clean",), **{"episodes": 2, **more})


def expert(task: str, seed: int) -> str:
    return "expert"


# -- keys ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the code that may be changed."""
    for name in ("diffpolicy", "envs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def edited(root: Path, name: str, change: Callable[[str], str]) -> Code:
    path = root / name
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    return Code(root)


def keys(code: Code) -> dict[str, str]:
    """Keys of the stages of a small policy, as a checkout's code gives them."""
    demos = Stage(Collect(TASK), code=code)
    bc = Stage(Bc(), {"data": Output(demos)}, code)
    return {s.name: s.key for s in (demos, bc, Stage(Evaluate("", environment=TASK), {"checkpoint": Output(bc)}, code))}


def test_a_stage_keeps_its_key_where_an_unrelated_file_changes(checkout: Path) -> None:
    before = keys(Code(checkout))
    for name in ("diffpolicy/cli.py", "diffpolicy/recipes/video.py", "diffpolicy/evaluation/story.py"):
        assert keys(edited(checkout, name, lambda text: text + "\nSURPRISE = 1\n")) == before, name
    (checkout / "diffpolicy/recipes/other.py").write_text("from diffpolicy.recipes import bc\n", encoding="utf-8")
    assert keys(Code(checkout)) == before


def test_comments_docstrings_and_layout_do_not_renew_a_stage(checkout: Path) -> None:
    before = keys(Code(checkout))
    assert (
        keys(edited(checkout, "diffpolicy/updates/regression.py", lambda t: t.replace('"""', '"""Say: ', 1))) == before
    )
    homes = edited(
        checkout, "diffpolicy/policy/__init__.py", lambda text: text.replace('"ActingState": ', '"New": "new", "A": ')
    )
    assert keys(homes) == before
    assert keys(edited(checkout, "diffpolicy/recipes/bc.py", lambda text: "# hello\n" + text + "\n\n\n")) == before


def test_a_change_in_a_used_module_renews_the_stage_and_all_after_it(checkout: Path) -> None:
    before = keys(Code(checkout))
    after = keys(edited(checkout, "diffpolicy/updates/regression.py", lambda text: text + "\nSURPRISE = 1\n"))
    assert after["collect"] == before["collect"]
    assert after["bc"] != before["bc"]
    assert after["evaluate"] != before["evaluate"]


@pytest.mark.parametrize(
    "name",
    ["diffpolicy/diffusion/sampler.py", "envs/diffpolicy_envs/tasks/pick_place.py", "diffpolicy/policy/acting.py"],
)
def test_modules_that_are_loaded_lazily_or_by_entry_point_are_used(checkout: Path, name: str) -> None:
    before = keys(Code(checkout))
    assert keys(edited(checkout, name, lambda text: text + "\nSURPRISE = 1\n"))["evaluate"] != before["evaluate"]


def test_a_new_task_leaves_the_stages_of_others_as_they_are(checkout: Path) -> None:
    before = keys(Code(checkout))
    (checkout / "envs/diffpolicy_envs/tasks/other.py").write_text("X = 1\n", encoding="utf-8")
    registry = "envs/diffpolicy_envs/tasks/__init__.py"
    assert keys(edited(checkout, registry, lambda text: text + "\nfrom diffpolicy_envs.tasks import other\n")) == before


def test_the_model_file_and_its_includes_are_part_of_a_stage(tmp_path: Path) -> None:
    named = {path.name for path in referenced(model_path("pick_place"))}
    assert named == {"pick_place.xml", "tabletop.xml", "arm.xml"}
    model = tmp_path / "a.xml"
    model.write_text("<mujoco/>", encoding="utf-8")
    before = Code().digest([], [model])
    model.write_text("<mujoco></mujoco>", encoding="utf-8")
    assert Code().digest([], [model]) != before


def test_settings_and_inputs_make_the_key_and_paths_and_threads_do_not() -> None:
    one = Stage(Bc(seed=1), {"data": Output(Stage(Collect(TASK)))})
    assert replace(one, recipe=Bc(seed=1, out=Path("x"), threads=2, overwrite=True)).key == one.key
    assert replace(one, recipe=Bc(seed=2)).key != one.key
    assert replace(one, inputs={"data": Output(Stage(Collect(TASK, seed=5)))}).key != one.key
    assert replace(one, inputs={"data": Output(Stage(Collect(TASK)), "part")}).key != one.key


def test_suites_share_stages_and_name_each_cell_once() -> None:
    for each in SUITES.values():
        names = [cell.name for cell in each.cells()]
        assert len(set(names)) == len(names)
    (bc,) = {
        cell.evaluate.inputs["checkpoint"].stage.key
        for cell in QUICKSTART.cells()
        if cell.line[1] == "bc" and not cell.seed
    }
    assert bc == imitated(TASK, 20, 0).stage.key


# -- running ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Runner, list[Cell], str, float]:
    folder = tmp_path_factory.mktemp("smoke")
    shown = io.StringIO()
    runner = Runner(folder / "store", folder / "cells", console=Console(file=shown, width=120))
    cells = list(SUITES["smoke"].cells())
    began = time.monotonic()
    results, failed = runner.run(cells)
    assert not failed, shown.getvalue()
    assert set(results) == {cell.path for cell in cells}
    return runner, cells, shown.getvalue(), time.monotonic() - began


def test_smoke_takes_less_than_two_minutes_and_tells_what_it_does(
    smoke: tuple[Runner, list[Cell], str, float],
) -> None:
    _, cells, shown, seconds = smoke
    assert seconds < 120
    assert f"{len(cells)} of {len(cells)} cells" in shown
    assert "left" in shown
    assert "expert" in shown


def test_a_cell_has_a_row_its_episodes_and_where_they_come_from(smoke: tuple[Runner, list[Cell], str, float]) -> None:
    runner, cells, _, _ = smoke
    for cell in cells:
        one = disk.finished(cell, runner.folder)
        assert one is not None
        table = pq.read_table(one.path.with_suffix(".parquet"))
        assert set(table.column_names) == set(disk.COLUMNS)
        assert table.num_rows == 4
        assert min(one.episodes["seed"]) >= 1_000_000_000
        assert set(one.episodes["condition"]) == {cell.condition}
        assert one.row["success"] == sum(one.episodes["success"]) / 4
        origin = one.about["provenance"]
        assert {"commit", "dirty", "versions", "threads", "wall_clock_s", "network_calls"} <= set(origin)
        assert origin["threads"] == 1
        if cell.method != "expert":
            assert origin["env_steps"] > 0
            assert origin["labeller_queries"] > 0
            assert one.row["nfe"] == 8
            assert min(one.episodes["latency_us"]) > 0


def test_nothing_is_run_twice(smoke: tuple[Runner, list[Cell], str, float]) -> None:
    runner, cells, _, _ = smoke
    assert runner.missing(cells) == 0
    marks = {path: path.stat().st_mtime_ns for path in runner.store.glob("*/done.json")}
    results, failed = runner.run(cells)
    assert (len(results), failed) == (len(cells), 0)
    assert {path: path.stat().st_mtime_ns for path in runner.store.glob("*/done.json")} == marks


def test_committed_cells_are_enough_when_the_stages_are_gone(
    smoke: tuple[Runner, list[Cell], str, float], tmp_path: Path
) -> None:
    runner, cells, _, _ = smoke
    elsewhere = replace(runner, store=tmp_path / "empty")
    assert elsewhere.missing(cells) == 0
    assert len(elsewhere.run(cells)[0]) == len(cells)


def test_a_cell_of_earlier_code_is_run_again_unless_it_is_to_be_kept(tmp_path: Path) -> None:
    runner, cells = quiet(tmp_path), list(suite(Method("expert", expert)).cells())
    (result,) = runner.run(cells)[0].values()
    result.path.write_text(json.dumps({**result.about, "key": "of other code"}), encoding="utf-8")
    assert runner._found(cells[0]) is None
    assert replace(runner, keep_stale=True)._found(cells[0]) is not None
    asked = {**result.about, "asked": "something else"}
    result.path.write_text(json.dumps(asked), encoding="utf-8")
    assert replace(runner, keep_stale=True)._found(cells[0]) is None


def test_a_cell_of_another_suite_is_taken_over(tmp_path: Path) -> None:
    runner = quiet(tmp_path)
    first = list(suite(Method("expert", expert)).cells())
    (one,) = runner.run(first)[0].values()
    other = list(replace(suite(Method("the expert", expert, {"demonstrations": 3})), name="other").cells())
    (two,) = replace(runner, store=tmp_path / "empty").run(other)[0].values()
    assert two.path.parent.name == "other"
    assert two.episodes == one.episodes
    assert (two.row["method"], two.row["demonstrations"]) == ("the expert", 3)


def test_two_suites_that_share_a_cell_are_both_finished(tmp_path: Path) -> None:
    first = suite(Method("expert", expert))
    cells = [*first.cells(), *replace(first, name="other").cells()]
    runner = quiet(tmp_path)
    results, _ = runner.run(cells)
    assert len(results) == 2
    assert len(list(runner.store.glob("evaluate-*/done.json"))) == 1
    assert all(disk.finished(cell, runner.folder) is not None for cell in cells)


def failing(word: str) -> Method:
    return Method(word, lambda task, seed: Output(Stage(Note(word))))


def test_a_failed_stage_is_told_with_its_traceback_and_stops_no_other(tmp_path: Path) -> None:
    shown = io.StringIO()
    runner = replace(quiet(tmp_path), console=Console(file=shown, width=200))
    cells = list(suite(failing("raise"), failing("die"), Method("expert", expert)).cells())
    results, failed = runner.run(cells)
    assert failed == 2
    assert [cell.method for cell in cells if cell.path in results] == ["expert"]
    said = shown.getvalue()
    assert "RuntimeError: this stage fails on purpose" in said
    assert "line " in said
    assert "ended with -9" in said
    assert "log.txt" in said
    results, failed = runner.run(cells)  # tried again
    assert failed == 2
    attempts = [path.read_text(encoding="utf-8") for path in runner.store.glob("note-*/attempts.txt")]
    assert attempts == ["xx", "xx"]


def test_bad_input_of_a_stage_is_told_without_a_traceback(tmp_path: Path) -> None:
    bad = Method(
        "bc", lambda task, seed: Output(Stage(Bc(steps=-1), {"data": Output(Stage(Collect(task, episodes=1)))}))
    )
    shown = io.StringIO()
    _, failed = replace(quiet(tmp_path), console=Console(file=shown, width=200)).run(list(suite(bad).cells()))
    assert failed == 1
    assert "expected steps" in shown.getvalue()
    assert "Traceback" not in shown.getvalue()


def test_stages_run_in_order_and_side_by_side(tmp_path: Path) -> None:
    first = Stage(Note("first"))
    after = [Stage(Note(f"after {n}"), {"data": Output(first)}) for n in range(3)]
    most = 0
    pool = Pool(tmp_path, jobs=2)

    def watch() -> None:
        nonlocal most
        states = [job.state for job in pool.plan.values()]
        most = max(most, states.count("running"))
        if pool.plan[first.key].state != "done":
            assert states.count("waiting") == 3

    pool.on_change = watch
    pool.add(after)
    pool.run()
    assert all(is_done(stage, tmp_path) for stage in (first, *after))
    assert most <= 2


SCRIPT = """
import sys; sys.path[:0] = {paths}
from pathlib import Path
from benchmarks.pool import Pool
from benchmarks.stage import Stage
from test_runner import Note
if __name__ == "__main__":
    pool = Pool(Path(sys.argv[1]), jobs=2)
    pool.add([Stage(Note("wait")), Stage(Note("quick"))])
    try:
        pool.run()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_or_killed_a_pool_leaves_no_process_behind_and_goes_on(tmp_path: Path, number: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(paths=[str(ROOT), str(ROOT / "tests")]), encoding="utf-8")
    store = tmp_path / "store"
    process = subprocess.Popen([sys.executable, str(script), str(store)])
    waiting = Stage(Note("wait")).folder(store)
    for _ in _patiently():
        if (waiting / "attempts.txt").is_file() and is_done(Stage(Note("quick")), store):
            break
    process.send_signal(number)
    code = process.wait(30)
    assert code == (130 if number == signal.SIGINT else -9)
    for _ in _patiently():
        if not _using(store):
            break
    assert not _using(store)
    pool = Pool(store)
    pool.add([Stage(Note("quick")), Stage(Note("wait"))])
    assert [job.state for job in pool.plan.values()] == ["done", "waiting"]


def _patiently() -> Iterator[float]:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        time.sleep(0.1)
        yield 0.1
    raise AssertionError("waited a minute in vain")


def _using(store: Path) -> list[str]:
    """Processes that hold a log of the store open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if str(store) in str(link.readlink()):
                found.append(str(link))
        except OSError:
            continue
    return found


# -- rows ---------------------------------------------------------------------------------------------------------


def test_rows_pool_the_seeds_and_compare_the_same_episodes(smoke: tuple[Runner, list[Cell], str, float]) -> None:
    runner, cells, _, _ = smoke
    done = [one for cell in cells if (one := disk.finished(cell, runner.folder))]
    rows = merged(done)
    assert [row["name"] for row in rows][:2] == ["pickplace-v0-expert-clean", "pickplace-v0-expert-shove"]
    assert all(row["episodes"] == 4 and row["seeds"] == 1 for row in rows)
    by = {(one.row["method"], one.row["condition"]): one for one in done}
    diff = versus([by["expert", "clean"]], [by["bc", "clean"]])
    assert (diff["versus"], diff["diff"]) == ("bc", 1.0 - by["bc", "clean"].row["success"])
    assert diff["diff_low"] <= diff["diff"] <= diff["diff_high"]
    with pytest.raises(ValueError, match="same episodes"):
        versus([by["expert", "clean"]], [replace_seed(by["bc", "clean"])])


def replace_seed(one: disk.Finished) -> disk.Finished:
    other = disk.Finished(one.path, one.about)
    other.__dict__["episodes"] = {**one.episodes, "seed": [seed + 1 for seed in one.episodes["seed"]]}
    return other


def test_a_row_is_found_by_a_part_of_its_name() -> None:
    cells = cells_of("quickstart.bc-20-demonstrations-shove")
    assert [(cell.method, cell.condition, cell.seed) for cell in cells] == [("bc", "shove", seed) for seed in (0, 1, 2)]
    with pytest.raises(InputError, match="pickplace-v0-bc-20-demonstrations-clean"):
        cells_of("quickstart.bc")
    with pytest.raises(InputError, match="there are"):
        cells_of("quickstart.nothing-like-it")
    with pytest.raises(InputError, match="expected TABLE"):
        cells_of("nothing.at-all")


def test_reproduction_counts_the_episodes_that_end_alike(smoke: tuple[Runner, list[Cell], str, float]) -> None:
    runner, cells, _, _ = smoke
    chosen = [cell for cell in cells if (cell.method, cell.condition) == ("expert", "clean")]
    fresh = [one for cell in chosen if (one := disk.finished(cell, runner.folder))]
    good, words = compared(chosen, fresh, runner.folder)
    assert good
    assert "4 of 4 episodes end alike" in words
    worse = disk.Finished(fresh[0].path, fresh[0].about)
    worse.__dict__["episodes"] = {**fresh[0].episodes, "success": [False] * 4}
    good, words = compared(chosen, [worse], runner.folder)
    assert not good
    assert "NOT reproduced" in words


Damage = Callable[[dict[str, Any], Path], Any]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "a list": (lambda about, _: [], "expected the file to be an object"),
    "cut json": (lambda about, path: path.write_text('{"key": ', encoding="utf-8") and None, "is damaged"),
    "no row": (lambda about, _: {k: v for k, v in about.items() if k != "row"}, "it has no row"),
    "row a list": (lambda about, _: {**about, "row": [1]}, "expected row to be an object"),
    "success in words": (
        lambda about, _: about["row"].update(success="high"),
        "row.success to be a number, got 'high'",
    ),
    "success beyond 1": (lambda about, _: about["row"].update(success=7.0), "in [0, 1], got 7.0"),
    "no commit": (lambda about, _: about["provenance"].pop("commit") and None, "it has no provenance.commit"),
    "a bad stage": (lambda about, _: about.update(stages=[{"stage": "bc"}]), "it has no stages.seconds"),
    "other episodes": (lambda about, _: about["row"].update(episodes=9), "expected 9 episodes, as its row says, got 4"),
    "cut parquet": (
        lambda about, path: (
            path.with_suffix(".parquet").write_bytes(path.with_suffix(".parquet").read_bytes()[:99]) and None
        ),
        "it cannot be read",
    ),
    "a column less": (
        lambda about, path: pq.write_table(
            pq.read_table(path.with_suffix(".parquet")).drop_columns(["success"]), path.with_suffix(".parquet")
        ),
        "expected a column 'success' of bool, got none",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_cell_is_named_with_what_is_wrong_and_what_to_do(
    smoke: tuple[Runner, list[Cell], str, float], name: str, tmp_path: Path
) -> None:
    runner, cells, _, _ = smoke
    folder = tmp_path / "cells"
    shutil.copytree(runner.folder, folder)
    path = folder / f"{cells[0].path}.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    damage, said = DAMAGES[name]
    changed = damage(about, path)
    if name != "cut json":
        path.write_text(json.dumps(about if changed is None else changed), encoding="utf-8")
    with pytest.raises(InputError, match="is damaged: ") as caught:
        merged([one for cell in cells if (one := disk.finished(cell, folder))])
    assert said in str(caught.value)
    assert str(path.with_suffix("")) in str(caught.value)
    assert "python -m benchmarks run smoke" in str(caught.value)


def test_what_is_left_to_run_is_estimated_from_stages_of_the_same_recipes(tmp_path: Path) -> None:
    runner, cells = quiet(tmp_path, jobs=2), list(suite(Method("expert", expert), seeds=(0, 1)).cells())
    stages = runner.to_run(cells)
    assert [stage.name for stage in stages] == ["evaluate", "evaluate"]
    assert runner.estimate(stages, [("evaluate", 10.0), ("evaluate", 20.0), ("bc", 99.0)]) == 15.0
    assert runner.estimate(stages, [("bc", 99.0)]) is None
    assert runner.estimate([], []) == 0.0


def test_tables_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="benchmarks run quickstart"):
        TABLES["quickstart"].rows(tmp_path)


# -- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["run", "smok"], 2, "did you mean smoke"),
        (["table", "quickstat"], 2, "did you mean quickstart"),
        (["reproduce", "quickstart.bc"], 2, "expected one row"),
        (["run", "smoke", "--jobs", "0"], 2, "at least 1"),
        (["run", "smoke", "--dry-run"], 0, "stages to run"),
        (["list"], 0, "stages to run"),
        (["list", "quickstart"], 0, "quickstart.pickplace-v0-bc-20-demonstrations-clean   3 "),
        (["list", "envs-more"], 0, "envs-more.reach-v0-bc-50-demonstrations-hard   1 "),
        (["list", "quickstat"], 2, "did you mean quickstart"),
    ],
)
def test_the_command_answers(words: list[str], status: int, said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
