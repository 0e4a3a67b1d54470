"""Many tasks on one network, measured: what `supermask tasks` does. ::

    place = ManyTasks(source="permuted_mnist", tasks=5, steps=429).run("runs/tasks")

A record is a folder: `record.json` (parameters, machine, data, digests) and `tasks.csv` (one row
per task). The masks lie beside it in a hidden folder, for studies of more tasks, and are never
committed; the record has the SHA-256 of each task's packed file, which the same command makes
again.
"""

import csv
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import data, initializers
from ..experiment import devices
from ..ground import files
from ..records import check_writable, lock

if TYPE_CHECKING:
    from .. import tasks

__all__ = ["SOURCES", "ManyTasks"]

# What the tasks are, and the datasets that they are made of.
SOURCES = {
    "permuted_mnist": ("mnist",),
    "datasets": ("mnist", "fashion_mnist", "digits"),
}
# Images that are known to belong together when a task is inferred, and how many of the first
# groups of the test images are asked.
_GROUPS = {1: 100, 128: 78}


@dataclass(frozen=True)
class ManyTasks:
    """Every parameter of a study of many tasks.

    Attributes:
        source: "permuted_mnist": MNIST, each task with another order of the pixels; "datasets":
            MNIST, Fashion-MNIST and scikit-learn's digits, enlarged to 28 × 28.
        tasks: how many; None for as many as the source has datasets.
        steps: training steps per task.
        batch_size: images in a step.
        learning_rate: of RMSprop with ρ = 0.99, as in the authors' notebook.
        seed: of θ0, scores, orders of pixels and of images.

    Raises:
        ValueError: if a parameter is out of range.
    """

    source: str = "permuted_mnist"
    tasks: int | None = None
    steps: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-4
    seed: int = 0

    def __post_init__(self):
        if self.source not in SOURCES:
            raise ValueError(f"Unknown source {self.source!r}: choose one of {', '.join(SOURCES)}.")
        if self.tasks is None:
            count = 5 if self.source == "permuted_mnist" else len(SOURCES[self.source])
            object.__setattr__(self, "tasks", count)
        for name in ("tasks", "steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range: give more than 0.")
        if self.source == "datasets" and len(self.names) != self.tasks:
            raise ValueError(f"tasks={self.tasks} is more than there are datasets: give at most 3.")

    @property
    def name(self) -> str:
        """The record's folder: the source, the number of tasks, the seed, a digest of all."""
        digest = files.digest(dataclasses.asdict(self))[:8]
        return f"{self.source}-{self.tasks}-s{self.seed}-{digest}"

    @property
    def aside(self) -> str:
        """The hidden folder of the masks, whatever the number of tasks."""
        each = {k: v for k, v in dataclasses.asdict(self).items() if k != "tasks"}
        return f".{self.source}-s{self.seed}-{files.digest(each)[:8]}"

    @property
    def names(self) -> list[str]:
        """The tasks' names."""
        assert self.tasks is not None  # it was filled in
        if self.source == "permuted_mnist":
            return [f"permuted-{number:03d}" for number in range(self.tasks)]
        return list(SOURCES["datasets"])[: self.tasks]

    def run(self, directory: str | Path, progress: bool = True) -> Path:
        """Learn every task, measure all of them after the last one, and write the record.

        Stopped at any time, the same call goes on with the task that was not finished. Tasks that
        a study of fewer tasks has learned, all else being equal, are not learned again: what a mask
        becomes does not depend on how many there are.

        Args:
            directory: the record gets a folder of its own in it.
            progress: whether to print one line per task.

        Returns:
            The record's folder. One that is there is left as it is.

        Raises:
            FileNotFoundError: if the data are not on this machine.
            PermissionError, FileExistsError: if `directory` can't be written to.
        """
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        place = Path(directory) / self.name
        check_writable(Path(directory))
        with lock(place.parent / self.aside):
            if not place.exists():
                _Work(self, place, progress).do()
        if progress:
            print(f"The record: {place}")
        return place


# --- the data of the tasks ------------------------------------------------------------------------


def standardised(images: data.ImageData) -> data.ImageData:
    """The images, to be fed with mean 0 and standard deviation 1 over all training pixels."""
    pixels = images.train[0].astype(np.float64)
    deviation = float(pixels.std())
    return dataclasses.replace(images, scale=(1 / deviation, -float(pixels.mean()) / deviation))


def permuted(images: data.ImageData, seed: int, task: str) -> data.ImageData:
    """The images with their pixels in another order, a pure function of seed and task."""
    shape = images.image_shape
    bits = initializers.random_bits(seed, f"{task}/pixels", (int(np.prod(shape)),))
    order = np.argsort(bits, kind="stable")

    def moved(split):
        x, y = split
        return x.reshape(len(x), -1)[:, order].reshape(x.shape), y

    parts = {name: moved(getattr(images, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(images, **parts)


def enlarged(images: data.ImageData) -> data.ImageData:
    """Images of 8 × 8 pixels as 28 × 28: each pixel becomes nine, in a black frame of two."""

    def grown(split):
        x, y = split
        large = x.repeat(3, axis=1).repeat(3, axis=2)
        return np.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0))), y

    parts = {name: grown(getattr(images, name)) for name in ("train", "validation", "test")}
    return dataclasses.replace(images, **parts)


class _Sources:
    """The datasets of a study, read once, as the images of its tasks."""

    def __init__(self, asked: ManyTasks):
        self._asked = asked
        self._read = {name: data.load(name) for name in SOURCES[asked.source]}
        self.fingerprints = {name: images.fingerprint for name, images in self._read.items()}

    def images(self, task: str) -> data.ImageData:
        if self._asked.source == "permuted_mnist":
            return permuted(standardised(self._read["mnist"]), self._asked.seed, task)
        images = self._read[task]
        return standardised(enlarged(images) if task == "digits" else images)


# --- the work -------------------------------------------------------------------------------------


class _Work:
    """One study under way. What is learned lies in a hidden folder, which studies share that
    differ in the number of tasks alone.
    """

    def __init__(self, asked: ManyTasks, place: Path, progress: bool):
        self.asked, self.place, self.progress = asked, place, progress
        self.aside = place.parent / asked.aside
        self.sources = _Sources(asked)
        self.many: tasks.Tasks = self._tasks()

    def _tasks(self) -> "tasks.Tasks":
        """The tasks as far as they are learned, with a network that is compiled."""
        import tensorflow as tf

        from .. import tasks

        learned = [task for task in self._rows() if task in self.asked.names]
        many = (
            tasks.Tasks.load(self.aside, learned)
            if learned
            else tasks.Tasks(tasks.network(seed=self.asked.seed))
        )
        # As the authors' optimizer: PyTorch adds 1e-8 outside of the root where Keras adds inside.
        optimizer = tf.keras.optimizers.RMSprop(self.asked.learning_rate, rho=0.99, epsilon=1e-16)
        loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        many.model.compile(optimizer, loss, metrics=["accuracy"], steps_per_execution=50)
        return many

    def do(self) -> None:
        """Learn what is not learned yet, measure everything, write the record."""
        for task in self.asked.names:
            if task not in self.many.names:
                self._learn(task)
        rows = [self._measured(task) for task in self.asked.names]
        with files.whole_folder(self.place) as partial:
            _write_csv(partial / "tasks.csv", rows)
            sums = {"tasks.csv": files.sha256(partial / "tasks.csv")}
            files.write_json(partial / "record.json", self._facts() | {"checksums": sums})

    def _learn(self, task: str) -> None:
        asked, begun, images = self.asked, time.monotonic(), self.sources.images(task)
        epochs = -(-asked.steps // (len(images.train[0]) // asked.batch_size))
        batches = data.training_batches(
            images, batch_size=asked.batch_size, seed=asked.seed, epochs=epochs, augmented=False
        )
        self.many.learn(task, batches, steps_per_epoch=asked.steps, verbose=0)
        taken = time.monotonic() - begun
        accuracy = float(self._right(images).mean())
        file = self.many.save(self.aside, [task])[0]
        kept = [mask.mean() for mask in self.many.masks(task).values()]
        sizes = [mask.size for mask in self.many.masks(task).values()]
        row = {
            "task": task,
            "accuracy": accuracy,
            "kept": float(np.average(kept, weights=sizes)),
            "bytes": file.stat().st_size,
            "sha256": files.sha256(file),
            "seconds": round(taken, 2),
        }
        with open(self.aside / "learned.jsonl", "a") as log:  # after the mask: both, or to do again
            log.write(json.dumps(row) + "\n")
        if self.progress:
            print(f"{task}: test accuracy {accuracy:.4f}, {taken:.1f} s", flush=True)

    def _rows(self) -> dict[str, dict[str, Any]]:
        """What was written of each task that is learned."""
        log = self.aside / "learned.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        return {row["task"]: row for row in map(json.loads, lines)}

    def _right(self, images: data.ImageData) -> np.ndarray:
        """Whether each test image is classified rightly by the mask that the network has."""
        x, y = images.test
        logits = self.many.model.predict(_fed(images, x), batch_size=500, verbose=0)
        return logits.argmax(axis=1) == y

    def _measured(self, task: str) -> dict[str, Any]:
        """A task's row, measured after the last task was learned."""
        images = self.sources.images(task)
        self.many.choose(task)
        right = self._right(images)
        row = self._rows()[task] | {"after_last": float(right.mean())}
        for size in _GROUPS:
            row |= self._inferred(task, images, right, size)
        if self.progress:
            print(f"{task}: measured after the last task", flush=True)
        return row

    def _inferred(
        self, task: str, images: data.ImageData, right: np.ndarray, size: int
    ) -> dict[str, Any]:
        """How often a task is inferred rightly; of the others' images none counts as right."""
        groups = min(_GROUPS[size], len(right) // size)
        x = _fed(images, images.test[0][: groups * size])
        names = self.many.infer(x, size, self.asked.names)
        told = np.array([name == task for name in names])
        by_group = right[: groups * size].reshape(groups, size).mean(axis=1)
        return {
            f"groups_{size}": groups,
            f"told_{size}": float(told.mean()),
            f"accuracy_{size}": float((told * by_group).mean()),
        }

    def _facts(self) -> dict[str, Any]:
        theta0 = hashlib.sha256()
        for layer in self.many.model.layers:
            if hasattr(layer, "kernel"):
                theta0.update(np.ascontiguousarray(layer.kernel.numpy(), "<f4").tobytes())
        return {
            "parameters": dataclasses.asdict(self.asked),
            "network": [int(n) for n in _units(self.many.model)],
            "theta0": theta0.hexdigest(),
            "fingerprints": self.sources.fingerprints,
            **devices.machine(),
        }


def _units(model) -> Iterator[int]:
    """The inputs of a dense network and the units of its layers."""
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    yield kernels[0].shape[0]
    yield from (kernel.shape[1] for kernel in kernels)


def _fed(images: data.ImageData, x: np.ndarray) -> np.ndarray:
    """Images as the network is fed."""
    scale, offset = (np.float32(value) for value in images.scale)
    return x.astype(np.float32) * scale + offset


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
