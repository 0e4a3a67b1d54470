"""What all pages share: the records of a checkout, each read once, and how numbers are written."""

from functools import cached_property
from pathlib import Path
from types import ModuleType

import pandas as pd

from ...records import RunSet, load_runs, read_table
from .. import claims

NOT_YET = "not measured yet"


class Book:
    """The records and measurements that the pages are made from.

    Nothing is read before it is used, so that a page depends on what it shows alone.

    Args:
        checkout: the folder with `runs`, `benchmarks` and `book`.
    """

    def __init__(self, checkout: str | Path):
        self.checkout = Path(checkout)
        self._runs: dict[tuple[str, ...], RunSet] = {}

    def runs(self, *studies: str) -> RunSet:
        """The runs of these studies; a study whose folder does not exist yet has none."""
        if studies not in self._runs:
            folders = (self.checkout / "runs" / name for name in studies)
            self._runs[studies] = load_runs(*folders, missing_ok=True)
        return self._runs[studies]

    def table(self, path: str) -> pd.DataFrame:
        """A CSV file of the checkout, such as "benchmarks/xla.csv".

        Raises:
            FileNotFoundError: if there is none.
        """
        return read_table(self.checkout / path)

    @cached_property
    def first(self) -> RunSet:
        """The study beside the post's figures: one seed of each arm on each dataset.

        Raises:
            FileNotFoundError: if its folder does not exist.
        """
        return load_runs(self.checkout / "runs" / "first")

    @cached_property
    def studies(self) -> dict[str, RunSet]:
        """The runs of each study of the claims, by its title."""
        return claims.studies(self.checkout / "runs")

    @cached_property
    def begun(self) -> dict[str, RunSet]:
        """Those of `studies` that have runs."""
        return {title: runs for title, runs in self.studies.items() if len(runs)}

    @cached_property
    def _compared(self) -> dict[str, tuple[pd.DataFrame, dict[str, pd.DataFrame]]]:
        return {title: claims.compared(runs) for title, runs in self.begun.items()}

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The comparisons of each study that has runs, by its title."""
        return {title: table for title, (table, _) in self._compared.items()}

    @cached_property
    def pairs(self) -> dict[str, dict[str, pd.DataFrame]]:
        """The runs behind each of them, by the study's title and the comparison's key."""
        return {title: pairs for title, (_, pairs) in self._compared.items()}

    @cached_property
    def verdicts(self) -> pd.DataFrame:
        """The verdicts of claims 1 to 6: one row per claim, one column per study."""
        none = claims.comparisons(RunSet([]))
        return claims.verdicts({title: self.tables.get(title, none) for title in self.studies})

    @cached_property
    def _kinds(self) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        return claims.compared_tickets(self.runs("tickets_lenet"))

    @property
    def kinds(self) -> pd.DataFrame:
        """The comparisons of claim 7."""
        return self._kinds[0]

    @property
    def kind_pairs(self) -> dict[str, pd.DataFrame]:
        """The runs behind each of them, by its key."""
        return self._kinds[1]

    @cached_property
    def _estimators(self) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
        return claims.compared_estimators(self.runs("lenet", "ways_lenet"))

    @property
    def estimators(self) -> pd.DataFrame:
        """The comparisons beside claim 6, on LeNet-300-100."""
        return self._estimators[0]

    @property
    def estimator_pairs(self) -> dict[str, pd.DataFrame]:
        """The runs behind each of them, by its key."""
        return self._estimators[1]

    @cached_property
    def averages_anew(self) -> dict[str, pd.Series]:
        """Test accuracies with batch norm's averages taken anew, of the studies that have runs."""
        found = claims.averages_anew(self.table("benchmarks/batch_norm.csv"))
        return {title: accuracies for title, accuracies in found.items() if title in self.begun}

    @cached_property
    def _without_lag(self) -> dict[str, tuple[pd.DataFrame, dict[str, pd.DataFrame]]]:
        found = self.averages_anew.items()
        return {title: claims.compared(self.begun[title], anew) for title, anew in found}

    @cached_property
    def without_lag(self) -> dict[str, pd.DataFrame]:
        """The comparisons of these accuracies, by the study's title."""
        return {title: table for title, (table, _) in self._without_lag.items()}

    @cached_property
    def pairs_without_lag(self) -> dict[str, dict[str, pd.DataFrame]]:
        """The runs behind each of them, by the study's title and the comparison's key."""
        return {title: pairs for title, (_, pairs) in self._without_lag.items()}


def start(page: ModuleType, checkout: str | Path = "..") -> Book:
    """The records of a checkout, for the cells of a page; its sentences get their texts.

    Args:
        page: the module of the page. If it has a function `texts`, its prose uses what that
            returns by name, as ``{glue:text}`name` ``.
        checkout: the folder with `runs`, `benchmarks` and `book`.
    """
    book = Book(checkout)
    if hasattr(page, "texts"):
        glue(page.texts(book))
    return book


def glue(texts: dict[str, str]) -> None:
    """Let a page's prose use these texts by their names, as ``{glue:text}`name` ``."""
    from myst_nb import glue as glue_one  # here, since only the book needs it

    for name, text in texts.items():
        glue_one(name, text, display=False)


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction in per cent: "12.3 %"."""
    return f"{100 * fraction:.{digits}f} %"


def signed(number: float, digits: int = 1) -> str:
    """A number with its sign: "+1.2", "−0.3"."""
    return f"{number:+.{digits}f}".replace("-", "−")


def accuracy(mean: float, half: float, n: int) -> str:
    """An accuracy with its interval, all fractions: "97.12 ± 0.10 % (n = 10)"."""
    if n == 1:
        return f"{100 * mean:.2f} % (one seed)"
    return f"{100 * mean:.2f} ± {100 * half:.2f} % (n = {int(n)})"


def rate(learning_rate: float) -> str:
    """A learning rate: "1e-5", "0.01"."""
    return f"{learning_rate:g}".replace("e-0", "e-")


def by_study(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables below each other, with the title of each in a column `study` in front."""
    return pd.concat(parts, names=["study", None]).reset_index("study")


def without_index(table: pd.DataFrame):
    """A table to be shown without its index."""
    return table.style.hide(axis="index")
