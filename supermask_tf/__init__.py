"""Supermasks: 0/1 masks learned over a network's untrained weights.

    import supermask_tf as sm

    model = sm.models.lenet_300_100(input_shape=(28, 28, 1))
    # Logits start at 1, and a step of Adam is about as long as its rate: at a rate of 0.1 a weight
    # can leave the mask after ten steps.
    model.compile(
        tf.keras.optimizers.Adam(0.1),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(x, y)              # trains the mask; the weights stay as they were drawn
    model.phase = "weights"
    model.optimizer.learning_rate = 0.001
    model.fit(x, y)              # trains the weights that the mask keeps

Modules are imported when they are first used, so that reading records and drawing figures never
loads TensorFlow. Where TensorFlow is imported, before or after this package,
`tf.keras.models.load_model` finds the package's classes.
"""

import importlib
import os
from typing import TYPE_CHECKING

# TensorFlow reads this once, when it is imported. On AVX2 processors it is off by default and more
# than halves the time of a convolutional training step (see the book's page on speed).
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

# Where each public module is: the library's lie here, the others in a folder per concern.
_MODULES = {
    **dict.fromkeys(
        (
            "cli",
            "data",
            "estimators",
            "experiment",
            "gem_miner",
            "groups",
            "initializers",
            "iterand",
            "layers",
            "masking",
            "models",
            "packing",
            "records",
            "tasks",
            "tickets",
            "training",
        ),
        "",
    ),
    **dict.fromkeys(("archives",), "ground."),
    **dict.fromkeys(("checkpoints", "measuring"), "experiment."),
    **dict.fromkeys(("cluster", "study", "verification"), "studies."),
    **dict.fromkeys(
        ("bundle", "exporter", "feed", "importer", "results", "runner", "xla"), "bundles."
    ),
    **dict.fromkeys(
        (
            "analysis",
            "claims",
            "enumeration",
            "fair",
            "fair_rates",
            "overlap",
            "plots",
            "readings",
            "see",
        ),
        "paper.",
    ),
}
_NAMES = {
    "Experiment": "experiment",
    "MaskedConv2D": "layers",
    "MaskedDense": "layers",
    "Run": "records",
    "RunSet": "records",
    "SupermaskModel": "training",
    "load": "packing",
    "load_runs": "records",
    "mask": "masking",
    "plain": "masking",
    "save": "packing",
}
__all__ = sorted([*_MODULES, *_NAMES])

if TYPE_CHECKING:
    from . import (
        cli,
        data,
        estimators,
        experiment,
        gem_miner,
        groups,
        initializers,
        iterand,
        layers,
        masking,
        models,
        packing,
        records,
        tasks,
        tickets,
        training,
    )
    from .bundles import bundle, exporter, feed, importer, results, runner, xla
    from .experiment import Experiment, checkpoints, measuring
    from .ground import archives
    from .layers import MaskedConv2D, MaskedDense
    from .masking import mask, plain
    from .packing import load, save
    from .paper import (
        analysis,
        claims,
        enumeration,
        fair,
        fair_rates,
        overlap,
        plots,
        readings,
        see,
    )
    from .records import Run, RunSet, load_runs
    from .studies import cluster, study, verification
    from .training import SupermaskModel


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f".{_MODULES[name]}{name}", __name__)
    if name in _NAMES:
        return getattr(importlib.import_module(f".{_NAMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])


from . import _registration  # noqa: E402

_registration.register()
