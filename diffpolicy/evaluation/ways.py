"""How many of the equally good ways a policy keeps: the entropy over the ways that its episodes took."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["way_entropy"]


def way_entropy(ways: npt.ArrayLike) -> float:
    """Entropy of the distribution over ways (E,) [bit]: 0 where all episodes took one, 3 for eight taken alike.

    The plug-in estimate with Miller and Madow's correction, (ways seen - 1) / (2 E) nats, at most the logarithm of
    the number of episodes; 0 for no episode.
    """
    counts = np.unique(np.asarray(ways), return_counts=True)[1]
    total = int(counts.sum())
    if not total:
        return 0.0
    share = counts / total
    nats = -float((share * np.log(share)).sum()) + (len(counts) - 1) / (2 * total)
    return min(nats, float(np.log(total))) / float(np.log(2))
