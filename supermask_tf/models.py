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

from . import _keras, estimators
from .layers import MaskedConv2D, MaskedDense
from .training import SupermaskModel

__all__ = ["build", "conv_net", "lenet_300_100", "resnet", "wide_resnet"]

SHORTCUTS = ("1x1", "3x3", "wide")
ACTIVATIONS = ("relu", "elu")
# Arguments that came later, at their defaults: these stay out of packed files, so that older
# versions read them.
_LATER = {"activation": "relu", "affine": True, "units": 300}


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
    affine: bool = True,
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
        affine: whether batch norm scales and shifts what it has normalised. Without that, in phase
            "mask" nothing but the mask trains (Ramanujan et al. 2020, arXiv:1911.13299, section 4,
            whose batch norm is so).
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
    x = _conv_bn_relu(inputs, 16, "", "", affine, masking)
    for group in (1, 2, 3):
        filters = 16 * 2 ** (group - 1) * width
        if group > 1:
            x = tf.keras.layers.MaxPooling2D(2, name=_keras.spelled(f"group{group}/pool"))(x)
        for block in range(1, (depth - 4) // 6 + 1):
            x = _block(x, filters, f"group{group}/block{block}/", shortcut, affine, masking)
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


def _block(x, filters, path, shortcut, affine, masking):
    """Two convolutions, added to their input; where the number of filters changes, that goes
    through the shortcut convolution.
    """
    start = x
    x = _conv_bn_relu(x, filters, path, 1, affine, masking)
    x = _conv_bn_relu(x, filters, path, 2, affine, masking)
    if start.shape[-1] != filters:
        if shortcut == "wide":
            start = tf.keras.layers.Concatenate(name=_keras.spelled(f"{path}repeat"))([start] * 9)
        size = 3 if shortcut == "3x3" else 1
        start = MaskedConv2D(filters, size, padding="same", name=f"{path}shortcut", **masking)(
            start
        )
    return tf.keras.layers.Add(name=_keras.spelled(f"{path}add"))([start, x])


def _conv_bn_relu(x, filters, path, index, affine, masking):
    x = MaskedConv2D(filters, 3, padding="same", name=f"{path}conv{index}", **masking)(x)
    x = _batch_norm(f"{path}bn{index}", affine)(x)
    return tf.keras.layers.ReLU(name=_keras.spelled(f"{path}relu{index}"))(x)


def _batch_norm(name, affine):
    # Not on one device: Keras's synchronized batch norm has no fused kernel, so it is slower and
    # other bits come out.
    batch_norm = (
        _keras.SynchronizedBatchNormalization
        if tf.distribute.has_strategy()
        else _keras.BatchNormalization
    )
    return batch_norm(name=name, center=affine, scale=affine)


@_remembered
def resnet(
    depth: int = 20,
    width: int = 1,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    phase: str = "mask",
    activation: str = "relu",
    affine: bool = True,
    **masking: Any,
) -> SupermaskModel:
    r"""ResNet-20, 32, 44, 56 ... for small images (He et al. 2016, arXiv:1512.03385, section 4.2).

    A 3×3 convolution; three groups of (depth − 2) / 6 blocks, with 16, 32 and 64 times `width`
    filters, of which the second and the third begin with a stride of 2; global average pooling; a
    dense layer. A block is convolution-BN-ReLU and convolution-BN (3×3), added to its input, then
    ReLU. Where the number of filters doubles, the input goes on as every other pixel with channels
    of zeros before and behind its own (their option A), so that all that can be masked are the
    convolutions and the dense layer. The convolutions have no biases, since batch norm takes a
    shift off again.

    Args:
        depth: 6n + 2, at least 8 (8, 14, 20, 32, 56, ...).
        width: filters over 16, 32 and 64, in the first convolution too.
        input_shape, classes, phase, affine, \**masking: as in `wide_resnet`.
        activation: "relu", or "elu" in its place.

    Raises:
        ValueError: if `depth`, `width` or `activation` does not fit.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth={depth} does not fit a resnet: give 6n + 2, such as 20, 32 or 56.")
    if width < 1:
        raise ValueError(f"width={width} is out of range: give at least 1.")
    _check_image(input_shape, 4, "resnet")
    inputs = tf.keras.Input(input_shape, name="image")

    x = _conv_bn(inputs, 16 * width, 1, "", "", affine, masking)
    x = _activated(activation, "relu")(x)
    for group in (1, 2, 3):
        filters = 16 * 2 ** (group - 1) * width
        for block in range(1, (depth - 2) // 6 + 1):
            path, start = f"group{group}/block{block}/", x
            stride = 2 if group > 1 and block == 1 else 1
            x = _conv_bn(x, filters, stride, path, 1, affine, masking)
            x = _activated(activation, f"{path}relu1")(x)
            x = _conv_bn(x, filters, 1, path, 2, affine, masking)
            if stride == 2:
                start = _every_other_pixel(start, filters, path)
            x = tf.keras.layers.Add(name=_keras.spelled(f"{path}add"))([start, x])
            x = _activated(activation, f"{path}relu2")(x)
    x = tf.keras.layers.GlobalAveragePooling2D(name="pool")(x)
    outputs = _logits(classes, "dense", masking)(x)
    return SupermaskModel(inputs, outputs, name=f"resnet_{depth}_{width}", phase=phase)


def _conv_bn(x, filters, stride, path, index, affine, masking):
    """A convolution without a bias and batch norm, under the names of `wide_resnet`."""
    if stride == 2:
        # What "same" pads would have the kernel's middle on the pixels that the shortcut skips.
        x = tf.keras.layers.ZeroPadding2D(1, name=_keras.spelled(f"{path}pad{index}"))(x)
    padding = "valid" if stride == 2 else "same"
    conv = {"padding": padding, "use_bias": False, "strides": stride}
    x = MaskedConv2D(filters, 3, name=f"{path}conv{index}", **conv, **masking)(x)
    return _batch_norm(f"{path}bn{index}", affine)(x)


def _every_other_pixel(x, filters, path):
    """Every other row and column, in the middle of as many channels as `filters`, others zero."""
    x = tf.keras.layers.MaxPooling2D(
        1, strides=2, padding="same", name=_keras.spelled(f"{path}shortcut/pool")
    )(x)
    more = filters - x.shape[-1]
    # Told that channels come first, this layer pads the last axis of an image whose channels come
    # last.
    return tf.keras.layers.ZeroPadding2D(
        ((0, 0), (more // 2, more - more // 2)),
        data_format="channels_first",
        name=_keras.spelled(f"{path}shortcut/pad"),
    )(x)


def _activated(activation, name):
    """The layer of an activation."""
    _check_activation(activation)
    if activation == "relu":
        return tf.keras.layers.ReLU(name=_keras.spelled(name))
    return tf.keras.layers.Activation(activation, name=_keras.spelled(name))


def _check_activation(activation):
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"Unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}."
        )


@_remembered
def lenet_300_100(
    input_shape: tuple[int, ...] = (28, 28, 1),
    classes: int = 10,
    phase: str = "mask",
    activation: str = "relu",
    units: int = 300,
    **masking: Any,
) -> SupermaskModel:
    r"""LeNet-300-100 (LeCun et al. 1998): dense layers of 300 and 100 units with ReLU, and one of
    `classes`.

    Args:
        input_shape, classes, phase, \**masking: as in `wide_resnet`.
        activation: "relu", or "elu" in its place.
        units: of the first layer, at least 3; the second has a third of them.

    Raises:
        ValueError: if `units` or `classes` is too small, or `activation` is another.
    """
    _check_activation(activation)
    if units < 3:
        raise ValueError(f"units={units} is out of range: give at least 3.")
    inputs = tf.keras.Input(input_shape, name="image")
    x = tf.keras.layers.Flatten(name="flatten")(inputs)
    x = MaskedDense(units, activation=activation, name="dense1", **masking)(x)
    x = MaskedDense(units // 3, activation=activation, name="dense2", **masking)(x)
    outputs = _logits(classes, "dense3", masking)(x)
    return SupermaskModel(inputs, outputs, name="lenet_300_100", phase=phase)


@_remembered
def conv_net(
    depth: int = 2,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    classes: int = 10,
    phase: str = "mask",
    activation: str = "relu",
    **masking: Any,
) -> SupermaskModel:
    r"""Conv-2, Conv-4 or Conv-6 of Frankle and Carbin (2019, arXiv:1803.03635, figure 2), and the
    Conv-8 that Ramanujan et al. (2020, arXiv:1911.13299, section 4) add to them.

    Pairs of 3×3 convolutions of 64, 128, 256 and 512 filters with ReLU, each pair followed by 2×2
    max-pooling; then dense layers of 256, 256 and `classes` units.

    Args:
        depth: number of convolutions: 2, 4, 6 or 8.
        input_shape, classes, phase, \**masking: as in `wide_resnet`.
        activation: "relu", or "elu" in its place.

    Raises:
        ValueError: if `depth` is another number, or `activation` another word.
    """
    if depth not in (2, 4, 6, 8):
        raise ValueError(f"depth={depth} does not fit a conv_net: give 2, 4, 6 or 8 convolutions.")
    _check_activation(activation)
    _check_image(input_shape, 2 ** (depth // 2), f"conv_net({depth})")
    x = inputs = tf.keras.Input(input_shape, name="image")
    for pair in range(depth // 2):
        for index in (2 * pair + 1, 2 * pair + 2):
            conv = {"padding": "same", "activation": activation, "name": f"conv{index}"}
            x = MaskedConv2D(64 * 2**pair, 3, **conv, **masking)(x)
        x = tf.keras.layers.MaxPooling2D(2, name=f"pool{pair + 1}")(x)
    x = tf.keras.layers.Flatten(name="flatten")(x)
    x = MaskedDense(256, activation=activation, name="dense1", **masking)(x)
    x = MaskedDense(256, activation=activation, name="dense2", **masking)(x)
    outputs = _logits(classes, "dense3", masking)(x)
    return SupermaskModel(inputs, outputs, name=f"conv_net_{depth}", phase=phase)


# What some networks have, and not all.
_OWN = {"activation", "affine", "depth", "shortcut", "units", "width"}

BUILDERS: dict[str, Callable[..., SupermaskModel]] = {
    "conv_net": conv_net,
    "lenet_300_100": lenet_300_100,
    "resnet": resnet,
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
    for name in sorted(given.keys() & _OWN - own.keys()):
        raise ValueError(
            f"{name}={given[name]!r} does not go with model={model!r}, which has no {name}: leave"
            " it out."
        )
    return BUILDERS[model](**given)


def _logits(classes, name, masking):
    """The last layer. Under mixed precision it computes in the variables' precision: rounded logits
    would make small losses zero.
    """
    estimator = estimators.get(masking.get("estimator", "threshold"))
    if estimator.parameters.get("groups") == "channels":
        # Its outputs are the classes, of which none can go: there each weight is ranked alone.
        config = {key: value for key, value in estimator.get_config().items() if key != "groups"}
        masking = masking | {"estimator": estimators.get(config)}
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
