"""The models that a policy can be, and the frame that a baseline fixes: schedule, prediction and sampler."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from diffpolicy.diffusion import PredictionName, SamplerConfig, ScheduleName
from diffpolicy.errors import InputError

if TYPE_CHECKING:
    from diffpolicy.policy import PolicyConfig

__all__ = ["FRAMES", "MODES", "Frame", "ModelName", "enter_frame"]

ModelName = Literal["diffusion", "regression", "mip", "gaussian", "mixture", "shortcut", "mean_flow", "student"]
MODES = 5  # components of a mixture, unless told


@dataclass(frozen=True)
class Frame:
    """What a model fixes of a PolicyConfig."""

    sampler: SamplerConfig
    free: tuple[str, ...] = ("clip",)  # fields of the sampler that a user may choose all the same
    schedule: ScheduleName = "straight"
    prediction: PredictionName = "x0"
    modes: int | None = MODES  # None: the user's choice
    chains: bool = False  # it draws chains, from noise to a chunk
    two_times: bool = False  # its network reads where a step ends
    head: bool = False  # the network puts out a density (`diffusion.mixture`) in the place of a clean chunk


_ONCE = SamplerConfig(steps=1, temperature=0.0)
_DENSITY = Frame(_ONCE, ("clip", "temperature"), head=True)
_INTERVALS = Frame(SamplerConfig(), ("clip", "steps", "temperature"), prediction="flow", chains=True, two_times=True)

FRAMES: dict[str, Frame] = {
    # asked once, at noise of temperature 0: a function of the observation
    "regression": Frame(_ONCE),
    # and once more at 0.9 of its first answer: on straight lines a step of eta = 1 takes nothing of x along
    "mip": Frame(SamplerConfig(steps=2, times=(1.0, 0.1, 0.0), eta=1.0, temperature=0.0)),
    "gaussian": replace(_DENSITY, modes=1),
    "mixture": replace(_DENSITY, modes=None),
    # straight lines, in steps of any length that the network knows the end of
    "shortcut": _INTERVALS,
    "mean_flow": _INTERVALS,
}


def enter_frame(config: PolicyConfig) -> None:
    """Fill what the model fixes into a config under construction, where it is left at its default.

    Raises InputError, naming the field, where one says something else.
    """
    frame = FRAMES.get(config.model)
    modes = MODES if frame is None else frame.modes
    fixed: dict[str, tuple[Any, Any]] = {} if modes is None else {"modes": (MODES, modes)}
    if frame is not None:
        usual = {each.name: (each.default, getattr(frame, each.name, each.default)) for each in fields(config)}
        fixed |= {name: usual[name] for name in ("schedule", "prediction", "condition_dropout")}
        for each in fields(SamplerConfig):
            if each.name not in frame.free:
                fixed[f"sampler.{each.name}"] = (each.default, getattr(frame.sampler, each.name))
    for name, (default, value) in fixed.items():
        came = getattr(config.sampler if "." in name else config, name.rpartition(".")[2])
        if came not in (default, value):
            raise InputError(
                f"PolicyConfig.{name}: expected {value!r}, which model {config.model!r} fixes, got {came!r}; leave it "
                "out, or take another model"
            )
        if "." not in name:
            object.__setattr__(config, name, value)
    if frame is not None:
        chosen = {name: getattr(config.sampler, name) for name in frame.free}
        chosen = {name: value for name, value in chosen.items() if name != "temperature" or value is not None}
        object.__setattr__(config, "sampler", replace(frame.sampler, **chosen))
        if frame.two_times:
            object.__setattr__(config, "network", replace(config.network, two_times=True))
