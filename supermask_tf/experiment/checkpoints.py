"""What a stopped run needs to go on as if nothing had happened: its last two finished epochs, and a
place to stop.

Beside the record, in `.checkpoints/<run>/`, lies a file for each of the last two epochs: the model,
the optimizer's slots and step count, the learning rate and what the schedule remembers, the history
so far and the best epoch with its weights. The order of the images, their augmentation and drawn
masks are functions of seed, epoch and step, or counted in the model. ::

    saved = Checkpoints(place)
    found = saved.newest()                      # (facts, arrays), or None
    saved.write(epoch, *state(model, plateau, watch))
    saved.clear()                               # the record is written

Keras's `BackupAndRestore` keeps model and optimizer only: neither the schedule's memory, nor the
history and the best weights, nor a second file for when the last one is damaged. No TensorFlow.
"""

import json
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..ground import archives, files

__all__ = ["Checkpoints", "Stopped", "held_signals", "restore", "state"]

# What Keras's ReduceLROnPlateau remembers, and what the experiment's own callback does.
_PLATEAU = ("best", "wait", "cooldown_counter")
_WATCH = ("rows", "best_epoch", "best_accuracy", "seconds")


class Stopped(KeyboardInterrupt):
    """SIGTERM or Ctrl-C ended a run between two steps. The message says how it goes on.

    Attributes:
        number: the signal's.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.number = number


class Checkpoints:
    """The last two finished epochs of the run whose record will be at `place`.

    Args:
        place: the record's folder.
        writes: whether this process keeps them. Of several workers on one run all read and the
            chief writes.

    Attributes:
        folder: where they lie.
        epoch: the newest epoch that is safely there; 0 if none is.
    """

    def __init__(self, place: Path, writes: bool = True):
        self.writes = writes
        self.folder = place.parent / ".checkpoints" / place.name
        self.epoch = 0
        self._good: list[Path] = []

    def write(self, epoch: int, facts: dict[str, Any], arrays: dict[str, list[np.ndarray]]) -> None:
        """Save an epoch. Where that fails (a full disk) it warns: training goes on, and the epochs
        saved before stay.

        Args:
            facts: what JSON can hold.
            arrays: lists of arrays, by what they are.
        """
        if not self.writes:
            return
        partial = self.folder / ".partial"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            named = {
                f"{what}/{index}": array
                for what, listed in arrays.items()
                for index, array in enumerate(listed)
            }
            with open(partial, "wb") as stream:
                np.savez(stream, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **named)
            # The checksum is in the name: one renaming brings both.
            file = self.folder / f"{epoch:06d}-{files.sha256(partial)}.npz"
            files.flush_to_disk(partial)
            os.replace(partial, file)
            files.flush_to_disk(self.folder)
        except OSError as error:
            warnings.warn(
                f"Epoch {epoch} was not kept in {self.folder} ({error.strerror or error}): training"
                f" goes on; if it is stopped it begins again after epoch {self.epoch}.",
                RuntimeWarning,
                stacklevel=2,
            )
            with suppress(OSError):
                partial.unlink()
            with suppress(OSError):
                self.folder.rmdir()  # if none was saved before
            return
        self.epoch, self._good = epoch, [*self._good, file][-2:]
        for old in set(self.folder.iterdir()) - set(self._good):
            old.unlink()

    def newest(self) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]] | None:
        """The facts and arrays of the newest epoch whose file is whole, or None. A damaged file is
        named in a warning.
        """
        for file in sorted(self.folder.glob("*-*.npz"), reverse=True):
            try:
                if files.sha256(file) != file.stem.partition("-")[2]:
                    raise ValueError("its checksum is another")
                named = archives.read(file)
                facts = json.loads(named.pop("facts").tobytes())
            except (OSError, ValueError, KeyError) as error:
                warnings.warn(
                    f"The checkpoint {file} is damaged ({error}): the one before it is used.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                continue
            arrays: dict[str, list[np.ndarray]] = {}
            for name, array in named.items():  # in the order in which they were written
                arrays.setdefault(name.partition("/")[0], []).append(array)
            self.epoch, self._good = int(file.stem.partition("-")[0]), [file]
            return facts, arrays
        return None

    def clear(self) -> None:
        """Take the epochs away: the record is written, or the run can't go on."""
        self.epoch, self._good = 0, []
        if self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)


def state(model, plateau, watch) -> tuple[dict[str, Any], dict[str, list[np.ndarray]]]:
    """Everything that a Keras training depends on at the end of an epoch, as `Checkpoints.write`
    takes it.

    Args:
        model: a compiled model.
        plateau: its `ReduceLROnPlateau`, or None.
        watch: the experiment's callback: the history, and the best epoch with its weights.
    """
    facts = {
        "learning_rate": float(model.optimizer.learning_rate.numpy()),
        "plateau": {name: getattr(plateau, name) for name in _PLATEAU} if plateau else {},
        "watch": {name: getattr(watch, name) for name in _WATCH},
    }
    return facts, {
        "model": model.get_weights(),
        "best": watch.best_weights,
        "optimizer": [variable.numpy() for variable in model.optimizer.variables],
    }


def restore(model, watch, facts: dict[str, Any], arrays: dict[str, list[np.ndarray]]) -> None:
    """Bring a compiled model and the experiment's callback to where `state` saw them, before the
    training begins.

    What the schedule remembered goes to `watch.plateau_memory`: Keras makes it forget when a
    training begins.

    Raises:
        ValueError: if the state belongs to another model.
    """
    with model.distribute_strategy.scope():
        # Its slots are made with the first step otherwise.
        model.optimizer.build(model.trainable_variables)
    variables = [*model.optimizer.variables]
    for what, has in (
        ("model", model.get_weights()),
        ("best", model.get_weights()),
        ("optimizer", variables),
    ):
        if [tuple(array.shape) for array in arrays[what]] != [tuple(array.shape) for array in has]:
            raise ValueError(
                f"The checkpoint's {what} arrays belong to another network: take its folder under"
                " .checkpoints away."
            )
    model.set_weights(arrays["model"])
    for variable, array in zip(variables, arrays["optimizer"]):
        variable.assign(array)
    model.optimizer.learning_rate = facts["learning_rate"]
    vars(watch).update(
        facts["watch"] | {"best_weights": arrays["best"], "plateau_memory": facts["plateau"]}
    )


@contextmanager
def held_signals() -> Iterator[Callable[[Callable[[], str]], None]]:
    """Hold SIGTERM and Ctrl-C back, so that a run stops between two steps: what is yielded raises
    `Stopped` if one came.

    It takes a function that makes the message. A second Ctrl-C does not wait. What came and was not
    asked for is delivered in the end. Outside the main thread, where Python handles no signals,
    nothing is held.
    """
    came: list[int] = []

    def hold(number, frame):
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt
        came.append(number)

    def check(message):
        if came:
            raise Stopped(message(), came[0])

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = {number: signal.signal(number, hold) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
    if came:
        signal.raise_signal(came[0])
