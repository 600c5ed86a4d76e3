"""Diffusion policies for robot control: imitation, on-policy correction, MuJoCo evaluation.

The names below are loaded from their modules on first use, so that importing this package is quick and pulls in
neither torch nor MuJoCo.

Shapes, everywhere: B batch, K denoising steps, H chunk length, A action, O observation, T environment steps,
N simulations, S simulator state. Units stand in brackets: [m], [s], [rad], [N].
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.data.dataset import Dataset, read_dataset, write_dataset
    from diffpolicy.data.episode import Episode, from_arrays
    from diffpolicy.errors import InputError
    from diffpolicy.evaluation.evaluate import evaluate
    from diffpolicy.policy import PolicyConfig
    from diffpolicy.policy.checkpoint import load_checkpoint, save_checkpoint
    from diffpolicy.policy.policy import Policy
    from diffpolicy.policy.spaces import SpaceSpec
    from diffpolicy.recipes.agree import Agree
    from diffpolicy.recipes.bc import Bc
    from diffpolicy.recipes.collect import Collect
    from diffpolicy.recipes.correct import Correct
    from diffpolicy.recipes.describe import Describe
    from diffpolicy.recipes.distil import Distil
    from diffpolicy.recipes.evaluate import Evaluate
    from diffpolicy.recipes.export import Export
    from diffpolicy.recipes.quickstart import Quickstart
    from diffpolicy.recipes.redif import Redif
    from diffpolicy.recipes.video import Video
    from diffpolicy.rollout.environment import make_vector
    from diffpolicy.rollout.predictor import ScriptedExpert
    from diffpolicy.runtime import OnnxPolicy

    __version__: str

__all__ = [
    "Agree",
    "Bc",
    "Collect",
    "Correct",
    "Dataset",
    "Describe",
    "Distil",
    "Episode",
    "Evaluate",
    "Export",
    "InputError",
    "OnnxPolicy",
    "Policy",
    "PolicyConfig",
    "Quickstart",
    "Redif",
    "ScriptedExpert",
    "SpaceSpec",
    "Video",
    "__version__",
    "evaluate",
    "from_arrays",
    "load_checkpoint",
    "make_vector",
    "read_dataset",
    "save_checkpoint",
    "write_dataset",
]

_HOMES = {
    "Agree": "recipes.agree",
    "Bc": "recipes.bc",
    "Collect": "recipes.collect",
    "Correct": "recipes.correct",
    "Dataset": "data.dataset",
    "Describe": "recipes.describe",
    "Distil": "recipes.distil",
    "Episode": "data.episode",
    "Evaluate": "recipes.evaluate",
    "Export": "recipes.export",
    "InputError": "errors",
    "OnnxPolicy": "runtime",
    "Policy": "policy.policy",
    "PolicyConfig": "policy",
    "Quickstart": "recipes.quickstart",
    "Redif": "recipes.redif",
    "ScriptedExpert": "rollout.predictor",
    "SpaceSpec": "policy.spaces",
    "Video": "recipes.video",
    "evaluate": "evaluation.evaluate",
    "from_arrays": "data.episode",
    "load_checkpoint": "policy.checkpoint",
    "make_vector": "rollout.environment",
    "read_dataset": "data.dataset",
    "save_checkpoint": "policy.checkpoint",
    "write_dataset": "data.dataset",
}

_load = loader(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("diffpolicy")
    return _load(name)


def __dir__() -> list[str]:
    """The public names, and what every module has."""
    return sorted({*globals(), *__all__})
