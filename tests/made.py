"""Records made for tests: small ones, with the accuracies and fractions that a test names."""

import numpy as np
import pandas as pd

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
    """Three seeds: the mask is 5 points below the weights, fine-tuning 1 point above longer
    training, ±0.1 by seed.
    """
    folder = runs / "wrn_mnist"
    folder.mkdir(parents=True)
    for seed in range(3):
        wiggle = 0.001 * (seed - 1)
        make(folder, "mask", seed, 0.90 + wiggle)
        make(folder, "weights", seed, 0.95)
        make(folder, "finetune", seed, 0.97 + wiggle, learning_rate=1e-5, parent=PLAIN)
        make(folder, "weights_long", seed, 0.96, learning_rate=1e-5, parent=PLAIN)
    return folder


def both(runs):
    """Three seeds at a density of one half: supermask and ticket share 3 of 4 weights; the
    accuracies stand below.
    """
    folder = runs / "tickets_lenet"
    folder.mkdir(parents=True)
    layers = pd.DataFrame(
        [(0, "dense1", "dense", 8, 0.5)], columns=["layer", "path", "kind", "weights", "masked"]
    )

    def record(name, mask, test, start=None, parent=None, **given):
        parameters = (
            DEFAULTS
            | {
                "model": "lenet_300_100",
                "density": 0.2,
                "criterion": None,
                "scope": None,
                "rewind_epochs": None,
                "parent": parent,
            }
            | given
        )
        curve = pd.DataFrame(
            {
                "epoch": [1],
                "loss": 1.0,
                "accuracy": 0.5,
                "val_loss": 1.0,
                "val_accuracy": 0.5,
                "learning_rate": 0.01,
                "masked": 0.5,
            }
        )
        write_run(
            folder / name,
            parameters,
            curve,
            layers,
            {"dense1/kernel": np.array(mask, bool)},
            {"x": np.zeros(1)},
            {
                "best_epoch": 1,
                "test_accuracy": test,
                "val_accuracy": test,
                "masked": 0.5,
                "seconds": 1.0,
            }
            | ({} if start is None else {"start_accuracy": start}),
        )

    of_ticket = {"criterion": "large_final", "scope": "layer", "rewind_epochs": 0}
    for seed in range(3):
        wiggle, s = 0.001 * (seed - 1), {"seed": seed}
        dense = {"arm": "weights"}
        record(f"dense-s{seed}", [1] * 8, 0.95, arm="weights", **s | {"density": None})
        record(
            f"mask-s{seed}",
            [1, 1, 1, 1, 0, 0, 0, 0],
            0.90 + wiggle,
            arm="mask",
            estimator="top_k",
            **s,
        )
        record(
            f"rewind-s{seed}",
            [1, 1, 1, 1, 0, 0, 0, 0],
            0.94,
            start=0.90 + wiggle,
            arm="rewind",
            init_from=f"mask-s{seed}",
            **s,
        )
        record(
            f"ticket-s{seed}",
            [0, 1, 1, 1, 1, 0, 0, 0],
            0.96 + wiggle,
            start=0.30,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket,
        )
        record(
            f"random-s{seed}",
            [0, 0, 1, 1, 1, 1, 0, 0],
            0.93,
            start=0.10,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket | {"criterion": "random"},
        )
        record(
            f"movement-s{seed}",
            [0, 0, 1, 1, 1, 1, 0, 0],
            0.92,
            start=0.20,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket | {"criterion": "movement"},
        )
        record(
            f"round_1-s{seed}",
            [0, 1, 1, 1, 1, 1, 0, 0],
            0.97,
            start=0.31,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket | {"density": 0.6},
        )
        record(
            f"rounds-s{seed}",
            [0, 1, 1, 1, 1, 0, 0, 0],
            0.97 + wiggle,
            start=0.31,
            arm="ticket",
            init_from=f"round_1-s{seed}",
            parent={"arm": "ticket"},
            **s,
            **of_ticket,
        )
        record(
            f"rewound-s{seed}",
            [0, 1, 1, 1, 1, 0, 0, 0],
            0.98,
            start=0.5,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket | {"rewind_epochs": 1},
        )
        record(
            f"global-s{seed}",
            [0, 1, 1, 1, 1, 0, 0, 0],
            0.95,
            start=0.3,
            arm="ticket",
            parent=dense,
            **s,
            **of_ticket | {"scope": "global"},
        )
        record(
            f"prune-s{seed}",
            [0, 1, 1, 1, 1, 0, 0, 0],
            0.99,
            start=0.6,
            arm="prune",
            parent=dense,
            **s,
            **of_ticket,
        )
    return folder
