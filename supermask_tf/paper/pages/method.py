"""How a mask is trained: the straight-through estimator, and its gradient on a toy."""

from .. import analysis, plots
from .book import Book


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    found = {"minutes": f"{book.first.summary.seconds.sum() / 60:.0f}"}
    for dataset in ("mnist", "cifar10"):
        run = book.first.where(dataset=dataset)[0]
        steps = run.summary["train_images"] // run.parameters["batch_size"]
        found[f"{dataset}_steps"] = str(steps)
    return found


def straight_through(book: Book):
    """The threshold estimator, forward and backward."""
    return plots.straight_through()


def gradients(book: Book):
    """The estimators' gradients on two weights, for a first logit from −5 to 5."""
    return plots.gradients(analysis.toy_gradients([x / 20 for x in range(-100, 101)]))
