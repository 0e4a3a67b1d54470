"""What test_strategies.py runs in processes of their own: `python strategy_script.py
mirrored|multi_worker FOLDER`.

First one training step from each of several states, on one device and under the strategy; then a
whole small run into FOLDER. Prints as JSON where this process left its record, and by dtype and
network: the largest relative difference of any variable of the network and its optimizer after the
step (to the largest magnitude in its tensor), and whether all of this process's replicas drew the
same masks. Of several workers the first one alone takes the steps on one device; the others say the
sum of what they hold after the steps, which must be the first one's.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from tensorflow.python.distribute import collective_all_reduce_strategy as collective

from supermask_tf import _keras, data
from supermask_tf.experiment import Experiment, devices
from supermask_tf.experiment import network as networks
from supermask_tf.layers import masked_layers


# Without kinks: at one, a rounding difference in a single activation becomes a difference of the
# gradient.
class Smooth(tf.keras.layers.Activation):
    def __init__(self, name):
        super().__init__("softplus", name=name)


STATES, BATCH = 4, 16
# What the whole run trains.
RUN = {
    "model": "lenet_300_100",
    "dataset": "digits",
    "epochs": 3,
    "learning_rate": 0.1,
    "augment": False,
}
# Each network in each dtype, once; Keras 3 has no `multi_worker`. In float32 the moving variance is
# another than in float64.
CASES = {
    "mirrored": [("float64", "wide_resnet"), ("float32", "lenet_300_100")],
    "multi_worker": [("float32", "wide_resnet"), ("float64", "lenet_300_100")],
}
if _keras.KERAS == 3:
    CASES["mirrored"].append(("float32", "wide_resnet"))
NETWORKS = {
    "wide_resnet": Experiment(depth=10, estimator="bernoulli", batch_size=BATCH),
    "lenet_300_100": Experiment(model="lenet_300_100", estimator="threshold", batch_size=BATCH),
}


def network(strategy, settings):
    """The network and its optimizer with every variable made; weights, mask and batch norm
    train.
    """
    with strategy.scope():
        model = networks.build(settings, (8, 8, 1), 10)
        model.phase = "both"
        networks.compile_model(model, settings)
        model.optimizer.build(model.trainable_variables)
        if _keras.KERAS == 3:  # it makes the metrics' variables before `fit`, too
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


def compared(strategy, settings, images):
    """What is told of one network."""
    batches = data.training_batches(images, batch_size=BATCH, seed=0, epochs=1, augmented=False)
    many = network(strategy, settings)
    states = list(steps(many, data.shared_out(batches, strategy)))
    told = {"sum": float(sum(np.abs(array).sum(dtype=np.float64) for array in states[-1]))}
    if devices.is_chief():
        one = network(tf.distribute.get_strategy(), settings)
        differences = [
            np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)
            for expected, got in zip(steps(one, batches), states)
            for a, b in zip(expected, got)
        ]
        told["worst"] = float(np.max(differences))  # NaN stays
    drawn = strategy.run(
        tf.function(
            lambda: [layer.masked_weights(training=True)[0] for layer in masked_layers(many)]
        )
    )
    local = [strategy.experimental_local_results(kernel) for kernel in drawn]
    return told | {
        "equal": all(np.array_equal(kernel, others[0]) for others in local for kernel in others),
        "masks": [float(np.sum(kernels[0])) for kernels in local],
    }


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
    for dtype, model in CASES[name]:
        tf.keras.backend.set_floatx(dtype)
        tf.keras.mixed_precision.set_global_policy(dtype)
        found[f"{dtype} {model}"] = compared(strategy, NETWORKS[model], images)
    tf.keras.backend.set_floatx("float32")
    tf.keras.mixed_precision.set_global_policy("float32")
    run = Experiment(strategy=name, **RUN).run(folder, progress=False)
    print(
        json.dumps(
            {"steps": found, "record": str(run.path), "accuracy": run.summary["test_accuracy"]}
        )
    )


if __name__ == "__main__":
    # TensorFlow gives up a worker that is silent for ten seconds, as one on a busy machine may be.
    collective.CollectiveAllReduceExtended._check_health_timeout = 600
    tf.keras.layers.ReLU = Smooth
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    main(*sys.argv[1:])
