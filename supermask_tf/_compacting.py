"""A plain network without the units and channels that weights of zero cut off.

Every channel of a layer's output gets a number, and keeps it through what works on each channel by
itself; where channels are added they become one. A number can go where no layer needs it: each that
takes it has weights of zero for it, or takes a constant whose share can move into the bias. That is
repeated until nothing goes any more. Axes of channels are the last ones.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from ._kinds import weights_of
from ._structure import Rebuilding, inputs_of, is_network, nodes, walk

__all__ = ["compact"]

# What makes channels of its own of all those that it takes, and how its configuration counts them.
_MAKERS = {"Dense": "units", "Conv1D": "filters", "Conv2D": "filters", "Conv3D": "filters"}
# What works on each channel by itself: on each number alone; so that a constant stays as it is.
_EACH_NUMBER = ("Activation", "ReLU", "LeakyReLU", "ELU")
_CONSTANT_STAYS = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "UpSampling1D",
    "UpSampling2D", *(f"{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Average", "Max")),
    *(f"Global{kind}Pooling{n}D" for n in (1, 2, 3) for kind in ("Average", "Max")),
)  # fmt: skip
_PADDINGS = ("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
_ELEMENTWISE = (
    "elu", "exponential", "gelu", "hard_sigmoid", "linear", "relu", "relu6", "selu", "sigmoid",
    "silu", "softplus", "softsign", "swish", "tanh",
)  # fmt: skip


def compact(model: tf.keras.Model) -> tf.keras.Model:
    """The network without what its weights of zero cut off, and without any other change.

    Args:
        model: a functional model or `Sequential` of plain layers, built.
    """
    networks = [model, *(layer for layer, _ in walk(model) if is_network(layer))]
    graphs = [_Graph(network, nodes(network)) for network in networks]
    uses: dict[int, int] = {}
    for graph in graphs:
        for layer, _, _ in graph.nodes:
            uses[id(layer)] = uses.get(id(layer), 0) + 1
    parts = {
        id(layer): _Part.of(layer)
        for graph in graphs
        for layer, _, _ in graph.nodes
        if uses[id(layer)] == 1 and _has_channels_last(layer)
    }
    for graph in graphs:
        while _Round(graph, parts).shrink():
            pass

    def convert(layer):
        part = parts.get(id(layer))
        return type(layer).from_config(layer.get_config() | (part.config() if part else {}))

    rebuilding = Rebuilding(convert)
    made = tf.keras.Model(*rebuilding.network(model), name=model.name)
    for old, new in rebuilding.pairs:
        part = parts.get(id(old))
        if part is None or not part.weights:
            new.set_weights(old.get_weights())
        for name, value in (part.weights if part else {}).items():
            _variables(new)[name].assign(value)
    return made


@dataclass
class _Graph:
    model: tf.keras.Model
    nodes: list[tuple[Any, list, list]]


@dataclass
class _Part:
    """A layer that may lose channels, with what is left of its weights."""

    layer: Any
    kind: str
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, layer) -> "_Part":
        values = {name: np.array(v) for name, v in _variables(layer).items()}
        return cls(layer, type(layer).__name__, values)

    def config(self) -> dict[str, Any]:
        """What has changed in the layer's configuration."""
        if self.kind not in _MAKERS:
            return {}
        return {
            _MAKERS[self.kind]: int(self.weights["kernel"].shape[-1]),
            "use_bias": "bias" in self.weights,
        }

    @property
    def elementwise(self) -> bool:
        """Whether its activation works on each number by itself."""
        activation = getattr(self.layer, "activation", None)
        return activation is None or getattr(activation, "__name__", None) in _ELEMENTWISE

    def activated(self, values: np.ndarray) -> np.ndarray:
        """Its activation of constants; nan stays."""
        if not self.elementwise:
            return np.full_like(values, np.nan)
        activation = getattr(self.layer, "activation", None)
        return values if activation is None else _where_known(activation, values)

    @property
    def pads(self) -> bool:
        """Whether zeros around an image are taken for a part of it."""
        size = getattr(self.layer, "kernel_size", (1,))
        return any(n > 1 for n in size) and self.layer.padding != "valid"

    def bias(self) -> np.ndarray:
        found = self.weights.get("bias")
        return np.zeros(self.weights["kernel"].shape[-1], np.float32) if found is None else found


def _variables(layer) -> dict[str, Any]:
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        return {name: v for name in names if (v := getattr(layer, name)) is not None}
    return weights_of(layer) if type(layer).__name__ in (*_MAKERS, "DepthwiseConv2D") else {}


def _has_channels_last(layer) -> bool:
    return getattr(layer, "data_format", None) in (None, "channels_last")


def _where_known(function, values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    found = values.copy()
    found[known] = np.asarray(function(tf.constant(values[known], tf.float32)))
    return found


@dataclass
class _Channels:
    """The channels of a tensor: the number of each, and its value where that is a constant, or
    nan.
    """

    numbers: np.ndarray
    constant: np.ndarray


class _Round:
    """One look through a network, at what is left of its layers."""

    def __init__(self, graph: _Graph, parts: dict[int, _Part]):
        self.graph, self.parts = graph, parts
        self.parent: list[int] = []  # of a number: another one that it was added to, or itself
        self.fixed: set[int] = set()  # numbers that can't go
        self.channels: dict[int, _Channels] = {}  # by the tensor's id
        self.steps: list[tuple[_Part, _Channels, _Channels]] = []
        for tensor in inputs_of(graph.model):
            self.channels[id(tensor)] = self._fresh(tensor, fixed=True)
        for layer, taken, made in graph.nodes:
            self._pass(layer, taken, made)
        outputs = tf.nest.flatten(graph.model.outputs)
        for tensor in outputs:
            self._fix(self.channels[id(tensor)])

    def _fresh(self, tensor, fixed=False) -> _Channels:
        count = int(tensor.shape[-1] or 1) if len(tensor.shape) > 1 else 1
        return self._new(np.full(count, np.nan, np.float32), fixed)

    def _new(self, constant: np.ndarray, fixed=False) -> _Channels:
        numbers = np.arange(len(self.parent), len(self.parent) + len(constant))
        self.parent += numbers.tolist()
        if fixed:
            self.fixed |= set(numbers.tolist())
        return _Channels(numbers, constant)

    def _root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    def _fix(self, channels: _Channels, where=None) -> None:
        numbers = channels.numbers if where is None else channels.numbers[where]
        self.fixed |= set(numbers.tolist())

    def _pass(self, layer, taken: list, made: list) -> None:
        """Find the channels that a layer makes of those that it takes."""
        found = [self.channels[id(tensor)] for tensor in taken]
        part = self.parts.get(id(layer))
        channels = None
        if part is not None and len(made) == 1 and found:
            channels = (
                self._joined(part, taken, found, made[0])
                if part.kind in ("Add", "Concatenate")
                else self._of_one(part, taken[0], found[0])
                if len(found) == 1
                else None
            )
        if channels is not None:
            self.channels[id(made[0])] = channels
            return
        for each in found:
            self._fix(each)
        for tensor in made:
            self.channels[id(tensor)] = self._fresh(tensor, fixed=True)

    def _joined(self, part, taken, found, made) -> _Channels | None:
        if part.kind == "Concatenate":
            if part.layer.axis not in (-1, len(made.shape) - 1):
                return None
            numbers, constants = zip(*((each.numbers, each.constant) for each in found))
            return _Channels(np.concatenate(numbers), np.concatenate(constants))
        if any(tuple(tensor.shape[1:]) != tuple(made.shape[1:]) for tensor in taken):
            return None
        for each in found[1:]:
            for one, other in zip(found[0].numbers, each.numbers):
                first, second = self._root(int(one)), self._root(int(other))
                self.parent[second] = first
        return _Channels(found[0].numbers, sum(each.constant for each in found))

    def _of_one(self, part: _Part, tensor, taken: _Channels) -> _Channels | None:
        constant = taken.constant
        if part.kind in _MAKERS:
            return self._made(part, taken)
        if part.kind == "DepthwiseConv2D":
            return self._depthwise(part, taken)
        if part.kind == "BatchNormalization":
            axis = part.layer.axis
            axis = axis[0] if isinstance(axis, (list, tuple)) else axis
            if axis not in (-1, len(tensor.shape) - 1):
                return None
            w = part.weights
            scale = w.get("gamma", 1.0) / np.sqrt(w["moving_variance"] + part.layer.epsilon)
            made = (constant - w["moving_mean"]) * scale + w.get("beta", 0.0)
            self.steps.append((part, taken, taken))
            return _Channels(taken.numbers, made.astype(np.float32))
        if part.kind == "Flatten":
            if None in tuple(tensor.shape[1:]):
                return None
            times = int(np.prod(tuple(tensor.shape[1:-1])))
            return _Channels(np.tile(taken.numbers, times), np.tile(constant, times))
        if part.kind in _EACH_NUMBER and part.elementwise:
            return _Channels(taken.numbers, _where_known(part.layer, constant))
        if part.kind in _PADDINGS:
            return _Channels(taken.numbers, np.where(constant == 0, constant, np.nan))
        return taken if part.kind in _CONSTANT_STAYS else None

    def _made(self, part: _Part, taken: _Channels) -> _Channels | None:
        kernel = part.weights["kernel"]
        if getattr(part.layer, "groups", 1) != 1:
            return None
        rows = np.moveaxis(kernel, -2, 0).reshape(kernel.shape[-2], -1)
        known = ~np.isnan(taken.constant)
        movable = known & ((taken.constant == 0) | (not part.pads))
        self._fix(taken, rows.any(axis=1) & ~movable)
        dead = ~kernel.reshape(-1, kernel.shape[-1]).any(axis=0)
        made = self._new(
            part.activated(np.where(dead, part.bias(), np.nan).astype(np.float32)),
            fixed=not part.elementwise,
        )
        self.steps.append((part, taken, made))
        return made

    def _depthwise(self, part: _Part, taken: _Channels) -> _Channels | None:
        kernel = part.weights["kernel"]
        if kernel.shape[-1] != 1 or not part.elementwise:
            return None
        sums, bias = kernel[..., 0].sum((0, 1)), part.weights.get("bias", 0.0)
        constant = np.where(kernel.any(axis=(0, 1, 3)), taken.constant, 0.0)
        if part.pads:
            constant = np.where(constant == 0, constant, np.nan)
        made = part.activated((constant * sums + bias).astype(np.float32))
        self.steps.append((part, taken, taken))
        return _Channels(taken.numbers, made)

    def shrink(self) -> bool:
        """Take out what can go; whether there was anything."""
        roots = np.array([self._root(n) for n in range(len(self.parent))], int)
        goes = ~np.isin(roots, roots[sorted(self.fixed)])
        for part, _, made in self.steps:
            if part.kind in _MAKERS and goes[made.numbers].all():
                goes &= roots != roots[made.numbers[0]]
        for part, taken, made in self.steps:
            self._take_out(part, goes[taken.numbers], taken.constant, ~goes[made.numbers])
        return bool(goes.any())

    @staticmethod
    def _take_out(part: _Part, gone: np.ndarray, constant: np.ndarray, kept: np.ndarray) -> None:
        weights = part.weights
        if part.kind in _MAKERS:
            kernel = weights["kernel"]
            sums = kernel.sum(tuple(range(kernel.ndim - 2)))
            # Without weights the value does not matter, and may be none.
            share = np.where(gone & sums.any(axis=1), np.nan_to_num(constant), 0.0) @ sums
            if share.any():
                weights["bias"] = (part.bias() + share).astype(np.float32)
            weights["kernel"] = kernel[..., ~gone, :][..., kept]
            if "bias" in weights:
                weights["bias"] = weights["bias"][kept]
        else:
            for name, value in weights.items():
                at = (..., kept, slice(None)) if name == "kernel" else (..., kept)
                weights[name] = value[at]
