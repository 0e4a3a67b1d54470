"""Gem-Miner: scores between 0 and 1, rounded to a mask, of which more and more are frozen out.

Sreenivasan et al. (2022, arXiv:2202.12002, "Rare Gems: Finding Lottery Tickets at Initialization",
section 3) train scores from which rounding makes the mask, hold them in [0, 1], penalise their
squares (`layers.ScorePenalty`) and every few epochs freeze the smallest at zero, over all layers
together, so that the fraction left falls exponentially. ::

    model = models.resnet(20, estimator="gem_miner", mask_regularizer=layers.ScorePenalty(2e-4))
    model.compile(tf.keras.optimizers.SGD(0.1, momentum=0.9), loss)
    model.fit(x, y, epochs=150, callbacks=[GradualFreezing(density=0.0372, every=5)])
"""

import numpy as np
import tensorflow as tf

from . import _keras
from .ranking import facts

__all__ = ["GradualFreezing", "UnitInterval", "freeze", "frozen", "gem_miner"]

# A score that is frozen. So far from the others, no step of an optimizer brings it back among them:
# a momentum goes on pushing it for a while.
_FROZEN = -1024.0


def frozen(scores: tf.Tensor) -> tf.Tensor:
    """Which scores are frozen, as booleans."""
    return scores < _FROZEN / 2


@tf.keras.utils.register_keras_serializable("supermask_tf")
class UnitInterval(tf.keras.constraints.Constraint):
    """Holds scores in [0, 1], and frozen ones where they are."""

    def __call__(self, scores):
        return tf.where(frozen(scores), _FROZEN, tf.clip_by_value(scores, 0.0, 1.0))


@facts(start="unit_interval", constraint=UnitInterval())
def gem_miner(scores: tf.Tensor) -> tf.Tensor:
    """The mask of the scores that round to one.

    Forward: `M = 1[s ≥ ½]`. Backward: straight through the step, `dL/ds = dL/dM`, and 0 where a
    score is frozen (Sreenivasan et al. 2022, arXiv:2202.12002, section 3). The scores start
    uniform on (0, 1). Without `GradualFreezing` or a penalty about half of the weights are kept.

    Args:
        scores: any shape, floating point.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `scores`.
    """

    @tf.custom_gradient
    def forward(s):
        def grad(upstream):
            return tf.where(frozen(s), tf.zeros_like(upstream), upstream)

        return tf.cast(s >= 0.5, s.dtype), grad

    return forward(tf.convert_to_tensor(scores))


def freeze(variables: list[tf.Variable], density: float) -> None:
    """Freeze the smallest scores, so that the fraction `density` of all of them is not frozen.

    Args:
        variables: scores, which are ranked together; of equal ones the first are frozen.
        density: fraction left, in (0, 1]. What is frozen stays so.
    """
    scores = np.concatenate([variable.numpy().ravel() for variable in variables])
    left = round(density * scores.size)
    scores[np.argsort(scores, kind="stable")[: scores.size - left]] = _FROZEN
    parts = np.split(scores, np.cumsum([int(tf.size(variable)) for variable in variables])[:-1])
    for variable, part in zip(variables, parts):
        variable.assign(part.reshape(variable.shape))


class GradualFreezing(tf.keras.callbacks.Callback):
    """Freezes the smallest scores of a model's `gem_miner` masks at the begin of every few epochs.

    The fraction left after round i of n is density^(i/n). The last round comes at least one epoch
    before the end, so that the others can settle. The mask keeps what is left and rounds to one.

    Args:
        density: the fraction left after the last round.
        every: epochs from round to round.

    Raises:
        ValueError: when training begins, if there are too few epochs for a round.
    """

    def __init__(self, density: float, every: int):
        super().__init__()
        self.density, self.every = density, every

    def on_train_begin(self, logs=None):
        if self.params["epochs"] <= self.every:
            raise ValueError(
                f"freeze_every={self.every} does not go with epochs={self.params['epochs']}: give"
                " more epochs than that."
            )

    def on_epoch_begin(self, epoch, logs=None):
        if epoch and epoch % self.every == 0:
            rounds = (self.params["epochs"] - 1) // self.every
            freeze(self._scores(), self.density ** (epoch // self.every / rounds))

    def _scores(self) -> list[tf.Variable]:
        return [
            scores
            for layer in _keras.flat(self.model)
            if getattr(getattr(layer, "estimator", None), "function", None) is gem_miner
            for scores in layer.logits.values()
        ]
