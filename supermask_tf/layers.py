"""Ordinary Keras layers with mask logits beside their weights: f(x; M ⊙ θ).

A masked layer is its Keras parent with one step more: kernel and bias are multiplied by 0/1 masks
that an estimator makes from `kernel_logits` and `bias_logits`. In a `SupermaskModel` the model's
phase says which of them train; in any other Keras model both do.
"""

import numbers
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from . import _keras, estimators, initializers
from .regularizers import OpenOrClosed, ScorePenalty

__all__ = [
    "MaskedConv2D",
    "MaskedDense",
    "OpenOrClosed",
    "RESCALE",
    "ScorePenalty",
    "is_normalization",
    "masked_layers",
]

if TYPE_CHECKING:
    # The mixin below stands before a Keras layer and takes from it what Keras's layers have.
    # TensorFlow has no types, so to a type checker that is anything.
    from tensorflow.keras.layers import Layer as _KerasParent
else:
    _KerasParent = object

# What the masked kernel is multiplied by, to make up for the weights that are gone, as a power of 1
# / (fraction kept). "gain" is another thing: see `_gained`.
RESCALE = {"dynamic": 1.0, "root": 0.5, "gain": 0.0}
MASKED_OUT = ("zero", "frozen")


class _Theta0(tf.keras.initializers.Initializer):
    """The portable initializer `name`, for Keras's `add_weight`."""

    def __init__(self, name: str, seed: int, path: str):
        self.name, self.seed, self.path = name, seed, path

    def __call__(self, shape, dtype=None, **kwargs):
        return tf.cast(
            initializers.get(self.name)(self.seed, self.path, tuple(shape)), dtype or tf.float32
        )


class _Scores(tf.keras.initializers.Initializer):
    """Random logits, for an estimator whose logits don't all start alike."""

    def __init__(self, draw: str, seed: int, path: str):
        self.draw, self.seed, self.path = draw, seed, path

    def __call__(self, shape, dtype=None, **kwargs):
        drawn = getattr(initializers, self.draw)(self.seed, self.path, tuple(shape))
        return tf.cast(drawn, dtype or tf.float32)


class _Masked(_keras.ByPath, _KerasParent):
    """What masked layers share: the mask's arguments, its variables, and the masked weights."""

    # Both set by SupermaskModel. In its phase "weights" the mask is held at its most likely value.
    mask_frozen = False
    # The phase is in the layer's config, so that a model put together from clones of the layers
    # finds it.
    phase: str | None = None

    def _configure_mask(
        self, *, estimator, mask_initializer, mask_regularizer, rescale, seed,
        draw_at_evaluation, mask_bias, masked_out="zero",
    ):  # fmt: skip
        if masked_out not in MASKED_OUT or (masked_out == "frozen" and rescale):
            raise ValueError(
                f"masked_out={masked_out!r} does not go with rescale={rescale!r}: choose zero, or"
                " frozen and no rescale."
            )
        self.masked_out = masked_out
        if rescale is not None and rescale not in RESCALE:
            raise ValueError(
                f"Unknown rescale {rescale!r}: choose one of {', '.join(RESCALE)}, or None."
            )
        self.estimator, self.rescale = estimators.get(estimator), rescale
        self.mask_initializer = (
            self.estimator.initial_logit if mask_initializer is None else mask_initializer
        )
        self.mask_regularizer = tf.keras.regularizers.get(mask_regularizer)
        # Not `seed`: Keras's attention has one of its own, for its dropout.
        self._mask_seed, self.draw_at_evaluation = int(seed), bool(draw_at_evaluation)
        self.mask_bias = bool(mask_bias)

    def _add_mask_state(self) -> None:
        """What a mask needs beside its logits."""
        if "density" in self.estimator.parameters:
            # A variable, so that a schedule can move it while the graph stays.
            self.density = self.add_weight(
                name="density",
                shape=(),
                dtype=tf.float32,
                trainable=False,
                initializer=tf.keras.initializers.Constant(self.estimator.parameters["density"]),
                **_keras.OWN_PRECISION,
            )
        if self.ranked_globally:
            # Where the coats begin in a ranking of all layers; the model assigns it.
            self.cuts = self.add_weight(
                name="cuts",
                shape=(len(self.estimator.values) - 1,),
                dtype=next(iter(self.logits.values())).dtype,
                trainable=False,
                initializer="zeros",
                **_keras.FIRST_REPLICA,
                **_keras.OWN_PRECISION,
            )
        if self.estimator.draws:
            # How many masks were drawn: with the seed and the layer's path, the whole state of the
            # randomness.
            self.draws = _keras.counter(self, "draws")

    def _add_logits(self, name, weight):
        start = self.mask_initializer
        if start is None:
            draw = self.estimator.start or "scores"
            start = _Scores(draw, self._mask_seed, f"{self.name}/{name}")
        return self.add_weight(
            name=name,
            shape=weight.shape,
            regularizer=self.mask_regularizer,
            constraint=self.estimator.constraint,
            initializer=(
                tf.keras.initializers.Constant(float(start))
                if isinstance(start, numbers.Real)
                else start
            ),
            # Logits stay in their own precision under mixed precision: a small positive one would
            # round to zero.
            **_keras.OWN_PRECISION,
        )

    @property
    def logits(self) -> dict[str, tf.Variable]:
        """The mask logits by the weight that they are of."""
        raise NotImplementedError

    def _weight(self, name: str) -> tf.Variable:
        """The weight that the logits of this name are of."""
        return getattr(self, name)

    def masked(self, training: bool | None = None) -> dict[str, tf.Tensor]:
        """M ⊙ θ of each weight that is masked, by its name, in the layer's compute dtype."""
        draw = self.estimator.draws and bool(training or self.draw_at_evaluation)
        if draw:
            draw = not _keras.as_traced(lambda: self.mask_frozen, f"mask_frozen of {self.name!r}")
        found = {name: self._masked_weight(name, draw) for name in self.logits}
        if draw:
            self.draws.assign_add(1)
        return found

    def _masked_weight(self, name, draw):
        # Tensors: `tf.custom_gradient` takes a variable of Keras 3 for one that is closed over.
        weight, logits = map(tf.convert_to_tensor, (self._weight(name), self.logits[name]))
        if draw:
            count = tf.cast(self.draws % 2**31, tf.int32)
            mask = self.estimator(
                logits,
                seed=tf.stack([initializers.fold(self._mask_seed, f"{self.name}/{name}"), count]),
                **self.now(),
            )
        else:
            mask = self.estimator.most_likely(logits, **self.now())
        rescale = self.rescale if name.rpartition("/")[2] != "bias" else None
        if rescale == "gain":
            return _gained(weight, tf.cast(mask, weight.dtype))
        masked = weight * tf.cast(mask, weight.dtype)
        if self.masked_out == "frozen":
            return masked + tf.stop_gradient(weight * tf.cast(mask == 0, weight.dtype))
        if rescale:
            mask = tf.stop_gradient(tf.cast(mask, tf.float32))
            kept = tf.reduce_mean(mask if self._in_or_out else tf.cast(mask != 0, tf.float32))
            # Where none is kept the factor is finite, and the layer stays at zero.
            factor = tf.maximum(kept, 1.0 / mask.shape.num_elements()) ** -RESCALE[rescale]
            masked = masked * tf.cast(factor, masked.dtype)
        return masked

    @property
    def ranked_globally(self) -> bool:
        """Whether the estimator ranks this layer's scores with those of all others."""
        return self.estimator.parameters.get("scope") == "global"

    @property
    def _in_or_out(self) -> bool:
        return self.estimator.values == (0, 1)

    def now(self) -> dict[str, tf.Tensor]:
        """The estimator's parameters that may move while it trains."""
        moving = {
            name: tf.convert_to_tensor(getattr(self, name))
            for name, has in (
                ("density", "density" in self.estimator.parameters),
                ("cuts", self.ranked_globally),
            )
            if has
        }
        return moving

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The most likely masks, by the weight that they are of: `kernel`, and `bias` if the layer
        has one that is masked.

        They are boolean arrays, or int8 ones where the estimator makes masks of more values than 0
        and 1.
        """
        found = {
            name: self.estimator.most_likely(tf.convert_to_tensor(logits), **self.now()).numpy()
            for name, logits in self.logits.items()
        }
        if self._in_or_out:
            return {name: mask > 0.5 for name, mask in found.items()}
        return {name: np.rint(mask).astype(np.int8) for name, mask in found.items()}

    def set_masks(self, **masks: np.ndarray) -> None:
        """Give the layer's masks (`kernel=`, `bias=`; shaped as the weights, of booleans or of the
        whole numbers that the estimator makes): one logit for each number.

        Raises:
            ValueError: if a mask is not shaped as its weight, the layer has no such weight, or its
                estimator can't express the mask.
        """
        for name, mask in masks.items():
            logits = self.logits.get(name)
            if logits is None:
                raise ValueError(
                    f"Layer {self.name!r} has no {name} that is masked, so it can't take a mask"
                    " for it."
                )
            if tuple(np.shape(mask)) != tuple(logits.shape):
                raise ValueError(
                    f"The {name} mask for layer {self.name!r} has shape {np.shape(mask)}; its"
                    f" {name} has {tuple(logits.shape)}."
                )
        if self.ranked_globally:
            masks = self.masks | masks  # the other mask must outlast the new cuts too
            self.cuts.assign(next(self.estimator.expressing(np.array(self.estimator.values)))[1:])
        for name, mask in masks.items():
            logits = self.logits[name]
            for values in self.estimator.expressing(mask):
                logits.assign(values)
                if np.array_equal(self.masks[name], np.asarray(mask)):
                    break
            else:
                raise ValueError(
                    f"The estimator {self.estimator.name!r} of layer {self.name!r} can't express"
                    f" the given {name} mask."
                )

    def _mask_config(self) -> dict[str, Any]:
        """The arguments of `_configure_mask` that make such masks again."""
        start = self.mask_initializer
        return {
            "estimator": self.estimator.get_config(),
            "mask_initializer": (
                start
                if start is None
                else (
                    float(start)
                    if isinstance(start, numbers.Real)
                    else tf.keras.initializers.serialize(start)
                )
            ),
            "mask_regularizer": tf.keras.regularizers.serialize(self.mask_regularizer),
            "rescale": self.rescale,
            "seed": self._mask_seed,
            "draw_at_evaluation": self.draw_at_evaluation,
            "mask_bias": self.mask_bias,
        }


class _KernelAndBias(_Masked):
    """What the two masked layers share beyond that: one kernel, and at most one bias."""

    def _configure(self, kernel_initializer, **masking):
        self._configure_mask(**masking)
        self.seed, self._kernel_initializer = self._mask_seed, kernel_initializer
        if isinstance(kernel_initializer, str):
            initializers.get(kernel_initializer)  # an unknown name is told here, not at build time
            self.kernel_initializer = _Theta0(kernel_initializer, self.seed, f"{self.name}/kernel")
        else:
            self.kernel_initializer = tf.keras.initializers.get(kernel_initializer)

    def build(self, input_shape):
        super().build(input_shape)
        self.kernel_logits = self._add_logits("kernel_logits", self.kernel)
        self.bias_logits = (
            self._add_logits("bias_logits", self.bias) if self.use_bias and self.mask_bias else None
        )
        self._add_mask_state()

    @property
    def logits(self) -> dict[str, tf.Variable]:
        """The mask logits by the weight that they are of: `kernel`, and `bias` if it is masked."""
        if self.bias_logits is None:
            return {"kernel": self.kernel_logits}
        return {"kernel": self.kernel_logits, "bias": self.bias_logits}

    def masked_weights(self, training: bool | None = None) -> tuple[tf.Tensor, tf.Tensor | None]:
        """(M ⊙ kernel, M ⊙ bias) in the layer's compute dtype.

        The second is None if the layer has no bias, and the bias itself if that is not masked.
        """
        found = self.masked(training)
        return found["kernel"], found.get("bias", self.bias if self.use_bias else None)

    def call(self, inputs, training=None):
        if _keras.only_shapes():  # which masks don't change
            return super().call(inputs)
        kernel, bias = self.masked_weights(training)
        return super().call.__func__(_Seen(self, kernel=kernel, bias=bias), inputs)

    def get_config(self) -> dict[str, Any]:
        return (
            super().get_config()
            | ({} if self.phase is None else {"phase": self.phase})
            | self._mask_config()
            | {
                "kernel_initializer": (
                    self._kernel_initializer
                    if isinstance(self._kernel_initializer, str)
                    else tf.keras.initializers.serialize(self.kernel_initializer)
                )
            }
            | ({} if self.masked_out == "zero" else {"masked_out": self.masked_out})
        )

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("kernel_initializer", "mask_initializer"):
            if isinstance(config.get(key), dict):
                config[key] = tf.keras.initializers.deserialize(config[key])
        phase = config.pop("phase", None)
        layer = cls(**config)
        layer.phase = phase
        return layer


def _gained(weight: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """M ⊙ α·sign(θ), where α is the mean of |θ| over the weights that are kept: biprop's gain."""
    kept = tf.cast(tf.stop_gradient(mask) != 0, tf.float32)
    size = tf.reduce_sum(tf.abs(tf.cast(weight, tf.float32)) * kept)
    gain = tf.stop_gradient(size / tf.maximum(tf.reduce_sum(kept), 1.0))
    signs = tf.cast(gain, weight.dtype) * tf.sign(weight)
    return mask * (weight + tf.stop_gradient(signs - weight))


class _Seen:
    """The layer as its Keras parent's `call` sees it: with masked weights in place of its own.

    Whatever the parent can do then works as it does there: grouped convolutions, sparse inputs, ...
    """

    def __init__(self, layer, **instead):
        self._layer = layer
        vars(self).update(instead)

    def __getattr__(self, name):
        return getattr(self._layer, name)


@tf.keras.utils.register_keras_serializable("supermask_tf")
class MaskedConv2D(_KernelAndBias, tf.keras.layers.Conv2D):
    """A `Conv2D` whose kernel and bias are masked.

    Args:
        filters, kernel_size: as in `tf.keras.layers.Conv2D`, which takes every further keyword
            argument.
        estimator: how masks are made from logits: a name, an `estimators.Estimator`, or a function.
        mask_initializer: where the mask logits start: a number, a Keras initializer, or None for
            the estimator's own (1; random scores for one that ranks).
        mask_regularizer: a Keras regularizer of the mask logits, or None.
        kernel_initializer: "glorot_uniform", "he_uniform", "signed_constant" or
            "signed_kaiming_constant" from `supermask_tf.initializers`, drawn from (`seed`, the
            layer's name, the kernel's shape); or a Keras initializer object. Give the layer a
            `name`: an automatic one depends on what was built before.
        rescale: what makes up for the weights that are gone. "dynamic" multiplies the masked kernel
            by the number of its weights over those kept, at each step anew (Zhou et al. 2019,
            arXiv:1905.01067, section 5). "root" multiplies it by the square root of that (the
            scaled initialisation of Ramanujan et al. 2020, arXiv:1911.13299, section 4, which fixes
            it beforehand). "gain" takes the signs of the weights alone, times the mean magnitude of
            those kept (Diffenderfer and Kailkhura 2021, arXiv:2103.09377, whose multi-prize tickets
            are binary); where the weights train, the gradient goes straight through. None leaves
            the kernel as it is. No gradient goes through the factor.
        seed: seed of θ0 and of drawn masks.
        draw_at_evaluation: whether an estimator that draws also draws at evaluation; else the most
            likely mask serves.
        mask_bias: whether the bias is masked too. The mask of a bias of zero has no gradient.
        masked_out: "zero": weights that are masked count as 0. "frozen": they count as they are,
            and don't train: a mask-0 action of Zhou et al. (2019, arXiv:1905.01067, section 3) for
            a mask that is given; one that trains would change nothing.

    Input: a 4-D tensor (batch, rows, columns, channels). Output: as `Conv2D`.

    Raises:
        ValueError: if the estimator or the initializer is unknown.
    """

    def __init__(
        self,
        filters,
        kernel_size,
        *,
        estimator="threshold",
        mask_initializer=None,
        mask_regularizer=None,
        kernel_initializer="glorot_uniform",
        rescale=None,
        seed=0,
        draw_at_evaluation=False,
        mask_bias=True,
        masked_out="zero",
        **kwargs,
    ):
        super().__init__(filters, kernel_size, **kwargs)
        self._configure(
            kernel_initializer,
            estimator=estimator,
            mask_initializer=mask_initializer,
            mask_regularizer=mask_regularizer,
            rescale=rescale,
            seed=seed,
            draw_at_evaluation=draw_at_evaluation,
            mask_bias=mask_bias,
            masked_out=masked_out,
        )


@tf.keras.utils.register_keras_serializable("supermask_tf")
class MaskedDense(_KernelAndBias, tf.keras.layers.Dense):
    """A `Dense` layer whose kernel and bias are masked.

    Args:
        units: as in `tf.keras.layers.Dense`, which takes every further keyword argument.
        estimator, mask_initializer, mask_regularizer, kernel_initializer: as in `MaskedConv2D`.
        rescale, seed, draw_at_evaluation, mask_bias, masked_out: as in `MaskedConv2D`.

    Input: a tensor (batch, ..., features). Output: (batch, ..., units).

    Raises:
        ValueError: if the estimator or the initializer is unknown.
    """

    def __init__(
        self,
        units,
        *,
        estimator="threshold",
        mask_initializer=None,
        mask_regularizer=None,
        kernel_initializer="glorot_uniform",
        rescale=None,
        seed=0,
        draw_at_evaluation=False,
        mask_bias=True,
        masked_out="zero",
        **kwargs,
    ):
        super().__init__(units, **kwargs)
        self._configure(
            kernel_initializer,
            estimator=estimator,
            mask_initializer=mask_initializer,
            mask_regularizer=mask_regularizer,
            rescale=rescale,
            seed=seed,
            draw_at_evaluation=draw_at_evaluation,
            mask_bias=mask_bias,
            masked_out=masked_out,
        )


def masked_layers(model: tf.keras.Model) -> list[_Masked]:
    """The masked layers of a model, and of models inside it, in their order: the layer index of
    every figure and table.
    """
    return [layer for layer in _keras.flat(model) if isinstance(layer, _Masked)]


def is_normalization(layer: tf.keras.layers.Layer) -> bool:
    """Whether a built layer normalises what goes through it: its parameters train in every phase.

    It goes by what the layer has, so that it holds for Keras's batch norm in all its classes, its
    layer and group norm, and for other people's: a scale `gamma` and a shift `beta`, or a
    `moving_mean` and a `moving_variance`.
    """
    pairs = ("gamma", "beta"), ("moving_mean", "moving_variance")
    return any(all(hasattr(layer, name) for name in pair) for pair in pairs)
