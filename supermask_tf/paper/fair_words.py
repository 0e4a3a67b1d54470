"""The fair test in words: a sentence per question and word, and what its arms are called."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from . import fair

__all__ = [
    "MEANINGS", "NOT_YET", "ROLES", "SENTENCES", "answer", "in_words", "meant", "still_open",
]  # fmt: skip

NOT_YET = "not measured yet"

# One sentence per question and word; {where} is the networks and datasets that have the word.
SENTENCES = {
    "same_time": {
        "better": "Learning the mask first is time well spent: the same number of epochs, all given"
        " to the dense network, ends lower ({where}).",
        "worse": "Learning the mask first is time badly spent: the same number of epochs, all given"
        " to the dense network, ends higher ({where}).",
        "the same": "Half the epochs for the mask and half for the weights end where the dense"
        " network ends with all of them ({where}).",
        "open": "Whether the time for the mask is well spent, these seeds can't tell ({where}).",
    },
    "mask_for_free": {
        "better": "Were the mask free, it would be a better start than the dense network's"
        " ({where}).",
        "worse": "Even were the mask free, it would be a worse start than the dense network's"
        " ({where}).",
        "the same": "Were the mask free, it would be as good a start as none, and no better"
        " ({where}).",
        "open": "Whether a free mask is a better start than none, these seeds can't tell"
        " ({where}).",
    },
    "this_mask": {
        "better": "It matters which weights the mask keeps: with its places shuffled within each"
        " layer, training from it ends lower ({where}).",
        "worse": "The learned places do harm: with them shuffled within each layer, training from"
        " the mask ends higher ({where}).",
        "the same": "For where training ends, it does not matter which weights the mask keeps:"
        " shuffle its places within each layer, and the end is the same to within the margin"
        " ({where}).",
        "open": "Whether it matters which weights the mask keeps, these seeds can't tell"
        " ({where}).",
    },
    "these_weights": {
        "better": "The mask suits the weights that it was learned for: over new random weights,"
        " training from it ends lower ({where}).",
        "worse": "The mask does harm to the weights that it was learned for: over new random"
        " weights, training from it ends higher ({where}).",
        "the same": "For where training ends, the mask does not need the weights that it was"
        " learned for: lay it over new random weights, and the end is the same to within the margin"
        " ({where}).",
        "open": "Whether the mask needs the weights that it was learned for, these seeds can't"
        " tell ({where}).",
    },
    "replaces_training": {
        "better": "Learning only this mask beats training the weights ({where}).",
        "worse": "Learning only this mask does not replace training the weights ({where}).",
        "the same": "Learning only this mask is as good as training the weights ({where}).",
        "open": "Whether learning only this mask replaces training, these seeds can't tell"
        " ({where}).",
    },
}
# What an answer means for someone who wants to use a mask; an open one means nothing.
MEANINGS = {
    "mask_for_free": {
        "the same": "If you train the weights anyway, a mask found beforehand buys no accuracy, and"
        " the epochs that find it are lost ({where}).",
        "better": "If you train the weights anyway, a mask found beforehand ends higher ({where}).",
        "worse": "If you train the weights anyway, a mask found beforehand ends lower ({where}).",
    },
    "these_weights": {
        "the same": "The mask may be laid over any random weights before these are trained"
        " ({where}).",
        "better": "Keep the seed with the mask: over other random weights, training ends lower"
        " ({where}).",
        "worse": "Draw new random weights under the mask: over those, training ends higher"
        " ({where}).",
    },
    "replaces_training": {
        "worse": "A mask alone is a smaller file than trained weights, and reads worse ({where}).",
        "the same": "A mask alone is a smaller file than trained weights, and reads as well"
        " ({where}).",
        "better": "A mask alone is a smaller file than trained weights, and reads better"
        " ({where}).",
    },
}
# Short texts for tables.
ROLES = {
    "dense": "dense, for T",
    "dense_2t": "dense, for 2T",
    "mask": "only the mask",
    "then_weights": "mask, then weights",
    "rewind": "weights from θ0 under the mask",
    "shuffled": "… under the mask shuffled",
    "reinit": "… under the mask, new weights",
    "permuted": "… mask and weights moved about together",
    "magnitudes": "… magnitudes drawn anew, signs kept",
    "batch_norm": "batch norm alone",
    "jump_weights": "after the mask, weights at 1e-5",
    "jump_mask": "after the mask, the mask at 1e-5",
    "jump_dense": "after dense training, weights at 1e-5",
}


def in_words(tables: dict[str, pd.DataFrame], key: str, shown: dict[str, str]) -> str:
    """The answer to a question: one sentence per word that was found.

    Args:
        tables: of each study what `fair.answers` returns, by its title.
        key: of the question.
        shown: how each study's number is written, by its title.
    """
    words = _by_word(tables, key, shown)
    missing = words.pop(NOT_YET, {})
    sentences = _told(SENTENCES[key], words)
    if missing:
        sentences.append(f"Not measured yet with all planned seeds: {_listed(missing)}.")
    return " ".join(sentences) or f"This is {NOT_YET}."


def meant(tables: dict[str, pd.DataFrame], key: str, shown: dict[str, str]) -> str:
    """What a question's answer means for someone who wants to use a mask; "" if nothing yet.

    Args:
        tables, key, shown: as in `in_words`; the key is one of MEANINGS.
    """
    return " ".join(_told(MEANINGS[key], _by_word(tables, key, shown)))


def _by_word(tables, key: str, shown: dict[str, str]) -> dict[str, dict[str, str]]:
    """The studies that have each word of a question, with their numbers."""
    words: dict[str, dict[str, str]] = {}
    for title, table in tables.items():
        row = table.loc[key]
        points = shown[title] if row.n else ""
        if row.word == "the same" and row.p_difference < fair.LEVEL:
            points += ", a sure difference, but under the margin"
        words.setdefault(row.word, {})[title] = points
    return words


def _told(sentences: dict[str, str], words: dict[str, dict[str, str]]) -> list[str]:
    """One sentence per word that has one."""
    told = {word: found for word, found in words.items() if word in sentences}
    return [_sentence(sentences[word], told[word], apart=len(told) > 1) for word in told]


def _sentence(sentence: str, found: dict[str, str], apart: bool) -> str:
    """A word's sentence, with the numbers of those that have it; set `apart` from other words'
    sentences by naming them first.
    """
    if not apart:
        return sentence.format(where=_listed(found))
    told = sentence.format(where="; ".join(found.values()))
    return f"On {' and '.join(_networks([*found], {}))}: {told[0].lower()}{told[1:]}"


def _listed(found: dict[str, str]) -> str:
    return "; ".join(f"{title}: {points}" if points else title for title, points in found.items())


def answer(tables: dict[str, pd.DataFrame], kept: dict[str, float] | None = None) -> str:
    """The sentences that the page, and the front page, open with.

    Args:
        tables: as in `in_words`.
        kept: the share of the weights that a study's masks keep, in per cent, by title.
    """
    found = {key: {t.word[key] for t in tables.values()} - {NOT_YET} for key in fair.QUESTIONS}
    if not all(found.values()):
        return f"The fair test is {NOT_YET}: its runs are still being made."
    start = found["mask_for_free"]
    if "better" not in start:
        first = (
            "No: even if the mask is free, training under it ends no higher than training the dense"
            " network."
            if "open" not in start
            else "Nothing here says that a supermask is a better start: where it is not worse or"
            " the same, these seeds can't tell."
        )
    else:
        first = (
            "Yes: training the weights under the mask ends higher than training the dense network."
            if start == {"better"}
            else "It depends: training the weights under the mask ends higher than training the"
            " dense network on some of these networks and datasets, and not on others."
        )
    groups: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}
    for title, table in tables.items():
        pair = table.word["this_mask"], table.word["these_weights"]
        if NOT_YET not in pair:
            groups.setdefault(pair, {})[title] = table
    return " ".join([first, *(_what_matters(*p, group, kept or {}) for p, group in groups.items())])


_MATTER = {
    "better": "can't be changed without loss",
    "worse": "can be changed with gain",
    "the same": "can be changed without loss",
    "open": "may matter or not",
}


def _what_matters(
    places: str, weights: str, tables: dict[str, pd.DataFrame], kept: dict[str, float]
) -> str:
    """What it is worth which weights stay, and which they are, where these words were found."""
    keys = ["this_mask", "these_weights"]
    found = pd.concat([t["mean"][keys].abs() for t in tables.values()])
    where = f"On {' and '.join(_networks([*tables], kept))}"
    if places == weights == "the same":
        # No further than the far end of any of the intervals.
        ends = [t["mean"][keys].abs() + t.half[keys] for t in tables.values()]
        most = np.ceil(100 * pd.concat(ends).max()) / 100
        return (
            f"{where}, neither which weights stay nor their values matter by more than {most:.2f}"
            " points."
        )
    if places == weights == "better":
        least, most = f"{found.min():.1f}", f"{found.max():.1f}"
        points = least if least == most else f"{least} to {most}"
        return (
            f"{where}, {_epochs(tables)} end {points} points lower once the mask is shuffled or its"
            " weights are drawn anew."
        )
    return (
        f"{where}, the choice of what stays {_MATTER[places]}, and the values that stay"
        f" {_MATTER[weights]}."
    )


def _epochs(titles: Iterable[str]) -> str:
    """For how long the studies train, such as "20 epochs"."""
    lengths = {study.epochs for study in fair.STUDIES.values() if study.title in titles}
    return f"{' or '.join(map(str, sorted(lengths)))} epochs" if lengths else "T epochs"


def _networks(titles: list[str], kept: dict[str, float]) -> list[str]:
    """Each network once, behind it its datasets and the shares of its weights that are kept."""
    found: dict[str, list[str]] = {}
    for title in titles:
        found.setdefault(title.partition(", ")[0], []).append(title)
    named = []
    for network, own in found.items():
        told = [" and ".join(filter(None, (title.partition(", ")[2] for title in own)))]
        shares = sorted(round(kept[title]) for title in own if title in kept)
        if shares:
            low, high = shares[0], shares[-1]
            told.append(f"{low} % kept" if low == high else f"{low} to {high} % kept")
        told = list(filter(None, told))
        named.append(f"{network} ({', '.join(told)})" if told else network)
    return named


def still_open(tables: dict[str, pd.DataFrame]) -> str:
    """Which questions have no word yet, and which are open."""
    if not tables:
        return "All six questions: no study of the fair test has a run yet"
    parts = []
    for word, named in ((NOT_YET, "not measured with all planned seeds"), ("open", "open")):
        found = [
            f"{fair.QUESTIONS[key].title} on {title}"
            for key in fair.QUESTIONS
            for title, table in tables.items()
            if table.word[key] == word
        ]
        if found:
            parts.append(f"{named}: {'; '.join(found)}")
    return (
        ". ".join(part[0].upper() + part[1:] for part in parts)
        or "By the rule every question has its verdict"
    )
