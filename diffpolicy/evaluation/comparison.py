"""How far two methods lie apart on the same episodes: paired differences, the verdict at a margin, its power."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any, Literal, NamedTuple

import numpy as np

from diffpolicy.errors import InputError
from diffpolicy.evaluation.samples import (
    Floats,
    as_pairs,
    checked_confidence,
    checked_resamples,
    generator,
    is_success,
    pooled_pairs,
)
from diffpolicy.evaluation.statistics import Interval, bootstrap, paired_difference

__all__ = ["NonInferiority", "PairedSeeds", "non_inferior", "paired_seeds", "power", "verdict"]

Redrawn = Literal["episodes", "seeds"]
Verdict = Literal["not worse", "worse", "undecided"]


class PairedSeeds(NamedTuple):
    """Mean over training seeds of (a - b) with its interval, and the difference that each training seed shows."""

    difference: Interval
    per_seed: tuple[Interval, ...]

    @property
    def one_sign(self) -> bool:
        """True where all training seeds agree on which method is ahead: a chance of 1 in 4 for three equal ones."""
        points = [interval.point for interval in self.per_seed]
        return min(points) > 0 or max(points) < 0


class NonInferiority(NamedTuple):
    """difference a - b, its interval, and whether a is "not worse", "worse" or "undecided" at the margin."""

    difference: float
    interval: Interval
    verdict: Verdict


def paired_seeds(
    a: Any,
    b: Any,
    redraw: Redrawn = "episodes",
    shared_episodes: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedSeeds:
    """Difference a - b of two methods that were trained with the same seeds and met the same episodes.

    a, b: (S, E), or S lists, of successes or returns; a[s][e] and b[s][e] share training seed, task, reset seed,
    perturbation and noise stream. A flat list is one training seed. Each training seed counts once.

    redraw="episodes" covers new episodes of *these* policies, and says nothing of how another training would turn
    out. Successes carry Newcombe's interval of the pooled pairs, which is not narrower than fixed training seeds call
    for; returns carry a paired bootstrap within each training seed. redraw="seeds" is the hierarchical bootstrap,
    training seeds and then their episodes: meant for newly trained policies, with three seeds it covers only about
    75% where seeds differ more than episodes (the chance that three values enclose their median), so put the
    `t_interval` of the differences of `per_seed` beside it. shared_episodes: True where column e is the same episode
    for every training seed; columns are then redrawn whole, for what is hard for one is hard for all. The bootstrap
    of outcomes that are all alike is a point: successes never carry less than Newcombe's interval.
    Source: Newcombe (1998), Stat. Med. 17, 2635; Davison and Hinkley (1997), Bootstrap Methods, section 3.8.

    Raises InputError where a and b have other shapes, are empty or not finite.
    """
    pairs = as_pairs(a, b)
    lengths = [len(first) for first, _ in pairs]
    if redraw not in ("episodes", "seeds"):
        raise InputError(f'redraw is "episodes" or "seeds"; got {redraw!r}')
    if shared_episodes and len(set(lengths)) > 1:
        raise InputError(f"shared episodes are as many for each training seed; got {lengths}; leave out the others")
    alone = tuple(_one_seed(pair, confidence, resamples, seed + number) for number, pair in enumerate(pairs))
    point = float(np.mean([interval.point for interval in alone]))
    ends = []
    if all(_successes(pair) for pair in pairs):
        pooled = paired_difference(*pooled_pairs(pairs), confidence)
        ends += [point + (pooled.low - pooled.point), point + (pooled.high - pooled.point)]
    if not ends or shared_episodes or redraw == "seeds" or len(set(lengths)) > 1:
        tail = 50 * (1 - checked_confidence(confidence))
        draws = _redrawn([x - y for x, y in pairs], redraw, shared_episodes, checked_resamples(resamples), seed)
        ends += np.percentile(draws, [tail, 100 - tail]).tolist()
    return PairedSeeds(Interval(point, min(ends), max(ends)), alone)


def verdict(interval: Interval, margin: float = 0.02) -> Verdict:
    """What the interval of a difference a - b says of "a is worse than b by more than the margin".

    "not worse": it lies above -margin. "worse": it lies below -margin. "undecided": it holds -margin; more episodes are
    wanted. An interval between -margin and 0 is both lower and not worse: print it. margin: in the unit of the
    difference, 0.02 being 2 points of success.
    Source: Piaggio et al. (2012), J. Am. Med. Assoc. 308, 2594, figure 1.

    Raises InputError where the margin is not above 0, or the interval has no two ends.
    """
    if not 0 < margin < np.inf:
        raise InputError(f"margin is how much worse is still not worse, above 0, such as 0.02; got {margin}")
    if not interval.low <= interval.high:
        raise InputError(f"an interval runs from low to high; got {interval.low} to {interval.high}")
    if interval.low > -margin:
        return "not worse"
    return "worse" if interval.high < -margin else "undecided"


def non_inferior(
    a: Any,
    b: Any,
    margin: float = 0.02,
    redraw: Redrawn = "episodes",
    shared_episodes: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> NonInferiority:
    """Whether a is worse than b by more than the margin, on the same episodes: the `verdict` on `paired_seeds`.

    At 95% confidence a method that is worse by the margin is called not worse in 2.5% of all comparisons. a, b and the
    rest are as in `paired_seeds`, whose interval of returns wants a margin in the unit of returns.

    Raises InputError as `paired_seeds` and `verdict` do.
    """
    interval = paired_seeds(a, b, redraw, shared_episodes, confidence, resamples, seed).difference
    return NonInferiority(interval.point, interval, verdict(interval, margin))


def power(
    episodes: int, discordant: float, difference: float = 0.0, margin: float = 0.02, confidence: float = 0.95
) -> float:
    """Chance that the paired interval of success lies above -margin, thus that the verdict is "not worse".

    episodes: pairs in all. discordant: share of episodes that exactly one method solves. difference: the true a - b.
    With margin=0 it is the chance that a true difference is seen at all.
    With variance discordant - difference^2 of a pair, Phi((difference + margin) / sqrt(variance / episodes) - z):
    the normal approximation, a few points too high below some 20 discordant episodes.
    Source: Nam (1997), Biometrics 53, 1422.

    Raises InputError where episodes < 1, or the shares contradict each other.
    """
    if episodes < 1 or not abs(difference) <= discordant <= 1 or not 0 <= margin < 1:
        raise InputError(
            "power wants episodes >= 1, |difference| <= discordant <= 1 and 0 <= margin < 1; "
            f"got {episodes}, {difference}, {discordant}, {margin}"
        )
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + checked_confidence(confidence) / 2)
    error = sqrt(max(discordant - difference**2, 0.0) / episodes)
    if error == 0:
        return float(difference + margin > 0)
    return normal.cdf((difference + margin) / error - z)


def _successes(pair: tuple[Floats, Floats]) -> bool:
    return is_success(pair[0]) and is_success(pair[1])


def _one_seed(pair: tuple[Floats, Floats], confidence: float, resamples: int, seed: int) -> Interval:
    if _successes(pair):
        return paired_difference(*pair, confidence)
    return bootstrap([pair[0] - pair[1]], confidence=confidence, resamples=resamples, seed=seed)


def _redrawn(differences: list[Floats], redraw: Redrawn, shared: bool, resamples: int, seed: int) -> Floats:
    """(R,) means over training seeds, redrawn or not, of means over their redrawn episodes."""
    random, seeds = generator(seed, 0), len(differences)
    lengths = np.array([len(row) for row in differences])
    padded = np.zeros((seeds, lengths.max()))  # (S, E)
    for row, values in zip(padded, differences, strict=True):
        row[: len(values)] = values
    common = random.random((resamples, lengths.max())) if shared else None
    total = np.zeros(resamples)
    for number in range(seeds):
        seed_of = random.integers(seeds, size=resamples) if redraw == "seeds" else np.full(resamples, number)  # (R,)
        count = lengths[seed_of][:, None]
        draws = random.random((resamples, lengths.max())) if common is None else common
        chosen = padded[seed_of[:, None], (draws * count).astype(np.int64)]  # (R, E)
        total += (chosen * (np.arange(lengths.max()) < count)).sum(axis=1) / count[:, 0]
    return total / seeds
