"""What the pages compute: their sentences from made records, for each outcome and for none yet."""

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import made
import numpy as np
import pandas as pd
import pytest
from made import lenet, make

from supermask_tf import claims
from supermask_tf.paper.pages import (
    Book,
    mask,
    method,
    quick,
    rerun,
    scale,
    speed,
    tickets,
    training,
    unsettled,
    utilisation,
    ways,
)
from supermask_tf.paper.pages import book as book_module
from supermask_tf.records import Run

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "book").glob("*.md"))}
MODULES = sorted((ROOT / "supermask_tf" / "paper" / "pages").glob("*.py"))


def module(page: str):
    return importlib.import_module(f"supermask_tf.paper.pages.{page}")


class Runs(list):
    """Runs of which nothing but the summary is asked."""

    def __init__(self, rows):
        super().__init__(rows)
        self.summary = pd.DataFrame(rows)


# --- the pages and their functions ----------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    return Book(ROOT)


@pytest.mark.parametrize(
    "page",
    # The page "mask" trains networks: it is read in the built book.
    [name for name, text in PAGES.items() if "{glue:" in text and name != "mask"],
)
def test_every_name_of_a_page_has_its_text(committed, page):
    """What a page's sentences ask for is what its function returns, and nothing of it is empty."""
    texts = module(page).texts(committed)
    names = set(re.findall(r"\{glue:\w*\}`([^`]+)`", PAGES[page]))
    assert names <= set(texts)
    assert all(isinstance(texts[name], str) for name in names)
    assert not [name for name in names if re.search(r"\bnan\b", texts[name])]


def test_a_script_of_a_page_that_fails_is_told(tmp_path):
    """A page is not made of half an output."""
    script = tmp_path / "fails.py"
    script.write_text("print('a')\nraise SystemExit('no such layer')")
    with pytest.raises(RuntimeError, match="fails.py failed: no such layer"):
        mask.run(script)


def cells(page: str) -> list[list[str]]:
    """The lines of code of each cell, without its options."""
    found = []
    for cell in re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", PAGES[page], re.S):
        code = re.sub(r"\A---\n.*?\n---\n", "", cell, flags=re.S).splitlines()
        found.append([line for line in code if line.strip() and not line.startswith(":")])
    return found


def test_a_cell_is_one_call():
    """A page imports in its first cell; each other cell calls a function of the page's module, or
    of one whose name goes on from the page's.
    """
    assert sum(len(cell) for page in PAGES for cell in cells(page)) < 160
    for page in PAGES:
        for cell in cells(page):
            if not cell[0].startswith(("from ", "import ")):
                called = re.fullmatch(rf"({page}(?:_\w+)?)\.(\w+)\(book\)", *cell)
                assert called and getattr(module(called[1]), called[2]).__doc__, (page, cell)
            else:
                allowed = rf"(from|import) .*|book = start\({page}\)|{page}\.\w+\(.*\)"
                assert all(re.fullmatch(allowed, line) for line in cell), (page, cell)


@pytest.mark.slow
def test_a_missing_name_fails_the_build(tmp_path):
    """A name that no cell glues is a warning of Sphinx, and the command makes warnings errors."""
    (tmp_path / "conf.py").write_text('extensions = ["myst_nb"]\nnb_execution_mode = "off"\n')
    page = (
        "---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n# A\n\n{glue:text}`none`\n"
    )
    (tmp_path / "index.md").write_text(page)
    command = [sys.executable, "-m", "sphinx", "-W", "-q", tmp_path, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "No key 'none' found" in done.stderr
    assert "--warningiserror" in (ROOT / "supermask_tf" / "studies" / "book.py").read_text()


@pytest.mark.slow
def test_pages_import_what_reads_records_and_no_more():
    """No TensorFlow, and only the modules whose change has the book's pages made again."""
    allowed = {
        "analysis",
        "claims",
        "enumeration",
        "ledger",
        "many_tasks",
        "overlap",
        "plots",
        "readings",
        "records",
        "book",
        "see",
        "fair",
        "fair_parts",
        "fair_plots",
        "fair_rates",
        "fair_tuning",
        "fair_words",
        "inline",
        "sparse",
        "records.behind",
        "mask_plots",
        "diagram",
        "boost",
        "tickets",
        "training",
        "utilisation",
    }
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                names = [node.module] if node.module else [name.name for name in node.names]
                assert set(names) <= allowed, (path.name, names)
    names = ", ".join(path.stem for path in MODULES if path.stem != "__init__")
    code = f"import sys; from supermask_tf.paper.pages import {names}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "tensorflow" not in loaded
    text = (ROOT / "book/_extensions/evidence.py").read_text()
    tracked = re.findall(r'"([\w/*]+\.py)"', re.search(r"_SOURCES = \((.*?)\)", text, re.S)[1])
    package = ROOT / "supermask_tf"
    tracked = {path for name in tracked for path in package.glob(name)}
    own = {name.split(".", 1)[1] for name in loaded if name.startswith("supermask_tf.")}
    places = [package / name.replace(".", "/") for name in own]
    files = {p / "__init__.py" if p.is_dir() else p.with_suffix(".py") for p in places}
    assert files <= tracked and set(MODULES) <= tracked


def test_glue_gives_each_text_its_name(monkeypatch):
    """A page's texts reach MyST-NB by name, and are not shown where they are glued."""
    import myst_nb

    glued = {}
    monkeypatch.setattr(
        myst_nb, "glue", lambda name, text, display: glued.update({name: (text, display)})
    )
    book_module.glue({"a": "1", "b": "2"})
    assert glued == {"a": ("1", False), "b": ("2", False)}


def test_numbers_are_written_alike():
    """Per cent with a space, a true minus sign, an interval only where there are seeds for one."""
    assert book_module.percent(0.1234) == "12.3 %" and book_module.percent(0.1234, 0) == "12 %"
    assert book_module.signed(-0.34) == "−0.3" and book_module.signed(0.34, 2) == "+0.34"
    assert book_module.accuracy(0.97, 0.001, 3.0) == "97.00 ± 0.10 % (n = 3)"
    assert book_module.accuracy(0.97, np.nan, 1) == "97.00 % (one seed)"
    assert book_module.rate(1e-5) == "1e-5" and book_module.rate(0.01) == "0.01"
    table = book_module.by_study({"a": pd.DataFrame({"x": [1]}), "b": pd.DataFrame({"x": [2, 3]})})
    assert table.study.tolist() == ["a", "b", "b"] and table.x.tolist() == [1, 2, 3]


def test_a_book_reads_each_study_once_and_only_when_asked(tmp_path, monkeypatch):
    """A page depends on what it shows: making the book reads nothing, nothing is read twice."""
    log = tmp_path / "reads"
    monkeypatch.setenv("SUPERMASK_READS", str(log))
    book = lenet(tmp_path)
    assert not log.exists()
    assert book.tables is book.tables and list(book.tables) == list(book.begun) == [
        "LeNet-300-100, MNIST"
    ]
    read = log.read_text()
    assert str(tmp_path / "runs" / "lenet") in read and "tickets_lenet" not in read
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        _ = book.first


# --- what gets masked? ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "verdict, words",
    [
        ("refuted", "There is no limit of 16 % per layer"),
        ("supported", "No layer masked more than the 16 %"),
        ("not settled", "Whether 16 % per layer is a limit, as the post saw one, is not settled."),
        ("–", "the first layer's in the middle, where digits are drawn, and 20 % at the rim."),
    ],
)
def test_what_gets_masked_in_two_sentences(monkeypatch, verdict, words):
    """Where the first layer's weights go, then the verdict on the post's limit."""
    monkeypatch.setattr(utilisation, "_share_kept", lambda book, middle: 0.6 if middle else 0.8)
    book = SimpleNamespace(verdicts=pd.DataFrame({"a": [verdict]}, index=["5. At most 16 %"]))
    told = utilisation.answer(book)
    assert told.startswith("Mostly weights where the images change: 40 %") and words in told
    monkeypatch.setattr(utilisation, "_share_kept", lambda book, middle: 0.5)
    assert utilisation.answer(book).startswith("Of the first layer's weights 50 % in the middle")


def test_the_layer_that_masks_most_and_the_masks_epochs(tmp_path):
    """The start that masks most is named; a study without two seeds says nothing of its lengths."""
    folder = tmp_path / "runs/wrn_mnist"
    for seed in range(2):
        make(folder, "mask", seed, 0.9, lambda path, *_: 0.1)
        make(folder, "mask", seed, 0.9, lambda path, *_: 0.3, initial_logit=0.05)
    book = Book(tmp_path)
    assert utilisation.tops(book) == "30 % for WRN-10-2 on MNIST (logits from 0.05)"
    spans = "with 10.0 to 10.0 % masked, against 10.0 to 10.0 % at the last"
    assert utilisation.lengths(book) == f"for WRN-10-2 on MNIST epochs 1 to 1, {spans}"
    assert utilisation.numbers(book).data.comparison.iloc[0] == "masked for ten times the weights"
    nothing = Book(tmp_path / "none")
    assert utilisation.tops(nothing) == "" and utilisation.lengths(nothing) == "no runs yet"


# --- every way to find a mask ---------------------------------------------------------------------

WAYS = pd.DataFrame(
    [
        ("weights trained", 10, 0.01, 0.98, 0.001, 3, 1.0, 0.99),
        ("top_k, 50 % kept", 10, 0.1, 0.95, 0.002, 3, 0.5, 0.97),
        ("threshold", 10, 0.01, 0.96, 0.01, 1, 0.9, 0.96),
        ("threshold, signed constants, rescaled", 10, 0.01, 0.97, 0.001, 3, 0.5, 0.98),
    ],
    columns=["way", "epochs", "learning_rate", "mean", "half", "n", "kept", "held_out"],
)


def test_the_best_way_is_chosen_on_held_out_images():
    """Not by the test; trained weights and signed constants are no candidates; none yet says so."""
    assert ways.best(WAYS, ways._accuracy) == (
        "95.00 ± 0.20 % (n = 3) in the test (top_k, 50 % kept)"
    )
    assert ways.best(WAYS.iloc[:1], ways._accuracy) == "no run yet"
    assert ways.best(WAYS.iloc[:0], ways._accuracy) == "no run yet"


def test_the_accuracy_of_a_way():
    """All values given pick it; a way that was not tried is not measured yet."""
    assert ways.of_way(WAYS, ways._accuracy, way="threshold") == "96.00 % (one seed)"
    assert ways.of_way(WAYS, ways._accuracy, way="threshold", epochs=60) == "not measured yet"


@pytest.mark.parametrize("what, accuracy, found, reached, inside", [
    ("weights trained", 0.98, "98.00 ± 0.10 % (n = 3)", "yes", "yes"),
    ("weights trained", 0.99, "98.00 ± 0.10 % (n = 3)", "no", "no"),
    ("masks", 0.951, "95.00 ± 0.20 % (n = 3)", "no", "yes"),
    ("masks, signed constants", 0.9, "97.00 ± 0.10 % (n = 3)", "yes", "no"),
])  # fmt: skip
def test_beside_a_published_accuracy(what, accuracy, found, reached, inside):
    """The best of the same kind here, whether it gets there, and whether the interval holds it."""
    theirs = pd.Series({"network": "LeNet", "dataset": "MNIST", "what": what, "accuracy": accuracy})
    row = ways.beside(WAYS, theirs)
    assert list(row)[:3] == ["network", "what", "published"] and row["network"] == "LeNet, MNIST"
    assert row["the best here"] == found
    assert (row["reached"], row["inside the interval"]) == (reached, inside)
    row = ways.beside(WAYS.iloc[:0], theirs)
    assert row["the best here"] == "not measured yet" and row["reached"] == row["found by"] == ""


def test_ways_before_any_run(tmp_path):
    """Without records the page's sentences on them say so; those on the small networks stand."""
    texts = ways.texts(Book(tmp_path))
    assert texts["best_lenet"] == texts["best_conv"] == "no run yet"
    assert texts["threshold"] == texts["conv_ils"] == "not measured yet"
    assert float(texts["st_cosine"]) > 0.5 and int(texts["states_n"]) <= 40
    assert ways.conv_table(Book(tmp_path)) == "No run yet."
    assert ways.gradients(Book(tmp_path)).columns[0] == "cosine with the true gradient"


# --- supermasks and lottery tickets ---------------------------------------------------------------


@pytest.fixture
def both(tmp_path, monkeypatch):
    """`made.both`, whose masks share half of what chance leaves; the magnitudes are given."""
    made.both(tmp_path / "runs")
    table = pd.DataFrame(
        [("ticket", "dense1", 1, 0.1, 0.2, 0.5), ("ticket", "dense1", 10, 0.6, 0.2, 0.25)],
        columns=["method", "path", "part", "kept", "density", "positive"],
    )
    monkeypatch.setattr(tickets, "_magnitudes", lambda book: table)
    return Book(tmp_path)


def test_texts_of_the_tickets(both):
    """Accuracies by method and density, what masks share, and how often large weights are kept."""
    texts = tickets.texts(both)
    assert (texts["s20_start"], texts["t20_trained"]) == ("90.0 %", "96.0 %")
    assert (texts["seeds"], texts["dense"], texts["verdict"]) == ("3", "95.00 %", "refuted")
    assert (texts["overlap"], texts["chance"], texts["beyond"]) == ("75.0 %", "50.0 %", "50.0 %")
    assert texts["supermask_ticket"].startswith("50.0 %{50.00 ± 0.00 %, ")
    assert texts["two_supermasks"] == texts["s50_start"] == "not measured yet"
    assert (texts["ticket_top"], texts["ticket_low"]) == ("3.0", "0.5")
    assert texts["ticket_positive"] == "28.6 %" and texts["supermask_top"] == "not measured yet"


def test_tables_of_the_tickets(both):
    """One row per method and density, one per layer shared; no evil mask was made."""
    table = tickets.every_method(both).data.set_index(["mask", "kept"])
    assert table.loc[("ticket", "20 %"), "after training"] == "96.00 ± 0.25 %"
    assert table.loc[("dense", "100 %"), "without training"] == ""
    assert tickets.overlap_table(both).data["beyond chance"].tolist() == ["50.0 %", "50.0 %"]
    assert tickets.evil(both) == "No run yet." and len(tickets.comparisons(both).data) == 32
    assert tickets.layers(both).data.columns.tolist() == ["ticket over all layers, 20 %"]


def test_tickets_before_any_run(tmp_path):
    """Without records each sentence says so."""
    texts = tickets.texts(Book(tmp_path))
    assert texts.pop("verdict") == "no runs yet" and texts.pop("seeds") == "0"
    assert texts.pop("fewest").startswith("At none of these")
    assert texts.pop("answer").endswith("is not measured yet.")
    assert set(texts.values()) == {"not measured yet"}
    assert tickets.comparisons(Book(tmp_path)) == "No run yet."


class Evil:
    """A book whose only runs are evil masks: right in these parts of the images, by density."""

    def __init__(self, accuracies):
        self.rows = [
            {"arm": "evil", "density": d, "test_accuracy": a + wiggle, "start_accuracy": 0.9}
            for d, a in accuracies.items()
            for wiggle in (-0.001, 0, 0.001)
        ]

    def runs(self, *studies):
        found = Runs(self.rows)
        found.where = lambda **values: found
        return found


def test_how_few_weights_make_a_network_wrong():
    """The smallest part with which the whole interval lies below one half; or none of them."""
    found = tickets.fewest(Evil({0.98: 0.6, 0.95: 0.3, 0.9: 0.1}))
    assert found.startswith(
        "Without one in 20 of each layer's weights, chosen by the evil mask, the network is right"
    )
    assert found.endswith("Without as many random ones it is right in 90.0 %.")
    none = tickets.fewest(Evil({0.98: 0.6, 0.95: 0.499}))
    assert none == "At none of these is it wrong more often than right over the whole interval."
    table = tickets.evil(Evil({0.98: 0.6, 0.9: 0.1})).data
    assert table["taken away"].tolist() == ["2 %", "10 %"] and table.seeds.tolist() == [3, 3]


# --- the other pages ------------------------------------------------------------------------------


def test_open_comparisons_and_how_many_were_asked(tmp_path):
    """Only what a claim rests on is counted; without records nothing is asked."""
    book = lenet(tmp_path, finetune=0.97)
    texts = unsettled.texts(book)
    deciding = book.tables["LeNet-300-100, MNIST"].decides.sum()
    assert (texts["asked"], texts["paper"]) == (str(deciding), "")
    table = unsettled.open_comparisons(book).data
    assert len(table) == int(texts["open"]) and "mask − weights" not in set(table.comparison)
    assert table["difference, points"].tolist().count("no runs yet") > 5
    nothing = Book(tmp_path / "none")
    texts = unsettled.texts(nothing)
    assert (texts["asked"], texts["open"], texts["paper"]) == ("0", "0", "")
    assert "no study of the fair test has a run yet" in texts["fair_open"]
    assert unsettled.open_comparisons(nothing) == "Every comparison is settled."


def test_original_protocol_beside_its_twin(tmp_path):
    """A run whose epoch was chosen on the test set stands beside the same run of the study."""
    assert unsettled.original_protocol(Book(tmp_path)) == "No run yet."
    original = {"protocol": "original", "val": (0.5, 0.8, 0.7)}
    make(tmp_path / "runs/original", "mask", 0, 0.8, **original)
    make(tmp_path / "runs/original", "weights", 0, 0.8, **original)
    make(tmp_path / "runs/wrn_mnist", "mask", 0, 0.75)
    make(tmp_path / "runs/wrn_mnist", "mask", 1, 0.1)
    table = unsettled.original_protocol(Book(tmp_path)).data
    assert table.iloc[:, 2:].to_numpy().tolist() == [
        ["80.00", "70.00", "75.00"],
        ["80.00", "70.00", "no run yet"],
    ]


def test_the_page_of_this_machine(tmp_path):
    """Before `make report` it says how to make the runs; then it shows them."""
    book = Book(tmp_path)
    assert "Nothing here yet" in quick.accuracies(book).data
    assert quick.curves(book) is None and quick.utilisation(book) is None
    make(tmp_path / "runs/quick", "mask", 0, 0.9, dataset="digits")
    book = Book(tmp_path)
    assert quick.accuracies(book).loc["digits", "mask"] == "90.00 (one seed)"
    assert len(quick.curves(book).axes) == 2 and len(quick.utilisation(book).axes) == 1


class Costs:
    """A book of three runs, each started from the one before; two threads an hour each."""

    def runs(self, *studies):
        shared = {"threads": 2, "seconds": 3600, "epochs": 2, "train_images": 1000}
        shared |= {"processor": "one", "images_per_second": 50.0}
        names = [("a", None), ("b", "a"), ("c", "b")] if "first" in studies else [("a", None)]
        return Runs([{"study": "first", "run": r, "init_from": p, **shared} for r, p in names])


def test_what_a_study_costs():
    """Core-hours, images of all epochs, and the chain of a run with all that it starts from."""
    row = scale.costs(Costs()).loc["first"]
    assert (row.runs, row.images, row.hours, row.chain) == (3, 6000, 6.0, 6.0)
    table = scale.studies(Costs()).data.iloc[0]
    assert table["1 core"] == 6.0 and table["8 cores"] == 6.0, "no less than the longest chain"
    assert "at 50 images a second (the median run), 60.0 minutes a run" in scale.at_the_posts_scale(
        Costs()
    )


def test_scale_before_any_run_of_the_post(tmp_path):
    """Without a record at the post's scale the sentence says so."""
    assert scale.at_the_posts_scale(Book(tmp_path)) == "no record of it is here yet"
    assert scale.on_an_accelerator(Book(tmp_path)) == "No record of it is here yet."


def test_what_an_accelerator_trains():
    """Images of all epochs over the seconds they took, of the median run."""

    class Fast:
        def runs(self, *studies):
            shared = {"epochs": 20, "train_images": 45_000, "processor": "one GPU"}
            shared |= {"test_accuracy": 0.8}
            again = zip((20, 30, 90), (0.8, 0.8006, None))
            return Runs([shared | {"seconds": s, "tensorflow_accuracy": a} for s, a in again])

    told = scale.on_an_accelerator(Fast())
    assert "The 3 WRN-10-2" in told and "each 30,000 images a second, and 30 seconds a run" in told
    assert "tested 2 of them again" in told and "by at most 0.06 points" in told


def test_measurements_are_those_of_the_table(committed):
    """The page on speed writes the ratios of benchmarks/results.csv, two digits each."""
    table = committed.table("benchmarks/results.csv").set_index(["what", "variant"]).ratio
    texts = speed.texts(committed)
    assert texts["lenet"] == f"{table['LeNet-300-100 training step', 'mask']:.2f}"
    assert texts["conv_sort"] == f"{table['Conv-2 step by estimator', 'top_k by a sort']:.2f}"
    assert list(speed.results(committed).data)[:3] == ["what", "variant", "ratio"]
    assert "WRN-10-1, CIFAR-10" in scale.xla(committed)


def test_steps_and_minutes_of_the_first_study(committed):
    """A step is a full batch: what is left of the images at the end of an epoch makes none."""
    texts = method.texts(committed)
    assert (texts["mnist_steps"], texts["cifar10_steps"]) == ("429", "351")
    assert texts["minutes"] == f"{sum(run.summary['seconds'] for run in committed.first) / 60:.0f}"


def test_every_run_is_listed_and_those_made_again(committed):
    """The page of runs names each record once, and shows what `supermask verify` found."""
    page = module("runs")
    listing = page.listing(committed).data
    assert all(isinstance(run, Run) and run.name in listing for run in committed.runs("lenet"))
    table = committed.table("runs/verified.csv")
    assert len(page.verified(committed).data) == len(table)


def test_parameters_are_those_of_the_class():
    """A row per field, with its default and its help."""

    @dataclasses.dataclass
    class Made:
        seed: int = dataclasses.field(default=3, metadata={"help": "the seed"})

    assert rerun.parameters(Made).data.to_numpy().tolist() == [["seed", 3, "the seed"]]


FIGURES = {
    "index": ["jump_figure", "fair_figure", "see_still", "masks_figure"],
    "boost": ["figure"],
    "training": ["parity_figure", "width_figure", "curves", "curves_at_scale", "estimators_figure"],
    "utilisation": [
        "weights_figure",
        "most_figure",
        "layers_figure",
        "kernels_figure",
        "by_epoch_figure",
        "strip_figure",
        "by_value_figure",
    ],
    "ways": ["lenet_figure", "conv_figure"],
    "tickets": ["density_figure", "magnitude_figure"],
    "method": ["straight_through", "gradients"],
}


@pytest.mark.slow
@pytest.mark.parametrize("page", FIGURES)
def test_figures_of_the_committed_records(committed, page):
    """Each figure can be drawn; one with runs behind it has them as its evidence."""
    for name in FIGURES[page]:
        assert getattr(module(page), name)(committed).axes, name
    for name in dir(module(page)):
        if name.endswith("evidence"):
            assert len(getattr(module(page), name)(committed)), name


def test_evidence_is_what_the_figures_take(committed):
    """The runs below a figure are of the arms and the lengths that it shows."""
    arms = {run.parameters["arm"] for run in training.width_evidence(committed)}
    assert arms == {"mask", "weights", "bn_only"}
    found = training.estimators_evidence(committed)
    assert {run.parameters["estimator"] for run in found} == {"threshold", "bernoulli"}
    masks = [*utilisation.most_evidence(committed), *utilisation.weights_evidence(committed)]
    assert {run.parameters["arm"] for run in masks} == {"mask"}
    assert {run.parameters["epochs"] for run in ways.conv_net(committed)} == {5}
    assert claims.find(committed.tables["LeNet-300-100, MNIST"], "mask-weights").n == 10


def test_published_numbers_name_their_works(committed):
    """Each row of other people's numbers has a work that the references list, and its place."""
    from supermask_tf.paper.pages import related

    table = committed.table("book/published/field.csv")
    listed = set(re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text()))
    assert set(table.work) <= listed and table.seen_in.notna().all()
    shown = related.numbers(committed).data
    assert shown.work.notna().all() and shown.accuracy.str.endswith(" %").all()
