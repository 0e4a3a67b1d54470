"""The table of `supermask bytes`: trained, written, read back, gone on with; and who wins where."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from supermask_tf import cli
from supermask_tf.paper import ledger as paper
from supermask_tf.paper.pages import Book
from supermask_tf.paper.pages import ledger as page
from supermask_tf.studies import ledger
from supermask_tf.studies.study import Study

STUDY = """
runs:
  mask: {arm: mask, dataset: digits, model: lenet_300_100, units: 30, augment: false,
         seed: [0, 1], epochs: 1, estimator: top_k, density: 0.2, learning_rate: 0.01}
  weights: {arm: weights, dataset: digits, model: lenet_300_100, units: 30, augment: false,
            seed: 0, epochs: 1, learning_rate: 0.01}
  ticket: {arm: ticket, from: weights, epochs: 1, learning_rate: 0.01}
"""


@pytest.mark.long
def test_a_table_is_made_and_gone_on_with(tmp_path, capsys):
    """One row per form, in the order of the seeds; a second call trains nothing; a run whose rows
    are gone is made again, and its parent with it, to the same bytes.
    """
    file = tmp_path / "tiny.yml"
    file.write_text(STUDY)
    assert cli.main(["bytes", str(file), "--directory", str(tmp_path)]) == 0
    path = tmp_path / "tiny" / "ledger.csv"
    table = pd.read_csv(path)
    assert list(table.columns) == list(ledger.COLUMNS)
    assert list(table.arm) == ["mask"] + 3 * ["weights"] + 9 * ["ticket"] + ["mask"]
    assert list(table.seed) == 13 * [0] + [1]
    names = {experiment.name for experiment in Study.load(file).experiments}
    assert set(table.run) == names
    records = {p.name for p in (tmp_path / "tiny" / ".runs").iterdir() if p.name[0] != "."}
    assert records == names, "what is not committed is hidden"
    before = path.read_text()
    ledger.ledger(file, tmp_path, progress=False)
    assert path.read_text() == before
    rest = [line for line in before.splitlines(True) if "-ticket-" not in line]
    path.write_text("".join(rest))
    shutil.rmtree(tmp_path / "tiny" / ".runs")
    ledger.ledger(file, tmp_path, progress=False)
    again = pd.read_csv(path)
    keys = ["run", "form", "positions", "bytes", "sha256", "test_accuracy"]
    both = [frame[keys].fillna("").sort_values(keys[:3]).to_numpy() for frame in (table, again)]
    np.testing.assert_array_equal(*both)


def test_arms_without_forms(tmp_path):
    file = tmp_path / "bad.yml"
    file.write_text("runs:\n  a: {arm: bn_only, dataset: digits}\n")
    with pytest.raises(ValueError, match="arm='bn_only' has no forms: let .* have mask, weights"):
        ledger.ledger(file, tmp_path)


# --- what the book makes of it --------------------------------------------------------------------


def made(rows) -> pd.DataFrame:
    """A table of (arm, density, form, positions, seed, bytes, accuracy, held-out accuracy)."""
    columns = ["arm", "density", "form", "positions", "seed", "bytes", "test_accuracy"]
    table = pd.DataFrame(rows, columns=[*columns, "val_accuracy"])
    table["run"] = [f"{r.arm}-{r.density}-{r.seed}" for r in table.itertuples()]
    about = {
        "dataset": "mnist",
        "units": np.nan,
        "density_start": np.nan,
        "estimator": "top_k",
        "epochs": 6,
        "seconds": 60.0,
    }
    about |= {"initializer": "signed_kaiming_constant", "processor": "P", "threads": 1}
    return table.assign(**about, tensorflow="2.15.1")


ROWS = [
    ("mask", 0.01, "supermask", "", 0, 2000, 0.70, 0.7),
    ("mask", 0.5, "supermask", "", 0, 30000, 0.96, 0.96),
    ("mask", 0.5, "supermask", "", 1, 30010, 0.97, 0.96),
    ("mask", 0.5, "supermask", "", 2, 30020, 0.98, 0.96),
    ("ticket", 0.05, "sparse int8", "bits", 0, 40000, 0.975, 0.98),
    ("ticket", 0.05, "sparse int8", "coded", 0, 20000, 0.975, 0.98),
    ("ticket", 0.05, "sparse float32", "coded", 0, 60000, 0.976, 0.98),
    ("ticket", 0.05, "sparse int8", "coded", 1, 20000, 0.985, 0.98),
    ("ticket", 0.05, "sparse int8", "coded", 2, 20000, 0.980, 0.98),
    ("weights", np.nan, "float32", "", 0, 1000000, 0.99, 0.99),
]


def test_points_and_frontier():
    """Seeds are one point, of a sparse form its smallest way; what is larger and no better is not
    on the frontier.
    """
    found = paper.points(made(ROWS))
    mask = found[(found.kind == "supermask") & (found.density == 0.5)].iloc[0]
    assert mask.n == 3 and mask.accuracy == pytest.approx(0.97) and mask.half > 0.02
    ticket = found[found.form == "sparse int8"].iloc[0]
    assert ticket.bytes == 20000 and ticket.n == 3
    best = paper.frontier(found)
    assert list(best.bytes) == [2000, 20000, 1000000]
    assert paper.ranges(found) == [(2000, "supermask"), (20000, "ticket"), (1000000, "trained")]
    close = ("ticket", 0.01, "sparse int8", "coded", 0, 1900, 0.69, 0.7)
    assert paper.ranges(paper.points(made([*ROWS, close]))) == paper.ranges(found)
    assert page.wins(found) == (
        "a supermask from 2.0 kB, a pruned ticket from 20.0 kB and trained weights from 1000 kB on"
    )


def test_budgets():
    """What fits is chosen by held-out images, and compared seed by seed."""
    found = paper.points(made(ROWS))
    table = paper.at_budgets(found, [1000, 10000, 50000]).set_index("budget")
    assert table.supermask[1000] is None and table.difference[1000] is None
    assert table.ticket[10000] is None and table.supermask[10000].density == 0.01
    told = table.difference[50000]
    assert told.n == 3 and told.mean == pytest.approx(100 * (0.97 - 0.98))
    assert paper.named(table.ticket[50000]) == "5 % kept, 8 bits"
    assert paper.named(table.supermask[50000]) == "top_k, signed constants, 50 % kept"


def test_the_page(tmp_path):
    """Every text and table, from made rows and from none."""
    empty = Book(tmp_path / "none")
    assert page.texts(empty)["wins_mnist"] == "not measured yet"
    for does in (page.figure, page.budgets, page.positions, page.widths, page.every_setting):
        assert does(empty) == "No record yet."
    folder = tmp_path / "runs" / "bytes_lenet"
    folder.mkdir(parents=True)
    made(ROWS).to_csv(folder / "ledger.csv", index=False)
    book = Book(tmp_path)
    texts = page.texts(book)
    assert texts["mask_50"] == "97.0 %" and texts["mask_50_bytes"] == "30.0 kB"
    assert texts["seeds"] == "1 to 3" and texts["wins_fashion_mnist"] == "not measured yet"
    assert "−1.00 ± " in page.budgets(book).to_html()
    assert len(page.every_setting(book).data) == 5
    assert "supermask bytes runs/studies/bytes_lenet.yml" in page.evidence(book).data
    assert len(page.figure(book).axes) == 1


@pytest.mark.parametrize("study", page.STUDIES)
def test_committed_tables_are_of_their_studies(study):
    """Each row's run is one of the study file, so that its name stands for all parameters; sizes
    are those of files, and no row is there twice.
    """
    root = Path(page.__file__).parents[3]
    known = {e.name: e for e in Study.load(root / "runs" / "studies" / f"{study}.yml").experiments}
    path = root / "runs" / study / "ledger.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=ledger.COLUMNS)
    assert list(table.columns) == list(ledger.COLUMNS)
    assert set(table.run) <= set(known)
    assert not table.duplicated(["run", "form", "positions"]).any()
    for row in table.itertuples():
        assert (row.arm, row.seed) == (known[row.run].arm, known[row.run].seed)
        assert 1000 < row.bytes < 5 * row.weights and 0 < row.test_accuracy < 1
