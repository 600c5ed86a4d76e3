"""The one kernel of the reverse chain: sampling and log-probability both go through `Sampler.step`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from diffpolicy.diffusion import SamplerConfig
from diffpolicy.diffusion.chain import Chain, Gaussian, Hint
from diffpolicy.diffusion.coefficients import ROOT_MIN, Kernel, kernel, lifted, second_order
from diffpolicy.diffusion.denoiser import Denoiser, Moment, guided
from diffpolicy.diffusion.grid import churned, grid
from diffpolicy.diffusion.schedule import SCHEDULES, Schedule, ratio
from diffpolicy.errors import InputError

__all__ = ["Sampler", "SamplerConfig"]


def _norm(schedule: Schedule, t: Tensor) -> Tensor:
    return torch.hypot(schedule.alpha(t), schedule.sigma(t))


class _Call(NamedTuple):
    """A call of the denoiser at a time that is known beforehand."""

    time: Tensor  # (1,), 64-bit, of the denoiser's schedule
    scale: Tensor | None  # (), that the chain's x has there; None: 1
    moment: Moment | None  # what the denoiser computes from the time alone
    alpha: Tensor  # (), of the chain's schedule
    sigma: Tensor
    target: Tensor | None  # (1,), of the denoiser's schedule: where the step ends, for networks that read two times


class _Extra(NamedTuple):
    """What a step of second order adds: clean + weight (clean - the last one), or + weight (a second one - clean)."""

    weight: Tensor
    second: _Call | None  # heun's, at the end of a step of first order:
    x_weight: Tensor
    clean_weight: Tensor


class Sampler(nn.Module):
    """Turns noise into chunks on a grid of times; len(sampler) is K, the number of steps, `calls` what they ask."""

    times: Tensor

    def __init__(self, denoiser: Denoiser, config: SamplerConfig | None = None) -> None:
        """A grid from the denoiser's t_max, or the same ratio in config.schedule, to config.t_min.

        Raises InputError where the settings leave no grid.
        """
        super().__init__()
        self.config = config = config or SamplerConfig()
        self.denoiser = denoiser
        self._schedule = denoiser.schedule if config.schedule is None else SCHEDULES[config.schedule]
        t_max = denoiser.t_max
        if config.schedule is not None:
            t_max = float(self._schedule.time(ratio(denoiser.schedule, torch.tensor(t_max, dtype=torch.float64))))
        self._ends = grid(config, self._schedule, t_max)
        self._states = churned(config, self._schedule, self._ends)
        self.register_buffer("times", self._states.clone(), persistent=False)
        self._kernels: list[Kernel] = []
        self._prepare()
        self._stochastic = any(bool(row.std > 0) for row in self._kernels)

    def _prepare(self) -> None:
        """All that is known beforehand: coefficients, computed in 64 bits, and what the denoiser makes of times."""
        dtype = torch.promote_types(self.times.dtype, torch.float32)
        states, ends, schedule = self._states.double(), self._ends.double(), self._schedule
        first = kernel(schedule, states[:-1], ends[1:], self.config.eta, self.config.floor)
        table = lifted(schedule, first, ends[1:], states[1:]) if self.config.churn else first
        temperature = 1.0 if self.config.temperature is None else self.config.temperature
        table = table._replace(std=temperature * table.std)  # of what is added alone: the means stay as they are
        self._kernels = [Kernel(*(x.to(dtype) for x in row)) for row in zip(*table, strict=True)]
        self._temperature = temperature
        start = (temperature * schedule.sigma(states[0])).to(dtype)
        self._start_scale = None if start == 1 else start
        network = getattr(self.denoiser, "network", None)
        if (two_times := bool(getattr(network, "two_times", False))) and self.config.solver != "ddim":
            raise InputError(
                f"expected solver 'ddim' with a network of two times, whose answer is for the whole step, got "
                f"{self.config.solver!r}; take ddim"
            )
        self._calls = [self._call(t, end if two_times else None) for t, end in zip(states[:-1], ends[1:], strict=True)]
        heun = self.config.solver == "heun"
        weights = second_order(self.config.solver, schedule, states[:-1], ends[1:]).to(dtype)
        self._extras = [
            None
            if weight == 0
            else _Extra(weight, self._call(end) if heun else None, row[0].to(dtype), row[1].to(dtype))
            for weight, end, row in zip(weights, ends[1:], zip(*first, strict=True), strict=True)
        ]

    def _call(self, t: Tensor, end: Tensor | None = None) -> _Call:
        """The call of the denoiser for a time () of the chain: another time, and another scale, of the same ratio."""
        ours, theirs, scale = self._schedule, self.denoiser.schedule, None
        dtype = torch.promote_types(self.times.dtype, torch.float32)
        alpha, sigma = ours.alpha(t).to(dtype), ours.sigma(t).to(dtype)
        if ours is not theirs:
            there = theirs.time(ratio(ours, t))
            scale = (_norm(theirs, there) / _norm(ours, t)).to(dtype)
            t, end = there, None if end is None else theirs.time(ratio(ours, end))
        at: Callable[[Tensor], Moment] | None = getattr(self.denoiser, "at", None)
        moment = None if at is None else at(t[None].to(self.times))
        return _Call(t[None], scale, moment, alpha, sigma, None if end is None else end[None])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moved, or of another precision: so is what is known beforehand."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._prepare()
        return self

    @property
    def schedule(self) -> Schedule:
        """The schedule that the chain runs in."""
        return self._schedule

    @property
    def stochastic(self) -> bool:
        """Whether any step adds noise."""
        return self._stochastic

    @property
    def calls(self) -> int:
        """Calls of the denoiser for a chunk (NFE)."""
        return self.calls_from(0)

    def __len__(self) -> int:
        return len(self._kernels)

    def grid(self) -> Tensor:
        """The times (K+1,) of a chain's states in `schedule`, from noise to clean; churn lifts them."""
        return self.times

    def coefficients(self, k: int) -> tuple[Tensor, Tensor]:
        """x_weight and clean_weight of step k, each (): its mean is x_weight x + clean_weight clean."""
        row = self._kernels[k]
        return row.x_weight, row.clean_weight

    def with_steps(self, steps: int) -> Sampler:
        """The same denoiser, shared, on a grid of another number of steps."""
        return Sampler(self.denoiser, replace(self.config, steps=steps)).to(self.times.device)

    def begin_at(self, time: float) -> int:
        """The step at whose start a chain has come down to a time, or the last one where none has."""
        return min(int((self._states[:-1] > time).sum()), len(self) - 1)

    def calls_from(self, begin: int) -> int:
        """Calls of the denoiser for a chunk whose chain begins at that step."""
        second = sum(extra is not None and extra.second is not None for extra in self._extras[begin:])
        return len(self) - begin + second

    def step(
        self, x: Tensor, k: int, obs: Tensor, memory: Any = None, hint: Hint | None = None
    ) -> tuple[Gaussian, Any]:
        """Step k of the chain from x (B,H,A): the next x's distribution, and what later steps remember.

        All solvers share mean = x_weight x + clean_weight clean, and differ in what they take for `clean`: the
        prediction, Heun's mixture of it and one at the end of the step, or DPM-Solver++(2M)'s of it and the last one.
        """
        asked = clean = self._clean(self._calls[k], x, obs, hint)  # (B, H, A)
        extra = self._extras[k]
        if extra is not None and extra.second is not None:
            clean = clean + extra.weight * (
                self._clean(extra.second, extra.x_weight * x + extra.clean_weight * clean, obs, hint) - clean
            )
        elif extra is not None and memory is not None:
            clean = clean + extra.weight * (clean - memory)
        x_weight, clean_weight, std = self._kernels[k]
        return Gaussian(x_weight * x + clean_weight * clean, std), asked

    def _clean(self, call: _Call, x: Tensor, obs: Tensor, hint: Hint | None) -> Tensor:
        clip = self.config.clip
        clean = self._ask(call, x, obs) if hint is None or hint.weight is None else self._pulled(call, x, obs, hint)
        return clean if clip is None else clean.clamp(-clip, clip)

    def _ask(self, call: _Call, x: Tensor, obs: Tensor) -> Tensor:
        moment, count = call.moment, x.shape[0]
        if call.scale is not None:
            x = call.scale * x
        known = moment is not None and x.dtype == moment.out.dtype
        denoise = guided(self.denoiser, self.config.guidance)
        times = (moment if known else call.time.to(x).expand(count), obs)
        if call.target is None:
            return denoise(x, *times)
        return denoise(x, *times, call.target.to(x).expand(count))

    def _pulled(self, call: _Call, x: Tensor, obs: Tensor, hint: Hint) -> Tensor:
        """The clean prediction moved towards the hint: clean + g J^T diag(weight) (hint - clean), J = d clean / d x.

        g = sigma min(most, (alpha^2 + sigma^2) / (alpha sigma)), which on straight lines is real-time chunking's change
        of the velocity (arXiv 2506.07339, eq. 2 to 4), and on other schedules the same for the same ratio.
        """
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            clean = self._ask(call, x, obs)
        known: Tensor = clean.detach()
        assert hint.weight is not None
        (pull,) = torch.autograd.grad(clean, x, hint.weight[:, None] * (hint.chunk - known))
        most = (call.alpha**2 + call.sigma**2) / (call.alpha * call.sigma).clamp(min=ROOT_MIN)
        return known + call.sigma * most.clamp(max=hint.most) * pull

    def sample(self, obs: Tensor, noise: Tensor, log_prob: bool = False) -> Chain:
        """Draw chunks for features (B,C) with exactly `calls` denoiser calls.

        `noise` (K+1,B,H,A) holds the start and each step's noise; with (B,H,A), the start alone, every step
        takes its mean. Raises InputError on another shape, and for log_prob=True where a step is deterministic.
        """
        x, draws = self.start(noise)
        xs, logps, memory = [x], [], None
        for k in range(len(self)):
            gaussian, memory = self.step(x, k, obs, memory)
            x = gaussian.mean if draws is None else gaussian.sample(draws[k])
            xs.append(x)
            if log_prob:
                logps.append(gaussian.log_prob(x))
        return Chain(torch.stack(xs), torch.stack(logps) if log_prob else None)

    def draw(self, obs: Tensor, noise: Tensor, hint: Hint | None = None) -> Tensor:
        """The chunks (B,H,A) at the end of the chains that `sample` draws, without the chains.

        With a hint they begin at it or are pulled towards it.
        """
        x, draws = self.start(noise)
        memory, begin = None, 0 if hint is None else hint.begin
        if hint is not None and begin:
            call = self._calls[begin]
            x = call.alpha * hint.chunk + self._temperature * call.sigma * (noise if draws is None else noise[0])
        for k in range(begin, len(self)):
            gaussian, memory = self.step(x, k, obs, memory, hint)
            x = gaussian.mean if draws is None else gaussian.sample(draws[k])
        return x

    def start(self, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """The start of a chain (B,H,A), and each step's noise (K,B,H,A) or None."""
        scale = self._start_scale
        if noise.dim() == 3:
            return noise if scale is None else scale * noise, None
        if noise.dim() != 4 or noise.shape[0] != len(self) + 1:
            raise InputError(
                f"expected noise (B, H, A) or ({len(self) + 1}, B, H, A), got {tuple(noise.shape)}; "
                f"a sampler of {len(self)} steps uses one draw to start and one a step"
            )
        return noise[0] if scale is None else scale * noise[0], noise[1:]

    def log_prob(self, chain: Chain, obs: Tensor) -> Tensor:
        """Log-probability (K,B,H,A), element by element, of a given chain for features (B,C)."""
        logps, memory = [], None
        for k in range(len(self)):
            gaussian, memory = self.step(chain.x[k], k, obs, memory)
            logps.append(gaussian.log_prob(chain.x[k + 1]))
        return torch.stack(logps)
