"""Any Keras model into a masked one, and back. ::

    masked = sm.mask(model)                 # the same network, masked, at weights drawn from a seed
    masked = sm.mask(model, weights="keep")           # or at the weights that it has
    masked.compile(tf.keras.optimizers.Adam(0.1), loss)
    masked.fit(x, y)                        # trains the mask
    network = sm.plain(masked)              # of plain Keras layers, whose weights are M ⊙ θ

What `mask` can't mask it leaves as it is; `unmasked` names it.
"""

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from . import _compacting, _keras, estimators, initializers
from ._kinds import KINDS, weights_of
from ._structure import Rebuilding, inputs_of, is_network, walk
from .layers import is_normalization, masked_layers
from .training import SupermaskModel

__all__ = ["mask", "plain", "unmasked"]

WEIGHTS = ("theta0", "keep")


# Longer than a screen by its arguments and what is said of them: the body has thirty lines.
def mask(
    model: tf.keras.Model,
    estimator: Any = "threshold",
    seed: int = 0,
    weights: str = "theta0",
    only: "Iterable[str | type] | str | type | None" = None,
    *,
    mask_initializer: Any = None,
    mask_regularizer: Any = None,
    kernel_initializer: str | None = None,
    rescale: str | None = None,
    draw_at_evaluation: bool = False,
    mask_bias: bool = True,
) -> SupermaskModel:
    """The same network with masks over its weights.

    Masked are Dense, EinsumDense, Embedding, MultiHeadAttention, and the convolutions: Conv1D to
    Conv3D, the transposed, the depthwise and the separable ones. They may lie in networks inside
    the model, and in `TimeDistributed`; one layer of several places stays one. Layers of other
    classes, and those outside `only`, are left with the weights that they have, and a warning
    names those that can't be masked; `unmasked` lists both. Normalisations have no masks and train
    in every phase.

    A masked layer's name is its path: its old name, behind those of the networks that it is in
    ("encoder/dense"). Names that Keras made up are numbered anew within the network, so that θ0
    and drawn masks do not depend on what was built before.

    Args:
        model: a functional model or a `Sequential`, built. It stays as it is.
        estimator: how masks are made from logits, as in `layers.MaskedConv2D`.
        seed: seed of θ0 and of drawn masks.
        weights: "theta0" draws kernels and embeddings anew from `seed`, lets biases start as their
            initializers say, and (without `only`) normalisations start anew. "keep" masks the
            weights that are there, such as pretrained ones.
        only: names or paths of layers or of networks inside the model, or Keras layer classes: what
            to mask. None: everything that can be.
        kernel_initializer: draws θ0, as in `layers.MaskedConv2D`; None: "glorot_uniform".
        mask_initializer, mask_regularizer, rescale: as in `layers.MaskedConv2D`.
        draw_at_evaluation, mask_bias: as in `layers.MaskedConv2D`.

    Returns:
        A `SupermaskModel` in phase "mask", not compiled. A masked layer trains by the phase, even
        if it was frozen; other layers stay frozen where they were.

    Raises:
        ValueError: if the model is none of these, is not built, is masked already or holds a layer
            that can't be made again; if `only` names what is not there or can't be masked, or
            nothing is left to mask; or if another argument is unknown.
    """
    _check(model, weights, kernel_initializer)
    layers = list(walk(model))
    chosen = _chosen(model, layers, only)
    paths = {id(layer): path for layer, path in layers}
    anew = weights == "theta0"
    masking = {
        "estimator": estimators.get(estimator),
        "mask_initializer": mask_initializer,
        "mask_regularizer": mask_regularizer,
        "rescale": rescale,
        "seed": seed,
        "draw_at_evaluation": draw_at_evaluation,
        "mask_bias": mask_bias,
        "kernel_initializer": (kernel_initializer or "glorot_uniform") if anew else None,
    }

    def convert(layer):
        if id(layer) in chosen:
            return _masked_form(layer, paths[id(layer)], masking)
        return _again(layer)

    rebuilding = Rebuilding(convert)
    made = SupermaskModel(*rebuilding.network(model), name=model.name)
    for old, new in rebuilding.pairs:
        if id(old) not in chosen:
            if not (anew and only is None and is_normalization(old)):
                _copy(old, new)
        elif not anew:
            for name, weight in weights_of(new).items():
                weight.assign(tf.convert_to_tensor(weights_of(old)[name]))
    _tell(model, made, anew, only)
    return made


def _check(model, weights, kernel_initializer) -> None:
    """The errors of `mask` that come before anything is made."""
    if weights not in WEIGHTS:
        raise ValueError(f"Unknown weights={weights!r}: choose one of {', '.join(WEIGHTS)}.")
    if kernel_initializer is not None:
        initializers.get(kernel_initializer)
        if weights == "keep":
            raise ValueError(
                f"kernel_initializer={kernel_initializer!r} does not go with weights='keep', which"
                " draws nothing: leave one of them out."
            )
    _check_network(model, "masked")
    already = masked_layers(model)
    if already:
        raise ValueError(
            f"{model.name!r} is masked already (layer {already[0].name!r}): give a plain model, or"
            " take supermask_tf.plain(model)."
        )


def _check_network(model, what: str) -> None:
    if not isinstance(model, tf.keras.Model):
        raise ValueError(f"model={model!r:.80} can't be {what}: give a Keras model.")
    if not is_network(model):
        raise ValueError(
            f"{model.name!r} can't be {what}: Keras does not know the graph of a subclassed model;"
            " build it as tf.keras.Model(inputs, outputs) or tf.keras.Sequential(layers)."
        )
    if not inputs_of(model):
        raise ValueError(
            f"{model.name!r} is not built: give it a tf.keras.Input as its first layer, or call it"
            " on data once."
        )


def _chosen(model, layers, only) -> set[int]:
    """The ids of the layers to mask."""
    able = {id(layer): path for layer, path in layers if type(layer) in KINDS}
    if only is None:
        found = set(able)
    else:
        names = [only] if isinstance(only, (str, type)) else list(only)
        if not names:
            raise ValueError("only is empty: name layers, or leave it out to mask all that can be.")
        found = set()
        for wanted in names:
            found |= _wanted(model, layers, able, wanted)
    if not found:
        raise ValueError(
            f"{model.name!r} has no layer that can be masked; these kinds can: {_kinds()}."
        )
    return found


def _wanted(model, layers, able, wanted) -> set[int]:
    """The ids of the layers that one entry of `only` means."""
    if isinstance(wanted, type):
        named = [(layer, path) for layer, path in layers if type(layer) is wanted]
        word = wanted.__name__
    else:
        word = str(wanted)
        named = [(layer, path) for layer, path in layers if wanted in (layer.name, path)]
        within = tuple(f"{path}/" for _, path in named)
        named += [(layer, path) for layer, path in layers if within and path.startswith(within)]
    if not named:
        raise ValueError(
            f"only names {word!r}, and {model.name!r} has no such layer; it can mask"
            f" {', '.join(able.values()) or 'none'}."
        )
    found = {id(layer) for layer, _ in named if id(layer) in able}
    if not found:
        layer, path = named[0]
        raise ValueError(
            f"only names {word!r}, but {path!r} is a {type(layer).__name__}, which can't be masked;"
            f" these kinds can: {_kinds()}."
        )
    return found


def _kinds() -> str:
    return ", ".join(sorted(kind.__name__ for kind in KINDS))


def _masked_form(layer, path: str, masking: dict[str, Any]):
    """The masked layer in the place of a plain one, not built."""
    config = layer.get_config() | {"name": path, "trainable": True}
    form = KINDS[type(layer)]
    if hasattr(form, "parent"):
        return form.from_config(config | {"masking": masking})
    own = {key: value for key, value in masking.items() if key != "kernel_initializer"}
    if masking["kernel_initializer"] is not None:
        own["kernel_initializer"] = masking["kernel_initializer"]
    return form.from_config(config | own)


def _again(layer, **instead):
    """A layer of the same class and configuration, not built."""
    try:
        return type(layer).from_config(layer.get_config() | instead)
    except Exception as error:  # whatever a class of someone else's raises
        why = " ".join(str(error).split())[:200].rstrip(".")
        raise ValueError(
            f"Layer {layer.name!r}, a {type(layer).__name__}, can't be made again from its"
            f" get_config() ({type(error).__name__}: {why}): let that return what its __init__"
            " takes."
        ) from error


def _copy(old, new) -> None:
    if old.weights:
        new.set_weights(old.get_weights())


def _tell(model, made, anew: bool, only) -> None:
    """Warn of weights that are not in the new model, and of layers that could not be masked."""
    if anew and _looks_trained(model):
        warnings.warn(
            f"{model.name!r} looks trained, and weights='theta0' draws new weights from the seed:"
            " give weights='keep' to mask the ones that it has.",
            stacklevel=3,
        )
    left = unmasked(made) if only is None else {}
    if left:
        named = ", ".join(f"{path} ({kind})" for path, kind in left.items())
        warnings.warn(
            f"These layers of {model.name!r} have no masked form and are left as they are:"
            f" {named}.",
            stacklevel=3,
        )


def _looks_trained(model) -> bool:
    """Whether an optimizer has made steps, or biases or moving averages are not where they start.

    Kernels are drawn, so nothing can be told from them.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and int(getattr(optimizer, "iterations", 0)) > 0:
        return True
    zeros = []
    for layer, _ in walk(model):
        if getattr(layer, "moving_mean", None) is not None:
            zeros.append(layer.moving_mean)
        start = getattr(layer, "bias_initializer", None) or getattr(
            layer, "_bias_initializer", None
        )
        if type(layer) in KINDS and isinstance(start, tf.keras.initializers.Zeros):
            found = weights_of(layer).items()
            zeros += [weight for name, weight in found if name.rpartition("/")[2] == "bias"]
    return any(np.any(tf.convert_to_tensor(variable)) for variable in zeros)


def unmasked(model: tf.keras.Model) -> dict[str, str]:
    """The layers of a masked model that have weights and no masks, but for normalisations.

    Args:
        model: what `mask` returned, or another functional model or `Sequential`.

    Returns:
        The class of each, by its path.
    """
    masked = {id(layer) for layer in masked_layers(model)}
    return {
        path: type(layer).__name__
        for layer, path in walk(model)
        if id(layer) not in masked
        and not is_network(layer)
        and not isinstance(layer, tf.keras.layers.TimeDistributed)
        and _could_train(layer)
        and not is_normalization(layer)
    }


def _could_train(layer) -> bool:
    """Whether a layer has weights that training moves, now or in another phase, or frozen ones:
    those of a preprocessing layer are neither.
    """
    moves = any(v.trainable or hasattr(v, "_held_by_phase") for v in layer.weights)
    return moves or bool(layer.weights and not layer.trainable)


# --- and back -------------------------------------------------------------------------------------


def plain(model: tf.keras.Model, compact: bool = False, dtype: str | None = None) -> tf.keras.Model:
    """The same function of plain Keras layers, whose weights are M ⊙ θ.

    Nothing in it needs this package: it saves, exports and trains as any Keras model. Where a
    network rescales, so do its plain weights. One that draws its masks at evaluation gets its most
    likely ones.

    Args:
        model: a functional model or `Sequential` with masked layers, made by `mask` or not.
        compact: whether to take out the units and channels that the mask cuts off: those whose
            outgoing weights are all zero, and those whose incoming weights are, whose constant
            output moves into the biases behind them. That is done in chains of Dense,
            Conv1D to Conv3D, DepthwiseConv2D and batch norm, with what works on each channel by
            itself in between, Add, Concatenate and Flatten. Where another layer sees a channel, or
            the model returns it, it stays. A layer keeps one at least. Predictions are the same
            within float error; training goes on otherwise, since weights of zero are gone.
        dtype: one precision policy for all layers, such as "float32"; None: each keeps its own.

    Returns:
        A functional model, not compiled. A layer's name has "." for "/".

    Raises:
        ValueError: if the model is none of these, or holds a layer that can't be made again.
    """
    _check_network(model, "made plain")
    masked = {id(layer) for layer in masked_layers(model)}

    def convert(layer):
        policy = {} if dtype is None or not _is_float(layer) else {"dtype": dtype}
        name = {"name": layer.name.replace("/", ".")} | policy
        return _plain_form(layer, name) if id(layer) in masked else _plain_norm(layer, name)

    rebuilding = Rebuilding(convert)
    made = tf.keras.Model(*rebuilding.network(model), name=model.name)
    for old, new in rebuilding.pairs:
        if id(old) not in masked:
            _copy(old, new)
            continue
        values = weights_of(old) | _most_likely(old)
        for name, weight in weights_of(new).items():
            weight.assign(tf.cast(tf.convert_to_tensor(values[name]), weight.dtype))
    return _compacting.compact(made) if compact else made


def _is_float(layer) -> bool:
    """Whether a layer computes in a floating precision, not in whole numbers or texts."""
    return "float" in str(getattr(layer, "compute_dtype", None))


def _plain_form(layer, instead: dict[str, Any]):
    """The plain layer in the place of a masked one, not built."""
    parent: Any = next(parent for parent, form in KINDS.items() if form is type(layer))
    config = layer.get_config() | instead
    if "masking" in config:
        del config["masking"]
        return parent.from_config(config)
    for key in ("phase", *layer._mask_config()):
        config.pop(key, None)
    if isinstance(config["kernel_initializer"], str):  # ours; Keras does not know all of them
        del config["kernel_initializer"]
    return parent.from_config(config)


def _plain_norm(layer, instead: dict[str, Any]):
    config = layer.get_config() | instead
    if isinstance(layer, _keras.SynchronizedBatchNormalization):
        config.pop("synchronized", None)
    elif type(layer) is not _keras.BatchNormalization:
        return _again(layer, **instead)
    return tf.keras.layers.BatchNormalization.from_config(config)


def _most_likely(layer) -> dict[str, tf.Tensor]:
    """M ⊙ θ of a masked layer, drawing nothing."""
    frozen, layer.mask_frozen = layer.mask_frozen, True
    try:
        return layer.masked()
    finally:
        layer.mask_frozen = frozen
