"""`SupermaskModel`: what each phase trains and freezes, optimizer slots, switching, XLA, precision,
replicas, saving.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import _keras

keras_2 = pytest.mark.skipif(_keras.KERAS != 2, reason="what it is about is Keras 2's alone")

X = np.random.default_rng(0).normal(size=(32, 5, 5, 2)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, size=32)
PHASES = ["mask", "weights", "both"]
each_phase = pytest.mark.parametrize("phase", PHASES)
each_estimator = pytest.mark.parametrize("estimator", ["threshold", "bernoulli"])


def loss():
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(estimator="threshold", phase="mask", dtype=None, norm=True, **masking):
    """A small network: masked convolution, batch norm, masked dense, with nonzero biases."""
    masking = {
        "estimator": estimator,
        "bias_initializer": tf.keras.initializers.RandomNormal(seed=1),
        "dtype": dtype,
    } | masking
    x = inputs = tf.keras.Input((5, 5, 2))
    x = sm.MaskedConv2D(4, 3, name="conv", **masking)(x)
    if norm:
        x = _keras.BatchNormalization(name="bn", dtype=dtype)(x)
    x = tf.keras.layers.Activation("tanh", dtype=dtype)(x)
    x = tf.keras.layers.Flatten()(x)
    x = sm.MaskedDense(3, name="dense", **masking)(x)
    return sm.SupermaskModel(
        inputs, tf.keras.layers.Activation("linear", dtype="float32")(x), phase=phase
    )


def compiled(model, optimizer=None, **arguments):
    model.compile(optimizer or tf.keras.optimizers.Adam(0.05), loss(), **arguments)
    return model


def state(model):
    """Every variable's value by layer path and role."""
    roles = (
        "kernel",
        "bias",
        "kernel_logits",
        "bias_logits",
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
        "draws",
    )
    return {
        f"{layer.name}/{role}": getattr(layer, role).numpy()
        for layer in model.layers
        for role in roles
        if hasattr(getattr(layer, role, None), "assign")
    }


def changed(before, after):
    """The names of the variables of which any bit changed."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def trained_by(phase, estimator):
    """What an epoch must change: all of it, and nothing else."""
    roles = {
        "mask": ["kernel_logits", "bias_logits"],
        "weights": ["kernel", "bias"],
        "both": ["kernel", "bias", "kernel_logits", "bias_logits"],
    }[phase]
    names = {f"{layer}/{role}" for layer in ("conv", "dense") for role in roles}
    if estimator == "bernoulli" and phase != "weights":
        names |= {"conv/draws", "dense/draws"}
    return names | {f"bn/{role}" for role in ("gamma", "beta", "moving_mean", "moving_variance")}


def slots(optimizer):
    """The shapes of an Adam's two slots a variable, in order."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    assert len(inner._momentums) == len(inner._velocities)
    return [tuple(v.shape) for v in inner._momentums]


@pytest.mark.slow
@each_estimator
@each_phase
def test_an_epoch_trains_the_phase_and_nothing_else(phase, estimator):
    """After an epoch what the phase trains has changed, every bit of the rest is as it was and has
    no optimizer slot.
    """
    model = compiled(network(estimator, phase))
    before = state(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, state(model)) == trained_by(phase, estimator)
    assert {id(v) for v in model.trainable_weights} | {
        id(v) for v in model.non_trainable_weights
    } == {id(v) for v in model.weights}
    assert not {id(v) for v in model.trainable_weights} & {
        id(v) for v in model.non_trainable_weights
    }
    untrained = {"bn/moving_mean", "bn/moving_variance", "conv/draws", "dense/draws"}
    wanted = sorted(before[name].shape for name in trained_by(phase, estimator) - untrained)
    assert sorted(slots(model.optimizer)) == wanted
    others = 1 + (_keras.KERAS == 3)  # the count of steps; Keras 3 counts the learning rate too
    assert len(model.optimizer.variables) == others + 2 * len(wanted)


@pytest.mark.slow
@keras_2
def test_a_step_is_traced_once():
    """The optimizer has its variables before, also the new one after a switch, inside another model
    too: TensorFlow traces a function that makes variables twice, which takes seconds.
    """
    inner = network()
    for model in (compiled(inner), compiled(functional(inner))):
        inner.phase = "mask"
        model.fit(X, Y, batch_size=8, verbose=0)
        if model is inner:  # a plain model's first step is Keras's own affair
            assert model.train_tf_function.experimental_get_tracing_count() == 1
        inner.phase = "weights"
        assert len(slots(model.optimizer)) == len(model.trainable_variables)
        model.fit(X, Y, batch_size=8, verbose=0)
        assert model.train_tf_function.experimental_get_tracing_count() == 1


@keras_2
def test_a_network_is_put_together_without_its_masks(monkeypatch):
    """Keras calls each layer to learn a shape: no mask is made for that, most of the work."""
    made = []
    masked = sm.MaskedDense.masked

    def counted(layer, training=None):
        made.append(layer.name)
        return masked(layer, training)

    for kind in (sm.MaskedDense, sm.MaskedConv2D):
        monkeypatch.setattr(kind, "masked", counted)
    inner = network()
    model = functional(inner)
    assert made == [] and model.output_shape == (None, 3)
    model(X)
    assert made == ["conv", "dense"]


def test_zero_biases_keep_their_logits():
    """A bias of 0 gives its logit no gradient: in phase "mask" it never moves (the design relies on
    it).
    """
    model = compiled(network(bias_initializer="zeros"))
    before = state(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, state(model)) == trained_by("mask", "threshold") - {
        "conv/bias_logits",
        "dense/bias_logits",
    }


@each_estimator
@each_phase
def test_a_step_follows_the_gradients_formula(phase, estimator):
    """One step of SGD moves each trained variable by −rate × its gradient, taken here on plain
    tensors.
    """
    model = compiled(
        network(
            estimator,
            phase,
            norm=False,
            dtype="float64",
            mask_initializer=tf.keras.initializers.RandomNormal(seed=2),
        ),
        tf.keras.optimizers.SGD(0.1),
    )
    before = {name: tf.constant(value) for name, value in state(model).items()}
    seeded = estimator == "bernoulli" and phase != "weights"

    def mask(name):
        layer, role = name.split("/")
        logits = before[f"{name}_logits"]
        if seeded:
            seed = (sm.initializers.fold(0, f"{layer}/{role}"), 0)
            return tf.cast(
                tf.random.stateless_uniform(logits.shape, seed, alg="philox")
                < tf.cast(tf.sigmoid(logits), tf.float32),
                tf.float64,
            )
        return tf.cast(logits > 0, tf.float64)

    names = [f"{layer}/{role}" for layer in ("conv", "dense") for role in ("kernel", "bias")]
    masks = {name: mask(name) for name in names}
    effective = {name: before[name] * masks[name] for name in names}
    with tf.GradientTape() as tape:
        tape.watch(effective)
        x = tf.tanh(
            tf.nn.conv2d(tf.cast(X, tf.float64), effective["conv/kernel"], 1, "VALID")
            + effective["conv/bias"]
        )
        logits = tf.reshape(x, [len(X), -1]) @ effective["dense/kernel"] + effective["dense/bias"]
        value = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
    gradients = tape.gradient(value, effective)
    history = model.fit(X, Y, batch_size=len(X), verbose=0).history
    np.testing.assert_allclose(history["loss"][0], float(value), rtol=1e-5)
    after = state(model)
    for name in names:
        s = tf.sigmoid(before[f"{name}_logits"])
        expected = {
            name: gradients[name] * masks[name],
            f"{name}_logits": gradients[name] * before[name] * s * (1 - s),
        }
        for variable, gradient in expected.items():
            moves = variable in trained_by(phase, estimator)
            # The network ends in float32, as it does under mixed precision: so do its gradients.
            np.testing.assert_allclose(
                after[variable],
                (before[variable] - 0.1 * moves * gradient).numpy(),
                rtol=1e-6,
                atol=1e-8,
            )


@pytest.mark.slow
def test_phase_weights_does_not_draw_the_mask():
    """In phase "weights" a Bernoulli mask stays at its most likely value: what is out gets no
    gradient.
    """
    model = network("bernoulli", "weights", norm=False)
    masks = {
        path: np.random.default_rng(i).random(mask.shape) < 0.5
        for i, (path, mask) in enumerate(model.masks().items())
    }
    model.set_masks(masks)
    before = state(model)
    compiled(model).fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    after = state(model)
    assert after["conv/draws"] == after["dense/draws"] == 0
    for path, mask in masks.items():
        np.testing.assert_array_equal(after[path] != before[path], mask)
        np.testing.assert_array_equal(model.masks()[path], mask)
    same = network(
        "threshold", "weights", norm=False
    )  # and training is that of a mask which can't be drawn
    same.set_masks(masks)
    compiled(same).fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for name, value in state(same).items():
        if not name.endswith("logits"):
            np.testing.assert_array_equal(after[name], value)


@pytest.mark.slow
@each_estimator
def test_switching_the_phase_after_a_fit(estimator):
    """Each phase follows each: fitting goes on, trains what it should, with new slots and the
    optimizer's settings.
    """
    model = compiled(network(estimator), tf.keras.optimizers.Adam(0.03, beta_1=0.8))
    model.fit(X, Y, verbose=0)
    for phase in ("weights", "mask", "both"):
        model.phase = phase
        before = state(model)
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        assert changed(before, state(model)) == trained_by(phase, estimator)
        assert len(slots(model.optimizer)) == len(model.trainable_variables)
        assert int(model.optimizer.iterations) == 4
        assert (
            float(model.optimizer.learning_rate) == pytest.approx(0.03)
            and model.optimizer.beta_1 == 0.8
        )


def test_setting_the_same_phase_keeps_the_optimizer():
    """Setting the phase that the model is in is no change: the slots stay."""
    model = compiled(network())
    model.fit(X, Y, batch_size=8, verbose=0)
    optimizer, model.phase = model.optimizer, "mask"
    assert model.optimizer is optimizer and int(optimizer.iterations) == 4


@pytest.mark.slow
def test_evaluation_and_prediction_follow_a_switch(estimator="bernoulli"):
    """Evaluating and predicting change nothing and see the weights of the new phase."""
    model = compiled(network(estimator))
    model.fit(X, Y, verbose=0)
    model.predict(X, verbose=0), model.evaluate(X, Y, verbose=0)
    model.phase = "weights"
    model.fit(X, Y, verbose=0)
    before = state(model)
    np.testing.assert_allclose(
        model.predict(X, verbose=0), model(X, training=False).numpy(), rtol=1e-5, atol=1e-5
    )
    expected = float(loss()(Y, model(X, training=False)))
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert changed(before, state(model)) == set()


def test_weights_keep_their_order_across_phases():
    """`get_weights` and `set_weights` go by an order that does not depend on the phase."""
    model = network("bernoulli")
    names = [v.name for v in model.weights]
    for phase in PHASES:
        model.phase = phase
        assert [v.name for v in model.weights] == names


def test_unknown_phase():
    """An unknown phase is refused by name, and the model keeps the one it had."""
    model = network(phase="both")
    with pytest.raises(ValueError, match="'masks'.*mask, weights, both"):
        model.phase = "masks"
    assert model.phase == "both"
    with pytest.raises(ValueError, match="'train'.*mask, weights, both"):
        network(phase="train")


def test_sample_weights_metrics_and_regularizers_count():
    """`train_step` honours sample weights, metrics and the logits' regularizer, as Keras's own
    does.
    """
    model = network(norm=False, mask_regularizer=tf.keras.regularizers.L2(0.01))
    model.compile(
        tf.keras.optimizers.SGD(0.0),
        loss(),
        metrics=["accuracy"],
        weighted_metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="weighted")],
    )
    weights = np.linspace(0, 2, len(X)).astype(np.float32)
    history = model.fit(X, Y, batch_size=len(X), sample_weight=weights, verbose=0).history
    logits = model(X).numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(Y)), Y]
    penalty = 0.01 * sum(
        value.size for name, value in state(model).items() if name.endswith("logits")
    )
    right = logits.argmax(1) == Y
    assert history["loss"][0] == pytest.approx((losses * weights).mean() + penalty, rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(right.mean())
    assert history["weighted"][0] == pytest.approx(
        (right * weights).sum() / weights.sum(), rel=1e-5
    )


@pytest.mark.parametrize("phase, trains", [("mask", False), ("weights", True), ("both", True)])
def test_plain_layers_are_weights(phase, trains):
    """A plain Keras layer among masked ones is frozen in phase "mask" and trains in the others."""
    x = inputs = tf.keras.Input((5, 5, 2))
    x = tf.keras.layers.Flatten()(x)
    x = tf.keras.layers.Dense(6, activation="tanh", name="plain")(x)
    x = sm.MaskedDense(3, name="dense")(x)
    model = compiled(sm.SupermaskModel(inputs, x, phase=phase))
    before = state(model)
    model.fit(X, Y, verbose=0)
    moved = changed(before, state(model))
    assert {"plain/kernel", "plain/bias"} & moved == (
        {"plain/kernel", "plain/bias"} if trains else set()
    )
    assert ("dense/kernel_logits" in moved) == (phase != "weights")


@pytest.mark.slow
@each_phase
def test_masked_layers_of_an_inner_model_follow_the_phase(phase):
    """A masked layer inside a model inside the model trains and freezes with the phase."""
    inner = tf.keras.Sequential(
        [sm.MaskedDense(6, activation="tanh", estimator="bernoulli", name="inner")]
    )
    x = inputs = tf.keras.Input((5, 5, 2))
    x = inner(tf.keras.layers.Flatten()(x))
    model = compiled(sm.SupermaskModel(inputs, sm.MaskedDense(3, name="outer")(x), phase=phase))
    layer = inner.layers[0]
    before = layer.kernel.numpy(), layer.kernel_logits.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert np.array_equal(before[0], layer.kernel.numpy()) == (phase == "mask")
    assert np.array_equal(before[1], layer.kernel_logits.numpy()) == (phase == "weights")
    assert int(layer.draws) == (0 if phase == "weights" else 4)
    assert {"inner/kernel", "outer/kernel"} <= model.masks().keys()


@pytest.mark.slow
@each_phase
def test_a_supermask_model_among_the_layers_follows_the_phase(phase):
    """What the inner model was built with does not keep its weights, or its mask, from training."""
    inner = network()
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(
        sm.SupermaskModel(inputs, sm.MaskedDense(3, name="head")(inner(inputs)), phase=phase)
    )
    assert inner.phase == phase
    before = inner.get_layer("dense").kernel.numpy(), inner.get_layer("dense").kernel_logits.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert np.array_equal(before[0], inner.get_layer("dense").kernel.numpy()) == (phase == "mask")
    assert np.array_equal(before[1], inner.get_layer("dense").kernel_logits.numpy()) == (
        phase == "weights"
    )


def test_two_networks_with_equal_names_are_told_apart_or_refused():
    """Masks by path would be of one of them alone: neither read nor set."""
    inputs = tf.keras.Input((5, 5, 2))
    towers = [
        tf.keras.Model(one.inputs, one.outputs[0], name=f"tower{i}")
        for i, one in enumerate((network(), network()))
    ]
    model = sm.SupermaskModel(inputs, tf.keras.layers.Add()([tower(inputs) for tower in towers]))
    with pytest.raises(ValueError, match="Several masked layers of .* are called conv, dense"):
        model.masks()
    with pytest.raises(ValueError, match="conv, dense"):
        model.set_masks({"dense/kernel": np.ones((100, 3), bool)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"jit_compile": True},
        {"jit_compile": False},
        {"steps_per_execution": 2},
        {"run_eagerly": True},
    ],
    ids=str,
)
def test_a_callback_may_change_the_phase(arguments):
    """Each epoch trains its own phase, all of it and nothing else, with validation between them."""
    model, seen = compiled(network(), **arguments), []

    class Switch(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.phase = PHASES[epoch]
            self.before = state(self.model)

        def on_epoch_end(self, epoch, logs=None):
            seen.append(changed(self.before, state(self.model)))

    model.fit(X, Y, batch_size=8, epochs=3, validation_data=(X, Y), verbose=0, callbacks=[Switch()])
    assert seen == [trained_by(phase, "threshold") for phase in PHASES]


def test_prediction_before_compiling_follows_a_switch():
    """A frozen mask is not drawn, whether or not there is an optimizer yet."""
    model = network("bernoulli", draw_at_evaluation=True, mask_initializer=0.0)
    assert not np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))
    model.phase = "weights"
    assert np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_what_weight_decay_leaves_out_stays_left_out():
    """The rule survives the change of phase, and the new optimizer that comes with it."""
    optimizer = tf.keras.optimizers.AdamW(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = compiled(network(), optimizer)
    model.phase = "weights"
    before = state(model)
    model.fit(
        X, Y, sample_weight=np.zeros(len(Y)), batch_size=8, verbose=0
    )  # no gradient: what changes is decay
    assert changed(before, state(model)) & {"dense/kernel", "dense/bias"} == {"dense/kernel"}


ROUNDING = {
    "conv/bias",
    "conv/bias_logits",
}  # under batch norm they have no gradient but what rounding leaves
OPTIMIZERS = ["Adam", "AdamW", "Lion", "Adafactor", "RMSprop"]
OPTIMIZERS += ["legacy.Adam"] if _keras.KERAS == 2 else []
BARE = ["Adafactor", *OPTIMIZERS[5:]]  # without loss scaling, which makes the same one anew


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, policy",
    [*((name, "mixed_float16") for name in OPTIMIZERS), *((name, "float32") for name in BARE)],
)
def test_any_optimizer_follows_a_switch(name, policy):
    """The settings of the inner optimizer and of the loss scaling around it are as before, the
    learning rate as by then.
    """
    make = (
        tf.keras.optimizers.legacy.Adam
        if name == "legacy.Adam"
        else getattr(tf.keras.optimizers, name)
    )
    optimizer = inner = make(0.1, clipnorm=0.5)
    if policy == "mixed_float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(
            inner, initial_scale=2.0**6, dynamic_growth_steps=3
        )
    model = compiled(network(dtype=policy, norm=False), optimizer)
    model.fit(X, Y, batch_size=8, verbose=0)
    model.optimizer.learning_rate = 0.05
    before = (
        inner.get_config(),
        [
            float(getattr(model.optimizer, "loss_scale", 0)),
            int(getattr(model.optimizer, "dynamic_counter", 0)),
        ],
    )
    model.phase = "weights"
    new = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    assert type(new) is type(inner) and new is not inner and new.get_config() == before[0]
    assert [
        float(getattr(model.optimizer, "loss_scale", 0)),
        int(getattr(model.optimizer, "dynamic_counter", 0)),
    ] == before[1]
    assert new.clipnorm == 0.5 and float(model.optimizer.learning_rate) == pytest.approx(0.05)
    weights = state(model)
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    moved = changed(weights, state(model))
    assert "dense/kernel" in moved and not any(name.endswith("logits") for name in moved)


def test_what_no_config_holds_is_carried_over():
    """Exclusions from weight decay under loss scaling, and attributes that a class or its user
    added.
    """

    class Boosted(tf.keras.optimizers.SGD):
        def __init__(self, learning_rate=0.1, boost=1, name="Boosted", **others):
            super().__init__(learning_rate, name=name, **others)
            self._boost = boost

    inner = Boosted(0.1, boost=7, weight_decay=0.1)
    inner.exclude_from_weight_decay(var_names=["bias"])
    inner.note = {"mine": [1, 2]}
    model = compiled(
        network(dtype="mixed_float16"), tf.keras.mixed_precision.LossScaleOptimizer(inner)
    )
    model.fit(X, Y, verbose=0)
    model.phase = "weights"
    model.fit(X, Y, verbose=0)
    new = model.optimizer.inner_optimizer
    assert new is not inner and new._boost == 7 and new.note == {"mine": [1, 2]}
    dense = model.get_layer("dense")
    assert new._use_weight_decay(dense.kernel) and not new._use_weight_decay(dense.bias)


@keras_2
def test_legacy_optimizers_keep_their_functions():
    """A legacy optimizer's gradient transformers, aggregator and learning rate by function are in
    no config.
    """
    seen = []
    optimizer = tf.keras.optimizers.legacy.SGD(
        lambda: 0.25,
        gradient_transformers=[lambda pairs: seen.append(len(pairs)) or pairs],
        gradient_aggregator=lambda pairs: pairs,
    )
    model = compiled(network(), optimizer)
    model.phase = "weights"
    model.fit(X, Y, verbose=0)
    assert seen and model.optimizer is not optimizer
    assert (
        model.optimizer.gradient_aggregator is optimizer.gradient_aggregator
        and float(model.optimizer._get_hyper("learning_rate")) == 0.25
    )


def test_a_schedule_of_ones_own_need_not_be_registered():
    """The new optimizer takes the schedule itself over, not what Keras can make of its config."""

    class Falling(tf.keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 / (tf.cast(step, tf.float32) + 1.0)

        def get_config(self):
            return {}

    model = compiled(network(), tf.keras.optimizers.Adam(Falling()))
    model.fit(X, Y, batch_size=8, verbose=0)
    model.phase = "weights"
    model.fit(X, Y, batch_size=8, verbose=0)
    assert isinstance(model.optimizer._learning_rate, Falling)
    # The rate of the last step in Keras 2, of the next one in Keras 3.
    rate = 0.1 / (2 + _keras.KERAS)
    assert float(model.optimizer.learning_rate) == pytest.approx(rate)


class Unfit(tf.keras.optimizers.SGD):
    """Its config is its parent's, which does not fit its `__init__`."""

    def __init__(self, rate):
        super().__init__(rate)


@pytest.mark.slow
@pytest.mark.parametrize("unfit", ["own", "inner", "outer", "scaled"])
def test_a_switch_that_fails_changes_nothing(unfit):
    """An optimizer that can't be made again leaves every phase, frozen mask and optimizer as they
    were, again and again.
    """
    inner = compiled(network())
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(sm.SupermaskModel(inputs, sm.MaskedDense(3, name="head")(inner(inputs))))
    outer = compiled(tf.keras.Sequential([model]))
    optimizer = Unfit(0.1)
    if unfit == "scaled":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer)
    {"own": model, "inner": inner, "outer": outer, "scaled": model}[unfit].optimizer = optimizer
    model.make_train_function(), outer.make_train_function()  # as in `fit`
    optimizers, function = [one.optimizer for one in (inner, model, outer)], model.train_function
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"stays in phase 'mask'.*Unfit.*TypeError.*get_config\(\)"
        ):
            model.phase = "weights"
    assert model.phase == inner.phase == "mask" and model.train_function is function
    assert all(
        new is old for new, old in zip([one.optimizer for one in (inner, model, outer)], optimizers)
    )
    assert {(layer.phase, layer.mask_frozen) for layer in sm.layers.masked_layers(model)} == {
        ("mask", False)
    }
    before = state(inner)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, state(inner)) - ROUNDING == trained_by("mask", "threshold") - ROUNDING


def test_a_file_keeps_the_learning_rate_set_after_a_switch(tmp_path):
    """What `.keras` keeps of `compile` is the optimizer in use, not the one that `compile` was
    given.
    """
    tuned = {"steps_per_execution": "auto"} if _keras.KERAS == 2 else {}
    model = compiled(network(), **tuned)
    model.phase = "weights"
    model.optimizer.learning_rate = 0.001
    model.fit(X, Y, verbose=0)
    assert not tuned or model._steps_per_execution_tuner.optimizer is model.optimizer
    model.save(tmp_path / "model.keras")
    assert float(
        tf.keras.models.load_model(tmp_path / "model.keras").optimizer.learning_rate
    ) == pytest.approx(0.001)


class Around(tf.keras.Model):
    """A subclassed model around another one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


class Holder(tf.keras.layers.Layer):
    """A layer that is no model, around one."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs, training=None):
        return self.inner(inputs, training=training)


def functional(inner):
    inputs = tf.keras.Input((5, 5, 2))
    return tf.keras.Model(inputs, inner(inputs))


AROUND = {
    "Sequential": lambda inner: tf.keras.Sequential([inner]),
    "functional": functional,
    "subclass": Around,
    "two deep": lambda inner: tf.keras.Sequential([Around(inner)]),
    "in a layer": lambda inner: functional(Holder(inner)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind, arguments",
    [
        *((kind, {}) for kind in AROUND),
        ("functional", {"jit_compile": True}),
        ("subclass", {"steps_per_execution": 2}),
        ("two deep", {"run_eagerly": True}),
    ],
    ids=str,
)
def test_a_plain_model_around_it_trains_the_phase(kind, arguments):
    """Compiled and traced in one phase, it trains the next, all of that and nothing else; in a
    callback too.
    """
    inner = network()
    model = compiled(AROUND[kind](inner), tf.keras.optimizers.Adam(0.05, beta_1=0.8), **arguments)
    seen = []

    class Switch(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            inner.phase = ("mask", "both")[epoch]
            self.before = state(inner)

        def on_epoch_end(self, epoch, logs=None):
            seen.append(changed(self.before, state(inner)))

    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[Switch()])
    inner.phase = "weights"
    before = state(inner)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert [*seen, changed(before, state(inner))] == [
        trained_by(phase, "threshold") for phase in ("mask", "both", "weights")
    ]
    assert model.optimizer.beta_1 == 0.8


def test_prediction_of_a_model_around_it_follows_a_switch():
    """A mask that is frozen is not drawn by a model around it that has predicted before."""
    inner = network("bernoulli", draw_at_evaluation=True, mask_initializer=0.0)
    model = functional(inner)
    assert not np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))
    inner.phase = "weights"
    assert np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))


@pytest.mark.slow
def test_an_inner_model_may_be_in_another_phase():
    """A `SupermaskModel` in another one, put into a phase by itself, trains by that; the outer
    one's phase is for both.
    """
    inner = network()
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(sm.SupermaskModel(inputs, sm.MaskedDense(3, name="head")(inner(inputs))))
    head = model.get_layer("head")
    for change, phases in (
        (lambda: setattr(inner, "phase", "weights"), ("weights", "mask")),
        (lambda: setattr(model, "phase", "mask"), ("mask", "mask")),
    ):
        model.fit(X, Y, verbose=0)
        change()
        before, of_head = state(inner), (head.kernel.numpy(), head.kernel_logits.numpy())
        model.fit(X, Y, verbose=0)
        assert (inner.phase, model.phase) == phases and changed(before, state(inner)) == trained_by(
            phases[0], "threshold"
        )
        assert np.array_equal(head.kernel, of_head[0]) and not np.array_equal(
            head.kernel_logits, of_head[1]
        )
        assert len(model.weights) == len(model.trainable_weights) + len(model.non_trainable_weights)


def own_step(form, model, optimizer):
    """A step of one's own, in one of the forms that people give it."""

    def step():
        with tf.GradientTape() as tape:
            value = loss()(Y, model(X, training=True))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(value, variables), variables))
        return value

    if form == "plain":
        return tf.function(step)
    if form == "branch":
        return tf.function(lambda: tf.cond(tf.constant(True), step, lambda: 0.0))
    if form == "train_step":
        return tf.function(lambda: model.train_step((tf.constant(X), tf.constant(Y))))
    compiled = tf.function(step, jit_compile=True)
    compiled()  # traced on its own before it is called by others
    return {
        "XLA": compiled,
        "nested": tf.function(lambda: compiled() + compiled()),
        "nested in a branch": tf.function(
            lambda: tf.cond(tf.constant(True), compiled, lambda: 0.0)
        ),
        "loop": tf.function(
            lambda: tf.while_loop(
                lambda i: i < 2, lambda i: (compiled(), i + 1)[1:], [tf.constant(0)]
            )
        ),
    }[form]


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["plain", "XLA", "nested", "branch", "nested in a branch", "loop", "train_step"]
)
def test_a_step_of_ones_own_is_not_run_in_another_phase(form):
    """A traced step trains its phase; called in another it says what to do and changes nothing;
    back in its own it goes on.
    """
    model = compiled(network(), tf.keras.optimizers.SGD(0.1))
    step = own_step(form, model, tf.keras.optimizers.SGD(0.1))
    for phase in ("mask", "weights", "mask"):
        model.phase = phase
        before = state(model)
        if phase == "mask":
            step()
            assert (
                changed(before, state(model)) - ROUNDING
                == trained_by("mask", "threshold") - ROUNDING
            )
        else:
            with pytest.raises(
                RuntimeError,
                match=(
                    "the phase of .* was 'mask' is called now that it is 'weights'.*Trace it again"
                ),
            ):
                step()
            assert changed(before, state(model)) == set()
    model.phase = "weights"
    before = state(model)
    own_step("plain", model, tf.keras.optimizers.SGD(0.1))()
    assert changed(before, state(model)) >= {"dense/kernel"}


def test_functions_that_do_not_depend_on_the_phase_go_on():
    """Only what read the phase is bound to it: a traced evaluation and a traced forward pass serve
    every phase.
    """
    model = network()
    evaluate, forward = (
        tf.function(lambda x: model(x, training=False)),
        tf.function(lambda x: model(x, training=True)),
    )
    evaluate(X), forward(X)
    model.phase = "weights"
    evaluate(X)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(forward(X))
    assert all(gradient is not None for gradient in tape.gradient(value, model.trainable_variables))
    assert (
        forward.experimental_get_tracing_count() == evaluate.experimental_get_tracing_count() == 1
    )


@pytest.mark.slow
def test_a_traced_step_can_be_saved(tmp_path):
    """A SavedModel of a step of one's own has no phase any more: it trains what it was traced
    for.
    """
    model = network()
    module = tf.Module()
    module.model, module.optimizer = model, tf.keras.optimizers.SGD(0.1)
    module.step = own_step("plain", model, module.optimizer)
    first = float(module.step())
    tf.saved_model.save(module, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    losses = [float(loaded.step()) for _ in range(3)]
    assert losses[-1] < losses[0] < first


@each_phase
def test_clones_keep_the_phase(phase):
    """`clone_model` with a function of one's own sees layers alone, and sets the model's phase by
    nothing else.
    """
    inner = network(phase=phase)
    inputs = tf.keras.Input((5, 5, 2))
    copy = lambda layer: type(layer).from_config(layer.get_config())
    for model in (inner, sm.SupermaskModel(inputs, inner(inputs), phase=phase)):
        for arguments in ({}, {"clone_function": copy}, {"clone_function": lambda layer: layer}):
            clone = tf.keras.models.clone_model(model, **arguments)
            assert clone.phase == phase and type(clone) is sm.SupermaskModel
            assert {layer.mask_frozen for layer in sm.layers.masked_layers(clone)} == {
                phase == "weights"
            }
    again = sm.SupermaskModel(inputs, sm.MaskedDense(3, name="new")(inner(inputs)))
    assert again.phase == "mask", "a new layer among old ones: the usual phase"


@pytest.mark.slow
@pytest.mark.parametrize(
    "form, phase",
    [
        *itertools.product(["whole.h5", "json", "nested.h5"], PHASES),
        pytest.param("saved_model", "weights", marks=keras_2),
        pytest.param("saved_model", "both", marks=keras_2),
    ],
)
def test_other_formats_keep_phase_and_values(form, phase, tmp_path):
    """A whole .h5, as `ModelCheckpoint` writes it, a SavedModel and JSON bring phase and frozen
    mask back.
    """
    inner = network(phase=phase)
    model = compiled(functional(inner) if form == "nested.h5" else inner)
    model.fit(
        X,
        Y,
        verbose=0,
        callbacks=(
            [tf.keras.callbacks.ModelCheckpoint(str(tmp_path / form))] if form != "json" else []
        ),
    )
    if form == "json":
        loaded = tf.keras.models.model_from_json(model.to_json())
        loaded.set_weights(model.get_weights())
    else:
        loaded = tf.keras.models.load_model(tmp_path / form)
    within = loaded.layers[1] if form == "nested.h5" else loaded
    assert type(within) is sm.SupermaskModel and within.phase == phase
    assert {layer.mask_frozen for layer in sm.layers.masked_layers(within)} == {phase == "weights"}
    assert changed(state(inner), state(within)) == set()
    if form != "json":
        if _keras.KERAS == 3:  # it brings the optimizer of no .h5 back
            compiled(loaded)
        before = state(within)
        loaded.fit(X, Y, verbose=0)
        assert changed(before, state(within)) == trained_by(phase, "threshold")


@pytest.mark.slow
@keras_2
@pytest.mark.parametrize("kind", ["Sequential", "subclass", "two deep", "in a layer"])
def test_nested_h5_weights_do_not_depend_on_the_phase(kind, tmp_path):
    """Weights saved in .h5 in one phase and loaded in another are each variable's own, at any
    depth, by their order and by name.
    """
    inner = network("bernoulli", mask_initializer=tf.keras.initializers.RandomNormal(seed=3))
    model = AROUND[kind](inner)
    model(X)
    before = state(inner)
    for saved in PHASES:
        inner.phase = saved
        model.save_weights(tmp_path / "weights.h5")
        for loaded in PHASES:
            inner.phase = loaded
            for by_name in (False, True):
                for variable in inner.weights:
                    variable.assign(tf.zeros_like(variable))
                model.load_weights(tmp_path / "weights.h5", by_name=by_name)
                assert changed(before, state(inner)) == set()


@keras_2
def test_nested_h5_weights_of_version_0_1_are_read_rightly(tmp_path):
    """Older files list the weights in the order of the phase that they were saved in: their names
    tell which.
    """
    import h5py
    from keras.src.saving.legacy import hdf5_format

    inner = network(mask_initializer=tf.keras.initializers.RandomNormal(seed=3))
    model = tf.keras.Sequential([inner])
    model(X)
    before = state(inner)
    for saved in PHASES:
        inner.phase = saved
        with h5py.File(tmp_path / f"{saved}.h5", "w") as file:
            hdf5_format.save_weights_to_hdf5_group.__wrapped__(file, model)
    for saved in PHASES:
        for variable in inner.weights:
            variable.assign(tf.zeros_like(variable))
        model.load_weights(tmp_path / f"{saved}.h5")
        assert changed(before, state(inner)) == set()


def test_weights_can_be_set_from_another_phase():
    """`get_weights` and `set_weights` of a model around it go by one order in every phase."""
    inner = network(mask_initializer=tf.keras.initializers.RandomNormal(seed=3))
    for model in (
        tf.keras.Sequential([inner]),
        Around(inner),
        tf.keras.Sequential([Around(inner)]),
    ):
        model(X)
        inner.phase = "mask"
        before, weights = state(inner), model.get_weights()
        inner.phase = "weights"
        model.set_weights(weights)
        assert changed(before, state(inner)) == set()


@pytest.mark.parametrize(
    "kind",
    [
        tf.keras.layers.BatchNormalization,
        _keras.BatchNormalization,
        *([tf.compat.v1.keras.layers.BatchNormalization] if _keras.KERAS == 2 else []),
        tf.keras.layers.LayerNormalization,
        lambda name: tf.keras.layers.GroupNormalization(2, name=name),
    ],
)
def test_every_normalization_trains_in_phase_mask(kind):
    """Not one class of batch norm alone: what normalises has parameters that are not masked."""
    inputs = tf.keras.Input((5, 5, 2))
    x = kind(name="norm")(sm.MaskedConv2D(4, 3, name="conv")(inputs))
    model = compiled(
        sm.SupermaskModel(inputs, sm.MaskedDense(3, name="dense")(tf.keras.layers.Flatten()(x)))
    )
    before = state(model)
    model.fit(X, Y, verbose=0)
    moved = changed(before, state(model))
    assert {
        "norm/gamma",
        "norm/beta",
        "dense/kernel_logits",
    } <= moved and "dense/kernel" not in moved


def test_a_block_with_a_scale_and_a_shift_is_no_normalization_of_its_layers():
    """What is inside a layer of one's own that also has `gamma` and `beta` trains by the phase."""

    class Block(tf.keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = sm.MaskedDense(4, name="inside")

        def build(self, shape):
            self.gamma, self.beta = (
                self.add_weight(name="gamma", shape=(), initializer="ones"),
                self.add_weight(name="beta", shape=()),
            )

        def call(self, inputs):
            return self.gamma * self.dense(inputs) + self.beta

    inputs = tf.keras.Input((6,))
    model = sm.SupermaskModel(inputs, Block()(inputs))
    assert sorted(v.name.split("/")[-1].removesuffix(":0") for v in model.trainable_weights) == [
        "beta",
        "bias_logits",
        "gamma",
        "kernel_logits",
    ]


@pytest.mark.parametrize(
    "arguments", [{}, {"loss": "mse"}, {"loss": "mse", "run_eagerly": True}], ids=str
)
def test_without_a_loss_or_labels_keras_speaks(arguments):
    """The sentence is the one of Keras's own model."""
    said = []
    for model in (
        tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(3)]),
        network(),
    ):
        model.compile("adam", **arguments)
        with pytest.raises(ValueError) as error:
            model.fit(X, *([] if "loss" in arguments else [Y]), verbose=0)
        said.append([line.strip() for line in str(error.value).splitlines() if line.strip()][-1])
    assert said[0] == said[1]
    if _keras.KERAS == 2:
        assert ("Target data is missing" if arguments else "No loss found") in said[0]


@keras_2
def test_a_loss_added_by_the_model_needs_no_other():
    """`add_loss` alone trains, with neither labels nor a loss in `compile`, as in Keras."""
    model = network()
    model.add_loss(tf.reduce_mean(model.outputs[0] ** 2))
    model.compile(tf.keras.optimizers.Adam(0.05))
    before = state(model)
    model.fit(X, verbose=0)
    assert changed(before, state(model)) == trained_by("mask", "threshold")


def test_nothing_to_train_is_refused():
    """A network without masked layers trains nothing in phase "mask", and says so."""
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(
        sm.SupermaskModel(inputs, tf.keras.layers.Dense(3)(tf.keras.layers.Flatten()(inputs)))
    )
    with pytest.raises(ValueError, match="nothing to train in phase 'mask'"):
        model.fit(X, Y, verbose=0)


def test_a_layer_made_untrainable_stays_frozen():
    """`layer.trainable = False` freezes a layer in every phase, as in Keras."""
    for phase in PHASES:
        model = network(phase=phase)
        model.get_layer("conv").trainable = False
        before = state(model)
        compiled(model).fit(X, Y, verbose=0)
        moved = changed(before, state(model))
        assert moved and not any(name.startswith("conv/") for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase, estimator", [("mask", "bernoulli"), ("weights", "bernoulli"), ("both", "threshold")]
)
def test_xla_agrees(phase, estimator):
    """`compile(jit_compile=True)` trains: the same masks are drawn, and every variable agrees to
    1e-5.
    """
    results = []
    for jit in (False, True):
        model = compiled(network(estimator, phase), tf.keras.optimizers.SGD(0.1), jit_compile=jit)
        before = state(model)
        value = model.fit(X, Y, batch_size=len(X), verbose=0).history["loss"][0]
        results.append((value, before, state(model)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, value in results[0][2].items():
        np.testing.assert_allclose(results[1][2][name], value, rtol=1e-5, atol=1e-5)
    # A convolution's bias has no gradient under batch norm but what rounding leaves.
    rounding = {"conv/bias", "conv/bias_logits"}
    assert changed(*results[1][1:]) - rounding == trained_by(phase, estimator) - rounding


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, policy",
    [
        ("threshold", "mixed_float16"),
        ("bernoulli", "mixed_float16"),
        ("bernoulli", "mixed_bfloat16"),
    ],
)
def test_mixed_precision_and_switching(estimator, policy):
    """Under mixed precision every phase trains in turn, scaled losses included; variables stay in
    float32.
    """
    optimizer = tf.keras.optimizers.Adam(0.05)
    if policy == "mixed_float16":
        optimizer = tf.keras.mixed_precision.LossScaleOptimizer(optimizer, initial_scale=2.0**7)
    model = compiled(network(estimator, dtype=policy), optimizer)
    assert model.get_layer("conv").compute_dtype == policy.removeprefix("mixed_")
    for phase in PHASES:
        model.phase = phase
        before = state(model)
        model.fit(X, Y, batch_size=8, verbose=0)
        after = state(model)
        rounding = {
            "conv/bias",
            "conv/bias_logits",
        }  # no gradient under batch norm: in half precision it may be 0
        assert changed(before, after) - rounding == trained_by(phase, estimator) - rounding
        assert changed(before, after) <= trained_by(phase, estimator)
        assert all(
            np.isfinite(value).all() and value.dtype in (np.float32, np.int64)
            for value in after.values()
        )
        assert type(model.optimizer) is type(optimizer)
        assert len(slots(model.optimizer)) == len(model.trainable_variables)
    if policy == "mixed_float16":
        assert float(model.optimizer.initial_scale) == 2.0**7


@pytest.mark.slow
@pytest.mark.parametrize(
    "phase, estimator", [("mask", "bernoulli"), ("weights", "threshold"), ("both", "bernoulli")]
)
def test_a_saved_model_continues_where_it_was(phase, estimator, tmp_path):
    """A `.keras` file keeps phase, draws and slots: the loaded model goes on exactly as the one
    that was saved.
    """
    model = compiled(network(estimator, phase))
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is sm.SupermaskModel and loaded.phase == phase
    assert changed(state(model), state(loaded)) == set()
    assert (
        slots(loaded.optimizer) == slots(model.optimizer) and int(loaded.optimizer.iterations) == 4
    )
    before = state(loaded)
    histories = [
        m.fit(X, Y, batch_size=8, shuffle=False, epochs=2, verbose=0).history["loss"]
        for m in (model, loaded)
    ]
    assert changed(before, state(loaded)) == trained_by(phase, estimator)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-6)
    for name, value in state(model).items():
        if (
            name != "conv/bias"
        ):  # Adam makes a step of the rounding that is its gradient under batch norm
            np.testing.assert_allclose(state(loaded)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_same_seed_trains_the_same():
    """Two models of one seed train to the same bits, drawn masks included; another seed to
    others.
    """

    def run(seed):
        model = compiled(network("bernoulli", seed=seed))
        model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        return state(model)

    one = run(0)
    assert changed(one, run(0)) == set()
    assert "conv/kernel_logits" in changed(one, run(1))


REPLICAS = """
import json, sys
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
sys.path.insert(0, {tests!r})
import numpy as np
from supermask_tf import _keras
from supermask_tf.layers import masked_layers
from test_training import X, Y, network, loss, state

def run(estimator, strategy):
    with strategy.scope():
        model = network(estimator, norm=False)
        model.compile(tf.keras.optimizers.SGD(0.2, momentum=0.9), loss())
    values, copies = [], []
    for phase in ("mask", "weights", "both"):
        model.phase = phase  # outside the scope, as a user would
        values += model.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history["loss"]
        for variable in map(_keras.raw, model.weights):
            local = [v.numpy() for v in strategy.experimental_local_results(variable)]
            copies.append((len(local), all(v.tobytes() == local[0].tobytes() for v in local)))
    masked = {{}}
    for layer in masked_layers(model):
        kernels = strategy.run(lambda: layer.masked_weights(training=True)[0])
        local = strategy.experimental_local_results(kernels)
        masked[layer.name] = [v.numpy().tolist() for v in local]
    return {{"losses": values, "copies": copies, "masked": masked,
            "state": {{name: value.tolist() for name, value in state(model).items()}}}}

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = tf.distribute.OneDeviceStrategy("CPU:0")
found = {{
    estimator: {{"two": run(estimator, two), "one": run(estimator, one)}}
    for estimator in ("threshold", "bernoulli")
}}
json.dump({{"replicas": two.num_replicas_in_sync, **found}}, open({out!r}, "w"))
"""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Training on two logical processors and on one, in a process of its own (devices are set
    before any work).
    """
    out = tmp_path_factory.mktemp("replicas") / "out.json"
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS.format(tests=str(here), out=str(out))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["replicas"] == 2
    return result


@pytest.mark.long
@each_estimator
def test_replicas_hold_the_same(replicas, estimator):
    """After every phase under `MirroredStrategy` each replica's copy of each variable has the same
    bits.
    """
    copies = replicas[estimator]["two"]["copies"]
    assert copies and all(tuple(copy) == (2, True) for copy in copies)


@pytest.mark.long
@each_estimator
def test_replicas_draw_the_same_mask(replicas, estimator):
    """Every replica draws the same mask at a step, and it is one with weights in and weights out if
    drawn.
    """
    for first, second in replicas[estimator]["two"]["masked"].values():
        assert first == second
        if estimator == "bernoulli":
            assert 0 < np.count_nonzero(first) < np.size(first)


@pytest.mark.long
@each_estimator
def test_two_replicas_train_as_one(replicas, estimator):
    """Three phases on two replicas give the losses and variables of one device (the global batch is
    the same).
    """
    one, two = replicas[estimator]["one"], replicas[estimator]["two"]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    assert one["state"].keys() == two["state"].keys()
    for name in one["state"]:
        np.testing.assert_allclose(
            two["state"][name], one["state"][name], rtol=1e-4, atol=1e-5, err_msg=name
        )
