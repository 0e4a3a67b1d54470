"""Other people's work: its numbers, each with where it was seen."""

from .book import Book, without_index

_NAMES = {
    "koster2022": "Koster et al. 2022",
    "sreenivasan2022": "Sreenivasan et al. 2022",
    "diffenderfer2021": "Diffenderfer and Kailkhura 2021",
    "wortsman2020": "Wortsman et al. 2020",
}


def numbers(book: Book):
    """The published accuracies that were seen at their source: one row each."""
    table = book.table("book/published/field.csv")
    table["work"] = table.work.map(_NAMES)
    kept = [f"{value:g} %" if value == value else "–" for value in table.kept_percent]
    table["kept_percent"] = kept
    table["accuracy_percent"] = [f"{value:.2f} %" for value in table.accuracy_percent]
    names = {"kept_percent": "kept", "accuracy_percent": "accuracy", "seen_in": "seen in"}
    return without_index(table.rename(columns=names))
