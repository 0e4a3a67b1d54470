"""IteRand: which weights are drawn anew, and when."""

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf.iterand import IterativeRandomization
from supermask_tf.layers import masked_layers


def trained(steps, seed=0, compiled=False, kernel_initializer="he_uniform"):
    """The kernels after each step, and the masks, of a network in which a third is kept."""
    model = sm.models.lenet_300_100(
        (4, 4, 1), 3, estimator={"name": "top_k", "density": 0.3},
        kernel_initializer=kernel_initializer,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(steps * 8, 4, 4, 1)).astype(np.float32)
    model.compile(
        tf.keras.optimizers.SGD(0.01),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=compiled,
    )
    seen, layer = [], masked_layers(model)[1]

    def note(batch, logs):
        seen.append((layer.kernel.numpy(), layer.masks["kernel"]))

    model.fit(
        x, np.arange(steps * 8) % 3, batch_size=8, verbose=0, shuffle=False,
        callbacks=[
            IterativeRandomization(every=2, fraction=0.2, seed=seed),
            tf.keras.callbacks.LambdaCallback(on_train_batch_end=note),
        ],
    )  # fmt: skip
    return seen


@pytest.mark.slow
def test_masked_weights_are_drawn_anew():
    """Before every second step each weight that is masked then has a chance of a fifth; the others
    keep their bits, and what is drawn has the distribution of θ0.
    """
    seen = trained(5)
    kernels = [kernel for kernel, _ in seen]
    changed = [a != b for a, b in zip(kernels, kernels[1:])]
    assert [bool(c.any()) for c in changed] == [False, True, False, True]
    for step in (1, 3):
        masked = ~seen[step][1]
        assert not changed[step][~masked].any()
        assert abs(changed[step][masked].mean() - 0.2) < 0.02
        drawn = kernels[step + 1][changed[step]]
        limit = np.sqrt(6 / 300)
        assert np.abs(drawn).max() < limit and abs(drawn.std() - limit / np.sqrt(3)) < 0.01
    assert np.any(changed[1] & changed[3])


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_the_seed_decides(compiled):
    """The same seed draws the same, with XLA too; another one draws others."""
    first, again, other = (trained(3, seed, compiled)[-1][0] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other)


def test_a_foreign_initializer_is_told():
    with pytest.raises(ValueError, match="can't be drawn anew: give it one by name"):
        trained(2, kernel_initializer=tf.keras.initializers.Ones())
