"""Training the experiments of a bundle with JAX: what `python BUNDLE/run.py` does. No TensorFlow.

Each experiment leaves in the result's folder what a record holds, and its trained weights in parts;
`supermask import` makes a record of it. The schedule of the learning rate, the choice of the epoch
and the history are those of `Experiment.run`.
"""

import argparse
import fnmatch
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..ground import files, schedules
from . import results, xla
from .bundle import Bundle, data_files, starting_values
from .feed import Feed

__all__ = ["Training", "main"]

# A launch of several steps should not keep a signal or the clock waiting.
_LAUNCH_SECONDS = 0.5
# The share of the time that checkpoints may take.
_CHECKPOINT_SHARE = 0.05


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
    options = parser.parse_args(arguments)
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
    for name in todo:
        if stop():
            break
        experiment = bundle.experiments[name]
        if (parent := experiment["parameters"]["init_from"]) in failed:
            failed.add(name)
            print(f"{name} is left out: its parent {parent} has no result.", flush=True)
            continue
        images = replace(
            sets[experiment["fingerprint"], experiment["parameters"]["protocol"]],
            scale=tuple(experiment["scale"]),
        )
        training, key = Training(bundle, name, images, options.out), experiment["program"]
        if key not in compiled:
            print(f"Compiling for {training.machine['processor']} ...", flush=True)
            compiled[key] = {
                what: xla.Program(
                    (bundle.folder / f"programs/{key}-{what}.hlo").read_bytes(), f"{key}-{what}.hlo"
                )
                for what in ("train", "evaluate", "masks")
            }
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


class Training:
    """One experiment's training.

    Args:
        bundle: what it belongs to.
        name: the experiment's.
        images: its data, scaled as it was exported.
        out: the folder of results, with the parent's.

    Raises:
        FileNotFoundError: if the parent is not finished, or its weights are needed and gone.
        ValueError: if the parent's result is damaged.
    """

    def __init__(self, bundle: Bundle, name: str, images: data.ImageData, out: Path):
        self.name, self.experiment, self.images, self.out, self.machine = (
            name,
            bundle.experiments[name],
            images,
            out,
            xla.machine(),
        )
        self.network = bundle.programs[self.experiment["program"]]
        self.versions = bundle.manifest["versions"]
        self.parameters = self.experiment["parameters"]
        self.feed = Feed(
            images,
            batch_size=self.parameters["batch_size"],
            seed=self.parameters["seed"],
            augmented=self.parameters["augment"],
            chunk=self.network["chunk"],
        )
        self.trained = [path for _, path in self.network["train"]["updates"]]
        # What the best epoch is made of: what training moves, as far as evaluation or the masks
        # depend on it.
        used = {*self.network["evaluate"]["parameters"], *self.network["masks"]["parameters"]}
        self.kept = [
            path
            for path in {
                **dict.fromkeys(self.trained),
                **{p: None for p in used if p.endswith("/density")},
            }
            if path in used
        ]
        self.facts: dict[str, Any] = {
            "epoch": 0,
            "step": 0,
            "rows": [],
            "best_epoch": 0,
            "best_accuracy": None,
            "seconds": 0.0,
            "learning_rate": self.parameters["learning_rate"],
            "plateau": {"best": None, "wait": 0},
            "machines": [],
        }
        self.best: dict[str, Any] = {}
        self.pace = 1
        parent = self.parameters["init_from"]
        self.state = self._on_device(
            starting_values(
                self.network, self.experiment, self._of_parent(out / parent) if parent else None
            )
        )

    # --- the epochs -------------------------------------------------------------------------------

    def run(self, programs: dict[str, xla.Program], stop: Callable[[], bool]) -> bool:
        """Train to the end and write the result; False if `stop` said so before, and the state is
        kept.

        Args:
            programs: `train`, `evaluate` and `masks`, compiled.
            stop: asked between two launches.

        Raises:
            FloatingPointError: the loss became NaN.
        """
        self.programs, p, facts = programs, self.parameters, self.facts
        if not self._resume() and p["init_from"]:
            facts["start_accuracy"] = self._evaluate("test")[
                1
            ]  # chooses nothing; a record shows it
        since, self._checkpointed, self._cost = time.monotonic(), time.monotonic(), 0.0
        while facts["epoch"] < p["epochs"]:
            facts["epoch_seconds"] = facts.get("epoch_seconds", 0.0)
            begun = time.monotonic()
            going = self._train_epoch(stop)
            facts["epoch_seconds"] += time.monotonic() - begun
            if going:
                self._end_epoch()
            now = time.monotonic()
            facts["seconds"], since = facts["seconds"] + now - since, now
            if not going or stop() and facts["epoch"] < p["epochs"]:
                self._checkpoint()
                print(
                    f"{self.name} is stopped after epoch {facts['epoch']} of {p['epochs']}, step"
                    f" {facts['step']}: the same command goes on there.",
                    flush=True,
                )
                return False
            if self._cost < _CHECKPOINT_SHARE * (now - self._checkpointed):
                self._checkpoint()
            since += time.monotonic() - now  # the time of a checkpoint is not training's
        self._write()
        shutil.rmtree(self._folder, ignore_errors=True)
        return True

    def _train_epoch(self, stop: Callable[[], bool]) -> bool:
        """The rest of an epoch's steps; False if it was stopped between two launches."""
        facts, chunk = self.facts, self.network["chunk"]
        if facts["step"] == 0:
            self._put(
                {
                    path: np.zeros((), np.float32)
                    for path, v in self.network["variables"].items()
                    if v["role"] == "metrics"
                }
            )
            self._put({"learning_rate": np.float32(facts["learning_rate"])})
            if not self._counts:
                facts["plateau"] = {"best": None, "wait": 0}
        if self.parameters[
            "density_start"
        ]:  # in the middle of an epoch too: what a stopped run kept does not tell it
            p = self.parameters
            density = schedules.density_at(
                facts["epoch"], p["epochs"], p["density_start"], p["density"]
            )
            self._put(
                {
                    path: np.float32(density)
                    for path, v in self.network["variables"].items()
                    if v["role"] == "density"
                }
            )
        while facts["step"] < self.feed.steps:
            first = facts["step"] // chunk * chunk
            x, y = self.feed.batches(facts["epoch"], first)
            waiting, last = None, min(chunk, self.feed.steps - first)
            while facts["step"] - first < last:
                begin = facts["step"] - first
                end = min(last, begin + self.pace)
                begun = time.monotonic()
                loss = self._call("train", x, y, np.int32(begin), np.int32(end))[0]
                # One launch ahead: the device has work while the host waits for the one before.
                if waiting is not None:
                    waiting.block_until_ready()
                    if time.monotonic() - begun < _LAUNCH_SECONDS / 2:
                        self.pace = min(chunk, 2 * self.pace)
                waiting, facts["step"] = loss, first + end
                if stop() and facts["step"] < self.feed.steps:
                    return False
        waiting.block_until_ready() if waiting is not None else None
        return True

    def _end_epoch(self) -> None:
        """Validation, history, the best epoch, the learning rate, and a line of progress."""
        p, facts = self.parameters, self.facts
        loss, accuracy = (
            float(self.state[f"{name}/total"]) / float(self.state[f"{name}/count"])
            for name in ("loss", "accuracy")
        )
        loss, accuracy = float(np.float32(loss)), float(np.float32(accuracy))
        val_loss, val_accuracy = self._evaluate("validation")
        epoch = facts["epoch"] + 1
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            shutil.rmtree(self._folder, ignore_errors=True)
            raise FloatingPointError(
                f"{self.name}: the loss became {loss if not math.isfinite(loss) else val_loss} in"
                f" epoch {epoch} (learning_rate={p['learning_rate']:g}): try a smaller"
                " learning_rate; nothing was recorded."
            )
        masked = self._masked(self._utilisation(self._masks()))
        rate = facts["learning_rate"]
        facts["rows"].append(
            {
                "epoch": epoch,
                "loss": loss,
                "accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": float(f"{rate:.6g}"),
                "masked": masked,
            }
        )
        if (
            facts["best_accuracy"] is None
            or not self._counts
            or self._better(val_accuracy, facts["best_accuracy"])
        ):
            import jax.numpy as jnp

            facts["best_epoch"], facts["best_accuracy"] = epoch, val_accuracy
            self.best = {path: jnp.copy(self.state[path]) for path in self.kept}
        self._plateau(accuracy)
        images = self.feed.steps * p["batch_size"]
        print(
            f"{self.name}  epoch {epoch:>3}/{p['epochs']}   loss {loss:.4f}   accuracy"
            f" {accuracy:.4f}   val_accuracy {val_accuracy:.4f}   learning rate {rate:.0e}   masked"
            f" {masked:.1%}   {images / facts['epoch_seconds']:.0f} images/s",
            flush=True,
        )
        facts |= {"epoch": epoch, "step": 0, "epoch_seconds": 0.0}

    def _plateau(self, accuracy: float) -> None:
        """The post's schedule, as Keras's ReduceLROnPlateau of the training accuracy does it."""
        plateau = self.facts["plateau"]
        if plateau["best"] is None or self._better(
            accuracy, plateau["best"], schedules.PLATEAU["min_delta"]
        ):
            plateau |= {"best": accuracy, "wait": 0}
            return
        plateau["wait"] += 1
        if plateau["wait"] >= schedules.PLATEAU["patience"]:
            # Keras multiplies the float32 of the optimizer, and the optimizer rounds it again.
            self.facts["learning_rate"] = float(
                np.float32(
                    float(np.float32(self.facts["learning_rate"])) * schedules.PLATEAU["factor"]
                )
            )
            plateau["wait"] = 0

    @property
    def _counts(self) -> bool:
        """Whether the epoch that is going on has the density of the later ones."""
        p = self.parameters
        return schedules.density_reached(self.facts["epoch"], p["epochs"], p["density_start"])

    def _better(self, a: float, b: float, by: float = 0.0) -> bool:
        """Whether one accuracy beats another by more than `by`; an arm that seeks to be wrong wants
        less.
        """
        return a < b - by if self.experiment["arm"]["wrong"] else a > b + by

    def _evaluate(self, split: str) -> tuple[float, float]:
        """Mean loss, with the regularizers', and accuracy over a split."""
        sums = [
            self._call("evaluate", x, y, real)
            for x, y, real in self.feed.evaluation_batches(split, self.network["evaluation_batch"])
        ]
        loss, right, extra = np.asarray([[float(value) for value in row] for row in sums]).sum(
            axis=0
        )
        n = self.feed.size(split)
        return float(np.float32(loss / n + extra / len(sums))), float(np.float32(right / n))

    # --- the state on the device ------------------------------------------------------------------

    def _put(self, values: dict[str, np.ndarray]) -> None:
        self.state |= self._on_device(values)

    def _on_device(self, values: dict[str, np.ndarray]) -> dict[str, Any]:
        """Copies, in the variables' dtypes: a launch overwrites them."""
        import jax.numpy as jnp

        return {
            path: jnp.array(value, dtype=self.network["variables"][path]["dtype"])
            for path, value in values.items()
        }

    def _call(self, what: str, *arguments: Any) -> list[Any]:
        """Run a program on the state; return its own results."""
        import jax.numpy as jnp

        program = self.network[what]
        outputs = self.programs[what](
            [
                *(jnp.asarray(a) for a in arguments),
                *(self.state[path] for path in program["parameters"]),
            ]
        )
        self.state |= {path: outputs[index] for index, path in program["updates"]}
        return outputs[: len(outputs) - len(program["updates"])]

    def _of_parent(self, place: Path) -> dict[str, np.ndarray]:
        """What a finished result holds, by the variable it belongs to."""
        masks, state, weights = results.read_result(
            place, weights=self.experiment["arm"]["needs_weights"]
        )
        found = dict(weights)
        for path, variable in self.network["variables"].items():
            if variable["role"] == "logits":
                bits = np.unpackbits(
                    masks[path.removesuffix("_logits")], count=math.prod(variable["shape"])
                )
                found[path] = bits.astype(bool).reshape(variable["shape"])
            elif variable["role"] == "batch_norm":
                found[path] = state[path]
        return found

    def _masks(self) -> dict[str, Any]:
        """The masks, on the device, as bytes of 0 and 1 by layer path and name."""
        paths = [
            path.removesuffix("_logits")
            for path, v in self.network["variables"].items()
            if v["role"] == "logits"
        ]
        return dict(zip(paths, self._call("masks")))

    def _utilisation(self, masks: dict[str, Any]) -> list[dict[str, Any]]:
        rows = []
        for path, mask in masks.items():
            layer, _, name = path.rpartition("/")
            if name == "kernel":
                kind = (
                    "dense"
                    if mask.ndim == 2
                    else f"{mask.shape[0]}x{mask.shape[1]}"
                    + (" shortcut" if layer.endswith("shortcut") else "")
                )
                rows.append(
                    {
                        "layer": len(rows),
                        "path": layer,
                        "kind": kind,
                        "weights": mask.size,
                        "masked": 1.0 - int(mask.sum(dtype="int32")) / mask.size,
                    }
                )
        return rows

    @staticmethod
    def _masked(utilisation: list[dict[str, Any]]) -> float:
        return sum(row["masked"] * row["weights"] for row in utilisation) / sum(
            row["weights"] for row in utilisation
        )

    # --- files ------------------------------------------------------------------------------------

    @property
    def _folder(self) -> Path:
        return self.out / ".checkpoints" / self.name

    def _checkpoint(self) -> None:
        """Keep everything that training depends on, in place of what was kept before."""
        begun = time.monotonic()
        arrays = {f"state/{path}": self.state[path] for path in self.trained} | {
            f"best/{path}": value for path, value in self.best.items()
        }
        results.keep(
            self._folder,
            self.facts | self._belongs(),
            {path: np.asarray(value) for path, value in arrays.items()},
        )
        self._checkpointed = time.monotonic()
        self._cost = self._checkpointed - begun

    def _belongs(self) -> dict[str, Any]:
        """Without the same data and parent it is another run."""
        parent = self.parameters["init_from"]
        return {
            "fingerprint": self.images.fingerprint,
            "parent": files.sha256(self.out / parent / "summary.json") if parent else None,
        }

    def _resume(self) -> bool:
        """Go on from the state that was kept, if it is of this run; one that is damaged is not
        used.
        """
        self.facts["machines"] = [self.machine]
        try:
            found = results.kept(self._folder)
        except ValueError as error:
            print(f"{self.name}: {error} It begins again.", flush=True)
            return False
        if found is None or any(found[0][key] != value for key, value in self._belongs().items()):
            return False
        facts, arrays = found
        self.facts |= facts
        self.facts["machines"] = [m for m in facts["machines"] if m != self.machine] + [
            self.machine
        ]
        state, best = (
            {
                path.removeprefix(f"{what}/"): value
                for path, value in arrays.items()
                if path.startswith(f"{what}/")
            }
            for what in ("state", "best")
        )
        self._put(state | {"learning_rate": np.float32(facts["learning_rate"])})
        self.best = self._on_device(best)
        print(
            f"{self.name} goes on after epoch {facts['epoch']}, step {facts['step']}.", flush=True
        )
        return True

    def _write(self) -> None:
        p, facts, variables = self.parameters, self.facts, self.network["variables"]
        self.state |= self.best
        beside = (
            "batch_norm",
            "density",
            *(("logits", "draws") if p["draw_at_evaluation"] else ()),
        )
        state = {
            path: np.asarray(self.state[path])
            for path, v in variables.items()
            if v["role"] in beside
        }  # before the test draws anything
        test_loss, test_accuracy = self._evaluate("test")
        masks = self._masks()
        utilisation = self._utilisation(masks)
        best = facts["rows"][facts["best_epoch"] - 1]
        summary = {
            "best_epoch": facts["best_epoch"],
            "train_accuracy": best["accuracy"],
            "val_accuracy": best["val_accuracy"],
            "test_accuracy": test_accuracy,
            "test_loss": test_loss,
            **({"start_accuracy": facts["start_accuracy"]} if p["init_from"] else {}),
            "masked": self._masked(utilisation),
            "seconds": round(facts["seconds"], 1),
            "images_per_second": round(
                self.feed.steps * p["batch_size"] * p["epochs"] / facts["seconds"], 1
            ),
            "train_images": self.feed.size("train"),
            "test_images": self.feed.size("test"),
            "image_shape": list(self.images.image_shape),
            "classes": self.network["classes"],
            "fingerprint": self.images.fingerprint,
            "replicas": 1,
            "study": self.experiment["study"],
            **self._with_versions(facts["machines"][-1]),
            **(
                {"earlier_machines": [self._with_versions(m) for m in facts["machines"][:-1]]}
                if facts["machines"][1:]
                else {}
            ),
        }
        results.write_result(
            self.out / self.name,
            p,
            facts["rows"],
            utilisation,
            {path: np.packbits(np.asarray(mask)) for path, mask in masks.items()},
            state,
            {
                path: np.asarray(self.state[path])
                for path, v in variables.items()
                if v["role"] == "weights" and self.experiment["arm"]["leaves_weights"]
            },
            summary,
        )
        print(
            f"{self.name}  best epoch {facts['best_epoch']}: test accuracy {test_accuracy:.4f},"
            f" {summary['masked']:.1%} masked, {facts['seconds']:.0f} s.",
            flush=True,
        )

    def _with_versions(self, machine: dict[str, Any]) -> dict[str, Any]:
        """The machine, with the versions of what made the programs among its own."""
        return machine | {"versions": self.versions | machine["versions"]}
