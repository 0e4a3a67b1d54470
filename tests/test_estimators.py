"""The straight-through estimators: forward values, gradients against their formula, randomness, XLA, look-up."""

import math

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import estimators

LOGITS = np.random.default_rng(0).normal(scale=3.0, size=(7, 11))
UPSTREAM = np.random.default_rng(1).normal(size=(7, 11))
SEED = (3, 5)


def sigmoid(m):
    return 1.0 / (1.0 + np.exp(-np.asarray(m, np.float64)))


def value_and_gradient(function, logits, upstream, seed=SEED):
    """The mask, and the gradient of Σ upstream · mask with respect to the logits."""
    logits = tf.convert_to_tensor(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mask = function(logits, seed)
        loss = tf.reduce_sum(mask * tf.cast(upstream, logits.dtype))
    return mask, tape.gradient(loss, logits)


ESTIMATORS = {
    "threshold": lambda m, seed=SEED: estimators.threshold(m),
    "threshold tau=0.9": lambda m, seed=SEED: estimators.threshold(m, tau=0.9),
    "threshold tau=0.1": lambda m, seed=SEED: estimators.threshold(m, tau=0.1),
    "bernoulli": lambda m, seed=SEED: estimators.bernoulli(m, seed),
}
each_estimator = pytest.mark.parametrize("function", ESTIMATORS.values(), ids=ESTIMATORS.keys())


@each_estimator
def test_gradient_is_its_formula(function):
    """dL/dm̂ = dL/dM · σ(m̂)(1 − σ(m̂)) in float64, whatever the mask's value and the threshold."""
    _, gradient = value_and_gradient(function, LOGITS, UPSTREAM)
    s = sigmoid(LOGITS)
    assert gradient.dtype == tf.float64
    np.testing.assert_allclose(gradient.numpy(), UPSTREAM * s * (1.0 - s), rtol=1e-12, atol=0)


@each_estimator
def test_gradient_through_a_nonlinear_loss(function):
    """The upstream gradient is taken at the 0/1 mask, not at σ(m̂): L = Σ (M − t)² gives 2(M − t) σ(1 − σ)."""
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mask = function(logits)
        loss = tf.reduce_sum((mask - UPSTREAM) ** 2)
    s = sigmoid(LOGITS)
    expected = 2.0 * (mask.numpy() - UPSTREAM) * s * (1.0 - s)
    np.testing.assert_allclose(tape.gradient(loss, logits).numpy(), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [0.001, 0.1, 0.25, 0.5, 0.73, 0.9, 0.999])
def test_threshold_forward(tau):
    """M = 1[σ(m̂) > τ]."""
    logits = np.linspace(-9, 9, 999)
    mask = estimators.threshold(tf.constant(logits), tau=tau).numpy()
    np.testing.assert_array_equal(mask, (sigmoid(logits) > tau).astype(np.float64))
    assert 0 < mask.sum() < mask.size


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("tau", [0.1, 0.25, 0.5, 0.9])
def test_threshold_is_strict_at_its_boundary(tau, dtype):
    """A logit of exactly logit(τ) is out, the next number above it is in."""
    boundary = dtype(math.log(tau / (1.0 - tau)))
    logits = np.array([np.nextafter(boundary, dtype(-np.inf)), boundary, np.nextafter(boundary, dtype(np.inf))], dtype)
    # The neighbours of zero are denormal, which TensorFlow flushes to zero: take larger ones.
    if boundary == 0:
        logits = np.array([-1e-30, 0.0, 1e-30], dtype)
    np.testing.assert_array_equal(estimators.threshold(tf.constant(logits), tau=tau).numpy(), [0, 0, 1])


def test_threshold_default_is_a_half():
    """Without `tau` a weight is kept where its logit is positive."""
    np.testing.assert_array_equal(estimators.threshold(tf.constant([-1.0, 0.0, 1e-10])).numpy(), [0, 0, 1])


@pytest.mark.parametrize("logit", [-4.0, -1.0, 0.0, 0.5, 1.0, 3.0])
def test_bernoulli_mean(logit):
    """The share of ones is σ(m̂), within five standard deviations of a binomial."""
    n, p = 200_000, sigmoid(logit)
    mean = estimators.bernoulli(tf.fill([n], logit), (0, 1)).numpy().astype(np.float64).mean()
    assert abs(mean - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_bernoulli_follows_each_logit():
    """Every element has its own probability: extreme logits are certain, in their places."""
    signs = np.sign(LOGITS)
    np.testing.assert_array_equal(estimators.bernoulli(tf.constant(40 * signs), SEED).numpy(), signs > 0)


def test_bernoulli_is_a_function_of_its_seed():
    """The same seed gives the same mask; either half of another seed gives an independent one."""
    logits = tf.zeros([100_000])
    mask = estimators.bernoulli(logits, (1, 2)).numpy()
    np.testing.assert_array_equal(mask, estimators.bernoulli(logits, tf.constant([1, 2])).numpy())
    for other in ((1, 3), (2, 2), (2, 1)):
        agreement = (mask == estimators.bernoulli(logits, other).numpy()).mean()
        assert abs(agreement - 0.5) < 5 * 0.5 / math.sqrt(100_000)


def test_bernoulli_ignores_the_global_seed():
    """Randomness is stateless: neither `tf.random.set_seed` nor an earlier draw changes a mask."""
    tf.random.set_seed(1)
    mask = estimators.bernoulli(tf.constant(LOGITS), SEED).numpy()
    tf.random.set_seed(2)
    tf.random.uniform([3])
    np.testing.assert_array_equal(mask, estimators.bernoulli(tf.constant(LOGITS), SEED).numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@each_estimator
def test_masks_are_zeros_and_ones(function, dtype):
    """A mask holds exactly 0 and 1, both of them here, in the logits' shape and dtype."""
    mask = function(tf.cast(LOGITS, dtype))
    assert mask.dtype == dtype and mask.shape == LOGITS.shape
    assert set(np.unique(tf.cast(mask, tf.float64))) == {0.0, 1.0}


@pytest.mark.parametrize("shape", [(3,), (3, 3, 2, 5), (400, 50)], ids=str)
@each_estimator
def test_xla_equals_eager(function, shape):
    """Compiled by XLA (or by `tf.function` alone): the same mask to the bit and the same gradient."""
    # The seed is an argument: of a constant one TensorFlow folds the draw away before XLA sees it.
    logits = np.random.default_rng(2).normal(scale=2.0, size=shape).astype(np.float32)
    upstream = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    graph = tf.function(lambda m, seed: value_and_gradient(function, m, upstream, seed))
    compiled = tf.function(graph, jit_compile=True)
    for seed in (SEED, (2**31 - 1, 0)):
        seed = tf.constant(seed)
        eager = value_and_gradient(function, logits, upstream, seed)
        for mask, gradient in (graph(logits, seed), compiled(logits, seed)):
            np.testing.assert_array_equal(mask.numpy(), eager[0].numpy())
            assert set(np.unique(mask)) <= {0.0, 1.0}
            # 1 − σ cancels where σ is near 1, so that float32 is exact to an absolute 1e-7 only.
            np.testing.assert_allclose(gradient.numpy(), eager[1].numpy(), rtol=1e-5, atol=1e-6)
            s = sigmoid(logits)
            np.testing.assert_allclose(gradient.numpy(), upstream * s * (1 - s), rtol=1e-5, atol=1e-6)


def test_bernoulli_bits_are_pinned():
    """A seed's mask is TensorFlow's own uniform number below σ(m̂), whatever the version: a run's draws repeat."""
    mask = estimators.bernoulli(tf.zeros([1000]), SEED).numpy()
    uniform = tf.random.stateless_uniform([1000], SEED, alg="philox").numpy()
    np.testing.assert_array_equal(mask, uniform < 0.5)
    assert "".join(str(int(m)) for m in mask[:24]) == "111100000111101110010011"


@pytest.mark.parametrize("given, parameters", [
    ("threshold", {"tau": 0.9}),
    ({"name": "threshold", "tau": 0.9}, {}),
    (estimators.threshold, {"tau": 0.9}),
    (estimators.get("threshold", tau=0.9), {}),
], ids=["name", "dict", "function", "Estimator"])
def test_get_binds_parameters(given, parameters):
    """However an estimator is asked for, its parameters are used, and its config finds it again."""
    estimator = estimators.get(given, **parameters)
    logits = tf.constant([1.0, 2.0, 2.3])  # logit(0.9) is 2.197
    assert (estimator.name, estimator.draws) == ("threshold", False)
    assert estimator.get_config() == {"name": "threshold", "tau": 0.9}
    for again in (estimator, estimators.get(estimator.get_config())):
        np.testing.assert_array_equal(again(logits).numpy(), [0, 0, 1])
        np.testing.assert_array_equal(again.most_likely(logits).numpy(), [0, 0, 1])


def test_get_bernoulli():
    """An estimator that draws takes a seed in training, and 1[σ(m̂) > ½] as its most likely mask."""
    estimator = estimators.get("bernoulli")
    assert estimator.draws and estimator.get_config() == {"name": "bernoulli"}
    logits = tf.constant(LOGITS)
    np.testing.assert_array_equal(estimator(logits, seed=SEED).numpy(), estimators.bernoulli(logits, SEED).numpy())
    np.testing.assert_array_equal(estimator.most_likely(logits).numpy(), LOGITS > 0)


def test_register_makes_a_name_known(monkeypatch):
    """A registered function is found by its name, with its parameters; `register` works as a decorator."""
    monkeypatch.setattr(estimators, "_KNOWN", dict(estimators._KNOWN))

    @estimators.register
    def above(logits, level=0.0):
        return tf.cast(logits > level, logits.dtype)

    assert callable(above)
    estimator = estimators.get("above", level=2.0)
    np.testing.assert_array_equal(estimator(tf.constant([1.0, 3.0])).numpy(), [0, 1])
    assert estimators.get(estimator.get_config()).parameters == {"level": 2.0}


@pytest.mark.parametrize("given, parameters, words", [
    ("treshold", {}, ["treshold", "bernoulli", "threshold"]),
    (None, {}, ["None", "bernoulli", "threshold"]),
    ({"name": "nothing"}, {}, ["nothing", "bernoulli", "threshold"]),
    ({"tau": 0.3}, {}, ["tau", "name"]),
    ("threshold", {"temperature": 1.0}, ["threshold", "temperature", "tau"]),
    ("threshold", {"seed": 1}, ["threshold", "seed", "tau"]),
    ("bernoulli", {"tau": 0.5}, ["bernoulli", "tau", "no parameter"]),
    (estimators.get("threshold"), {"tau": 0.5}, ["threshold", "tau"]),
    ("threshold", {"tau": 0.0}, ["tau=0.0", "between 0 and 1"]),
    ("threshold", {"tau": 1.0}, ["tau=1.0", "between 0 and 1"]),
    ("threshold", {"tau": -0.1}, ["tau=-0.1", "between 0 and 1"]),
    ("threshold", {"tau": 50}, ["tau=50", "between 0 and 1"]),
    ("threshold", {"tau": float("nan")}, ["tau=nan", "between 0 and 1"]),
])
def test_bad_input_is_named(given, parameters, words):
    """What can't be used raises a ValueError, at once, that names the value and what is accepted."""
    with pytest.raises(ValueError) as error:
        estimators.get(given, **parameters)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_threshold_checks_tau_itself(tau):
    """The function checks its threshold also when it is called without `get`."""
    with pytest.raises(ValueError, match=f"tau={tau}.*between 0 and 1"):
        estimators.threshold(tf.zeros([2]), tau=tau)
