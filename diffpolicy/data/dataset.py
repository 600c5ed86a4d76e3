"""Demonstrations on disk: the only file that knows Minari's folders and their metadata.

A dataset is a Minari dataset (HDF5): `minari.MinariDataset(path / "data")` opens ours, and we open Minari's.
Environment, provenance and the table's checksum are a "diffpolicy" entry of metadata.json; `diffpolicy.data.layout`
says how the episodes lie in the table, `diffpolicy.data.storage` how the files come into their place.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
from gymnasium.spaces import Box, Dict, Space
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.serialization import serialize_space

from diffpolicy.data.boxes import action_box, observation_boxes
from diffpolicy.data.episode import Episode, check_alike, nested
from diffpolicy.data.layout import episode_of, said_success, table_of
from diffpolicy.data.storage import METADATA, TABLE, restore, sha256, write_files
from diffpolicy.errors import InputError

__all__ = ["Dataset", "read_dataset", "write_dataset"]

FORMAT = 1  # of our additions to Minari's layout
EPISODES_MAX = 10**7  # more than any table holds: the number is damaged


@dataclass(frozen=True, eq=False)
class Dataset:
    """Episodes, and where they come from; observations are one Box, or a Dict of 1-D Boxes by flat names."""

    episodes: list[Episode]
    environment: str  # gymnasium id; "" where the file does not say
    observation_space: Box | Dict
    action_space: Box
    provenance: dict[str, Any] = field(default_factory=dict)
    success_known: bool = True  # False: some episode does not say, and its `success` is False


def write_dataset(
    path: str | os.PathLike[str],
    episodes: Sequence[Episode],
    *,
    environment: str,
    observation_space: Space[Any],
    action_space: Space[Any],
    description: str = "",
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write episodes as a Minari dataset in the folder `path`, whole or not at all; returns the folder.

    Raises InputError where there is no episode, an episode does not fit the spaces, a space is not made of
    1-D Boxes, `provenance` is not JSON, or `path` is taken: a dataset of ours is replaced only with
    `overwrite`, anything else never. Raises OSError where the disk is full or refuses, with the old dataset in place.
    """
    if not isinstance(environment, str):
        raise InputError(f"environment: expected a gymnasium id, or any name, got {environment!r:.100}.")
    folder = Path(path).resolve()
    restore(folder)
    _check_free(folder, overwrite)
    boxes, actions = observation_boxes(observation_space), action_box(action_space)
    check_alike(episodes, _widths(boxes, actions))
    space = observation_space if isinstance(observation_space, Box) else _dict_space(nested(boxes))
    metadata = _metadata(folder.name, environment, description, provenance)
    table = table_of(episodes, isinstance(space, Box))
    about = {
        "total_episodes": len(episodes),
        "total_steps": sum(map(len, episodes)),
        "data_format": "hdf5",
        "observation_space": serialize_space(space),
        "action_space": serialize_space(actions),
        "dataset_size": round(len(table) / 1e6, 1),  # [MB]
        **_spec(environment),
    }
    write_files(folder, {**about, **metadata}, table)
    return folder


def read_dataset(path_or_minari_id: str | os.PathLike[str]) -> Dataset:
    """Read a Minari dataset, ours or not, from its folder or by its id in Minari's root (D4RL/door/human-v2).

    Numbers are converted to float32. An episode of a foreign dataset was a success where its infos say so at
    any step (`success` or `is_success`); where they do not say, it counts as none and `success_known` is
    False. A dataset that a killed `write_dataset` left beside its place is brought back first.

    Raises InputError where nothing is there, a file is cut off, changed (its checksum is another) or foreign, comes
    from a later version, holds no episode or a value that is not finite, or was recorded with spaces other than
    1-D Boxes.
    """
    folder = _locate(path_or_minari_id)
    ours, steps = _about(folder)
    stored, raw, attributes = _contents(folder)
    with _naming(folder):
        boxes, actions = observation_boxes(stored.observation_space), action_box(stored.action_space)
    episodes = [_episode(folder, number, *each) for number, each in enumerate(zip(raw, attributes, strict=True))]
    with _naming(folder):
        check_alike(episodes, _widths(boxes, actions))
    if ours and sum(map(len, episodes)) != steps:
        raise InputError(
            f"{folder}: expected {steps!r} steps as {METADATA} says, got {len(episodes)} episodes of "
            f"{sum(map(len, episodes))} steps. The file was edited: restore it, or write the dataset again."
        )
    environment = ours.get("environment", stored.env_spec.id if stored.env_spec else "")
    known = all(said_success(one.infos) is not None for one in raw)
    space = stored.observation_space if isinstance(stored.observation_space, Box) else _dict_space(boxes)
    return Dataset(episodes, environment, space, actions, ours.get("provenance", {}), known)


def _locate(source: str | os.PathLike[str]) -> Path:
    folder, there = Path(source), False
    try:
        if not restore(folder) and not folder.exists() and DATASET_ID_RE.fullmatch(str(source)):
            root = os.environ.get("MINARI_DATASETS_PATH")
            home = os.path.expanduser("~")  # noqa: PTH111 (pathlib's raises where there is no home)
            folder = Path(root or f"{home}/.minari/datasets") / str(source)
            restore(folder)
        there = (folder / METADATA).is_file()
        found = "is no dataset" if folder.exists() else "does not exist"
    except OSError as error:
        found = f"cannot be looked into ({error.strerror})"
    if not there:
        raise InputError(
            f"{source}: expected a folder with {METADATA} and {TABLE}, or the id of a local Minari dataset; {folder} "
            f"{found}. Record one with `diffpolicy collect`, or fetch one with `minari download`."
        )
    return folder


def _about(folder: Path) -> tuple[dict[str, Any], Any]:
    """Our entry of the metadata ({} in a foreign dataset) and the number of steps that they tell, checked."""
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        ours = metadata.get("diffpolicy", {})
        whole = "sha256" not in ours or ours["sha256"] == sha256(folder / TABLE)
        version, count = ours.get("format"), int(metadata["total_episodes"])
    except Exception as error:  # whatever an edited file makes of these lines
        raise InputError(
            f"{folder}: expected {METADATA} and {TABLE} of a Minari dataset, but they cannot be read "
            f"({type(error).__name__}: {error}). They are cut off or were edited: write or download them again."
        ) from error
    if "diffpolicy" in metadata and version != FORMAT:
        upgrade = isinstance(version, int) and version > FORMAT
        raise InputError(
            f"{folder}: expected format {FORMAT}, got {version!r}; "
            + ("upgrade diffpolicy." if upgrade else f"{METADATA} was edited: restore it, or write the dataset again.")
        )
    typed = isinstance(ours.get("environment", ""), str) and isinstance(ours.get("provenance", {}), dict)
    if not typed or not 0 <= count <= EPISODES_MAX:
        raise InputError(
            f'{folder}: expected a name as "environment", a mapping as "provenance" and at most {EPISODES_MAX} '
            f"episodes in {METADATA}, which was edited: restore it, or write the dataset again."
        )
    if not whole:
        raise InputError(
            f"{folder}: expected {TABLE} as it was written, but its checksum is another. It is cut off or damaged: "
            f'copy or write it again. If it was changed on purpose, remove "sha256" from {METADATA}.'
        )
    return ours, metadata.get("total_steps")


def _contents(folder: Path) -> tuple[minari.MinariDataset, list[minari.EpisodeData], list[dict[str, Any]]]:
    """The dataset as Minari opens it, its episodes, and the attributes of each."""
    try:
        stored = minari.MinariDataset(folder / "data")
        raw = list(stored.iterate_episodes())
        return stored, raw, list(stored.storage.get_episode_metadata(stored.episode_indices))
    except Exception as error:  # whatever a file of unknown origin makes Minari and HDF5 raise
        raise InputError(
            f"{folder}: expected a Minari dataset, but it cannot be read ({type(error).__name__}: {error}). "
            "It is cut off or of another kind: write or download it again."
        ) from error


def _episode(folder: Path, number: int, one: minari.EpisodeData, about: Mapping[str, Any]) -> Episode:
    with _naming(f"{folder}, episode {number}"):
        try:
            return episode_of(one, about)
        except InputError:
            raise
        except Exception as error:  # a table of unknown origin may hold anything
            raise InputError(
                f"expected arrays as Minari stores them, got something else ({type(error).__name__}: {error}). "
                "Leave this episode out, or download the dataset again."
            ) from error


@contextmanager
def _naming(where: object) -> Iterator[None]:
    """Begin the message of an InputError with where it came up."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _check_free(folder: Path, overwrite: bool) -> None:
    """Raise InputError where writing to `folder` would lose something that the caller did not give up."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        ours = "diffpolicy" in metadata and [entry.name for entry in folder.iterdir()] == ["data"]
    except (OSError, ValueError, TypeError):
        ours = False
    if not ours:
        raise InputError(f"{folder}: expected a new folder, but this holds something else; choose another.")
    if not overwrite:
        raise InputError(f"{folder}: holds a dataset already; choose another folder, or pass overwrite=True.")


def _metadata(
    folder_name: str, environment: str, description: str, provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    ours = {"format": FORMAT, "environment": environment, "provenance": dict(provenance or {})}
    try:
        json.dumps(ours, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"provenance: expected plain JSON values, got {provenance} ({error}).") from error
    name = re.sub(r"\W+", "-", folder_name).strip("-") or "episodes"
    dataset_id = f"diffpolicy/{name}" if re.search(r"-v\d+$", name) else f"diffpolicy/{name}-v0"
    about = {"dataset_id": dataset_id, "minari_version": minari.__version__, "description": description}
    return {**about, "diffpolicy": ours}


def _spec(environment: str) -> dict[str, str]:
    """What Minari rebuilds the environment from; nothing where it is not registered or cannot be written."""
    spec = gym.registry.get(environment.rpartition(":")[2])
    try:
        return {"env_spec": spec.to_json()} if spec is not None else {}
    except (TypeError, ValueError):  # it holds a callable
        return {}


def _widths(boxes: Mapping[str, Box], actions: Box) -> dict[str, int]:
    return {name: box.shape[0] for name, box in {**boxes, "(action)": actions}.items()}


def _dict_space(tree: Mapping[str, Any]) -> Dict:
    return Dict({name: _dict_space(part) if isinstance(part, dict) else part for name, part in tree.items()})
