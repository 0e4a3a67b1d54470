"""What is measured of a network besides its training comes out as a direct computation has it, and
leaves no trace.
"""

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import data, layers, measuring, models


def images(n=192, shape=(8, 8, 1), seed=0):
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 256, (n, *shape), np.uint8), np.arange(n) % 3
    return data.ImageData("noise", (x, y), (x, y), (x, y), 3, "", (2 / 255, -1.0))


def network(estimator="threshold", **settings):
    model = models.wide_resnet(
        10, 1, (8, 8, 1), 3, estimator=estimator, mask_initializer=0.3, **settings
    )
    random = np.random.default_rng(1)
    model.set_masks({path: random.random(mask.shape) < 0.7 for path, mask in model.masks().items()})
    return model


def statistics(model):
    return [
        v.numpy()
        for layer in measuring.batch_norms(model)
        for v in (layer.moving_mean, layer.moving_variance)
    ]


def trained_once(model):
    """Moving averages that are not at their start."""
    x, y = images().train
    model.compile("adam", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:64] / 127.5 - 1, y[:64], batch_size=32, verbose=0)


@pytest.mark.slow
def test_renewed_averages_equal_a_direct_computation():
    """Each layer's averages are the means, over batches, of the batch's mean and unbiased variance
    of what enters it.
    """
    model, split = network(), images()
    trained_once(model)
    measuring.renew_batch_norm(
        model, data.evaluation_batches(split, "train", 64, drop_remainder=True)
    )
    found = statistics(model)
    inputs = tf.keras.Model(model.inputs, [layer.input for layer in measuring.batch_norms(model)])
    means, variances = [], []
    for x, _ in data.evaluation_batches(split, "train", 64):
        entering = [
            value.numpy().astype(np.float64).reshape(-1, value.shape[-1])
            for value in inputs(x, training=True)
        ]
        means.append([value.mean(0) for value in entering])
        variances.append([value.var(0, ddof=1) for value in entering])
    for index, (mean, variance) in enumerate(zip(found[::2], found[1::2])):
        np.testing.assert_allclose(
            mean, np.mean([m[index] for m in means], axis=0), rtol=2e-4, atol=2e-5
        )
        np.testing.assert_allclose(
            variance, np.mean([v[index] for v in variances], axis=0), rtol=2e-4, atol=2e-5
        )


@pytest.mark.slow
def test_renewing_changes_nothing_else():
    """Weights, masks, gamma and beta, momenta and the number of drawn masks stay; twice gives the
    same bits.
    """
    model = network("bernoulli")
    trained_once(model)
    renewed = {
        id(v)
        for layer in measuring.batch_norms(model)
        for v in (layer.moving_mean, layer.moving_variance)
    }
    before = [v.numpy() for v in model.variables if id(v) not in renewed]
    old = statistics(model)
    for _ in range(2):
        measuring.renew_batch_norm(model, data.evaluation_batches(images(), "train", 64))
    once = statistics(model)
    measuring.renew_batch_norm(model, data.evaluation_batches(images(), "train", 64))
    for a, b in zip(once, statistics(model)):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(old, once))
    for a, b in zip(before, [v.numpy() for v in model.variables if id(v) not in renewed]):
        np.testing.assert_array_equal(a, b)
    assert {layer.momentum for layer in measuring.batch_norms(model)} == {0.99}


@pytest.mark.slow
def test_renewing_takes_the_most_likely_mask():
    """Under an estimator that draws, the averages are those of the mask that is recorded."""
    drawing, fixed = network("bernoulli"), network("threshold")
    for layer, other in zip(layers.masked_layers(drawing), layers.masked_layers(fixed)):
        other.set_masks(**layer.masks)
    for model in (drawing, fixed):
        measuring.renew_batch_norm(model, data.evaluation_batches(images(), "train", 64))
    for a, b in zip(statistics(drawing), statistics(fixed)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_start_facts():
    """The loss is the cross entropy in training mode; a unit that never fires is dead; the network
    stays as it was.
    """
    model, (x, y) = network(), images().train
    trained_once(model)
    x = (x[:100] / 127.5 - 1).astype(np.float32)
    layer = model.get_layer("bn")  # 3 of its 16 channels shut
    layer.beta.assign(tf.where(tf.range(16) < 3, -100.0, layer.beta))
    before = [v.numpy() for v in model.variables]
    facts = measuring.start_facts(model, x, y[:100])
    for a, b in zip(before, model.variables):
        np.testing.assert_array_equal(a, b.numpy())
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        y[:100], model(x, training=True)
    )
    assert facts["start_loss"] == pytest.approx(float(loss), rel=1e-5)
    units = 16 + 2 * (16 + 32 + 64)
    assert facts["dead_units"] == pytest.approx(3 / units)


def test_dead_units_of_dense_layers():
    """A dense layer's units are counted one by one, its activation being its own."""
    model = models.lenet_300_100((8, 8, 1), 3)
    model.get_layer("dense1").bias.assign(
        np.where(np.arange(300) < 30, -100, 100).astype(np.float32)
    )
    model.get_layer("dense2").bias.assign(np.full(100, 1e4, np.float32))
    facts = measuring.start_facts(
        model, *(np.zeros((9, 8, 8, 1), np.float32), np.zeros(9, np.int64))
    )
    assert facts["dead_units"] == pytest.approx(30 / 400)


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [False, True])
def test_rightly_classified(drawn):
    """Its mean is the accuracy that Keras measures, drawn masks included, and no draw is used
    up.
    """
    model = network("bernoulli" if drawn else "threshold", draw_at_evaluation=drawn)
    trained_once(model)
    model.compile(
        "adam",
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    split = images(700, seed=2)
    right = measuring.rightly_classified(model, data.evaluation_batches(split, "test", 100))
    accuracy = model.evaluate(data.evaluation_batches(split, "test", 100), verbose=0)[1]
    assert right.shape == (700,) and right.mean() == pytest.approx(accuracy, abs=1e-6)
