"""What code a stage depends on, found by reading imports, and a digest that only a change of meaning changes."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.tables import ROOT

__all__ = ["Code", "referenced"]

_REGISTRY = "diffpolicy_envs.tasks"  # names every task; a stage depends on its own one, which it adds as a root


@dataclass(frozen=True)
class Code:
    """The modules below some roots of one checkout.

    A module counts if it is imported anywhere in a module that counts, within functions too. Names that a package
    loads lazily count as their home module. Imports for type checking alone do not count, and neither does the
    registry of tasks: a new task leaves other tasks' stages as they are.
    """

    root: Path = ROOT
    _read: dict[Path, ast.Module] = field(default_factory=dict, compare=False)
    _digests: dict[tuple[str, ...], str] = field(default_factory=dict, compare=False)

    def digest(self, modules: Iterable[str], files: Iterable[Path] = ()) -> str:
        """SHA-256 of all that ``modules`` import, itself included, and of ``files`` byte by byte.

        Comments, docstrings, layout and lists of public names do not enter.
        """
        asked = (*sorted(modules), *sorted(map(str, files)))
        if asked not in self._digests:
            whole = hashlib.sha256()
            for path in self.modules(modules):
                whole.update(f"{path.relative_to(self.root).as_posix()}\n".encode())
                whole.update("".join(_meaning(self._tree(path))).encode())
            for file in sorted(files):
                whole.update(f"{file.name}\n".encode() + file.read_bytes())
            self._digests[asked] = whole.hexdigest()
        return self._digests[asked]

    def modules(self, names: Iterable[str]) -> list[Path]:
        """Files of the given modules and of all of ours that they import, sorted."""
        found: set[Path] = set()
        waiting = list(names)
        seen = set(waiting)
        while waiting:
            name = waiting.pop()
            path = self._path(name)
            if path is None or name == _REGISTRY:
                continue
            found.add(path)
            parents = [name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1)]
            for other in (*parents, *self._imports(path)):
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return sorted(found)

    def _path(self, name: str) -> Path | None:
        """The file of one of our modules, or None for others' and for what is no module."""
        top = {"diffpolicy": self.root, "diffpolicy_envs": self.root / "envs", "benchmarks": self.root}
        first = name.partition(".")[0]
        if first not in top:
            return None
        bare = top[first].joinpath(*name.split("."))
        for path in (bare.with_suffix(".py"), bare / "__init__.py"):
            if path.is_file():
                return path
        return None

    def _tree(self, path: Path) -> ast.Module:
        if path not in self._read:
            self._read[path] = ast.parse(path.read_text(encoding="utf-8"))
        return self._read[path]

    def _imports(self, path: Path) -> Iterator[str]:
        """Names of modules that a file imports when it runs."""
        for node in _running(self._tree(path)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module
                for alias in node.names:
                    yield f"{node.module}.{alias.name}"
                    yield from self._home(node.module, alias.name)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                module, colon, _ = node.value.partition(":")  # entry points are named as "module:name"
                if colon and self._path(module):
                    yield module

    def _home(self, package: str, name: str) -> Iterator[str]:
        """The module from which a package takes a name, lazily or not."""
        path = self._path(package)
        if path is not None and path.name == "__init__.py":
            for node in ast.walk(self._tree(path)):
                if (
                    isinstance(node, ast.ImportFrom)
                    and node.module
                    and name in {a.asname or a.name for a in node.names}
                ):
                    yield node.module


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one, but for what stands under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if not _for_types(child):
            yield child
            yield from _running(child)


def _for_types(node: object) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _says_nothing(node: object) -> bool:
    """Whether a statement changes nothing that runs: a docstring, an import for types, a list of public names."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if isinstance(node, ast.Assign):
        return {ast.unparse(target) for target in node.targets} <= {"__all__", "_HOMES"}
    return _for_types(node)


def _meaning(node: object) -> Iterator[str]:
    """A syntax tree as text, without docstrings and places, the same for every version of Python where it can be."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in node._fields:
            value = getattr(node, name, None)
            if value is not None and value != [] and name != "kind":
                yield f" {name}="
                yield from _meaning(value)
        yield ")"
    elif isinstance(node, list):
        for part in node:
            if not _says_nothing(part):
                yield from _meaning(part)
    else:
        yield repr(node)


def referenced(model: Path) -> list[Path]:
    """An MJCF file and all files that it names, directly or through its includes."""
    found: list[Path] = []
    waiting = [model]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.append(path)
        if path.suffix == ".xml":
            named = re.findall(r'file="([^"]+)"', path.read_text(encoding="utf-8"))
            waiting += [path.parent / name for name in named]
    return sorted(found)
