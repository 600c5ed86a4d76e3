"""What is public: each module says so completely, in order, and in words."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import diffpolicy

ROOT = Path(__file__).resolve().parents[1]
BASES = {"diffpolicy": ROOT, "diffpolicy_envs": ROOT / "envs"}


def names() -> list[str]:
    """Every module of both packages."""
    found = []
    for package, base in BASES.items():
        for path in sorted((base / package).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            found += [".".join(part for part in parts if part != "__init__")]
    return found


def tree(name: str) -> ast.Module:
    path = Path(str(importlib.import_module(name).__file__))
    return ast.parse(path.read_text(encoding="utf-8"))


def place(name: str) -> tuple[int, list[Any]]:
    """Constants, then classes, then the rest, each by name, numbers by value."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return kind, [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@pytest.mark.parametrize("name", names())
def test_all_is_complete_sorted_and_importable(name: str) -> None:
    module = importlib.import_module(name)
    public = module.__all__
    assert public == sorted(set(public), key=place)
    for each in public:
        assert getattr(module, each) is not None
    defined = [node.name for node in tree(name).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert [each for each in defined if not each.startswith("_") and each not in public] == []


@pytest.mark.parametrize("name", names())
def test_what_is_public_has_a_docstring(name: str) -> None:
    parsed = tree(name)
    assert ast.get_docstring(parsed), f"{name} does not say what belongs in it"
    for node in parsed.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name}"


def test_the_package_gives_the_nouns_that_a_user_needs() -> None:
    wanted = {
        "Policy", "PolicyConfig", "SpaceSpec", "Episode", "Dataset", "read_dataset", "write_dataset", "from_arrays",
        "make_vector", "evaluate", "load_checkpoint", "save_checkpoint", "ScriptedExpert", "InputError", "Collect",
        "Bc", "Correct", "Evaluate", "Video", "Quickstart",
    }  # fmt: skip
    assert wanted <= set(diffpolicy.__all__)
    assert set(diffpolicy.__all__) <= set(dir(diffpolicy))
    assert diffpolicy.__version__ == version("diffpolicy")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = diffpolicy.nothing


def test_the_package_loads_its_names_late_and_gives_the_same_objects() -> None:
    program = (
        "import sys, diffpolicy; assert 'torch' not in sys.modules; "
        "from diffpolicy import Policy, Bc; assert 'torch' in sys.modules; "
        "import diffpolicy.policy.policy as home; assert Policy is home.Policy and Bc.__name__ == 'Bc'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_no_public_name_hides_a_subpackage() -> None:
    wings = {path.stem for path in (ROOT / "diffpolicy").iterdir()}
    assert not wings & set(diffpolicy.__all__)
