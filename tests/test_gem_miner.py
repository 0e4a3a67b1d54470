"""Gem-Miner: its gradient, its projection, and which scores are frozen when."""

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import estimators, gem_miner
from supermask_tf.layers import masked_layers


@pytest.mark.parametrize("compiled", [False, True])
def test_gradient(compiled):
    """M = 1[s ≥ ½], and dL/ds = dL/dM but for frozen scores, which get none."""
    scores = tf.Variable([0.1, 0.5, 0.49, 0.9, 0.6])
    gem_miner.freeze([scores], 0.8)

    @tf.function(jit_compile=compiled)
    def both():
        with tf.GradientTape() as tape:
            mask = estimators.gem_miner(scores)
        return mask, tape.gradient(mask, scores, tf.constant([1.0, 2.0, -3.0, 4.0, 5.0]))

    mask, gradient = both()
    np.testing.assert_array_equal(mask, [0, 1, 0, 1, 1])
    np.testing.assert_array_equal(gradient, [0, 2, -3, 4, 5])


def test_the_smallest_are_frozen_over_all_layers():
    """The fraction left is that of all scores together; equal ones go in order; what is frozen
    stays.
    """
    a, b = tf.Variable([[0.1, 0.6], [0.3, 0.2]]), tf.Variable([0.2, 0.7, 0.9, 0.8])
    gem_miner.freeze([a, b], 0.75)
    assert gem_miner.frozen(a).numpy().tolist() == [[True, False], [False, True]]
    assert not gem_miner.frozen(b).numpy().any()
    gem_miner.freeze([a, b], 0.5)
    assert gem_miner.frozen(a).numpy().tolist() == [[True, False], [True, True]]
    assert gem_miner.frozen(b).numpy().tolist() == [True, False, False, False]


def model_and_data(**options):
    model = sm.models.lenet_300_100((4, 4, 1), 3, estimator="gem_miner", **options)
    x = np.random.default_rng(0).normal(size=(96, 4, 4, 1)).astype(np.float32)
    return model, x, np.arange(96) % 3


@pytest.mark.parametrize("compiled", [False, True])
def test_training(compiled):
    """Scores start uniform on (0, 1) and stay in [0, 1]; the fraction left falls exponentially to
    what is asked for, an epoch before the end, and a momentum does not bring a frozen one back.
    """
    model, x, y = model_and_data(mask_bias=False)
    scores = [layer.kernel_logits for layer in masked_layers(model)]
    flat = np.concatenate([v.numpy().ravel() for v in scores])
    assert 0 < flat.min() < 0.01 and 0.99 < flat.max() < 1 and abs(flat.mean() - 0.5) < 0.01
    left, frozen = [], []

    def note(epoch, logs):
        values = np.concatenate([v.numpy().ravel() for v in scores])
        out = values < -512
        assert np.all((values[~out] >= 0) & (values[~out] <= 1))
        left.append(1 - out.mean())
        frozen.append(out)
        masks = [layer.masks["kernel"] for layer in masked_layers(model)]
        np.testing.assert_array_equal(
            np.concatenate([mask.ravel() for mask in masks]), values >= 0.5
        )

    model.compile(
        tf.keras.optimizers.SGD(3.0, momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=compiled,
    )
    callbacks = [
        gem_miner.GradualFreezing(density=0.1, every=2),
        tf.keras.callbacks.LambdaCallback(on_epoch_end=note),
    ]
    model.fit(x, y, batch_size=32, epochs=6, verbose=0, callbacks=callbacks)
    np.testing.assert_allclose(left, [1, 1, 0.1**0.5, 0.1**0.5, 0.1, 0.1], atol=1e-4)
    assert all(np.all(after[before]) for before, after in zip(frozen, frozen[1:]))


def test_too_few_epochs():
    model, x, y = model_and_data()
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="freeze_every=2 does not go with epochs=2"):
        model.fit(x, y, epochs=2, verbose=0, callbacks=[gem_miner.GradualFreezing(0.1, 2)])


def test_masks_are_given_and_saved(tmp_path):
    """Any 0/1 mask can be given; the constraint comes back with the layer."""
    model, x, _ = model_and_data()
    given = {path: np.arange(m.size).reshape(m.shape) % 3 == 0 for path, m in model.masks().items()}
    model.set_masks(given)
    for path, mask in model.masks().items():
        np.testing.assert_array_equal(mask, given[path])
    model.save(tmp_path / "net.keras")
    again = tf.keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(again(x), model(x))
    assert isinstance(masked_layers(again)[0].kernel_logits.constraint, gem_miner.UnitInterval)
