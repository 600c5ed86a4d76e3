"""Training, whatever is trained: the loop, what listens to it, and the average of the weights.

Nothing is imported here, so that `diffpolicy.training.fit` and `diffpolicy.training.logs` load without torch.
"""

from __future__ import annotations

__all__: list[str] = []
