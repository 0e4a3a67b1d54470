"""The order of weights in .h5 files: the same whatever the phase.

Such a file lists the weights of a model inside the model without names that count: first the
trainable ones, then the others. Which are trainable changes with the phase, so loading in another
phase would take one for the other.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

__all__ = ["layout", "lists_weights_as_in", "order_weights"]

_layout: ContextVar[str | None] = ContextVar(
    "the phase whose order of weights is asked for", default=None
)


def layout() -> str | None:
    """The phase in whose order models are to list their weights; None: each in its own."""
    return _layout.get()


@contextlib.contextmanager
def lists_weights_as_in(phase: str) -> Iterator[None]:
    """Let models list their weights as in a phase."""
    token = _layout.set(phase)
    try:
        yield
    finally:
        _layout.reset(token)


def order_weights(hdf5_format: Any, names: Callable[[Any], list[str]]) -> None:
    """Let Keras's module for .h5 files write weights in the order of phase "both", and read them in
    the order in which a file has them.

    Args:
        hdf5_format: the module.
        names: the names by which such a file lists a layer's weights.
    """

    def order_of(file, model):
        # "both", or another in files that version 0.1.0 wrote.
        for phase in ("both", "mask", "weights"):
            with lists_weights_as_in(phase):
                ours = {layer.name: names(layer) for layer in model.layers}
            if all(
                hdf5_format.load_attributes_from_hdf5_group(file[name], "weight_names") == listed
                for name, listed in ours.items()
                if name in file
            ):
                return phase
        return "both"  # of a model with other names

    for name, order in {
        "save_weights_to_hdf5_group": lambda file, model: "both",
        "load_weights_from_hdf5_group": order_of,
        "load_weights_from_hdf5_group_by_name": order_of,
    }.items():
        setattr(hdf5_format, name, _in_one_order(getattr(hdf5_format, name), order))


def _in_one_order(function, order):
    @functools.wraps(function)
    def ordered(file, model, *arguments, **options):
        with lists_weights_as_in(order(file, model)):
            return function(file, model, *arguments, **options)

    return ordered
