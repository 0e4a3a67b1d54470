"""How Keras keeps the layers of a model: finding them, and rebuilding a model with other ones."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

__all__ = ["Rebuilding", "inputs_of", "is_network", "nodes", "walk"]

_Layer = tf.keras.layers.Layer


def is_network(layer: Any) -> bool:
    """Whether Keras knows the graph of its layers: a functional model or a `Sequential`."""
    return isinstance(layer, tf.keras.Sequential) or (
        isinstance(layer, tf.keras.Model) and hasattr(layer, "_nodes_by_depth")
    )


def inputs_of(model: tf.keras.Model) -> list:
    """The Keras tensors that a network takes; none if it is not built."""
    try:
        return list(model.inputs or [])
    except (AttributeError, ValueError):  # Keras 3's Sequential
        return []


def nodes(model: tf.keras.Model) -> list[tuple[Any, list, list]]:
    """Each use of a layer in a network: (layer, Keras tensors taken, Keras tensors made), in an
    order in which they can be computed.
    """
    graph = getattr(model, "_functional", None) or model  # Keras 3's Sequential holds a functional
    by_depth = graph._nodes_by_depth
    found = []
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            layer = getattr(node, "operation", None) or node.layer
            if isinstance(layer, tf.keras.layers.InputLayer):
                continue
            taken = getattr(node, "keras_inputs", None) or node.input_tensors
            made = node.outputs if hasattr(node, "keras_inputs") else node.output_tensors
            found.append((layer, tf.nest.flatten(taken), tf.nest.flatten(made)))
    return found


def walk(model: tf.keras.Model, prefix: str = "") -> Iterator[tuple[Any, str]]:
    """The layers of a network and of networks inside it, each with its path.

    The path is the layer's name behind those of the networks that it is in. A number at the end
    of a name that Keras made up depends on what was built before; here it counts within the
    network. A layer of several places comes once, with the first of its paths.
    """
    met: set[int] = set()
    for layer, path in _walk(model, prefix):
        if id(layer) not in met:
            met.add(id(layer))
            yield layer, path


def _walk(model, prefix):
    layers = [each for each in model.layers if not isinstance(each, tf.keras.layers.InputLayer)]
    bases = {id(each): _base(each) for each in layers}
    taken = {each.name for each in layers if bases[id(each)] is None}
    count: Counter[str] = Counter()
    for layer in layers:
        name = layer.name
        if base := bases[id(layer)]:
            name = base
            while name in taken:
                count[base] += 1
                name = f"{base}_{count[base]}"
            taken.add(name)
        yield layer, f"{prefix}{name}"
        if is_network(layer):
            yield from _walk(layer, f"{prefix}{name}/")
        elif isinstance(layer, tf.keras.layers.TimeDistributed):
            yield layer.layer, f"{prefix}{name}/{_base(layer.layer) or layer.layer.name}"


def _base(layer) -> str | None:
    """The name that Keras gives the first layer of this class, if this one has such a name."""
    kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", _class(layer)))
    found = re.fullmatch(rf"({kind.lower()})(_\d+)?", layer.name)
    return found[1] if found else None


def _class(layer) -> str:
    # Keras 2 calls the first functional model "model", Keras 3 "functional".
    named = re.match("model|functional", layer.name) if is_network(layer) else None
    return named[0] if named else type(layer).__name__


class Rebuilding:
    """A network made again of other layers; one that several places share stays one.

    Args:
        convert: makes the new layer of an old one.

    Attributes:
        pairs: the old and the new layers.
    """

    def __init__(self, convert: Callable[[Any], Any]):
        self._convert, self._new = convert, dict[int, Any]()
        self.pairs: list[tuple[Any, Any]] = []

    def network(self, model: tf.keras.Model) -> tuple[Any, Any]:
        """The inputs and outputs of the network made again, as it has them: one Keras tensor, or a
        list or dictionary of them.
        """
        if isinstance(model, tf.keras.Sequential):
            start = x = _input_like(inputs_of(model)[0])
            for layer in model.layers:
                x = self._layer(layer)(x)
            return start, x
        # A functional model of no further class, not compiled.
        view = tf.keras.Model(model.input, model.output, name=model.name)
        clone = tf.keras.models.clone_model(view, clone_function=self._layer)
        return clone.input, clone.output

    def _layer(self, layer):
        if not isinstance(layer, _Layer):  # an operation of Keras 3's
            return layer
        if id(layer) not in self._new:
            self._new[id(layer)] = self._made(layer)
        return self._new[id(layer)]

    def _made(self, layer):
        if isinstance(layer, tf.keras.Sequential):
            start = _input_like(inputs_of(layer)[0])
            inside = [self._layer(each) for each in layer.layers]
            return tf.keras.Sequential([start, *inside], name=layer.name)
        if is_network(layer):
            return tf.keras.Model(*self.network(layer), name=layer.name)
        if isinstance(layer, tf.keras.layers.TimeDistributed):
            return tf.keras.layers.TimeDistributed(self._layer(layer.layer), name=layer.name)
        new = self._convert(layer)
        self.pairs.append((layer, new))
        return new


def _input_like(tensor):
    return tf.keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype)
