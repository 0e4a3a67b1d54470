"""The figures: each a function from a tidy frame to a matplotlib figure. No TensorFlow.

The frames are those of `RunSet.history`, `RunSet.utilisation` and `RunSet.summary`, or the post's
published values in the same columns. An arm, or a way to find a mask, has the same colour in every
figure.
"""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from . import canvas
from .analysis import MARGIN, check_one_run_per_seed, interval, over_seeds
from .canvas import BLUE, BROWN, GREEN, GREY, ORANGE, PURPLE, RED

__all__ = [
    "ARM_COLOURS", "ARM_NAMES", "WAY_COLOURS", "accuracies", "by_density", "by_magnitude",
    "by_weights", "by_width", "differences", "gradients", "most_masked", "straight_through",
    "training", "utilisation", "ways",
]  # fmt: skip

# The three arms of the post in its colours; controls in purples, browns and greys.
ARM_COLOURS = {
    "mask": BLUE, "weights": ORANGE, "finetune": GREEN, "bn_only": "#56b4e9",
    "weights_long": "#b8860b", "rewind": PURPLE, "random_mask": GREY, "shuffled_mask": "#5a5a5a",
    "reinit": "#a9a9c8", "mask_long": "#6aa5d8", "ticket": RED, "prune": BROWN, "evil": "#000000",
}  # fmt: skip
# The ways to find a mask that the book shows, in the order of its legends.
WAY_COLOURS = {
    "threshold": BLUE, "bernoulli": ORANGE, "bernoulli, drawn at evaluation": GREEN,
    "binary_concrete": RED, "intermediate_loss": GREY, "top_k, 50 % kept": PURPLE,
    "top_k, 20 % kept": BROWN, "top_k, 20 % kept, density lowered": "#56b4e9",
}  # fmt: skip
ARM_NAMES = {
    "mask": "mask", "weights": "weights", "finetune": "mask, then weights",
    "bn_only": "batch norm only", "weights_long": "weights, longer",
    "rewind": "mask, weights from θ0", "random_mask": "random mask, weights",
    "shuffled_mask": "shuffled mask, weights", "reinit": "mask, other weights",
    "mask_long": "mask, longer", "ticket": "lottery ticket", "prune": "weights, pruned",
    "evil": "evil mask",
}  # fmt: skip
DATASET_NAMES = {
    "digits": "digits", "mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
}  # fmt: skip
VERDICTS = {
    "supported": (GREEN, "o", "supported"), "refuted": (RED, "X", "refuted"),
    "not settled": (GREY, "s", "not settled"),
}  # fmt: skip
# The marker and the name of each kind of kernel.
KINDS = {
    "3x3": ("o", "3×3 convolution"), "1x1 shortcut": ("D", "1×1 shortcut"),
    "3x3 shortcut": ("P", "3×3 shortcut"), "dense": ("s", "dense layer"),
}  # fmt: skip
_SHADE = "#dbe7f0"
_LINES = {"fmt": "o-", "ms": 5, "capsize": 3, "lw": 1.4}


def training(history: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Accuracy by epoch: one row of panels per dataset, training images left, held-out ones right.

    Several seeds of an arm are drawn as their mean with a 95 % t band, the single seeds faint
    behind it.

    Args:
        history: columns `dataset`, `arm`, `run`, `epoch`, `accuracy`, `val_accuracy`.
        published: curves to stand behind, dashed: columns `dataset`, `split` ("train" or
            "held_out"), `arm`, `epoch`, `accuracy`.

    Raises:
        ValueError: if an arm of a dataset has several runs of a seed.
    """
    check_one_run_per_seed(history)
    datasets = _datasets(history)
    figure, axes = canvas.grid(len(datasets), 2, height=2.9)
    sides = (("accuracy", "train", "training"), ("val_accuracy", "held_out", "held-out"))
    for row, dataset in zip(axes, datasets):
        ours = history[history.dataset == dataset]
        theirs = None if published is None else published[published.dataset == dataset]
        for axis, (column, split, title) in zip(row, sides):
            for arm, runs in ours.groupby("arm", sort=False):
                _curves(axis, runs, column, ARM_COLOURS[arm])
            if theirs is not None:
                for arm, curve in theirs[theirs.split == split].groupby("arm", sort=False):
                    style = {"color": ARM_COLOURS[arm], "lw": 1.2, "alpha": 0.8}
                    axis.plot(curve.epoch, curve.accuracy, "--", **style)
            axis.set(title=f"{_dataset_name(dataset)}: {title} images")
            axis.set(xlabel="epoch", ylabel="accuracy (fraction)")
            axis.xaxis.get_major_locator().set_params(integer=True)
    handles = _arm_handles(history)
    if published is not None:
        handles.append(canvas.handle("here", color="grey"))
        handles.append(canvas.handle("the post", color="grey", ls="--"))
    return canvas.finish(figure, handles)


def utilisation(table: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Fraction masked of each layer's kernel by layer index; the marker tells the kind of kernel.

    Args:
        table: columns `dataset`, `run`, `layer`, `kind`, `masked`, of one arm. Several seeds are
            drawn as their mean and its 95 % t interval.
        published: the post's values in the same columns (without `run`), in panels of their own at
            the right.

    Raises:
        ValueError: if a dataset has several runs of a seed.
    """
    check_one_run_per_seed(table, ("dataset",))
    datasets = _datasets(table)
    figure, axes = canvas.grid(len(datasets), 1 if published is None else 2, height=2.7)
    for row, dataset in zip(axes, datasets):
        name = _dataset_name(dataset)
        means = over_seeds(table[table.dataset == dataset], "masked", ["layer", "kind"])
        _layers(row[0], means, name if published is None else f"{name}: here")
        if published is not None:
            theirs = published[(published.dataset == dataset) & published.masked.notna()]
            theirs = theirs.rename(columns={"masked": "mean"}).assign(half=np.nan)
            _layers(row[1], theirs, f"{name}: the post (WRN-28-8)")
            for axis in row:
                axis.set_ylim(0, max(axis.get_ylim()[1] for axis in row))
    present = set(table.kind) | (set() if published is None else set(published.kind))
    return canvas.finish(figure, [
        canvas.handle(name, color=_kind_colour(kind), marker=marker, ls="")
        for kind, (marker, name) in KINDS.items() if kind in present
    ])  # fmt: skip


def accuracies(summary: pd.DataFrame, published: pd.DataFrame | None = None) -> Figure:
    """Test accuracy: one panel per dataset, one row per arm, one dot per run.

    Bars are 95 % t intervals over seeds.

    Args:
        summary: columns `dataset`, `arm`, `test_accuracy`.
        published: the post's, as hollow diamonds: columns `dataset`, `arm`, `accuracy`.

    Raises:
        ValueError: if an arm of a dataset has several runs of a seed.
    """
    check_one_run_per_seed(summary)
    datasets = _datasets(summary)
    arms = [arm for arm in reversed(ARM_COLOURS) if arm in set(summary.arm)]
    # The narrowest leaves room for the label of the axis.
    size = (max(3.4 * len(datasets), 4.8), 0.55 * len(arms) + 1.2)
    figure, axes = canvas.grid(1, len(datasets), height=0, figsize=size)
    for axis, dataset in zip(axes[0], datasets):
        for row, arm in enumerate(arms):
            runs = summary[(summary.dataset == dataset) & (summary.arm == arm)]
            if not len(runs):
                continue
            mean, half = interval(runs.test_accuracy)
            style = {"fmt": "o", "color": ARM_COLOURS[arm], "ms": 7, "capsize": 3}
            axis.errorbar(mean, row, xerr=None if np.isnan(half) else half, **style)
            if len(runs) > 1:
                dots = {"color": ARM_COLOURS[arm], "alpha": 0.4}
                axis.plot(runs.test_accuracy, [row] * len(runs), ".", **dots)
            if published is not None:
                theirs = published[(published.dataset == dataset) & (published.arm == arm)]
                diamonds = {"mfc": "none", "color": ARM_COLOURS[arm], "ms": 6}
                axis.plot(theirs.accuracy, [row] * len(theirs), "D", **diamonds)
        names = [ARM_NAMES[arm] for arm in arms] if axis is axes[0][0] else []
        axis.set(title=_dataset_name(dataset), xlabel="test accuracy (fraction)")
        axis.set(ylim=(-0.6, len(arms) - 0.4), yticks=range(len(arms)), yticklabels=names)
        axis.margins(x=0.12)
        axis.xaxis.set_major_locator(MaxNLocator(4))
    handles = [canvas.handle("here", color="0.3", marker="o", ls="")]
    if published is not None:
        post = "the post (WRN-28-8, best epoch on the test set)"
        handles.append(canvas.handle(post, color="0.3", marker="D", mfc="none", ls=""))
    return canvas.finish(figure, handles)


def differences(tables: dict[str, pd.DataFrame]) -> Figure:
    """Mean paired difference of each comparison with its 95 % t interval, one panel per table.

    Colour and marker tell the verdict. A row whose verdict is one of equivalence has the margin
    shaded. A hollow marker stands beside the rule and decides nothing.

    Args:
        tables: by the title of its panel, a frame with columns `comparison`, `rule`, `mean`,
            `half`, `verdict`, `decides` (`claims.comparisons`). A comparison without two seeds is
            left out, and so is a panel without any.

    Raises:
        ValueError: if no comparison has two seeds.
    """
    tables = {
        title: table.dropna(subset=["half"]).iloc[::-1]
        for title, table in tables.items()
        if table.half.notna().any()
    }
    if not tables:
        raise ValueError("No comparison has an interval: give runs of at least two seeds.")
    # One below the other, and narrow: on a phone the labels must stay legible.
    counts = [len(table) for table in tables.values()]
    size = (6.4, sum(0.42 * n + 0.95 for n in counts) + 0.3)
    ratios = [0.42 * n + 0.45 for n in counts]
    figure, axes = canvas.grid(len(tables), 1, height=0, figsize=size, height_ratios=ratios)
    for axis, (title, table) in zip(axes[:, 0], tables.items()):
        axis.axvline(0, color="0.4", lw=1)
        for row, (_, found) in enumerate(table.iterrows()):
            colour, marker, _ = VERDICTS[found.verdict]
            if found.rule == "equivalence":
                axis.barh(row, 2 * MARGIN, left=-MARGIN, height=0.8, color=_SHADE, zorder=0)
            style = {"color": colour, "mfc": colour if found.decides else "white"}
            bars = {"xerr": found.half, "fmt": marker, "ms": 6, "capsize": 3}
            axis.errorbar(found["mean"], row, **bars, **style)
        names = [textwrap.fill(name, 30) for name in table.comparison]
        axis.set(title=title, ylim=(-0.6, len(table) - 0.4))
        axis.set(yticks=range(len(table)), yticklabels=names)
        axis.set_xlabel("difference (points)" if axis is axes[-1, 0] else "")
        axis.tick_params(axis="y", labelsize="small")
        axis.xaxis.set_major_locator(MaxNLocator(6))
    every = pd.concat(tables.values())
    handles: list[Line2D | Patch] = [
        canvas.handle(name, color=colour, marker=marker, ls="")
        for verdict, (colour, marker, name) in VERDICTS.items()
        if verdict in set(every.verdict)
    ]
    if not every.decides.all():
        handles.append(
            canvas.handle("beside the rule", color="0.4", marker="o", mfc="white", ls="")
        )
    if (every.rule == "equivalence").any():
        handles.append(Patch(color=_SHADE, label=f"equal: within ±{MARGIN:g}"))
    return canvas.finish(figure, handles)


def by_width(summary: pd.DataFrame) -> Figure:
    """Test accuracy of each arm against the network's width, one panel per dataset.

    Means over seeds with their 95 % t intervals.

    Args:
        summary: columns `dataset`, `arm`, `width`, `test_accuracy`.

    Raises:
        ValueError: if an arm has several runs of a seed at one width.
    """
    for _, runs in summary.groupby("width"):
        check_one_run_per_seed(runs)
    datasets, widths = _datasets(summary), sorted(set(summary.width))
    figure, axes = canvas.grid(1, len(datasets), height=3.2)
    for axis, dataset in zip(axes[0], datasets):
        for arm, colour in ARM_COLOURS.items():
            runs = summary[(summary.dataset == dataset) & (summary.arm == arm)]
            if len(runs):
                means = over_seeds(runs, "test_accuracy", ["width"]).sort_values("width")
                canvas.means(axis, means.width, means, color=colour, **_LINES)
        low, high = axis.get_ylim()
        # An interval over three seeds can reach beyond what an accuracy can be.
        axis.set_ylim(max(low, 0), min(high, 1))
        axis.set(title=_dataset_name(dataset), ylabel="test accuracy (fraction)", xscale="log")
        axis.set_xlabel("width (times 16, 32 and 64 filters)")
        axis.set_xticks(widths, [str(width) for width in widths])
        axis.minorticks_off()
    return canvas.finish(figure, _arm_handles(summary, marker="o"))


def by_weights(table: pd.DataFrame) -> Figure:
    """Fraction masked against the number of weights: one panel per dataset, one dot per layer.

    Means over seeds with their 95 % t intervals; the marker tells the kind of kernel.

    Args:
        table: columns `dataset`, `network` (a legend entry), `path`, `kind`, `weights`, `masked`.
    """
    datasets, networks = _datasets(table), list(dict.fromkeys(table.network))
    figure, axes = canvas.grid(1, len(datasets), height=3.4)
    colours = canvas.colours(networks)
    for axis, dataset in zip(axes[0], datasets):
        rows = table[table.dataset == dataset]
        means = over_seeds(rows, "masked", ["network", "path", "kind", "weights"])
        for (network, kind), points in means.groupby(["network", "kind"], sort=False):
            style = {"fmt": KINDS[kind][0], "color": colours[network], "ms": 5}
            canvas.means(axis, points.weights, points, **style, lw=0.8, alpha=0.85)
        axis.set(title=_dataset_name(dataset), xscale="log", ylim=(0, None))
        axis.set(xlabel="weights in the layer's kernel", ylabel="fraction masked")
    kinds = [KINDS[kind] for kind in KINDS if kind in set(table.kind)]
    return canvas.finish(
        figure,
        [canvas.handle(name, color=colours[name], marker="o", ls="") for name in networks]
        + [canvas.handle(name, color="0.4", marker=marker, ls="") for marker, name in kinds],
    )


def most_masked(tables: dict[str, pd.DataFrame], highest: float) -> Figure:
    """The layer that masks most, by initial logit and for longer runs, against the post's highest.

    Args:
        tables: by the title of its panel, what `readings.most_masked` returned.
        highest: the fraction that no layer of the post exceeds.
    """
    figure, axes = canvas.grid(1, len(tables), height=3.0)
    for axis, (title, table) in zip(axes[0], tables.items()):
        rows = table[table.n > 0].reset_index(drop=True)
        axis.axhline(highest, color=RED, lw=1, ls="--")
        canvas.means(axis, rows.index, rows, fmt="o", color=ARM_COLOURS["mask"], ms=6, capsize=3)
        axis.set(
            title=title, ylabel="largest fraction masked", xlabel="initial logit; or longer runs"
        )
        axis.set(ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
        names = [condition.replace("logits from ", "") for condition in rows.condition]
        axis.set_xticks(rows.index, names, rotation=0)
    return canvas.finish(figure, [
        canvas.handle("here", color=ARM_COLOURS["mask"], marker="o", ls=""),
        canvas.handle("the most in the post's figures", color=RED, ls="--"),
    ])  # fmt: skip


def gradients(table: pd.DataFrame) -> Figure:
    """What each estimator passes back on a toy, beside the derivative that it stands for.

    Args:
        table: what `analysis.toy_gradients` returned.
    """
    figure, axes = canvas.grid(1, 2, height=3.1)
    for axis, estimator in zip(axes[0], ("threshold", "bernoulli")):
        rows = table[table.estimator == estimator]
        axis.axhline(0, color="0.6", lw=0.8)
        axis.plot(rows.logit, rows.true, color="0.2", lw=1.4, ls="--")
        axis.plot(rows.logit, rows["mean"], color=ORANGE, lw=1.8)
        low, high = rows["mean"] - rows.deviation, rows["mean"] + rows.deviation
        axis.fill_between(rows.logit, low, high, color=ORANGE, alpha=0.2, lw=0)
        axis.set(title=estimator, xlabel=r"mask logit $\hat m_1$")
        axis.set_ylabel(r"gradient with respect to $\hat m_1$")
    return canvas.finish(figure, [
        canvas.handle("true derivative", color="0.2", ls="--"),
        canvas.handle("straight-through estimate", color=ORANGE),
        canvas.handle("± one standard deviation of a draw", color=ORANGE, lw=6, alpha=0.25),
    ])  # fmt: skip


def ways(history: pd.DataFrame) -> Figure:
    """Held-out accuracy, and density of the mask, by epoch, for each way to find one.

    Means over seeds with 95 % t bands. The axis of the accuracy begins half as far below the worst
    last epoch as that lies below 1; what is lower is cut off.

    Args:
        history: columns `way`, `run`, `epoch`, `val_accuracy`, `masked`.

    Raises:
        ValueError: if a way has several runs of a seed.
    """
    check_one_run_per_seed(history, ("way",))
    figure, (axes,) = canvas.grid(1, 2, height=3.6, figsize=(7.2, 4.6))
    colours = {way: WAY_COLOURS[way] for way in WAY_COLOURS if way in set(history.way)}
    others = [way for way in history.way.unique() if way not in colours]
    colours |= canvas.colours(others, taken=colours.values())
    for way, runs in history.groupby("way", sort=False):
        for axis, column in zip(axes, ("val_accuracy", "kept")):
            mean = over_seeds(runs.assign(kept=1 - runs.masked), column, ["epoch"])
            axis.plot(mean.epoch, mean["mean"], color=colours[way], lw=1.8)
            canvas.band(axis, mean, colours[way])
    last = history[history.epoch == history.epoch.max()]
    worst = last.groupby("way").val_accuracy.mean().min()
    axes[0].set(title="held-out images", xlabel="epoch", ylabel="accuracy (fraction)")
    axes[0].set_ylim(max(0, worst - (1 - worst) / 2), None)
    axes[1].set(title="the mask", xlabel="epoch", ylabel="fraction of the weights kept")
    axes[1].set_ylim(0, 1.03)
    for axis in axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return canvas.finish(
        figure, [canvas.handle(way, color=colours[way]) for way in colours], columns=2
    )


def by_density(table: pd.DataFrame) -> Figure:
    """What masks are worth by their density, without training and after it.

    Means over seeds with their 95 % t intervals.

    Args:
        table: columns `method`, `density`, `seed`, `start`, `trained` (`readings.methods`).
    """
    figure, axes = canvas.grid(1, 2, height=3.6, figsize=(7.2, 4.2))
    colours = _method_colours(table.method)
    densities = sorted(set(table.density))
    panels = zip(axes[0], ("start", "trained"), ("without training", "after training"))
    for axis, column, title in panels:
        for method, runs in table.groupby("method", sort=False):
            means = over_seeds(runs, column, ["density"]).sort_values("density")
            if len(means):  # the dense network is nothing without training
                canvas.means(axis, means.density, means, color=colours[method], **_LINES)
        axis.set(title=title, xscale="log")
        axis.set(xlabel="fraction of the weights kept", ylabel="test accuracy (fraction)")
        axis.set_xticks(densities, [f"{density:g}" for density in densities])
        axis.minorticks_off()
    return canvas.finish(
        figure, [canvas.handle(name, color=colours[name], marker="o") for name in colours]
    )


def by_magnitude(table: pd.DataFrame) -> Figure:
    """How much more often than on average weights are kept, by the rank of their magnitude in θ0.

    One panel per layer; means over seeds with their 95 % t intervals.

    Args:
        table: columns `method`, `path`, `part`, `kept`, `density` (`overlap.kept_by_magnitude`):
            one row per run, layer and part.
    """
    paths = list(dict.fromkeys(table.path))
    figure, axes = canvas.grid(1, len(paths), height=3.4, figsize=(7.2, 3.6))
    colours = _method_colours(table.method)
    for axis, path in zip(axes[0], paths):
        axis.axhline(1, color="0.6", lw=0.8)
        for method, runs in table[table.path == path].groupby("method", sort=False):
            means = over_seeds(runs.assign(ratio=runs.kept / runs.density), "ratio", ["part"])
            canvas.means(axis, means.part, means, fmt="o-", color=colours[method], ms=3.5, lw=1.3)
        axis.set(title=path, xlabel=r"tenth of $|\theta_0|$", ylim=(0, None))
        axis.set_ylabel("kept, over the layer's density" if axis is axes[0, 0] else "")
        axis.set_xticks([1, 5, 10])
    return canvas.finish(
        figure, [canvas.handle(name, color=colours[name], marker="o") for name in colours]
    )


def straight_through() -> Figure:
    """What the threshold estimator does: forward a step, backward the derivative of a sigmoid."""
    logits = np.linspace(-6, 6, 481)
    probability = 1 / (1 + np.exp(-logits))
    figure, axes = canvas.grid(1, 2, height=2.9)
    forward, backward = axes[0]
    forward.plot(logits, logits > 0, color=BLUE, lw=1.8)
    forward.plot(logits, probability, color="0.5", lw=1.2, ls="--")
    forward.set(title="forward", xlabel=r"mask logit $\hat m$", ylabel="mask")
    backward.plot(logits, probability * (1 - probability), color=ORANGE, lw=1.8)
    backward.axvline(1, color="0.5", lw=1, ls=":")
    backward.set(title="backward", xlabel=r"mask logit $\hat m$", ylim=(0, 0.27))
    backward.set_ylabel("factor passed back")
    return canvas.finish(figure, [
        canvas.handle(r"$M = 1[\sigma(\hat m) > 1/2]$", color=BLUE),
        canvas.handle(r"$\sigma(\hat m)$", color="0.5", ls="--"),
        canvas.handle(r"$\sigma(\hat m)(1 - \sigma(\hat m))$", color=ORANGE),
        canvas.handle("where logits start", color="0.5", ls=":"),
    ])  # fmt: skip


def _layers(axis, layers, title):
    """Draw fractions masked by layer index: columns `layer`, `kind`, `mean`, `half`."""
    axis.plot(layers.layer, layers["mean"], color="0.7", lw=1, zorder=1)
    for kind, points in layers.groupby("kind", sort=False):
        style = {"fmt": KINDS.get(kind, "o")[0], "color": _kind_colour(kind), "ms": 4.5}
        canvas.means(axis, points.layer, points, **style, lw=1, zorder=2)
    axis.set(title=title, xlabel="layer index", ylabel="fraction masked", ylim=(0, None))
    axis.xaxis.get_major_locator().set_params(integer=True)


def _curves(axis, runs, column, colour):
    """Draw a column by epoch: of several runs the mean with its band, the runs faint behind it."""
    many = runs.run.nunique() > 1
    if many:
        for _, run in runs.groupby("run"):
            axis.plot(run.epoch, run[column], color=colour, lw=0.6, alpha=0.35)
    mean = over_seeds(runs, column, ["epoch"])
    marker = "o" if len(mean) < 4 else None
    axis.plot(mean.epoch, mean["mean"], color=colour, lw=1.8, marker=marker, ms=3)
    if many:
        canvas.band(axis, mean, colour)


def _datasets(frame):
    """The datasets of a frame: the known ones in the order of DATASET_NAMES, then the others."""
    present = dict.fromkeys(frame.dataset)
    known = [name for name in DATASET_NAMES if name in present]
    return known + [name for name in present if name not in DATASET_NAMES]


def _dataset_name(dataset):
    return DATASET_NAMES.get(dataset, dataset)


def _kind_colour(kind):
    return RED if kind == "1x1 shortcut" else ARM_COLOURS["mask"]


def _method_colours(names) -> dict[str, str]:
    """A colour for each of `readings.methods`, in their order: its arm's where it is one."""
    arms = {
        "supermask": "mask", "ticket": "ticket", "random": "random_mask", "dense": "weights",
        "pruned": "prune",
    }  # fmt: skip
    own = {name: ARM_COLOURS[arm] for name, arm in arms.items()}
    others = canvas.colours([name for name in names if name not in own], taken=own.values())
    return {name: own.get(name) or others[name] for name in dict.fromkeys(names)}


def _arm_handles(frame, **style) -> list[Line2D]:
    """An entry for each arm of a frame."""
    arms = [arm for arm in ARM_COLOURS if arm in set(frame.arm)]
    return [canvas.handle(ARM_NAMES[arm], color=ARM_COLOURS[arm], **style) for arm in arms]
