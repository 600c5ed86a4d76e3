"""Laws of an evaluation: each number is that of its episodes, what was dropped is told, what is unknown is no zero."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from diffpolicy import cli
from diffpolicy.errors import InputError
from diffpolicy.evaluation.evaluate import Evaluation, evaluate
from diffpolicy.evaluation.report import write_report
from diffpolicy.evaluation.seams import seam_jerk
from diffpolicy.recipes.evaluate import print_table
from diffpolicy.rollout.environment import make_vector
from diffpolicy.rollout.faults import Dropped
from diffpolicy.rollout.loop import play

BOX = spaces.Box(-100.0, 100.0, (2,), np.float32)


class Quiz(gymnasium.Env[Any, Any]):
    """Six steps; breaks in the fourth where seed % every == 0; says success, fails to, or says nothing."""

    observation_space, action_space = BOX, spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, every: int = 10**6, says: bool = True) -> None:
        self.every, self.says = every, says

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seed, self.time = seed or 0, 0
        return np.array([self.seed % 100, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        if self.time == 4 and self.seed % self.every == 0:
            raise RuntimeError("out of paper")
        info = {"success": False} if self.says else {}
        return np.array([self.seed % 100, self.time], np.float32), 1.0, False, self.time == 6, info


for name, options in {
    "Quiz-v0": {}, "QuizThird-v0": {"every": 3}, "QuizAlways-v0": {"every": 1}, "QuizSilent-v0": {"says": False}
}.items():  # fmt: skip
    if name not in gymnasium.registry:
        gymnasium.register(name, Quiz, kwargs=options, disable_env_checker=True)


class Still:
    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        return np.zeros((len(observation), 1), np.float32), None


def still(env: Any) -> Still:
    return Still()


def measured(environment: str, seeds: Any = range(1, 10), **options: Any) -> Evaluation:
    return evaluate(environment, still, list(seeds), method="still", num_envs=4, **options)


# -- what is dropped --------------------------------------------------------------------------------------------


def test_dropped_episodes_are_listed_and_in_no_other_number() -> None:
    seen: list[Dropped] = []
    result = measured("QuizThird-v0", dropped=seen.append)
    assert sorted(each.seed for each in result.dropped) == [3, 6, 9]
    assert tuple(seen) == result.dropped
    assert [row.seed for row in result.episodes] == [1, 2, 4, 5, 7, 8]
    row = result.row(train_s=3.0)
    assert (row["episodes"], row["dropped"], row["success"], row["train_s"]) == (6, 3, 0.0, 3.0)
    assert row["ci_high"] > 0.3  # of the six
    assert result.dropped_rows()[0] == {
        "method": "still", "environment": "QuizThird-v0", "condition": "clean", "seed": result.dropped[0].seed,
        "step": 4, "error": "RuntimeError: out of paper",
    }  # fmt: skip


def test_more_than_half_dropped_is_no_evaluation() -> None:
    with pytest.raises(InputError, match="more than half of 9 episodes are lost: 5 episodes dropped: 5 x QuizAlways"):
        measured("QuizAlways-v0")
    with pytest.raises(InputError, match="out of paper"):
        measured("QuizThird-v0", [3])
    assert len(measured("QuizThird-v0", [3, 4]).episodes) == 1  # half is not more than half


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What to type for somebody who stands still; the working folder is an empty one."""
    (tmp_path / "standing.py").write_text(
        "import numpy as np\n"
        "class Still:\n"
        "    def predict(self, observation, state=None, episode_start=None, deterministic=False):\n"
        "        return np.zeros((len(observation), 1), np.float32), state\n"
        "def still(env):\n"
        "    return Still()\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return "standing:still"


def command(actor: str, environment: str, *words: str) -> list[str]:
    return ["evaluate", actor, "--environment", environment, "--conditions", "clean", "--episodes", "9", *words]


def test_the_command_says_what_was_dropped(actor: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command(actor, "QuizThird-v0")) == 0
    captured = capsys.readouterr()
    assert "3 episodes dropped: 3 x QuizThird-v0, clean, reset seed 10" in captured.out
    assert "step 4: RuntimeError: out of paper" in captured.err
    (path,) = Path("runs").iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["rows"][0]["dropped"] == len(content["dropped"]) == 3
    assert len(content["episodes"]) == 6
    assert cli.main(command(actor, "QuizAlways-v0")) == 2
    assert "more than half" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_refused_before_the_work(
    actor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    assert cli.main(command(actor, "Quiz-v0", "--out", "taken")) == 2
    said = capsys.readouterr()
    assert "expected to write a file taken" in said.err
    assert "9/9" not in said.err
    assert cli.main(["video", "expert", "--environment", "Pendulum-v1", "--out", "standing.py/v.mp4"]) == 2
    assert "expected to write a file standing.py/v.mp4" in capsys.readouterr().err


# -- success ----------------------------------------------------------------------------------------------------


def test_an_unknown_success_is_a_dash_and_a_true_zero_stays_zero(
    actor: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero, unknown = measured("Quiz-v0"), measured("QuizSilent-v0")
    assert zero.success is not None
    assert (zero.row()["success"], zero.episodes[0].success) == (0.0, False)
    row = unknown.row()
    assert unknown.success is row["success"] is row["ci_low"] is row["ci_high"] is unknown.rows()[0]["success"] is None
    print_table([zero, unknown])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2:4] for line in lines if line.startswith("still")] == [["0.0%", "0-30"], ["-", "-"]]
    assert "the environment reports none" in lines[-1]
    for result, dashes in ((zero, 0), (unknown, 1)):
        page = write_report(tmp_path / "r.html", title="t", summary="s", table=[result.table_row()]).read_text("utf-8")
        assert page.count('<td class="success">–</td>') == dashes
        assert ("0.0% <small>" in page) == (not dashes)
        assert ("reports no success" in page) == bool(dashes)
    assert cli.main(command(actor, "QuizSilent-v0", "--out", "out.json")) == 0
    content = json.loads(Path("out.json").read_text(encoding="utf-8"))
    assert content["rows"][0]["success"] is content["episodes"][0]["success"] is None
    assert "success 0" not in capsys.readouterr().err


def test_tables_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    result = measured("Quiz-v0")
    print_table([Evaluation(**{**vars(result), "method": "correct, round 3", "condition": "action_delay", "nfe": 10})])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# -- cost -------------------------------------------------------------------------------------------------------


def test_an_episodes_calls_are_those_that_it_was_decided_in() -> None:
    record = play(make_vector("Quiz-v0", 2), Still(), [1, 2, 3])
    assert (record.begins, len(record.calls)) == ({1: 0, 2: 0, 3: 6}, 12)
    assert (record.calls > 0).all()
    result = measured("Quiz-v0", nfe=5, n_action_steps=4)
    assert [(row.nfe, row.network_calls, row.length) for row in result.episodes] == [(5, 10, 6)] * 9
    assert result.network_calls == result.row()["network_calls"] == 90
    assert all(row.latency_us > 0 for row in result.episodes)
    assert result.latency_p50_us is not None
    assert result.latency_p99_us is not None
    assert 0 < result.latency_p50_us <= result.latency_p99_us
    assert result.row()["num_envs"] == 4


def test_latency_is_that_of_the_calls_in_which_a_chunk_was_drawn() -> None:
    class Thinker(Still):
        """Takes a while whenever it draws a chunk of three."""

        def predict(self, observation: Any, *words: Any, **options: Any) -> Any:
            if (observation[:, 1] % 3 == 0).any():
                time_is_up = time.perf_counter() + 0.002
                while time.perf_counter() < time_is_up:
                    pass
            return super().predict(observation)

    result = evaluate("Quiz-v0", lambda _: Thinker(), [1, 2], method="m", n_action_steps=3)
    assert all(row.latency_us >= 2000 for row in result.episodes)
    assert result.latency_p50_us is not None
    assert result.latency_p50_us >= 2000


def test_shares_of_the_time_add_up() -> None:
    result = measured("Quiz-v0")
    assert set(result.shares) == {"env_s", "predict_s", "rest_s"}
    assert min(result.shares.values()) > 0
    assert sum(result.shares.values()) == pytest.approx(result.seconds)


# -- seams ------------------------------------------------------------------------------------------------------


def test_a_step_between_two_constant_chunks_is_three_windows_of_its_size() -> None:
    actions = np.repeat([0.0, 2.0], 4)[:, None]  # 0 0 0 0 2 2 2 2: third differences 0, 2, -4, 2, 0
    assert seam_jerk(actions, 4, [-1.0], [1.0]) == pytest.approx((2 + 4 + 2) / 3)
    assert seam_jerk(actions, 4, [-4.0], [4.0]) == pytest.approx((2 + 4 + 2) / 3 / 4)  # in half-ranges
    assert seam_jerk(actions, 4, [3.0], [5.0]) == pytest.approx((2 + 4 + 2) / 3)  # wherever they lie
    assert seam_jerk(actions, 4, [-np.inf], [1.0]) == pytest.approx((2 + 4 + 2) / 3)  # no range: as they are
    both = np.concatenate([actions, actions], axis=1)
    assert seam_jerk(both, 4, [-1, -1], [1, 1]) == pytest.approx(np.sqrt(2) * (2 + 4 + 2) / 3)


def test_only_windows_that_straddle_a_seam_count_each_once() -> None:
    actions = np.array([0.0, 9, -3, 4, 4, 4, 4, 4, 7, 7])[:, None]
    jerk = np.abs(np.diff(actions[:, 0], 3))
    assert seam_jerk(actions, 6, [-1], [1]) == pytest.approx(jerk[3:6].mean())  # seam at 6
    assert seam_jerk(actions, 9, [-1], [1]) == pytest.approx(jerk[6:7].mean())  # seam at 9, one window reaches it
    assert seam_jerk(actions, 4, [-1], [1], latency=2) == pytest.approx(jerk[3:6].mean())  # at 6, for 4 is too early
    assert seam_jerk(actions, 1, [-1], [1]) == pytest.approx(jerk.mean())
    assert seam_jerk(actions, 2, [-1], [1]) == pytest.approx(jerk.mean())  # every window holds one
    brute = [jerk[t] for t in range(7) if any(t < s <= t + 3 for s in range(4, 10, 4))]
    assert seam_jerk(actions, 4, [-1], [1]) == pytest.approx(np.mean(brute))


def test_a_smooth_motion_has_no_jerk_and_no_seam_has_none() -> None:
    times = np.arange(12.0)
    assert seam_jerk((times**2)[:, None], 4, [-1], [1]) == pytest.approx(0)
    assert seam_jerk((times**3)[:, None], 4, [-1], [1]) == pytest.approx(6)  # its third derivative
    for steps, every in ((3, 1), (8, 8), (8, 20)):
        assert seam_jerk(np.zeros((steps, 2)), every, [-1, -1], [1, 1]) is None
    for wrong in (np.zeros(3), np.zeros((4, 3))):
        with pytest.raises(InputError, match="expected actions"):
            seam_jerk(wrong, 2, [-1, -1], [1, 1])
    with pytest.raises(InputError, match="n_action_steps >= 1"):
        seam_jerk(np.zeros((4, 2)), 0, [-1, -1], [1, 1])
