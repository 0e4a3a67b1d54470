"""The front page: the answer, and every claim with its verdict."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ...records import RunSet
from .. import analysis, claims, fair_plots, mask_plots, plots, readings
from .. import diagram as drawing
from .. import fair as fair_rules
from . import fair, fair_parts, inline, sparse, tickets, training, utilisation
from . import see as see_page
from .book import NOT_YET, Book, signed
from .boost import answer

LENET, CIFAR = "LeNet-300-100, MNIST", "WRN-10-2, CIFAR-10"
# What is trained on at 1e-5: the arm before, and the arm that goes on.
_MASKED, _DENSE = ("mask", "finetune"), ("weights", "weights_long")

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
    runs = evidence(book)
    return {
        "answer": whole_answer(book),
        "contrast": fair.contrast(book),
        "sparser": sparse.answer(book),
        "margin": fair.seeds(book),
        "budget": fair.budget(book),
        "cause": cause(book),
        "jump": jump(book),
        "scale": training.at_the_posts_scale(book),
        "first": first_study(book),
        "corrected": corrected(book),
        "runs": str(len(runs)),
        "hours": f"{sum(run.summary['seconds'] for run in runs) / 3600:.0f}",
    } | openings(book) | fair_tests(book) | surprises(book) | seeds(book)  # fmt: skip


def openings(book: Book) -> dict[str, str]:
    """What masks over random weights read, a fifth of the weights kept: "supermask", "random"."""
    table, found = readings.methods(book.runs("tickets_lenet")), {}
    for method in ("supermask", "random"):
        rows = table[(table.method == method) & (table.density == 0.2)]
        names = [((f"{run.study}/{run.name}",),) for run in rows.run]
        pairs = pd.DataFrame({"points": 100 * rows.start.to_numpy(), "runs": names})
        pairs.index = pd.Index(rows.seed)
        title = f"LeNet-300-100 on MNIST: {method} over the untrained weights, a fifth kept"
        name = f"tickets_lenet/start_{method}_20"
        found[method] = inline.accuracy(name, title, pairs, digits=0)
    return found


def whole_answer(book: Book) -> str:
    """The answer of the fair test if all its questions have one; else the first study's."""
    tables = fair.answers(book)
    words = [set(table.word) - {NOT_YET} for table in tables.values()]
    if any(len(table) and NOT_YET not in set(table.word) for table in tables.values()):
        return f"{fair.answer(tables, fair.kept(book))} {sparse.matters(book)}".rstrip()
    begun = " Fairer tests are being run" + ("; what is in stands below." if any(words) else ".")
    return answer(book) + begun


def cause(book: Book) -> str:
    """Where the post's jump came from, by the fair test's sixth question."""
    caught, others = [], []
    for study, table, gains, ends in fair.jumped(book):
        weights, mask, dense = table["mean"]
        if weights - table.half.iloc[0] > max(mask + table.half.iloc[1], 0):
            caught.append(
                f"On {study} the mask gains {gains[0]} points by it. Going on with the mask alone"
                f" gains {gains[1]}, and a dense network, which is trained already, {gains[2]}. The"
                f" jump ends at {ends[0]}, the dense network at {ends[1]}."
            )
        else:
            others.append(f"On {study} the weights gain no more than the mask itself does.")
    if caught:
        caught[0] = (
            "On these small networks the jump is catching up: weights that were never trained begin"
            " to train. Here the same epochs follow a training whose rate fell to zero."
            f" {caught[0]}"
        )
    return " ".join([*caught, *others]) or f"What the fair test says of it is {NOT_YET}."


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


def jump(book: Book) -> str:
    """Where the post's jump came from: what the further epochs add with a mask and without one."""
    further = {
        title: (_gain(book, title, *_MASKED), _gain(book, title, *_DENSE)) for title in book.begun
    }
    both = {title: found for title, found in further.items() if all(len(f) > 2 for f in found)}
    if not both:
        return f"What further epochs add is {NOT_YET}."
    parts, more = [], []
    for title, (masked, dense) in both.items():
        told = [
            inline.difference(
                f"{_folder(title)}/gain_{name}", f"{claims.named(title)}: {text}", gain
            )
            for name, text, gain in (
                ("mask", "mask, then weights at 1e-5 − mask", masked),
                ("dense", "dense, longer at 1e-5 − dense", dense),
            )
        ]
        parts.append(f"{told[0]} after a mask and {told[1]} without one on {claims.named(title)}")
        apart = (masked.points - dense.points).dropna()
        if analysis.difference(apart.to_numpy()).verdict == "supported":
            more.append(claims.named(title))
    listed = "; ".join(parts)
    if not more:
        end = "On none of these does the mask surely add to it."
    elif len(more) == len(both):
        end = "The mask surely adds to it on each of these."
    else:
        end = f"The mask surely adds to it on {' and '.join(more)} alone."
    return (
        "In the first study, whose dense networks were not trained out, the same rate of 1e-5 adds,"
        f" in points: {listed}. {end}"
    )


def first_study(book: Book) -> str:
    """What the first study found, while the fair test has no answers; "" once it has some."""
    if any((table.word != NOT_YET).any() for table in fair.answers(book).values()):
        return ""
    starts = inline.in_words(book, "rewind-weights")
    longer = inline.in_words(book, "finetune_low-weights_long_low")
    return (
        "Their runs are being made now. Until they are in, the first study’s answer stands, in "
        f"points of test accuracy. Mask, then weights, against the dense network trained as long: "
        f"{longer}. Weights from θ0 under the mask, against the dense network: {starts}."
    )


def fair_tests(book: Book) -> dict[str, str]:
    """One sentence per question of the fair test: "fair_same_time", ..."""
    begun = fair.answers(book)
    return {
        f"fair_{key}": fair.answer_to(book, key) if begun else "Not in yet."
        for key in fair_rules.QUESTIONS
    }


def surprises(book: Book) -> dict[str, str]:
    """What surprised us, each sentence chosen by its result."""
    return {
        "logit": starting_logit(book),
        "estimator": which_estimator(book),
        "shortcuts": shortcuts(book),
        "evil": tickets.fewest(book),
        "two_things": tickets.two_things(book),
    }


def starting_logit(book: Book) -> str:
    """What a mask gains whose logits start at 0.05 instead of the post's 1."""
    parts, signs = [], set()
    for title, runs in book.begun.items():
        summary = readings.tidy(runs.where(arm="mask", estimator="threshold").summary)
        if not len(summary):
            continue
        epochs, width = readings.own_scale(readings.tidy(runs.summary))
        own = summary[
            (summary.epochs == epochs) & (summary.width == width) & (summary.shortcut == "1x1")
        ]
        pairs = analysis.paired_runs(own, {"initial_logit": 0.05}, {"initial_logit": 1.0})
        if len(pairs) > 1:
            name = f"{_folder(title)}/logit"
            text = f"{claims.named(title)}: mask from a logit of 0.05 − from 1"
            parts.append(f"{inline.difference(name, text, pairs)} on {claims.named(title)}")
            signs.add(bool(pairs.points.mean() > 0))
    if not parts:
        return f"What the starting logit is worth is {NOT_YET}."
    if len(signs) > 1:
        head = "Where the logits start matters more than we thought, and not one way"
    elif True in signs:
        head = "Start the mask’s logits near the threshold and the mask reads better"
    else:
        head = (
            "Start the mask’s logits far from the threshold, as the post did, and it reads better"
        )
    told = f"{head}: from 0.05 instead of 1, in points, {', '.join(parts)}."
    if tuned := _logits_at_their_own_rates(book):
        told += f" With a rate tuned for each start, it is {tuned} (held-out images)."
    return told


def _logits_at_their_own_rates(book: Book) -> str:
    """What the fair test's tuning says of a start at 0.05 instead of 1; "" if nothing."""
    parts = []
    for name, study in fair_rules.STUDIES.items():
        table = fair_parts.tuned(book, name, study)
        table = table[(table.role == "mask") & (table.way == "threshold")]
        best = table.groupby("initial_logit").accuracy.max()
        if {0.05, 1.0} <= set(best.index):
            gain = round(best[0.05] - best[1.0], 1) + 0.0  # which makes +0 of −0
            edge = table[table.initial_logit.isin([0.05, 1.0])].edge.any()
            last = " (best rates on the edge of those tried)" * bool(edge)
            parts.append(f"{signed(gain, 1)} on {study.title}{last}")
    return ", ".join(parts)


def which_estimator(book: Book) -> str:
    """Threshold against Bernoulli: at the post's rate, and at a rate chosen for the latter."""
    at_posts = _found(book, LENET, "mask-bernoulli")
    at_own = claims.find(book.estimators, "mask-bernoulli_0.1_drawn")
    if at_posts is None or at_own is None or min(at_posts.n, at_own.n) < 2:
        return f"Which estimator wins is {NOT_YET}."
    first = "beats" if at_posts["mean"] > 0 else "loses to"
    told = inline.of(book, LENET, at_posts).lstrip("+−")
    again = inline.estimator(book, "mask-bernoulli_0.1_drawn")
    turned = (at_posts["mean"] > 0) != (at_own["mean"] > 0)
    end = "and the order turns round" if turned else "and the order stays"
    return (
        f"At the post’s learning rate, thresholding {first} sampling by {told} points on "
        "LeNet-300-100. Give sampling a rate of its own and test it as it was trained, by drawn "
        f"masks, {end}: {again}."
    )


def shortcuts(book: Book) -> str:
    """What the 1×1 shortcuts lose beside other layers, and whether their size is the reason."""
    layers = book.runs("first").where(arm="mask").utilisation
    if not len(layers):
        return f"What shortcuts lose is {NOT_YET}."
    layers = layers[layers.dataset == "cifar10"]
    small = layers.kind == "1x1 shortcut"
    own, others = 100 * layers[small].masked.mean(), 100 * layers[~small].masked.mean()
    few = own < others
    found = _found(book, CIFAR, "shortcuts_wide-shortcuts_1x1")
    head = (
        f"The 1×1 shortcuts lose {own:.0f} % of their weights, other layers {others:.0f} %"
        " (WRN-16-1 on CIFAR-10)."
    )
    if not few or found is None or found.n < 2:
        return head
    told = inline.of(book, CIFAR, found)
    if found.verdict == "supported":
        end = f"Size is part of it: with nine times the weights they lose {told} points more."
    else:
        end = (
            "Their small size does not explain it: with nine times the weights they do not surely "
            f"lose more ({told} points, WRN-10-2)."
        )
    return f"{head} {end}"


def _gain(book: Book, title: str, arm: str, further: str) -> pd.DataFrame:
    """What training on at 1e-5 gains, in points, by seed with its runs."""
    summary = readings.tidy(book.begun[title].summary)
    epochs, width = readings.own_scale(summary)
    own = (summary.epochs == epochs) & (summary.width == width) & ~summary.reset_batch_norm
    after = {"arm": further, "learning_rate": 1e-5}
    before = {"arm": arm, "learning_rate": 0.01}
    return analysis.paired_runs(summary[own & readings.plain(summary)], after, before)


def seeds(book: Book) -> dict[str, str]:
    """How many seeds the comparisons have at most: `lenet_n`, `tickets_n`, `wide_n`."""
    most = {title: int(table.n.max()) for title, table in book.tables.items()}
    wide = [n for title, n in most.items() if title.startswith("WRN")] or [0]
    return {
        "lenet_n": str(most.get("LeNet-300-100, MNIST", 0)),
        "tickets_n": str(int(book.kinds.n.max()) if len(book.kinds) else 0),
        "wide_n": "–".join(str(n) for n in dict.fromkeys((min(wide), max(wide)))),
    }


def see_still(book: Book):
    """The still picture of the page "See a supermask"."""
    return see_page.still(book)


def diagram(book: Book):
    """The experiment, with every arm by its name."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(drawing.experiment())


def jump_figure(book: Book):
    """Accuracy before and after the further epochs, with a mask and without one."""
    rows = []
    for title, runs in book.begun.items():
        accuracy = {f"{run.study}/{run.name}": 100 * run.summary["test_accuracy"] for run in runs}
        lines = (
            ("mask, then weights", "finetune", _MASKED),
            ("dense, longer", "weights_long", _DENSE),
        )
        for name, arm, pair in lines:
            pairs = [
                [accuracy[side[0]] for side in sides] for sides in _gain(book, title, *pair).runs
            ]
            if pairs:
                after, before = np.array(pairs).T
                rows.append((title, name, plots.ARM_COLOURS[arm], before, after))
        theirs = _posts_jump(book, title.partition(", ")[2])
        if theirs is not None and title.startswith("WRN"):
            rows.append((title, "the post, WRN-28-8", "0.3", *theirs))
    return mask_plots.jumps(rows, "after more epochs at 1e-5") if rows else fair_parts.nothing()


def _posts_jump(book: Book, dataset: str) -> tuple[np.ndarray, np.ndarray] | None:
    """The post's held-out accuracy of mask, and of mask then weights, means of ten epochs."""
    names = {name: key for key, name in plots.DATASET_NAMES.items()}
    curves = book.table("book/published/post_training.csv").sort_values("epoch")
    held = curves[(curves.split == "held_out") & (curves.dataset == names.get(dataset))]
    means = held.groupby("arm").accuracy.apply(lambda curve: 100 * curve.tail(10).mean())
    if not {"mask", "finetune"} <= set(means.index):
        return None
    return np.array([means["mask"]]), np.array([means["finetune"]])


def fair_figure(book: Book):
    """A row per question of the fair test that has runs."""
    rows = fair.every_row(book)
    return fair_plots.gaps(rows, "first − second") if rows else fair_parts.nothing()


def sparse_figure(book: Book):
    """Where training ends by the share of the weights that the mask keeps."""
    return sparse.by_share(book)


def masks_figure(book: Book):
    """The first layer of a supermask: units as images, and all of them as one map."""
    return utilisation.first_layer(book)


def headline(book: Book) -> tuple[Figure, str]:
    """The README's figure, all questions on each network and dataset, and its numbers as CSV."""
    panels = fair.panels(book)
    numbers = pd.DataFrame(
        [
            (title, what, *analysis.interval(points), len(points), word)
            for title, rows in panels.items()
            for what, points, _, word in rows
        ],
        columns=["study", "difference", "mean", "half", "seeds", "word"],
    )
    return fair_plots.headline(panels), numbers.to_csv(index=False, float_format="%.4g")


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


def folded(book: Book):
    """Every claim with its verdicts, and the comparisons beside them, folded."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(
        '<details class="fold"><summary>Show the seven claims of the first study, and their '
        f"numbers</summary>{every_claim(book).to_html()}"
        "<p>In points of test accuracy, with 95 % intervals over seeds:</p>"
        f"{differences(book).to_html()}</details>"
    )


def _found(book: Book, title: str, key: str) -> pd.Series | None:
    """A comparison of one study; None if the study has no runs, or does not make it."""
    return claims.find(book.tables[title], key) if title in book.tables else None


def _folder(title: str) -> str:
    return claims.STUDIES.get(title, "paper")


def _verdicts(book: Book) -> pd.DataFrame:
    """The verdicts of all claims; the seventh is asked of LeNet-300-100 on MNIST alone."""
    found = book.verdicts.copy()
    kinds = claims.verdicts({"kinds": book.kinds})
    found.loc["7. Two kinds of mask", "LeNet-300-100, MNIST"] = kinds.kinds["7. Two kinds of mask"]
    return found


def _deciding(book: Book) -> dict[str, pd.DataFrame]:
    """The comparisons that claim 2 rests on, by study."""
    return {
        title: table[(table.claim == "2. Boost") & table.decides.astype(bool)]
        for title, table in book.tables.items()
    }
