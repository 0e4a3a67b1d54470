"""A functional network as plain data, and back, for packed networks that no builder made.

Keras's own configuration names classes of any module to import, and differs between Keras's
versions. This one names the layers below and no others, and holds numbers, words and lists of them.
"""

from typing import Any

import tensorflow as tf

from . import _keras, estimators, initializers
from .layers import MaskedConv2D, MaskedDense

__all__ = [
    "MASKING", "batch_norms", "build", "describe", "masking", "options", "precision",
]  # fmt: skip

MASKING = (
    "estimator", "kernel_initializer", "rescale", "seed", "draw_at_evaluation", "mask_bias",
    "masked_out",
)  # fmt: skip
_DENSE = ("units", "activation", "use_bias")
_CONV = (
    "filters", "kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups",
    "activation", "use_bias",
)  # fmt: skip
_POOL = ("pool_size", "strides", "padding", "data_format")

# The layers that a network may have, and what of their configuration counts once it is trained.
_LAYERS = {
    "MaskedConv2D": (*_CONV, *MASKING),
    "MaskedDense": (*_DENSE, *MASKING),
    "Activation": ("activation",),
    "Add": (),
    "Average": (),
    "AveragePooling2D": _POOL,
    "BatchNormalization": ("momentum", "epsilon", "center", "scale"),
    "Concatenate": ("axis",),
    "Dropout": ("rate",),
    "Flatten": ("data_format",),
    "GlobalAveragePooling2D": ("data_format", "keepdims"),
    "GlobalMaxPooling2D": ("data_format", "keepdims"),
    "MaxPooling2D": _POOL,
    "Maximum": (),
    "Multiply": (),
    "Permute": ("dims",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Rescaling": ("scale", "offset"),
    "Reshape": ("target_shape",),
    "Softmax": ("axis",),
    "Subtract": (),
    "UpSampling2D": ("size", "data_format", "interpolation"),
    "ZeroPadding2D": ("padding", "data_format"),
}
_MASKED = {"MaskedConv2D": MaskedConv2D, "MaskedDense": MaskedDense}
_PLAIN = {"MaskedConv2D": ("Conv2D", _CONV), "MaskedDense": ("Dense", _DENSE)}
_ACTIVATIONS = (
    "elu", "exponential", "gelu", "hard_sigmoid", "linear", "relu", "selu", "sigmoid", "softmax",
    "softplus", "softsign", "swish", "tanh",
)  # fmt: skip
_PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def masking(layer) -> dict[str, Any]:
    """The arguments of a masked layer that say how its masks and θ0 come about."""
    known = layer._kernel_initializer
    return {
        "estimator": layer.estimator.get_config(),
        "rescale": layer.rescale,
        "seed": layer.seed,
        "draw_at_evaluation": layer.draw_at_evaluation,
        **({} if layer.mask_bias else {"mask_bias": False}),
        **({} if layer.masked_out == "zero" else {"masked_out": layer.masked_out}),
        # Weights of an initializer that is not ours are stored, whatever it is called.
        **({"kernel_initializer": known} if isinstance(known, str) else {}),
    }


def batch_norms(model: tf.keras.Model) -> dict[str, tf.Variable]:
    """Batch-norm parameters and moving statistics by path."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            for name in ("gamma", "beta", "moving_mean", "moving_variance"):
                if getattr(layer, name) is not None:
                    found[f"{layer.name}/{name}"] = getattr(layer, name)
    return found


def describe(model: tf.keras.Model) -> dict[str, Any]:
    """The network as plain data: its layers in an order in which they can be built.

    Returns:
        {"name", "layers", "outputs"}. A layer is {"class", "name", "of": the names of the layers
        that it takes, "precision"} and what `_LAYERS` lists; an input's "shape" has no batch.

    Raises:
        ValueError: if a layer is none of those above, or is used twice.
    """
    layers = [
        {"class": "Input", "name": _source(tensor), "shape": list(tensor.shape[1:])}
        for tensor in model.inputs
    ]
    taken = _taken(model)
    for layer in model.layers:
        if not isinstance(layer, tf.keras.layers.InputLayer):
            layers.append(_described(layer, taken[layer.name]))
    outputs = [_source(tensor) for tensor in model.outputs]
    return {"name": model.name, "layers": layers, "outputs": outputs}


def _taken(model: tf.keras.Model) -> dict[str, list]:
    """What each layer takes in this network, by name: Keras tensors, found from the outputs."""
    found: dict[str, list] = {}
    nodes: dict[str, int] = {}
    waiting = list(model.outputs)
    while waiting:
        layer, node, _ = waiting.pop()._keras_history
        if nodes.setdefault(layer.name, node) != node:
            raise ValueError(
                f"Layer {layer.name!r} is used more than once, which a packed file can't describe."
            )
        if layer.name not in found:
            tensors = layer._inbound_nodes[node].input_tensors
            own = isinstance(layer, tf.keras.layers.InputLayer)  # Keras 2 says that it takes itself
            found[layer.name] = [] if own else tf.nest.flatten(tensors)
            waiting += found[layer.name]
    return found


def _described(layer, taken: list) -> dict[str, Any]:
    kind = type(layer).__name__
    # These mean the same where nothing trains.
    norms = tf.keras.layers.BatchNormalization, _keras.BatchNormalization
    if isinstance(layer, _keras.SynchronizedBatchNormalization) or type(layer) in norms:
        kind = "BatchNormalization"
    elif kind not in _LAYERS or type(layer) is not _class(kind):
        raise ValueError(
            f"Layer {layer.name!r} is a {kind}, which a packed file can't describe: build "
            f"the network of {', '.join(_LAYERS)}."
        )
    config = layer.get_config()
    if kind in _MASKED:
        config = {name: config[name] for name in config.keys() - MASKING} | masking(layer)
    own = {name: _of_python(config[name]) for name in _LAYERS[kind] if config.get(name) is not None}
    if own.get("activation", "linear") not in _ACTIVATIONS:
        raise ValueError(
            f"The activation of layer {layer.name!r} is {str(own['activation'])[:80]}, which a "
            f"packed file can't name: choose one of {', '.join(_ACTIVATIONS)}."
        )
    if kind == "BatchNormalization" and _axis(config["axis"]) not in (-1, len(taken[0].shape) - 1):
        raise ValueError(
            f"Batch norm {layer.name!r} is not over the last axis: move its axis there."
        )
    return {
        "class": kind,
        "name": layer.name,
        "of": [_source(tensor) for tensor in taken],
        "precision": layer.dtype_policy.name,
        **own,
    }


def _of_python(value):
    """NumPy's numbers, which some of Keras's configurations hold, as Python's; tuples as lists."""
    if isinstance(value, (list, tuple)):
        return [_of_python(part) for part in value]
    return value.item() if getattr(value, "shape", None) == () else value


def _axis(axis) -> int:
    return axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis


def _source(tensor) -> str:
    return tensor._keras_history[0].name


def _class(kind: str):
    return {**_MASKED, "BatchNormalization": _keras.BatchNormalization}.get(kind) or getattr(
        tf.keras.layers, kind
    )


def build(
    network: dict[str, Any], shapes: dict[str, tuple[int, ...]], masked: bool = True
) -> tuple[Any, Any]:
    """The tensors of a described network.

    Args:
        network: what `describe` returned, or a stranger wrote.
        shapes: those of the batch-norm values that come with it, by path: others get no memory.
        masked: whether masked layers are built as such, or else as their plain Keras parents, all
            in float32, with "." for "/" in their names, which Keras 3 forbids.

    Returns:
        (inputs, outputs), each a Keras tensor or, where there are several, a list of them.

    Raises:
        ValueError, TypeError, KeyError: if it is no such description.
    """
    tensors, inputs = {}, []
    for entry in network["layers"]:
        name = entry["name"]
        spelled = name if masked else name.replace("/", ".")
        if name in tensors:
            raise ValueError(f"the network has two layers {name!r}")
        if entry["class"] == "Input":
            inputs.append(tf.keras.Input(_tuples(entry["shape"]), name=_keras.spelled(spelled)))
            tensors[name] = inputs[-1]
            continue
        taken = [tensors[source] for source in entry["of"]]
        if entry["class"] == "BatchNormalization":
            _check_batch_norm(name, taken[0].shape[-1], shapes)
        layer = _layer(entry, spelled, masked)
        tensors[name] = layer(taken if len(taken) > 1 else taken[0])
        if isinstance(getattr(layer, "kernel_initializer", None), _Listed):
            layer.kernel_initializer = layer._kernel_initializer = tf.keras.initializers.Zeros()
    outputs = [tensors[name] for name in network["outputs"]]
    return _one_or_all(inputs), _one_or_all(outputs)


def _one_or_all(tensors: list):
    return tensors[0] if len(tensors) == 1 else tensors


def _check_batch_norm(name: str, channels: int, shapes: dict[str, tuple[int, ...]]) -> None:
    for part in ("moving_mean", "moving_variance"):
        if shapes.get(f"{name}/{part}") != (channels,):
            raise ValueError(f"batch norm {name!r} and its values do not belong together")


def _layer(entry: dict[str, Any], name: str, masked: bool):
    kind = entry["class"]
    if kind not in _LAYERS:
        raise ValueError(f"layer {name!r} is of the unknown class {kind!r}")
    own = {key: value for key, value in entry.items() if key in _LAYERS[kind]}
    if masked:
        arguments = options(own, _LAYERS[kind])
        if kind in _MASKED:
            arguments.setdefault("kernel_initializer", _Listed(f"{name}/kernel"))
        made = _class(kind)
        spelled = name if issubclass(made, _keras.ByPath) else _keras.spelled(name)
        return made(name=spelled, dtype=precision(entry["precision"]), **arguments)
    kind, keys = _PLAIN.get(kind, (kind, _LAYERS[kind]))
    arguments = options({key: value for key, value in own.items() if key in keys}, keys)
    return _class(kind)(name=name, dtype="float32", **arguments)


class _Listed(tf.keras.initializers.Initializer):
    """Zeros for a kernel at `path` that was not drawn by an initializer of ours."""

    def __init__(self, path: str):
        self.path = path

    def __call__(self, shape, dtype=None, **kwargs):
        initializers.listed(self.path, tuple(shape))
        return tf.zeros(shape, dtype or tf.float32)


def precision(name: str) -> str:
    """The name of a Keras policy that a file may ask for.

    Raises:
        ValueError: if it is none.
    """
    if name not in _PRECISIONS:
        raise ValueError(f"its precision {str(name)[:80]!r} is none of {', '.join(_PRECISIONS)}")
    return name


def options(given: dict[str, Any], known) -> dict[str, Any]:
    """Arguments of a layer or builder from plain data: numbers, words, tuples, an estimator.

    Raises:
        ValueError: if one is unknown, or is anything else.
    """
    if unknown := given.keys() - set(known):
        raise ValueError(f"its network has an unknown option {min(unknown)[:80]!r}")
    return {key: _option(key, value) for key, value in given.items() if value is not None}


def _option(key: str, value):
    if key == "estimator":
        return estimators.get(dict(value))
    if key == "activation" and value not in _ACTIVATIONS:
        raise ValueError(f"{str(value)[:80]!r} is none of the activations that a file may name")
    if key == "kernel_initializer":
        initializers.get(value)
    return _tuples(value)


def _tuples(value):
    if isinstance(value, list):
        return tuple(_tuples(part) for part in value)
    if value is not None and not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{str(value)[:80]!r} is no number and no word")
    return value
