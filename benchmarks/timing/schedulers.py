"""Chains at batch 1 beside the usual loop around a scheduler of `diffusers`, over the same network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffpolicy.diffusion import SamplerConfig
from diffpolicy.policy import Policy

__all__ = ["pairs"]

Call = Callable[[], object]
BETAS = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True}


def pairs(policy: Policy) -> list[tuple[str, str, Call, Call]]:
    """What is drawn, beside what, and both calls; a policy of the straight schedule whose network is an MLP."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports
        from diffusers.schedulers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

    noisy = Policy(replace(policy.config, schedule="squaredcos", prediction="eps"), policy.spaces).eval()
    flow: Any = FlowMatchEulerDiscreteScheduler
    ddim: Any = DDIMScheduler
    ddpm: Any = DDPMScheduler
    chains: list[tuple[str, Policy, SamplerConfig, Any]] = [
        ("Euler, K = 8", policy, SamplerConfig(steps=8), flow(num_train_timesteps=100)),
        ("DDIM, K = 10", noisy, SamplerConfig(steps=10), ddim(**BETAS)),
        ("DDPM, K = 100", noisy, SamplerConfig(steps=100, eta=1.0), ddpm(**BETAS)),
    ]
    found = []
    for name, drawn, config, scheduler in chains:
        ours = Policy(replace(drawn.config, sampler=config), drawn.spaces).eval()
        found.append(
            (
                f"chains of {name}, batch 1",
                f"a loop around {type(scheduler).__name__} of diffusers",
                _ours(ours),
                _theirs(ours, scheduler, config.steps),
            )
        )
    return found


def _ours(policy: Policy) -> Call:
    features = torch.randn(1, policy.encoder.features)
    draws = (len(policy.sampler) + 1,) if policy.sampler.stochastic else ()
    shape = (*draws, 1, policy.config.horizon, policy.action_size)

    @torch.inference_mode()
    def call() -> Tensor:
        return policy.sampler.draw(features, torch.randn(shape))

    return call


def _theirs(policy: Policy, scheduler: Any, steps: int) -> Call:
    """As Diffusion Policy's public code has it: times set, then the network and the scheduler's step in turns."""
    network, features = policy.denoiser.network, torch.randn(1, policy.encoder.features)
    shape = (1, policy.config.horizon, policy.action_size)

    @torch.inference_mode()
    def call() -> Tensor:
        x = torch.randn(shape)
        scheduler.set_timesteps(steps)
        for t in scheduler.timesteps:
            out = network(x, t.expand(1) / 100, features)
            x = scheduler.step(out, t, x).prev_sample
        return x

    return call
