"""The methods of the field's papers as parameters of an experiment, and what goes with what among
them. No TensorFlow.

The parameters are fields of `Experiment`, and stand here with all that is known of them.
"""

from typing import TYPE_CHECKING

from ..groups import parse
from .arms import ARMS
from .fields import among, parameter, set_value

if TYPE_CHECKING:
    from .parameters import Experiment

__all__ = ["DETERMINED", "NORMALISED", "RANDOM_START", "SEARCH", "check", "imply"]

# --- networks -------------------------------------------------------------------------------------

# Those that have batch norm.
NORMALISED = ("wide_resnet", "resnet")

AFFINE = parameter(
    True,
    "a network with batch norm: let it scale and shift what it has normalised, by numbers that"
    " train in every arm; False: nothing but the mask trains in the arm mask",
    goes_with=("model", "arm"),
    network=True,
)
ACTIVATION = parameter(
    None,
    "lenet_300_100, conv_net and resnet: elu in the place of ReLU",
    choices=("elu",),
    of={"model": dict.fromkeys(("lenet_300_100", "conv_net", "resnet"))},
    network=True,
)


INITIALIZERS = (
    "glorot_uniform",
    "he_uniform",
    "signed_constant",
    "signed_kaiming_constant",
    "elus_constant",
)

# --- masks ----------------------------------------------------------------------------------------

# Those whose logits start random.
RANDOM_START = ("top_k", "signed", "gem_miner")
# Those that draw nothing.
DETERMINED = ("threshold", *RANDOM_START)
_RANKS = {"estimator": {"top_k": None}}

GROUPS = parameter(
    None,
    "top_k: what is kept or goes together: 2:4 or another N:M of the inputs; blocks of inputs x"
    " outputs, such as 16x1; channels, whole outputs",
    of=_RANKS,
    inherited=True,
)
COATS = parameter(
    None,
    "top_k: add this many masks of the same scores, of densities that fall evenly from `density`",
    least=2,
    most=127,
    of=_RANKS,
    inherited=True,
    bundle=[],
)
CUTOFF = parameter(
    None,
    "signed: a weight is kept, or its sign turned, where |logit| exceeds it, by default 0.01",
    above=0,
    of={"estimator": {"signed": 0.01}},
    inherited=True,
    bundle=[],
)
FREEZE_EVERY = parameter(
    None,
    "gem_miner: freeze the smallest scores every so many epochs, by default 5, so that the fraction"
    " `density` is left in the end",
    least=1,
    most=1_000_000,
    of={"estimator": {"gem_miner": 5}},
    inherited=True,
    bundle=[],
)
SCORE_PENALTY = parameter(
    None,
    "top_k and gem_miner: λ of a penalty λ/2 · Σ score²; with sgd this is PyTorch's weight decay of"
    " the scores, 1.0e-4 in edge-popup's recipe",
    above=0,
    goes_with=("estimator", "arm"),
)
SCORE_DECAY = parameter(
    None,
    "top_k, signed and gem_miner: take this fraction, times the learning rate, off the mask's"
    " logits at each step (decoupled)",
    above=0,
    goes_with=("estimator", "arm"),
    bundle=[],
)
RANDOMIZE_EVERY = parameter(
    None,
    "a mask that is trained: every so many steps draw weights anew that it masks (IteRand)",
    least=1,
    most=1_000_000_000,
    goes_with=("arm",),
    bundle=[],
)
RANDOMIZE_FRACTION = parameter(
    None,
    "with randomize_every: the chance of each masked weight to be drawn anew, by default 0.1",
    above=0,
    most=1,
    goes_with=("arm", "randomize_every"),
    bundle=[],
)

# --- tickets --------------------------------------------------------------------------------------

MASK_0 = parameter(
    None,
    "ticket: what becomes of the weights that go, by default 0; initial: they stay where they"
    " begin, frozen; movement: so do those that training moved away from zero, and others are 0",
    choices=("initial", "movement"),
    of={"arm": {"ticket": None}},
    bundle=[],
)
MASK_1 = parameter(
    None,
    "ticket: where the weights that are kept begin, by default at their first values; final: as"
    " trained; reinit: drawn anew; reshuffled: their first values in another order in each layer;"
    " constant: of one magnitude, with random signs; each with _signs: with the signs they had",
    choices=(
        "final",
        "reinit",
        "reinit_signs",
        "reshuffled",
        "reshuffled_signs",
        "constant",
        "constant_signs",
    ),
    of={"arm": {"ticket": None}},
    bundle=[],
)

# --- training -------------------------------------------------------------------------------------

NESTEROV = parameter(
    None,
    "sgd: Nesterov's momentum",
    of={"optimizer": {"sgd": None}},
    inherited=True,
    bundle=[],
)

# What only a search for a mask has.
SEARCH = ("score_penalty", "score_decay", "randomize_every", "randomize_fraction")


def imply(experiment: "Experiment") -> None:
    """Take what follows from the methods' parameters, before defaults are filled in.

    Raises:
        ValueError: if `groups` is none, or comes with another density than it has.
    """
    if experiment.nesterov is False:  # what leaving it out means: one run has one name
        set_value(experiment, "nesterov", None)
    if experiment.estimator == "top_k" and experiment.scope == "layer":
        set_value(experiment, "scope", None)
    if experiment.estimator != "top_k" or experiment.groups is None:
        return
    fixed = parse(experiment.groups).density
    if fixed is None:
        return
    if experiment.density is None:
        set_value(experiment, "density", fixed)
    if experiment.density != fixed or experiment.density_start is not None:
        raise ValueError(
            f"groups={experiment.groups!r} does not go with density={experiment.density} and"
            f" density_start={experiment.density_start}: it keeps {fixed:g}; leave both out."
        )
    if experiment.coats or experiment.scope:
        raise ValueError(
            f"groups={experiment.groups!r} ranks a few scores at a time: leave coats and scope out."
        )


def check(experiment: "Experiment") -> None:
    """See that the methods' parameters go together, and with the others.

    Raises:
        ValueError: if they don't.
    """
    _check_affine(experiment)
    _check_scores(experiment)
    _check_gem_miner(experiment)
    _check_randomize(experiment)
    if experiment.mask_0 and (experiment.weight_decay or experiment.rescale):
        raise ValueError(
            f"mask_0={experiment.mask_0!r} does not go with weight_decay or rescale, which would"
            " move the weights that it freezes: leave them out."
        )


def _check_affine(experiment: "Experiment") -> None:
    if experiment.affine:
        return
    if experiment.model not in NORMALISED:
        raise ValueError(
            f"affine=False does not go with model={experiment.model!r}, which has no batch norm:"
            " leave it out."
        )
    if experiment.arm == "bn_only":
        raise ValueError(
            "affine=False does not go with arm='bn_only', which trains what it takes away: leave"
            " it out."
        )


def _check_scores(experiment: "Experiment") -> None:
    for name, fitting in (
        ("score_penalty", ("top_k", "gem_miner")),
        ("score_decay", RANDOM_START),
    ):
        if getattr(experiment, name) is not None and experiment.estimator not in fitting:
            raise ValueError(
                f"{name}={getattr(experiment, name)} does not go with"
                f" estimator={experiment.estimator!r}, whose logits it would draw to the mask's"
                f" edge: leave it out, or give one of {among(fitting)}."
            )
    if experiment.score_penalty and experiment.mask_regularizer:
        raise ValueError(
            f"score_penalty={experiment.score_penalty} does not go with"
            f" mask_regularizer={experiment.mask_regularizer}: give one of them."
        )


def _check_gem_miner(experiment: "Experiment") -> None:
    if experiment.estimator != "gem_miner" or ARMS[experiment.arm].trains != "mask":
        return
    every = experiment.freeze_every
    if every is not None and experiment.epochs <= every:
        raise ValueError(
            f"freeze_every={every} does not go with epochs={experiment.epochs}: give more epochs"
            " than that."
        )
    if experiment.keep != "last":
        raise ValueError(
            f"keep={experiment.keep!r} does not go with estimator='gem_miner', whose mask has its"
            " density at the end: give keep='last', or schedule='cosine'."
        )


def _check_randomize(experiment: "Experiment") -> None:
    if experiment.randomize_every is None and experiment.randomize_fraction is not None:
        raise ValueError(
            f"randomize_fraction={experiment.randomize_fraction} does not go without"
            " randomize_every: give that too."
        )
    if experiment.randomize_every is not None and experiment.randomize_fraction is None:
        set_value(experiment, "randomize_fraction", 0.1)
    if experiment.randomize_every is not None and experiment.arm != "mask":
        raise ValueError(
            f"randomize_every={experiment.randomize_every} does not go with"
            f" arm={experiment.arm!r}, whose weights are its parent's: leave it out."
        )
