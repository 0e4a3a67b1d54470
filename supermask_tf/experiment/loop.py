"""Training one experiment, from the last epoch saved to its record."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

from .. import _keras, data, records
from ..records import Run
from . import callbacks, checkpoints, devices, measuring, network, starting
from .arms import ARMS
from .checkpoints import Checkpoints
from .parameters import Experiment

__all__ = ["train"]

# How many held-out images tell what the first step meets.
_FIRST_IMAGES = 500


@dataclass
class _Job:
    """What training an experiment works with.

    Attributes:
        place: where this process writes the record.
        splits: the batches of "validation" and "test", and how many there are where Keras can't
            count.
    """

    experiment: Experiment
    images: data.ImageData
    parent: Run | None
    progress: bool
    strategy: tf.distribute.Strategy
    place: Path
    splits: dict[str, tuple[Any, int | None]]

    @property
    def steps(self) -> int:
        """Training steps per epoch."""
        return len(self.images.train[0]) // self.experiment.batch_size

    def shared_out(self, batches: tf.data.Dataset) -> Any:
        return data.shared_out(batches, self.strategy) if self.experiment.strategy else batches

    def evaluate(self, model: tf.keras.Model, split: str, watch=None) -> tuple[float, float]:
        """Loss and accuracy on a split."""
        batches, count = self.splits[split]
        watching = [watch] if watch else None
        loss, accuracy = model.evaluate(batches, steps=count, verbose=0, callbacks=watching)
        return float(loss), float(accuracy)


def train(
    experiment: Experiment,
    place: Path,
    images: data.ImageData,
    parent: Run | None,
    progress: bool,
    saved: Checkpoints | None = None,
) -> Run:
    """Train from the last epoch saved, and write the record.

    Args:
        place: the record's folder.
        images: the experiment's data.
        parent: the finished run that it starts from, if it does.
        progress: whether to print.
        saved: its checkpoints; beside `place` unless given.
    """
    saved, job = _job(experiment, place, images, parent, progress, saved)
    model, started = _starting_network(job)
    with checkpoints.held_signals() as stopped:
        facts: dict[str, Any] = {
            "fingerprint": images.fingerprint,
            "parent": parent and parent.summary["checksums"],
            "machines": [devices.machine()],
        }
        found = devices.agreed(_newest(saved, facts, progress), saved, job.strategy)
        schedule = callbacks.schedule(experiment, job.steps)
        plateau = schedule[0] if experiment.schedule == "plateau" else None
        watch = callbacks.Watch(experiment, progress, plateau, saved, facts, stopped)
        if found:
            checkpoints.restore(model, watch, *found)
        _fit(job, model, schedule, plateau, watch)
        measured = _measure(job, model, watch)
        run = _record(job, model, watch, measured, started, facts["machines"])
        saved.clear()
    if progress:
        _say(run)
    return run


def _job(experiment, place, images, parent, progress, saved) -> tuple[Checkpoints, _Job]:
    beside = place
    strategy, place = devices.strategy_and_place(experiment, place)
    tf.keras.backend.clear_session()
    splits = {name: data.evaluation_batches(images, name) for name in ("validation", "test")}
    job = _Job(experiment, images, parent, progress, strategy, place, {})
    for name, batches in splits.items():
        count = len(batches) if experiment.strategy else None  # Keras can't count shared batches
        job.splits[name] = job.shared_out(batches), count
    return saved or Checkpoints(beside, writes=place == beside), job


def _starting_network(job: _Job) -> tuple[tf.keras.Model, dict[str, float]]:
    """The network as its arm starts it, and what a record says of that: it chooses nothing."""
    experiment, images = job.experiment, job.images
    with job.strategy.scope():
        model = network.build(experiment, images.image_shape, images.classes)
        if job.parent:
            starting.start(model, experiment, job.parent, images)
        network.compile_model(model, experiment)
        _keras.make_variables(model, labels=tf.zeros([1], tf.int64))
    started = {"start_accuracy": job.evaluate(model, "test")[1]} if job.parent else {}
    x, y = (part[:_FIRST_IMAGES] for part in images.validation)
    scale, offset = (np.float32(value) for value in images.scale)
    return model, started | measuring.start_facts(model, x.astype(np.float32) * scale + offset, y)


def _newest(saved: Checkpoints, facts: dict[str, Any], progress: bool) -> Any:
    """The last epoch saved, if it is of this run.

    `facts` then learns on which other machines the run was before.
    """
    found = saved.newest()
    if found is None:
        return None
    before = found[0]
    if any(before[name] != facts[name] for name in ("fingerprint", "parent")):
        # Other data, or another parent of the same name, made another run: none of its epochs is of
        # use.
        print(
            f"{saved.folder} holds epochs of a run with other data or another parent: they are not"
            " used."
        )
        saved.clear()
        return None
    _check_keras(saved, before["machines"][-1], facts["machines"][-1])
    if progress:
        print(f"The run goes on after epoch {saved.epoch}, which was kept in {saved.folder}.")
    others = [machine for machine in before["machines"] if machine not in facts["machines"]]
    facts["machines"] = others + facts["machines"]
    if others:
        print(
            "It was begun on another processor, number of threads or version, on which its last"
            " bits depend: the record will say so."
        )
    return found


def _check_keras(saved: Checkpoints, before: dict[str, Any], now: dict[str, Any]) -> None:
    """See that the epochs were trained by this Keras: optimizers of Keras 2 and 3 hold different
    variables.
    """
    then, here = (machine["versions"]["keras"] for machine in (before, now))
    if then.partition(".")[0] != here.partition(".")[0]:
        raise ValueError(
            f"{saved.folder} holds epochs trained with Keras {then}, and Keras {here} can't go on"
            " from them: run it in the environment that began it, or take that folder away to begin"
            " anew."
        )


def _fit(job: _Job, model: tf.keras.Model, schedule: list, plateau: Any, watch: Any) -> None:
    """Train the epochs that are left."""
    experiment, done = job.experiment, watch.saved.epoch
    batches = data.training_batches(
        job.images,
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        augmented=experiment.augment,
        first_epoch=done,
        epochs=experiment.epochs - done,
    )
    validation, count = job.splits["validation"]
    try:
        model.fit(
            job.shared_out(batches),
            initial_epoch=done,
            epochs=experiment.epochs,
            steps_per_epoch=job.steps,
            shuffle=False,  # the batches are: Keras 3 would warn
            verbose=0,
            validation_data=validation,
            validation_steps=count,
            callbacks=[*schedule, watch, *callbacks.search(experiment, plateau)],
        )
    except FloatingPointError:
        watch.saved.clear()  # it would become NaN again
        raise


def _measure(job: _Job, model: tf.keras.Model, watch: Any) -> dict[str, Any]:
    """Test the network of the epoch to record.

    Returns:
        `state` (arrays by path), `right` (booleans), and what goes into the summary under its own
        name.
    """
    experiment, renewed = job.experiment, {}
    model.set_weights(watch.best_weights)
    if experiment.renew_batch_norm:
        moving = [job.evaluate(model, split)[1] for split in ("validation", "test")]
        # The number of masks drawn too is that of the recorded epoch again.
        model.set_weights(watch.best_weights)
        images = data.evaluation_batches(
            job.images, "train", experiment.batch_size, drop_remainder=True
        )
        measuring.renew_batch_norm(model, job.shared_out(images))
        renewed = {
            "val_accuracy": job.evaluate(model, "validation")[1],
            "moving_val_accuracy": moving[0],
            "moving_test_accuracy": moving[1],
        }
    variables = network.batch_norm(model) | network.beyond_masks(model)
    if experiment.randomize_every:  # then θ is no function of the seed
        variables |= network.weights(model)
    state = {path: v.numpy() for path, v in variables.items()}  # before the test draws anything
    test = data.evaluation_batches(job.images, "test")
    right = measuring.rightly_classified(model, test)
    loss, accuracy = job.evaluate(model, "test", watch)
    tested = {"test_accuracy": accuracy, "test_loss": loss}
    return {"state": state, "right": right, "tested": tested, "renewed": renewed}


def _record(
    job: _Job,
    model: tf.keras.Model,
    watch: Any,
    measured: dict[str, Any],
    started: dict[str, float],
    machines: list[dict[str, Any]],
) -> Run:
    """Write the record, and beside it what no record holds."""
    experiment, images, parent = job.experiment, job.images, job.parent
    history, utilisation = pd.DataFrame(watch.rows), network.utilisation(model)
    best = history.loc[history.epoch == watch.best_epoch].iloc[0]
    trained = job.steps * experiment.batch_size * experiment.epochs
    renewed = measured["renewed"]
    summary = {
        "best_epoch": int(watch.best_epoch),
        "train_accuracy": float(best.accuracy),
        "val_accuracy": renewed.pop("val_accuracy", float(best.val_accuracy)),
        **measured["tested"],
        **renewed,
        **started,
        "masked": network.masked_fraction(utilisation),
        "seconds": round(watch.seconds, 1),
        "images_per_second": round(trained / watch.seconds, 1),
        "train_images": len(images.train[0]),
        "test_images": len(images.test[0]),
        "image_shape": list(images.image_shape),
        "classes": images.classes,
        "fingerprint": images.fingerprint,
        "replicas": job.strategy.num_replicas_in_sync,
        **machines[-1],
        **({"earlier_machines": machines[:-1]} if machines[1:] else {}),
    }
    described = experiment.parameters() | {
        "init_from": experiment.init_from and Path(experiment.init_from).name,
        "parent": parent and parent.parameters,
    }
    masks = model.masks()
    try:
        _keep_beside(experiment, model, Run(job.place))
        return records.write_run(
            job.place,
            described,
            history,
            utilisation,
            masks,
            measured["state"],
            summary,
            measured["right"],
        )
    except OSError as error:
        raise OSError(
            f"The record {job.place} could not be written ({error.strerror or error}): make room"
            f" there, and give the same command; it goes on after epoch {watch.saved.epoch} of"
            f" {experiment.epochs}."
        ) from error


def _keep_beside(experiment: Experiment, model: tf.keras.Model, run: Run) -> None:
    """Keep beside the record what a child starts from: trained weights, logits of a trained mask.

    Hardly any child takes the logits, which are as large as the weights: a mask's record comes out
    without them too, and such a child makes them again.
    """
    arm = ARMS[experiment.arm]
    variables: network.Variables = {}
    if arm.leaves_weights:
        variables |= network.weights(model)
    if arm.trains == "mask":
        variables |= network.logits(model)
    if not variables:
        return
    try:
        records.write_weights(run, {path: v.numpy() for path, v in variables.items()})
    except OSError as error:
        if arm.leaves_weights:
            raise
        warnings.warn(
            f"The mask logits of {run.name} were not kept ({error.strerror or error}): a run that"
            " trains this mask on will train it again first.",
            RuntimeWarning,
            stacklevel=2,
        )


def _say(run: Run) -> None:
    s, hint = run.summary, ""
    if run.parameters["arm"] == "mask" and not s["masked"]:
        hint = " (no weight left: give more epochs, or a larger learning_rate)"
    print(
        f"best epoch {s['best_epoch']}: test accuracy {s['test_accuracy']:.4f}, "
        f"{s['masked']:.1%} masked{hint}; record in {run.path}"
    )
