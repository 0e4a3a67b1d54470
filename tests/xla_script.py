"""Run by the second environment, which has JAX and no TensorFlow: what the tests compare with
TensorFlow.

step BUNDLE FOLDER: a training step of each program from each of its states in
FOLDER/<program>.npz
feed BUNDLE FOLDER: batches and augmentation of FOLDER/images.npz
portable BUNDLE FOLDER: every program in the form in which JAX hands it to an accelerator, as
FOLDER/<program>.mlir
"""

import sys
from pathlib import Path

import numpy as np


def step(bundle, folder):
    from supermask_run.bundles import xla
    from supermask_run.bundles.bundle import Bundle

    jax = xla.load_jax()
    opened = Bundle.open(bundle)
    for file in sorted(folder.glob("*.npz")):
        key, states, results = file.stem, np.load(file), {}
        program = opened.programs[key]
        train = xla.Program((bundle / f"programs/{key}-train.hlo").read_bytes(), key)
        for number in sorted({name.split("|")[0] for name in states.files}):
            # The batch stands at a place of its own in each state: the others are not to matter.
            place = int(number) % program["chunk"]
            x = np.full((program["chunk"], *states[f"{number}|x"].shape), np.nan, np.float32)
            y = np.zeros((program["chunk"], len(states[f"{number}|y"])), np.int64)
            x[place], y[place] = states[f"{number}|x"], states[f"{number}|y"]
            rates = np.full(program["chunk"], np.nan, np.float32)
            rates[place] = states[f"{number}|learning_rate"]
            values = [
                x,
                y,
                rates,
                np.int32(place),
                np.int32(place + 1),
                *(states[f"{number}|{path}"] for path in program["train"]["parameters"]),
            ]
            outputs = train([jax.numpy.array(value) for value in values])
            results[f"{number}|loss"] = np.asarray(outputs[0])
            results |= {
                f"{number}|{path}": np.asarray(outputs[index])
                for index, path in program["train"]["updates"]
            }
        with open(folder / f"{key}.results", "wb") as stream:
            np.savez(stream, **results)


def feed(bundle, folder):
    from supermask_run.bundles import xla
    from supermask_run.bundles.feed import Feed, transformed
    from supermask_run.data import ImageData

    jax = xla.load_jax()
    given = np.load(folder / "images.npz")
    split = given["x"], given["y"]
    images = ImageData("mine", split, split, split, 10, "", (2 / 255, -1.0))
    feed = Feed(images, batch_size=7, seed=3, augmented=False, chunk=4)
    batches = [feed.batches(epoch, first) for epoch in (0, 1) for first in range(0, feed.steps, 4)]
    last = [tuple(map(np.asarray, batch)) for batch in feed.evaluation_batches("test", 32)]
    np.savez(
        folder / "results.npz",
        transformed=np.asarray(jax.jit(transformed)(given["x"].astype(np.float32), given["draws"])),
        batches=np.stack([x for x, _ in batches]),
        labels=np.stack([y for _, y in batches]),
        steps=feed.steps,
        test=np.stack([x for x, _, _ in last]),
        test_labels=np.stack([y for _, y, _ in last]),
        real=np.stack([real for _, _, real in last]),
    )


def portable(bundle, folder):
    from jaxlib import _jax
    from jaxlib.xla_client import XlaComputation

    for file in sorted(bundle.glob("programs/*.hlo")):
        module = _jax.mlir.xla_computation_to_mlir_module(XlaComputation(file.read_bytes()))
        # The version of StableHLO that any plugin of the last years reads.
        content = _jax.mlir.serialize_portable_artifact(module, "1.0.0")
        (folder / f"{file.stem}.mlir").write_bytes(content)


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    sys.path.insert(0, str(folder))
    {"step": step, "feed": feed, "portable": portable}[what](folder, Path(sys.argv[3]))
    assert "tensorflow" not in sys.modules
