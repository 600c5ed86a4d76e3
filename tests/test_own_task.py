"""The task of one's own that the documentation prints works as it is printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from diffpolicy import read_dataset

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "environments.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("\n## A task of your own\n")[2].partition("\n## ")[0]


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return str(found)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A folder with the two files of the page."""
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / "cart.xml").write_text(block("xml"), encoding="utf-8")
    (folder / "carts.py").write_text(block("python"), encoding="utf-8")
    return folder


def test_the_task_is_collected_by_the_command_of_the_page_from_any_folder(lab: Path, tmp_path: Path) -> None:
    words = shlex.split(block("bash"))
    words[words.index("--episodes") + 1] = "2"
    done = subprocess.run(
        [Path(sys.executable).with_name(words[0]), *words[1:], "--out", "demos"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(lab), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    episodes = read_dataset(tmp_path / "demos").episodes
    assert [episode.success for episode in episodes] == [True, True]
    assert {episode.condition for episode in episodes} == {"shove"}
    assert all(episode.rewards[-1] > 9 > max(episode.rewards[:-1]) for episode in episodes)  # the bonus
