"""Sphinx extension: a number in the text leads to the runs behind it, and a run to its numbers.

A page's module writes a number into its text as ``−2.1{−2.07 ± 0.38 points|lenet/mask-weights}``:
what is shown, what is said where it is touched, and the name under which its runs were noted
(`supermask_tf.records.behind`). Here that becomes a link. Each number that was noted gets a page
with its runs, and each run's page the comparisons that it is part of.
"""

import os
import re
from collections import defaultdict
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

from supermask_tf.records import behind

_NUMBER = re.compile(r"(?P<shown>[^\s{}]+(?:\u00a0%| %)?)\{(?P<more>[^{}|]+)\|(?P<name>[^{}|]+)\}")


class number(nodes.inline):
    """A number with its interval and the name of its runs."""


def setup(app: Sphinx) -> dict:
    plain = (lambda self, node: None, lambda self, node: None)
    app.add_node(number, html=(_open, _close), latex=plain, text=plain)
    app.connect("source-read", _before_reading)
    app.connect("doctree-read", _after_reading)
    app.connect("env-purge-doc", lambda app, env, docname: _kept(env).pop(docname, None))
    app.connect("env-merge-info", _merge)
    app.connect("build-finished", _write, priority=600)  # once the runs' pages are there
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def _kept(env) -> dict[str, list[behind.Behind]]:
    """For each page the numbers that it noted."""
    if not hasattr(env, "supermask_numbers"):
        env.supermask_numbers = {}
    return env.supermask_numbers


def _merge(app, env, docnames, other):
    _kept(env).update({name: found for name, found in _kept(other).items() if name in docnames})


def _log(app: Sphinx) -> Path:
    return Path(app.doctreedir) / f"supermask_numbers_{os.getpid()}.txt"


def _before_reading(app, docname, source):
    _log(app).unlink(missing_ok=True)
    os.environ["SUPERMASK_NUMBERS"] = str(_log(app))  # the page's kernel inherits it


def _after_reading(app, doctree):
    if found := behind.noted(_log(app)):
        _kept(app.env)[app.env.docname] = found
    _log(app).unlink(missing_ok=True)
    for text in list(doctree.findall(nodes.Text)):
        if "{" in text and "pasted-text" in text.parent.get("classes", ()):
            text.parent.replace(text, split(str(text)))


def split(text: str) -> list[nodes.Node]:
    """A text with its numbers as nodes of their own."""
    parts, end = [], 0
    for match in _NUMBER.finditer(text):
        parts += [nodes.Text(text[end : match.start()]), number("", match["shown"])]
        parts[-1].update_basic_atts({})
        parts[-1]["more"], parts[-1]["name"] = match["more"], match["name"]
        end = match.end()
    return [*parts, nodes.Text(text[end:])]


def _open(self, node):
    if self.builder.name != "html":  # one page, to be printed: there are no other pages to lead to
        self.body.append("<span>")
        return
    place = self.builder.get_relative_uri(self.builder.current_docname, "numbers")
    place = f"{place.removesuffix('.html')}/{node['name']}.html"
    self.body.append(
        self.starttag(node, "a", "", CLASS="number", href=place, **{"data-more": node["more"]})
    )


def _close(self, node):
    self.body.append("</a>" if self.builder.name == "html" else "</span>")


def _write(app: Sphinx, exception) -> None:
    if exception or app.builder.name != "html":
        return
    found: dict[str, behind.Behind] = {}
    mentions: dict[str, dict[str, str]] = defaultdict(dict)
    for docname, numbers in sorted(_kept(app.env).items()):
        for one in numbers:
            found.setdefault(one.name, one)
            mentions[one.name][f"{docname}.html"] = app.env.titles[docname].astext()
    out = Path(app.outdir)
    wanted = {}
    by_run: dict[str, list[behind.Behind]] = defaultdict(list)
    for name, one in found.items():
        wanted[out / "numbers" / f"{name}.html"] = behind.page(one, mentions[name])
        for run in {run for row in one.rows for side in row.runs for run in side}:
            by_run[run].append(one)
    for place in (out / "numbers").glob("*/*.html"):
        if place not in wanted:
            place.unlink()
    for place in (out / "runs").glob("*/*.html"):
        own = by_run.get(f"{place.parent.name}/{place.stem}", [])
        wanted[place] = behind.uses(place.read_text(), own)
    for place, text in wanted.items():
        if not place.exists() or place.read_text() != text:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
