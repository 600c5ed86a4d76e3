"""Finished cells on disk: a small JSON file and its episodes as parquet, committed beside the tables."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.suite import Cell
from benchmarks.tables import RESULTS
from diffpolicy.errors import InputError
from diffpolicy.policy.files import read_json, write_json

__all__ = ["FOLDER", "Finished", "adopted", "finished", "keep", "seconds"]

FOLDER = RESULTS / "cells"
COLUMNS = {
    "seed": pa.int64(),  # of the reset
    "task": pa.string(),
    "condition": pa.string(),
    "success": pa.bool_(),
    "return": pa.float64(),
    "length": pa.int32(),  # [control steps]
    "seam_jerk": pa.float64(),
    "nfe": pa.int32(),
    "network_calls": pa.int64(),
    "latency_us": pa.float64(),
}


@dataclass(frozen=True)
class Finished:
    """A cell that was measured."""

    path: Path
    about: Mapping[str, Any]  # key, asked, row, stages, provenance

    @property
    def row(self) -> dict[str, Any]:
        """What a table says of it."""
        return dict(self.about["row"])

    @cached_property
    def episodes(self) -> dict[str, list[Any]]:
        """Its episodes by column; raises InputError where the file is damaged or does not belong to the row."""
        path = self.path.with_suffix(".parquet")
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, f"it cannot be read: {str(error).splitlines()[0]}") from error
        kinds = dict(zip(table.schema.names, table.schema.types, strict=True))
        for name, kind in COLUMNS.items():
            if kinds.get(name) != kind:
                raise _damaged(path, f"expected a column {name!r} of {kind}, got {kinds.get(name, 'none')}")
        if table.num_rows != self.row["episodes"]:
            raise _damaged(path, f"expected {self.row['episodes']} episodes, as its row says, got {table.num_rows}")
        if table["success"].null_count and self.row["success"] is not None:
            raise _damaged(path, "an episode does not say whether it succeeded")
        columns: dict[str, list[Any]] = table.to_pydict()
        return columns


def keep(cell: Cell, store: Path, folder: Path = FOLDER) -> Finished:
    """Write a cell whose stages are done under its suite's folder, episodes first."""
    measured = read_json(cell.evaluate.output(store))
    stages = [read_json(stage.folder(store) / "done.json") for stage in cell.evaluate.chain()]
    path = folder / f"{cell.path}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    episodes = [_episode(row) for row in measured["episodes"]]
    kinds = {**COLUMNS, **{name: pa.float64() for name in episodes[0] if name.startswith("record/")}}
    table = pa.table({name: pa.array([e[name] for e in episodes], kind) for name, kind in kinds.items()})
    partial = path.with_suffix(".parquet.partial")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path.with_suffix(".parquet"))
    about = {
        "cell": _about(cell),
        "key": cell.evaluate.key,
        "asked": cell.evaluate.asked,
        "row": _row(cell, measured),
        "provenance": _provenance(measured, stages),
        "stages": stages,
    }
    write_json(about, path)
    return Finished(path, about)


def finished(cell: Cell, folder: Path = FOLDER) -> Finished | None:
    """The committed cell that answers the same question, made by whichever code; None where there is none."""
    path = folder / f"{cell.path}.json"
    if not path.is_file() or not path.with_suffix(".parquet").is_file():
        return None
    about = _read(path)
    return Finished(path, about) if about["asked"] == cell.evaluate.asked else None


def _read(path: Path) -> dict[str, Any]:
    """A cell's JSON; raises InputError that says what is wrong with it and what to do."""
    try:
        about = read_json(path)
    except InputError as error:
        raise _damaged(path, str(error).removesuffix(".")) from error
    kinds = {"cell": dict, "key": str, "asked": str, "row": dict, "provenance": dict, "stages": list}
    _require(path, about, kinds)
    _require(path, about["row"], _ROW, "row.")
    _require(path, about["provenance"], {"commit": str, "dirty": bool, "versions": dict}, "provenance.")
    for stage in about["stages"]:
        _require(path, stage, {"stage": str, "seconds": int | float}, "stages.")
    low, rate, high = (about["row"][name] for name in ("ci_low", "success", "ci_high"))
    if rate is not None and not (isinstance(low, int | float) and isinstance(high, int | float)):
        raise _damaged(path, f"expected row.ci_low and row.ci_high to be numbers, got {low!r:.30} and {high!r:.30}")
    if rate is not None and not 0 <= low <= rate <= high <= 1:
        raise _damaged(path, f"expected row.success within row.ci_low and row.ci_high, all in [0, 1], got {rate!r}")
    return dict(about)


_ROW: dict[str, Any] = dict.fromkeys(("method", "task", "condition"), str)
_ROW |= {"seed": int, "episodes": int, "length": int | float}
_ROW |= dict.fromkeys(("success", "ci_low", "ci_high"), int | float | None)  # None: the environment tells no success


def _require(path: Path, found: Any, kinds: Mapping[str, Any], within: str = "") -> None:
    if not isinstance(found, dict):
        raise _damaged(path, f"expected {within.removesuffix('.') or 'the file'} to be an object, got {found!r:.60}")
    for name, kind in kinds.items():
        if name not in found:
            raise _damaged(path, f"it has no {within}{name}")
        if not isinstance(found[name], kind) or (isinstance(found[name], bool) and kind is not bool):
            raise _damaged(path, f"expected {within}{name} to be {_WORDS[kind]}, got {found[name]!r:.60}")


_WORDS: dict[Any, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    int | float: "a number",
    int | float | None: "a number",
}


def _damaged(path: Path, what: str) -> InputError:
    return InputError(
        f"{path} is damaged: {what}. Bring the committed cell back (git checkout), or delete its .json and .parquet "
        f"and let `python -m benchmarks run {path.parent.name}` make it again"
    )


def _provenance(measured: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a cell comes from: code, versions, and what it cost from nothing."""
    origin = measured["trained"]
    commits = list(dict.fromkeys(stage["commit"] for stage in stages))
    return {
        "commit": measured["commit"].removesuffix("+dirty"),
        "dirty": any(commit.endswith("+dirty") for commit in commits),
        "commits": commits,  # of all stages
        "versions": measured["versions"],
        "python": measured["python"],
        "machine": measured["machine"],
        "threads": max(stage["threads"] for stage in stages),
        "wall_clock_s": round(sum(stage["seconds"] for stage in stages), 1),
        "labeller_queries": origin.get("expert_queries"),
        "env_steps": origin.get("env_steps"),
        "network_calls": measured["rows"][0]["network_calls"],
    }


def adopted(cell: Cell, folder: Path = FOLDER) -> Finished | None:
    """The same cell as another suite made it, with the same code, taken over into this suite's folder."""
    for path in sorted(folder.glob("*/*.json")):
        about = _read(path)
        if about["key"] == cell.evaluate.key and path.with_suffix(".parquet").is_file():
            new = folder / f"{cell.path}.json"
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.with_suffix(".parquet"), new.with_suffix(".parquet"))
            row = {**about["row"], "method": cell.method, **cell.columns, "seed": cell.seed}
            about |= {"cell": _about(cell), "row": row}
            write_json(about, new)
            return Finished(new, about)
    return None


def _about(cell: Cell) -> dict[str, Any]:
    return {"suite": cell.suite, "task": cell.task, "condition": cell.condition, "seed": cell.seed}


def seconds(folder: Path = FOLDER) -> Iterator[tuple[str, float]]:
    """How long the stages of the committed cells took, by recipe [s]."""
    for path in folder.glob("*/*.json"):
        for stage in _read(path)["stages"]:
            yield stage["stage"], float(stage["seconds"])


def _episode(row: Mapping[str, Any]) -> dict[str, Any]:
    records = {f"record/{name}": value for name, value in row.get("records", {}).items()}
    return {name: row.get("total_reward" if name == "return" else name) for name in COLUMNS} | records


def _row(cell: Cell, measured: Mapping[str, Any]) -> dict[str, Any]:
    """The measured row with its method's name, and what the method took in all."""
    (row,) = measured["rows"]
    origin = measured["trained"]
    cost: dict[str, Any] = dict.fromkeys(("train_s", "expert_queries", "env_steps"))
    if "train_s" in origin:
        cost = {name: origin.get(name) for name in cost}
        cost["train_s"] = round(origin["train_s"] + origin.get("parent_train_s", 0.0), 1)
    return {**row, **cost, "method": cell.method, **cell.columns, "seed": cell.seed}
