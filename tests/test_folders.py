"""Laws of replacing a checkpoint: kills, full disks, readers and other writers never leave less than a whole one."""

from __future__ import annotations

import errno
import os
import resource
import threading
from pathlib import Path

import pytest
import torch

from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Bounds, Policy, PolicyConfig, SpaceSpec, checkpoint, load_checkpoint, save_checkpoint
from diffpolicy.policy.checkpoint import mend_checkpoint
from diffpolicy.policy.files import require_writable

SPACES = SpaceSpec({"observation": Bounds((-1.0,), (1.0,))}, Bounds((-2.0,), (2.0,)), True)
CONFIG = PolicyConfig(network=MLPConfig(width=8, blocks=1), sampler=SamplerConfig(steps=2))


@pytest.fixture
def policy() -> Policy:
    torch.manual_seed(0)
    return Policy(CONFIG, SPACES)


def same(one: Policy, other: Policy) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_old_checkpoint_survives_every_failed_save(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_checkpoint(policy, tmp_path / "run")
    other = Policy(CONFIG, SPACES)
    with pytest.raises(InputError, match="JSON"):
        save_checkpoint(other, folder, provenance={"when": object()})
    with pytest.raises(InputError, match="convert"):
        save_checkpoint(other, folder, train_state={"optimiser": object()})
    original = Path.replace

    def fail_at_the_last_move(path: Path, target: Path) -> Path:
        if target == folder and path.name.endswith(".new"):
            raise OSError("disk on fire")
        return original(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail_at_the_last_move)
        with pytest.raises(OSError, match="disk on fire"):
            save_checkpoint(other, folder)
    with torch.no_grad():
        next(other.parameters()).fill_(float("inf"))
    with pytest.raises(InputError, match="finite"):
        save_checkpoint(other, folder)
    assert same(load_checkpoint(folder).policy, policy)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def steps(folder: Path) -> int:
    return int(load_checkpoint(folder).provenance["steps"])


ASIDE = {  # which copies a kill left, by step, half-written ones negative -> what is to be found
    "while the first was written": ({".run.new": -1}, None),
    "before the first was moved": ({".run.new": 1}, 1),
    "while a later one was written": ({"run": 1, ".run.new": -2}, 1),
    "before the old one was moved": ({"run": 1, ".run.new": 2}, 1),
    "between the two moves": ({".run.old": 1, ".run.new": 2}, 2),
    "between the moves, and the disk lost a part": ({".run.old": 1, ".run.new": -2}, 1),
    "while the old one was deleted": ({"run": 2, ".run.old": -1}, 2),
}


@pytest.mark.parametrize("killed", ASIDE)
def test_what_a_kill_leaves_is_found_and_tidied_up(policy: Policy, tmp_path: Path, killed: str) -> None:
    left, found = ASIDE[killed]
    for name, step in left.items():
        written = save_checkpoint(policy, tmp_path / "w", provenance={"steps": abs(step)}, train_state={"step": step})
        if step < 0:
            (written / "config.json").unlink()
        written.rename(tmp_path / name)
    if found is None:
        with pytest.raises(InputError, match="expected a checkpoint"):
            load_checkpoint(tmp_path / "run")
    else:
        assert steps(tmp_path / "run") == found
        assert {path.name for path in tmp_path.iterdir()} == set(left)  # a reader changes nothing
    assert mend_checkpoint(tmp_path / "run") == (found is not None)
    assert [path.name for path in tmp_path.iterdir()] == (["run"] if found else [])
    save_checkpoint(policy, tmp_path / "run", provenance={"steps": 3})
    assert steps(tmp_path / "run") == 3


def test_readers_and_writers_do_not_disturb_each_other(policy: Policy, tmp_path: Path) -> None:
    folder = save_checkpoint(policy, tmp_path / "run", provenance={"steps": 0})
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for step in range(first, 40, 2):
                save_checkpoint(policy, folder, provenance={"steps": step}, train_state={"step": step})
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=work, args=(first,)) for first in (1, 2)]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(steps(tmp_path / "run"))
    for writer in writers:
        writer.join()
    assert not failed
    assert steps(folder) in (38, 39)
    assert len(seen) > 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("call", range(4), ids=checkpoint.FILES)
def test_on_a_full_disk_the_old_checkpoint_stays(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    folder = save_checkpoint(policy, tmp_path / "run", provenance={"steps": 7})
    real, calls = os.fsync, iter(range(99))

    def full(descriptor: int) -> None:
        if next(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=rf"{checkpoint.FILES[call]}.*step 7 in it is whole.*goes on") as caught:
            save_checkpoint(Policy(CONFIG, SPACES), folder, train_state={"step": 8})
    assert caught.value.errno == errno.ENOSPC
    assert same(load_checkpoint(folder).policy, policy)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_where_no_file_may_grow_large_enough_nothing_is_lost(policy: Policy, tmp_path: Path) -> None:
    folder = save_checkpoint(policy, tmp_path / "run", provenance={"steps": 7})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        for where, kept in ((folder, "step 7 in it is whole"), (tmp_path / "other", "no earlier checkpoint")):
            with pytest.raises(OSError, match=rf"model.safetensors.*{kept}"):
                save_checkpoint(Policy(CONFIG, SPACES), where)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert same(load_checkpoint(folder).policy, policy)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_link_to_a_checkpoint_stays_one(policy: Policy, tmp_path: Path) -> None:
    folder = save_checkpoint(policy, tmp_path / "deep" / "run", provenance={"steps": 1})
    (tmp_path / "link").symlink_to(folder)
    save_checkpoint(policy, tmp_path / "link", provenance={"steps": 2})
    assert (tmp_path / "link").is_symlink()
    assert steps(folder) == steps(tmp_path / "link") == 2


def test_whether_a_file_can_be_written_is_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    require_writable(tmp_path / "file")
    require_writable(tmp_path / "a" / "b" / "new.json")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    assert (tmp_path / "file").read_text() == "mine"
    for path, match in ((tmp_path / "a", "a folder there"), (tmp_path / "file" / "b", "File exists|Not a directory")):
        with pytest.raises(InputError, match=rf"expected to write a file .*{match}; name another place"):
            require_writable(path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        require_writable(tmp_path / "new")
