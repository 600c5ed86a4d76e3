"""Single files, JSON and safetensors: each written aside and moved into place, each read with its errors in words."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError

from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "parse_json",
    "plain",
    "read_bytes",
    "read_json",
    "read_tensors",
    "require_sha256",
    "require_writable",
    "sync_folder",
    "to_json",
    "write_bytes",
    "write_json",
    "write_tensors",
]

T = TypeVar("T")


def plain(tensor: Tensor) -> Tensor:
    """A copy on the CPU with memory of its own, as safetensors needs."""
    import torch

    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def write_bytes(content: bytes, path: Path) -> str:
    """Write a file, on the disk itself before it gets its name; returns its SHA-256.

    Raises OSError, which names the file, where that fails; what stood there before then still does.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may leave the name and no content
        partial.replace(path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            partial.unlink()  # there is one only where something failed
    return hashlib.sha256(content).hexdigest()


def write_tensors(tensors: dict[str, Tensor], path: Path) -> str:
    """Write named tensors to a safetensors file; returns its SHA-256."""
    from safetensors.torch import save

    return write_bytes(save(tensors), path)


def to_json(data: Any, what: str) -> str:
    """Plain values as JSON; raises InputError, which calls them `what`, on anything else, NaN included."""
    try:
        return json.dumps(data, indent=1, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"expected data that JSON can hold in {what}, got {error}; convert it") from error


def write_json(data: Any, path: Path) -> None:
    """Write plain values to a JSON file; raises InputError on anything else, NaN included."""
    write_bytes(to_json(data, path.name).encode(), path)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on the disk itself, where the system has a way to."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def require_writable(path: Path) -> None:
    """Raises InputError, in words, where a file could not be created at a path, or replace the one there.

    Makes the folders above it. Call it before long work whose result goes there.
    """
    advice = "name another place, or free this one"
    try:
        if path.is_dir():
            raise InputError(f"expected to write a file {path}, got a folder there; {advice}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:32]}.", suffix=".partial") as probe:
            probe.write(b"\0" * 4096)  # a file system without room refuses content only
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise InputError(f"expected to write a file {path}, got {error.strerror or error}; {advice}") from error


def read_bytes(path: Path, sha256: str | None = None) -> bytes:
    """A file's content; raises InputError where it cannot be read, or has another SHA-256 than is given."""
    content = _reading(path, path.read_bytes)
    if sha256 is not None:
        _require_equal(path, hashlib.sha256(content).hexdigest(), sha256)
    return content


def require_sha256(path: Path, sha256: str) -> None:
    """Raises InputError where a file, which may be large, cannot be read or has another SHA-256."""

    def digest() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    _require_equal(path, _reading(path, digest), sha256)


def parse_json(content: bytes, path: Path) -> Any:
    """The values of a JSON file's content; raises InputError, which names the file, where it is cut off."""
    return _parse(path, lambda: json.loads(content.decode(), parse_constant=_refuse))


def read_json(path: Path) -> Any:
    """Read a JSON file; raises InputError where it is missing or cut off."""
    return parse_json(read_bytes(path), path)


def read_tensors(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU; raises InputError where it is missing, damaged or has another SHA-256."""
    from safetensors.torch import load

    content = read_bytes(path, sha256)
    return _parse(path, lambda: load(content))


def _reading(path: Path, read: Callable[[], T]) -> T:
    try:
        return read()
    except OSError as error:
        raise InputError(f"expected a readable file {path}, got {error}; check the folder's name") from error


def _require_equal(path: Path, found: str, noted: str) -> None:
    if found != noted:
        raise InputError(
            f"expected a whole {path.suffix} file {path}, got {path.stat().st_size} bytes with another SHA-256 than "
            "the one noted beside it: it is damaged, or from another checkpoint; restore it"
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _parse(path: Path, parse: Callable[[], T]) -> T:
    try:
        return parse()
    except (ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:  # a file of unknown origin
        raise InputError(f"expected a whole {path.suffix} file {path}, got {error!r:.200}; restore it") from error
