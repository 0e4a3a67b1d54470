"""What gets masked? Which layers lose their weights, and how many."""

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import claims, mask_plots, overlap, plots, readings, see
from . import inline
from .book import NOT_YET, Book, by_study, percent, signed, without_index

# The comparisons in the page's sentences.
_SENTENCES = {
    "at_one": "most_masked_logits_1",
    "at_low": "most_masked_logits_0.05",
    "slope": "masked_per_weights",
    "within": "masked_per_weights_within",
    "replaced_3x3": "shortcuts_3x3-shortcuts_1x1",
    "replaced_wide": "shortcuts_wide-shortcuts_1x1",
}
_LENET = "LeNet-300-100, MNIST"
_CLAIMS = ["4. Utilisation", "5. At most 16 %"]
_PLAIN = {"arm": "mask", "estimator": "threshold", "initial_logit": 1.0}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    found = {name: inline.in_words(book, key) for name, key in _SENTENCES.items()}
    return found | beside_the_post(book) | values_kept(book) | {
        "answer": answer(book),
        "middle": part_kept(book, middle=True),
        "rim": part_kept(book, middle=False),
        "fewer": claims.verdict_in_words(book.verdicts, "4. Utilisation"),
        "most": claims.verdict_in_words(book.verdicts, "5. At most 16 %"),
        "tops": tops(book),
        "lengths": lengths(book),
    }  # fmt: skip


def answer(book: Book) -> str:
    """Where the first layer's weights go, and whether 16 % is a limit by the verdict of claim 5."""
    middle, rim = (_share_kept(book, middle) for middle in (True, False))
    if middle < rim:
        first = (
            f"Mostly weights where the images change: {percent(1 - middle, 0)} of the first"
            f" layer's in the middle, where digits are drawn, and {percent(1 - rim, 0)} at the rim."
        )
    else:
        first = (
            f"Of the first layer's weights {percent(1 - middle, 0)} in the middle of the image, and"
            f" {percent(1 - rim, 0)} at its rim."
        )
    verdicts = {verdict for verdict in book.verdicts.loc[_CLAIMS[1]] if verdict != "–"}
    if not verdicts:
        return first
    if "refuted" in verdicts:
        return f"{first} There is no limit of 16 % per layer, as the post saw one."
    if verdicts == {"supported"}:
        return f"{first} No layer masked more than the 16 % of the post."
    return f"{first} Whether 16 % per layer is a limit, as the post saw one, is not settled."


def part_kept(book: Book, middle: bool) -> str:
    """What the live page's supermask keeps of the first layer in the middle, or at the rim."""
    return percent(_share_kept(book, middle), 0)


def _share_kept(book: Book, middle: bool) -> float:
    share = _first_layer(book).mask.mean(axis=1).reshape(28, 28)
    inside = np.zeros((28, 28), bool)
    inside[7:21, 7:21] = True
    return float(share[inside if middle else ~inside].mean())


def beside_the_post(book: Book) -> dict[str, str]:
    """What the masks of the study `first` and of the post remove: "<whose>_<dataset>_<what>"."""
    masks, post = first_masks(book), _post(book)
    tables = {"here": masks.utilisation, "post": post.dropna(subset=["masked"])}
    found: dict[str, str] = {}
    for whose, table in tables.items():
        for dataset, layers in table.groupby("dataset"):
            shortcut, name = layers.kind == "1x1 shortcut", f"{whose}_{dataset}"
            found |= {
                f"{name}_most": percent(layers.masked.max()),
                f"{name}_shortcut": percent(layers[shortcut].masked.mean()),
                f"{name}_other": percent(layers[~shortcut].masked.mean()),
                f"{name}_rank": _correlation(layers),
                f"{name}_rank3": _correlation(layers[layers.kind == "3x3"]),
            }
    for dataset in ("mnist", "cifar10"):
        theirs = post[post.dataset == dataset].set_index("layer").masked
        for layer in (0, 1, 3, 12, 21):
            found[f"post_{dataset}_{layer}"] = percent(theirs[layer])
        run = masks.where(dataset=dataset)[0]
        found[f"here_{dataset}_dense"] = percent(run.utilisation.masked.iloc[-1])
        found[f"here_{dataset}_last"] = percent(run.history.masked.iloc[-1])
        found[f"here_{dataset}_all"] = percent(run.summary["masked"])
    return found


def tops(book: Book) -> str:
    """How much the layer that masks most does, under the start or length that masks most."""
    parts = []
    for title, runs in book.begun.items():
        found = readings.most_masked(runs).dropna(subset="mean")
        if len(found):
            top = found.loc[found["mean"].idxmax()]
            parts.append(f"{percent(top['mean'], 0)} for {claims.named(title)} ({top.condition})")
    return ", ".join(parts)


def lengths(book: Book) -> str:
    """At which epochs the plain masks were taken, and what they remove then and at the last."""

    def span(values):
        return f"{100 * min(values):.1f} to {100 * max(values):.1f} %"

    parts = []
    for title, runs in book.begun.items():
        plain = readings.plain_masks(runs)
        if title.startswith("WRN") and len(plain) > 1:
            epochs = [run.summary["best_epoch"] for run in plain]
            taken = span([run.summary["masked"] for run in plain])
            last = span([run.history.masked.iloc[-1] for run in plain])
            parts.append(
                f"for {claims.named(title)} epochs {min(epochs)} to {max(epochs)}, with {taken} "
                f"masked, against {last} at the last"
            )
    return "; ".join(parts) or "no runs yet"


def weights_figure(book: Book):
    """Fraction masked against the number of weights, of WRN-10s two and more wide."""
    runs = [run for study in _wide(book) for run in study.where(**_PLAIN)]
    layers = readings.tidy(RunSet(runs).utilisation)
    shortest = layers.groupby("dataset").epochs.transform("min")
    layers = layers[(layers.width >= 2) & (layers.epochs == shortest)]
    names = {"1x1": "", "3x3": ", 3×3 shortcuts", "wide": ", wide shortcuts"}
    network = "WRN-10-" + layers.width.astype(str) + layers.shortcut.map(names)
    return plots.by_weights(layers.assign(network=network))


def weights_evidence(book: Book) -> RunSet:
    """The runs of that figure."""
    return RunSet([run for study in _wide(book) for run in study.where(**_PLAIN)])


def most_figure(book: Book):
    """The layer that masks most, by where the logits start and for longer runs."""
    tables = {title: readings.most_masked(runs) for title, runs in book.begun.items()}
    return plots.most_masked(tables, claims.HIGHEST_MASKED)


def most_evidence(book: Book) -> RunSet:
    """The runs of that figure."""
    chosen = {"arm": "mask", "estimator": "threshold"}
    return RunSet([run for runs in book.studies.values() for run in runs.where(**chosen)])


def layers_figure(book: Book):
    """Fraction masked by layer, of the study `first` and of the post."""
    return plots.utilisation(first_masks(book).utilisation, published=_post(book))


def first_masks(book: Book) -> RunSet:
    """The mask runs of the study `first`."""
    return book.first.where(arm="mask")


def numbers(book: Book):
    """The comparisons of claims 4 and 5 in words: one row per study and comparison."""
    parts = {
        title: inline.table(book, title, table[table.claim.isin(_CLAIMS)])
        for title, table in book.tables.items()
    }
    return without_index(by_study(parts))


def first_layer(book: Book):
    """The first layer of the live page's supermask: units as images, and all of them as one map."""
    return mask_plots.first_layer(_first_layer(book))


def first_layer_evidence(book: Book) -> RunSet:
    """The run of that figure."""
    return RunSet([see.supermask(book.checkout / "runs")])


def _first_layer(book: Book) -> mask_plots.Layer:
    return mask_plots.kept(see.supermask(book.checkout / "runs"), "dense1", (784, 300))


def kernels_figure(book: Book):
    """Convolution kernels of the mask of a WRN-10-2 on CIFAR-10: the first two, and a shortcut."""
    run = first_mask(book)
    wide = 16 * run.parameters["width"]
    shapes = {
        "conv": (3, 3, 3, 16),
        "group1/block1/conv1": (3, 3, 16, wide),
        "group1/block1/shortcut": (1, 1, 16, wide),
    }
    layers = {path: mask_plots.kept(run, path, shape) for path, shape in shapes.items()}
    return mask_plots.kernels(
        {
            f"{path} ({'×'.join(map(str, shapes[path][:2]))})": layer
            for path, layer in layers.items()
        }
    )


def kernels_evidence(book: Book) -> RunSet:
    """The run of that figure."""
    return RunSet([first_mask(book)])


def first_mask(book: Book):
    """Of WRN-10-2's plain masks on CIFAR-10 that of the first seed."""
    runs = readings.plain_masks(book.begun["WRN-10-2, CIFAR-10"])
    return min(runs, key=lambda run: run.parameters["seed"])


def by_epoch_figure(book: Book):
    """The fraction of LeNet-300-100's weights that stays, by epoch and starting logit."""
    history = _of_logits(book).history
    logits = [f"starting logit {logit:g}" for logit in history.initial_logit]
    return mask_plots.by_epoch(history.assign(way=logits).sort_values("initial_logit"))


def by_epoch_evidence(book: Book) -> RunSet:
    """The runs of that figure."""
    return _of_logits(book)


def strip_figure(book: Book):
    """What the first layer keeps of each pixel's weights, by starting logit, of the first seed."""
    runs = _of_logits(book).where(seed=0)
    maps = {}
    for run in sorted(runs, key=lambda run: run.parameters["initial_logit"]):
        layer = mask_plots.kept(run, "dense1", (784, 300))
        title = f"from {run.parameters['initial_logit']:g}, epoch {run.summary['best_epoch']}"
        maps[title] = layer.mask.mean(axis=1).reshape(28, 28)
    return mask_plots.strip(maps)


def by_value_figure(book: Book):
    """How often a weight stays by its value before training, of LeNet-300-100's plain masks."""
    runs = readings.plain_masks(book.begun[_LENET])
    tables = [overlap.kept_by_value(run).assign(seed=run.parameters["seed"]) for run in runs]
    return mask_plots.by_value(pd.concat(tables))


def values_kept(book: Book) -> dict[str, str]:
    """What the first layer keeps of its most negative, smallest and most positive weights."""
    runs = readings.plain_masks(book.begun[_LENET]) if _LENET in book.begun else RunSet([])
    tables = [overlap.kept_by_value(run) for run in runs]
    names = ("negative", "small", "positive")
    if not tables:
        return dict.fromkeys(names, NOT_YET)
    table = pd.concat(tables)
    kept = table[table.path == "dense1"].groupby("part").kept.mean()
    found = (kept.iloc[0], kept.iloc[len(kept) // 2 - 1 : len(kept) // 2 + 1].mean(), kept.iloc[-1])
    return {name: percent(value, 0) for name, value in zip(names, found)}


def by_value_evidence(book: Book) -> RunSet:
    """The runs of that figure."""
    return readings.plain_masks(book.begun[_LENET])


def _of_logits(book: Book) -> RunSet:
    """LeNet-300-100's masks of the threshold estimator at the study's length, all starts."""
    runs = book.begun[_LENET]
    epochs, _ = readings.own_scale(readings.tidy(runs.summary))
    return runs.where(arm="mask", estimator="threshold", epochs=epochs)


def _post(book: Book) -> pd.DataFrame:
    return book.table("book/published/post_utilisation.csv")


def _wide(book: Book) -> list[RunSet]:
    return [runs for title, runs in book.begun.items() if title.startswith("WRN-10")]


def _correlation(layers: pd.DataFrame) -> str:
    """Of the fraction masked with log10 of the weights, over layers: "−0.12"."""
    return signed(np.corrcoef(np.log10(layers.weights), layers.masked)[0, 1], 2)
