"""Regularizers of mask logits, as `mask_regularizer` of a masked layer."""

import tensorflow as tf

from .gem_miner import frozen

__all__ = ["OpenOrClosed", "ScorePenalty"]


@tf.keras.utils.register_keras_serializable("supermask_tf")
class OpenOrClosed(tf.keras.regularizers.Regularizer):
    """A mask regularizer that rewards masks that are decided: strength · Σ σ(m̂)(1 − σ(m̂)),
    largest where σ(m̂) = ½.

    Args:
        strength: its weight in the loss, at least 0.

    Raises:
        ValueError: if `strength` is negative.
    """

    def __init__(self, strength: float):
        if not strength >= 0:
            raise ValueError(f"strength={strength!r} is out of range: give a number of at least 0.")
        self.strength = float(strength)

    def __call__(self, logits):
        p = tf.sigmoid(logits)
        return self.strength * tf.reduce_sum(p * (1.0 - p))

    def get_config(self):
        return {"strength": self.strength}


@tf.keras.utils.register_keras_serializable("supermask_tf")
class ScorePenalty(tf.keras.regularizers.Regularizer):
    """A mask regularizer that holds scores small: λ/2 · Σ s².

    Its gradient λ·s is what PyTorch's SGD calls weight decay, which the code of edge-popup
    (Ramanujan et al. 2020, arXiv:1911.13299) lets act on the scores. Gem-Miner's penalty
    (Sreenivasan et al. 2022, arXiv:2202.12002, section 3) is the same on those that are not frozen.

    Args:
        strength: λ, at least 0.

    Raises:
        ValueError: if `strength` is negative.
    """

    def __init__(self, strength: float):
        if not strength >= 0:
            raise ValueError(f"strength={strength!r} is out of range: give a number of at least 0.")
        self.strength = float(strength)

    def __call__(self, scores):
        return 0.5 * self.strength * tf.reduce_sum(tf.where(frozen(scores), 0.0, scores) ** 2)

    def get_config(self):
        return {"strength": self.strength}
