"""How every figure looks and is written out: the style, the colours, labels beside lines, SVG and PNG."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["INK", "PALETTE", "STYLE", "blank", "label_right", "panelled", "png", "svg"]

# Okabe and Ito's colours, which stay distinct under every common colour blindness.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#24292f"
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "diffpolicy",
}


def svg(figure: Figure) -> str:
    """The figure as an inline SVG element that follows a light or dark page; equal figures give equal text.

    Its ink is `currentColor`, its lines are `var(--series-0)` and so on, else the palette's own.
    """
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context(STYLE):
        _settle(figure)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    for number, colour in enumerate(PALETTE):
        text = text.replace(colour.lower(), f"var(--series-{number}, {colour})")
    return re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)


def png(figure: Figure, dpi: int = 160) -> bytes:
    """The figure as a PNG on white, dpi in [pixel/inch]."""
    import matplotlib as mpl

    stream = io.BytesIO()
    with mpl.rc_context(STYLE):
        _settle(figure)
        figure.savefig(stream, format="png", dpi=dpi, facecolor="white")
    return stream.getvalue()


def blank(xlabel: str, ylabel: str, size: tuple[float, float] = (6.4, 3.6)) -> tuple[Figure, Axes]:
    """An empty figure of size [inch] and its axes, in the house's style, without pyplot's global state."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
    return figure, axes


def panelled(count: int, xlabel: str, ylabel: str, columns: int = 2) -> tuple[Figure, list[Axes]]:
    """An empty figure of so many axes in the house's style, row by row; those at its edges are labelled."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 0.6 + 2.5 * rows), layout="constrained")
        found = []
        for number in range(count):
            axes = figure.add_subplot(rows, columns, number + 1)
            axes.set_xlabel(xlabel if number + columns >= count else "")
            axes.set_ylabel("" if number % columns else ylabel)
            axes.tick_params(length=0)
            axes.set_axisbelow(True)
            found.append(axes)
    return figure, found


def label_right(axes: Axes, labels: list[tuple[float, str, str]], gap: float = 7.0) -> None:
    """Name each line beside its right end, moved apart by at least `gap` and kept below the top."""
    heights: list[float] = []
    ordered = sorted(labels, reverse=True)
    for height, _, _ in ordered:
        heights.append(min(height, heights[-1] - gap) if heights else height)
    lift = max(0.0, 2.0 - heights[-1])
    for height, (_, name, colour) in zip(heights, ordered, strict=True):
        axes.annotate(
            name,
            (1.02, height + lift),
            xycoords=("axes fraction", "data"),
            color=colour,
            va="center",
            annotation_clip=False,
        )


def _settle(figure: Figure) -> None:
    """Lay the figure out once and keep that: a repeated layout would move everything by a hair."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
