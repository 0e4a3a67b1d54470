"""What a byte buys, measured: what `supermask bytes` does. ::

    ledger("runs/studies/bytes_lenet.yml", "runs")     # runs/bytes_lenet/ledger.csv

Each run of a study is trained, and its network written in every form of `forms`; the table has one
row per form: how many bytes, and how many test images the network of these very bytes gets right.
The runs lie beside the table in a hidden folder and are never committed: what the table says of one
comes out again with the run of that name, since a name stands for all parameters.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .. import data
from ..experiment import Experiment
from ..ground import files
from ..records import Run, check_writable, lock
from .study import Study

if TYPE_CHECKING:
    from . import forms

__all__ = ["COLUMNS", "PARAMETERS", "ledger", "measured"]

# Parameters that a row repeats, for whoever reads the table without the study; then what was found.
PARAMETERS = (
    "dataset", "model", "depth", "units", "arm", "estimator", "initializer", "rescale", "density",
    "density_start", "epochs", "learning_rate", "seed",
)  # fmt: skip
COLUMNS = (
    "run", *PARAMETERS, "kept", "weights", "form", "positions", "bytes", "sha256", "test_accuracy",
    "val_accuracy", "seconds", "fingerprint", "processor", "threads", "tensorflow",
)  # fmt: skip


def ledger(file: str | Path, directory: str | Path = "runs", progress: bool = True) -> Path:
    """Train what the table does not have yet, and add its rows; seed by seed, so that the picture
    is whole early on.

    Args:
        file: a study file of the arms mask, weights and ticket.
        directory: the table is `<directory>/<the study's name>/ledger.csv`.
        progress: whether to print one line per run.

    Returns:
        The table's path.

    Raises:
        ValueError: if the study has another arm, or networks that can't be packed.
        FileNotFoundError, PermissionError, FileExistsError: as in `Experiment.run`.
    """
    study, table = Study.load(file), Path(directory) / Path(file).stem / "ledger.csv"
    if others := {experiment.arm for experiment in study.experiments} - {*_ARMS}:
        raise ValueError(f"arm={min(others)!r} has no forms: let {file} have {', '.join(_ARMS)}.")
    check_writable(table.parent)
    runs = table.parent / ".runs"
    known = {experiment.name: experiment for experiment in study.experiments}
    datasets = list(dict.fromkeys(experiment.dataset for experiment in study.experiments))

    def turn(experiment: Experiment) -> tuple[int, int]:
        return experiment.seed, datasets.index(experiment.dataset)

    with lock(table):
        for experiment in sorted(study.experiments, key=turn):
            if experiment.name not in _done(table):
                run = _trained(experiment, known, runs)
                rows = measured(run)
                _add(table, rows)
                if progress:
                    print(_line(rows), flush=True)
    return table


_ARMS = ("mask", "weights", "ticket")


def _trained(experiment: Experiment, known: dict[str, Experiment], runs: Path) -> Run:
    """The run, and before it the one that it starts from."""
    if experiment.init_from:
        _trained(known[Path(experiment.init_from).name], known, runs)
    return experiment.run(runs, progress=False, weights=True)


def measured(run: Run) -> list[dict[str, Any]]:
    """One row per form of a run's network. A sparse form's three ways of telling positions are
    three rows.

    Args:
        run: of the arm mask, weights or ticket, with its trained weights beside it.
    """
    from . import forms

    images = data.load(run.parameters["dataset"], run.parameters["protocol"])
    x, y = images.test
    scale, offset = (np.float32(value) for value in images.scale)
    fed = x.astype(np.float32) * scale + offset
    model = run.load_model()
    weights = sum(mask.size for mask in model.masks().values())
    about = {name: run.parameters.get(name) for name in PARAMETERS} | {
        "run": run.name,
        "kept": 1 - run.summary["masked"],
        "weights": weights,
        "val_accuracy": run.summary["val_accuracy"],
        "seconds": run.summary["seconds"],
        "fingerprint": images.fingerprint[:16],
        "processor": run.summary["processor"],
        "threads": run.summary["threads"],
        "tensorflow": run.summary["versions"]["tensorflow"],
    }
    return [about | _measured(form, fed, y) for form in forms.forms(model, run.parameters["arm"])]


def _measured(form: "forms.Form", images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    right = form.outputs(images).argmax(axis=1) == labels
    return {
        "form": form.name,
        "positions": form.positions,
        "bytes": len(form.data),
        "sha256": hashlib.sha256(form.data).hexdigest()[:16],
        "test_accuracy": float(right.mean()),
    }


def _done(table: Path) -> set[str]:
    return set(pd.read_csv(table).run) if table.exists() else set()


def _add(table: Path, rows: Iterable[dict[str, Any]]) -> None:
    """All rows of a run, or none, behind those that are there."""
    added = pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(index=False, header=False)
    before = table.read_text() if table.exists() else ",".join(COLUMNS) + "\n"
    files.replace_file(table, lambda path: path.write_text(before + added))


def _line(rows: list[dict[str, Any]]) -> str:
    found = ", ".join(
        f"{row['form']}{' ' * bool(row['positions'])}{row['positions']} {row['bytes']:,} bytes"
        f" {row['test_accuracy']:.4f}"
        for row in rows
    )
    return f"{rows[0]['run']}: {found}"
