"""The paper's claims, as comparisons of records. No TensorFlow.

The rule of each claim stands on the book's page of claims, written before the runs; here it is applied::

    table = claims.comparisons(load_runs("runs/lenet"))     # one study: a row a comparison
    claims.verdicts({"lenet": table})                       # a row a claim, a column a study
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from . import overlap
from .analysis import NEGLIGIBLE, Verdict, best_rate, by_claim, check_one_run_a_seed, difference, equivalence, interval, over_seeds, paired
from ..records import RunSet, load_runs

__all__ = [
    "CLAIMS", "HIGHEST_MASKED", "PAPER", "STUDIES", "as_text", "at_own_rates", "averages_anew", "by_way", "comparisons", "epochs_to", "estimators", "headline", "methods", "most_masked", "named", "plain_masks", "ruled", "said", "studies", "tickets", "tidy", "verdicts", "ways", "weights_coefficients",
]

CLAIMS = {
    "1. Parity": "Training only the mask reaches what training the weights reaches",
    "2. Boost": "The masked network is a better place to start from",
    "3. Learning rate": "Larger steps wipe the boost out",
    "4. Utilisation": "Layers with fewer weights mask less",
    "5. At most 16 %": "No layer masks more than about 16 %",
    "6. Estimators": "The threshold estimator beats the Bernoulli one",
    "7. Two kinds of mask": "Supermasks and lottery tickets are two kinds of mask",
}
# The studies that were made for the claims: what they ran on, and the folder of their records.
STUDIES = {"LeNet-300-100, MNIST": "lenet", "WRN-10-2, MNIST": "wrn_mnist", "WRN-10-2, CIFAR-10": "wrn_cifar10"}
# The post's own scale, for which a GPU is needed: both datasets in the folder `paper`, shown once it has records.
PAPER = {"WRN-28-8, MNIST": "mnist", "WRN-28-8, CIFAR-10": "cifar10"}
# The largest fraction in the post's two figures of mask utilisation.
HIGHEST_MASKED = 0.164


def studies(folder: str | Path) -> dict[str, RunSet]:
    """The runs of each study in STUDIES, by its title; a study without records yet is an empty set. Behind them those at the
    post's scale, of the datasets that have records."""
    paper = load_runs(Path(folder) / "paper", missing_ok=True)
    at_scale = {title: paper.where(dataset=dataset, depth=28, width=8) for title, dataset in PAPER.items()}
    return {title: load_runs(Path(folder) / name, missing_ok=True) for title, name in STUDIES.items()} | {title: runs for title, runs in at_scale.items() if len(runs)}


def comparisons(runs: RunSet, accuracies: pd.Series | None = None) -> pd.DataFrame:
    """Every comparison that the runs of one study allow, with its verdict.

    The study's own length and width are those that most of its runs have; other widths and longer runs are compared with
    their like.

    Args:
        runs: the runs of one study: one dataset, one model.
        accuracies: what is compared instead of the recorded test accuracy, fractions by the run's name, such as those with batch
            norm's averages taken anew (`averages_anew`); a run that it lacks is left out.

    Returns:
        A row a comparison: `claim`, `comparison`, `rule`, `mean`, `half` (points), `n` (seeds), `verdict`, and `decides`:
        whether the claim's verdict rests on it, or it is shown beside.
    """
    if not len(runs):
        return pd.DataFrame(columns=["claim", "comparison", "rule", "mean", "half", "n", "verdict", "decides"])
    summary = tidy(runs.summary)
    if accuracies is not None:
        summary["test_accuracy"] = summary.run.map(accuracies)
    epochs, width = _scale(summary)
    base = {"epochs": epochs, "width": width, "shortcut": "1x1", "initial_logit": 1.0, "estimator": "threshold", "reset_batch_norm": False}
    summary = summary[[_from_plain(run, base) for run in runs]]
    own = summary[(summary.epochs == epochs) & (summary.width == width) & ~summary.reset_batch_norm]
    # Both choose among the rates that both have tried with every seed: a rate that only some seeds have yet is no choice.
    seeds = {arm: own[own.arm == arm].groupby("learning_rate").seed.nunique() for arm in ("finetune", "weights_long")}
    tried = set.intersection(*(set(counts.index[counts == own.seed.nunique()]) for counts in seeds.values()))
    rates = {arm: best_rate(own[own.learning_rate.isin(tried)], arm) for arm in ("finetune", "weights_long")}
    gentler = sorted(set(own[own.arm == "weights"].learning_rate) - {0.01})
    best = rates["finetune"] or 1e-5, rates["weights_long"] or 1e-5
    batch_norm = (summary.model == "wide_resnet").all()

    def side(name, arm, **values):
        return name, base | {"arm": arm} | values

    mask, weights = side("mask", "mask"), side("weights", "weights", learning_rate=0.01)
    finetune = {rate: side(f"fine-tuned at {_plain(rate)}", "finetune", learning_rate=rate) for rate in (1e-5, 1e-2, best[0])}
    longer = {rate: side(f"weights longer at {_plain(rate)}", "weights_long", learning_rate=rate) for rate in (1e-5, 1e-2, best[1])}
    reset = side("fine-tuned, batch norm reset", "finetune", learning_rate=1e-5, reset_batch_norm=True)
    rewind = side("weights from θ0 under the mask", "rewind")
    others = {
        (arm, rate): side(f"{arm.partition('_')[0]} mask {'fine-tuned' if rate < 1e-2 else 'fully trained'}", arm, learning_rate=rate,
                          reset_batch_norm=bool(batch_norm and rate == 1e-2))
        for arm in ("random_mask", "shuffled_mask") for rate in (1e-5, 1e-2)
    }

    rows = []

    def row(claim, comparison, points, decides=True, rule=difference):
        rows.append({"claim": claim, "comparison": comparison, "rule": rule.__name__, **asdict(rule(points)), "decides": decides})

    def compare(claim, a, b, decides=True, rule=difference):
        row(claim, f"{a[0]} − {b[0]}", paired(summary, a[1], b[1]), decides, rule)

    compare("1. Parity", mask, weights, rule=equivalence)
    for other in sorted(set(summary[summary.arm == "mask"].width) - {width}):
        compare("1. Parity", *(side(f"{name} ({other} wide)", name, width=other, learning_rate=0.01) for name in ("mask", "weights")), False, equivalence)
    for rate in gentler:
        compare("1. Parity", mask, side(f"weights at {_plain(rate)}", "weights", learning_rate=rate), False, equivalence)
    if batch_norm:
        compare("1. Parity", mask, side("batch norm only", "bn_only"), decides=False)

    compare("2. Boost", finetune[1e-5], longer[1e-5])
    if best[1] != 1e-5:
        compare("2. Boost", finetune[1e-5], longer[best[1]])
    if not tried:  # until then this control is open, not absent
        row("2. Boost", "fine-tuned at 1e-5 − weights longer at its own best rate", [])
    if best[0] != 1e-5:
        compare("2. Boost", finetune[best[0]], longer[best[1]], decides=False)
    compare("2. Boost", finetune[1e-5], ("weights, half as long", weights[1]), decides=False)  # as the post compared
    compare("2. Boost", rewind, weights)
    if batch_norm:
        compare("2. Boost", finetune[1e-5], reset)
        compare("2. Boost", reset, longer[1e-5], decides=False)
        compare("2. Boost", reset, others["random_mask", 1e-5], decides=False)  # which inherits the learned mask's batch norm
    for arm in ("random_mask", "shuffled_mask"):
        compare("2. Boost", finetune[1e-5], others[arm, 1e-5])
    for arm in ("random_mask", "shuffled_mask"):
        compare("2. Boost", rewind, others[arm, 1e-2])
    if not batch_norm:  # without it, fine-tuning is training from θ0 under the mask at another rate
        for rate in gentler:
            compare("2. Boost", side(f"fine-tuned at {_plain(rate)}", "finetune", learning_rate=rate), side(f"weights at {_plain(rate)}", "weights", learning_rate=rate), False)

    compare("3. Learning rate", finetune[1e-5], finetune[1e-2])
    compare("3. Learning rate", finetune[1e-2], longer[1e-2], False)

    if batch_norm:
        row("4. Utilisation", "masked for ten times the weights", 100 * weights_coefficients(runs))
        row("4. Utilisation", "the same within a network", 100 * weights_coefficients(runs, within=True), False)
        plain, *replaced = (_shortcuts_masked(runs, base | {"shortcut": kind}) for kind in ("1x1", "3x3", "wide"))
        for kind, masked in zip(("3×3 shortcuts", "wide 1×1 shortcuts"), replaced):
            row("4. Utilisation", f"masked by {kind} − by 1×1 shortcuts", 100 * (masked - plain).dropna().to_numpy())

    table = most_masked(runs)
    for _, found in table.iterrows():
        enough = found.n >= 3
        rows.append({"claim": "5. At most 16 %", "comparison": f"most masked layer, {found.condition} − {100 * HIGHEST_MASKED:.1f} %", "rule": "at most",
                     **asdict(Verdict("not settled" if not enough else "refuted" if found["mean"] > HIGHEST_MASKED else "supported",
                                      100 * (found["mean"] - HIGHEST_MASKED), 100 * found.half, int(found.n))), "decides": True})

    compare("6. Estimators", mask, side("Bernoulli", "mask", estimator="bernoulli"))
    return pd.DataFrame(rows)


def averages_anew(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Test accuracies with batch norm's moving averages taken anew, by the title of the study and the name of the run.

    Args:
        table: benchmarks/batch_norm.csv, which `python benchmarks/batch_norm.py` writes.
    """
    return {title: table[table.study == folder].set_index("run").renewed for title, folder in STUDIES.items() if folder in set(table.study)}


def estimators(runs: RunSet) -> pd.DataFrame:
    """Claim 6 beside its rule: the threshold estimator against the Bernoulli one at the rate that suits that.

    Args:
        runs: those of the studies `lenet` and `ways_lenet`.

    Returns:
        As `comparisons`: a row for Bernoulli's most likely mask, and one for masks drawn at evaluation as they are in training.
    """
    rows, summary = [], tidy(runs.summary)
    base = {"arm": "mask", "epochs": 10, "initial_logit": 1.0}
    for name, drawn in (("Bernoulli at 0.1", False), ("Bernoulli at 0.1, drawn at evaluation", True)):
        points = paired(summary, base | {"estimator": "threshold", "learning_rate": 0.01}, base | {"estimator": "bernoulli", "learning_rate": 0.1, "draw_at_evaluation": drawn})
        rows.append({"claim": "6. Estimators", "comparison": f"mask − {name}", "rule": "difference", **asdict(difference(points)), "decides": False})
    return pd.DataFrame(rows)


def tickets(runs: RunSet) -> pd.DataFrame:
    """The comparisons of claim 7: supermasks and lottery tickets from the same θ0 at the same density.

    Args:
        runs: those of the study `tickets_lenet`.

    Returns:
        As `comparisons`. The claim rests on a density of 0.2; the other rows are beside the rule.

    Raises:
        ValueError: if two runs of a seed have the same method and density.
    """
    if not len(runs):
        return pd.DataFrame(columns=["claim", "comparison", "rule", "mean", "half", "n", "verdict", "decides"])
    table = methods(runs)
    twice = table[table.duplicated(["method", "density", "seed"])]
    if len(twice):
        raise ValueError(f"Several runs of a seed are called {twice.method.iloc[0]!r} at density {twice.density.iloc[0]:g}: choose among them with RunSet.where(...), such as by learning_rate.")
    rows = []

    def row(comparison, points, decides):
        rows.append({"claim": "7. Two kinds of mask", "comparison": comparison, "rule": "difference", **asdict(difference(points)), "decides": decides})

    def compare(comparison, a, b, density, value, decides=False):
        one, other = (table[(table.method == method) & (table.density == (1.0 if method == "dense" else density))].set_index("seed")[name] for method, name in zip((a, b), value))
        row(f"{comparison}, {100 * density:g} % kept", (100 * (one - other)).dropna().to_numpy(), decides)

    for density in (0.2, 0.5, 0.05):
        decides = density == 0.2
        pairs = [(table[(table.method == method) & (table.density == density)].set_index("seed")["mask"]) for method in ("supermask", "ticket")]
        beyond = [overlap.shared(pairs[0][seed], pairs[1][seed]).beyond.iloc[-1] for seed in pairs[0].index.intersection(pairs[1].index)]
        row(f"½ − overlap beyond chance, {100 * density:g} % kept", 100 * (0.5 - np.array(beyond)), decides)
        compare("without training: supermask − ticket", "supermask", "ticket", density, ("start", "start"), decides)
        compare("trained from θ0: ticket − supermask", "ticket", "supermask", density, ("trained", "trained"), decides)
        compare("trained from θ0: ticket − random mask", "ticket", "random", density, ("trained", "trained"))
        compare("trained from θ0: supermask − random mask", "supermask", "random", density, ("trained", "trained"))
        for method, name in (("supermask", "supermask"), ("ticket", "ticket"), ("random", "random mask")):
            compare(f"trained from θ0: {name} − dense network", method, "dense", density, ("trained", "trained"))
    for density in (0.2, 0.05):
        compare("by rounds − one shot", "ticket by rounds", "ticket", density, ("trained", "trained"))
        compare("rewound to epoch 1 − to θ0", "ticket, rewound to epoch 1", "ticket", density, ("trained", "trained"))
        compare("over all layers − by layer", "ticket over all layers", "ticket", density, ("trained", "trained"))
        compare("weights pruned and trained on − ticket", "pruned", "ticket", density, ("trained", "trained"))
    return pd.DataFrame(rows)


def methods(runs: RunSet) -> pd.DataFrame:
    """The masks of the study `tickets_lenet`: what each is worth without training, and after it.

    Returns:
        A row a mask and way to train on: `method`, `density`, `seed`, `mask` (a `Run` that has it), `start` (test accuracy without
        training: of the mask on θ0, of the trained weights it prunes, or on those of epoch 1; NaN for the dense network) and
        `trained` (after training; for the criteria too).
    """
    rows, by_name = [], {run.name: run for run in runs}
    pruned_on = {run.parameters["init_from"] for run in runs if run.parameters["arm"] == "ticket"}
    for run in runs:
        p, s = run.parameters, run.summary
        if p["arm"] == "ticket":
            name = "ticket by rounds" if p["parent"]["arm"] == "ticket" or run.name in pruned_on else f"ticket, rewound to epoch {p['rewind_epochs']}" if p["rewind_epochs"] else \
                "ticket over all layers" if p["scope"] == "global" else "ticket" if p["criterion"] == "large_final" else p["criterion"].replace("_", " ")
            rows.append((name, p["density"], p["seed"], run, s["start_accuracy"], s["test_accuracy"]))
        elif p["arm"] in ("rewind", "finetune") and p["init_from"] in by_name:
            rows.append(("supermask" if p["arm"] == "rewind" else "supermask, fine-tuned", p["density"], p["seed"], by_name[p["init_from"]], s["start_accuracy"], s["test_accuracy"]))
        elif p["arm"] == "weights":
            rows.append(("dense", 1.0, p["seed"], run, np.nan, s["test_accuracy"]))
        elif p["arm"] == "prune":
            rows.append(("pruned", p["density"], p["seed"], run, s["start_accuracy"], s["test_accuracy"]))
    return pd.DataFrame(rows, columns=["method", "density", "seed", "mask", "start", "trained"])


def ways(frame: pd.DataFrame) -> pd.Series:
    """A name for how a mask was found, the estimator and what it was given, for each row of `RunSet.summary` or `RunSet.history`."""
    def name(row):
        given = {key: value for key, value in row.items() if value is not None and value == value}  # what does not apply is None or NaN
        if given["arm"] == "weights":
            return "weights trained"
        parts = [f"top_k, {100 * given['density']:g} % kept" if given["estimator"] == "top_k" else given["estimator"]]
        parts += ["density lowered"] if "density_start" in given else []
        parts += ["drawn at evaluation"] if given.get("draw_at_evaluation") else []
        parts += ["signed constants, rescaled"] if given["initializer"].startswith("signed") else []
        return ", ".join(parts)

    return frame.apply(name, axis=1)


def by_way(runs: RunSet) -> pd.DataFrame:
    """Mean test accuracy and density over seeds of each way to find a mask, best first.

    Returns:
        Columns `way`, `epochs`, `learning_rate`, `mean` and `half` (test accuracy and its 95 % t interval, fractions), `kept`
        (fraction of the weights) and `held_out` (accuracy on held-out training images, to choose by), means over seeds, `n`.

    Raises:
        ValueError: if runs of a seed differ in what makes no way of its own, such as the arm or where the logits start.
    """
    summary = runs.summary
    if len(summary):
        summary["way"] = ways(summary)
        check_one_run_a_seed(summary, ("way", "epochs", "learning_rate"))
    summary = summary.assign(kept=1 - summary.masked, held_out=summary.val_accuracy) if len(summary) else pd.DataFrame(columns=["way", "epochs", "learning_rate", "test_accuracy", "kept", "held_out"])
    by = ["way", "epochs", "learning_rate"]
    table = over_seeds(summary, "test_accuracy", by) if len(summary) else pd.DataFrame(columns=[*by, "mean", "half", "n"])
    return table.merge(summary.groupby(by, as_index=False)[["kept", "held_out"]].mean(), on=by).sort_values("mean", ascending=False, ignore_index=True)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of `comparisons` for reading: the mean with the half-width of its 95 % interval and the seeds in one column.

    Verdicts beside the rule are in brackets; one that is refuted because the two are as good as equal says "no difference".
    """
    texts = [str(Verdict(row.verdict, row.mean, row.half, row.n)) if row.n > 1 else "no runs yet" if not row.n else "one seed" for row in table.itertuples(index=False)]
    equal = (table.verdict == "refuted") & (table.rule == "difference") & (table["mean"].abs() + table.half <= NEGLIGIBLE)
    words = table.verdict.mask(equal & table.decides.astype(bool), "refuted: no difference").mask(equal & ~table.decides.astype(bool), "no difference")
    verdict = [word if decides else f"({word})" for word, decides in zip(words, table.decides)]
    return pd.DataFrame({"comparison": table.comparison, "difference, points": texts, "verdict": verdict})


def said(tables: dict[str, pd.DataFrame], comparison: str) -> str:
    """One comparison across the studies, for a sentence: "−2.07 ± 0.38 (n = 10) for LeNet-300-100 on MNIST, ...".

    Args:
        tables: `comparisons` of each study, by its title.
        comparison: how the comparison's text begins. Studies with fewer than two seeds of it are left out.
    """
    parts = []
    for title, table in tables.items():
        rows = table[table.comparison.str.startswith(comparison)] if len(table) else table
        if len(rows) and rows.n.iloc[0] > 1:
            parts.append(f"{as_text(rows)['difference, points'].iloc[0]} for {named(title)}")
    return ", ".join(parts) or "not measured yet"


def named(title: str) -> str:
    """A study's title in a sentence: "LeNet-300-100 on MNIST"."""
    return title.replace(", ", " on ")


def ruled(table: pd.DataFrame, claim: str) -> str:
    """A claim's verdicts for a sentence: "refuted for LeNet-300-100 on MNIST, not settled for WRN-10-2 on MNIST".

    Args:
        table: what `verdicts` returned.
        claim: a key of CLAIMS.
    """
    return ", ".join(f"{verdict} for {named(title)}" for title, verdict in table.loc[claim].items() if verdict != "–") or "no runs yet"


def headline(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Of each study the comparisons that tell the story at a glance: parity, the boost at the post's rate, and the starts."""
    wanted = ("mask − weights", "fine-tuned at 1e-5 − weights longer at 1e-5", "fine-tuned at 1e-5 − random mask fine-tuned",
              "weights from θ0 under the mask − weights", "weights from θ0 under the mask − random mask fully trained")
    return {title: table[table.comparison.isin(wanted)] for title, table in tables.items() if len(table)}


def at_own_rates(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Of each study the comparison of fine-tuning with the longer training of the weights, each at its own best rate."""
    wanted = {title: table[(table.claim == "2. Boost") & table.comparison.str.match(r"fine-tuned at \S+ − weights longer at")] for title, table in tables.items() if len(table)}
    return {title: rows.tail(1) for title, rows in wanted.items()}  # the last is further from the post's rate


def plain_masks(runs: RunSet) -> RunSet:
    """The mask runs of a study at its own length and width that differ in the seed alone."""
    if not len(runs):
        return runs
    epochs, width = _scale(tidy(runs.summary))
    return runs.where(arm="mask", estimator="threshold", initial_logit=1.0, shortcut=None, epochs=epochs, width=[None, width])


def verdicts(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The verdict of each claim (rows) in each study (columns): "supported", "refuted", "not settled", or "–" where a study can't say."""
    columns = {name: by_claim(table[table.decides.astype(bool)]) if len(table) else pd.Series(dtype=str) for name, table in tables.items()}
    return pd.DataFrame(columns, dtype=object).reindex(list(CLAIMS)).fillna("–")


def tidy(summary: pd.DataFrame) -> pd.DataFrame:
    """`RunSet.summary` with a value where a parameter was left out: records from before a parameter existed lack it."""
    filled = {"shortcut": "1x1", "precision": "float32", "reset_batch_norm": False, "width": 0}
    columns = {name: summary[name].where(summary[name].notna(), value) if name in summary else value for name, value in filled.items()}
    return summary.assign(**columns).astype({"reset_batch_norm": bool, "width": int})


def weights_coefficients(runs: RunSet, within: bool = False) -> np.ndarray:
    """For each seed, the coefficient of log10(weights) in a linear model of the fraction masked, ordinary least squares.

    The model's other terms are the kind of kernel (3×3, 1×1 shortcut, dense) and the depth (layer index over the last one);
    it is fitted over the layers of the plain mask runs of the widths of 2 and more that every seed has. Without two such
    widths there is none: at one width kind and depth all but determine the weights.

    Args:
        within: whether each width has a level of its own too, so that only layers of one network are compared.
    """
    layers = _plain_layers(runs)
    layers = layers[layers.width >= 2]
    complete = [width for width, group in layers.groupby("width") if group.seed.nunique() == layers.seed.nunique()]
    layers = layers[layers.width.isin(complete)]
    if len(complete) < 2:
        return np.array([])
    found = []
    for _, rows in layers.groupby("seed"):
        depth = rows.layer / rows.groupby("width").layer.transform("max")
        levels = [rows.width == width for width in complete[1:]] if within else []
        design = np.column_stack([np.log10(rows.weights), depth, *(rows.kind == kind for kind in sorted(set(rows.kind))), *levels]).astype(float)
        found.append(np.linalg.lstsq(design, rows.masked.to_numpy(), rcond=None)[0][0])
    return np.array(found)


def most_masked(runs: RunSet) -> pd.DataFrame:
    """The layer that masks most, in the mean over seeds, for each initial logit and for the longer runs.

    Returns:
        Columns `condition`, `initial_logit`, `epochs`, `path`, `mean`, `half`, `n`; a condition without runs has n = 0.
    """
    summary = tidy(runs.summary)
    epochs, width = _scale(summary)
    layers = _mask_layers(runs)
    layers = layers[(layers.width == width) & (layers.shortcut == "1x1")]
    longest = max([epochs, *layers.epochs])
    rows = []
    for logit, length in [(0.05, epochs), (0.25, epochs), (1.0, epochs), (3.0, epochs), (1.0, longest)]:
        if length == epochs and (logit, length) in [(r["initial_logit"], r["epochs"]) for r in rows]:
            condition, here = "longer", layers.iloc[:0]  # no longer run yet
        else:
            condition = f"logits from {logit:g}" if length == epochs else f"{length} epochs"
            here = layers[(layers.initial_logit == logit) & (layers.epochs == length)]
        best = max(((path, *interval(group.masked), len(group)) for path, group in here.groupby("path")), key=lambda x: x[1], default=("", np.nan, np.nan, 0))
        rows.append({"condition": condition, "initial_logit": logit, "epochs": length, **dict(zip(("path", "mean", "half", "n"), best))})
    return pd.DataFrame(rows)


def epochs_to(runs: RunSet) -> pd.DataFrame:
    """How soon each arm reaches, on held-out training images, the accuracy at which the weights arm of its seed ends.

    Epochs are counted from where the arm starts: those that its parent trained come on top.

    Returns:
        A row an arm and learning rate: `arm`, `learning_rate`, `reset_batch_norm`, `seeds`, `reached` (seeds that get there
        within the arm's epochs), `median` (epochs, over the seeds that do; NaN if none does).
    """
    summary = tidy(runs.summary)
    epochs, width = _scale(summary)
    own = summary[(summary.epochs == epochs) & (summary.width == width) & (summary.shortcut == "1x1") & (summary.initial_logit == 1.0) & (summary.estimator == "threshold")]
    history = runs.history.set_index("run")
    targets = {row.seed: history.loc[[row.run]].val_accuracy.iloc[-1] for row in own[(own.arm == "weights") & (own.learning_rate == 0.01)].itertuples()}
    rows = []
    for (arm, rate, reset), group in own.groupby(["arm", "learning_rate", "reset_batch_norm"], sort=False):
        first = []
        for row in group.itertuples():
            if row.seed in targets:
                curve = history.loc[[row.run]]
                there = curve.epoch[curve.val_accuracy >= targets[row.seed]]
                first.append(there.min() if len(there) else np.nan)
        rows.append({"arm": arm, "learning_rate": rate, "reset_batch_norm": reset, "seeds": len(first),
                     "reached": int(np.isfinite(first).sum()), "median": float(np.nanmedian(first)) if np.isfinite(first).any() else np.nan})
    return pd.DataFrame(rows)


def _from_plain(run, base: dict) -> bool:
    """Whether what the run starts from, if anything, is the study's plain mask or weights run of its own width."""
    parent = run.parameters.get("parent")
    return not parent or (parent["epochs"], parent.get("initial_logit"), parent["learning_rate"], parent["estimator"]) == (base["epochs"], base["initial_logit"], 0.01, base["estimator"])


def _plain(rate: float) -> str:
    return f"{rate:g}".replace("e-0", "e-")


def _scale(summary: pd.DataFrame) -> tuple[int, int]:
    """The study's own number of epochs, and its own width: of what most runs have."""
    return int(summary.epochs.mode()[0]), int(summary.width.mode()[0])


def _mask_layers(runs: RunSet) -> pd.DataFrame:
    """One row a layer of the mask runs of the threshold estimator."""
    layers = runs.where(arm="mask", estimator="threshold").utilisation
    return tidy(layers) if len(layers) else pd.DataFrame(columns=["seed", "width", "shortcut", "epochs", "initial_logit", "path", "kind", "layer", "weights", "masked"])


def _plain_layers(runs: RunSet) -> pd.DataFrame:
    layers = _mask_layers(runs)
    return layers[(layers.shortcut == "1x1") & (layers.initial_logit == 1.0) & (layers.epochs == _scale(tidy(runs.summary))[0])]


def _shortcuts_masked(runs: RunSet, values: dict) -> pd.Series:
    """The mean fraction masked of the shortcuts, by seed."""
    layers = _mask_layers(runs)
    layers = layers[layers.path.astype(str).str.endswith("shortcut")]
    for name in ("epochs", "width", "shortcut", "initial_logit"):
        layers = layers[layers[name] == values[name]]
    return layers.groupby("seed").masked.mean()
