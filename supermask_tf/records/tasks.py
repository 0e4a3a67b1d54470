"""Records of many tasks on one network, as `supermask tasks` writes them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ..ground import files
from . import reading

__all__ = ["TasksRecord", "load_tasks"]


@dataclass(frozen=True)
class TasksRecord:
    """One network with its tasks.

    Attributes:
        path: the record's folder.
    """

    path: Path

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Parameters, the network's units by layer, digests of θ0 and the data, the machine."""
        return files.read_json(self.path / "record.json")

    @property
    def parameters(self) -> dict[str, Any]:
        """What was asked for: source, tasks, steps, batch_size, learning_rate, seed."""
        return self.facts["parameters"]

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per task.

        Columns `task`; `accuracy` (in the test, when the task was just learned), `after_last` (the
        same after the last task); `kept` (fraction); `bytes` and `sha256` of its packed file;
        `seconds`; and for groups of 1 and of 128 images `groups_1` (how many were asked), `told_1`
        (fraction whose task was inferred rightly), `accuracy_1` (with the inferred task, 0 where it
        is another one), and so on.
        """
        return pd.read_csv(self.path / "tasks.csv", float_precision="round_trip")

    @property
    def damaged(self) -> bool:
        """Whether the table is gone, or not the one that was recorded."""
        table = self.path / "tasks.csv"
        return not table.is_file() or files.sha256(table) != self.facts["checksums"]["tasks.csv"]


def load_tasks(folder: str | Path) -> list[TasksRecord]:
    """The records in a folder, by name; none if there is no such folder.

    Raises:
        ValueError: if one is damaged.
    """
    folder = Path(folder)
    reading.note_read(folder)
    found = [TasksRecord(path.parent) for path in sorted(folder.glob("[!.]*/record.json"))]
    for record in found:
        if record.damaged:
            raise ValueError(f"{record.path} is damaged: take it away, or make it again.")
    return found
