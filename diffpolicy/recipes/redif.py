"""ReDiF: a student of few steps learns by reinforcement, the steps of its chain being what it is rewarded for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpolicy.errors import InputError
from diffpolicy.policy import ActingConfig
from diffpolicy.recipes.checks import checked_training
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.lineage import Lineage, lineage, relocated, spent_on, teacher_of
from diffpolicy.recipes.pairs import require_pair
from diffpolicy.recipes.redif_checks import require_sensible
from diffpolicy.recipes.run import CONDITIONS_BY_DEFAULT, conditions_in, open_run, program, provenance, use_threads
from diffpolicy.updates import PolicyGradientConfig, RewardConfig

if TYPE_CHECKING:
    from diffpolicy.policy.policy import Policy
    from diffpolicy.recipes.training import Stage
    from diffpolicy.recipes.validation import Validation
    from diffpolicy.updates.judged import Judge
    from diffpolicy.updates.policy_gradient import PolicyGradient

__all__ = ["Redif"]

_FEWEST = 4  # steps of a student that predicts the noise
_EPISODES = 400_000  # of one run, so that they stay their own
_FIRST = 600_000  # of a seed's episodes for correction: the ones before it are the teacher's and of distillation


@dataclass(frozen=True)
class Redif:
    """Reinforce a student of few steps (ReDiF, arXiv 2512.22802): its chain's steps are actions, paid at their end.

    It begins with its teacher's weights, or as a student that was distilled before. With `--optimiser.last-steps` and
    more steps it is DPPO (arXiv 2409.00588).
    """

    checkpoint: Path = Path("runs/bc")
    """The teacher, or a student to go on with: a checkpoint folder, or the run that holds it."""
    out: Path = Path("runs/redif")
    """Folder of the run."""
    student_steps: int | None = None
    """Steps of the student; by default 2, or those of the student that it goes on with."""
    reward: RewardConfig = field(default_factory=RewardConfig)
    """What it is rewarded for; success and environment need rollouts."""
    observations: Literal["own", "data"] = "own"
    """own: those that the student meets as it plays; data: those of a dataset, without an environment."""
    gradient: Literal["policy", "path"] = "policy"
    """policy: of what the student tries out, whatever it is rewarded for; path: of the rewards themselves, through the
    whole chain, as far as they are functions of chunks (the control that needs no exploration)."""
    baseline: Literal["critic", "group"] = "critic"
    """What an own decision is compared with: the critic's expectation, or episodes that began alike."""
    group: int = 8
    """Chains of each observation, or episodes of each start, that are compared."""
    rollouts: int = 128
    """Episodes an update, shared among the conditions, of own observations."""
    windows: int = 128
    """Observations an update, of data."""
    conditions: tuple[str, ...] = CONDITIONS_BY_DEFAULT
    """Disturbances to play under; those that the environment does not know are left out."""
    environment: str | None = None
    """Gymnasium id; by default the checkpoint's."""
    teacher: Path | None = None
    """Whom agreement and likeness compare with; by default the checkpoint, or the teacher of that student."""
    teacher_steps: int = 50
    """Steps of that teacher, noiseless, at least."""
    data: Path | None = None
    """Dataset to take observations and demonstrations from; by default what the teacher was trained on."""
    optimiser: PolicyGradientConfig = field(default_factory=PolicyGradientConfig)
    """How it is trained."""
    steps: int = 100
    """Updates: each a batch of chains, and some passes over it."""
    batch_size: int = 128
    """Demonstrations a step, where the student is held near them."""
    seed: int = 0
    """Of episodes, noise and order."""
    checkpoint_every: int = 10
    """Updates between checkpoints."""
    validation_episodes: int = 0
    """Episodes, shared among the conditions, that the student plays at each validation; 0: none."""
    validate_every: int = 10
    """Updates between validations, of which the best student is kept in OUT/best."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Reinforce (or go on) and return the student's checkpoint folder."""
        checked_training(self)
        require_sensible(self)
        with claimed(self.out):
            return self._redif()

    def _redif(self) -> Path:
        from diffpolicy.diffusion.exploring import Exploring
        from diffpolicy.policy.checkpoint import checkpoint_of, load_checkpoint
        from diffpolicy.recipes.playing import require_playable
        from diffpolicy.recipes.validation import best_line
        from diffpolicy.updates.distilling import chains_of
        from diffpolicy.updates.judged import Judge

        source = checkpoint_of(self.checkpoint)
        loaded = load_checkpoint(source)
        environment = self.environment or loaded.environment or ""
        student, teacher, taught = self._pair(source)
        if self.observations == "own":
            require_playable(student.spaces, environment, source, self.conditions)
        origin = self._origin(source, loaded.provenance)
        threads = use_threads(self.threads)
        explore = Exploring(chains_of(student), self.optimiser.explore)
        judge = Judge(student, explore, teacher, max(self.teacher_steps, len(explore)), self.reward)
        spent, train_s = spent_on(source, loaded.provenance)
        noted = self._noted(origin, source, loaded.provenance)
        if student.config == loaded.policy.config and taught == source:  # its own teacher, whoever that was
            noted |= {"teacher": relocated(source, loaded.provenance, self.out).get("teacher")}
        else:
            noted |= {"teacher": os.path.relpath(taught, self.out)}
        about = provenance(
            self, method="redif", parent=os.path.relpath(source, self.out),
            parent_train_s=train_s, threads=threads, **noted, **spent,
        )  # fmt: skip
        stage = self._stage(environment, about, self._validation(student, environment))
        with ExitStack() as opened:
            if origin is None or self.observations == "own":
                train = self._playing(student, judge, environment, origin, spent["env_steps"], opened)
            else:
                train = self._judging(student, judge, origin)
            inputs = {"checkpoint": source, "teacher": taught, **({} if origin is None else origin.inputs())}
            open_run(self, self.out, self.overwrite, inputs)
            train(stage)
        print(f"checkpoint: {self.out / 'checkpoint'}   try: {program()} evaluate {self.out}")
        if stage.validation is not None:
            print(best_line(self.out))
        return self.out / "checkpoint"

    def _playing(
        self, student: Policy, judge: Judge, environment: str, origin: Lineage | None, spent: int, opened: ExitStack
    ) -> Callable[[Stage], Policy]:
        """Training on what the student meets as it plays."""
        from diffpolicy.recipes.playing import require_success
        from diffpolicy.recipes.training import finish
        from diffpolicy.rollout.seeds import episode_seeds
        from diffpolicy.updates.played import Rollouts

        members = 1 if self.baseline == "critic" else self.group
        count = self.rollouts // members

        def seeds(index: int) -> range:
            return episode_seeds("correction", self.seed, count, start=_FIRST + index * count)

        if self.steps * count > _EPISODES:
            raise InputError(
                f"expected at most {_EPISODES} episodes in all, got {self.steps} x {count}; lower steps or rollouts"
            )
        known = conditions_in(environment, self.conditions)
        if count < len(known):
            raise InputError(
                f"expected an episode{' of each start' if members > 1 else ''} for each of {len(known)} conditions an "
                f"update, got {count}; raise rollouts"
            )
        if self.reward.success and not self.reward.environment and not judge.needed:
            require_success(student, environment, seeds(0)[:1])
        update = self._update(student, origin)
        chains = Rollouts(update, judge, self.reward, environment, known, seeds, members, spent)
        opened.callback(chains.close)
        return partial(finish, update, chains, companions={"judge": judge, "rollouts": chains})

    def _judging(self, student: Policy, judge: Judge, origin: Lineage) -> Callable[[Stage], Policy]:
        """Training on observations of data."""
        from diffpolicy.data.windows import Windows
        from diffpolicy.recipes.observed import observed
        from diffpolicy.recipes.training import finish
        from diffpolicy.updates.judged import Judged, Observed
        from diffpolicy.updates.pathwise import Pathwise

        seen = Observed(student, Windows.concat(observed(origin, student)), self.windows, self.seed)
        if self.gradient == "path":
            path = Pathwise(student, self.steps, judge, seen, self.optimiser.lr, self.optimiser.grad_clip)
            return partial(finish, path, seen, companions={"judge": judge})
        update = self._update(student, origin)
        return partial(finish, update, Judged(update, judge, seen, self.group), companions={"judge": judge})

    def _update(self, student: Policy, origin: Lineage | None) -> PolicyGradient:
        """The policy gradient, with a critic and demonstrations where they are asked for."""
        from diffpolicy.data.source import shuffled
        from diffpolicy.data.windows import Windows
        from diffpolicy.recipes.observed import observed
        from diffpolicy.updates.critic import Critic
        from diffpolicy.updates.policy_gradient import PolicyGradient

        criticised = self.observations == "own" and self.baseline == "critic"
        critic = Critic(student, self.optimiser, self.seed) if criticised else None
        demos = None
        if self.optimiser.demos and origin is not None:
            demos = shuffled(Windows.concat(observed(origin, student, actions=True)), self.batch_size, self.seed)
        return PolicyGradient(student, self.steps, self.optimiser, critic, demos, self.seed)

    def _pair(self, source: Path) -> tuple[Policy, Policy, Path]:
        """The student as it begins, whom it is compared with, and that one's checkpoint folder."""
        from diffpolicy.policy.checkpoint import checkpoint_of, load_checkpoint
        from diffpolicy.updates.distilling import student_of

        loaded = load_checkpoint(source)
        begun, asked = loaded.policy.config.model == "student", self.student_steps
        if begun and asked not in (None, len(loaded.policy.sampler)):
            raise InputError(
                f"expected student_steps {len(loaded.policy.sampler)}, those of the student in {source}, or none, got "
                f"{asked}; begin with its teacher for another number"
            )
        student = loaded.policy if begun else student_of(loaded.policy, 2 if asked is None else asked)
        if student.config.prediction == "eps" and len(student.sampler) < _FEWEST:
            raise InputError(
                f"expected {_FEWEST} steps or more of a student that predicts the noise, as the policy in {source} "
                f"does, got {len(student.sampler)}: its first step is all noise, and teaches nothing; `diffpolicy "
                "distil` that policy first, and go on with the student"
            )
        compared = self.reward.agreement or self.reward.likeness
        if self.teacher is not None:
            taught = checkpoint_of(self.teacher)
        else:
            taught = teacher_of(source, loaded.provenance) if begun and compared else source
        teacher = load_checkpoint(taught).policy if compared else student
        if student.config.acting != ActingConfig():
            raise InputError(
                f"expected a policy whose chunks replace one another, got {student.config.acting} in {source}; write "
                "it with the usual settings by `diffpolicy change`, and give them to the student afterwards"
            )
        if compared:
            require_pair(student, teacher, taught)
        return student, teacher, taught

    def _origin(self, source: Path, noted: Mapping[str, Any]) -> Lineage | None:
        """What observations or demonstrations come from; None where none are needed."""
        if self.data is not None:
            return Lineage(self.data)
        needed = self.observations == "data" or self.optimiser.demos
        return lineage(source, noted) if needed else None

    def _noted(self, origin: Lineage | None, source: Path, noted: Mapping[str, Any]) -> dict[str, Any]:
        """What the provenance says of the data that the student goes back to."""
        if origin is not None:
            return origin.noted(self.out)
        moved = relocated(source, noted, self.out)
        return {name: moved[name] for name in ("dataset", "demonstrations", "rollouts") if name in moved}

    def _validation(self, student: Policy, environment: str) -> Validation | None:
        from diffpolicy.recipes.validation import Validation, playable

        if not self.validation_episodes:
            return None
        known = conditions_in(environment, self.conditions)
        seeds = playable(student, environment, self.seed, self.validation_episodes, known)
        return Validation(self.validate_every, None, seeds, known)

    def _stage(self, environment: str, about: dict[str, Any], validation: Validation | None) -> Stage:
        from diffpolicy.recipes.training import Stage

        return Stage(
            self.out, environment, self.steps, self.batch_size, self.seed, self.checkpoint_every, "reinforcement",
            about, validation, metric="reward", beside=("success", "held_out", "kl", "clipped"),
            log_every=1 if self.gradient == "policy" else 10,
        )  # fmt: skip
