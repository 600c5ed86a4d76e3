"""Video: one or several actors filmed in the same episode, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffpolicy.errors import InputError
from diffpolicy.recipes.run import use_threads

if TYPE_CHECKING:
    from diffpolicy.rollout.filming import Frames

__all__ = ["Video"]


@dataclass(frozen=True)
class Video:
    """Film checkpoints in the same episode, side by side."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Checkpoint folders, runs that hold one, or "expert"; each gets a picture in the row."""
    out: Path | None = None
    """Video file, .mp4 or .gif; by default video.mp4 beside the first checkpoint."""
    condition: str = "clean"
    """Disturbance."""
    environment: str | None = None
    """Gymnasium id; by default the first checkpoint's."""
    episodes: int = 3
    """Episodes, one after the other."""
    seed: int = 0
    """Names the reset seeds, the same as in `evaluate`."""
    size: int = 256
    """Height and width of each picture [px]."""
    threads: int = 0
    """Threads of torch; 0 takes one."""

    def __call__(self) -> Path:
        """Film and return the video's file."""
        from diffpolicy.recipes.actors import load_actor
        from diffpolicy.rollout.filming import film
        from diffpolicy.rollout.seeds import episode_seeds
        from diffpolicy.rollout.video import tile, write_video
        from diffpolicy_envs.rendering import resolve_backend

        if not self.checkpoints:
            raise InputError('name at least one checkpoint folder, or "expert"')
        if self.episodes < 1 or not 16 <= self.size <= 1024:
            raise InputError(f"expected episodes >= 1 and size from 16 to 1024, got {self.episodes} and {self.size}")
        if self.out is not None and self.out.suffix not in (".mp4", ".gif"):
            raise InputError(f"expected --out to end in .mp4 or .gif, got {self.out}")
        use_threads(self.threads)
        environment = self.environment
        for who in self.checkpoints:
            if environment is None and who != "expert":
                environment = load_actor(who).environment
        actors = [load_actor(who, environment) for who in self.checkpoints]
        print(f"renderer: {resolve_backend().reason}")
        frames: Frames = []
        for seed in episode_seeds("evaluation", self.seed, self.episodes):
            clips = [film(a.environment, a.make, seed, self.condition, self.size)[0] for a in actors]
            frames += tile(clips, [actor.name for actor in actors])
        beside = next((actor.folder for actor in actors if actor.folder), Path("runs"))
        out = write_video(self.out or beside / "video.mp4", frames)
        print(f"written to {out}")
        return out
