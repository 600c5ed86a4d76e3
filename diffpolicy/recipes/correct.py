"""Correct: DAgger for chunked diffusion policies, in rounds that meet on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpolicy.errors import InputError
from diffpolicy.recipes.checks import checked_training
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.lineage import Lineage, lineage, spent_on
from diffpolicy.recipes.run import (
    CONDITIONS_BY_DEFAULT,
    conditions_in,
    open_run,
    program,
    provenance,
    use_threads,
)
from diffpolicy.updates import RegressionConfig, require_trainable

if TYPE_CHECKING:
    from diffpolicy.data.episode import Episode
    from diffpolicy.policy.policy import Policy
    from diffpolicy.recipes.actors import Actor
    from diffpolicy.recipes.training import Stage
    from diffpolicy.recipes.validation import Validation
    from diffpolicy.rollout.labeller import Cost

__all__ = ["Correct"]


@dataclass(frozen=True)
class Correct:
    """Correct a policy on the states that it visits itself (DAgger, Ross et al., arXiv 1011.0686).

    Each round plays the policy, asks the labeller for a whole chunk of actions from each visited state, adds
    these pairs to the data, and continues training.
    """

    checkpoint: Path = Path("runs/bc")
    """Checkpoint folder, or the run that holds it."""
    out: Path = Path("runs/correct")
    """Folder of the run."""
    data: Path | None = None
    """Demonstrations to aggregate onto; by default those that the checkpoint was trained on, and the rollouts of its
    earlier corrections."""
    environment: str | None = None
    """Gymnasium id; by default the checkpoint's."""
    labeller: str = "expert"
    """Who labels: "expert" (the environment's own), "planner", a checkpoint folder, a Stable-Baselines3 zip file, or
    module:function."""
    method: Literal["auto", "branch", "takeover"] = "auto"
    """Branch the labeller from saved states, or let it take over; auto branches where the environment can."""
    rounds: int = 3
    """Rounds of rolling out, labelling and training."""
    rollouts: int = 32
    """Episodes a round, shared among the conditions."""
    conditions: tuple[str, ...] = CONDITIONS_BY_DEFAULT
    """Disturbances to roll out under; those that the environment does not know are left out."""
    beta: float = 0.0
    """Chance that the expert acts for a chunk's time during rollouts is beta ** round; 0: the learner alone."""
    label_every: int = 1
    """Label every n-th visited state."""
    optimiser: RegressionConfig = field(default_factory=RegressionConfig)
    """How it is trained."""
    steps: int = 3000
    """Updates a round."""
    batch_size: int = 128
    """Windows per update."""
    seed: int = 0
    """Of rollouts, order of the data, times and noise."""
    checkpoint_every: int = 3000
    """Updates between checkpoints."""
    validation_episodes: int = 0
    """Episodes, shared among the conditions, that the averaged policy plays at each validation; 0: none."""
    validate_every: int = 500
    """Updates between validations, of which the best policy of a round is kept in its folder, of all in OUT/best."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Correct (or go on correcting) and return the checkpoint folder of the last round."""
        if min(self.rounds, self.rollouts, self.label_every) < 1:
            raise InputError(
                f"expected rounds, rollouts and label_every >= 1, got {self.rounds}, {self.rollouts} and "
                f"{self.label_every}"
            )
        if not 0.0 <= self.beta <= 1.0:
            raise InputError(f"expected beta in [0, 1], got {self.beta}")
        checked_training(self)
        with claimed(self.out):
            return self._correct()

    def _correct(self) -> Path:
        from diffpolicy.data.checks import require_usable
        from diffpolicy.data.dataset import read_dataset
        from diffpolicy.data.windows import Windows, windows
        from diffpolicy.policy.checkpoint import checkpoint_of, copy_checkpoint, load_checkpoint
        from diffpolicy.recipes.actors import load_actor
        from diffpolicy.recipes.training import train

        source = checkpoint_of(self.checkpoint)
        loaded = load_checkpoint(source)
        policy, config = loaded.policy, loaded.policy.config
        require_trainable(config, self.optimiser)
        labeller = load_actor(self.labeller, self.environment or loaded.environment)
        conditions_in(labeller.environment, self.conditions)  # before anything is made
        origin = lineage(source, loaded.provenance) if self.data is None else Lineage(self.data)
        spent, train_s = spent_on(source, loaded.provenance)
        demos = read_dataset(origin.dataset).episodes[: origin.demonstrations]
        earlier = [read_dataset(path).episodes for path in origin.rollouts]
        require_usable(demos, policy.spaces, str(origin.dataset))
        for path, episodes in zip(origin.rollouts, earlier, strict=True):
            require_usable(episodes, policy.spaces, str(path))
        first = self._unused(earlier)
        threads = use_threads(self.threads)
        validation = self._validation(policy, labeller.environment)
        open_run(self, self.out, self.overwrite, {"checkpoint": source, **origin.inputs()})
        parts = [windows(episodes, config.n_obs_steps, config.horizon) for episodes in (demos, *earlier)]
        for number in range(1, self.rounds + 1):
            folder = self.out / f"round-{number}"
            labelled, cost = self._labelled(folder, number, first, policy, labeller)
            parts.append(windows(labelled, config.n_obs_steps, config.horizon))
            spent = {name: spent[name] + cost[name] for name in spent}
            origin = replace(origin, rollouts=(*origin.rollouts, folder / "rollouts"))
            about = provenance(
                self, method="correct", round=number, parent=os.path.relpath(source, self.out),
                parent_train_s=train_s, threads=threads, **origin.noted(self.out), **spent,
            )  # fmt: skip
            stage = self._stage(folder, labeller.environment, number, len(origin.rollouts), about)
            stage = replace(stage, validation=validation)
            policy = train(policy, Windows.concat(parts), self.optimiser, stage)
            train_s += float(load_checkpoint(folder / "checkpoint").provenance["train_s"])
        final = copy_checkpoint(folder / "checkpoint", self.out / "checkpoint")
        print(f"checkpoint: {final}   try: {program()} evaluate {self.out}")
        if validation is not None:
            self._keep_best()
        return final

    def _validation(self, policy: Policy, environment: str) -> Validation | None:
        """What every round is validated on, the same episodes, so that rounds can be compared; None: nothing."""
        from diffpolicy.recipes.validation import Validation, playable

        if not self.validation_episodes:
            return None
        known = conditions_in(environment, self.conditions)
        seeds = playable(policy, environment, self.seed, self.validation_episodes, known)
        return Validation(self.validate_every, None, seeds, known)

    def _keep_best(self) -> None:
        """Copy the best policy of all rounds to ``best``; of two that are equal, the later."""
        from diffpolicy.policy.checkpoint import copy_checkpoint
        from diffpolicy.recipes.validation import best_line, chosen_in

        best: tuple[float, Path] | None = None
        for folder in (self.out / f"round-{number}" / "best" for number in range(1, self.rounds + 1)):
            chosen = chosen_in(folder)
            if chosen is None:
                print(best_line(folder.parent))
            elif best is None or chosen["figure"] >= best[0]:
                best = chosen["figure"], folder
        if best is not None:
            copy_checkpoint(best[1], self.out / "best")
        print(best_line(self.out))

    def _stage(self, folder: Path, environment: str, number: int, aggregated: int, about: dict[str, Any]) -> Stage:
        """A round's training; its seed counts the rounds of all corrections, so that none repeats another's draws."""
        from diffpolicy.recipes.training import Stage

        seed = self.seed + 1000 * aggregated
        title = f"correction round {number}"
        return Stage(folder, environment, self.steps, self.batch_size, seed, self.checkpoint_every, title, about)

    def _unused(self, earlier: Sequence[Sequence[Episode]]) -> int:
        """The number of the first episode that no earlier correction with this seed has played."""
        from diffpolicy.rollout.seeds import episode_seeds

        played = {episode.seed for episodes in earlier for episode in episodes}
        first = 0
        while clash := played.intersection(
            seeds := episode_seeds("correction", self.seed, self.rounds * self.rollouts, first)
        ):
            first += max(clash) - seeds.start + 1
        return first

    def _labelled(
        self, folder: Path, number: int, first: int, policy: Policy, labeller: Actor
    ) -> tuple[list[Episode], dict[str, int]]:
        """A round's labelled rollouts, from disk where they are complete, and their cost."""
        from diffpolicy.data.dataset import read_dataset
        from diffpolicy.recipes.playing import keep

        path = folder / "rollouts"
        if not path.is_dir():
            played, cost = self._play(number, first, policy, labeller)
            if not cost.queries:
                raise InputError(
                    f"none of the {len(played)} episodes of round {number} has a labelled state, so that nothing would "
                    "be learned; use more --rollouts, a smaller --label-every, or longer episodes"
                )
            about = provenance(
                self, round=number, expert_queries=cost.queries, env_steps=cost.env_steps + sum(map(len, played))
            )
            told = f"rollouts of round {number}, labelled by {labeller.name}"
            keep(path, played, labeller.environment, told, about)
        dataset = read_dataset(path)
        return dataset.episodes, {name: int(dataset.provenance[name]) for name in ("expert_queries", "env_steps")}

    def _play(self, number: int, first: int, policy: Policy, labeller: Actor) -> tuple[list[Episode], Cost]:
        """Roll out under each condition and label; the cost of all."""
        from diffpolicy.recipes.progress import EpisodeProgress
        from diffpolicy.rollout.correction import play_and_label
        from diffpolicy.rollout.labeller import Cost
        from diffpolicy.rollout.seeds import episode_seeds

        known = conditions_in(labeller.environment, self.conditions)
        seeds = episode_seeds("correction", self.seed, self.rollouts, start=first + (number - 1) * self.rollouts)
        episodes: list[Episode] = []
        cost = Cost()
        with EpisodeProgress(self.rollouts, f"rollouts of round {number}") as progress:
            for index, condition in enumerate(known):
                share = list(seeds[index :: len(known)])
                played, paid = play_and_label(
                    labeller.environment,
                    policy,
                    labeller.make,
                    share,
                    condition=condition,
                    method=self.method,
                    beta=self.beta**number,
                    every=self.label_every,
                    seed=self.seed,
                    finished=progress,
                    dropped=progress.dropped,
                )
                episodes += played
                cost = cost + paid
        return episodes, cost
