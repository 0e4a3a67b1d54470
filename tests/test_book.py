"""The rendered book: built without warnings, rebuilt when and only when a record changes, and read
in a real browser.
"""

import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlparse

import pytest

import supermask_tf as sm
from supermask_tf.paper.pages import index
from supermask_tf.paper.pages.book import Book

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = {"desktop": 1280, "phone": 390}
# Chapters of a small book: three that read the records of `first`, and three that do not.
SOME = "training", "utilisation", "runs", "speed", "quick", "references"
pytestmark = pytest.mark.long


def build(checkout: Path, whole=True) -> str:
    """Build the book of a checkout as a user does; return what was printed, without colours.

    Of a book that is not whole, some links lead nowhere.
    """
    done = subprocess.run(
        [sys.executable, "-m", "supermask_tf.cli", "report", "--source", checkout],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    text = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    assert not whole or done.returncode == 0, text[-4000:]
    return text


def copy(place: Path) -> Path:
    """A copy of the checkout there, with its records."""
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, place)
    for name in ("book", "supermask_tf", "runs", "benchmarks"):
        shutil.copytree(
            ROOT / name, place / name, ignore=shutil.ignore_patterns(".*", "__pycache__")
        )
    return place


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A copy of the checkout with its records, the book built."""
    place = copy(tmp_path_factory.mktemp("checkout"))
    text = build(place)
    assert "build succeeded." in text and "WARNING:" not in text
    assert f"{place}/_build/html/index.html" in text
    return place


@pytest.fixture(scope="module")
def html(checkout) -> Path:
    return checkout / "_build" / "html"


def pages(html: Path) -> list[Path]:
    return sorted(p for p in html.glob("**/*.html") if "_static" not in p.parts)


def test_every_run_has_its_page(checkout, html):
    """The page of runs lists every committed record and links to its page."""
    # The rows are JSON in a text of a script: quotes are escaped twice.
    listing = (html / "book" / "runs.html").read_text().replace("\\", "")
    for run in sm.load_runs(
        *(
            p
            for p in (checkout / "runs").iterdir()
            if p.is_dir() and p.name not in ("studies", "quick", "mine")
        )
    ):
        assert run.name in listing
        assert f'href="../runs/{run.study}/{run.name}.html"' in listing
        assert (html / "runs" / run.study / f"{run.name}.html").is_file()


def test_api_reference_is_complete():
    """Every public name of every module is in the API reference."""
    text = "\n".join(path.read_text() for path in (ROOT / "book" / "api").glob("*.md"))
    for module, folder in sm._MODULES.items():
        # Of a package, the modules that have its names.
        place = re.escape(f"supermask_tf.{folder}{module}")
        found = re.findall(rf"autoapimodule:: {place}(?:\.\w+)?\n   :members: (.*)", text)
        names = [name for line in found for name in line.split(", ")]
        if module == "experiment":  # whose other modules have names of their own
            names = [name for name in names if name in sm.experiment.__all__]
        assert set(names) == set(getattr(sm, module).__all__), module


def test_rebuilt_when_a_record_changes_and_only_then(tmp_path):
    """A stale figure is impossible: a page that read a changed record is built again; with nothing
    changed, none is.
    """
    place = copy(tmp_path)
    chapters = [f"      - file: book/{name}\n" for name in SOME]
    head = "format: jb-book\nroot: book/glossary\nparts:\n  - caption: Some\n    chapters:\n"
    (place / "_toc.yml").write_text(head + "".join(chapters))
    text = build(place, whole=False)
    assert set(SOME) == {path.stem for path in (place / "_build/html/book").glob("*.html")} - {
        "glossary"
    }
    assert not re.search(r"reading sources\.\.\. \[", build(place, whole=False))

    run = sm.load_runs(place / "runs" / "first").where(dataset="cifar10", arm="mask")[0]
    path = run.path / "summary.json"
    path.write_text(json.dumps(run.summary | {"test_accuracy": 0.123456}))
    text = build(place, whole=False)
    read = set(re.findall(r"reading sources\.\.\. \[.*?\] (\S+)", text))
    assert {"book/utilisation", "book/training", "book/runs"} <= read
    assert not {"book/speed", "book/references", "book/quick"} & read
    assert "12.35" in (place / "_build" / "html" / "book" / "training.html").read_text()


# Figures with panels side by side, which a phone scrolls; the others fit it.
WIDE = re.findall(
    r"fig-[\w-]+",
    re.search(r"figure:is\((.*?)\)", (ROOT / "book/_static/book.css").read_text())[1],
)
# Ways to open a file.
FILES = r"\bopen\(|read_csv|read_text|np\.load|json\.|iterdir|glob\b"


def test_pages_read_only_what_is_noted():
    """Evidence enters a page through `load_runs`, `Run.load` and `read_table`, which note it;
    nothing else opens files.
    """
    for page in (ROOT / "book").glob("*.md"):
        code = "\n".join(re.findall(r"```{code-cell}.*?\n(.*?)```", page.read_text(), re.S))
        assert not re.search(FILES, code), page.name
    for module in (ROOT / "supermask_tf" / "paper" / "pages").glob("*.py"):
        assert not re.search(FILES, module.read_text()), module.name


def test_front_page_says_what_the_records_say(checkout, html):
    """Every verdict and difference of the front page's tables, and the answer in its first lines,
    are those of the records.
    """
    text = re.sub(r"\s+", " ", (html / "book" / "index.html").read_text().replace("\u00a0", " "))
    tables = {
        title: sm.claims.comparisons(runs)
        for title, runs in sm.claims.studies(checkout / "runs").items()
    }
    assert 90 < len(words(text.partition("<article")[2].partition('id="see-one"')[0])) < 180
    cells = re.findall(
        r"<td[^>]*>(supported|refuted|not settled|–)</td>",
        text.partition('id="every-claim-one-table"')[2].partition("</table>")[0],
    )
    found = sm.claims.verdicts(tables)
    kinds = sm.claims.verdicts(
        {"": sm.claims.tickets(sm.load_runs(checkout / "runs" / "tickets_lenet"))}
    )
    found.loc["7. Two kinds of mask", "LeNet-300-100, MNIST"] = kinds.loc[
        "7. Two kinds of mask", ""
    ]
    assert cells == [verdict for _, row in found.iterrows() for verdict in row]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    for key in ("finetune_low-weights_long_low", "rewind-weights"):
        assert [sm.claims.points(table, key) for table in tables.values()] in rows
    boost = set(found.loc["2. Boost"]) - {"–"}
    judged = [
        {sm.claims.find(table, key).verdict for table in tables.values()}
        for key in ("finetune_low-weights_long_low", "rewind-weights")
    ]
    # The front page opens with the fair test's answer, once one of its studies is whole; the first
    # study's stands on its own chapter.
    answer = re.sub(r"\{.*?\}", "", index.whole_answer(Book(checkout)))  # numbers are links there
    assert answer.replace("’", "'") in re.sub(r"<[^>]+>", "", text).replace("’", "'")
    text = re.sub(r"\s+", " ", (html / "book" / "boost.html").read_text().replace("\u00a0", " "))
    assert ("Not as the post trained it" in text) == (boost == {"refuted"} == judged[0]) and (
        "Yes, on the networks tried here" in text
    ) == (boost == {"supported"})
    assert ("the masked network shows no lead" in text) == ("supported" not in judged[1])


def words(html: str) -> list[str]:
    """The words of a part of a page."""
    return re.sub(r"<script.*?</script>|<[^>]+>", " ", html, flags=re.S).split()


# Rules and sources, where an interval is what is spoken of.
APPENDICES = ("claims.html", "first_claims.html", "references.html")


def test_running_text_has_no_intervals(html):
    """A number in a sentence is rounded: its interval stands in figures, tables and tooltips."""
    for page in (html / "book").glob("*.html"):
        article = page.read_text().partition("<article")[2].partition("</article>")[0]
        for part in ("table", "figcaption", "details", "script", "style", "svg", "pre"):
            article = re.sub(rf"<{part}\b.*?</{part}>", "", article, flags=re.S)
        text = re.sub(r"<[^>]+>", "", article)
        found = re.search(r".{40}±.{10}", text)
        assert page.name in APPENDICES or not found, (page.name, found and found[0])


def test_the_front_page_is_light(html):
    """What a reader loads before any figure: under 400 kB, and no formulas' script."""
    page = html / "book" / "index.html"
    text = page.read_text()
    assert not re.search(r"<script[^>]*mathjax", text, re.I)
    loaded = re.findall(r'<(?:script|link)[^>]*(?:src|href)="(\.\./_static/[^"?]+)', text)
    weight = sum((page.parent / name).stat().st_size for name in set(loaded)) + len(text)
    assert weight < 400_000, {n: (page.parent / n).stat().st_size for n in set(loaded)}


def test_the_preview_of_a_link_has_its_picture(html):
    """Where somebody shares the address the headline figure is shown: it is in the site."""
    text = (html / "book" / "index.html").read_text()
    (image,) = re.findall(r'<meta property="og:image" content="([^"]+)"', text)
    assert (html / image).is_file()


def test_chapters_open_with_their_answer_and_its_figure(html):
    """A paragraph, then a figure, before the first heading."""
    chapters = "fair sparse training utilisation ways tickets ledger many_tasks".split()
    for name in chapters:
        text = (html / "book" / f"{name}.html").read_text()
        opening = text.partition("<article")[2].partition("</h1>")[2].partition("<h2")[0]
        before, figure, _ = opening.partition("<figure")
        answer = re.sub(r"\s*<div.*", "", before, flags=re.S)
        assert figure or name in ("fair", "sparse"), name  # whose runs may not be in
        assert 8 < len(words(answer)) < 130, (name, words(answer))


def test_the_page_on_masking_tells_what_its_scripts_do(html):
    """The masks learn, the plain forms predict alike, and what could not be masked is named."""
    text = re.sub(r"<[^>]+>", "", (html / "book" / "mask.html").read_text())
    text = re.sub(r"\s+", " ", text)

    def told(pattern):
        return [float(each.replace(",", "")) for each in re.search(pattern, text).groups()]

    before, after = told(
        r"with all of them it reads ([\d.]+) % of the test digits, with the mask ([\d.]+) %"
    )
    assert before < 30 and after > 80
    packed, tflite = told(r"The same predictions in (\d+) kB instead of (\d+) kB")
    assert tflite > 100 and packed < tflite / 20
    trained, kept, again, masked = told(
        r"weights reads ([\d.]+) % of the test digits.*Over these it keeps ([\d.]+) % of them, and"
        r" the network goes from ([\d.]+) % to ([\d.]+) %"
    )
    assert trained == again > after and 50 < kept < 100 and masked > after  # as the page says
    vit = told(
        r"drawn the network reads ([\d.]+) %.* keeps ([\d.]+) % of the weights, and the network"
        r" reads ([\d.]+) %"
    )
    assert vit[2] > vit[0] + 20 and 50 < vit[1] < 100
    assert "MultiHeadAttention" in text and "It leaves one layer, Positions," in text
    assert "its outputs equal the original's" in text.replace("’", "'")
    layers, weights, compact = told(
        r"has ([\d]+) layers that can be masked.*of ([\d,]+) parameters ([\d,]+) are left"
    )
    assert layers == 53 and compact < 0.8 * weights


def test_every_figure_has_alt_text(html):
    """A reader who does not see the figures is told what they show."""
    for page in (html / "book").glob("*.html"):
        for image in re.findall(r"<img[^>]*>", page.read_text()):
            assert re.search(r'alt="[^"]{20,}"', image), (page.name, image)


def test_links_and_images_lead_somewhere(html):
    """No broken link, anchor or image anywhere in the book."""
    texts = {page: page.read_text() for page in pages(html)}
    for page, text in texts.items():
        for target in re.findall(
            r'(?:href|src)="([^"]+)"', re.sub(r"<script.*?</script>", "", text, flags=re.S)
        ):
            url, anchor = urldefrag(target)
            if urlparse(target).scheme in ("http", "https", "data", "mailto"):
                continue
            place = (page.parent / unquote(urlparse(url).path)).resolve() if url else page
            assert place.exists(), f"{page.relative_to(html)} -> {target}"
            if anchor and place in texts:
                assert f'id="{unquote(anchor)}"' in texts[place], (
                    f"{page.relative_to(html)} -> {target}"
                )


@pytest.fixture(scope="module")
def browser():
    chromium = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    if not chromium:
        if os.environ.get("CI"):
            pytest.fail(
                "Chromium is not installed, and CI must read the book in it: apt-get install"
                " chromium."
            )
        pytest.skip("Chromium is not installed: the book was not read in a browser.")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(html):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=html)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def read(
    browser, address: str, wait: str = "networkidle", widths=(1280,), **context
) -> tuple[list[str], dict[int, dict]]:
    """Open a page at the first of these widths and go on to the others; return what went wrong
    (console, failed or foreign requests) and what it looks like at each.
    """
    page = browser.new_page(viewport={"width": widths[0], "height": 900}, **context)
    wrong: list[str] = []
    own = urlparse(address)
    page.on("console", lambda m: wrong.append(f"console: {m.text}") if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on("response", lambda r: wrong.append(f"{r.status}: {r.url}") if r.status >= 400 else None)
    page.on(
        "request",
        lambda r: (
            wrong.append(f"leaves the machine: {r.url}")
            if urlparse(r.url).scheme not in ("data", "blob")
            and (urlparse(r.url).scheme, urlparse(r.url).netloc) != (own.scheme, own.netloc)
            else None
        ),
    )
    page.goto(address, wait_until=wait)
    if page.locator(".math").count():  # drawn behind the last request, on a busy machine later
        page.wait_for_function("() => document.querySelector('mjx-container')")
    looks = {}
    for width in widths:
        page.set_viewport_size({"width": width, "height": 900})
        looks[width] = page.evaluate("""() => ({
            width: document.documentElement.scrollWidth,
            broken: [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src),
            math: document.querySelectorAll('.math').length,
            drawn: document.querySelectorAll('mjx-container').length,
            cut: [...document.querySelectorAll('figure')].filter(f => f.scrollWidth > f.clientWidth
                && getComputedStyle(f, '::before').content == 'none').map(f => f.id),
        })""")
    page.close()
    return wrong, looks


# Each scheme begins at the other width, since some scripts look at it when the page loads.
@pytest.mark.parametrize("scheme, devices", [("light", "desktop phone"), ("dark", "phone desktop")])
def test_every_page_loads_cleanly(browser, address, html, scheme, devices):
    """In a real browser: no console error, no request leaves the machine, nothing broken, nothing
    wider than the screen, no figure cut without a word.
    """
    by_study: dict[Path, list[Path]] = {}
    for page in pages(html):
        by_study.setdefault(page.parent, []).append(page)
    for page in pages(html):
        name = page.relative_to(html).as_posix()
        # Static, hundreds, and all of one make: the first and last of a study are looked at.
        static = name.startswith(("runs/", "numbers/"))
        if static and page not in (by_study[page.parent][0], by_study[page.parent][-1]):
            continue
        if scheme == "dark" and (static or name.startswith("book/api/")):
            continue
        wrong, looks = read(
            browser,
            urljoin(address, name),
            "load" if static else "networkidle",
            [WIDTHS[device] for device in devices.split()],
            color_scheme=scheme,
        )
        assert not wrong, (name, wrong)
        for width, look in looks.items():
            assert not look["broken"], (name, look)
            assert look["width"] <= width, (name, look)
            assert not look["cut"], (name, look)  # a wide figure says that it goes on
            assert look["drawn"] >= look["math"], (name, look)


def test_front_page_reads_as_a_file(browser, html):
    """`make report` prints a path: opened as a file, without a server, the book works too."""
    wrong, looks = read(browser, (html / "book" / "method.html").as_uri())
    assert not wrong and all(0 < look["math"] <= look["drawn"] for look in looks.values())


@pytest.mark.parametrize("device", WIDTHS)
def test_a_supermask_runs_in_the_book(browser, html, device):
    """In the built book, opened as a file, the page draws, switches and slides, and asks for
    nothing but files of the book.
    """
    page, wrong = browser.new_page(viewport={"width": WIDTHS[device], "height": 900}), []
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request",
        lambda r: (
            wrong.append(r.url) if not r.url.startswith((html.as_uri(), "data:", "blob:")) else None
        ),
    )
    page.goto((html / "book" / "see.html").as_uri())
    page.evaluate("see.ready")

    def said():
        return re.sub(r"\s+", " ", page.text_content("#see-says"))

    def settled(text):
        page.wait_for_function(
            "text => document.getElementById('see-says').textContent.includes(text)", arg=text
        )

    prose = re.sub(r"\s+", " ", page.inner_text("article p"))
    reads = int(re.search(r"reads (\d+) of a hundred", prose).group(1))
    assert said().endswith(f"it reads {reads}.") and reads > 85
    page.click('label:has([value="random"])')
    settled("random mask")
    assert said().endswith(f"it reads {re.search(r'it reads (.*?) and', prose).group(1)}.")
    page.click('label:has([value="mask"])')
    settled("The supermask")
    page.focus("#see-kept")
    page.keyboard.press("End")
    settled("without a mask")
    box = page.locator("#see-pad").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 1.5, steps=5)
    page.mouse.up()
    settled("your drawing")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[device] and not wrong
    page.close()


@pytest.mark.parametrize("touch", [False, True])
def test_a_number_says_its_interval_and_leads_to_its_runs(browser, html, touch):
    """By pointer and by touch, by keyboard too: the interval on the screen, then the very runs
    that were compared, and from a run back.
    """
    page = browser.new_page(viewport={"width": 390, "height": 900}, has_touch=touch)
    page.goto((html / "book" / "boost.html").as_uri())
    number = page.locator('a.number[href$="lenet/rewind-weights.html"]').first
    shown = "e => getComputedStyle(e, '::after').content"
    assert "±" not in number.inner_text() and number.evaluate(shown) == "none"
    if touch:
        number.tap()  # says it, and stays
    else:
        number.focus()
    assert page.url.endswith("boost.html") and "±" in number.evaluate(shown)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.keyboard.press("Escape")
    assert number.evaluate("e => getComputedStyle(e, '::after').display") == "none"
    number.tap() if touch else page.keyboard.press("Enter")
    page.wait_for_url("**/numbers/lenet/rewind-weights.html")
    rows = page.locator("tbody tr")
    runs = sm.load_runs(html.parents[1] / "runs" / "lenet")
    wanted = {run.name for run in runs.where(arm="rewind", learning_rate=0.01)}
    links = rows.locator("a").evaluate_all("links => links.map(l => l.title)")
    assert rows.count() == 10 and len(links) == 20 and wanted <= set(links)
    rows.locator("a").first.click()
    page.wait_for_url("**/runs/lenet/*.html")
    assert page.locator('a[href$="numbers/lenet/rewind-weights.html"]').count() == 1
    page.close()


def test_a_term_says_its_definition(browser, html):
    """Reached by keyboard, a word of the glossary is defined where it stands."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((html / "book" / "index.html").as_uri())
    term = page.locator("a[data-more]:not(.number)").first
    term.focus()
    said = term.evaluate("e => getComputedStyle(e, '::after').content")
    assert len(said) > 30 and said.strip('"') == term.get_attribute("data-more")
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_finding_of_accessibility(browser, html, scheme):
    """axe-core on some chapters, a run's page and a number's: contrast, names, order."""
    axe_playwright = pytest.importorskip("axe_playwright_python.sync_playwright")
    run = next((html / "runs" / "lenet").glob("*.html"))
    number = html / "numbers" / "lenet" / "rewind-weights.html"
    chapters = [html / "book" / f"{name}.html" for name in ("index", "boost", "see", "glossary")]
    for place in (*chapters, run, number):
        # A number's page lets no script in, axe-core's neither.
        # Without motion: in the midst of a change of colours, contrast is that of neither theme.
        page = browser.new_page(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
        page.goto(place.as_uri())
        found = axe_playwright.Axe().run(page).response["violations"]
        serious = {
            f["id"]: [node["html"][:200] for node in f["nodes"][:3]]
            for f in found
            if f["impact"] in ("serious", "critical")
        }
        assert not serious, (place.name, scheme, serious)
        page.close()


def test_figures_and_tables_on_a_phone(browser, html):
    """Figures are sharp however far they are enlarged. Panels side by side keep a size at which
    they can be read, and scroll; captions, and the tables of verdicts with their last column, fit
    the screen.
    """
    page = browser.new_page(viewport={"width": WIDTHS["phone"], "height": 900})
    for name in ("index", "training", "boost", "utilisation", "tickets"):
        page.goto((html / "book" / f"{name}.html").as_uri())
        figures = page.evaluate(
            """() => [...document.querySelectorAll('.cell_output figure')].map(f => ({
            id: f.id, source: f.querySelector('img').src,
            shown: f.querySelector('img').getBoundingClientRect().width,
            caption: f.querySelector('figcaption').getBoundingClientRect().right }))"""
        )
        assert figures
        for figure in figures:
            assert figure["source"].endswith(".svg")
            assert figure["caption"] <= WIDTHS["phone"], (name, figure)
            fits = figure["shown"] < WIDTHS["phone"]
            assert figure["shown"] > 480 if figure["id"] in WIDE else fits, (name, figure)
        clipped = page.evaluate("""() => [...document.querySelectorAll('.bd-article table')]
            .filter(t => /verdict|refuted/.test(t.innerText))
            .map(t => t.scrollWidth - t.clientWidth).filter(by => by > 1)""")
        assert not clipped, (name, clipped)
    page.close()


def test_numbers_keep_their_signs_and_units(html):
    """No line of a page can end between ± and its number, a number and its per cent, or inside "(n
    = 3)".
    """
    text = (html / "book" / "index.html").read_text()
    assert (
        re.search(r"±\xa0\d", text)
        and re.search(r"\(n\xa0=\xa0\d", text)
        and re.search(r"\d\xa0%", text)
    )
    for page in pages(html):
        if "runs" not in page.relative_to(html).parts:
            assert not re.search(r"± \d|\(n = \d|\d %", page.read_text()), page
