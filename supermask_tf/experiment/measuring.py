"""What a record says of a network besides its training: taken before the first step, and after the
last one. ::

    before = start_facts(model, images, labels)   # its loss, and how many of its units are dead
    renew_batch_norm(model, batches)              # batch norm's averages, of images as they are
    right = rightly_classified(model, batches)    # one truth value per image

None of these trains anything. What they change in passing (batch norm's averages, the number of
masks drawn) they put back, unless changing it is what they are for.
"""

import contextlib
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from ..layers import masked_layers

__all__ = ["renew_batch_norm", "rightly_classified", "start_facts"]


def batch_norms(model: tf.keras.Model) -> list[tf.keras.layers.BatchNormalization]:
    """The batch-norm layers of a model, in their order."""
    return [part for part in model.layers if isinstance(part, tf.keras.layers.BatchNormalization)]


def moving_statistics(model: tf.keras.Model) -> list[tf.Variable]:
    """The moving mean and variance of each batch norm, in their order."""
    return [v for bn in batch_norms(model) for v in (bn.moving_mean, bn.moving_variance)]


def start_facts(model: tf.keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What the first training step will meet: batch norm takes the statistics of these very images.

    Args:
        model: ends in logits.
        images: float32 (n, rows, columns, channels), as the network is fed.
        labels: int64 (n,).

    Returns:
        `start_loss`, the mean cross entropy, and `dead_units`, the fraction of the units behind a
        ReLU (of a convolution: its channels) that are zero for all of the images.
    """
    units = [layer.output for layer in model.layers if _is_relu(layer)]
    whole = tf.keras.Model(model.inputs, [model.outputs[0], *units])
    with _mask_as_recorded(model), _put_back(model):
        logits, *outputs = tf.nest.flatten(whole(tf.constant(images), training=True))
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, tf.cast(logits, tf.float32))
    dead = [
        (tf.reduce_max(tf.abs(output), axis=range(output.shape.rank - 1)) == 0).numpy()
        for output in outputs
    ]
    return {
        "start_loss": float(tf.reduce_mean(losses)),
        "dead_units": float(np.concatenate(dead).mean()) if dead else 0.0,
    }


def renew_batch_norm(model: tf.keras.Model, batches: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> None:
    """Take each batch norm's averages anew, at the weights and the mask that the network has.

    The moving mean and variance become the plain means, over the batches, of what batch norm itself
    would move them towards. A moving average forgets: it lags behind weights that still move, and
    it is one of augmented images, which are not those that are tested.

    Args:
        model: the network; only the moving statistics of its batch norm change.
        batches: (x, y), x as the network is fed; batches of equal size.
    """
    statistics = moving_statistics(model)
    sums, count = [np.zeros(v.shape, np.float64) for v in statistics], 0

    @tf.function
    def forward(x):
        model.distribute_strategy.run(lambda part: model(part, training=True), args=(x,))

    with batch_statistics(model), _put_back(model, statistics):
        for x, _ in batches:
            forward(x)
            count += 1
            for total, variable in zip(sums, statistics):
                total += variable.numpy()
    for variable, total in zip(statistics, sums):
        variable.assign((total / count).astype(np.float32))


def rightly_classified(
    model: tf.keras.Model, batches: Iterable[tuple[tf.Tensor, tf.Tensor]]
) -> np.ndarray:
    """Whether the class with the largest logit is the label: a boolean array, one value per image.

    Where masks are drawn at evaluation, one mask is drawn per batch, as `Model.evaluate` would; the
    number of masks drawn is put back, so that an evaluation that follows draws the same ones.
    """

    @tf.function
    def right(x, y):
        return tf.argmax(model(x, training=False), axis=-1, output_type=y.dtype) == y

    with _put_back(model):
        return np.concatenate([right(x, y).numpy() for x, y in batches])


def _is_relu(layer: tf.keras.layers.Layer) -> bool:
    activation = getattr(layer, "activation", None)
    return isinstance(layer, tf.keras.layers.ReLU) or activation is tf.keras.activations.relu


@contextlib.contextmanager
def _put_back(model: tf.keras.Model, but: Iterable[tf.Variable] = ()) -> Iterator[None]:
    """Let nothing that a forward pass changes stay changed, `but` these variables."""
    spared = {id(variable) for variable in but}
    moved = [v for v in model.variables if not v.trainable and id(v) not in spared]
    before = [variable.numpy() for variable in moved]
    try:
        yield
    finally:
        for variable, value in zip(moved, before):
            variable.assign(value)


@contextlib.contextmanager
def batch_statistics(model: tf.keras.Model) -> Iterator[None]:
    """Let a forward pass in training leave, as batch norm's moving statistics, those of its own
    batch, with the masks at their most likely values.
    """
    layers = batch_norms(model)
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.momentum = 0.0
        with _mask_as_recorded(model):
            yield
    finally:
        for layer, momentum in zip(layers, momenta):
            layer.momentum = momentum


@contextlib.contextmanager
def _mask_as_recorded(model: tf.keras.Model) -> Iterator[None]:
    """Hold the masks at their most likely values, although batch norm is in training."""
    layers = [layer for layer in masked_layers(model) if not layer.draw_at_evaluation]
    before = [layer.mask_frozen for layer in layers]
    try:
        for layer in layers:
            layer.mask_frozen = True
        yield
    finally:
        for layer, frozen in zip(layers, before):
            layer.mask_frozen = frozen
