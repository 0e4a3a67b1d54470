"""Running an experiment: what is there already, what it needs first, one process at a time. ::

    run = Experiment(...).run("runs/mine")      # comes here

TensorFlow is imported when something trains.
"""

import contextlib
import os
import tempfile
from pathlib import Path

from .. import data, records
from ..records import BEFORE, Run
from . import devices
from .arms import ARMS
from .checkpoints import Checkpoints
from .parameters import Experiment

__all__ = ["run"]


def run(experiment: Experiment, directory: Path, progress: bool, weights: bool) -> Run:
    """What `Experiment.run` does, with its arguments, results and errors."""
    # TensorFlow's start-up messages would stand at the top of every notebook and hide the progress.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    place = directory / experiment.name
    weights = weights and ARMS[experiment.arm].keeps_beside
    if not place.exists() or (weights and not Run(place).weights_file.is_file()):
        records.check_writable(directory)
        # Of several workers the chief alone holds the lock.
        locks = experiment.strategy != "multi_worker" or devices.is_chief()
        with records.lock(place) if locks else contextlib.nullcontext():
            # While this one waited, another process may have done it.
            if not place.exists():
                return _new(experiment, directory, progress)
            made = _recorded(experiment, place)
            if weights and not made.weights_file.is_file():
                _need_weights(experiment, experiment.parent(directory), progress)
                _make_weights_again(experiment, made, progress)
                return made
    made = _recorded(experiment, place)
    Checkpoints(place).clear()  # of a process that was killed when the record was just there
    if progress:
        print(f"{experiment.name} is finished already: its record is used.")
    return made


def _new(experiment: Experiment, directory: Path, progress: bool) -> Run:
    parent = experiment.parent(directory)
    images = data.load(experiment.dataset, experiment.protocol)
    if parent and parent.summary["fingerprint"] != images.fingerprint:
        raise ValueError(
            f"init_from={experiment.init_from!r} was trained on other data than "
            f"dataset={experiment.dataset!r} holds now: name a run on the same data."
        )
    _need_weights(experiment, parent, progress)
    from . import loop

    return loop.train(experiment, directory / experiment.name, images, parent, progress)


def _recorded(experiment: Experiment, place: Path) -> Run:
    """The run at `place`, if it is this one."""
    made = Run.load(place)
    if experiment.dataset.endswith(".npz"):
        fingerprint = data.load(experiment.dataset, experiment.protocol).fingerprint
        if fingerprint != made.summary["fingerprint"]:
            raise FileExistsError(
                f"{place} holds another run: {experiment.dataset} has changed since; move the run"
                " away, or give another directory."
            )
    mine = {name: v for name, v in experiment.parameters().items() if name != "init_from"}
    if any(made.parameters.get(name, BEFORE.get(name)) != v for name, v in mine.items()):
        raise FileExistsError(
            f"{place} holds another run: move it away, or give another directory."
        )
    return made


def _need_weights(experiment: Experiment, parent: Run | None, progress: bool) -> None:
    """Make what the arm takes from its parent again where no record holds it and it is gone."""
    if parent and ARMS[experiment.arm].needs_weights and not parent.weights_file.is_file():
        again = Experiment.load(parent.path / "experiment.json")
        again.run(parent.path.parent, progress, weights=True)


def _make_weights_again(experiment: Experiment, made: Run, progress: bool) -> None:
    """Train a finished run again, in a folder that goes away, for the weights that its record
    lacks.
    """
    from . import loop

    if progress:
        print(f"{made.name}: its trained weights are gone; training again to make them.")
    with tempfile.TemporaryDirectory() as folder:
        images = data.load(experiment.dataset, experiment.protocol)
        parent, saved = experiment.parent(made.path.parent), Checkpoints(made.path)
        place = Path(folder) / made.name
        again = loop.train(experiment, place, images, parent, progress, saved)
        weights = again.weights()
        if not again.history.equals(made.history):
            weights |= again.state()  # the record's batch norm belongs to other weights
            print(
                f"{made.name}: trained again, its history differs from the record's: another"
                " processor, number of threads or version. Test accuracy"
                f" {again.summary['test_accuracy']:.4f}, recorded"
                f" {made.summary['test_accuracy']:.4f}."
            )
        records.write_weights(made, weights)
    saved.clear()
