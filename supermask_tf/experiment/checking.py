"""What goes with what: each value of an experiment by itself, then its values together. No
TensorFlow.

Every error names the parameter, the value given, what is accepted and what to do.
"""

import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import methods
from .arms import ARMS, ESTIMATORS, Arm
from .fields import among, set_value

if TYPE_CHECKING:
    from .parameters import Experiment

__all__ = ["check", "checked", "fill_in"]


def check(experiment: "Experiment") -> None:
    """See that the values go together, and fill in those that follow from others.

    Raises:
        ValueError: if they don't.
    """
    _check_network(experiment)
    _check_arm(experiment)
    _check_estimator(experiment)
    _check_recipe(experiment)
    methods.check(experiment)


def fill_in(experiment: "Experiment", field: dataclasses.Field) -> None:
    """Take the default of a parameter that applies; refuse a value for one that does not."""
    owners = field.metadata.get("of")
    if not owners:
        return
    value = getattr(experiment, field.name)
    fitting = [
        by[getattr(experiment, name)]
        for name, by in owners.items()
        if getattr(experiment, name) in by
    ]
    if value is None and fitting:
        set_value(experiment, field.name, fitting[0])
    elif value is not None and not fitting:
        owner = [*owners][-1]
        raise ValueError(
            f"{field.name}={value!r} does not go with {owner}={getattr(experiment, owner)!r}, "
            f"which has no {field.name}: leave it out."
        )


def _check_network(experiment: "Experiment") -> None:
    if experiment.units == 300:  # what leaving it out means: one run has one name
        set_value(experiment, "units", None)
    depth = experiment.depth  # but for LeNet-300-100 it was filled in
    if experiment.model == "wide_resnet" and (depth is None or depth < 10 or (depth - 4) % 6):
        raise ValueError(
            f"depth={depth} does not fit a wide_resnet: give 6n + 4, such as 10, 16, 22 or 28."
        )
    if experiment.model == "conv_net" and depth not in (2, 4, 6, 8):
        raise ValueError(f"depth={depth} does not fit a conv_net: give 2, 4, 6 or 8 convolutions.")
    if experiment.model == "resnet" and (depth is None or depth < 8 or (depth - 2) % 6):
        raise ValueError(f"depth={depth} does not fit a resnet: give 6n + 2, such as 20, 32 or 56.")


def _check_arm(experiment: "Experiment") -> None:
    arm = ARMS[experiment.arm]
    if experiment.reset_batch_norm is False:  # what leaving it out means: one run has one name
        set_value(experiment, "reset_batch_norm", None)
    if experiment.reset_batch_norm is not None and arm.batch_norm != "parent":
        raise ValueError(
            f"reset_batch_norm={experiment.reset_batch_norm} does not go with"
            f" arm={experiment.arm!r}, whose batch norm starts anew: leave it out."
        )
    if experiment.arm == "bn_only" and experiment.model not in methods.NORMALISED:
        raise ValueError(
            f"arm='bn_only' does not go with model={experiment.model!r}, which has no batch norm: "
            "give model='wide_resnet' or 'resnet'."
        )
    if arm.parents and not experiment.init_from:
        raise ValueError(
            f"arm={experiment.arm!r} starts from a {' or '.join(arm.parents)} run: name one as"
            " init_from (`supermask list` shows them); in a study, the block as `from`."
        )
    if experiment.init_from and not arm.parents:
        raise ValueError(
            f"init_from={experiment.init_from!r} does not go with arm={experiment.arm!r}, which"
            " starts from θ0: leave it out."
        )
    if experiment.reinit_seed is None and arm.weights == "drawn_anew":
        far = 1_000_000
        set_value(
            experiment,
            "reinit_seed",
            experiment.seed + (far if experiment.seed < 2**31 - far else -far),
        )
    if experiment.reinit_seed == experiment.seed:
        raise ValueError(
            f"reinit_seed={experiment.reinit_seed} is the seed of θ0, so that nothing would be"
            " drawn anew: give another one."
        )


def _check_estimator(experiment: "Experiment") -> None:
    # One that a notebook registered is known where its module is loaded; asking must not load
    # TensorFlow.
    loaded = sys.modules.get("supermask_tf.estimators")
    if experiment.estimator not in (*ESTIMATORS, *(loaded.known() if loaded else ())):
        raise ValueError(
            f"Unknown estimator {experiment.estimator!r}: choose one of {among(ESTIMATORS)}, or"
            " register your own first."
        )
    for name, value in _fixed_by(ARMS[experiment.arm]).items():
        if getattr(experiment, name) not in (None, value):
            raise ValueError(
                f"{name}={getattr(experiment, name)!r} does not go with arm={experiment.arm!r},"
                " whose mask is not trained from its start: leave it out."
            )
    _check_density(experiment)
    if experiment.draw_at_evaluation and experiment.estimator in methods.DETERMINED:
        raise ValueError(
            f"draw_at_evaluation=True does not go with estimator={experiment.estimator!r}, which"
            " draws nothing: leave it out."
        )
    random = experiment.estimator in methods.RANDOM_START
    if random and experiment.initial_logit not in (None, 1.0):
        raise ValueError(
            f"initial_logit={experiment.initial_logit} does not go with"
            f" estimator={experiment.estimator!r}, whose logits start random: leave it out."
        )
    if random:
        set_value(experiment, "initial_logit", None)
    elif experiment.initial_logit is None:
        set_value(experiment, "initial_logit", 1.0)


def _check_density(experiment: "Experiment") -> None:
    if experiment.density_start is None:
        return
    density = experiment.density  # top_k has one: it was filled in
    if experiment.estimator != "top_k" or density is None or experiment.density_start < density:
        raise ValueError(
            f"density_start={experiment.density_start} does not go with"
            f" density={density}: give estimator='top_k' and a density below it, or"
            " leave it out."
        )
    if experiment.epochs < 2:
        raise ValueError(
            f"density_start={experiment.density_start} does not go with epochs={experiment.epochs}:"
            " the density comes down between epochs; give at least 2."
        )


def _check_recipe(experiment: "Experiment") -> None:
    """What trains it, and what is recorded of what that finds."""
    arm, has_batch_norm = ARMS[experiment.arm], experiment.model in methods.NORMALISED
    if experiment.weight_decay is not None and arm.trains != "weights":
        raise ValueError(
            f"weight_decay={experiment.weight_decay} does not go with arm={experiment.arm!r}, which"
            " trains no weights: leave it out."
        )
    if experiment.renew_batch_norm and (not has_batch_norm or arm.wrong):
        lacks = (
            f"arm={experiment.arm!r}, whose batch norm is frozen"
            if has_batch_norm
            else f"model={experiment.model!r}, which has no batch norm"
        )
        raise ValueError(f"renew_batch_norm=True does not go with {lacks}: leave it out.")
    if not has_batch_norm:  # what leaving it out means
        set_value(experiment, "renew_batch_norm", None)
    elif experiment.renew_batch_norm is None:
        set_value(experiment, "renew_batch_norm", experiment.schedule == "cosine" and not arm.wrong)


def _fixed_by(arm: Arm) -> dict[str, Any]:
    """The values that parameters of the search for a mask must have where the arm does not search
    for one.
    """
    if arm.mask == "logits":  # they are the parent's
        return {"initial_logit": 1.0, "density_start": None, "randomize_every": None}
    if arm.trains == "mask":
        return {}
    fixed: dict[str, Any] = {
        "initial_logit": 1.0,
        "mask_regularizer": None,
        "density_start": None,
        "draw_at_evaluation": False,
    } | dict.fromkeys(methods.SEARCH)
    if "mask" not in arm.parents:  # a mask run's child keeps what found its mask
        fixed |= {"estimator": "threshold", "tau": 0.5, "mask_biases": True}
    return fixed


# --- one value ------------------------------------------------------------------------------------


_WANTED = {
    bool: "True or False (in YAML and JSON true or false), and no quotes",
    int: "a whole number, without a point",
    float: "a number (in YAML with a point: 1.0e-3)",
    str: "a text",
}


def checked(field: dataclasses.Field, value: Any) -> Any:
    """The value of a parameter in its type, or a ValueError that says what is accepted."""
    name, accepts = field.name, field.metadata
    hint = str(field.type)
    optional = field.default is None or "None" in hint  # None asks for what fits the others
    if value is None and optional:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    leave = ", or leave it out" if optional else ""
    kinds = [kind for kind in _WANTED if kind.__name__ in hint]
    kind = type(value) if type(value) in kinds else kinds[0]
    if bool in kinds and str(value).lower() in ("true", "false"):
        kind = bool  # a text that means a truth value is none of the words
    if kind is float and type(value) is int:
        value = float(value) if abs(value) < 1e300 else math.inf
    if kind is str and isinstance(value, Path):
        value = str(value)
    if type(value) is not kind:
        raise ValueError(f"{name}={value!r} has the wrong type: give {_WANTED[kind]}{leave}.")
    if "choices" in accepts and value not in accepts["choices"]:
        choices = among(accepts["choices"])
        raise ValueError(f"Unknown {name} {value!r}: choose one of {choices}{leave}.")
    if wanted := _out_of_range(value, accepts):
        raise ValueError(f"{name}={value!r} is out of range: give {wanted}.")
    return value


def _out_of_range(value: Any, accepts: Mapping[str, Any]) -> str | None:
    """What is wanted instead of a value out of range; None if it is in range."""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    low, high = accepts.get("between", (None, None))
    tests = (
        (low is None or low < value < high, f"a value between {low} and {high}, both excluded"),
        ("least" not in accepts or value >= accepts["least"], f"at least {accepts.get('least')}"),
        ("most" not in accepts or value <= accepts["most"], f"at most {accepts.get('most')}"),
        (
            "above" not in accepts or value > accepts["above"],
            f"a value above {accepts.get('above')}",
        ),
        (
            "below" not in accepts or value < accepts["below"],
            f"a value below {accepts.get('below')}",
        ),
    )
    return next((wanted for ok, wanted in tests if not ok), None)
