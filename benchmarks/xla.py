"""Both runtimes side by side: TensorFlow's training step and the exported one, run by JAX, on the
same device.

`python benchmarks/xla.py` needs both environments (`make test` makes them) and writes
benchmarks/xla.csv, which the book shows.

`python benchmarks/xla.py --bundle BUNDLE` needs JAX alone: it measures the programs of a bundle
where it stands, on any device, and prints their rates and what share they are of the device's rate
in plain matrix products.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
NETWORKS: dict[str, dict[str, Any]] = {
    "LeNet-300-100, MNIST": {"model": "lenet_300_100", "image_shape": (28, 28, 1)},
    "WRN-10-1, CIFAR-10": {
        "model": "wide_resnet",
        "depth": 10,
        "width": 1,
        "image_shape": (32, 32, 3),
    },
}


def seconds(call) -> float:
    """The time of a call, the median over rounds after one to warm up."""
    call()
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def matrix_rate(jax) -> float:
    """Floating-point operations per second in products of square bfloat16 matrices (float32 ones
    on a CPU).
    """
    import jax.numpy as jnp

    n, dtype = (1024, jnp.float32) if jax.devices()[0].platform == "cpu" else (8192, jnp.bfloat16)
    a = jnp.ones((n, n), dtype)
    product = jax.jit(lambda a: a @ a)
    return 2 * n**3 / seconds(lambda: product(a).block_until_ready())


def measure(bundle: Path) -> list[dict]:
    """Each network of a bundle: the seconds to compile its training program, to take a step and to
    make a batch; and its share of the matrix rate.
    """
    sys.path.insert(0, str(bundle))
    from supermask_run.bundles import xla
    from supermask_run.bundles.bundle import Bundle, starting_values

    jax = xla.load_jax()
    opened, rate, rows = Bundle.open(bundle), matrix_rate(jax), []
    of = {entry["program"]: entry for entry in opened.experiments.values()}
    for key, network in opened.programs.items():
        begun = time.perf_counter()
        train = xla.Program((bundle / f"programs/{key}-train.hlo").read_bytes(), key)
        compiled = time.perf_counter() - begun
        feed, batch = noise_feed(network), network["batch_size"]
        batches = seconds(lambda: feed.batches(0, 0)[0].block_until_ready())
        values = starting_values(network, of[key])
        step = step_seconds(jax, train, network, feed.batches(0, 0), values)
        rows.append(
            {
                "network": key,
                "experiment": next(
                    name for name, entry in opened.experiments.items() if entry["program"] == key
                ),
                "compile": compiled,
                "step": step,
                "batch": batches / network["chunk"],
                "images_per_second": batch / (step + batches / network["chunk"]),
                "share": 6 * network["multiply_adds"] * batch / step / rate,
                "matrix_rate": rate,
                **xla.machine(),
            }
        )
    return rows


def noise_feed(network: dict):
    """The batches of one chunk of noise, augmented, in the shape that a network of a bundle
    takes.
    """
    import numpy as np
    from supermask_run.bundles.feed import Feed
    from supermask_run.data import ImageData

    random, count = np.random.default_rng(0), network["batch_size"] * network["chunk"]
    split = (
        random.integers(0, 256, (count, *network["image_shape"]), np.uint8),
        random.integers(0, network["classes"], count),
    )
    return Feed(
        ImageData("noise", split, split, split, network["classes"], "", (2 / 255, -1.0)),
        batch_size=network["batch_size"],
        seed=0,
        augmented=True,
        chunk=network["chunk"],
    )


def step_seconds(jax, train, network: dict, batches: tuple, values: dict) -> float:
    """The seconds of a training step, taken over as many steps of a chunk as fill two seconds.

    Args:
        train: the network's training program.
        batches: images and labels of one chunk.
        values: where the parameters start, by path.
    """
    import numpy as np

    state = {path: jax.numpy.array(value) for path, value in values.items()}

    def steps(count):
        outputs = train(
            [
                *batches,
                jax.numpy.full(network["chunk"], 1e-3, "float32"),
                jax.numpy.asarray(np.int32(0)),
                jax.numpy.asarray(np.int32(count)),
                *(state[path] for path in network["train"]["parameters"]),
            ]
        )
        state.update({path: outputs[index] for index, path in network["train"]["updates"]})
        outputs[0].block_until_ready()

    begun = time.perf_counter()
    steps(1)
    count = max(1, min(network["chunk"], int(2 / (time.perf_counter() - begun))))
    return seconds(lambda: steps(count)) / count


def native(settings: dict) -> float:
    """Seconds of TensorFlow's step, as benchmarks/run.py measures it."""
    import tensorflow as tf

    from supermask_tf import models

    settings = dict(settings)
    shape = settings.pop("image_shape")
    model = models.build(**settings, input_shape=shape)
    model.compile(
        tf.keras.optimizers.Adam(0.01),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x = tf.random.stateless_uniform((128, *shape), (0, 0), -1, 1)
    y = tf.random.stateless_uniform((128,), (0, 1), 0, 10, tf.int64)
    step = tf.function(lambda: model.train_step((x, y)))
    return seconds(lambda: step()["loss"].numpy())


def compare() -> list[dict]:
    """Rows of the table: the seconds of a step of batch 128 in both runtimes, the time to compile,
    and the size of the bundle.
    """
    import numpy as np

    from supermask_tf import exporter
    from supermask_tf.experiment.devices import machine

    rows: list[dict] = []
    here = machine()
    with tempfile.TemporaryDirectory() as folder:
        for name, settings in NETWORKS.items():
            place = Path(folder) / str(len(rows))
            place.mkdir()
            random = np.random.default_rng(0)
            split = {
                f"x_{part}": random.integers(0, 256, (500, *settings["image_shape"]), np.uint8)
                for part in ("train", "test")
            }
            np.savez(
                place / "noise.npz",
                **split,
                y_train=np.arange(500) % 10,
                y_test=np.arange(500) % 10,
            )
            parameters = {key: value for key, value in settings.items() if key != "image_shape"} | {
                "arm": "mask",
                "dataset": str(place / "noise.npz"),
            }
            (place / "study.yml").write_text(json.dumps({"runs": {"mask": parameters}}))
            bundle = exporter.export([place / "study.yml"], place / "bundle").folder
            size = sum(file.stat().st_size for file in bundle.glob("**/*") if file.is_file())
            done = subprocess.run(
                [ROOT / ".venv-jax/bin/python", __file__, "--bundle", bundle, "--json"],
                capture_output=True,
                text=True,
                check=True,
            )
            (found,) = json.loads(done.stdout)
            step = native(settings)
            shared = {
                "network": name,
                "processor": here["processor"],
                "threads": here["threads"],
                "tensorflow": here["versions"]["tensorflow"],
                "jax": found["versions"]["jax"],
            }
            for what, value, unit in (
                ("TensorFlow step", 1e3 * step, "ms"),
                ("XLA step", 1e3 * found["step"], "ms"),
                ("XLA step over TensorFlow step", found["step"] / step, ""),
                ("XLA batch with augmentation", 1e3 * found["batch"], "ms"),
                ("XLA compilation", found["compile"], "s"),
                ("bundle", size / 1e6, "MB"),
            ):
                rows.append({"what": what, "value": value, "unit": unit} | shared)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--bundle", type=Path, help="measure a bundle's programs on this device; needs JAX alone"
    )
    parser.add_argument("--json", action="store_true", help="print what was measured as JSON")
    options = parser.parse_args()
    if not options.bundle:
        import pandas as pd

        table = pd.DataFrame(compare())
        table.to_csv(Path(__file__).with_name("xla.csv"), index=False, float_format="%.5g")
        print(table[["network", "what", "value", "unit"]].to_string(index=False))
        return
    rows = measure(options.bundle)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['experiment']}: {row['images_per_second']:.0f} images/s, {1e3 * row['step']:.2f}"
            f" ms a step and {1e3 * row['batch']:.2f} ms a batch; {row['share']:.0%} of the"
            f" {row['matrix_rate'] / 1e12:.3g} TFLOP/s that {row['processor']} reaches in matrix"
            f" products; compiled in {row['compile']:.0f} s"
        )


if __name__ == "__main__":
    main()
