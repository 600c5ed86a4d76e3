"""A sampler that explores: each of its steps is a Gaussian wide enough for a policy gradient.

Shapes: B batch, K steps, H chunk length, A action, C features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffpolicy.diffusion.chain import Chain, Gaussian
from diffpolicy.diffusion.sampler import Sampler
from diffpolicy.errors import InputError

__all__ = ["Exploring"]


class Exploring:
    """The chain of a sampler as the episode of a decision process: state (x_k, k, observation), action x_{k+1}.

    Each step keeps its mean and gets the variance std_k^2 + explore^2, the last one too, so that every step has a
    density; without the noise, the chain is the sampler's own. That the deviation has a floor, of about 0.1 in
    normalised actions, is DPPO's (arXiv 2409.00588): below it densities are so narrow that ratios mean nothing.
    """

    def __init__(self, sampler: Sampler, explore: float) -> None:
        """Raises InputError where explore is not above 0, or the sampler looks back or ahead between its steps."""
        if not explore > 0:
            raise InputError(f"expected a deviation above 0 to explore with, such as 0.1, got {explore}")
        if sampler.config.solver != "ddim":
            raise InputError(
                f"expected a sampler whose steps stand alone, solver 'ddim', got {sampler.config.solver!r}; change it"
            )
        self.sampler, self.explore = sampler, explore

    def __len__(self) -> int:
        return len(self.sampler)

    def step(self, x: Tensor, k: int, obs: Tensor) -> Gaussian:
        """Where step k leads from x (B, H, A), for features (B, C)."""
        gaussian, _ = self.sampler.step(x, k, obs)
        return Gaussian(gaussian.mean, gaussian.std.square().add(self.explore**2).sqrt())

    def sample(self, obs: Tensor, noise: Tensor) -> Chain:
        """Chains with their log-probabilities, for features (B, C) and noise (K+1, B, H, A)."""
        x = self.sampler.start(noise)[0]
        xs, logps = [x], []
        for k in range(len(self)):
            gaussian = self.step(x, k, obs)
            x = gaussian.sample(noise[k + 1])
            xs.append(x)
            logps.append(gaussian.log_prob(x))
        return Chain(torch.stack(xs), torch.stack(logps))
