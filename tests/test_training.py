"""`SupermaskModel`: what each phase trains and freezes, optimizer slots, switching, XLA, precision, replicas, saving."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm

X = np.random.default_rng(0).normal(size=(32, 5, 5, 2)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, size=32)
PHASES = ["mask", "weights", "both"]
each_phase = pytest.mark.parametrize("phase", PHASES)
each_estimator = pytest.mark.parametrize("estimator", ["threshold", "bernoulli"])


def loss():
    return tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(estimator="threshold", phase="mask", dtype=None, norm=True, **masking):
    """A small network: masked convolution, batch norm, masked dense, with nonzero biases."""
    masking = {"estimator": estimator, "bias_initializer": tf.keras.initializers.RandomNormal(seed=1), "dtype": dtype} | masking
    x = inputs = tf.keras.Input((5, 5, 2))
    x = sm.MaskedConv2D(4, 3, name="conv", **masking)(x)
    if norm:
        x = tf.keras.layers.BatchNormalization(name="bn", dtype=dtype)(x)
    x = tf.keras.layers.Activation("tanh", dtype=dtype)(x)
    x = tf.keras.layers.Flatten()(x)
    x = sm.MaskedDense(3, name="dense", **masking)(x)
    return sm.SupermaskModel(inputs, tf.keras.layers.Activation("linear", dtype="float32")(x), phase=phase)


def compiled(model, optimizer=None, **arguments):
    model.compile(optimizer or tf.keras.optimizers.Adam(0.05), loss(), **arguments)
    return model


def state(model):
    """Every variable's value by layer path and role."""
    roles = ("kernel", "bias", "kernel_logits", "bias_logits", "gamma", "beta", "moving_mean", "moving_variance", "draws")
    return {
        f"{layer.name}/{role}": getattr(layer, role).numpy()
        for layer in model.layers for role in roles if isinstance(getattr(layer, role, None), tf.Variable)
    }


def changed(before, after):
    """The names of the variables of which any bit changed."""
    assert before.keys() == after.keys()
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


def trained_by(phase, estimator):
    """What an epoch must change: all of it, and nothing else."""
    roles = {"mask": ["kernel_logits", "bias_logits"], "weights": ["kernel", "bias"],
             "both": ["kernel", "bias", "kernel_logits", "bias_logits"]}[phase]
    names = {f"{layer}/{role}" for layer in ("conv", "dense") for role in roles}
    if estimator == "bernoulli" and phase != "weights":
        names |= {"conv/draws", "dense/draws"}
    return names | {f"bn/{role}" for role in ("gamma", "beta", "moving_mean", "moving_variance")}


def slots(optimizer):
    """The shapes of an Adam's two slots a variable, in order."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    assert len(inner._momentums) == len(inner._velocities)
    return [tuple(v.shape) for v in inner._momentums]


@each_estimator
@each_phase
def test_an_epoch_trains_the_phase_and_nothing_else(phase, estimator):
    """After an epoch what the phase trains has changed, every bit of the rest is as it was and has no optimizer slot."""
    model = compiled(network(estimator, phase))
    before = state(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, state(model)) == trained_by(phase, estimator)
    assert {id(v) for v in model.trainable_weights} | {id(v) for v in model.non_trainable_weights} == {id(v) for v in model.weights}
    assert not {id(v) for v in model.trainable_weights} & {id(v) for v in model.non_trainable_weights}
    untrained = {"bn/moving_mean", "bn/moving_variance", "conv/draws", "dense/draws"}
    wanted = sorted(before[name].shape for name in trained_by(phase, estimator) - untrained)
    assert sorted(slots(model.optimizer)) == wanted
    assert len(model.optimizer.variables) == 1 + 2 * len(wanted)  # and the count of steps


def test_zero_biases_keep_their_logits():
    """A bias of 0 gives its logit no gradient: in phase "mask" it never moves (the design relies on it)."""
    model = compiled(network(bias_initializer="zeros"))
    before = state(model)
    model.fit(X, Y, batch_size=8, verbose=0)
    assert changed(before, state(model)) == trained_by("mask", "threshold") - {"conv/bias_logits", "dense/bias_logits"}


@each_estimator
@each_phase
def test_a_step_follows_the_gradients_formula(phase, estimator):
    """One step of SGD moves each trained variable by −rate × its gradient, taken here on plain tensors."""
    model = compiled(network(estimator, phase, norm=False, dtype="float64", mask_initializer=tf.keras.initializers.RandomNormal(seed=2)),
                     tf.keras.optimizers.SGD(0.1))
    before = {name: tf.constant(value) for name, value in state(model).items()}
    seeded = estimator == "bernoulli" and phase != "weights"

    def mask(name):
        layer, role = name.split("/")
        logits = before[f"{name}_logits"]
        if seeded:
            seed = (sm.initializers.fold(0, f"{layer}/{role}"), 0)
            return tf.cast(tf.random.stateless_uniform(logits.shape, seed, alg="philox") < tf.cast(tf.sigmoid(logits), tf.float32), tf.float64)
        return tf.cast(logits > 0, tf.float64)

    names = [f"{layer}/{role}" for layer in ("conv", "dense") for role in ("kernel", "bias")]
    masks = {name: mask(name) for name in names}
    effective = {name: before[name] * masks[name] for name in names}
    with tf.GradientTape() as tape:
        tape.watch(effective)
        x = tf.tanh(tf.nn.conv2d(tf.cast(X, tf.float64), effective["conv/kernel"], 1, "VALID") + effective["conv/bias"])
        logits = tf.reshape(x, [len(X), -1]) @ effective["dense/kernel"] + effective["dense/bias"]
        value = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, logits))
    gradients = tape.gradient(value, effective)
    history = model.fit(X, Y, batch_size=len(X), verbose=0).history
    np.testing.assert_allclose(history["loss"][0], float(value), rtol=1e-5)
    after = state(model)
    for name in names:
        s = tf.sigmoid(before[f"{name}_logits"])
        expected = {name: gradients[name] * masks[name], f"{name}_logits": gradients[name] * before[name] * s * (1 - s)}
        for variable, gradient in expected.items():
            moves = variable in trained_by(phase, estimator)
            # The network ends in float32, as it does under mixed precision: so do its gradients.
            np.testing.assert_allclose(after[variable], (before[variable] - 0.1 * moves * gradient).numpy(), rtol=1e-6, atol=1e-8)


def test_phase_weights_does_not_draw_the_mask():
    """In phase "weights" a Bernoulli mask stays at its most likely value: what is out gets no gradient."""
    model = network("bernoulli", "weights", norm=False)
    masks = {path: np.random.default_rng(i).random(mask.shape) < 0.5 for i, (path, mask) in enumerate(model.masks().items())}
    model.set_masks(masks)
    before = state(model)
    compiled(model).fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    after = state(model)
    assert after["conv/draws"] == after["dense/draws"] == 0
    for path, mask in masks.items():
        np.testing.assert_array_equal(after[path] != before[path], mask)
        np.testing.assert_array_equal(model.masks()[path], mask)
    same = network("threshold", "weights", norm=False)  # and training is that of a mask which can't be drawn
    same.set_masks(masks)
    compiled(same).fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    for name, value in state(same).items():
        if not name.endswith("logits"):
            np.testing.assert_array_equal(after[name], value)


@each_estimator
def test_switching_the_phase_after_a_fit(estimator):
    """Each phase follows each: fitting goes on, trains what it should, with new slots and the optimizer's settings."""
    model = compiled(network(estimator), tf.keras.optimizers.Adam(0.03, beta_1=0.8))
    model.fit(X, Y, verbose=0)
    for phase in ("weights", "mask", "both"):
        model.phase = phase
        before = state(model)
        model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        assert changed(before, state(model)) == trained_by(phase, estimator)
        assert len(slots(model.optimizer)) == len(model.trainable_variables)
        assert int(model.optimizer.iterations) == 4
        assert float(model.optimizer.learning_rate) == pytest.approx(0.03) and model.optimizer.beta_1 == 0.8


def test_setting_the_same_phase_keeps_the_optimizer():
    """Setting the phase that the model is in is no change: the slots stay."""
    model = compiled(network())
    model.fit(X, Y, batch_size=8, verbose=0)
    optimizer, model.phase = model.optimizer, "mask"
    assert model.optimizer is optimizer and int(optimizer.iterations) == 4


def test_evaluation_and_prediction_follow_a_switch(estimator="bernoulli"):
    """Evaluating and predicting change nothing and see the weights of the new phase."""
    model = compiled(network(estimator))
    model.fit(X, Y, verbose=0)
    model.predict(X, verbose=0), model.evaluate(X, Y, verbose=0)
    model.phase = "weights"
    model.fit(X, Y, verbose=0)
    before = state(model)
    np.testing.assert_allclose(model.predict(X, verbose=0), model(X, training=False).numpy(), rtol=1e-5, atol=1e-5)
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
    """`train_step` honours sample weights, metrics and the logits' regularizer, as Keras's own does."""
    model = network(norm=False, mask_regularizer=tf.keras.regularizers.L2(0.01))
    model.compile(tf.keras.optimizers.SGD(0.0), loss(), metrics=["accuracy"],
                  weighted_metrics=[tf.keras.metrics.SparseCategoricalAccuracy(name="weighted")])
    weights = np.linspace(0, 2, len(X)).astype(np.float32)
    history = model.fit(X, Y, batch_size=len(X), sample_weight=weights, verbose=0).history
    logits = model(X).numpy().astype(np.float64)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(Y)), Y]
    penalty = 0.01 * sum(value.size for name, value in state(model).items() if name.endswith("logits"))
    right = logits.argmax(1) == Y
    assert history["loss"][0] == pytest.approx((losses * weights).mean() + penalty, rel=1e-5)
    assert history["accuracy"][0] == pytest.approx(right.mean())
    assert history["weighted"][0] == pytest.approx((right * weights).sum() / weights.sum(), rel=1e-5)


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
    assert {"plain/kernel", "plain/bias"} & moved == ({"plain/kernel", "plain/bias"} if trains else set())
    assert ("dense/kernel_logits" in moved) == (phase != "weights")


@each_phase
def test_masked_layers_of_an_inner_model_follow_the_phase(phase):
    """A masked layer inside a model inside the model trains and freezes with the phase."""
    inner = tf.keras.Sequential([sm.MaskedDense(6, activation="tanh", estimator="bernoulli", name="inner")])
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


@each_phase
def test_a_supermask_model_among_the_layers_follows_the_phase(phase):
    """What the inner model was built with does not keep its weights, or its mask, from training."""
    inner = network()
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(sm.SupermaskModel(inputs, sm.MaskedDense(3, name="head")(inner(inputs)), phase=phase))
    assert inner.phase == phase
    before = inner.get_layer("dense").kernel.numpy(), inner.get_layer("dense").kernel_logits.numpy()
    model.fit(X, Y, batch_size=8, verbose=0)
    assert np.array_equal(before[0], inner.get_layer("dense").kernel.numpy()) == (phase == "mask")
    assert np.array_equal(before[1], inner.get_layer("dense").kernel_logits.numpy()) == (phase == "weights")


def test_two_networks_with_equal_names_are_told_apart_or_refused():
    """Masks by path would be of one of them alone: neither read nor set."""
    inputs = tf.keras.Input((5, 5, 2))
    towers = [tf.keras.Model(one.inputs, one.outputs, name=f"tower{i}") for i, one in enumerate((network(), network()))]
    model = sm.SupermaskModel(inputs, tf.keras.layers.Add()([tower(inputs) for tower in towers]))
    with pytest.raises(ValueError, match="Several masked layers of .* are called conv, dense"):
        model.masks()
    with pytest.raises(ValueError, match="conv, dense"):
        model.set_masks({"dense/kernel": np.ones((100, 3), bool)})


@pytest.mark.parametrize("arguments", [{}, {"jit_compile": True}, {"steps_per_execution": 2}, {"run_eagerly": True}], ids=str)
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
    model.fit(X, Y, sample_weight=np.zeros(len(Y)), batch_size=8, verbose=0)  # no gradient: what changes is decay
    assert changed(before, state(model)) & {"dense/kernel", "dense/bias"} == {"dense/kernel"}


def test_nothing_to_train_is_refused():
    """A network without masked layers trains nothing in phase "mask", and says so."""
    inputs = tf.keras.Input((5, 5, 2))
    model = compiled(sm.SupermaskModel(inputs, tf.keras.layers.Dense(3)(tf.keras.layers.Flatten()(inputs))))
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


@each_estimator
@each_phase
def test_xla_agrees(phase, estimator):
    """`compile(jit_compile=True)` trains: the same masks are drawn, and every variable agrees to 1e-5."""
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


@pytest.mark.parametrize("estimator, policy", [
    ("threshold", "mixed_float16"), ("bernoulli", "mixed_float16"), ("bernoulli", "mixed_bfloat16"),
])
def test_mixed_precision_and_switching(estimator, policy):
    """Under mixed precision every phase trains in turn, scaled losses included; variables stay in float32."""
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
        rounding = {"conv/bias", "conv/bias_logits"}  # no gradient under batch norm: in half precision it may be 0
        assert changed(before, after) - rounding == trained_by(phase, estimator) - rounding
        assert changed(before, after) <= trained_by(phase, estimator)
        assert all(np.isfinite(value).all() and value.dtype in (np.float32, np.int64) for value in after.values())
        assert type(model.optimizer) is type(optimizer)
        assert len(slots(model.optimizer)) == len(model.trainable_variables)
    if policy == "mixed_float16":
        assert float(model.optimizer.initial_scale) == 2.0**7


@pytest.mark.parametrize("phase, estimator", [("mask", "bernoulli"), ("weights", "threshold"), ("both", "bernoulli")])
def test_a_saved_model_continues_where_it_was(phase, estimator, tmp_path):
    """A `.keras` file keeps phase, draws and slots: the loaded model goes on exactly as the one that was saved."""
    model = compiled(network(estimator, phase))
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is sm.SupermaskModel and loaded.phase == phase
    assert changed(state(model), state(loaded)) == set()
    assert slots(loaded.optimizer) == slots(model.optimizer) and int(loaded.optimizer.iterations) == 4
    before = state(loaded)
    histories = [m.fit(X, Y, batch_size=8, shuffle=False, epochs=2, verbose=0).history["loss"] for m in (model, loaded)]
    assert changed(before, state(loaded)) == trained_by(phase, estimator)
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-6)
    for name, value in state(model).items():
        if name != "conv/bias":  # Adam makes a step of the rounding that is its gradient under batch norm
            np.testing.assert_allclose(state(loaded)[name], value, rtol=1e-4, atol=1e-5)


def test_the_same_seed_trains_the_same():
    """Two models of one seed train to the same bits, drawn masks included; another seed to others."""
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
        for variable in model.weights:
            local = [v.numpy() for v in strategy.experimental_local_results(variable)]
            copies.append((len(local), all(v.tobytes() == local[0].tobytes() for v in local)))
    masked = {{}}
    for layer in masked_layers(model):
        kernels = strategy.run(lambda: layer.masked_weights(training=True)[0])
        masked[layer.name] = [v.numpy().tolist() for v in strategy.experimental_local_results(kernels)]
    return {{"losses": values, "copies": copies, "masked": masked,
            "state": {{name: value.tolist() for name, value in state(model).items()}}}}

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
one = tf.distribute.OneDeviceStrategy("CPU:0")
json.dump({{"replicas": two.num_replicas_in_sync, **{{
    estimator: {{"two": run(estimator, two), "one": run(estimator, one)}} for estimator in ("threshold", "bernoulli")
}}}}, open({out!r}, "w"))
"""


@pytest.fixture(scope="module")
def replicas(tmp_path_factory):
    """Training on two logical processors and on one, in a process of its own (devices are set before any work)."""
    out = tmp_path_factory.mktemp("replicas") / "out.json"
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", REPLICAS.format(tests=str(here), out=str(out))], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(here.parent), "TF_CPP_MIN_LOG_LEVEL": "3"}, timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(out.read_text())
    assert result["replicas"] == 2
    return result


@pytest.mark.slow
@each_estimator
def test_replicas_hold_the_same(replicas, estimator):
    """After every phase under `MirroredStrategy` each replica's copy of each variable has the same bits."""
    copies = replicas[estimator]["two"]["copies"]
    assert copies and all(tuple(copy) == (2, True) for copy in copies)


@pytest.mark.slow
@each_estimator
def test_replicas_draw_the_same_mask(replicas, estimator):
    """Every replica draws the same mask at a step, and it is one with weights in and weights out if drawn."""
    for first, second in replicas[estimator]["two"]["masked"].values():
        assert first == second
        if estimator == "bernoulli":
            assert 0 < np.count_nonzero(first) < np.size(first)


@pytest.mark.slow
@each_estimator
def test_two_replicas_train_as_one(replicas, estimator):
    """Three phases on two replicas give the losses and variables of one device (the global batch is the same)."""
    one, two = replicas[estimator]["one"], replicas[estimator]["two"]
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=1e-4)
    assert one["state"].keys() == two["state"].keys()
    for name in one["state"]:
        np.testing.assert_allclose(two["state"][name], one["state"][name], rtol=1e-4, atol=1e-5, err_msg=name)
