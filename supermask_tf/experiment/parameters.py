"""What is asked for: an experiment as a frozen, validated dataclass.

A parameter says everything about itself in its field's metadata; the help texts, the notebook,
studies, the command line and bundles read it there. No TensorFlow::

    experiment = Experiment(dataset="mnist", arm="mask", epochs=2)
    experiment.name                     # "mnist-wide_resnet-mask-s0-..."
    run = experiment.run("runs/mine")   # trains, and leaves a record
"""

import dataclasses
import difflib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import data, tickets
from ..ground import files
from ..records import BEFORE, Run
from . import checking, methods, parents
from .arms import ARMS, ESTIMATORS
from .fields import among, parameter, set_value

__all__ = ["NETWORK", "PARAMETERS", "Experiment", "belonging_to"]

_TICKETS = ("ticket", "prune")


@dataclass(frozen=True)
class Experiment:
    """Every parameter of one run.

    The attributes are the parameters of `book/experiment.ipynb` and of `supermask run`. A parameter
    left at None takes the value that fits the others; None remains only where a parameter does not
    apply, or asks for nothing. Two experiments are the same run if and only if all parameters are
    equal.

    Raises:
        ValueError: if a parameter is unknown, of a wrong type or out of range, or does not go with
            another.
        FileNotFoundError: if `dataset` or `init_from` names a file or folder that does not exist.
    """

    dataset: str = parameter(
        "digits",
        f"{among(data.DATASETS)}, or the path of an .npz",
        network=True,
        bundle="any",
    )
    model: str = parameter(
        "wide_resnet",
        "the network",
        choices=("wide_resnet", "lenet_300_100", "conv_net", "resnet"),
        network=True,
    )
    depth: int | None = parameter(
        None,
        "wide_resnet: 6n + 4, by default 16; conv_net: 2, 4, 6 or 8, by default 2; resnet: 6n + 2,"
        " by default 20",
        most=1000,
        of={"model": {"wide_resnet": 16, "conv_net": 2, "resnet": 20}},
        network=True,
    )
    width: int | None = parameter(
        None,
        "wide_resnet and resnet: times 16, 32 and 64 filters, by default 1",
        least=1,
        most=100,
        of={"model": {"wide_resnet": 1, "resnet": 1}},
        network=True,
    )
    units: int | None = parameter(
        None,
        "lenet_300_100: of the first layer, by default 300; the second has a third of them",
        least=3,
        most=100_000,
        of={"model": {"lenet_300_100": None}},
        network=True,
    )
    shortcut: str | None = parameter(
        None,
        "wide_resnet: 3x3, or wide (1x1 with as many weights), in place of the 1x1 shortcut"
        " convolutions",
        choices=("3x3", "wide"),
        of={"model": {"wide_resnet": None}},
        network=True,
    )
    affine: bool = methods.AFFINE
    activation: str | None = methods.ACTIVATION
    arm: str = parameter(
        "mask",
        "; ".join(f"{name}: {arm.does}" for name, arm in ARMS.items()),
        choices=tuple(ARMS),
        bundle="any",
    )
    init_from: str | None = parameter(
        None,
        "the run to start from, for an arm that needs one: its name in the same folder, or its"
        " path",
        goes_with=("arm",),
        bundle="any",
    )
    estimator: str = parameter(
        "threshold",
        f"how the mask is made from its logits: {among(ESTIMATORS)}, or one that you have"
        " registered",
        inherited=True,
    )
    tau: float | None = parameter(
        None,
        "threshold: keep where σ(logit) exceeds it, by default 0.5",
        between=(0, 1),
        of={"estimator": {"threshold": 0.5}},
        inherited=True,
    )
    temperature: float | None = parameter(
        None,
        "binary_concrete: of the relaxation, by default 1",
        above=0,
        of={"estimator": {"binary_concrete": 1.0}},
        inherited=True,
    )
    step_size: float | None = parameter(
        None,
        "intermediate_loss: of the step that moves a draw, by default 0.1",
        above=0,
        of={"estimator": {"intermediate_loss": 0.1}},
        inherited=True,
    )
    density: float | None = parameter(
        None,
        "the fraction of the weights to keep: top_k, by default 0.5; gem_miner, at most, by default"
        " 0.05; ticket and prune, by default 0.2",
        above=0,
        most=1,
        of={
            "arm": dict.fromkeys(_TICKETS, 0.2),
            "estimator": {"top_k": 0.5, "gem_miner": 0.05},
        },
        inherited=True,
    )
    groups: str | None = methods.GROUPS
    coats: int | None = methods.COATS
    cutoff: float | None = methods.CUTOFF
    freeze_every: int | None = methods.FREEZE_EVERY
    score_penalty: float | None = methods.SCORE_PENALTY
    score_decay: float | None = methods.SCORE_DECAY
    randomize_every: int | None = methods.RANDOMIZE_EVERY
    randomize_fraction: float | None = methods.RANDOMIZE_FRACTION
    density_start: float | None = parameter(
        None,
        "top_k: begin with this density and come down to `density` over the first half of the"
        " epochs, none of which is chosen as the best",
        above=0,
        most=1,
        goes_with=("estimator", "arm"),
        bundle="any",
    )
    draw_at_evaluation: bool = parameter(
        False,
        "an estimator that draws: draw the mask at evaluation too, instead of taking the most"
        " likely one",
        goes_with=("estimator", "arm"),
    )
    initial_logit: float | None = parameter(
        1.0,
        "where the mask logits start (those of top_k, signed and gem_miner start random)",
        goes_with=("estimator", "arm"),
        bundle="any",
    )
    mask_regularizer: float | None = parameter(
        None,
        "strength of a regularizer that rewards mask logits far from 0",
        above=0,
        goes_with=("estimator", "arm"),
    )
    mask_biases: bool = parameter(
        True,
        "mask biases as well as kernels; they start at 0, so a ranking learns nothing about them",
        goes_with=("arm",),
        network=True,
    )
    rescale: str | None = parameter(
        None,
        "multiply a masked kernel, to make up for the weights that are gone: dynamic by weights /"
        " kept, root by the square root of that; gain: its signs by the mean magnitude of what is"
        " kept (biprop)",
        choices=("dynamic", "root", "gain"),
        network=True,
    )
    initializer: str = parameter(
        "glorot_uniform",
        "how θ0 is drawn",
        choices=methods.INITIALIZERS,
        network=True,
        bundle="any",
    )
    criterion: str | None = parameter(
        None,
        "ticket and prune: which weights to keep, by default large_final:"
        f" {among(tickets.CRITERIA)}",
        choices=tuple(tickets.CRITERIA),
        of={"arm": dict.fromkeys(_TICKETS, "large_final")},
        inherited=True,
        bundle="any",
    )
    scope: str | None = parameter(
        None,
        "top_k, ticket and prune: keep that fraction of each layer (by default), or of all layers"
        " together",
        choices=("layer", "global"),
        of={"estimator": {"top_k": None}, "arm": dict.fromkeys(_TICKETS, "layer")},
        inherited=True,
        bundle="any",
    )
    rewind_epochs: int | None = parameter(
        None,
        "ticket: start from the weights as they were after this many epochs of the weights run, "
        "by default 0: θ0",
        least=0,
        most=1_000_000,
        of={"arm": {"ticket": 0}},
        inherited=True,
        bundle=[0],
    )
    mask_0: str | None = methods.MASK_0
    mask_1: str | None = methods.MASK_1
    redraw: str | None = parameter(
        None,
        "reinit: what replaces θ0, by default weights: all drawn anew; magnitudes: drawn anew, each"
        " with the sign it had; permuted: nothing new, θ0 and the mask are moved about together"
        " within each layer",
        choices=("weights", "magnitudes", "permuted"),
        of={"arm": {"reinit": "weights"}},
        bundle="any",
    )
    reinit_seed: int | None = parameter(
        None,
        "reinit: seed of what is drawn anew, by default seed + 1000000",
        least=0,
        most=2**31 - 1,
        of={"arm": {"reinit": None}},
        bundle="any",
    )
    epochs: int = parameter(
        10, "passes over the training images", least=1, most=1_000_000, bundle="any"
    )
    batch_size: int = parameter(128, "images in a step", least=1, most=1_000_000, inherited=True)
    reset_batch_norm: bool | None = parameter(
        None,
        "start batch norm anew, in an arm that takes over its parent's",
        goes_with=("arm",),
        bundle="any",
    )
    optimizer: str = parameter(
        "adam",
        "adam, or sgd with momentum",
        choices=("adam", "sgd"),
        inherited=True,
        bundle=["adam"],
    )
    momentum: float | None = parameter(
        None,
        "sgd: the fraction of the last step that the next one keeps, by default 0.9",
        least=0,
        below=1,
        of={"optimizer": {"sgd": 0.9}},
        inherited=True,
        bundle=[],
    )
    nesterov: bool | None = methods.NESTEROV
    weight_decay: float | None = parameter(
        None,
        "an arm that trains weights: take this fraction, times the learning rate, off them at each"
        " step (decoupled; never off batch norm, nor off mask logits: see score_decay)",
        above=0,
        goes_with=("arm",),
        bundle=[],
    )
    learning_rate: float = parameter(
        None,
        "the optimizer's at the start, by default "
        + among(f"{arm.learning_rate:g} for {name}" for name, arm in ARMS.items()),
        above=0,
        of={"arm": {name: arm.learning_rate for name, arm in ARMS.items()}},
        bundle="any",
    )
    schedule: str = parameter(
        "plateau",
        "of the learning rate; plateau: divided by 10 after two epochs without better training"
        " accuracy, as the post did; cosine: down to zero over the steps of the run; constant",
        choices=("plateau", "cosine", "constant"),
        inherited=True,
        bundle="any",
    )
    keep: str = parameter(
        None,
        "which epoch is recorded: the best on the held-out images (by default), or the last "
        "(by default with cosine)",
        choices=("best", "last"),
        of={"schedule": {"plateau": "best", "constant": "best", "cosine": "last"}},
        bundle="any",
    )
    renew_batch_norm: bool | None = parameter(
        None,
        "after training, before any test, take batch norm's averages anew over the training images"
        " as they are; by default with cosine",
        goes_with=("model", "arm"),
        inherited=True,
        bundle="any",
    )
    augment: bool | str = parameter(
        True,
        "flip, rotate and shift the training images as the post did; crop: flip them, and crop them"
        " from a frame of 4 black pixels",
        choices=(True, False, "crop"),
        inherited=True,
        bundle=[True, False],
    )
    precision: str | None = parameter(
        None,
        "mixed_bfloat16: compute in bfloat16, variables in float32; by default all in float32",
        choices=("mixed_bfloat16",),
        inherited=True,
    )
    strategy: str | None = parameter(
        None,
        "mirrored: all devices of this machine; multi_worker: those of all machines that TF_CONFIG"
        " names; by default one device",
        choices=("mirrored", "multi_worker"),
        inherited=True,
        bundle=[],
    )
    protocol: str = parameter(
        "study",
        "study: a validation split chooses the epoch; original: as the post did, the test set",
        choices=("study", "original"),
        inherited=True,
        bundle="any",
    )
    seed: int = parameter(
        0,
        "seed of θ0, of the order of the images, their augmentation and drawn masks",
        least=0,
        most=2**31 - 1,
        network=True,
        bundle="any",
    )

    def __post_init__(self):
        for field in PARAMETERS.values():
            value = checking.checked(field, getattr(self, field.name))
            set_value(self, field.name, value)
        data.check_name(self.dataset)
        methods.imply(self)
        for field in PARAMETERS.values():
            checking.fill_in(self, field)
        checking.check(self)

    # --- reading ----------------------------------------------------------------------------------

    @classmethod
    def of(cls, parameters: dict[str, Any]) -> "Experiment":
        """The experiment with these parameters.

        Raises:
            ValueError: also if a parameter is unknown.
        """
        for name in parameters:
            if name not in PARAMETERS:
                near = difflib.get_close_matches(str(name), PARAMETERS, n=1)
                others = f"choose among {among(PARAMETERS)}."
                meant = f"did you mean {near[0]!r}?" if near else others
                raise ValueError(f"Unknown parameter {name!r}: {meant}")
        return cls(**parameters)

    @classmethod
    def of_record(cls, parameters: dict[str, Any]) -> "Experiment":
        """The experiment of a record's parameters, which hold those of its parent too."""
        return cls.of({name: value for name, value in parameters.items() if name != "parent"})

    @classmethod
    def load(cls, path: str | Path) -> "Experiment":
        """The experiment of an `experiment.json`."""
        return cls.of_record(_read(Path(path)))

    @classmethod
    def lineage(cls, path: str | Path) -> "list[Experiment]":
        """The experiment of an `experiment.json` behind those it starts from.

        From these the run can be made anywhere.
        """
        youngest_first = parents.ancestry(_read(Path(path)), path)
        return [cls.of_record(parameters) for parameters in youngest_first][::-1]

    def parameters(self) -> dict[str, Any]:
        """All parameters by name."""
        return dataclasses.asdict(self)

    @property
    def name(self) -> str:
        """The run's folder: `<dataset>-<model>-<arm>-s<seed>-<8 hex digits of all parameters>`."""
        # A parent is known by its name, wherever it lies: that name is a hash of its parameters in
        # turn. What does not apply is left out, and so is a parameter added later, at the value
        # that runs had before it: it renames none of them.
        parameters = self.parameters() | {"init_from": self.init_from and Path(self.init_from).name}
        named = {
            name: value
            for name, value in parameters.items()
            if value is not None and value != BEFORE.get(name)
        }
        digest = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:8]
        file = Path(self.dataset).stem if self.dataset.endswith(".npz") else self.dataset
        dataset = re.sub(r"[^A-Za-z0-9_]+", "_", file)
        return f"{dataset}-{self.model}-{self.arm}-s{self.seed}-{digest}"

    # --- its parent -------------------------------------------------------------------------------

    def parent(self, directory: str | Path) -> Run | None:
        """The finished run that this one starts from.

        Raises:
            FileNotFoundError: if it is missing or unfinished.
            ValueError: if it is of another arm or network.
        """
        run = parents.find(self, directory)
        if run:
            self.check_parent(run.parameters)
        return run

    def check_parent(self, parent: dict[str, Any]) -> None:
        """See that this experiment can start from a run with these parameters, before either is
        trained.

        Args:
            parent: as in `experiment.json`: under "parent", those of the run that it starts from in
                turn.

        Raises:
            ValueError: if it can't; the message names the parameter.
        """
        shared = (*NETWORK, "protocol")
        parents.check(self, parent, shared, ("estimator", *belonging_to("estimator")))

    # --- running ----------------------------------------------------------------------------------

    def run(self, directory: str | Path, progress: bool = True, weights: bool = False) -> Run:
        """Train, and leave a record in `directory`, the folder of a study.

        A finished run is returned as it is. A run that was stopped goes on from its last finished
        epoch and ends with the same bits as one that never was. Where another process has the same
        run in hand, this one says so and waits.

        Args:
            directory: the study's folder; the run gets a folder of its own in it.
            progress: whether to print one line per epoch.
            weights: whether to train a finished run again if what no record holds is gone: its
                trained weights, or the logits of its mask.

        Raises:
            ValueError, FileNotFoundError: bad data or a bad parent, before training.
            PermissionError, FileExistsError: `directory` can't be written to, or is not a study's.
            FloatingPointError: the loss became NaN; nothing is written.
            OSError: the record could not be written; the epochs saved beside it stay.
            Stopped: SIGTERM or Ctrl-C came; the message says how the run goes on.
        """
        from . import running

        return running.run(self, Path(directory), progress, weights)


PARAMETERS = {field.name: field for field in dataclasses.fields(Experiment)}
# What a child must share with its parent, or the parent's masks do not belong to it.
NETWORK = tuple(name for name, field in PARAMETERS.items() if field.metadata.get("network"))


def belonging_to(owner: str, value: Any = None) -> list[str]:
    """The parameters that have a default of their own where `owner` has a certain value.

    Args:
        owner: a parameter, such as "estimator".
        value: one of its values, or None for any.
    """
    of = {name: field.metadata.get("of", {}).get(owner, {}) for name, field in PARAMETERS.items()}
    return [name for name, by in of.items() if (value in by if value is not None else by)]


def _read(path: Path) -> dict[str, Any]:
    hint = "give an experiment.json from a run's folder."
    try:
        return files.read_json(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no experiment file {path}: {hint}") from error
    except (OSError, ValueError) as error:  # of JSON and of Unicode too
        wrong = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} is not an experiment: {wrong}; {hint}") from error
