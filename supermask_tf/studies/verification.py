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
        progress: whether to print one line per epoch.

    Returns:
        `run`, `study`; `verdict`: "identical" (history, masks and batch-norm state bit by bit),
        "within tolerance", "different", or "other environment": the accuracies differ, and the
        record was made with the other Keras, so nothing is claimed; `recorded` and `again` (test
        accuracy); `masks_differ` (fraction of mask bits); and whether `processor`, `threads` and
        `versions` are the recorded ones, without which identity is not to be expected.

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
        again = _trained_again(recorded, Path(folder), progress)
        return _compared(recorded, again, tolerance)


def _trained_again(recorded: Run, folder: Path, progress: bool) -> Run:
    """The run, trained again in `folder`, with those of its parents that it needs."""
    *parents, experiment = Experiment.lineage(recorded.path / "experiment.json")
    for parent, child in zip(parents, [*parents[1:], experiment]):
        beside = recorded.path.parent / parent.name
        if beside.is_dir() and not ARMS[child.arm].needs_weights:
            # Its masks are all that is needed, and they are recorded.
            shutil.copytree(beside, folder / parent.name)
        else:
            parent.run(folder, progress)
    return experiment.run(folder, progress)


def _compared(recorded: Run, again: Run, tolerance: float) -> dict[str, Any]:
    """What `verify` returns of a run and the same one trained again."""
    before, now = recorded.summary, again.summary
    differ = _masks_differ(recorded, again)
    same_state = _equal(recorded.state(), again.state())
    accuracies = before["test_accuracy"], now["test_accuracy"]
    distance = 100 * abs(accuracies[0] - accuracies[1])
    if (
        recorded.history.equals(again.history)
        and differ == 0
        and same_state
        and accuracies[0] == accuracies[1]
    ):
        verdict = "identical"
    else:
        other = "different" if _keras(recorded) == _keras(again) else "other environment"
        verdict = "within tolerance" if distance <= tolerance else other
    return {
        "study": recorded.study,
        "run": recorded.name,
        "verdict": verdict,
        "recorded": accuracies[0],
        "again": accuracies[1],
        "masks_differ": differ,
        **{
            name: "same" if before[name] == now[name] else f"{now[name]} for {before[name]}"
            for name in ("processor", "threads", "versions")
        },
    }


def _keras(run: Run) -> str:
    """The Keras that made a record: "2" or "3". Its bits never come out of the other one."""
    return str(run.summary["versions"].get("keras", "2")).partition(".")[0]


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
    return sum(_bits_differ(first[key], second[key]) for key in first) / bits


def _bits_differ(a: np.ndarray, b: np.ndarray) -> int:
    """How many bits of two packed masks differ; all of them where their sizes do."""
    return int(np.unpackbits((a ^ b).view(np.uint8)).sum()) if a.shape == b.shape else 8 * a.size


def _equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[key], b[key]) for key in a)
