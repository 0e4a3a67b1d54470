"""The front page: the answer, and every claim with its verdict."""

import pandas as pd

from ...records import RunSet
from .. import analysis, claims, plots, readings
from .book import Book

# What the table of differences shows, by its text: of which comparisons ("anew": with batch norm's
# averages taken anew), and the comparison's key or keys.
_ROWS = {
    "only the mask trained − the weights trained": ("recorded", "mask-weights"),
    "the same with batch norm's averages, which lag behind, taken anew (beside the rules)": (
        "anew",
        "mask-weights",
    ),
    "fine-tuned − dense network trained half as long, as the post compared (beside the rules)": (
        "recorded",
        "finetune_low-weights_half",
    ),
    "fine-tuned − dense network trained as long, both at the post's low rate": (
        "recorded",
        "finetune_low-weights_long_low",
    ),
    "the same, each at its own best rate (beside the rules)": ("recorded", *claims.AT_OWN_RATES),
    "fine-tuned − fine-tuned from a random mask, at the low rate: a head start, not a better end": (
        "recorded",
        "finetune_low-random_mask_low",
    ),
    "trained from θ0 at the full rate, masked − dense": ("recorded", "rewind-weights"),
    "the same, averages anew (beside the rules)": ("anew", "rewind-weights"),
    "trained from θ0 at the full rate, masked − under a random mask": (
        "recorded",
        "rewind-random_mask_full",
    ),
}
# The chapter of each claim.
_CHAPTERS = {
    "1. Parity": "training.html",
    "2. Boost": "boost.html",
    "3. Learning rate": "boost.html#do-larger-steps-wipe-it-out",
    "4. Utilisation": "utilisation.html",
    "5. At most 16 %": "utilisation.html#at-most-16",
    "6. Estimators": "training.html#which-estimator",
    "7. Two kinds of mask": "tickets.html",
}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    verdicts, runs = _verdicts(book), evidence(book)
    found = {
        "answer": answer(book),
        "boost": claims.verdict_in_words(verdicts, "2. Boost"),
        "parity": claims.verdict_in_words(verdicts, "1. Parity"),
        "losses": losses(book),
        "corrected": corrected(book),
        "mask_gain": gains(book, "mask", "finetune"),
        "weights_gain": gains(book, "weights", "weights_long"),
        "as_drawn": claims.points(book.estimators, "mask-bernoulli_0.1_drawn"),
        "bernoulli": claims.in_words(book.tables, "mask-bernoulli"),
        "runs": str(len(runs)),
        "hours": f"{sum(run.summary['seconds'] for run in runs) / 3600:.0f}",
    }
    for density in (50, 20):
        for name, other in (("top", "dense"), ("random", "random")):
            key = f"trained_supermask-{other}_{density}"
            found[f"{name}{density}"] = claims.points(book.kinds, key)
    return found | seeds(book)


def answer(book: Book) -> str:
    """The answer to the book's question, from the verdicts of claim 2 and two of its comparisons.

    The first sentence speaks of the boost as the post trained it, the second of a network trained
    from its untrained weights under the mask.
    """
    boost = {verdict for verdict in book.verdicts.loc["2. Boost"] if verdict != "–"}
    if not boost:
        return "No run that asks this has been made yet."
    posts = _judged(book, "finetune_low-weights_long_low")
    starts = _judged(book, "rewind-weights")
    if boost == {"refuted"} and set(posts) == {"refuted"}:
        found = (
            "Not as the post trained it: at its low rate the dense network, trained as long, ends "
            "ahead on every network tried here."
        )
    elif boost == {"refuted"}:
        found = (
            "No, on the networks tried here: each time at least one control does as well or better."
        )
    elif boost == {"supported"}:
        found = "Yes, on the networks tried here: it beats every control."
    else:
        found = "That is not settled for all of the networks tried here."
    if "supported" in starts:
        return found
    end = "." if set(starts) == {"refuted"} else ", though a small one is not ruled out."
    return (
        f"{found} Trained from the untrained weights at the full rate the masked network shows "
        f"no lead{end}"
    )


def losses(book: Book) -> str:
    """The comparisons that refute claim 2, each with the studies in which it does; or "nowhere"."""
    deciding = _deciding(book)
    where: dict[str, list[str]] = {}
    for title, table in deciding.items():
        for comparison in table.comparison[table.verdict == "refuted"]:
            where.setdefault(comparison, []).append(claims.named(title))
    parts = [
        f"{comparison} ({'all' if len(names) == len(deciding) else ', '.join(names)})"
        for comparison, names in where.items()
    ]
    return "; ".join(parts) or "nowhere"


def corrected(book: Book) -> str:
    """Of each study that refutes claim 2 the smallest p value, corrected by Holm's procedure."""
    parts = []
    for title, table in _deciding(book).items():
        lost = analysis.holm(table["mean"], table.half, table.n)[
            (table.verdict == "refuted").to_numpy()
        ]
        if len(lost):
            p = lost.min()
            parts.append(
                f"{'p < 0.001' if p < 0.001 else f'p = {p:.2f}'} for {claims.named(title)}"
            )
    return ", ".join(parts) or "no p, since nothing is refuted"


def gains(book: Book, arm: str, further: str) -> str:
    """What training on at 1e-5 gains, in points, across studies.

    Args:
        arm, further: the arm before and the arm that trains on: "mask" and "finetune", or "weights"
            and "weights_long".
    """
    parts = []
    for title, runs in book.begun.items():
        summary = readings.tidy(runs.summary)
        epochs, width = readings.own_scale(summary)
        own = (summary.epochs == epochs) & (summary.width == width) & ~summary.reset_batch_norm
        after = {"arm": further, "learning_rate": 1e-5}
        before = {"arm": arm, "learning_rate": 0.01}
        points = analysis.paired(summary[own & readings.plain(summary)], after, before)
        if len(points):
            parts.append(f"{analysis.difference(points)} for {claims.named(title)}")
    return ", ".join(parts) or "not measured yet"


def seeds(book: Book) -> dict[str, str]:
    """How many seeds the comparisons have at most: `lenet_n`, `tickets_n`, `wide_n`."""
    most = {title: int(table.n.max()) for title, table in book.tables.items()}
    wide = [n for title, n in most.items() if title.startswith("WRN")] or [0]
    return {
        "lenet_n": str(most.get("LeNet-300-100, MNIST", 0)),
        "tickets_n": str(int(book.kinds.n.max()) if len(book.kinds) else 0),
        "wide_n": "–".join(str(n) for n in dict.fromkeys((min(wide), max(wide)))),
    }


def figure(book: Book):
    """The differences that show most."""
    return plots.differences(claims.headline(book.tables))


def evidence(book: Book) -> RunSet:
    """All runs that the claims rest on."""
    runs = [run for runs in book.studies.values() for run in runs]
    return RunSet([*runs, *book.runs("tickets_lenet")])


def differences(book: Book):
    """The comparisons in words: one row per comparison, one column per study."""
    tables = {"recorded": book.tables, "anew": book.without_lag}
    columns = {
        title: [
            claims.points(tables[which][title], *keys) if title in tables[which] else "–"
            for which, *keys in _ROWS.values()
        ]
        for title in book.tables
    }
    return pd.DataFrame(columns, index=list(_ROWS)).rename_axis(None).style


def every_claim(book: Book):
    """The verdicts: one row per claim, linked to its chapter, one column per study."""
    colours = {name: colour for name, (colour, _, _) in plots.VERDICTS.items()}
    names = {
        claim: f'<a href="{_CHAPTERS[claim]}">{claim.split()[0]}</a> {text}'
        for claim, text in claims.CLAIMS.items()
    }

    def border(verdict):
        return f"border-left: 4px solid {colours[verdict]}" if verdict in colours else ""

    return _verdicts(book).rename(index=names).rename_axis(None).style.map(border)


def _verdicts(book: Book) -> pd.DataFrame:
    """The verdicts of all claims; the seventh is asked of LeNet-300-100 on MNIST alone."""
    found = book.verdicts.copy()
    kinds = claims.verdicts({"kinds": book.kinds})
    found.loc["7. Two kinds of mask", "LeNet-300-100, MNIST"] = kinds.kinds["7. Two kinds of mask"]
    return found


def _judged(book: Book, key: str) -> list[str]:
    """What each study's table says of a comparison; "refuted: no difference" is no loss."""
    rows = [claims.find(table, key) for table in book.tables.values()]
    rows = [row.to_frame().T for row in rows if row is not None]
    return [verdict for row in rows for verdict in claims.as_text(row).verdict]


def _deciding(book: Book) -> dict[str, pd.DataFrame]:
    """The comparisons that claim 2 rests on, by study."""
    return {
        title: table[(table.claim == "2. Boost") & table.decides.astype(bool)]
        for title, table in book.tables.items()
    }
