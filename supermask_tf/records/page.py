"""A record as a page of its own: the result and the curves, then how to make it again.

It needs no script, no stylesheet but the book's `run.css`, and no notebook: what it shows is in the
record.
"""

import html
from collections.abc import Iterable
from typing import Any

import pandas as pd

from .behind import USES
from .html import described, network
from .reading import Run

__all__ = ["page"]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="script-src 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{title}: {accuracy} of the test images">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="../../_static/run.css">
</head><body>
<nav><a href="../../book/runs.html">← all runs</a> · study <b>{study}</b> · {name}</nav>
<main><h1>{title}</h1>
{body}</main></body></html>
"""
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 220, 48, 24


def page(run: Run, children: Iterable[Run] = ()) -> str:
    """The run as a whole HTML page, as it stands in the book under ``runs/<study>/<run>.html``.

    Args:
        run: the record.
        children: runs of its study that start from it, to be linked to.
    """
    p, s = run.parameters, run.summary
    title = f"{described(run)}, {network(p)} on {p['dataset']}, seed {p['seed']}"
    parts = [
        _result(run),
        _curves(run.history),
        _layers(run.utilisation),
        "".join(USES),
        "<h2>Make it again</h2>",
        f"<pre>supermask verify runs/{html.escape(run.study)}/{html.escape(run.name)}</pre>",
        f"<pre>{html.escape(_call(p))}</pre>",
        _family(run, children),
        "<h2>What it was given</h2>",
        _table({k: v for k, v in p.items() if k != "parent" and v is not None}),
        "<h2>What it ran on</h2>",
        _table(_machine(s)),
    ]
    return _PAGE.format(
        title=html.escape(title),
        accuracy=f"{s['test_accuracy']:.2%}",
        study=html.escape(run.study),
        name=html.escape(run.name),
        body="\n".join(parts),
    )


def _result(run: Run) -> str:
    s = run.summary
    facts = {
        "test accuracy": f"{100 * s['test_accuracy']:.2f} %",
        "held out": f"{100 * s['val_accuracy']:.2f} %",
        "training": f"{100 * s['train_accuracy']:.2f} %",
        "masked": f"{100 * s['masked']:.1f} %",
        "epoch": f"{s['best_epoch']} of {run.parameters['epochs']}",
        "minutes": f"{s['seconds'] / 60:.1f}",
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="result">{cells}</dl>'


def _curves(history: pd.DataFrame) -> str:
    """Accuracy on training and held-out images by epoch, as one drawing."""
    lines = {"training": history.accuracy, "held out": history.val_accuracy}
    values = pd.concat(list(lines.values())).dropna()
    low, high = values.min(), values.max()
    span, last = max(high - low, 1e-4), max(int(history.epoch.max()) - 1, 1)

    def place(epoch, value):
        x = _LEFT + (epoch - 1) / last * (_WIDTH - _LEFT - 8)
        return f"{x:.1f},{8 + (high - value) / span * (_HEIGHT - _BOTTOM - 8):.1f}"

    drawn = "".join(
        f'<polyline class="{name.split()[0]}" points="'
        + " ".join(place(*pair) for pair in zip(history.epoch, curve) if pair[1] == pair[1])
        + '"/>'
        for name, curve in lines.items()
    )
    floor = _HEIGHT - _BOTTOM
    words = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'
        for x, y, anchor, text in (
            (_LEFT - 6, 16, "end", f"{100 * high:.1f} %"),
            (_LEFT - 6, floor, "end", f"{100 * low:.1f} %"),
            (_LEFT, _HEIGHT - 6, "start", "epoch 1"),
            (_WIDTH - 8, _HEIGHT - 6, "end", f"epoch {last + 1}"),
        )
    )
    told = (
        f"Accuracy by epoch: on training images from {history.accuracy.iloc[0]:.1%} to"
        f" {history.accuracy.iloc[-1]:.1%}, on held-out images from"
        f" {history.val_accuracy.iloc[0]:.1%} to {history.val_accuracy.iloc[-1]:.1%}"
    )
    return (
        f'<figure><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{told}">'
        f'<path class="axis" d="M{_LEFT} 8V{floor}H{_WIDTH - 8}"/>{drawn}{words}</svg>'
        '<figcaption>Accuracy by epoch on <span class="training">training</span> and'
        ' <span class="held">held-out</span> images.</figcaption></figure>'
    )


def _layers(table: pd.DataFrame) -> str:
    """The fraction masked per layer, as bars; nothing if no layer is masked."""
    if not len(table) or not table.masked.any():
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(str(row.path))}</td><td>{row.weights:,}</td>"
        f'<td>{100 * row.masked:.1f} %</td><td><svg viewBox="0 0 100 8" aria-hidden="true">'
        f'<rect width="{100 * row.masked:.1f}" height="8"/></svg></td></tr>'
        for row in table.itertuples()
    )
    return (
        "<h2>What the mask removes</h2><table><thead><tr><th>layer</th><th>weights</th>"
        f"<th>masked</th><th></th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _call(parameters: dict[str, Any]) -> str:
    """The run as a call, with every parameter that it was given."""
    given = "".join(
        f"    {name}={value!r},\n"
        for name, value in parameters.items()
        if value is not None and name != "parent"
    )
    return (
        "import supermask_tf as sm\n\n"
        f'experiment = sm.Experiment(\n{given})\nrun = experiment.run("runs/mine")'
    )


def _family(run: Run, children: Iterable[Run]) -> str:
    """Links to the run that it starts from and to those that start from it."""
    items = []
    if parent := run.parameters.get("init_from"):
        items.append(f"<li>It starts from {_link(parent)}.</li>")
    items += [
        f"<li>{html.escape(described(child))} starts from it: {_link(child.name)}.</li>"
        for child in children
    ]
    return f"<h2>Its family</h2><ul>{''.join(items)}</ul>" if items else ""


def _link(name: str) -> str:
    return f'<a href="{html.escape(name)}.html">{html.escape(name)}</a>'


def _machine(summary: dict[str, Any]) -> dict[str, Any]:
    """Processor, threads and versions, the fingerprint of the data, and when it stopped amid."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return {
        "processor": summary["processor"],
        "threads": summary.get("threads", "–"),
        "versions": versions,
        "training images": summary["train_images"],
        "test images": summary["test_images"],
        "fingerprint of the data": summary["fingerprint"],
    }


def _table(facts: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in facts.items()
    )
    return f"<table>{rows}</table>"
