"""Any Keras model masked, and back: what it computes, what trains, what is kept and refused."""

import json
import re
import threading
import warnings

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import supermask_tf as sm
from supermask_tf import _keras, _kinds, masking

L = tf.keras.layers


def image(channels=2, side=6):
    return (side, side, channels)


def chain(*layers, of=None, name=None):
    return tf.keras.Sequential([tf.keras.Input(of or image()), *layers], name=name)


def functional(build, *shapes, name=None):
    inputs = [tf.keras.Input(shape) for shape in shapes]
    return tf.keras.Model(inputs if len(inputs) > 1 else inputs[0], build(*inputs), name=name)


def attention(**options):
    return lambda x: L.MultiHeadAttention(2, 3, **options)(x, x)


def transformer(x):
    x = L.Dense(8, name="embed")(x)
    for block in "a":
        y = L.LayerNormalization(name=f"{block}_norm")(x)
        x = L.Add()([x, L.MultiHeadAttention(2, 4, name=f"{block}_attention")(y, y)])
        y = L.Dense(12, activation="gelu", name=f"{block}_wide")(x)
        x = L.Add()([x, L.Dense(8, name=f"{block}_narrow")(y)])
    return L.Dense(3)(L.GlobalAveragePooling1D()(x))


def inverted_residual(x):
    y = L.Conv2D(6, 1, use_bias=False, name="expand")(x)
    y = L.ReLU(6.0)(L.BatchNormalization()(y))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(y)
    y = L.Activation("tanh")(L.BatchNormalization()(y))
    return L.Add()([x, L.BatchNormalization()(L.Conv2D(2, 1, use_bias=False)(y))])


def shared_layer(x):
    dense = L.Dense(4, activation="tanh", name="twice")
    return L.Dense(2)(dense(dense(x)))


def shared_network(x):
    inner = chain(L.Dense(5, activation="tanh"), L.Dense(4), of=(4,), name="inner")
    return L.Add()([inner(x), inner(inner(x))])


def nested(x):
    inside = functional(lambda y: L.Conv2D(2, 1)(L.Conv2D(3, 3)(y)), image(), name="inside")
    middle = chain(inside, L.Flatten(), of=image(), name="middle")
    return L.Dense(3)(middle(x))


def siamese(a, b):
    tower = chain(L.Flatten(), L.Dense(4, activation="tanh"), name="tower")
    return {"near": L.Dot(1)([tower(a), tower(b)]), "a": L.Dense(2)(tower(a))}


def arithmetic(x):
    return L.Dense(2)(tf.keras.activations.tanh(L.Dense(4)(x)) * 2.0 + 1.0)


def in_precision(policy, build):
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(policy)
    try:
        return build()
    finally:
        tf.keras.mixed_precision.set_global_policy(before)


MODELS = {
    "dense": lambda: chain(L.Dense(3), of=(4,)),
    "dense on a sequence": lambda: chain(L.Dense(3, use_bias=False), of=(5, 4)),
    "conv1d": lambda: chain(L.Conv1D(3, 2, strides=2), of=(7, 2)),
    "causal conv1d": lambda: chain(L.Conv1D(3, 2, padding="causal", dilation_rate=2), of=(7, 2)),
    "conv2d": lambda: chain(L.Conv2D(3, 2, strides=2, padding="same")),
    "conv2d in groups": lambda: chain(L.Conv2D(4, 1, groups=2)),
    "dilated conv2d": lambda: chain(L.Conv2D(3, 2, dilation_rate=2, activation="tanh")),
    "conv3d": lambda: chain(L.Conv3D(2, 2), of=(4, 4, 4, 2)),
    "depthwise": lambda: chain(L.DepthwiseConv2D(2, depth_multiplier=2)),
    "depthwise conv1d": lambda: chain(L.DepthwiseConv1D(2), of=(7, 2)),
    "separable": lambda: chain(L.SeparableConv2D(3, 2, depth_multiplier=2)),
    "separable conv1d": lambda: chain(L.SeparableConv1D(3, 2), of=(7, 2)),
    "transposed": lambda: chain(L.Conv2DTranspose(3, 2, strides=2)),
    "transposed conv1d": lambda: chain(L.Conv1DTranspose(3, 2), of=(7, 2)),
    "transposed conv3d": lambda: chain(L.Conv3DTranspose(2, 2), of=(3, 3, 3, 2)),
    "einsum": lambda: chain(
        L.EinsumDense("abc,cde->abde", (None, 3, 2), bias_axes="de"), of=(5, 4)
    ),
    "embedding": lambda: chain(L.Embedding(6, 3), L.Dense(2), of=(6,)),
    "embedding with padding": lambda: chain(L.Embedding(6, 3, mask_zero=True), L.LSTM(2), of=(6,)),
    "attention": lambda: functional(attention(), (5, 4)),
    "attention without bias": lambda: functional(attention(use_bias=False, value_dim=2), (5, 4)),
    "attention on an image": lambda: functional(attention(attention_axes=(1, 2)), image(3, 4)),
    "cross attention": lambda: functional(
        lambda a, b: L.MultiHeadAttention(2, 3, dropout=0.1)(a, b), (5, 4), (3, 6)
    ),
    "transformer": lambda: functional(transformer, (5, 4)),
    "inverted residual": lambda: functional(inverted_residual, image()),
    "shared layer": lambda: functional(shared_layer, (4,)),
    "shared network": lambda: functional(shared_network, (4,)),
    "nested": lambda: functional(nested, image()),
    "two inputs, named outputs": lambda: functional(siamese, image(), image()),
    "time distributed": lambda: chain(L.TimeDistributed(L.Conv2D(2, 2)), of=(3, *image())),
    "arithmetic": lambda: functional(arithmetic, (4,)),
    "with a layer that has no masks": lambda: chain(L.Dense(4), L.GRU(3), L.Dense(2), of=(5, 4)),
    "bfloat16": lambda: in_precision(
        "mixed_bfloat16",
        lambda: chain(L.Conv2D(3, 2), L.DepthwiseConv2D(2), L.Flatten(), L.Dense(2)),
    ),
    "attention in bfloat16": lambda: in_precision(
        "mixed_bfloat16", lambda: functional(attention(), (5, 4))
    ),
    "float64": lambda: in_precision("float64", lambda: chain(L.Conv1D(3, 2), of=(7, 2))),
}
# TensorFlow's convolution has no kernel for it on a CPU.
if tf.config.list_physical_devices("GPU"):
    MODELS["channels first"] = lambda: chain(L.Conv2D(3, 2, data_format="channels_first"))


def shaken(model, seed=0):
    """The model with random weights, biases and averages; variances and scales positive."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        if "float" in str(variable.dtype):
            positive = re.search("variance|gamma", getattr(variable, "path", variable.name))
            value = random.normal(0, 0.5, tuple(variable.shape))
            variable.assign(np.abs(value) + 0.5 if positive else value)
    return model


def data(model, seed=0, batch=3):
    """A batch for a model; where it embeds, every index."""
    random = np.random.default_rng(seed)
    embeds = any(isinstance(layer, L.Embedding) for layer in model.layers)
    batches = [
        np.stack([random.permutation(6) for _ in range(batch)])
        if embeds
        else random.normal(size=(batch, *tensor.shape[1:])).astype("float32")
        for tensor in model.inputs
    ]
    return batches if len(batches) > 1 else batches[0]


def arrays(outputs):
    return [np.array(tf.cast(part, tf.float64)) for part in tf.nest.flatten(outputs)]


def same(model, other, inputs, tolerance=0.0):
    for a, b in zip(arrays(model(inputs)), arrays(other(inputs)), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def quietly(*arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sm.mask(*arguments, **options)


def random_masks(model, seed=0, density=0.6):
    random = np.random.default_rng(seed)
    model.set_masks({path: random.random(m.shape) < density for path, m in model.masks().items()})
    return model


def tolerance(name):
    return 0.02 if "bfloat16" in name else 1e-4


# --- what it computes -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_open_masks_change_nothing_and_every_logit_gets_a_gradient(name):
    """With every weight kept the masked model computes the original's function; the loss's
    gradient reaches each logit; the plain form predicts as the masked one.
    """
    model = shaken(MODELS[name]())
    inputs = data(model)
    masked = quietly(model, weights="keep")
    same(model, masked, inputs)
    assert all(mask.all() for mask in masked.masks().values()) and masked.phase == "mask"

    logits = {
        f"{layer.name}/{weight}": _keras.raw(variable)
        for layer in sm.layers.masked_layers(masked)
        for weight, variable in layer.logits.items()
    }
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(logits.values()))
        outputs = [tf.cast(y, tf.float32) for y in tf.nest.flatten(masked(inputs, training=True))]
        loss = tf.add_n([tf.reduce_sum(tf.sin(y + 0.3 * y**2)) for y in outputs])
    for path, gradient in zip(logits, tape.gradient(loss, list(logits.values()))):
        assert gradient is not None, path
        # Softmax does not see a shift of all keys; the index 0 is padding there.
        if not path.endswith("/key/bias") and "padding" not in name:
            assert (
                np.count_nonzero(tf.convert_to_tensor(gradient))
                > 0.9 * gradient.shape.num_elements()
            ), path

    random_masks(masked)
    plain = sm.plain(masked)
    same(masked, plain, inputs, tolerance(name))
    assert "supermask" not in plain.to_json().lower()
    assert not sm.layers.masked_layers(plain)


# One of each way in which a model can be put together.
QUICK = ("separable", "attention", "embedding", "nested", "shared network", "time distributed")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.long) for n in MODELS]
)
def test_what_is_saved_and_cloned_comes_back(name, tmp_path):
    """A `.keras` file, weights in .h5 and clones bring masks and predictions back to the bit."""
    masked = random_masks(quietly(shaken(MODELS[name]()), weights="keep"))
    inputs = data(masked)
    masked.save(tmp_path / "a.keras")
    loaded = tf.keras.models.load_model(tmp_path / "a.keras")
    clone = tf.keras.models.clone_model(masked)
    clone.set_weights(masked.get_weights())
    for other in (loaded, clone):
        same(masked, other, inputs)
        assert type(other) is sm.SupermaskModel and other.phase == masked.phase
        masks = other.masks()
        assert masks.keys() == masked.masks().keys()
        assert all(np.array_equal(masks[path], m) for path, m in masked.masks().items())
    plain = sm.plain(masked)
    plain.save(tmp_path / "b.keras")
    same(plain, tf.keras.models.load_model(tmp_path / "b.keras"), inputs)


@pytest.mark.long
@pytest.mark.parametrize("name", ["separable", "cross attention", "nested", "embedding"])
def test_saved_model_and_tflite(name, tmp_path):
    """Exported, masked and plain forms predict what they did."""
    masked = random_masks(quietly(shaken(MODELS[name]()), weights="keep"))
    inputs = data(masked)
    (expected,) = arrays(masked(inputs))
    given = [tf.constant(x, t.dtype) for x, t in zip(tf.nest.flatten(inputs), masked.inputs)]
    plain = sm.plain(masked)
    for number, model in enumerate((masked, plain)):
        model.export(str(tmp_path / str(number)))
        loaded = tf.saved_model.load(str(tmp_path / str(number)))
        (found,) = arrays(loaded.serve(given if len(given) > 1 else given[0]))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    content = tf.lite.TFLiteConverter.from_keras_model(plain).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    details = interpreter.get_input_details()
    for detail, tensor in zip(sorted(details, key=lambda d: d["name"]), given):
        interpreter.resize_tensor_input(detail["index"], tensor.shape)
    interpreter.allocate_tensors()
    by_shape = {tuple(tensor.shape): tensor for tensor in given}
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], by_shape[tuple(detail["shape"])].numpy())
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "inverted residual", "embedding"])
def test_phases_train_what_they_say(name, tmp_path):
    """In phase "mask" every weight under a mask keeps its bits and masks move; in phase "weights"
    no logit moves.
    """
    masked = quietly(MODELS[name](), seed=3)
    inputs = data(masked, batch=8)
    targets = np.random.default_rng(0).normal(size=arrays(masked(inputs))[0].shape)
    masked.compile(tf.keras.optimizers.Adam(0.3), "mse")
    theta, masks = masked.theta(), masked.masks()
    masked.fit(inputs, targets, epochs=5, verbose=0)
    assert all(np.array_equal(theta[path], now) for path, now in masked.theta().items())
    moved = masked.masks()
    assert any(not np.array_equal(masks[path], now) for path, now in moved.items())
    masked.phase = "weights"
    masked.optimizer.learning_rate = 0.01
    masked.fit(inputs, targets, epochs=2, verbose=0)
    assert all(np.array_equal(moved[path], now) for path, now in masked.masks().items())
    assert not all(np.array_equal(theta[path], now) for path, now in masked.theta().items())
    masked.save(tmp_path / "trained.keras")
    loaded = tf.keras.models.load_model(tmp_path / "trained.keras")
    assert loaded.phase == "weights"
    # Keras 3's own batch norm is not fused, and rounds otherwise in another graph.
    same(masked, loaded, inputs, 0.0 if _keras.KERAS == 2 else 1e-5)


def test_drawn_masks_differ_by_step_and_not_by_name():
    """A mask drawn in training is another one each step; a second network of the same shape,
    whose layers Keras has numbered on, draws the same ones.
    """
    first, second = (quietly(MODELS["separable"](), "bernoulli", seed=5) for _ in range(2))
    inputs = data(first)
    a, b = (arrays(model(inputs, training=True))[0] for model in (first, second))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, arrays(first(inputs, training=True))[0])
    same(first, second, inputs)  # at evaluation nothing is drawn


# --- which weights --------------------------------------------------------------------------------


@pytest.mark.slow
def test_theta0_is_a_function_of_the_seed_alone():
    """The same kernels for the same seed, whatever was built before; biases and norms start
    anew; the original keeps its weights.
    """
    with pytest.warns(UserWarning, match="looks trained.*weights='keep'"):
        first = sm.mask(shaken(MODELS["transformer"](), 1), seed=7)
    model = MODELS["transformer"]()
    before = model.get_weights()
    second, other = sm.mask(model, seed=7), sm.mask(model, seed=8)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
    assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights()))
    a, b = first.theta(), other.theta()
    for path in a:
        assert np.array_equal(a[path], b[path]) == path.endswith("bias"), path
    kernel = a["a_attention/query/kernel"]
    drawn = sm.initializers.glorot_uniform(7, "a_attention/query/kernel", kernel.shape)
    assert np.array_equal(kernel, drawn)
    signed = sm.mask(model, kernel_initializer="signed_constant").theta()["a_wide/kernel"]
    assert len(np.unique(np.abs(signed))) == 1


@pytest.mark.slow
def test_only_some_layers():
    """Names, paths, networks and classes; what is not named keeps its weights and its norms."""
    model = shaken(functional(nested, image()))

    def paths(only):
        found = sm.mask(model, only=only, weights="keep").masks()
        return sorted({path.rpartition("/")[0] for path in found})

    everything = ["dense", "middle/inside/conv2d", "middle/inside/conv2d_1"]
    assert paths(None) == everything
    assert paths("middle") == paths(["inside"]) == paths(L.Conv2D) == everything[1:]
    assert paths(["middle/inside/conv2d_1", L.Dense]) == [everything[0], everything[2]]

    norms = shaken(functional(inverted_residual, image()))
    part = quietly(norms, only="expand")
    assert set(part.masks()) == {"expand/kernel"}
    assert set(masking.unmasked(part)) == {"depthwise", "conv2d"} - {"conv2d"} | {
        path for path in masking.unmasked(part) if path.startswith("conv2d")
    }
    random = np.random.default_rng(0)
    kernel = random.normal(size=(1, 1, 2, 6))
    part.get_layer("expand").kernel.assign(kernel)
    norms.get_layer("expand").kernel.assign(kernel)
    same(norms, part, data(norms))


def test_what_is_left_is_named():
    """A layer that has no masked form is warned of and listed, and keeps its weights."""
    model = MODELS["with a layer that has no masks"]()
    with pytest.warns(UserWarning, match=r"left as they are: gru \(GRU\)"):
        masked = sm.mask(model)
    assert list(masking.unmasked(masked).values()) == ["GRU"]
    gru = [[each for each in m.layers if isinstance(each, L.GRU)][0] for m in (model, masked)]
    assert all(np.array_equal(a, b) for a, b in zip(*(layer.get_weights() for layer in gru)))
    scaled = chain(L.Normalization(mean=[1.0], variance=[4.0]), L.Dense(2), of=(3,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = sm.mask(scaled)  # preprocessing is no matter of masks, and keeps its state
    kept.set_weights(scaled.get_weights()[:0] + kept.get_weights())
    x = data(scaled)
    np.testing.assert_allclose(kept.layers[1](x), scaled.layers[0](x), rtol=1e-6)


def test_frozen_layers():
    """A frozen backbone can be masked; what has no mask stays frozen."""
    model = functional(inverted_residual, image())
    model.trainable = False
    masked = sm.mask(model, weights="keep")
    names = [v.name for v in masked.trainable_variables]
    assert len(names) == 3 and all("logits" in name for name in names)


def test_records_and_tickets_read_it():
    """`theta` and `masks` have the same paths and shapes, so that the tickets' criteria make masks
    for it.
    """
    masked = quietly(shaken(MODELS["attention"]()), weights="keep")
    theta = masked.theta()
    assert {path: a.shape for path, a in theta.items()} == {
        path: mask.shape for path, mask in masked.masks().items()
    }
    kernels = {path: a for path, a in theta.items() if path.endswith("kernel")}
    made = sm.tickets.masks(kernels, kernels, density=0.5)
    masked.set_masks(made)
    assert all(np.array_equal(masked.masks()[path], mask) for path, mask in made.items())
    with pytest.raises(ValueError, match="no masked weight 'nothing/kernel'; it has "):
        masked.set_masks({"nothing/kernel": np.ones(3)})


@pytest.mark.parametrize("weights", ["theta0", "keep"])
def test_packed(weights, tmp_path):
    """What `mask` made of dense layers and 2-D convolutions is packed and loaded as others are."""
    layers = L.Conv2D(4, 3), L.BatchNormalization(), L.ReLU(), L.Flatten(), L.Dense(5)
    masked = random_masks(quietly(shaken(chain(*layers, name="mine")), weights=weights))
    path = sm.save(masked, tmp_path / "net.supermask")
    loaded = sm.load(path)
    # To the bit, but that Keras 3's own batch norm rounds otherwise than ours, which is loaded.
    same(masked, loaded, data(masked), 0.0 if _keras.KERAS == 2 else 1e-5)
    assert loaded.masks().keys() == masked.masks().keys()
    stored = {entry["path"] for entry in sm.packing.read(path).header["arrays"]}
    assert ("conv2d/kernel" in stored) == (weights == "keep")  # θ0 needs no place
    with pytest.raises(ValueError, match="MaskedSeparableConv2D, which a packed file can't"):
        sm.save(quietly(MODELS["separable"]()), tmp_path / "other.supermask")


# --- what is refused ------------------------------------------------------------------------------


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = L.Dense(2)

    def call(self, x):
        return self.dense(x)


class WithoutConfig(L.Layer):
    def __init__(self, size):
        super().__init__()
        self.size = size

    def call(self, x):
        return x * self.size

    def get_config(self):
        raise NotImplementedError("no configuration")


def small():
    return chain(L.Dense(3, name="d"), L.GRU(2, name="g"), of=(5, 4), name="small")


@pytest.mark.parametrize(
    "model, options, words",
    [
        (lambda: "net", {}, "model='net' can't be masked: give a Keras model"),
        (lambda: L.Dense(2), {}, "can't be masked: give a Keras model"),
        (
            lambda: tf.keras.Sequential([L.Dense(2)], name="n"),
            {},
            "'n' is not built: give it a tf.keras.Input",
        ),
        (Subclassed, {}, "Keras does not know the graph of a subclassed model; build it as"),
        (
            lambda: chain(L.Dense(2), WithoutConfig(2), of=(3,)),
            {},
            "a WithoutConfig, can't be made again from its get_config().*no configuration",
        ),
        (small, {"only": "x"}, "only names 'x', and 'small' has no such layer; it can mask d"),
        (small, {"only": "g"}, "only names 'g', but 'g' is a GRU, which can't be masked; these"),
        (small, {"only": L.GRU}, "only names 'GRU', but 'g' is a GRU, which can't be masked"),
        (small, {"only": L.Conv2D}, "only names 'Conv2D', and 'small' has no such layer"),
        (small, {"only": []}, "only is empty"),
        (lambda: chain(L.ReLU(), of=(3,), name="n"), {}, "'n' has no layer that can be masked"),
        (small, {"weights": "mine"}, "Unknown weights='mine': choose one of theta0, keep"),
        (small, {"estimator": "mine"}, "Unknown estimator 'mine'"),
        (small, {"kernel_initializer": "mine"}, "Unknown initializer 'mine'"),
        (
            small,
            {"kernel_initializer": "he_uniform", "weights": "keep"},
            "does not go with weights='keep'",
        ),
        (small, {"rescale": "mine"}, "Unknown rescale 'mine'"),
        (lambda: quietly(small()), {}, "'small' is masked already"),
    ],
)
def test_bad_input_is_one_sentence(model, options, words):
    """Each says what is wrong and what to do."""
    with pytest.raises(ValueError, match=words) as told:
        quietly(model(), **options)
    assert "\n" not in str(told.value)


def test_plain_refuses_what_has_no_graph():
    with pytest.raises(ValueError, match="can't be made plain: Keras does not know the graph"):
        sm.plain(Subclassed())


def test_a_call_that_fails_leaves_the_layer_whole():
    """The attributes hold the variables again, and other threads see no masked weights."""
    masked = quietly(MODELS["attention"](), weights="keep")
    (layer,) = sm.layers.masked_layers(masked)
    held = {name: id(v) for name, v in _kinds.weights_of(layer).items()}
    with pytest.raises(Exception):  # noqa: B017 - whatever Keras says of the shape
        layer(tf.ones((2, 5, 9)), tf.ones((2, 5, 9)))
    assert {name: id(v) for name, v in _kinds.weights_of(layer).items()} == held

    inputs, found = data(masked), []
    (expected,) = arrays(masked(inputs))
    threads = [
        threading.Thread(target=lambda: found.extend(arrays(masked(inputs)) * 5)) for _ in range(4)
    ]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    assert len(found) == 20 and all(np.array_equal(a, expected) for a in found)


# --- without what the mask cuts off ---------------------------------------------------------------


def cut(masked, seed, incoming=0.4, outgoing=0.4):
    """Masks that cut off channels at random, by all that goes in and by all that goes out."""
    random = np.random.default_rng(seed)
    masks = {}
    for path, mask in masked.masks().items():
        new = random.random(mask.shape) < 0.8
        if mask.ndim > 1:
            new[..., random.random(mask.shape[-1]) < incoming] = False
            new[..., random.random(mask.shape[-2]) < outgoing, :] = False
        masks[path] = new
    masked.set_masks(masks)
    return masked


def random_network(seed):
    """A chain with branches, of what channels go through."""
    random = np.random.default_rng(seed)

    def pick(*choices):
        return choices[random.integers(len(choices))]

    inputs = x = tf.keras.Input(image(3, 8))
    for _ in range(random.integers(1, 4)):
        filters, padding = int(random.integers(3, 8)), pick("same", "valid")
        activation = pick("relu", "tanh", None, "sigmoid")
        x = L.Conv2D(
            filters, pick(1, 2), padding=padding, activation=activation,
            use_bias=bool(random.integers(2)),
        )(x)  # fmt: skip
        kind = random.integers(7)
        if kind == 0:
            x = L.BatchNormalization()(x)
        elif kind == 1:
            x = L.DepthwiseConv2D(2, padding=pick("same", "valid"), activation=activation)(x)
        elif kind == 2:
            x = L.Add()([x, L.Conv2D(filters, 1, activation=activation)(x)])
        elif kind == 3:
            x = L.Concatenate()([x, L.BatchNormalization()(x), L.Conv2D(2, 1)(x)])
        elif kind == 4:
            x = L.ReLU()(L.ZeroPadding2D(1)(x))
        elif kind == 5:
            x = L.LayerNormalization()(x)  # sees all channels
        elif kind == 6:
            inside = chain(L.Conv2D(5, 1), L.ReLU(), L.Conv2D(4, 1), of=tuple(x.shape[1:]))
            x = inside(x)
    x = pick(L.Flatten(), L.GlobalAveragePooling2D(), L.GlobalMaxPooling2D())(x)
    x = L.Dense(6, activation=pick("gelu", "softmax", "tanh"))(x)
    return tf.keras.Model(inputs, L.Dense(3, use_bias=bool(random.integers(2)))(L.Dropout(0.2)(x)))


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**6))
def test_compact_predicts_alike_and_is_smaller(seed):
    """Whatever the network and the cut, the smaller network computes the same function."""
    masked = cut(quietly(shaken(random_network(seed), seed), weights="keep"), seed)
    plain, compact = sm.plain(masked), sm.plain(masked, compact=True)
    same(plain, compact, data(masked, seed), 2e-4)
    assert compact.count_params() < plain.count_params()


def widths(model):
    return [
        int(v.shape[-1]) for layer in model.layers for v in layer.weights[:1] if len(v.shape) > 1
    ]


@pytest.mark.slow
def test_what_goes_and_what_stays():
    """A channel goes with no way out, or with no way in; a constant goes on as a bias; a layer
    keeps one channel; what pads sees where a constant ends; what all channels share keeps them.
    """

    def compacted(model, **masks):
        masked = quietly(shaken(model), weights="keep")
        full = {path: np.ones_like(mask) for path, mask in masked.masks().items()}
        for name, at in masks.items():
            full[f"{name}/kernel"][at] = False
        masked.set_masks(full)
        compact = sm.plain(masked, compact=True)
        same(masked, compact, data(masked), 1e-5)
        return widths(compact)

    def dense(bias=True):
        return chain(
            L.Dense(4, activation="relu", name="a"), L.Dense(3, name="b", use_bias=bias), of=(5,)
        )

    assert compacted(dense()) == [4, 3]
    assert compacted(dense(), b=np.s_[1:3]) == [2, 3]  # no way out
    assert compacted(dense(), a=np.s_[:, 1:]) == [1, 3]  # no way in: a constant
    assert compacted(dense(bias=False), a=np.s_[:, 1:]) == [1, 3]  # it gets the bias it had not
    assert compacted(dense(), a=np.s_[:]) == [1, 3]
    assert compacted(dense(), b=np.s_[:, :]) == [1, 3]

    def convs(padding, **options):
        return chain(L.Conv2D(4, 3, name="a", **options), L.Conv2D(2, 3, padding=padding, name="b"))

    assert compacted(convs("valid"), a=np.s_[..., :2]) == [2, 2]
    assert compacted(convs("same"), a=np.s_[..., :2]) == [4, 2]  # no constant at the border
    assert compacted(convs("same", use_bias=False), a=np.s_[..., :2]) == [2, 2]  # but zero is

    def residual(x):
        x = L.Conv2D(4, 1, name="a")(x)
        y = L.Conv2D(4, 1, name="b")(x)
        return L.Dense(2, name="c")(L.Flatten()(L.Add()([x, y])))

    # Added channels go together: the last layer's weights decide, and b's own.
    rows = np.arange(36) * 4 + 1
    assert compacted(functional(residual, image()), c=np.s_[rows]) == [4, 4, 2]
    assert compacted(functional(residual, image()), c=np.s_[rows], b=np.s_[:, :, 1]) == [3, 3, 2]

    norm = chain(L.Dense(4, name="a"), L.LayerNormalization(), L.Dense(3, name="b"), of=(5,))
    assert compacted(norm, b=np.s_[1:3]) == [4, 3]
    assert compacted(functional(shared_layer, (4,)), twice=np.s_[:, :2]) == [4, 2]


def test_compact_of_a_mobilenet():
    """The inverted residuals lose their channels too."""
    x = inputs = tf.keras.Input(image(2, 8))
    for _ in range(2):
        x = inverted_residual_of(x)
    model = tf.keras.Model(inputs, L.Dense(2)(L.GlobalAveragePooling2D()(x)))
    masked = cut(quietly(shaken(model), weights="keep"), 0, incoming=0.5, outgoing=0.0)
    plain, compact = sm.plain(masked), sm.plain(masked, compact=True)
    same(plain, compact, data(masked), 1e-4)
    assert compact.count_params() < 0.8 * plain.count_params()


def inverted_residual_of(x):
    y = L.ReLU(6.0)(L.Conv2D(12, 1, use_bias=False)(x))
    y = L.ReLU(6.0)(L.DepthwiseConv2D(3, padding="same", use_bias=False)(y))
    return L.Add()([x, L.Conv2D(x.shape[-1], 1, use_bias=False)(y)])


def test_plain_in_one_precision():
    """Asked for float32, every layer computes in it; what counts in whole numbers stays."""
    masked = quietly(in_precision("mixed_bfloat16", MODELS["embedding"]), weights="keep")
    plain = sm.plain(masked, dtype="float32")
    assert {layer.compute_dtype for layer in plain.layers[1:]} == {"float32"}
    assert json.loads(plain.to_json())["class_name"] in ("Functional", "Model")
    same(masked, plain, data(masked), 0.02)
