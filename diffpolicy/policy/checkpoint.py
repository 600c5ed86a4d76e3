"""Policies on disk: a folder of JSON and safetensors, written beside its place and then moved there.

config.json                what the policy is, its environment, and where it comes from
model.safetensors          the weights and the normaliser's statistics
train_state.json           optional, for exact resumption: the structure of the training state
train_state.safetensors    and its tensors
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.policy import Policy
from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["Checkpoint", "load_checkpoint", "load_train_state", "save_checkpoint", "save_train_state", "write_policy"]

FORMAT = 1
CONFIG, MODEL = "config.json", "model.safetensors"
TRAIN_TREE, TRAIN_TENSORS = "train_state.json", "train_state.safetensors"
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
    weights = {name: _plain(tensor) for name, tensor in policy.state_dict().items()}
    _require_finite(weights, "the policy to save")
    config = {
        "format": FORMAT,
        "environment": environment,
        "policy": asdict(policy.config),
        "space_spec": policy.spaces.to_json(),
        "provenance": dict(provenance or {}),
    }
    _write_tensors(weights, folder / MODEL)
    _write_json(config, folder / CONFIG)


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a checkpoint folder onto the CPU; raises InputError where it is not whole and sound."""
    folder = Path(folder)
    config = _read_json(folder / CONFIG)
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
    weights = _read_tensors(folder / MODEL)
    _require_same(policy.state_dict(), weights, folder / MODEL)
    _require_finite(weights, str(folder / MODEL))
    policy.load_state_dict(weights)
    return Checkpoint(policy.eval(), environment, provenance, folder)


def save_train_state(state: Mapping[str, Any], folder: str | Path) -> None:
    """Store nested dicts, lists and tuples of tensors, numbers, strings, booleans and None in a folder.

    An optimiser's state_dict is one such. Raises InputError on anything else: nothing is ever pickled.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, tensors)
    _write_tensors(tensors, Path(folder) / TRAIN_TENSORS)
    _write_json(tree, Path(folder) / TRAIN_TREE)


def load_train_state(folder: str | Path) -> dict[str, Any]:
    """The inverse of `save_train_state`, bit for bit; raises InputError where it is missing or damaged."""
    path = Path(folder) / TRAIN_TREE
    tree, tensors = _read_json(path), _read_tensors(path.with_name(TRAIN_TENSORS))
    try:
        return dict(_unpack(tree, tensors))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"expected {path} as save_train_state writes it, got {error!r}; train from the start"
        ) from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON, in which containers and tensors are {kind: content}."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = _plain(value)
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"dict": [[_pack(key, tensors), _pack(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_pack(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(f"expected tensors, numbers, strings and containers of them, got {type(value)}; convert it")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(item, tensors) for key, item in content}
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def _plain(tensor: Tensor) -> Tensor:
    """A copy on the CPU with memory of its own, as safetensors needs."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


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


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    _write(path, lambda partial: save_file(tensors, partial))


def _write_json(data: Any, path: Path) -> None:
    try:
        text = json.dumps(data, indent=2) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"expected data that JSON can hold in {path.name}, got {error}; convert it") from error
    _write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


def _read_json(path: Path) -> Any:
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = _read(path, lambda: load_file(path))
    return tensors


def _read(path: Path, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except OSError as error:
        raise InputError(f"expected a readable file {path}, got {error}; check the folder's name") from error
    except (ValueError, SafetensorError) as error:
        raise InputError(f"expected a whole {path.suffix} file {path}, got {error}; restore it") from error
