"""Keras 3, on TensorFlow."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from keras.src.legacy.saving import legacy_h5_format

from .common import no_second, renewed_like
from .order import lists_weights_as_in, order_weights

if tf.keras.backend.backend() != "tensorflow":
    raise ImportError(
        f"Keras runs on {tf.keras.backend.backend()} here, and supermask_tf needs TensorFlow: set"
        " KERAS_BACKEND=tensorflow before Keras is imported."
    )

OWN_PRECISION = {"autocast": False}
FIRST_REPLICA = {"aggregation": "only_first_replica"}
RATE = "learning_rate"


def spelled(path: str) -> str:
    """A layer's name in Keras, from its path in the network: Keras 3 forbids "/"."""
    return path.replace("/", ".")


class ByPath:
    """A layer whose name is its path in the network, such as "group1/block1/conv1".

    Keras forbids "/" where a layer is made and where its variables are. There it sees another
    spelling.
    """

    def __init__(self, *args, name: str | None = None, **kwargs):
        # A mixin: the next class is a Keras layer.
        super().__init__(  # type: ignore[call-arg]
            *args, name=None if name is None else spelled(name), **kwargs
        )
        if name is not None:
            self.name = name

    @contextlib.contextmanager
    def _spelled(self) -> Iterator[None]:
        path, self.name = self.name, spelled(self.name)
        try:
            yield
        finally:
            self.name = path

    def _open_name_scope(self):
        with self._spelled():
            return super()._open_name_scope()  # type: ignore[misc]

    def add_weight(self, *args, **kwargs):
        with self._spelled():
            return super().add_weight(*args, **kwargs)  # type: ignore[misc]

    # Dense and convolutional layers would save kernel and bias alone.

    def save_own_variables(self, store) -> None:
        tf.keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store) -> None:
        tf.keras.layers.Layer.load_own_variables(self, store)


def flat(model: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """A layer and the layers inside it, at any depth, in their order."""
    found: dict[int, Any] = {}

    def walk(layer):
        if id(layer) not in found:
            found[id(layer)] = layer
            for part in _parts(layer):
                walk(part)

    walk(model)
    return list(found.values())


def _parts(layer: Any) -> list[Any]:
    """The layers right inside a layer; a functional model's are in the order of the network."""
    return layer.layers if isinstance(layer, tf.keras.Model) else layer._layers


def raw(variable: Any) -> tf.Variable:
    """TensorFlow's variable."""
    return variable.value


def counter(layer: Any, name: str) -> Any:
    """A layer's count (int64, from 0) of what it did: each replica counts for itself."""
    return tf.keras.Variable(
        0,
        dtype="int64",
        trainable=False,
        synchronization="on_read",
        aggregation="only_first_replica",
        name=name,
    )


def as_functional(init):
    """`__init__` of a functional model's subclass, with the signature by which Keras knows one:
    its positional arguments are (inputs, outputs, name).
    """
    signature = inspect.signature(init)
    kept = [
        parameter.replace(kind=parameter.KEYWORD_ONLY) if name == "trainable" else parameter
        for name, parameter in signature.parameters.items()
    ]
    init.__signature__ = signature.replace(parameters=kept)
    return init


class Model(tf.keras.Model):
    """A Keras model of which a subclass chooses the `trainable_weights`."""

    def __setattr__(self, name, value):
        # Keras skips what is so already; a phase is for the models inside as well.
        if name == "phase":
            type(self).phase.fset(self, value)
        else:
            super().__setattr__(name, value)

    @property
    def trainable_weights(self) -> list[Any]:
        return _trainable(self)

    @property
    def non_trainable_weights(self) -> list[Any]:
        trained = {id(v) for v in _trainable(self)}
        return [v for v in self.weights if id(v) not in trained]

    # Keras 3's do not go by the two above.

    @property
    def trainable_variables(self) -> list[Any]:
        return self.trainable_weights

    @property
    def non_trainable_variables(self) -> list[Any]:
        trained = {id(v) for v in self.trainable_weights}
        return [v for v in self.variables if id(v) not in trained]

    @property
    def losses(self) -> list[Any]:
        # As in Keras 2, a regularizer counts whether or not the phase trains its variable.
        with lists_weights_as_in("both"):
            return super().losses

    def get_layer(self, name=None, index=None):
        """As in Keras, by the layer's path in the network."""
        by_path = [layer for layer in self.layers if name is not None and layer.name == name]
        if by_path and index is None:
            return by_path[0]
        return super().get_layer(name if name is None else spelled(name), index)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would add the replicas' parts of a batch up, which must then be of one size.
        if iterator is not None and self._distribute_strategy is not None:
            local = self._distribute_strategy.experimental_local_results
            for _, _, batches in iterator:
                batch = next(batches, None)
                if batch is None:  # a second pass over batches that are counted: all is built
                    return
                data_batch = tf.nest.map_structure(lambda part: local(part)[0], batch)
                break
            iterator = None
        super()._maybe_symbolic_build(iterator, data_batch)

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config(_from_keras_2(config), custom_objects)

    def compile_from_config(self, config):
        try:
            super().compile_from_config(config)
        except Exception as error:  # whatever Keras says to another Keras's optimizer
            warnings.warn(
                f"{self.name!r} was saved with an optimizer, a loss or metrics that this Keras"
                f" can't make ({type(error).__name__}: {str(error)[:200]}): call compile() before"
                " you train it.",
                stacklevel=2,
            )


def _trainable(model: Any) -> list[Any]:
    """What of a model's variables trains, whatever phases around it hold back; of models inside it
    that choose their own, what they have chosen.
    """
    found: dict[int, Any] = {}

    def walk(layer):
        if layer is not model and isinstance(layer, Model):
            variables = layer.trainable_weights
        elif layer.trainable:
            own = layer._trainable_variables
            variables = [v for v in own if v.trainable or hasattr(v, "_held_by_phase")]
        else:
            return
        found.update((id(v), v) for v in variables)
        if layer is model or not isinstance(layer, Model):
            for part in _parts(layer):
                walk(part)

    walk(model)
    return list(found.values())


def hold(model: Any) -> None:
    """Let models around a model train what its phase trains: Keras 3 goes by the variables."""
    trained = {id(v) for v in model.trainable_weights}
    for v in model.weights:
        if id(v) in trained and hasattr(v, "_held_by_phase"):
            del v._held_by_phase
            v.trainable = True
        elif id(v) not in trained and v.trainable:
            v._held_by_phase = True
            v.trainable = False


def _from_keras_2(config: dict[str, Any]) -> dict[str, Any]:
    """A functional model's configuration, in which Keras 2 may have named layers."""

    def renamed(part, names):
        if isinstance(part, dict):
            return {key: renamed(value, names) for key, value in part.items()}
        if isinstance(part, (list, tuple)):
            return type(part)(renamed(value, names) for value in part)
        return names.get(part, part) if isinstance(part, str) else part

    layers = [dict(layer) for layer in config["layers"]]
    if any("batch_shape" in layer["config"] for layer in layers):  # Keras 3's: its batch norm stays
        return config
    names = {}
    for layer in layers:
        if layer["class_name"] == "BatchNormalization" and not layer.get("registered_name"):
            layer |= {"module": None, "registered_name": "supermask_tf>BatchNormalization"}
            axis = layer["config"].get("axis")
            if isinstance(axis, (list, tuple)):
                layer["config"] = layer["config"] | {"axis": axis[0]}
        elif "/" in layer["name"] and not str(layer.get("registered_name")).startswith("supermask"):
            names[layer["name"]] = spelled(layer["name"])
    if not names and layers == config["layers"]:
        return config
    parts = {key: config[key] for key in ("input_layers", "output_layers")} | {"layers": layers}
    return config | renamed(parts, names)


@tf.keras.utils.register_keras_serializable("supermask_tf")
class BatchNormalization(ByPath, tf.keras.layers.BatchNormalization):
    """Batch norm of images by TensorFlow's fused operation, as in Keras 2.

    Keras 3's own divides the moving variance by n where the operation has n − 1, and rounds
    otherwise: training would drift from what the same network does in Keras 2.
    """

    def call(self, inputs, training=None, mask=None):
        last = self.axis in (-1, len(inputs.shape) - 1)
        if len(inputs.shape) != 4 or not last or inputs.dtype == tf.float64 or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        trains = bool(training) and self.trainable
        channels = [inputs.shape[-1]]
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels),
            tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels),
            mean=tf.convert_to_tensor(self.moving_mean),
            variance=tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=trains,
            exponential_avg_factor=1.0 - self.momentum if trains else 1.0,
        )
        if trains:
            self.moving_mean.assign(mean)
            self.moving_variance.assign(variance)
        return outputs


@tf.keras.utils.register_keras_serializable("supermask_tf", "_SynchronizedBatchNormalization")
class SynchronizedBatchNormalization(BatchNormalization):
    """Batch norm over all replicas, each of which has an equal part of the batch. It computes what
    `BatchNormalization` computes on one device.
    """

    def call(self, inputs, training=None, mask=None):
        context = tf.distribute.get_replica_context()
        if not training or not self.trainable or context is None:
            return super().call(inputs, training=False, mask=mask)
        x = tf.cast(inputs, tf.float32) if inputs.dtype.size < 4 else inputs
        axes = list(range(len(x.shape) - 1))

        def over_all(values):
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axes))

        mean = over_all(x)
        # As in tf.nn.moments: d variance / d mean = 0.
        variance = over_all(tf.math.squared_difference(x, tf.stop_gradient(mean)))
        n = tf.cast(tf.size(x) // x.shape[-1] * context.num_replicas_in_sync, x.dtype)
        bessel = n / (n - 1) if x.dtype != tf.float64 else 1.0
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance * bessel)):
            moving.assign(moving - (moving - value) * (1.0 - self.momentum))
        outputs = tf.nn.batch_normalization(
            x,
            mean,
            variance,
            tf.convert_to_tensor(self.beta) if self.center else None,
            tf.convert_to_tensor(self.gamma) if self.scale else None,
            self.epsilon,
        )
        return tf.cast(outputs, inputs.dtype)


def make_variables(model: tf.keras.Model, labels: tf.Tensor) -> None:
    """Make what the first training step would make of a compiled model with one output: the
    optimizer's slots, the metrics. TensorFlow traces a step a second time if it made variables.

    Args:
        labels: some, of the shape and dtype of those to come.
    """
    model.optimizer.build(model.trainable_variables)
    if model._compile_metrics is not None and not model._compile_metrics.built:
        model._compile_metrics.build(labels, model.outputs[0])


def follow_phase(model: tf.keras.Model, optimizer: Any) -> None:
    """Let a model whose trainable variables have changed train those with `optimizer`, also when
    it is inside `fit`.
    """
    model.test_function = model.predict_function = None
    if optimizer is not None:
        model.optimizer = optimizer
        if getattr(model, "_compile_config", None) is not None:  # what a `.keras` file keeps
            model._compile_config.config["optimizer"] = optimizer
    # Inside `fit` there must be a train function at once.
    if model.train_function is not None:
        model.make_train_function(force=True)


def renewed(old: Any) -> Any:
    """An optimizer with the settings of `old`, its learning rate as it is by now, that has met no
    variable yet.

    Keras's optimizers know only the variables that they were built with. A schedule of the learning
    rate begins anew; the loss scale of mixed precision stays.

    Raises:
        ValueError: if the optimizer's class can't make another one from `get_config()`.
    """
    scaling = isinstance(old, tf.keras.mixed_precision.LossScaleOptimizer)
    inner = renewed(old.inner_optimizer) if scaling else None
    try:
        with old._distribution_strategy.scope():
            if not scaling:
                return renewed_like(old)
            scale = float(old.dynamic_scale.numpy()) if old.built else old.initial_scale
            return type(old)(
                inner, initial_scale=scale, dynamic_growth_steps=old.dynamic_growth_steps
            )
    except Exception as error:  # whatever a class of someone else's raises
        raise no_second(old, error) from error


order_weights(
    legacy_h5_format, lambda layer: [v.path for v in legacy_h5_format._legacy_weights(layer)]
)
