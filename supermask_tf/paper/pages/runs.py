"""Every run, and those that were made again."""

import pandas as pd

from ...records import RunSet
from .book import Book

# Folders of runs/ that are a reader's own.
_OWN = ("quick", "mine")


def table(book: Book) -> pd.DataFrame:
    """Every committed run: one row each, with a link to its page."""
    committed = [run for run in book.runs(".") if run.study not in _OWN]
    return RunSet(committed).listing()


def listing(book: Book):
    """Every committed run, to be sorted, searched and filtered; nothing is fetched for it."""
    from IPython.display import HTML  # here, since only a page needs them
    from itables import options, to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    shown = to_html_datatable(
        table(book),
        connected=False,
        allow_html=True,
        showIndex=False,
        classes="runs compact",
        column_filters="header",
        maxBytes=0,
        pageLength=25,
        order=[],
    )
    return HTML(generate_init_offline_itables_html(options.dt_bundle) + shown)


def verified(book: Book):
    """What `supermask verify` found: one row per run that was made again."""
    formats = {"recorded": "{:.4f}", "again": "{:.4f}", "masks_differ": "{:.2%}"}
    return book.table("runs/verified.csv").style.hide(axis="index").format(formats)
