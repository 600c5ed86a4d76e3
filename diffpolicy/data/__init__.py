"""Demonstrations and rollouts as data: episodes, windows over them, batches, sources of batches, files.

Nothing is imported here, so that `diffpolicy.data.episode` and `diffpolicy.data.dataset` load without torch.
"""

from __future__ import annotations

__all__: list[str] = []
