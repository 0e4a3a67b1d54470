"""Records as they are written: whole or not at all, by one process at a time."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from ..ground import files
from .reading import FILES, RIGHT, Run, pack_mask

__all__ = [
    "attach_notebook",
    "check_writable",
    "lock",
    "pack_run",
    "unpack_run",
    "write_run",
    "write_weights",
]

_NOTEBOOK, _WEIGHTS = "notebook.ipynb", "weights.npz"


def write_run(
    place: Path,
    parameters: dict,
    history: pd.DataFrame,
    utilisation: pd.DataFrame,
    masks: dict[str, np.ndarray],
    state: dict[str, np.ndarray],
    summary: dict,
    right: np.ndarray | None = None,
) -> Run:
    """Write a run's folder, whole, at `place`; return its `Run`.

    Args:
        place: the folder to make; its parent exists.
        masks: by path, boolean arrays, which are stored one bit per weight, or int8 ones of more
            values, stored with as many bits as they take.
        state: float arrays by variable path.
        summary: the summary without the checksums, which are added here.
        right: whether each test image was classified rightly, booleans; stored one bit per image.
            None if that is not known.
    """
    with files.whole_folder(place) as partial:
        files.write_json(partial / "experiment.json", parameters)
        history.to_csv(partial / "history.csv", index=False)
        utilisation.to_csv(partial / "utilisation.csv", index=False)
        packed = {key: pack_mask(mask) for key, mask in masks.items()}
        np.savez_compressed(partial / "masks.npz", **packed)
        np.savez_compressed(partial / "state.npz", **state)
        if right is not None:
            np.savez_compressed(partial / RIGHT, right=np.packbits(right))
        checksums = {path.name: files.sha256(path) for path in sorted(partial.iterdir())}
        checksums["summary.json"] = files.digest(summary)
        files.write_json(partial / "summary.json", summary | {"checksums": checksums})
    return Run(place)


def write_weights(run: Run, weights: dict[str, np.ndarray]) -> None:
    """Keep trained weights or mask logits beside the record, for runs that start from it."""
    files.replace_file(run.weights_file, lambda path: np.savez(path, **weights))


def pack_run(run: Run, weights: bool = False) -> dict[str, bytes]:
    """A record as the contents of its files by name, for another machine.

    Args:
        weights: whether to take what lies beside the record too, if it is there.
    """
    names = (*FILES, RIGHT, _NOTEBOOK)
    packed = {path.name: path.read_bytes() for path in run.path.iterdir() if path.name in names}
    if weights and run.weights_file.is_file():
        packed[_WEIGHTS] = run.weights_file.read_bytes()
    return packed


def unpack_run(place: Path, packed: dict[str, bytes]) -> Run:
    """Write, whole, at `place`, what `pack_run` read on another machine.

    A record that is there already stays.

    Raises:
        ValueError: if a file is not one of a record's, or is missing or damaged.
    """
    unknown = packed.keys() - {*FILES, RIGHT, _NOTEBOOK, _WEIGHTS}
    if unknown:
        raise ValueError(
            f"A record of {place.name} came with a file {min(unknown)!r}, which no record has: send"
            " what pack_run returns."
        )
    if _WEIGHTS in packed:
        content = packed[_WEIGHTS]
        files.replace_file(Run(place).weights_file, lambda path: path.write_bytes(content))
    if (place / "summary.json").is_file():
        return Run(place)
    with files.whole_folder(place) as partial:
        for name in packed.keys() - {_WEIGHTS}:
            (partial / name).write_bytes(packed[name])
        damaged = Run.load(partial).damaged
        if damaged:
            raise ValueError(
                f"The record of {place.name} came with a damaged {damaged[0]}: run it again."
            )
    return Run(place)


def attach_notebook(run: Run, notebook: dict) -> None:
    """Let an executed notebook (as JSON) join the record, without the paths that papermill writes
    into it.

    What a cell printed bit by bit becomes one output, as it would be shown by a notebook that ran
    it.
    """
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        joined: list[dict] = []
        for output in cell.get("outputs", ()):
            last = joined[-1] if joined else {}
            if output["output_type"] == "stream" and last.get("name") == output["name"]:
                last["text"] = "".join(last["text"]) + "".join(output["text"])
            else:
                joined.append(output)
        if "outputs" in cell:
            cell["outputs"] = joined
    papermill = notebook.get("metadata", {}).get("papermill", {})
    for key in ("input_path", "output_path"):
        papermill.pop(key, None)
    files.replace_file(run.path / _NOTEBOOK, lambda path: files.write_json(path, notebook))


def check_writable(directory: Path) -> None:
    """Make the folder of a study, and see that a run can be written there.

    Raises:
        PermissionError: if it can't be made or written to.
        FileExistsError: if it is itself a run's folder, or a file.
    """
    given = f"directory={str(directory)!r}"
    if (directory / "experiment.json").exists():
        raise FileExistsError(
            f"{given} holds another run: give the folder of a study, in which each run gets a"
            " folder of its own."
        )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        wrong = error.strerror or error
        raise PermissionError(
            f"{given} can't be written to ({wrong}): give a folder of yours."
        ) from error


@contextmanager
def lock(place: Path) -> Iterator[None]:
    """Keep the run at `place` for this process.

    Where another process has it, this one says so and waits until that one is through or gone. The
    system takes the lock (`.locks/<run>.lock`) from a process that dies: none is ever stale, and
    the empty file tells nothing.
    """
    from filelock import FileLock, Timeout

    held = FileLock(place.parent / ".locks" / f"{place.name}.lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(
            f"{place.name} is being run by another process: waiting until that one has finished or"
            " ended (Ctrl-C leaves it to it).",
            flush=True,
        )
        held.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        held.release()
