"""Every run, and those that were made again."""

from .book import Book

_STUDIES = (
    "first", "lenet_augmented", "lenet", "wrn_mnist", "wrn_cifar10", "original", "ways_lenet",
    "ways_cifar10", "tickets_lenet", "paper",
)  # fmt: skip


def listing(book: Book):
    """All runs that the book is made from, each with a link to its notebook."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(book.runs(*_STUDIES).listing())


def verified(book: Book):
    """What `supermask verify` found: one row per run that was made again."""
    formats = {"recorded": "{:.4f}", "again": "{:.4f}", "masks_differ": "{:.2%}"}
    return book.table("runs/verified.csv").style.hide(axis="index").format(formats)
