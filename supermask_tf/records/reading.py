"""Records as they are read: one run, many runs, and which of them a page of the book depends on."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..ground import archives, files

__all__ = [
    "BEFORE",
    "FILES",
    "RIGHT",
    "Run",
    "RunSet",
    "fingerprint",
    "load_runs",
    "note_read",
    "pack_mask",
    "read_table",
    "unpack_bits",
]

# What every record has, and what those have from before it was noted which test images were right.
FILES = (
    "experiment.json",
    "history.csv",
    "utilisation.csv",
    "masks.npz",
    "state.npz",
    "summary.json",
)
RIGHT = "right.npz"

# What a record that lacks a parameter means: the parameter came later, and runs then were so.
BEFORE = dict.fromkeys(
    (
        "units",
        "shortcut",
        "activation",
        "temperature",
        "step_size",
        "density",
        "density_start",
        "groups",
        "coats",
        "cutoff",
        "freeze_every",
        "score_penalty",
        "score_decay",
        "randomize_every",
        "randomize_fraction",
        "mask_0",
        "mask_1",
        "nesterov",
        "mask_regularizer",
        "rescale",
        "criterion",
        "scope",
        "rewind_epochs",
        "redraw",
        "reinit_seed",
        "reset_batch_norm",
        "momentum",
        "weight_decay",
        "precision",
        "strategy",
    )
) | {
    "affine": True,
    "mask_biases": True,
    "optimizer": "adam",
    "schedule": "plateau",
    "keep": "best",
    "renew_batch_norm": False,
}


@dataclass(frozen=True)
class Run:
    """A finished run's record.

    Attributes:
        path: the run's folder; its name is the run's name, the folder above it its study.
    """

    path: Path

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """The record in the folder `path`.

        Raises:
            FileNotFoundError: if there is no complete record.
        """
        path = Path(path)
        note_read(path)
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"{path} is not a finished run: it has no {missing[0]}; give the folder of a run,"
                " such as those under runs/."
            )
        return cls(path)

    @cached_property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def study(self) -> str:
        return self.path.resolve().parent.name

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the experiment, and `parent`: those of the run it started from, or
        None.
        """
        return _read_json(self.path / "experiment.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What came out: the recorded epoch, test accuracy, times, versions, fingerprints."""
        return _read_json(self.path / "summary.json")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row per epoch.

        Columns `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate`,
        `masked`.
        """
        return _read_csv(self.path / "history.csv")

    @cached_property
    def utilisation(self) -> pd.DataFrame:
        """One row per masked kernel at the recorded epoch.

        Columns `layer`, `path`, `kind`, `weights`, `masked` (fraction).
        """
        return _read_csv(self.path / "utilisation.csv")

    def masks(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """The masks of the recorded epoch by "<layer path>/kernel" or "/bias": boolean arrays, or
        int8 ones where the masks have more values than 0 and 1.

        Args:
            shapes: of the masks wanted, by path.
        """
        packed = _read_npz(self.path / "masks.npz", shapes)
        return {key: _unpack_mask(bits, shapes[key]) for key, bits in packed.items()}

    def state(self) -> dict[str, np.ndarray]:
        """Batch-norm parameters and moving statistics of the recorded epoch, by variable path."""
        return _read_npz(self.path / "state.npz")

    def right(self) -> np.ndarray | None:
        """Whether each test image was classified rightly.

        Returns:
            A boolean array in the canonical order of the test split; None in records from before
            this was noted.
        """
        if not (self.path / RIGHT).is_file():
            return None
        bits = _read_npz(self.path / RIGHT)["right"]
        return unpack_bits(bits, (self.summary["test_images"],))

    def weights(self) -> dict[str, np.ndarray]:
        """What lies in `weights_file`, by path.

        Trained kernels and biases of the recorded epoch, or the logits of a trained mask. Weights
        that were made again and came out otherwise have the batch norm with them that belongs to
        them.
        """
        return _read_npz(self.weights_file)

    @property
    def weights_file(self) -> Path:
        """Where trained weights and mask logits lie: beside the record, and never committed.

        A mask run does without.
        """
        return self.path.parent / ".weights" / f"{self.name}.npz"

    @property
    def damaged(self) -> list[str]:
        """The files that are gone, or whose checksum is not the one in `summary.json`.

        It holds a checksum of itself too.
        """
        try:
            summary = dict(self.summary)
            checksums = dict(summary.pop("checksums"))
        except (OSError, ValueError, KeyError, TypeError):
            return ["summary.json"]
        # Older records have no checksum of their summary.
        digest = files.digest(summary)
        wrong = ["summary.json"] if checksums.pop("summary.json", digest) != digest else []
        names = [*FILES[:-1], *([RIGHT] if RIGHT in checksums else [])]
        there = {name: (self.path / name).is_file() for name in names}
        return wrong + [
            name
            for name in names
            if not there[name] or files.sha256(self.path / name) != checksums.get(name)
        ]

    def load_model(self):
        """The network as the record describes it: a compiled `SupermaskModel` that ends in logits.

        Raises:
            FileNotFoundError: if the run trained weights and they are no longer beside the record.
        """
        from ..experiment.starting import rebuild  # TensorFlow comes with it

        return rebuild(self)

    def save(self, path: str | Path, float16: bool = False) -> Path:
        """Write the run's network as one packed file, which needs no record; see `packing.save`.

        Raises:
            FileNotFoundError: as `load_model`.
            ValueError: as `packing.save`.
        """
        from .. import packing

        about = {name: self.parameters[name] for name in ("dataset", "arm", "protocol")}
        accuracy = self.summary["test_accuracy"]
        about |= {"run": self.name, "study": self.study, "test_accuracy": accuracy}
        return packing.save(self.load_model(), path, float16, about)


class RunSet:
    """Runs as tidy frames, every parameter a column.

    Args:
        runs: the runs, in the order in which their rows appear.
    """

    def __init__(self, runs: list[Run]):
        self.runs = list(runs)

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self.runs)

    def __getitem__(self, index: int) -> Run:
        return self.runs[index]

    def where(self, **values: Any) -> "RunSet":
        """The runs whose parameters, or `study` or `run` (the name), have these values.

        Args:
            **values: a list admits each of its values.

        Raises:
            ValueError: if none of the runs has such a parameter.
        """
        described = [
            BEFORE | run.parameters | {"run": run.name, "study": run.study} for run in self.runs
        ]
        known = {name for own in described for name in own} - {"parent"}
        if described and (unknown := values.keys() - known):
            raise ValueError(
                f"No run has a parameter {', '.join(sorted(unknown))}: choose among "
                f"{', '.join(sorted(known))}."
            )

        def admits(wanted: Any, value: Any) -> bool:
            return value in (wanted if isinstance(wanted, (list, tuple)) else (wanted,))

        return RunSet(
            [
                run
                for run, own in zip(self.runs, described)
                if all(admits(wanted, own.get(name)) for name, wanted in values.items())
            ]
        )

    @property
    def summary(self) -> pd.DataFrame:
        """One row per run: its name, study, parameters, and the plain values of its
        `summary.json`.
        """
        return pd.DataFrame(
            [
                self._labels(run)
                | {k: v for k, v in run.summary.items() if not isinstance(v, (dict, list))}
                for run in self.runs
            ]
        )

    @property
    def history(self) -> pd.DataFrame:
        """One row per run and epoch."""
        return self._concatenated("history")

    @property
    def utilisation(self) -> pd.DataFrame:
        """One row per run and masked kernel."""
        return self._concatenated("utilisation")

    def listing(self) -> pd.DataFrame:
        """A table of the runs, one row each, the first column a link to its page in the book."""
        from . import html

        return html.listing(self.runs)

    def _repr_html_(self) -> str:
        from . import html

        return html.evidence(self.runs)

    @staticmethod
    def _labels(run: Run) -> dict[str, Any]:
        parameters = {k: v for k, v in run.parameters.items() if k != "parent"}
        return {"run": run.name, "study": run.study} | parameters

    def _concatenated(self, table: str) -> pd.DataFrame:
        frames = [getattr(run, table) for run in self.runs]
        if not frames:
            return pd.DataFrame()
        # An epoch has its own learning rate; the experiment's is where it started.
        labels = pd.DataFrame(
            [
                {k: v for k, v in self._labels(run).items() if k not in frame}
                for run, frame in zip(self.runs, frames)
            ]
        )
        rows = labels.loc[np.repeat(labels.index, [len(frame) for frame in frames])]
        joined = pd.concat(frames, ignore_index=True)
        return pd.concat([joined, rows.reset_index(drop=True)], axis=1)


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV file as a frame; in the book, the page depends on it from then on."""
    note_read(Path(path))
    return pd.read_csv(path)


def load_runs(*folders: str | Path, missing_ok: bool = False) -> RunSet:
    """Every finished run under the given study folders (or run folders), by study and name.

    Args:
        missing_ok: whether a folder that does not exist (yet) counts as an empty one.

    Raises:
        FileNotFoundError: if a folder does not exist and `missing_ok` is false.
    """
    found = []
    for folder in map(Path, folders):
        note_read(folder)
        if missing_ok and not folder.exists():
            continue
        if not folder.is_dir():
            raise FileNotFoundError(
                f"There is no folder {folder}: give a study's folder, such as runs/first."
            )
        if (folder / "experiment.json").exists():
            places = [folder]
        else:
            places = sorted(path.parent for path in folder.glob("**/summary.json"))
        found += [Run(place) for place in places if not _hidden(place, folder)]
    return RunSet(found)


def _hidden(path: Path, under: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(under).parts)


def pack_mask(mask: np.ndarray) -> np.ndarray:
    """A mask as bits.

    A boolean one becomes a row of bits. One of more values becomes a row for each bit of them, the
    lowest first; where there are negative ones, numbers are two's complements and the array is of
    type int8 instead of uint8.
    """
    if mask.dtype != np.int8:
        return np.packbits(mask)
    signed = bool((mask < 0).any())
    largest = int(np.where(mask < 0, ~mask, mask).max(initial=0))
    planes = max(largest.bit_length() + signed, 1)
    bits = np.stack([np.packbits(mask.view(np.uint8) >> i & 1) for i in range(planes)])
    return bits.view(np.int8) if signed else bits


def _unpack_mask(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of `shape` that `pack_mask` packed."""
    if bits.ndim != 2:
        return unpack_bits(bits, shape)
    planes = [unpack_bits(row.view(np.uint8), shape) for row in bits]
    if not 0 < len(planes) <= 8:
        raise ValueError(f"A mask of {len(planes)} bits per weight is none: from 1 to 8 are.")
    value = np.zeros(shape, np.int16)
    for i, plane in enumerate(planes):
        value += plane.astype(np.int16) << i
    if bits.dtype == np.int8:
        value -= planes[-1].astype(np.int16) << len(planes)
    return value.astype(np.int8)


def unpack_bits(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The boolean array of `shape` that `np.packbits` packed.

    Raises:
        ValueError: if there are more or fewer bits than the shape takes.
    """
    count = int(np.prod(shape))
    if bits.dtype != np.uint8 or bits.ndim != 1 or bits.size != -(-count // 8):
        raise ValueError(
            f"A mask of {8 * bits.size} bits does not fit the shape {tuple(shape)}: it belongs to"
            " another network."
        )
    return np.unpackbits(bits, count=count).astype(bool).reshape(shape)


# --- what a page of the book depends on -----------------------------------------------------------


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a folder.

    It changes when any of them does. Hidden files do not count.
    """
    folder = Path(folder)
    if folder.is_file():
        return files.sha256(folder)
    digest = hashlib.sha256()
    inside = (path for path in folder.glob("**/*") if path.is_file() and not _hidden(path, folder))
    for path in sorted(inside):
        name = path.relative_to(folder).as_posix()
        digest.update(f"{name}|{files.sha256(path)}\n".encode())
    return digest.hexdigest()


def note_read(folder: Path) -> None:
    """Append what is read, and what is in it, to the list named by SUPERMASK_READS.

    By that list the book knows what a page depends on.
    """
    if os.environ.get("SUPERMASK_READS"):
        _note(os.environ["SUPERMASK_READS"], folder.resolve())


@cache  # what was there when a page first read it: a record that comes later is not on the page
def _note(log: str, path: Path) -> None:
    with open(log, "a") as file:
        file.write(f"{fingerprint(path)} {path}\n")


# --- files ----------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path)
    except ValueError as error:  # of JSON and of Unicode too
        raise _damaged(path, error) from error


def _read_npz(path: Path, keys: Any = None) -> dict[str, np.ndarray]:
    try:
        return archives.read(path, keys)
    except ValueError as error:
        raise _damaged(path, error) from error


def _read_csv(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, float_precision="round_trip")
    except ValueError as error:  # of pandas and of Unicode
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ValueError:
    wrong = " ".join(str(error).split())
    return ValueError(f"{path} is damaged ({wrong}): make the run again, or take its folder away.")
