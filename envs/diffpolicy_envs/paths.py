"""Where the MJCF files lie: beside the package in a wheel, at the root of the repository in a checkout."""

from __future__ import annotations

from pathlib import Path

__all__ = ["assets_folder", "model_path"]


def assets_folder() -> Path:
    """Folder of models that came with the package.

    Raises:
        FileNotFoundError: neither the packaged folder nor a checkout's exists.
    """
    here = Path(__file__).resolve().parent
    for folder in (here / "assets", here.parents[1] / "assets"):
        if (folder / "models").is_dir():
            return folder
    raise FileNotFoundError(f"no assets folder beside {here} or in its checkout; reinstall diffpolicy")


def model_path(name: str | Path) -> Path:
    """Real path of ``assets/models/<name>.xml`` (MuJoCo reads its includes from the same folder), or a path as given.

    Raises:
        FileNotFoundError: no such file.
    """
    if isinstance(name, Path):
        if not name.is_file():
            raise FileNotFoundError(f"no MJCF file {name}")
        return name
    path = assets_folder() / "models" / f"{name}.xml"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.xml"))
        raise FileNotFoundError(
            f"no model {name!r} in the package (a file of your own is a pathlib.Path); known: {', '.join(known)}"
        )
    return path
