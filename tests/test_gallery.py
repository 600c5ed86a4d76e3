"""Pictures of the tasks: where they are linked, what they show, and that they can be made again."""

from __future__ import annotations

import re
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

from benchmarks.gallery import AVOID, CAMERA, INK, Gallery, circled, snake
from benchmarks.tables import ROOT
from diffpolicy.recipes.actors import load_actor
from diffpolicy.rollout.filming import film
from diffpolicy_envs import TASKS, model_path
from diffpolicy_envs.tasks.avoid import STARTS

PAGE = (ROOT / "docs" / "environments.md").read_text(encoding="utf-8")


def test_each_task_has_its_picture_in_its_section_and_the_sections_are_in_the_gallerys_order() -> None:
    sections = re.findall(r"\n### (\w+)\n\n!\[[^\]]+\]\(images/tasks/(\w+)\.png\)\n", PAGE)
    ours = [name for name in TASKS if name.startswith("diffpolicy/")]
    assert sections == [(name.removeprefix("diffpolicy/").removesuffix("-v0"), snake(name)) for name in ours]
    for _, picture in sections:
        assert (ROOT / "docs" / "images" / "tasks" / f"{picture}.png").is_file()


def test_the_gallery_films_a_task_into_a_grid_and_a_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFPOLICY_RENDERER", "software")
    Gallery(out=tmp_path, seconds=1.0, size=48, only=("diffpolicy/Avoid-v0",))()
    with Image.open(tmp_path / "tasks.gif") as grid, Image.open(tmp_path / "tasks" / "avoid.png") as still:
        assert getattr(grid, "n_frames", 1) > 1
        assert grid.width == 48
        assert still.size == (480, 360)


def test_the_ring_in_avoid_lies_around_the_puck_that_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFPOLICY_RENDERER", "software")
    clip = film(AVOID, load_actor("expert", AVOID).make, 0, size=96, camera=CAMERA[AVOID])
    way = clip.episode.obs["agent"][:, :2]
    for t in (0, 20, len(way) - 1):
        red, green, _ = np.moveaxis(clip.frames[t].astype(int), 2, 0)
        puck = np.argwhere(red > 2.5 * green).mean(axis=0)
        ring = np.argwhere((circled([clip.frames[t]], way[t : t + 1])[0] == INK).all(axis=2))
        assert np.abs((ring.min(axis=0) + ring.max(axis=0)) / 2 - puck).max() < 1.5
    assert len(circled(clip.frames, way)) == len(clip.frames)


def test_the_front_camera_sees_all_places_where_the_arm_works() -> None:
    model = mujoco.MjModel.from_xml_path(str(model_path("pick_place")))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    camera = model.camera("front").id
    places = np.array([[x, y, 0.0] for x in (0.33, 0.63) for y in (-0.28, 0.28)])  # wide starts [m]
    seen = (places - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)  # right, up, back
    tangent = np.tan(np.radians(model.cam_fovy[camera] / 2))
    offsets = np.abs(seen[:, :2] / -seen[:, 2:]) / tangent  # 1 at the border of a square picture
    assert offsets.max() < 1.0
    assert offsets.max() > 0.9  # and no farther away than that


def test_avoids_board_shows_where_the_puck_starts() -> None:
    model = mujoco.MjModel.from_xml_path(str(model_path("avoid")))
    radius = model.geom("agent").size[0]
    for name, start in (("start", "narrow"), ("wide_start", "wide")):
        low, high = STARTS[start]
        patch = model.geom(name)
        assert patch.pos[:2] == pytest.approx((low + high) / 2)
        assert patch.size[:2] == pytest.approx((high - low) / 2 + radius)
        assert patch.contype[0] == patch.conaffinity[0] == 0


def test_the_goals_of_drawer_and_door_are_one_green_bar_of_the_handles_length() -> None:
    for name in ("drawer_open", "door_open"):
        model = mujoco.MjModel.from_xml_path(str(model_path(name)))
        body = model.body("goal")
        assert body.geomnum[0] == 1
        goal, handle = model.geom("goal"), model.geom("object")
        assert goal.size[1] == pytest.approx(handle.size[1])
        assert goal.size[0] > handle.size[0]  # so that it can be seen, also where the bar has come to it
