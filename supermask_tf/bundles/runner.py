"""The command `python BUNDLE/run.py`: train the experiments of a bundle with JAX. No TensorFlow.

How one of them is trained is told in `training`. Each leaves in the result's folder what a record
holds, and its trained weights in parts; `supermask import` makes a record of it.
"""

import argparse
import fnmatch
import math
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from .. import data
from . import results, xla
from .bundle import PROGRAMS, Bundle, data_files
from .sharing import side_by_side, turns
from .training import Training

__all__ = ["Training", "main"]


def main(folder: Path, arguments: list[str] | None = None) -> int:
    """Run a bundle; return the exit code: 0, 1 if a run failed, 2 if something was wrong with what
    was asked, 130 or 143 after a signal.
    """
    begun = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="run.py",
        description=(
            "Train the experiments of this bundle, parents first, on the first device that JAX"
            " finds."
        ),
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="EXPERIMENT",
        help="train only these and what they start from; patterns such as 'cifar10-*-s0-*' too",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE",
        help="the .npz of each dataset, or its parts, as in cifar10.npz.aa cifar10.npz.ab",
    )
    parser.add_argument(
        "--out",
        required=True,
        type=Path,
        metavar="RESULT",
        help="where results go, and from where a stopped run goes on",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop after so many; the same command goes on",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="so many processes share the device: a small network leaves a large one idle",
    )
    options = parser.parse_args(arguments)
    if options.workers > 1:
        own = sys.argv[1:] if arguments is None else arguments
        command = [sys.executable, str(folder / "run.py"), *own, "--workers", "1"]
        return side_by_side(command, options.workers)
    try:
        with _Stop(begun + 60 * options.minutes) as stop:
            failed = _run(Bundle.open(folder), options, stop)
        return 128 + stop.signal if stop.signal else int(failed)
    except (ValueError, OSError, ImportError) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2


class _Stop:
    """Whether to stop: a signal came, or the time is up."""

    def __init__(self, deadline: float):
        self.deadline, self.signal = deadline, 0

    def __enter__(self) -> "_Stop":
        self._before = {
            number: signal.signal(number, self._came) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number, frame):
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __call__(self) -> bool:
        return bool(self.signal) or time.monotonic() > self.deadline


def _run(bundle: Bundle, options: argparse.Namespace, stop: _Stop) -> bool:
    """Train what is asked for and not finished; return whether a run failed, which stops none but
    its children.
    """
    wanted = _with_parents(bundle, options.names)
    options.out.mkdir(parents=True, exist_ok=True)
    todo = [name for name in wanted if not results.finished(options.out / name)]
    print(
        (
            f"{len(wanted) - len(todo)} of {len(wanted)} experiments are finished."
            if len(todo) < len(wanted)
            else f"{len(wanted)} experiments."
        ),
        flush=True,
    )
    with data_files([*options.data, *sorted(bundle.folder.glob("*.npz"))]) as found:
        sets = _data_sets(bundle, todo, found)
    compiled: dict[str, dict[str, xla.Program]] = {}
    failed: set[str] = set()
    parents = {name: bundle.experiments[name]["parameters"]["init_from"] for name in todo}
    for name in turns(todo, parents, options.out, failed, stop):
        experiment = bundle.experiments[name]
        images = replace(
            sets[experiment["fingerprint"], experiment["parameters"]["protocol"]],
            scale=tuple(experiment["scale"]),
        )
        training, key = Training(bundle, name, images, options.out), experiment["program"]
        if key not in compiled:
            print(f"Compiling for {training.machine['processor']} ...", flush=True)
            compiled[key] = _compile(bundle, key)
        try:
            if not training.run(compiled[key], stop):
                break
        except FloatingPointError as error:
            failed.add(name)
            print(f"run.py: {error}", file=sys.stderr, flush=True)
    left = sum(not results.finished(options.out / name) for name in wanted)
    print(
        (
            f"{left} of {len(wanted)} experiments are not finished: the same command goes on."
            if left
            else f"All {len(wanted)} experiments are finished, in {options.out}."
        ),
        flush=True,
    )
    return bool(failed)


def _compile(bundle: Bundle, key: str) -> dict[str, xla.Program]:
    """The programs of a network."""
    files = {
        name: bundle.folder / f"programs/{key}-{name}.hlo"
        for name in PROGRAMS
        if name in bundle.programs[key]
    }
    return {name: xla.Program(file.read_bytes(), file.name) for name, file in files.items()}


def _with_parents(bundle: Bundle, names: list[str]) -> list[str]:
    """The experiments asked for and their parents, in the bundle's order."""
    wanted: set[str] = set() if names else {*bundle.experiments}
    for pattern in names:
        found = fnmatch.filter(bundle.experiments, pattern)
        if not found:
            raise ValueError(
                f"There is no experiment {pattern!r} in this bundle; it has"
                f" {', '.join(bundle.experiments)}."
            )
        wanted |= {*found}
    for name in reversed([*bundle.experiments]):
        if name in wanted:
            wanted |= {bundle.experiments[name]["parameters"]["init_from"]} - {None}
    return [name for name in bundle.experiments if name in wanted]


def _data_sets(
    bundle: Bundle, names: list[str], files: dict[str, Path]
) -> dict[tuple[str, str], data.ImageData]:
    """The experiments' data by fingerprint and protocol: among the files given, those with the
    images that they were exported for.
    """
    found: dict[tuple[str, str], data.ImageData] = {}
    for experiment in (bundle.experiments[name] for name in names):
        wanted = experiment["fingerprint"], experiment["parameters"]["protocol"]
        if wanted in found:
            continue
        name = Path(bundle.manifest["datasets"][wanted[0]]).name.removesuffix(".npz")
        if name not in files:
            raise FileNotFoundError(
                f"{name}.npz is missing: give it, or all of its parts, as --data."
            )
        found[wanted] = data.load(str(files[name]), wanted[1])
        if found[wanted].fingerprint != wanted[0]:
            raise ValueError(
                f"{name}.npz does not hold the images that this bundle was exported for: give the"
                " same ones as --data."
            )
    return found
