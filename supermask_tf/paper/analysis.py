"""Statistics over seeds and layers. No TensorFlow; a function that needs scipy imports it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = [
    "Verdict", "accuracy_table", "best_rate", "by_claim", "difference", "equivalence", "holm",
    "interval", "over_seeds", "paired", "paired_runs", "step_down", "toy_gradients",
]  # fmt: skip


# Test accuracies that differ by less count as equal, in percentage points (the book's rules).
MARGIN = 1.0
# A difference that surely lies within this is too little to matter, in percentage points.
NEGLIGIBLE = 0.25


def interval(values, level: float = 0.95) -> tuple[float, float]:
    """Mean of independent values and the half-width of its Student t interval.

    The half-width is t((1 + level)/2; n − 1) · s/√n. A bootstrap of a few seeds would cover the
    true mean far less often than it says.

    Args:
        values: numbers, one per seed.
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

    return float(values.mean()), float(
        stats.t.ppf((1 + level) / 2, values.size - 1) * stats.sem(values)
    )


def over_seeds(frame: pd.DataFrame, value: str, by: list[str]) -> pd.DataFrame:
    """The mean of a column in each group, with its 95 % t interval.

    Args:
        frame: one row per run, or per run and layer, or per run and epoch.
        value: the column; rows without a value are left out.
        by: the columns that make the groups, in the order in which they come.

    Returns:
        One row per group: the columns of `by`, `mean`, `half` (half-width of the interval) and `n`
        (rows).
    """
    frame = frame.dropna(subset=[value])
    if not len(frame):
        return pd.DataFrame(columns=[*by, "mean", "half", "n"])
    # A parameter that does not apply is None, and such runs are a group too.
    groups = frame.groupby(by, sort=False, dropna=False)[value]

    def mean(column):
        middle, half = interval(column)
        return pd.Series({"mean": middle, "half": half, "n": len(column)})

    summary = groups.apply(mean)
    return summary.unstack().reset_index().astype({"n": int})


def accuracy_table(summary: pd.DataFrame, value: str = "test_accuracy") -> pd.DataFrame:
    """Accuracy in per cent as text: one row per dataset, one column per arm.

    A cell has the mean, the half-width of its 95 % interval and the number of seeds; a single run
    has no interval.

    Raises:
        ValueError: if an arm has several runs of a seed.
    """
    check_one_run_per_seed(summary)
    cells = over_seeds(summary, value, ["dataset", "arm"])
    cells["text"] = [
        f"{100 * m:.2f} (one seed)" if n == 1 else f"{100 * m:.2f} ± {100 * h:.2f} (n = {n})"
        for m, h, n in zip(cells["mean"], cells.half, cells.n)
    ]
    table = cells.pivot(index="dataset", columns="arm", values="text")
    arms = dict.fromkeys(["mask", "weights", "finetune", *summary.arm])
    return (
        table[[arm for arm in arms if arm in table]]
        .rename_axis(index=None, columns=None)
        .fillna("")
    )


@dataclass(frozen=True)
class Verdict:
    """What a comparison says by the rule of its claim (written down in the book).

    Attributes:
        verdict: "supported", "refuted" or "not settled".
        mean, half: mean difference and half-width of its 95 % t interval, in percentage points.
        n: number of seeds.
    """

    verdict: str
    mean: float
    half: float
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "no runs"
        return f"{self.mean:+.2f} ± {self.half:.2f} (n = {self.n})".replace("-", "−")


def paired(summary: pd.DataFrame, a: dict, b: dict, value: str = "test_accuracy") -> np.ndarray:
    """`a` minus `b` in percentage points, seed by seed, over the seeds that both have.

    Args:
        summary: `RunSet.summary`.
        a, b: the values of columns that pick one run per seed, such as `{"arm": "mask"}`.

    Returns:
        float64 of shape (seeds,).

    Raises:
        ValueError: if one of them picks several runs of a seed.
    """
    return paired_runs(summary, a, b, value).points.to_numpy()


def paired_runs(
    summary: pd.DataFrame, a: dict, b: dict, value: str = "test_accuracy"
) -> pd.DataFrame:
    """As `paired`, with the runs: by seed `points` and `runs`, both sides' as "study/run".

    Args:
        summary, a, b, value: as in `paired`; of runs without a name none are given.

    Raises:
        ValueError: as `paired`.
    """

    def pick(values):
        rows = summary
        for column, wanted in values.items():
            rows = rows[rows[column].isna() if wanted is None else rows[column] == wanted]
        if rows.seed.duplicated().any():
            raise ValueError(
                f"{values} picks {len(rows)} runs of {rows.seed.nunique()} seeds: name more "
                "columns, so that one run per seed is left."
            )
        return rows.set_index("seed")

    first, second = pick(a), pick(b)
    points = 100 * (first[value] - second[value]).dropna()
    named = {"study", "run"} <= set(summary)
    runs = [
        tuple((f"{side.study[seed]}/{side.run[seed]}",) for side in (first, second) if named)
        for seed in points.index
    ]
    return pd.DataFrame({"points": points, "runs": runs}, index=points.index)


def difference(points, negligible: float = NEGLIGIBLE) -> Verdict:
    """Is the mean above zero?

    Supported if the 95 % interval lies above zero; refuted if it lies below zero or within
    ±`negligible`.

    Args:
        points: paired differences in percentage points, one per seed; with fewer than three the
            verdict is "not settled".
        negligible: what is too little to matter, in percentage points.
    """
    if len(points) < 3:
        return _too_few_seeds(points)
    mean, half = interval(points)
    low, high = mean - half, mean + half
    too_little = -negligible <= low and high <= negligible
    verdict = "supported" if low > 0 else "refuted" if high < 0 or too_little else "not settled"
    return Verdict(verdict, mean, half, len(points))


def equivalence(points, margin: float = MARGIN) -> Verdict:
    """Is the mean within ±`margin`? By two one-sided t tests at 5 % (Schuirmann 1987).

    Supported if the 90 % interval lies inside the margin; refuted if the 95 % interval lies outside
    it.

    Args:
        points: paired differences in percentage points, one per seed; with fewer than three the
            verdict is "not settled".
        margin: in percentage points.
    """
    if len(points) < 3:
        return _too_few_seeds(points)
    mean, half = interval(points)
    _, inner = interval(points, 0.90)
    inside, outside = abs(mean) + inner <= margin, abs(mean) - half > margin
    verdict = "supported" if inside else "refuted" if outside else "not settled"
    return Verdict(verdict, mean, half, len(points))


def holm(mean, half, n) -> np.ndarray:
    """Two-sided p values of paired t tests, corrected for their number (Holm 1979).

    Args:
        mean, half, n: of each comparison, as in `Verdict`. With fewer than two seeds there is no
            test, but it counts as one.

    Returns:
        float64 of the same shape, NaN without a test. The chance that any comparison whose true
        mean is zero comes out below 0.05 is at most 5 %.
    """
    from scipy import stats

    mean, half, n = (np.asarray(values, dtype=float) for values in (mean, half, n))
    tested = n > 1
    p = np.full(mean.shape, np.nan)
    # Where all seeds are alike the half-width is zero: the mean is surely another one than zero, or
    # surely zero.
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.nan_to_num(np.abs(mean[tested]) / half[tested], nan=0.0, posinf=np.inf)
    statistic = ratio * stats.t.ppf(0.975, n[tested] - 1)
    p[tested] = 2 * stats.t.sf(statistic, n[tested] - 1)
    return step_down(p)


def step_down(p: np.ndarray) -> np.ndarray:
    """p values corrected for their number along the last axis, by Holm's step-down procedure.

    Args:
        p: of shape (..., tests); NaN counts as a test and stays NaN.

    Returns:
        float64 of the same shape, at most 1.
    """
    p = np.asarray(p, float)
    order = np.argsort(p, axis=-1, kind="stable")  # NaN last
    ascending = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    rising = np.minimum(np.maximum.accumulate(ascending, axis=-1), 1.0)
    np.put_along_axis(corrected, order, rising, -1)
    return corrected


def check_one_run_per_seed(frame: pd.DataFrame, by: tuple[str, ...] = ("dataset", "arm")) -> None:
    """Refuse groups with several runs of a seed: their spread would not be one over seeds.

    Args:
        frame: one row per run, or per run and layer or epoch. Without the columns `seed` and `run`
            nothing is checked.
        by: the columns that make the groups.

    Raises:
        ValueError: if a group, such as an arm of a dataset, has several runs of a seed.
    """
    if "seed" not in frame or "run" not in frame:
        return
    # One name may stand in two studies.
    names = [name for name in ("study", "run") if name in frame]
    for group, runs in frame.groupby(list(by)):
        count = len(runs[names].drop_duplicates())
        if count != runs.seed.nunique():
            raise ValueError(
                f"{count} runs of {', '.join(map(str, group))} share {runs.seed.nunique()} seeds: "
                "choose among them with RunSet.where(...), such as by learning_rate."
            )


def best_rate(summary: pd.DataFrame, arm: str) -> float | None:
    """The arm's learning rate with the best mean accuracy on held-out training images.

    The test set has no part in it. The mean is over the seeds that every rate has; None if there is
    no such seed.
    """
    runs = summary[summary.arm == arm]
    rates = runs.pivot(index="seed", columns="learning_rate", values="val_accuracy").dropna()
    return float(rates.mean().idxmax()) if len(rates) else None


def by_claim(comparisons: pd.DataFrame) -> pd.Series:
    """The verdict of each claim: refuted if one comparison refutes it, supported if all do.

    Args:
        comparisons: those that decide: columns `claim` and `verdict`.

    Returns:
        "supported", "refuted" or "not settled", by claim, in the order in which the claims come.
    """

    def of_claim(verdicts):
        if (verdicts == "refuted").any():
            return "refuted"
        return "supported" if (verdicts == "supported").all() else "not settled"

    return comparisons.groupby("claim", sort=False).verdict.agg(of_claim)


def toy_gradients(logits) -> pd.DataFrame:
    r"""The estimators' gradients where the true one can be enumerated.

    The loss is L(M) = (w·M − t)² of two masked weights, with w = (1, 1), t = 0.6 and a second logit
    of 0. The Bernoulli estimator stands for the derivative of the expected loss, σ'(m̂₁) (E[L |
    M₁=1] − E[L | M₁=0]); a draw of it passes back σ'(m̂₁) ∂L/∂M₁. The threshold estimator stands
    for the derivative of L(1[m̂ > 0]), which is zero wherever there is one.

    Args:
        logits: values of the first mask logit.

    Returns:
        One row per estimator and logit, with columns `estimator`, `logit`, `true` (the derivative
        that it stands for), `mean` and `deviation` (of what a draw of the mask passes back; the
        threshold estimator draws nothing).
    """
    w, t = np.array([1.0, 1.0]), 0.6
    logits = np.asarray(logits, float)
    p = 1 / (1 + np.exp(-logits))
    slope = np.exp(-np.abs(logits)) / (1 + np.exp(-np.abs(logits))) ** 2
    loss = {(a, b): (w @ (a, b) - t) ** 2 for a in (0, 1) for b in (0, 1)}
    passed = {mask: slope * 2 * w[0] * (w @ mask - t) for mask in loss}
    chance = {(a, b): (p if a else 1 - p) * 0.5 for a, b in loss}
    mean = sum(chance[mask] * passed[mask] for mask in loss)
    square = sum(chance[mask] * passed[mask] ** 2 for mask in loss)
    true = slope * sum((loss[1, b] - loss[0, b]) * 0.5 for b in (0, 1))
    threshold = np.where(logits > 0, passed[1, 0], passed[0, 0])
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    found = {"threshold": (0.0, threshold, 0.0), "bernoulli": (true, mean, deviation)}
    tables = [
        pd.DataFrame({"estimator": name, "logit": logits, "true": a, "mean": b, "deviation": c})
        for name, (a, b, c) in found.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _too_few_seeds(points) -> Verdict:
    """The verdict without three seeds, whatever they say."""
    mean, half = interval(points) if len(points) else (float("nan"), float("nan"))
    return Verdict("not settled", mean, half, len(points))
