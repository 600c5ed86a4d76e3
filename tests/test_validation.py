"""Laws of validation: what is held out stays out, figures are functions of weights, the best is kept exactly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from diffpolicy import Bc, Collect, Correct, Evaluate
from diffpolicy.data.dataset import write_dataset
from diffpolicy.data.episode import Episode
from diffpolicy.data.split import held_out
from diffpolicy.data.windows import Windows, windows
from diffpolicy.diffusion import MLPConfig, SamplerConfig
from diffpolicy.errors import InputError
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec, load_checkpoint, load_train_state
from diffpolicy.policy.checkpoint import copy_checkpoint
from diffpolicy.recipes import validation
from diffpolicy.recipes.training import Stage, train
from diffpolicy.recipes.validation import Validation, best_line
from diffpolicy.training.logs import read_lines
from diffpolicy.updates import RegressionConfig
from diffpolicy.updates.regression import Regression
from diffpolicy.updates.validation import chosen, fixed_loss

CONFIG = PolicyConfig(
    horizon=4, n_action_steps=2, network=MLPConfig(width=8, blocks=1, time_dim=4), sampler=SamplerConfig(steps=2)
)
BOX = spaces.Box(-1, 1, (2,))
EVERYWHERE = spaces.Box(-np.inf, np.inf, (2,), np.float32)
STEPS = 24
SHOWN = {"train_loss", "val_loss", "val_success"}


def tiny(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    return Policy(CONFIG, SpaceSpec.from_spaces(BOX, BOX))


def episodes(count: int, seed: int = 0, length: int = 12) -> list[Episode]:
    """Episodes of which no two share a row."""
    random = np.random.default_rng(seed)
    tables = [random.uniform(-1, 1, (length + 1, 2)).astype(np.float32) for _ in range(count)]
    return [Episode({"observation": x}, x[1:], np.zeros(length, np.float32), True, False, True) for x in tables]


def table(count: int, seed: int = 0) -> Windows:
    return windows(episodes(count, seed), CONFIG.n_obs_steps, CONFIG.horizon)


def stage(folder: Path, plan: Validation | None, steps: int = STEPS) -> Stage:
    return Stage(folder, "", steps, 8, 0, 15, "training", {}, plan)


def run(folder: Path, plan: Validation | None, steps: int = STEPS) -> Path:
    train(tiny(), table(4), RegressionConfig(warmup=5), stage(folder, plan, steps))
    return folder


def weights(folder: Path, name: str = "checkpoint") -> bytes:
    return (folder / name / "model.safetensors").read_bytes()


def logged(folder: Path) -> dict[int, dict[str, float]]:
    """What each validation found, by updates made."""
    return {line["step"] + 1: line for line in read_lines(folder / "train.jsonl") if set(line) & SHOWN}


def plays(figures: Callable[[int], float]) -> Callable[..., tuple[float, int, int]]:
    """A double of `played`, whose call number n finds figures(n), from 0, and again from there where it is resumed."""

    def played(policy: Policy, environment: str, plan: Validation, finished: Any = None) -> tuple[float, int, int]:
        return figures(int(10_000 * float(next(policy.parameters()).detach().abs().sum()))), 7, 0

    return played


@pytest.fixture
def success(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Successes that depend on weights alone, of which several are equal."""
    found: list[float] = []

    def figure(number: int) -> float:
        found.append(number % 3 / 2)
        return found[-1]

    monkeypatch.setattr(validation, "played", plays(figure))
    return found


@pytest.mark.parametrize(("count", "share", "size"), [(2, 0.5, 1), (5, 0.1, 1), (20, 0.2, 4), (7, 0.9, 6)])
def test_a_share_of_whole_episodes_is_held_out_by_the_seed(count: int, share: float, size: int) -> None:
    splits = [held_out(count, share, seed) for seed in range(20)]
    assert splits == [held_out(count, share, seed) for seed in range(20)]
    assert all(len(set(split)) == size and split == sorted(split) for split in splits)
    assert set().union(*splits) == set(range(count))  # each has its chance


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (4, 0.1), (3, 0.9), (9, 0.0), (9, 1.0), (9, float("nan"))])
def test_a_split_that_leaves_a_side_empty_is_refused(count: int, share: float) -> None:
    with pytest.raises(InputError, match="expected"):
        held_out(count, share, 0)


def dataset(path: Path, count: int = 6) -> Path:
    """Demonstrations whose observations have no bounds; those that seed 0 holds out lie far from the others."""
    out = held_out(count, 0.3, 0)
    made = [
        replace(one, obs={"observation": one.obs["observation"] + 100 * (number in out)})
        for number, one in enumerate(episodes(count))
    ]
    return write_dataset(path, made, environment="", observation_space=EVERYWHERE, action_space=BOX)


def seen_in(tables: Windows) -> set[bytes]:
    return {row.tobytes() for obs in tables.obs.values() for row in obs.numpy()}


def test_what_is_held_out_is_neither_trained_on_nor_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables: list[Windows] = []

    def noted(one: Any, *rest: Any) -> Windows:
        tables.append(windows(one, *rest))
        return tables[-1]

    monkeypatch.setattr("diffpolicy.data.windows.windows", noted)
    bc = Bc(dataset(tmp_path / "demos"), tmp_path / "bc", policy=CONFIG, steps=6, batch_size=8, validation=0.3)
    bc()
    told, untold = tables
    assert not seen_in(told) & seen_in(untold)
    assert (len(told), len(untold)) == (4 * 12, 2 * 12)
    found = load_checkpoint(bc.out)
    assert found.provenance["held_out"] == held_out(6, 0.3, 0)
    centre, scale = found.policy.normaliser.ranges()
    assert float((centre.abs() + scale).max()) < 2  # the far ones would have made it a hundred
    replace(bc, out=tmp_path / "longer", steps=9)()
    assert load_checkpoint(tmp_path / "longer").provenance["held_out"] == found.provenance["held_out"]
    replace(bc, out=tmp_path / "other", seed=1)()
    assert load_checkpoint(tmp_path / "other").provenance["held_out"] != found.provenance["held_out"]


def test_the_fixed_loss_is_a_function_of_the_weights_and_changes_nothing() -> None:
    one, same = (Regression(tiny(), 10, seed=3) for _ in range(2))
    held, batch = table(3, 9), table(4).gather(torch.arange(8))
    index = chosen(held, len(held), 0)
    before = torch.get_rng_state()
    first = fixed_loss(one, one.policy, held, index)
    assert torch.equal(before, torch.get_rng_state())
    for _ in range(3):
        assert one(batch) == same(batch)
        fixed_loss(one, one.averaged(), held, index)
    other = Regression(tiny(), 99, RegressionConfig(lr=1.0, precision="bfloat16"), seed=8)
    assert fixed_loss(one, tiny(), held, index) == fixed_loss(other, tiny(), held, index) == first
    assert fixed_loss(one, one.averaged(), held, index) == fixed_loss(other, same.averaged(), held, index) != first
    with pytest.raises(InputError, match="at least one window"):
        fixed_loss(one, one.policy, held, index[:0])


def test_a_loss_on_many_windows_is_the_mean_over_their_real_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffpolicy.updates.validation.WINDOWS_AT_ONCE", 16)
    held, update = table(3), Regression(tiny(), 10)
    index = chosen(held, 2 * len(held), 0)
    assert sorted(index.tolist()) == sorted([*range(len(held))] * 2)
    probe = Regression(tiny(), 1, seed=validation_key())
    batches = [held.gather(rows) for rows in (index[:16], index[16:30])]
    losses = []
    for probe.step, batch in enumerate(batches):
        losses.append(float(probe.loss(batch).detach()))
    mean = np.average(losses, weights=[float(batch.mask.sum()) for batch in batches])
    assert fixed_loss(update, tiny(), held, index[:30]) == pytest.approx(mean, rel=1e-6)
    assert fixed_loss(update, tiny(), held, index[:16]) == losses[0] != losses[1]


def validation_key() -> int:
    from diffpolicy.updates import validation as fixed

    assert fixed._KEY >= 2**32  # above the seeds that training takes
    return fixed._KEY


def test_validation_is_logged_at_its_updates_and_leaves_training_as_it_is(tmp_path: Path, success: list[float]) -> None:
    plain = run(tmp_path / "plain", None)
    plan = Validation(7, table(2, 9), range(3))
    for name, each in (("loss", replace(plan, seeds=())), ("play", replace(plan, held=None)), ("both", plan)):
        folder = run(tmp_path / name, each)
        assert weights(folder) == weights(plain)
        assert sorted(logged(folder)) == [7, 14, 21, STEPS]
        every = read_lines(folder / "train.jsonl")
        usual = [{k: v for k, v in line.items() if k not in SHOWN} for line in every]
        assert [line for line in usual if line["step"] + 1 in (10, 20, STEPS)] == read_lines(plain / "train.jsonl")
        wanted = {"loss": {"train_loss", "val_loss"}, "play": {"val_success"}, "both": SHOWN}[name]
        assert all(wanted == set(line) & SHOWN for line in logged(folder).values())
    assert not (plain / "best").exists()
    assert set(load_train_state(plain / "checkpoint")) == {"update", "seconds"}
    both, loss = logged(tmp_path / "both"), logged(tmp_path / "loss")
    assert all(both[step]["val_loss"] == loss[step]["val_loss"] for step in both)
    assert load_checkpoint(tmp_path / "both").provenance["validation_env_steps"] == 7 * len(both)


def test_the_best_by_loss_is_the_last_of_the_lowest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Validation(4, table(2, 9))
    folder = run(tmp_path / "run", plan)
    found = {step: line["val_loss"] for step, line in logged(folder).items()}
    best = load_checkpoint(folder / "best").provenance
    assert best["chosen"]["figure"] == min(found.values()) == found[best["steps"]]
    assert best["chosen"]["by"] == "val_loss"
    assert weights(run(tmp_path / "last", plan), "best") == weights(folder, "best")
    for figures, step in (((3.0, 1.0, 1.0, 2.0), 12), ((float("nan"), 5.0, 6.0, float("nan")), 8)):
        left = iter([x for figure in figures for x in (0.0, figure)])
        monkeypatch.setattr(validation, "fixed_loss", lambda *_: next(left))  # noqa: B023
        folder = run(tmp_path / str(step), plan, 16)
        assert load_checkpoint(folder / "best").provenance["steps"] == step
        assert load_checkpoint(folder).provenance["steps"] == 16
        assert load_checkpoint(folder).provenance["best"]["step"] == step


def test_the_best_by_success_is_the_last_of_the_highest_whatever_the_loss(tmp_path: Path, success: list[float]) -> None:
    folder = run(tmp_path / "run", Validation(3, table(2, 9), range(5)))
    found = {step: line["val_success"] for step, line in logged(folder).items()}
    assert len(set(success)) > 1
    chosen = load_checkpoint(folder / "best").provenance["chosen"]
    assert (chosen["by"], chosen["figure"]) == ("val_success", max(found.values()))
    assert chosen["step"] == max(step for step, figure in found.items() if figure == max(found.values()))
    assert chosen["val_loss"] == logged(folder)[chosen["step"]]["val_loss"]


@pytest.mark.parametrize("stop", [1, 6, 20])
@pytest.mark.parametrize("where", ["before an update", "within a validation"])
def test_interrupted_training_keeps_the_same_best_and_the_same_log(
    stop: int, where: str, tmp_path: Path, success: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Validation(3, table(2, 9), range(5))
    whole = run(tmp_path / "whole", plan)
    call, judge = Regression.__call__, validation.fixed_loss

    def before(self: Regression, batch: Any) -> Any:
        if self.step == stop:
            raise KeyboardInterrupt
        return call(self, batch)

    def amid(update: Regression, *rest: Any) -> float:
        if update.step >= stop:
            raise KeyboardInterrupt
        return judge(update, *rest)

    with monkeypatch.context() as patch:
        if where == "before an update":
            patch.setattr(Regression, "__call__", before)
        else:
            patch.setattr(validation, "fixed_loss", amid)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", plan)
    run(tmp_path / "run", plan)
    assert weights(tmp_path / "run") == weights(whole)
    assert weights(tmp_path / "run", "best") == weights(whole, "best")
    one, other = (load_checkpoint(tmp_path / name / "best").provenance["chosen"] for name in ("run", "whole"))
    assert one == other
    assert read_lines(tmp_path / "run" / "train.jsonl") == read_lines(whole / "train.jsonl")
    assert load_checkpoint(tmp_path / "run").provenance["validation_env_steps"] == 7 * len(logged(whole))


def test_training_does_not_go_on_without_the_best_that_it_would_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, call = Validation(3, table(2, 9)), Regression.__call__
    with monkeypatch.context() as patch:
        patch.setattr(Regression, "__call__", lambda self, batch: call(self, batch) if self.step < 17 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, plan)
    (tmp_path / "best" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"the best policy up to now, of step \d+.*--overwrite"):
        run(tmp_path, plan)
    shutil.rmtree(tmp_path / "best")
    copy_checkpoint(tmp_path / "checkpoint", tmp_path / "best")
    with pytest.raises(InputError, match="one that this training did not choose"):
        run(tmp_path, plan)


TASK = "diffpolicy/PickPlace-v0"


def test_a_policy_that_no_validation_chose_is_not_taken_for_the_best(
    tmp_path: Path, success: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, Validation(2, None, (1, 2)))
    copy_checkpoint(tmp_path / "checkpoint", tmp_path / "other" / "best")
    assert best_line(tmp_path / "other").startswith("note: ")
    assert best_line(tmp_path).startswith("best: ")
    assert best_line(tmp_path / "nowhere").startswith("note: ")


@pytest.fixture(scope="module")
def imitation(tmp_path_factory: pytest.TempPathFactory) -> Bc:
    """A finished run that validated both ways, with its settings."""
    root = tmp_path_factory.mktemp("validated")
    collect = Collect(out=root / "demos", episodes=4)
    collect()
    bc = Bc(
        collect.out, root / "bc", policy=CONFIG, steps=12, batch_size=8, validation=0.25, validation_episodes=2,
        validate_every=5,
    )  # fmt: skip
    bc()
    return bc


def test_the_best_of_a_run_is_evaluated_beside_its_last(imitation: Bc) -> None:
    assert sorted(logged(imitation.out)) == [5, 10, 12]
    assert load_checkpoint(imitation.out / "best").environment == TASK
    paths = [Evaluate(str(imitation.out / name), episodes=1, conditions=("clean",))() for name in ("", "best")]
    assert [path.name for path in paths] == ["evaluation.json", "evaluation-best.json"]
    assert [json.loads(path.read_text())["rows"][0]["method"] for path in paths] == ["bc", "bc-best"]
    before = weights(imitation.out, "best")
    assert imitation() == imitation.out / "checkpoint"  # finished before
    assert weights(imitation.out, "best") == before
    with pytest.raises(InputError, match=r"validation: 0\.25 there, 0\.0 now"):
        replace(imitation, validation=0.0)()


def test_a_correction_keeps_the_best_of_all_its_rounds(
    imitation: Bc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left = iter([0.0, 0.5, 0.0, 0.5, 0.0])  # the try before the work, then two validations of each round
    seen: list[tuple[Any, ...]] = []

    def played(policy: Policy, environment: str, plan: Validation, *_: Any) -> tuple[float, int, int]:
        seen.append((tuple(plan.seeds), plan.conditions))
        return next(left), 1, 0

    monkeypatch.setattr(validation, "played", played)
    correct = Correct(
        imitation.out / "best", tmp_path / "c", rounds=2, rollouts=2, steps=4, batch_size=8, validation_episodes=3,
        validate_every=2,
    )  # fmt: skip
    correct()
    assert {conditions for _, conditions in seen} == {("clean", "shove")}
    assert len({seeds for seeds, _ in seen[1:]}) == 1
    best = load_checkpoint(correct.out / "best").provenance
    assert (best["round"], best["chosen"]["step"], best["chosen"]["figure"]) == (2, 2, 0.5)
    assert weights(correct.out, "best") == weights(correct.out / "round-2", "best") != weights(correct.out)
    shutil.rmtree(correct.out / "round-2" / "best")
    capsys.readouterr()
    left = iter([0.0])
    correct()  # finished before: only the best is sought anew
    assert "round-2" in (told := capsys.readouterr().out)
    assert "is not there" in told
    assert load_checkpoint(correct.out / "best").provenance["round"] == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"validation": 0.1}, "a share of 0.1"),
        ({"validation": 1.5}, "above 0 and below 1"),
        ({"validation": -0.1}, "above 0 and below 1"),
        ({"validate_every": 0}, "validate_every >= 1"),
        ({"validation_episodes": -1}, "validation_episodes >= 0"),
        ({"validation": 0.0, "validation_episodes": 0}, "--validation or --validation-episodes with validate_every 5"),
        ({"validation_episodes": 1, "seed": 500}, r"seed in 0\.\.499"),
        ({"validation_episodes": 1, "environment": "Pendulum-v1"}, "the data are not of"),
    ],
)
def test_what_cannot_be_validated_is_refused_before_anything_is_made(
    imitation: Bc, tmp_path: Path, changes: dict[str, Any], match: str
) -> None:
    with pytest.raises(InputError, match=match):
        replace(imitation, out=tmp_path / "bc", **changes)()
    assert not (tmp_path / "bc").exists()


def test_an_environment_that_says_nothing_of_success_cannot_choose(tmp_path: Path) -> None:
    env = gymnasium.make("Pendulum-v1")
    seen, done = env.observation_space, env.action_space
    env.close()
    rows, actions = (np.stack([space.sample() for _ in range(n)]) for space, n in ((seen, 6), (done, 5)))
    one = Episode({"observation": rows}, actions, np.zeros(5, np.float32), False, True, False)
    about = {"environment": "Pendulum-v1", "observation_space": seen, "action_space": done}
    path = write_dataset(tmp_path / "demos", [one], **about)
    with pytest.raises(InputError, match="reports success"):
        Bc(path, tmp_path / "bc", policy=CONFIG, steps=2, validation_episodes=2)()
    assert not (tmp_path / "bc").exists()
