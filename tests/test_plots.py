"""Laws of the figures of comparisons, which show each number that they got; and of the page about statistics."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from diffpolicy.errors import InputError
from diffpolicy.evaluation.comparison import paired_seeds
from diffpolicy.evaluation.plots import (
    paired_differences,
    performance_profiles,
    png,
    success_against_cost,
    success_fronts,
    svg,
)
from diffpolicy.evaluation.profiles import performance_profile
from diffpolicy.evaluation.statistics import Interval, wilson

RANDOM = np.random.default_rng(1)
PROFILES = {
    name: performance_profile(RANDOM.normal(mean, 0.2, size=(3, 40)), np.linspace(0, 1, 21), resamples=50)
    for name, mean in (("teacher", 0.7), ("student", 0.5))
}
SEEDS = paired_seeds(np.array([[1] * 9 + [0]] * 3), np.array([[1] * 8 + [0] * 2, [1] * 10, [1] * 9 + [0]]))
ROWS = {
    "better": Interval(0.05, 0.04, 0.06),
    "open": Interval(-0.01, -0.03, 0.0),
    "worse": Interval(-0.05, -0.06, -0.04),
    "three seeds": SEEDS,
}
COSTS = [(1, "bc", wilson(90, 200)), (4, "bc", wilson(150, 200)), (16, "bc", wilson(190, 200))]

FRONTS = {
    "Push": [("Euler", 0.5, wilson(90, 200)), ("DDPM", 30.0, wilson(150, 200))],
    "Avoid": [("DDPM", 30.0, wilson(20, 200)), ("MIP", 1.0, wilson(190, 200))],
    "Stack": [("MIP", 1.0, wilson(1, 200))],
}


def bars(axes: Any, axis: int) -> list[tuple[float, float]]:
    """Ends of the error bars along an axis."""
    segments = [s for container in axes.containers for s in container[2][0].get_segments()]
    return [(round(float(s[0, axis]), 6), round(float(s[-1, axis]), 6)) for s in segments]


@pytest.mark.parametrize(
    "figure",
    [
        paired_differences(ROWS),
        performance_profiles(PROFILES, "return"),
        success_against_cost(COSTS, "expert queries"),
        success_fronts(FRONTS, "ms"),
    ],
    ids=["differences", "profiles", "cost", "fronts"],
)
def test_a_figure_renders_and_follows_the_colours_of_its_page(figure: Any) -> None:
    text = svg(figure)
    assert text == svg(figure)
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert "currentColor" in text
    assert "#000000" not in text
    assert "var(--series-0" in text
    with Image.open(io.BytesIO(png(figure, 60))) as image:
        assert image.size[0] == pytest.approx(60 * figure.get_figwidth(), abs=1)
        assert len(image.convert("RGB").getcolors(100_000) or []) > 20


def test_differences_are_shown_in_points_against_zero_and_the_margin() -> None:
    (axes,) = paired_differences(ROWS).axes
    intervals = [ROWS["better"], ROWS["open"], ROWS["worse"], SEEDS.difference]
    assert bars(axes, 0) == [(round(100 * i.low, 6), round(100 * i.high, 6)) for i in intervals]  # type: ignore[attr-defined]
    upright = [
        line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) == 2
    ]
    assert {0, -2.0} <= {float(x) for x in upright}
    words = [text.get_text() for text in axes.texts]
    assert words[0] == "margin −2"
    assert [word.split("]")[1].strip() for word in words[1:]] == ["not worse", "undecided", "worse", "undecided"]
    assert "−1.0 [−3.0, +0.0]" in words[2]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(ROWS)
    assert axes.yaxis_inverted()


def test_each_training_seed_is_shown() -> None:
    (axes,) = paired_differences({"three seeds": SEEDS}, margin=None).axes
    (circles,) = [line for line in axes.lines if line.get_markerfacecolor() == "none"]
    np.testing.assert_allclose(circles.get_xdata(), [10, -10, 0], atol=1e-9)
    assert "margin" not in " ".join(text.get_text() for text in axes.texts)


def test_profiles_show_share_and_band_of_every_method() -> None:
    (axes,) = performance_profiles(PROFILES, "return").axes
    for line, band, profile in zip(axes.lines, axes.collections, PROFILES.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), 100 * profile.share)
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(100 * profile.low.min())
        assert heights.max() == pytest.approx(100 * profile.high.max())
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(PROFILES)
    assert len({line.get_linestyle() for line in axes.lines}) == 2


def test_cost_axes_double_for_nfe_and_are_even_for_expert_queries() -> None:
    (doubling,) = success_against_cost(COSTS, "NFE").axes
    (even,) = success_against_cost([(0, "bc", wilson(1, 9)), (8000, "bc", wilson(5, 9))], "expert queries").axes
    assert (doubling.get_xlabel(), even.get_xlabel()) == ("NFE", "expert queries")
    np.testing.assert_allclose(doubling.get_xticks(), [0, 2, 4])
    assert np.ptp(np.diff(even.get_xticks())) == pytest.approx(0)
    assert "6,000" in [label.get_text() for label in even.get_xticklabels()]


def test_a_method_looks_the_same_in_every_panel_of_fronts_and_is_named_once() -> None:
    figure = success_fronts(FRONTS, "latency [ms]")
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == list(FRONTS)
    assert bars(panels[0], 1) == [(round(100 * i.low, 6), round(100 * i.high, 6)) for _, _, i in FRONTS["Push"]]
    first, second = ({c.get_label(): c[0] for c in axes.containers} for axes in panels[:2])
    assert first["DDPM"].get_color() == second["DDPM"].get_color()
    assert first["DDPM"].get_marker() == second["DDPM"].get_marker()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Euler", "DDPM", "MIP"]
    assert [label.get_text() for label in panels[0].get_xticklabels()] == ["1", "3", "10", "30"]


def test_a_figure_of_nothing_is_refused() -> None:
    for call in (
        lambda: paired_differences({}),
        lambda: paired_differences({"x": Interval(0.0, -np.inf, 1.0)}),
        lambda: performance_profiles({}),
        lambda: success_against_cost([], "NFE"),
        lambda: success_fronts({}, "ms"),
        lambda: success_fronts({"Push": [("Euler", 0.0, wilson(1, 2))]}, "ms"),
        lambda: success_against_cost(COSTS, "calls"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="got"):
            call()


def test_the_statistics_load_neither_scipy_nor_torch_before_they_need_them() -> None:
    names = ("statistics", "comparison", "significance", "profiles", "plots")
    loads = "; ".join(f"import diffpolicy.evaluation.{name}" for name in names)
    program = f"import sys; {loads}; assert not {{'scipy', 'torch', 'matplotlib'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_page_about_statistics_runs_and_prints_what_it_says() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = list(re.finditer(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", page, re.DOTALL))
    assert len(blocks) > 8
    for block in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(block[1], names)
        if block[2] is not None:
            assert printed.getvalue() == block[2]
        else:
            assert printed.getvalue() in page, "the table below the code is another"
