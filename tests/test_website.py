"""What the site is besides its pages' text: its address, its weight, what finds and shows it."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def website():
    place = ROOT / "book" / "_extensions" / "website.py"
    spec = importlib.util.spec_from_file_location("website", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "repository, address",
    [
        ("https://github.com/Some-Body/masks", "https://some-body.github.io/masks/"),
        ("https://github.com/some/masks.git/", "https://some.github.io/masks/"),
        ("https://gitlab.com/some/masks", ""),
        ("https://github.com/some", ""),
        ("", ""),
    ],
)
def test_the_address_of_the_pages(website, repository, address):
    assert website.site_address(repository) == address


def test_one_address_gives_all_others(website):
    """With the repository's address set, previews and the map have the site's; without, nothing
    guesses one.
    """
    loaded = []
    app = SimpleNamespace(setup_extension=loaded.append)
    options = {"repository_url": ""}
    config = SimpleNamespace(html_theme_options=options, html_baseurl="", myst_substitutions={})
    website._from_the_address(app, config)
    assert not config.html_baseurl and not loaded
    config.html_theme_options["repository_url"] = "https://github.com/some/masks"
    website._from_the_address(app, config)
    assert config.html_baseurl == config.ogp_site_url == "https://some.github.io/masks/"
    assert loaded == ["sphinx_sitemap"]
    assert "some/masks/blob/main/book" in config.myst_substitutions["notebook_links"]


def test_pages_load_what_they_use(website, tmp_path):
    """Icons are no script, and a page without a formula has no MathJax; the pages of runs stay."""
    head = (
        '<script src="../_static/vendor/fontawesome/6.5.2/js/all.min.js?digest=0"></script>'
        '<link href="../_static/vendor/fontawesome/6.5.2/css/all.min.css" rel="stylesheet" />'
        '<script>window.MathJax = {"a": 1}</script>'
        '<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>'
        '<script src="../_static/doctools.js"></script>'
        '<summary><span class="toctree-toggle"></span></summary>'
    )
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "_static" / "vendor" / "fontawesome").mkdir(parents=True)
    places = {
        "plain.html": head,
        "formula.html": head + '<span class="math notranslate">x</span>',
        "runs/a/b.html": head,
    }
    for name, text in places.items():
        (tmp_path / name).write_text(text)
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(name="html"))
    website._lighten(app, None)
    plain, formula, run = ((tmp_path / name).read_text() for name in places)
    assert plain.strip() == (
        '<script src="../_static/doctools.js"></script>'
        '<summary aria-label="Show the pages below"><span class="toctree-toggle"></span></summary>'
    )
    assert "mathjax/tex-chtml.js" in formula and "window.MathJax" in formula
    assert "fontawesome" not in formula and run == head
    assert not (tmp_path / "_static" / "vendor" / "fontawesome").exists()


def test_style_sheets_keep_what_is_used(website):
    """Rules of classes that nobody names go, also inside a block; the rest stays in order."""
    css = (
        "/*! licence */:root{--a:1}.used,.gone{x:1}.gone .used{x:2}a:is(.used,.other) b{x:3}"
        "@media (x){.gone{y:1}}@media (x){.used>p{y:2}.gone{y:3}}@font-face{z:1}.bs-top .used{x:4}"
    )
    assert website.thinned(css, {"used", "other"}) == (
        "/*! licence */:root{--a:1}.used{x:1}a:is(.used,.other) b{x:3}"
        "@media (x){.used>p{y:2}}@font-face{z:1}.bs-top .used{x:4}"
    )
    assert website.thinned(css, {"used"}).count(":is(") == 0


def test_links_that_open_the_notebook(website):
    """Binder and Colab come from the one address; without it the page says where it is set."""
    told = website.notebook_links("https://github.com/Some/masks.git", "main")
    assert "(https://colab.research.google.com/github/Some/masks/blob/main/book/exper" in told
    assert "(https://mybinder.org/v2/gh/Some/masks/main?urlpath=lab/tree/book/exper" in told
    for other in ("", "https://example.org/some/masks", "https://github.com/some"):
        assert "`repository: url`" in website.notebook_links(other, "main")


def test_terms_say_what_they_mean(website, tmp_path):
    """A link to the glossary has its definition with it, as plain text; other links are left."""
    book = tmp_path / "book"
    book.mkdir()
    (book / "glossary.html").write_text(
        '<dt id="term-mask">mask<a class="headerlink">¶</a></dt><dd><p>A zero\nor a <em>"one"</em> '
        "&lt;each&gt;.</p></dd>"
    )
    link = '<a class="reference internal" href="glossary.html#term-mask"><span>mask</span></a>'
    other = '<a class="reference internal" href="glossary.html#term-none">none</a>'
    (book / "a.html").write_text(link + other)
    app = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(name="html"))
    website._define(app, None)
    shown = (book / "a.html").read_text()
    assert 'data-more="A zero or a &quot;one&quot; &lt;each&gt;."><span>mask' in shown
    assert other in shown
