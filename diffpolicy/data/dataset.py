"""Demonstrations on disk: the only file that knows Minari and its folders.

A dataset is a Minari dataset (HDF5): `minari.MinariDataset(path / "data")` opens ours, and we open Minari's.
What Minari has no place for is put where it does no harm: success as the info of that name, labels and
simulator states as infos of T + 1 rows below "diffpolicy" (the last row is empty), the condition as an
attribute of the episode, environment and provenance as a "diffpolicy" entry of metadata.json.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.dataset.minari_storage import MinariStorage

from diffpolicy.data.episode import Episode, Labels, as_float32, check_alike, flattened, nested
from diffpolicy.errors import InputError

__all__ = ["Dataset", "read_dataset", "write_dataset"]

FORMAT = 1  # of our additions to Minari's layout


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
    `overwrite`, anything else never.
    """
    folder = Path(path).resolve()
    _check_free(folder, overwrite)
    boxes = _boxes(observation_space)
    check_alike(episodes, _widths(boxes, _action_box(action_space)))
    metadata = _metadata(folder.name, environment, description, provenance)
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        fresh.mkdir(parents=True)
        space = observation_space if isinstance(observation_space, Box) else _dict_space(nested(boxes))
        storage = MinariStorage.new(fresh / "data", space, action_space, _spec(environment), "hdf5")
        storage.update_metadata(metadata)
        storage.update_episodes([_to_minari(episode, isinstance(space, Box)) for episode in episodes])
        storage.update_episode_metadata([{"condition": episode.condition} for episode in episodes])
        _move_into_place(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def read_dataset(path_or_minari_id: str | os.PathLike[str]) -> Dataset:
    """Read a Minari dataset, ours or not, from its folder or by its id in Minari's root (D4RL/door/human-v2).

    Numbers are converted to float32. An episode of a foreign dataset was a success where its infos say so at
    any step (`success` or `is_success`); where they do not say, it counts as none and `success_known` is
    False. Raises InputError where nothing is there, the file is cut off or foreign, holds no episode or a
    value that is not finite, or was recorded with spaces other than 1-D Boxes.
    """
    folder = _locate(path_or_minari_id)
    try:
        stored = minari.MinariDataset(folder / "data")
        metadata = stored.storage.metadata
        attributes = list(stored.storage.get_episode_metadata(stored.episode_indices))
        raw = list(stored.iterate_episodes())
    except Exception as error:  # whatever a file of unknown origin makes Minari and HDF5 raise
        raise InputError(
            f"{folder}: expected a Minari dataset, but it cannot be read ({type(error).__name__}: {error}). "
            "It is cut off or of another kind: write or download it again."
        ) from error
    ours = metadata.get("diffpolicy", {})
    if ours and ours.get("format") != FORMAT:
        raise InputError(f"{folder}: expected format {FORMAT}, got {ours.get('format')}; upgrade diffpolicy.")
    boxes, action_box = _boxes(stored.observation_space), _action_box(stored.action_space)
    episodes = []
    for number, (one, about) in enumerate(zip(raw, attributes, strict=True)):
        try:
            episodes.append(_from_minari(one, about))
        except (InputError, KeyError, TypeError) as error:
            raise InputError(f"{folder}, episode {number}: {error}") from error
    check_alike(episodes, _widths(boxes, action_box))
    known = all(_success(one.infos) is not None for one in raw)
    environment = ours.get("environment", stored.env_spec.id if stored.env_spec else "")
    space = stored.observation_space if isinstance(stored.observation_space, Box) else _dict_space(boxes)
    return Dataset(episodes, environment, space, action_box, ours.get("provenance", {}), known)


def _locate(source: str | os.PathLike[str]) -> Path:
    folder = Path(source)
    if not folder.exists() and DATASET_ID_RE.fullmatch(str(source)):
        root = os.environ.get("MINARI_DATASETS_PATH")
        folder = (Path(root) if root else Path.home() / ".minari" / "datasets") / str(source)
    if not (folder / "data" / "metadata.json").is_file():
        raise InputError(
            f"{source}: expected a folder with data/metadata.json and data/main_data.hdf5, or the id of a "
            f"local Minari dataset; {folder} {'is no dataset' if folder.exists() else 'does not exist'}. "
            "Record one with `diffpolicy collect`, or fetch one with `minari download`."
        )
    return folder


def _check_free(folder: Path, overwrite: bool) -> None:
    """Raise InputError where writing to `folder` would lose something that the caller did not give up."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        metadata = json.loads((folder / "data" / "metadata.json").read_text())
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


def _move_into_place(fresh: Path, folder: Path) -> None:
    old = fresh.with_suffix(".old")
    if folder.exists():
        folder.replace(old)
    fresh.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _spec(environment: str) -> gym.envs.registration.EnvSpec | None:
    """What Minari rebuilds the environment from; None where it is not registered or cannot be written."""
    spec = gym.registry.get(environment.rpartition(":")[2])
    try:
        return spec if spec is not None and spec.to_json() else None
    except (TypeError, ValueError):  # it holds a callable
        return None


def _boxes(space: Space[Any], prefix: str = "") -> dict[str, Box]:
    """The 1-D Boxes of an observation space by flat name ("a/b"); a lone Box is "observation"."""
    if isinstance(space, Dict) and space.spaces:
        parts = [_boxes(part, f"{prefix}{name}/") for name, part in space.spaces.items()]
        return {name: box for part in parts for name, box in part.items()}
    if isinstance(space, Box) and len(space.shape) == 1:
        return {prefix.rstrip("/") or "observation": space}
    raise InputError(
        f"observation space: expected a 1-D Box or a Dict of them, got {space} at {prefix or 'the top'!r}. "
        "Wrap the environment, for instance in gymnasium's FlattenObservation."
    )


def _action_box(space: Space[Any]) -> Box:
    if isinstance(space, Box) and len(space.shape) == 1:
        return space
    raise InputError(f"action space: expected a 1-D Box, got {space}; choose an environment that has one.")


def _widths(boxes: Mapping[str, Box], action_box: Box) -> dict[str, int]:
    return {name: box.shape[0] for name, box in {**boxes, "(action)": action_box}.items()}


def _dict_space(tree: Mapping[str, Any]) -> Dict:
    return Dict({name: _dict_space(part) if isinstance(part, dict) else part for name, part in tree.items()})


def _to_minari(episode: Episode, boxed: bool) -> EpisodeBuffer:
    last = np.arange(1, len(episode) + 1) == len(episode)
    extra: dict[str, Any] = {} if episode.states is None else {"states": episode.states}
    if episode.labels is not None:
        extra |= {"label_chunks": episode.labels.chunks, "label_valid": episode.labels.valid}
    extra = {name: np.concatenate([rows, np.zeros_like(rows[:1])]) for name, rows in extra.items()}
    infos: dict[str, Any] = {"success": np.append(False, last & episode.success)}
    return EpisodeBuffer(
        seed=episode.seed if episode.seed >= 0 else None,
        observations=episode.obs["observation"] if boxed else nested(episode.obs),
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=last & episode.terminated,
        truncations=last & episode.truncated,
        infos={**infos, "diffpolicy": extra} if extra else infos,
    )


def _from_minari(one: minari.EpisodeData, about: Mapping[str, Any]) -> Episode:
    extra = (one.infos or {}).get("diffpolicy", {})
    labels = Labels(extra["label_chunks"][:-1], extra["label_valid"][:-1]) if "label_chunks" in extra else None
    seed = about.get("seed")
    return Episode(
        obs={name: as_float32(f"obs[{name!r}]", x) for name, x in flattened(one.observations).items()},
        actions=as_float32("actions", one.actions),
        rewards=as_float32("rewards", one.rewards),
        terminated=bool(np.any(one.terminations[-1:])),
        truncated=bool(np.any(one.truncations[-1:])),
        success=bool(_success(one.infos)),
        seed=-1 if seed is None else max(int(seed), -1),
        condition=str(about.get("condition", "clean")),
        states=extra["states"][:-1] if "states" in extra else None,
        labels=labels,
    )


def _success(infos: Mapping[str, Any] | None) -> bool | None:
    """Whether the infos of an episode call it a success at any step; None where they do not speak of it."""
    said = [infos[name] for name in ("success", "is_success") if infos and name in infos]
    return any(bool(np.any(np.asarray(values) > 0)) for values in said) if said else None
