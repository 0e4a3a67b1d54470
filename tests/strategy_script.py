"""What test_strategies.py runs in processes of their own: `python strategy_script.py
mirrored|multi_worker FOLDER`.

First one training step from many states, on one device and under the strategy; then a whole small
run into FOLDER. Prints as JSON where this process left its record, and by dtype and network: the
largest relative difference of any variable of the network and its optimizer after the step (to the
largest magnitude in its tensor), and whether all of this process's replicas drew the same masks.
"""

import json
import sys

import numpy as np
import tensorflow as tf

from supermask_tf import data
from supermask_tf._keras import KERAS
from supermask_tf.experiment import Experiment, devices
from supermask_tf.experiment import network as networks
from supermask_tf.layers import masked_layers


# Without kinks: at one, a rounding difference in a single activation becomes a difference of the
# gradient.
class Smooth(tf.keras.layers.Activation):
    def __init__(self, name):
        super().__init__("softplus", name=name)


tf.keras.layers.ReLU = Smooth
STATES, BATCH = 20, 16


def network(strategy, settings):
    """The network and its optimizer with every variable made; weights, mask and batch norm
    train.
    """
    with strategy.scope():
        model = networks.build(settings, (8, 8, 1), 10)
        model.phase = "both"
        networks.compile_model(model, settings)
        model.optimizer.build(model.trainable_variables)
        if KERAS == 3:  # it makes the metrics' variables before `fit`, too
            model._symbolic_build(data_batch=(tf.zeros((1, 8, 8, 1)), tf.zeros((1,), tf.int64)))
    return model


def variables(model):
    return [*model.weights, *model.optimizer.variables]


def set_state(model, seed):
    """Random weights, logits, statistics and slots, of the sizes that training has."""
    random = np.random.default_rng(seed)
    for variable in variables(model):
        value = random.normal(size=variable.shape)
        name = variable.name
        kind = tf.as_dtype(variable.dtype)
        if kind.is_integer:
            value = np.asarray(100 + seed)
        elif "variance" in name or name.startswith("v/") or "velocity" in name:
            value = 0.5 + value**2
        elif "gamma" in name:
            value = 1 + value / 10
        elif "learning_rate" in name:
            continue
        elif name.startswith("m/") or "momentum" in name or name.endswith(("bias", "bias:0")):
            value = value / 10
        elif name.endswith(("kernel", "kernel:0")):
            value = value * np.sqrt(2 / np.prod(variable.shape[:-1]))
        variable.assign(tf.cast(value, kind))


def steps(model, batches):
    """The state after one step from each state; each state has a batch of its own."""
    model.make_train_function()
    step, iterator = model.train_function, iter(batches)
    for seed in range(STATES):
        set_state(model, seed)
        step(iterator)
        yield [np.array(variable) for variable in variables(model)]


def main(name, folder):
    if name == "mirrored":
        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
    strategy, found = devices.strategies(name), {}
    assert strategy.num_replicas_in_sync == 2
    # Noise: digits have pixels that never change, which leave float32 few digits of some gradients
    # on any device.
    x, y = (
        np.random.default_rng(0).integers(0, 256, (BATCH * STATES, 8, 8, 1), np.uint8),
        np.arange(BATCH * STATES) % 10,
    )
    images = data.ImageData("noise", (x, y), (x, y), (x, y), 10, "", (2 / 255, -1.0))
    for dtype in ("float32", "float64"):
        tf.keras.backend.set_floatx(dtype)
        tf.keras.mixed_precision.set_global_policy(dtype)
        for settings in (
            Experiment(depth=10, estimator="bernoulli", batch_size=BATCH),
            Experiment(model="lenet_300_100", estimator="threshold", batch_size=BATCH),
        ):
            batches = data.training_batches(
                images, batch_size=BATCH, seed=0, epochs=1, augmented=False
            )
            one, many = network(tf.distribute.get_strategy(), settings), network(strategy, settings)
            worst = 0.0
            for expected, got in zip(
                steps(one, batches), steps(many, data.shared_out(batches, strategy))
            ):
                worst = np.max(
                    [
                        worst,
                        *(
                            np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)
                            for a, b in zip(expected, got)
                        ),
                    ]
                )  # NaN stays
            drawn = strategy.run(
                tf.function(
                    lambda: [
                        layer.masked_weights(training=True)[0] for layer in masked_layers(many)
                    ]
                )
            )
            local = [strategy.experimental_local_results(kernel) for kernel in drawn]
            found[f"{dtype} {settings.model} {settings.estimator}"] = {
                "worst": float(worst),
                "equal": all(
                    np.array_equal(kernel, others[0]) for others in local for kernel in others
                ),
                "masks": [float(np.sum(kernels[0])) for kernels in local],
            }
    tf.keras.backend.set_floatx("float32")
    tf.keras.mixed_precision.set_global_policy("float32")
    run = Experiment(
        model="lenet_300_100", strategy=name, epochs=3, learning_rate=0.1, augment=False
    ).run(folder, progress=False)
    print(
        json.dumps(
            {"steps": found, "record": str(run.path), "accuracy": run.summary["test_accuracy"]}
        )
    )


tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
main(*sys.argv[1:])
