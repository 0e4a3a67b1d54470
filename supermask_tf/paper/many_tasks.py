"""Many tasks on one network: what the records say, beside the published numbers. No TensorFlow."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..records import TasksRecord
from . import canvas
from .analysis import interval

__all__ = ["accuracies", "by_study", "chosen", "figure", "sizes"]

# The ways to say which task an image is of, by the column of their accuracy.
SCENARIOS = {"after_last": "given", "accuracy_128": "128 images", "accuracy_1": "one image"}


def sizes(record: TasksRecord) -> dict[str, float]:
    """Bytes: of a task's file on average, of all files, and of as many networks in float32."""
    units, table = record.facts["network"], record.table
    weights = sum(a * b for a, b in zip(units, units[1:]))
    return {
        "task": table.bytes.mean(),
        "all": int(table.bytes.sum()),
        "networks": 4 * weights * len(table),
        "weights": weights,
    }


def accuracies(record: TasksRecord) -> dict[str, float]:
    """The mean over tasks of the test accuracy, by scenario; and of `told_1` and `told_128`."""
    table = record.table
    found = {name: table[column].mean() for column, name in SCENARIOS.items()}
    return found | {name: table[name].mean() for name in ("told_1", "told_128")}


def by_study(records: list[TasksRecord]) -> pd.DataFrame:
    """One row per study: the mean over seeds of its mean over tasks.

    Returns:
        Columns `tasks`, `steps`, `seeds`; `given`, `128 images`, `one image`, `told_1`, `told_128`
        (fractions); `half`, the half-width of the interval of `given` over seeds, NaN for one seed;
        `lowest`, the lowest accuracy of a task, given; `bytes` per task; `same`, in how many tasks
        the accuracy after the last task is that of before, and `n`, of how many.
    """
    rows = []
    for record in records:
        table, asked = record.table, record.parameters
        rows.append(
            {"tasks": asked["tasks"], "steps": asked["steps"], "seed": asked["seed"]}
            | accuracies(record)
            | {
                "lowest": table.after_last.min(),
                "bytes": table.bytes.mean(),
                "same": int((table.accuracy == table.after_last).sum()),
                "n": len(table),
            }
        )
    if not rows:
        return pd.DataFrame(columns=["tasks", "steps", "seeds"])
    groups = pd.DataFrame(rows).groupby(["steps", "tasks"])
    found = groups.mean().drop(columns="seed")
    found["half"] = groups.given.apply(lambda values: interval(values)[1])
    found["lowest"], found["seeds"] = groups.lowest.min(), groups.size()
    found[["same", "n"]] = groups[["same", "n"]].sum()
    return found.reset_index()


def chosen(records: list[TasksRecord], **parameters) -> list[TasksRecord]:
    """The records with these parameters, by number of tasks and seed."""
    fitting = [
        record
        for record in records
        if all(record.parameters[name] == value for name, value in parameters.items())
    ]
    return sorted(fitting, key=lambda r: (r.parameters["tasks"], r.parameters["seed"]))


def figure(records: list[TasksRecord], published: pd.DataFrame) -> Figure:
    """Test accuracy of each task after the last one, in the order of learning.

    Args:
        records: one for each panel, from left to right.
        published: columns `tasks`, `accuracy`: a line behind the panel of as many tasks.
    """
    shown, (axes,) = canvas.grid(1, len(records), height=3.4, sharey=True, figsize=(7.2, 3.9))
    ways = {
        "after_last": (canvas.BLUE, "o", "task given"),
        "accuracy_128": (canvas.GREEN, "x", "inferred from 128 images"),
    }
    for axis, record in zip(axes, records):
        table = record.table
        numbers = np.arange(1, len(table) + 1)
        for column, (colour, marker, _) in ways.items():
            size = 5 if len(table) <= 50 else 2.5
            axis.plot(numbers, table[column], marker, color=colour, ms=size, ls="")
        for accuracy in published[published.tasks == len(table)].accuracy.unique():
            axis.axhline(accuracy, color="0.4", lw=1, ls="--")
        asked = record.parameters
        axis.set(title=f"{asked['tasks']} tasks, {asked['steps']:,} steps each")
        axis.set(xlabel="task, in the order of learning")
        axis.set_xlim(0.5 - 0.03 * len(table), len(table) + 0.5 + 0.03 * len(table))
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0].set_ylabel("test accuracy (fraction)")
    lowest = min(record.table[[*ways]].min().min() for record in records)
    axes[0].set_ylim(min(0.9, lowest) - 0.01, 1)
    handles = [
        canvas.handle(name, color=colour, marker=marker, ls="")
        for colour, marker, name in ways.values()
    ]
    return canvas.finish(shown, [*handles, canvas.handle("published", color="0.4", ls="--")])
