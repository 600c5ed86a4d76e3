"""Policies on disk: a folder of JSON and safetensors, written beside its place and then moved there.

config.json                what the policy is, its environment, and where it comes from; the checksums of all files
model.safetensors          the weights and the normaliser's statistics
train_state.json           optional, for exact resumption: the structure of the training state
train_state.safetensors    and its tensors
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.files import plain, read_bytes, read_tensors, require_sha256, write_bytes, write_tensors
from diffpolicy.policy.folders import mend, replacing, standing
from diffpolicy.policy.policy import Policy
from diffpolicy.policy.sealed import read_sealed, write_sealed
from diffpolicy.policy.spaces import SpaceSpec
from diffpolicy.policy.train_state import TRAIN_TENSORS, TRAIN_TREE, save_train_state

__all__ = [
    "Checkpoint",
    "checkpoint_of",
    "copy_checkpoint",
    "load_checkpoint",
    "mend_checkpoint",
    "save_checkpoint",
    "write_policy",
]

CONFIG, MODEL = "config.json", "model.safetensors"
FILES = (TRAIN_TENSORS, TRAIN_TREE, MODEL, CONFIG)  # in the order of writing: the config's checksums close the folder
OURS = {*FILES, *(f".{name}.partial" for name in FILES), "README.md"}
_ADVICE = (
    "to act with other settings of the sampler, use `diffpolicy change`; "
    "to train with other settings, use the flags of `diffpolicy bc`"
)


@dataclass(frozen=True)
class Checkpoint:
    """A policy as it was loaded, with what its folder says about it."""

    policy: Policy
    environment: str | None  # the gymnasium id that it was trained for
    provenance: Mapping[str, Any]  # commit, versions, seed, dataset, parent: whatever the recipe noted
    folder: Path


def save_checkpoint(
    policy: Policy,
    folder: str | Path,
    *,
    environment: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    train_state: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint folder; one that is already there is replaced once the new one is complete.

    Raises InputError where a weight is not finite, something cannot be stored, or the folder holds other
    files; OSError, which says what stands on disk, where it cannot be written. Nothing is lost then.
    """
    folder = Path(folder)
    with _writing(folder) as fresh:
        state = {} if train_state is None else save_train_state(train_state, fresh)
        write_policy(policy, fresh, environment, provenance, state)
    return folder


def copy_checkpoint(source: str | Path, folder: str | Path) -> Path:
    """Copy a checkpoint, byte for byte, to a folder, whose own is replaced once the copy is complete.

    Raises InputError where the source is not whole or the folder holds other files, OSError as
    `save_checkpoint` does.
    """
    source, folder = checkpoint_of(source), Path(folder)
    if _whole(folder) and read_bytes(folder / CONFIG) == read_bytes(source / CONFIG):
        return folder
    with _writing(folder) as fresh:
        for name in FILES:
            if (source / name).is_file():
                write_bytes(read_bytes(source / name), fresh / name)
        _read(fresh)
    return folder


def write_policy(
    policy: Policy,
    folder: Path,
    environment: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> None:
    """Write config.json and model.safetensors, each in one move, into an existing folder.

    files: SHA-256, by name, of what was written there before and belongs to them.
    """
    weights = {name: plain(tensor) for name, tensor in policy.state_dict().items()}
    _require_finite(weights, "the policy to save")
    config = {
        "environment": environment or policy.environment,
        "policy": asdict(policy.config),
        "space_spec": policy.spaces.to_json(),
        "provenance": dict(policy.provenance if provenance is None else provenance),
    }
    written = {**(files or {}), MODEL: write_tensors(weights, folder / MODEL)}
    write_sealed(config, written, folder / CONFIG)


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint folder that a path names: itself, or the ``checkpoint`` in a run's folder.

    Raises InputError where neither is there; the message lists checkpoints below the path.
    """
    folder = Path(path)
    for attempt in range(5):  # a writer may be moving one into place
        time.sleep(0.01 * attempt)
        for candidate in (folder, folder / "checkpoint"):
            place = standing(candidate, _whole)
            if place is not None and (place / CONFIG).is_file():
                return candidate
    below = sorted(str(p.parent) for p in folder.glob(f"**/{CONFIG}")) if folder.is_dir() else []
    hint = f"; found below it: {', '.join(below[:5])}" if below else ""
    raise InputError(
        f"expected a checkpoint folder or a run that holds one, got {str(path)!r}{hint}. "
        "`diffpolicy bc` and `diffpolicy correct` write one"
    )


def mend_checkpoint(folder: Path) -> bool:
    """Bring what a kill left of a checkpoint into order; returns whether there is one, sound or not."""
    mend(folder, _whole)
    return folder.is_dir()


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder, or that of a run, onto the CPU; raises InputError where it is not whole and sound.

    While another process saves it, one of the two is read; after a kill, the newest that was complete.
    """
    folder = checkpoint_of(folder)
    while True:
        place, stamp = _found(folder)
        try:
            return _built(*_read(place), folder)
        except InputError:
            if stamp == _found(folder)[1]:
                raise  # else it was replaced meanwhile


def _built(config: Mapping[str, Any], weights: dict[str, Tensor], folder: Path) -> Checkpoint:
    try:
        settings, spaces = PolicyConfig.from_json(config["policy"]), SpaceSpec.from_json(config["space_spec"])
        environment, provenance = config["environment"], config["provenance"]
        if not isinstance(environment, str | None) or not isinstance(provenance, dict):
            raise TypeError(f"environment {environment!r} and provenance {provenance!r}")
        policy = Policy(settings, spaces)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"expected {folder / CONFIG} as save_checkpoint writes it, got {error!r:.500}; restore the file"
        ) from error
    _require_same(policy.state_dict(), weights, folder / MODEL)
    _require_finite(weights, str(folder / MODEL))
    policy.load_state_dict(weights)
    policy.environment, policy.provenance = environment, dict(provenance)
    return Checkpoint(policy.eval(), environment, provenance, folder)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of config.json, and the weights; raises InputError where a file is not as it was written.

    The training state, which is not needed to act, may have been left out.
    """
    config = read_sealed(folder / CONFIG, "a policy of diffpolicy", _ADVICE)
    files = config["files"]
    for name in (TRAIN_TREE, TRAIN_TENSORS):
        if name in files and (folder / name).is_file():
            require_sha256(folder / name, files[name])
    noted = None if config["format"] == 1 else files.get(MODEL, "")
    return config, read_tensors(folder / MODEL, noted)


def _whole(folder: Path) -> bool:
    try:
        return bool(_read(folder))
    except InputError:
        return False


def _found(folder: Path) -> tuple[Path, tuple[str, int, int]]:
    """Where a checkpoint is now, and what tells this writing of it from any other."""
    place = standing(folder, _whole) or folder
    try:
        about = (place / CONFIG).stat()
    except OSError:
        return place, (str(place), 0, 0)
    return place, (str(place), about.st_ino, about.st_mtime_ns)


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Gives a folder to write a checkpoint into, which then takes the place of another; errors say what is left."""
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - OURS):
        raise InputError(f"expected a new folder or a checkpoint, got {folder} with other files; choose another")
    try:
        with replacing(folder, _whole) as fresh:
            yield fresh
    except OSError as error:
        kept = "no earlier checkpoint stands there"
        if _whole(folder):
            steps = read_sealed(folder / CONFIG, "", "").get("provenance", {}).get("steps")
            kept = f"the earlier checkpoint{'' if steps is None else f' at step {steps}'} in it is whole"
        advice = "Make room for it: the same command (without --overwrite) goes on"
        said = f"could not save {folder} ({error}); {kept}. {advice}"
        raise (OSError(error.errno, said) if error.errno else OSError(said)) from error


def _require_finite(weights: Mapping[str, Tensor], where: str) -> None:
    bad = [name for name, tensor in weights.items() if not bool(torch.isfinite(tensor).all())]
    if bad:
        raise InputError(
            f"expected finite weights in {where}, got NaN or infinity in {bad}; "
            "go back to an earlier checkpoint, and train with a lower learning rate"
        )


def _require_same(expected: Mapping[str, Tensor], came: Mapping[str, Tensor], path: Path) -> None:
    missing, extra = sorted(expected.keys() - came.keys()), sorted(came.keys() - expected.keys())
    if missing or extra:
        raise InputError(
            f"expected the weights that {CONFIG} describes in {path}, got missing keys {missing} and "
            f"unknown keys {extra}; restore the two files that were written together"
        )
    for name, tensor in expected.items():
        kinds = [(tuple(one.shape), one.dtype) for one in (tensor, came[name])]
        if kinds[0] != kinds[1]:
            raise InputError(
                f"expected {name} of shape and type {kinds[0]} in {path}, got {kinds[1]}; "
                "restore the two files that were written together"
            )
