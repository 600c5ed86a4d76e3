"""Figures of results: numbers go in, a matplotlib figure comes out; nothing here measures."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffpolicy.errors import InputError
from diffpolicy.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["learning_curve", "png", "success_against_demonstrations", "success_against_rounds", "svg"]

Point = tuple[int, str, Interval]

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


def learning_curve(rows: Iterable[Mapping[str, Any]], metric: str = "loss") -> Figure:
    """One training metric against the step, on a logarithmic axis where all values are positive.

    rows: records with `step` and the metric, as `JsonLines` writes them; those without the metric are passed
    over. The line is the mean of each hundredth of the run, the band holds the middle 80% of its values.
    Raises InputError where no row has the metric.
    """
    pairs = [(row["step"], row[metric]) for row in rows if row.get(metric) is not None]
    if not pairs:
        raise InputError(f"no row has the metric {metric!r}; plot one that the update reports")
    parts = np.array_split(np.array(pairs, dtype=np.float64), min(len(pairs), 100))
    at = np.array([part[:, 0].mean() for part in parts])
    mean = np.array([part[:, 1].mean() for part in parts])
    low, high = np.array([np.percentile(part[:, 1], [10, 90]) for part in parts]).T
    figure, axes = _axes("updates", metric)
    axes.fill_between(at, low, high, color=PALETTE[0], alpha=0.2, linewidth=0)
    axes.plot(at, mean, color=PALETTE[0])
    if (low > 0).all():
        axes.set_yscale("log")
    offset: Any = {"xytext": (6, 0), "textcoords": "offset points"}
    axes.annotate(f"{mean[-1]:.3g}", (at[-1], mean[-1]), color=PALETTE[0], va="center", **offset)
    axes.margins(x=0.02)
    return figure


def success_against_rounds(points: Sequence[Point], references: Mapping[str, Interval | float] | None = None) -> Figure:
    """Success rate with its interval against the correction round, one line per condition.

    points: (round, condition, interval), in any order. references: levels to compare with, as the expert's.
    Raises InputError where there is no point.
    """
    return _success(points, references or {}, "round of correction", doubling=False)


def success_against_demonstrations(
    points: Sequence[Point], references: Mapping[str, Interval | float] | None = None
) -> Figure:
    """Success rate with its interval against the number of demonstrations, on an axis of doublings.

    points: (demonstrations, method or condition, interval). The rest is as in `success_against_rounds`.
    """
    return _success(points, references or {}, "demonstrations", doubling=True)


def _settle(figure: Figure) -> None:
    """Lay the figure out once and keep that: a repeated layout would move everything by a hair."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")


def _axes(xlabel: str, ylabel: str) -> tuple[Figure, Axes]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.tick_params(length=0)
        axes.set_axisbelow(True)
    return figure, axes


def _success(
    points: Sequence[Point], references: Mapping[str, Interval | float], xlabel: str, doubling: bool
) -> Figure:
    if not points:
        raise InputError("a plot of success wants at least one (x, condition, Interval); got none")
    figure, axes = _axes(xlabel, "success [%]")
    xs = sorted({x for x, _, _ in points})
    position = {x: (float(np.log2(max(x, 1))) if doubling else float(x)) for x in xs}
    names = list(dict.fromkeys(name for _, name, _ in points))
    spread = 0.02 * (max(position.values()) - min(position.values()) or 1.0)
    labels: list[tuple[float, str, str]] = []
    for number, name in enumerate(names):
        line = sorted((x, interval) for x, other, interval in points if other == name)
        shift = spread * (number - (len(names) - 1) / 2)
        at = [position[x] + shift for x, _ in line]
        rates = 100 * np.array([interval for _, interval in line])  # (n, 3): point, low, high
        errors = np.abs(rates[:, 1:] - rates[:, :1]).T
        colour, marker = PALETTE[number % len(PALETTE)], "osD^vP"[number % 6]
        axes.errorbar(at, rates[:, 0], errors, color=colour, marker=marker, elinewidth=1.3, capsize=3, clip_on=False)
        labels.append((float(rates[-1, 0]), name, colour))
    for name, level in references.items():
        height = 100 * (level.point if isinstance(level, Interval) else level)
        axes.axhline(height, color=INK, linestyle=(0, (4, 3)), linewidth=1.1)
        if isinstance(level, Interval):
            axes.axhspan(100 * level.low, 100 * level.high, color=INK, alpha=0.08, linewidth=0)
        labels.append((height, name, INK))
    axes.set_xticks(list(position.values()), [str(x) for x in xs])
    axes.set_ylim(0, 102)
    axes.set_yticks([0, 25, 50, 75, 100])
    _label_right(axes, labels)
    return figure


def _label_right(axes: Axes, labels: list[tuple[float, str, str]], gap: float = 7.0) -> None:
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
