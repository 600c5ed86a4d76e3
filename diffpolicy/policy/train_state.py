"""The state of training on disk, for exact resumption: nested containers of tensors and numbers, never a pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from diffpolicy.errors import InputError
from diffpolicy.policy.files import plain, read_json, read_tensors, write_tensors
from diffpolicy.policy.sealed import read_sealed, write_sealed

__all__ = ["TRAIN_TENSORS", "TRAIN_TREE", "load_train_state", "save_train_state"]

TRAIN_TREE, TRAIN_TENSORS = "train_state.json", "train_state.safetensors"
_ADVICE = "or train from the start, in another folder or with --overwrite"


def save_train_state(state: Mapping[str, Any], folder: str | Path) -> dict[str, str]:
    """Store nested dicts, lists and tuples of tensors, numbers, strings, booleans and None in a folder.

    An optimiser's state_dict is one such. Returns the SHA-256 of the two files by name. Raises InputError on
    anything else: nothing is ever pickled.
    """
    tensors: dict[str, Tensor] = {}
    tree = _pack(state, tensors)
    files = {TRAIN_TENSORS: write_tensors(tensors, Path(folder) / TRAIN_TENSORS)}
    return {**files, TRAIN_TREE: write_sealed({"state": tree}, files, Path(folder) / TRAIN_TREE)}


def load_train_state(folder: str | Path) -> dict[str, Any]:
    """The inverse of `save_train_state`, bit for bit; raises InputError where it is missing or damaged."""
    path = Path(folder) / TRAIN_TREE
    data = read_json(path)
    first = isinstance(data, dict) and data.keys() == {"dict"}  # of format 1
    sealed = {"state": data, "files": {}} if first else read_sealed(path, "a training state", _ADVICE)
    tensors = read_tensors(path.with_name(TRAIN_TENSORS), None if first else sealed["files"].get(TRAIN_TENSORS, ""))
    try:
        return dict(_unpack(sealed.get("state"), tensors))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected {path} as save_train_state writes it, got {error!r:.200}; restore it, {_ADVICE}"
        ) from error


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON, in which containers and tensors are {kind: content}."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = plain(value)
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
    if kind not in ("list", "tuple"):
        raise ValueError(f"no kind of container: {kind}")
    items = [_unpack(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)
