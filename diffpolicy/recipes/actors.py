"""Actors by what a user types: the scripted expert, a checkpoint folder, or a Stable-Baselines3 file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from diffpolicy.errors import InputError, nearest
from diffpolicy.rollout.environment import Vector
from diffpolicy.rollout.predictor import Predictor, ScriptedExpert, everywhere

if TYPE_CHECKING:
    from diffpolicy.policy.chunked import ChunkedPredictor
    from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["Actor", "load_actor"]


@dataclass(frozen=True)
class Actor:
    """Somebody who can act, and what is known about them."""

    name: str
    environment: str
    make: Callable[[Vector], Predictor]  # the actor in a given environment
    nfe: int = 0  # denoiser calls per decision
    n_action_steps: int = 1  # actions executed per decision
    provenance: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # the run's, where there is one


def load_actor(who: str | Path, environment: str | None = None) -> Actor:
    """Find an actor.

    Args:
        who: "expert" for the environment's own; a checkpoint folder or the run that holds one; the file that
            `export` wrote; or the zip file of a Stable-Baselines3 model (which is a pickle: load only files that
            you trust); or "module:function", a function that is given the vector environment and returns who acts
            in it: anything with Stable-Baselines3's ``predict``.
        environment: gymnasium id; by default the one that the checkpoint was trained in.

    Raises:
        InputError: nothing of that name, or no environment is known.
    """
    if str(who) == "expert":
        if environment is None:
            raise InputError("the expert belongs to an environment; add --environment")
        return Actor("expert", environment, ScriptedExpert)
    if Path(who).suffix == ".zip":
        if environment is None:
            raise InputError(f"{who} does not say its environment; add --environment")
        model = _load_sb3(Path(who))
        return Actor(Path(who).stem, environment, everywhere(model))
    if Path(who).suffix == ".onnx":
        return _load_onnx(Path(who), environment)
    if ":" in str(who) and not Path(who).exists():
        if environment is None:
            raise InputError(f"{who} does not say its environment; add --environment")
        return Actor(str(who), environment, _load_function(str(who)))
    if not Path(who).exists() and (near := nearest(str(who), ["expert"])):
        raise InputError(f"there is no checkpoint folder {who}{near}")
    return _load_checkpoint(Path(who), environment)


def _load_checkpoint(folder: Path, environment: str | None) -> Actor:
    from diffpolicy.policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    folder = checkpoint.folder
    policy = checkpoint.policy.eval()
    name = folder.parent.name if folder.name == "checkpoint" else folder.name
    known = Actor(name, environment or checkpoint.environment or "", everywhere(policy), len(policy.sampler))
    known = replace(known, provenance=checkpoint.provenance, folder=folder.parent)
    return _chunked(known, policy, policy.spaces, folder)


def _load_onnx(path: Path, environment: str | None) -> Actor:
    from diffpolicy.policy.spaces import SpaceSpec
    from diffpolicy.runtime import OnnxPolicy

    policy = OnnxPolicy(path)
    known = Actor(path.stem, environment or policy.environment or "", everywhere(policy), policy.config.sampler.steps)
    known = replace(known, provenance=policy.provenance)
    return _chunked(known, policy, SpaceSpec.from_json(policy.metadata["space_spec"]), path)


def _chunked(known: Actor, policy: ChunkedPredictor, spaces: SpaceSpec, path: Path) -> Actor:
    """A policy that acts only where the spaces are those that it was trained for."""
    from diffpolicy.policy.spaces import SpaceSpec

    if not known.environment:
        raise InputError(f"{path} does not say its environment; add --environment")

    def make(env: Vector) -> Predictor:
        here = SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space)
        if differing := _differing(spaces, here):
            raise InputError(
                f"{path} was trained for other spaces than {known.environment} has ({differing}); use the "
                "environment that it was trained in"
            )
        return policy

    return replace(known, make=make, n_action_steps=policy.config.n_action_steps)


def _differing(trained: SpaceSpec, here: SpaceSpec) -> str:
    """How two environments' spaces differ, in words; "" where they do not."""
    ours, theirs = dict(trained.observations), dict(here.observations)
    missing, new = sorted(ours.keys() - theirs.keys()), sorted(theirs.keys() - ours.keys())
    said = [f"missing here: observation {', '.join(map(repr, missing))}"] if missing else []
    said += [f"only here: observation {', '.join(map(repr, new))}"] if new else []
    both = {f"observation {name!r}": (ours[name], theirs[name]) for name in ours if name in theirs}
    for name, (one, other) in {**both, "the action": (trained.action, here.action)}.items():
        if len(one) != len(other):
            said.append(f"{name} had {len(one)} numbers, here {len(other)}")
        elif one != other:
            pairs = list(zip(zip(one.low, one.high, strict=True), zip(other.low, other.high, strict=True), strict=True))
            i = next(i for i, (a, b) in enumerate(pairs) if a != b)
            (a, b), (c, d) = pairs[i]
            said.append(f"{name} lay in [{a:g}, {b:g}] in dimension {i}, here in [{c:g}, {d:g}]")
    if not said and trained.boxed != here.boxed:
        said.append("observations were " + ("an array, here a Dict" if trained.boxed else "a Dict, here an array"))
    return "; ".join(said[:4] + [f"and {len(said) - 4} more"] * (len(said) > 4))


def _load_function(name: str) -> Callable[[Vector], Predictor]:
    module, _, function = name.partition(":")
    try:
        make: Callable[[Vector], Predictor] = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"expected 'module:function' that can be imported, got {name!r} ({error})") from error

    def made(env: Vector) -> Predictor:
        actor = make(env) if callable(make) else None
        if not isinstance(actor, Predictor):
            raise InputError(f"expected {name} to return something with predict, got {type(actor).__name__}")
        return actor

    return made


def _load_sb3(path: Path) -> Predictor:
    import stable_baselines3 as sb3

    algorithms: dict[str, Any] = {"sac": sb3.SAC, "td3": sb3.TD3, "common": sb3.PPO, "ppo": sb3.PPO, "a2c": sb3.A2C}
    try:
        with zipfile.ZipFile(path) as archive:
            described = json.loads(archive.read("data"))["policy_class"]["__module__"]
        package, family, *_ = described.split(".")
        if package != "stable_baselines3" or family not in algorithms:
            raise InputError(f"{path} holds a policy of {described}; expected PPO, A2C, SAC or TD3")
        model = algorithms[family].load(path, device="cpu")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"expected the zip file of a Stable-Baselines3 model, got {path} ({error})") from error
    return _Deterministic(model)


class _Deterministic:
    """A Stable-Baselines3 model without the noise that it explores with, so that an episode repeats."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = True
    ) -> tuple[npt.NDArray[Any], Any]:
        """The model's most likely action (N, A)."""
        del deterministic
        action, state = self._model.predict(observation, state, episode_start, deterministic=True)
        return action, state
