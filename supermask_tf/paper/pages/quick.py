"""Made on this machine: the study `quick`, which `make report` trains."""

from ...records import RunSet
from .. import analysis, plots
from .book import Book


def accuracies(book: Book):
    """Test accuracy of the arms, or how to make the runs."""
    runs = evidence(book)
    if len(runs):
        return analysis.accuracy_table(runs.summary)
    from IPython.display import Markdown  # here, since only a page needs it

    return Markdown(
        "**Nothing here yet.** Run `make report`, or `supermask study runs/studies/quick.yml` and "
        "then `supermask report`."
    )


def curves(book: Book):
    """Accuracy by epoch, or None without runs."""
    runs = evidence(book)
    return plots.training(runs.history) if len(runs) else None


def utilisation(book: Book):
    """Fraction masked by layer, or None without runs."""
    masks = evidence(book).where(arm="mask")
    return plots.utilisation(masks.utilisation) if len(masks) else None


def evidence(book: Book) -> RunSet:
    """The runs of the study."""
    return book.runs("quick")
