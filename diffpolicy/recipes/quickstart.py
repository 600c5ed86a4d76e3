"""Quickstart: demonstrations, imitation, on-policy correction, evaluation, videos and a report, by one command."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffpolicy.errors import InputError
from diffpolicy.policy.files import write_json
from diffpolicy.recipes.bc import Bc
from diffpolicy.recipes.claim import claimed
from diffpolicy.recipes.collect import Collect
from diffpolicy.recipes.correct import Correct
from diffpolicy.recipes.lineage import relocated
from diffpolicy.recipes.run import open_run, program, provenance, use_threads
from diffpolicy.rollout.seeds import episode_seeds

if TYPE_CHECKING:
    from diffpolicy.evaluation.evaluate import Evaluation

__all__ = ["Quickstart"]

ENVIRONMENT = "diffpolicy/PickPlace-v0"
CONDITIONS = ("clean", "shove")


@dataclass(frozen=True)
class Quickstart:
    """Teach a diffusion policy to pick and place, see it fail when shoved, correct it, and see it survive."""

    out: Path = Path("runs/quickstart")
    """Folder of everything."""
    demonstrations: int = 20
    """Scripted demonstrations."""
    rounds: int = 3
    """Rounds of on-policy correction."""
    episodes: int = 200
    """Evaluation episodes per policy and condition."""
    seed: int = 0
    """Of everything."""
    size: Literal["full", "tiny"] = "full"
    """tiny: a few updates and episodes, to see that an installation works; its numbers mean nothing."""
    threads: int = 0
    """Threads of torch; 0 takes one."""
    overwrite: bool = False
    """Replace the run that is in --out."""

    def __call__(self) -> Path:
        """Run (or go on with) all stages and return the report."""
        if min(self.demonstrations, self.rounds, self.episodes) < 1:
            raise InputError(
                f"expected demonstrations, rounds and episodes >= 1, got {self.demonstrations}, {self.rounds} and "
                f"{self.episodes}"
            )
        episode_seeds("evaluation", self.seed, self.episodes)  # seed and count are good
        use_threads(self.threads)
        with claimed(self.out):
            return self.resolved()._run()

    def _run(self) -> Path:
        began = time.perf_counter()
        open_run(self, self.out, self.overwrite)
        report = self.out / "report.html"
        if report.is_file():
            print(f"finished before: open {report}, or add --overwrite to run it again")
            return report
        self.train()
        evaluations = self.evaluations()
        report = self._publish(evaluations, began)
        self._farewell(evaluations, report, time.perf_counter() - began)
        return report

    def train(self) -> None:
        """Collect, imitate and correct, or go on with it."""
        use_threads(self.threads)
        for stage in self.stages():
            stage()

    def stages(self) -> tuple[Collect, Bc, Correct]:
        """The recipes that this one chains, with their settings."""
        collect = Collect(ENVIRONMENT, self.out / "demos", self.demonstrations, seed=self.seed)
        bc = Bc(collect.out, self.out / "bc", seed=self.seed, threads=self.threads)
        correct = Correct(
            bc.out, self.out / "correct", rounds=self.rounds, conditions=CONDITIONS, seed=self.seed,
            threads=self.threads,
        )  # fmt: skip
        if self.size == "tiny":
            bc = replace(bc, steps=40, batch_size=32)
            correct = replace(correct, steps=20, batch_size=32, rollouts=2)
        return collect, bc, correct

    def resolved(self) -> Quickstart:
        """The same with the numbers that a tiny size takes where none was asked for."""
        if self.size == "full":
            return self
        small = {"demonstrations": 2, "rounds": 1, "episodes": 4}
        usual = {f.name: f.default for f in fields(self)}
        return replace(self, **{name: n for name, n in small.items() if getattr(self, name) == usual[name]})  # type: ignore[arg-type]

    def evaluations(self) -> list[Evaluation]:
        """The expert, the uncorrected policy and each round, on the same seeds."""
        from diffpolicy.recipes.evaluate import measured

        correct = self.out / "correct"
        who: dict[str, str | Path] = {"expert": "expert", "bc": self.out / "bc"}
        who |= {f"correct, round {n}": correct / f"round-{n}" for n in range(1, self.rounds + 1)}
        evaluations = []
        for method, actor in who.items():
            evaluations += measured(actor, ENVIRONMENT, CONDITIONS, self.episodes, self.seed, method=method)
        return evaluations

    def _publish(self, evaluations: list[Evaluation], began: float) -> Path:
        """results.json, checkpoint/, videos/ and report.html."""
        from diffpolicy.evaluation.story import film_story, tell
        from diffpolicy.policy.checkpoint import load_checkpoint, save_checkpoint

        final = load_checkpoint(self.out / "correct" / "checkpoint")
        save_checkpoint(
            final.policy,
            self.out / "checkpoint",
            environment=final.environment,
            provenance={**relocated(final.folder, final.provenance, self.out), "parent": "correct"},
        )
        costs = self.costs()
        videos = film_story(self.out, evaluations)
        about = provenance(self, seconds=round(time.perf_counter() - began, 1))
        content = {
            **about,
            "rows": [e.row(**costs[e.method]) for e in evaluations],
            "episodes": [row for e in evaluations for row in e.rows()],
            "dropped": [row for e in evaluations for row in e.dropped_rows()],
        }
        write_json(content, self.out / "results.json")
        return tell(self.out, evaluations, videos, costs, about, self.next_commands())

    def costs(self) -> dict[str, dict[str, Any]]:
        """What each evaluated method took, its predecessors' share included."""
        costs = {"expert": dict.fromkeys(("train_s", "expert_queries", "env_steps")), "bc": self._cost("bc")}
        return costs | {f"correct, round {n}": self._cost(f"correct/round-{n}") for n in range(1, self.rounds + 1)}

    def _cost(self, folder: str) -> dict[str, Any]:
        from diffpolicy.policy.checkpoint import load_checkpoint

        origin = load_checkpoint(self.out / folder).provenance
        return {
            "train_s": round(origin["train_s"] + origin.get("parent_train_s", 0.0), 2),
            "expert_queries": origin["expert_queries"],
            "env_steps": origin["env_steps"],
        }

    def next_commands(self) -> list[str]:
        """Three commands to try after this one."""
        return [
            f"{program()} evaluate {self.out} --conditions all",
            f"{program()} video expert {self.out / 'bc'} {self.out} --condition slip --out runs/slip.mp4",
            f"{program()} correct --checkpoint {self.out / 'bc'} --out runs/slip --conditions clean slip dynamics",
        ]

    def _farewell(self, evaluations: list[Evaluation], report: Path, seconds: float) -> None:
        from diffpolicy.recipes.evaluate import print_table

        print_table(evaluations)
        if self.size == "tiny":
            print("\nA tiny run: its numbers show that everything works, and nothing else.")
        print(f"\nDone in {seconds:.0f} s. Open {report}")
        print(f"Checkpoint: {self.out / 'checkpoint'}   per-episode results: {self.out / 'results.json'}")
        print("\nTry next:")
        for command in self.next_commands():
            print(f"  {command}")
