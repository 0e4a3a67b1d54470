"""How a parameter of an experiment is written down. No TensorFlow."""

import dataclasses
from collections.abc import Iterable
from typing import Any

__all__ = ["among", "parameter", "set_value"]


def parameter(default: Any, text: str, **facts: Any) -> Any:
    """A parameter, and all that the package knows of it.

    Args:
        default: its value unless it is given; None is replaced by one that fits the others.
        text: its help text.
        **facts: `choices`, `least`, `most`, `above`, `below`, `between`: what it accepts. `of`: the
            parameters that it belongs to, each with the values of that one for which it applies and
            its default there; where one of them is replaced, it goes too. `goes_with`: as `of`,
            where no default follows from it. `network`: whether a child must share it with its
            parent. `inherited`: whether a study's child takes it over. `bundle`: "any" where it
            does not change the programs of a bundle, or the values that a bundle can do, in a list.
    """
    return dataclasses.field(default=default, metadata={"help": text, **facts})


def among(names: Iterable[Any]) -> str:
    """The names, with commas between them."""
    return ", ".join(map(str, names))


def set_value(experiment: Any, name: str, value: Any) -> None:
    """Give an experiment that is being made a value; it is frozen for everybody else."""
    object.__setattr__(experiment, name, value)
