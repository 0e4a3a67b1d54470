"""What the pages compute: their sentences from made records, for each outcome and for none yet."""

import ast
import dataclasses
import importlib
import itertools
import re
import subprocess
import sys
from pathlib import Path

import made
import numpy as np
import pandas as pd
import pytest
from made import PLAIN, make

from supermask_tf import claims, plots, readings
from supermask_tf.paper.pages import Book, glue
from supermask_tf.paper.pages import book as book_module
from supermask_tf.records import Run

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "book").glob("*.md"))}
MODULES = sorted((ROOT / "supermask_tf" / "pages").glob("*.py"))
LENET = "LeNet-300-100 on MNIST"


def module(page: str):
    return importlib.import_module(f"supermask_tf.paper.pages.{page}")


(
    boost,
    front,
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
) = map(
    module,
    ["boost", "index", "method", "quick", "rerun", "scale", "speed", "tickets", "training"]
    + ["unsettled", "utilisation", "ways"],
)


class Runs(list):
    """Runs of which nothing but the summary is asked."""

    def __init__(self, rows):
        super().__init__(rows)
        self.summary = pd.DataFrame(rows)


def lenet(checkout, **accuracies) -> Book:
    """Three seeds of a network without batch norm; the arms have these accuracies, or are left out.

    The mask has 0.90, the weights 0.95 and the longer training 0.96.
    """
    rates = {"finetune": 1e-5, "weights_long": 1e-5, "random_mask": 1e-5, "shuffled_mask": 1e-5}
    arms = {"mask": 0.90, "weights": 0.95, "weights_long": 0.96} | accuracies
    for seed in range(3):
        for arm, accuracy in arms.items():
            arm, _, full = arm.partition("_at_")
            given = {"learning_rate": float(full) if full else rates.get(arm, 0.01)}
            accuracy += 0.0001 * (seed - 1) * (arm in ("mask", "finetune", "rewind"))
            make(checkout / "runs/lenet", arm, seed, accuracy, model="lenet_300_100", **given)
    return empty(checkout)


def empty(checkout) -> Book:
    """A checkout in which batch norm's averages were taken of no run."""
    (checkout / "benchmarks").mkdir(exist_ok=True)
    columns = pd.DataFrame(columns=["study", "run", "renewed"])
    columns.to_csv(checkout / "benchmarks/batch_norm.csv", index=False)
    return Book(checkout)


CONTROLS = {"random_mask": 0.9, "shuffled_mask": 0.9}
CONTROLS |= {f"{arm}_at_0.01": 0.9 for arm in ("random_mask", "shuffled_mask")}


# --- the pages and their functions ----------------------------------------------------------------


@pytest.fixture(scope="module")
def committed():
    return Book(ROOT)


@pytest.mark.parametrize("page", [name for name, text in PAGES.items() if "{glue:" in text])
def test_every_name_of_a_page_has_its_text(committed, page):
    """What a page's sentences ask for is what its function returns, and nothing of it is empty."""
    texts = module(page).texts(committed)
    names = set(re.findall(r"\{glue:\w*\}`([^`]+)`", PAGES[page]))
    assert names <= set(texts)
    assert all(isinstance(texts[name], str) for name in names)
    assert not [name for name in names if re.search(r"\bnan\b", texts[name])]


def cells(page: str) -> list[list[str]]:
    """The lines of code of each cell, without its options."""
    found = []
    for cell in re.findall(r"```\{code-cell\}[^\n]*\n(.*?)```", PAGES[page], re.S):
        code = re.sub(r"\A---\n.*?\n---\n", "", cell, flags=re.S).splitlines()
        found.append([line for line in code if line.strip() and not line.startswith(":")])
    return found


def test_a_cell_is_one_call():
    """A page imports in its first cell; each other cell calls a function of the page's module."""
    assert sum(len(cell) for page in PAGES for cell in cells(page)) < 120
    for page in PAGES:
        for cell in cells(page):
            if not cell[0].startswith(("from ", "import ")):
                called = re.fullmatch(rf"{page}\.(\w+)\(book\)", *cell)
                assert called and getattr(module(page), called[1]).__doc__, (page, cell)
            else:
                allowed = (
                    rf"(from|import) .*|book = .*|glue\({page}\.texts\(book\)\)|{page}\.\w+\(.*\)"
                )
                assert all(re.fullmatch(allowed, line) for line in cell), (page, cell)


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
    assert "--warningiserror" in (ROOT / "supermask_tf" / "cli.py").read_text()


def test_pages_import_what_reads_records_and_no_more():
    """No TensorFlow, and only the modules whose change has the book's pages made again."""
    allowed = {
        "analysis",
        "claims",
        "enumeration",
        "overlap",
        "plots",
        "readings",
        "records",
        "book",
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
    files = {package / (name.replace(".", "/") + ".py") for name in own - {"pages"}}
    assert files <= tracked and set(MODULES) <= tracked


def test_glue_gives_each_text_its_name(monkeypatch):
    """A page's texts reach MyST-NB by name, and are not shown where they are glued."""
    import myst_nb

    glued = {}
    monkeypatch.setattr(
        myst_nb, "glue", lambda name, text, display: glued.update({name: (text, display)})
    )
    glue({"a": "1", "b": "2"})
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


# --- the front page -------------------------------------------------------------------------------

START = " Trained from the untrained weights at the full rate the masked network shows no lead"
ANSWERS = {
    "as the post trained it": (
        CONTROLS | {"finetune": 0.95, "rewind": 0.94},
        (
            "Not as the post trained it: at its low rate the dense network, trained as long, ends "
            f"ahead on every network tried here.{START}."
        ),
    ),
    "refuted": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.94},
        (
            "No, on the networks tried here: each time at least one control does as well or better."
            f"{START}."
        ),
    ),
    "refuted by a random mask": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.96, "random_mask": 0.98},
        "No, on the networks tried here: each time at least one control does as well or better.",
    ),
    "supported": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.96},
        "Yes, on the networks tried here: it beats every control.",
    ),
    "not settled": (
        {"finetune": 0.97},
        (
            "That is not settled for all of the networks tried here."
            f"{START}, though a small one is not ruled out."
        ),
    ),
    "as good as equal": (
        CONTROLS | {"finetune": 0.96, "rewind": 0.95},
        (
            "No, on the networks tried here: each time at least one control does as well or better."
            f"{START}, though a small one is not ruled out."
        ),
    ),
}


@pytest.mark.parametrize("outcome", ANSWERS)
def test_the_answer(tmp_path, outcome):
    """The book's first sentence follows from the verdicts, for each that they can give."""
    accuracies, answer = ANSWERS[outcome]
    assert front.answer(lenet(tmp_path, **accuracies)) == answer


def test_the_answer_when_studies_disagree(tmp_path):
    """Refuted in one study and supported in another is not settled for all."""
    lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.96)
    for run in (tmp_path / "runs/lenet").iterdir():
        other = tmp_path / "runs/wrn_mnist" / run.name
        other.parent.mkdir(exist_ok=True)
        run.rename(other)
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    assert set(book.verdicts.loc["2. Boost"]) == {"refuted", "supported", "–"}
    assert front.answer(book) == "That is not settled for all of the networks tried here."


def test_the_front_page_before_any_run(tmp_path):
    """Without records each sentence says so; none speaks of a result."""
    texts = front.texts(empty(tmp_path))
    assert texts.pop("answer") == "No run that asks this has been made yet."
    assert {texts.pop(name) for name in ("boost", "parity")} == {"no runs yet"}
    assert (
        texts.pop("losses") == "nowhere"
        and texts.pop("corrected") == "no p, since nothing is refuted"
    )
    assert {texts.pop(name) for name in ("lenet_n", "tickets_n", "wide_n", "runs", "hours")} == {
        "0"
    }
    assert set(texts.values()) == {"not measured yet"}


def test_losses_and_their_p_values(tmp_path):
    """What refutes the claim is named with its studies, and the clearest of it with its p value."""
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    assert front.losses(book) == "weights from θ0 under the mask − weights (all)"
    assert front.corrected(book) == f"p < 0.001 for {LENET}"


def test_losses_in_one_study_of_two(tmp_path):
    """A comparison that is lost in some studies names them."""
    lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.96)
    (tmp_path / "runs/lenet").rename(tmp_path / "runs/wrn_mnist")
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    assert front.losses(book) == f"weights from θ0 under the mask − weights ({LENET})"


def test_gains_of_training_on(tmp_path):
    """Each arm against itself before: seven points from the mask, one from the weights."""
    book = lenet(tmp_path, finetune=0.97)
    assert front.gains(book, "mask", "finetune") == f"+7.00 ± 0.00 (n = 3) for {LENET}"
    assert front.gains(book, "weights", "weights_long") == f"+1.00 ± 0.00 (n = 3) for {LENET}"
    make(tmp_path / "runs/lenet", "finetune", 0, 0.1, learning_rate=1e-5, epochs=9)
    assert front.gains(Book(tmp_path), "mask", "finetune").startswith("+7.00"), (
        "of the study's length"
    )


def test_numbers_of_seeds(tmp_path):
    """The most that any comparison has, by network; a range where the wide networks differ."""
    for study, n in (("wrn_mnist", 3), ("wrn_cifar10", 2), ("lenet", 4)):
        for seed in range(n):
            for arm in ("mask", "weights"):
                make(tmp_path / "runs" / study, arm, seed, 0.9)
    assert front.seeds(empty(tmp_path)) == {"lenet_n": "4", "tickets_n": "0", "wide_n": "2–3"}


def test_tables_of_the_front_page(tmp_path):
    """Differences in words, with a dash where averages were not taken; verdicts by chapter."""
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    column = front.differences(book).data["LeNet-300-100, MNIST"]
    assert column.iloc[[0, 3, 4]].tolist() == [
        "−5.00 ± 0.02 (n = 3)",
        "+1.00 ± 0.02 (n = 3)",
        "+1.00 ± 0.02 (n = 3)",
    ]
    assert column.iloc[[1, 7]].tolist() == ["–", "–"]
    styled = front.every_claim(book)
    assert styled.data["LeNet-300-100, MNIST"].tolist()[:2] == ["refuted", "refuted"]
    assert styled.data["WRN-10-2, MNIST"].tolist() == ["–"] * 7
    assert styled.data.index[1].startswith('<a href="boost.html">2.</a> The masked network')
    assert f"border-left: 4px solid {plots.VERDICTS['refuted'][0]}" in styled.to_html()


def test_claim_seven_is_asked_of_its_own_study(tmp_path):
    """The verdict on two kinds of mask stands in the column of LeNet-300-100 alone."""
    made.both(tmp_path / "runs")
    verdicts = front._verdicts(empty(tmp_path))
    assert verdicts.loc["7. Two kinds of mask"].tolist() == ["refuted", "–", "–"]
    assert (
        front.seeds(Book(tmp_path))["tickets_n"] == "3"
        and len(front.evidence(Book(tmp_path))) == 33
    )


# --- is it a good start? --------------------------------------------------------------------------


def test_boost_before_any_run(tmp_path):
    """Without records each sentence says so."""
    texts = boost.texts(empty(tmp_path))
    assert {texts.pop(name) for name in ("boost", "rate", "without_reset")} == {"no runs yet"}
    assert texts.pop("lost") == "none of these networks" and texts.pop("survive") == "none"
    assert texts.pop("tickets_n") == "0" and texts.pop("budgets").count("not measured yet") == 3
    assert set(texts.values()) == {"not measured yet"}


def test_each_at_its_own_rate(tmp_path):
    """The dense network's best rate is named, and the differences are those at the chosen rates."""
    rates = {
        f"{arm}_at_{rate}": 0.9 for arm in ("finetune", "weights_long") for rate in (0.01, 0.001)
    }
    given = {"finetune_at_0.01": 0.975, "weights_long_at_0.001": 0.98, "finetune": 0.97}
    texts = boost.texts(lenet(tmp_path, **rates | given))
    assert texts["best"] == f"0.001 for {LENET}"
    assert texts["longer_best"] == f"−1.00 ± 0.02 (n = 3) for {LENET}"
    assert texts["own"] == f"−0.50 ± 0.02 (n = 3) for {LENET}"


@pytest.mark.parametrize("at_full, lost", [(0.98, True), (0.995, False), (0.96, False)])
def test_where_no_boost_was_there_to_wipe_out(tmp_path, at_full, lost):
    """Better at the larger rate, and still below the dense network: both must be so."""
    rates = {"finetune": 0.97, "finetune_at_0.01": at_full, "weights_long_at_0.01": 0.99}
    found = boost.no_boost_at_all(lenet(tmp_path, **rates))
    assert found == (LENET if lost else "none of these networks")


def test_the_claim_without_the_reset_control(tmp_path):
    """Batch norm reset may be what refutes the claim; without it the other controls speak."""
    folder = tmp_path / "runs/wrn_mnist"
    for seed in range(3):
        reset = {"learning_rate": 1e-5, "parent": PLAIN}
        make(folder, "mask", seed, 0.9)
        make(folder, "weights", seed, 0.95)
        make(folder, "weights_long", seed, 0.96, **reset)
        make(folder, "finetune", seed, 0.97, **reset)
        make(folder, "finetune", seed, 0.97, reset_batch_norm=True, **reset)
    book = empty(tmp_path)
    assert book.verdicts["WRN-10-2, MNIST"]["2. Boost"] == "refuted"
    assert boost.without_reset(book) == "not settled for WRN-10-2 on MNIST"
    assert boost.epochs_of_masks(book) == "1 and 1"


def test_what_survives_a_correction(tmp_path):
    """Clear differences of either sign survive; one that is surely too small to matter does not."""
    given = CONTROLS | {"finetune": 0.97, "rewind": 0.95, "random_mask": 0.98}
    book = lenet(tmp_path, **given)
    assert (
        boost.survivors(book)
        == "LeNet-300-100 on MNIST: fine-tuned at 1e-5 − weights longer at 1e-5, "
        "fine-tuned at 1e-5 − random mask fine-tuned, "
        "fine-tuned at 1e-5 − shuffled mask fine-tuned, "
        "weights from θ0 under the mask − random mask fully trained, "
        "weights from θ0 under the mask − shuffled mask fully trained"
    )
    table = boost.corrected(book).data["LeNet-300-100, MNIST"]
    assert table["weights from θ0 under the mask − weights"] == "1.000"
    assert table.tolist().count("< 0.001") == 5


def test_budgets_count_the_masks_epochs(tmp_path):
    """Ten epochs of fine-tuning against twenty dense ones, each at its best held-out accuracy."""
    book = lenet(tmp_path)
    given = {"learning_rate": 0.001, "model": "lenet_300_100"}
    for seed in range(3):
        rising, late = np.linspace(0.5, 0.9, 12), [0.5] * 15 + [0.8] * 5 + [0.99]
        make(tmp_path / "runs/lenet", "finetune", seed, 0.9, val=rising, epochs=12, **given)
        make(tmp_path / "runs/ways_lenet", "weights", seed, 0.9, val=late, epochs=21, **given)
    tenth = 100 * (0.5 + 0.4 * 9 / 11 - 0.8)
    assert boost.budgets(book).startswith(
        f"fine-tuned at 0.001 from the threshold estimator's mask +{tenth:.2f} ± 0.00 (n = 3), "
        "from top_k's with half of the weights not measured yet, "
    )


def test_tables_of_the_boost(tmp_path):
    """By rate, by epochs, and in words: a row each, in the order of the studies."""
    book = lenet(tmp_path, finetune=0.97, **{"finetune_at_0.01": 0.9})
    table = boost.by_rate(book).data
    row = table.loc["LeNet-300-100, MNIST", "mask, then weights"]
    assert row.to_dict() == {"at 1e-5": "97.00 ± 0.02 (n = 3)", "at 0.01": "90.00 ± 0.02 (n = 3)"}
    soon = boost.how_soon(book).data["LeNet-300-100, MNIST"]
    assert soon["mask, then weights"].to_dict() == {"1e-5": "3 (3 of 3)", "0.01": "3 (3 of 3)"}
    numbers = boost.numbers(book).data
    assert set(numbers.study) == {"LeNet-300-100, MNIST"} and numbers.comparison.is_unique


def test_lag_beside_what_was_recorded(tmp_path):
    """Averages taken anew stand beside the recorded difference, their verdict in brackets."""
    for seed in range(3):
        make(tmp_path / "runs/wrn_mnist", "rewind", seed, 0.94 + 0.001 * seed)
        make(tmp_path / "runs/wrn_mnist", "weights", seed, 0.95)
    anew = {"rewind": 0.97, "weights": 0.95}
    runs = readings.tidy(Book(tmp_path).runs("wrn_mnist").summary)
    (tmp_path / "benchmarks").mkdir()
    table = pd.DataFrame({"study": "wrn_mnist", "run": runs.run, "renewed": runs.arm.map(anew)})
    table.to_csv(tmp_path / "benchmarks/batch_norm.csv", index=False)
    (row,) = boost.lag(Book(tmp_path)).data.to_dict("records")
    assert row["as recorded"].startswith("−0.90") and row["averages anew"].startswith("+2.00")
    assert (row["study"], row["it would be"]) == ("WRN-10-2, MNIST", "(supported)")


# --- does masking train as well as training? ------------------------------------------------------


@pytest.fixture
def widths(tmp_path):
    """WRN-10s of widths 1, 2 and 4, averages anew: mask − weights is −8, −5 and 0.2 points."""
    gaps, rows = {1: -0.08, 2: -0.05, 4: 0.002}, []
    for seed in range(3):
        for width, gap in gaps.items():
            make(tmp_path / "runs/wrn_cifar10", "weights", seed, 0.8, width=width)
            make(tmp_path / "runs/wrn_cifar10", "mask", seed, 0.8 + gap, width=width)
        make(tmp_path / "runs/wrn_cifar10", "weights", seed, 0.7, learning_rate=0.1)
    for run in Book(tmp_path).runs("wrn_cifar10"):
        if run.parameters["learning_rate"] == 0.01:
            rows.append(("wrn_cifar10", run.name, run.summary["test_accuracy"]))
    (tmp_path / "benchmarks").mkdir()
    table = pd.DataFrame(rows, columns=["study", "run", "renewed"])
    table.to_csv(tmp_path / "benchmarks/batch_norm.csv", index=False)
    for seed in range(3):  # the study's own width is what most runs have
        make(tmp_path / "runs/wrn_cifar10", "bn_only", seed, 0.5)
    return Book(tmp_path)


def test_parity_by_width(widths):
    """The gap at each width, how it changes, and the networks for which parity holds."""
    name = "WRN-10 on CIFAR-10"
    assert training.gap_by_width(widths) == f"−8.0, −5.0, +0.2 at widths 1, 2, 4 for {name}"
    assert training.narrowing(widths).startswith("+8.20 ± 0.00 (n = 3) for WRN-10 on CIFAR-10")
    assert training.where_parity_holds(widths) == "WRN-10-4 on CIFAR-10"
    assert training.anew_verdict(widths) == "refuted for WRN-10-2 on CIFAR-10"
    table = training.parity_table(widths).data
    assert table.comparison.tolist()[-2:] == [
        "mask − weights, averages anew",
        "mask − batch norm only, averages anew",
    ]


def test_parity_before_any_run(tmp_path):
    """Without records there is no gap, no change and no network for which it holds."""
    book = empty(tmp_path)
    for function in (training.gap_by_width, training.narrowing, training.anew_verdict):
        assert function(book) == "not measured yet"
    assert training.where_parity_holds(book) == "none of those tried"


def test_what_stands_beside_the_posts_curves(tmp_path):
    """The accuracies of the study `first`, the post's last epochs, and where the mask falls."""
    for dataset in ("mnist", "cifar10"):
        for arm, accuracy in (("mask", 0.8), ("weights", 0.9), ("finetune", 0.85)):
            val = (0.6, 0.2, 0.7) if arm == "mask" else (0.5, 0.6, 0.7)
            make(tmp_path / "runs/first", arm, 0, accuracy, val=val, dataset=dataset)
    axes = ("mnist", "cifar10"), ("train", "held_out"), ("mask", "weights", "finetune"), range(13)
    curve = [
        (dataset, split, arm, epoch, (0.5 if epoch < 3 else 0.9) + (split == "train"))
        for dataset, split, arm, epoch in itertools.product(*axes)
    ]
    table = pd.DataFrame(curve, columns=["dataset", "split", "arm", "epoch", "accuracy"])
    (tmp_path / "book/published").mkdir(parents=True)
    table.to_csv(tmp_path / "book/published/post_training.csv", index=False)
    texts = training.beside_the_post(Book(tmp_path))
    assert (texts["mnist_parity"], texts["mnist_post_parity"]) == ("−10.0", "+0.0")
    assert (texts["cifar10_mask_test"], texts["cifar10_mask_train"]) == ("80.00 %", "70.0 %")
    assert (texts["mnist_finetune_post"], texts["mnist_finetune_epoch"]) == ("90.0 %", "1")
    assert training.at_the_fall(Book(tmp_path)) == {
        "lowest": "20.0 %",
        "before_lowest": "60.0 %",
        "lowest_epoch": "2",
        "first_epoch": "50.0 %",
    }


# --- what gets masked? ----------------------------------------------------------------------------


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
    assert ways.best(WAYS) == "95.00 ± 0.20 % (n = 3) in the test (top_k, 50 % kept)"
    assert ways.best(WAYS.iloc[:1]) == ways.best(WAYS.iloc[:0]) == "no run yet"


def test_the_accuracy_of_a_way():
    """All values given pick it; a way that was not tried is not measured yet."""
    assert ways.of_way(WAYS, way="threshold") == "96.00 % (one seed)"
    assert ways.of_way(WAYS, way="threshold", epochs=60) == "not measured yet"


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
    assert texts["supermask_ticket"] == "50.00 ± 0.00 (n = 3)"
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
        "Where the evil mask takes one in 20 of each layer's weights the network"
    )
    assert found.endswith("without as many random ones it is right in 90.0 %.")
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
    assert unsettled.texts(nothing) == {"asked": "0", "open": "0", "paper": ""}
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
    "index": ["figure"],
    "boost": ["figure"],
    "training": ["parity_figure", "width_figure", "curves", "estimators_figure"],
    "utilisation": ["weights_figure", "most_figure", "layers_figure"],
    "ways": ["lenet_figure", "conv_figure"],
    "tickets": ["density_figure", "magnitude_figure"],
    "method": ["straight_through", "gradients"],
}


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
