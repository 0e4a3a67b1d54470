"""The tuning of the fair test on its page: the rates that it chose, and its masks as starts."""

import numpy as np
import pandas as pd

from .. import fair, fair_plots, fair_rates
from ..fair_words import ROLES
from .book import NOT_YET, Book, by_study, signed, without_index
from .fair_parts import CURVE, nothing, tuned

# Fewer masks than these say nothing of better and worse ones.
_FEW = 6


def edges(book: Book) -> str:
    """Where the best rate was the last one tried, and the grid did not grow; "" if nowhere."""
    parts = []
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        table = table[table.edge & (table.rates.map(len) > CURVE) & (table.way != "")]
        named = [ROLES[role].lstrip("… ") for role in dict.fromkeys(table.role)]
        if named:
            parts.append(
                f"On {study.title} the best learning rate tried lies on the edge of its grid for"
                f" these arms: {'; '.join(named)}."
            )
    return " ".join(parts)


def best_logit(book: Book) -> str:
    """What the starting logit is worth, in held-out accuracy, at each one's best rate."""
    parts = []
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        masks = table[(table.role == "mask") & (table.way == "threshold")]
        if len(masks) > 1:
            best = masks.loc[masks.accuracy.idxmax()]
            others = [
                f"{row.accuracy:.1f} % from {row.initial_logit:g}"
                for row in masks.drop(best.name).sort_values("initial_logit").itertuples()
            ]
            parts.append(
                f"{study.title}: the best mask starts at a logit of {best.initial_logit:g} and"
                f" reaches {best.accuracy:.1f} % of the held-out images; the best of the other"
                f" starts reach {' and '.join(others)}"
            )
    return "; ".join(parts) or NOT_YET


def better_masks(book: Book) -> str:
    """Whether a better mask makes a better start, over all masks of each tuning."""
    from scipy import stats  # here, since it takes a second of every start

    parts = []
    for title, (table, _) in every_start(book).items():
        rank, p = stats.spearmanr(table["mask"], table.start)
        said = (
            "a better mask makes a better start"
            if p < fair.LEVEL and rank > 0
            else "a better mask makes a worse start"
            if p < fair.LEVEL
            else "nothing says that a better mask makes a better start"
        )
        parts.append(
            f"On {title} {said}. The {len(table)} masks alone reach {table['mask'].min():.0f} to"
            f" {table['mask'].max():.0f} % of the held-out images, the weights trained under them"
            f" {table.start.min():.1f} to {table.start.max():.1f} % (rank correlation"
            f" {signed(rank, 2)}, p = {p:.2f})."
        )
    return " ".join(parts) or f"Whether a better mask makes a better start is {NOT_YET}."


def every_start(book: Book) -> dict[str, tuple[pd.DataFrame, float]]:
    """The masks of each tuning that were all used as starts, and the dense network's accuracy, by
    the study's title.
    """
    found = {}
    for name, tuning in fair_rates.TUNING.items():
        study = fair.STUDIES[name]
        table, chosen = fair_rates.starts(book.runs(tuning), study.epochs), tuned(book, name, study)
        if len(table) >= _FEW:
            dense = chosen[chosen.role == "dense"].accuracy.max()
            found[study.title] = table, dense
    return found


def masks_and_starts(book: Book):
    """Whether a better mask makes a better start, over all masks of the tuning studies."""
    found = every_start(book)
    return fair_plots.masks_and_starts(found) if found else nothing()


def tuning_figure(book: Book):
    """Held-out accuracy of the mask by learning rate and starting logit, in each tuning."""
    panels = {}
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        table = table[(table.role == "mask") & (table.way == "threshold")]
        labels = [f"starting logit {logit:g}" for logit in table.initial_logit]
        if len(table) > 1:
            panels[study.title] = table.assign(label=labels)
    return fair_plots.rates(panels) if panels else nothing()


def choices(book: Book):
    """The rates that the tuning chose: one row per arm and network."""
    parts = {}
    for name, study in fair.STUDIES.items():
        table = tuned(book, name, study)
        table = table[table.rates.map(len) > CURVE]  # one rate for all masks is no choice
        if len(table):
            parts[study.title] = pd.DataFrame(
                {
                    "arm": [ROLES[role] for role in table.role],
                    "mask found by": table.way.replace("", "–"),
                    "starting logit": [f"{v:g}" if v == v else "–" for v in table.initial_logit],
                    "rate": [f"{rate:g}" for rate in table.rate],
                    "on the edge": np.where(table.edge, "yes", ""),
                    "held out, %": [f"{value:.2f}" for value in table.accuracy],
                }
            )
    return without_index(by_study(parts)) if parts else nothing()
