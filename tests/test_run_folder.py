"""Laws of --out: one process at a time, refused before the work and not after it, never half-written, never lost."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import diffpolicy.rollout.loop
from diffpolicy import Bc, Collect, Correct, InputError, Quickstart, load_checkpoint
from diffpolicy.data.dataset import read_dataset
from diffpolicy.diffusion import MLPConfig, SamplerConfig, UNetConfig
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.files import read_json, write_json
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.run import differences, open_run, settings
from diffpolicy.updates import RegressionConfig

SMALL = PolicyConfig(horizon=4, n_action_steps=2, network=MLPConfig(width=8, blocks=1, time_dim=4))


class House:
    """Demonstrations, and the settings of an imitation that has run on them."""

    def __init__(self, root: Path, build: bool = False) -> None:
        self.collect = Collect(out=root / "demos", episodes=1)
        self.bc = Bc(root / "demos", root / "bc", policy=SMALL, steps=6, batch_size=8, checkpoint_every=2)
        self.correct = Correct(
            root / "bc", root / "c", rounds=1, rollouts=2, conditions=("clean",), steps=3, batch_size=8
        )
        self.recipes = (self.collect, self.bc, self.correct, Quickstart(root / "q", size="tiny"))
        if build:
            self.collect()
            self.bc()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("house")
    House(root, build=True)
    return root


@pytest.fixture
def house(built: Path, tmp_path: Path) -> House:
    """A copy to break."""
    return House(Path(shutil.copytree(built, tmp_path / "house")))


def test_the_record_of_an_earlier_version_is_that_of_the_same_run() -> None:
    bc = Bc(policy=replace(SMALL, sampler=SamplerConfig(steps=2, times=(1.0, 0.5, 0.0))))
    there = settings(bc)
    assert differences(there, bc) == ""
    for part, name in (("policy", "condition_dropout"), ("optimiser", "weights")):  # which it did not know
        del there[part][name]
    del there["policy"]["sampler"]["churn_range"]
    assert differences(there, bc) == ""
    assert (
        differences(there, replace(bc, policy=replace(bc.policy, condition_dropout=0.1)))
        == "policy.condition_dropout: 0.0 there, 0.1 now"
    )
    assert (
        differences(there, replace(bc, optimiser=RegressionConfig(weights="edm")))
        == "optimiser.weights: 'own' there, 'edm' now"
    )


def weights(run: Path) -> bytes:
    return (run / "checkpoint" / "model.safetensors").read_bytes()


def listed(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def another_process(out: Path, beside: bool) -> Iterator[subprocess.Popen[str]]:
    """A process that works in a folder until it is killed."""
    program = (
        "import sys, time; from pathlib import Path; from diffpolicy.recipes.claim import claimed\n"
        f"with claimed(Path({str(out)!r}), beside={beside}): print('in', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", range(4), ids=["collect", "bc", "correct", "quickstart"])
def test_the_second_process_is_refused_at_once_until_the_first_is_gone(house: House, number: int) -> None:
    recipe: Any = house.recipes[number]
    with another_process(recipe.out, beside=number == 0) as process:
        before = listed(recipe.out)
        for overwrite in (False, True):
            began = time.monotonic()
            with pytest.raises(InputError, match=rf"in use by process {process.pid}; wait .* another folder \(--out\)"):
                replace(recipe, overwrite=overwrite)()
            assert time.monotonic() - began < 2.0
        assert listed(recipe.out) == before
        process.kill()
        process.wait()
        with claimed(recipe.out, beside=number == 0):  # a kill sets it free
            pass
    assert not [name for name in listed(recipe.out.parent) if name.endswith(".lock")]


def test_a_claim_is_of_one_folder_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "quick"
    with claimed(out), claimed(out / "bc"), claimed(out / "demos", beside=True):
        with pytest.raises(InputError, match=f"process {os.getpid()}"), claimed(out / "bc"):
            pass
        assert not (out / "demos").exists()
    assert list(tmp_path.iterdir()) == []
    out.mkdir()
    (out / ".lock").write_text("of a process that was killed")
    with claimed(out):
        assert not open_run(Bc(), out)  # an empty folder, as before
    assert listed(out) == ["run.json"]


@pytest.mark.parametrize("number", range(4), ids=["collect", "bc", "correct", "quickstart"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_place_that_cannot_be_used_is_known_before_the_work(
    house: House, number: int, overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffpolicy.rollout.loop, "rollout", lambda *_, **__: pytest.fail("it began to work"))
    (file := tmp_path / "file").write_text("mine")
    (taken := tmp_path / "taken").mkdir()
    (taken / "thesis.tex").write_text("years")
    (tmp_path / "locked").mkdir()
    recipe: Any = replace(house.recipes[number], overwrite=overwrite)
    for out, match in ((file, "the file"), (file / "below", "File exists|Not a directory"), (taken, "expected|holds")):
        with pytest.raises(InputError, match=match):
            replace(recipe, out=out)()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    with pytest.raises(InputError, match="Permission denied; name another place"):
        replace(recipe, out=tmp_path / "locked" / "run")()
    assert file.read_text() == "mine"
    assert listed(taken) == ["thesis.tex"]


def test_a_kill_while_a_run_is_overwritten_leaves_no_half_of_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    before = weights(house.bc.out)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            replace(house.bc, seed=3, overwrite=True)()
    house.bc()
    assert weights(house.bc.out) == before
    assert sorted(path.name for path in house.bc.out.iterdir()) == [
        "checkpoint", "run.json", "tensorboard", "train.jsonl",
    ]  # fmt: skip


def test_interrupted_collection_leaves_nothing_and_can_be_repeated(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for place in ("diffpolicy.rollout.loop.rollout", "diffpolicy.data.dataset.write_dataset"):
        collect = replace(house.collect, out=tmp_path / "new" / "demos")
        with monkeypatch.context() as patch:
            patch.setattr(place, interrupted)
            with pytest.raises(KeyboardInterrupt):
                collect()
        assert listed(tmp_path / "new") == []
    collect()
    ours, theirs = (read_dataset(out).episodes[0] for out in (collect.out, house.collect.out))
    assert (ours.actions == theirs.actions).all()


def test_on_a_full_disk_training_ends_with_a_whole_checkpoint_and_goes_on_from_it(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bc, real, calls = replace(house.bc, out=tmp_path / "bc"), os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if (bc.out / "checkpoint").exists() and len(calls) % 3 == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"No space left .*step 2 in it is whole.*goes on"):
            bc()
    assert load_checkpoint(bc.out).provenance["steps"] == 2
    capsys.readouterr()
    bc()
    assert "imitation: goes on from step 2 of 6" in capsys.readouterr().out
    assert weights(bc.out) == weights(house.bc.out)


def test_a_training_state_that_makes_no_sense_is_refused(house: House) -> None:
    from diffpolicy.policy import load_train_state, save_checkpoint

    folder = house.bc.out / "checkpoint"
    good = load_train_state(folder)
    wrong: list[dict[str, Any]] = [{}, {"update": 3}, {"update": {}}, {"seconds": "x"}, {"seconds": None}]
    wrong += [{"update": {**good["update"], "step": step}} for step in (-1, 7, None)]
    wrong += [{"update": {**good["update"], name: 5}} for name in ("ema", "policy", "optimiser")]
    for change in wrong:
        state = {**good, **change} if change else {}
        save_checkpoint(load_checkpoint(folder).policy, folder, train_state=state)
        with pytest.raises(InputError, match="the training state"):
            house.bc()


def test_a_corrected_policy_is_corrected_further_on_all_its_data(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = diffpolicy.data.windows.Windows.concat
    monkeypatch.setattr(diffpolicy.data.windows.Windows, "concat", lambda parts: seen.append(len(parts)) or real(parts))
    root = house.bc.out.parent
    house.correct()
    second = replace(house.correct, checkpoint=root / "c", out=root / "deep" / "c2")
    third = replace(house.correct, checkpoint=root / "deep" / "c2" / "round-1", out=root / "c3")
    second()
    third()
    assert seen == [2, 3, 4]
    noted = load_checkpoint(third.out).provenance
    assert noted["dataset"] == "../demos"
    assert noted["rollouts"] == ["../c/round-1/rollouts", "../deep/c2/round-1/rollouts", "round-1/rollouts"]
    played = [read_dataset(third.out / path).episodes for path in noted["rollouts"]]
    assert len({episode.seed for episodes in played for episode in episodes}) == 6
    spent = load_checkpoint(second.out).provenance["env_steps"]
    assert noted["env_steps"] > spent > load_checkpoint(house.correct.out).provenance["env_steps"]

    moved = root.rename(root.with_name("elsewhere"))
    again = replace(third, checkpoint=moved / "deep" / "c2" / "round-1", out=moved / "c3")
    before = weights(again.out)
    again()  # finished before
    assert weights(again.out) == before
    shutil.rmtree(moved / "c" / "round-1" / "rollouts")
    with pytest.raises(InputError, match=r"rollouts that .* got no such folder; put them back, or .* --data"):
        replace(third, checkpoint=moved / "c3", out=moved / "c4")()
    replace(third, checkpoint=moved / "c3", out=moved / "c4", data=moved / "demos")()
    assert load_checkpoint(moved / "c4").provenance["rollouts"] == ["round-1/rollouts"]


def test_a_run_that_an_earlier_version_began_goes_on(house: House) -> None:
    record = house.bc.out / "run.json"
    found = read_json(record)
    for part, name in (("network", "kind"), ("network", "two_times"), ("sampler", "guidance")):
        del found["policy"][part][name]
    del found["policy"]["condition_dropout"]
    for name in ("precision", "compile"):
        del found["optimiser"][name]
    for name in ("validation", "validation_episodes", "validate_every"):
        del found[name]
    write_json(found, record)
    before = weights(house.bc.out)
    assert house.bc() == house.bc.out / "checkpoint"
    assert weights(house.bc.out) == before
    with pytest.raises(InputError, match=r"optimiser\.precision: 'float32' there, 'bfloat16' now"):
        replace(house.bc, optimiser=RegressionConfig(precision="bfloat16"))()
    for changed in (UNetConfig(width=16), replace(SMALL.network, width=16)):
        with pytest.raises(InputError, match="another run"):
            replace(house.bc, policy=replace(SMALL, network=changed))()
