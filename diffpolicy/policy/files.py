"""JSON and safetensors files: each written aside and moved into place, each read with its errors in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["plain", "read_json", "read_tensors", "write_json", "write_tensors"]


def plain(tensor: Tensor) -> Tensor:
    """A copy on the CPU with memory of its own, as safetensors needs."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors to a safetensors file."""
    from safetensors.torch import save_file

    _write(path, lambda partial: save_file(tensors, partial))


def write_json(data: Any, path: Path) -> None:
    """Write plain values to a JSON file; raises InputError on anything else, NaN included."""
    try:
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InputError(f"expected data that JSON can hold in {path.name}, got {error}; convert it") from error
    _write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    write(partial)
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read a JSON file; raises InputError where it is missing or cut off."""
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU; raises InputError where it is missing or damaged."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = _read(path, lambda: load_file(path))
    return tensors


def _read(path: Path, parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except OSError as error:
        raise InputError(f"expected a readable file {path}, got {error}; check the folder's name") from error
    except (ValueError, SafetensorError) as error:
        raise InputError(f"expected a whole {path.suffix} file {path}, got {error}; restore it") from error
