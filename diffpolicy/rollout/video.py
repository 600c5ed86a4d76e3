"""Pictures to moving pictures: clips on disk, side by side, or inside a page."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from diffpolicy.errors import InputError

__all__ = ["VideoWriter", "data_uri", "tile", "write_video"]

_TYPES = {".mp4": "video/mp4", ".gif": "image/gif"}
_BAR = 1 / 14  # height of the caption bar against that of the frame


class VideoWriter:
    """Streams frames into a clip; the file appears when the block ends well, and not at all otherwise.

        with VideoWriter("out/clip.mp4", fps=20) as video:
            video.add(frame)  # (height, width, 3) uint8

    Args:
        path: where the clip goes; .mp4 (H.264, plays in every browser) or .gif (256 colours).
        fps: frames a second [1/s].

    Raises:
        InputError: another file type, a rate that is not positive, frames of changing size or of a
            wrong type, or no frame at all.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float) -> None:
        self.path = Path(path)
        self.fps = float(fps)
        self.frames = 0
        if self.path.suffix.lower() not in _TYPES:
            raise InputError(f"expected a path that ends in .mp4 or .gif, got {self.path.name!r}; rename the clip")
        if not (np.isfinite(self.fps) and self.fps > 0):
            raise InputError(f"expected a frame rate above 0 [1/s], got {fps}; 20 suits most tasks")
        self._shape: tuple[int, ...] | None = None
        self._temporary: Path | None = None
        self._stream: Any = None

    def __enter__(self) -> VideoWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{self.path.stem}-", suffix=self.path.suffix.lower(), dir=self.path.parent
        )
        os.close(handle)
        self._temporary = Path(name)
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append one frame, (height, width, 3) uint8; an odd last row or column is repeated in mp4."""
        if self._temporary is None:
            raise InputError(
                "expected a writer inside its `with` block, got one outside; write `with VideoWriter(...)`"
            )
        frame = _checked(frame)
        if self._shape is None:
            self._shape = frame.shape
            self._stream = self._open(self._temporary)
        elif frame.shape != self._shape:
            raise InputError(
                f"expected every frame of shape {self._shape}, got {frame.shape} at frame {self.frames}; "
                "render the whole clip at one size"
            )
        if self.path.suffix.lower() == ".mp4":
            frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        self._stream.append_data(np.ascontiguousarray(frame))
        self.frames += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        temporary, self._temporary = self._temporary, None
        if temporary is None:
            return
        try:
            if self._stream is not None:
                self._stream.close()
            if kind is None:
                self._finish(temporary)
        finally:
            self._stream = None
            temporary.unlink(missing_ok=True)

    def _finish(self, temporary: Path) -> None:
        if self.frames == 0:
            raise InputError(f"expected at least one frame for {self.path}, got none; add frames before closing")
        with temporary.open("rb") as clip:
            head = clip.read(4096)
        if not head or (self.path.suffix.lower() == ".mp4" and b"moov" not in head):
            raise RuntimeError(f"the encoder did not finish {self.path}; is the disk full?")
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # a temporary file starts out private
        temporary.replace(self.path)

    def _open(self, temporary: Path) -> Any:
        if self.path.suffix.lower() == ".gif":
            return _GifStream(temporary, self.fps)
        import imageio.v2 as imageio

        return imageio.get_writer(
            temporary,
            format="FFMPEG",
            fps=self.fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            quality=None,
            ffmpeg_log_level="error",
            output_params=["-crf", "20", "-preset", "veryfast", "-movflags", "+faststart"],
        )


class _GifStream:
    """Collects frames of 256 colours; Pillow writes them when it is closed."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._duration = path, max(20, round(1000 / fps))  # viewers slow down shorter frames
        self._images: list[Any] = []

    def append_data(self, frame: np.ndarray) -> None:
        from PIL import Image

        self._images.append(Image.fromarray(frame).quantize(256))

    def close(self) -> None:
        first, *rest = self._images
        first.save(self._path, save_all=True, append_images=rest, duration=self._duration, loop=0)


def write_video(path: str | os.PathLike[str], frames: Iterable[np.ndarray], fps: float = 20.0) -> Path:
    """Write `frames`, each (height, width, 3) uint8, as a clip of `fps` [1/s]; returns its path.

    Raises:
        InputError: as `VideoWriter`.
    """
    with VideoWriter(path, fps) as video:
        for frame in frames:
            video.add(frame)
    return video.path


def tile(
    clips: Sequence[Sequence[np.ndarray]], labels: Sequence[str | Sequence[str]] | None = None
) -> list[np.ndarray]:
    """Clips side by side: frames (height [+ bar], sum of widths, 3) uint8, as many as the longest clip has.

    A shorter clip stays at its last frame; each label is a caption above its clip, or one for each of its frames.

    Raises:
        InputError: no clip, an empty clip, frames of unequal height, or another number of labels.
    """
    if not clips or any(len(clip) == 0 for clip in clips):
        raise InputError("expected one or more clips with a frame each, got an empty one; drop it")
    for number, clip in enumerate(clips):
        for frame in clip:
            height, width = _checked(frame).shape[:2]
            if height != clips[0][0].shape[0] or width != clip[0].shape[1]:
                raise InputError(
                    f"expected clips of one height and frames of one size, got {frame.shape} "
                    f"in clip {number}; render them alike"
                )
    texts = None if labels is None else _texts(clips, labels)
    bars: dict[tuple[int, str], np.ndarray] = {}

    def column(number: int, t: int) -> np.ndarray:
        """Frame t of a clip, under its caption."""
        t = min(t, len(clips[number]) - 1)
        frame = clips[number][t]
        if texts is None:
            return frame
        text = texts[number][t]
        if (number, text) not in bars:
            bars[number, text] = _caption(frame, text)
        return np.concatenate([bars[number, text], frame])

    numbers = range(len(clips))
    return [np.concatenate([column(n, t) for n in numbers], axis=1) for t in range(max(map(len, clips)))]


def _texts(clips: Sequence[Sequence[np.ndarray]], labels: Sequence[str | Sequence[str]]) -> list[Sequence[str]]:
    """A caption for each frame of each clip."""
    if len(labels) != len(clips):
        raise InputError(f"expected {len(clips)} labels, one a clip, got {len(labels)}")
    pairs = zip(labels, clips, strict=True)
    texts = [[label] * len(clip) if isinstance(label, str) else label for label, clip in pairs]
    for number, (text, clip) in enumerate(zip(texts, clips, strict=True)):
        if len(text) != len(clip):
            raise InputError(f"expected {len(clip)} captions, one a frame of clip {number}, got {len(text)}")
    return texts


def data_uri(path: str | os.PathLike[str]) -> str:
    """The clip as a `data:` address, for a page that carries it along.

    Raises:
        InputError: the file is neither .mp4 nor .gif, or is not there.
    """
    path = Path(path)
    if path.suffix.lower() not in _TYPES or not path.is_file():
        raise InputError(f"expected an existing .mp4 or .gif, got {path}; write the clip first")
    return f"data:{_TYPES[path.suffix.lower()]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _checked(frame: np.ndarray) -> np.ndarray:
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
        raise InputError(
            f"expected frames of shape (height, width, 3) and type uint8, got {frame.shape} {frame.dtype}; "
            "scale colours to 0..255 and convert"
        )
    return frame


def _caption(frame: np.ndarray, text: str) -> np.ndarray:
    """A dark bar as wide as `frame` with `text` in its middle, (bar height, width, 3) uint8."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = max(16, round(frame.shape[0] * _BAR)), frame.shape[1]
    bar = Image.new("RGB", (width, height), (24, 26, 30))
    pen = ImageDraw.Draw(bar)
    size = 0.62 * height
    font = ImageFont.load_default(size)
    while size > 6 and pen.textlength(text, font=font) > width - 6:
        size -= 1
        font = ImageFont.load_default(size)
    pen.text((width / 2, height / 2), text, font=font, fill=(235, 237, 240), anchor="mm")
    return np.asarray(bar, np.uint8)
