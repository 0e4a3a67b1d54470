"""The networks, every convolution and dense layer masked. They end in logits (no softmax).

A layer's name is its path in the network (`group1/block1/conv1`), so that θ0, masks and records
name it the same way whatever was built before.
"""

import functools
import inspect
import json
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .layers import MaskedConv2D, MaskedDense
from .training import SupermaskModel

__all__ = ["build", "conv_net", "lenet_300_100", "wide_resnet"]

SHORTCUTS = ("1x1", "3x3", "wide")
# Arguments that came later, at their defaults: these stay out of packed files, so that older
# versions read them.
_LATER = {"units": 300}


def _remembered(builder: Callable[..., SupermaskModel]) -> Callable[..., SupermaskModel]:
    """The builder, with models that know how they were built, as packed files repeat it.

    `model.recipe` is JSON: the builder's name, and its arguments but for the phase and the masks'.
    """

    @functools.wraps(builder)
    def build(*args, **kwargs):
        model = builder(*args, **kwargs)
        bound = inspect.signature(builder).bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = {
            k: v
            for k, v in bound.arguments.items()
            if k not in ("phase", "masking") and v != _LATER.get(k)
        }
        precision = tf.keras.mixed_precision.global_policy().name
        # A text, since Keras would wrap a dictionary in one of its own.
        recipe = {"builder": builder.__name__, "arguments": arguments, "precision": precision}
        model.recipe = json.dumps(recipe, default=_plain)
        return model

    return build


def _plain(value):
    """A number of NumPy's as Python's, a shape as a list."""
    return value.item() if hasattr(value, "item") else list(value)


@_remembered
def wide_resnet(
    depth: int = 28,
    width: int = 8,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    phase: str = "mask",
    shortcut: str = "1x1",
    **masking: Any,
) -> SupermaskModel:
    r"""A wide residual network in the arrangement of the post (that of keras-contrib).

    A 3×3 convolution of 16 filters with batch norm and ReLU; three groups of (depth − 4) / 6 blocks
    with 16, 32 and 64 times `width` filters; 2×2 max-pooling between the groups; global average
    pooling; a dense layer. A block is convolution-BN-ReLU twice (3×3), added to its input, which
    goes through a 1×1 convolution (the *shortcut*) where the number of filters changes. Zagoruyko
    and Komodakis (2016, arXiv:1605.07146) put BN and ReLU before the convolutions and stride where
    this pools.

    Args:
        depth: 6n + 4, at least 10 (10, 16, 22, 28, ...).
        width: filters of a group over 16, 32 and 64; at width 1 the first group has no shortcut
            convolution.
        input_shape: (rows, columns, channels), at least 4 × 4 pixels.
        classes: number of outputs.
        phase: the model's first phase, "mask", "weights" or "both".
        shortcut: the shortcut convolutions: "1x1", the post's; "3x3", with nine times the weights;
            or "wide", 1×1 ones that see their input nine times over: as many weights as 3×3 ones,
            and no more functions than 1×1 ones.
        \**masking: `estimator`, `mask_initializer`, `mask_regularizer`, `kernel_initializer`,
            `rescale`, `seed`, `draw_at_evaluation`, `mask_bias` of every masked layer, as in
            `layers.MaskedConv2D`.

    Built in the scope of a `tf.distribute` strategy, its batch norm is that of the global batch.

    Returns:
        A `SupermaskModel` from (batch, rows, columns, channels) to (batch, classes) logits.

    Raises:
        ValueError: if `depth`, `width` or `shortcut` does not fit.
    """
    _check_wide_resnet(depth, width, shortcut, input_shape)
    inputs = tf.keras.Input(input_shape, name="image")
    x = _conv_bn_relu(inputs, 16, "", "", masking)
    for group in (1, 2, 3):
        filters = 16 * 2 ** (group - 1) * width
        if group > 1:
            x = tf.keras.layers.MaxPooling2D(2, name=f"group{group}/pool")(x)
        for block in range(1, (depth - 4) // 6 + 1):
            x = _block(x, filters, f"group{group}/block{block}/", shortcut, masking)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = _logits(classes, "dense", masking)(x)
    return SupermaskModel(inputs, outputs, name=f"wide_resnet_{depth}_{width}", phase=phase)


def _check_wide_resnet(depth, width, shortcut, input_shape):
    if depth < 10 or (depth - 4) % 6:
        raise ValueError(
            f"depth={depth} does not fit a wide_resnet: give 6n + 4, such as 10, 16, 22 or 28."
        )
    if width < 1:
        raise ValueError(f"width={width} is out of range: give at least 1.")
    if shortcut not in SHORTCUTS:
        raise ValueError(f"Unknown shortcut {shortcut!r}: choose one of {', '.join(SHORTCUTS)}.")
    _check_image(input_shape, 4, "wide_resnet")


def _block(x, filters, path, shortcut, masking):
    """Two convolutions, added to their input; where the number of filters changes, that goes
    through the shortcut convolution.
    """
    start = x
    x = _conv_bn_relu(x, filters, path, 1, masking)
    x = _conv_bn_relu(x, filters, path, 2, masking)
    if start.shape[-1] != filters:
        if shortcut == "wide":
            start = tf.keras.layers.Concatenate(name=f"{path}repeat")([start] * 9)
        size = 3 if shortcut == "3x3" else 1
        start = MaskedConv2D(filters, size, padding="same", name=f"{path}shortcut", **masking)(
            start
        )
    return tf.keras.layers.Add(name=f"{path}add")([start, x])


def _conv_bn_relu(x, filters, path, index, masking):
    x = MaskedConv2D(filters, 3, padding="same", name=f"{path}conv{index}", **masking)(x)
    # Not on one device: Keras's synchronized batch norm has no fused kernel, so it is slower and
    # other bits come out.
    batch_norm = (
        _SynchronizedBatchNormalization
        if tf.distribute.has_strategy()
        else tf.keras.layers.BatchNormalization
    )
    x = batch_norm(name=f"{path}bn{index}")(x)
    return tf.keras.layers.ReLU(name=f"{path}relu{index}")(x)


@tf.keras.saving.register_keras_serializable("supermask_tf")
class _SynchronizedBatchNormalization(tf.keras.layers.BatchNormalization):
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


@_remembered
def lenet_300_100(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    phase: str = "mask",
    units: int = 300,
    **masking: Any,
) -> SupermaskModel:
    r"""LeNet-300-100 (LeCun et al. 1998): dense layers of 300 and 100 units with ReLU, and one of
    `classes`.

    Args:
        input_shape, classes, phase, \**masking: as in `wide_resnet`.
        units: of the first layer, at least 3; the second has a third of them.

    Raises:
        ValueError: if `units` or `classes` is too small.
    """
    if units < 3:
        raise ValueError(f"units={units} is out of range: give at least 3.")
    inputs = tf.keras.Input(input_shape, name="image")
    x = tf.keras.layers.Flatten(name="flatten")(inputs)
    x = MaskedDense(units, activation="relu", name="dense1", **masking)(x)
    x = MaskedDense(units // 3, activation="relu", name="dense2", **masking)(x)
    outputs = _logits(classes, "dense3", masking)(x)
    return SupermaskModel(inputs, outputs, name="lenet_300_100", phase=phase)


@_remembered
def conv_net(
    depth: int = 2,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    phase: str = "mask",
    **masking: Any,
) -> SupermaskModel:
    r"""Conv-2, Conv-4 or Conv-6 of Frankle and Carbin (2019, arXiv:1803.03635, figure 2).

    Pairs of 3×3 convolutions of 64, 128 and 256 filters with ReLU, each pair followed by 2×2
    max-pooling; then dense layers of 256, 256 and `classes` units.

    Args:
        depth: number of convolutions: 2, 4 or 6.
        input_shape, classes, phase, \**masking: as in `wide_resnet`.

    Raises:
        ValueError: if `depth` is another number.
    """
    if depth not in (2, 4, 6):
        raise ValueError(f"depth={depth} does not fit a conv_net: give 2, 4 or 6 convolutions.")
    _check_image(input_shape, 2 ** (depth // 2), f"conv_net({depth})")
    x = inputs = tf.keras.Input(input_shape, name="image")
    for pair in range(depth // 2):
        for index in (2 * pair + 1, 2 * pair + 2):
            x = MaskedConv2D(
                64 * 2**pair, 3, padding="same", activation="relu", name=f"conv{index}", **masking
            )(x)
        x = tf.keras.layers.MaxPooling2D(2, name=f"pool{pair + 1}")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    x = MaskedDense(256, activation="relu", name="dense1", **masking)(x)
    x = MaskedDense(256, activation="relu", name="dense2", **masking)(x)
    outputs = _logits(classes, "dense3", masking)(x)
    return SupermaskModel(inputs, outputs, name=f"conv_net_{depth}", phase=phase)


BUILDERS: dict[str, Callable[..., SupermaskModel]] = {
    "conv_net": conv_net,
    "lenet_300_100": lenet_300_100,
    "wide_resnet": wide_resnet,
}


def build(model: str, **arguments: Any) -> SupermaskModel:
    """The network called `model`, with the arguments that are not None.

    Raises:
        ValueError: if the name is unknown or an argument does not fit the network.
    """
    if model not in BUILDERS:
        raise ValueError(f"Unknown model {model!r}: choose one of {', '.join(sorted(BUILDERS))}.")
    given = {name: value for name, value in arguments.items() if value is not None}
    own = inspect.signature(BUILDERS[model]).parameters
    for name in given.keys() & {"depth", "width", "shortcut", "units"} - own.keys():
        raise ValueError(
            f"{name}={given[name]!r} does not go with model={model!r}, which has no {name}: leave"
            " it out."
        )
    return BUILDERS[model](**given)


def _logits(classes, name, masking):
    """The last layer. Under mixed precision it computes in the variables' precision: rounded logits
    would make small losses zero.
    """
    if classes < 2:  # of one output Keras's "accuracy" is another measure
        raise ValueError(f"classes={classes} is out of range: give at least 2 (yes and no are 2).")
    return MaskedDense(
        classes, name=name, dtype=tf.keras.mixed_precision.global_policy().variable_dtype, **masking
    )


def _check_image(input_shape, least, model):
    """Each 2×2 pooling halves the image: it must not vanish."""
    if min(input_shape[:2]) < least:
        raise ValueError(
            f"Images of {input_shape[0]} × {input_shape[1]} pixels are too small for {model}: give"
            f" at least {least} × {least}."
        )
