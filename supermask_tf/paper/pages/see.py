"""See a supermask: what the live figure's networks read of its hundred digits."""

from functools import cache

from ...records import RunSet
from .. import see
from .book import Book


@cache
def _networks(book: Book) -> list[see.Network]:
    return see.networks(book.checkout / "runs", book.checkout / "book" / "see")


def texts(book: Book) -> dict[str, str]:
    """The texts of the page, by name."""
    found = _networks(book)
    counts = see.right(found, book.checkout / "book" / "see")
    masks = [network for network in found if network.switch == "mask"]
    shown = masks[-1]
    ticket = next(network for network in found if network.contents.header["arrays"])
    said = [f"{100 * network.run.summary['test_accuracy']:.1f} %" for network in masks]
    ranked = [f"{100 * network.density:g}" for network in masks[:-1]]
    digits = {
        "supermask": ("mask", shown.density),
        "random": ("random", shown.density),
        "shuffled": ("shuffled", shown.density),
        "off": ("off", 1.0),
        "ticket": ("ticket", ticket.density),
        "trained": ("trained", ticket.density),
    }
    shares = {
        "kept": shown.density,
        "ticket_kept": ticket.density,
        "accuracy": shown.run.summary["test_accuracy"],
        "trained_here": ticket.contents.header["about"]["test_accuracy"],
        "trained_record": ticket.run.summary["test_accuracy"],
    }
    return (
        {name: str(counts[at]) for name, at in digits.items()}
        | {name: f"{100 * value:.4g} %" for name, value in shares.items()}
        | {
            "all_masks": ", ".join(said[:-1]) + f" and {said[-1]}",
            "ranked": ", ".join(ranked[:-1]) + f" and {ranked[-1]} %",
        }
    )


def figure(book: Book):
    """The live figure, with all that it needs inside."""
    from IPython.display import HTML  # here, since only a page needs it

    return HTML(see.fragment(_networks(book), book.checkout / "book" / "see"))


def still(book: Book):
    """What the live figure shows at first, as a picture."""
    return see.still(_networks(book), book.checkout / "book" / "see", stacked=True)


def evidence(book: Book) -> RunSet:
    """The runs whose masks the page has."""
    return RunSet([network.run for network in _networks(book)])
