"""Actors by what a user types: the environment's expert, a checkpoint folder, or a Stable-Baselines3 file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from diffpolicy.errors import InputError, nearest
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.models import load_model
from diffpolicy.rollout.environment import Vector, checked_action
from diffpolicy.rollout.planning import PlanningExpert
from diffpolicy.rollout.predictor import EpisodicPredictor, Predictor, ScriptedExpert, everywhere, knows_expert
from diffpolicy_envs.paths import assets_folder

if TYPE_CHECKING:
    from diffpolicy.policy.chunked import ChunkedPredictor
    from diffpolicy.policy.spaces import SpaceSpec

__all__ = ["Actor", "is_checkpoint", "load_actor"]


@dataclass(frozen=True)
class Actor:
    """Somebody who can act, and what is known about them."""

    name: str
    environment: str
    make: Callable[[Vector], Predictor]  # the actor in a given environment
    nfe: int = 0  # denoiser calls per decision
    first_nfe: int = 0  # and of an episode's first
    n_action_steps: int = 1  # actions executed per decision
    latency: int = 0  # simulated, from a decision to its first action [control steps]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None  # the run's, where there is one


def load_actor(who: str | Path, environment: str | None = None, change: Sequence[str] = ()) -> Actor:
    """Find an actor.

    Args:
        who: "expert" for the environment's own: scripted, or else planned where the task has a cost, or else the
            learned one that came with the package; "planner" for a planned one; a checkpoint folder or the run
            that holds one, of `expert` too; the file that `export` wrote; or the zip file of a
            Stable-Baselines3 model (which is a pickle: load only files that you trust); or "module:function", a
            function that is given the vector environment and returns who acts in it: anything with
            Stable-Baselines3's ``predict``.
        environment: gymnasium id; by default the one that the checkpoint was trained in.
        change: settings of a checkpoint to act with instead of its own, such as "sampler.steps=4"; see
            `diffpolicy.policy.changes`.

    Raises:
        InputError: nothing of that name, no environment is known, or a setting cannot be changed.
    """
    if change and not is_checkpoint(who):
        raise InputError(
            f"expected a checkpoint folder, whose {', '.join(change)} could be changed, got {who}; leave --change out"
        )
    if str(who) in ("expert", "planner"):
        if environment is None:
            raise InputError(f"the {who} belongs to an environment; add --environment")
        return Actor("planner", environment, PlanningExpert) if str(who) == "planner" else _load_expert(environment)
    if Path(who).suffix == ".zip":
        if environment is None:
            raise InputError(f"{who} does not say its environment; add --environment")
        return Actor(Path(who).stem, environment, load_model(Path(who)))
    if Path(who).suffix == ".onnx":
        return _load_onnx(Path(who), environment)
    if ":" in str(who) and not Path(who).exists():
        if environment is None:
            raise InputError(f"{who} does not say its environment; add --environment")
        return Actor(str(who), environment, _load_function(str(who)))
    if not Path(who).exists() and (near := nearest(str(who), ["expert", "planner"])):
        raise InputError(f"there is no checkpoint folder {who}{near}")
    if (Path(who) / "model.zip").is_file() and (Path(who) / "run.json").is_file():
        return _load_trained(Path(who), environment)
    return _load_checkpoint(Path(who), environment, change)


def is_checkpoint(who: str | Path) -> bool:
    """Whether it can only be a checkpoint folder, or the run that holds one."""
    return Path(who).is_dir() and not (Path(who) / "model.zip").is_file()


def _load_expert(environment: str) -> Actor:
    """The scripted expert of an environment, else a planner for its task, else the learned one of the package."""
    path = assets_folder() / "experts" / f"{environment.rpartition(':')[2]}.zip"

    def make(env: Vector) -> Predictor:
        return ScriptedExpert(env) if knows_expert(env) or not path.is_file() else load_model(path)(env)

    provenance = read_json(path.with_suffix(".json")) if path.is_file() else {}
    return Actor("expert", environment, make, provenance=provenance)


def _load_checkpoint(folder: Path, environment: str | None, change: Sequence[str]) -> Actor:
    from diffpolicy.policy.changes import changed
    from diffpolicy.policy.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(folder)
    folder = checkpoint.folder
    policy = checkpoint.policy.eval()
    if change:
        policy = policy.reconfigured(changed(policy.config, change))
    name = {"checkpoint": folder.parent.name, "best": f"{folder.parent.name}-best"}.get(folder.name, folder.name)
    name = ", ".join((name, *change))
    known = Actor(name, environment or checkpoint.environment or "", everywhere(policy), policy.calls)
    known = replace(known, first_nfe=policy.sampler.calls, provenance=checkpoint.provenance, folder=folder.parent)
    return _chunked(known, policy, policy.spaces, folder)


def _load_onnx(path: Path, environment: str | None) -> Actor:
    from diffpolicy.policy.spaces import SpaceSpec
    from diffpolicy.runtime import OnnxPolicy

    policy = OnnxPolicy(path)
    calls = policy.config.sampler.calls
    known = Actor(path.stem, environment or policy.environment or "", everywhere(policy), calls, calls)
    known = replace(known, provenance=policy.provenance)
    return _chunked(known, policy, SpaceSpec.from_json(policy.metadata["space_spec"]), path)


def _chunked(known: Actor, policy: ChunkedPredictor, spaces: SpaceSpec, path: Path) -> Actor:
    """A policy that acts only where the spaces are those that it was trained for."""
    from diffpolicy.rollout.environment import spaces_of

    if not known.environment:
        raise InputError(f"{path} does not say its environment; add --environment")

    def make(env: Vector) -> Predictor:
        if differing := spaces.differences(spaces_of(env)):
            raise InputError(
                f"{path} was trained for other spaces than {known.environment} has ({differing}); use the "
                "environment that it was trained in"
            )
        return policy

    config = policy.config
    return replace(known, make=make, n_action_steps=config.n_action_steps, latency=config.acting.latency)


def _load_function(name: str) -> Callable[[Vector], Predictor]:
    module, _, function = name.partition(":")
    try:
        make: Callable[[Vector], Predictor] = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"expected 'module:function' that can be imported, got {name!r} ({error})") from error

    def made(env: Vector) -> Predictor:
        try:
            actor = make(env) if callable(make) else None
        except Exception as error:
            raise InputError(f"{name} raised {type(error).__name__}: {error}") from error
        if not isinstance(actor, Predictor):
            raise InputError(f"expected {name} to return something with predict, got {type(actor).__name__}")
        named = _Named(name, env, actor)
        return _NamedEpisodic(name, env, actor) if isinstance(actor, EpisodicPredictor) else named

    return made


def _load_trained(folder: Path, environment: str | None) -> Actor:
    """The model in a run folder of `diffpolicy expert`."""
    trained = read_json(folder / "run.json").get("environment")
    if not isinstance(environment or trained, str):
        raise InputError(f"{folder} does not say its environment; add --environment")
    about = folder / "train.json"
    provenance = read_json(about) if about.is_file() else {}
    return Actor(folder.name, environment or trained, load_model(folder / "model.zip"), provenance=provenance)


class _Named:
    """Somebody's own actor, whose faults are told under the name that the user typed."""

    def __init__(self, name: str, env: Vector, actor: Any) -> None:
        self._name, self._env, self._actor = name, env, actor

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[npt.NDArray[Any], Any]:
        """The actor's answer; raises InputError where it raises, or its actions do not fit."""
        count = len(next(iter(observation.values())) if isinstance(observation, Mapping) else observation)
        try:
            action, state = self._actor.predict(observation, state, episode_start, deterministic)
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{self._name} raised {type(error).__name__} in predict: {error}") from error
        return checked_action(self._env, action, count, self._name), state


class _NamedEpisodic(_Named):
    """One that wants to know which episode each row is in."""

    def begin(self, state: Any, mask: Any, episodes: Any) -> Any:
        """The actor's own."""
        return self._actor.begin(state, mask, episodes)
