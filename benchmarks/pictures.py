"""The README's moving picture: expert, imitation and corrected policy in one episode under the same shove.

python -m benchmarks run quickstart && python -m benchmarks.pictures
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.cells import finished
from benchmarks.suites import QUICKSTART
from benchmarks.tables import ROOT
from benchmarks.trained import corrected, imitated
from diffpolicy.errors import InputError
from diffpolicy.policy.checkpoint import load_checkpoint
from diffpolicy.rollout.filming import film
from diffpolicy.rollout.predictor import ScriptedExpert, everywhere
from diffpolicy.rollout.video import tile, write_video

__all__ = ["Pictures"]

TASK = QUICKSTART.tasks[0]


@dataclass(frozen=True)
class Pictures:
    """Film the quickstart's first training seed into docs/images/shove.gif."""

    store: Path = Path("runs/benchmarks")
    """Where `run` left its stages."""
    size: int = 240
    """Height and width of each of the three pictures [px]."""

    def __call__(self) -> None:
        """Choose the first episode that imitation fails and the corrected policy solves, and film it."""
        cells = {(c.method, c.condition): finished(c) for c in QUICKSTART.cells() if c.seed == 0}
        before, after = cells["bc", "shove"], cells["correct, round 3", "shove"]
        if before is None or after is None:
            raise InputError("the quickstart's cells are missing; run `python -m benchmarks run quickstart`")
        both = zip(before.episodes["seed"], before.episodes["success"], after.episodes["success"], strict=True)
        seed = next(seed for seed, failed, solved in both if solved and not failed)
        outputs = [imitated(TASK, 20, 0), corrected(TASK, 20, 0, 3)]
        policies = [load_checkpoint(o.stage.output(self.store) / o.part).policy.eval() for o in outputs]
        clips = [film(TASK, ScriptedExpert, seed, "shove", self.size)[0]]
        clips += [film(TASK, everywhere(policy), seed, "shove", self.size)[0] for policy in policies]
        longest = max(len(clips[0]), len(clips[2])) + 10
        frames = tile([clip[:longest] for clip in clips], ["expert", "imitation", "corrected"])
        write_video(ROOT / "docs" / "images" / "shove.gif", frames[::2], fps=10)


if __name__ == "__main__":
    tyro.cli(Pictures)()
