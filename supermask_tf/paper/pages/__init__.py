"""What the pages of the book compute: one module per page, of the page's name. No TensorFlow.

A page keeps the prose, the captions and the options of its cells; each cell is a call of a function
here::

    from supermask_tf.paper.pages import Book, boost, glue

    book = Book("..")             # the records and measurements of a checkout
    glue(boost.texts(book))       # the texts in the page's sentences, by name
    boost.figure(book)

`texts` returns a text for each name that the page uses in ``{glue:text}``.
"""

from .book import Book, glue

__all__ = ["Book", "glue"]
