"""The command line: help for everything, dry runs that touch nothing, and one clear line where input is bad."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces

import diffpolicy
from diffpolicy import cli
from diffpolicy.diffusion import MLPConfig
from diffpolicy.policy import Policy, PolicyConfig, SpaceSpec, save_checkpoint
from diffpolicy.recipes.run import CONDITIONS_BY_DEFAULT, conditions_in
from diffpolicy.rollout.environment import make_vector

TINY = PolicyConfig(network=MLPConfig(width=8, blocks=1, time_dim=4))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy for PickPlace that has learnt nothing."""
    env = make_vector("diffpolicy/PickPlace-v0", 1)
    policy = Policy(TINY, SpaceSpec.from_spaces(env.single_observation_space, env.single_action_space))
    env.close()
    folder = tmp_path_factory.mktemp("untrained") / "checkpoint"
    return save_checkpoint(policy, folder, environment="diffpolicy/PickPlace-v0")


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command says on stderr before it gives up with status 2."""
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("diffpolicy: ")
    assert said.count("\n") == 1
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("name", cli.RECIPES)
def test_every_subcommand_explains_each_of_its_flags(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    takers = ("agree", "change", "describe", "evaluate", "export", "video")
    for field in fields(cli.RECIPES[name]):  # type: ignore[arg-type]
        positional = name in takers and field.name.startswith(("checkpoint", "changes"))
        assert ("positional arguments" if positional else f"--{field.name.replace('_', '-')}") in shown
    assert str(cli.RECIPES[name].__doc__).split("\n")[0][:40] in " ".join(shown.split())


def test_without_words_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 0
    assert all(name in capsys.readouterr().out for name in ["usage: diffpolicy"])


@pytest.mark.parametrize(
    "words",
    [
        ["quickstart", "--size", "tiny"],
        ["collect", "--episodes", "3"],
        ["bc", "--steps", "5"],
        ["correct", "--rounds", "2"],
        ["evaluate", "somewhere"],
        ["video", "expert", "somewhere"],
    ],
    ids=lambda words: words[0],
)
def test_a_dry_run_prints_the_configuration_and_touches_nothing(
    words: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["recipe"] == words[0]
    assert "seed" in shown
    assert list(here.iterdir()) == []


def test_flags_reach_nested_settings(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["bc", "--policy.horizon", "16", "--optimiser.lr", "1e-4", "--steps", "7", "--dry-run"])
    shown = json.loads(capsys.readouterr().out)
    assert (shown["policy"]["horizon"], shown["optimiser"]["lr"], shown["steps"]) == (16, 1e-4, 7)


@pytest.mark.parametrize("name", ["unet-config", "u-net-config", "transformer-config", "mlp-config"])
def test_a_network_is_chosen_by_a_word_with_flags_on_both_sides(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bc", "--data", "demos", f"policy.network:{name}", "--policy.network.width", "32", "--steps", "7"]
    assert cli.main([*words, "--policy.horizon", "12", "--dry-run"]) == 0
    shown = json.loads(capsys.readouterr().out)
    kind = name.removesuffix("-config").replace("-", "")
    assert (shown["policy"]["network"]["kind"], shown["policy"]["network"]["width"]) == (kind, 32)
    assert (shown["data"], shown["steps"], shown["policy"]["horizon"]) == ("demos", 7, 12)


def test_an_unknown_command_or_first_flag_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown command 'evalute'; did you mean evaluate?" in complaint(capsys, "evalute", "somewhere")
    assert "unknown flag '--verson'; did you mean --version?" in complaint(capsys, "--verson")
    said = complaint(capsys, "xyz")
    assert "did you mean" not in said
    assert all(name in said for name in cli.RECIPES)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"diffpolicy {diffpolicy.__version__}\n"


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_names_every_command(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([word])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.RECIPES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["bc", "--policy.prediction", "epps"], ["--policy.prediction", "'eps', 'v', 'x0', 'flow'"]),
        (["quickstart", "--size", "tyni"], ["--size", "'full'", "'tiny'"]),
        (["collect", "--episodes", "three"], ["--episodes", "three", "diffpolicy collect --help"]),
        (["bc", "--policy.sampler.steps", "0"], ["policy.sampler", "steps"]),
        (["bc", "--policy.network.widht", "3"], ["--policy.network.width"]),
        (["evaluate"], ["diffpolicy evaluate --help"]),
    ],
    ids=lambda value: " ".join(value)[:30],
)
def test_a_bad_value_is_answered_with_what_there_is(
    words: list[str], said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    shown = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert all(word in shown for word in said)
    assert "dummy" not in shown


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["bc", "--batchsize", "4"], "--batch-size"),
        (["collect", "--episode", "3"], "--episodes"),
        (["evaluate", "x", "--condition", "clean"], "--conditions"),
    ],
)
def test_an_unknown_flag_is_answered_with_the_nearest(
    words: list[str], nearest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert nearest in capsys.readouterr().err


def test_a_flag_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    once = ["evaluate", "x", "--change", "sampler.steps=4"]
    assert "--change once, got it twice" in complaint(capsys, *once, "--change", "acting.latency=1")
    assert "--num-envs once" in complaint(capsys, "evaluate", "x", "--num_envs", "4", "--num-envs=2")


def test_a_flag_of_several_values_is_not_given_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert "several after --change, got none" in complaint(capsys, "evaluate", "x", "--change")
    assert "several after --change, got none" in complaint(capsys, "video", "x", "--change", "--episodes", "1")


def test_settings_that_contradict_each_other_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bc", "--policy.horizon", "2"])
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert "horizon" in shown
    assert "dummy" not in shown


@pytest.mark.usefixtures("here")
def test_bad_input_is_one_line(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = str(checkpoint)
    assert "expected a checkpoint folder" in complaint(capsys, "evaluate", "nothing-here")
    assert "expected a checkpoint folder" in complaint(capsys, "correct", "--checkpoint", "nothing-here")
    assert "expected a checkpoint folder" in complaint(capsys, "video", "nothing-here")
    assert "does not exist" in complaint(capsys, "bc", "--data", "nothing-here")
    assert "was trained for" in complaint(capsys, "evaluate", where, "--environment", "Pendulum-v1")
    assert "unknown environment" in complaint(capsys, "collect", "--environment", "Nothing-v0")
    assert "got 'shovel'" in complaint(capsys, "collect", "--condition", "shovel")
    assert "got shovel" in complaint(capsys, "evaluate", where, "--conditions", "clean", "shovel")
    assert "got 'shovel'" in complaint(capsys, "video", where, "--condition", "shovel", "--episodes", "1")
    assert "got shovel" in complaint(capsys, "correct", "--checkpoint", where, "--conditions", "clean", "shovel")
    assert "which demonstrations" in complaint(capsys, "correct", "--checkpoint", where)
    assert "at least 1 episode" in complaint(capsys, "evaluate", where, "--episodes", "0")
    assert "no scripted expert" in complaint(capsys, "collect", "--environment", "Pendulum-v1", "--episodes", "1")
    assert "did you mean expert?" in complaint(capsys, "evaluate", "exprt", "--environment", "Pendulum-v1")
    assert "did you mean shove?" in complaint(capsys, "video", where, "--condition", "shov", "--episodes", "1")
    assert [path for path in Path().rglob("*") if path.is_file()] == []


def test_a_checkpoint_in_another_environment_names_what_differs(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = complaint(capsys, "evaluate", str(checkpoint), "--environment", "Pendulum-v1")
    missing = "missing here: observation 'goal', 'object', 'relative', 'robot', 'task'"
    assert f"{missing}; only here: observation 'observation'" in said
    assert len(said) < 500


def test_spaces_that_differ_are_told_by_name_and_dimension() -> None:
    def spec(low: float, size: int = 2, action: int = 1, boxed: bool = False, name: str = "hand") -> SpaceSpec:
        box = spaces.Box(np.array([-1.0, low] + [0.0] * (size - 2), np.float32), 2.0, dtype=np.float32)
        observation = box if boxed else spaces.Dict({name: box})
        return SpaceSpec.from_spaces(observation, spaces.Box(-1.0, 1.0, (action,), np.float32))

    assert spec(0).differences(spec(0)) == ""
    assert spec(0).differences(spec(-5)) == "observation 'hand' lay in [0, 2] in dimension 1, here in [-5, 2]"
    assert spec(0).differences(spec(0, 3)) == "observation 'hand' had 2 numbers, here 3"
    assert spec(0).differences(spec(0, action=4)) == "the action had 1 numbers, here 4"
    named = spec(0, name="observation")
    assert named.differences(spec(0, boxed=True)) == "observations were a Dict, here an array"
    assert spec(0).differences(spec(0, name="arm")) == (
        "missing here: observation 'hand'; only here: observation 'arm'"
    )


def test_a_folder_that_is_taken_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "thesis.txt").write_text("five years of work")
    assert "holds no run of ours" in complaint(capsys, "quickstart", "--out", "mine", "--overwrite")
    assert cli.main(["collect", "--episodes", "1", "--out", "demos"]) == 0
    bc = ["bc", "--data", "demos", "--out", "run", "--policy.network.width", "8", "--steps"]
    assert cli.main([*bc, "2"]) == 0
    capsys.readouterr()
    assert "trains one time" in complaint(capsys, *bc, "3", "--policy.network.two-times")
    assert "steps: 2 there, 3 now" in complaint(capsys, *bc, "3")
    assert "holds another run (one of bc, not of quickstart)" in complaint(capsys, "quickstart", "--out", "run")
    assert "seed: 0 there, 1 now" in complaint(capsys, "collect", "--episodes", "1", "--out", "demos", "--seed", "1")


def test_an_interruption_ends_with_status_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.Collect, "__call__", interrupted)
    assert cli.main(["collect"]) == 130
    assert "goes on from what was saved" in capsys.readouterr().err


def test_no_home_folder_is_needed(tmp_path: Path) -> None:
    program = (
        "import os, pwd, sys\n"
        "os.environ.pop('HOME', None)\n"
        "def nobody(number):\n"
        "    raise KeyError(number)\n"
        "pwd.getpwuid = nobody\n"
        "from diffpolicy.cli import main\n"
        "expert = ['expert', '--environment', 'diffpolicy/PickPlace-v0', '--episodes', '1']\n"
        "sys.exit(main(['collect', '--episodes', '1']) or main(['evaluate', *expert]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


def test_the_installed_command_gives_the_status_to_the_shell(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("diffpolicy")
    done = subprocess.run([program, "evaluate", "nothing"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("diffpolicy: expected a checkpoint folder")


def test_evaluate_replaces_evaluations_and_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "evaluate",
        "expert",
        "--environment",
        "diffpolicy/PickPlace-v0",
        "--episodes",
        "1",
        "--conditions",
        "clean",
    ]
    for _ in range(2):
        assert cli.main([*words, "--out", "result.json"]) == 0
    capsys.readouterr()
    for content in ('{"format": 2}', "not JSON"):
        (here / "config.json").write_text(content, encoding="utf-8")
        assert "holds no evaluation" in complaint(capsys, *words, "--out", "config.json")
        assert (here / "config.json").read_text(encoding="utf-8") == content


@pytest.mark.parametrize("conditions", [[], ["all", "clean"]], ids=str)
def test_conditions_are_some_or_all(capsys: pytest.CaptureFixture[str], conditions: list[str]) -> None:
    words = ["evaluate", "expert", "--environment", "diffpolicy/PickPlace-v0", "--conditions", *conditions]
    assert "all" in complaint(capsys, *words)


ACTORS = """
import numpy as np
def broken(env): raise RuntimeError("no such robot")
class Faulty:
    def __init__(self, answer): self.answer = answer
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return self.answer(len(observation)), state
def raises(env): return Faulty(lambda n: 1 / 0)
def wide(env): return Faulty(lambda n: np.zeros((n, 7)))
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [("broken", "RuntimeError: no such robot"), ("raises", "ZeroDivisionError"), ("wide", "(1, 7)")],
)
def test_faults_of_an_own_actor_are_told_under_its_name(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    (here / "own_actors.py").write_text(ACTORS, encoding="utf-8")
    words = ["collect", "--environment", "Pendulum-v1", "--expert", f"own_actors:{name}", "--episodes", "1"]
    message = complaint(capsys, *words, "--keep-failures", "--out", "demos")
    assert f"own_actors:{name}" in message
    assert said in message


def test_the_environment_that_bc_notes_must_be_that_of_the_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collect", "--episodes", "1", "--out", "demos"]) == 0
    capsys.readouterr()
    bc = ["bc", "--data", "demos", "--steps", "1", "--out", "run", "--environment"]
    assert "not of Pendulum-v1" in complaint(capsys, *bc, "Pendulum-v1")
    assert "did you mean" in complaint(capsys, *bc, "diffpolicy/PikPlace-v0")
    assert not (here / "run" / "checkpoint").exists()


def test_a_batch_that_no_memory_holds_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["collect", "--episodes", "1", "--out", "demos"]) == 0
    capsys.readouterr()
    assert "batch_size <=" in complaint(capsys, "bc", "--data", "demos", "--batch-size", "1000000000", "--out", "run")


OWN = """
import numpy as np
from pathlib import Path
from diffpolicy_envs import TASKS, register
Reach = TASKS["diffpolicy/Reach-v0"]
def own(name, **parts):
    register(f"own/{name}-v0", type(name, (Reach,), {"__module__": __name__, **parts}))
own("Missing", model=Path(__file__).with_name("nothing.xml"))
own("Broken", model=Path(__file__).with_name("broken.xml"))
own("Flat", observe=lambda self, ids: {name: value[:, 0] for name, value in Reach.observe(self, ids).items()})
own("Careless", __init__=lambda self, batch: self.nothing)
own("Costly", planned=True, cost=lambda self, ids: np.zeros((len(ids), 2)))
own("Stepping", control=lambda self, ids, action: None if (action == self.idle_action(ids)).all() else self.nothing)
own("Careful", control=lambda self, ids, action: self.nothing)
"""


@pytest.mark.parametrize("name", ["Missing", "Broken", "Flat", "Careless", "Careful", "Costly"])
def test_a_mistake_in_a_task_of_ones_own_is_one_line(
    name: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own_tasks.py").write_text(OWN, encoding="utf-8")
    (here / "broken.xml").write_text("<mujoco><worldbody></mujoco>", encoding="utf-8")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    said = complaint(capsys, "collect", "--environment", f"own_tasks:own/{name}-v0", "--episodes", "1")
    assert name in said
    assert "the disk" not in said


def test_what_a_task_of_ones_own_raises_while_it_is_stepped_keeps_its_traceback(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "own_tasks.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "own_tasks", raising=False)
    with pytest.raises(AttributeError, match="nothing"):
        cli.main(["collect", "--environment", "own_tasks:own/Stepping-v0", "--episodes", "1"])


def test_the_default_conditions_are_those_that_the_environment_knows(capsys: pytest.CaptureFixture[str]) -> None:
    assert conditions_in("Pendulum-v1", CONDITIONS_BY_DEFAULT) == ("clean",)
    assert conditions_in("diffpolicy/PickPlace-v0", CONDITIONS_BY_DEFAULT) == ("clean", "shove")
    assert capsys.readouterr().out == ""
    assert conditions_in("Pendulum-v1", ("clean", "slip")) == ("clean",)
    assert "knows no slip: left out" in capsys.readouterr().out


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "diffpolicy", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"diffpolicy {diffpolicy.__version__}\n"


def test_an_expert_that_is_missing_names_the_planner(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no cost to plan by" in complaint(capsys, "collect", "--environment", "Pendulum-v1", "--episodes", "1")


def test_our_own_tasks_are_learned_without_a_note(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--environment", "diffpolicy/DoorOpen-v0", "--episodes", "2", "--out", str(here / "demos")]
    assert cli.main(["collect", *words]) == 0
    assert cli.main(["bc", "--data", str(here / "demos"), "--steps", "1", "--out", str(here / "bc")]) == 0
    assert "note:" not in capsys.readouterr().out
