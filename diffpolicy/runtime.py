"""An exported policy acts with numpy and onnxruntime alone: neither torch nor an environment has to be installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.acting import ActingState
from diffpolicy.policy.chunked import ChunkedPredictor
from diffpolicy.policy.graph import CHUNK, feed, metadata_of, open_session
from diffpolicy.policy.observations import Layout

__all__ = ["ActingState", "OnnxPolicy"]


class OnnxPolicy(ChunkedPredictor):
    """A policy from one ONNX file; it acts as `diffpolicy.Policy` does, noise and all, to 1e-5.

    `seed` keys its noise: set it before the first `predict`. May be shared between threads.
    """

    def __init__(self, path: str | Path, threads: int = 1) -> None:
        """Read a file that `diffpolicy export` wrote, and run it on `threads` threads of the CPU.

        Raises InputError where the file is missing, damaged, not ours or of a newer format, or onnxruntime is
        not installed.
        """
        if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= 1024:
            raise InputError(f"expected threads from 1 to 1024, got {threads!r}")
        try:
            content = Path(path).read_bytes()
        except (OSError, TypeError, ValueError) as error:
            raise InputError(f"expected a readable file {path}, got {error}; check its name") from error
        self._session = open_session(content, threads)
        self.metadata = metadata_of(self._session, content, str(path))
        try:
            self.config = PolicyConfig.from_json(self.metadata["policy"])
            spaces = self.metadata["space_spec"]
            sizes = {name: bounds["low"] for name, bounds in spaces["observations"].items()}
            self.layout = Layout.of(sizes, spaces["boxed"])
            self.action_size = len(spaces["action"]["low"])
            self._noisy_draws: int = self.metadata["draws"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"expected the metadata of {path} to describe a policy, got {error!r:.300}") from error
        self.seed = 0

    @property
    def environment(self) -> str | None:
        """The gymnasium id that it was trained for, as far as its checkpoint said."""
        name: str | None = self.metadata["environment"]
        return name

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where its weights come from, likewise."""
        known: Mapping[str, Any] = self.metadata["provenance"]
        return known

    def chunk(self, inputs: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """The bare graph: chunks (B,H,A) in raw units for the windows by name, each (B,To,O), and ``noise``.

        ``noise`` is (B,H,A), or (B,K+1,H,A) where the sampler's steps are noisy.
        """
        chunk: NDArray[np.float32] = self._session.run([CHUNK], inputs)[0]
        return chunk

    def _draws(self, deterministic: bool) -> int:
        return 1 if deterministic else self._noisy_draws

    def _draw(
        self, past: NDArray[np.float32], noise: NDArray[np.float32], last: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        del last  # such policies are not exported
        if noise.shape[1] < self._noisy_draws:  # no noise in the steps
            start, noise = noise, np.zeros((len(past), self._noisy_draws, *noise.shape[2:]), np.float32)
            noise[:, :1] = start
        return self.chunk(feed(self.layout, past, noise))
