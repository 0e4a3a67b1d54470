"""The run that an experiment starts from: where it lies, and whether it fits. No TensorFlow."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records import BEFORE, Run
from .arms import ARMS

if TYPE_CHECKING:
    from .parameters import Experiment

__all__ = ["ancestry", "check", "find"]


def find(experiment: "Experiment", directory: str | Path) -> Run | None:
    """What `Experiment.parent` returns, with its errors; it is not compared with the experiment."""
    if not experiment.init_from:
        return None
    given = f"init_from={experiment.init_from!r}"
    places = [Path(directory) / experiment.init_from, Path(experiment.init_from)]
    place = next((p for p in places if os.path.isdir(p)), None)
    if place is None:
        raise FileNotFoundError(
            f"{given}: there is no such run in {directory} (missing or unfinished): run it"
            " first, or give the path of its folder."
        )
    try:
        run = Run.load(place)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{given} is unfinished or no run ({error}).") from error
    if run.damaged:
        raise ValueError(
            f"{given} is damaged: {', '.join(run.damaged)} is not what was recorded; make that run"
            " again."
        )
    return run


def check(
    experiment: "Experiment",
    parent: dict[str, Any],
    shared: Iterable[str],
    searched_with: Iterable[str],
) -> None:
    """What `Experiment.check_parent` does, with its errors.

    Args:
        parent: the parameters of the run to start from, as in `experiment.json`.
        shared: the parameters that every child has as its parent has them.
        searched_with: those that a mask run's child has so besides: how the mask was found.
    """
    arm, given = ARMS[experiment.arm], f"init_from={experiment.init_from!r}"
    if parent.get("arm") not in arm.parents:
        raise ValueError(
            f"{given} is a run of arm={parent.get('arm')!r}, but arm={experiment.arm!r} starts from"
            f" a {' or '.join(arm.parents)} run: name one."
        )
    searched_with = tuple(searched_with) if "mask" in arm.parents else ()
    for name in (*shared, *searched_with):
        value, has = getattr(experiment, name), parent.get(name, BEFORE.get(name))
        if has != value:
            do = (
                f"give {name} as that run has it."
                if name in searched_with
                else "name a run of the same network and protocol."
            )
            raise ValueError(
                f"{given} has {name}={has!r}, but arm={experiment.arm!r} needs a parent with "
                f"{name}={value!r}: {do}"
            )
    density = experiment.density
    if arm.mask == "ticket" and parent["arm"] == experiment.arm:  # a further round
        assert density is not None  # an arm that reads a ticket has one
        if density > parent["density"]:
            raise ValueError(
                f"density={density} is more than {given} keeps, {parent['density']}: give a"
                " smaller density in each round."
            )
    while parent.get("parent"):
        parent = parent["parent"]
    if experiment.rewind_epochs and experiment.rewind_epochs > parent["epochs"]:
        raise ValueError(
            f"rewind_epochs={experiment.rewind_epochs} is more than the {parent['epochs']} epochs"
            " of the weights run: give at most as many."
        )


def ancestry(parameters: dict[str, Any], path: str | Path) -> Iterator[dict[str, Any]]:
    """The parameters in an `experiment.json`, then those of each run it starts from in turn.

    Args:
        parameters: what the file holds.
        path: of the file, for the error.

    Raises:
        ValueError: if a parent is described by anything but parameters.
    """
    yield parameters
    parent = parameters.get("parent")
    while parent:
        if not isinstance(parent, dict):
            raise ValueError(
                f"{path} is not an experiment: its parent is {str(parent)[:80]!r}, no"
                " parameters; give an experiment.json from a run's folder."
            )
        yield parent
        parent = parent.get("parent")
