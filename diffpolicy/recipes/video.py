"""Video: one or several actors filmed in the same episode, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from diffpolicy.errors import InputError
from diffpolicy.policy.files import require_writable
from diffpolicy.recipes.run import use_threads

if TYPE_CHECKING:
    from diffpolicy.recipes.actors import Actor
    from diffpolicy.rollout.filming import Frames

__all__ = ["Video"]

_STILL = 15  # frames for which the end of an episode stands [0.75 s]


@dataclass(frozen=True)
class Video:
    """Film checkpoints in the same episode, side by side."""

    checkpoints: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Checkpoint folders, runs that hold one, "expert" or "planner", or whoever else `evaluate` takes; each gets a
    picture in the row."""
    out: Path | None = None
    """Video file, .mp4 or .gif; by default video.mp4 beside the first checkpoint."""
    condition: str = "clean"
    """Disturbance."""
    environment: str | None = None
    """Gymnasium id; by default the first checkpoint's."""
    change: tuple[str, ...] = ()
    """Settings that every checkpoint acts with instead of its own: sampler.steps=4, acting.latency=2, ..."""
    episodes: int = 3
    """Episodes, one after the other."""
    seed: int = 0
    """Names the reset seeds, the same as in `evaluate`."""
    size: int = 256
    """Height and width of each picture [px]."""
    camera: str | None = None
    """Name of a camera in the environment's model; by default the environment's own."""
    threads: int = 0
    """Threads of torch; 0 takes one."""

    def __call__(self) -> Path:
        """Film and return the video's file."""
        from diffpolicy.rollout.seeds import episode_seeds
        from diffpolicy.rollout.video import write_video
        from diffpolicy_envs.rendering import resolve_backend

        if not self.checkpoints:
            raise InputError('name at least one checkpoint folder, or "expert"')
        if self.episodes < 1 or not 16 <= self.size <= 1024:
            raise InputError(f"expected episodes >= 1 and size from 16 to 1024, got {self.episodes} and {self.size}")
        if self.out is not None and self.out.suffix.lower() not in (".mp4", ".gif"):
            raise InputError(f"expected --out to end in .mp4 or .gif, got {self.out}")
        seeds = episode_seeds("evaluation", self.seed, self.episodes)
        use_threads(self.threads)
        actors = self._actors()
        beside = next((actor.folder for actor in actors if actor.folder), Path("runs"))
        out = self.out or beside / "video.mp4"
        require_writable(out)
        print(f"renderer: {resolve_backend().reason}")
        out = write_video(out, self._filmed(actors, seeds))
        print(f"written to {out}")
        return out

    def _actors(self) -> list[Actor]:
        """Who acts, all in one environment."""
        from diffpolicy.recipes.actors import is_checkpoint, load_actor

        environment = self.environment
        for who in self.checkpoints:
            if environment is None and who not in ("expert", "planner"):
                environment = load_actor(who).environment
        changed = [who for who in self.checkpoints if is_checkpoint(who)]
        if self.change and not changed:
            raise InputError(
                f"expected a checkpoint folder, whose {', '.join(self.change)} could be changed, got "
                f"{' '.join(self.checkpoints)}; leave --change out"
            )
        return [load_actor(who, environment, self.change if who in changed else ()) for who in self.checkpoints]

    def _filmed(self, actors: Sequence[Actor], seeds: Sequence[int]) -> Frames:
        """The frames of all episodes, the actors side by side; the end of each stands for a while."""
        from diffpolicy.recipes.progress import FilmProgress
        from diffpolicy.rollout.environment import longest
        from diffpolicy.rollout.filming import film
        from diffpolicy.rollout.video import tile

        frames: Frames = []
        at_most = 1 + longest(actors[0].environment)
        with FilmProgress(len(actors) * len(seeds), at_most) as progress:
            for seed in seeds:
                clips = []
                for a in actors:
                    clips.append(
                        film(a.environment, a.make, seed, self.condition, self.size, progress.shot, self.camera)
                    )
                    progress.cut()
                labels = [clip.captions(actor.name) for clip, actor in zip(clips, actors, strict=True)]
                frames += tile([clip.frames for clip in clips], labels)
                frames += frames[-1:] * _STILL
        return frames
