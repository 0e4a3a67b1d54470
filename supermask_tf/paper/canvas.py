"""What all figures share: the palette, the panels, and the legend below them."""

import itertools

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# seaborn's "colorblind" palette by name, so that importing this module need not import seaborn (a
# test holds them equal).
BLUE = "#0173b2"
ORANGE = "#de8f05"
GREEN = "#029e73"
RED = "#d55e00"
PURPLE = "#cc78bc"
BROWN = "#ca9161"
PINK = "#fbafe4"
GREY = "#949494"


def grid(rows: int, columns: int, height: float, **options):
    """A figure of panels, each `height` inches high unless `figsize` is given.

    Returns:
        The figure, and its axes as an array of shape (rows, columns).
    """
    import seaborn as sns  # here, since it imports scipy.stats: a second of every start

    style = {"grid.color": "0.9", "axes.edgecolor": "0.4"}
    options = {"figsize": (3.4 * columns, height * rows)} | options
    with sns.axes_style("whitegrid", style), sns.plotting_context("notebook", font_scale=0.95):
        return plt.subplots(rows, columns, squeeze=False, layout="constrained", **options)


def colours(names, taken=()) -> dict[str, str]:
    """A colour for each name that is not taken, in the order in which they come.

    Beyond the palette colours recur.
    """
    palette = [BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, GREY, "#56b4e9", "#5a5a5a", PINK]
    palette += ["#b8860b", "#000000"]
    free = [colour for colour in palette if colour not in taken] or palette
    return dict(zip(dict.fromkeys(names), itertools.cycle(free)))


def band(axis, mean, colour):
    """Draw the intervals of `over_seeds` by epoch as a band."""
    low, high = mean["mean"] - mean.half, mean["mean"] + mean.half
    axis.fill_between(mean.epoch, low, high, color=colour, alpha=0.15, lw=0)


def means(axis, x, table, **style):
    """Draw `over_seeds` with its intervals; a single run has none."""
    axis.errorbar(x, table["mean"], yerr=table.half.fillna(0), **style)


def handle(label, **style) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **style)


def finish(figure: Figure, handles, columns: int = 3) -> Figure:
    """The figure with its legend, so many entries in a row, closed."""
    columns = min(len(handles), columns)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    plt.close(figure)  # a notebook shows what a cell returns: an open figure would be shown twice
    return figure
