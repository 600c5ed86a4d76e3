"""JSON files that carry a checksum of themselves and of the files that were written with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffpolicy.errors import InputError
from diffpolicy.policy.files import parse_json, read_bytes, to_json, write_bytes

__all__ = ["FORMAT", "read_sealed", "write_sealed"]

FORMAT = 2  # 1 had no checksums
_OPEN = "0" * 64  # what stands in the place of the checksum while it is computed


def write_sealed(data: Mapping[str, Any], files: Mapping[str, str], path: Path) -> str:
    """Write plain values, and the SHA-256 of other files by name, as a JSON file that holds its own checksum.

    That is the SHA-256 of its bytes with 64 zeros in the checksum's place, which is the last value of the file.
    Returns the SHA-256 of the file as it is. Raises InputError on values that JSON cannot hold.
    """
    text = to_json({"format": FORMAT, **data, "files": dict(files), "sha256": _OPEN}, path.name)
    head, _, tail = text.rpartition(_OPEN)
    return write_bytes(f"{head}{hashlib.sha256(text.encode()).hexdigest()}{tail}".encode(), path)


def read_sealed(path: Path, what: str, advice: str) -> dict[str, Any]:
    """Read what `write_sealed` wrote; of format 1, which had no checksums, `files` is empty.

    Raises InputError where the file is missing, damaged, edited (then with the advice), of a later format, or
    no file of ours: it should be that of `what`.
    """
    content = read_bytes(path)
    data = parse_json(content, path)
    if not isinstance(data, dict) or not {"format", "sha256"} & data.keys():
        shown = f"the names {sorted(map(str, data))[:6]}" if isinstance(data, dict) else type(data).__name__
        raise InputError(
            f"expected {what} with its format and checksum in {path}, got {shown}; it was made by another program, or "
            "is damaged: name a folder that diffpolicy wrote, or restore this one"
        )
    version = data.get("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise InputError(
            f"expected {what} of format 1 to {FORMAT} in {path}, got {version!r}; "
            "install a newer diffpolicy if a newer one wrote it, or restore the file"
        )
    if version == 1 and "sha256" not in data:
        return {**data, "files": {}}
    seal, files = data.get("sha256"), data.get("files")
    if not isinstance(seal, str) or not _intact(content, seal):
        raise InputError(
            f"expected {path} as it was written, got other content than its checksum says: it was edited or is "
            f"damaged. Restore it; {advice}"
        )
    if not isinstance(files, dict) or not all(isinstance(one, str) for one in files.values()):
        raise InputError(f"expected the SHA-256 of files by name in {path}, got {files!r:.100}; restore it")
    return data


def _intact(content: bytes, seal: str) -> bool:
    head, found, tail = content.rpartition(seal.encode())
    return bool(found) and hashlib.sha256(head + _OPEN.encode() + tail).hexdigest() == seal
