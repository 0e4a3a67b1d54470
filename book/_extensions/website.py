"""Sphinx extension: what the site is besides its pages' text.

- A page loads no script that it has no use for: no MathJax where there is no formula, and no icons
  as 1.5 MB of script (`icons.css` has the dozen that the theme shows).
- The theme's style sheets keep the rules that some page can use.
- A term that links to the glossary shows its definition where it is touched or reached by keyboard.
- The search finds a chapter before the API reference (`search.js`).
- The repository's address stands in `_config.yml` alone (`repository: url`). From it come the
  site's own address, which a map for search engines and pictures in previews need, and the buttons.
"""

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.application import Sphinx
from sphinx.config import Config

_ICONS = re.compile(r"\s*<(?:script|link)[^>]*vendor/fontawesome/[^>]*>(?:\s*</script>)?")
_MATH = re.compile(
    r"\s*<script(?:[^>]*mathjax[^>]*>|[^>]*>\s*window\.MathJax\s*=).*?</script>", re.S
)
_GRAPHS = re.compile(r"\s*<link[^>]*graphviz\.css[^>]*>")

# The style sheets that have rules for what no page of this book has.
_SHEETS = (
    "styles/bootstrap.css",
    "styles/pydata-sphinx-theme.css",
    "styles/sphinx-book-theme.css",
    "sphinx-design.min.css",
    "mystnb.*.css",
)
_WORD = re.compile(r"[\w-]+")
_COMMENT = re.compile(r"/\*(?!!).*?\*/", re.S)  # licences stay
_CLASS = re.compile(r"\.(?!bs-)(-?[A-Za-z_][\w-]*)")  # bootstrap puts "bs-" names together
_COMMA = re.compile(r",(?![^(]*\))")

# The theme's mark that unfolds a part of the contents has no name for who does not see it.
_FOLD = '<summary><span class="toctree-toggle"'
_NAMED_FOLD = _FOLD.replace("<summary>", '<summary aria-label="Show the pages below">')

_TERMS = re.compile(r'<dt id="(term-[^"]+)">.*?<dd>(.*?)</dd>', re.S)
_TERM_LINK = re.compile(r'(<a class="reference internal" href="[^"]*#(term-[^"]+)")')


def setup(app: Sphinx) -> dict:
    app.connect("config-inited", _from_the_address, priority=100)
    app.connect("build-finished", _define, priority=940)
    app.connect("build-finished", _lighten, priority=950)  # behind what changes the pages
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def site_address(repository: str) -> str:
    """Where the pages of a repository on GitHub are, by that host's own rule; "" for others."""
    place = urlsplit(repository)
    owner, _, name = place.path.strip("/").partition("/")
    if place.netloc.lower() != "github.com" or not name:
        return ""
    return f"https://{owner.lower()}.github.io/{name.removesuffix('.git')}/"


def notebook_links(repository: str, branch: str) -> str:
    """Where the notebook opens in a browser, as Markdown; without a repository, where to set it."""
    place = urlsplit(repository)
    name = place.path.strip("/").removesuffix(".git")
    if place.netloc.lower() != "github.com" or "/" not in name:
        return (
            "Links that open this notebook on Binder and Colab stand here once `repository: url` in"
            " `_config.yml` has the repository's address."
        )
    notebook = "book/experiment.ipynb"
    colab = f"https://colab.research.google.com/github/{name}/blob/{branch}/{notebook}"
    binder = f"https://mybinder.org/v2/gh/{name}/{branch}?urlpath=lab/tree/{notebook}"
    install = f"!pip install git+{repository.removesuffix('/')}"
    return (
        f"In a browser: [on Binder]({binder}), or [on Colab]({colab}), where a first cell with"
        f" `{install}` brings the package."
    )


def _from_the_address(app: Sphinx, config: Config) -> None:
    repository = config.html_theme_options.get("repository_url", "")
    branch = config.html_theme_options.get("repository_branch") or "main"
    links = {"notebook_links": notebook_links(repository, branch)}
    config.myst_substitutions = {**config.myst_substitutions, **links}
    address = site_address(repository)
    config.html_baseurl = config.html_baseurl or address
    if config.html_baseurl:
        config.ogp_site_url = config.html_baseurl
        config.sitemap_url_scheme = "{link}"
        app.setup_extension("sphinx_sitemap")


def _define(app: Sphinx, exception) -> None:
    """Give each link to a term of the glossary the term's definition, which `book.css` shows."""
    glossary = Path(app.outdir) / "book" / "glossary.html"
    if exception or app.builder.name != "html" or not glossary.exists():
        return
    defined = {
        anchor: html.escape(" ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split()))
        for anchor, text in _TERMS.findall(glossary.read_text())
    }
    for page in (Path(app.outdir) / "book").glob("*.html"):
        text = page.read_text()
        shown = _TERM_LINK.sub(
            lambda link: (
                f'{link[1]} data-more="{defined[link[2]]}"' if link[2] in defined else link[0]
            ),
            text,
        )
        if shown != text:
            page.write_text(shown)


def _lighten(app: Sphinx, exception) -> None:
    if exception or app.builder.name != "html":
        return
    out = Path(app.outdir)
    for page in out.glob("**/*.html"):
        if out / "runs" in page.parents:  # they load nothing
            continue
        text = page.read_text()
        lighter = _GRAPHS.sub("", _ICONS.sub("", text)).replace(_FOLD, _NAMED_FOLD)
        if 'class="math' not in lighter:
            lighter = _MATH.sub("", lighter)
        if lighter != text:
            page.write_text(lighter)
    shutil.rmtree(out / "_static" / "vendor" / "fontawesome", ignore_errors=True)
    _thin(out)


def _thin(out: Path) -> None:
    """Leave in the theme's style sheets what some page or script can name: a third of them."""
    places = [*out.glob("*.html"), *out.glob("book/**/*.html"), *out.glob("_static/**/*.js")]
    words = {word for place in places for word in _WORD.findall(place.read_text())}
    for name in _SHEETS:
        for sheet in (out / "_static").glob(name):
            sheet.write_text(thinned(sheet.read_text(), words))


def thinned(css: str, words: set[str]) -> str:
    """A style sheet without the rules for classes that are not among these words."""
    kept = []
    for rule in _rules(_COMMENT.sub("", css)):
        head, _, body = rule.partition("{")
        if head.lstrip().startswith(("@media", "@supports")):
            inside = thinned(body[:-1], words)
            kept += [f"{head}{{{inside}}}"] if inside else []
        elif head.lstrip().startswith("@") or not body:
            kept.append(rule)
        else:
            chosen = [one for one in _COMMA.split(head) if set(_CLASS.findall(one)) <= words]
            kept += [f"{','.join(chosen)}{{{body}"] if chosen else []
    return "".join(kept)


def _rules(css: str) -> Iterator[str]:
    """The rules of a style sheet, those of a block in one."""
    depth = start = 0
    for brace in re.finditer(r"[{}]", css):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            yield css[start : brace.end()]
            start = brace.end()
    if css[start:].strip():
        yield css[start:]
