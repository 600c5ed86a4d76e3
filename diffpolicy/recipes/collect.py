"""Collect: play an expert and keep its episodes as a Minari dataset."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json
from diffpolicy.recipes.claim import claimed, content
from diffpolicy.recipes.run import differences, program, provenance, warn_of_endless

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.rollout.environment import Vector

__all__ = ["Collect"]


@dataclass(frozen=True)
class Collect:
    """Collect demonstrations into a Minari dataset."""

    environment: str = "diffpolicy/PickPlace-v0"
    """Gymnasium id."""
    out: Path = Path("runs/demos")
    """Folder of the dataset."""
    episodes: int = 20
    """Successful episodes to collect."""
    expert: str = "expert"
    """Who demonstrates: "expert" (the environment's own), "planner", a checkpoint folder, a Stable-Baselines3 zip file,
    or module:function."""
    condition: str = "clean"
    """Disturbance to collect under."""
    keep_failures: bool = False
    """Keep episodes that did not succeed (for environments that report no success)."""
    seed: int = 0
    """Names the reset seeds; evaluation never uses the same."""
    overwrite: bool = False
    """Replace a dataset that is already there."""

    def __call__(self) -> Path:
        """Write the dataset and return its folder."""
        if self.episodes < 1:
            raise InputError(f"expected at least 1 episode, got {self.episodes}")
        with claimed(self.out, beside=True):
            if self._finished():
                print(f"finished before: {self.out}, or add --overwrite to collect it again")
                return self.out
            return self._collect()

    def _collect(self) -> Path:
        from diffpolicy.data.dataset import write_dataset
        from diffpolicy.rollout.environment import make_vector

        with closing(make_vector(self.environment, min(self.episodes, 64), self.condition)) as env:
            kept, tried, steps = self._played(env)
            folder = write_dataset(
                self.out,
                kept,
                environment=self.environment,
                observation_space=env.single_observation_space,
                action_space=env.single_action_space,
                description=f"{self.episodes} episodes of {self.expert} in {self.environment}",
                provenance=provenance(self, episodes_tried=tried, env_steps=steps),
                overwrite=self.overwrite,
            )
        print(f"dataset: {self.out}   {self.episodes} episodes of {tried}   try: {program()} bc --data {self.out}")
        return folder

    def _played(self, env: Vector) -> tuple[list[Episode], int, int]:
        """The episodes to keep, how many were tried for them, and in how many steps."""
        from diffpolicy.recipes.actors import load_actor
        from diffpolicy.recipes.progress import EpisodeProgress
        from diffpolicy.rollout.loop import rollout
        from diffpolicy.rollout.seeds import episode_seeds

        actor = load_actor(self.expert, self.environment).make(env)
        kept: list[Episode] = []
        tried = steps = lost = 0
        warn_of_endless(self.environment)
        with EpisodeProgress(self.episodes, "collecting") as progress:
            while len(kept) < self.episodes:
                missing = self.episodes - len(kept)
                if tried > 10 * self.episodes:
                    if lost > tried // 2:
                        raise InputError(f"{lost} of {tried} episodes were broken by {self.environment}; mend it first")
                    raise InputError(
                        f"only {len(kept)} of {tried} episodes succeeded; keep failures too (--keep-failures), "
                        "or name a better --expert"
                    )
                seeds = episode_seeds("demonstration", self.seed, missing, start=tried)
                played = rollout(env, actor, seeds, condition=self.condition, dropped=progress.note)
                tried, lost = tried + missing, lost + missing - len(played)
                steps += sum(map(len, played))
                for episode in played:
                    if episode.success or self.keep_failures:
                        kept.append(episode)
                        progress(episode)
        return kept, tried, steps

    def _finished(self) -> bool:
        """Whether the dataset is there as asked for; raises InputError where --out holds something else."""
        from diffpolicy.data.dataset import read_dataset
        from diffpolicy.data.storage import restore

        restore(self.out)  # what a kill while it was replaced left beside it
        if not content(self.out):
            return False
        self._require_ours()
        if self.overwrite:
            return False
        shown = differences(read_dataset(self.out).provenance.get("settings", {}), self)
        if shown:
            raise InputError(
                f"{self.out} holds another dataset ({shown}). Name another --out, or add --overwrite to replace it"
            )
        return True

    def _require_ours(self) -> None:
        """Raises InputError where --out holds what is no dataset of ours: before the work, not after."""
        try:
            ours = [path.name for path in content(self.out)] == ["data"]
            ours = ours and "diffpolicy" in read_json(self.out / "data" / "metadata.json")
        except (InputError, TypeError):
            ours = False
        if not ours:
            raise InputError(f"expected a dataset of ours in {self.out}, but this holds something else; name another")
