"""The exponential moving average of a module's parameters, and nothing else about how they change."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffpolicy.errors import InputError

__all__ = ["Ema"]


class Ema:
    """Exponential moving average of the parameters of a module, which it follows; buffers are not averaged.

    The decay warms up as min(decay, (1 + step) / (10 + step)), so that the average forgets the initial
    weights early and is slow later.

    Raises InputError where decay lies outside [0, 1).
    """

    def __init__(self, module: nn.Module, decay: float = 0.995) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of an average lies in [0, 1), such as 0.995; got {decay}")
        self.decay = decay
        self._names = [name for name, _ in module.named_parameters()]
        self._average = [parameter.detach().clone() for parameter in module.parameters()]
        self._followed: list[Tensor] = list(module.parameters())

    def decay_at(self, step: int) -> float:
        """The decay used after update number `step`, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """average <- decay * average + (1 - decay) * parameters, of the module that it was made for."""
        torch._foreach_lerp_(self._average, self._followed, 1 - self.decay_at(step))

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters of `module`, which has those of the averaged module, with the average."""
        torch._foreach_copy_([parameter.detach() for parameter in module.parameters()], self._average)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by parameter name; the tensors are live, not copies."""
        return dict(zip(self._names, self._average, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the average over from `state_dict`; InputError where names or shapes differ."""
        if set(state) != set(self._names):
            differing = sorted(set(state) ^ set(self._names))
            raise InputError(f"the saved average is of another network: parameters {differing} are not in both")
        for name, average in zip(self._names, self._average, strict=True):
            if state[name].shape != average.shape:
                came, wanted = tuple(state[name].shape), tuple(average.shape)
                raise InputError(f"the saved average of {name} has shape {came}, the network wants {wanted}")
            average.copy_(state[name])
