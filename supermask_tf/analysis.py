"""Statistics over seeds and layers. No TensorFlow; scipy is imported by the functions that need it."""

import numpy as np
import pandas as pd

__all__ = ["accuracy_table", "correlation", "interval", "over_seeds"]


def interval(values, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and the half-width of its Student t interval.

    The half-width is t((1 + level)/2; n − 1) · s/√n; a bootstrap of a few seeds would cover far less than it says.

    Args:
        values: numbers, one a seed.
        level: confidence level in (0, 1).

    Returns:
        (mean, half-width); the half-width is NaN for a single value, since one run has no spread.
    """
    values = np.asarray(values, float)
    if not 0 < level < 1:
        raise ValueError(f"level={level} is out of range: give a confidence level between 0 and 1.")
    if not values.size:
        raise ValueError("interval needs at least one value; none was given.")
    if values.size == 1:
        return float(values[0]), float("nan")
    from scipy import stats

    return float(values.mean()), float(stats.t.ppf((1 + level) / 2, values.size - 1) * stats.sem(values))


def over_seeds(frame: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """Mean, half-width of the 95 % t interval (`half`) and number of rows (`n`) of a column, by group."""
    groups = frame.dropna(subset=[value]).groupby(by, sort=False)[value]
    summary = groups.apply(lambda column: pd.Series(dict(zip(("mean", "half", "n"), (*interval(column), len(column))))))
    return summary.unstack().reset_index().astype({"n": int})


def accuracy_table(summary: pd.DataFrame, value: str = "test_accuracy") -> pd.DataFrame:
    """Accuracy in per cent by dataset (rows) and arm (columns), as text: mean ± half-width and number of seeds.

    A single run stands without an interval: it has none.
    """
    cells = over_seeds(summary, value, ["dataset", "arm"])
    cells["text"] = [
        f"{100 * m:.2f} (one seed)" if n == 1 else f"{100 * m:.2f} ± {100 * h:.2f} (n = {n})"
        for m, h, n in zip(cells["mean"], cells.half, cells.n)
    ]
    table = cells.pivot(index="dataset", columns="arm", values="text")
    arms = [arm for arm in dict.fromkeys(["mask", "weights", "finetune", *summary.arm]) if arm in table]
    return table[arms].rename_axis(None, axis=1).fillna("")


def correlation(x, y) -> float:
    """Pearson's correlation of two columns."""
    from scipy import stats

    return float(stats.pearsonr(x, y).statistic)
