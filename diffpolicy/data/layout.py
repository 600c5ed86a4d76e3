"""How an episode lies in the HDF5 table of a Minari dataset.

What Minari has no place for is put where it does no harm: success as the info of that name, labels and simulator
states as infos of T + 1 rows below "diffpolicy" (the last row is empty), the condition as an attribute of the episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from minari import EpisodeData

from diffpolicy.data.episode import Episode, Labels, as_float32, flattened, nested

__all__ = ["episode_of", "said_success", "table_of"]

MEGABYTE = 2**20


def table_of(episodes: Sequence[Episode], boxed: bool) -> bytes:
    """The HDF5 file as bytes: HDF5 does not survive a full disk, plain writing of bytes does.

    `boxed` says that the observation is a bare array, in place of a group of named ones.
    """
    image = {"driver": "core", "backing_store": False, "block_size": MEGABYTE}  # in memory alone
    with h5py.File("main_data.hdf5", "w", track_order=True, **image) as file:
        for number, episode in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            group.attrs["id"], group.attrs["total_steps"] = number, len(episode)
            group.attrs["condition"] = episode.condition
            for name, value in episode.records.items():
                group.attrs[f"record/{name}"] = value
            if episode.seed >= 0:
                group.attrs["seed"] = episode.seed
            _put(group, _rows(episode, boxed))
        file.flush()
        content: bytes = file.id.get_file_image()
    return content


def episode_of(one: EpisodeData, about: Mapping[str, Any]) -> Episode:
    """An episode as Minari read it, with the attributes of its group.

    Raises InputError where it is none of ours to have, and whatever else numbers of unknown origin lead to.
    """
    extra = (one.infos or {}).get("diffpolicy", {})
    labels = Labels(extra["label_chunks"][:-1], extra["label_valid"][:-1]) if "label_chunks" in extra else None
    seed = about.get("seed")
    return Episode(
        obs={name: as_float32(f"obs[{name!r}]", x) for name, x in flattened(one.observations).items()},
        actions=as_float32("actions", one.actions),
        rewards=as_float32("rewards", one.rewards),
        terminated=bool(np.any(one.terminations[-1:])),
        truncated=bool(np.any(one.truncations[-1:])),
        success=bool(said_success(one.infos)),
        seed=-1 if seed is None or not 0 <= seed < 2**63 else int(seed),
        condition=str(about.get("condition", "clean")),
        states=extra["states"][:-1] if "states" in extra else None,
        labels=labels,
        records={k.removeprefix("record/"): float(v) for k, v in about.items() if k.startswith("record/")},
    )


def said_success(infos: Mapping[str, Any] | None) -> bool | None:
    """Whether the infos of an episode call it a success at any step; None where they do not speak of it."""
    said = [infos[name] for name in ("success", "is_success") if infos and name in infos]
    return any(bool(np.any(np.asarray(values) > 0)) for values in said) if said else None


def _rows(episode: Episode, boxed: bool) -> dict[str, Any]:
    last = np.arange(1, len(episode) + 1) == len(episode)
    extra: dict[str, Any] = {} if episode.states is None else {"states": episode.states}
    if episode.labels is not None:
        extra |= {"label_chunks": episode.labels.chunks, "label_valid": episode.labels.valid}
    extra = {name: np.concatenate([rows, np.zeros_like(rows[:1])]) for name, rows in extra.items()}
    infos: dict[str, Any] = {"success": np.append(False, last & episode.success)}
    return {
        "observations": episode.obs["observation"] if boxed else nested(episode.obs),
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": last & episode.terminated,
        "truncations": last & episode.truncated,
        "infos": {**infos, "diffpolicy": extra} if extra else infos,
    }


def _put(group: Any, tree: Mapping[str, Any]) -> None:
    """Arrays as tables that Minari can lengthen, mappings as groups."""
    for name, part in tree.items():
        if isinstance(part, Mapping):
            _put(group.create_group(name), part)
        else:
            group.create_dataset(name, data=part, chunks=True, maxshape=(None, *part.shape[1:]))
