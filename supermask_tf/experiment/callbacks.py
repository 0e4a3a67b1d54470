"""What happens around a run's steps and epochs: its schedule, its history, its checkpoints."""

import math
import operator
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .. import _keras
from ..gem_miner import GradualFreezing
from ..ground import schedules
from ..iterand import IterativeRandomization
from ..layers import masked_layers
from . import checkpoints, network
from .arms import ARMS
from .checkpoints import Checkpoints
from .parameters import Experiment

__all__ = ["Cosine", "LowerDensity", "Watch", "schedule", "search"]

# How often a long epoch says how far it is.
_SAY_SECONDS = 20


def schedule(experiment: Experiment, steps: int) -> list[tf.keras.callbacks.Callback]:
    """The callbacks that move the learning rate; `steps` is the number of steps per epoch."""
    if experiment.schedule == "plateau":
        mode = "min" if ARMS[experiment.arm].wrong else "max"
        plateau = tf.keras.callbacks.ReduceLROnPlateau("accuracy", mode=mode, **schedules.PLATEAU)
        return [plateau]
    return [Cosine(experiment, steps)] if experiment.schedule == "cosine" else []


class Cosine(tf.keras.callbacks.Callback):
    """Sets the rate before each step. It remembers nothing, so that a run can go on at any epoch.

    Args:
        experiment: its rate and epochs count.
        steps: steps per epoch.
    """

    def __init__(self, experiment: Experiment, steps: int):
        super().__init__()
        self.experiment, self.steps, self.first = experiment, steps, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.first = epoch * self.steps

    def on_train_batch_begin(self, batch, logs=None):
        rate, total = self.experiment.learning_rate, self.experiment.epochs * self.steps
        rate = schedules.cosine_rate(rate, self.first + batch, total)
        self.model.optimizer.learning_rate.assign(rate)


class LowerDensity(tf.keras.callbacks.Callback):
    """Brings the density of a ranking down from `density_start` over the first half of the epochs.

    Args:
        experiment: one with a `density_start`.
        plateau: the callback that lowers the rate by the training accuracy, if there is one.
    """

    def __init__(self, experiment: Experiment, plateau: tf.keras.callbacks.Callback | None):
        super().__init__()
        self.experiment, self.plateau = experiment, plateau

    def on_epoch_begin(self, epoch, logs=None):
        e = self.experiment
        assert e.density_start is not None and e.density is not None  # only then is this in use
        density = schedules.density_at(epoch, e.epochs, e.density_start, e.density)
        for layer in masked_layers(self.model):
            layer.density.assign(density)
        self.model.rank()
        reached = schedules.density_reached(epoch, e.epochs, e.density_start)
        if self.plateau and not reached:
            self.plateau.on_train_begin()  # it forgets


def search(experiment: Experiment, plateau: Any) -> list[tf.keras.callbacks.Callback]:
    """The callbacks of a method that finds a mask: what they change, they change before an epoch or
    a step.
    """
    found: list[tf.keras.callbacks.Callback] = []
    if experiment.density_start:
        found.append(LowerDensity(experiment, plateau))
    every, density = experiment.freeze_every, experiment.density
    if every and density and ARMS[experiment.arm].trains == "mask":
        found.append(GradualFreezing(density, every))
    every, fraction = experiment.randomize_every, experiment.randomize_fraction
    if every and fraction:
        found.append(IterativeRandomization(every, fraction, experiment.seed))
    return found


class Watch(tf.keras.callbacks.Callback):
    """Keeps the history, the weights of the epoch to record, and a checkpoint per epoch.

    It prints progress, and stops the run when the loss is no number or a signal came.

    Args:
        experiment: what is trained.
        progress: whether to print.
        plateau: the callback that lowers the rate by the training accuracy, if there is one.
        saved: the run's checkpoints.
        facts: what is written into each of them besides.
        stopped: raises `Stopped` if a signal came, with the message that it is given a function
            for.

    Attributes:
        rows: the history, one row per epoch.
        best_epoch, best_accuracy, best_weights: the epoch to record.
        seconds: of training, validation included.
        plateau_memory: what the plateau remembered when the run was stopped.
    """

    def __init__(
        self,
        experiment: Experiment,
        progress: bool,
        plateau: tf.keras.callbacks.Callback | None,
        saved: Checkpoints,
        facts: dict[str, Any],
        stopped: Callable[[Callable[[], str]], None],
    ):
        super().__init__()
        self.experiment, self.progress, self.plateau = experiment, progress, plateau
        self.saved, self.facts, self.stopped = saved, facts, stopped
        self.rows: list[dict[str, float]] = []
        self.best_epoch, self.best_weights = 0, None
        self.best_accuracy: float | None = None
        self.epoch, self.seconds = saved.epoch, 0.0
        self.plateau_memory: dict[str, float] = {}

    def on_train_begin(self, logs=None):
        if self.plateau:
            vars(self.plateau).update(self.plateau_memory)  # Keras has just made it forget
        self.since = time.perf_counter()

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.begun = epoch + 1, time.perf_counter()
        self.told = self.begun

    def on_train_batch_end(self, batch, logs=None):
        self._check(logs["loss"], f"at step {batch + 1} of epoch {self.epoch}")
        if self.progress and time.perf_counter() - self.told > _SAY_SECONDS:
            self.told = time.perf_counter()
            where = f"  epoch {self.epoch}, step {batch + 1} of {self.params['steps']}"
            print(f"{where}: accuracy so far {logs['accuracy']:.4f}", flush=True)
        self._stop()

    def on_test_batch_end(self, batch, logs=None):
        self._stop()

    def on_epoch_end(self, epoch, logs=None):
        row = {k: float(logs[k]) for k in ("loss", "accuracy", "val_loss", "val_accuracy")}
        # A loss that becomes no number with an epoch's last step shows only here.
        self._check(row["val_loss"], f"on the validation images after epoch {self.epoch}")
        rate = logs[_keras.RATE] if self.plateau else self._rate(epoch)
        masked = network.masked_fraction(network.utilisation(self.model))
        row = {"epoch": self.epoch} | row
        self.rows.append(row | {"learning_rate": float(f"{rate:.6g}"), "masked": masked})
        if self._to_record(epoch, row["val_accuracy"]):
            self.best_epoch, self.best_accuracy = self.epoch, row["val_accuracy"]
            self.best_weights = self.model.get_weights()
        now = time.perf_counter()
        self.seconds, self.since = self.seconds + now - self.since, now
        state, arrays = checkpoints.state(self.model, self.plateau, self)
        self.saved.write(self.epoch, self.facts | state, arrays)
        if self.progress:
            self._say(row, rate, masked, now - self.begun)

    def _rate(self, epoch: int) -> float:
        """The rate with which an epoch (counted from 0) begins, where no plateau decides it."""
        e = self.experiment
        if e.schedule == "cosine":
            return schedules.cosine_rate(e.learning_rate, epoch, e.epochs)
        return e.learning_rate

    def _to_record(self, epoch: int, accuracy: float) -> bool:
        """Whether this epoch (counted from 0) takes the place of the one to record so far."""
        e = self.experiment
        if self.best_accuracy is None or e.keep == "last":
            return True
        if not schedules.density_reached(epoch, e.epochs, e.density_start):
            return True
        better = operator.lt if ARMS[e.arm].wrong else operator.gt
        return better(accuracy, self.best_accuracy)

    def _check(self, loss: float, when: str) -> None:
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"The loss became {loss} {when} (learning_rate={self.experiment.learning_rate:g}):"
                " try a smaller learning_rate; nothing was recorded."
            )

    def _stop(self) -> None:
        self.stopped(self._how_it_goes_on)

    def _how_it_goes_on(self) -> str:
        e, saved_epoch = self.experiment, self.saved.epoch
        if saved_epoch:
            then = f"the same command goes on after epoch {saved_epoch}, the last one kept."
        else:
            then = "no epoch was finished; the same command begins again."
        return f"{e.name} was stopped in epoch {self.epoch} of {e.epochs}: {then}"

    def _say(self, row: dict[str, float], rate: float, masked: float, seconds: float) -> None:
        done = round(10 * self.epoch / self.experiment.epochs)
        print(
            f"{'█' * done}{'░' * (10 - done)} epoch {self.epoch:>3}/{self.experiment.epochs}   "
            f"loss {row['loss']:.4f}   accuracy {row['accuracy']:.4f}   "
            f"val_accuracy {row['val_accuracy']:.4f}   learning rate {rate:.0e}   "
            f"masked {masked:.1%}   {seconds:.0f} s",
            flush=True,
        )
