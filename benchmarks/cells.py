"""Finished cells on disk: a small JSON file and its episodes as parquet, committed beside the tables."""

from __future__ import annotations

import json
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
        """Its episodes by column."""
        columns: dict[str, list[Any]] = pq.read_table(self.path.with_suffix(".parquet")).to_pydict()
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
    about = read_json(path)
    return Finished(path, about) if about.get("asked") == cell.evaluate.asked else None


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
        about = read_json(path)
        if about.get("key") == cell.evaluate.key and path.with_suffix(".parquet").is_file():
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
        for stage in json.loads(path.read_text(encoding="utf-8")).get("stages", []):
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
