"""The figures of the fair test: every seed is a dot. No TensorFlow."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from . import canvas
from .analysis import interval
from .canvas import BLUE, GREEN, GREY, ORANGE, PURPLE, RED
from .fair_words import ROLES

__all__ = ["WORDS", "gaps", "headline", "masks_and_starts", "rates", "shares"]

# The colour of each word of the rule.
WORDS = {
    "better": GREEN, "worse": RED, "the same": BLUE, "open": GREY, "not measured yet": GREY,
    "": PURPLE,
}  # fmt: skip
_SHADE = "#dbe7f0"
# Of the weights trained under a mask, under its shuffled copy, and drawn anew under the mask.
_ROLE_COLOURS = {"rewind": PURPLE, "shuffled": "#5a5a5a", "reinit": ORANGE}


def gaps(rows: list[tuple[str, np.ndarray, float, str]], what: str) -> Figure:
    """Differences between two arms: one row per network and dataset, one dot per seed.

    A bar is the mean's plain 95 % t interval. The shaded strip is what is too little to matter.

    Args:
        rows: per row its title, the differences in points (one per seed), the margin in points, and
            the word of the rule ("" where the rule gives none).
        what: what is drawn, for the axis: "A minus B".

    Raises:
        ValueError: if no row has two seeds.
    """
    rows = [row for row in rows if len(row[1]) > 1]
    if not rows:
        raise ValueError("No row has two seeds: give runs of at least two.")
    figure, axes = canvas.grid(1, 1, height=0, figsize=(6.4, 0.75 * len(rows) + 1.5))
    axis = axes[0, 0]
    axis.axvline(0, color="0.4", lw=1)
    for place, (_, points, margin, word) in enumerate(rows[::-1]):
        colour = WORDS[word]
        axis.barh(place, 2 * margin, left=-margin, height=0.86, color=_SHADE, zorder=0)
        mean, half = interval(points)
        scatter = np.random.default_rng(0).uniform(-0.28, 0.08, len(points))  # to be told apart
        axis.plot(points, place + scatter, "o", ms=4, color=colour, alpha=0.45, mew=0)
        bar = {"fmt": "D", "ms": 6, "capsize": 4, "lw": 2, "color": colour}
        axis.errorbar(mean, place + 0.24, xerr=half, **bar)
        if word:
            axis.annotate(
                word, (1.01, place), xycoords=("axes fraction", "data"), va="center",
                color=colour, weight="bold", size="small", annotation_clip=False,
            )  # fmt: skip
    names = [textwrap.fill(title, 20) for title, *_ in rows[::-1]]
    axis.set(yticks=range(len(rows)), yticklabels=names, ylim=(-0.55, len(rows) - 0.45))
    axis.set_xlabel(textwrap.fill(f"{what}, points of test accuracy", 60))
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.grid(visible=False, axis="y")
    handles = [
        canvas.handle("one seed", color="0.3", marker="o", ls="", ms=4, alpha=0.6),
        canvas.handle("mean, 95 % interval", color="0.3", marker="D", lw=2),
        Patch(color=_SHADE, label="too little to matter"),
    ]
    return canvas.finish(figure, handles)


def headline(panels: dict[str, list[tuple[str, np.ndarray, float, str]]]) -> Figure:
    """All questions at a glance: a panel per network and dataset, a row per question.

    Args:
        panels: by title, rows as in `gaps`; all with the same questions.
    """
    size = (3.0 * len(panels) + 2.0, 3.9)
    figure, axes = canvas.grid(1, len(panels), height=0, figsize=size, sharey=True, sharex=True)
    for axis, (title, rows) in zip(axes[0], panels.items()):
        axis.axvline(0, color="0.4", lw=1)
        for place, (_, points, margin, word) in enumerate(rows[::-1]):
            mean, half = interval(points)
            axis.barh(place, 2 * margin, left=-margin, height=0.86, color=_SHADE, zorder=0)
            axis.plot(points, np.full(len(points), place - 0.12), "o", ms=3, color=WORDS[word],
                      alpha=0.35, mew=0)  # fmt: skip
            bar = {"fmt": "D", "ms": 6, "capsize": 4, "lw": 2, "color": WORDS[word]}
            axis.errorbar(mean, place + 0.18, xerr=half, **bar)
            axis.annotate(
                word, (0.03, place + 0.08), xycoords=("axes fraction", "data"), color=WORDS[word],
                weight="bold", size="small", va="center",
            )  # fmt: skip
        names = [textwrap.fill(question, 24) for question, *_ in rows[::-1]]
        axis.set(title=title.replace(", ", "\n"), yticks=range(len(rows)), yticklabels=names)
        axis.set(ylim=(-0.55, len(rows) - 0.45))
        axis.grid(visible=False, axis="y")
        axis.xaxis.set_major_locator(MaxNLocator(4))
    low, high = axes[0, 0].get_xlim()
    axes[0, 0].set_xlim(low - 0.35 * (high - low), high)  # room for the words
    axes[0, len(panels) // 2].set_xlabel("first − second, points of test accuracy")
    return canvas.finish(figure, [
        canvas.handle("one seed", color="0.3", marker="o", ls="", ms=3, alpha=0.6),
        canvas.handle("mean, 95 % interval", color="0.3", marker="D", lw=2),
        Patch(color=_SHADE, label="too little to matter"),
    ])  # fmt: skip


def rates(panels: dict[str, pd.DataFrame]) -> Figure:
    """Held-out accuracy against the learning rate: one panel per tuning study, one line per curve.

    Args:
        panels: by title, one row per curve (`fair_rates.choices`), with a column `label`.
    """
    figure, axes = canvas.grid(len(panels), 1, height=0, figsize=(6.4, 3.3 * len(panels) + 0.9))
    chosen = canvas.colours([label for table in panels.values() for label in table.label])
    for axis, (title, table) in zip(axes[:, 0], panels.items()):
        for _, curve in table.iterrows():
            colour = chosen[curve.label]
            axis.plot(curve.rates, curve.means, "o-", color=colour, ms=5, lw=1.6)
        axis.set(xscale="log", ylabel="held-out accuracy (%)", title=title)
    axes[-1, 0].set_xlabel("learning rate")
    handles = [canvas.handle(n, color=c, marker="o") for n, c in chosen.items()]
    return canvas.finish(figure, handles, columns=2)


def masks_and_starts(panels: dict[str, tuple[pd.DataFrame, float]]) -> Figure:
    """Does a better mask make a better start? One panel per tuning study, one dot per mask.

    Args:
        panels: by title a table with one row per mask: `mask` (its accuracy, in points), `start`
            (that of the weights trained from θ0 under it), `initial_logit`; and the dense network's
            accuracy at its own rate, in points.
    """
    figure, axes = canvas.grid(len(panels), 1, height=0, figsize=(6.4, 3.3 * len(panels) + 0.9))
    logits = sorted({logit for table, _ in panels.values() for logit in table.initial_logit})
    palette = dict(zip(logits, [BLUE, ORANGE, GREEN, PURPLE, RED]))
    for axis, (title, (table, dense)) in zip(axes[:, 0], panels.items()):
        for logit, group in table.groupby("initial_logit"):
            axis.plot(group["mask"], group.start, "o", color=palette[logit], ms=7, alpha=0.8)
        axis.axhline(dense, color="0.4", lw=1.2, ls="--")
        axis.set(ylabel="weights trained under it (%)", title=title)
    axes[-1, 0].set_xlabel("accuracy of the mask alone, held out (%)")
    handles = [
        canvas.handle(f"starting logit {logit:g}", color=colour, marker="o", ls="")
        for logit, colour in palette.items()
    ]
    handles.append(canvas.handle("dense, as long", color="0.4", ls="--"))
    return canvas.finish(figure, handles, columns=2)


def shares(
    panels: dict[str, tuple[dict[str, list[np.ndarray]], np.ndarray]], kept: dict[str, list[float]]
) -> Figure:
    """Where training ends by the share of weights that a mask keeps: a dot per seed.

    Args:
        panels: by title, the accuracies (per cent, one per seed) at each share, by role, and those
            of the dense network.
        kept: by title, the shares, in per cent.
    """
    size = (5.2, 3.0 * len(panels) + 1.2)
    figure, axes = canvas.grid(len(panels), 1, height=0, figsize=size)
    for axis, (title, (lines, dense)) in zip(axes[:, 0], panels.items()):
        for number, (role, points) in enumerate(lines.items()):
            colour = _ROLE_COLOURS[role]
            places = np.arange(len(points)) + 0.14 * (number - (len(lines) - 1) / 2)
            for place, accuracies in zip(places, points):
                dots = {"ms": 4, "alpha": 0.35, "mew": 0, "color": colour}
                axis.plot(np.full(len(accuracies), place), accuracies, "o", **dots)
            axis.plot(places, [each.mean() for each in points], "D-", color=colour, ms=5, lw=1.6)
        axis.axhline(dense.mean(), color="0.4", lw=1.2, ls="--")
        axis.set(xticks=range(len(kept[title])), xticklabels=[f"{x:.0f} %" for x in kept[title]])
        axis.set(title=title, ylabel="test accuracy (%)")
    axes[-1, 0].set_xlabel("of the weights, this many stay")
    handles = [
        canvas.handle(ROLES[role], color=colour, marker="D", ms=5)
        for role, colour in _ROLE_COLOURS.items()
    ]
    handles.append(canvas.handle("dense network", color="0.4", ls="--"))
    return canvas.finish(figure, handles, columns=1)
