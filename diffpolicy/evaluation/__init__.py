"""Evaluation: success and cost of a policy, the intervals they carry, and how they are shown.

Nothing is imported here, so that statistics, plots and reports load without torch.
"""

from __future__ import annotations

__all__: list[str] = []
