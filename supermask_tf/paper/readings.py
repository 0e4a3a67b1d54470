"""What is read off the runs of a study before a rule judges it. No TensorFlow.

Which runs are a study's plain ones, how much their layers mask, how soon an arm gets where another
one ends, and how each mask was found and what it is worth::

    most_masked(runs)        # one row per start of the logits, and one for the longer runs
    by_way(runs)             # one row per way to find a mask
"""

import numpy as np
import pandas as pd

from ..records import Run, RunSet
from .analysis import check_one_run_per_seed, interval, over_seeds

__all__ = [
    "by_way", "epochs_to", "methods", "most_masked", "own_scale", "plain", "plain_masks",
    "shortcuts_masked", "tidy", "ways", "weights_coefficients",
]  # fmt: skip

# What the mask logits start at in `most_masked`; the post's is 1.
LOGITS = (0.05, 0.25, 1.0, 3.0)


# --- which runs are the plain ones ----------------------------------------------------------------


def tidy(summary: pd.DataFrame) -> pd.DataFrame:
    """`RunSet.summary` with a value where a parameter was left out.

    Records from before a parameter existed lack it. `shortcut` is then "1x1", `precision`
    "float32", `reset_batch_norm` False and `width` 0.
    """
    filled = {"shortcut": "1x1", "precision": "float32", "reset_batch_norm": False, "width": 0}
    columns = {
        name: summary[name].where(summary[name].notna(), value) if name in summary else value
        for name, value in filled.items()
    }
    return summary.assign(**columns).astype({"reset_batch_norm": bool, "width": int})


def own_scale(summary: pd.DataFrame) -> tuple[int, int]:
    """A study's own number of epochs and its own width: those that most of its runs have.

    Args:
        summary: what `tidy` returned, not empty.
    """
    return int(summary.epochs.mode()[0]), int(summary.width.mode()[0])


def plain(summary: pd.DataFrame) -> pd.Series:
    """Which rows have 1×1 shortcuts, logits that start at 1, and the threshold estimator.

    Args:
        summary: what `tidy` returned.

    Returns:
        Booleans, one per row.
    """
    threshold = summary.estimator == "threshold"
    return (summary.shortcut == "1x1") & (summary.initial_logit == 1.0) & threshold


def plain_masks(runs: RunSet) -> RunSet:
    """The mask runs of a study at its own length and width that differ in the seed alone."""
    if not len(runs):
        return runs
    epochs, width = own_scale(tidy(runs.summary))
    return runs.where(
        arm="mask", estimator="threshold", initial_logit=1.0, shortcut=None, epochs=epochs,
        width=[None, width],
    )  # fmt: skip


# --- how much the layers mask ---------------------------------------------------------------------


def weights_coefficients(runs: RunSet, within: bool = False) -> pd.Series:
    """How the fraction masked follows the weights: one coefficient of log10(weights) per seed.

    It is fitted by ordinary least squares over the layers of the plain mask runs. The other terms
    of the linear model are the kind of kernel (3×3, 1×1 shortcut, dense) and the depth (the layer's
    index over that of the last one). Only widths of at least 2 that every seed has are taken. At a
    single width kind and depth all but determine the weights, so two such widths are needed.

    Args:
        runs: the runs of one study.
        within: whether each width has a level of its own too, so that only layers of one network
            are compared.

    Returns:
        Fractions per factor of ten, by seed; empty without two such widths.
    """
    layers = _mask_layers(runs)
    own = layers.epochs == own_scale(tidy(runs.summary))[0]
    layers = layers[plain(layers) & own & (layers.width >= 2)]
    seeds = layers.seed.nunique()
    complete = [width for width, group in layers.groupby("width") if group.seed.nunique() == seeds]
    layers = layers[layers.width.isin(complete)]
    if len(complete) < 2:
        return pd.Series(dtype=float)
    found = {}
    for seed, rows in layers.groupby("seed"):
        depth = rows.layer / rows.groupby("width").layer.transform("max")
        levels = [rows.width == width for width in complete[1:]] if within else []
        kinds = [rows.kind == kind for kind in sorted(set(rows.kind))]
        design = np.column_stack([np.log10(rows.weights), depth, *kinds, *levels]).astype(float)
        found[seed] = np.linalg.lstsq(design, rows.masked.to_numpy(), rcond=None)[0][0]
    return pd.Series(found)


def shortcuts_masked(runs: RunSet, shortcut: str) -> pd.Series:
    """The mean fraction masked of the shortcuts, by seed, at the study's own length and width.

    Args:
        runs: the runs of one study.
        shortcut: their kind: "1x1", "3x3" or "wide".
    """
    epochs, width = own_scale(tidy(runs.summary))
    layers = _mask_layers(runs)
    chosen = layers.path.astype(str).str.endswith("shortcut") & (layers.shortcut == shortcut)
    own = (layers.epochs == epochs) & (layers.width == width) & (layers.initial_logit == 1.0)
    return layers[chosen & own].groupby("seed").masked.mean()


def most_masked(runs: RunSet) -> pd.DataFrame:
    """The layer that masks most, in the mean over seeds.

    Returns:
        One row per initial logit (LOGITS) at the study's own length, and one for the longer runs:
        `condition`, `initial_logit`, `epochs`, `path` (the layer), `mean` and `half` (fraction
        masked and its 95 % t interval), `n` (seeds; 0 where there are no such runs), `seeds` and
        `runs` (their seeds, and their runs as "study/run").
    """
    epochs, width = own_scale(tidy(runs.summary))
    layers = _mask_layers(runs)
    layers = layers[(layers.width == width) & (layers.shortcut == "1x1")]
    longest = max([epochs, *layers.epochs])
    own = layers[layers.epochs == epochs]
    conditions = [(f"logits from {z:g}", z, epochs, own[own.initial_logit == z]) for z in LOGITS]
    longer = layers[(layers.initial_logit == 1.0) & (layers.epochs == longest)]
    if longest > epochs:
        conditions.append((f"{longest} epochs", 1.0, longest, longer))
    else:
        conditions.append(("longer", 1.0, longest, longer.iloc[:0]))  # no longer run yet
    rows = []
    for condition, logit, length, here in conditions:
        means = [(path, *interval(g.masked), len(g)) for path, g in here.groupby("path")]
        best = max(means, key=lambda layer: layer[1], default=("", np.nan, np.nan, 0))
        taken = here[["seed", "study", "run"]].drop_duplicates()
        rows.append(
            (condition, logit, length, *best, [*taken.seed], [*taken.study + "/" + taken.run])
        )
    columns = ["condition", "initial_logit", "epochs", "path", "mean", "half", "n"]
    columns += ["seeds", "runs"]
    return pd.DataFrame(rows, columns=columns)


def _mask_layers(runs: RunSet) -> pd.DataFrame:
    """One row per layer of the mask runs of the threshold estimator."""
    layers = runs.where(arm="mask", estimator="threshold").utilisation
    columns = ["seed", "width", "shortcut", "epochs", "initial_logit", "estimator", "path", "kind"]
    columns += ["study", "run"]
    return (
        tidy(layers)
        if len(layers)
        else pd.DataFrame(columns=[*columns, "layer", "weights", "masked"])
    )


# --- how soon -------------------------------------------------------------------------------------


def epochs_to(runs: RunSet) -> pd.DataFrame:
    """How soon each arm reaches the held-out accuracy at which the weights arm of its seed ends.

    Held-out images are training images set aside. Epochs are counted from where the arm starts:
    those that its parent trained come on top.

    Returns:
        One row per arm and learning rate: `arm`, `learning_rate`, `reset_batch_norm`, `seeds`,
        `reached` (seeds that get there within the arm's epochs), `median` (epochs, over the seeds
        that do; NaN if none does).
    """
    summary = tidy(runs.summary)
    epochs, width = own_scale(summary)
    own = summary[(summary.epochs == epochs) & (summary.width == width) & plain(summary)]
    curves = {run.name: run.history.set_index("epoch").val_accuracy for run in runs}
    dense = own[(own.arm == "weights") & (own.learning_rate == 0.01)]
    targets = {row.seed: curves[row.run].iloc[-1] for row in dense.itertuples()}
    by, rows = ["arm", "learning_rate", "reset_batch_norm"], []
    for group, members in own.groupby(by, sort=False):
        first = []
        for row in members[members.seed.isin(list(targets))].itertuples():
            there = curves[row.run].index[curves[row.run] >= targets[row.seed]]
            first.append(there.min() if len(there) else np.nan)
        reached = int(np.isfinite(first).sum())
        rows.append((*group, len(first), reached, np.nanmedian(first) if reached else np.nan))
    return pd.DataFrame(rows, columns=[*by, "seeds", "reached", "median"])


# --- how a mask was found -------------------------------------------------------------------------


def methods(runs: RunSet) -> pd.DataFrame:
    """The masks of the study `tickets_lenet`: what each is worth without training, and after it.

    Returns:
        One row per mask and way to train on: `method`, `density` (fraction of the weights kept),
        `seed`, `mask` (a `Run` that has it), `start` (test accuracy without training, a fraction:
        of the mask on θ0, of the trained weights it prunes, or on those of epoch 1; NaN for the
        dense network), `trained` (test accuracy after training) and `run` (the `Run` that was
        trained).
    """
    by_name = {run.name: run for run in runs}
    tickets = [run for run in runs if run.parameters["arm"] == "ticket"]
    pruned_on = {run.parameters["init_from"] for run in tickets}
    rows = []
    for run in runs:
        p, mask, start = run.parameters, run, np.nan
        if p["arm"] in ("rewind", "finetune") and p["init_from"] in by_name:
            method = "supermask" if p["arm"] == "rewind" else "supermask, fine-tuned"
            mask = by_name[p["init_from"]]
        elif p["arm"] in ("ticket", "prune"):
            method = "pruned" if p["arm"] == "prune" else _ticket(run, pruned_on)
        elif p["arm"] == "weights":
            method = "dense"
        else:
            continue
        if method != "dense":
            start = run.summary["start_accuracy"]
        density = 1.0 if method == "dense" else p["density"]
        rows.append((method, density, p["seed"], mask, start, run.summary["test_accuracy"], run))
    columns = ["method", "density", "seed", "mask", "start", "trained", "run"]
    return pd.DataFrame(rows, columns=columns)


def _ticket(run: Run, pruned_on: set[str]) -> str:
    """A ticket's method; `pruned_on` names the runs from which a further round starts."""
    p = run.parameters
    if p["parent"]["arm"] == "ticket" or run.name in pruned_on:
        return "ticket by rounds"
    if p["rewind_epochs"]:
        return f"ticket, rewound to epoch {p['rewind_epochs']}"
    if p["scope"] == "global":
        return "ticket over all layers"
    return "ticket" if p["criterion"] == "large_final" else p["criterion"].replace("_", " ")


def ways(frame: pd.DataFrame) -> pd.Series:
    """How a mask was found: the estimator and what it was given, as one text per row.

    Args:
        frame: `RunSet.summary` or `RunSet.history`.
    """

    def name(row):
        # What does not apply is None or NaN.
        given = {key: value for key, value in row.items() if value is not None and value == value}
        if given["arm"] == "weights":
            return "weights trained"
        top_k = given["estimator"] == "top_k"
        parts = [f"top_k, {100 * given['density']:g} % kept" if top_k else given["estimator"]]
        parts += ["density lowered"] if "density_start" in given else []
        parts += ["drawn at evaluation"] if given.get("draw_at_evaluation") else []
        signed = given["initializer"].startswith("signed")
        return ", ".join(parts + (["signed constants, rescaled"] if signed else []))

    return frame.apply(name, axis=1)


def by_way(runs: RunSet) -> pd.DataFrame:
    """Mean test accuracy and density over seeds of each way to find a mask, best first.

    Returns:
        One row per way, number of epochs and learning rate, with columns `way`, `epochs`,
        `learning_rate`, `mean` and `half` (test accuracy and its 95 % t interval, fractions),
        `kept` (fraction of the weights) and `held_out` (accuracy on held-out training images, to
        choose by), means over seeds, and `n` (seeds).

    Raises:
        ValueError: if runs of a seed differ in something that makes no way of its own, such as the
            arm or where the logits start.
    """
    by = ["way", "epochs", "learning_rate"]
    if not len(runs):
        return pd.DataFrame(columns=[*by, "mean", "half", "n", "kept", "held_out"])
    summary = runs.summary
    summary["way"] = ways(summary)
    check_one_run_per_seed(summary, tuple(by))
    summary = summary.assign(kept=1 - summary.masked, held_out=summary.val_accuracy)
    others = summary.groupby(by, as_index=False)[["kept", "held_out"]].mean()
    table = over_seeds(summary, "test_accuracy", by).merge(others, on=by)
    return table.sort_values("mean", ascending=False, ignore_index=True)
