"""Collect: play an expert and keep its episodes as a Minari dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffpolicy.errors import InputError
from diffpolicy.recipes.run import provenance

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
    """Who demonstrates: the environment's scripted expert, a checkpoint folder, or a Stable-Baselines3 zip file."""
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
        from diffpolicy.data.dataset import write_dataset
        from diffpolicy.data.episode import Episode
        from diffpolicy.recipes.actors import load_actor
        from diffpolicy.recipes.progress import EpisodeProgress
        from diffpolicy.rollout.environment import make_vector
        from diffpolicy.rollout.rollout import rollout
        from diffpolicy.rollout.seeds import episode_seeds

        if self.episodes < 1:
            raise InputError(f"expected at least 1 episode, got {self.episodes}")
        env = make_vector(self.environment, min(self.episodes, 64), self.condition)
        actor = load_actor(self.expert, self.environment).make(env)
        kept: list[Episode] = []
        tried = 0
        with EpisodeProgress(self.episodes, "collecting") as progress:
            while len(kept) < self.episodes:
                missing = self.episodes - len(kept)
                if tried > 10 * self.episodes:
                    raise InputError(
                        f"only {len(kept)} of {tried} episodes succeeded; keep failures too (--keep-failures), "
                        "or name a better --expert"
                    )
                seeds = episode_seeds("demonstration", self.seed, missing, start=tried)
                played = rollout(env, actor, seeds, condition=self.condition)
                tried += missing
                for episode in played:
                    if episode.success or self.keep_failures:
                        kept.append(episode)
                        progress(episode)
        folder = write_dataset(
            self.out,
            kept,
            environment=self.environment,
            observation_space=env.single_observation_space,
            action_space=env.single_action_space,
            description=f"{self.episodes} episodes of {self.expert} in {self.environment}",
            provenance=provenance(self, episodes_tried=tried, env_steps=sum(map(len, kept))),
            overwrite=self.overwrite,
        )
        env.close()
        return folder
