"""Figures of results: numbers go in, a matplotlib figure comes out; nothing here measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from diffpolicy.errors import InputError
from diffpolicy.evaluation.comparison import PairedSeeds, verdict
from diffpolicy.evaluation.drawing import INK, PALETTE, blank, label_right, panelled, png, svg
from diffpolicy.evaluation.profiles import Profile
from diffpolicy.evaluation.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "learning_curve",
    "paired_differences",
    "performance_profiles",
    "png",
    "success_against_cost",
    "success_against_demonstrations",
    "success_against_rounds",
    "success_fronts",
    "svg",
]

Point = tuple[int, str, Interval]


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
    figure, axes = blank("updates", metric)
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


def success_against_cost(
    points: Sequence[Point],
    cost: Literal["NFE", "expert queries"],
    references: Mapping[str, Interval | float] | None = None,
) -> Figure:
    """Success rate with its interval against what it cost: NFE on an axis of doublings, expert queries on an even one.

    points: (cost, method, interval). The rest is as in `success_against_rounds`.
    Raises InputError where there is no point, or the cost has another name.
    """
    if cost not in ("NFE", "expert queries"):
        raise InputError(f'the cost on an axis is "NFE" or "expert queries"; got {cost!r}')
    figure = _success(points, references or {}, cost, doubling=cost == "NFE")
    if cost == "expert queries":
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter

        axis = figure.axes[0].xaxis
        axis.set_major_locator(MaxNLocator(6, integer=True))
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def success_fronts(panels: Mapping[str, Sequence[tuple[str, float, Interval]]], xlabel: str) -> Figure:
    """Success with its interval against what a decision takes, on a logarithmic axis, a panel a task.

    panels: by the name of the task, (method, cost, interval); a method looks the same in all.
    Raises InputError where there is no point, or a cost is not above zero.
    """
    points = [point for panel in panels.values() for point in panel]
    if not points or min(cost for _, cost, _ in points) <= 0:
        raise InputError("a plot of fronts wants (method, cost, Interval) with costs above zero; got none, or others")
    figure, grid = panelled(len(panels), xlabel, "success [%]")
    looks = {name: number for number, name in enumerate(dict.fromkeys(name for name, _, _ in points))}
    for axes, (task, panel) in zip(grid, panels.items(), strict=True):
        axes.set_title(task, loc="left", fontsize=10)
        for name, cost, interval in panel:
            rate, low, high = (100 * end for end in interval)
            number = looks[name]
            look: Any = {"color": PALETTE[number % len(PALETTE)], "marker": "osD^vPX*<>ph"[number % 12]}
            if number >= len(PALETTE):
                look["markerfacecolor"] = "white"
            axes.errorbar(cost, rate, [[rate - low], [high - rate]], linestyle="", elinewidth=1.1, label=name, **look)
        axes.set_xscale("log")
        low, high = min(cost for _, cost, _ in points), max(cost for _, cost, _ in points)
        ticks = [t for e in range(-6, 7) for t in (10.0**e, 3 * 10.0**e) if low / 1.5 <= t <= 1.5 * high]
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlim(low / 1.3, 1.3 * high)
        axes.set_ylim(0, 102)
        axes.set_yticks([0, 25, 50, 75, 100])
    handles: dict[str, Any] = {}
    for axes in grid:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False, fontsize=9)
    return figure


def performance_profiles(profiles: Mapping[str, Profile], xlabel: str = "score") -> Figure:
    """Share of scores above each threshold, one line per method with its pointwise band.

    profiles: by the name of the method, from `performance_profile`. xlabel: what the score is, with its unit.
    Raises InputError where there is no profile.
    """
    if not profiles:
        raise InputError("a plot of profiles wants at least one method with its Profile; got none")
    figure, axes = blank(f"threshold τ of the {xlabel}", "share above τ [%]")
    for number, (name, profile) in enumerate(profiles.items()):
        colour, line = PALETTE[number % len(PALETTE)], ("-", "--", "-.", ":")[number % 4]
        axes.fill_between(profile.tau, 100 * profile.low, 100 * profile.high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(profile.tau, 100 * profile.share, line, color=colour, label=name)
    axes.set_ylim(0, 102)
    axes.set_yticks([0, 25, 50, 75, 100])
    axes.margins(x=0)
    # All curves end in one corner, so their names stand in a column beside them.
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.03), frameon=False, labelcolor="linecolor", handlelength=1.6)
    return figure


def paired_differences(rows: Mapping[str, PairedSeeds | Interval], margin: float | None = 0.02) -> Figure:
    """Differences of success with their intervals, one row per comparison, against zero and the margin.

    rows: by the name of the comparison, top to bottom, differences as shares of 1; of `PairedSeeds` the training seeds
    are shown too, as small open circles. margin: drawn as a line at -margin, with the `verdict` of each row beside
    it; None draws neither.
    Raises InputError where there is no row, or an end of an interval is not finite.
    """
    if not rows:
        raise InputError("a plot of differences wants at least one comparison; got none")
    figure, axes = blank("difference of success [points]", "", size=(6.4, 1.0 + 0.42 * len(rows)))
    axes.grid(False, axis="y")
    axes.grid(True, axis="x", color=INK, alpha=0.12, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=INK, linewidth=1.1)
    if margin is not None:
        axes.axvline(-100 * margin, color=INK, linestyle=(0, (4, 3)), linewidth=1.1)
        beside: Any = {"xytext": (-4, 0), "textcoords": "offset points", "xycoords": ("data", "axes fraction")}
        beside |= {"color": INK, "fontsize": 9}
        axes.annotate(f"margin −{100 * margin:g}", (-100 * margin, 1.0), ha="right", va="bottom", **beside)
    for height, row in enumerate(rows.values()):
        _difference(axes, height, row, margin)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.6)
    return figure


def _difference(axes: Axes, height: int, row: PairedSeeds | Interval, margin: float | None) -> None:
    interval, per_seed = (row.difference, row.per_seed) if isinstance(row, PairedSeeds) else (row, ())
    if not np.isfinite(interval).all():
        raise InputError(f"a plot of differences wants finite intervals; got {interval}")
    found = verdict(interval, margin) if margin is not None else None
    colour = {None: PALETTE[0], "not worse": PALETTE[0], "worse": PALETTE[1], "undecided": INK}[found]
    point, low, high = (100 * end for end in interval)
    axes.errorbar(
        point, height, xerr=[[point - low], [high - point]], color=colour, marker="o", elinewidth=2.0, capsize=3
    )
    if len(per_seed) > 1:
        at = [100 * each.point for each in per_seed]
        axes.plot(at, [height + 0.24] * len(at), "o", color=INK, markersize=3.5, markerfacecolor="none", alpha=0.7)
    shown = [f"{round(end, 1) + 0.0:+.1f}".replace("-", "−") for end in (point, low, high)]  # no minus before a zero
    words = f"{shown[0]} [{shown[1]}, {shown[2]}]" + (f"  {found}" if found else "")
    axes.annotate(words, (1.02, height), xycoords=("axes fraction", "data"), color=colour, va="center", fontsize=9)


def _success(
    points: Sequence[Point], references: Mapping[str, Interval | float], xlabel: str, doubling: bool
) -> Figure:
    if not points:
        raise InputError("a plot of success wants at least one (x, condition, Interval); got none")
    figure, axes = blank(xlabel, "success [%]")
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
    label_right(axes, labels)
    return figure
