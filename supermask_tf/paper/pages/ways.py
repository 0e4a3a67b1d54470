"""Every way to find a mask: what the estimators' gradients are worth, and what each finds."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pandas as pd

from ...records import RunSet
from .. import enumeration, plots, readings
from . import inline
from .book import NOT_YET, Book, accuracy, percent, without_index

# The ways in the page's sentences: of which table of `by_way`, and what picks the row.
_SENTENCES: dict[str, dict[str, Any]] = {
    "threshold": {"way": "threshold", "epochs": 10},
    "bernoulli": {"way": "bernoulli", "learning_rate": 0.1},
    "drawn": {"way": "bernoulli, drawn at evaluation", "epochs": 10},
    "concrete": {"way": "binary_concrete"},
    "ils": {"way": "intermediate_loss"},
    "top50": {"way": "top_k, 50 % kept"},
    "top20": {"way": "top_k, 20 % kept"},
    "lowered": {"way": "top_k, 20 % kept, density lowered"},
}
# The estimators of the small network, by the names that they have in the page's texts.
_SMALL = {
    "st": "bernoulli",
    "warm": "binary_concrete, T = 1",
    "cold": "binary_concrete, T = 0.3",
    "small": "intermediate_loss, η = 1",
    "large": "intermediate_loss, η = 100",
    "thresh": "threshold",
    "raw": "… without the Jacobian, η = 1",
}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    table, conv = readings.by_way(lenet(book)), readings.by_way(conv_net(book))
    on_lenet = _behind(lenet(book), "ways_lenet", "LeNet-300-100 on MNIST")
    on_conv = _behind(conv_net(book), "ways_cifar10", "Conv-2 on CIFAR-10")
    found: dict[str, str] = {
        name: of_way(table, on_lenet, **values) for name, values in _SENTENCES.items()
    }
    return found | of_small_networks() | {
        "best_lenet": best(table[table.epochs == 10], on_lenet),
        "best_conv": best(conv, on_conv),
        "conv_ils": of_way(conv, on_conv, way="intermediate_loss"),
    }  # fmt: skip


def _behind(runs: RunSet, study: str, where: str) -> Callable[[pd.Series], str]:
    """How the accuracy of a row of `readings.by_way` is written: rounded, with its runs."""
    summary = runs.summary
    if len(summary):
        summary["way"] = readings.ways(summary)

    def written(row: pd.Series) -> str:
        own = summary[
            (summary.way == row.way)
            & (summary.epochs == row.epochs)
            & (summary.learning_rate == row.learning_rate)
        ]
        name = f"{study}/{row.way}_{row.epochs}_{row.learning_rate:g}"
        title = f"{where}: {row.way}, {row.epochs} epochs"
        return inline.accuracy(name, title, inline.pairs_of(own))

    return written


def of_way(table: pd.DataFrame, written: Callable[[pd.Series], str], /, **values) -> str:
    """The accuracy of a way.

    Args:
        table: what `readings.by_way` returned.
        written: how a row's accuracy is written.
        values: of its columns, which pick the way; of several rows the first, which is the best.
    """
    for column, value in values.items():
        table = table[table[column] == value]
    return written(table.iloc[0]) if len(table) else NOT_YET


def best(table: pd.DataFrame, written: Callable[[pd.Series], str]) -> str:
    """The best way by held-out accuracy, signed constants left aside, with its test accuracy."""
    if len(table):
        table = table[(table.way != "weights trained") & ~table.way.str.contains("signed")]
    if not len(table):
        return "no run yet"
    row = table.loc[table.held_out.idxmax()]
    return f"{written(row)} in the test ({row.way})"


def of_small_networks() -> dict[str, str]:
    """What the estimators' gradients are worth where every mask can be tried (`enumeration`)."""
    compared, spread = _compared(), _compared(spread=3.0)
    found = {"states_n": str(compared.n.iloc[0])}
    for name, estimator in _SMALL.items():
        for value in ("cosine", "bias", "deviation"):
            number = compared[value][estimator]
            found[f"{name}_{value}"] = f"{number:.2f}" if number < 10 else f"{number:.0f}"
    for name in ("raw", "small"):
        found[f"{name}_wide"] = f"{spread.cosine[_SMALL[name]]:.2f}"
    changes = enumeration.first_changes(200).set_index("estimator")
    for name in ("threshold", "top_k"):
        found[f"{name}_n"] = str(changes.n[name])
        found[f"{name}_lowers"] = percent(changes.lowers[name], 0)
        found[f"{name}_any"] = percent(changes["any"][name], 0)
    return found


def gradients(book: Book) -> pd.DataFrame:
    """What the estimators' gradients are worth: one row per estimator, medians over states."""
    columns = {
        "cosine": "cosine with the true gradient",
        "bias": "bias, over the true gradient",
        "deviation": "deviation of a draw, over the mean",
    }
    return _compared().drop(columns="n").round(2).rename(columns=columns).rename_axis(None)


def lenet(book: Book) -> RunSet:
    """The runs on LeNet-300-100: the study `ways_lenet`, and the plain masks of `lenet`."""
    plain = {"arm": "mask", "epochs": 10, "initial_logit": 1.0, "estimator": "threshold"}
    return RunSet([*book.runs("ways_lenet"), *book.runs("lenet").where(**plain)])


def conv_net(book: Book) -> RunSet:
    """The runs on Conv-2."""
    return book.runs("ways_cifar10")


def lenet_figure(book: Book):
    """Accuracy and density by epoch of each way, on LeNet-300-100."""
    return _figure(lenet(book).where(epochs=10))


def conv_figure(book: Book):
    """Accuracy and density by epoch of each way, on Conv-2."""
    return _figure(conv_net(book).where(arm="mask"))


def lenet_table(book: Book):
    """Each way on LeNet-300-100: one row per way, length and learning rate."""
    table = readings.by_way(lenet(book))
    given = {"epochs": table.epochs, "learning rate": [f"{rate:g}" for rate in table.learning_rate]}
    return without_index(_shown(table, given))


def conv_table(book: Book):
    """Each way on Conv-2: one row per way."""
    table = readings.by_way(conv_net(book))
    return without_index(_shown(table, {})) if len(table) else "No run yet."


def published(book: Book):
    """The published accuracies beside the best ones here: one row per published number."""
    lenet_ways, conv_ways = readings.by_way(lenet(book)), readings.by_way(conv_net(book))
    rows = []
    for _, theirs in book.table("book/published/accuracies.csv").iterrows():
        ours = lenet_ways if theirs.dataset == "MNIST" else conv_ways
        rows.append(beside(ours, theirs))
    return without_index(pd.DataFrame(rows))


def beside(ways: pd.DataFrame, theirs: pd.Series) -> dict[str, str]:
    """A published accuracy beside the best one of its kind here, by held-out accuracy.

    Args:
        ways: what `readings.by_way` returned for the same network.
        theirs: `network`, `dataset`, `what` ("weights trained", or which masks) and `accuracy`.
    """
    trained = ways.way == "weights trained"
    signed = ways.way.astype(str).str.contains("signed")
    masks = ~trained & (signed if "signed" in theirs.what else ~signed)
    kind = ways[trained if theirs.what == "weights trained" else masks]
    row = {
        "network": f"{theirs.network}, {theirs.dataset}",
        "what": theirs.what,
        "published": percent(theirs.accuracy),
    }
    if not len(kind):
        nothing = dict.fromkeys(("found by", "reached", "inside the interval"), "")
        return row | {"the best here": NOT_YET} | nothing
    ours = kind.loc[kind.held_out.idxmax()]
    return row | {
        "the best here": _accuracy(ours),
        "found by": f"{ours.way}, {ours.epochs} epochs",
        "reached": "yes" if ours["mean"] >= theirs.accuracy else "no",
        "inside the interval": "yes" if abs(ours["mean"] - theirs.accuracy) <= ours.half else "no",
    }


@cache
def _compared(spread: float = 1.0) -> pd.DataFrame:
    """`enumeration.compare` over forty states, by estimator."""
    return enumeration.compare(40, spread=spread).set_index("estimator")


def _figure(runs: RunSet):
    history = runs.history
    return plots.ways(history.assign(way=readings.ways(history)))


def _shown(table: pd.DataFrame, given: dict) -> pd.DataFrame:
    accuracies = [_accuracy(row) for _, row in table.iterrows()]
    kept = [percent(fraction, 0) for fraction in table.kept]
    return pd.DataFrame({"way": table.way, **given, "test accuracy": accuracies, "kept": kept})


def _accuracy(row: pd.Series) -> str:
    return accuracy(row["mean"], row.half, row.n)
