"""An experiment's network: built at θ0, compiled, and its variables by the paths that a record
uses.
"""

import numpy as np
import pandas as pd
import tensorflow as tf

from .. import estimators, models
from ..layers import OpenOrClosed, ScorePenalty, is_normalization, masked_layers
from .arms import ARMS
from .parameters import Experiment, belonging_to

__all__ = [
    "batch_norm",
    "beyond_masks",
    "build",
    "compile_model",
    "estimator",
    "logits",
    "masked_fraction",
    "utilisation",
    "weights",
]

Variables = dict[str, tf.Variable]


def build(
    experiment: Experiment, image_shape: tuple[int, int, int], classes: int
) -> tf.keras.Model:
    """The experiment's network at θ0, its masks open, in the phase of its arm (not compiled)."""
    arm, masking, found_by = ARMS[experiment.arm], {}, estimator(experiment)
    if arm.trains == "mask":
        strength, penalty = experiment.mask_regularizer, experiment.score_penalty
        masking = {
            "estimator": found_by,
            "mask_initializer": None if found_by.start else experiment.initial_logit,
            "draw_at_evaluation": experiment.draw_at_evaluation,
            "mask_regularizer": (
                OpenOrClosed(strength) if strength else penalty and ScorePenalty(penalty)
            ),
        }
    elif found_by.values != (0, 1):
        lowest, highest = found_by.values[0], found_by.values[-1]
        masking = {"estimator": estimators.get("levels", lowest=lowest, highest=highest)}
    # Where the mask does not train it is fixed by its logits (by their sign, or the number that
    # they are nearest to), whatever estimator found it. Keras layers take their precision from the
    # policy in force when they are made.
    policy = tf.keras.mixed_precision.global_policy()
    try:  # not what a notebook has set
        own_policy = experiment.precision or tf.keras.backend.floatx()
        tf.keras.mixed_precision.set_global_policy(own_policy)
        model = models.build(
            experiment.model,
            depth=experiment.depth,
            width=experiment.width,
            units=experiment.units,
            shortcut=experiment.shortcut,
            affine=None if experiment.affine else False,
            activation=experiment.activation,
            input_shape=tuple(image_shape),
            classes=classes,
            phase="mask" if arm.trains == "mask" else "weights",
            seed=experiment.seed,
            kernel_initializer=experiment.initializer,
            rescale=experiment.rescale,
            mask_bias=experiment.mask_biases,
            masked_out="frozen" if experiment.mask_0 else None,
            **masking,
        )
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    if arm.trains == "batch_norm":
        for layer in masked_layers(model):
            layer.trainable = False
    if arm.wrong:
        for layer in model.layers:
            layer.trainable = not is_normalization(layer)
    return model


def estimator(experiment: Experiment) -> estimators.Estimator:
    """The experiment's estimator with its parameters: those that it takes, of those it has."""
    own = {
        name: getattr(experiment, name)
        for name in belonging_to("estimator", experiment.estimator)
        if getattr(experiment, name) is not None
    }
    if experiment.estimator == "gem_miner":  # what the freezing goes by, not the mask
        own = {}
    return estimators.get(experiment.estimator, **own)


def compile_model(model: tf.keras.Model, experiment: Experiment) -> None:
    """Give the network its optimizer, its loss and the metric `accuracy`."""
    crossentropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    loss = mean_right if ARMS[experiment.arm].wrong else crossentropy
    # Keras 3 would let XLA compile the steps where there is one GPU: other bits than without.
    optimizer = _optimizer(model, experiment)
    # The word alone would get its variables while a step is traced, which TensorFlow then traces
    # once more.
    accuracy = tf.keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    model.compile(optimizer, loss, metrics=[accuracy], jit_compile=False)


def _optimizer(model: tf.keras.Model, experiment: Experiment) -> tf.keras.optimizers.Optimizer:
    """Adam, or SGD whose momentum holds past steps: m ← μ·m − η·g, w ← w + m; Nesterov's takes the
    next one with it, w ← w + μ·m − η·g.

    All with decoupled weight decay, w ← w − η·λ·w before the step (Loshchilov and Hutter 2019,
    arXiv:1711.05101, algorithm 2), of weights or, by `score_decay`, of a mask's logits.
    """
    settings = {
        "learning_rate": experiment.learning_rate,
        "weight_decay": experiment.weight_decay or experiment.score_decay,
    }
    if experiment.optimizer == "sgd":
        nesterov = bool(experiment.nesterov)
        optimizer = tf.keras.optimizers.SGD(
            momentum=experiment.momentum, nesterov=nesterov, **settings
        )
    else:
        optimizer = tf.keras.optimizers.Adam(**settings)
    if settings["weight_decay"]:
        optimizer.exclude_from_weight_decay([*batch_norm(model).values()])
    return optimizer


def mean_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The loss of an arm that seeks to be wrong: −log(1 − p), p the probability of the right class.

    It is zero where a network is surely wrong, and its slope does not vanish where it is surely
    right. Cross entropy with its sign turned would have no lower end.

    Args:
        labels: integers (n,) or (n, 1).
        logits: (n, classes).

    Returns:
        The loss of each image, (n,).
    """
    labels = tf.cast(tf.reshape(labels, [-1]), tf.int32)
    right = tf.one_hot(labels, tf.shape(logits)[-1], dtype=logits.dtype)
    return tf.reduce_logsumexp(logits, -1) - tf.reduce_logsumexp(logits - 1e9 * right, -1)


# --- its variables by path ------------------------------------------------------------------------


def batch_norm(model: tf.keras.Model) -> Variables:
    """Batch-norm parameters and moving statistics."""
    return {
        f"{layer.name}/{name}": getattr(layer, name)
        for layer in model.layers
        if isinstance(layer, tf.keras.layers.BatchNormalization)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
        if getattr(layer, name) is not None
    }


def weights(model: tf.keras.Model) -> Variables:
    """Kernels and biases."""
    return {
        f"{layer.name}/{name}": getattr(layer, name)
        for layer in masked_layers(model)
        for name in ("kernel", "bias")
        if getattr(layer, name) is not None
    }


def logits(model: tf.keras.Model) -> Variables:
    """Mask logits."""
    return {
        f"{layer.name}/{name}": getattr(layer, name)
        for layer in masked_layers(model)
        for name in ("kernel_logits", "bias_logits")
        if getattr(layer, name) is not None
    }


def beyond_masks(model: tf.keras.Model) -> Variables:
    """What a 0/1 mask can't hold, and a record must.

    Logits and the number of draws, where masks are drawn at evaluation too; the density of a
    ranking.
    """
    found: Variables = {}
    for layer in masked_layers(model):
        names = []
        if layer.estimator.draws and layer.draw_at_evaluation:
            names += ["kernel_logits", "bias_logits", "draws"]
        if "density" in layer.estimator.parameters:
            names += ["density"]
        values = {name: getattr(layer, name) for name in names}
        found |= {f"{layer.name}/{name}": v for name, v in values.items() if v is not None}
    return found


# --- what its masks remove ------------------------------------------------------------------------


def utilisation(model: tf.keras.Model) -> pd.DataFrame:
    """One row per masked kernel: `layer` (its index), `path`, `kind`, `weights`, `masked`
    (fraction).

    Where masks have more values than 0 and 1, there is a column for each that is not 0, `value_-1`
    and so on: the fraction of the weights that have it.
    """
    rows, shares = [], []
    for index, layer in enumerate(masked_layers(model)):
        mask = layer.masks["kernel"]
        if mask.ndim == 2:
            kind = "dense"
        else:
            shortcut = " shortcut" if layer.name.endswith("shortcut") else ""
            kind = f"{mask.shape[0]}x{mask.shape[1]}{shortcut}"
        masked = 1.0 - np.count_nonzero(mask) / mask.size
        rows.append((index, layer.name, kind, mask.size, masked))
        values = [v for v in layer.estimator.values if v] if mask.dtype != bool else []
        shares.append({f"value_{v}": np.count_nonzero(mask == v) / mask.size for v in values})
    table = pd.DataFrame(rows, columns=["layer", "path", "kind", "weights", "masked"])
    return table.join(pd.DataFrame(shares, index=table.index))


def masked_fraction(table: pd.DataFrame) -> float:
    """The fraction of all kernel weights that the masks remove; `table` is a `utilisation`."""
    return float((table.masked * table.weights).sum() / table.weights.sum())
