"""What MuJoCo says while it works: to the console alone, and of each model once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import mujoco

__all__ = ["hushed", "log_to_console_only", "said_once"]

_heard: set[str] = set()


def log_to_console_only() -> None:
    """Keep MuJoCo from writing MUJOCO_LOG.TXT into the working folder, unless another file was chosen."""
    if hasattr(mujoco, "MjLogConfig"):  # since MuJoCo 4
        config = mujoco.MjLogConfig.get()
        if config.logfile == "MUJOCO_LOG.TXT":
            config.logto_file = False
            config.set()


@contextmanager
def said_once(model: str) -> Iterator[None]:
    """Let MuJoCo say what it has to say of a model, by any name, the first time that this block is entered for it."""
    if model in _heard:
        with hushed():
            yield
    else:
        _heard.add(model)
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """Keep MuJoCo from saying of each further copy of a model what it said of the first."""
    if not hasattr(mujoco, "MjLogConfig"):  # before MuJoCo 4
        yield
        return
    config = mujoco.MjLogConfig.get()
    before, config.logto_console = config.logto_console, False
    config.set()
    try:
        yield
    finally:
        config = mujoco.MjLogConfig.get()
        config.logto_console = before
        config.set()
