"""The README's moving picture: expert, imitation and corrected policy in one episode under the same shove.

python -m benchmarks.pictures runs/benchmarks/quickstart/quickstart-20-demonstrations-seed-0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.tables import ROOT, read_cells
from diffpolicy.policy.checkpoint import load_checkpoint
from diffpolicy.recipes.quickstart import ENVIRONMENT
from diffpolicy.rollout.filming import film
from diffpolicy.rollout.predictor import ScriptedExpert, everywhere
from diffpolicy.rollout.video import tile, write_video

__all__ = ["Pictures"]


@dataclass(frozen=True)
class Pictures:
    """Film a finished benchmark run into docs/images/shove.gif."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of the run."""
    size: int = 240
    """Height and width of each of the three pictures [px]."""

    def __call__(self) -> None:
        """Choose the first episode that imitation fails and the corrected policy solves, and film it."""
        cells = {(c["row"]["method"], c["row"]["condition"]): c["episodes"] for c in read_cells(self.run.name) or []}
        before, after = cells["bc", "shove"], cells["correct, round 3", "shove"]
        both = zip(before["reset_seed"], before["success"], after["success"], strict=True)
        seed = next(seed for seed, failed, solved in both if solved and not failed)
        policies = [load_checkpoint(self.run / name).policy.eval() for name in ("bc", "correct")]
        clips = [film(ENVIRONMENT, ScriptedExpert, seed, "shove", self.size)[0]]
        clips += [film(ENVIRONMENT, everywhere(policy), seed, "shove", self.size)[0] for policy in policies]
        longest = max(len(clips[0]), len(clips[2])) + 10
        frames = tile([clip[:longest] for clip in clips], ["expert", "imitation", "corrected"])
        write_video(ROOT / "docs" / "images" / "shove.gif", frames[::2], fps=10)


if __name__ == "__main__":
    tyro.cli(Pictures)()
