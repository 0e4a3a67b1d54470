"""The masked layers: equal to Keras's own when fully open, exact masks, config round trips, drawn
masks, precision.
"""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import estimators, initializers, layers
from supermask_tf._keras import KERAS
from supermask_tf.layers import MaskedConv2D, MaskedDense, masked_layers

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(3, 9, 8, 4)).astype(np.float32)
ROWS = RNG.normal(size=(5, 6)).astype(np.float32)


def conv(**arguments):
    return MaskedConv2D(**({"filters": 5, "kernel_size": 3, "name": "conv"} | arguments))


def dense(**arguments):
    return MaskedDense(**({"units": 7, "name": "dense"} | arguments))


LAYERS = {"conv": (conv, IMAGES), "dense": (dense, ROWS)}
each_layer = pytest.mark.parametrize("make, inputs", LAYERS.values(), ids=LAYERS.keys())


def assert_equals_keras(masked, keras, inputs):
    """Outputs, and the gradients with respect to input, kernel and bias, are those of Keras's
    layer.
    """
    inputs = tf.constant(inputs)
    masked(inputs), keras(inputs)
    weights = [
        np.random.default_rng(i).normal(size=v.shape).astype(np.float32)
        for i, v in enumerate(keras.weights)
    ]
    keras.set_weights(weights)
    for variable, value in zip((masked.kernel, masked.bias), weights):
        variable.assign(value)
    results = []
    for layer in (masked, keras):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(tf.sin(outputs))
        variables = [layer.kernel] + ([layer.bias] if layer.use_bias else [])
        results.append([outputs, *tape.gradient(loss, [inputs, *variables])])
    assert masked.compute_output_shape(inputs.shape) == keras.compute_output_shape(inputs.shape)
    for ours, theirs in zip(*results):
        assert ours.shape == theirs.shape and float(tf.reduce_max(tf.abs(theirs))) > 0
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"padding": "same"},
        {"strides": 2},
        {"strides": (2, 1), "padding": "same"},
        {"dilation_rate": 2},
        {"dilation_rate": (1, 3), "padding": "same"},
        {"kernel_size": 1, "filters": 2},
        {"kernel_size": (2, 5), "padding": "same"},
        {"use_bias": False},
        {"activation": "relu"},
        {"activation": tf.nn.tanh, "use_bias": False},
        {"filters": 1},
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", repr(value)),
)
def test_open_convolution_is_keras_conv2d(arguments):
    """A fully open `MaskedConv2D` computes what `Conv2D` computes, forwards and backwards."""
    assert_equals_keras(
        conv(**arguments),
        tf.keras.layers.Conv2D(**({"filters": 5, "kernel_size": 3} | arguments)),
        IMAGES,
    )


@pytest.mark.parametrize("inputs", [ROWS, IMAGES[:, 0], IMAGES], ids=["2-D", "3-D", "4-D"])
@pytest.mark.parametrize(
    "arguments", [{}, {"use_bias": False}, {"activation": "relu"}, {"units": 1}], ids=repr
)
def test_open_dense_is_keras_dense(arguments, inputs):
    """A fully open `MaskedDense` computes what `Dense` computes, forwards and backwards."""
    assert_equals_keras(
        dense(**arguments), tf.keras.layers.Dense(**({"units": 7} | arguments)), inputs
    )


@pytest.mark.parametrize(
    "arguments, shape",
    [
        ({"filters": 4, "groups": 2}, (3, 9, 8, 4)),
        ({"filters": 4, "groups": 4, "strides": 2, "padding": "same"}, (3, 9, 8, 4)),
        ({"filters": 4, "groups": 2, "dilation_rate": 2}, (3, 9, 8, 4)),
        ({"filters": 4, "groups": 2, "data_format": "channels_first"}, (3, 4, 9, 8)),
        *([({}, (2, 3, 9, 8, 4))] if KERAS == 2 else []),
    ],
    ids=repr,
)
def test_convolutions_that_keras_treats_apart(arguments, shape):
    """Grouped ones, which plain TensorFlow does not have in float64, and more than one dimension of
    batches are Keras's.
    """
    inputs, arguments = (
        np.random.default_rng(1).normal(size=shape),
        {"filters": 5, "kernel_size": 3, "dtype": "float64"} | arguments,
    )
    assert_equals_keras(conv(**arguments), tf.keras.layers.Conv2D(**arguments), inputs)


RAGGED = tf.RaggedTensor.from_row_lengths(tf.constant(ROWS), [2, 0, 3])


@pytest.mark.parametrize(
    "inputs",
    [
        tf.sparse.from_dense(np.where(ROWS > 0.5, ROWS, 0)),
        ROWS.astype(np.float64),
        *([RAGGED] if KERAS == 2 else []),
    ],
    ids=["sparse", "another dtype", "ragged"][: 3 if KERAS == 2 else 2],
)
def test_inputs_that_dense_takes(inputs):
    """What `Dense` takes beside dense float32 tensors a fully open `MaskedDense` takes too, with
    the same gradients.
    """
    masked, keras = dense(), tf.keras.layers.Dense(7)
    masked.build((None, 6)), keras.build((None, 6))
    keras.kernel.assign(masked.kernel)
    gradients, outputs = [], []
    for layer in (masked, keras):
        with tf.GradientTape() as tape:
            outputs.append(layer(inputs))
            loss = tf.reduce_sum(tf.sin(getattr(outputs[-1], "flat_values", outputs[-1])))
        gradients.append(tf.convert_to_tensor(tape.gradient(loss, layer.kernel)))
    assert (
        type(outputs[0]) is type(outputs[1])
        and outputs[0].shape.as_list() == outputs[1].shape.as_list()
    )
    np.testing.assert_allclose(
        *(getattr(one, "flat_values", one) for one in outputs), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-6)


def test_channels_first():
    """`data_format="channels_first"` puts the bias on the channels (compared with a transposed
    layer).
    """
    first, last = conv(data_format="channels_first"), conv()
    outputs = last(IMAGES)
    last.bias.assign(np.arange(5.0))
    outputs = last(IMAGES)

    @tf.function(
        jit_compile=True
    )  # plain TensorFlow has no such convolution on a processor; XLA has
    def run(x):
        return first(x)

    x = IMAGES.transpose(0, 3, 1, 2)
    first.build(x.shape)
    first.bias.assign(np.arange(5.0))
    np.testing.assert_allclose(
        run(x).numpy().transpose(0, 2, 3, 1), outputs.numpy(), rtol=1e-4, atol=1e-4
    )


def test_masked_dense_against_numpy():
    """Outputs and all four gradients of a partly masked layer follow their formulas in float64."""
    layer = dense(
        units=4, dtype="float64", bias_initializer=tf.keras.initializers.RandomNormal(seed=1)
    )
    x, upstream = ROWS.astype(np.float64), np.random.default_rng(1).normal(size=(5, 4))
    layer.build(x.shape)
    for logits in (layer.kernel_logits, layer.bias_logits):
        logits.assign(np.random.default_rng(2).normal(size=logits.shape))
    with tf.GradientTape() as tape:
        outputs = layer(x, training=True)
        loss = tf.reduce_sum(outputs * upstream)
    gradients = tape.gradient(
        loss, [layer.kernel, layer.bias, layer.kernel_logits, layer.bias_logits]
    )
    w, b, mw, mb = (
        v.numpy() for v in (layer.kernel, layer.bias, layer.kernel_logits, layer.bias_logits)
    )
    assert 0 < (mw > 0).sum() < mw.size and 0 < (mb > 0).sum() < mb.size
    np.testing.assert_allclose(outputs.numpy(), x @ (w * (mw > 0)) + b * (mb > 0), rtol=1e-12)
    dw, db = x.T @ upstream, upstream.sum(0)
    slope = [np.exp(-m) / (1 + np.exp(-m)) ** 2 for m in (mw, mb)]
    for got, expected in zip(
        gradients, (dw * (mw > 0), db * (mb > 0), dw * w * slope[0], db * b * slope[1])
    ):
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11, atol=1e-14)


def test_masked_convolution_is_keras_with_masked_kernel():
    """A partly masked `MaskedConv2D` is `Conv2D` with M ⊙ kernel and M ⊙ bias."""
    layer, keras = conv(padding="same"), tf.keras.layers.Conv2D(5, 3, padding="same")
    layer.build(IMAGES.shape), keras.build(IMAGES.shape)
    layer.bias.assign(np.arange(1.0, 6.0))
    masks = {
        "kernel": np.random.default_rng(1).random((3, 3, 4, 5)) < 0.4,
        "bias": np.array([1, 0, 1, 0, 0], bool),
    }
    layer.set_masks(**masks)
    keras.set_weights([layer.kernel.numpy() * masks["kernel"], layer.bias.numpy() * masks["bias"]])
    np.testing.assert_allclose(layer(IMAGES).numpy(), keras(IMAGES).numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("estimator", ["threshold", "bernoulli"])
@each_layer
def test_masked_weights_are_the_weights_or_zero(make, inputs, estimator):
    """Each masked weight is exactly its weight or exactly 0, in training and at evaluation."""
    layer = make(estimator=estimator, bias_initializer="ones")
    layer.build(inputs.shape)
    layer.kernel_logits.assign(np.random.default_rng(1).normal(size=layer.kernel.shape))
    layer.bias_logits.assign(np.random.default_rng(2).normal(size=layer.bias.shape))
    for training in (True, False):
        for masked, weight in zip(layer.masked_weights(training), (layer.kernel, layer.bias)):
            masked, weight = masked.numpy(), weight.numpy()
            assert np.all((masked == weight) | (masked == 0))
            assert 0 < np.count_nonzero(masked) < weight.size


@pytest.mark.parametrize("name", ["glorot_uniform", "he_uniform", "signed_constant"])
@each_layer
def test_theta0_is_the_portable_initializers(make, inputs, name):
    """The kernel starts as the initializer draws it at "<layer path>/kernel"; the bias at 0; every
    weight in.
    """
    layer = make(kernel_initializer=name, seed=4, name="group1/block2/it")
    layer.build(inputs.shape)
    expected = initializers.get(name)(4, "group1/block2/it/kernel", layer.kernel.shape)
    np.testing.assert_array_equal(layer.kernel.numpy(), expected)
    assert not layer.bias.numpy().any()
    assert np.all(layer.kernel_logits.numpy() == 1.0) and np.all(layer.bias_logits.numpy() == 1.0)


@each_layer
def test_mask_initializer_and_regularizer(make, inputs):
    """The logits start where asked, and their regularizer, not the weights', makes a loss."""
    layer = make(mask_initializer=-0.5, mask_regularizer=tf.keras.regularizers.L1(0.1))
    layer(inputs)
    n = layer.kernel.shape.num_elements() + layer.bias.shape.num_elements()
    assert not any(mask.any() for mask in layer.masks.values())
    np.testing.assert_allclose(sum(float(loss) for loss in layer.losses), 0.1 * 0.5 * n, rtol=1e-5)
    layer = make(mask_initializer=tf.keras.initializers.RandomUniform(-2, -1, seed=0))
    layer.build(inputs.shape)
    values = layer.kernel_logits.numpy()
    assert values.min() >= -2 and values.max() <= -1 and values.std() > 0.1


ANY_ESTIMATOR = pytest.mark.parametrize(
    "estimator",
    [
        "threshold",
        "bernoulli",
        estimators.get("threshold", tau=0.9),
        estimators.get("threshold", tau=0.1),
        estimators.get("threshold", tau=0.9999),
    ],
    ids=lambda e: str(e if isinstance(e, str) else e.get_config()),
)


@ANY_ESTIMATOR
@each_layer
def test_set_masks_round_trip(make, inputs, estimator):
    """Masks come back as they were set, and the layer computes with them, whatever the
    threshold.
    """
    layer = make(estimator=estimator, bias_initializer="ones")
    layer.build(inputs.shape)
    generator = np.random.default_rng(3)
    masks = {
        "kernel": generator.random(layer.kernel.shape) < 0.3,
        "bias": generator.random(layer.bias.shape) < 0.5,
    }
    layer.set_masks(**masks)
    assert layer.masks.keys() == masks.keys()
    for (name, mask), masked in zip(masks.items(), layer.masked_weights(training=False)):
        assert layer.masks[name].dtype == bool
        np.testing.assert_array_equal(layer.masks[name], mask)
        np.testing.assert_array_equal(masked.numpy(), getattr(layer, name).numpy() * mask)
    layer.set_masks(kernel=~masks["kernel"])  # one alone leaves the other
    np.testing.assert_array_equal(layer.masks["kernel"], ~masks["kernel"])
    np.testing.assert_array_equal(layer.masks["bias"], masks["bias"])


def test_a_ranked_mask_that_was_set_can_still_change():
    """Every score gets a gradient, of weights that are out too: sign(0) would give them none for
    ever.
    """
    layer = dense(estimator=estimators.get("top_k", density=0.5), use_bias=False)
    layer.build(ROWS.shape)
    mask = np.arange(42).reshape(6, 7) % 2 > 0
    layer.set_masks(kernel=mask)
    np.testing.assert_array_equal(layer.masks["kernel"], mask)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.masked_weights()[0] * tf.random.stateless_normal([6, 7], [1, 2]))
    assert np.all(tape.gradient(loss, layer.kernel_logits).numpy() != 0)


def test_masks_without_a_bias():
    """A layer without a bias has no bias mask, and says so when given one."""
    layer = dense(use_bias=False)
    layer.build(ROWS.shape)
    assert layer.bias_logits is None and list(layer.masks) == ["kernel"]
    with pytest.raises(ValueError, match="'dense' has no bias"):
        layer.set_masks(bias=np.ones(7, bool))


@pytest.mark.parametrize(
    "masks, words",
    [
        ({"kernel": np.ones((7, 6), bool)}, ["kernel", "'dense'", "(7, 6)", "(6, 7)"]),
        ({"bias": np.ones(6, bool)}, ["bias", "'dense'", "(6,)", "(7,)"]),
        ({"gamma": np.ones(7, bool)}, ["gamma", "'dense'"]),
    ],
)
def test_a_mask_that_does_not_fit(masks, words):
    """A mask of a wrong shape or for a weight that is not there names both, and nothing is
    changed.
    """
    layer = dense()
    layer.build(ROWS.shape)
    with pytest.raises(ValueError) as error:
        layer.set_masks(**masks)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert all(mask.all() for mask in layer.masks.values())


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"estimator": "treshold"}, ["treshold", "threshold"]),
        ({"kernel_initializer": "glorot"}, ["glorot", "glorot_uniform"]),
        ({"estimator": {"name": "threshold", "tau": 2.0}}, ["tau=2.0", "between 0 and 1"]),
        ({"rescale": "more"}, ["'more'", "dynamic, root"]),
    ],
)
@each_layer
def test_bad_arguments(make, inputs, arguments, words):
    """An unknown estimator or initializer is told when the layer is made, before it is built."""
    with pytest.raises(ValueError) as error:
        make(**arguments)
    assert all(word in str(error.value) for word in words), str(error.value)


SHARED = [
    {},
    {"estimator": "bernoulli"},
    {"estimator": estimators.get("threshold", tau=0.9)},
    {"mask_initializer": -2},
    {"mask_initializer": 0.25},
    {"mask_initializer": tf.keras.initializers.RandomUniform(-1, 1, seed=3)},
    {"mask_regularizer": tf.keras.regularizers.L2(0.01)},
    {"mask_regularizer": "l1"},
    {"kernel_initializer": "he_uniform"},
    {"kernel_initializer": "signed_constant", "seed": 9},
    {"kernel_initializer": tf.keras.initializers.HeNormal(seed=3)},
    {"estimator": estimators.get("top_k", density=0.4)},
    {"estimator": estimators.get("binary_concrete", temperature=0.5)},
    {"rescale": "dynamic"},
    {"mask_regularizer": layers.OpenOrClosed(0.1)},
    {"draw_at_evaluation": True, "estimator": "bernoulli"},
    {"use_bias": False},
    {"activation": "relu"},
    {"bias_initializer": tf.keras.initializers.RandomNormal(seed=5)},
    {"dtype": "float64"},
    {"dtype": "mixed_bfloat16"},
    {"kernel_regularizer": tf.keras.regularizers.L1(0.5), "bias_regularizer": "l2"},
    {"name": "a/b/c"},
    {"trainable": False},
    {"kernel_constraint": "non_neg", "bias_constraint": tf.keras.constraints.MaxNorm(2.0)},
]
ROUND_TRIPS = [("dense", a) for a in [*SHARED, {"units": 3}]] + [
    ("conv", a)
    for a in [
        *SHARED,
        {"filters": 2, "kernel_size": (1, 3), "strides": (2, 1), "padding": "same"},
        {"dilation_rate": (2, 1)},
        {"groups": 1, "data_format": "channels_last"},
    ]
]


@pytest.mark.parametrize(
    "kind, arguments", ROUND_TRIPS, ids=lambda value: re.sub(r" at 0x\w+", "", repr(value))
)
def test_config_round_trip(kind, arguments):
    """Every argument survives the config, through JSON too: an equal config and an equal layer come
    out.
    """
    make, inputs = LAYERS[kind]
    layer = make(**arguments)
    config = layer.get_config()
    again = type(layer).from_config(json.loads(json.dumps(config)))
    assert json.dumps(again.get_config()) == json.dumps(config)
    for name, value in arguments.items():
        if isinstance(value, (int, float, bool, tuple)):
            assert getattr(again, name) == value
    for one in (layer, again):
        one.build(inputs.shape)
    assert [v.name for v in layer.weights] == [v.name for v in again.weights]
    for one, two in zip(layer.weights, again.weights):
        np.testing.assert_array_equal(one.numpy(), two.numpy())
        assert one.dtype == two.dtype and one.trainable == two.trainable
    for training in (False, True):
        one, two = layer(inputs, training=training), again(inputs, training=training)
        np.testing.assert_array_equal(
            tf.cast(one, tf.float32).numpy(), tf.cast(two, tf.float32).numpy()
        )
    assert [float(loss) for loss in layer.losses] == [float(loss) for loss in again.losses]


@pytest.mark.parametrize(
    "arguments, name, value",
    [
        (
            {"estimator": estimators.get("threshold", tau=0.9)},
            "estimator",
            {"name": "threshold", "tau": 0.9},
        ),
        ({"kernel_initializer": "he_uniform"}, "kernel_initializer", "he_uniform"),
        ({"mask_initializer": 0.25}, "mask_initializer", 0.25),
        ({"mask_initializer": np.float32(0.25)}, "mask_initializer", 0.25),
        ({"mask_initializer": np.int64(2)}, "mask_initializer", 2.0),
        ({}, "mask_initializer", 1.0),
        ({"seed": 9}, "seed", 9),
        ({"draw_at_evaluation": True}, "draw_at_evaluation", True),
    ],
)
def test_config_says_it_plainly(arguments, name, value):
    """The config holds names and numbers, not objects."""
    assert dense(**arguments).get_config()[name] == value


def drawn(layer, steps):
    """The kernel masks of successive training calls."""
    return np.stack([layer.masked_weights(training=True)[0].numpy() != 0 for _ in range(steps)])


def drawing(make, inputs, **arguments):
    layer = make(estimator="bernoulli", mask_initializer=0.0, **arguments)
    layer.build(inputs.shape)
    return layer


@each_layer
def test_draws_change_step_by_step_and_repeat_from_seed_and_name(make, inputs):
    """Each training call draws a new mask; the sequence is a function of (seed, layer path)
    alone.
    """
    layer = drawing(make, inputs)
    sequence = drawn(layer, 4)
    assert layer.draws.numpy() == 4
    assert len({mask.tobytes() for mask in sequence}) == 4
    np.testing.assert_array_equal(sequence, drawn(drawing(make, inputs), 4))
    for other in (drawing(make, inputs, seed=1), drawing(make, inputs, name="other")):
        assert not np.any([np.array_equal(a, b) for a, b in zip(sequence, drawn(other, 4))])
    layer.draws.assign(2)  # the counter is the whole state
    np.testing.assert_array_equal(sequence[2:], drawn(layer, 2))


@each_layer
def test_draws_follow_the_estimator(make, inputs):
    """A drawn mask is the estimator's, from the seed (fold(seed, "<layer path>/kernel"), step)."""
    layer = drawing(make, inputs, seed=3, name="a/b")
    for step in range(3):
        mask = estimators.bernoulli(
            layer.kernel_logits, (initializers.fold(3, "a/b/kernel"), step)
        ).numpy()
        np.testing.assert_array_equal(
            layer.masked_weights(training=True)[0].numpy(), layer.kernel.numpy() * mask
        )


def test_bias_and_kernel_draw_apart():
    """Kernel and bias of one shape get different draws."""
    layer = MaskedDense(
        400, estimator="bernoulli", mask_initializer=0.0, bias_initializer="ones", name="d"
    )
    layer.build((None, 1))
    kernel, bias = layer.masked_weights(training=True)
    assert not np.array_equal(kernel.numpy().ravel() != 0, bias.numpy() != 0)


@each_layer
def test_evaluation_uses_the_most_likely_mask(make, inputs):
    """At evaluation the mask is 1[σ(m̂) > ½] and no draw is counted, unless drawing there is asked
    for.
    """
    logits = None
    for draw_at_evaluation in (False, True):
        layer = drawing(make, inputs, draw_at_evaluation=draw_at_evaluation, use_bias=False)
        logits = (
            np.random.default_rng(1).normal(size=layer.kernel.shape) if logits is None else logits
        )
        layer.kernel_logits.assign(logits)
        outputs = [layer(inputs, training=False).numpy() for _ in range(3)]
        likely = make(use_bias=False)
        likely.build(inputs.shape)
        likely.set_masks(kernel=logits > 0)
        equal = [np.array_equal(out, likely(inputs).numpy()) for out in outputs]
        assert equal == [not draw_at_evaluation] * 3
        assert layer.draws.numpy() == 3 * draw_at_evaluation
        assert np.array_equal(outputs[0], outputs[1]) != draw_at_evaluation


@each_layer
def test_a_frozen_mask_is_not_drawn(make, inputs):
    """With `mask_frozen` training, too, uses the most likely mask."""
    layer = drawing(make, inputs)
    layer.kernel_logits.assign_add(
        np.where(np.random.default_rng(1).random(layer.kernel.shape) < 0.5, 0.1, -0.1)
    )
    layer.mask_frozen = True
    kernel, _ = layer.masked_weights(training=True)
    np.testing.assert_array_equal(kernel.numpy() != 0, layer.masks["kernel"])
    assert layer.draws.numpy() == 0


@each_layer
def test_the_phase_is_in_the_config_once_there_is_one(make, inputs):
    """A layer keeps the phase of its model for those who clone it; on its own it has none, and its
    mask is free.
    """
    layer = make()
    assert layer.phase is None and "phase" not in layer.get_config()
    layer.phase = "weights"
    again = type(layer).from_config(layer.get_config())
    assert again.phase == "weights" and not again.mask_frozen


@pytest.mark.parametrize(
    "policy, compute", [("mixed_float16", "float16"), ("mixed_bfloat16", "bfloat16")]
)
@each_layer
def test_mixed_precision(make, inputs, policy, compute):
    """Under mixed precision the arithmetic is in half, the logits in float32: one of 1e-10 keeps
    its weight.
    """
    layer = make(dtype=policy, mask_initializer=1e-10, use_bias=False)
    outputs = layer(inputs)
    assert (
        layer.kernel_logits.dtype == tf.float32
        and layer.kernel.dtype == tf.float32
        and outputs.dtype == compute
    )
    assert layer.masks["kernel"].all()
    full = make(use_bias=False)(inputs)
    np.testing.assert_allclose(tf.cast(outputs, tf.float32).numpy(), full.numpy(), atol=0.05)
    assert np.abs(full.numpy()).max() > 0.3
    layer.kernel_logits.assign(tf.fill(layer.kernel.shape, -1e-10))
    assert not tf.cast(layer(inputs), tf.float32).numpy().any()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@each_layer
def test_mixed_precision_gradients_are_float32(make, inputs, policy):
    """The gradient of the logits arrives in float32, near the one of full precision."""
    gradients = []
    for dtype in (policy, "float32"):
        layer = make(dtype=dtype)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(layer(inputs), tf.float32))
        gradients.append(tape.gradient(loss, layer.kernel_logits))
    assert gradients[0].dtype == tf.float32
    scale = np.abs(gradients[1].numpy()).max()
    np.testing.assert_allclose(gradients[0].numpy(), gradients[1].numpy(), atol=0.03 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["threshold", "bernoulli"])
def test_in_a_plain_keras_model_both_train(estimator):
    """In a `keras.Sequential` the layers fit as any others, weights and mask logits both."""
    model = tf.keras.Sequential(
        [
            conv(estimator=estimator, activation="relu"),
            tf.keras.layers.Flatten(),
            dense(estimator=estimator),
        ]
    )
    model.compile(
        tf.keras.optimizers.Adam(0.01),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = np.tile(IMAGES, (8, 1, 1, 1)), np.tile([0, 1, 2], 8)
    model.build(x.shape)
    assert len(model.trainable_variables) == 8
    before = [
        v.numpy() for layer in masked_layers(model) for v in (layer.kernel, layer.kernel_logits)
    ]
    losses = model.fit(x, y, batch_size=12, epochs=5, verbose=0).history["loss"]
    after = [
        v.numpy() for layer in masked_layers(model) for v in (layer.kernel, layer.kernel_logits)
    ]
    assert losses[-1] < losses[0]
    assert all(not np.array_equal(one, two) for one, two in zip(before, after))


def test_masked_layers_are_in_order_and_nested_ones_too():
    """The masked layers of a model come in its order, those of models inside it as well."""
    inner = tf.keras.Sequential([dense(name="b"), tf.keras.layers.ReLU(), dense(name="c")])
    model = tf.keras.Sequential([dense(name="a"), tf.keras.layers.ReLU(), inner, dense(name="d")])
    model.build((None, 6))
    assert [layer.name for layer in masked_layers(model)] == ["a", "b", "c", "d"]


@each_layer
def test_scores_start_random_and_density_is_a_variable(make, inputs):
    """An estimator that ranks starts from portable random scores; a schedule can move its density
    while the graph stays.
    """
    layer = make(estimator=estimators.get("top_k", density=0.5), seed=3)
    layer.build(inputs.shape)
    np.testing.assert_array_equal(
        layer.kernel_logits,
        initializers.scores(3, f"{layer.name}/kernel_logits", layer.kernel.shape),
    )
    assert len(np.unique(layer.kernel_logits)) == layer.kernel.shape.num_elements()
    call = tf.function(lambda x: layer(x, training=True))
    for density in (0.5, 0.25):
        layer.density.assign(density)
        kept = round(density * layer.kernel.shape.num_elements())
        call(inputs)
        assert (
            layer.masks["kernel"].sum()
            == kept
            == np.count_nonzero(layer.masked_weights(training=True)[0])
        )
    assert call.experimental_get_tracing_count() == 1
    assert not any(v is layer.density for v in layer.trainable_weights)
    mask = layer.masks["kernel"][..., ::-1]
    layer.set_masks(kernel=mask)  # as many as the density keeps
    np.testing.assert_array_equal(layer.masks["kernel"], mask)
    with pytest.raises(ValueError, match="can't express"):
        layer.set_masks(kernel=mask & (np.cumsum(mask).reshape(mask.shape) < 2))  # one weight alone


@pytest.mark.parametrize("rescale, power", [("dynamic", 1.0), ("root", 0.5)])
@each_layer
def test_rescaling_makes_up_for_the_weights_that_are_gone(make, inputs, rescale, power):
    """The masked kernel times (weights / weights kept) or its root; the bias is left alone, and no
    gradient goes through.
    """
    layer = make(rescale=rescale, bias_initializer="ones")
    layer.build(inputs.shape)
    mask = np.random.default_rng(0).random(layer.kernel.shape) < 0.3
    layer.set_masks(kernel=mask)
    kernel, bias = layer.masked_weights()
    np.testing.assert_allclose(
        kernel, layer.kernel.numpy() * mask * mask.mean() ** -power, rtol=1e-6
    )
    np.testing.assert_array_equal(bias, np.ones_like(bias))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer.masked_weights()[0])
    slope = sigmoid(layer.kernel_logits.numpy()) * (1 - sigmoid(layer.kernel_logits.numpy()))
    np.testing.assert_allclose(
        tape.gradient(loss, layer.kernel_logits),
        layer.kernel.numpy() * slope * mask.mean() ** -power,
        rtol=1e-5,
        atol=1e-7,
    )
    layer.set_masks(kernel=np.zeros_like(mask))
    assert not np.any(layer.masked_weights()[0])


def test_open_or_closed():
    """Strength times Σ σ(1 − σ): zero for decided masks, largest for undecided ones; it reaches the
    loss.
    """
    logits = tf.constant([-2.0, 0.0, 3.0])
    assert float(layers.OpenOrClosed(2.0)(logits)) == pytest.approx(
        2 * float(tf.reduce_sum(tf.sigmoid(logits) * tf.sigmoid(-logits))), rel=1e-6
    )
    layer = layers.MaskedDense(
        2, use_bias=False, mask_initializer=0.0, mask_regularizer=layers.OpenOrClosed(1.0)
    )
    layer.build((None, 3))
    assert float(layer.losses[0]) == pytest.approx(6 / 4)
    with pytest.raises(ValueError, match="strength=-1"):
        layers.OpenOrClosed(-1)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


K = tf.keras.layers
OWN = type("OwnBatchNorm", (K.BatchNormalization,), {})


@pytest.mark.parametrize(
    "kind, normalises",
    [
        (K.BatchNormalization, True),
        (lambda: K.BatchNormalization(synchronized=True), True),
        *([(tf.compat.v1.keras.layers.BatchNormalization, True)] if KERAS == 2 else []),
        (OWN, True),
        (lambda: K.BatchNormalization(center=False, scale=False), True),
        (K.LayerNormalization, True),
        (lambda: K.LayerNormalization(scale=False), True),
        (lambda: K.GroupNormalization(2), True),
        (lambda: K.Dense(3), False),
        (K.PReLU, False),
        (lambda: conv(), False),
        (K.Normalization, False),
    ],
)
def test_normalizations_are_known_by_what_they_have(kind, normalises):
    """Batch norm in all its classes, subclasses and options, layer and group norm; nothing else."""
    layer = kind()
    layer.build((None, 9, 8, 4))
    assert layers.is_normalization(layer) == normalises


def test_gain():
    """biprop's: the signs of what is kept, times the mean magnitude of that; the mask's gradient is
    that of the effective weights times signs and gain, and the weights' goes straight through.
    """
    layer = layers.MaskedDense(3, rescale="gain", use_bias=False, kernel_initializer="he_uniform")
    layer.build((None, 4))
    mask = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1], [0, 0, 1]], bool)
    layer.set_masks(kernel=mask)
    theta, upstream = layer.kernel.numpy(), np.arange(12.0, dtype=np.float32).reshape(4, 3)
    alpha = np.abs(theta[mask]).mean()
    with tf.GradientTape() as tape:
        kernel, _ = layer.masked_weights()
    to_mask, to_weight = tape.gradient(kernel, [layer.kernel_logits, layer.kernel], upstream)
    np.testing.assert_allclose(kernel, mask * alpha * np.sign(theta), rtol=1e-6)
    slope = tf.sigmoid(layer.kernel_logits) * (1 - tf.sigmoid(layer.kernel_logits))
    np.testing.assert_allclose(to_mask, upstream * alpha * np.sign(theta) * slope, rtol=1e-5)
    np.testing.assert_array_equal(to_weight, upstream * mask)


def test_frozen_weights_count_and_stay():
    """With masked_out="frozen" a masked weight counts as it is, and gets no gradient."""
    layer = layers.MaskedDense(3, masked_out="frozen", use_bias=False)
    layer.build((None, 4))
    mask = np.arange(12).reshape(4, 3) % 2 == 0
    layer.set_masks(kernel=mask)
    with tf.GradientTape() as tape:
        kernel, _ = layer.masked_weights()
    gradient = tape.gradient(kernel, layer.kernel, tf.ones((4, 3)))
    np.testing.assert_array_equal(kernel, layer.kernel)
    np.testing.assert_array_equal(gradient, mask.astype(np.float32))
    assert layers.MaskedDense.from_config(layer.get_config()).masked_out == "frozen"
    with pytest.raises(ValueError, match="masked_out='frozen' does not go with rescale='root'"):
        layers.MaskedDense(3, masked_out="frozen", rescale="root")


@pytest.mark.parametrize(
    "estimator, values",
    [
        ({"name": "signed"}, [-1, 0, 1]),
        ({"name": "levels", "lowest": -2, "highest": 2}, [-2, -1, 0, 1, 2]),
    ],
)
def test_masks_of_more_values(estimator, values):
    """They are int8 arrays, given and read alike; the layer multiplies by them, and rescales by how
    many are not 0.
    """
    layer = layers.MaskedDense(4, estimator=estimator, rescale="dynamic", use_bias=False)
    layer.build((None, 5))
    mask = np.resize(values, (5, 4)).astype(np.int8)
    layer.set_masks(kernel=mask)
    assert layer.masks["kernel"].dtype == np.int8
    np.testing.assert_array_equal(layer.masks["kernel"], mask)
    expected = layer.kernel.numpy() * mask * mask.size / np.count_nonzero(mask)
    np.testing.assert_allclose(layer.masked_weights()[0], expected, rtol=1e-6)
    with pytest.raises(ValueError, match="can't express the given kernel mask"):
        layer.set_masks(kernel=mask * 3)
