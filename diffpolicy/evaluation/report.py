"""One self-contained HTML page of results: all that decides how a report looks, its style sheet included."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from diffpolicy.errors import InputError
from diffpolicy.evaluation.statistics import Interval

__all__ = ["Figure", "TableRow", "Video", "write_report"]


@dataclass(frozen=True)
class TableRow:
    """What one method did under one condition; None where a cost does not apply or was not measured."""

    method: str
    condition: str
    success: Interval | None  # None: the environment reports none
    episodes: int
    dropped: int | None = None  # episodes that the environment broke, beside these
    return_mean: float | None = None
    episode_length: float | None = None  # mean [environment steps]
    nfe: int | None = None  # denoiser calls per decision
    expert_queries: int | None = None
    env_steps: int | None = None
    seconds: float | None = None  # training wall-clock [s]


@dataclass(frozen=True)
class Figure:
    """A figure: `image` is the text of an SVG element or the bytes of a PNG."""

    title: str
    caption: str
    image: str | bytes


@dataclass(frozen=True)
class Video:
    """A recording that is embedded whole: an mp4, webm or gif of at most a few MB."""

    title: str
    caption: str
    path: str | Path


STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #ffffff; --ink: #1f2328; --soft: #626a73;
  --line: #e3e5e8; --accent: #0072b2; --track: #e6e9ec; --code: #f3f4f5; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --card: #161b22; --ink: #e6e8eb;
  --soft: #98a1ab; --line: #2b323b; --accent: #56b4e9; --track: #2d3540; --code: #1c222a; --series-0: #56b4e9;
  --series-1: #ff8a4c; --series-2: #2ec4a0; --series-3: #e3a0c8; --series-4: #f0b840; --series-5: #a8dcff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.55;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 3.5rem 1.5rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 .8rem; text-wrap: balance; }
h2 { font-size: .82rem; letter-spacing: .09em; text-transform: uppercase; color: var(--soft);
  margin: 3rem 0 1rem; }
h3 { font-size: 1rem; margin: 0; }
.summary { font-size: 1.12rem; max-width: 46rem; margin: 0 0 .8rem; }
.note, figcaption p { color: var(--soft); font-size: .86rem; margin: .35rem 0 0; max-width: 46rem; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 12px; margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .55rem .75rem; text-align: right; white-space: nowrap; }
tr > :first-child { padding-left: 1.2rem; } tr > :last-child { padding-right: 1.2rem; }
th { font-weight: 600; color: var(--soft); font-size: .8rem; border-bottom: 1px solid var(--line); }
thead th { white-space: normal; vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child, th.success, td.success { text-align: left; }
tbody th { text-align: left; color: var(--ink); padding-top: 1.1rem; font-size: .86rem; }
tbody tr:last-child td { padding-bottom: .9rem; }
tr.row:hover { background: color-mix(in srgb, var(--accent) 6%, transparent); }
td.success span { display: inline-block; min-width: 9.2rem; }
td.success small { color: var(--soft); font-size: .8rem; font-weight: 400; margin-left: .3rem; }
.best { font-weight: 700; } td.success svg { vertical-align: -1px; }
.grid { display: grid; gap: 1.2rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 29rem), 1fr)); }
.grid.videos { grid-template-columns: 1fr; }
figure { overflow: hidden; }
figure > svg, figure > img { display: block; width: 100%; height: auto; padding: 1.2rem 1.2rem 0; }
figure > img.png { background: #fff; }
.videos figure > video, .videos figure > img { display: block; width: 100%; padding: 0; background: #000; }
figcaption { padding: .9rem 1.2rem 1.1rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .45rem 1.6rem; margin: 0;
  padding: 1.1rem 1.2rem; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--code); border: 1px solid var(--line); border-radius: 9px; padding: .75rem 1rem;
  margin: 0 0 .6rem; overflow-x: auto; font-size: .88rem; user-select: all; }
pre::before { content: "$ "; color: var(--soft); }
@media print { main { max-width: none; padding: 0; } figure, tr { break-inside: avoid; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
{summary}
</header>
{sections}
</main>
</body>
</html>
"""

VIDEO_TYPES = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
COSTS = (
    ("episodes", "episodes"),
    ("dropped", "dropped"),
    ("return_mean", "return"),
    ("episode_length", "length"),
    ("nfe", "NFE"),
    ("expert_queries", "expert queries"),
    ("env_steps", "env steps"),
    ("seconds", "training [s]"),
)


def write_report(
    path: str | Path,
    *,
    title: str,
    summary: str,
    table: Sequence[TableRow],
    figures: Sequence[Figure] = (),
    videos: Sequence[Video] = (),
    facts: Mapping[str, str] | None = None,
    next_commands: Sequence[str] = (),
) -> Path:
    """Write one HTML file that shows everything and asks the network for nothing.

    summary: plain text, paragraphs parted by an empty line. facts: command, seeds, machine, versions, seconds
    per stage, as they should be read. Within a condition the best method is bold only where its interval lies
    above all others. All text is escaped. Returns the path.
    Raises InputError where a video is missing or of a kind that browsers do not play, or an image is neither
    SVG nor PNG.
    """
    sections = [
        _section("Results", _table(table) if table else ""),
        _section("Episodes", _grid(" videos", map(_video, videos))),
        _section("Figures", _grid("", (_figure(each, n) for n, each in enumerate(figures)))),
        _section("How this was made", _facts(facts or {})),
        _section("What to try next", "".join(f"<pre>{escape(command)}</pre>" for command in next_commands)),
    ]
    paragraphs = filter(None, re.split(r"\n\s*\n", summary.strip()))
    page = PAGE.format(
        title=escape(title),
        style=STYLE,
        summary="\n".join(f'<p class="summary">{escape(part)}</p>' for part in paragraphs),
        sections="\n".join(filter(None, sections)),
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(target)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{body}\n</section>" if body else ""


def _grid(kind: str, items: Iterable[str]) -> str:
    content = "".join(items)
    return f'<div class="grid{kind}">{content}</div>' if content else ""


def _facts(facts: Mapping[str, str]) -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items())
    return f'<dl class="card">{entries}</dl>' if entries else ""


def _table(rows: Sequence[TableRow]) -> str:
    shown = [(name, head) for name, head in COSTS if any(getattr(row, name) is not None for row in rows)]
    heads = "".join(f"<th>{head}</th>" for _, head in shown)
    body, bold = [], False
    for condition in dict.fromkeys(row.condition for row in rows):
        group = [row for row in rows if row.condition == condition]
        body.append(f'<tr><th colspan="{len(shown) + 2}">{escape(condition)}</th></tr>')
        for row in group:
            others = [other.success for other in group if other is not row and other.success is not None]
            best = row.success is not None and bool(others) and all(row.success.above(other) for other in others)
            bold |= best
            cells = "".join(f"<td>{_number(getattr(row, name))}</td>" for name, _ in shown)
            method = f"<td{' class=best' if best else ''}>{escape(row.method)}</td>"
            body.append(f'<tr class="row">{method}{_success(row.success, best)}{cells}</tr>')
    return (
        '<div class="card wide"><table><thead><tr><th>method</th><th class="success">success</th>'
        f"{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        f'<p class="note">{_note(rows, bold)}</p>'
    )


def _note(rows: Sequence[TableRow], bold: bool) -> str:
    """What the table's reader must know, of what occurs in it."""
    parts = {
        "Success with its 95% Wilson interval.": any(row.success for row in rows),
        "Bold: the interval lies above every other one under the same condition.": bold,
        "–: the environment reports no success.": any(row.success is None for row in rows),
        "NFE: calls of the denoiser per decision.": any(row.nfe for row in rows),
        "Dropped: broken by the environment, and in no other number.": any(row.dropped for row in rows),
    }
    return " ".join(part for part, occurs in parts.items() if occurs)


def _success(rate: Interval | None, best: bool) -> str:
    if rate is None:
        return '<td class="success">–</td>'
    low, point, high = (100 * value for value in (rate.low, rate.point, rate.high))
    text = f"{point:.1f}% <small>{low:.1f} – {high:.1f}</small>"
    bar = (
        '<svg width="108" height="14" viewBox="-4 0 108 14" aria-hidden="true">'
        '<rect x="0" y="5.5" width="100" height="3" rx="1.5" fill="var(--track)"/>'
        f'<rect x="{low:.2f}" y="4" width="{max(high - low, 0.5):.2f}" height="6" rx="3" '
        'fill="var(--accent)" opacity=".4"/>'
        f'<circle cx="{point:.2f}" cy="7" r="3.6" fill="var(--accent)"/></svg>'
    )
    return f'<td class="success"><span{" class=best" if best else ""}>{text}</span>{bar}</td>'


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _figure(figure: Figure, number: int) -> str:
    image = figure.image
    if isinstance(image, bytes) and image.startswith(b"\x89PNG"):
        element = f'<img class="png" alt="{escape(figure.title)}" src="{_data("image/png", image)}">'
    elif isinstance(image, str) and "<svg" in image:
        element = _own_names(image[image.index("<svg") :], f"f{number}-")
    else:
        raise InputError(
            f"figure {figure.title!r} is neither SVG text nor PNG bytes; make it by plots.svg or plots.png"
        )
    return f"<figure>{element}{_caption(figure.title, figure.caption)}</figure>"


def _own_names(image: str, prefix: str) -> str:
    """Prefix the ids of an SVG, so that several of them can stand in one page."""
    image = re.sub(r'\bid="', f'id="{prefix}', image)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", image)


def _video(video: Video) -> str:
    path = Path(video.path)
    kind = VIDEO_TYPES.get(path.suffix.lower())
    if kind is None:
        raise InputError(f"video {path.name!r} should end in one of {', '.join(VIDEO_TYPES)}, which browsers play")
    if not path.is_file():
        raise InputError(f"there is no video at {path}; record it first, or leave it out of the report")
    data = _data(kind, path.read_bytes())
    element = (
        f'<img alt="{escape(video.title)}" src="{data}">'
        if kind.startswith("image/")
        else f'<video controls autoplay loop muted playsinline src="{data}"></video>'
    )
    return f"<figure>{element}{_caption(video.title, video.caption)}</figure>"


def _caption(title: str, caption: str) -> str:
    text = f"<p>{escape(caption)}</p>" if caption else ""
    return f"<figcaption><h3>{escape(title)}</h3>{text}</figcaption>"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
