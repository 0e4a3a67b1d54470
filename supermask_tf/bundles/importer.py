"""Results of a bundle as run records: `supermask import`. ::

    import_results("RESULT")

A result holds what a record holds. Before it becomes one, the network is rebuilt from it in
TensorFlow and tested again.
"""

import os
import tempfile
from pathlib import Path

import numpy as np

from .. import data, records
from ..experiment import ARMS, Experiment
from ..ground import archives, files
from ..records import Run

__all__ = ["TOLERANCE", "import_results"]

# How far the test accuracy in TensorFlow may be from the one in the result, in percentage points.
TOLERANCE = 0.1


def import_results(
    result: str | Path, directory: str | Path | None = None, progress: bool = True
) -> list[Run]:
    """Make records of the finished experiments in a result's folder. If one is refused, the others
    are imported all the same.

    Each network is rebuilt in TensorFlow from its masks, batch norm and θ0, and tested on the test
    set. For an arm that trained weights these are needed too: where they did not come along, the
    record is made without the test, and says so; where they did, they are kept beside the record,
    as after `Experiment.run`.

    Args:
        result: what `run.py --out` wrote.
        directory: the study's folder; each run gets a folder of its own in it. A record that is
            there already stays. Default: `runs/` and the name of the study that it was exported
            from.
        progress: whether to print one line per run.

    Returns:
        The records made. Their summaries have `runtime` "xla" and `tensorflow_accuracy`, the test
        accuracy found again (None without the weights).

    Raises:
        FileNotFoundError: if there is no finished result, or a dataset is not on this machine.
        ValueError: when all others are imported, if a result is damaged, belongs to other data or
            another experiment than its name says, or its test accuracy in TensorFlow differs by
            more than TOLERANCE points (in a small test set, by more than one image).
        PermissionError, FileExistsError: `directory` can't be written to, or is not a study's.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    places = _finished(Path(result))
    made: list[Run] = []
    refused: list[Exception] = []
    for place in places:
        try:
            run, told = _import_unless_there(place, directory)
            made += [run] if run else []
        except (ValueError, FileNotFoundError) as error:
            refused.append(error)
            told = f"{place.name} is refused."
        if progress:
            print(told, flush=True)
    if len(refused) == 1:
        raise refused[0]
    if refused:
        raise ValueError(
            f"{len(refused)} of {len(places)} results were refused. {' '.join(map(str, refused))}"
        )
    return made


def _finished(result: Path) -> list[Path]:
    """The folders of the finished experiments.

    Raises:
        FileNotFoundError: if there is none.
    """
    places = sorted(
        path.parent
        for path in result.glob("*/summary.json")
        if not path.parent.name.startswith(".")
    )
    if not places:
        raise FileNotFoundError(
            f"There is no finished result in {result}: give the folder that run.py wrote with"
            " --out."
        )
    return places


def _import_unless_there(place: Path, directory: str | Path | None) -> tuple[Run | None, str]:
    """The record made of one result, or None if there is one already; and the line to print."""
    found = Run.load(place)
    there = Path(directory or Path("runs") / found.summary.get("study", "imported"))
    records.check_writable(there)
    if (there / place.name).exists():
        return None, f"{place.name} is in {there} already: that record is used."
    run = _import(found, there)
    again = run.summary["tensorflow_accuracy"]
    return run, f"{place.name}: test accuracy {run.summary['test_accuracy']:.4f}, " + (
        "not tested again: its trained weights (weights-*.npz) did not come along."
        if again is None
        else f"in TensorFlow {again:.4f}."
    )


def _import(found: Run, directory: Path) -> Run:
    if found.damaged:
        raise ValueError(
            f"{found.path} is damaged ({found.damaged[0]} is not what was written): copy it again."
        )
    experiment = Experiment.of(
        {name: value for name, value in found.parameters.items() if name != "parent"}
    )
    if experiment.name != found.name:
        raise ValueError(
            f"{found.path} holds the result of {experiment.name}: give it its name back."
        )
    images = data.load(experiment.dataset, experiment.protocol)
    if images.fingerprint != found.summary["fingerprint"]:
        raise ValueError(
            f"{found.path} was trained on other data than dataset={experiment.dataset!r} holds"
            " here: put the same data there."
        )
    weights = _weights(found)
    again = None
    if weights or not ARMS[experiment.arm].leaves_weights:
        again = float(_right(found, weights, images).mean())
        if (
            abs(again - found.summary["test_accuracy"])
            > max(TOLERANCE / 100, 1 / len(images.test[0])) + 1e-6
        ):
            raise ValueError(
                f"{found.path}: rebuilt in TensorFlow its test accuracy is {again:.4f}, but it says"
                f" {found.summary['test_accuracy']:.4f}: it was not imported; run it again, and"
                " report it if it stays so."
            )
    if weights:
        records.write_weights(Run(directory / found.name), weights)
    masks = {
        path: np.unpackbits(bits) for path, bits in archives.read(found.path / "masks.npz").items()
    }
    summary = {
        name: value for name, value in found.summary.items() if name not in ("checksums", "study")
    } | {"tensorflow_accuracy": again}
    return records.write_run(
        directory / found.name,
        found.parameters,
        found.history,
        found.utilisation,
        masks,
        found.state(),
        summary,
        found.right(),
    )


def _weights(found: Run) -> dict[str, np.ndarray]:
    """The trained weights beside a result, from all of their parts; none if they did not come
    along.
    """
    names = sorted(name for name in found.summary["checksums"] if name.startswith("weights-"))
    there = [name for name in names if (found.path / name).is_file()]
    if not there:
        return {}
    for name in names:
        if name not in there or files.sha256(found.path / name) != found.summary["checksums"][name]:
            raise ValueError(
                f"{found.path / name} is damaged or missing: copy all of the weights again, or none"
                " of them."
            )
    return {
        path: array for name in names for path, array in archives.read(found.path / name).items()
    }


def _right(found: Run, weights: dict[str, np.ndarray], images: data.ImageData) -> np.ndarray:
    """Whether the network rebuilt from a result classifies each test image rightly."""
    from ..experiment import measuring

    with tempfile.TemporaryDirectory() as folder:
        there = records.unpack_run(Path(folder) / found.name, records.pack_run(found))
        if weights:
            records.write_weights(there, weights)
        model = there.load_model()
    return measuring.rightly_classified(model, data.evaluation_batches(images, "test"))
