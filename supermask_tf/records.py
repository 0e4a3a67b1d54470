"""A run's folder: writing it safely, reading many as tidy pandas frames. No TensorFlow.

A run is a folder, complete or absent. It is written under a hidden name beside its place and renamed into it, so that
whoever finds it finds all of it. What a record holds is said in the book's chapter "How to run it again". ::

    runs = load_runs("runs/first")
    runs.summary, runs.history, runs.utilisation          # one row a run, an epoch, a masked kernel
    model = runs[0].load_model()
"""

import hashlib
import html
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import archives

__all__ = ["Run", "RunSet", "load_runs", "read_table", "write_run"]

_FILES = ("experiment.json", "history.csv", "utilisation.csv", "masks.npz", "state.npz", "summary.json")
_LARGEST_JSON = 2**20


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
        _note_read(path)
        missing = [name for name in _FILES if not (path / name).is_file()]
        if missing:
            raise FileNotFoundError(f"{path} is not a finished run: it has no {missing[0]}; give the folder of a run, such as those under runs/.")
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def study(self) -> str:
        return self.path.resolve().parent.name

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Every parameter of the experiment, and `parent`: those of the run it started from, or None."""
        return _read_json(self.path / "experiment.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """What came out: best epoch, test accuracy, times, versions, fingerprints."""
        return _read_json(self.path / "summary.json")

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch: `epoch` (from 1), `loss`, `accuracy`, `val_loss`, `val_accuracy`, `learning_rate`, `masked`."""
        return _read_csv(self.path / "history.csv")

    @cached_property
    def utilisation(self) -> pd.DataFrame:
        """One row a masked kernel at the best epoch: `layer`, `path`, `kind`, `weights`, `masked` (fraction)."""
        return _read_csv(self.path / "utilisation.csv")

    def masks(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
        """The masks of the best epoch as boolean arrays of the given shapes, by "<layer path>/kernel" or "/bias"."""
        return {key: unpack_bits(bits, shapes[key]) for key, bits in _read_npz(self.path / "masks.npz", shapes).items()}

    def state(self) -> dict[str, np.ndarray]:
        """Batch-norm parameters and moving statistics of the best epoch, by variable path."""
        return _read_npz(self.path / "state.npz")

    def weights(self) -> dict[str, np.ndarray]:
        """Trained kernels and biases of the best epoch, by path, from `weights_file`; where they were made again and came out
        otherwise, with the batch norm that belongs to them."""
        return _read_npz(self.weights_file)

    @property
    def weights_file(self) -> Path:
        """Where trained weights lie, beside the record and never committed; absent for a mask run, which needs none."""
        return self.path.parent / ".weights" / f"{self.name}.npz"

    @property
    def damaged(self) -> list[str]:
        """The files that are gone or whose checksum is not the one in `summary.json`, which holds one of itself too."""
        try:
            summary = dict(self.summary)
            checksums = dict(summary.pop("checksums"))
        except (OSError, ValueError, KeyError, TypeError):
            return ["summary.json"]
        # Older records have no checksum of their summary.
        wrong = ["summary.json"] if checksums.pop("summary.json", digest := _digest(summary)) != digest else []
        return wrong + [name for name in _FILES[:-1] if not (self.path / name).is_file() or sha256(self.path / name) != checksums.get(name)]

    def load_model(self):
        """The network as the record describes it, at its best epoch: a compiled `SupermaskModel` that ends in logits.

        Raises:
            FileNotFoundError: if the run trained weights and they are no longer beside the record.
        """
        from .experiment import rebuild  # TensorFlow comes with it

        return rebuild(self)

    def save(self, path: str | Path, float16: bool = False) -> Path:
        """Write the run's network as one packed file, which needs no record; see `packing.save`.

        Raises:
            FileNotFoundError: as `load_model`.
            ValueError: as `packing.save`.
        """
        from . import packing

        about = {name: self.parameters[name] for name in ("dataset", "arm", "protocol")}
        about |= {"run": self.name, "study": self.study, "test_accuracy": self.summary["test_accuracy"]}
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
        """The runs whose parameters, or `study` or `run` (the name), have these values; a list admits each of its values.

        Raises:
            ValueError: if there is no such parameter.
        """
        from .experiment import Experiment  # which needs this module

        known = {"run", "study", *(field.name for field in fields(Experiment))}
        if unknown := values.keys() - known:
            raise ValueError(f"No run has a parameter {', '.join(sorted(unknown))}: choose among {', '.join(sorted(known))}.")

        def fits(run):
            own = run.parameters | {"run": run.name, "study": run.study}
            return all(own.get(k) in (v if isinstance(v, (list, tuple)) else (v,)) for k, v in values.items())

        return RunSet([run for run in self.runs if fits(run)])

    @property
    def summary(self) -> pd.DataFrame:
        """One row a run: its name, study, parameters, and what its `summary.json` holds as plain values."""
        return pd.DataFrame([
            self._labels(run) | {k: v for k, v in run.summary.items() if not isinstance(v, (dict, list))} for run in self.runs
        ])

    @property
    def history(self) -> pd.DataFrame:
        """One row a run and epoch."""
        return self._concatenated("history")

    @property
    def utilisation(self) -> pd.DataFrame:
        """One row a run and masked kernel."""
        return self._concatenated("utilisation")

    def listing(self) -> str:
        """An HTML table of the runs, each with a link to its executed notebook as the book renders it.

        A run is named by its study and the last eight letters of its folder, which tell it from all others."""
        rows = []
        for run in self.runs:
            p, s = run.parameters, run.summary
            cells = (
                _notebook_link(run, f"{run.study}/…{run.name[-8:]}"), p["dataset"], _network(p), p["arm"] + (" (original protocol)" if p["protocol"] == "original" else ""), p["estimator"] if p["arm"] in ("mask", "evil") else "",
                _besides(p), p["seed"], p["epochs"], f"{p['learning_rate']:g}",
                s["best_epoch"], f"{s['test_accuracy']:.4f}", f"{s['masked']:.1%}", f"{s['seconds'] / 60:.1f}",
            )
            rows.append("".join(f"<td>{cell if i == 0 else html.escape(str(cell))}</td>" for i, cell in enumerate(cells)))
        heads = ("run", "dataset", "network", "arm", "estimator", "and", "seed", "epochs", "learning rate", "best epoch", "test accuracy", "masked", "minutes")
        head, body = "".join(f"<th>{name}</th>" for name in heads), "".join(f"<tr>{row}</tr>" for row in rows)
        return f'<table class="runs"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def _repr_html_(self) -> str:
        """The foldable line under a figure: which records, which command, how long it took and on what."""
        if not self.runs:
            return ""
        studies = sorted({run.study for run in self.runs})
        seconds = sum(run.summary["seconds"] for run in self.runs)
        machines = sorted({_machine(run.summary) for run in self.runs})
        files = {study: run.path.parent.parent / "studies" / f"{study}.yml" for run in self.runs for study in (run.study,)}
        through = {run.study: run.summary.get("runtime") == "xla" for run in self.runs}
        commands = "; ".join(
            f"<code>supermask {'export' if through[study] else 'study'} runs/studies/{html.escape(study)}.yml</code>" if files[study].is_file() else f"hand, in {html.escape(study)}," for study in studies)
        items = "".join(f"<li>{_notebook_link(run)}</li>" for run in self.runs)
        return (
            f'<details class="evidence"><summary>The evidence: {len(self.runs)} run{"s" * (len(self.runs) != 1)}, {seconds / 60:.0f} minutes of training</summary>'
            f"<p>Made by {commands} on {html.escape('; '.join(machines))}.</p><ul>{items}</ul></details>"
        )

    @staticmethod
    def _labels(run):
        return {"run": run.name, "study": run.study} | {k: v for k, v in run.parameters.items() if k != "parent"}

    def _concatenated(self, table):
        frames = [getattr(run, table) for run in self.runs]
        if not frames:
            return pd.DataFrame()
        # An epoch has its own learning rate; the experiment's is where it started.
        labels = pd.DataFrame([{k: v for k, v in self._labels(run).items() if k not in frame} for run, frame in zip(self.runs, frames)])
        rows = labels.loc[np.repeat(labels.index, [len(frame) for frame in frames])]
        return pd.concat([pd.concat(frames, ignore_index=True), rows.reset_index(drop=True)], axis=1)


# What the listing says only where it is otherwise.
_USUAL = {"tau": 0.5, "initial_logit": 1.0, "initializer": "glorot_uniform", "batch_size": 128, "augment": True, "precision": "float32"}
_SHOWN = ("dataset", "model", "depth", "width", "arm", "estimator", "seed", "epochs", "learning_rate", "protocol", "init_from", "parent")


def _besides(parameters: dict[str, Any]) -> str:
    """The parameters that have no column of their own in the listing, where they are not the usual ones."""
    unusual = {name: value for name, value in parameters.items() if name not in _SHOWN and value not in (None, False, _USUAL.get(name)) or (name == "augment" and not value)}
    return ", ".join(f"{name.replace('_', ' ')}{'' if value is True else f' {value:g}' if isinstance(value, float) else f' {value}'}" if name != "augment" else "not augmented" for name, value in unusual.items())


def _notebook_link(run: Run, text: str | None = None) -> str:
    """The run's name, or `text` in its place, linked from a page of the book to its rendered notebook if there is one."""
    name, text = html.escape(run.name), html.escape(text or run.name)
    if not (run.path / "notebook.ipynb").is_file():
        return f'<span title="{name}">{text}</span>'
    return f'<a href="../runs/{html.escape(run.study)}/{name}.html" title="{name}">{text}</a>'


def _machine(summary: dict[str, Any]) -> str:
    """What a run was trained on, and by what."""
    if summary.get("runtime") == "xla":
        return f"{summary['processor']}, JAX {summary['versions']['jax']}"
    return f"{summary['processor']}, {summary['threads']} thread{'s' * (summary['threads'] != 1)}, TensorFlow {summary['versions']['tensorflow']}"


def _network(parameters: dict[str, Any]) -> str:
    """The network in the field's short form: WRN-16-1, Conv-2, LeNet-300-100."""
    return {
        "wide_resnet": f"WRN-{parameters['depth']}-{parameters['width']}", "conv_net": f"Conv-{parameters['depth']}",
    }.get(parameters["model"], "LeNet-300-100")


def read_table(path: str | Path) -> pd.DataFrame:
    """A CSV file as a frame; in the book, the page depends on it from then on."""
    _note_read(Path(path))
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
        _note_read(folder)
        if missing_ok and not folder.exists():
            continue
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder {folder}: give a study's folder, such as runs/first.")
        places = [folder] if (folder / "experiment.json").exists() else sorted(p.parent for p in folder.glob("**/summary.json"))
        found += [Run(place) for place in places if not any(part.startswith(".") for part in place.relative_to(folder).parts)]
    return RunSet(found)


def write_run(place: Path, parameters: dict, history: pd.DataFrame, utilisation: pd.DataFrame,
              masks: dict[str, np.ndarray], state: dict[str, np.ndarray], summary: dict) -> Run:
    """Write a run's folder, whole, at `place`; return its `Run`.

    Args:
        place: the folder to make; its parent exists.
        masks: boolean arrays by path. They are stored one bit a weight.
        state: float arrays by variable path.
        summary: the summary without the checksums, which are added here.
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        os.chmod(partial, 0o755)
        _write_json(partial / "experiment.json", parameters)
        history.to_csv(partial / "history.csv", index=False)
        utilisation.to_csv(partial / "utilisation.csv", index=False)
        np.savez_compressed(partial / "masks.npz", **{key: np.packbits(mask) for key, mask in masks.items()})
        np.savez_compressed(partial / "state.npz", **state)
        checksums = {path.name: sha256(path) for path in sorted(partial.iterdir())} | {"summary.json": _digest(summary)}
        _write_json(partial / "summary.json", summary | {"checksums": checksums})
        # On the disk before it is in its place: after a power cut a name may be there whose content is not.
        for path in (*partial.iterdir(), partial):
            settle(path)
        os.replace(partial, place)
        settle(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run(place)


def write_weights(run: Run, weights: dict[str, np.ndarray]) -> None:
    """Keep trained weights beside the record, for loading the model and for runs that start from it."""
    _replace(run.weights_file, lambda path: np.savez(path, **weights))


def pack_run(run: Run, weights: bool = False) -> dict[str, bytes]:
    """A record as the contents of its files by name, for another machine: its trained weights too, if asked for and there."""
    files = {path.name: path.read_bytes() for path in run.path.iterdir() if path.name in (*_FILES, "notebook.ipynb")}
    if weights and run.weights_file.is_file():
        files["weights.npz"] = run.weights_file.read_bytes()
    return files


def unpack_run(place: Path, files: dict[str, bytes]) -> Run:
    """Write, whole, at `place`, what `pack_run` read on another machine; a record that is there already stays.

    Raises:
        ValueError: if a file is not one of a record's, or is missing or damaged.
    """
    unknown = files.keys() - {*_FILES, "notebook.ipynb", "weights.npz"}
    if unknown:
        raise ValueError(f"A record of {place.name} came with a file {min(unknown)!r}, which no record has: send what pack_run returns.")
    if "weights.npz" in files:
        _replace(Run(place).weights_file, lambda path: path.write_bytes(files["weights.npz"]))
    if (place / "summary.json").is_file():
        return Run(place)
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        os.chmod(partial, 0o755)
        for name in files.keys() - {"weights.npz"}:
            (partial / name).write_bytes(files[name])
        damaged = Run.load(partial).damaged
        if damaged:
            raise ValueError(f"The record of {place.name} came with a damaged {damaged[0]}: run it again.")
        os.replace(partial, place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Run(place)


def attach_notebook(run: Run, notebook: dict) -> None:
    """Let an executed notebook (as JSON) join the record, without the paths that papermill writes into it.

    What a cell printed bit by bit becomes one output, as it would be shown by a notebook that ran it.
    """
    notebook = json.loads(json.dumps(notebook))
    for cell in notebook["cells"]:
        joined: list[dict] = []
        for output in cell.get("outputs", ()):
            if joined and output["output_type"] == "stream" and joined[-1].get("name") == output["name"]:
                joined[-1]["text"] = "".join(joined[-1]["text"]) + "".join(output["text"])
            else:
                joined.append(output)
        if "outputs" in cell:
            cell["outputs"] = joined
    papermill = notebook.get("metadata", {}).get("papermill", {})
    for key in ("input_path", "output_path"):
        papermill.pop(key, None)
    _replace(run.path / "notebook.ipynb", lambda path: _write_json(path, notebook))


def unpack_bits(bits: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The boolean array of `shape` that `np.packbits` packed.

    Raises:
        ValueError: if there are more or fewer bits than the shape takes.
    """
    if bits.dtype != np.uint8 or bits.ndim != 1 or bits.size != -(-int(np.prod(shape)) // 8):
        raise ValueError(f"A mask of {8 * bits.size} bits does not fit the shape {tuple(shape)}: it belongs to another network.")
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


def check_writable(directory: Path) -> None:
    """Make the folder of a study, and see that a run can be written there.

    Raises:
        PermissionError: if it can't be made or written to.
        FileExistsError: if it is itself a run's folder, or a file.
    """
    if (directory / "experiment.json").exists():
        raise FileExistsError(f"directory={str(directory)!r} holds another run: give the folder of a study, in which each run gets a folder of its own.")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise PermissionError(f"directory={str(directory)!r} can't be written to ({error.strerror or error}): give a folder of yours.") from error


def fingerprint(folder: str | Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files under a folder: it changes when any of them does."""
    digest = hashlib.sha256()
    folder = Path(folder)
    if folder.is_file():
        return sha256(folder)
    for path in sorted(p for p in folder.glob("**/*") if p.is_file() and not any(x.startswith(".") for x in p.relative_to(folder).parts)):
        digest.update(f"{path.relative_to(folder).as_posix()}|{sha256(path)}\n".encode())
    return digest.hexdigest()


def _note_read(folder: Path) -> None:
    """Append the folder or file, and what is in it, to the list named by SUPERMASK_READS, by which the book knows what a page depends on."""
    if os.environ.get("SUPERMASK_READS"):
        _note(os.environ["SUPERMASK_READS"], folder.resolve())


@cache  # what was there when a page first read it: a record that comes later is not on the page
def _note(log: str, path: Path) -> None:
    with open(log, "a") as file:
        file.write(f"{fingerprint(path)} {path}\n")


@contextmanager
def lock(place: Path) -> Iterator[None]:
    """Keep the run at `place` for this process; where another one has it, say so and wait until it is through or gone.

    The system takes the lock (`.locks/<run>.lock`) from a process that dies: none is ever stale, the empty file tells nothing.
    """
    from filelock import FileLock, Timeout

    held = FileLock(place.parent / ".locks" / f"{place.name}.lock")
    try:
        held.acquire(timeout=0)
    except Timeout:
        print(f"{place.name} is being run by another process: waiting until that one has finished or ended (Ctrl-C leaves it to it).", flush=True)
        held.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        held.release()


def settle(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(summary: dict[str, Any]) -> str:
    """The checksum of a summary by itself: its place in the file is among the others, which it does not cover."""
    return hashlib.sha256(json.dumps(summary, sort_keys=True).encode()).hexdigest()


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        OSError: if it can't be read.
        ValueError: if it is none, or out of all proportion.
    """
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"it has more than {_LARGEST_JSON} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no parameters")
    return content


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except ValueError as error:  # of JSON and of Unicode too
        raise _damaged(path, error) from error


def _read_npz(path: Path, keys=None) -> dict[str, np.ndarray]:
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
    return ValueError(f"{path} is damaged ({' '.join(str(error).split())}): make the run again, or take its folder away.")


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(place: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place and rename it there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{os.getpid()}.{place.name}")
    try:
        write(partial)
        settle(partial)
        os.replace(partial, place)
        settle(place.parent)
    finally:
        partial.unlink(missing_ok=True)
