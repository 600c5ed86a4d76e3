"""Floors: imports only go downwards, the environments stand alone, and the command line starts quickly."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = (
    "lazy",
    "errors",
    "diffusion",
    "data",
    "policy",
    "runtime",
    "rollout",
    "training",
    "updates",
    "evaluation",
    "recipes",
    "cli",
    "__main__",
)  # low to high
HEAVY = ("torch", "stable_baselines3", "matplotlib", "mujoco", "minari", "h5py", "imageio")
ENVIRONMENTS_MAY = {"numpy", "gymnasium", "mujoco", "OpenGL", "PIL", "diffpolicy_envs"}


def modules(folder: str) -> list[Path]:
    """Every Python file of a package in the checkout."""
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


def imported(path: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it: at the top, for types, within functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: len(path.parts) - node.level] if node.level else ()
            start = next(
                (i for i, part in reversed(list(enumerate(above))) if part in ("diffpolicy", "diffpolicy_envs")), 0
            )
            base = ".".join((*above[start:], *([node.module] if node.module else [])))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def floor(module: str) -> int:
    """Which floor a module of diffpolicy is on; the package itself, which only points to others, is the roof."""
    _, _, rest = module.partition(".")
    return FLOORS.index(rest.split(".")[0]) if rest else len(FLOORS)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules("diffpolicy"), ids=ids)
def test_a_module_imports_only_from_its_own_floor_or_lower_ones(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts
    here = floor(".".join(part for part in parts if part != "__init__"))
    for name in imported(path):
        package = name.split(".")[0]
        if package == "diffpolicy":
            assert floor(name) <= here, f"{path} imports {name} from above"


def test_every_wing_has_a_floor() -> None:
    wings = {path.stem for path in (ROOT / "diffpolicy").iterdir() if not path.name.startswith("_")}
    assert wings - {"py"} == set(FLOORS) - {"__main__"}  # beside py.typed


@pytest.mark.parametrize("path", modules("envs/diffpolicy_envs"), ids=ids)
def test_environments_need_neither_the_library_nor_torch(path: Path) -> None:
    packages = {name.split(".")[0] for name in imported(path)} - set(sys.stdlib_module_names)
    assert packages <= ENVIRONMENTS_MAY


@pytest.mark.parametrize("module", ["diffpolicy", "diffpolicy.cli", "diffpolicy.recipes.correct"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_environments_loads_no_opengl_and_no_torch() -> None:
    program = "import sys, diffpolicy_envs; print([n for n in ('torch', 'OpenGL', 'diffpolicy') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_comes_at_once() -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "diffpolicy.cli", "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - began)
        if took[-1] < 1.0:
            return
    pytest.fail(f"--help took {min(took):.2f} s at best")
