"""Expert: a Stable-Baselines3 model that learns a gymnasium task, to demonstrate and to label there."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json, require_writable, write_bytes, write_json
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.run import open_run, program, provenance, use_threads, warn_of_endless

__all__ = ["PPO", "SAC", "TUNED", "Expert", "numbers_of", "returns"]

PPO: dict[str, Any] = {
    "copies": 8, "n_steps": 256, "batch_size": 128, "n_epochs": 10, "learning_rate": 3e-4, "annealed": True,
    "gamma": 0.99, "gae_lambda": 0.95, "clip_range": 0.2, "ent_coef": 0.0, "vf_coef": 0.5, "max_grad_norm": 0.5,
    "net_arch": (64, 64), "activation": "tanh",
}  # fmt: skip
"""PPO for continuous control (arXiv 1707.06347, table 3), its 2,048 steps over 8 copies, the rate falling to zero;
minibatches are 128, not 64, which nearly halves the time of an update."""

SAC: dict[str, Any] = {
    "copies": 1, "batch_size": 256, "learning_rate": 3e-4, "gamma": 0.99, "tau": 0.005, "learning_starts": 5_000,
    "net_arch": (64, 64), "activation": "relu",
}  # fmt: skip
"""SAC of rl-baselines3-zoo (hyperparams/sac.yml, MuJoCo), but layers of 64 units, not 256, and an earlier start."""

TUNED: dict[tuple[str, str], dict[str, Any]] = {
    ("ppo", "HalfCheetah-v5"): {
        "steps": 500_000, "n_steps": 64, "batch_size": 64, "n_epochs": 20, "learning_rate": 1e-4, "annealed": False,
        "gamma": 0.98, "gae_lambda": 0.92, "clip_range": 0.1, "ent_coef": 0.000401762, "vf_coef": 0.58096,
        "max_grad_norm": 0.8, "activation": "relu", "log_std_init": -2.0,
    },
    ("ppo", "Hopper-v5"): {"steps": 700_000},
    ("ppo", "Walker2d-v5"): {"steps": 700_000},
    ("ppo", "Reacher-v5"): {"gamma": 0.9, "gae_lambda": 1.0, "clip_range": 0.3, "max_grad_norm": 0.9, "steps": 300_000},
    ("ppo", "Pusher-v5"): {"gamma": 0.95, "log_std_init": -1.0, "steps": 300_000},
    ("sac", "Pusher-v5"): {"gamma": 0.95, "steps": 60_000},
}  # fmt: skip
"""What an environment wants otherwise, by (algorithm, id): discounts, clip, coefficients and the first deviation are
those of rl-baselines3-zoo (hyperparams/ppo.yml, HalfCheetah-v3, Reacher-v2); Pusher's, steps and rates are ours."""

_STEPS = {"ppo": 800_000, "sac": 200_000}
_MOST = 100_000_000


@dataclass(frozen=True)
class Expert:
    """Train a PPO or SAC expert with Stable-Baselines3 on an environment that has no expert of its own.

    Ctrl-C saves, and the same command goes on. That continuation is sound but not bit-exact: every copy of the
    environment starts a new episode, what PPO had gathered since its last update is gathered again, and random
    numbers go on from another seed. A training that is never interrupted repeats itself bit for bit on the same
    machine and versions.
    """

    environment: str = "Hopper-v5"
    """Gymnasium id; observations and actions are Boxes."""
    out: Path = Path("runs/expert")
    """Folder of the run: model.zip, evaluation.json."""
    algorithm: Literal["ppo", "sac"] = "ppo"
    """PPO wants many cheap steps, SAC few costly ones."""
    steps: int = 0
    """Environment steps; 0 takes the environment's default (800,000 for PPO, 200,000 for SAC, or fewer)."""
    episodes: int = 100
    """Episodes to evaluate on, none of which it was trained on."""
    seed: int = 0
    """Of initial weights, episodes and exploration."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Train (or go on training), evaluate, and return the model's zip file."""
        if not 0 <= self.steps <= _MOST or self.episodes < 2 or not 0 <= self.seed < 500:
            raise InputError(
                f"expected steps of 0 to {_MOST}, at least 2 episodes and a seed in 0..499, got steps {self.steps}, "
                f"episodes {self.episodes} and seed {self.seed}"
            )
        _require_boxes(self.environment)
        with claimed(self.out):
            return self._made()

    def _made(self) -> Path:
        model, result = self.out / "model.zip", self.out / "evaluation.json"
        if self.overwrite:
            _leave(self.out)
        open_run(self, self.out, self.overwrite)
        warn_of_endless(self.environment)
        use_threads(self.threads)
        if not model.is_file():
            require_writable(model)
            self._learn(model)
        if not result.is_file():
            self._evaluate(model, result)
        try:
            row = read_json(result)["rows"][0]
            mean, low, high = (f"{float(row[name]):.1f}" for name in ("return_mean", "ci_low", "ci_high"))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InputError(
                f"{result} is no evaluation of a model ({error!r:.80}); remove it, and the same command makes it anew"
            ) from error
        print(
            f"expert: {model}   return {mean} (95% of the mean: {low} to {high})   try: {program()} collect "
            f"--environment {self.environment} --expert {model} --keep-failures"
        )
        return model

    def _learn(self, model: Path) -> None:
        from diffpolicy.recipes.learner import Learner, Lesson

        state, numbers = self.out / "train-state.zip", numbers_of(self.algorithm, self.environment)
        steps = self.steps or numbers["steps"]
        del numbers["steps"]
        batch = int(numbers["copies"]) * int(numbers.get("n_steps", 1))
        if steps < batch:
            print(f"note: PPO learns from {batch:,} steps at a time, so that these are played, and not {steps:,}")
        learner = Learner(Lesson(self.environment, self.algorithm, steps, self.seed, numbers), state)
        with closing(learner.env):
            if 0 < learner.done < steps:
                print(f"{self.algorithm}: goes on from step {learner.done} of {steps}")
            if learner.done < steps:
                learner.learn(self.out / "train.jsonl")
            learner.save()  # should the next lines fail
            cost = {"env_steps": learner.done, "train_s": round(learner.seconds, 1)}
            made = learner.finished()
        write_json(
            {
                **provenance(self, method=self.algorithm, environment=self.environment, **cost),
                "hyperparameters": {**numbers, "steps": steps},
                "stable_baselines3": _version(),
            },
            self.out / "train.json",
        )
        write_bytes(made, model)
        state.unlink(missing_ok=True)

    def _evaluate(self, model: Path, result: Path) -> None:
        from diffpolicy.recipes.evaluate import measured

        trained = read_json(self.out / "train.json")
        (found,) = measured(model, self.environment, ("clean",), self.episodes, self.seed, method=self.algorithm)
        cost = {name: trained[name] for name in ("env_steps", "train_s")}
        row = {**found.row(**cost), **returns(found.episodes)}
        write_json({**provenance(self, trained=trained), "rows": [row], "episodes": found.rows()}, result)


def returns(episodes: Any) -> dict[str, float]:
    """Mean, its 95% bootstrap interval over episodes, and interquartile mean of the returns of episode rows.

    The interval covers new episodes of the same model, not newly trained ones.
    """
    import numpy as np

    from diffpolicy.evaluation.statistics import bootstrap, interquartile_mean

    values = np.array([episode.total_reward for episode in episodes])
    mean = bootstrap([values])
    numbers = {"return_mean": mean.point, "ci_low": mean.low, "ci_high": mean.high}
    return {k: round(float(v), 3) for k, v in {**numbers, "return_iqm": interquartile_mean(values)}.items()}


def numbers_of(algorithm: str, environment: str) -> dict[str, Any]:
    """The hyperparameters for an environment by Stable-Baselines3's names, and ``copies``, ``steps``, ``annealed``."""
    base = {"ppo": PPO, "sac": SAC}[algorithm]
    return {**base, "steps": _STEPS[algorithm], **TUNED.get((algorithm, environment), {})}


def _require_boxes(environment: str) -> None:
    """Raises InputError where an environment is unknown, has other than Boxes of one axis, or breaks at once."""
    from gymnasium import spaces

    from diffpolicy.rollout.environment import make_vector
    from diffpolicy.rollout.faults import FAULT

    with closing(make_vector(environment, 1)) as env:
        seen = env.single_observation_space
        if not isinstance(seen, spaces.Box) or len(seen.shape) != 1:
            raise InputError(
                f"{environment} has observations of {seen}; expected a Box of one axis: flatten them with "
                "gymnasium.wrappers.FlattenObservation in an environment of your own"
            )
        moves = env.single_action_space
        if not isinstance(moves, spaces.Box) or len(moves.shape) != 1 or not moves.is_bounded():
            raise InputError(f"{environment} has actions of {moves}; expected a Box of one axis with finite bounds")
        _, info = env.reset(seed=[0])  # type: ignore[arg-type]
        if FAULT not in info:
            *_, info = env.step(((moves.low + moves.high) / 2)[None])
        if FAULT in info:
            raise InputError(f"{environment} broke at once: {info[FAULT][0]}; mend it first")


def _leave(out: Path) -> None:
    """Delete the model of an earlier run of this recipe, which is to be replaced."""
    record = out / "run.json"
    if record.is_file() and read_json(record).get("recipe") == "expert":
        for name in ("model.zip", "train-state.zip"):
            (out / name).unlink(missing_ok=True)


def _version() -> str:
    from importlib.metadata import version

    return version("stable-baselines3")
