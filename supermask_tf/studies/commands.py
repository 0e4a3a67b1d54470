"""The commands that measure something else than runs, beside those of `cli`."""

import argparse
import dataclasses

from .ledger import ledger
from .many_tasks import SOURCES, ManyTasks

__all__ = ["add"]


def add(commands) -> None:
    """Add the commands to those of `supermask`."""
    _add_tasks(commands)
    _add_bytes(commands)


def _add_tasks(commands) -> None:
    parser = commands.add_parser(
        "tasks",
        help="many tasks on one network: learn them, and measure all after the last",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        description=(
            "Learn one mask per task over one network that is never trained, measure every task"
            " after the last one, and leave a record. The same command goes on where it stopped."
        ),
    )
    parser.add_argument("--source", choices=tuple(SOURCES), default="permuted_mnist", help="tasks")
    parser.add_argument("--tasks", type=int, help="how many; by default 5, or all datasets")
    parser.add_argument("--steps", type=int, default=1000, help="training steps per task")
    parser.add_argument("--batch-size", type=int, default=128, help="images in a step")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="of RMSprop")
    parser.add_argument("--seed", type=int, default=0, help="of weights, scores and orders")
    parser.add_argument(
        "--directory", default="runs/tasks", help="the record gets a folder of its own in it"
    )
    parser.set_defaults(does=_tasks)


def _tasks(options) -> int:
    own = {field.name: getattr(options, field.name) for field in dataclasses.fields(ManyTasks)}
    ManyTasks(**own).run(options.directory)
    return 0


def _add_bytes(commands) -> None:
    parser = commands.add_parser(
        "bytes",
        help="what a byte buys: test accuracy by the size of the network's file",
        description=(
            "Train the runs of a study, write each network in every form that it has, and add to a"
            " table how many bytes each takes and how many test images it gets right. The same"
            " command goes on where it stopped."
        ),
    )
    parser.add_argument("file", metavar="STUDY.yml", help="of the arms mask, weights and ticket")
    parser.add_argument(
        "--directory", default="runs", help="the table is DIRECTORY/<study>/ledger.csv"
    )
    parser.set_defaults(does=_bytes)


def _bytes(options) -> int:
    print(ledger(options.file, options.directory))
    return 0
