"""What the ONNX file of an exported policy is: its inputs, its output and its metadata. Needs no torch to read.

inputs   the observation windows by name, each (B,To,O) in raw units, and "noise", standard normal: (B,H,A), or
         (B,K+1,H,A) where the sampler's steps are noisy, the start first, then one draw a step
output   "chunk" (B,H,A) in raw units, within the action space's bounds
metadata under KEY, as JSON: format, policy settings, spaces, environment, provenance, checksums
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError
from diffpolicy.policy.observations import Layout

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

__all__ = ["CHUNK", "FORMAT", "KEY", "NOISE", "OPSET", "UNSEALED", "feed", "metadata_of", "open_session", "sealed"]

FORMAT = 1
OPSET = 18
KEY = "diffpolicy"
NOISE, CHUNK = "noise", "chunk"
UNSEALED = b"unsealed" * 8  # stands where the file's own SHA-256 will
_RESTORE = "restore the file, or export the checkpoint again"


def feed(layout: Layout, past: NDArray[np.float32], noise: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """The graph's inputs, in order, for joined windows (B,To,C) and noise (B,D,H,A)."""
    inputs = {name: np.ascontiguousarray(window) for name, window in layout.split(past).items()}
    inputs[NOISE] = noise[:, 0] if noise.shape[1] == 1 else noise
    return inputs


def open_session(content: bytes, threads: int = 1) -> InferenceSession:
    """A session of onnxruntime on the CPU; raises InputError where the bytes are no graph, or it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            'expected the package onnxruntime, got none; run: pip install "diffpolicy[export]", or onnxruntime alone'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads sleep
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise InputError(f"expected a whole ONNX file, got {type(error).__name__}: {error}; {_RESTORE}") from error


def sealed(content: bytes) -> bytes:
    """The file with its own SHA-256 in the place that was left for it."""
    return content.replace(UNSEALED, hashlib.sha256(content).hexdigest().encode())


def metadata_of(session: InferenceSession, content: bytes, where: str) -> dict[str, Any]:
    """The metadata of a file; raises InputError unless it is an exported policy, whole, and of a format known here."""
    try:
        data = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
        found, seal = data["format"], data["sha256"].encode()
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"expected a policy that `diffpolicy export` wrote, got the ONNX file {where} without its metadata "
            f"({error!r:.200}); export a checkpoint"
        ) from error
    if not isinstance(found, int) or not 1 <= found <= FORMAT:
        raise InputError(
            f"expected an exported policy of format 1 to {FORMAT}, got {found!r} in {where}; install a newer "
            "diffpolicy if a newer one wrote it"
        )
    if hashlib.sha256(content.replace(seal, UNSEALED)).hexdigest().encode() != seal:
        raise InputError(f"expected {where} as it was exported, got other content than its SHA-256 says; {_RESTORE}")
    names = [one.name for one in session.get_inputs()]
    if names != [*sorted(data["space_spec"]["observations"]), NOISE] or session.get_outputs()[0].name != CHUNK:
        raise InputError(f"expected the inputs that the metadata of {where} name, got {names}; {_RESTORE}")
    return dict(data)
