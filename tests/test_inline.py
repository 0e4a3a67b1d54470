"""Numbers in running text: rounded, with their interval and their runs, and the pages of these."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made import lenet

from supermask_tf.paper.pages import inline
from supermask_tf.records import behind

ROOT = Path(__file__).resolve().parents[1]
TITLE = "LeNet-300-100, MNIST"
PAIRS = pd.DataFrame(
    {"points": [-2.0, -2.2], "runs": [(("a/one",), ("a/two",)), (("a/three",), ("a/four",))]},
    index=[0, 1],
)


@pytest.fixture
def log(tmp_path, monkeypatch):
    path = tmp_path / "numbers"
    monkeypatch.setenv("SUPERMASK_NUMBERS", str(path))
    return path


@pytest.fixture(scope="module")
def extension():
    place = ROOT / "book" / "_extensions" / "behind.py"
    spec = importlib.util.spec_from_file_location("behind_extension", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_number_is_rounded_and_has_its_runs(tmp_path, log):
    """What is shown, what is said when touched, and the very pairs that were compared."""
    book = lenet(tmp_path, finetune=0.97)
    told = inline.one(book, TITLE, "mask-weights")
    assert told.startswith("−5.0{−5.00 ± 0.02 points, a 95 % interval over 3 seeds. ")
    assert told.endswith("|lenet/mask-weights}")
    assert inline.in_words(book, "mask-weights") == f"{told} for LeNet-300-100 on MNIST"
    (number,) = behind.noted(log)
    assert (number.name, number.unit) == ("lenet/mask-weights", "points")
    assert number.sides == ("mask", "weights") and [row.seed for row in number.rows] == [0, 1, 2]
    for row in number.rows:
        ((mask,), (weights,)) = row.runs
        assert mask.startswith(f"lenet/mask-s{row.seed}-")
        assert weights.startswith(f"lenet/weights-s{row.seed}-")
        assert row.value == pytest.approx(-5 + 0.01 * (row.seed - 1))


def test_what_is_not_there_is_said(tmp_path, log):
    """No runs, one seed, an unknown study: words, and nothing noted."""
    book = lenet(tmp_path)
    assert inline.one(book, TITLE, "rewind-weights") == "not measured yet"
    assert inline.one(book, "none", "mask-weights") == "not measured yet"
    assert inline.difference("a/b", "x: one − two", PAIRS.iloc[:0]) == "not measured yet"
    assert inline.difference("a/b", "x: one − two", PAIRS.iloc[:1]) == "one seed"
    assert behind.noted(log) == []


def test_rounding():
    """A tenth of a point, a hundredth where a tenth is too coarse, a true minus sign."""
    assert [inline.rounded(x) for x in (-2.07, 0.04, 0.11, 0.31, 14.61)] == [
        "−2.1",
        "+0.04",
        "+0.11",
        "+0.3",
        "+14.6",
    ]
    assert inline.accuracy("a/b", "x", PAIRS.assign(points=92.35), digits=0).startswith(
        "92 %{92.35 "
    )


def test_a_tables_numbers_lead_to_their_runs(tmp_path, log):
    """Each comparison with two seeds is a link, one without is plain."""
    book = lenet(tmp_path)
    table = inline.table(book, TITLE, book.tables[TITLE]).set_index("comparison")
    column = "difference, points"
    assert table.loc["mask − weights", column].startswith('<a href="../numbers/lenet/mask-weights')
    assert table.loc["mask − Bernoulli", column] == "no runs yet"


def test_the_page_behind_a_number(log):
    """It lists exactly the runs, both sides of each seed, and where the book shows the number."""
    inline.difference("a/one-two", "Here: one − two <3", PAIRS)
    (number,) = behind.noted(log)
    text = behind.page(number, {"book/boost.html": "Is it a good start?"})
    assert re.findall(r'href="../../runs/(.*?)\.html"', text) == [
        "a/one",
        "a/two",
        "a/three",
        "a/four",
    ]
    assert "<h1>Here: one − two &lt;3</h1>" in text and "−2.10 ± 1.27 points" in text
    assert text.count("<circle") == 2 and "<script" not in text
    assert '<a href="../../book/boost.html">Is it a good start?</a>' in text


def test_a_run_leads_to_its_numbers(log):
    """The list stands in the place that the run's page has for it, and is written anew."""
    inline.difference("a/one-two", "Here: one − two", PAIRS)
    numbers = behind.noted(log)
    page = "<p>before</p>" + "".join(behind.USES) + "<p>after</p>"
    once = behind.uses(page, numbers)
    assert '<a href="../../numbers/a/one-two.html">Here: one − two</a>: −2.10' in once
    assert behind.uses(once, numbers) == once and behind.uses(once, []) == page
    assert behind.uses("<p>other</p>", numbers) == "<p>other</p>"


def test_a_text_becomes_links(extension):
    """The numbers of a text are nodes with what they say; the rest stays as it is."""
    text = "Gain: −2.1{−2.07 ± 0.38 points|lenet/a-b} here, 92 %{92.1 ± 1 %|x/y}. Plain {braces}."
    parts = extension.split(text)
    assert [str(part.astext()) for part in parts] == [
        "Gain: ",
        "−2.1",
        " here, ",
        "92 %",
        ". Plain {braces}.",
    ]
    assert parts[1]["name"] == "lenet/a-b" and parts[3]["more"] == "92.1 ± 1 %"


def test_pages_are_written_and_stale_ones_go(extension, tmp_path, log):
    """Each noted number has its page, each of its runs leads to it; what none notes goes."""
    inline.difference("a/one-two", "Here: one − two", PAIRS)
    out = tmp_path / "out"
    for name in ("numbers/a/old.html", "runs/a/one.html", "runs/a/none.html"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("".join(behind.USES))
    env = SimpleNamespace(
        supermask_numbers={"book/boost": behind.noted(log)},
        titles={"book/boost": SimpleNamespace(astext=lambda: "Boost")},
    )
    app = SimpleNamespace(outdir=out, builder=SimpleNamespace(name="html"), env=env)
    extension._write(app, None)
    assert not (out / "numbers/a/old.html").exists()
    assert "numbers/a/one-two.html" in (out / "runs/a/one.html").read_text()
    assert (out / "runs/a/none.html").read_text() == "".join(behind.USES)
    assert ">Boost</a>" in (out / "numbers/a/one-two.html").read_text()
