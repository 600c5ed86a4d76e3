"""Pictures of the tasks: all of them moving in one grid, and a still of each.

python -m benchmarks.gallery
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mujoco
import numpy as np
import tyro
from PIL import Image, ImageDraw

from benchmarks.tables import ROOT
from diffpolicy.errors import InputError
from diffpolicy.recipes.actors import load_actor
from diffpolicy.rollout.filming import Clip, Frames, film
from diffpolicy.rollout.video import tile
from diffpolicy_envs import TASKS, Task, TaskEnv, model_path
from diffpolicy_envs.simulation import Simulations

__all__ = ["Gallery", "circled", "replayed", "snake", "spoken", "write_gif", "write_png"]

IMAGES = ROOT / "docs" / "images"
FPS = 10  # pictures a second [1/s]
PAUSE = 0.6  # time for which a solved task stands still before the next episode [s]
TRIES = 12  # episodes among which a cell finds those that it shows
GAP = 3  # white between the cells [px]
AVOID = "diffpolicy/Avoid-v0"
INK = (178, 24, 34)  # of what is drawn on pictures
RING = 0.035  # of this part of a picture's width is the ring around Avoid's puck, in radius
CONDITION = {"diffpolicy/PushT-v0": "wide"}  # whose narrow starts hide what is to be done; clean elsewhere
CAMERA = {AVOID: "top"}  # in which a place is a pixel; the task's own elsewhere


@dataclass(frozen=True)
class Gallery:
    """Film every task's expert into docs/images/tasks.gif and docs/images/tasks/."""

    out: Path = IMAGES
    """Folder of tasks.gif and of the folder tasks."""
    seed: int = 0
    """Reset seed of each task's first episode; the next ones count on, and what the expert fails is left out."""
    seconds: float = 6.0
    """Length of the moving picture: short episodes are followed by others [s]."""
    columns: int = 5
    """Cells in a row."""
    size: int = 200
    """Height and width of a cell's picture [px]."""
    colours: int = 200
    """Colours that all pictures share."""
    only: tuple[str, ...] = ()
    """Tasks by id instead of all."""

    def __call__(self) -> None:
        """Film, and write the grid and the stills; raises InputError where an expert solves nothing."""
        names = self.only or tuple(TASKS)  # the documentation's order
        cells = []
        for name in names:
            frames, first = self._cell(name)
            steps = len(first.episode) * 3 // 5
            still = replayed(
                TASKS[name], first.episode.seed, first.episode.actions[:steps], CONDITION.get(name, "clean")
            )
            write_png(self.out / "tasks" / f"{snake(name)}.png", still, self.colours)
            cells.append(frames)
        frames = grid(cells, [spoken(name) for name in names], self.columns)
        write_gif(self.out / "tasks.gif", frames, FPS, self.colours)

    def _cell(self, name: str) -> tuple[Frames, Clip]:
        """As many pictures as the grid has, of one solved episode after another; and the first of them."""
        wanted, pause = round(self.seconds * FPS), round(PAUSE * FPS)
        rate = Simulations(TASKS[name], 1).step_time * FPS  # pictures per control step
        frames: Frames = []
        first: Clip | None = None
        for clip in self._solved(name):
            fits = (wanted - pause - 1) / (len(clip.frames) - 1)  # one that is too long is shown faster
            shown = thinned(clip.frames, min(rate, fits)) + [clip.frames[-1]] * pause
            if first is not None and len(frames) + len(shown) > wanted + pause:
                break
            first, frames = first or clip, frames + shown
            if len(frames) >= wanted * 0.8:
                break
        if first is None:
            raise InputError(f"the expert of {name} solves none of {TRIES} episodes; choose another --seed")
        return (frames + [frames[-1]] * wanted)[:wanted], first

    def _solved(self, name: str) -> Iterator[Clip]:
        """Episodes that the expert solves, from the first seed on."""
        actor = load_actor("expert", name)
        for seed in range(self.seed, self.seed + TRIES):
            clip = film(name, actor.make, seed, CONDITION.get(name, "clean"), self.size, camera=CAMERA.get(name))
            print(
                f"{name}: seed {seed}, {len(clip.episode)} steps{'' if clip.success else ', failed: left out'}",
                flush=True,
            )
            if clip.success:
                way = clip.episode.obs["agent"] if name == AVOID else None
                yield clip if way is None else clip._replace(frames=circled(clip.frames, way[:, :2]))


def thinned(frames: Frames, rate: float) -> Frames:
    """The pictures of control steps at ``rate`` of them a step; the last one always."""
    count = max(2, math.ceil((len(frames) - 1) * rate) + 1)
    return [frames[round(i)] for i in np.linspace(0, len(frames) - 1, count)]


def circled(frames: Frames, way: np.ndarray) -> Frames:
    """Avoid from above, with a ring around the puck, which has five pixels of 200, and a line along its way.

    way: where the puck is in each of the pictures (P, 2) [m].
    """
    camera = mujoco.MjModel.from_xml_path(str(model_path("avoid"))).camera("top")
    reach = float(camera.pos[2]) * math.tan(math.radians(float(camera.fovy[0])) / 2)  # what half a picture shows [m]
    half = frames[0].shape[0] / 2
    places = half * (1 + way * (1, -1) / reach)  # (P, 2) [px]
    drawn = []
    for t, frame in enumerate(frames):
        picture = Image.fromarray(frame)
        pen, (x, y), radius = ImageDraw.Draw(picture), places[t], 2 * half * RING
        pen.line([tuple(place) for place in places[: t + 1]], fill=INK, width=max(1, round(half / 67)))
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=INK, width=max(1, round(half / 50)))
        drawn.append(np.asarray(picture))
    return drawn


def grid(cells: Sequence[Frames], captions: Sequence[str], columns: int) -> Frames:
    """Cells of equally many pictures in rows, each under its caption; a last row that is not full ends in white."""
    size = cells[0][0].shape[0]
    framed = [[np.pad(f, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for f in cell] for cell in cells]
    rows = []
    for start in range(0, len(cells), columns):
        row = tile(framed[start : start + columns], captions[start : start + columns])
        missing = columns * (size + GAP) - row[0].shape[1] if len(cells) > columns else 0
        rows.append([np.pad(f, ((0, 0), (0, missing), (0, 0)), constant_values=255) for f in row])
    return [np.concatenate(parts)[:-GAP, :-GAP] for parts in zip(*rows, strict=True)]


def replayed(task: type[Task], seed: int, actions: np.ndarray, condition: str = "clean") -> np.ndarray:
    """The picture (360, 480, 3) after ``actions`` (T, A) from a reset seed."""
    env = TaskEnv(task, condition=condition, render_mode="rgb_array", width=480, height=360)
    env.reset(seed=seed)
    for action in actions:
        env.step(action)
    picture = env.render()
    env.close()
    return np.asarray(picture, np.uint8)


def snake(name: str) -> str:
    """``diffpolicy/PickPlace-v0`` to ``pick_place``."""
    return spoken(name).lower().replace(" ", "_")


def spoken(name: str) -> str:
    """``diffpolicy/PickPlace-v0`` to ``Pick Place``."""
    word = name.rpartition("/")[2].partition("-")[0]
    return "".join(f" {c}" if c.isupper() else c for c in word).strip()


def write_gif(path: Path, frames: Frames, fps: float, colours: int) -> None:
    """Write a moving picture of few colours that all frames share, so that what stands still costs nothing."""
    palette = _palette(np.concatenate(frames[:: max(1, len(frames) // 6)]), colours)
    first, *rest = [Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames]
    _moved_into_place(
        path,
        lambda place: first.save(
            place, "GIF", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, optimize=True
        ),
    )


def write_png(path: Path, frame: np.ndarray, colours: int) -> None:
    """Write a picture (height, width, 3) of few colours."""
    image = Image.fromarray(frame).quantize(palette=_palette(frame, colours), dither=Image.Dither.NONE)
    _moved_into_place(path, lambda place: image.save(place, "PNG", optimize=True))


def _palette(picture: np.ndarray, colours: int) -> Image.Image:
    """Colours that suit the picture, its few vivid pixels counted often, lest a red ball turns brown."""
    pixels = picture.reshape(-1, 3)[::3]
    vivid = pixels[np.ptp(pixels, axis=1) > 90]
    weighed = np.concatenate([pixels, *[vivid] * 5])[None]  # (1, pixels, 3)
    return Image.fromarray(weighed).quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=2)


def _moved_into_place(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    place = Path(name)
    try:
        write(place)
        place.chmod(0o644)
        place.replace(path)
    finally:
        place.unlink(missing_ok=True)


if __name__ == "__main__":
    tyro.cli(Gallery)()
