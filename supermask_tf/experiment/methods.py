"""The methods of the field's papers as parameters of an experiment, and what goes with what among
them. No TensorFlow.

The parameters are fields of `Experiment`, and stand here with all that is known of them.
"""

from typing import TYPE_CHECKING

from .fields import parameter

if TYPE_CHECKING:
    from .parameters import Experiment

__all__ = ["check"]

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


def check(experiment: "Experiment") -> None:
    """See that the methods' parameters go together, and with the others.

    Raises:
        ValueError: if they don't.
    """
    _check_affine(experiment)


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
