"""Compilation by torch.compile, which is tried out before anything depends on it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar

import torch

from diffpolicy.errors import InputError

__all__ = ["compiled", "require_compiler"]

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], device: torch.device) -> Callable[P, R]:
    """The same function, forward and backward, compiled at its first call with each shape.

    Raises InputError where this machine can compile nothing for the device.
    """
    require_compiler(device.type)
    return torch.compile(function, dynamic=False)


@lru_cache
def require_compiler(device: str) -> None:
    """Compile two operations and their gradient; raises InputError where that fails (a few seconds, once)."""
    try:
        x = torch.ones(8, device=device, requires_grad=True)
        torch.compile(lambda value: value.sin().square().sum(), dynamic=False)(x).backward()
    except Exception as error:  # of the compiler's many layers, any
        raise InputError(
            f"expected a compiler that torch.compile can use (on a CPU a C++ compiler such as g++, on a GPU triton), "
            f"got {type(error).__name__}: {' '.join(str(error).split()):.200}; install one, or leave "
            "--optimiser.compile out"
        ) from error
