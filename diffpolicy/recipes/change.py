"""Change: a checkpoint that acts with other settings of its sampler or its chunks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from diffpolicy.errors import InputError
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.run import open_run, program, provenance

__all__ = ["Change"]


@dataclass(frozen=True)
class Change:
    """Write a checkpoint that acts with other settings: fewer steps, another solver, ensembled chunks, ..."""

    checkpoint: Annotated[str, tyro.conf.Positional]
    """A checkpoint folder, or the run that holds one."""
    changes: Annotated[tuple[str, ...], tyro.conf.Positional]
    """What to change: sampler.steps=4, sampler.solver=heun, n_action_steps=4, acting.ensemble=0.01, ..."""
    out: Path = Path("runs/changed")
    """Folder of the run."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Write the checkpoint and return its folder."""
        from diffpolicy.policy.changes import changed
        from diffpolicy.policy.checkpoint import load_checkpoint, save_checkpoint
        from diffpolicy.recipes.lineage import relocated

        if not self.changes:
            raise InputError("expected a setting to change, such as sampler.steps=4, got none")
        with claimed(self.out):
            loaded = load_checkpoint(self.checkpoint)
            policy = loaded.policy.reconfigured(changed(loaded.policy.config, self.changes))
            open_run(self, self.out, self.overwrite, {"checkpoint": Path(self.checkpoint)})
            save_checkpoint(
                policy,
                self.out / "checkpoint",
                environment=loaded.environment,
                provenance={**relocated(loaded.folder, loaded.provenance, self.out), **_noted(self)},
            )
        print(f"checkpoint: {self.out / 'checkpoint'}   try: {program()} evaluate {self.out}")
        return self.out / "checkpoint"


def _noted(recipe: Change) -> dict[str, object]:
    """What the new checkpoint says besides all that the old one says of its training."""
    return {
        "changed": {key: value for key, value in provenance(recipe).items() if key != "settings"},
        "changes": list(recipe.changes),
    }
