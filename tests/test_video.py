"""Laws of clips: whole or absent, and with every frame that went in."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import mujoco
import numpy as np
import pytest
from gymnasium.envs.mujoco import MujocoEnv
from PIL import Image

from diffpolicy.errors import InputError
from diffpolicy.recipes.actors import load_actor
from diffpolicy.rollout.filming import film
from diffpolicy.rollout.predictor import ScriptedExpert
from diffpolicy.rollout.video import VideoWriter, data_uri, tile, write_video
from diffpolicy_envs.rendering import Backend

TASK = "diffpolicy/PickPlace-v0"


def clip(length: int, height: int = 34, width: int = 42) -> list[np.ndarray]:
    return [np.full((height, width, 3), 20 * t + 10, np.uint8) for t in range(length)]


def decoded(path: Path, height: int = 34, width: int = 42) -> np.ndarray:
    """Frames (T, height, width, 3) of a clip that has just this size, which is checked."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert f", {width}x{height}" in done.stderr.decode()
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def test_mp4_holds_every_frame_in_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "new" / "clip.mp4", clip(12), fps=20)
    frames = decoded(path)
    assert frames.shape == (12, 34, 42, 3)
    np.testing.assert_allclose(frames.mean((1, 2, 3)), 20 * np.arange(12) + 10, atol=6)
    assert imageio_ffmpeg.count_frames_and_secs(str(path)) == (12, pytest.approx(0.6))
    assert [entry.name for entry in path.parent.iterdir()] == ["clip.mp4"]


def test_mp4_can_start_before_it_is_loaded_whole(tmp_path: Path) -> None:
    content = write_video(tmp_path / "clip.mp4", clip(3)).read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_an_odd_size_is_filled_to_an_even_one(tmp_path: Path) -> None:
    assert len(decoded(write_video(tmp_path / "clip.mp4", clip(2, 33, 41)), 34, 42)) == 2


def test_gif_holds_every_frame_at_its_rate(tmp_path: Path) -> None:
    with Image.open(write_video(tmp_path / "clip.gif", clip(7), fps=20)) as picture:
        assert getattr(picture, "n_frames", 1) == 7
        assert picture.info["duration"] == 50
        assert picture.size == (42, 34)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif"])
def test_a_failure_leaves_the_folder_as_it_was(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"older")

    def interrupted() -> Iterator[np.ndarray]:
        yield from clip(2)
        raise KeyError

    with pytest.raises(KeyError):
        write_video(tmp_path / name, interrupted())
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"older"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif"])
@pytest.mark.parametrize(
    "frames",
    [
        [],
        [*clip(1), *clip(1, 20, 20)],
        [np.zeros((34, 42, 3), np.float32)],
        [np.zeros((34, 42), np.uint8)],
        [np.zeros((0, 42, 3), np.uint8)],
    ],
    ids=["none", "changing size", "wrong type", "grey", "empty"],
)
def test_unusable_frames_are_an_input_error_and_leave_nothing(
    tmp_path: Path, name: str, frames: list[np.ndarray]
) -> None:
    with pytest.raises(InputError, match="expected"):
        write_video(tmp_path / name, frames)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "fps"), [("clip.avi", 20), ("clip.mp4", 0), ("clip.mp4", float("nan"))])
def test_unusable_files_and_rates_are_an_input_error(tmp_path: Path, name: str, fps: float) -> None:
    with pytest.raises(InputError, match="expected"):
        VideoWriter(tmp_path / name, fps)


def test_a_writer_outside_its_block_refuses_frames(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="with"):
        VideoWriter(tmp_path / "clip.mp4", 20).add(clip(1)[0])


def test_tiled_clips_stand_side_by_side_and_the_shorter_one_waits() -> None:
    left, right = clip(5), [255 - frame for frame in clip(2, 34, 20)]
    frames = tile([left, right])
    assert len(frames) == 5
    np.testing.assert_array_equal(frames[4], np.concatenate([left[4], right[1]], axis=1))


def test_captions_are_written_above_their_clips() -> None:
    plain, named = tile([clip(1, 64, 80)] * 2), tile([clip(1, 64, 80)] * 2, ["", "K = 4"])
    bar = named[0].shape[0] - plain[0].shape[0]
    assert bar >= 16
    np.testing.assert_array_equal(named[0][bar:], plain[0])
    assert named[0][:bar, :80].max() < 60
    assert named[0][:bar, 80:].max() > 180


@pytest.mark.parametrize(
    ("clips", "labels"),
    [([], None), ([clip(1), []], None), ([clip(1), clip(1, 20)], None), ([clip(1)], ["a", "b"])],
)
def test_clips_that_do_not_fit_are_an_input_error(clips: list[list[np.ndarray]], labels: list[str] | None) -> None:
    with pytest.raises(InputError, match="expected"):
        tile(clips, labels)


def test_a_clip_becomes_an_address_that_holds_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.gif", clip(2))
    kind, content = data_uri(path).split(",")
    assert kind == "data:image/gif;base64"
    assert base64.b64decode(content) == path.read_bytes()
    with pytest.raises(InputError, match="expected"):
        data_uri(tmp_path / "absent.mp4")


def test_each_frame_may_have_a_caption_of_its_own() -> None:
    plain = tile([clip(4), clip(2)], ["one", "two"])
    marked = tile([clip(4), clip(2)], [["one", "one!", "one!", "one"], ["two", "two: over"]])
    assert np.array_equal(plain[0], marked[0])
    assert not np.array_equal(plain[1], marked[1])
    bar = len(marked[0]) - 34
    assert np.array_equal(marked[1][:, 42:][:bar], marked[3][:, 42:][:bar])  # a clip that is over keeps its last one
    assert np.array_equal(plain[3][:, :42], marked[3][:, :42])
    with pytest.raises(InputError, match="expected 4 captions, one a frame of clip 0, got 3"):
        tile([clip(4)], [["a", "b", "c"]])


# -- filming ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "strikes"), [("shove", True), ("slip", True), ("clean", False), ("dynamics", False)]
)
def test_captions_say_when_a_disturbance_strikes_and_how_it_ends(condition: str, strikes: bool) -> None:
    shots: list[int] = []
    film_ = film(TASK, ScriptedExpert, 3, condition, size=16, shot=lambda: shots.append(1))
    assert len(film_.frames) == len(film_.struck) == len(film_.episode) + 1 == len(shots)
    assert any(film_.struck) == strikes
    captions = film_.captions("expert")
    assert (captions[0], captions[-1]) == ("expert", "expert: success")
    assert (f"expert: {'shoved' if condition == 'shove' else 'slipping'}" in captions) == strikes
    if condition == "shove":
        first = film_.struck.index(True)
        clean, shoved = film(TASK, ScriptedExpert, 3, "clean", size=16).episode.obs, film_.episode.obs
        assert all(np.array_equal(shoved[name][:first], clean[name][:first]) for name in clean)
        assert any(not np.array_equal(shoved[name][first], clean[name][first]) for name in clean)


def test_a_failure_is_captioned_as_one_and_where_nothing_is_reported_nothing_is_said() -> None:
    episode = film(TASK, ScriptedExpert, 3, size=16)
    assert episode._replace(success=False).captions("bc")[-1] == "bc: failure"
    assert set(episode._replace(success=None).captions("bc")) == {"bc"}


def test_a_camera_is_named() -> None:
    front, top = (film(TASK, ScriptedExpert, 3, size=32, camera=name).frames[0] for name in ("front", "top"))
    assert front.shape == top.shape == (32, 32, 3)
    assert not np.array_equal(front, top)
    with pytest.raises(InputError, match="camera"):
        film(TASK, ScriptedExpert, 3, size=32, camera="nowhere")


@pytest.mark.parametrize("backend", ["egl", "software"])
def test_gymnasiums_renderer_is_given_the_backend_that_works(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str | None] = []

    def draw(self: object) -> None:
        seen.append(os.environ.get("MUJOCO_GL"))
        raise mujoco.FatalError("gladLoadGL error")

    monkeypatch.setenv("MUJOCO_GL", "")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr("diffpolicy.rollout.filming.resolve_backend", lambda: Backend(backend, "tried"))
    monkeypatch.setattr(MujocoEnv, "render", draw)
    with pytest.raises(InputError, match=r"gladLoadGL error.*MUJOCO_GL"):
        film("Reacher-v5", load_actor("expert", "Reacher-v5").make, 3)
    assert seen == [None if backend == "software" else backend]
