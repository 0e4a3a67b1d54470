"""The runs behind a number: what a page notes as it is made, and the page that lists them.

A number in the book's text leads to the records that it was computed from, seed by seed, and each
record's page leads back to the comparisons that it is part of.
"""

import html
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Behind", "Row", "note", "noted", "page", "uses"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="script-src 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{told}: the runs behind it">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../../_static/run.css">
</head><body>
<nav><a href="../../book/index.html">← the book</a> · <a href="../../book/runs.html">all runs</a>\
 · the runs behind a number</nav>
<main><h1>{title}</h1>
<dl class="result"><div><dt>{dt}</dt><dd>{told}</dd></div></dl>
{drawn}
<table><thead><tr><th>seed</th>{sides}<th>{unit}</th></tr></thead><tbody>
{rows}
</tbody></table>
{mentions}</main></body></html>
"""
# In a run's page, between these the book puts the comparisons that the run is part of.
USES = ("<!-- uses -->", "<!-- /uses -->")
_WIDTH, _HEIGHT = 640, 64


@dataclass(frozen=True)
class Row:
    """One seed of a number.

    Attributes:
        seed: the seed of the runs.
        value: what it contributes; None where a number is not a mean over seeds.
        runs: for each side, the runs that were taken, as "study/run".
    """

    seed: int
    value: float | None
    runs: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Behind:
    """The evidence of one number.

    Attributes:
        name: "study/comparison", its place in the book under ``numbers/``.
        title: what the number says.
        told: the number with its interval.
        unit: of the rows' values, such as "points".
        sides: what the runs of each row are.
        rows: one per seed.
    """

    name: str
    title: str
    told: str
    unit: str
    sides: tuple[str, ...]
    rows: tuple[Row, ...]


def note(behind: Behind) -> None:
    """Append to the list named by SUPERMASK_NUMBERS, from which the book makes the pages."""
    if log := os.environ.get("SUPERMASK_NUMBERS"):
        with open(log, "a") as file:
            file.write(json.dumps(asdict(behind)) + "\n")


def noted(log: Path) -> list[Behind]:
    """What was noted, each once."""
    found = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        facts = json.loads(line)
        rows = tuple(
            Row(row["seed"], row["value"], tuple(tuple(side) for side in row["runs"]))
            for row in facts["rows"]
        )
        facts |= {"rows": rows, "sides": tuple(facts["sides"])}
        found[facts["name"]] = Behind(**facts)
    return list(found.values())


def page(behind: Behind, mentions: Mapping[str, str] | None = None) -> str:
    """The runs behind a number as a whole HTML page, ``numbers/<study>/<comparison>.html``.

    Args:
        behind: the number.
        mentions: the titles of the chapters that show it, by their address from the book's root.
    """
    rows = "\n".join(_row(row) for row in behind.rows)
    items = "".join(
        f'<li><a href="../../{html.escape(place)}">{html.escape(title)}</a></li>'
        for place, title in (mentions or {}).items()
    )
    return _PAGE.format(
        title=html.escape(behind.title),
        told=html.escape(behind.told),
        dt="the mean, with its 95 % interval" if len(behind.rows) > 1 else "one seed",
        drawn=_drawn(behind),
        sides="".join(f"<th>{html.escape(side)}</th>" for side in behind.sides),
        unit=html.escape(behind.unit),
        rows=rows,
        mentions=f"<h2>Where the book shows it</h2><ul>{items}</ul>" if items else "",
    )


def uses(text: str, found: Iterable[Behind]) -> str:
    """A run's page with the comparisons that the run is part of, in the place that it has for them.

    Args:
        text: of the page, as `records.page` made it or as this returned it.
        found: the numbers.
    """
    start, end = USES
    head, _, rest = text.partition(start)
    items = "".join(
        f'<li><a href="../../numbers/{html.escape(one.name)}.html">{html.escape(one.title)}</a>: '
        f"{html.escape(one.told)}</li>"
        for one in found
    )
    shown = f"<h2>What rests on it</h2><ul>{items}</ul>" if items else ""
    return f"{head}{start}{shown}{end}{rest.partition(end)[2]}" if rest else text


def _row(row: Row) -> str:
    sides = "".join(f"<td>{', '.join(_link(run) for run in side)}</td>" for side in row.runs)
    value = "" if row.value is None else f"{row.value:.2f}".replace("-", "−")
    return f"<tr><td>{row.seed}</td>{sides}<td>{value}</td></tr>"


def _link(run: str) -> str:
    study, _, name = run.partition("/")
    shown = f"{study}/…{name[-8:]}"
    return (
        f'<a href="../../runs/{html.escape(run)}.html" title="{html.escape(name)}">'
        f"{html.escape(shown)}</a>"
    )


def _drawn(behind: Behind) -> str:
    """Every seed as a dot on a line; of differences, with zero on it."""
    values = [row.value for row in behind.rows if row.value is not None]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    if behind.unit == "points":
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low or 1.0

    def place(value: float) -> float:
        return 24 + (value - low) / span * (_WIDTH - 48)

    dots = "".join(f'<circle cx="{place(value):.1f}" cy="24" r="5"/>' for value in values)
    zero = f'<path class="axis" d="M{place(0):.1f} 8V40"/>' if behind.unit == "points" else ""
    ends = "".join(
        f'<text x="{place(value):.1f}" y="58" text-anchor="{anchor}">{value:.2f}</text>'.replace(
            ">-", ">−"
        )
        for value, anchor in ((low, "start"), (high, "end"))
    )
    told = f"One dot per seed, {len(values)} of them, from {min(values):.2f} to {max(values):.2f}"
    return (
        f'<figure class="dots"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{told} '
        f'{html.escape(behind.unit)}"><path class="axis" d="M8 24H{_WIDTH - 8}"/>{zero}{dots}'
        f"{ends}</svg><figcaption>One dot per seed.</figcaption></figure>"
    )
