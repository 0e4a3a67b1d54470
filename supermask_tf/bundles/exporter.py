"""Experiments as a bundle of XLA programs that needs no TensorFlow to run: `supermask export`.

The programs are the package's own training step and evaluation, compiled as far as XLA's input: the
same model, optimizer, loss and metrics. Experiments whose network and step are the same share
theirs. ::

    export(["runs/studies/paper.yml"], "paper")

The programs of one network, with its variables as further arguments and results:

- `train(x, y, rates, begin, end)`: the training steps begin, ..., end − 1 of the CHUNK batches in x
  and y, each at its own learning rate; returns the mean loss so far in this epoch. One launch does
  several steps, so that the device need not wait for the host between them.
- `evaluate(x, y, real)`: the sum of the loss over the images where `real` is 1, whether each of
  them is answered rightly, and the regularizers' loss.
- `statistics(x, begin, end)`: the sums, over the batches begin, ..., end − 1 in x, of each batch
  norm's mean and variance; absent where there is no batch norm.
- `masks()`: the most likely masks, one byte per weight.
"""

import functools
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..experiment import ARMS, PARAMETERS, Experiment, belonging_to
from ..studies.study import Study
from . import bundle
from .programs import CHUNK, EVALUATION_BATCH, bare, functions

__all__ = ["export"]

# What travels in the bundle as it is, in the folders that it has here.
_MODULES = (
    "_reading",
    "data",
    "initializers",
    "tickets",
    "ground/archives",
    "ground/files",
    "ground/machine",
    "ground/schedules",
    "bundles/bundle",
    "bundles/feed",
    "bundles/results",
    "bundles/runner",
    "bundles/sharing",
    "bundles/training",
    "bundles/xla",
)
# What a bundle's runner does not know.
_ARMS_LEFT_OUT = ("mask_long",)
_ESTIMATORS_LEFT_OUT = ("signed", "gem_miner")  # a bundle's masks are bits, and nothing freezes
_RUN = '''"""Run this bundle: python run.py --help. Needs numpy and JAX."""

import sys
from pathlib import Path

from supermask_run.bundles.runner import main

sys.exit(main(Path(__file__).parent))
'''


def export(paths: list[str | Path], folder: str | Path) -> bundle.Bundle:
    """Write a bundle with experiments and all that they start from.

    Args:
        paths: `experiment.json` files of records, and study files (.yml), all of whose runs are
            meant.
        folder: the bundle's, which does not exist yet.

    Raises:
        ValueError: if a file is no experiment or study, or an experiment asks for a `strategy` (a
            bundle runs on one device), for `rewind_epochs`, for another optimizer than Adam or
            what goes with it, or its batch is larger than its training split.
        FileNotFoundError: if a file or the data of an experiment are missing.
        FileExistsError: if `folder` exists.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: move it away, or give another folder.")
    load = functools.cache(data.load)
    files: dict[str, bytes] = {}
    programs: dict[str, Any] = {}
    experiments: dict[str, dict[str, Any]] = {}
    sets: dict[str, str] = {}
    for experiment, study in _experiments(paths):
        images = load(experiment.dataset, experiment.protocol)
        _check_batch(experiment, images)
        if experiment.dataset == "digits" and "digits.npz" not in files:
            files["digits.npz"] = _npz(data.load("digits"))  # nobody has them as a file
        key = _key(experiment, images)
        if key not in programs:
            programs[key], compiled = _programs(experiment, images)
            files |= {f"programs/{key}-{name}.hlo": content for name, content in compiled.items()}
        sets[images.fingerprint] = experiment.dataset
        parent = experiments[experiment.init_from] if experiment.init_from else None
        experiments[experiment.name] = {
            "parameters": experiment.parameters() | {"parent": parent and parent["parameters"]},
            "arm": _arm(experiment),
            "program": key,
            "fingerprint": images.fingerprint,
            "scale": images.scale,
            "study": study,
        }
    manifest = {
        "versions": _versions(),
        "programs": programs,
        "experiments": experiments,
        "datasets": sets,
    }
    bundle.write_bundle(folder, manifest, files | _code())
    return bundle.Bundle.open(folder)


def _check_batch(experiment: Experiment, images: data.ImageData) -> None:
    if experiment.batch_size > len(images.train[0]):
        raise ValueError(
            f"{experiment.name} has batch_size={experiment.batch_size}, more than the"
            f" {len(images.train[0])} training images: give at most that many."
        )


def _code() -> dict[str, bytes]:
    """What runs a bundle: `run.py`, and the modules that it takes, as `supermask_run`."""
    package = Path(__file__).parents[1]
    note = b'"""Modules of supermask_tf that need no TensorFlow."""\n'
    return {
        **{f"supermask_run/{name}.py": (package / f"{name}.py").read_bytes() for name in _MODULES},
        **{f"supermask_run/{name}__init__.py": note for name in ("", "ground/", "bundles/")},
        "run.py": _RUN.encode(),
    }


def _experiments(paths: list[str | Path]) -> list[tuple[Experiment, str]]:
    """The experiments of the files, each once and with the name of its study, parents before their
    children.
    """
    found: dict[str, tuple[Experiment, str]] = {}
    for path in map(Path, paths):
        study = path.suffix in (".yml", ".yaml")
        line, name = (
            (Study.load(path).experiments, path.stem)
            if study
            else (Experiment.lineage(path), path.resolve().parent.parent.name)
        )
        for experiment in line:
            if experiment.init_from and experiment.init_from not in found:
                raise ValueError(
                    f"{path}: {experiment.name} starts from {experiment.init_from}, which is not in"
                    " the file: give one that holds it too."
                )
            _check_possible(experiment)
            found.setdefault(experiment.name, (experiment, name))
    return list(found.values())


def _check_possible(experiment: Experiment) -> None:
    """See that a bundle can do what the experiment asks for: every parameter says what it can."""
    if experiment.estimator in _ESTIMATORS_LEFT_OUT or (
        experiment.estimator == "top_k" and experiment.scope
    ):
        scope = f" and scope={experiment.scope!r}" if experiment.scope else ""
        raise ValueError(
            f"{experiment.name} has estimator={experiment.estimator!r}{scope}, which a bundle does"
            " not have: run it in TensorFlow."
        )
    for name, field in PARAMETERS.items():
        can, value = field.metadata.get("bundle", "any"), getattr(experiment, name)
        if can != "any" and value is not None and value not in can:
            instead = f"{name}={' or '.join(map(repr, can))} only" if can else f"no {name}"
            raise ValueError(
                f"{experiment.name} has {name}={value!r}: a bundle has {instead}; run it in"
                " TensorFlow."
            )
    if experiment.arm in _ARMS_LEFT_OUT:
        raise ValueError(
            f"{experiment.name} has arm={experiment.arm!r}, which a bundle does not have: run it in"
            " TensorFlow."
        )


def _arm(experiment: Experiment) -> dict[str, Any]:
    """What the arm takes over, seeks and leaves."""
    return {
        name: getattr(ARMS[experiment.arm], name)
        for name in (
            "trains",
            "mask",
            "weights",
            "batch_norm",
            "wrong",
            "needs_weights",
            "leaves_weights",
        )
    }


def _key(experiment: Experiment, images: data.ImageData) -> str:
    """What the programs depend on, as a name: two experiments with the same one share them."""
    trains = ARMS[experiment.arm].trains
    # What does not change the programs: it is data, an initial value, or done between the steps.
    dropped = {name for name, field in PARAMETERS.items() if "bundle" in field.metadata}
    if trains != "mask":  # the mask is fixed by the sign of its logits, whatever estimator found it
        dropped |= {
            "estimator",
            "draw_at_evaluation",
            "mask_regularizer",
            *belonging_to("estimator"),
        }
    inside = {name: value for name, value in experiment.parameters().items() if name not in dropped}
    from ..experiment import network

    if trains == "mask" and network.estimator(experiment).draws:
        inside["seed"] = experiment.seed
    inside |= {
        "trains": trains,
        "wrong": ARMS[experiment.arm].wrong,
        "image_shape": images.image_shape,
        "classes": images.classes,
    }
    return hashlib.sha256(json.dumps(inside, sort_keys=True).encode()).hexdigest()[:12]


def _programs(
    experiment: Experiment, images: data.ImageData
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The entry of the manifest's `programs`, and the programs by name."""
    import tensorflow as tf

    from .. import _keras
    from ..experiment import measuring, network

    tf.keras.backend.clear_session()
    model = network.build(experiment, images.image_shape, images.classes)
    network.compile_model(model, experiment)
    variables = _variables(model, experiment)
    known = {id(variable.handle): path for path, (variable, _, _) in variables.items()}
    entry: dict[str, Any] = {
        "image_shape": list(images.image_shape),
        "classes": images.classes,
        "batch_size": experiment.batch_size,
        "chunk": CHUNK,
        "evaluation_batch": EVALUATION_BATCH,
        "multiply_adds": _multiply_adds(model),
        "variables": {
            path: {
                "role": role,
                "shape": list(variable.shape),
                "dtype": tf.as_dtype(variable.dtype).base_dtype.name,
                "recipe": recipe,
            }
            for path, (variable, role, recipe) in variables.items()
        },
    }
    _check_recipes(
        entry, experiment, {path: variable for path, (variable, _, _) in variables.items()}
    )
    if moving := measuring.moving_statistics(model):
        entry["moving_statistics"] = [known[id(variable.handle)] for variable in moving]
    compiled = {}
    for name, (function, signature) in functions(
        model, experiment.batch_size, images.image_shape
    ).items():
        traced = tf.function(function, jit_compile=True)
        with _keras.traced_freely():  # no Python is around where the program runs
            captured = traced.get_concrete_function(*signature).captured_inputs
            serialized = traced.experimental_get_compiler_ir(*signature)(stage="hlo_serialized")
        unknown = [tensor for tensor in captured if id(tensor) not in known]
        if unknown:
            raise ValueError(
                f"{experiment.name}: its program {name!r} takes {unknown[0]}, which is no variable"
                " of the network: an estimator of your own must make its constants inside its"
                " function."
            )
        compiled[name], aliases = bare(serialized, name)
        parameters = [known[id(tensor)] for tensor in captured]
        entry[name] = {
            "parameters": parameters,
            "updates": [
                [output, parameters[parameter - len(signature)]] for output, parameter in aliases
            ],
        }
    return entry, compiled


def _variables(model, experiment: Experiment) -> dict[str, tuple[Any, str, dict[str, Any]]]:
    """Each variable of a compiled model by path: (variable, role, recipe of its initial value)."""
    from ..experiment import network
    from ..layers import masked_layers

    found: dict[str, tuple[Any, str, dict[str, Any]]] = {}
    for layer in masked_layers(model):
        found[f"{layer.name}/kernel"] = layer.kernel, "weights", {"theta0": f"{layer.name}/kernel"}
        if layer.bias is not None:
            found[f"{layer.name}/bias"] = layer.bias, "weights", {"constant": 0.0}
        for name in ("kernel_logits", "bias_logits"):
            if getattr(layer, name) is None:
                continue
            path = f"{layer.name}/{name}"
            start = (
                {"constant": 1.0}
                if ARMS[experiment.arm].trains != "mask"
                else (
                    {"scores": path}
                    if experiment.initial_logit is None
                    else {"parameter": "initial_logit"}
                )
            )
            found[path] = getattr(layer, name), "logits", start
        if "density" in layer.estimator.parameters:
            found[f"{layer.name}/density"] = layer.density, "density", {"parameter": "density"}
        if layer.estimator.draws:
            found[f"{layer.name}/draws"] = layer.draws, "draws", {"constant": 0}
    for path, variable in network.batch_norm(model).items():
        found[path] = (
            variable,
            "batch_norm",
            {"constant": float(path.endswith(("gamma", "moving_variance")))},
        )
    return found | _of_compiling(model, found)


def _of_compiling(model, network: dict) -> dict[str, tuple[Any, str, dict[str, Any]]]:
    """As `_variables`, those of the optimizer and of the metrics.

    Args:
        network: those of the network itself, as `_variables` gives them.
    """
    import tensorflow as tf

    found: dict[str, tuple[Any, str, dict[str, Any]]] = {}
    # Metrics and slots are made with the first step; a program makes no variables.
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    x, y = tf.zeros((1, *model.input_shape[1:])), tf.zeros((1,), tf.int64)
    outputs = model(x, training=False)
    model.compute_loss(x, y, outputs)
    model.compute_metrics(x, y, outputs, None)
    model.reset_metrics()
    paths = {id(variable.handle): path for path, (variable, _, _) in network.items()}
    for variable, momentum, velocity in zip(
        model.trainable_variables, optimizer._momentums, optimizer._velocities
    ):
        found[f"{paths[id(variable.handle)]}/momentum"] = momentum, "optimizer", {"constant": 0.0}
        found[f"{paths[id(variable.handle)]}/velocity"] = velocity, "optimizer", {"constant": 0.0}
    found["iterations"] = optimizer.iterations, "optimizer", {"constant": 0}
    found["learning_rate"] = (
        optimizer._learning_rate,
        "learning_rate",
        {"parameter": "learning_rate"},
    )
    # Keras 3 has those of `compile` in one metric.
    metrics = [
        one for metric in model.metrics for one in getattr(metric, "metrics", ()) or [metric]
    ]
    for metric in metrics:
        for name, variable in zip(("total", "count"), metric.variables):
            found[f"{metric.name}/{name}"] = variable, "metrics", {"constant": 0.0}
    return found


def _multiply_adds(model) -> int:
    """The multiply-adds of the convolutions and dense layers for one image, forward; a training
    step takes three times as many.
    """
    from ..layers import masked_layers

    return sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(list(layer.output.shape[1:-1])))
        for layer in masked_layers(model)
    )


def _check_recipes(
    entry: dict[str, Any], experiment: Experiment, variables: dict[str, Any]
) -> None:
    """See that the recipes give the values that the model has, in case the model has changed and
    they have not.
    """
    values = bundle.starting_values(entry, {"parameters": experiment.parameters()})
    for path, variable in variables.items():
        if not np.array_equal(values[path], variable.numpy()):
            raise ValueError(
                f"{experiment.name}: the recipe for {path} gives other values than the network has."
            )


def _npz(images: data.ImageData) -> bytes:
    """The dataset in Keras's layout; its splits are put in order again when it is read."""
    x, y = (np.concatenate([images.validation[i], images.train[i]]) for i in (0, 1))
    stream = io.BytesIO()
    np.savez_compressed(stream, x_train=x, y_train=y, x_test=images.test[0], y_test=images.test[1])
    return stream.getvalue()


def _versions() -> dict[str, str]:
    from ..experiment.devices import machine

    versions = machine()["versions"]
    return {name: versions[name] for name in ("supermask_tf", "tensorflow", "keras")}
