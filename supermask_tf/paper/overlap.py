"""What two masks share, and what a mask keeps of θ0, read from the records of runs. No
TensorFlow.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from .. import initializers
from ..records import Run

__all__ = ["kept_by_magnitude", "kept_by_value", "shared"]


def shared(a: Run, b: Run) -> pd.DataFrame:
    """How many of the weights that one run's mask keeps are in the other's, layer by layer.

    Args:
        a, b: runs of the same network.

    Returns:
        A row a kernel and one, `path` "all", of all together: `path`, `weights`, `density_a`,
        `density_b`, `overlap` (share of b's weights that a keeps), `chance` (its mean if b's were
        anywhere in the layer: a's density) and `beyond`, from 0 at chance to 1 where all of b's
        weights are a's: (overlap − chance) / (most − chance), most the largest overlap that the two
        densities allow.

    Raises:
        ValueError: if their layers differ.
    """
    masks_a, masks_b = _kernels(a), _kernels(b)
    if {path: mask.size for path, mask in masks_a.items()} != {
        path: mask.size for path, mask in masks_b.items()
    }:
        raise ValueError(f"{a.name} and {b.name} are of different networks: give two runs of one.")
    counts = pd.DataFrame(
        [
            {
                "path": path,
                "weights": mask.size,
                "a": mask.sum(),
                "b": masks_b[path].sum(),
                "both": (mask & masks_b[path]).sum(),
                "expected": mask.sum() * masks_b[path].sum() / mask.size,
                "most": min(mask.sum(), masks_b[path].sum()),
            }
            for path, mask in masks_a.items()
        ]
    )
    counts = pd.concat(
        [counts, counts.drop(columns="path").sum().to_frame().T.assign(path="all")],
        ignore_index=True,
    ).infer_objects()
    kept = counts.b.astype(float).where(
        counts.b > 0
    )  # a layer that keeps nothing shares nothing that could be counted
    return pd.DataFrame(
        {
            "path": counts.path,
            "weights": counts.weights.astype(int),
            "density_a": counts.a / counts.weights,
            "density_b": counts.b / counts.weights,
            "overlap": counts.both / kept,
            "chance": counts.expected / kept,
            "beyond": (
                (counts.both - counts.expected) / (counts.most - counts.expected).replace(0, np.nan)
            ),
        }
    )


def kept_by_magnitude(run: Run, parts: int = 10) -> pd.DataFrame:
    """How a mask's choice follows the magnitude and the sign of θ0, in a network of dense layers.

    Args:
        run: a run of `lenet_300_100`.
        parts: into how many parts of equal size each layer's weights are cut, by rising magnitude.

    Returns:
        A row a layer and part: `path`, `part` (from 1, the smallest magnitudes), `kept` (fraction
        of the part that the mask keeps), `density` (of the layer's weights), `positive` (share of
        the part's kept weights that are positive).

    Raises:
        ValueError: if the network has other layers, whose shapes a record does not tell.
    """
    rows = []
    for path, mask, theta0 in _with_weights(run):
        order = np.argsort(np.abs(theta0), kind="stable")
        for part, chosen in enumerate(np.array_split(order, parts), 1):
            kept = mask[chosen]
            positive = (theta0[chosen][kept] > 0).mean() if kept.any() else np.nan
            rows.append((path, part, kept.mean(), mask.mean(), positive))
    return pd.DataFrame(rows, columns=["path", "part", "kept", "density", "positive"])


def kept_by_value(run: Run, parts: int = 20) -> pd.DataFrame:
    """How a mask's choice follows the value of θ0, sign and size, in a network of dense layers.

    Args:
        run: a run of `lenet_300_100`.
        parts: into how many parts of equal size each layer's weights are cut, by rising value.

    Returns:
        One row per layer and part: `path`, `part` (from 1, the most negative weights), `value`
        (the part's mean weight in standard deviations of the layer), `kept` (fraction).

    Raises:
        ValueError: as `kept_by_magnitude`.
    """
    rows = []
    for path, mask, theta0 in _with_weights(run):
        order, scale = np.argsort(theta0, kind="stable"), theta0.std()
        for part, chosen in enumerate(np.array_split(order, parts), 1):
            rows.append((path, part, theta0[chosen].mean() / scale, mask[chosen].mean()))
    return pd.DataFrame(rows, columns=["path", "part", "value", "kept"])


def _with_weights(run: Run) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Of each layer its path, what the mask keeps, and the untrained weights, both flat."""
    if run.parameters["model"] != "lenet_300_100":
        raise ValueError(
            f"{run.name} is a {run.parameters['model']}: give a run of lenet_300_100, whose layers"
            " are all dense."
        )
    inputs = math.prod(run.summary["image_shape"])
    for path, mask in _kernels(run).items():
        shape = (inputs, mask.size // inputs)
        draw = initializers.get(run.parameters["initializer"])
        yield path, mask, draw(run.parameters["seed"], f"{path}/kernel", shape).ravel()
        inputs = shape[1]


def _kernels(run: Run) -> dict[str, np.ndarray]:
    """What the kernels' masks keep, flat, by layer path."""
    layers = run.utilisation
    masks = run.masks({f"{row.path}/kernel": (int(row.weights),) for row in layers.itertuples()})
    return {path: masks[f"{path}/kernel"] != 0 for path in layers.path}
