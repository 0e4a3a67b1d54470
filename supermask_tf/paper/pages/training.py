"""Does masking train as well as training? Parity, by width; and which estimator."""

import re

import pandas as pd

from ...records import Run, RunSet
from .. import claims, plots, readings
from . import fair, inline
from .book import NOT_YET, Book, by_study, percent, signed, without_index
from .fair_parts import nothing

LENET = "LeNet-300-100, MNIST"
_ARMS = ["mask", "weights", "bn_only"]
# The post's arms, and the last epochs whose mean stands for a curve.
_POSTS, _LAST = ["mask", "weights", "finetune"], 10
_DRAWN = "LeNet-300-100 on MNIST: Bernoulli, masks drawn at evaluation"


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    drawn = {"estimator": "bernoulli", "draw_at_evaluation": True, "epochs": 10}
    ways = inline.by_seed(book.runs("ways_lenet").where(**drawn))
    recorded = {"bn": "mask-bn_only"}
    recorded |= {"bernoulli": "mask-bernoulli", "gentle": "mask-weights_0.001"}
    found = {name: inline.in_words(book, key) for name, key in recorded.items()}
    return found | beside_the_post(book) | at_the_fall(book) | {
        "answer": answer(book),
        "parity": claims.verdict_in_words(book.verdicts, "1. Parity"),
        "estimators": claims.verdict_in_words(book.verdicts, "6. Estimators"),
        "likely": inline.estimator(book, "mask-bernoulli_0.1"),
        "as_drawn": inline.estimator(book, "mask-bernoulli_0.1_drawn"),
        "drawn": inline.accuracy("ways_lenet/bernoulli_drawn", _DRAWN, ways),
        "anew": inline.in_words(book, "mask-weights", anew=True),
        "anew_bn": inline.in_words(book, "mask-bn_only", anew=True),
        "anew_verdict": anew_verdict(book),
        "by_width": gap_by_width(book),
        "narrowing": narrowing(book),
        "holds": where_parity_holds(book),
        "scale": at_the_posts_scale(book),
        "fair": fair.answer_to(book, "replaces_training"),
    }  # fmt: skip


def answer(book: Book) -> str:
    """Whether masking does as well as training, from the verdicts of claim 1."""
    verdicts = {verdict for verdict in book.verdicts.loc["1. Parity"] if verdict != "–"}
    rows = [claims.find(table, "mask-weights") for table in book.tables.values()]
    means = [row["mean"] for row in rows if row is not None and row.n > 1]
    if not verdicts or not means:
        return "No run that asks this has been made yet."
    where = "on every network of the first study"
    if verdicts == {"supported"}:
        first = f"Yes: training only the mask does as well as training the weights, {where}."
    elif verdicts == {"refuted"}:
        side = "less" if max(means) < 0 else "more" if min(means) > 0 else "not as much"
        first = f"No: a trained mask reads {side} than trained weights, {where}."
    elif "refuted" in verdicts and max(means) < 0:
        first = (
            f"Mostly not: a trained mask reads less than trained weights {where}, surely on some."
        )
    else:
        first = "That is not settled for all networks of the first study."
    told = inline.in_words(book, "mask-weights")
    return f"{first} Mask minus weights, in points of test accuracy: {told}."


def beside_the_post(book: Book) -> dict[str, str]:
    """The accuracies of the study `first`, and the post's, by "<dataset>_<arm>_<what>".

    The post's are means over its last ten epochs.
    """
    first, by = book.first, ["dataset", "arm"]
    last = first.history.sort_values("epoch").groupby(by).last()
    table = first.summary.set_index(by)
    post, found = _held_out(book), {}
    for dataset in ("mnist", "cifar10"):
        here = table.test_accuracy[dataset]
        found[f"{dataset}_parity"] = signed(100 * (here["mask"] - here["weights"]))
        there = post[dataset]
        found[f"{dataset}_post_parity"] = signed(100 * (there["mask"] - there["weights"]))
        for arm in ("mask", "weights", "finetune"):
            found |= {
                f"{dataset}_{arm}_train": percent(last.accuracy[dataset, arm]),
                f"{dataset}_{arm}_test": percent(here[arm], 2),
                f"{dataset}_{arm}_epoch": f"{table.best_epoch[dataset, arm]}",
                f"{dataset}_{arm}_post": percent(there[arm]),
            }
    return found


def at_the_posts_scale(book: Book) -> str:
    """What the post's own network reads here, beside the post's numbers; "" without its runs."""
    parts = []
    for dataset, runs in _of_the_post(book).items():
        name, told = plots.DATASET_NAMES[dataset], []
        for arm in _POSTS:
            own, theirs = runs.where(arm=arm), _held_out(book)[dataset, arm]
            means = {run: 100 * run.history.val_accuracy.tail(_LAST).mean() for run in own}
            pairs = pd.DataFrame(
                {
                    "points": list(means.values()),
                    "runs": [((f"paper/{run.name}",),) for run in means],
                },
                index=pd.Index([run.parameters["seed"] for run in means]),
            )
            title = f"WRN-28-8, {name}: {plots.ARM_NAMES[arm]}, held out, last ten epochs"
            here = inline.accuracy(f"paper/{dataset}_{arm}", title, pairs)
            told.append(f"{plots.ARM_NAMES[arm]} {here} (the post: {percent(theirs)})")
        seeds = runs.summary.seed.nunique()
        parts.append(
            f"We trained the post's own network too, a WRN-28-8, for its thirty epochs each, on"
            f" {name}, {'one seed' if seeds == 1 else f'{seeds} seeds'}. Held out, in the mean of"
            f" the last ten epochs, it reads: {'; '.join(told)}."
        )
        if not len(book.runs("paper").where(dataset=dataset, arm="weights_long")):
            parts.append(
                "A control is missing at this scale: what the dense network gains by as many"
                f" epochs at 1e-5 is {NOT_YET}."
            )
    return " ".join(parts)


def _of_the_post(book: Book) -> dict[str, RunSet]:
    """The runs at the post's scale by dataset, where its three arms are in."""
    found = {}
    for dataset in ("mnist", "cifar10"):
        runs = book.runs("paper").where(dataset=dataset, arm=_POSTS, learning_rate=[1e-2, 1e-5])
        if {run.parameters["arm"] for run in runs} == {*_POSTS}:
            found[dataset] = runs
    return found


def _held_out(book: Book) -> pd.Series:
    """The post's held-out accuracy, by dataset and arm: means over its last epochs."""
    post = book.table("book/published/post_training.csv").sort_values("epoch")
    held = post[post.split == "held_out"].groupby(["dataset", "arm"])
    return held.accuracy.apply(lambda curve: curve.tail(_LAST).mean())


def at_the_fall(book: Book) -> dict[str, str]:
    """Where held-out accuracy of the mask arm falls most on MNIST, and where fine-tuning begins."""
    first = book.first.where(dataset="mnist")
    mask = first.where(arm="mask")[0].history.set_index("epoch").val_accuracy
    lowest = mask.diff().idxmin()
    further = first.where(arm="finetune")[0].history.val_accuracy
    return {
        "lowest": percent(mask[lowest]),
        "before_lowest": percent(mask[lowest - 1]),
        "lowest_epoch": str(lowest),
        "first_epoch": percent(further.iloc[0]),
    }


def anew_verdict(book: Book) -> str:
    """What the rule of parity would say of the averages taken anew."""
    rows = {title: claims.find(table, "mask-weights") for title, table in book.without_lag.items()}
    parts = [
        f"{row.verdict} for {claims.named(title)}" for title, row in rows.items() if row is not None
    ]
    return ", ".join(parts) or NOT_YET


def gap_by_width(book: Book) -> str:
    """Mean of mask minus weights at each width, in points, averages taken anew."""
    parts = []
    for name, (gap, _) in _gaps(book).items():
        means = ", ".join(signed(gap[width].mean()) for width in gap)
        parts.append(f"{means} at widths {', '.join(map(str, gap.columns))} for {name}")
    return "; ".join(parts) or NOT_YET


def narrowing(book: Book) -> str:
    """By how much mask minus weights differs between the widest and the narrowest network."""
    parts = []
    for name, (gap, taken) in _gaps(book).items():
        wide, narrow = gap.columns.max(), gap.columns.min()
        change = (gap[wide] - gap[narrow]).dropna()
        runs = [(taken[wide][seed], taken[narrow][seed]) for seed in change.index]
        study = runs[0][0][0].partition("/")[0] if runs else ""
        title = f"{name}, averages anew, mask minus weights: width {wide} − width {narrow}"
        pairs = pd.DataFrame({"points": change, "runs": runs}, index=change.index)
        parts.append(f"{inline.difference(f'{study}/narrowing', title, pairs)} for {name}")
    return ", ".join(parts) or NOT_YET


def where_parity_holds(book: Book) -> str:
    """The networks, of all widths, for which parity is supported."""
    names = []
    for title, table in book.tables.items():
        rows = table[(table.claim == "1. Parity") & (table.rule == "equivalence")]
        for key in rows.key[rows.verdict == "supported"]:
            wide = re.search(r"mask_(\d+)_wide", key)
            names.append(claims.named(re.sub(r"-\d+,", f"-{wide[1]},", title) if wide else title))
    return "; ".join(names) or "none of those tried"


def parity_figure(book: Book):
    """Mask minus weights, by width, and mask minus batch norm alone."""
    return plots.differences(_parity(book))


def parity_evidence(book: Book) -> RunSet:
    """The runs that the comparisons of parity take."""
    return RunSet([run for runs in book.studies.values() for run in runs.where(arm=_ARMS)])


def width_figure(book: Book):
    """Accuracy of mask, weights and batch norm alone by the width of a WRN-10."""
    wide = [runs for title, runs in book.begun.items() if title.startswith("WRN-10")]
    summary = readings.tidy(pd.concat([runs.summary for runs in wide]))
    own = summary.groupby("dataset").epochs.transform(lambda epochs: epochs.mode()[0])
    chosen = readings.plain(summary) & (summary.epochs == own) & summary.arm.isin(_ARMS)
    return plots.by_width(summary[chosen])


def width_evidence(book: Book) -> RunSet:
    """The runs of these networks."""
    wide = [runs for title, runs in book.begun.items() if title.startswith("WRN-10")]
    return RunSet([run for runs in wide for run in runs.where(arm=_ARMS)])


def parity_table(book: Book):
    """The comparisons of parity in words: one row per study and comparison."""
    parts = {title: inline.table(book, title, table) for title, table in _parity(book).items()}
    return without_index(by_study(parts))


def curves(book: Book):
    """Accuracy by epoch of the study `first`, and the post's."""
    published = book.table("book/published/post_training.csv")
    return plots.training(book.first.history, published=published)


def curves_at_scale(book: Book):
    """Accuracy by epoch of the post's own network, and the post's curves."""
    runs = RunSet([run for runs in _of_the_post(book).values() for run in runs])
    if not len(runs):
        return nothing()
    return plots.training(runs.history, published=book.table("book/published/post_training.csv"))


def scale_evidence(book: Book) -> RunSet:
    """The runs of the study `paper`."""
    return book.runs("paper")


def curves_evidence(book: Book) -> RunSet:
    """The runs of the study `first`."""
    return book.first


def estimators_figure(book: Book):
    """Threshold minus Bernoulli: by the rule, and on LeNet-300-100 beside it."""
    tables = {title: table[table.claim == "6. Estimators"] for title, table in book.tables.items()}
    if LENET in tables:
        tables[LENET] = pd.concat([tables[LENET], book.estimators])
    return plots.differences(tables)


def estimators_evidence(book: Book) -> RunSet:
    """The runs that the comparisons of estimators take."""
    found: list[Run] = []
    for runs in book.begun.values():
        own = {"epochs": int(runs.summary.epochs.mode()[0]), "width": [None, 2, 8]}
        found += runs.where(arm="mask", initial_logit=1.0, shortcut=None, **own)
    return RunSet([*found, *book.runs("ways_lenet").where(estimator="bernoulli", epochs=10)])


def _parity(book: Book) -> dict[str, pd.DataFrame]:
    """The comparisons of parity of each study; behind them those with the averages taken anew."""
    found = {title: table[table.claim == "1. Parity"] for title, table in book.tables.items()}
    for title, table in book.without_lag.items():
        again = table[table.key.isin(["mask-weights", "mask-bn_only"])]
        texts = again.comparison + ", averages anew"
        again = again.assign(key=again.key + "_anew", comparison=texts, decides=False)
        found[title] = pd.concat([found[title], again])
    return found


def _gaps(book: Book) -> dict[str, tuple[pd.DataFrame, pd.DataFrame]]:
    """Mask minus weights in points, averages taken anew: one row per seed, one column per width;
    and in the same places the runs of both.
    """
    found = {}
    for title, accuracies in book.averages_anew.items():
        summary = readings.tidy(book.begun[title].summary)
        summary["anew"] = 100 * summary.run.map(accuracies)
        summary = summary.dropna(subset="anew")
        chosen = summary[summary.arm.isin(["mask", "weights"])]
        arms = chosen.pivot(index=["width", "seed"], columns="arm", values=["anew", "run"])
        gap = (arms["anew"]["mask"] - arms["anew"]["weights"]).astype(float).dropna()
        study = claims.STUDIES[title]
        names = f"{study}/" + arms["run"].loc[gap.index]
        taken = pd.Series([*zip(names["mask"], names["weights"])], index=gap.index, dtype=object)
        name = claims.named(title).replace("-2", "")
        found[name] = gap.unstack("width"), taken.unstack("width")
    return found
