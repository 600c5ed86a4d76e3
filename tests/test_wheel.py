"""The wheel: what is in it, and that it works in a folder and an environment that know nothing of the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """What a command prints; its stderr is shown where it fails."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    isolation = ["--no-isolation"] if find_spec("hatchling") else []
    run(sys.executable, "-m", "build", "--wheel", *isolation, "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed wheel and nothing else."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-index", "--no-deps", "--no-compile", "--quiet"]
    run(*pip, "--target", folder, wheel, cwd=folder)
    return folder


def python(installed: Path, program: str, cwd: Path, *words: str) -> str:
    """Run a program that sees the installed wheel and the libraries, but no editable install (-S: no .pth)."""
    libraries = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    paths = [str(installed), *libraries]
    prelude = f"import sys; sys.path[:0] = {paths!r}\n"
    return run(sys.executable, "-I", "-S", "-c", prelude + program, *words, cwd=cwd, DIFFPOLICY_RENDERER="software")


def test_the_wheel_puts_two_packages_beside_others_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"
    assert {name.split("/")[0] for name in names} == {"diffpolicy", "diffpolicy_envs", info}
    assert "diffpolicy/py.typed" in names
    assert f"{info}/entry_points.txt" in names
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".log"))] == []
    for base, package in ((ROOT, "diffpolicy"), (ROOT / "envs", "diffpolicy_envs")):
        modules = {str(path.relative_to(base)) for path in (base / package).rglob("*.py")}
        assert modules == {name for name in names if name.startswith(f"{package}/") and name.endswith(".py")}


def test_all_assets_are_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("diffpolicy_envs/assets/")}
    files = {path.relative_to(ROOT / "assets") for path in (ROOT / "assets").rglob("*") if path.is_file()}
    assert packed == {f"diffpolicy_envs/assets/{path.as_posix()}" for path in files}
    assert any(name.endswith(".xml") for name in packed)


def test_it_runs_from_an_unrelated_folder_on_its_own_assets(installed: Path, tmp_path: Path) -> None:
    program = """
import gymnasium, pathlib
env = gymnasium.make("diffpolicy_envs:diffpolicy/PickPlace-v0")
observation, _ = env.reset(seed=0)
observation, reward, *_ = env.step(env.action_space.sample())
assert env.observation_space.contains(observation), observation
import diffpolicy, diffpolicy_envs
for place in (diffpolicy.__file__, diffpolicy_envs.__file__, diffpolicy_envs.assets_folder()):
    print(pathlib.Path(place).resolve())
"""
    for place in python(installed, program, tmp_path).splitlines():
        assert Path(place).is_relative_to(installed.resolve())
        assert not Path(place).is_relative_to(ROOT)


def test_its_command_line_helps_and_collects(installed: Path, tmp_path: Path) -> None:
    program = "import runpy; runpy.run_module('diffpolicy.cli', run_name='__main__')"
    assert "quickstart" in python(installed, program, tmp_path, "--help")
    python(installed, program, tmp_path, "collect", "--episodes", "1", "--out", "demos")
    check = "import diffpolicy; d = diffpolicy.read_dataset('demos'); print(len(d.episodes), d.provenance['commit'])"
    assert python(installed, check, tmp_path) == "1"
