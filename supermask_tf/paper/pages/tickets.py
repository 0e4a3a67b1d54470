"""Supermasks and lottery tickets, and how few weights must go to make a trained network wrong."""

from functools import cache

import pandas as pd

from ...records import RunSet
from .. import analysis, claims, fair, overlap, plots, readings
from . import inline
from .book import NOT_YET, Book, percent, without_index
from .fair_parts import written

# The comparisons in the page's sentences.
_SENTENCES = {
    "half": "overlap_20",
    "start": "start_supermask-ticket_20",
    "trained": "trained_ticket-supermask_20",
    "ticket_random": "trained_ticket-random_20",
    "supermask_random": "trained_supermask-random_20",
    "rounds": "rounds-one_shot_5",
    "rewound": "rewound-theta0_5",
    "global": "over_all-by_layer_5",
    "pruned": "pruned-ticket_5",
    "supermask_dense": "trained_supermask-dense_50",
    "ticket_dense": "trained_ticket-dense_20",
}
# The methods whose accuracies the page names, by the first letter of the texts' names.
_METHODS = {"s": "supermask", "t": "ticket", "r": "random", "g": "ticket over all layers"}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    runs = evidence(book)
    verdict = claims.verdicts({"here": book.kinds}).here["7. Two kinds of mask"]
    dense = runs.where(arm="weights").summary
    found = {name: inline.kind(book, key) for name, key in _SENTENCES.items()} | {
        "verdict": "no runs yet" if verdict == "–" else verdict,
        "seeds": str(runs.summary.seed.nunique() if len(runs) else 0),
        "dense": percent(dense.test_accuracy.mean(), 2) if len(dense) else NOT_YET,
        "fewest": fewest(book),
        "fair_half": at_half_in_the_fair_test(book),
        "answer": two_things(book),
    }
    return found | accuracies(book) | overlaps(book) | by_magnitude(book)


def at_half_in_the_fair_test(book: Book) -> str:
    """From θ0 under a mask of half of the weights, minus the dense network, at tuned rates."""
    study = fair.STUDIES["fair_lenet_mnist"]
    return written(study, book.runs("fair_lenet_mnist"), "rewind", "dense", "top_k 0.5")


def two_things(book: Book) -> str:
    """Supermask and lottery ticket over the same weights, before training and after it."""
    start = claims.find(book.kinds, "start_supermask-ticket_20")
    trained = claims.find(book.kinds, "trained_ticket-supermask_20")
    if start is None or trained is None or min(start.n, trained.n) < 2:
        return f"What sets supermask and ticket apart is {NOT_YET}."
    before, after = (inline.kind(book, row.key) for row in (start, trained))
    if start.verdict == trained.verdict == "supported":
        return (
            "A supermask and a lottery ticket are two things. Over the same untrained weights the "
            f"supermask reads {before.lstrip('+')} points more; once the weights are trained, the "
            f"ticket ends {after.lstrip('+')} ahead."
        )
    return (
        "Supermask and lottery ticket, over the same weights, a fifth kept: supermask minus ticket "
        f"{before} points before training; ticket minus supermask {after} after it."
    )


def accuracies(book: Book) -> dict[str, str]:
    """Mean test accuracy of each method by density, without training and after it: "s20_start"."""
    table, found = _methods(book), {}
    for letter, method in _METHODS.items():
        for density in (0.5, 0.2, 0.05):
            rows = table[(table.method == method) & (table.density == density)]
            for column in ("start", "trained"):
                text = percent(rows[column].mean()) if len(rows) else NOT_YET
                found[f"{letter}{100 * density:g}_{column}"] = text
    return found


def overlaps(book: Book) -> dict[str, str]:
    """What supermasks and tickets at a fifth kept share, and what two masks of one kind do."""
    every = _overlaps(book)
    every = every[every.path == "all"]
    found = {
        name: percent(every[name].mean()) if len(every) else NOT_YET
        for name in ("overlap", "chance", "beyond")
    }
    lowered = {"estimator": "top_k", "density": 0.2, "density_start": 1.0}
    masks = {name: list(rows["mask"]) for name, rows in _fifth(book).groupby("method")}
    masks["lowered"] = [*book.runs("ways_lenet").where(**lowered)]
    pairs = {
        "two_supermasks": ("supermask", "lowered"),
        "two_tickets": ("ticket", "ticket by rounds"),
        "lowered_ticket": ("ticket", "lowered"),
        "supermask_ticket": ("ticket", "supermask"),
    }
    for name, (one, other) in pairs.items():
        title = f"{name.replace('_', ' ')}, overlap beyond chance in per cent"
        found[name] = beyond_chance(name, title, masks.get(one, []), masks.get(other, []))
    return found


def beyond_chance(name: str, title: str, one, other) -> str:
    """Overlap beyond chance of two kinds of mask from the same θ0, in per cent, paired by seed.

    Args:
        name, title: of the number, as in `inline.accuracy`.
        one, other: runs of each kind, one per seed.
    """
    one, other = ({run.parameters["seed"]: run for run in runs} for runs in (one, other))
    both = sorted(one.keys() & other.keys())
    points = [100 * overlap.shared(one[seed], other[seed]).beyond.iloc[-1] for seed in both]
    runs = [
        tuple((f"{side[seed].study}/{side[seed].name}",) for side in (one, other)) for seed in both
    ]
    pairs = pd.DataFrame({"points": points, "runs": runs}, index=both)
    return inline.accuracy(f"tickets_lenet/{name}", title, pairs)


def by_magnitude(book: Book) -> dict[str, str]:
    """How often the first layer's largest and smallest weights are kept, and their signs."""
    found: dict[str, str] = {}
    for method in ("supermask", "ticket"):
        rows = _magnitudes(book)
        rows = rows[(rows.method == method) & (rows.path == "dense1")]
        ratio = rows.kept / rows.density
        positive = (rows.positive * rows.kept).sum() / rows.kept.sum() if len(rows) else 0.0
        found |= {
            f"{method}_top": f"{ratio[rows.part == 10].mean():.1f}" if len(rows) else NOT_YET,
            f"{method}_low": f"{ratio[rows.part == 1].mean():.1f}" if len(rows) else NOT_YET,
            # Each tenth holds as many weights, so what is kept of it is its share of the mask.
            f"{method}_positive": percent(positive) if len(rows) else NOT_YET,
        }
    return found


def fewest(book: Book) -> str:
    """The smallest part of the weights without which the network is wrong more often than right.

    It must be so over the whole interval: its upper end lies below one half.
    """
    evil = evidence(book).where(arm="evil")
    table = evil.summary if len(evil) else pd.DataFrame(columns=["density", "test_accuracy"])
    wrong = [
        density
        for density, rows in table.groupby("density")
        if sum(analysis.interval(rows.test_accuracy)) < 0.5
    ]
    if not wrong:
        return "At none of these is it wrong more often than right over the whole interval."
    density = max(wrong)
    rows = table[table.density == density]
    random = percent(rows.start_accuracy.mean())
    return (
        f"Without one in {1 / (1 - density):.0f} of each layer's weights, chosen by the evil mask,"
        f" the network is right in {percent(rows.test_accuracy.mean())}. Without as many random"
        f" ones it is right in {random}."
    )


def density_figure(book: Book):
    """What masks are worth by the fraction of the weights that they keep."""
    table = _methods(book)
    return plots.by_density(table[table.method.isin(["supermask", "ticket", "random"])])


def evidence(book: Book) -> RunSet:
    """The runs of the study `tickets_lenet`."""
    return book.runs("tickets_lenet")


def comparisons(book: Book):
    """The comparisons of claim 7 in words."""
    return without_index(inline.kinds_table(book)) if len(book.kinds) else "No run yet."


def magnitude_figure(book: Book):
    """How often weights are kept by the rank of their untrained magnitude."""
    return plots.by_magnitude(_magnitudes(book))


def overlap_table(book: Book):
    """What supermask and ticket share: one row per layer."""
    rows = [
        {
            "layer": path,
            "of the ticket's weights in the supermask": percent(rows.overlap.mean()),
            "by chance": percent(rows.chance.mean()),
            "beyond chance": percent(rows.beyond.mean()),
        }
        for path, rows in _overlaps(book).groupby("path", sort=False)
    ]
    return without_index(pd.DataFrame(rows))


def layers(book: Book):
    """The fraction kept of each layer where no density is given by layer: one row per layer."""
    plain = {"arm": "mask", "epochs": 10, "initial_logit": 1.0, "estimator": "threshold"}
    masks = {"supermask (threshold)": book.runs("lenet").where(**plain)}
    for density in (0.2, 0.05):
        runs = evidence(book).where(arm="ticket", scope="global", density=density)
        masks[f"ticket over all layers, {100 * density:g} %"] = runs
    columns = {
        name: 1 - runs.utilisation.groupby("path", sort=False).masked.mean()
        for name, runs in masks.items()
        if len(runs)
    }
    return pd.DataFrame(columns).rename_axis(None).style.format("{:.1%}")


def every_method(book: Book):
    """What each method's masks are worth: one row per method and density."""
    table = _methods(book).sort_values(["method", "density"], ascending=[True, False])
    rows = [
        {
            "mask": method,
            "kept": f"{100 * density:g} %",
            "without training": percent(rows.start.mean()) if rows.start.notna().all() else "",
            "after training": _interval(rows.trained, 2),
            "seeds": len(rows),
        }
        for (method, density), rows in table.groupby(["method", "density"], sort=False)
    ]
    return without_index(pd.DataFrame(rows))


def evil(book: Book):
    """What an evil mask does by the fraction of each layer that it takes away."""
    runs = evidence(book).where(arm="evil")
    if not len(runs):
        return "No run yet."
    rows = [
        {
            "taken away": percent(1 - density, 0),
            "at random": percent(group.start_accuracy.mean()),
            "by the evil mask": _interval(group.test_accuracy, 1),
            "seeds": len(group),
        }
        for density, group in reversed(list(runs.summary.groupby("density")))
    ]
    return without_index(pd.DataFrame(rows))


@cache
def _methods(book: Book) -> pd.DataFrame:
    return readings.methods(evidence(book))


def _fifth(book: Book) -> pd.DataFrame:
    """The masks that keep a fifth of the weights."""
    table = _methods(book)
    return table[table.density == 0.2]


@cache
def _overlaps(book: Book) -> pd.DataFrame:
    """What supermask and ticket of each seed share at a fifth kept: one row per seed and layer."""
    table = _fifth(book)
    masks = [
        table[table.method == name].set_index("seed")["mask"] for name in ("supermask", "ticket")
    ]
    seeds = masks[0].index.intersection(masks[1].index)
    parts = [overlap.shared(masks[0][seed], masks[1][seed]).assign(seed=seed) for seed in seeds]
    none = pd.DataFrame(columns=["path", "overlap", "chance", "beyond", "seed"])
    return pd.concat(parts) if parts else none


@cache
def _magnitudes(book: Book) -> pd.DataFrame:
    """What is kept by untrained magnitude, at a fifth kept: one row per run, layer and tenth."""
    table = _fifth(book)
    chosen = table[table.method.isin(["supermask", "ticket", "random"])]
    parts = [
        overlap.kept_by_magnitude(row["mask"]).assign(method=row.method, seed=row.seed)
        for _, row in chosen.iterrows()
    ]
    columns = ["method", "path", "part", "kept", "density", "positive"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


def _interval(values: pd.Series, digits: int) -> str:
    mean, half = analysis.interval(values)
    return f"{100 * mean:.{digits}f} ± {100 * half:.{digits}f} %"
