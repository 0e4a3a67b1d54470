"""The figures: each a function from a tidy frame to a matplotlib figure. No TensorFlow.

The frames are those of `RunSet.history`, `RunSet.utilisation` and `RunSet.summary`, or the post's published values in
the same columns. An arm, or a way to find a mask, has the same colour in every figure.
"""

import itertools
import textwrap

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from .analysis import MARGIN, check_one_run_a_seed, interval, over_seeds

__all__ = [
    "ARM_COLOURS", "ARM_NAMES", "WAY_COLOURS", "accuracies", "by_density", "by_magnitude", "by_weights", "by_width", "differences", "gradients", "most_masked",
    "straight_through", "training", "utilisation", "ways",
]

# seaborn's "colorblind" palette by name, so that importing this module need not import seaborn (a test holds them equal).
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY = "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494"
# The three arms of the post in its colours; controls in purples, browns and greys.
ARM_COLOURS = {
    "mask": BLUE, "weights": ORANGE, "finetune": GREEN, "bn_only": "#56b4e9", "weights_long": "#b8860b", "rewind": PURPLE,
    "random_mask": GREY, "shuffled_mask": "#5a5a5a", "ticket": RED, "prune": BROWN, "evil": "#000000",
}
# The ways to find a mask that the book shows, in the order of its legends.
WAY_COLOURS = {
    "threshold": BLUE, "bernoulli": ORANGE, "bernoulli, drawn at evaluation": GREEN, "binary_concrete": RED, "intermediate_loss": GREY,
    "top_k, 50 % kept": PURPLE, "top_k, 20 % kept": BROWN, "top_k, 20 % kept, density lowered": "#56b4e9",
}
ARM_NAMES = {
    "mask": "mask", "weights": "weights", "finetune": "mask, then weights", "bn_only": "batch norm only", "weights_long": "weights, longer",
    "rewind": "mask, weights from θ0", "random_mask": "random mask, weights", "shuffled_mask": "shuffled mask, weights",
    "ticket": "lottery ticket", "prune": "weights, pruned", "evil": "evil mask",
}
DATASET_NAMES = {"digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
VERDICTS = {"supported": (GREEN, "o", "supported"), "refuted": (RED, "X", "refuted"), "not settled": (GREY, "s", "not settled")}
_BAND = "#dbe7f0"
KINDS = {"3x3": ("o", "3×3 convolution"), "1x1 shortcut": ("D", "1×1 shortcut"), "3x3 shortcut": ("P", "3×3 shortcut"), "dense": ("s", "dense layer")}


def training(history: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Accuracy by epoch: a row of axes a dataset, training images at the left, held-out ones at the right.

    Several seeds of an arm are drawn as their mean with a 95 % t band, the single seeds faint behind it.

    Args:
        history: columns `dataset`, `arm`, `run`, `epoch`, `accuracy`, `val_accuracy`.
        published: curves to stand behind, dashed: columns `dataset`, `split` ("train" or "held_out"), `arm`, `epoch`,
            `accuracy`.
    """
    check_one_run_a_seed(history)
    datasets = _datasets(history)
    figure, axes = _grid(len(datasets), 2, height=2.9)
    for row, dataset in zip(axes, datasets):
        ours = history[history.dataset == dataset]
        theirs = pd.DataFrame() if published is None else published[published.dataset == dataset]
        for axis, column, split, title in zip(row, ("accuracy", "val_accuracy"), ("train", "held_out"), ("training", "held-out")):
            for arm, runs in ours.groupby("arm", sort=False):
                _curves(axis, runs, column, ARM_COLOURS[arm])
            if len(theirs):
                for arm, curve in theirs[theirs.split == split].groupby("arm", sort=False):
                    axis.plot(curve.epoch, curve.accuracy, "--", color=ARM_COLOURS[arm], lw=1.2, alpha=0.8)
            axis.set(title=f"{_dataset_name(dataset)}: {title} images", xlabel="epoch", ylabel="accuracy (fraction)")
            axis.xaxis.get_major_locator().set_params(integer=True)
    handles = [Line2D([], [], color=ARM_COLOURS[arm], label=ARM_NAMES[arm]) for arm in ARM_COLOURS if arm in set(history.arm)]
    if published is not None:
        handles += [Line2D([], [], color="grey", label="here"), Line2D([], [], color="grey", ls="--", label="the post")]
    return _finish(figure, handles)


def utilisation(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Fraction of each layer's kernel that is masked, by layer index; the marker tells the kind of kernel.

    Args:
        table: columns `dataset`, `run`, `layer`, `kind`, `masked`, of one arm. Several seeds are drawn as mean and 95 % t
            interval.
        published: the post's values in the same columns (without `run`), drawn in axes of their own at the right.
    """
    check_one_run_a_seed(table, ("dataset",))
    datasets = _datasets(table)
    figure, axes = _grid(len(datasets), 1 if published is None else 2, height=2.7)
    for row, dataset in zip(axes, datasets):
        _layers(row[0], over_seeds(table[table.dataset == dataset], "masked", ["layer", "kind"]), _dataset_name(dataset) + ("" if published is None else ": here"))
        if published is not None:
            theirs = published[(published.dataset == dataset) & published.masked.notna()].rename(columns={"masked": "mean"})
            _layers(row[1], theirs.assign(half=np.nan), f"{_dataset_name(dataset)}: the post (WRN-28-8)")
            for axis in row:
                axis.set_ylim(0, max(axis.get_ylim()[1] for axis in row))
    present = set(table.kind) | (set() if published is None else set(published.kind))
    handles = [Line2D([], [], color=ARM_COLOURS["mask"] if kind != "1x1 shortcut" else RED, marker=marker, ls="", label=name)
               for kind, (marker, name) in KINDS.items() if kind in present]
    return _finish(figure, handles)


def accuracies(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Test accuracy of each arm: axes a dataset, a row an arm, a dot a run, a bar the 95 % t interval over seeds.

    Args:
        summary: columns `dataset`, `arm`, `test_accuracy`.
        published: the post's, as hollow diamonds: columns `dataset`, `arm`, `accuracy`.
    """
    check_one_run_a_seed(summary)
    datasets = _datasets(summary)
    arms = [arm for arm in ARM_COLOURS if arm in set(summary.arm)]
    figure, axes = _grid(1, len(datasets), height=0, figsize=(max(3.4 * len(datasets), 4.8), 0.55 * len(arms) + 1.2))  # room for the label of the axis
    for axis, dataset in zip(axes[0], datasets):
        for row, arm in enumerate(reversed(arms)):
            runs = summary[(summary.dataset == dataset) & (summary.arm == arm)]
            if not len(runs):
                continue
            mean, half = interval(runs.test_accuracy)
            axis.errorbar(mean, row, xerr=None if np.isnan(half) else half, fmt="o", color=ARM_COLOURS[arm], ms=7, capsize=3)
            if len(runs) > 1:
                axis.plot(runs.test_accuracy, [row] * len(runs), ".", color=ARM_COLOURS[arm], alpha=0.4)
            if published is not None:
                theirs = published[(published.dataset == dataset) & (published.arm == arm)]
                axis.plot(theirs.accuracy, [row] * len(theirs), "D", mfc="none", color=ARM_COLOURS[arm], ms=6)
        axis.set(title=_dataset_name(dataset), xlabel="test accuracy (fraction)", ylim=(-0.6, len(arms) - 0.4),
                 yticks=range(len(arms)), yticklabels=[ARM_NAMES[arm] for arm in reversed(arms)] if axis is axes[0][0] else [])
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    handles = [Line2D([], [], color="0.3", marker="o", ls="", label="here")]
    if published is not None:
        handles.append(Line2D([], [], color="0.3", marker="D", mfc="none", ls="", label="the post (WRN-28-8, best epoch on the test set)"))
    return _finish(figure, handles)


def differences(tables: dict[str, pd.DataFrame]) -> Figure:
    """Mean paired difference of each comparison with its 95 % t interval; colour and marker tell the verdict.

    A row whose verdict is one of equivalence has the margin shaded; a hollow marker stands beside the rule and decides nothing.

    Args:
        tables: by the title of its axes, a frame with columns `comparison`, `rule`, `mean`, `half`, `verdict`, `decides`
            (`claims.comparisons`). A comparison without two seeds is left out, and so is an axes without any.

    Raises:
        ValueError: if no comparison has two seeds.
    """
    tables = {title: table.dropna(subset=["half"]).iloc[::-1] for title, table in tables.items() if table.half.notna().any()}
    if not tables:
        raise ValueError("No comparison has an interval: give runs of at least two seeds.")
    # One below the other, and narrow: on a phone the labels must stay legible.
    counts = [len(table) for table in tables.values()]
    figure, axes = _grid(len(tables), 1, height=0, figsize=(6.4, sum(0.42 * n + 0.95 for n in counts) + 0.3), height_ratios=[0.42 * n + 0.45 for n in counts])
    for axis, (title, table) in zip(axes[:, 0], tables.items()):
        axis.axvline(0, color="0.4", lw=1)
        for row, (_, found) in enumerate(table.iterrows()):
            colour, marker, _ = VERDICTS[found.verdict]
            if found.rule == "equivalence":
                axis.barh(row, 2 * MARGIN, left=-MARGIN, height=0.8, color=_BAND, zorder=0)
            axis.errorbar(found["mean"], row, xerr=found.half, fmt=marker, color=colour, mfc=colour if found.decides else "white", ms=6, capsize=3)
        axis.set(title=title, ylim=(-0.6, len(table) - 0.4), yticks=range(len(table)), yticklabels=[textwrap.fill(name, 30) for name in table.comparison])
        axis.set_xlabel("difference (points)" if axis is axes[-1, 0] else "")
        axis.tick_params(axis="y", labelsize="small")
        axis.xaxis.set_major_locator(MaxNLocator(6))
    every = pd.concat(tables.values())
    handles = [Line2D([], [], color=colour, marker=marker, ls="", label=name) for verdict, (colour, marker, name) in VERDICTS.items() if verdict in set(every.verdict)]
    if not every.decides.all():
        handles.append(Line2D([], [], color="0.4", marker="o", mfc="white", ls="", label="beside the rule"))
    if (every.rule == "equivalence").any():
        handles.append(Patch(color=_BAND, label=f"equal: within ±{MARGIN:g}"))
    return _finish(figure, handles)


def by_width(summary: pd.DataFrame) -> Figure:
    """Test accuracy of each arm against the network's width: axes a dataset, mean and 95 % t interval over seeds.

    Args:
        summary: columns `dataset`, `arm`, `width`, `test_accuracy`.
    """
    for _, runs in summary.groupby("width"):
        check_one_run_a_seed(runs)
    datasets = _datasets(summary)
    figure, axes = _grid(1, len(datasets), height=3.2)
    for axis, dataset in zip(axes[0], datasets):
        for arm in (arm for arm in ARM_COLOURS if arm in set(summary.arm)):
            runs = summary[(summary.dataset == dataset) & (summary.arm == arm)]
            if len(runs):
                mean = over_seeds(runs, "test_accuracy", ["width"]).sort_values("width")
                axis.errorbar(mean.width, mean["mean"], yerr=mean.half.fillna(0), fmt="o-", color=ARM_COLOURS[arm], ms=5, capsize=3, lw=1.4)
        low, high = axis.get_ylim()  # an interval over three seeds can reach beyond what an accuracy can be
        axis.set_ylim(max(low, 0), min(high, 1))
        widths = sorted(set(summary.width))
        axis.set(title=_dataset_name(dataset), xlabel="width (times 16, 32 and 64 filters)", ylabel="test accuracy (fraction)", xscale="log")
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.minorticks_off()
    return _finish(figure, [Line2D([], [], color=ARM_COLOURS[arm], marker="o", label=ARM_NAMES[arm]) for arm in ARM_COLOURS if arm in set(summary.arm)])


def by_weights(table: pd.DataFrame) -> Figure:
    """Fraction masked against the number of weights, a dot a layer (mean over seeds); the marker tells the kind of kernel.

    Args:
        table: columns `dataset`, `network` (a legend entry), `path`, `kind`, `weights`, `masked`.
    """
    datasets, networks = _datasets(table), list(dict.fromkeys(table.network))
    figure, axes = _grid(1, len(datasets), height=3.4)
    colours = _colours(networks)
    for axis, dataset in zip(axes[0], datasets):
        rows = table[table.dataset == dataset]
        means = over_seeds(rows, "masked", ["network", "path", "kind", "weights"])
        for (network, kind), points in means.groupby(["network", "kind"], sort=False):
            axis.errorbar(points.weights, points["mean"], yerr=points.half.fillna(0), fmt=KINDS[kind][0], color=colours[network], ms=5, lw=0.8, alpha=0.85)
        axis.set(title=_dataset_name(dataset), xscale="log", xlabel="weights in the layer's kernel", ylabel="fraction masked", ylim=(0, None))
    kinds = [kind for kind in KINDS if kind in set(table.kind)]
    return _finish(figure, [Line2D([], [], color=colours[network], marker="o", ls="", label=network) for network in networks]
                   + [Line2D([], [], color="0.4", marker=KINDS[kind][0], ls="", label=KINDS[kind][1]) for kind in kinds])


def most_masked(tables: dict[str, pd.DataFrame], highest: float) -> Figure:
    """The layer that masks most, by initial logit and for longer runs, against the post's highest.

    Args:
        tables: by the title of its axes, what `claims.most_masked` returned.
        highest: the fraction that no layer of the post exceeds.
    """
    figure, axes = _grid(1, len(tables), height=3.0)
    for axis, (title, table) in zip(axes[0], tables.items()):
        rows = table[table.n > 0].reset_index(drop=True)
        axis.axhline(highest, color=RED, lw=1, ls="--")
        axis.errorbar(rows.index, rows["mean"], yerr=rows.half.fillna(0), fmt="o", color=ARM_COLOURS["mask"], ms=6, capsize=3)
        axis.set(title=title, ylabel="largest fraction masked", ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
        axis.set_xticks(rows.index, [condition.replace("logits from ", "") for condition in rows.condition], rotation=0)
        axis.set_xlabel("initial logit; or longer runs")
    return _finish(figure, [Line2D([], [], color=ARM_COLOURS["mask"], marker="o", ls="", label="here"),
                            Line2D([], [], color=RED, ls="--", label="the most in the post's figures")])


def gradients(table: pd.DataFrame) -> Figure:
    """What each estimator passes back on a toy, beside the derivative that it stands for.

    Args:
        table: what `analysis.toy_gradients` returned.
    """
    figure, axes = _grid(1, 2, height=3.1)
    for axis, estimator in zip(axes[0], ("threshold", "bernoulli")):
        rows = table[table.estimator == estimator]
        axis.axhline(0, color="0.6", lw=0.8)
        axis.plot(rows.logit, rows.true, color="0.2", lw=1.4, ls="--")
        axis.plot(rows.logit, rows["mean"], color=ORANGE, lw=1.8)
        axis.fill_between(rows.logit, rows["mean"] - rows.deviation, rows["mean"] + rows.deviation, color=ORANGE, alpha=0.2, lw=0)
        axis.set(title=estimator, xlabel=r"mask logit $\hat m_1$", ylabel=r"gradient with respect to $\hat m_1$")
    return _finish(figure, [Line2D([], [], color="0.2", ls="--", label="true derivative"), Line2D([], [], color=ORANGE, label="straight-through estimate"),
                            Line2D([], [], color=ORANGE, lw=6, alpha=0.25, label="± one standard deviation of a draw")])


def ways(history: pd.DataFrame) -> Figure:
    """Held-out accuracy and density of the mask by epoch, for each way to find one: mean and 95 % t band over seeds.

    The axis of the accuracy begins half as far below the worst last epoch as that lies below 1; what is lower is cut off.

    Args:
        history: columns `way`, `run`, `epoch`, `val_accuracy`, `masked`.
    """
    check_one_run_a_seed(history, ("way",))
    figure, axes = _grid(1, 2, height=3.6, figsize=(7.2, 4.6))
    colours = {way: WAY_COLOURS[way] for way in WAY_COLOURS if way in set(history.way)}
    colours |= _colours([way for way in history.way.unique() if way not in colours], taken=colours.values())
    for way, runs in history.groupby("way", sort=False):
        for axis, column in zip(axes[0], ("val_accuracy", "kept")):
            mean = over_seeds(runs.assign(kept=1 - runs.masked), column, ["epoch"])
            axis.plot(mean.epoch, mean["mean"], color=colours[way], lw=1.8)
            axis.fill_between(mean.epoch, mean["mean"] - mean.half, mean["mean"] + mean.half, color=colours[way], alpha=0.15, lw=0)
    worst = history[history.epoch == history.epoch.max()].groupby("way").val_accuracy.mean().min()
    axes[0, 0].set(title="held-out images", xlabel="epoch", ylabel="accuracy (fraction)", ylim=(max(0, worst - (1 - worst) / 2), None))
    axes[0, 1].set(title="the mask", xlabel="epoch", ylabel="fraction of the weights kept", ylim=(0, 1.03))
    for axis in axes[0]:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return _finish(figure, [Line2D([], [], color=colours[way], label=way) for way in colours], columns=2)


def by_density(table: pd.DataFrame) -> Figure:
    """What masks are worth by their density, without training and after it: mean and 95 % t interval over seeds.

    Args:
        table: columns `method`, `density`, `seed`, `start`, `trained` (`claims.methods`).
    """
    figure, axes = _grid(1, 2, height=3.6, figsize=(7.2, 4.2))
    colours = _method_colours(table.method)
    for axis, column, title in zip(axes[0], ("start", "trained"), ("without training", "after training")):
        for method, runs in table.groupby("method", sort=False):
            mean = over_seeds(runs, column, ["density"]).sort_values("density")
            if len(mean):  # the dense network is nothing without training
                axis.errorbar(mean.density, mean["mean"], yerr=mean.half.fillna(0), fmt="o-", color=colours[method], ms=5, capsize=3, lw=1.4)
        densities = sorted(set(table.density))
        axis.set(title=title, xlabel="fraction of the weights kept", ylabel="test accuracy (fraction)", xscale="log")
        axis.set_xticks(densities, [f"{density:g}" for density in densities])
        axis.minorticks_off()
    return _finish(figure, [Line2D([], [], color=colours[method], marker="o", label=method) for method in colours])


def by_magnitude(table: pd.DataFrame) -> Figure:
    """How much more often than on average weights are kept, by the rank of their untrained magnitude: axes a layer.

    Args:
        table: columns `method`, `path`, `part`, `kept`, `density` (`overlap.kept_by_magnitude`), a row a run, layer and part.
    """
    paths = list(dict.fromkeys(table.path))
    figure, axes = _grid(1, len(paths), height=3.4, figsize=(7.2, 3.6))
    colours = _method_colours(table.method)
    for axis, path in zip(axes[0], paths):
        axis.axhline(1, color="0.6", lw=0.8)
        for method, runs in table[table.path == path].groupby("method", sort=False):
            mean = over_seeds(runs.assign(ratio=runs.kept / runs.density), "ratio", ["part"])
            axis.errorbar(mean.part, mean["mean"], yerr=mean.half.fillna(0), fmt="o-", color=colours[method], ms=3.5, lw=1.3)
        axis.set(title=path, xlabel=r"tenth of $|\theta_0|$", ylabel="kept, over the layer's density" if axis is axes[0, 0] else "", ylim=(0, None))
        axis.set_xticks([1, 5, 10])
    return _finish(figure, [Line2D([], [], color=colours[method], marker="o", label=method) for method in colours])


def straight_through() -> Figure:
    """What the threshold estimator does forward (a step) and backward (the derivative of a sigmoid)."""
    logits = np.linspace(-6, 6, 481)
    probability = 1 / (1 + np.exp(-logits))
    figure, axes = _grid(1, 2, height=2.9)
    forward, backward = axes[0]
    forward.plot(logits, logits > 0, color=BLUE, lw=1.8)
    forward.plot(logits, probability, color="0.5", lw=1.2, ls="--")
    forward.set(title="forward", xlabel=r"mask logit $\hat m$", ylabel="mask")
    backward.plot(logits, probability * (1 - probability), color=ORANGE, lw=1.8)
    backward.axvline(1, color="0.5", lw=1, ls=":")
    backward.set(title="backward", xlabel=r"mask logit $\hat m$", ylabel="factor passed back", ylim=(0, 0.27))
    return _finish(figure, [
        Line2D([], [], color=BLUE, label=r"$M = 1[\sigma(\hat m) > 1/2]$"), Line2D([], [], color="0.5", ls="--", label=r"$\sigma(\hat m)$"),
        Line2D([], [], color=ORANGE, label=r"$\sigma(\hat m)(1 - \sigma(\hat m))$"), Line2D([], [], color="0.5", ls=":", label="where logits start"),
    ])


def _layers(axis, layers, title):
    axis.plot(layers.layer, layers["mean"], color="0.7", lw=1, zorder=1)
    for kind, points in layers.groupby("kind", sort=False):
        colour = RED if kind == "1x1 shortcut" else ARM_COLOURS["mask"]
        axis.errorbar(points.layer, points["mean"], yerr=points.half.fillna(0), fmt=KINDS.get(kind, "o")[0], color=colour, ms=4.5, lw=1, zorder=2)
    axis.set(title=title, xlabel="layer index", ylabel="fraction masked", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _curves(axis, runs, column, colour):
    many = runs.run.nunique() > 1
    if many:
        for _, run in runs.groupby("run"):
            axis.plot(run.epoch, run[column], color=colour, lw=0.6, alpha=0.35)
    mean = over_seeds(runs, column, ["epoch"])
    axis.plot(mean.epoch, mean["mean"], color=colour, lw=1.8, marker="o" if len(mean) < 4 else None, ms=3)
    if many:
        axis.fill_between(mean.epoch, mean["mean"] - mean.half, mean["mean"] + mean.half, color=colour, alpha=0.15, lw=0)


def _datasets(frame):
    """The datasets of a frame: the known ones in the order of DATASET_NAMES, then the others."""
    present = dict.fromkeys(frame.dataset)
    return [name for name in DATASET_NAMES if name in present] + [name for name in present if name not in DATASET_NAMES]


def _dataset_name(dataset):
    return DATASET_NAMES.get(dataset, dataset)


def _grid(rows, columns, height, **options):
    import seaborn as sns  # here, since it imports scipy.stats: a second of every start

    with sns.axes_style("whitegrid", {"grid.color": "0.9", "axes.edgecolor": "0.4"}), sns.plotting_context("notebook", font_scale=0.95):
        figure, axes = plt.subplots(rows, columns, squeeze=False, layout="constrained", **{"figsize": (3.4 * columns, height * rows)} | options)
    return figure, axes


def _colours(names, taken=()) -> dict[str, str]:
    """A colour for each name, in the order in which they come, other than those that are taken; beyond the palette they recur."""
    palette = (BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, GREY, "#56b4e9", "#5a5a5a", PINK, "#b8860b", "#000000")
    return dict(zip(dict.fromkeys(names), itertools.cycle([colour for colour in palette if colour not in taken] or palette)))


def _method_colours(names) -> dict[str, str]:
    """A colour for each of `claims.methods`, in the order in which they come: its arm's where it is one."""
    arms = {"supermask": "mask", "ticket": "ticket", "random": "random_mask", "dense": "weights", "pruned": "prune"}
    others = _colours([name for name in names if name not in arms], taken=[ARM_COLOURS[arm] for arm in arms.values()])
    return {name: ARM_COLOURS[arms[name]] if name in arms else others[name] for name in dict.fromkeys(names)}


def _finish(figure, handles, columns=3):
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), columns), frameon=False)
    plt.close(figure)  # a notebook shows what a cell returns: an open figure would be shown twice
    return figure
