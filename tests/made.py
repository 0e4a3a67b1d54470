"""Records made for tests: small ones, with the accuracies and fractions that a test names."""

import numpy as np
import pandas as pd

from supermask_tf.paper.pages import Book
from supermask_tf.records import write_run

DEFAULTS = {
    "dataset": "mnist",
    "model": "wide_resnet",
    "depth": 10,
    "width": 2,
    "shortcut": None,
    "init_from": None,
    "estimator": "threshold",
    "initial_logit": 1.0,
    "epochs": 3,
    "reset_batch_norm": None,
    "learning_rate": 0.01,
    "protocol": "study",
}
LAYERS = [
    ("conv", "3x3", 144),
    ("group1/block1/conv1", "3x3", 4608),
    ("group1/block1/shortcut", "1x1 shortcut", 512),
    ("group2/block1/conv1", "3x3", 18432),
    ("group2/block1/shortcut", "1x1 shortcut", 2048),
    ("dense", "dense", 1280),
]


def make(
    folder,
    arm,
    seed,
    accuracy,
    masked=lambda path, kind, weights: 0.1,
    val=(0.5, 0.6, 0.7),
    **given,
):
    """A record with this test accuracy; `masked` gives each layer's fraction."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = DEFAULTS | {"arm": arm, "seed": seed, "parent": None} | given
    name = f"{arm}-s{seed}-" + "-".join(f"{k}_{v}" for k, v in given.items())
    val = np.resize(val, parameters["epochs"])
    history = pd.DataFrame(
        {
            "epoch": range(1, len(val) + 1),
            "loss": 1.0,
            "accuracy": val,
            "val_loss": 1.0,
            "val_accuracy": val,
            "learning_rate": 0.01,
            "masked": 0.1,
        }
    )
    scale = parameters["width"] / 2
    rows = [
        (i, path, kind, int(weights * scale**2), masked(path, kind, weights * scale**2))
        for i, (path, kind, weights) in enumerate(LAYERS)
    ]
    utilisation = pd.DataFrame(rows, columns=["layer", "path", "kind", "weights", "masked"])
    write_run(
        folder / name,
        parameters,
        history,
        utilisation,
        {"conv/kernel": np.ones(4, bool)},
        {"x": np.zeros(1)},
        {
            "best_epoch": 1,
            "test_accuracy": accuracy,
            "val_accuracy": accuracy,
            "masked": 0.1,
            "seconds": 1.0,
        },
    )


# What children of the plain mask and weights runs have recorded of their parent.
PLAIN = {"epochs": 3, "initial_logit": 1.0, "learning_rate": 0.01, "estimator": "threshold"}


def study(runs):
    """Three seeds: the mask 5 points below the weights, fine-tuning 1 above longer training."""
    folder = runs / "wrn_mnist"
    folder.mkdir(parents=True)
    for seed in range(3):
        wiggle = 0.001 * (seed - 1)
        make(folder, "mask", seed, 0.90 + wiggle)
        make(folder, "weights", seed, 0.95)
        make(folder, "finetune", seed, 0.97 + wiggle, learning_rate=1e-5, parent=PLAIN)
        make(folder, "weights_long", seed, 0.96, learning_rate=1e-5, parent=PLAIN)
    return folder


# The runs of `both`, for each seed: name, mask, test accuracy, how far it moves from seed to seed,
# accuracy without training, and the parameters that differ.
_TICKET = {"arm": "ticket", "criterion": "large_final", "scope": "layer", "rewind_epochs": 0}
_BOTH = (
    ("dense", "11111111", 0.95, 0, None, {"arm": "weights", "density": None}),
    ("mask", "11110000", 0.90, 1, None, {"arm": "mask", "estimator": "top_k"}),
    ("rewind", "11110000", 0.94, 0, 0.90, {"arm": "rewind", "init_from": "mask"}),
    ("ticket", "01111000", 0.96, 1, 0.30, _TICKET),
    ("random", "00111100", 0.93, 0, 0.10, _TICKET | {"criterion": "random"}),
    ("movement", "00111100", 0.92, 0, 0.20, _TICKET | {"criterion": "movement"}),
    ("round_1", "01111100", 0.97, 0, 0.31, _TICKET | {"density": 0.6}),
    ("rounds", "01111000", 0.97, 1, 0.31, _TICKET | {"init_from": "round_1"}),
    ("rewound", "01111000", 0.98, 0, 0.5, _TICKET | {"rewind_epochs": 1}),
    ("global", "01111000", 0.95, 0, 0.3, _TICKET | {"scope": "global"}),
    ("prune", "01111000", 0.99, 0, 0.6, _TICKET | {"arm": "prune"}),
)


def both(runs):
    """Three seeds of supermasks and tickets, which share 3 of the 4 weights that each one keeps."""
    folder = runs / "tickets_lenet"
    folder.mkdir(parents=True)
    row = {"layer": 0, "path": "dense1", "kind": "dense", "weights": 8, "masked": 0.5}
    curve = {"epoch": 1, "loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5}
    curve |= {"learning_rate": 0.01, "masked": 0.5}
    absent = dict.fromkeys(("criterion", "scope", "rewind_epochs", "parent"))
    for seed in range(3):
        for name, mask, accuracy, moves, start, given in _BOTH:
            wiggle = 0.001 * (seed - 1)
            parameters = DEFAULTS | absent | {"model": "lenet_300_100", "density": 0.2} | given
            parameters["seed"] = seed
            if parameters["init_from"]:
                parameters["init_from"] += f"-s{seed}"
            if "criterion" in given:
                parameters["parent"] = {"arm": "ticket" if name == "rounds" else "weights"}
            test = accuracy + moves * wiggle
            summary = {"best_epoch": 1, "test_accuracy": test, "val_accuracy": test, "masked": 0.5}
            summary |= {"seconds": 1.0}
            if start is not None:  # what the mask itself is worth follows the mask
                summary["start_accuracy"] = start + (name == "rewind") * wiggle
            write_run(
                folder / f"{name}-s{seed}",
                parameters,
                pd.DataFrame([curve]),
                pd.DataFrame([row]),
                {"dense1/kernel": np.array([bit == "1" for bit in mask])},
                {"x": np.zeros(1)},
                summary,
            )
    return folder


def lenet(checkout, **accuracies) -> Book:
    """Three seeds of a network without batch norm; the arms have these accuracies, or are left out.

    The mask has 0.90, the weights 0.95 and the longer training 0.96.
    """
    rates = {"finetune": 1e-5, "weights_long": 1e-5, "random_mask": 1e-5, "shuffled_mask": 1e-5}
    arms = {"mask": 0.90, "weights": 0.95, "weights_long": 0.96} | accuracies
    for seed in range(3):
        for arm, accuracy in arms.items():
            arm, _, full = arm.partition("_at_")
            given = {"learning_rate": float(full) if full else rates.get(arm, 0.01)}
            accuracy += 0.0001 * (seed - 1) * (arm in ("mask", "finetune", "rewind"))
            make(checkout / "runs/lenet", arm, seed, accuracy, model="lenet_300_100", **given)
    return empty(checkout)


def empty(checkout) -> Book:
    """A checkout in which batch norm's averages were taken of no run."""
    (checkout / "benchmarks").mkdir(parents=True, exist_ok=True)
    columns = pd.DataFrame(columns=["study", "run", "renewed"])
    columns.to_csv(checkout / "benchmarks/batch_norm.csv", index=False)
    return Book(checkout)


# Controls of `lenet` that are worse than what they are compared with.
CONTROLS = {"random_mask": 0.9, "shuffled_mask": 0.9}
CONTROLS |= {f"{arm}_at_0.01": 0.9 for arm in ("random_mask", "shuffled_mask")}


def published(checkout):
    """The post's curves and fractions, where pages look for them: a line of each."""
    place = checkout / "book" / "published"
    place.mkdir(parents=True, exist_ok=True)
    columns = ["dataset", "split", "arm", "epoch", "accuracy"]
    pd.DataFrame(columns=columns).to_csv(place / "post_training.csv", index=False)
    columns = ["dataset", "layer", "kind", "weights", "masked"]
    pd.DataFrame(columns=columns).to_csv(place / "post_utilisation.csv", index=False)
