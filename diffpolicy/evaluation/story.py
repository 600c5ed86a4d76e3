"""The quickstart's report: which numbers, pictures and videos it shows, and in what words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffpolicy.evaluation import plots
from diffpolicy.evaluation.evaluate import Evaluation
from diffpolicy.evaluation.report import Figure, Video, write_report
from diffpolicy.rollout.environment import Vector
from diffpolicy.rollout.faults import count_of
from diffpolicy.rollout.filming import film
from diffpolicy.rollout.predictor import Predictor, ScriptedExpert, everywhere
from diffpolicy.rollout.video import tile, write_video
from diffpolicy.training.logs import read_lines
from diffpolicy_envs.rendering import resolve_backend

__all__ = ["film_story", "tell"]

Makers = Mapping[str, Callable[[Vector], Predictor]]


def tell(
    out: Path,
    evaluations: Sequence[Evaluation],
    videos: Sequence[Video],
    costs: Mapping[str, Mapping[str, Any]],
    about: Mapping[str, Any],
    next_commands: Sequence[str],
) -> Path:
    """Draw and write ``report.html`` into the quickstart's folder."""
    last = evaluations[-1].method
    table = [
        e.table_row(
            seconds=costs[e.method].get("train_s"),
            expert_queries=costs[e.method].get("expert_queries"),
            env_steps=costs[e.method].get("env_steps"),
        )
        for e in evaluations
    ]
    facts = {
        "command": str(about["command"]) or "diffpolicy quickstart",
        "seconds": str(about["seconds"]),
        "seed": str(about["settings"]["seed"]),
        "machine": str(about["machine"]),
        "versions": ", ".join(f"{k} {v}" for k, v in about["versions"].items()),
        "commit": str(about["commit"]) or "installed package",
        "renderer": resolve_backend().reason,
    }
    if lost := [each for e in evaluations for each in e.dropped]:
        facts["dropped"] = count_of(lost)
    return write_report(
        out / "report.html",
        title="From demonstrations to a policy that survives",
        summary=_summary(evaluations, last, costs),
        table=table,
        figures=_figures(out, evaluations),
        videos=videos,
        facts=facts,
        next_commands=next_commands,
    )


def _of(evaluations: Sequence[Evaluation], method: str, condition: str) -> Evaluation:
    return next(e for e in evaluations if (e.method, e.condition) == (method, condition))


def _summary(evaluations: Sequence[Evaluation], last: str, costs: Mapping[str, Mapping[str, Any]]) -> str:
    def percent(method: str, condition: str) -> str:
        rate = _of(evaluations, method, condition).success
        return "–" if rate is None else f"{100 * rate.point:.0f}%"

    count = len(evaluations[0].episodes)
    return (
        f"A diffusion policy learned to pick a cube and place it on a disc by imitating scripted demonstrations. "
        f"Undisturbed it succeeds in {percent('bc', 'clean')} of {count} episodes. When the cube is knocked away and "
        f"the gripper forced open at a random moment, it succeeds in {percent('bc', 'shove')}: nobody showed it "
        f"states like these.\n\n"
        f"On-policy correction let it act, and asked the expert for a chunk of actions from each state that it "
        f"visited itself. It now succeeds in {percent(last, 'clean')} undisturbed and {percent(last, 'shove')} when "
        f"shoved, at the price of {costs[last]['expert_queries']:,} expert queries. The expert, on the same "
        f"episodes, reaches {percent('expert', 'clean')} and {percent('expert', 'shove')}."
    )


def _figures(out: Path, evaluations: Sequence[Evaluation]) -> list[Figure]:
    rounds = [e for e in evaluations if e.method != "expert"]
    methods = list(dict.fromkeys(e.method for e in rounds))
    points = [(methods.index(e.method), e.condition, e.success) for e in rounds if e.success is not None]
    experts = [e for e in evaluations if e.method == "expert"]
    references = {f"expert, {e.condition}": e.success for e in experts if e.success is not None}
    return [
        Figure(
            "Success against rounds of correction",
            "Round 0 is imitation alone. Bars are Wilson 95% intervals; all policies met the same episodes.",
            plots.svg(plots.success_against_rounds(points, references)),
        ),
        Figure(
            "Imitation",
            "Loss of the denoising regression against updates.",
            plots.svg(plots.learning_curve(read_lines(out / "bc" / "train.jsonl"))),
        ),
    ]


def film_story(out: Path, evaluations: Sequence[Evaluation]) -> list[Video]:
    """Expert, uncorrected and corrected policy in one episode under the same shove, and in one undisturbed."""
    from diffpolicy.policy.checkpoint import load_checkpoint

    print(f"filming six clips; renderer: {resolve_backend().reason}", flush=True)
    last = evaluations[-1].method
    makers: dict[str, Callable[[Vector], Predictor]] = {"expert": ScriptedExpert}
    for name, folder in (("imitation", out / "bc"), ("corrected", out / "checkpoint")):
        makers[name] = everywhere(load_checkpoint(folder).policy.eval())
    environment = evaluations[0].task
    videos = []
    for condition, caption in (
        ("shove", "The same episode under the same shove."),
        ("clean", "The same episode, undisturbed."),
    ):
        seed, chosen = _telling(evaluations, last, condition)
        clips = {name: film(environment, make, seed, condition) for name, make in makers.items()}
        labels = [clip.captions(name) for name, clip in clips.items()]
        path = write_video(out / "videos" / f"{condition}.mp4", tile([clip.frames for clip in clips.values()], labels))
        videos.append(Video(f"{condition.capitalize()}", f"{caption} {chosen} (reset seed {seed})", path))
    return videos


def _telling(evaluations: Sequence[Evaluation], last: str, condition: str) -> tuple[int, str]:
    """An episode that shows the difference, and words that say how it was chosen."""
    before = {e.seed: e for e in _of(evaluations, "bc", condition).episodes}
    wanted = condition != "shove"  # under the shove, one that imitation failed
    for a in _of(evaluations, last, condition).episodes:
        if a.seed in before and a.success and before[a.seed].success == wanted:
            which = "both policies solve" if wanted else "imitation fails and the corrected policy solves"
            return a.seed, f"Chosen for illustration: the first episode that {which}."
    return next(iter(before)), "The first evaluated episode."
