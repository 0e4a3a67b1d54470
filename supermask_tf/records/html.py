"""Records as HTML: the rows of the table of runs, and the foldable line under a figure."""

import html
from typing import Any

import pandas as pd

from .reading import BEFORE, Run

__all__ = ["described", "evidence", "listing", "network"]

# What the listing says only where it is otherwise.
_USUAL = BEFORE | {
    "tau": 0.5,
    "initial_logit": 1.0,
    "initializer": "glorot_uniform",
    "batch_size": 128,
    "augment": True,
    "precision": "float32",
    "redraw": "weights",
}
# What has a column of its own, or stands in the name.
_SHOWN = (
    "dataset",
    "model",
    "depth",
    "width",
    "units",
    "arm",
    "estimator",
    "seed",
    "epochs",
    "learning_rate",
    "protocol",
    "init_from",
    "parent",
)


def listing(runs: list[Run]) -> pd.DataFrame:
    """The runs as a table, one row each, the first column a link to the run's page in the book.

    A run is named by its study and the last eight letters of its folder, which tell it from all
    others. Accuracy and the masked share are in per cent, so that they sort as numbers. Texts are
    escaped: the table's cells are HTML.
    """
    return pd.DataFrame([_row(run) for run in runs])


def _row(run: Run) -> dict[str, Any]:
    p, s = run.parameters, run.summary
    facts = {
        "accuracy, %": round(100 * s["test_accuracy"], 2),
        "dataset": p["dataset"],
        "network": network(p),
        "arm": p["arm"] + (" (original protocol)" if p["protocol"] == "original" else ""),
        "rate": p["learning_rate"],
        "seed": p["seed"],
        "epochs": p["epochs"],
        "estimator": p["estimator"] if p["arm"] in ("mask", "evil") else "",
        "masked, %": round(100 * s["masked"], 1),
        "and": _besides(p),
        "best epoch": s["best_epoch"],
        "minutes": round(s["seconds"] / 60, 1),
    }
    escaped = {k: html.escape(v) if isinstance(v, str) else v for k, v in facts.items()}
    return {"run": _link(run, f"{run.study}/…{run.name[-8:]}")} | escaped


def described(run: Run) -> str:
    """What a run trained, for a title: "Mask by top_k", "Weights, from a mask"."""
    p = run.parameters
    words = p["arm"].replace("_", " ")
    if p["arm"] in ("mask", "evil"):
        words += f" by {p['estimator']}"
    return words[0].upper() + words[1:]


def evidence(runs: list[Run]) -> str:
    """The foldable line: which records, which command, how long it took and on what."""
    if not runs:
        return ""
    seconds = sum(run.summary["seconds"] for run in runs)
    machines = html.escape("; ".join(sorted({_machine(run.summary) for run in runs})))
    studies = {run.study: run for run in runs}
    commands = "; ".join(_command(studies[name]) for name in sorted(studies))
    items = "".join(f"<li>{_link(run)}</li>" for run in runs)
    count = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    return (
        f'<details class="evidence"><summary>The evidence: {count}, {seconds / 60:.0f} minutes of '
        f"training</summary><p>Made by {commands} on {machines}.</p><ul>{items}</ul></details>"
    )


def _command(run: Run) -> str:
    """How the runs of this one's study were made."""
    name = html.escape(run.study)
    if not (run.path.parent.parent / "studies" / f"{run.study}.yml").is_file():
        return f"hand, in {name},"
    through = "export" if run.summary.get("runtime") == "xla" else "study"
    return f"<code>supermask {through} runs/studies/{name}.yml</code>"


def _besides(parameters: dict[str, Any]) -> str:
    """The parameters that have no column of their own, where they are not the usual ones."""
    said = []
    for name, value in parameters.items():
        if name == "augment" and value is False:
            said.append("not augmented")
        elif name not in _SHOWN and value not in (None, False, _USUAL.get(name)):
            shown = (
                "" if value is True else f" {value:g}" if isinstance(value, float) else f" {value}"
            )
            said.append(f"{name.replace('_', ' ')}{shown}")
    return ", ".join(said)


def _link(run: Run, text: str | None = None) -> str:
    """The run's name, or `text` in its place, linked to its page in the book."""
    name, text = html.escape(run.name), html.escape(text or run.name)
    return f'<a href="../runs/{html.escape(run.study)}/{name}.html" title="{name}">{text}</a>'


def _machine(summary: dict[str, Any]) -> str:
    """What a run was trained on, and by what."""
    if summary.get("runtime") == "xla":
        return f"{summary['processor']}, JAX {summary['versions']['jax']}"
    threads = f"{summary['threads']} thread{'s' * (summary['threads'] != 1)}"
    return f"{summary['processor']}, {threads}, TensorFlow {summary['versions']['tensorflow']}"


def network(parameters: dict[str, Any]) -> str:
    """The network in the field's short form: WRN-16-1, Conv-2, LeNet-300-100."""
    names = {
        "wide_resnet": f"WRN-{parameters['depth']}-{parameters['width']}",
        "conv_net": f"Conv-{parameters['depth']}",
        "resnet": f"ResNet-{parameters['depth']}"
        + (f"×{parameters['width']}" if parameters["width"] not in (None, 1) else ""),
    }
    units = parameters.get("units") or 300
    return names.get(parameters["model"], f"LeNet-{units}-{units // 3}")
