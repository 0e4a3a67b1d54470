"""Every run, and those that were made again."""

from .book import Book

# Folders of runs/ that are a reader's own.
_OWN = ("quick", "mine")


def listing(book: Book):
    """Every committed run, each with a link to its notebook where it has one."""
    from IPython.display import HTML  # here, since only a page needs it

    folders = sorted((book.checkout / "runs").iterdir())
    studies = [f.name for f in folders if f.name not in _OWN and any(f.glob("*/summary.json"))]
    return HTML(book.runs(*studies).listing())


def verified(book: Book):
    """What `supermask verify` found: one row per run that was made again."""
    formats = {"recorded": "{:.4f}", "again": "{:.4f}", "masks_differ": "{:.2%}"}
    return book.table("runs/verified.csv").style.hide(axis="index").format(formats)
