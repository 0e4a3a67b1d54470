"""The small network against TensorFlow's own derivatives, and the enumerated means against draws of
the estimators.
"""

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import enumeration, estimators

NET = enumeration.SmallNet(3)
LOGITS = np.array([0.8, -0.5, 1.5, 0.1, -1.2, 0.4, 2.0, -0.3, 0.9, -0.7])


def loss(masks):
    """The loss of one mask, a float64 tensor of ten, by TensorFlow."""
    x, y = enumeration._quadrants()
    hidden = tf.nn.relu(x @ (NET.hidden * tf.reshape(masks[:8], [4, 2])))
    logit = (hidden @ (NET.output * tf.reshape(masks[8:], [2, 1])))[:, 0]
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(tf.constant(y), logit))


@pytest.mark.parametrize("row", [0, 1, 77, 512, 731, 1023])
def test_losses_and_slopes_are_tensorflows(row):
    """Row r is the mask of r's bits, with the loss and gradient that automatic differentiation
    finds; gains are differences of losses.
    """
    mask = tf.constant([float(row >> i & 1) for i in range(10)], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(mask)
        value = loss(mask)
    np.testing.assert_array_equal(NET.masks[row], mask)
    assert NET.loss[row] == pytest.approx(float(value), rel=1e-12)
    np.testing.assert_allclose(NET.slopes[row], tape.gradient(value, mask), rtol=1e-9, atol=1e-15)
    for i in range(10):
        both = [
            float(loss(tf.tensor_scatter_nd_update(mask, [[i]], [tf.constant(v, tf.float64)])))
            for v in (1.0, 0.0)
        ]
        assert NET.gains[row, i] == pytest.approx(both[0] - both[1], abs=1e-13)


def test_the_true_gradient_is_that_of_the_expected_loss():
    """By finite differences of E L over all 1,024 masks."""

    def expected(m):
        p = 1 / (1 + np.exp(-m))
        return float(np.prod(np.where(NET.masks > 0, p, 1 - p), axis=1) @ NET.loss)

    table = enumeration.gradients(NET, LOGITS)
    for i, true in enumerate(table[table.estimator == "bernoulli"].true):
        h = 1e-5 * np.eye(10)[i]
        assert true == pytest.approx(
            (expected(LOGITS + h) - expected(LOGITS - h)) / 2e-5, rel=1e-5, abs=1e-10
        )


DRAWN = {
    "bernoulli": estimators.bernoulli,
    "binary_concrete, T = 0.3": lambda m, seed: estimators.binary_concrete(
        m, seed, temperature=0.3
    ),
    "intermediate_loss, η = 1": lambda m, seed: estimators.intermediate_loss(
        m, seed, step_size=1.0
    ),
    "intermediate_loss, η = 100": lambda m, seed: estimators.intermediate_loss(
        m, seed, step_size=100.0
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_enumerated_moments_are_those_of_draws(name):
    """Mean and deviation of 4,000 gradients of the package's estimator, each through the loss of
    its own drawn mask.
    """
    draws = 4000
    slopes = tf.constant(NET.slopes)
    logits = tf.constant(np.tile(LOGITS, (draws, 1)))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        masks = DRAWN[name](logits, (1, 2))
        # The upstream gradient of each draw is the slope at its mask.
        rows = tf.cast(
            tf.linalg.matvec(masks, tf.constant(2.0 ** np.arange(10), tf.float64)), tf.int32
        )
        surrogate = tf.reduce_sum(tf.stop_gradient(tf.gather(slopes, rows)) * masks)
    passed = tape.gradient(surrogate, logits).numpy()
    table = enumeration.gradients(NET, LOGITS)
    table = table[table.estimator == name]
    error = table.deviation.to_numpy() / np.sqrt(draws)
    assert (np.abs(passed.mean(0) - table["mean"]) < 5 * error + 1e-12).all()
    np.testing.assert_allclose(passed.std(0), table.deviation, rtol=0.15)


def test_the_jacobian_is_the_sigmoids_slope():
    """Leaving the softmax's Jacobian out of the divergence's gradient divides it by σ(1 − σ): from
    its definition on two logits.
    """
    table = enumeration.gradients(NET, LOGITS, step_sizes=(1.0,)).set_index("estimator")
    p = 1 / (1 + np.exp(-LOGITS))
    with_, without = (
        table.loc[name]["mean"].to_numpy()
        for name in ("intermediate_loss, η = 1", "… without the Jacobian, η = 1")
    )
    np.testing.assert_allclose(with_, without * p * (1 - p), rtol=1e-9)
    # d KL / dπ for (out, in), taken as if it were the gradient of the two logits, whose difference
    # is m̂.
    target, inside = 0.8, p[0]
    slope_out, slope_in = -(1 - target) / (1 - inside), -target / inside
    assert slope_in - slope_out == pytest.approx((inside - target) / (inside * (1 - inside)))


@pytest.mark.slow
def test_threshold_and_top_k_by_hand():
    """Of the changes reported each lowers the loss or not; chance is the share among all changes of
    its kind.
    """
    table = enumeration.first_changes(60).set_index("estimator")
    assert list(table.index) == ["threshold", "top_k"] and (table.n > 30).all()
    assert (
        (table.lowers > 0) & (table.lowers <= 1) & (table["any"] > 0) & (table["any"] < 1)
    ).all()
    assert (
        table.lowers["threshold"] > table["any"]["threshold"]
        and table.lowers["top_k"] > table["any"]["top_k"]
    )
    compared = enumeration.compare(16).set_index("estimator")
    assert (compared.n == 15).all(), (
        "the mask of one state cuts every path for `threshold`: it is left out for all"
    )
    assert (
        (compared.cosine.abs() <= 1).all()
        and (compared.deviation >= 0).all()
        and compared.deviation["threshold"] == 0
    )
    assert (
        compared.deviation["binary_concrete, T = 0.3"]
        > compared.deviation["binary_concrete, T = 1"]
    )
    assert compared.bias["binary_concrete, T = 0.3"] < compared.bias["binary_concrete, T = 1"]


def test_the_first_exchange_of_top_k_by_small_steps():
    """Small steps against dL/dM · sign(s) until the mask changes reach the same share of changes
    that lower the loss.
    """
    found = []
    for state in range(12):
        net, scores = enumeration._net(state), enumeration._logits(state, 1.0)
        bits = 1 << np.arange(enumeration.WEIGHTS)

        def mask(scores):
            return int((np.abs(scores) >= np.sort(np.abs(scores))[-5]) @ bits)

        here = there = mask(scores)
        slope = net.slopes[here]
        if not slope.any():
            continue
        step = 1e-3 / np.abs(slope).max()
        for _ in range(20_000):
            scores = scores - step * slope * np.sign(scores)  # a score that reaches zero turns back
            if (there := mask(scores)) != here:
                break
        if there != here:
            found.append(net.loss[there] < net.loss[here])
    table = enumeration.first_changes(12).set_index("estimator")
    assert table.n["top_k"] == len(found) and table.lowers["top_k"] == pytest.approx(np.mean(found))
