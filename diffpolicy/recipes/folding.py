"""A Stable-Baselines3 model as one plain zip file: its normalisation folded in, nothing of its training left."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

__all__ = ["fold", "plain_zip"]

_NOT_KEPT = (
    "ep_info_buffer", "ep_success_buffer", "start_time", "_last_obs", "_last_original_obs", "_last_episode_starts",
    "_stats_window_size", "tensorboard_log", "verbose", "action_noise", "_current_progress_remaining",
)  # fmt: skip


def fold(policy: Any, mean: Any, scale: Any) -> None:
    """Put the normalisation (o - mean) / scale into the first linear layers of a PPO policy, in place.

    W z + b with z = (o - mean) / scale is W' o + b' with W' = W / scale and b' = b - W' mean, so that the policy
    takes raw observations o afterwards. Computed in float64; what is left is the rounding of W' and b'.

    Args:
        policy: Stable-Baselines3's ActorCriticPolicy with a hidden layer in actor and critic.
        mean: (O,) of the observations.
        scale: (O,) their standard deviation, positive.
    """
    centre, width = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(scale, dtype=torch.float64)
    with torch.no_grad():
        for network in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
            layer = network[0]
            weight = layer.weight.double() / width
            layer.bias.copy_(layer.bias.double() - weight @ centre)
            layer.weight.copy_(weight)


def plain_zip(model: BaseAlgorithm) -> bytes:
    """A model as the zip file that Stable-Baselines3 loads, as small as can be: no optimiser, no traces of training.

    The model's optimisers lose their memory; its learning rate becomes a number.
    """
    rate = model.lr_schedule(1.0)
    model.learning_rate = rate
    model._setup_lr_schedule()
    names, _ = model._get_torch_save_params()
    for name in names:
        if name.endswith("optimizer"):
            owner: Any = model
            for part in name.split("."):
                owner = getattr(owner, part)
            owner.state.clear()
    full, small = io.BytesIO(), io.BytesIO()
    model.save(full, exclude=_NOT_KEPT)
    with zipfile.ZipFile(full) as source, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            if name != "system_info.txt":
                target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    return small.getvalue()
