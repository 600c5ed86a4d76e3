"""Policies on disk: a folder of JSON and safetensors, written beside its place and then moved there.

config.json                what the policy is, its environment, and where it comes from
model.safetensors          the weights and the normaliser's statistics
train_state.json           optional, for exact resumption: the structure of the training state
train_state.safetensors    and its tensors
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.files import plain, read_json, read_tensors, write_json, write_tensors
from diffpolicy.policy.policy import Policy
from diffpolicy.policy.spaces import SpaceSpec
from diffpolicy.policy.train_state import TRAIN_TENSORS, TRAIN_TREE, save_train_state

__all__ = ["Checkpoint", "checkpoint_of", "load_checkpoint", "save_checkpoint", "write_policy"]

FORMAT = 1
CONFIG, MODEL = "config.json", "model.safetensors"
OURS = {CONFIG, MODEL, TRAIN_TREE, TRAIN_TENSORS, "README.md"}


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
    files.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - OURS):
        raise InputError(f"expected a new folder or a checkpoint, got {folder} with other files; choose another")
    fresh = folder.with_name(f".{folder.name}.new-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        write_policy(policy, fresh, environment, provenance)
        if train_state is not None:
            save_train_state(train_state, fresh)
        _replace_folder(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def write_policy(
    policy: Policy,
    folder: Path,
    environment: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write config.json and model.safetensors, each in one move, into an existing folder."""
    weights = {name: plain(tensor) for name, tensor in policy.state_dict().items()}
    _require_finite(weights, "the policy to save")
    config = {
        "format": FORMAT,
        "environment": environment or policy.environment,
        "policy": asdict(policy.config),
        "space_spec": policy.spaces.to_json(),
        "provenance": dict(policy.provenance if provenance is None else provenance),
    }
    write_tensors(weights, folder / MODEL)
    write_json(config, folder / CONFIG)


def checkpoint_of(path: str | Path) -> Path:
    """The checkpoint folder that a path names: itself, or the ``checkpoint`` in a run's folder.

    Raises InputError where neither is there; the message lists checkpoints below the path.
    """
    folder = Path(path)
    for candidate in (folder, folder / "checkpoint"):
        if (candidate / CONFIG).is_file():
            return candidate
    below = sorted(str(p.parent) for p in folder.glob(f"**/{CONFIG}")) if folder.is_dir() else []
    hint = f"; found below it: {', '.join(below[:5])}" if below else ""
    raise InputError(
        f"expected a checkpoint folder or a run that holds one, got {str(path)!r}{hint}. "
        "`diffpolicy bc` and `diffpolicy correct` write one"
    )


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder, or that of a run, onto the CPU; raises InputError where it is not whole and sound."""
    folder = checkpoint_of(folder)
    config = read_json(folder / CONFIG)
    version = config.get("format") if isinstance(config, dict) else None
    if not isinstance(version, int) or not 1 <= version <= FORMAT:
        raise InputError(
            f"expected a checkpoint of format 1 to {FORMAT} in {folder}, got {version!r}; "
            "install a newer diffpolicy if a newer one wrote it"
        )
    try:
        policy = Policy(PolicyConfig.from_json(config["policy"]), SpaceSpec.from_json(config["space_spec"]))
        environment, provenance = config["environment"], config["provenance"]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected {folder / CONFIG} as save_checkpoint writes it, got {error!r}; restore the file"
        ) from error
    weights = read_tensors(folder / MODEL)
    _require_same(policy.state_dict(), weights, folder / MODEL)
    _require_finite(weights, str(folder / MODEL))
    policy.load_state_dict(weights)
    policy.environment, policy.provenance = environment, dict(provenance)
    return Checkpoint(policy.eval(), environment, provenance, folder)


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


def _replace_folder(fresh: Path, folder: Path) -> None:
    """Move a folder into the place of another, which is put back if that fails."""
    if not folder.exists():
        fresh.replace(folder)
        return
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    shutil.rmtree(old, ignore_errors=True)
    folder.replace(old)
    try:
        fresh.replace(folder)
    except BaseException:
        old.replace(folder)
        raise
    shutil.rmtree(old)
