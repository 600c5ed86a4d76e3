"""What a network's output means: the conversion of eps, v, x0 and flow predictions to a clean chunk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffpolicy.diffusion.schedule import Schedule
from diffpolicy.errors import InputError

__all__ = ["ALPHA_MIN", "MIN_SNR", "PREDICTIONS", "SIGMA_DATA", "Denoiser", "Moment", "Prediction", "guided"]

ALPHA_MIN = 1e-3  # an eps prediction is divided by alpha, which is not let below this
MIN_SNR = 5.0  # gamma of min-SNR weighting
SIGMA_DATA = 0.5  # spread that EDM's scalings take chunks to have, which lie in [-1, 1]
OUT_MIN = 1e-4  # the least |c_out| that a loss weight is computed with

Pair = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Prediction:
    """A linear target y = p eps + q x0, and its inverse x0 = c_skip x + c_out y."""

    mix: Pair  # (alpha, sigma) -> (p, q)
    scalings: Pair  # (alpha, sigma) -> (c_skip, c_out)
    weight_cap: float = math.inf  # largest loss weight of the clean chunk's squared error

    def target(self, clean: Tensor, noise: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """What a perfect network would put out for this clean chunk and noise; all broadcast together."""
        p, q = self.mix(alpha, sigma)
        return p * noise + q * clean

    def clean(self, x: Tensor, y: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The clean chunk which an output `y` stands for at the noisy chunk `x`; all broadcast together."""
        skip, out = self.scalings(alpha, sigma)
        return skip * x + out * y


def _eps(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alpha.clamp(min=ALPHA_MIN)
    return 1 / alpha, -sigma / alpha


def _v(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    total = alpha.square() + sigma.square()
    return alpha / total, -sigma / total


def _enter(alpha: Tensor, sigma: Tensor) -> Tensor:
    """EDM's c_in: what gives x the spread 1, where chunks have SIGMA_DATA."""
    return (alpha.square() * SIGMA_DATA**2 + sigma.square()).rsqrt()


def _edm(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    enter = _enter(alpha, sigma)
    return alpha * SIGMA_DATA**2 * enter.square(), sigma * SIGMA_DATA * enter


def _edm_target(alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    enter = _enter(alpha, sigma)
    return -alpha * SIGMA_DATA * enter, sigma / SIGMA_DATA * enter


PREDICTIONS: dict[str, Prediction] = {
    # the noise itself (arXiv:2006.11239), with min-SNR weights (arXiv:2303.09556): an error of the noise is one of
    # the chunk times sigma / alpha, so that its plain loss hardly sees the times at which the chunk is decided
    "eps": Prediction(lambda a, s: (torch.ones_like(a), torch.zeros_like(s)), _eps, weight_cap=MIN_SNR),
    # v = alpha eps - sigma x0 (arXiv:2202.00512, appendix D)
    "v": Prediction(lambda a, s: (a, -s), _v, weight_cap=MIN_SNR),
    # the clean chunk itself
    "x0": Prediction(lambda a, s: (torch.zeros_like(a), torch.ones_like(s)),
                     lambda a, s: (torch.zeros_like(a), torch.ones_like(s))),
    # u = eps - x0, flow matching's velocity on straight lines (arXiv:2210.02747)
    "flow": Prediction(lambda a, s: (torch.ones_like(a), -torch.ones_like(s)),
                       lambda a, s: (1 / (a + s), -s / (a + s))),
    # (x0 - c_skip x) / c_out of EDM (arXiv:2206.00364, table 1), its x and sigma being our x and sigma over alpha
    "edm": Prediction(_edm_target, _edm),
}  # fmt: skip


class Moment(NamedTuple):
    """A time that is known beforehand, with all that a denoiser computes from nothing but it."""

    skip: Tensor | None  # (), c_skip of the prediction; None: just 1, as on straight lines
    out: Tensor  # (), c_out
    time: Tensor  # (1, ...), what the network reads of the time
    enter: Tensor | None = None  # (), that the network's x is multiplied by; None: 1


class Denoiser(nn.Module):
    """A network with the meaning of its output: (x, t, obs, s) -> clean chunk.

    `t_max` is the latest time at which the prediction determines the clean chunk: 1, except for eps, where it
    is the last one with alpha >= ALPHA_MIN. Train and sample on [0, t_max]. `null` is learnt features (C,) that
    stand for an observation which was left out, or None where none ever is.

    The network reads x as it is, save for `edm` and on a schedule whose noise grows beyond 1: there x / its spread.
    """

    null: Tensor | None

    def __init__(
        self, schedule: Schedule, prediction: str, network: nn.Module, null: nn.Parameter | None = None
    ) -> None:
        """`network` maps (x, t, obs, s) to x's shape; raises InputError on an unknown prediction."""
        super().__init__()
        if prediction not in PREDICTIONS:
            raise InputError(f"expected a prediction of {sorted(PREDICTIONS)}, got {prediction!r}; choose one")
        self.schedule = schedule
        self.predicts = prediction
        self.network = network
        self.register_parameter("null", null)
        times = torch.linspace(0, 1, 10_001, dtype=torch.float64)
        usable = times[schedule.alpha(times) >= ALPHA_MIN]
        self.t_max = float(usable[-1]) if prediction == "eps" else 1.0
        self._entered = prediction == "edm" or bool(schedule.sigma(times[-1]) > 1)

    @property
    def prediction(self) -> Prediction:
        """The meaning of the network's output."""
        return PREDICTIONS[self.predicts]

    @torch.no_grad()
    def at(self, t: Tensor) -> Moment:
        """The moment of a time (1,), with which `forward` computes the same to the bit, and sooner.

        A network with an `embed`, a function of times without weights, is given what that returns.
        """
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        skip, out = self.prediction.scalings(alpha, sigma)
        enter = _enter(alpha, sigma).reshape(()) if self._entered else None
        embed: Callable[[Tensor], Tensor] | None = getattr(self.network, "embed", None)
        known = None if float(skip) == 1 else skip.reshape(())
        return Moment(known, out.reshape(()), t if embed is None else embed(t), enter)

    def forward(self, x: Tensor, t: Tensor | Moment, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """Noisy chunk (B,H,A), time (B,) or moment, features (B,C), target time (B,) or None -> clean chunk (B,H,A)."""
        if isinstance(t, Moment):
            count = x.shape[0]
            time = t.time if count == 1 else t.time.expand(count, *t.time.shape[1:])
            clean: Tensor = t.out * self.network(x if t.enter is None else t.enter * x, time, obs, s)
            return (x if t.skip is None else t.skip * x) + clean
        alpha, sigma = self.schedule.alpha(t)[:, None, None], self.schedule.sigma(t)[:, None, None]
        entered = _enter(alpha, sigma) * x if self._entered else x
        return self.prediction.clean(x, self.network(entered, t, obs, s), alpha, sigma)

    def without(self, obs: Tensor, dropped: Tensor) -> Tensor:
        """Features (B,C) with the rows that `dropped` (B,) names replaced by the null condition's.

        Raises InputError where this denoiser has no null condition.
        """
        return torch.where(dropped[:, None], self._null(), obs)

    def guided(self, weight: float, x: Tensor, t: Tensor | Moment, obs: Tensor, s: Tensor | None = None) -> Tensor:
        """The clean chunk (B,H,A) (1 + weight) D(x, t, obs) - weight D(x, t, null), by one call of 2B rows.

        Raises InputError where this denoiser has no null condition. Source: classifier-free guidance, Ho and
        Salimans, arXiv:2207.12598, eq. 6, on clean chunks: at one x and t these are linear in the noise.
        """
        features = torch.cat([obs, self._null().expand_as(obs)])  # (2B, C)
        time = t if isinstance(t, Moment) else torch.cat([t, t])
        both: Tensor = self(torch.cat([x, x]), time, features, None if s is None else torch.cat([s, s]))  # (2B, H, A)
        rows = x.shape[0]
        return (1 + weight) * both[:rows] - weight * both[rows:]

    def _null(self) -> Tensor:
        if self.null is None:
            raise InputError(
                "expected a denoiser that was trained without its observation as well, got one that never was; train "
                "it with condition_dropout > 0, or sample with guidance=0"
            )
        return self.null

    def weight(self, t: Tensor, name: str = "own") -> Tensor:
        """Factor (B,) of the squared error of the clean chunk; `own` turns it into that of the network's own output.

        That is 1 / c_out^2, with |c_out| not taken below 1e-4, so that it stays finite where sigma vanishes, and at
        most the prediction's cap: for eps it is min(alpha^2 / sigma^2, 5), and for v on a variance-preserving
        schedule min(alpha^2 / sigma^2 + 1, 5). Of any prediction, `min-snr` is the first of these and `edm` the own
        weight of edm, alpha^2 / sigma^2 + 1 / SIGMA_DATA^2.
        """
        prediction = PREDICTIONS[{"own": self.predicts, "min-snr": "eps"}.get(name, name)]
        _, out = prediction.scalings(self.schedule.alpha(t), self.schedule.sigma(t))
        return out.abs().clamp(min=OUT_MIN).pow(-2).clamp(max=prediction.weight_cap)


def guided(denoiser: Denoiser, weight: float) -> Callable[..., Tensor]:
    """The denoiser itself where the weight is 0, else its guided call, of the same arguments."""
    return partial(denoiser.guided, weight) if weight else denoiser
