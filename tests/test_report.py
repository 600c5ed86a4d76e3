"""Laws of the report and its figures: self-contained, escaped, honest about what separates."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from diffpolicy.errors import InputError
from diffpolicy.evaluation.plots import (
    learning_curve,
    png,
    success_against_demonstrations,
    success_against_rounds,
    svg,
)
from diffpolicy.evaluation.report import Figure, TableRow, Video, write_report
from diffpolicy.evaluation.statistics import wilson

POINTS = [(x, name, wilson(s, 50)) for name, base in (("clean", 40), ("hard", 20)) for x, s in ((1, base), (4, 46))]


class Collector(HTMLParser):
    """Collects start tags with their attributes and checks that tags nest."""

    VOID = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def full_report(folder: Path) -> str:
    (folder / "episode.mp4").write_bytes(b"not really a film")
    figure = success_against_rounds(POINTS, {"expert": wilson(49, 50)})
    path = write_report(
        folder / "new" / "report.html",
        title="A <b>title</b>",
        summary='First & "foremost".\n\nSecond.',
        table=[
            TableRow("bc<script>", "hard", wilson(20, 50), 50, nfe=8),
            TableRow("dagger", "hard", wilson(46, 50), 50),
        ],
        figures=[
            Figure("Rounds", "", svg(figure)),
            Figure("Again", "", svg(figure)),
            Figure("Png", "", png(figure, 40)),
        ],
        videos=[Video("One", "hard", folder / "episode.mp4")],
        facts={"command": "diffpolicy bc --x '<y>'"},
        next_commands=["diffpolicy evaluate runs/bc && echo done"],
    )
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_a_report_asks_the_network_for_nothing(tmp_path: Path) -> None:
    collector = Collector()
    collector.feed(full_report(tmp_path))
    assert collector.open == []
    assert "script" not in {tag for tag, _ in collector.tags}
    for tag, attributes in collector.tags:
        for name in ("src", "href", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
    kinds = [(a.get("src") or "").split(";")[0] for tag, a in collector.tags if tag in {"img", "video"}]
    assert kinds == ["data:video/mp4", "data:image/png"]


def test_all_text_is_escaped(tmp_path: Path) -> None:
    page = full_report(tmp_path)
    for raw, shown in [
        ("<script>", "bc&lt;script&gt;"),
        ("<b>", "A &lt;b&gt;title&lt;/b&gt;"),
        ("<y>", "&lt;y&gt;"),
        ("bc && echo", "bc &amp;&amp; echo"),
    ]:
        assert raw not in page
        assert shown in page
    assert page.count('<p class="summary">') == 2


def test_ids_are_unique_although_a_figure_is_shown_twice(tmp_path: Path) -> None:
    page = full_report(tmp_path)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert ids
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', page)) <= set(ids)


@pytest.mark.parametrize(("ours", "bold"), [(46, 1), (23, 0)])
def test_the_best_is_bold_only_where_intervals_separate(tmp_path: Path, ours: int, bold: int) -> None:
    table = [TableRow("bc", "hard", wilson(20, 50), 50), TableRow("dagger", "hard", wilson(ours, 50), 50)]
    page = write_report(tmp_path / "r.html", title="t", summary="s", table=table).read_text(encoding="utf-8")
    assert page.count("<td class=best>dagger") == bold
    assert ("Bold:" in page) == bool(bold)
    assert "<td class=best>bc" not in page
    assert "Figures" not in page


def test_a_single_method_is_never_bold(tmp_path: Path) -> None:
    table = [TableRow("bc", condition, wilson(50, 50), 50) for condition in ("clean", "hard")]
    page = write_report(tmp_path / "r.html", title="t", summary="s", table=table).read_text(encoding="utf-8")
    assert "class=best" not in page


def test_an_unknown_success_is_a_dash_and_beside_the_comparison(tmp_path: Path) -> None:
    table = [
        TableRow("silent", "hard", None, 50, dropped=2, nfe=8),
        TableRow("bc", "hard", wilson(0, 50), 50),
        TableRow("dagger", "hard", wilson(46, 50), 50),
    ]
    page = write_report(tmp_path / "r.html", title="t", summary="s", table=table).read_text(encoding="utf-8")
    assert page.count('<td class="success">–</td>') == 1
    assert "0.0% <small>" in page
    assert "<td class=best>dagger" in page
    for shown in ("<th>NFE</th>", "<th>dropped</th>", "Dropped: broken", "reports no success"):
        assert shown in page
    plain = write_report(tmp_path / "p.html", title="t", summary="s", table=table[1:2]).read_text(encoding="utf-8")
    assert not any(word in plain for word in ("NFE", "dropped", "reports no success", "Bold"))


def test_a_video_that_cannot_be_shown_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for name, reason in [("gone.mp4", "no video"), ("film.avi", "mp4")]:
        with pytest.raises(InputError, match=reason):
            write_report(tmp_path / "r.html", title="", summary="", table=[], videos=[Video("", "", name)])
    with pytest.raises(InputError, match="neither SVG"):
        write_report(tmp_path / "r.html", title="", summary="", table=[], figures=[Figure("x", "", b"GIF")])
    assert list(tmp_path.iterdir()) == []


def test_a_figure_is_well_formed_repeatable_and_takes_the_colour_of_its_page() -> None:
    rows = [{"step": step, "loss": 1.0 / (step + 1), "lr": None} for step in range(300)]
    for figure in (learning_curve(rows), success_against_demonstrations(POINTS, {"expert": 0.98})):
        text = svg(figure)
        assert text == svg(figure)
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert "currentColor" in text
        assert "var(--series-0" in text
        assert png(figure, 40).startswith(b"\x89PNG")


def test_figures_show_the_interval_of_every_point() -> None:
    (axes,) = success_against_rounds(POINTS, {"expert": 0.98}).axes
    drawn = {
        round(float(y), 6) for bars in axes.containers for segment in bars[2][0].get_segments() for y in segment[:, 1]
    }
    assert drawn == {round(100 * end, 6) for _, _, i in POINTS for end in (i.low, i.high)}
    assert {text.get_text() for text in axes.texts} == {"clean", "hard", "expert"}


def test_labels_of_equal_lines_do_not_overlap() -> None:
    points = [(x, name, wilson(50, 50)) for name in "abcd" for x in (0, 1)]
    (axes,) = success_against_rounds(points).axes
    heights = sorted(float(text.xy[1]) for text in axes.texts)  # type: ignore[attr-defined]
    assert min(b - a for a, b in pairwise(heights)) > 5


def test_a_plot_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="'loss'"):
        learning_curve([{"step": 1, "lr": 0.1}])
    with pytest.raises(InputError, match="at least one"):
        success_against_rounds([])


def test_plots_never_load_pyplot_nor_matplotlib_before_they_draw() -> None:
    code = (
        "import sys, diffpolicy.evaluation.plots as p, diffpolicy.evaluation.report;"
        "assert not {'matplotlib', 'torch'} & set(sys.modules);"
        "p.svg(p.learning_curve([{'step': 0, 'loss': 1.0}]));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
