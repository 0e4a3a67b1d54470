"""Speed and memory, side by side, as ratios in one run: `make bench` writes benchmarks/results.csv,
which the book shows.

`python benchmarks/run.py checkpoints runs` measures these parts alone and leaves the other rows as
they are.

Times: the variants take turns within one process, and the ratio is the median over rounds of the
ratio within a round, so that a machine whose speed drifts drifts for both. Memory: the peak of a
fresh process per variant. Run it on an idle machine, in the paper's environment; for the part
`environments` the current one must be there too, as `make PYTHON=python3.13 VENV=.venv-current
.venv-current/installed` makes it.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROUNDS = 15
# The Python of the current environment.
CURRENT = Path(__file__).resolve().parents[1] / ".venv-current" / "bin" / "python"
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "WRN-16-1": ({"model": "wide_resnet", "depth": 16, "width": 1, "input_shape": (32, 32, 3)}, 4),
    "LeNet-300-100": ({"model": "lenet_300_100", "input_shape": (28, 28, 1)}, 100),
    "Conv-2": ({"model": "conv_net", "depth": 2, "input_shape": (32, 32, 3)}, 3),
}
BESIDE_KERAS = ("WRN-16-1", "LeNet-300-100")
# What the project asks of itself.
BOUNDS = {
    ("WRN-16-1 training step", "mask"): 1.08,
    ("LeNet-300-100 training step", "mask"): 1.6,
    ("WRN-16-1 peak memory", "mask"): 1.1,
    ("input pipeline with augmentation", "one batch"): 0.1,
    ("WRN-16-1 epoch of 45,000 images", "its checkpoint"): 0.03,
    ("a study of 12 small runs", "two workers"): 1 / 1.6,
    ("LeNet-300-100 step by estimator", "top_k"): 2.2,
    ("Conv-2 step by estimator", "top_k"): 1.25,
    ("WRN-16-1 training step, Keras 3", "mask"): 1.08,
    ("LeNet-300-100 training step, Keras 3", "mask"): 1.6,
    ("WRN-16-1 mask step by environment", "current"): 1.1,
    ("LeNet-300-100 mask step by environment", "current"): 1.1,
    ("WRN-16-1 prediction", "plain"): 1.05,
    ("LeNet-300-100 prediction", "plain"): 1.05,
    **{
        ("Conv-2 step by what top_k ranks", variant): 1.3
        for variant in ("2:4", "16x1", "channels", "global", "3 coats", "7 coats")
    },
}


def plain(model):
    """The same network of Keras's own layers."""
    import tensorflow as tf

    import supermask_tf as sm

    def layer(old):
        settings = (
            {"activation": old.activation, "name": old.name.replace("/", ".")}
            if isinstance(old, (sm.MaskedConv2D, sm.MaskedDense))
            else {}
        )
        if isinstance(old, sm.MaskedConv2D):
            return tf.keras.layers.Conv2D(
                old.filters, old.kernel_size, padding=old.padding, **settings
            )
        if isinstance(old, sm.MaskedDense):
            return tf.keras.layers.Dense(old.units, **settings)
        return type(old).from_config(old.get_config())

    return tf.keras.models.clone_model(
        tf.keras.Model(model.inputs, model.outputs), clone_function=layer
    )


def training_step(network: str, variant: str):
    """A function that runs one compiled training step of batch 128 on fixed data."""
    import tensorflow as tf

    import supermask_tf as sm

    settings, _ = NETWORKS[network]
    estimator = ESTIMATORS.get(variant, {"name": "threshold"})
    if variant == "top_k by a sort":
        estimator = sm.estimators.get(sorted_top_k)
    model = sm.models.build(
        **settings, phase="weights" if variant == "weights" else "mask", estimator=estimator
    )
    if variant == "Keras":
        model = plain(model)
    model.compile(
        tf.keras.optimizers.Adam(0.01),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    x = tf.random.stateless_uniform((128, *settings["input_shape"]), (0, 0), -1, 1)
    y = tf.random.stateless_uniform((128,), (0, 1), 0, 10, tf.int64)
    return tf.function(lambda: model.train_step((x, y)))


ESTIMATORS = {
    "mask, Bernoulli": {"name": "bernoulli"},
    "bernoulli": {"name": "bernoulli"},
    "binary_concrete": {"name": "binary_concrete"},
    "intermediate_loss": {"name": "intermediate_loss"},
    "top_k": {"name": "top_k", "density": 0.5},
    **{
        groups: {"name": "top_k", "density": 0.5, "groups": groups}
        for groups in ("2:4", "16x1", "channels")
    },
    "global": {"name": "top_k", "density": 0.5, "scope": "global"},
    **{f"{coats} coats": {"name": "top_k", "density": 0.5, "coats": coats} for coats in (3, 7)},
}


def sorted_top_k(scores):
    """`top_k` at a density of one half, its threshold found by sorting all scores."""
    import tensorflow as tf

    @tf.custom_gradient
    def forward(s):
        magnitude = tf.abs(s)
        threshold = tf.sort(tf.reshape(magnitude, [-1]))[tf.size(s) // 2]
        return tf.cast(magnitude >= threshold, s.dtype), lambda upstream: upstream * tf.sign(s)

    return forward(scores)


def seconds(call, repeats: int) -> float:
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - started) / repeats


def steps() -> list[dict]:
    rows = []
    for network in BESIDE_KERAS:
        repeats = NETWORKS[network][1]
        calls = {
            variant: training_step(network, variant)
            for variant in ("Keras", "mask", "mask, Bernoulli", "weights")
        }
        for call in calls.values():
            seconds(call, 3)  # tracing and warming up
        rounds = [
            {variant: seconds(call, repeats) for variant, call in calls.items()}
            for _ in range(ROUNDS)
        ]
        rows += compare(f"{network} training step", rounds, "Keras", 1e3, "ms")
    return rows


def predictions() -> list[dict]:
    """A prediction for 128 images: the dense network, the masked one, and the plain form of that;
    then what is left of it where half of the inner units and channels are masked.
    """
    import numpy as np
    import tensorflow as tf

    import supermask_tf as sm

    rows = []
    for network in BESIDE_KERAS:
        settings, repeats = NETWORKS[network]
        masked = sm.models.build(**settings)
        masks = masked.masks()
        random = np.random.Generator(np.random.Philox(0))
        half = dict(masks)
        for path in [path for path in masks if path.endswith("/kernel")][:-1]:
            cut = np.arange(masks[path].shape[-1]) % 2 == 0
            masks[path] = random.random(masks[path].shape) < 0.5
            half[path] = masks[path] & ~cut
        masked.set_masks(half)
        networks = {"Keras": plain(masked), "compact": sm.plain(masked, compact=True)}
        masked.set_masks(masks)
        networks |= {"masked": masked, "plain": sm.plain(masked)}
        x = tf.random.stateless_uniform((128, *settings["input_shape"]), (0, 0), -1, 1)
        calls = {name: predicting(model, x) for name, model in networks.items()}
        for call in calls.values():
            seconds(call, 3)
        rounds = [
            {name: seconds(call, repeats) for name, call in calls.items()}
            for _ in range(4 * ROUNDS)  # short ones: two of the networks do the same
        ]
        rows += compare(f"{network} prediction", rounds, "Keras", 1e3, "ms")
    return rows


def predicting(model, x):
    """A function that predicts once, compiled."""
    import tensorflow as tf

    predict = tf.function(lambda: model(x, training=False))
    return lambda: predict()


def by_estimator() -> list[dict]:
    rows = []
    for network in ("LeNet-300-100", "Conv-2"):
        repeats = NETWORKS[network][1]
        calls = {
            name: training_step(network, name)
            for name in (
                "threshold",
                "bernoulli",
                "binary_concrete",
                "intermediate_loss",
                "top_k",
                "top_k by a sort",
            )
        }
        for call in calls.values():
            seconds(call, 3)
        rounds = [
            {name: seconds(call, repeats) for name, call in calls.items()} for _ in range(ROUNDS)
        ]
        rows += compare(f"{network} step by estimator", rounds, "threshold", 1e3, "ms")
    return rows


def rankings() -> list[dict]:
    """A step with each thing that `top_k` can rank, against one of plain `top_k`."""
    repeats = NETWORKS["Conv-2"][1]
    names = ("top_k", "2:4", "16x1", "channels", "global", "3 coats", "7 coats")
    calls = {name: training_step("Conv-2", name) for name in names}
    for call in calls.values():
        seconds(call, 3)
    rounds = [{name: seconds(call, repeats) for name, call in calls.items()} for _ in range(ROUNDS)]
    return compare("Conv-2 step by what top_k ranks", rounds, "top_k", 1e3, "ms")


def pipeline() -> list[dict]:
    """A batch of the input pipeline, by itself, against a training step, in turns."""
    import numpy as np

    from supermask_tf import data

    bits = np.random.Generator(np.random.Philox(0))
    split = (bits.integers(0, 256, (45000, 32, 32, 3), np.uint8), bits.integers(0, 10, 45000))
    images = data.ImageData("noise", split, split, split, 10, "", (2 / 255, -1.0))
    step = training_step("WRN-16-1", "mask")
    seconds(step, 3)

    def batch():
        # A fresh iterator each time: an old one has batches in store, made while the step ran.
        batches = iter(data.training_batches(images, batch_size=128, seed=0, epochs=1))
        next(batches)
        return seconds(lambda: next(batches), 200)

    rounds = [{"WRN-16-1 step": seconds(step, 4), "one batch": batch()} for _ in range(ROUNDS)]
    return compare("input pipeline with augmentation", rounds, "WRN-16-1 step", 1e3, "ms")


def memory() -> list[dict]:
    def peak(variant):
        return float(child("--peak", variant))

    rounds = [{variant: peak(variant) for variant in ("Keras", "mask")} for _ in range(3)]
    return compare("WRN-16-1 peak memory", rounds, "Keras", 1 / 1024, "MiB")


def onednn() -> list[dict]:
    rounds = [
        {
            name: float(child("--step", "mask", TF_ENABLE_ONEDNN_OPTS=flag))
            for name, flag in (("without oneDNN", "0"), ("with oneDNN", "1"))
        }
        for _ in range(3)
    ]
    return compare("WRN-16-1 mask step", rounds, "without oneDNN", 1e3, "ms")


def determinism() -> list[dict]:
    """What `tf.config.experimental.enable_op_determinism` costs, turned on and off between
    turns.
    """
    import tensorflow as tf
    from tensorflow.python.framework import config

    tf.keras.utils.set_random_seed(0)
    switches = {
        "as it is": config.disable_op_determinism,
        "op determinism": config.enable_op_determinism,
    }

    def turn(name, call, repeats):
        switches[name]()
        return seconds(call, repeats)

    rows = []
    try:
        for network in BESIDE_KERAS:
            repeats = NETWORKS[network][1]
            calls = {name: training_step(network, "mask") for name in switches}
            for name, call in calls.items():
                turn(name, call, 3)
            rounds = [
                {name: turn(name, call, repeats) for name, call in calls.items()}
                for _ in range(ROUNDS)
            ]
            rows += compare(f"{network} mask step, determinism", rounds, "as it is", 1e3, "ms")
    finally:
        config.disable_op_determinism()
    return rows


def environments() -> list[dict]:
    """A mask step in the current environment against the paper's, and against the step of Keras's
    own layers there: a process per environment, and they take turns.
    """
    rows = []
    with elsewhere(sys.executable) as paper, elsewhere(str(CURRENT)) as current:
        turns = {
            "paper": (paper, "mask"),
            "current": (current, "mask"),
            "Keras": (current, "Keras"),
        }
        for network in BESIDE_KERAS:
            repeats = NETWORKS[network][1]
            for ask, variant in turns.values():
                ask(network, variant, 3)  # tracing and warming up
            rounds = [
                {name: ask(network, variant, repeats) for name, (ask, variant) in turns.items()}
                for _ in range(ROUNDS)
            ]
            masks = [{name: times[name] for name in ("paper", "current")} for times in rounds]
            rows += compare(f"{network} mask step by environment", masks, "paper", 1e3, "ms")
            beside = [{"Keras": times["Keras"], "mask": times["current"]} for times in rounds]
            rows += compare(f"{network} training step, Keras 3", beside, "Keras", 1e3, "ms")
    return rows


@contextlib.contextmanager
def elsewhere(python: str):
    """A process of another Python: a function that lets it take steps gives the seconds of one."""
    process = subprocess.Popen(
        [python, __file__, "--turns"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    to, back = process.stdin, process.stdout
    assert to and back  # pipes were asked for

    def ask(network: str, variant: str, repeats: int) -> float:
        print(network, variant, repeats, file=to, flush=True)
        return float(back.readline())

    try:
        yield ask
    finally:
        to.close()
        process.wait()


def take_turns() -> None:
    """What the process of `elsewhere` does: for each line "NETWORK VARIANT STEPS" it prints the
    seconds of a step.
    """
    calls: dict[tuple[str, str], Any] = {}
    for line in sys.stdin:
        network, variant, repeats = line.split()
        if (network, variant) not in calls:
            calls[network, variant] = training_step(network, variant)
        print(seconds(calls[network, variant], int(repeats)), flush=True)


def checkpoints() -> list[dict]:
    """Writing the checkpoint of an epoch, safely on the disk, against the epoch of 351 steps by
    itself.
    """
    from types import SimpleNamespace

    import supermask_tf as sm

    model = sm.models.build(**NETWORKS["WRN-16-1"][0], phase="mask")
    model.compile("adam")
    model.optimizer.build(model.trainable_variables)
    plateau = SimpleNamespace(best=0.5, wait=1, cooldown_counter=0)
    watch = SimpleNamespace(
        rows=[{"loss": 0.5}] * 30,
        best_epoch=3,
        best_accuracy=0.5,
        seconds=1.0,
        best_weights=model.get_weights(),
    )
    step = training_step("WRN-16-1", "mask")
    seconds(step, 3)
    # Not on a file system in memory.
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        saved = sm.checkpoints.Checkpoints(Path(folder) / "run")
        rounds = [
            {
                "the epoch": 45000 // 128 * seconds(step, 4),
                "its checkpoint": seconds(
                    lambda: saved.write(1, *sm.checkpoints.state(model, plateau, watch)), 3
                ),
            }
            for _ in range(ROUNDS)
        ]
    return compare("WRN-16-1 epoch of 45,000 images", rounds, "the epoch", 1, "s")


def runs() -> list[dict]:
    """A run through papermill, all but its training: start-up, kernel, TensorFlow, figures,
    record.
    """
    code = """
import os, sys, tempfile, time
from pathlib import Path
from supermask_tf.experiment import Experiment
from supermask_tf.studies.study import run_notebook
started = float(sys.argv[1])
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    run = run_notebook(Experiment(epochs=1), Path("study"))
    print(time.time() - started - run.summary["seconds"])
"""
    with tempfile.TemporaryDirectory() as cache:  # of bytecode, which the first run fills
        environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        } | {"PYTHONPYCACHEPREFIX": cache}
        times = [
            float(
                subprocess.run(
                    [sys.executable, "-c", code, str(time.time())],
                    check=True,
                    capture_output=True,
                    text=True,
                    env=environment,
                ).stdout.split()[-1]
            )
            for _ in range(4)
        ][1:]
    return [
        {
            "what": "a run through papermill, without its training",
            "variant": "",
            "value": statistics.median(times),
            "unit": "s",
            "bound": 12.0,
        }
    ]


def studies() -> list[dict]:
    """A study of 12 small runs, one at a time on all cores and two at a time on half of them."""

    def study(workers):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "small.yml"
            file.write_text(
                "runs:\n  m: {arm: mask, model: lenet_300_100, epochs: 3, seed: [0, 1, 2, 3, 4, 5,"
                " 6, 7, 8, 9, 10, 11]}\n"
            )
            begun = time.perf_counter()
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "supermask_tf.cli",
                    "study",
                    file,
                    "--workers",
                    str(workers),
                ],
                cwd=folder,
                check=True,
                capture_output=True,
            )
            return time.perf_counter() - begun

    return compare(
        "a study of 12 small runs",
        [{"one worker": study(1), "two workers": study(2)}],
        "one worker",
        1,
        "s",
    )


def imports() -> list[dict]:
    code = (
        "import sys, time; t = time.perf_counter(); import supermask_tf.paper.plots,"
        " supermask_tf.records; assert 'tensorflow' not in sys.modules; print(time.perf_counter()"
        " - t)"
    )
    times = [
        float(
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True
            ).stdout
        )
        for _ in range(5)
    ]
    return [
        {
            "what": "importing plots and records",
            "variant": "",
            "value": statistics.median(times),
            "unit": "s",
            "bound": 3.0,
        }
    ]


def compare(what, rounds, baseline, factor, unit) -> list[dict]:
    return [
        {
            "what": what,
            "variant": variant,
            "value": factor * statistics.median(r[variant] for r in rounds),
            "unit": unit,
            "ratio": statistics.median(r[variant] / r[baseline] for r in rounds),
            "baseline": baseline,
            "bound": BOUNDS.get((what, variant)),
        }
        for variant in rounds[0]
    ]


def child(*arguments: str, **environment: str) -> str:
    """What this script prints in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | environment
    ).stdout.split()[-1]


# What can be measured by itself, by the name that the command line takes.
PARTS = {
    "steps": steps,
    "predictions": predictions,
    "estimators": by_estimator,
    "rankings": rankings,
    "pipeline": pipeline,
    "memory": memory,
    "onednn": onednn,
    "determinism": determinism,
    "environments": environments,
    "checkpoints": checkpoints,
    "runs": runs,
    "studies": studies,
    "imports": imports,
}


def asked() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--peak",
        metavar="VARIANT",
        help="print the peak memory (KiB) of a process that trains a WRN-16-1 for ten steps",
    )
    parser.add_argument(
        "--step", metavar="VARIANT", help="print the seconds of a WRN-16-1 training step"
    )
    parser.add_argument(
        "--turns", action="store_true", help="take the steps that the lines of the input ask for"
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"measure only these, of {', '.join(PARTS)}"
    )
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}: choose among {', '.join(PARTS)}")
    measured = options.parts or (() if options.turns or options.peak or options.step else PARTS)
    if "environments" in measured and not CURRENT.is_file():
        parser.error(
            f"the part 'environments' needs the current environment, and there is no {CURRENT}:"
            " make it with `make PYTHON=python3.13 VENV=.venv-current .venv-current/installed`."
        )
    return options


def one_process(variant: str) -> tuple[str, float]:
    """The peak memory of this process (KiB), which trains a WRN-16-1 for ten steps, and the seconds
    of a step.
    """
    call = training_step("WRN-16-1", variant)
    call()
    took = seconds(call, 10)
    # VmHWM, not ru_maxrss: a child's ru_maxrss starts at what its parent had when it forked.
    status = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in status if line.startswith("VmHWM")), took


def main() -> None:
    options = asked()
    if options.turns:
        take_turns()
        return
    if options.peak or options.step:
        peak, took = one_process(options.peak or options.step)
        print(peak if options.peak else took)
        return

    import pandas as pd

    from supermask_tf.experiment.devices import machine

    names = [name for name in PARTS if name in (options.parts or PARTS)]
    results = pd.DataFrame([row for name in names for row in PARTS[name]()])
    here = machine()
    results["processor"], results["threads"] = here["processor"], here["threads"]
    target = Path(__file__).with_name("results.csv")
    if options.parts:
        before = pd.read_csv(target)
        results = pd.concat([before[~before.what.isin(results.what)], results])
    results.to_csv(target, index=False, float_format="%.5g")
    print(results.drop(columns=["processor", "threads"]).to_string(index=False))
    above = results[results.ratio.fillna(results.value) > results.bound]
    for _, row in above.iterrows():
        print(f"above its bound of {row.bound}: {row.what} {row.variant}")
    sys.exit(len(above) > 0)


if __name__ == "__main__":
    main()
