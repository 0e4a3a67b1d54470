"""What the pages of the fair test share: its studies, and their numbers with their runs."""

from dataclasses import replace

import numpy as np
import pandas as pd

from ...records import RunSet
from .. import fair, fair_rates
from ..fair_words import NOT_YET, ROLES
from . import inline
from .book import Book

# More rates than these are a curve.
CURVE = 2


def begun(book: Book) -> list[tuple[fair.FairStudy, RunSet]]:
    """The studies that have runs, in the order of the page of claims."""
    found = [(study, book.runs(name)) for name, study in fair.STUDIES.items()]
    return [(study, runs) for study, runs in found if len(runs)]


def tuned(book: Book, name: str, study: fair.FairStudy) -> pd.DataFrame:
    """The curves of a study's tuning of which both seeds are in."""
    tuning = fair_rates.TUNING.get(name)
    found = fair_rates.choices(book.runs(tuning) if tuning else RunSet([]), study.epochs)
    return found[found.seeds >= 2]


def at_borrowed_rates(study: fair.FairStudy, runs: RunSet) -> fair.FairStudy | None:
    """The study in which the runs at borrowed rates count and those at the arms' own do not; None
    if it has none of these.
    """
    own: dict[str, float] = {}
    for run in runs:
        role, rate = fair.role_of(run.parameters, study.epochs), run.parameters["learning_rate"]
        if role and role in study.borrowed and rate != study.borrowed[role]:
            own[role] = rate
    return replace(study, borrowed=own) if own else None


def gap(
    study: fair.FairStudy, runs: RunSet, first: str, second: str, way: str = "threshold"
) -> np.ndarray:
    """The differences between two roles of a study, in points, one per seed."""
    first = study.same_run(first)
    return fair.differences(fair.roles(runs, study), first, second, way).points.to_numpy()


def folder(study: fair.FairStudy) -> str:
    """The folder of its runs, which names it."""
    return next(name for name, known in fair.STUDIES.items() if known.title == study.title)


def written(
    study: fair.FairStudy, runs: RunSet, first: str, second: str, way: str = "threshold"
) -> str:
    """The difference between two roles of a study as a number with its runs."""
    place, side = folder(study), study.same_run(first)
    table = fair.differences(fair.roles(runs, study), side, second, way)
    both = zip(table["first"], table["second"])
    names = [((f"{place}/{one}",), (f"{place}/{other}",)) for one, other in both]
    pairs = pd.DataFrame({"points": table.points, "runs": names}, index=table.index)
    found, named = ("", "") if way == "threshold" else (f"_{way}", f", {way}")
    if study != fair.STUDIES[place]:
        found, named = f"{found}_borrowed", f"{named}, at a borrowed rate"
    title = f"{study.title}{named}: {ROLES[side]} − {ROLES[second]}"
    return inline.difference(f"{place}/{side}-{second}{found}", title, pairs)


def accuracy(study: fair.FairStudy, runs: RunSet, role: str, when: str) -> str:
    """The accuracy of a role's runs at their start or end, with these runs."""
    found = values(study, runs, role, when)
    place = folder(study)
    pairs = pd.DataFrame(
        {"points": list(found.points), "runs": [((f"{place}/{name}",),) for name in found.name]},
        index=pd.Index(found.seed),
    )
    ends = "before training" if when == "start_accuracy" else "after it"
    title = f"{study.title}: {ROLES[role].lstrip('… ')}, {ends}"
    digits = 0 if when == "start_accuracy" else 1
    return inline.accuracy(f"{place}/{role}_{when}", title, pairs, digits=digits)


def values(study: fair.FairStudy, runs: RunSet, role: str, when: str) -> pd.DataFrame:
    """One row per run of a role: `seed`, `points` (per cent) and `name`, where it has the value."""
    table = fair.roles(runs, study)
    own = table[(table.role == role) & table.way.isin(["threshold", ""])].sort_values("seed")
    by_name = {run.name: run.summary.get(when, np.nan) for run in runs}
    points = 100 * own.name.map(by_name).astype(float)
    return own[["seed", "name"]].assign(points=points).dropna()


def nothing():
    """What stands in the place of a figure or a table that has no runs yet."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(f"<p><em>{NOT_YET}</em></p>")
