"""Masked forms of Keras's other layers with kernels: a subclass for each kind, which `mask` uses.

While the parent's `call` runs, the attributes that hold its weights hold the masked weights. So a
masked layer can do whatever its parent can, and computes the very same where every weight is kept.
`MaskedDense` and `MaskedConv2D` are the masked forms of those two.
"""

import contextlib
import inspect
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from . import initializers
from .layers import MaskedConv2D, MaskedDense, _Masked

__all__ = ["KINDS", "weights_of"]

# The weights of a kind, by the name that a mask has for it. DepthwiseConv's kernel is called
# `depthwise_kernel` by Keras 2 and `kernel` by Keras 3.
_USUAL: dict[str, tuple[str, ...]] = {"kernel": ("kernel",), "bias": ("bias",)}
_DEPTHWISE: dict[str, tuple[str, ...]] = {
    "kernel": ("depthwise_kernel", "kernel"),
    "bias": ("bias",),
}
_SEPARABLE: dict[str, tuple[str, ...]] = {
    "depthwise_kernel": ("depthwise_kernel",),
    "pointwise_kernel": ("pointwise_kernel",),
    "bias": ("bias",),
}
_WEIGHTS: dict[str, dict[str, tuple[str, ...]]] = {
    "Conv1D": _USUAL,
    "Conv3D": _USUAL,
    "Conv1DTranspose": _USUAL,
    "Conv2DTranspose": _USUAL,
    "Conv3DTranspose": _USUAL,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "EinsumDense": _USUAL,
    "Embedding": {"embeddings": ("embeddings",)},
    "SeparableConv1D": _SEPARABLE,
    "SeparableConv2D": _SEPARABLE,
}
# Layers inside a layer, each an EinsumDense. Not every version of Keras has the gate.
_INSIDE = {
    "MultiHeadAttention": {
        "query": "_query_dense",
        "key": "_key_dense",
        "value": "_value_dense",
        "gate": "_gate_dense",
        "attention_output": "_output_dense",
    }
}

# Attributes are exchanged by one thread at a time: another one must not see half of it.
_exchange = threading.RLock()


def weights_of(layer: tf.keras.layers.Layer) -> dict[str, tf.Variable]:
    """The weights of a layer that can be masked, by the names that its masks have; a built layer's
    variables.
    """
    return {name: vars(owner)[key] for name, (owner, key) in _places(layer).items()}


def _places(layer) -> dict[str, tuple[Any, str]]:
    """Where each weight is: the layer that has it, and the attribute that holds it."""
    kind = _kind(type(layer))
    owners = {"": layer}
    if kind in _INSIDE:
        inside = {name: vars(layer).get(held) for name, held in _INSIDE[kind].items()}
        owners = {f"{name}/": part for name, part in inside.items() if part is not None}
    found = {}
    for prefix, owner in owners.items():
        for name, attributes in _WEIGHTS.get(kind, _USUAL).items():
            # Keras 3 keeps some behind a property of the same name without underscore.
            known = [key for each in attributes for key in (each, f"_{each}") if key in vars(owner)]
            if known and vars(owner)[known[0]] is not None:
                found[f"{prefix}{name}"] = owner, known[0]
    return found


def _kind(cls: type) -> str:
    """The name of the Keras class that a class is, or is the masked form of."""
    return getattr(cls, "parent", cls).__name__


class _MaskedKind(_Masked):
    """The mixin of the subclasses below. All that makes the masks is in the argument `masking`, a
    dictionary, since Keras's layers have arguments of the same names.
    """

    def _configure(self, masking: dict[str, Any]):
        masking = dict(masking)
        self._theta0 = masking.pop("kernel_initializer")
        if self._theta0 is not None:
            initializers.get(self._theta0)  # an unknown name is told here
        self.phase = masking.pop("phase", None)
        if isinstance(masking["mask_initializer"], dict):
            start = masking["mask_initializer"]
            masking["mask_initializer"] = tf.keras.initializers.deserialize(start)
        self._configure_mask(**masking)

    def _add_masks(self) -> None:
        """Draw θ0 and add the logits, once the parent has its weights."""
        weights = weights_of(self)
        known = {id(v) for v in weights.values()}
        if forgotten := [v.name for v in self.trainable_variables if id(v) not in known]:
            raise RuntimeError(
                f"{type(self).__name__} does not know where Keras keeps {forgotten[0]!r} of"
                f" {self.name!r}: this version of Keras is newer than supermask_tf knows."
            )
        for name, weight in weights.items():
            bias = name.rpartition("/")[2] == "bias"
            if self._theta0 is not None and not bias:
                draw = initializers.get(self._theta0)
                weight.assign(draw(self._mask_seed, f"{self.name}/{name}", tuple(weight.shape)))
            if self.mask_bias or not bias:
                attribute = _attribute(name)
                setattr(self, attribute, self._add_logits(attribute, weight))
        self._add_mask_state()

    @property
    def logits(self) -> dict[str, tf.Variable]:
        """The mask logits by the weight that they are of."""
        held = {name: vars(self).get(_attribute(name)) for name in _places(self)}
        return {name: variable for name, variable in held.items() if variable is not None}

    def _weight(self, name):
        return weights_of(self)[name]

    @contextlib.contextmanager
    def _wearing(self, masked: dict[str, tf.Tensor]) -> Iterator[None]:
        """Inside, the attributes that hold weights hold these tensors."""
        with _exchange:
            places = _places(self)
            before = [(vars(owner), key, vars(owner)[key]) for owner, key in places.values()]
            try:
                for name, tensor in masked.items():
                    owner, key = places[name]
                    vars(owner)[key] = tensor
                yield
            finally:
                for attributes, key, variable in before:
                    attributes[key] = variable


def _attribute(name: str) -> str:
    return f"{name.replace('/', '_')}_logits"


def _subclass(parent: Any) -> Any:
    """The masked form of a Keras layer class."""
    signature = inspect.signature(parent.call)
    knows_training = "training" in signature.parameters
    late = _is_late(parent)

    def __init__(self, *args, masking, **kwargs):
        super(made, self).__init__(*args, **kwargs)
        self._configure(masking)

    def _build_from_signature(self, *args, **kwargs):
        parent._build_from_signature(self, *args, **kwargs)
        _build_parts(self)
        self._add_masks()

    def masked_call(self, *args, training=None, **kwargs):
        if late and not self._built_from_signature:
            given = signature.bind(self, *args, **kwargs).arguments
            self._build_from_signature(given["query"], given["value"], given.get("key"))
        given = {"training": training} if knows_training else {}
        with self._wearing(self.masked(training)):
            return parent.call(self, *args, **kwargs, **given)

    def get_config(self):
        phase = {} if self.phase is None else {"phase": self.phase}
        masking = self._mask_config() | {"kernel_initializer": self._theta0} | phase
        return parent.get_config(self) | {"masking": masking}

    # Keras reads it: which arguments a layer takes, and whether `training` is one.
    training = inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None)
    extra = [] if knows_training else [training]
    call: Any = masked_call
    call.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *extra])
    methods: dict[str, Any] = {"__init__": __init__, "build": _build_of(parent), "call": call}
    methods["get_config"] = get_config
    if late:
        methods["_build_from_signature"] = _build_from_signature
    doc = f"A `{parent.__name__}` whose weights are masked; `masking` says how."
    about = {"parent": parent, "__doc__": doc, "__module__": __name__}
    made: Any = type(f"Masked{parent.__name__}", (_MaskedKind, parent), about | methods)
    return tf.keras.utils.register_keras_serializable("supermask_tf")(made)


def _is_late(parent: Any) -> bool:
    """Whether it is Keras 2's attention, which makes its parts when it is first called."""
    return "_build_from_signature" in vars(parent)


def _build_of(parent: Any) -> Any:
    """The masked form's `build`. Keras reads its signature, of the class and of the object."""

    def build(self, input_shape=None):
        parent.build(self, input_shape)
        if not _is_late(parent):
            self._add_masks()

    def build_of_three(self, query_shape, value_shape, key_shape=None):
        parent.build(self, query_shape, value_shape, key_shape)
        self._add_masks()

    takes = inspect.signature(parent.build).parameters
    return build_of_three if "query_shape" in takes else build


def _build_parts(attention) -> None:
    """Build what Keras 2's attention would build in its first call."""
    query, value, key = attention._query_shape, attention._value_shape, attention._key_shape
    heads = [attention._num_heads, attention._value_dim]
    for part, shape in (
        (attention._query_dense, query),
        (attention._key_dense, key),
        (attention._value_dense, value),
        (attention._output_dense, [*query[:-1], *heads]),
    ):
        with tf.init_scope(), tf.name_scope(part.name):
            part.build(tf.TensorShape(shape))
            part.built = True


def _kinds() -> dict[type, Any]:
    named = [getattr(tf.keras.layers, name, None) for name in (*_WEIGHTS, *_INSIDE)]
    made = {parent: _subclass(parent) for parent in named if parent is not None}
    return {tf.keras.layers.Conv2D: MaskedConv2D, tf.keras.layers.Dense: MaskedDense} | made


# The masked form of each Keras class that has one.
KINDS: dict[type, Any] = _kinds()

# By these names alone Keras 2's wrappers, such as TimeDistributed, look for the layer inside.
tf.keras.utils.get_custom_objects().update({form.__name__: form for form in KINDS.values()})
