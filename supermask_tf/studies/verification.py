"""Does a record come out again? A committed run is trained anew from its `experiment.json` and
compared with itself.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..experiment import ARMS, Experiment
from ..ground import archives
from ..records import Run

__all__ = ["note", "verify"]


def verify(path: str | Path, tolerance: float = 0.5, progress: bool = True) -> dict[str, Any]:
    """Train a committed run again, its parents too where it needs their weights, and compare.

    Args:
        path: the run's folder.
        tolerance: the largest difference in test accuracy that still counts as the same result, in
            percentage points.
        progress: whether to print a line an epoch.

    Returns:
        `run`, `study`; `verdict`: "identical" (history, masks and batch-norm state bit by bit),
        "within tolerance" or "different"; `recorded` and `again` (test accuracy); `masks_differ`
        (fraction of mask bits); and whether `processor`, `threads` and `versions` are the recorded
        ones, without which identity is not to be expected.

    Raises:
        FileNotFoundError: if there is no such run.
        ValueError: if `tolerance` is negative, or a parent's record is damaged (one that is missing
            is trained again).
    """
    if not tolerance >= 0:
        raise ValueError(
            f"tolerance={tolerance} is out of range: give percentage points, at least 0."
        )
    recorded = Run.load(path)
    with tempfile.TemporaryDirectory() as folder:
        *parents, experiment = Experiment.lineage(recorded.path / "experiment.json")
        for parent, child in zip(parents, [*parents[1:], experiment]):
            beside = recorded.path.parent / parent.name
            if beside.is_dir() and not ARMS[child.arm].needs_weights:
                shutil.copytree(
                    beside, Path(folder) / parent.name
                )  # its masks are all that is needed, and they are recorded
            else:
                parent.run(folder, progress)
        again = experiment.run(folder, progress)
        differ = _masks_differ(recorded, again)
        same_state = _equal(recorded.state(), again.state())
        identical = (
            recorded.history.equals(again.history)
            and differ == 0
            and same_state
            and recorded.summary["test_accuracy"] == again.summary["test_accuracy"]
        )
        distance = 100 * abs(recorded.summary["test_accuracy"] - again.summary["test_accuracy"])
        return {
            "study": recorded.study,
            "run": recorded.name,
            "verdict": (
                "identical"
                if identical
                else "within tolerance"
                if distance <= tolerance
                else "different"
            ),
            "recorded": recorded.summary["test_accuracy"],
            "again": again.summary["test_accuracy"],
            "masks_differ": differ,
            **{
                name: (
                    "same"
                    if recorded.summary[name] == again.summary[name]
                    else f"{again.summary[name]} for {recorded.summary[name]}"
                )
                for name in ("processor", "threads", "versions")
            },
        }


def note(table: str | Path, rows: list[dict[str, Any]]) -> None:
    """Write what was found into a CSV file, in place of what it said of these runs before."""
    table = Path(table)
    before = pd.read_csv(table, float_precision="round_trip") if table.exists() else pd.DataFrame()
    found = pd.concat([before, pd.DataFrame(rows)], ignore_index=True).drop_duplicates(
        ["study", "run"], keep="last"
    )
    found.sort_values(["study", "run"]).to_csv(table, index=False)


def _masks_differ(a: Run, b: Run) -> float:
    first, second = archives.read(a.path / "masks.npz"), archives.read(b.path / "masks.npz")
    if set(first) != set(second):
        return 1.0
    bits = sum(8 * first[key].size for key in first)
    return (
        sum(
            (
                int(np.unpackbits(first[key] ^ second[key]).sum())
                if first[key].shape == second[key].shape
                else 8 * first[key].size
            )
            for key in first
        )
        / bits
    )


def _equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
