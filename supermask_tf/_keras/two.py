"""Keras 2: that of TensorFlow 2.15, or the package tf-keras."""

import importlib
from typing import Any

import tensorflow as tf

from .common import no_second, renewed_like
from .order import order_weights

OWN_PRECISION = {"experimental_autocast": False}
FIRST_REPLICA = {"aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
RATE = "lr"
BatchNormalization = tf.keras.layers.BatchNormalization


def hold(model: Any) -> None:
    """Let models around a model train what its phase trains: Keras 2 asks the model."""


class ByPath:
    """A layer whose name is its path in the network, such as "group1/block1/conv1"."""


def spelled(path: str) -> str:
    """A layer's name in Keras, from its path in the network."""
    return path


def flat(model: tf.keras.layers.Layer) -> list[tf.keras.layers.Layer]:
    """A layer and the layers inside it, at any depth, in their order."""
    return list(model._flatten_layers())


def raw(variable: Any) -> tf.Variable:
    """TensorFlow's variable."""
    return variable


def counter(layer: Any, name: str) -> tf.Variable:
    """A layer's count (int64, from 0) of what it did: each replica counts for itself."""
    return layer.add_weight(
        name=name,
        shape=(),
        dtype=tf.int64,
        initializer="zeros",
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def as_functional(init):
    """`__init__` of a functional model's subclass, with the signature by which Keras knows one."""
    return init


class Model(tf.keras.Model):
    """A Keras model whose step trains its `trainable_variables` and watches no others."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        if any("batch_shape" in layer.get("config", {}) for layer in config.get("layers", ())):
            raise ValueError(
                f"{config.get('name')!r} was saved by Keras 3, whose .keras files Keras 2 can't"
                " read: pack it there with sm.save, or save its weights there as .weights.h5 and"
                " load these into the same network."
            )
        return super().from_config(config, custom_objects)

    def train_step(self, data) -> dict[str, Any]:
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_variables
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        # Keras's sentences where labels or a loss are missing.
        self._validate_target_and_loss(y, loss)
        self.optimizer.minimize(loss, variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, sample_weight)


@tf.keras.utils.register_keras_serializable("supermask_tf", "_SynchronizedBatchNormalization")
class SynchronizedBatchNormalization(tf.keras.layers.BatchNormalization):
    """Batch norm over all replicas, each of which has an equal part of the batch. It computes what
    Keras's batch norm computes on one device.

    Keras's synchronized batch norm differs in two ways from the fused kernel that it uses on one
    device (in every precision but float64): it takes the variance as E[x²] − E[x]², which loses
    digits where the mean is large, and it moves the moving variance towards Σ(x − mean)² / n of
    the batch, where the kernel has n − 1.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs | {"synchronized": True})

    def _calculate_mean_and_var(self, x, axes, keep_dims, mask=None):
        context, self._bessel = tf.distribute.get_replica_context(), 1.0
        if context is None:  # the network is being put together
            return self._no_sync_calculate_mean_and_var(x, axes, keep_dims, mask)

        def over_all(values):
            return context.all_reduce(
                tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, axes, keepdims=keep_dims)
            )

        mean = over_all(x)
        # As in tf.nn.moments: d variance / d mean = 0.
        variance = over_all(tf.math.squared_difference(x, tf.stop_gradient(mean)))
        if x.dtype != tf.float64:
            n = tf.cast(tf.size(x) // x.shape[-1] * context.num_replicas_in_sync, x.dtype)
            self._bessel = n / (n - 1)
        return mean, variance

    def _assign_moving_average(self, variable, value, momentum, inputs_size):
        if variable is self.moving_variance:
            value *= self._bessel
        return super()._assign_moving_average(variable, value, momentum, inputs_size)


def make_variables(model: tf.keras.Model, labels: tf.Tensor) -> None:
    """Make what the first training step would make of a compiled model with one output: the
    optimizer's slots, the metrics. TensorFlow traces a step a second time if it made variables.

    Args:
        labels: some, of the shape and dtype of those to come.
    """
    model.optimizer.build(model.trainable_variables)
    if not model.compiled_metrics.built:
        model.compiled_metrics.build(_some(model.outputs[0]), labels)


def _some(output: Any) -> tf.Tensor:
    return tf.zeros([size or 1 for size in output.shape], output.dtype)


def follow_phase(model: tf.keras.Model, optimizer: Any) -> None:
    """Let a model whose trainable variables have changed train those with `optimizer`, also when
    it is inside `fit`.
    """
    model.test_function = model.predict_function = None
    if optimizer is not None:
        model.optimizer = optimizer
        # What a `.keras` file keeps of `compile`.
        if getattr(model, "_compile_config", None) is not None:
            given = model._compile_config.config
            scaling = isinstance(given["optimizer"], tf.keras.mixed_precision.LossScaleOptimizer)
            given["optimizer"] = (
                optimizer if scaling else getattr(optimizer, "inner_optimizer", optimizer)
            )
        if getattr(model, "_steps_per_execution_tuner", None) is not None:
            model._steps_per_execution_tuner.optimizer = optimizer
    # Inside `fit` there must be a train function at once.
    model.train_function = (
        model.make_train_function(force=True) if model.train_function is not None else None
    )


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
        if not scaling:
            return renewed_like(old)
        new = type(old)(
            inner,
            dynamic=old.dynamic,
            initial_scale=old.initial_scale,
            dynamic_growth_steps=old.dynamic_growth_steps,
        )
        if old.dynamic:
            new._loss_scale.current_loss_scale.assign(old.loss_scale)
            new.dynamic_counter.assign(old.dynamic_counter)
        return new
    except Exception as error:  # whatever a class of someone else's raises
        raise no_second(old, error) from error


# "keras" in TensorFlow 2.15, "tf_keras" beside a newer one.
_package = tf.keras.Model.__module__.partition(".")[0]
_hdf5_format = importlib.import_module(f"{_package}.src.saving.legacy.hdf5_format")
order_weights(_hdf5_format, lambda layer: [v.name for v in _hdf5_format._legacy_weights(layer)])
