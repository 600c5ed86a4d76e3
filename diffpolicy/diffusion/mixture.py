"""Chunks from a density that a network puts out at once: a Gaussian, or a mixture of some.

The two are baselines for samplers, with their interface as far as a policy needs it; nothing is denoised.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffpolicy.diffusion import SamplerConfig
from diffpolicy.diffusion.networks import Network
from diffpolicy.errors import InputError

__all__ = ["STD_MAX", "STD_MIN", "Components", "MixtureHead"]

STD_MIN, STD_MAX = 0.01, 1.0  # [normalised action]; likelihood gains nothing from being surer, as of a constant action
LOG_ROOT = 0.5 * math.log(2 * math.pi)


class Components(NamedTuple):
    """M normal distributions over whole chunks, with independent elements, and the weight of each."""

    logits: Tensor  # (B, M), of the weights
    mean: Tensor  # (B, M, H, A)
    std: Tensor  # (B, M, H, A)

    def log_prob(self, chunk: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density (B,) of chunks (B,H,A); where mask (B,H) is 0, of the other entries alone."""
        return torch.logsumexp(self.logits.log_softmax(-1) + self._each(chunk, mask).sum((-2, -1)), -1)

    def objective(self, chunk: Tensor, mask: Tensor | None = None) -> Tensor:
        """What training raises: `log_prob` in value, with a gradient in which each element counts std times as much.

        The likelihood's own gradient weights errors by 1 / std^2: an element that is sure early, to STD_MIN, outweighs
        one that is not yet by 10^4, which then never is (a gripper that must close in time). Times std is beta-NLL
        with beta = 0.5 (arXiv:2203.09168); in a mixture it is taken within each component's share of the chunk,
        as in EM. Where nothing is shared among the elements the optimum is that of the likelihood.
        """
        each, weights = self._each(chunk, mask), self.logits.log_softmax(-1)
        joint = weights + each.sum((-2, -1))  # (B, M)
        share = joint.softmax(-1).detach()
        slope = (share * (weights + (self.std.detach() * each).sum((-2, -1)))).sum(-1)
        return slope + (torch.logsumexp(joint, -1) - slope).detach()

    def _each(self, chunk: Tensor, mask: Tensor | None) -> Tensor:
        """Log-density (B, M, H, A) of each element in each component, 0 where the mask (B, H) is."""
        each = -0.5 * ((chunk[:, None] - self.mean) / self.std).square() - self.std.log() - LOG_ROOT
        return each if mask is None else each * mask[:, None, :, None]

    def chosen(self, noise: Tensor) -> Tensor:
        """The component (B,) that standard normal numbers (B,) stand for: that whose share of (0, 1) holds Phi."""
        below = self.logits.softmax(-1).cumsum(-1)[:, :-1]  # (B, M - 1)
        place = 0.5 + 0.5 * torch.erf(noise * math.sqrt(0.5))
        return (below < place[:, None]).sum(-1)


class MixtureHead(nn.Module):
    """Draws a chunk by one call of a network: a component by its weight, and then around its mean.

    With one component it is a Gaussian. Each component is over the whole chunk, so that a chunk keeps to one way of
    doing a thing. std = STD_MIN + (STD_MAX - STD_MIN) sigmoid(output); the weights are the softmax of outputs averaged
    over the chunk. The network sees no noise: x = 0 and t = 1.

    `temperature` scales the std of what is drawn; 0, the default, executes the mean of the component that was drawn.
    Source: Gaussian and mixture policies of behaviour cloning, with low-noise evaluation: arXiv:2108.03298.
    """

    times: Tensor

    def __init__(
        self, network: Network, modes: int, horizon: int, action_dim: int, config: SamplerConfig | None = None
    ) -> None:
        """`network` puts out `MixtureHead.outputs(modes, action_dim)` numbers for each action of a chunk."""
        super().__init__()
        self.network, self.modes = network, modes
        self.config = config or SamplerConfig(steps=1, temperature=0.0)
        self._shape = (horizon, action_dim)
        self.register_buffer("times", torch.tensor([1.0, 0.0]), persistent=False)
        # where the components begin: networks put out 0 at first, and equal components would stay equal
        spread = 2 * torch.rand(modes, 1, action_dim) - 1 if modes > 1 else torch.zeros(1, 1, action_dim)
        self.centres = nn.Parameter(spread)

    @staticmethod
    def outputs(modes: int, action_dim: int) -> int:
        """Numbers that a network puts out for each action: means and std of each component, and its logit."""
        return modes * (2 * action_dim + 1)

    @property
    def calls(self) -> int:
        """Calls of the network for a chunk (NFE)."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether the component's mean is left."""
        return bool(self.config.temperature)

    def __len__(self) -> int:
        return 1

    def grid(self) -> Tensor:
        """The times (2,) of the one step."""
        return self.times

    def components(self, obs: Tensor) -> Components:
        """The density for features (B,C), as it is learnt: of temperature 1, and not clipped."""
        (horizon, width), modes = self._shape, self.modes
        time = self.network.embed(self.times[:1]).expand(obs.shape[0], -1)
        out = self.network(obs.new_zeros(obs.shape[0], horizon, width), time, obs)
        mean, spread, logits = out.split([modes * width, modes * width, modes], -1)  # (B, H, ...)
        mean = mean.unflatten(-1, (modes, width)).transpose(1, 2) + self.centres  # (B, M, H, A)
        std = STD_MIN + (STD_MAX - STD_MIN) * spread.unflatten(-1, (modes, width)).transpose(1, 2).sigmoid()
        return Components(logits.mean(1), mean, std)

    def draw(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Chunks (B,H,A) for features (B,C), by one call.

        The first number of a row of noise (B,H,A) chooses the component, whose mean is drawn. With noise (2,B,H,A),
        the second part is added to it, times std and temperature. Raises InputError on another shape.
        """
        if noise.dim() not in (3, 4) or (noise.dim() == 4 and len(noise) != 2):
            raise InputError(
                f"expected noise (B, H, A) or (2, B, H, A), got {tuple(noise.shape)}; one draw chooses the component, "
                "and the other is added to its mean"
            )
        start = noise if noise.dim() == 3 else noise[0]
        mean, std = self._chosen(self._sampled(obs), start[:, 0, 0])
        return mean if noise.dim() == 3 else mean + std * noise[1]

    def log_prob(self, chunk: Tensor, obs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-density (B,), of chunks (B,H,A) for features (B,C), of what `draw` draws; over mask (B,H) where given.

        Raises InputError where the temperature is 0, which leaves no density.
        """
        if not self.stochastic:
            raise InputError(
                "expected a temperature > 0, got 0, at which only the means of the components are drawn; resample the "
                "policy with temperature=1"
            )
        return self._sampled(obs).log_prob(chunk, mask)

    def _sampled(self, obs: Tensor) -> Components:
        """What is drawn from: the means within the clip, the std of the temperature."""
        logits, mean, std = self.components(obs)
        clip, temperature = self.config.clip, self.config.temperature or 0.0
        return Components(logits, mean if clip is None else mean.clamp(-clip, clip), temperature * std)

    def _chosen(self, components: Components, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std (B,H,A) of the component that standard normal numbers (B,) choose."""
        if self.modes == 1:
            return components.mean[:, 0], components.std[:, 0]
        index = components.chosen(noise)[:, None, None, None].expand(-1, 1, *self._shape)
        return components.mean.gather(1, index)[:, 0], components.std.gather(1, index)[:, 0]
