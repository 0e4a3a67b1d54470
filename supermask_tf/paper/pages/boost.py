"""Is it a good start? Fine-tuning and rewinding against their controls."""

import pandas as pd

from ...records import RunSet
from .. import analysis, claims, plots, readings
from . import inline
from .book import NOT_YET, Book, by_study, percent, rate, without_index

LENET = "LeNet-300-100, MNIST"
# The comparisons in the page's sentences: the key, or keys, of which a study's first one is taken.
_SENTENCES = {
    "longer": ("finetune_low-weights_long_low",),
    "random": ("finetune_low-random_mask_low",),
    "shuffled": ("finetune_low-shuffled_mask_low",),
    "reset": ("finetune_low-finetune_reset",),
    "reset_longer": ("finetune_reset-weights_long_low",),
    "rewind": ("rewind-weights",),
    "rewind_random": ("rewind-random_mask_full",),
    "rewind_shuffled": ("rewind-shuffled_mask_full",),
    "rates": ("finetune_low-finetune_full",),
    "half": ("finetune_low-weights_half",),
    "reset_random": ("finetune_reset-random_mask_low",),
    "larger": ("finetune_full-weights_long_full",),
    "gentle": ("finetune_0.001-weights_0.001",),
    "own": claims.AT_OWN_RATES,
    "longer_best": claims.DENSE_AT_OWN_RATE,
}


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    lenet = book.studies[LENET]
    plain = lenet.where(arm="mask", epochs=10, initial_logit=1.0, estimator="threshold")
    found = {name: inline.in_words(book, *keys) for name, keys in _SENTENCES.items()} | {
        "answer": answer(book),
        "boost": claims.verdict_in_words(book.verdicts, "2. Boost"),
        "rate": claims.verdict_in_words(book.verdicts, "3. Learning rate"),
        "without_reset": without_reset(book),
        "best": best_rates(book),
        "lost": no_boost_at_all(book),
        "taken": epochs_of_masks(book),
        "gentle_weights": _mean_accuracy(lenet.where(arm="weights", learning_rate=0.001)),
        "random_at": _mean_accuracy(lenet.where(arm="random_mask", learning_rate=1e-5)),
        "kept": percent(1 - plain.summary.masked.mean(), 0) if len(plain) else NOT_YET,
        "tickets_n": str(int(book.kinds.n.max()) if len(book.kinds) else 0),
        "budgets": budgets(book),
        "survive": survivors(book),
    }
    for name, other in (("top_random", "random"), ("top_dense", "dense")):
        for density in (50, 20, 5):
            key = f"trained_supermask-{other}_{density}"
            found[f"{name}_{density}"] = inline.kind(book, key)
    return found


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


def without_reset(book: Book) -> str:
    """The verdicts of claim 2 if batch norm reset were no control, where it is one."""
    reset = "finetune_low-finetune_reset"
    tables = {
        title: table[table.key != reset]
        for title, table in book.tables.items()
        if claims.find(table, reset) is not None
    }
    return claims.verdict_in_words(claims.verdicts(tables), "2. Boost")


def best_rates(book: Book) -> str:
    """The dense network's own best rate for the further epochs, across studies."""
    parts = []
    for title, table in book.tables.items():
        found = claims.find(table, *claims.DENSE_AT_OWN_RATE)
        if found is not None and found.n > 1:
            parts.append(f"{found.comparison.rpartition(' at ')[2]} for {claims.named(title)}")
    return ", ".join(parts) or NOT_YET


def no_boost_at_all(book: Book) -> str:
    """Where fine-tuning does better at 0.01 and still does not beat the dense network there."""
    keys = ("finetune_low-finetune_full", "finetune_full-weights_long_full")
    lost = [
        claims.named(title)
        for title, table in book.tables.items()
        if all(
            (row := claims.find(table, key)) is not None and row.verdict == "refuted"
            for key in keys
        )
    ]
    return ", ".join(lost) or "none of these networks"


def epochs_of_masks(book: Book) -> str:
    """The first and the last epoch at which a mask of the WRN-10s was taken."""
    wide = [runs for title, runs in book.begun.items() if title.startswith("WRN-10")]
    taken = [run.summary["best_epoch"] for runs in wide for run in readings.plain_masks(runs)]
    return f"{min(taken)} and {max(taken)}" if taken else NOT_YET


def budgets(book: Book) -> str:
    """Mask and weights together against the dense network trained for as many epochs, at 0.001.

    The difference is one of held-out accuracy at the best epoch, in points, paired by seed.
    """
    tickets = book.runs("tickets_lenet")
    fine_tuned = book.studies[LENET].where(arm="finetune", learning_rate=0.001)
    masked = {
        "fine-tuned at 0.001 from the threshold estimator's mask": fine_tuned,
        "from top_k's with half of the weights": tickets.where(arm="rewind", density=0.5),
        "from top_k's with a fifth": tickets.where(arm="rewind", density=0.2),
    }
    long = book.runs("ways_lenet").where(arm="weights", learning_rate=0.001)
    dense = _held_out(long, 20)
    parts = []
    for number, (name, runs) in enumerate(masked.items()):
        points = (_held_out(runs, 10) - dense).dropna()
        sides = _by_seed(runs), _by_seed(long)
        pairs = pd.DataFrame(
            {
                "points": points,
                "runs": [tuple((side[seed],) for side in sides) for seed in points.index],
            }
        )
        title = f"LeNet-300-100 on MNIST, held out: {name} − dense, as long"
        found = inline.difference(f"lenet/budget_{number}", title, pairs)
        parts.append(f"{name} {found}")
    return ", ".join(parts)


def survivors(book: Book) -> str:
    """The comparisons of claim 2 that are surely not zero with all of a study taken together."""
    table = _corrected(book)
    sure = table[(table.verdict != "not settled") & (table.p < 0.05)]
    found = sure.groupby("study", sort=False).comparison.agg(", ".join) if len(sure) else {}
    return "; ".join(f"{claims.named(title)}: {names}" for title, names in found.items()) or "none"


def figure(book: Book):
    """The comparisons of claims 2 and 3."""
    return plots.differences(_both_claims(book))


def evidence(book: Book) -> RunSet:
    """The runs of all studies."""
    return RunSet([run for runs in book.studies.values() for run in runs])


def lag(book: Book):
    """The comparisons of claim 2 as recorded, and with batch norm's averages taken anew."""
    parts = {}
    for title, anew in book.without_lag.items():
        recorded = book.tables[title]
        chosen = (recorded.claim == "2. Boost") & (recorded.n > 1)
        was, would_be = (
            claims.as_text(table[chosen].drop_duplicates("comparison"))
            for table in (recorded, anew.assign(decides=False))
        )
        columns = {
            "comparison": was.comparison,
            "as recorded": was["difference, points"],
            "averages anew": would_be["difference, points"],
            "it would be": would_be.verdict,
        }
        parts[title] = pd.DataFrame(columns)
    return without_index(by_study(parts))


def by_rate(book: Book):
    """Test accuracy by the learning rate of the further epochs: one row per study and arm."""
    parts = []
    for title, runs in book.begun.items():
        summary = readings.tidy(runs.summary)
        further = summary.arm.isin(["finetune", "weights_long"]) & ~summary.reset_batch_norm
        by = ["arm", "learning_rate"]
        cells = analysis.over_seeds(summary[further], "test_accuracy", by)
        parts.append(cells.assign(study=title))
    cells = pd.concat(parts)
    cells["text"] = [
        (
            f"{100 * c.mean:.2f} ± {100 * c.half:.2f} (n = {c.n})"
            if c.n > 1
            else f"{100 * c.mean:.2f} (one seed)"
        )
        for c in cells.itertuples(index=False)
    ]
    cells["arm"] = cells.arm.map(plots.ARM_NAMES)
    table = cells.pivot(index=["study", "arm"], columns="learning_rate", values="text").fillna("")
    table.columns = [f"at {rate(value)}" for value in table.columns]
    return table.rename_axis(index=[None, None]).reindex(list(book.studies), level=0).style


def how_soon(book: Book):
    """Epochs to where the weights arm ends: one row per arm and rate, one column per study."""
    parts = {title: readings.epochs_to(runs) for title, runs in book.begun.items()}
    soon = by_study(parts)
    soon = soon[~soon.arm.isin(["mask", "bn_only", "weights"])]
    soon = soon.sort_values(["arm", "learning_rate", "reset_batch_norm"])
    reset = soon.reset_batch_norm.map({True: ", batch norm reset", False: ""})
    median = [f"{value:g}" if value == value else "–" for value in soon["median"]]
    counts = zip(median, soon.reached, soon.seeds)
    soon = soon.assign(
        arm=soon.arm.map(plots.ARM_NAMES) + reset,
        text=[f"{value} ({reached} of {seeds})" for value, reached, seeds in counts],
    )
    table = soon.pivot(index=["arm", "learning_rate"], columns="study", values="text")
    table = table.reindex(columns=[title for title in book.studies if title in table]).fillna("")
    table = table.rename_axis(index=["", "rate"], columns=None)
    return table.rename(index=rate, level="rate").style


def numbers(book: Book):
    """The comparisons of claims 2 and 3 in words: one row per study and comparison."""
    parts = {title: inline.table(book, title, table) for title, table in _both_claims(book).items()}
    return without_index(by_study(parts))


def corrected(book: Book):
    """p values of what claim 2 rests on, corrected for the study's comparisons."""
    table = _corrected(book)
    table["p"] = ["–" if p != p else "< 0.001" if p < 0.001 else f"{p:.3f}" for p in table.p]
    order = {"index": list(dict.fromkeys(table.comparison)), "columns": list(book.tables)}
    table = table.pivot(index="comparison", columns="study", values="p").reindex(**order)
    return table.fillna("").rename_axis(index=None, columns=None).style


def _both_claims(book: Book) -> dict[str, pd.DataFrame]:
    """Of each study the comparisons of claims 2 and 3, none of them twice."""
    both = ["2. Boost", "3. Learning rate"]
    return {
        title: table[table.claim.isin(both)].drop_duplicates("comparison")
        for title, table in book.tables.items()
    }


def _corrected(book: Book) -> pd.DataFrame:
    """What claim 2 rests on, of all studies, with `study` and the corrected `p` (Holm)."""
    parts = []
    for title, table in book.tables.items():
        rows = table[(table.claim == "2. Boost") & table.decides.astype(bool)]
        p = analysis.holm(rows["mean"], rows.half, rows.n)
        parts.append(rows.assign(study=title, p=p))
    return (
        pd.concat(parts) if parts else pd.DataFrame(columns=["study", "comparison", "verdict", "p"])
    )


def _judged(book: Book, key: str) -> list[str]:
    """What each study's table says of a comparison; "refuted: no difference" is no loss."""
    rows = [claims.find(table, key) for table in book.tables.values()]
    rows = [row.to_frame().T for row in rows if row is not None]
    return [verdict for row in rows for verdict in claims.as_text(row).verdict]


def _held_out(runs: RunSet, epochs: int) -> pd.Series:
    """Best held-out accuracy within so many epochs, by seed, in per cent."""
    best = {r.parameters["seed"]: 100 * r.history.val_accuracy[:epochs].max() for r in runs}
    return pd.Series(best, dtype=float)


def _by_seed(runs: RunSet) -> dict[int, str]:
    """The runs, as "study/run", by seed."""
    return {run.parameters["seed"]: f"{run.study}/{run.name}" for run in runs}


def _mean_accuracy(runs: RunSet) -> str:
    return percent(runs.summary.test_accuracy.mean()) if len(runs) else NOT_YET
