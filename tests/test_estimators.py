"""The straight-through estimators: forward values, gradients against their formula, randomness,
XLA, look-up.
"""

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
    """The upstream gradient is taken at the 0/1 mask, not at σ(m̂): L = Σ (M − t)² gives 2(M − t)
    σ(1 − σ).
    """
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
    logits = np.array(
        [np.nextafter(boundary, dtype(-np.inf)), boundary, np.nextafter(boundary, dtype(np.inf))],
        dtype,
    )
    # The neighbours of zero are denormal, which TensorFlow flushes to zero: take larger ones.
    if boundary == 0:
        logits = np.array([-1e-30, 0.0, 1e-30], dtype)
    np.testing.assert_array_equal(
        estimators.threshold(tf.constant(logits), tau=tau).numpy(), [0, 0, 1]
    )


def test_threshold_default_is_a_half():
    """Without `tau` a weight is kept where its logit is positive."""
    np.testing.assert_array_equal(
        estimators.threshold(tf.constant([-1.0, 0.0, 1e-10])).numpy(), [0, 0, 1]
    )


@pytest.mark.parametrize("logit", [-4.0, -1.0, 0.0, 0.5, 1.0, 3.0])
def test_bernoulli_mean(logit):
    """The share of ones is σ(m̂), within five standard deviations of a binomial."""
    n, p = 200_000, sigmoid(logit)
    mean = estimators.bernoulli(tf.fill([n], logit), (0, 1)).numpy().astype(np.float64).mean()
    assert abs(mean - p) < 5 * math.sqrt(p * (1 - p) / n)


def test_bernoulli_follows_each_logit():
    """Every element has its own probability: extreme logits are certain, in their places."""
    signs = np.sign(LOGITS)
    np.testing.assert_array_equal(
        estimators.bernoulli(tf.constant(40 * signs), SEED).numpy(), signs > 0
    )


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


# The other estimators, each with its gradient written down once more: from (logits, upstream, mask,
# uniform draw).
def _concrete(m, g, mask, u, temperature=0.7):
    y = sigmoid((m - np.log((u + 2.0**-24) / (1 - u - 2.0**-24))) / temperature)
    return g * y * (1 - y) / temperature


def _intermediate(m, g, mask, u, step_size=0.3):
    """KL(π_D ‖ π) by its definition: the gradient with respect to the two logits, softmax's
    Jacobian included.
    """
    gradients = np.empty_like(m)
    for i in np.ndindex(m.shape):
        incoming = np.array([0.0, g[i]])  # with respect to (out, in)
        drawn = np.array([1.0 - mask[i], mask[i]])
        moved = np.maximum(drawn - step_size * (incoming - incoming @ drawn), 0.0)
        target = moved / moved.sum()
        pi = np.array([1 - sigmoid(m[i]), sigmoid(m[i])])
        jacobian = np.diag(pi) - np.outer(pi, pi)
        gradients[i] = (jacobian @ (-target / pi))[1]  # m̂ is the logit of "in"; that of "out" is 0
    return gradients


def _ranked(m, g, mask, u):
    return g * np.sign(m)


OTHERS = {
    "binary_concrete": (
        lambda m, seed=SEED: estimators.binary_concrete(m, seed, temperature=0.7),
        _concrete,
    ),
    "intermediate_loss": (
        lambda m, seed=SEED: estimators.intermediate_loss(m, seed, step_size=0.3),
        _intermediate,
    ),
    "top_k": (lambda m, seed=SEED: estimators.top_k(m, 0.3), _ranked),
}
each_other = pytest.mark.parametrize("function, formula", OTHERS.values(), ids=OTHERS.keys())


def uniform(logits, seed=SEED):
    """The numbers that a draw compares with σ(m̂)."""
    bits = tf.random.stateless_uniform(
        np.shape(logits), seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
    ).numpy()
    return (bits & (2**23 - 1)) / 2**23


@each_other
def test_other_gradients_are_their_formulas(function, formula):
    """In float64, element by element, for either value of the mask and either sign of the
    gradient.
    """
    mask, gradient = value_and_gradient(function, LOGITS, UPSTREAM)
    assert set(np.unique(mask)) == {0.0, 1.0} and gradient.dtype == tf.float64
    np.testing.assert_allclose(
        gradient.numpy(),
        formula(LOGITS, UPSTREAM, mask.numpy(), uniform(LOGITS)),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("shape", [(3,), (3, 3, 2, 5), (400, 50)], ids=str)
@each_other
def test_other_estimators_under_xla(function, formula, shape):
    """Compiled by XLA the same mask to the bit and the same gradient; a seed gives the same draw
    every time.
    """
    logits = np.random.default_rng(2).normal(scale=2.0, size=shape).astype(np.float32)
    upstream = np.random.default_rng(3).normal(size=shape).astype(np.float32)

    def both(m, seed):
        return value_and_gradient(function, m, upstream, seed)

    graph, compiled = tf.function(both), tf.function(both, jit_compile=True)
    for seed in (SEED, (2**31 - 1, 0)):
        eager = value_and_gradient(function, logits, upstream, tf.constant(seed))
        for mask, gradient in (
            graph(logits, tf.constant(seed)),
            compiled(logits, tf.constant(seed)),
        ):
            np.testing.assert_array_equal(mask.numpy(), eager[0].numpy())
            np.testing.assert_allclose(gradient.numpy(), eager[1].numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["binary_concrete", "intermediate_loss"])
def test_the_same_masks_are_drawn_as_bernoullis(name):
    """Three ways back from one way forward: with one seed they draw one mask."""
    np.testing.assert_array_equal(
        getattr(estimators, name)(tf.constant(LOGITS), SEED),
        estimators.bernoulli(tf.constant(LOGITS), SEED),
    )


@pytest.mark.parametrize("g", [-2.0, 0.0, 0.5])
def test_intermediate_loss_on_average(g):
    """Over both draws: no drift without a gradient, and one against it with: p·ηg/(1 + ηg) or −(1 −
    p)·η|g|/(1 + η|g|).
    """
    m, p, eta = 0.8, sigmoid(0.8), 0.3
    drawn = [
        value_and_gradient(
            lambda x, seed: estimators.intermediate_loss(x, seed, step_size=eta),
            np.array([m]),
            np.array([g]),
            (s, 1),
        )
        for s in range(12)
    ]
    by_mask = {float(mask[0]): float(gradient[0]) for mask, gradient in drawn}
    assert set(by_mask) == {0.0, 1.0}
    move = eta * abs(g) / (1 + eta * abs(g))
    assert p * by_mask[1.0] + (1 - p) * by_mask[0.0] == pytest.approx(
        p * move if g > 0 else -(1 - p) * move, abs=1e-12
    )


def test_binary_concrete_is_the_slope_of_its_relaxation():
    """The gradient is that of σ((m̂ − log(u/(1 − u)))/T), by finite differences at the same
    draw.
    """
    u, t, h = uniform(LOGITS) + 2.0**-24, 0.7, 1e-6

    def relaxed(m):
        return sigmoid((m - np.log(u / (1 - u))) / t)

    _, gradient = value_and_gradient(OTHERS["binary_concrete"][0], LOGITS, UPSTREAM)
    np.testing.assert_allclose(
        gradient,
        UPSTREAM * (relaxed(LOGITS + h) - relaxed(LOGITS - h)) / (2 * h),
        rtol=1e-4,
        atol=1e-8,
    )


@pytest.mark.parametrize("density", [np.float32(1.5), np.float64("nan"), np.float32(0), 2])
def test_top_k_refuses_a_density_of_any_kind_of_number(density):
    """NumPy's numbers are checked as Python's are."""
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        estimators.top_k(tf.constant([1.0, 2.0]), density)


def test_top_k_takes_a_variable_as_density():
    """A schedule may hold the density in a variable; it gets no gradient."""
    scores, density = tf.Variable([3.0, -1.0, 2.0, 0.5]), tf.Variable(0.5)
    with tf.GradientTape() as tape:
        mask = estimators.top_k(scores, density)
        loss = tf.reduce_sum(mask)
    assert mask.numpy().tolist() == [1, 0, 1, 0] and tape.gradient(
        loss, scores
    ).numpy().tolist() == [1, -1, 1, 1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "density, kept", [(1.0, 1000), (0.5, 500), (0.3333, 333), (0.001, 1), (1e-9, 1)]
)
def test_top_k_keeps_as_many_as_it_says(density, kept, dtype):
    """The k largest by magnitude, whatever their sign, under XLA (which selects another way) too;
    at least one.
    """
    scores = tf.cast(np.random.default_rng(5).normal(size=(20, 50)), dtype)
    chosen = np.zeros(1000, bool)
    chosen[np.argsort(-np.abs(scores.numpy()).ravel())[:kept]] = True
    for function in (estimators.top_k, tf.function(estimators.top_k, jit_compile=True)):
        np.testing.assert_array_equal(function(scores, density).numpy().ravel() > 0.5, chosen)
        np.testing.assert_array_equal(
            function(scores, tf.constant(density)).numpy().ravel() > 0.5, chosen
        )


@pytest.mark.slow
def test_top_k_in_a_model_that_keras_compiles_with_xla():
    """`compile(jit_compile=True)` traces the step inside another function: the form that XLA can
    compile is chosen there too.
    """
    from supermask_tf import models

    def trained(jit_compile):
        model = models.lenet_300_100(
            (4, 4, 1), seed=1, estimator=estimators.get("top_k", density=0.5)
        )
        model.compile(
            "sgd",
            tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=jit_compile,
        )
        random = np.random.default_rng(0)
        model.fit(
            random.normal(size=(32, 4, 4, 1)), random.integers(0, 10, 32), epochs=2, verbose=0
        )
        return model.get_layer("dense1").kernel_logits.numpy()

    np.testing.assert_allclose(trained(True), trained(False), rtol=1e-4, atol=1e-6)


def test_top_k_of_equal_scores_keeps_them_all():
    """Equal scores can't be told apart: this is why scores start random."""
    assert estimators.top_k(tf.constant([2.0, -2.0, 2.0, 1.0]), 0.25).numpy().tolist() == [
        1,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@each_estimator
def test_masks_are_zeros_and_ones(function, dtype):
    """A mask holds exactly 0 and 1, both of them here, in the logits' shape and dtype."""
    mask = function(tf.cast(LOGITS, dtype))
    assert mask.dtype == dtype and mask.shape == LOGITS.shape
    assert set(np.unique(tf.cast(mask, tf.float64))) == {0.0, 1.0}


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(3,), (3, 3, 2, 5), (400, 50)], ids=str)
@each_estimator
def test_xla_equals_eager(function, shape):
    """Compiled by XLA (or by `tf.function` alone): the same mask to the bit and the same
    gradient.
    """
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
            np.testing.assert_allclose(
                gradient.numpy(), upstream * s * (1 - s), rtol=1e-5, atol=1e-6
            )


def test_bernoulli_bits_are_pinned():
    """A seed's mask is TensorFlow's own uniform number below σ(m̂), whatever the version: a run's
    draws repeat.
    """
    mask = estimators.bernoulli(tf.zeros([1000]), SEED).numpy()
    uniform = tf.random.stateless_uniform([1000], SEED, alg="philox").numpy()
    np.testing.assert_array_equal(mask, uniform < 0.5)
    assert "".join(str(int(m)) for m in mask[:24]) == "111100000111101110010011"


@pytest.mark.parametrize(
    "given, parameters",
    [
        ("threshold", {"tau": 0.9}),
        ({"name": "threshold", "tau": 0.9}, {}),
        (estimators.threshold, {"tau": 0.9}),
        (estimators.get("threshold", tau=0.9), {}),
    ],
    ids=["name", "dict", "function", "Estimator"],
)
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
    """An estimator that draws takes a seed in training, and 1[σ(m̂) > ½] as its most likely
    mask.
    """
    estimator = estimators.get("bernoulli")
    assert estimator.draws and estimator.get_config() == {"name": "bernoulli"}
    logits = tf.constant(LOGITS)
    np.testing.assert_array_equal(
        estimator(logits, seed=SEED).numpy(), estimators.bernoulli(logits, SEED).numpy()
    )
    np.testing.assert_array_equal(estimator.most_likely(logits).numpy(), LOGITS > 0)


def test_register_makes_a_name_known(monkeypatch):
    """A registered function is found by its name, with its parameters; `register` works as a
    decorator.
    """
    monkeypatch.setattr(estimators, "_KNOWN", dict(estimators._KNOWN))

    @estimators.register
    def above(logits, level=0.0):
        return tf.cast(logits > level, logits.dtype)

    assert callable(above)
    estimator = estimators.get("above", level=2.0)
    np.testing.assert_array_equal(estimator(tf.constant([1.0, 3.0])).numpy(), [0, 1])
    assert estimators.get(estimator.get_config()).parameters == {"level": 2.0}


def test_a_function_under_a_known_name_is_not_saved_as_another():
    """Loaded, the package's own would stand in its place."""

    def threshold(logits):
        return tf.cast(logits > 3.0, logits.dtype)

    with pytest.raises(ValueError, match="'threshold' is not the one that is known by this name"):
        estimators.get(threshold).get_config()


@pytest.mark.parametrize(
    "given, parameters, words",
    [
        ("treshold", {}, ["treshold", "bernoulli", "threshold"]),
        (None, {}, ["None", "bernoulli", "threshold"]),
        ({"name": "nothing"}, {}, ["nothing", "bernoulli", "threshold"]),
        ({"tau": 0.3}, {}, ["tau", "name"]),
        ("threshold", {"temperature": 1.0}, ["threshold", "temperature", "tau"]),
        ("threshold", {"seed": 1}, ["threshold", "seed", "tau"]),
        ("bernoulli", {"tau": 0.5}, ["bernoulli", "tau", "no parameter"]),
        (estimators.get("threshold"), {"tau": 0.5}, ["threshold", "tau"]),
        ("top_k", {}, ["top_k", "needs 'density'"]),
        *(
            ("top_k", {"density": density}, [f"density={density}", "above 0 and at most 1"])
            for density in (0.0, -0.5, 1.5, float("nan"))
        ),
        *(
            ("binary_concrete", {"temperature": t}, [f"temperature={t}", "above 0"])
            for t in (0.0, -1.0, float("nan"))
        ),
        *(
            ("intermediate_loss", {"step_size": step}, [f"step_size={step}", "above 0"])
            for step in (0.0, -1.0, float("nan"))
        ),
        ("threshold", {"tau": 0.0}, ["tau=0.0", "between 0 and 1"]),
        ("threshold", {"tau": 1.0}, ["tau=1.0", "between 0 and 1"]),
        ("threshold", {"tau": -0.1}, ["tau=-0.1", "between 0 and 1"]),
        ("threshold", {"tau": 50}, ["tau=50", "between 0 and 1"]),
        ("threshold", {"tau": float("nan")}, ["tau=nan", "between 0 and 1"]),
    ],
)
def test_bad_input_is_named(given, parameters, words):
    """What can't be used raises a ValueError, at once, that names the value and what is
    accepted.
    """
    with pytest.raises(ValueError) as error:
        estimators.get(given, **parameters)
    assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_threshold_checks_tau_itself(tau):
    """The function checks its threshold also when it is called without `get`."""
    with pytest.raises(ValueError, match=f"tau={tau}.*between 0 and 1"):
        estimators.threshold(tf.zeros([2]), tau=tau)


@pytest.mark.parametrize("compiled", [False, True])
def test_signed(compiled):
    """M = sign(m̂)·1[|m̂| > c]: kept, hidden or turned, and the gradient is the incoming one."""
    logits = tf.constant([-1.0, -0.2, -0.1, 0.0, 0.1, 0.3])
    upstream = tf.constant([1.0, -2.0, 3.0, -4.0, 5.0, -6.0])

    @tf.function(jit_compile=compiled)
    def both():
        with tf.GradientTape() as tape:
            tape.watch(logits)
            mask = estimators.signed(logits, cutoff=0.15)
        return mask, tape.gradient(mask, logits, upstream)

    mask, gradient = both()
    np.testing.assert_array_equal(mask, [-1, -1, 0, 0, 0, 1])
    np.testing.assert_array_equal(gradient, upstream)
    assert estimators.get("signed").values == (-1, 0, 1)
    with pytest.raises(ValueError, match="cutoff=0.0 is out of range"):
        estimators.get("signed", cutoff=0.0)


def test_levels():
    """Logits round to whole numbers within the bounds, and the gradient is the incoming one."""
    logits = tf.constant([-3.0, -0.6, 0.2, 1.4, 2.6, 9.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        mask = estimators.levels(logits, lowest=-1, highest=3)
    np.testing.assert_array_equal(mask, [-1, -1, 0, 1, 3, 3])
    np.testing.assert_array_equal(tape.gradient(mask, logits, 2.0 * logits), 2.0 * logits)
    assert estimators.get("levels", lowest=-1, highest=3).values == (-1, 0, 1, 2, 3)
    with pytest.raises(ValueError, match="lowest=1 and highest=1 are out of range"):
        estimators.get("levels", lowest=1)


@pytest.mark.parametrize(
    "estimator",
    [
        estimators.get("signed", cutoff=0.5),
        estimators.get("levels", lowest=-2, highest=3),
        estimators.get("top_k", density=0.5, coats=3),
        estimators.get("gem_miner"),
        estimators.get("threshold", tau=0.9),
    ],
    ids=lambda e: e.name,
)
def test_logits_express_a_mask(estimator):
    """One of the logits offered for a mask gives this very mask."""
    values = estimator.values
    mask = np.repeat(values, 6)
    if estimator.name == "top_k":  # as many of each number of coats as the densities have
        mask = np.repeat(values, [18, 6, 6, 6])
    assert any(
        np.array_equal(estimator.most_likely(tf.constant(logits, tf.float32)), mask)
        for logits in estimator.expressing(mask)
    )
