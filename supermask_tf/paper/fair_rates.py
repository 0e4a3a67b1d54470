"""The choice of the fair test's learning rates, from its tuning studies. No TensorFlow.

The rule stands on the book's page of claims::

    table = choices(load_runs("runs/tune_wrn_10_2"), epochs=20)   # one row per curve
    table[["role", "way", "rate", "edge"]]
"""

import numpy as np
import pandas as pd

from ..records import RunSet
from .fair import role_of, way_of

__all__ = ["CHOICES", "TUNING", "choices", "choose_rate", "starts"]

# The study that each one's rates come from.
TUNING = {
    "fair_lenet_mnist": "tune_lenet_mnist",
    "fair_lenet_fashion": "tune_lenet_fashion",
    "fair_wrn_10_2": "tune_wrn_10_2",
}


def choose_rate(rates, accuracies) -> tuple[float, bool]:
    """The best learning rate, by a parabola in its logarithm through the best mean and its two
    neighbours.

    Args:
        rates: those tried, ascending.
        accuracies: the mean accuracy on held-out images at each.

    Returns:
        The rate, to two digits, and whether the best one tried is the first or the last: then it is
        that one itself, and the grid should be extended.
    """
    rates, accuracies = np.asarray(rates, float), np.asarray(accuracies, float)
    best = int(np.argmax(accuracies))
    if best in (0, len(rates) - 1):
        return float(rates[best]), True
    x, y = np.log(rates[best - 1 : best + 2]), accuracies[best - 1 : best + 2]
    curvature, slope, _ = np.polyfit(x - x[1], y, 2)
    top = 0.0 if curvature >= 0 else -slope / (2 * curvature)  # three equal ones: the middle
    return float(f"{np.exp(x[1] + top):.1e}"), False


# What is tuned by itself: runs that share these columns are one curve over the learning rate.
CHOICES = ("role", "way", "mask_rate", "initial_logit")


def choices(runs: RunSet, epochs: int) -> pd.DataFrame:
    """The rate to take for each arm of a tuning study, by the rule on the page of claims.

    Masks that were learned at a chosen rate, for others to start from, are no part of a grid.

    Args:
        runs: those of a `tune_*` study.
        epochs: T.

    Returns:
        One row per role, way, rate of the mask started from, and starting logit: `rate` (chosen),
        `edge` (whether it lies on the edge of the grid), `accuracy` (the best mean on held-out
        images, in points), `rates` and `means` (the curve), `seeds`.
    """
    rows = []
    for run in runs:
        p = run.parameters
        if (role := role_of(p, epochs)) and _in_grid(p["learning_rate"]):
            searched = p if role == "mask" else (p.get("parent") or {}) if way_of(p) else {}
            rows.append(
                (
                    role,
                    way_of(p),
                    np.nan if role == "mask" else searched.get("learning_rate", np.nan),
                    searched.get("initial_logit", np.nan),
                    p["learning_rate"],
                    100 * run.summary["val_accuracy"],
                )
            )
    columns = [*CHOICES, "learning_rate", "accuracy"]
    frame = pd.DataFrame(rows, columns=columns).astype({"mask_rate": float, "initial_logit": float})
    found = []
    for group, curve in frame.groupby(list(CHOICES), dropna=False):
        means = curve.groupby("learning_rate").accuracy.agg(["mean", "size"])
        rate, edge = choose_rate(means.index, means["mean"])
        curve = tuple(means.index), tuple(means["mean"]), int(means["size"].min())
        found.append((*group, rate, edge, means["mean"].max(), *curve))
    return pd.DataFrame(
        found, columns=[*CHOICES, "rate", "edge", "accuracy", "rates", "means", "seeds"]
    )


def _in_grid(rate: float) -> bool:
    """Whether it is a step of the grids: a power of ten, or three times one."""
    return f"{rate:.3e}"[:5] in ("1.000", "3.000")


def starts(runs: RunSet, epochs: int) -> pd.DataFrame:
    """Each learned mask of a tuning study beside the weights that were trained under it.

    Args:
        runs: those of a `tune_*` study.
        epochs: T.

    Returns:
        One row per mask of the threshold estimator whose weights were trained from θ0 at the rate
        that all masks share: `mask` and `start` (accuracies on held-out images, in points),
        `initial_logit`, `mask_rate`, `seed`. If several rates were tried, the one with the most
        masks counts.
    """
    found = {run.name: run for run in runs}
    rows = []
    for run in runs:
        p, mask = run.parameters, found.get(run.parameters.get("init_from") or "")
        if mask and role_of(p, epochs) == "rewind" and way_of(p) == "threshold":
            own = mask.parameters
            rows.append(
                (
                    p["learning_rate"],
                    100 * mask.summary["val_accuracy"],
                    100 * run.summary["val_accuracy"],
                    own["initial_logit"],
                    own["learning_rate"],
                    p["seed"],
                )
            )
    columns = ["rate", "mask", "start", "initial_logit", "mask_rate", "seed"]
    table = pd.DataFrame(rows, columns=columns)
    if not len(table):
        return table.drop(columns="rate")
    shared = table.rate.value_counts().idxmax()
    return table[table.rate == shared].drop(columns="rate").reset_index(drop=True)
