"""The one kernel of the reverse chain: sampling and log-probability both go through `Sampler.step`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from diffpolicy.diffusion import SamplerConfig
from diffpolicy.diffusion.denoiser import Denoiser, Moment, guided
from diffpolicy.diffusion.schedule import Schedule
from diffpolicy.errors import InputError

__all__ = ["Chain", "Gaussian", "Kernel", "Sampler", "SamplerConfig", "kernel", "reduce_log_prob"]

ROOT_MIN = 1e-12  # least number under a square root: at 0 the gradient of a learned grid would be NaN


class Gaussian(NamedTuple):
    """A normal distribution with independent elements."""

    mean: Tensor  # (B, H, A)
    std: Tensor  # (), the same for all elements

    def sample(self, noise: Tensor) -> Tensor:
        """The sample (B,H,A) that standard normal noise (B,H,A) stands for."""
        return self.mean + self.std * noise

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (B,H,A) of each element of x; raises InputError where the step is deterministic."""
        if not bool((self.std > 0).all()):
            raise InputError(
                "expected a step with std > 0, got a deterministic one, which has no density; "
                "use eta > 0 or floor > 0 and a grid that ends at t_min > 0"
            )
        return -0.5 * ((x - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2 * math.pi)


class Kernel(NamedTuple):
    """The coefficients of one step: mean = x_weight x + clean_weight clean."""

    x_weight: Tensor
    clean_weight: Tensor
    std: Tensor


def kernel(schedule: Schedule, t: Tensor, s: Tensor, eta: float, floor: float) -> Kernel:
    """The step from time t to an earlier time s, of any one shape; differentiable in both times.

        noise = (x - alpha_t clean) / sigma_t
        std   = min(max(eta sigma_s/sigma_t sqrt(sigma_t^2 - (alpha_t/alpha_s)^2 sigma_s^2), floor), sigma_s)
        mean  = alpha_s clean + sqrt(sigma_s^2 - std^2) noise

    eta = 1 is DDPM's posterior (arXiv:2006.11239, eq. 7), eta = 0 is DDIM (arXiv:2010.02502, eq. 12), which
    on straight lines is flow matching's Euler step.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        schedule.alpha(t),
        schedule.sigma(t),
        schedule.alpha(s),
        schedule.sigma(s),
    )
    added = sigma_t.square() - (alpha_t / alpha_s * sigma_s).square()
    posterior = eta * sigma_s / sigma_t * added.clamp(min=ROOT_MIN).sqrt()
    std = posterior.clamp(min=floor).minimum(sigma_s)
    x_weight = (sigma_s.square() - std.square()).clamp(min=ROOT_MIN).sqrt() / sigma_t
    return Kernel(x_weight, alpha_s - x_weight * alpha_t, std)


@dataclass(frozen=True)
class Chain:
    """A reverse chain, noise first."""

    x: Tensor  # (K+1, B, H, A)
    logp: Tensor | None  # (K, B, H, A), element by element

    @property
    def action(self) -> Tensor:
        """The chunk (B,H,A) at the end of the chain, in normalised units."""
        return self.x[-1]


def reduce_log_prob(logp: Tensor, mask: Tensor) -> Tensor:
    """Sum log-probabilities (K,B,H,A) over the chunk where mask (B,H) or (H,) is 1 -> (K,B)."""
    return (logp * mask.unsqueeze(-1)).sum(dim=(-2, -1))


class Sampler(nn.Module):
    """Turns noise into chunks on a grid of times; len(sampler) is K, the number of denoiser calls."""

    times: Tensor

    def __init__(self, denoiser: Denoiser, config: SamplerConfig | None = None) -> None:
        """A uniform grid from the denoiser's t_max to config.t_min."""
        super().__init__()
        self.config = config = config or SamplerConfig()
        if config.t_min >= denoiser.t_max:
            raise InputError(f"expected t_min < {denoiser.t_max}, got {config.t_min}; end the grid earlier")
        self.denoiser = denoiser
        times = torch.linspace(denoiser.t_max, config.t_min, config.steps + 1)
        self.register_buffer("times", times, persistent=False)
        exact = times.double()
        table = kernel(denoiser.schedule, exact[:-1], exact[1:], config.eta, config.floor)
        columns = [column.float().unbind() for column in table]
        self._kernels = [Kernel(*row) for row in zip(*columns, strict=True)]
        self._stochastic = bool((table.std > 0).any())
        self._moments = self._known_moments()

    def _known_moments(self) -> list[Moment | None]:
        """What the denoiser computes from each time of the grid alone."""
        at: Callable[[Tensor], Moment] | None = getattr(self.denoiser, "at", None)
        return [None if at is None else at(self.times[k : k + 1]) for k in range(len(self))]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved, or of another precision: so are the moments."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._moments = self._known_moments()
        return self

    @property
    def schedule(self) -> Schedule:
        """The denoiser's schedule."""
        return self.denoiser.schedule

    @property
    def stochastic(self) -> bool:
        """Whether any step adds noise."""
        return self._stochastic

    def __len__(self) -> int:
        return len(self._kernels)

    def grid(self) -> Tensor:
        """The times (K+1,), from noise to clean."""
        return self.times

    def with_steps(self, steps: int) -> Sampler:
        """The same denoiser, shared, on a uniform grid of another number of steps."""
        return Sampler(self.denoiser, replace(self.config, steps=steps)).to(self.times.device)

    def step(self, x: Tensor, k: int, obs: Tensor, memory: Any = None) -> tuple[Gaussian, Any]:
        """Step k of the chain from x (B,H,A): the next x's distribution, and what later steps remember."""
        moment, clip = self._moments[k], self.config.clip
        known = moment is not None and x.dtype == moment.out.dtype
        denoise = guided(self.denoiser, self.config.guidance)
        clean = denoise(x, moment if known else self.times[k].to(x.dtype).expand(x.shape[0]), obs)  # (B, H, A)
        if clip is not None:
            clean = clean.clamp(-clip, clip)
        x_weight, clean_weight, std = self._kernels[k]
        return Gaussian(x_weight * x + clean_weight * clean, std), memory

    def sample(self, obs: Tensor, noise: Tensor, log_prob: bool = False) -> Chain:
        """Draw chunks for features (B,C) with exactly K denoiser calls.

        `noise` (K+1,B,H,A) holds the start and each step's noise; with (B,H,A), the start alone, every step
        takes its mean. Raises InputError on another shape, and for log_prob=True where a step is deterministic.
        """
        x, draws = self._start(noise)
        xs, logps, memory = [x], [], None
        for k in range(len(self)):
            gaussian, memory = self.step(x, k, obs, memory)
            x = gaussian.mean if draws is None else gaussian.sample(draws[k])
            xs.append(x)
            if log_prob:
                logps.append(gaussian.log_prob(x))
        return Chain(torch.stack(xs), torch.stack(logps) if log_prob else None)

    def draw(self, obs: Tensor, noise: Tensor) -> Tensor:
        """The chunks (B,H,A) at the end of the chains that `sample` draws, without the chains."""
        x, draws = self._start(noise)
        memory = None
        for k in range(len(self)):
            gaussian, memory = self.step(x, k, obs, memory)
            x = gaussian.mean if draws is None else gaussian.sample(draws[k])
        return x

    def _start(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """The start of a chain (B,H,A), and each step's noise (K,B,H,A) or None."""
        if noise.dim() == 3:
            return noise, None
        if noise.dim() != 4 or noise.shape[0] != len(self) + 1:
            raise InputError(
                f"expected noise (B, H, A) or ({len(self) + 1}, B, H, A), got {tuple(noise.shape)}; "
                f"a sampler of {len(self)} steps uses one draw to start and one a step"
            )
        return noise[0], noise[1:]

    def log_prob(self, chain: Chain, obs: Tensor) -> Tensor:
        """Log-probability (K,B,H,A), element by element, of a given chain for features (B,C)."""
        logps, memory = [], None
        for k in range(len(self)):
            gaussian, memory = self.step(chain.x[k], k, obs, memory)
            logps.append(gaussian.log_prob(chain.x[k + 1]))
        return torch.stack(logps)
