"""What a byte buys: accuracies by the bytes of the file, and who wins where. No TensorFlow.

points = ledger.points(table)       # table: the rows of `supermask bytes`
ledger.frontier(points)             # those that nothing smaller equals
ledger.ranges(points)               # which kind of file is best, from how many bytes on
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import canvas, plots
from .analysis import difference, interval

__all__ = ["KINDS", "SHORTEST", "at_budgets", "figure", "frontier", "points", "ranges", "sparse"]

# The kinds of file, in the order of the figure: colour, marker, name.
KINDS = {
    "supermask": (plots.ARM_COLOURS["mask"], "o", "supermask"),
    "ticket": (plots.ARM_COLOURS["ticket"], "s", "pruned ticket, stored sparse"),
    "trained": (plots.ARM_COLOURS["weights"], "D", "all weights trained"),
}
_ARMS = {"mask": "supermask", "ticket": "ticket", "weights": "trained"}
# Names of forms as the page has them.
_PRECISION = {"float32": "float32", "float16": "float16", "int8": "8 bits"}
# What tells one file from another, but for the seed.
SETTING = ["dataset", "kind", "what", "units", "density", "density_start", "form"]


def points(table: pd.DataFrame) -> pd.DataFrame:
    """One row per setting, the mean over its seeds.

    Of a sparse form the smallest of its ways to tell positions counts, seed by seed.

    Args:
        table: the rows of `supermask bytes`; two studies may have some in common.

    Returns:
        Columns `dataset`, `kind` (of KINDS), `what`, `units`, `density`, `density_start` (both −1
        where none was asked for), `form`; `bytes`, `accuracy` and `held_out` (fractions, means over
        seeds); `half`, the half-width of the 95 % interval of `accuracy`, NaN for one seed; `n`,
        and `by_seed`: a dictionary of accuracies.
    """
    each = _each(table)
    rows = []
    for key, group in each.groupby(SETTING, dropna=False, sort=False):
        mean, half = interval(group.test_accuracy)
        rows.append(
            dict(zip(SETTING, key))
            | {
                "bytes": group.bytes.mean(),
                "accuracy": mean,
                "half": half,
                "held_out": group.val_accuracy.mean(),
                "n": len(group),
                "by_seed": dict(zip(group.seed, group.test_accuracy)),
            }
        )
    columns = [*SETTING, "bytes", "accuracy", "half", "held_out", "n", "by_seed"]
    return pd.DataFrame(rows, columns=columns)


def _each(table: pd.DataFrame) -> pd.DataFrame:
    """One row per run and form, the smallest of a sparse form's; with `kind` and `what`."""
    each = table.sort_values("bytes").drop_duplicates(["run", "form"]).copy()
    each["units"] = each.units.fillna(300).astype(int)
    each["kind"] = each.arm.map(_ARMS)
    signed = each.initializer.str.startswith("signed").map({True: "signed constants", False: ""})
    uniform = signed.where(signed != "", "uniform weights")
    each["what"] = np.where(each.arm == "mask", each.estimator + ", " + uniform, "")
    asked = ["density", "density_start"]
    each[asked] = each[asked].fillna(-1.0)  # a group of their own, where none was asked for
    return each


def sparse(table: pd.DataFrame) -> pd.DataFrame:
    """How often each way to tell positions is the smallest: one row per density of the tickets.

    Returns:
        Columns `density`, and the mean bytes of "bits", "indices" and "coded" of 8-bit tickets.
    """
    rows = table[table.form == "sparse int8"]
    found = rows.pivot_table(index="density", columns="positions", values="bytes")
    return found.reindex(columns=["bits", "indices", "coded"]).reset_index()


def frontier(found: pd.DataFrame) -> pd.DataFrame:
    """The settings that are better than everything of their bytes or less, by rising bytes."""
    ordered = found.sort_values(["bytes", "accuracy"], ascending=[True, False])
    return ordered[ordered.accuracy > ordered.accuracy.shift(fill_value=-1).cummax()]


# A lead that ends before the file is larger by this factor is no range of its own.
SHORTEST = 1.25


def ranges(found: pd.DataFrame) -> list[tuple[float, str]]:
    """Which kind of file is best, by the means: (from how many bytes on, kind), rising.

    A lead that ends before SHORTEST times its bytes is left out.
    """
    led = frontier(found)
    starts, kinds = list(led.bytes), list(led.kind)
    first = [i for i, kind in enumerate(kinds) if not i or kind != kinds[i - 1]]
    ends = [starts[i] for i in first[1:]] + [float("inf")]
    changes: list[tuple[float, str]] = []
    for i, end in zip(first, ends):
        held = end >= SHORTEST * starts[i]
        if held and (not changes or changes[-1][1] != kinds[i]):
            changes.append((starts[i], kinds[i]))
    return changes


def best(found: pd.DataFrame, kind: str, budget: float) -> pd.Series | None:
    """The setting of a kind that fits a budget and was best on held-out images, if one fits.

    Of the forms of one run, which have the held-out accuracy of the run, the most precise one.
    """
    fitting = found[(found.kind == kind) & (found.bytes <= budget)]
    if not len(fitting):
        return None
    return fitting.sort_values(["held_out", "bytes"], ascending=False).iloc[0]


def at_budgets(found: pd.DataFrame, budgets: list[float]) -> pd.DataFrame:
    """What each kind makes of a budget, and the supermask against the best of the others.

    Args:
        found: `points` of one dataset.
        budgets: in bytes.

    Returns:
        One row per budget: `budget`; for each kind its setting (a row of `points`) or None; and
        `difference`: of the supermask minus the other that is best on held-out images, paired by
        seed (`analysis.difference`), or None.
    """
    rows = []
    for budget in budgets:
        settings = {kind: best(found, kind, budget) for kind in KINDS}
        ours = settings["supermask"]
        others = [
            each for kind, each in settings.items() if kind != "supermask" and each is not None
        ]
        told = None
        if ours is not None and others:
            other = max(others, key=lambda each: each.held_out)
            seeds = ours.by_seed.keys() & other.by_seed.keys()
            told = difference([100 * (ours.by_seed[s] - other.by_seed[s]) for s in sorted(seeds)])
        rows.append({"budget": budget} | settings | {"difference": told})
    return pd.DataFrame(rows)


def named(row: pd.Series) -> str:
    """A setting in words: "top_k, signed constants, 5 % kept", "20 % kept, 8 bits"."""
    parts = [row.what] if row.what else []
    if row.units != 300:
        parts.append(f"{row.units} units")
    if row.density > 0:
        lowered = f", down from {100 * row.density_start:g} %" if row.density_start > 0 else ""
        parts.append(f"{100 * row.density:g} % kept{lowered}")
    if row.kind != "supermask":
        parts.append(_PRECISION[row.form.split()[-1]])
    return ", ".join(parts)


def figure(found: pd.DataFrame) -> Figure:
    """Test error against bytes, both on logarithmic axes, one panel per dataset.

    Every setting is a point, with its 95 % interval where it has several seeds; lines join the best
    of each kind, and the grey band is the frontier of all.

    Args:
        found: what `points` returned.
    """
    datasets = [name for name in plots.DATASET_NAMES if name in set(found.dataset)]
    size = (max(4.6 * len(datasets), 5.0), 4.6)
    shown, (axes,) = canvas.grid(1, len(datasets), height=4.2, figsize=size)
    for axis, dataset in zip(axes, datasets):
        own = found[found.dataset == dataset]
        _step(axis, frontier(own), color="0.82", lw=7, zorder=1, solid_capstyle="butt")
        for kind, (colour, marker, _) in KINDS.items():
            rows = own[own.kind == kind]
            if not len(rows):
                continue
            _step(axis, frontier(rows), color=colour, lw=1.3, zorder=2)
            style = {"fmt": marker, "color": colour, "ms": 4.5, "capsize": 2, "lw": 1, "zorder": 3}
            errors = rows.half.fillna(0).clip(upper=0.9 * (1 - rows.accuracy))
            axis.errorbar(rows.bytes / 1000, 1 - rows.accuracy, yerr=errors, **style)
        axis.set(xscale="log", yscale="log", title=plots.DATASET_NAMES[dataset])
        axis.set(xlabel="kilobytes of the file", ylabel="test error (fraction)")
        _plain_ticks(axis, own)
    handles = [
        canvas.handle(name, color=colour, marker=marker) for colour, marker, name in KINDS.values()
    ]
    return canvas.finish(shown, [*handles, canvas.handle("best of all", color="0.82", lw=7)])


def _step(axis, rows: pd.DataFrame, **style) -> None:
    """What can be had for so many bytes or less: it falls in steps."""
    axis.step(rows.bytes / 1000, 1 - rows.accuracy, where="post", **style)


def _plain_ticks(axis, rows: pd.DataFrame) -> None:
    """Errors and kilobytes as plain numbers, few of them."""
    error = 1 - rows.accuracy
    steps = [0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7]
    ticks = [tick for tick in steps if 0.85 * error.min() <= tick <= 1.2 * error.max()]
    axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    low, high = rows.bytes.min() / 1000, rows.bytes.max() / 1000
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000) if 0.7 * low <= tick <= 1.4 * high]
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.minorticks_off()
