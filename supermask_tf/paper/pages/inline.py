"""Numbers in running text: rounded, with the interval one touch away and a link to the runs.

A number is written as ``−2.1{−2.07 ± 0.38 points ...|lenet/mask-weights}``; the book's extension
`behind` makes a link of it. Its runs are noted as it is written.
"""

import re

import pandas as pd

from ...records import RunSet
from ...records.behind import Behind, Row, note
from .. import analysis, claims
from .book import NOT_YET, Book

_LINK = "Follow the link to the runs."


def in_words(book: Book, *keys: str, anew: bool = False) -> str:
    """A comparison across studies: "−2.1 for LeNet-300-100 on MNIST, ...", each with its runs.

    Args:
        book: the records.
        keys: of comparisons, as in `claims.find`; in each study the first one that it has.
        anew: of accuracies with batch norm's averages taken anew.
    """
    tables = book.without_lag if anew else book.tables
    return claims.in_words(tables, *keys, shown=lambda title, row: of(book, title, row, anew))


def one(book: Book, title: str, *keys: str, anew: bool = False) -> str:
    """A comparison of one study: "−2.1", or what it lacks in words."""
    tables = book.without_lag if anew else book.tables
    if title not in tables:
        return NOT_YET
    return claims.points(tables[title], *keys, shown=lambda row: of(book, title, row, anew))


def kind(book: Book, key: str) -> str:
    """A comparison of supermasks and tickets."""
    return claims.points(book.kinds, key, shown=lambda row: _of_kinds(book, row))


def estimator(book: Book, key: str) -> str:
    """A comparison of estimators beside claim 6."""
    return claims.points(book.estimators, key, shown=lambda row: _of_estimators(book, row))


def of(book: Book, title: str, row: pd.Series, anew: bool = False) -> str:
    """The number of a row of `Book.tables`, or of `Book.without_lag`."""
    pairs = (book.pairs_without_lag if anew else book.pairs)[title][row.key]
    where = claims.named(title) + (", averages anew" if anew else "")
    name = f"{_folder(title)}/{row.key}{'_anew' if anew else ''}"
    return _written(name, f"{where}: {row.comparison}", row, pairs)


def _of_kinds(book: Book, row: pd.Series) -> str:
    title = f"LeNet-300-100 on MNIST: {row.comparison}"
    return _written(f"tickets_lenet/{row.key}", title, row, book.kind_pairs[row.key])


def _of_estimators(book: Book, row: pd.Series) -> str:
    title = f"LeNet-300-100 on MNIST: {row.comparison}"
    return _written(f"ways_lenet/{row.key}", title, row, book.estimator_pairs[row.key])


def _written(name: str, title: str, row: pd.Series, pairs: pd.DataFrame) -> str:
    return difference(name, title, pairs, row["mean"], row.half, int(row.n))


def difference(
    name: str,
    title: str,
    pairs: pd.DataFrame,
    mean: float | None = None,
    half: float | None = None,
    n: int | None = None,
) -> str:
    """A mean difference in points.

    Args:
        name: "study/comparison", unique in the book.
        title: "where: first side − second side".
        pairs: by seed `points` and `runs`, both sides' as "study/run".
        mean, half, n: of the number, where they are not those of `pairs`.
    """
    if mean is None or half is None:
        if not len(pairs):
            return NOT_YET
        mean, half = analysis.interval(pairs.points)
    n = len(pairs) if n is None else n
    if n < 2:
        return "one seed"
    told = f"{mean:+.2f} ± {half:.2f} points".replace("-", "−")
    shown = rounded(mean)
    sides = tuple(title.partition(": ")[2].split(" − ")) or ("runs",)
    return _noted(shown, told, n, name, title, "points", sides, pairs)


def accuracy(name: str, title: str, pairs: pd.DataFrame, digits: int = 1) -> str:
    """A mean accuracy in per cent.

    Args:
        name, title: as in `difference`.
        pairs: by seed `points` (per cent) and `runs`, of one side.
        digits: of the rounded number.
    """
    if not len(pairs):
        return NOT_YET
    mean, half = analysis.interval(pairs.points)
    told = f"{mean:.2f} ± {half:.2f} %" if len(pairs) > 1 else f"{mean:.2f} %"
    return _noted(f"{mean:.{digits}f} %", told, len(pairs), name, title, "%", ("run",), pairs)


def _noted(shown, told, n, name, title, unit, sides, pairs) -> str:
    """The number as it is written, its runs noted."""
    name = re.sub(r"[^\w./-]+", "-", name)
    runs = list(pairs.runs)
    if runs and len(sides) != len(runs[0]):
        sides = tuple("runs" for _ in runs[0])
    rows = tuple(
        Row(int(seed), None if points != points else float(points), taken)
        for seed, points, taken in zip(pairs.index, pairs.points, runs)
    )
    note(Behind(name, title, told, unit, sides, rows))
    of_what = f"a 95 % interval over {n} seeds" if n > 1 else "one seed"
    return f"{shown}{{{told}, {of_what}. {_LINK}|{name}}}"


def rounded(points: float) -> str:
    """A difference to a tenth of a point, or to a hundredth where tenths are too coarse."""
    digits = 1 if abs(points) >= 0.3 else 2
    return f"{points:+.{digits}f}".replace("-", "−")


def by_seed(runs: RunSet) -> pd.DataFrame:
    """Test accuracies as `accuracy` takes them, of runs that differ in the seed alone."""
    return pairs_of(runs.summary)


def pairs_of(summary: pd.DataFrame) -> pd.DataFrame:
    """The same from a `RunSet.summary`, which may be empty."""
    if not len(summary):
        return pd.DataFrame({"points": [], "runs": []})
    names = [((f"{row.study}/{row.run}",),) for row in summary.itertuples()]
    table = pd.DataFrame({"points": 100 * summary.test_accuracy.to_numpy(), "runs": names})
    return table.set_index(pd.Index(summary.seed))


def table(book: Book, title: str, rows: pd.DataFrame) -> pd.DataFrame:
    """`claims.as_text` of a study's comparisons, each linked to its runs.

    Args:
        book: the records.
        title: of the study.
        rows: of `Book.tables`; keys that end in "_anew" are of `Book.without_lag`.
    """
    names = []
    for _, row in rows.iterrows():
        anew = row.key.endswith("_anew")
        row.key = row.key.removesuffix("_anew")
        names.append(_name(of(book, title, row, anew)) if row.n > 1 else "")
    return _linked(rows, names)


def kinds_table(book: Book) -> pd.DataFrame:
    """`claims.as_text` of the comparisons of supermasks and tickets, each linked to its runs."""
    names = [_name(_of_kinds(book, row)) if row.n > 1 else "" for _, row in book.kinds.iterrows()]
    return _linked(book.kinds, names)


def _linked(rows: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    shown = claims.as_text(rows)
    column = "difference, points"
    shown[column] = [
        f'<a href="../numbers/{name}.html">{text}</a>' if name else text
        for name, text in zip(names, shown[column])
    ]
    return shown


def _name(written: str) -> str:
    """The name in a written number; "" without one."""
    return written.rpartition("|")[2].removesuffix("}") if written.endswith("}") else ""


def _folder(title: str) -> str:
    return claims.STUDIES.get(title, "paper")
