"""The fair test under masks that keep fewer weights: those of `top_k`, by the share they keep."""

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import fair as rules
from .. import fair_plots
from ..analysis import interval
from ..fair_words import ROLES
from .book import NOT_YET, Book, by_study, signed, without_index
from .fair_parts import begun, gap, nothing, written

# What training under the mask is set against, by question: as a sentence names it.
_AGAINST = {
    "mask_for_free": "from the dense network",
    "this_mask": "from training under the mask shuffled",
    "these_weights": "from training new random weights under the mask",
}
# By question what is said where the interval lies above the margin, within it, below, or across.
_MATTERS = {
    "more": "a difference of more than {margin} points",
    "less": "a difference of less than {margin} points",
    "harm": "a difference of more than {margin} points the other way",
    "open": "a difference that may be more or less than {margin} points",
}
_WORDS = {
    "mask_for_free": {
        "more": "higher than the dense network",
        "less": "level with the dense network, to within {margin} points,",
        "harm": "lower than the dense network",
        "open": "where these seeds can't tell it from the dense network",
    },
    "this_mask": _MATTERS,
    "these_weights": _MATTERS,
}
# The questions of the table; the fifth asks about masks alone.
_ASKED = ("same_time", *_AGAINST)
_DRAWN = ("rewind", "shuffled", "reinit")


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    return {"answer": answer(book), "numbers": numbers(book)}


def answer(book: Book) -> str:
    """How training under the masks ends beside the dense network, and whether it matters which
    weights stay and which values they start from.
    """
    parts = []
    for study, runs, ways in _sparser(book):
        margin = rules.MARGINS[study.dataset]
        found = [
            {way: _by_more(gap(study, runs, *_sides(key), way), margin) for way in ways}
            for key in _WORDS
        ]
        if all(each == "less" for of_key in found for each in of_key.values()):
            shares = _listed([f"{_share(way):g}" for way in ways])
            parts.append(
                f"On {study.title}, with {shares} % kept, neither the mask, nor which weights stay,"
                f" nor which values they start from makes a difference of {margin:g} points."
            )
            continue
        dense, places, values = (
            _where(of_key, words, margin) for of_key, words in zip(found, _WORDS.values())
        )
        parts.append(
            f"On {study.title}, training under a sparser mask ends {dense}. Which weights stay"
            f" makes {places}. Which values they start from makes {values}."
        )
    return " ".join(parts) or f"Masks that keep fewer weights are {NOT_YET}."


def matters(book: Book) -> str:
    """Where it surely matters which weights stay, by more than the margin; "" if nowhere."""
    parts = []
    for study, runs, ways in _sparser(book):
        margin, sides = rules.MARGINS[study.dataset], _sides("this_mask")
        more = [way for way in ways if _by_more(gap(study, runs, *sides, way), margin) == "more"]
        if more:
            shares = _listed([f"{_share(way):g}" for way in more])
            parts.append(
                f"With {shares} % kept ({study.title}), it does matter which weights stay."
            )
    return " ".join(parts)


def numbers(book: Book) -> str:
    """How far training under the masks ends from the dense network and the controls."""
    parts = []
    for study, runs, ways in _sparser(book):
        told = [
            f"{_listed([written(study, runs, *_sides(key), way) for way in ways])} {name}"
            for key, name in _AGAINST.items()
        ]
        shares = _listed([f"{_share(way):g}" for way in ways])
        parts.append(
            f"On {study.title}, with {shares} % kept, training under the mask ends"
            f" {'; '.join(told)}, in points."
        )
    return " ".join(parts) or f"How far training under them ends is {NOT_YET}."


def _sparser(book: Book) -> list[tuple[rules.FairStudy, RunSet, list[str]]]:
    """The studies that have `top_k` masks, with these."""
    found = [(study, runs, _ways(study, runs)) for study, runs in begun(book)]
    sparser = [
        (study, runs, [way for way in ways if way.startswith("top_k")])
        for study, runs, ways in found
    ]
    return [(study, runs, ways) for study, runs, ways in sparser if ways]


def by_share(book: Book):
    """Where training ends by the share of the weights that a mask keeps: a dot per seed."""
    panels, kept = {}, {}
    for study, runs in begun(book):
        table, ways = rules.roles(runs, study), _ways(study, runs)
        if len(ways) < 2:
            continue
        of = table.set_index(["role", "way"]).accuracy
        lines = {role: [of[[(role, way)]].to_numpy() for way in ways] for role in _DRAWN}
        panels[study.title] = (lines, of.xs("dense").to_numpy())
        kept[study.title] = [_kept(study, runs)[way] for way in ways]
    return fair_plots.shares(panels, kept) if panels else nothing()


def comparisons(book: Book):
    """The questions at each share: one row per share, one column per question, no verdict."""
    parts = {}
    for study, runs in begun(book):
        table, kept = rules.roles(runs, study), _kept(study, runs)
        rows = []
        for way in _ways(study, runs):
            alone = table.accuracy[(table.role == "mask") & (table.way == way)]
            row = {"kept": f"{kept[way]:.0f} %", "mask alone": f"{alone.mean():.2f} %"}
            for key in _ASKED:
                first, second = _sides(key)
                mean, half = interval(gap(study, runs, first, second, way))
                row[f"− {ROLES[second].lstrip('… ')}"] = f"{signed(mean, 2)} ± {half:.2f}"
            row["seeds"] = str(len(alone))
            rows.append(row)
        if rows:
            parts[study.title] = pd.DataFrame(rows)
    return without_index(by_study(parts)) if parts else nothing()


def evidence(book: Book) -> RunSet:
    """The runs that the page compares: of each mask, of the dense network, and the controls."""
    shown = {role for key in _ASKED for role in _sides(key)} | {"mask"}
    found = []
    for study, runs, _ in _sparser(book):
        table = rules.roles(runs, study)
        names = set(table.name[table.role.isin(shown)])
        found += [run for run in runs if run.name in names]
    return RunSet(found)


# --- parts ----------------------------------------------------------------------------------------


def _sides(key: str) -> tuple[str, str]:
    return rules.QUESTIONS[key].first, rules.QUESTIONS[key].second


def _share(way: str) -> float:
    return 100 * float(way.split()[1])


def _ways(study: rules.FairStudy, runs: RunSet) -> list[str]:
    """The ways to find a mask of which all questions have two seeds, from most weights kept."""
    kept = _kept(study, runs)
    return [
        way
        for way in sorted(kept, key=lambda way: kept[way], reverse=True)
        if min(len(gap(study, runs, *_sides(key), way)) for key in _ASKED) > 1
    ]


def _kept(study: rules.FairStudy, runs: RunSet) -> dict[str, float]:
    """The share of the weights that a way's masks keep, per cent, in the mean over seeds."""
    table = rules.roles(runs, study)
    masks = table[table.role == "mask"].set_index("name").way
    shares = {run.name: 100 - 100 * run.summary["masked"] for run in runs if run.name in masks}
    return dict(pd.Series(shares, dtype=float).groupby(masks).mean())


def _by_more(points: np.ndarray, margin: float) -> str:
    """Whether the 95 % interval of the mean lies beyond the margin, within it, or neither."""
    mean, half = interval(points)
    low, high = mean - half, mean + half
    if low > margin:
        return "more"
    if high < -margin:
        return "harm"
    return "less" if -margin < low and high < margin else "open"


def _where(found: dict[str, str], words: dict[str, str], margin: float) -> str:
    """What holds at which shares, from what `_by_more` says by share: a clause per word."""
    shares = {word: [way for way, each in found.items() if each == word] for word in words}
    clauses = [
        f"{words[word]} when {_listed([f'{_share(way):g}' for way in ways])} % are kept"
        for word, ways in shares.items()
        if ways
    ]
    return _listed(clauses).format(margin=f"{margin:g}")


def _listed(parts: list[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
