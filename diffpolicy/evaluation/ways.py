"""How many of the equally good ways a policy keeps: the entropy over the ways that its episodes took."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from diffpolicy.errors import InputError
from diffpolicy.evaluation.samples import checked_confidence, checked_resamples, generator
from diffpolicy.evaluation.statistics import Interval

__all__ = ["way_entropy", "way_interval"]


def way_entropy(ways: npt.ArrayLike, count: int | None = None) -> float:
    """Entropy of the distribution over ways (E,) [bit]: 0 where all episodes took one, 3 for eight taken alike.

    The plug-in estimate with Miller and Madow's correction, (ways seen - 1) / (2 E) nats, at most the logarithm of
    the number of episodes; 0 for no episode. With ``count``, the number of ways that there are, it is given as a
    share of their full entropy, 0 to 1. Without it, it may be more than the ways seen can have: others may be unseen.
    Source: Miller (1955), in Information Theory in Psychology, 95.

    Raises:
        InputError: a way that is not one of 0..count - 1, as that of an episode which took none.
    """
    if count is None:
        counts = np.unique(np.asarray(ways), return_counts=True)[1]
    else:
        counts = np.bincount(_checked(ways, count), minlength=count)
    total = int(counts.sum())
    if not total:
        return 0.0
    nats = min(float(_nats(counts[None])[0]), float(np.log(total)))
    return nats / float(np.log(2)) if count is None else min(nats / float(np.log(count)), 1.0)


def way_interval(
    ways: npt.ArrayLike, count: int, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """``way_entropy`` as a share of the full entropy of ``count`` ways, with its basic bootstrap interval in 0..1.

    ways: (E,) whole numbers in 0..count - 1, of the successful episodes alone, E >= 1. The interval covers new
    episodes of the same policy; ways that are all alike give a point, though a rare one may be unseen.
    Source: Davison and Hinkley (1997), Bootstrap Methods and their Application, section 5.2: what redrawn episodes
    miss of the entropy of those observed is what these miss of the policy's.

    Raises:
        InputError: no way, one that is not whole or not in 0..count - 1, or fewer than two that there are.
    """
    taken = _checked(ways, count)
    if not len(taken):
        raise InputError("way_interval wants the way of at least one successful episode; got none; play more")
    point, full = way_entropy(taken, count), float(np.log(count))
    counts = np.bincount(taken, minlength=count)
    redrawn = generator(seed).multinomial(len(taken), counts / len(taken), size=checked_resamples(resamples))
    tail = 50 * (1 - checked_confidence(confidence))
    low, high = np.percentile(_nats(redrawn) / full, [tail, 100 - tail])
    seen = float(_nats(counts[None], correct=False)[0]) / full
    ends = np.clip([point - (high - seen), point - (low - seen)], 0.0, 1.0)
    return Interval(point, min(float(ends[0]), point), max(float(ends[1]), point))


def _nats(counts: npt.NDArray[np.int64], correct: bool = True) -> npt.NDArray[np.float64]:
    """Entropy (R,) of the distributions that counts (R, ways) were drawn from [nat]."""
    total = counts.sum(axis=1)
    share = counts / total[:, None]
    plugin = -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
    correction = ((counts > 0).sum(axis=1) - 1) / (2 * total)
    return np.asarray(plugin + correction if correct else plugin)


def _checked(ways: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    if not isinstance(count, int | np.integer) or count < 2:
        raise InputError(f"count is the number of ways that there are, 2 or more; got {count!r}")
    taken = np.asarray(ways, dtype=np.float64)
    if taken.ndim != 1 or not np.isin(taken, np.arange(count)).all():
        raise InputError(
            f"ways must be a list of whole numbers in 0..{count - 1}; got {taken!r:.80}; "
            "leave out the episodes that failed or took no way to its end"
        )
    return taken.astype(np.int64)
