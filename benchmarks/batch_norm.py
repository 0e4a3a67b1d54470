"""Is it batch norm's moving averages that lag? They are taken anew, at the recorded weights and
mask, and the test is repeated.

`python benchmarks/batch_norm.py [STUDY ...]` needs the data, the records of the wide residual
studies and the weights that lie beside them after `supermask study` (a run whose weights are gone
is left out, and said so). It writes benchmarks/batch_norm.csv, which the book shows. Nothing
trains: a hundred batches go forward, augmented as for training.
"""

import argparse
from pathlib import Path

import pandas as pd
import tensorflow as tf

import supermask_tf as sm

ROOT = Path(__file__).resolve().parents[1]
STUDIES, BATCHES, TABLE = ("wrn_mnist", "wrn_cifar10"), 100, ROOT / "benchmarks" / "batch_norm.csv"


def renew(model: tf.keras.Model, batches) -> None:
    """Set each batch norm's moving mean and variance to the plain mean, over batches of images, of
    the batches' own.
    """
    layers = [
        layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in layers]
    for count, images in enumerate(batches):
        for layer in layers:
            layer.momentum = count / (count + 1)
        model(images, training=True)
    for layer, momentum in zip(layers, momenta):
        layer.momentum = momentum


def measure(run: sm.Run) -> dict:
    """Test accuracy of a run's best epoch as recorded, and with its averages taken anew."""
    model, p = run.load_model(), run.parameters
    images = sm.data.load(p["dataset"], p["protocol"])
    test = sm.data.evaluation_batches(images, "test")
    again = model.evaluate(test, verbose=0, return_dict=True)["accuracy"]
    if abs(again - run.summary["test_accuracy"]) > 0.001:
        raise RuntimeError(
            f"{run.name} is recorded with {run.summary['test_accuracy']:.4f} and has {again:.4f}"
            " here."
        )
    renew(
        model,
        (
            x
            for x, *_ in sm.data.training_batches(
                images, batch_size=p["batch_size"], seed=p["seed"], epochs=1, augmented=p["augment"]
            ).take(BATCHES)
        ),
    )
    return {
        "study": run.study,
        "run": run.name,
        "arm": p["arm"],
        "width": p["width"],
        "seed": p["seed"],
        "recorded": run.summary["test_accuracy"],
        "renewed": model.evaluate(test, verbose=0, return_dict=True)["accuracy"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "studies", nargs="*", metavar="STUDY", default=STUDIES, help="which of them (default: all)"
    )
    for study in parser.parse_args().studies:
        rows = []
        runs = sm.load_runs(ROOT / "runs" / study)
        # The runs of claims 1 to 3: not the longer ones, nor other logits, shortcuts, estimators.
        own = int(runs.summary.epochs.mode()[0])
        for run in runs.where(estimator="threshold", initial_logit=1.0, shortcut=None, epochs=own):
            if run.parameters["arm"] not in ("mask", "bn_only") and not run.weights_file.exists():
                print(f"{run.name}: left out, its weights are gone; make the run again")
                continue
            rows.append(measure(run))
            print(
                f"{run.name}: {rows[-1]['recorded']:.4f} recorded, {rows[-1]['renewed']:.4f} with"
                " averages taken anew",
                flush=True,
            )
        before = pd.read_csv(TABLE) if TABLE.exists() else pd.DataFrame(columns=["study"])
        pd.concat([before[before.study != study], pd.DataFrame(rows)]).sort_values(
            ["study", "run"]
        ).to_csv(TABLE, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
