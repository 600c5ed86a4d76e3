"""Playing: environments by id, who acts in them, the loop over episodes, an expert's labels, pictures.

Names are loaded from their modules on first use, so that ``diffpolicy.rollout.seeds`` loads without MuJoCo.
Shapes: N simulations, T environment steps, S simulator state, L label length, A action.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffpolicy.lazy import loader

if TYPE_CHECKING:
    from diffpolicy.rollout.correction import play_and_label
    from diffpolicy.rollout.environment import make_vector
    from diffpolicy.rollout.faults import Dropped
    from diffpolicy.rollout.filming import film
    from diffpolicy.rollout.loop import Record, play, rollout
    from diffpolicy.rollout.predictor import Predictor, ScriptedExpert
    from diffpolicy.rollout.seeds import episode_seeds
    from diffpolicy.rollout.video import write_video

__all__ = [
    "Dropped",
    "Predictor",
    "Record",
    "ScriptedExpert",
    "episode_seeds",
    "film",
    "make_vector",
    "play",
    "play_and_label",
    "rollout",
    "write_video",
]

_HOMES = {
    "Dropped": "faults",
    "Predictor": "predictor",
    "Record": "loop",
    "ScriptedExpert": "predictor",
    "episode_seeds": "seeds",
    "film": "filming",
    "make_vector": "environment",
    "play": "loop",
    "play_and_label": "correction",
    "rollout": "loop",
    "write_video": "video",
}

__getattr__ = loader(__name__, _HOMES)
