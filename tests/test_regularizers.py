"""The penalty of scores, by its formula and in training."""

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import gem_miner, regularizers


def test_score_penalty():
    """λ/2 · Σ s², whose gradient is λ·s; what Gem-Miner has frozen counts for nothing."""
    scores = tf.Variable([0.5, -2.0, 0.0, 1.0, 0.3])
    gem_miner.freeze([scores], 0.8)  # the smallest, −2
    penalty = regularizers.ScorePenalty(0.1)
    with tf.GradientTape() as tape:
        loss = penalty(scores)
    np.testing.assert_allclose(loss, 0.05 * (0.25 + 1.0 + 0.09), rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(loss, scores), [0.05, 0.0, 0.0, 0.1, 0.03], rtol=1e-6)
    again = regularizers.ScorePenalty(**penalty.get_config())
    assert float(again(scores)) == float(loss)
    with pytest.raises(ValueError, match="strength=-1 is out of range"):
        regularizers.ScorePenalty(-1)
