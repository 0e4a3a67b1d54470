"""What both Kerases are asked in the same words, although their own spelling is private."""

import gc
import itertools
from typing import Any

import tensorflow as tf

__all__ = ["holders", "renewed_like"]


def holders(parts: list[tf.keras.Model]) -> list[tf.keras.Model]:
    """The living Keras models that have one of `parts` among their layers, at any depth.

    A Keras layer does not know the models that it is in, so all living objects are looked through
    (some 0.02 s for half a million).
    """
    wanted = {id(part) for part in parts}
    classes, found = {tf.keras.Model}, [tf.keras.Model]
    while found:
        more = set(type.__subclasses__(found.pop())) - classes
        classes |= more
        found += more
    living = gc.get_objects()
    # A look at the class of each, which is nearly all that this costs, without Python's own steps.
    models = itertools.compress(living, map(classes.__contains__, map(type, living)))
    return [
        model
        for model in models
        if id(model) not in wanted and any(id(layer) in wanted for layer in model._flatten_layers())
    ]


# --- optimizers -----------------------------------------------------------------------------------

# Settings that no configuration holds.
_EXCLUDED = (
    "_exclude_from_weight_decay",
    "_exclude_from_weight_decay_names",
    "_exclude_from_weight_decay_pattern",
)
# What tells how far an optimizer is built.
_PROGRESS = (
    "_built",
    "_exclude_from_weight_decay_cache",
    "_hypers_created",
    "_lock",
    "_tracker",
    "_trainable_variables",
    "_trainable_variables_indices",
    "_variables",
    "built",
)


def renewed_like(old: Any) -> Any:
    """An optimizer of the class and settings of `old`, which has met no variable yet.

    A schedule of the learning rate begins anew.
    """
    config = old.get_config()
    # A schedule: the object itself need not be registered.
    if isinstance(config.get("learning_rate"), dict):
        config["learning_rate"] = getattr(old, "_learning_rate", None) or old.learning_rate
    new = type(old).from_config(config)
    for name, value in vars(old).items():
        # A private attribute that a new optimizer does not have either is part of what training has
        # built.
        setting = (
            not name.startswith("_")
            or name in _EXCLUDED
            or (name in vars(new) and not name.startswith("_self_"))
        )
        if setting and name not in _PROGRESS and not _holds_variables(value):
            setattr(new, name, value)
    for name, value in getattr(old, "_hyper", {}).items():
        if callable(value):  # a legacy optimizer's function of no arguments
            new._set_hyper(name, value)
    return new


def _holds_variables(value) -> bool:
    if isinstance(value, (list, tuple, set)):
        return any(map(_holds_variables, value))
    if isinstance(value, dict):
        return any(map(_holds_variables, value.values()))
    return isinstance(value, (tf.Variable, tf.__internal__.tracking.Trackable))


def no_second(old: Any, error: Exception) -> ValueError:
    """The error where an optimizer can't be made again."""
    return ValueError(
        f"no second optimizer like {type(old).__name__} can be made ({type(error).__name__}:"
        f" {error}), which the change needs: let its get_config() return what its __init__"
        " takes"
    )
