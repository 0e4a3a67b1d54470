"""The paper's claims, as comparisons of records. No TensorFlow.

The rule of each claim was written before the runs (the book's page "The first study's rules"); here
it is applied::

    table = comparisons(load_runs("runs/lenet"))   # of one study: one row per comparison
    verdicts({"lenet": table})                     # one row per claim, one column per study
    find(table, "mask-weights").verdict            # a comparison is looked up by its key

A key names the two sides, "first-second": "finetune_low-weights_long_low" is fine-tuning at the low
rate (the post's 1e-5) minus longer training of the dense network at that rate. "full" is the rate
0.01, "own" the arm's best one, and "_20" at the end stands for a fifth (20 %) of the weights kept.
"""

import difflib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from ..records import Run, RunSet, load_runs
from . import overlap, plan
from .analysis import (
    NEGLIGIBLE,
    Verdict,
    best_rate,
    by_claim,
    difference,
    paired_runs,
)
from .readings import (
    methods,
    most_masked,
    own_scale,
    shortcuts_masked,
    tidy,
    weights_coefficients,
)

__all__ = [
    "AT_OWN_RATES", "CLAIMS", "DENSE_AT_OWN_RATE", "HIGHEST_MASKED", "KEYS", "PAPER", "STUDIES",
    "as_text", "averages_anew", "compared", "compared_estimators", "compared_tickets",
    "comparisons", "estimators", "find", "in_words", "named", "points", "studies",
    "tickets", "verdict_in_words", "verdicts",
]  # fmt: skip

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
STUDIES = {
    "LeNet-300-100, MNIST": "lenet",
    "WRN-10-2, MNIST": "wrn_mnist",
    "WRN-10-2, CIFAR-10": "wrn_cifar10",
}
# The post's own scale, for which a GPU is needed: both datasets lie in the folder `paper`, and are
# compared once one has two seeds.
PAPER = {"WRN-28-8, MNIST": "mnist", "WRN-28-8, CIFAR-10": "cifar10"}
# The largest fraction in the post's two figures of mask utilisation.
HIGHEST_MASKED = 0.164
# The post's fine-tuning minus the dense network at its own best rate for the further epochs.
DENSE_AT_OWN_RATE = ("finetune_low-weights_long_own", "finetune_low-weights_long_low")
# Both sides at their own best rate.
AT_OWN_RATES = ("finetune_own-weights_long_own", *DENSE_AT_OWN_RATE)

_COLUMNS = ["key", "claim", "comparison", "rule", "verdict", "mean", "half", "n", "decides"]
_NONE = pd.DataFrame(columns=_COLUMNS)
_NO_PAIRS = pd.DataFrame({"points": pd.Series(dtype=float), "runs": pd.Series(dtype=object)})


def studies(folder: str | Path) -> dict[str, RunSet]:
    """The runs of each study in STUDIES, by its title; a study without records is an empty set.

    Behind them come those at the post's scale, of the datasets that have two seeds: one alone
    decides nothing, and would make every verdict one that is not settled everywhere.

    Args:
        folder: where the studies lie, such as "runs".
    """
    folder = Path(folder)
    found = {title: load_runs(folder / name, missing_ok=True) for title, name in STUDIES.items()}
    paper = load_runs(folder / "paper", missing_ok=True)
    for title, dataset in PAPER.items():
        runs = paper.where(dataset=dataset, depth=28, width=8)
        if len(runs) and runs.summary.seed.nunique() > 1:
            found[title] = runs
    return found


# --- what is compared -----------------------------------------------------------------------------


def comparisons(runs: RunSet, accuracies: pd.Series | None = None) -> pd.DataFrame:
    """Every comparison that the runs of one study allow, with its verdict.

    The study's own length and width are those that most of its runs have; other widths and longer
    runs are compared with their like.

    Args:
        runs: the runs of one study: one dataset, one model.
        accuracies: what is compared instead of the recorded test accuracy, fractions by the run's
            name, such as those with batch norm's averages taken anew (`averages_anew`). A run that
            it lacks is left out.

    Returns:
        One row per comparison: `key` (unique), `claim`, `comparison` (its text), `rule`, `mean` and
        `half` (points, with the half-width of the 95 % t interval), `n` (seeds), `verdict`, and
        `decides`: whether the claim's verdict rests on it, or it is shown beside the rule.
    """
    return compared(runs, accuracies)[0]


def compared(
    runs: RunSet, accuracies: pd.Series | None = None
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """As `comparisons`, with the runs behind each comparison.

    Returns:
        The comparisons, and by the key of each a table by seed: `points` (what the seed
        contributes; NaN where the number is not a mean over seeds) and `runs` (for each side the
        runs that were taken, as "study/run").
    """
    return _split(_compared(runs, accuracies))


def _split(rows: list[dict]) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    pairs = {row["key"]: row["pairs"] for row in rows}
    return pd.DataFrame(rows, columns=_COLUMNS), pairs


def _compared(runs: RunSet, accuracies: pd.Series | None) -> list[dict]:
    """The rows of `comparisons`, each with its `pairs`."""
    if not len(runs):
        return []
    summary = tidy(runs.summary)
    if accuracies is not None:
        summary["test_accuracy"] = summary.run.map(accuracies)
    epochs, width = own_scale(summary)
    base = plan.base_values(epochs, width)
    summary = summary[[_from_plain(run, base) for run in runs]]
    study = _study(summary, epochs, width)
    sides = plan.sides(study)
    rows = []
    for claim, first, second, decides, rule in plan.pairs(study):
        a, b = sides[first], sides[second]
        found = _NO_PAIRS if a[1] is None or b[1] is None else paired_runs(summary, a[1], b[1])
        rows.append(_row(f"{first}-{second}", claim, f"{a[0]} − {b[0]}", found, decides, rule))
    # In the order of the claims: those about layers come before the last one.
    rows[-1:-1] = (_about_layers(runs) if study.batch_norm else []) + _about_the_most(runs)
    return rows


def _study(summary: pd.DataFrame, epochs: int, width: int) -> plan.Study:
    """What decides which comparisons are made; `summary` is that of the runs from plain parents."""
    own = summary[(summary.epochs == epochs) & (summary.width == width) & ~summary.reset_batch_norm]
    # Both arms choose among the rates that both have tried with every seed: a rate that only some
    # seeds have yet is no choice.
    tried = set(own.learning_rate)
    for arm in ("finetune", "weights_long"):
        seeds = own[own.arm == arm].groupby("learning_rate").seed.nunique()
        tried &= set(seeds.index[seeds == own.seed.nunique()])
    rates = {
        arm: (best_rate(own[own.learning_rate.isin(tried)], arm) or plan.LOW) if tried else None
        for arm in ("finetune", "weights_long")
    }
    return plan.Study(
        epochs=epochs,
        width=width,
        other_widths=tuple(sorted(set(summary[summary.arm == "mask"].width) - {width})),
        gentler=tuple(sorted(set(own[own.arm == "weights"].learning_rate) - {plan.FULL})),
        batch_norm=(summary.model == "wide_resnet").all(),
        **rates,
    )


def _about_layers(runs: RunSet) -> list[dict]:
    """Claim 4: whether layers with more weights mask more, and shortcuts with more weights too."""
    claim, one = "4. Utilisation", shortcuts_masked(runs, "1x1")
    slope, within = (_by_seed(runs, weights_coefficients(runs, within=w)) for w in (False, True))
    rows = [
        _row("masked_per_weights", claim, "masked for ten times the weights", slope),
        _row("masked_per_weights_within", claim, "the same within a network", within, False),
    ]
    for kind, name in (("3x3", "3×3 shortcuts"), ("wide", "wide 1×1 shortcuts")):
        more = _by_seed(runs, (shortcuts_masked(runs, kind) - one).dropna())
        text = f"masked by {name} − by 1×1 shortcuts"
        rows.append(_row(f"shortcuts_{kind}-shortcuts_1x1", claim, text, more))
    return rows


def _by_seed(runs: RunSet, fractions: pd.Series) -> pd.DataFrame:
    """What each seed's masks come to, in points, with all plain mask runs of the seed."""
    masks: dict[int, list[str]] = {}
    for run in runs.where(arm="mask", estimator="threshold", initial_logit=1.0):
        masks.setdefault(run.parameters["seed"], []).append(f"{run.study}/{run.name}")
    taken = [(tuple(masks[seed]),) for seed in fractions.index]
    return pd.DataFrame({"points": 100 * fractions, "runs": taken}, index=fractions.index)


def _about_the_most(runs: RunSet) -> list[dict]:
    """Claim 5, whose rule asks for the mean alone, of three seeds."""
    rows = []
    for _, found in most_masked(runs).iterrows():
        start = found.condition.replace(" from ", "_")
        above = found["mean"] > HIGHEST_MASKED
        verdict = "not settled" if found.n < 3 else "refuted" if above else "supported"
        points = 100 * (found["mean"] - HIGHEST_MASKED), 100 * found.half, int(found.n)
        row = {
            "key": f"most_masked_{start if start.startswith('logits') else 'longer'}",
            "claim": "5. At most 16 %",
            "comparison": f"most masked layer, {found.condition} − {100 * HIGHEST_MASKED:.1f} %",
            "rule": "at most",
        }
        taken = pd.DataFrame({"points": np.nan, "runs": [((name,),) for name in found.runs]})
        taken.index = pd.Index(found.seeds, dtype=int)
        rows.append(row | asdict(Verdict(verdict, *points)) | {"decides": True, "pairs": taken})
    return rows


def averages_anew(table: pd.DataFrame) -> dict[str, pd.Series]:
    """Test accuracies with batch norm's moving averages taken anew.

    Args:
        table: benchmarks/batch_norm.csv, which `python benchmarks/batch_norm.py` writes.

    Returns:
        Fractions by the name of the run, for each study by its title.
    """
    measured = {title: table[table.study == name] for title, name in STUDIES.items()}
    return {title: rows.set_index("run").renewed for title, rows in measured.items() if len(rows)}


def estimators(runs: RunSet) -> pd.DataFrame:
    """Claim 6 beside its rule: threshold against Bernoulli at a rate chosen for the latter.

    Args:
        runs: those of the studies `lenet` and `ways_lenet`.

    Returns:
        As `comparisons`: one row for Bernoulli's most likely mask, and one for masks that are drawn
        at evaluation as they are in training.
    """
    return compared_estimators(runs)[0]


def compared_estimators(runs: RunSet) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """As `estimators`, with the runs behind each comparison, as in `compared`."""
    if not len(runs):
        return _split([])
    base = {"arm": "mask", "epochs": 10, "initial_logit": 1.0}
    threshold = base | {"estimator": "threshold", "learning_rate": 0.01}
    bernoulli = base | {"estimator": "bernoulli", "learning_rate": 0.1}
    rows, summary = [], tidy(runs.summary)
    for drawn, (key, text) in enumerate(plan.ESTIMATORS.items()):
        found = paired_runs(summary, threshold, bernoulli | {"draw_at_evaluation": bool(drawn)})
        rows.append(_row(key, "6. Estimators", text, found, False))
    return _split(rows)


# --- supermasks and lottery tickets ---------------------------------------------------------------


def tickets(runs: RunSet) -> pd.DataFrame:
    """The comparisons of claim 7: supermask and lottery ticket of one θ0 and one density.

    Args:
        runs: those of the study `tickets_lenet`.

    Returns:
        As `comparisons`. The claim rests on three rows at a density of 0.2; the others are beside
        the rule.

    Raises:
        ValueError: if two runs of a seed have the same method and density.
    """
    return compared_tickets(runs)[0]


def compared_tickets(runs: RunSet) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """As `tickets`, with the runs behind each comparison, as in `compared`."""
    if not len(runs):
        return _split([])
    table = methods(runs)
    twice = table[table.duplicated(["method", "density", "seed"])]
    if len(twice):
        raise ValueError(
            f"Several runs of a seed are called {twice.method.iloc[0]!r} at density "
            f"{twice.density.iloc[0]:g}: choose among them with RunSet.where(...), such as by "
            "learning_rate."
        )

    def chosen(method, density, column):
        rows = table[(table.method == method) & (table.density == density)]
        return rows.set_index("seed")[column]

    rows = []

    def row(key, text, points, density):
        key, text = f"{key}_{100 * density:g}", f"{text}, {100 * density:g} % kept"
        rows.append(_row(key, "7. Two kinds of mask", text, points, key in plan.KINDS))

    def compare(key, first, second, column, density):
        beside = 1.0 if second == "dense" else density
        found = 100 * (chosen(first, density, column) - chosen(second, beside, column)).dropna()
        sides = chosen(first, density, "run"), chosen(second, beside, "run")
        row(key, plan.ticket_text(key), _pairs(found, sides), density)

    for density in (0.2, 0.5, 0.05):
        one, other = (chosen(method, density, "mask") for method in ("supermask", "ticket"))
        both = one.index.intersection(other.index)
        beyond = [overlap.shared(one[seed], other[seed]).beyond.iloc[-1] for seed in both]
        apart = pd.Series(100 * (0.5 - np.array(beyond)), index=both, dtype=float)
        row("overlap", "½ − overlap beyond chance", _pairs(apart, (one, other)), density)
        for key, sides in plan.MASKS.items():
            compare(key, *sides, density)
    for density in (0.2, 0.05):
        for key, sides in plan.TICKETS.items():
            compare(key, *sides, density)
    return _split(rows)


def _pairs(points: pd.Series, sides: tuple[pd.Series, ...]) -> pd.DataFrame:
    """Differences by seed with the runs of each side, `Run`s by seed."""
    runs = [
        tuple((f"{side[seed].study}/{side[seed].name}",) for side in sides) for seed in points.index
    ]
    return pd.DataFrame({"points": points, "runs": runs}, index=points.index)


# --- by key ---------------------------------------------------------------------------------------


def find(table: pd.DataFrame, *keys: str) -> pd.Series | None:
    """The first of these comparisons that a table has.

    Args:
        table: what `comparisons`, `estimators` or `tickets` returned.
        keys: of comparisons, such as "mask-weights".

    Returns:
        The comparison's row; None if the study makes none of these comparisons.

    Raises:
        ValueError: if there is no such key in any study.
    """
    there = set(table.key)
    for key in keys:
        if key not in KEYS and key not in there:
            near = difflib.get_close_matches(key, sorted(KEYS | there), n=4, cutoff=0.5)
            raise ValueError(
                f"There is no comparison {key!r}: {'near it are' if near else 'the keys are'} "
                f"{', '.join(near or sorted(KEYS))}."
            )
    found = next((key for key in keys if key in there), None)
    return None if found is None else table[table.key == found].iloc[0]


def points(table: pd.DataFrame, *keys: str, shown: Callable[[pd.Series], str] | None = None) -> str:
    """A comparison of one study in words: "−2.07 ± 0.38 (n = 10)".

    Args:
        table, keys: as in `find`.
        shown: how a comparison's row is written, where not so.

    Returns:
        "not measured yet" without runs, "one seed" where no second one makes an interval.

    Raises:
        ValueError: if a key is unknown.
    """
    found = find(table, *keys)
    if found is None or not found.n:
        return "not measured yet"
    return (shown or _points)(found) if found.n > 1 else "one seed"


def in_words(
    tables: dict[str, pd.DataFrame],
    *keys: str,
    shown: Callable[[str, pd.Series], str] = lambda title, row: _points(row),
) -> str:
    """A comparison across studies: "−2.07 ± 0.38 (n = 10) for LeNet-300-100 on MNIST, ...".

    Args:
        tables: `comparisons` of each study, by its title.
        keys: as in `find`; in each study the first one that it has.
        shown: how a study's row is written, from the study's title and the row.

    Returns:
        Studies with fewer than two seeds are left out; "not measured yet" if no study has a run of
        it, "one seed" if none has two.

    Raises:
        ValueError: if a key is unknown.
    """
    rows = {title: find(table, *keys) for title, table in (tables or {"": _NONE}).items()}
    seeds = {title: 0 if row is None else row.n for title, row in rows.items()}
    parts = [f"{shown(t, rows[t])} for {named(t)}" for t, n in seeds.items() if n > 1]
    return ", ".join(parts) or ("one seed" if any(seeds.values()) else "not measured yet")


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """A table of comparisons for reading.

    Returns:
        One row per comparison: `comparison`; `difference, points`: the mean with the half-width of
        its 95 % interval and the number of seeds; `verdict`, in brackets if it is beside the rule.
        What is refuted because the two are as good as equal is said to be "no difference".
    """
    texts, words = [], []
    for row in table.to_dict("records"):
        texts.append(_points(row) if row["n"] > 1 else "one seed" if row["n"] else "no runs yet")
        word, difference_rule = row["verdict"], row["rule"] == "difference"
        if word == "refuted" and difference_rule and abs(row["mean"]) + row["half"] <= NEGLIGIBLE:
            word = "refuted: no difference" if row["decides"] else "no difference"
        words.append(word if row["decides"] else f"({word})")
    columns = {"comparison": table.comparison, "difference, points": texts, "verdict": words}
    return pd.DataFrame(columns)


def named(title: str) -> str:
    """A study's title in a sentence: "LeNet-300-100 on MNIST"."""
    return title.replace(", ", " on ")


def verdicts(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The verdict of each claim in each study.

    Args:
        tables: `comparisons` of each study, by its title.

    Returns:
        One row per claim of CLAIMS, one column per study: "supported", "refuted", "not settled", or
        "–" where a study can't say.
    """
    columns = {
        title: by_claim(table[table.decides.astype(bool)]) if len(table) else pd.Series(dtype=str)
        for title, table in tables.items()
    }
    return pd.DataFrame(columns, dtype=object).reindex(list(CLAIMS)).fillna("–")


def verdict_in_words(table: pd.DataFrame, claim: str) -> str:
    """A claim's verdicts: "refuted for LeNet-300-100 on MNIST, not settled for WRN-10-2 on MNIST".

    Args:
        table: what `verdicts` returned.
        claim: a key of CLAIMS.

    Raises:
        KeyError: if there is no such claim.
    """
    found = {title: verdict for title, verdict in table.loc[claim].items() if verdict != "–"}
    return ", ".join(f"{word} for {named(title)}" for title, word in found.items()) or "no runs yet"


def _points(row) -> str:
    """The difference of a comparison's row: "−2.07 ± 0.38 (n = 10)"."""
    return str(Verdict(row["verdict"], row["mean"], row["half"], row["n"]))


def _row(key, claim, text, pairs, decides=True, rule=difference) -> dict:
    """One row of a table of comparisons; `pairs` has paired `points`, one per seed."""
    row = {"key": key, "claim": claim, "comparison": text, "rule": rule.__name__}
    found = asdict(rule(pairs.points.to_numpy()))
    return row | found | {"decides": decides, "pairs": pairs}


def _from_plain(run: Run, base: dict) -> bool:
    """Whether a run starts from nothing, or from a plain mask or weights run of the study."""
    parent = run.parameters.get("parent")
    names = ("epochs", "initial_logit", "estimator")
    return not parent or (
        all(parent.get(name) == base[name] for name in names)
        and parent["learning_rate"] == plan.FULL
    )


# The keys of all tables: one that is neither here nor in a table is an error, and no missing run.
KEYS = plan.all_keys()
