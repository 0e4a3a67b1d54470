"""Many tasks in one network: one θ0, and one mask per task. ::

    many = tasks.Tasks(tasks.network(seed=0))      # or another network of masked layers
    many.model.compile(optimizer, loss, metrics=["accuracy"])
    many.learn("mnist", x, y, epochs=1)            # as model.fit; no other task's mask moves
    many.predict(x, task="mnist")
    many.infer(x)                                  # ["mnist"]: found by the images alone
    many.save("folder")                            # one packed file per task; Tasks.load reads them

After Wortsman et al. (2020, arXiv:2006.14769), "Supermasks in Superposition".
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from . import initializers, masking, packing
from .layers import MaskedDense, is_normalization, masked_layers
from .training import SupermaskModel

__all__ = ["Tasks", "network"]

# Groups of images, and masks, that are multiplied at a time: bounds memory.
_GROUPS, _MASKS = 128, 32


def network(
    input_shape: Sequence[int] = (28, 28, 1),
    hidden: Sequence[int] = (300, 300),
    outputs: int = 100,
    seed: int = 0,
) -> SupermaskModel:
    """A network for many tasks: dense layers with ReLU over signed Kaiming constants, no biases.

    The default, 784-300-300-100, is that of the authors' notebook. A task may have fewer classes
    than there are outputs: the outputs that no label names are what `Tasks.infer` is sharper with
    (Wortsman et al. 2020, section 3.5).

    Args:
        input_shape: of an image.
        hidden: units of the hidden layers.
        outputs: number of outputs.
        seed: of θ0.
    """
    masking = {"kernel_initializer": "signed_kaiming_constant", "seed": seed, "use_bias": False}
    inputs = tf.keras.Input(tuple(input_shape), name="image")
    x = tf.keras.layers.Flatten(name="flatten")(inputs)
    for number, units in enumerate(hidden, 1):
        x = MaskedDense(units, activation="relu", name=f"dense{number}", **masking)(x)
    x = MaskedDense(outputs, name=f"dense{len(hidden) + 1}", **masking)(x)
    return SupermaskModel(inputs, x, name="many_tasks", phase="mask")


class Tasks:
    """One network that is never trained, and a mask for each task.

    Learning a task moves nothing that another one uses, so its outputs stay, to the bit. What a
    mask becomes does not depend on the tasks before it either: its logits and the optimizer start
    anew.

    Args:
        model: the network, in phase "mask". Its masks are made by an estimator that draws none at
            evaluation, and are not rescaled; it has no normalisation, which all tasks would share.
        start: where each task's mask logits start: a number, or None for random scores, drawn for
            each task from (the layer's seed, the task's name, the layer's path).

    Raises:
        ValueError: if the network is none that tasks can share.
    """

    def __init__(self, model: SupermaskModel, start: float | None = None):
        _check(model)
        self.model, self.start = model, start
        self._shapes = {path: mask.shape for path, mask in model.masks().items()}
        self._packed: dict[str, np.ndarray] = {}
        self._optimizer: Any = None
        self._fresh: list[np.ndarray] = []
        self._mixture: Any = None

    @property
    def names(self) -> list[str]:
        """The tasks in the order in which they were learned."""
        return list(self._packed)

    def masks(self, task: str) -> dict[str, np.ndarray]:
        """A task's masks: boolean arrays by weight path.

        Raises:
            ValueError: if the task is unknown.
        """
        flat, masks, place = self._flat(task), {}, 0
        for path, shape in self._shapes.items():
            size = int(np.prod(shape))
            masks[path] = flat[place : place + size].reshape(shape).astype(bool)
            place += size
        return masks

    def _flat(self, task: str) -> np.ndarray:
        """A task's masks one behind the other: zeros and ones, uint8."""
        if task not in self._packed:
            known = ", ".join(self._packed) or "none yet"
            raise ValueError(f"Unknown task {task!r}: choose among those learned ({known}).")
        return np.unpackbits(self._packed[task], count=self._size)

    @property
    def _size(self) -> int:
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    # --- learning ---------------------------------------------------------------------------------

    def learn(self, task: str, *args: Any, **kwargs: Any) -> tf.keras.callbacks.History:
        r"""Find a mask for a new task.

        Args:
            task: its name: letters, digits, "_", "-" and ".".
            \*args, \**kwargs: as in the model's `fit`.

        Returns:
            What `fit` returns.

        Raises:
            ValueError: if the name does not fit or is taken, or the model is in another phase.
        """
        if not re.fullmatch(r"\w[\w.-]*", task, re.ASCII):
            raise ValueError(f"task={task!r} can't name a file: give letters, digits, _, - and .")
        if task in self._packed:
            raise ValueError(f"The task {task!r} is learned already: give another name.")
        if self.model.phase != "mask":
            raise ValueError(
                f"The network is in phase {self.model.phase!r}, in which weights train that other "
                "tasks use: set model.phase = 'mask'."
            )
        self._begin(task)
        history = self.model.fit(*args, **kwargs)
        self._keep(task, self.model.masks())
        return history

    def _begin(self, task: str) -> None:
        """Put mask logits, draws and optimizer where every task starts."""
        for layer in masked_layers(self.model):
            for name in ("kernel_logits", "bias_logits"):
                logits = getattr(layer, name)
                if logits is not None:
                    path, shape = f"{task}/{layer.name}/{name}", tuple(logits.shape)
                    first = (
                        initializers.scores(layer.seed, path, shape)
                        if self.start is None
                        else np.full(shape, self.start, np.float32)
                    )
                    logits.assign(first)
            if layer.estimator.draws:
                layer.draws.assign(0)
        optimizer = self.model.optimizer
        if optimizer is None:
            return  # `fit` says that the model must be compiled
        if optimizer is not self._optimizer:
            optimizer.build(self.model.trainable_variables)
            self._optimizer = optimizer
            self._fresh = [variable.numpy() for variable in optimizer.variables]
        for variable, value in zip(optimizer.variables, self._fresh):
            variable.assign(value)

    def _keep(self, task: str, masks: dict[str, np.ndarray]) -> None:
        parts = [masks[path].ravel() for path in self._shapes]
        self._packed[task] = np.packbits(np.concatenate(parts))

    # --- using ------------------------------------------------------------------------------------

    def choose(self, task: str) -> None:
        """Give the network a task's masks.

        Raises:
            ValueError: if the task is unknown.
        """
        self.model.set_masks(self.masks(task))

    def predict(self, images: Any, task: str | None = None) -> np.ndarray:
        """The network's outputs under a task's masks.

        Args:
            images: float array (n, ...), as the network takes them.
            task: the task, or None to infer one for all of the images together.

        Raises:
            ValueError: if the task is unknown, or none is learned.
        """
        self.choose(self.infer(images)[0] if task is None else task)
        return self.model.predict(images, verbose=0)

    def infer(
        self, images: Any, size: int | None = None, among: Iterable[str] | None = None
    ) -> list[str]:
        """The tasks that images belong to, each found in one gradient step.

        All k masks are laid over each other with coefficients αᵢ = 1/k. The task is the one whose
        coefficient would lower the outputs' entropy H most: argmax −∂H/∂αᵢ (Wortsman et al. 2020,
        section 3.3, equation 4). One backward pass gives all k derivatives.

        Args:
            images: float array (n, ...), as the network takes them.
            size: images that are known to belong together: the first `size`, the next, and so on;
                None for all of them.
            among: the tasks that they may belong to; None for all.

        Returns:
            One name for each group of images.

        Raises:
            ValueError: if a task is unknown, there is none to choose among, or no image.
        """
        names = self.names if among is None else list(among)
        if not names or not len(images):
            missing = "learn a task first" if not names else "give at least one image"
            raise ValueError(f"There is nothing to infer a task from: {missing}.")
        gradient = self._entropy_gradient(names)
        size = len(images) if size is None else size
        starts = range(0, len(images), size)
        found: list[str] = []
        for first in range(0, len(starts), _GROUPS):
            some = starts[first : first + _GROUPS]
            rows = np.stack([gradient(images[start : start + size]) for start in some])
            slopes = np.concatenate(
                [
                    rows @ np.stack([self._flat(name) for name in part]).astype(np.float32).T
                    for part in (names[k : k + _MASKS] for k in range(0, len(names), _MASKS))
                ],
                axis=1,
            )
            found += [names[best] for best in slopes.argmin(axis=1)]
        return found

    def _entropy_gradient(self, names: list[str]):
        """A function of images: ∂H/∂M at the mean mask of these tasks, flat and float32.

        With the weights K = θ ⊙ M of a network of plain layers, ∂H/∂M = θ ⊙ ∂H/∂K.
        """
        if self._mixture is None:
            self._mixture = _Mixture(self.model, list(self._shapes))
        counts = np.zeros(self._size, np.float32)
        for name in names:
            counts += self._flat(name)
        return self._mixture.at(counts / np.float32(len(names)))

    # --- keeping ----------------------------------------------------------------------------------

    def save(self, folder: str | Path, among: Iterable[str] | None = None) -> list[Path]:
        """Write one packed file per task, which `supermask_tf.load` reads by itself too.

        Args:
            folder: made if it is missing. Files of the same tasks are replaced.
            among: the tasks to write; None for all.

        Returns:
            The files, `<task>.supermask`.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for task in self.names if among is None else among:
            self.choose(task)
            about = {"task": task, "start": self.start}
            written.append(packing.save(self.model, folder / f"{task}.supermask", about=about))
        return written

    @classmethod
    def load(cls, folder: str | Path, among: Iterable[str] | None = None) -> "Tasks":
        """The tasks that `save` wrote; the network is not compiled.

        Args:
            folder: where the files are.
            among: the tasks to read, in their order; None for all, by name.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a file is damaged, or two are of different networks.
        """
        folder = Path(folder)
        names = (
            sorted(path.stem for path in folder.glob("*.supermask"))
            if among is None
            else list(among)
        )
        if not names:
            raise FileNotFoundError(f"There is no .supermask file in {folder}: give another.")
        first = packing.read(folder / f"{names[0]}.supermask").header
        model = packing.load(folder / f"{names[0]}.supermask")
        many = cls(model, first["about"].get("start"))
        for name in names:
            contents = packing.read(folder / f"{name}.supermask")
            if any(contents.header[part] != first[part] for part in ("network", "theta0")):
                raise ValueError(
                    f"The tasks {names[0]!r} and {name!r} in {folder} are of different networks: "
                    "keep each network's in a folder of its own."
                )
            many._keep(name, {path: contents.masks[path] != 0 for path in many._shapes})
        return many


class _Mixture:
    """A network of plain layers, at the mean of some masks."""

    def __init__(self, model: SupermaskModel, paths: list[str]):
        self.plain = masking.plain(model, dtype="float32")
        layers = model._by_path()
        self._theta, self._variables = [], []
        for path in paths:
            layer, _, name = path.rpartition("/")
            self._theta.append(getattr(layers[layer], name).numpy())
            self._variables.append(getattr(self.plain.get_layer(layer.replace("/", ".")), name))
        self._step = tf.function(self._gradients, reduce_retracing=True)

    def _gradients(self, images):
        with tf.GradientTape() as tape:
            logs = tf.nn.log_softmax(self.plain(images, training=False))
            entropy = -tf.reduce_mean(tf.reduce_sum(tf.exp(logs) * logs, axis=-1))
        return tape.gradient(entropy, self._variables, unconnected_gradients="zero")

    def at(self, mean: np.ndarray):
        """∂H/∂M at the mask `mean` as a function of images; both flat."""
        ends = np.cumsum([theta.size for theta in self._theta])[:-1]
        for theta, variable, part in zip(self._theta, self._variables, np.split(mean, ends)):
            variable.assign(theta * part.reshape(theta.shape))

        def gradient(images) -> np.ndarray:
            found = self._step(tf.convert_to_tensor(images))
            return np.concatenate([
                (theta * slope.numpy()).ravel() for theta, slope in zip(self._theta, found)
            ])  # fmt: skip

        return gradient


def _check(model: SupermaskModel) -> None:
    """See that tasks can share a network."""
    wrong = ""
    if any(is_normalization(layer) for layer in model._flatten_layers(include_self=False)):
        wrong = "has a normalisation, which all tasks would share: build it without"
    elif any(layer.rescale for layer in masked_layers(model)):
        wrong = "rescales by the fraction kept, which differs by task: build it with rescale=None"
    elif any(layer.draw_at_evaluation for layer in masked_layers(model)):
        wrong = "draws masks at evaluation: build it with draw_at_evaluation=False"
    elif not masked_layers(model):
        wrong = "has no masked layer: build it of MaskedDense and MaskedConv2D"
    if wrong:
        raise ValueError(f"The network {model.name!r} {wrong}.")
