"""One experiment as a frozen, validated dataclass, and what running it does.

TensorFlow is imported when it runs. ::

    run = Experiment(dataset="mnist", arm="mask", epochs=2).run("runs/mine")
    run.summary["test_accuracy"], run.history, run.load_model()
"""

import atexit
import contextlib
import dataclasses
import difflib
import functools
import hashlib
import json
import math
import operator
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import checkpoints, data, records, tickets
from .checkpoints import Checkpoints
from .records import Run

__all__ = ["ARMS", "Experiment"]


@dataclass(frozen=True)
class Arm:
    """What an arm of the study trains, and from where.

    Attributes:
        trains: "mask", "weights" or "batch_norm". Batch-norm parameters train in every arm.
        learning_rate: Adam's, unless the experiment gives another.
        does: one line for the help texts.
        parents: the arms whose runs it can start from (`init_from`); none for θ0 and an open mask.
        mask: the mask it starts from: "open", the "parent"'s, one drawn at "random" with the parent's density in each
            layer, the parent's "shuffled" within each layer, or a "ticket" read from the parent's trained weights.
        weights: "theta0" or the "parent"'s.
        batch_norm: "new" or the "parent"'s (unless the experiment resets it).
        wrong: whether it seeks the lowest accuracy, with batch norm frozen too.
    """

    trains: str
    learning_rate: float
    does: str
    parents: tuple[str, ...] = ()
    mask: str = "open"
    weights: str = "theta0"
    batch_norm: str = "new"
    wrong: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether it takes its parent's trained weights, which no record holds."""
        return self.weights == "parent" or self.mask == "ticket"

    @property
    def leaves_weights(self) -> bool:
        """Whether its network is more than θ0, masks and batch norm, so that its weights are kept beside the record."""
        return self.trains == "weights" or self.weights == "parent"


ARMS = {
    "mask": Arm("mask", 0.01, "train the mask logits, the weights stay at θ0"),
    "weights": Arm("weights", 0.01, "train the weights from θ0, nothing masked"),
    "finetune": Arm("weights", 1e-5, "train the weights from M ⊙ θ0, the mask frozen", ("mask",), "parent", batch_norm="parent"),
    "bn_only": Arm("batch_norm", 0.01, "train batch norm alone, the weights stay at θ0, nothing masked"),
    "weights_long": Arm("weights", 1e-5, "train the weights of a weights run further", ("weights",), weights="parent", batch_norm="parent"),
    "rewind": Arm("weights", 0.01, "train the weights from M ⊙ θ0 as from the beginning, batch norm anew", ("mask",), "parent"),
    "random_mask": Arm("weights", 1e-5, "as finetune, under a random mask of the same density in each layer", ("mask",), "random", batch_norm="parent"),
    "shuffled_mask": Arm("weights", 1e-5, "as finetune, under the mask shuffled within each layer", ("mask",), "shuffled", batch_norm="parent"),
    "ticket": Arm("weights", 0.01, "train the weights from θ0 under a mask read from a parent's trained weights: a lottery ticket", ("weights", "ticket"), "ticket"),
    "prune": Arm("weights", 1e-5, "train a parent's weights further under a mask read from them", ("weights", "prune"), "ticket", "parent", "parent"),
    "evil": Arm("mask", 0.01, "train a mask on a parent's trained weights that makes them wrong, all else frozen", ("weights",), weights="parent", batch_norm="parent", wrong=True),
}

# What a child must share with its parent, or the parent's masks do not belong to it.
NETWORK = ("dataset", "model", "depth", "width", "shortcut", "initializer", "rescale", "seed")


# The estimators that the package brings, and the parameters of their own, with the values that they take by themselves.
ESTIMATORS = {
    "bernoulli": {}, "binary_concrete": {"temperature": 1.0}, "intermediate_loss": {"step_size": 0.1}, "threshold": {"tau": 0.5}, "top_k": {"density": 0.5},
}


def _parameter(default: Any, text: str, **accepts: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, **accepts})


@dataclass(frozen=True)
class Experiment:
    """Every parameter of one run. The attributes are the parameters of `book/experiment.ipynb` and of `supermask run`.

    A parameter left at None takes the value that fits the others, so that a finished `Experiment` holds no None but
    where a parameter does not apply or asks for nothing. Two experiments are the same run if and only if all parameters are equal.

    Raises:
        ValueError: if a parameter is unknown, of a wrong type or out of range, or does not go with another.
        FileNotFoundError: if `dataset` or `init_from` names a file or folder that does not exist.
    """

    dataset: str = _parameter("digits", f"{', '.join(data.DATASETS)}, or the path of an .npz")
    model: str = _parameter("wide_resnet", "the network", choices=("wide_resnet", "lenet_300_100", "conv_net"))
    depth: int | None = _parameter(None, "wide_resnet: 6n + 4, by default 16; conv_net: 2, 4 or 6, by default 2", most=1000)
    width: int | None = _parameter(None, "wide_resnet: times 16, 32 and 64 filters, by default 1", least=1, most=100)
    shortcut: str | None = _parameter(None, "wide_resnet: 3x3, or wide (1x1 with as many weights), in place of the 1x1 shortcut convolutions", choices=("3x3", "wide"))
    arm: str = _parameter("mask", "; ".join(f"{name}: {arm.does}" for name, arm in ARMS.items()), choices=tuple(ARMS))
    init_from: str | None = _parameter(None, "the run to start from, for an arm that needs one: its name in the same folder, or its path")
    estimator: str = _parameter("threshold", f"how the mask is made from its logits: {', '.join(ESTIMATORS)}, or one that you have registered")
    tau: float | None = _parameter(None, "threshold: keep where σ(logit) exceeds it, by default 0.5", between=(0, 1))
    temperature: float | None = _parameter(None, "binary_concrete: of the relaxation, by default 1", above=0)
    step_size: float | None = _parameter(None, "intermediate_loss: of the step that moves a draw, by default 0.1", above=0)
    density: float | None = _parameter(None, "the fraction of the weights to keep: top_k, of each layer's, by default 0.5; ticket and prune, by default 0.2", above=0, most=1)
    density_start: float | None = _parameter(None, "top_k: begin with this density and come down to `density` over the first half of the epochs, none of which is chosen as the best", above=0, most=1)
    draw_at_evaluation: bool = _parameter(False, "an estimator that draws: draw the mask at evaluation too, instead of taking the most likely one")
    initial_logit: float | None = _parameter(1.0, "where the mask logits start (top_k: its scores start random)")
    mask_regularizer: float | None = _parameter(None, "strength of a regularizer that rewards mask logits far from 0", above=0)
    rescale: str | None = _parameter(None, "multiply a masked kernel, to make up for the weights that are gone: dynamic by weights / kept, root by the square root of that", choices=("dynamic", "root"))
    initializer: str = _parameter("glorot_uniform", "how θ0 is drawn", choices=("glorot_uniform", "he_uniform", "signed_constant", "signed_kaiming_constant"))
    criterion: str | None = _parameter(None, f"ticket and prune: which weights to keep, by default large_final: {', '.join(tickets.CRITERIA)}", choices=tuple(tickets.CRITERIA))
    scope: str | None = _parameter(None, "ticket and prune: keep that fraction of each layer (by default), or of all layers together", choices=("layer", "global"))
    rewind_epochs: int | None = _parameter(None, "ticket: start from the weights as they were after this many epochs of the weights run, by default 0: θ0", least=0, most=1_000_000)
    epochs: int = _parameter(10, "passes over the training images", least=1, most=1_000_000)
    batch_size: int = _parameter(128, "images in a step", least=1, most=1_000_000)
    reset_batch_norm: bool | None = _parameter(None, "start batch norm anew, in an arm that takes over its parent's")
    learning_rate: float | None = _parameter(None, f"Adam's at the start, by default {', '.join(f'{a.learning_rate:g} for {n}' for n, a in ARMS.items())}; divided by 10 after two epochs without better training accuracy", above=0)
    augment: bool = _parameter(True, "flip, rotate and shift the training images as the post did")
    precision: str | None = _parameter(None, "mixed_bfloat16: compute in bfloat16, variables in float32; by default all in float32", choices=("mixed_bfloat16",))
    strategy: str | None = _parameter(None, "mirrored: all devices of this machine; multi_worker: those of all machines that TF_CONFIG names; by default one device", choices=("mirrored", "multi_worker"))
    protocol: str = _parameter("study", "study: a validation split chooses the epoch; original: as the post did, the test set", choices=("study", "original"))
    seed: int = _parameter(0, "seed of θ0, of the order of the images, their augmentation and drawn masks", least=0, most=2**31 - 1)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        data.check_name(self.dataset)
        takes = {"wide_resnet": {"depth": 16, "width": 1}, "conv_net": {"depth": 2}, "lenet_300_100": {}}[self.model]
        self._settle("depth", takes, f"model={self.model!r}")
        self._settle("width", takes, f"model={self.model!r}")
        if self.shortcut is not None and self.model != "wide_resnet":
            raise ValueError(f"shortcut={self.shortcut!r} does not go with model={self.model!r}, which has no shortcut: leave it out.")
        if self.model == "wide_resnet" and (self.depth < 10 or (self.depth - 4) % 6):
            raise ValueError(f"depth={self.depth} does not fit a wide_resnet: give 6n + 4, such as 10, 16, 22 or 28.")
        if self.model == "conv_net" and self.depth not in (2, 4, 6):
            raise ValueError(f"depth={self.depth} does not fit a conv_net: give 2, 4 or 6 convolutions.")
        self._check_estimator()
        self._settle("learning_rate", {"learning_rate": ARMS[self.arm].learning_rate}, "")
        if self.reset_batch_norm is False:  # what leaving it out means: one run has one name
            object.__setattr__(self, "reset_batch_norm", None)
        if self.reset_batch_norm is not None and ARMS[self.arm].batch_norm != "parent":
            raise ValueError(f"reset_batch_norm={self.reset_batch_norm} does not go with arm={self.arm!r}, whose batch norm starts anew: leave it out.")
        if self.arm == "bn_only" and self.model != "wide_resnet":
            raise ValueError(f"arm='bn_only' does not go with model={self.model!r}, which has no batch norm: give model='wide_resnet'.")
        parents = ARMS[self.arm].parents
        if parents and not self.init_from:
            raise ValueError(f"arm={self.arm!r} starts from a {' or '.join(parents)} run: name one as init_from (`supermask list` shows them); in a study, the block as `from`.")
        if self.init_from and not parents:
            raise ValueError(f"init_from={self.init_from!r} does not go with arm={self.arm!r}, which starts from θ0: leave it out.")

    def _check_estimator(self) -> None:
        # One that a notebook registered is known where its module is loaded; asking must not load TensorFlow.
        loaded = sys.modules.get(f"{__package__}.estimators")
        if self.estimator not in {**ESTIMATORS, **(loaded._KNOWN if loaded else {})}:
            raise ValueError(f"Unknown estimator {self.estimator!r}: choose one of {', '.join(ESTIMATORS)}, or register your own first.")
        arm = ARMS[self.arm]
        usual = {} if arm.trains == "mask" else {"initial_logit": 1.0, "mask_regularizer": None, "density_start": None, "draw_at_evaluation": False}
        if arm.trains != "mask" and "mask" not in arm.parents:  # a mask run's child keeps what found its mask
            usual |= {"estimator": "threshold", "tau": 0.5}
        for name, value in usual.items():
            if getattr(self, name) not in (None, value):
                raise ValueError(f"{name}={getattr(self, name)!r} does not go with arm={self.arm!r}, whose mask is not trained: leave it out.")
        ticket = arm.mask == "ticket"
        of_arm = {"criterion": "large_final", "scope": "layer", "density": 0.2} if ticket else {}
        for name in ("criterion", "scope", "rewind_epochs"):
            self._settle(name, of_arm | ({"rewind_epochs": 0} if self.arm == "ticket" else {}), f"arm={self.arm!r}")
        for name in {name for own in ESTIMATORS.values() for name in own}:
            self._settle(name, ESTIMATORS.get(self.estimator, {}) | of_arm, f"estimator={self.estimator!r}")
        if self.density_start is not None and (self.estimator != "top_k" or self.density_start < self.density):
            raise ValueError(f"density_start={self.density_start} does not go with density={self.density}: give estimator='top_k' and a density below it, or leave it out.")
        if self.density_start is not None and self.epochs < 2:
            raise ValueError(f"density_start={self.density_start} does not go with epochs={self.epochs}: the density comes down between epochs; give at least 2.")
        if self.draw_at_evaluation and self.estimator in ("threshold", "top_k"):
            raise ValueError(f"draw_at_evaluation=True does not go with estimator={self.estimator!r}, which draws nothing: leave it out.")
        if self.estimator == "top_k":
            if self.initial_logit not in (None, 1.0):
                raise ValueError(f"initial_logit={self.initial_logit} does not go with estimator='top_k', whose scores start random: leave it out.")
            object.__setattr__(self, "initial_logit", None)
        elif self.initial_logit is None:
            object.__setattr__(self, "initial_logit", 1.0)

    def _settle(self, name: str, defaults: dict, owner: str) -> None:
        """Take the default of a parameter that applies; refuse a value for one that does not."""
        if getattr(self, name) is None:
            object.__setattr__(self, name, defaults.get(name))
        elif name not in defaults:
            raise ValueError(f"{name}={getattr(self, name)!r} does not go with {owner}, which has no {name}: leave it out.")

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "Experiment":
        """The experiment with these parameters.

        Raises:
            ValueError: also if a parameter is unknown.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in parameters:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                raise ValueError(f"Unknown parameter {name!r}: {f'did you mean {near[0]!r}?' if near else 'choose among ' + ', '.join(known) + '.'}")
        return cls(**parameters)

    @classmethod
    def load(cls, path: str | Path) -> "Experiment":
        """The experiment of an `experiment.json`."""
        try:
            parameters = records.read_object(Path(path))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"There is no experiment file {path}: give an experiment.json from a run's folder.") from error
        except (OSError, ValueError) as error:  # of JSON and of Unicode too
            raise ValueError(f"{path} is not an experiment: {getattr(error, 'strerror', None) or error}; give an experiment.json from a run's folder.") from error
        return cls.of({name: value for name, value in parameters.items() if name != "parent"})

    @classmethod
    def lineage(cls, path: str | Path) -> "list[Experiment]":
        """The experiment of an `experiment.json` behind the ones it starts from: from these the run can be made anywhere."""
        experiment = cls.load(path)
        line, parameters = [experiment], records.read_object(Path(path)).get("parent")
        while parameters:
            if not isinstance(parameters, dict):
                raise ValueError(f"{path} is not an experiment: its parent is {str(parameters)[:80]!r}, no parameters; give an experiment.json from a run's folder.")
            line.insert(0, cls.of({name: value for name, value in parameters.items() if name != "parent"}))
            parameters = parameters.get("parent")
        return line

    def parameters(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @property
    def name(self) -> str:
        """`<dataset>-<model>-<arm>-s<seed>-<8 hex digits of all parameters>`: the run's folder."""
        # A parent is known by its name, wherever it lies: that name is a hash of its parameters in turn. What does not
        # apply is left out, so that a parameter added to the package one day renames no earlier run.
        parameters = self.parameters() | {"init_from": self.init_from and Path(self.init_from).name}
        parameters = {name: value for name, value in parameters.items() if value is not None}
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:8]
        dataset = re.sub(r"[^A-Za-z0-9_]+", "_", Path(self.dataset).stem if self.dataset.endswith(".npz") else self.dataset)
        return f"{dataset}-{self.model}-{self.arm}-s{self.seed}-{digest}"

    def parent(self, directory: str | Path) -> Run | None:
        """The finished run that this one starts from.

        Raises:
            FileNotFoundError: if it is missing or unfinished.
            ValueError: if it is of another arm or network.
        """
        if not self.init_from:
            return None
        places = [Path(directory) / self.init_from, Path(self.init_from)]
        place = next((p for p in places if os.path.isdir(p)), None)
        if place is None:
            raise FileNotFoundError(f"init_from={self.init_from!r}: there is no such run in {directory} (missing or unfinished): run it first, or give the path of its folder.")
        try:
            run = Run.load(place)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"init_from={self.init_from!r} is unfinished or no run ({error}).") from error
        if run.damaged:
            raise ValueError(f"init_from={self.init_from!r} is damaged: {', '.join(run.damaged)} is not what was recorded; make that run again.")
        self.check_parent(run.parameters)
        return run

    def check_parent(self, parent: dict[str, Any]) -> None:
        """See that this experiment can start from a run with these parameters, before either is trained.

        Args:
            parent: as in `experiment.json`: under "parent", those of the run that it starts from in turn.

        Raises:
            ValueError: if it can't; the message names the parameter.
        """
        arm = ARMS[self.arm]
        if parent.get("arm") not in arm.parents:
            raise ValueError(f"init_from={self.init_from!r} is a run of arm={parent.get('arm')!r}, but arm={self.arm!r} starts from a {' or '.join(arm.parents)} run: name one.")
        found = ("estimator", *(name for own in ESTIMATORS.values() for name in own)) if "mask" in arm.parents else ()
        for name in (*NETWORK, "protocol", *found):
            value = getattr(self, name)
            if parent.get(name) != value:
                raise ValueError(f"init_from={self.init_from!r} has {name}={parent.get(name)!r}, but arm={self.arm!r} needs a parent with {name}={value!r}: "
                                 + ("name a run of the same network and protocol." if name not in found else f"give {name} as that run has it."))
        if arm.mask == "ticket" and parent["arm"] == self.arm and self.density > parent["density"]:
            raise ValueError(f"density={self.density} is more than init_from={self.init_from!r} keeps, {parent['density']}: give a smaller density in each round.")
        while parent.get("parent"):
            parent = parent["parent"]
        if self.rewind_epochs and self.rewind_epochs > parent["epochs"]:
            raise ValueError(f"rewind_epochs={self.rewind_epochs} is more than the {parent['epochs']} epochs of the weights run: give at most as many.")

    def run(self, directory: str | Path, progress: bool = True, weights: bool = False) -> Run:
        """Train, and leave a record in `directory`, the folder of a study. A finished run is returned as it is.

        A run that was stopped goes on from its last finished epoch and ends with the same bits as one that never was. Where
        another process has the same run in hand, this one says so and waits.

        Args:
            directory: the study's folder; the run gets a folder of its own in it.
            progress: whether to print a line an epoch.
            weights: whether to train a finished run again if its trained weights, which no record holds, are gone.

        Raises:
            ValueError, FileNotFoundError: bad data or a bad parent, before training.
            PermissionError, FileExistsError: `directory` can't be written to, or is not a study's.
            FloatingPointError: the loss became NaN; nothing is written.
            OSError: the record could not be written; the epochs kept beside it stay.
            Stopped: SIGTERM or Ctrl-C came; the message says how the run goes on.
        """
        directory = Path(directory)
        place = directory / self.name
        # TensorFlow's start-up messages would stand at the top of every notebook and hide the progress.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        weights = weights and ARMS[self.arm].leaves_weights
        if not place.exists() or weights and not Run(place).weights_file.is_file():
            records.check_writable(directory)
            # While this one waited, another process may have done it. Of several workers the chief alone holds the lock.
            with records.lock(place) if self.strategy != "multi_worker" or _is_chief() else contextlib.nullcontext():
                if not place.exists():
                    parent = self.parent(directory)
                    images = data.load(self.dataset, self.protocol)
                    if parent and parent.summary["fingerprint"] != images.fingerprint:
                        raise ValueError(f"init_from={self.init_from!r} was trained on other data than dataset={self.dataset!r} holds now: name a run on the same data.")
                    self._need_weights(parent, progress)
                    return _train(self, place, images, parent, progress)
                run = self._recorded(place)
                if weights and not run.weights_file.is_file():
                    self._need_weights(self.parent(directory), progress)
                    _remake_weights(self, run, progress)
                    return run
        run = self._recorded(place)
        Checkpoints(place).clear()  # of a process that was killed when the record was just there
        if progress:
            print(f"{self.name} is finished already: its record is used.")
        return run

    def _recorded(self, place: Path) -> Run:
        """The run at `place`, if it is this one."""
        run = Run.load(place)
        if self.dataset.endswith(".npz") and data.load(self.dataset, self.protocol).fingerprint != run.summary["fingerprint"]:
            raise FileExistsError(f"{place} holds another run: {self.dataset} has changed since; move the run away, or give another directory.")
        if any(run.parameters.get(k) != v for k, v in self.parameters().items() if k != "init_from"):
            raise FileExistsError(f"{place} holds another run: move it away, or give another directory.")
        return run

    def _need_weights(self, parent: Run | None, progress: bool) -> None:
        """Make the parent's trained weights again where the arm goes on from them and they are gone."""
        if parent and ARMS[self.arm].needs_weights and not parent.weights_file.is_file():
            Experiment.load(parent.path / "experiment.json").run(parent.path.parent, progress, weights=True)


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """The value of a parameter in its type, or a ValueError that says what is accepted."""
    name, accepts = field.name, field.metadata
    if value is None and "None" in _HINTS[name]:
        return None
    kind = next(kind for kind in (bool, int, float, str) if kind.__name__ in _HINTS[name])
    if isinstance(value, np.generic):
        value = value.item()
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    if kind is str and isinstance(value, Path):
        value = str(value)
    if type(value) is not kind:
        wanted = {bool: "true or false", int: "a whole number", float: "a number (in YAML with a point: 1.0e-3)", str: "a text"}[kind]
        raise ValueError(f"{name}={value!r} has the wrong type: give {wanted}.")
    if "choices" in accepts and value not in accepts["choices"]:
        raise ValueError(f"Unknown {name} {value!r}: choose one of {', '.join(accepts['choices'])}.")
    low, high = accepts.get("between", (-math.inf, math.inf))
    for ok, wanted in (
        (kind is not float or math.isfinite(value), "a finite number"),
        (kind is str or low < value < high, f"a value between {low} and {high}, both excluded"),
        ("least" not in accepts or value >= accepts["least"], f"at least {accepts.get('least')}"),
        ("most" not in accepts or value <= accepts["most"], f"at most {accepts.get('most')}"),
        ("above" not in accepts or value > accepts["above"], f"a value above {accepts.get('above')}"),
    ):
        if not ok:
            raise ValueError(f"{name}={value!r} is out of range: give {wanted}.")
    return value


# --- what running it does: TensorFlow from here on --------------------------------------------------------------------


def build(experiment: Experiment, image_shape: tuple[int, int, int], classes: int):
    """The experiment's network at θ0, its masks open, in the phase of its arm (uncompiled)."""
    import tensorflow as tf

    from . import estimators, models
    from .layers import OpenOrClosed, is_normalization, masked_layers

    masking = {}
    if ARMS[experiment.arm].trains == "mask":
        estimator = estimators.get(experiment.estimator, **{name: getattr(experiment, name) for name in ESTIMATORS.get(experiment.estimator, {})})
        masking = {
            "estimator": estimator, "mask_initializer": None if estimator.initial_logit is None else experiment.initial_logit,  # scores start random
            "draw_at_evaluation": experiment.draw_at_evaluation,
            "mask_regularizer": experiment.mask_regularizer and OpenOrClosed(experiment.mask_regularizer),
        }
    # Where the mask does not train it is fixed by the sign of its logits, whatever estimator found it.
    # Keras layers take their precision from the policy in force when they are made.
    policy = tf.keras.mixed_precision.global_policy()
    try:
        tf.keras.mixed_precision.set_global_policy(experiment.precision or tf.keras.backend.floatx())  # not what a notebook has set
        model = models.build(
            experiment.model, depth=experiment.depth, width=experiment.width, shortcut=experiment.shortcut,
            input_shape=tuple(image_shape), classes=classes,
            phase="mask" if masking else "weights", seed=experiment.seed, kernel_initializer=experiment.initializer,
            **({"rescale": experiment.rescale} | masking),
        )
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    if ARMS[experiment.arm].trains == "batch_norm":
        for layer in masked_layers(model):
            layer.trainable = False
    if ARMS[experiment.arm].wrong:
        for layer in model.layers:
            layer.trainable = not is_normalization(layer)
    return model


def rebuild(run: Run):
    """The network of a finished run at its best epoch, compiled."""
    experiment = Experiment.of({k: v for k, v in run.parameters.items() if k != "parent"} | _anywhere(run))
    model = build(experiment, run.summary["image_shape"], run.summary["classes"])
    _restore(model, run)
    _compile(model, experiment)
    return model


def _anywhere(run: Run) -> dict[str, Any]:
    """A record is rebuilt without its dataset: an .npz that is gone must not stand in the way."""
    return {"dataset": "digits"} if run.parameters["dataset"].endswith(".npz") else {}


def _compile(model, experiment: Experiment) -> None:
    import tensorflow as tf

    model.compile(
        tf.keras.optimizers.Adam(experiment.learning_rate),
        _mean_right if ARMS[experiment.arm].wrong else tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def _mean_right(labels, logits):
    """−log(1 − p), p the probability of the right class: zero where a network is surely wrong, and its slope does not vanish
    where it is surely right (cross entropy with its sign turned would have no lower end).
    """
    import tensorflow as tf

    others = logits - 1e9 * tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), tf.shape(logits)[-1], dtype=logits.dtype)
    return tf.reduce_logsumexp(logits, -1) - tf.reduce_logsumexp(others, -1)


def _restore(model, run: Run) -> None:
    """Give a network at θ0 the masks, the batch-norm state and, where the run trained them, the weights of a run."""
    state, beyond = run.state(), _drawn(model)
    _assign({path: v for path, v in beyond.items() if path.endswith("/density")}, state)  # which masks fit depends on it
    model.set_masks(_masks(model, run))
    _assign(_batch_norm(model) | beyond, state)
    if ARMS[run.parameters["arm"]].leaves_weights:
        if not run.weights_file.is_file():
            raise FileNotFoundError(
                f"{run.name} has trained weights, and they are no longer beside its record ({run.weights_file}): make them again with `supermask run {run.path}/experiment.json --directory {run.path.parent} --weights`.")
        _assign(_weights(model) | _batch_norm(model), run.weights())


def _start(model, experiment: Experiment, parent: Run, images: data.ImageData) -> None:
    """Give a network at θ0 what its arm takes from the parent."""
    arm = ARMS[experiment.arm]
    if arm.mask == "ticket":
        kernels = {path: v.numpy() for path, v in _weights(model).items() if path.endswith("/kernel")}
        within = {path: mask for path, mask in _masks(model, parent).items() if path in kernels}
        try:
            found = tickets.masks(kernels, parent.weights(), experiment.density, experiment.criterion, experiment.scope, within, experiment.seed)
        except ValueError as error:
            raise ValueError(f"init_from={experiment.init_from!r}: {error}") from error
        model.set_masks(found)
    elif arm.mask != "open":
        model.set_masks({path: tickets.control(mask, arm.mask, experiment.seed, path) for path, mask in _masks(model, parent).items()})
    if arm.weights == "parent":
        _assign(_weights(model), parent.weights())
    if arm.batch_norm == "parent" and not experiment.reset_batch_norm:
        _assign(_batch_norm(model), parent.state() | (parent.weights() if arm.weights == "parent" else {}))
    if experiment.rewind_epochs:
        _rewind(model, experiment, parent, images)


def _rewind(model, experiment: Experiment, parent: Run, images: data.ImageData) -> None:
    """Give a network the weights and batch norm that its first ancestor, a weights run, had after `rewind_epochs`: they are trained again."""
    import tensorflow as tf

    root = parent.parameters
    while root["parent"]:
        root = root["parent"]
    root = Experiment.of({name: value for name, value in root.items() if name != "parent"})
    early = build(root, images.image_shape, images.classes)
    _compile(early, root)
    batches = data.training_batches(images, batch_size=root.batch_size, seed=root.seed, epochs=experiment.rewind_epochs, augmented=root.augment)
    early.fit(
        data.shared_out(batches, tf.distribute.get_strategy()) if experiment.strategy else batches, epochs=experiment.rewind_epochs,
        steps_per_epoch=len(images.train[0]) // root.batch_size, verbose=0, callbacks=[_plateau(root)],
    )
    _assign(_weights(model) | _batch_norm(model), {path: v.numpy() for path, v in (_weights(early) | _batch_norm(early)).items()})


def _masks(model, run: Run) -> dict[str, np.ndarray]:
    return run.masks({path: mask.shape for path, mask in model.masks().items()})


def _assign(variables: dict[str, Any], values) -> None:
    """Assign what of the values the variables have: a child needs the masks of a run that draws, not its logits."""
    for path in variables.keys() & set(values):
        variables[path].assign(values[path])


def _remake_weights(experiment: Experiment, run: Run, progress: bool) -> None:
    """Train a finished run again, in a folder that goes away, for the weights that its record does not hold."""
    if progress:
        print(f"{run.name}: its trained weights are gone; training again to make them.")
    with tempfile.TemporaryDirectory() as folder:
        again = _train(experiment, Path(folder) / run.name, data.load(experiment.dataset, experiment.protocol), experiment.parent(run.path.parent), progress, Checkpoints(run.path))
        weights = again.weights()
        if not again.history.equals(run.history):
            weights |= again.state()  # the record's batch norm belongs to other weights
            print(f"{run.name}: trained again, its history differs from the record's: another processor, number of threads or version. "
                  f"Test accuracy {again.summary['test_accuracy']:.4f}, recorded {run.summary['test_accuracy']:.4f}.")
        records.write_weights(run, weights)
    Checkpoints(run.path).clear()


def _batch_norm(model) -> dict[str, Any]:
    """Batch-norm parameters and moving statistics by path."""
    from .layers import is_normalization

    return {
        f"{layer.name}/{name}": getattr(layer, name)
        for layer in model.layers if is_normalization(layer)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    }


def _weights(model) -> dict[str, Any]:
    """Kernels and biases by path."""
    from .layers import masked_layers

    return {f"{layer.name}/{name}": getattr(layer, name) for layer in masked_layers(model) for name in ("kernel", "bias")}


def _drawn(model) -> dict[str, Any]:
    """What 0/1 masks don't tell: logits and the number of draws, where masks are drawn at evaluation too; a ranking's density."""
    from .layers import masked_layers

    return {f"{layer.name}/{name}": getattr(layer, name) for layer in masked_layers(model)
            for name in (("kernel_logits", "bias_logits", "draws") if layer.estimator.draws and layer.draw_at_evaluation else ())
            + (("density",) if "density" in layer.estimator.parameters else ())}


def _utilisation(model) -> pd.DataFrame:
    """One row a masked kernel: index, path, kind, number of weights, fraction masked."""
    from .layers import masked_layers

    rows = []
    for index, layer in enumerate(masked_layers(model)):
        mask = layer.masks["kernel"]
        kind = "dense" if mask.ndim == 2 else f"{mask.shape[0]}x{mask.shape[1]}" + (" shortcut" if layer.name.endswith("shortcut") else "")
        rows.append((index, layer.name, kind, mask.size, 1.0 - np.count_nonzero(mask) / mask.size))
    return pd.DataFrame(rows, columns=["layer", "path", "kind", "weights", "masked"])


def _masked_fraction(utilisation: pd.DataFrame) -> float:
    return float((utilisation.masked * utilisation.weights).sum() / utilisation.weights.sum())


def _train(experiment: Experiment, place: Path, images: data.ImageData, parent: Run | None, progress: bool, kept: Checkpoints | None = None) -> Run:
    """Train from the last epoch kept, and write the record at `place`; `kept` is beside it unless given."""
    import tensorflow as tf

    beside = place
    strategy, place = _strategy(experiment, place)
    tf.keras.backend.clear_session()
    batches_of = functools.partial(data.training_batches, images, batch_size=experiment.batch_size, seed=experiment.seed, augmented=experiment.augment)
    validation, test = (data.evaluation_batches(images, split) for split in ("validation", "test"))
    ends = (None, None)
    if experiment.strategy:
        ends = (len(validation), len(test))  # Keras can't count shared batches
        validation, test = (data.shared_out(each, strategy) for each in (validation, test))
    with strategy.scope():
        model = build(experiment, images.image_shape, images.classes)
        if parent:
            _start(model, experiment, parent, images)
        _compile(model, experiment)
    # What it starts with chooses nothing; a record shows it.
    started = {"start_accuracy": float(model.evaluate(test, steps=ends[1], verbose=0)[1])} if parent else {}

    plateau = _plateau(experiment)
    kept = kept or Checkpoints(beside, writes=place == beside)
    steps = len(images.train[0]) // experiment.batch_size
    with checkpoints.held_signals() as stopped:
        facts = {"fingerprint": images.fingerprint, "parent": parent and parent.summary["checksums"], "machines": [machine()]}
        found = _agreed(_kept(kept, facts, progress), kept, strategy)
        watch = _watch(experiment, progress, plateau, kept, facts, stopped)
        if found:
            checkpoints.restore(model, watch, *found)
        batches = batches_of(first_epoch=kept.epoch, epochs=experiment.epochs - kept.epoch)
        if experiment.strategy:
            batches = data.shared_out(batches, strategy)
        try:
            model.fit(
                batches, initial_epoch=kept.epoch, epochs=experiment.epochs, steps_per_epoch=steps, verbose=0,
                validation_data=validation, validation_steps=ends[0],
                callbacks=[plateau, watch, *([_lower_density(experiment, plateau)] if experiment.density_start else [])],
            )
        except FloatingPointError:
            kept.clear()  # it would become NaN again
            raise
        model.set_weights(watch.best_weights)
        state = {path: v.numpy() for path, v in (_batch_norm(model) | _drawn(model)).items()}  # before the test draws anything
        test_loss, test_accuracy = model.evaluate(test, steps=ends[1], verbose=0, callbacks=[watch])

        history, utilisation = pd.DataFrame(watch.rows), _utilisation(model)
        best = history.loc[history.epoch == watch.best_epoch].iloc[0]
        try:
            if ARMS[experiment.arm].leaves_weights:
                records.write_weights(Run(place), {path: v.numpy() for path, v in _weights(model).items()})
            run = records.write_run(
                place,
                experiment.parameters() | {
                    "init_from": experiment.init_from and Path(experiment.init_from).name,
                    "parent": parent and parent.parameters,
                },
                history, utilisation, model.masks(), state,
                {
                    "best_epoch": int(watch.best_epoch),
                    "train_accuracy": float(best.accuracy), "val_accuracy": float(best.val_accuracy),
                    "test_accuracy": float(test_accuracy), "test_loss": float(test_loss), **started,
                    "masked": _masked_fraction(utilisation),
                    "seconds": round(watch.seconds, 1), "images_per_second": round(steps * experiment.batch_size * experiment.epochs / watch.seconds, 1),
                    "train_images": len(images.train[0]), "test_images": len(images.test[0]),
                    "image_shape": list(images.image_shape), "classes": images.classes, "fingerprint": images.fingerprint,
                    "replicas": strategy.num_replicas_in_sync,
                    **facts["machines"][-1], **({"earlier_machines": facts["machines"][:-1]} if facts["machines"][1:] else {}),
                },
            )
        except OSError as error:
            raise OSError(f"The record {place} could not be written ({error.strerror or error}): make room there, and give the same command; it goes on after epoch {kept.epoch} of {experiment.epochs}.") from error
        kept.clear()
    if progress:
        hint = " (no weight left: give more epochs, or a larger learning_rate)" if experiment.arm == "mask" and not run.summary["masked"] else ""
        print(f"best epoch {run.summary['best_epoch']}: test accuracy {test_accuracy:.4f}, {run.summary['masked']:.1%} masked{hint}; record in {place}")
    return run


def _plateau(experiment: Experiment):
    """The post's schedule: a tenth of the rate after two epochs without better training accuracy (an evil mask's: worse)."""
    import tensorflow as tf

    return tf.keras.callbacks.ReduceLROnPlateau("accuracy", factor=0.1, patience=2, min_delta=1e-4, mode="min" if ARMS[experiment.arm].wrong else "max")


def settled(experiment: Experiment, epoch: int) -> bool:
    """Whether the mask had its density before this epoch (counted from 0). The epochs until then are no measure for later
    ones: they choose no best epoch and lower no learning rate.
    """
    return not experiment.density_start or epoch > math.ceil(experiment.epochs / 2)


def _lower_density(experiment: Experiment, plateau):
    """A callback that brings the density down from `density_start`, on the cubic of Zhu and Gupta (2017, arXiv:1710.01878, equation 1)."""
    import tensorflow as tf

    from .layers import masked_layers

    class LowerDensity(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            left = 1.0 - min(1.0, epoch / (experiment.epochs / 2))
            for layer in masked_layers(self.model):
                layer.density.assign(experiment.density + (experiment.density_start - experiment.density) * left**3)
            if not settled(experiment, epoch):
                plateau.on_train_begin()  # it forgets

    return LowerDensity()


def _is_chief() -> bool:
    """Whether this process is the one of a multi_worker run that keeps the record: the chief, or the first worker."""
    config = json.loads(os.environ.get("TF_CONFIG") or "{}")
    task = config.get("task", {})
    return task.get("type", "chief") == "chief" or (task.get("index", 0) == 0 and not config.get("cluster", {}).get("chief"))


def _agreed(found, kept: Checkpoints, strategy):
    """`found`, if all workers of a multi_worker run found the same epoch: where they see different disks none goes on alone."""
    import tensorflow as tf

    if strategy.num_replicas_in_sync == 1 or strategy.cluster_resolver is None:
        return found
    epoch = tf.constant(float(kept.epoch))
    total, square = strategy.run(lambda: [tf.distribute.get_replica_context().all_reduce("sum", value) for value in (epoch, epoch**2)])
    total, square = (float(strategy.experimental_local_results(value)[0]) for value in (total, square))
    if total**2 == square * strategy.num_replicas_in_sync:
        return found
    print("The workers do not see the same checkpoints: the run begins anew.")
    kept.clear()
    return None


@functools.cache  # TensorFlow connects the machines of a multi_worker run once a process
def _strategies(name: str | None):
    import tensorflow as tf

    if name == "multi_worker" and not os.environ.get("TF_CONFIG"):
        raise ValueError("strategy='multi_worker' needs TF_CONFIG in the environment of each worker: set it (the book's page on scale shows how), or give strategy='mirrored' for one machine.")
    return {None: tf.distribute.get_strategy, "mirrored": tf.distribute.MirroredStrategy, "multi_worker": tf.distribute.MultiWorkerMirroredStrategy}[name]()


def _strategy(experiment: Experiment, place: Path):
    """How the devices share the work, and where this process writes its record: of several workers all need one to go
    on with, but only the chief's stays.

    Raises:
        ValueError: if the batch has no equal part for each replica, or TF_CONFIG is missing.
    """
    strategy = _strategies(experiment.strategy)
    if experiment.batch_size % strategy.num_replicas_in_sync:
        raise ValueError(f"batch_size={experiment.batch_size} has no equal parts for {strategy.num_replicas_in_sync} replicas (strategy={experiment.strategy!r}): give a multiple of {strategy.num_replicas_in_sync}.")
    if experiment.strategy == "multi_worker" and not _is_chief():
        folder = Path(tempfile.mkdtemp())
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        place = folder / place.name
    return strategy, place


def _kept(kept: Checkpoints, facts: dict[str, Any], progress: bool):
    """The last epoch kept, if it is of this run; `facts` then learns on which other machines the run was before."""
    found = kept.newest()
    if found is None:
        return None
    before = found[0]
    if any(before[name] != facts[name] for name in ("fingerprint", "parent")):
        # Other data, or another parent of the same name, made another run: none of its epochs is of use.
        print(f"{kept.folder} holds epochs of a run with other data or another parent: they are not used.")
        kept.clear()
        return None
    if progress:
        print(f"The run goes on after epoch {kept.epoch}, which was kept in {kept.folder}.")
    facts["machines"] = [machine for machine in before["machines"] if machine not in facts["machines"]] + facts["machines"]
    if len(facts["machines"]) > 1:
        print("It was begun on another processor, number of threads or version, on which its last bits depend: the record will say so.")
    return found


def _watch(experiment: Experiment, progress: bool, plateau, kept: Checkpoints, facts: dict[str, Any], stopped):
    """A callback that keeps the history, the best epoch's weights and a checkpoint an epoch, prints progress and stops at NaN or a signal."""
    import tensorflow as tf

    class Watch(tf.keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.rows: list[dict[str, float]] = []
            self.best_epoch, self.best_weights, self.best_accuracy = 0, None, None
            self.epoch, self.seconds = kept.epoch, 0.0
            self.plateau: dict[str, float] = {}

        def on_train_begin(self, logs=None):
            vars(plateau).update(self.plateau)  # Keras has just made it forget
            self.since = time.perf_counter()

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch, self.begun = epoch + 1, time.perf_counter()
            self.told = self.begun

        def check(self, loss, when):
            if not math.isfinite(loss):
                raise FloatingPointError(f"The loss became {loss} {when} (learning_rate={experiment.learning_rate:g}): try a smaller learning_rate; nothing was recorded.")

        def on_train_batch_end(self, batch, logs=None):
            self.check(logs["loss"], f"at step {batch + 1} of epoch {self.epoch}")
            if progress and time.perf_counter() - self.told > 20:
                self.told = time.perf_counter()
                print(f"  epoch {self.epoch}, step {batch + 1} of {self.params['steps']}: accuracy so far {logs['accuracy']:.4f}", flush=True)
            self.stop()

        def on_test_batch_end(self, batch, logs=None):
            self.stop()

        def stop(self):
            stopped(lambda: f"{experiment.name} was stopped in epoch {self.epoch} of {experiment.epochs}: "
                    + (f"the same command goes on after epoch {kept.epoch}, the last one kept." if kept.epoch else "no epoch was finished; the same command begins again."))

        def on_epoch_end(self, epoch, logs=None):
            masked = _masked_fraction(_utilisation(self.model))
            row = {"epoch": self.epoch} | {k: float(logs[k]) for k in ("loss", "accuracy", "val_loss", "val_accuracy")}
            self.check(row["val_loss"], f"on the validation images after epoch {self.epoch}")  # the epoch's last step shows only there
            self.rows.append(row | {"learning_rate": float(f"{logs['lr']:.6g}"), "masked": masked})
            better = operator.lt if ARMS[experiment.arm].wrong else operator.gt
            if self.best_accuracy is None or not settled(experiment, epoch) or better(row["val_accuracy"], self.best_accuracy):
                self.best_epoch, self.best_accuracy, self.best_weights = self.epoch, row["val_accuracy"], self.model.get_weights()
            now = time.perf_counter()
            self.seconds, self.since = self.seconds + now - self.since, now
            state, arrays = checkpoints.state(self.model, plateau, self)
            kept.write(self.epoch, facts | state, arrays)
            if progress:
                done = round(10 * self.epoch / experiment.epochs)
                print(f"{'█' * done}{'░' * (10 - done)} epoch {self.epoch:>3}/{experiment.epochs}   loss {row['loss']:.4f}   accuracy {row['accuracy']:.4f}   "
                      f"val_accuracy {row['val_accuracy']:.4f}   learning rate {logs['lr']:.0e}   masked {masked:.1%}   "
                      f"{now - self.begun:.0f} s", flush=True)

    return Watch()


def machine() -> dict[str, Any]:
    """The versions, the processor and the threads: what decides the last bits of a result."""
    import tensorflow as tf

    from . import __version__

    processor = platform.processor()
    try:
        processor = next(line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor or platform.machine(),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or int(os.environ.get("TF_NUM_INTRAOP_THREADS", 0)) or cores,
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1",
        "versions": {
            "supermask_tf": __version__, "python": platform.python_version(), "tensorflow": tf.__version__,
            "keras": metadata.version("keras"), "numpy": np.__version__,
        },
    }


_HINTS = {field.name: str(field.type) for field in dataclasses.fields(Experiment)}
