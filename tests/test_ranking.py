"""Masks by rank: groups, coats and the ranking of all layers, against plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import estimators, ranking
from supermask_tf.groups import parse
from supermask_tf.layers import masked_layers

SCORES = np.random.default_rng(0).normal(size=(2, 3, 8, 6)).astype(np.float32)
UPSTREAM = np.random.default_rng(1).normal(size=SCORES.shape).astype(np.float32)


def mask_and_gradient(compiled=False, scores=SCORES, upstream=UPSTREAM, **parameters):
    """The mask, and its gradient against `upstream`."""

    @tf.function(jit_compile=compiled)
    def both(s, upstream):
        with tf.GradientTape() as tape:
            tape.watch(s)
            mask = estimators.top_k(s, **parameters)
        return mask, tape.gradient(mask, s, upstream)

    return [part.numpy() for part in both(tf.constant(scores), tf.constant(upstream))]


def largest(values, k):
    """1 where a value is among the k largest."""
    return (values >= np.sort(values, axis=None)[-k]).astype(np.float32)


@pytest.mark.parametrize("kept, of, inputs", [(2, 4, 8), (1, 4, 8), (2, 3, 8), (3, 5, 2)])
def test_n_of_m(kept, of, inputs):
    """Of each M consecutive inputs of an output, at one place of the kernel, the N largest are
    kept; the rest of the inputs is a group that keeps at most N. The gradient is that of top_k.
    """
    scores, upstream = SCORES[:, :, :inputs], UPSTREAM[:, :, :inputs]
    mask, gradient = mask_and_gradient(
        scores=scores, upstream=upstream, density=kept / of, groups=f"{kept}:{of}"
    )
    expected = np.zeros_like(scores)
    for *place, output in np.ndindex(*scores.shape[:2], scores.shape[-1]):
        for start in range(0, inputs, of):
            group = (*place, slice(start, start + of), output)
            values = np.abs(scores[group])
            expected[group] = largest(values, min(kept, len(values)))
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_array_equal(gradient, upstream * np.sign(scores))


def test_n_of_m_with_ties():
    """Equal scores don't make a group keep more: sparse tensor cores take exactly N."""
    mask = estimators.top_k(tf.ones((8, 3)), 0.5, groups="2:4")
    np.testing.assert_array_equal(mask[:, 0], [1, 1, 0, 0, 1, 1, 0, 0])


@pytest.mark.parametrize("groups", ["channels", "2x3", "4x1", "3x4"])
def test_blocks_and_channels(groups):
    """A block is ranked by the mean magnitude of its scores, and is kept or goes as a whole; by the
    chain rule, each of its n scores gets sign(s)/n of the gradients' sum.
    """
    mask, gradient = mask_and_gradient(density=0.4, groups=groups)
    if groups == "channels":
        places = [(slice(None), slice(None), slice(None), slice(o, o + 1)) for o in range(6)]
    else:
        r, c = map(int, groups.split("x"))
        places = [
            (slice(a, a + 1), slice(b, b + 1), slice(i, i + r), slice(o, o + c))
            for a, b in np.ndindex(2, 3)
            for i in range(0, 8, r)
            for o in range(0, 6, c)
        ]
    means = np.array([np.abs(SCORES[place]).mean() for place in places])
    expected, slope = np.zeros_like(SCORES), np.zeros_like(SCORES)
    for place, inside in zip(places, largest(means, round(0.4 * len(places)))):
        expected[place] = inside
        slope[place] = UPSTREAM[place].sum() / UPSTREAM[place].size * np.sign(SCORES[place])
    np.testing.assert_array_equal(mask, expected)
    np.testing.assert_allclose(gradient, slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("coats", [1, 2, 3, 7])
def test_coats(coats):
    """A mask of several coats is the sum of top_k masks of falling densities, and so is its
    gradient.
    """
    mask, gradient = mask_and_gradient(density=0.6, coats=coats)
    parts = [mask_and_gradient(density=0.6 * (coats - i) / coats) for i in range(coats)]
    np.testing.assert_array_equal(mask, sum(part for part, _ in parts))
    np.testing.assert_allclose(gradient, sum(slope for _, slope in parts), rtol=1e-6)
    assert estimators.get("top_k", density=0.6, coats=coats).values == tuple(range(coats + 1))


@pytest.mark.parametrize("round_to", [None, 2], ids=["distinct", "ties"])
def test_coats_of_a_large_layer(round_to):
    """The cuts that are found together are those found one by one, ties and zeros included."""
    scores = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
    scores[:20] = 0
    if round_to:
        scores = scores.round(round_to)
    mask = estimators.top_k(tf.constant(scores), 0.95, coats=5).numpy()
    parts = [estimators.top_k(tf.constant(scores), 0.95 * (5 - i) / 5).numpy() for i in range(5)]
    np.testing.assert_array_equal(mask, sum(parts))


@pytest.mark.parametrize(
    "parameters",
    [
        {"density": 0.5, "groups": "2:4"},
        {"density": 0.3, "groups": "2x3", "coats": 2},
        {"density": 0.3, "groups": "channels"},
        {"density": 0.4, "coats": 3},
    ],
    ids=str,
)
def test_compiled(parameters):
    """XLA finds the same masks and gradients."""
    for ours, theirs in zip(mask_and_gradient(**parameters), mask_and_gradient(True, **parameters)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def network(**parameters):
    masking = {"estimator": estimators.get("top_k", **parameters), "seed": 3}
    return sm.models.lenet_300_100((4, 4, 1), 3, **masking)


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("parameters", [{}, {"coats": 2}, {"groups": "4x1"}], ids=str)
def test_global_ranking(parameters, compiled):
    """With a global scope the scores of all layers compete: before training, and after each step.
    Each layer's gradient is that of its own top_k.
    """
    model = network(density=0.2, scope="global", **parameters)
    groups = parameters.get("groups")

    def check():
        logits = [
            v for layer in masked_layers(model) for v in (layer.kernel_logits, layer.bias_logits)
        ]
        units = [
            ranking._units(tf.abs(v), groups and parse(groups)).numpy().ravel() for v in logits
        ]
        together = np.concatenate(units)
        expected = largest(together, round(0.2 * together.size))
        if parameters.get("coats"):
            expected += largest(together, round(0.1 * together.size))
        found = [
            ranking._units(tf.cast(mask, tf.float32), groups and parse(groups)).numpy().ravel()
            for mask in model.masks().values()
        ]
        np.testing.assert_array_equal(np.concatenate(found), expected)
        densities = [layer.masks["kernel"].astype(bool).mean() for layer in masked_layers(model)]
        assert max(densities) > min(densities) + 0.05

    check()
    model.compile(
        tf.keras.optimizers.SGD(1.0),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=compiled,
    )
    before = model.get_weights()
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype(np.float32)
    model.fit(x, np.arange(64) % 3, epochs=1, batch_size=32, verbose=0)
    assert any(np.any(a != b) for a, b in zip(before, model.get_weights()))
    check()


def test_global_masks_are_given_and_saved(tmp_path):
    """A mask with another fraction kept in each layer can be given, packed and saved."""
    model, other = network(density=0.2, scope="global"), network(density=0.5, scope="global")
    other.set_masks(model.masks())
    x = tf.random.stateless_uniform((5, 4, 4, 1), (0, 1))
    np.testing.assert_array_equal(other(x), model(x))
    packed = sm.load(sm.save(model, tmp_path / "net.supermask"))
    np.testing.assert_array_equal(packed(x), model(x))
    model.save(tmp_path / "net.keras")
    again = tf.keras.models.load_model(tmp_path / "net.keras")
    np.testing.assert_array_equal(again(x), model(x))


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"density": 0.3, "groups": "2:4"}, "density=0.3 does not go with groups='2:4'"),
        ({"density": 0.5, "groups": "2:4", "coats": 2}, "give it no coats and no global scope"),
        ({"density": 0.5, "coats": 0}, "coats=0 is out of range"),
        ({"density": 0.5, "scope": "model"}, "Unknown scope 'model'"),
    ],
)
def test_what_does_not_go_together(parameters, words):
    with pytest.raises(ValueError, match=words):
        estimators.get("top_k", **parameters)
