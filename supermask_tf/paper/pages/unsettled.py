"""What we could not settle: the open comparisons, and epochs chosen on the test set."""

import pandas as pd

from ...records import Run, RunSet
from .. import claims, plots
from . import fair, fair_tuning
from .book import Book, by_study, without_index


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    paper = book.runs("paper")
    deciding = [table.decides.astype(bool).sum() for table in book.tables.values()]
    return {
        "asked": str(sum(deciding)),
        "fair_open": fair.still_open(fair.answers(book)),
        "planned": fair.planned(book),
        "head_start": fair.head_start(book),
        "edges": fair_tuning.edges(book),
        "budget": fair.budget(book),
        "open": str(sum(len(table) for table in _open(book).values())),
        "paper": (f". On a GPU {len(paper)} of its runs have been made" if len(paper) else ""),
    }


def open_comparisons(book: Book):
    """The open comparisons that claims rest on: one row per study and comparison."""
    parts = {
        title: claims.as_text(table).assign(claim=table.claim)
        for title, table in _open(book).items()
        if len(table)
    }
    if not parts:
        return "Every comparison is settled."
    columns = ["study", "claim", "comparison", "difference, points"]
    return without_index(by_study(parts)[columns])


def original_protocol(book: Book):
    """Runs whose epoch was chosen on the test set, beside their twins: one row per run."""
    rows = []
    for run in originals(book):
        accuracies, twin = run.history.val_accuracy, _twin(book, run)
        rows.append(
            {
                "dataset": plots.DATASET_NAMES[run.parameters["dataset"]],
                "arm": plots.ARM_NAMES[run.parameters["arm"]],
                "original protocol: best epoch on the test set, %": _points(accuracies.max()),
                "its last epoch, %": _points(accuracies.iloc[-1]),
                "study's protocol, same seed, %": (
                    _points(twin.summary["test_accuracy"]) if twin else "no run yet"
                ),
            }
        )
    return without_index(pd.DataFrame(rows)) if rows else "No run yet."


def originals(book: Book) -> RunSet:
    """The runs under the post's protocol."""
    return book.runs("original")


def _open(book: Book) -> dict[str, pd.DataFrame]:
    """Of each study the comparisons that a claim rests on and that are not settled."""
    return {
        title: table[table.decides.astype(bool) & (table.verdict == "not settled")]
        for title, table in book.tables.items()
    }


def _twin(book: Book, run: Run) -> Run | None:
    """The same run under the study's protocol, of the WRN-10s."""
    names = ("dataset", "arm", "seed", "width", "epochs", "initial_logit", "estimator")
    same = {name: run.parameters[name] for name in (*names, "learning_rate")} | {"shortcut": None}
    wide = [runs for title, runs in book.studies.items() if title.startswith("WRN-10")]
    return next((twin for runs in wide for twin in runs.where(**same)), None)


def _points(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
