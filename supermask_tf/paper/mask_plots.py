"""Pictures of masks: what a network keeps of its random weights. No TensorFlow.

::

    layer = kept(run, "dense1", (784, 300))     # the mask, and the weights under it
    first_layer(layer)                          # units as images, and all of them as one map
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure

from .. import initializers
from ..records import Run
from . import canvas
from .analysis import over_seeds
from .canvas import BLUE, ORANGE

__all__ = ["Layer", "by_epoch", "by_value", "first_layer", "jumps", "kept", "kernels", "strip"]

# A weight that stays: its sign is the hue, its size how strong that is.
_SIGNS = LinearSegmentedColormap.from_list("signs", [ORANGE, "#f4f4f4", BLUE])
_COLUMNS = 8


@dataclass(frozen=True)
class Layer:
    """A masked kernel.

    Attributes:
        mask: booleans of the kernel's shape: which weights stay.
        weights: float32 of the same shape: the untrained weights.
    """

    mask: np.ndarray
    weights: np.ndarray


def kept(run: Run, path: str, shape: tuple[int, ...]) -> Layer:
    """A kernel of a run that has learned a mask.

    Args:
        run: its record.
        path: the layer's, such as "dense1".
        shape: of the kernel.
    """
    name = f"{path}/kernel"
    draw = initializers.get(run.parameters["initializer"])
    mask = run.masks({name: shape})[name] != 0
    return Layer(mask, draw(run.parameters["seed"], name, shape))


def first_layer(layer: Layer, units: int = 24) -> Figure:
    """The first layer of a dense network on images of 28×28: some units, and all as one map.

    Args:
        layer: kernel of shape (784, units).
        units: how many are shown as images, in the order of the layer.
    """
    masks = layer.mask.T.reshape(-1, 28, 28)
    rows = -(-units // _COLUMNS)
    tiles = np.full((rows * 30, _COLUMNS * 30), np.nan)
    for k in range(units):
        row, column = 30 * (k // _COLUMNS) + 1, 30 * (k % _COLUMNS) + 1
        tiles[row : row + 28, column : column + 28] = masks[k]
    figure, axes = canvas.grid(2, 1, height=0, figsize=(6.4, 6.6), height_ratios=(rows / 8, 0.58))
    top, bottom = axes[:, 0]
    _image(top, tiles, "gray_r", vmin=0, vmax=1.25)
    top.set_title(f"{units} of {len(masks)} units: black stays, white is switched off")
    share = 100 * masks.mean(axis=0)
    shown = _image(bottom, share, "cividis", vmin=share.min(), vmax=share.max())
    bottom.set_title("all units together")
    figure.colorbar(shown, ax=bottom, label="of a pixel’s weights stay (%)")
    return _closed(figure)


def kernels(layers: dict[str, Layer], filters: int = 16) -> Figure:
    """Convolution kernels: of each input and filter the weights that stay, by sign and size.

    Args:
        layers: by title, kernels of shape (height, width, inputs, filters).
        filters: how many filters are shown, from the first.
    """
    sizes = [min(layer.mask.shape[2], 8) * layer.mask.shape[0] + 1.6 for layer in layers.values()]
    height = 0.14 * sum(sizes) + 0.5 * len(sizes) + 0.4
    figure, axes = canvas.grid(len(layers), 1, height=0, figsize=(6.4, height), height_ratios=sizes)
    for axis, (title, layer) in zip(axes[:, 0], layers.items()):
        high, wide, inputs, outputs = layer.mask.shape
        inputs, outputs = min(inputs, 8), min(outputs, filters)
        tiles = np.full((2, inputs * (high + 1) - 1, outputs * (wide + 1) - 1), np.nan)
        for i in range(inputs):
            for o in range(outputs):
                stays, weights = layer.mask[:, :, i, o], layer.weights[:, :, i, o]
                rows = slice(i * (high + 1), i * (high + 1) + high)
                columns = slice(o * (wide + 1), o * (wide + 1) + wide)
                tiles[0, rows, columns] = np.where(stays, weights, np.nan)
                tiles[1, rows, columns] = np.where(stays, np.nan, 1.0)
        largest = np.abs(layer.weights).max()
        _image(axis, tiles[0], _SIGNS, norm=TwoSlopeNorm(0, -largest, largest))
        _image(axis, tiles[1], "gray_r", vmin=0, vmax=1.25)
        axis.set_title(title)
        axis.set(ylabel="inputs", xlabel="filters")
    handles = [
        canvas.handle("positive, stays", color=BLUE, marker="s", ls=""),
        canvas.handle("negative, stays", color=ORANGE, marker="s", ls=""),
        canvas.handle("switched off", color="0.2", marker="s", ls=""),
    ]
    return canvas.finish(figure, handles)


def strip(maps: dict[str, np.ndarray]) -> Figure:
    """Maps of what the first layer keeps, side by side on one scale.

    Args:
        maps: by title, fractions kept of shape (28, 28).
    """
    figure, axes = canvas.grid(1, len(maps), height=0, figsize=(7.2, 2.7))
    low = 100 * min(share.min() for share in maps.values())
    for axis, (title, share) in zip(axes[0], maps.items()):
        shown = _image(axis, 100 * share, "cividis", vmin=low, vmax=100)
        axis.set_title(f"{title}\n{100 * share.mean():.0f} % stay", fontsize="small")
    bar = {"location": "bottom", "shrink": 0.5, "aspect": 40}
    figure.colorbar(shown, ax=axes[0], label="of a pixel’s weights stay (%)", **bar)
    return _closed(figure)


def by_epoch(history: pd.DataFrame) -> Figure:
    """The fraction of the weights that stays, by epoch: means over seeds with 95 % t bands.

    Args:
        history: columns `way` (a legend entry), `epoch`, `masked`.
    """
    figure, axes = canvas.grid(1, 1, height=0, figsize=(6.4, 3.6))
    axis, colours = axes[0, 0], canvas.colours(history.way)
    for way, runs in history.groupby("way", sort=False):
        mean = over_seeds(runs.assign(kept=1 - runs.masked), "kept", ["epoch"])
        mean = mean.sort_values("epoch")
        axis.plot(mean.epoch, mean["mean"], color=colours[way], lw=1.8)
        canvas.band(axis, mean, colours[way])
    axis.set(xlabel="epoch", ylabel="fraction of the weights that stays", ylim=(0, 1.03))
    axis.xaxis.get_major_locator().set_params(integer=True)
    handles = [canvas.handle(way, color=colour) for way, colour in colours.items()]
    return canvas.finish(figure, handles, columns=2)


def by_value(table: pd.DataFrame) -> Figure:
    """How often a weight stays, by its value before training: one line per layer.

    Means over seeds with 95 % t bands.

    Args:
        table: columns `path`, `part`, `value` (the part's mean weight, in standard deviations of
            its layer), `kept` (fraction).
    """
    figure, axes = canvas.grid(1, 1, height=0, figsize=(6.4, 3.8))
    axis, colours = axes[0, 0], canvas.colours(table.path)
    axis.axvline(0, color="0.4", lw=1)
    for path, rows in table.groupby("path", sort=False):
        mean = over_seeds(rows, "kept", ["part"])
        values = rows.groupby("part", sort=True).value.mean().reindex(mean.part).to_numpy()
        axis.plot(values, mean["mean"], color=colours[path], lw=1.8)
        low, high = mean["mean"] - mean.half, mean["mean"] + mean.half
        axis.fill_between(values, low, high, color=colours[path], alpha=0.15, lw=0)
    axis.set_xlabel("the untrained weight, in standard deviations of its layer")
    axis.set_ylabel("fraction that stays")
    axis.set_ylim(0, 1.03)
    return canvas.finish(figure, [canvas.handle(n, color=c) for n, c in colours.items()])


def jumps(rows: list[tuple[str, str, str, np.ndarray, np.ndarray]], after: str) -> Figure:
    """Accuracy before and after some training: one panel per network, one line per seed.

    Args:
        rows: for each line of a panel the panel's title, the line's name, its colour, and the
            accuracies before and after, in per cent, one per seed.
        after: what the later dots are, for the legend.
    """
    panels: dict[str, list] = {}
    for title, *line in rows:
        panels.setdefault(title, []).append(line)
    sizes = [0.5 * len(lines) + 0.55 for lines in panels.values()]
    figure, axes = canvas.grid(
        len(panels), 1, height=0, figsize=(6.4, sum(sizes) + 1.1), height_ratios=sizes
    )
    for axis, (title, lines) in zip(axes[:, 0], panels.items()):
        for place, (_, colour, before, later) in enumerate(lines[::-1]):
            spread = np.linspace(-0.26, 0.26, len(before)) if len(before) > 1 else [0.0]
            for low, high, shift in zip(before, later, spread):
                axis.plot([low, high], [place + shift] * 2, color=colour, lw=1, alpha=0.6)
            at = place + np.asarray(spread)
            axis.plot(before, at, "o", ms=5, mfc="white", color=colour)
            axis.plot(later, at, "o", ms=5, color=colour)
        names = [name for name, *_ in lines[::-1]]
        axis.set(yticks=range(len(lines)), yticklabels=names, ylim=(-0.6, len(lines) - 0.4))
        axis.set_title(title)
        axis.grid(visible=False, axis="y")
    axes[-1, 0].set_xlabel("accuracy (%)")
    handles = [
        canvas.handle("before", color="0.3", marker="o", mfc="white", ls=""),
        canvas.handle(after, color="0.3", marker="o", ls=""),
    ]
    return canvas.finish(figure, handles)


def _image(axis, values, colours, **scale):
    axis.grid(visible=False)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set_visible(False)
    return axis.imshow(values, cmap=colours, interpolation="nearest", **scale)


def _closed(figure: Figure) -> Figure:
    import matplotlib.pyplot as plt  # a notebook shows what a cell returns: once

    plt.close(figure)
    return figure
