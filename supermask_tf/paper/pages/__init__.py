"""What the pages of the book compute: one module per page, of the page's name. No TensorFlow.

A page keeps the prose, the captions and the options of its cells; each cell is a call of a function
here::

    from supermask_tf.paper.pages import boost, start

    book = start(boost)           # the checkout's records; the page's sentences get their texts
    boost.figure(book)

`texts` of a page's module returns a text for each name that the page uses in ``{glue:text}``.
"""

from .book import Book, start

__all__ = ["Book", "start"]
