"""Which renderer works on this machine: tried in a child process, so that no driver can end the run."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Backend", "demote", "probe", "resolve_backend"]

PROBE_SECONDS = 30.0
_OFF = ("off", "disable", "disabled", "false", "0")
_ON = ("", "on", "enable", "enabled", "true", "1")
_OPENGL = ("egl", "osmesa", "glfw", "cgl")
_ALIASES = {"glx": "glfw", "wgl": "glfw"}
_NEEDED = {  # every row must have one library that loads
    "egl": (("libEGL.so.1",), ("libGL.so.1", "libOpenGL.so.0")),
    "osmesa": (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),),
    "glfw": (("libGL.so.1",),),
}


@dataclass(frozen=True)
class Backend:
    """A renderer's name ("egl", "osmesa", "glfw", "cgl" or "software") and one line on why it was chosen."""

    name: str
    reason: str


def resolve_backend() -> Backend:
    """The renderer for this process, decided at the first call.

    DIFFPOLICY_RENDERER (software, egl, osmesa), then MUJOCO_GL, narrow the choice. Whatever is
    chosen has drawn a correct picture in a child process; otherwise it is the software ray caster.
    Never raises.
    """
    global _resolved
    if _resolved is None:
        _resolved = _decide()
    return _resolved


def demote(reason: str) -> None:
    """Use the software ray caster for the rest of this process."""
    global _resolved
    _resolved = _software(reason)


_resolved: Backend | None = None


def _decide() -> Backend:
    variable, wanted = _wish()
    if wanted == "software":
        return _software(f"{variable} asks for it")
    failures = []
    if wanted in _OPENGL:
        candidates: tuple[str, ...] = (wanted,)
    else:
        candidates = {"linux": ("egl", "osmesa"), "darwin": ("cgl",)}.get(sys.platform, ("glfw",))
        if wanted not in _ON:
            failures.append(f"{variable}={wanted!r} is not understood")
    for name in candidates:
        failure = probe(name)
        if failure is None:
            origin = f"chosen by {variable}" if wanted in _OPENGL else "the first that drew a correct picture"
            return Backend(name, f"OpenGL by {name} ({origin})")
        failures.append(failure)
    return _software("no working OpenGL: " + ", ".join(failures))


def _wish() -> tuple[str, str]:
    """The environment variable that decides, and what it asks for ("" when nothing does)."""
    ours = os.environ.get("DIFFPOLICY_RENDERER", "").strip().lower()
    if ours:
        return "DIFFPOLICY_RENDERER", ours
    theirs = os.environ.get("MUJOCO_GL", "").strip().lower()
    return "MUJOCO_GL", "software" if theirs in _OFF else _ALIASES.get(theirs, theirs)


def _software(reason: str) -> Backend:
    return Backend("software", f"software ray caster ({reason})")


@functools.cache
def probe(name: str) -> str | None:
    """None where OpenGL by `name` draws a correct picture in a child process, else why not, in one line.

    Raises:
        ValueError: `name` is no OpenGL backend.
    """
    if name not in _OPENGL:
        raise ValueError(f"expected a backend among auto, software, {', '.join(_OPENGL)}, got {name!r}")
    missing = _missing(name)
    if missing:
        return missing
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo writes its log where it runs
        try:
            child = subprocess.run(
                _command(name),
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=PROBE_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"{name} did not answer within {PROBE_SECONDS:g} s"
        except OSError as error:
            return f"{name} could not be tried: {error}"
    if child.returncode == 0:
        return None
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    return f"{name} failed: {lines[-1].strip()[:120] if lines else f'exit status {child.returncode}'}"


def _command(name: str) -> list[str]:
    return [sys.executable, "-P", str(Path(__file__).with_name("opengl.py")), name]


def _missing(name: str) -> str | None:
    """What `name` lacks (None: nothing), checked quickly before a child is started."""
    if not sys.platform.startswith("linux"):
        return None if name in ("glfw", "cgl") else f"{name} exists on Linux only"
    if name == "cgl":
        return "cgl exists on macOS only"
    if name == "glfw" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "glfw needs a display"
    absent = [row[0] for row in _NEEDED[name] if not any(map(_loads, row))]
    return f"{' and '.join(absent)} not found" if absent else None


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
