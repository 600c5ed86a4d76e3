"""Bc: imitation, the regression of a policy on demonstrations."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from diffpolicy.errors import InputError
from diffpolicy.policy import PolicyConfig
from diffpolicy.policy.models import FRAMES
from diffpolicy.recipes.checks import checked_training
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.run import open_run, program, provenance, use_threads
from diffpolicy.updates import RegressionConfig, require_trainable

if TYPE_CHECKING:
    from diffpolicy.data.dataset import Dataset
    from diffpolicy.data.episode import Episode
    from diffpolicy.policy import Policy, SpaceSpec
    from diffpolicy.recipes.validation import Validation

__all__ = ["Bc"]


@dataclass(frozen=True)
class Bc:
    """Train a diffusion policy (Chi et al., arXiv 2303.04137), or a baseline of one, on demonstrations."""

    data: Path = Path("runs/demos")
    """Dataset: a folder that `collect` or Minari wrote, or the id of a local Minari dataset."""
    out: Path = Path("runs/bc")
    """Folder of the run."""
    demonstrations: int | None = None
    """Use only the first so many episodes; all by default."""
    environment: str | None = None
    """Gymnasium id to note in the checkpoint; by default the dataset's."""
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """What the policy is."""
    optimiser: RegressionConfig = field(default_factory=RegressionConfig)
    """How it is trained."""
    steps: int = 6000
    """Updates."""
    batch_size: int = 128
    """Windows per update."""
    seed: int = 0
    """Of initial weights, order of the data, times and noise."""
    checkpoint_every: int = 2000
    """Updates between checkpoints."""
    validation: float = 0.0
    """Share of the demonstrations (such as 0.1) that is held out, to log the loss on them as val_loss; 0: none."""
    validation_episodes: int = 0
    """Episodes that the averaged policy plays at each validation, to log val_success; 0: none."""
    validate_every: int = 500
    """Updates between validations, of which the best policy is kept in OUT/best."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Train (or go on training) and return the checkpoint folder."""
        with claimed(self.out):
            return self._train()

    def _train(self) -> Path:
        from diffpolicy.data.checks import require_usable, warnings_about
        from diffpolicy.data.windows import windows
        from diffpolicy.policy import SpaceSpec
        from diffpolicy.recipes.training import Stage, train
        from diffpolicy.recipes.validation import best_line

        dataset = self._read()
        episodes, untold = dataset.episodes[: self.demonstrations], self._held_out(dataset)
        threads = use_threads(self.threads)
        spaces = SpaceSpec.from_spaces(dataset.observation_space, dataset.action_space)
        require_usable(episodes, spaces, str(self.data))
        told = [episodes[number] for number in sorted({*range(len(episodes))} - {*untold})]
        table = windows(told, self.policy.n_obs_steps, self.policy.horizon)
        policy = self._untrained(told, spaces)
        validation = self._validation(policy, dataset, [episodes[number] for number in untold])
        open_run(self, self.out, self.overwrite, {"data": self.data})
        for line in warnings_about(episodes, spaces, _meant(dataset.environment)):
            print(f"note: {line}")
        cost = {
            "dataset": os.path.relpath(self.data, self.out) if self.data.is_dir() else str(self.data),
            "demonstrations": len(episodes),
            **({"held_out": untold} if untold else {}),
            "threads": threads,
            "expert_queries": sum(map(len, episodes)),
            "env_steps": dataset.provenance.get("env_steps", sum(map(len, episodes))),
        }
        about, environment = provenance(self, method="bc", **cost), self.environment or dataset.environment
        numbers = (self.steps, self.batch_size, self.seed, self.checkpoint_every)
        train(policy, table, self.optimiser, Stage(self.out, environment, *numbers, "imitation", about, validation))
        print(f"checkpoint: {self.out / 'checkpoint'}   try: {program()} evaluate {self.out}")
        if validation is not None:
            print(best_line(self.out))
        return self.out / "checkpoint"

    def _read(self) -> Dataset:
        """The data; raises InputError where they, or what is asked for, cannot be trained on."""
        from diffpolicy.data.dataset import read_dataset

        dataset = read_dataset(self.data)
        if self.demonstrations is not None and not 1 <= self.demonstrations <= len(dataset.episodes):
            raise InputError(f"{self.data} has {len(dataset.episodes)} episodes, asked for {self.demonstrations}")
        checked_training(self)
        frame = FRAMES.get(self.policy.model)
        if self.policy.network.two_times and not (frame and frame.two_times):
            raise InputError(
                "expected policy.network.two_times=False, got True: imitation trains one time; leave it out"
            )
        require_trainable(self.policy, self.optimiser)
        if self.environment is not None:
            _require_spaces(self.environment, dataset)
        return dataset

    def _held_out(self, dataset: Dataset) -> list[int]:
        """Which of the demonstrations are not trained on."""
        from diffpolicy.data.split import held_out

        count = len(dataset.episodes[: self.demonstrations])
        return held_out(count, self.validation, self.seed) if self.validation else []

    def _validation(self, policy: Policy, dataset: Dataset, held: list[Episode]) -> Validation | None:
        """What is validated; None where nothing is. Raises InputError where the episodes cannot be played."""
        from diffpolicy.data.windows import windows
        from diffpolicy.recipes.validation import Validation, playable

        table = windows(held, self.policy.n_obs_steps, self.policy.horizon) if held else None
        if not self.validation_episodes:
            return None if table is None else Validation(self.validate_every, table)
        environment = self.environment or dataset.environment
        seeds = playable(policy, environment, self.seed, self.validation_episodes)
        return Validation(self.validate_every, table, seeds)

    def _untrained(self, episodes: list[Episode], spaces: SpaceSpec) -> Policy:
        """A policy with the weights that the seed gives, in the units of the data."""
        import torch

        from diffpolicy.policy import Policy

        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            policy = Policy(self.policy, spaces)
        if not policy.normaliser.fitted:
            policy.normaliser.fit(
                {name: torch.cat([torch.as_tensor(e.obs[name]) for e in episodes]) for name in episodes[0].obs},
                torch.cat([torch.as_tensor(e.actions) for e in episodes]),
            )
        policy.normaliser.freeze()
        return policy


def _meant(environment: str | None) -> Collection[str]:
    """Observations of a task of ours that are as they should be, constant or not."""
    from diffpolicy.rollout.environment import task_of
    from diffpolicy_envs import TASKS

    try:
        task = None if environment is None else task_of(environment)
    except InputError:  # of a package that is not here
        return ()
    return () if task is None else task.observation if task in TASKS.values() else task.noiseless


def _require_spaces(environment: str, dataset: Dataset) -> None:
    """Raises InputError where an environment is unknown, or has other spaces than the data."""
    from diffpolicy.policy import SpaceSpec
    from diffpolicy.rollout.environment import spaces_of

    there = SpaceSpec.from_spaces(dataset.observation_space, dataset.action_space)
    if differing := there.differences(spaces_of(environment)):
        raise InputError(f"the data are not of {environment} ({differing}); leave --environment out, or name theirs")
