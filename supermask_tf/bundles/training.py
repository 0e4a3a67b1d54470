"""Training one experiment of a bundle with JAX. No TensorFlow. ::

    training = Training(bundle, name, images, out)
    finished = training.run(programs, stop)     # False if `stop` said so: then the state is kept

The schedule of the learning rate, the choice of the epoch and the history are those of
`Experiment.run`.
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .. import data
from ..ground import files, schedules
from . import results, xla
from .bundle import Bundle, starting_values
from .feed import Feed

__all__ = ["Training"]

# A launch of several steps should not keep a signal or the clock waiting.
_LAUNCH_SECONDS = 0.5
# The share of the time that checkpoints may take.
_CHECKPOINT_SHARE = 0.05

# Values by variable path: arrays, or single numbers of NumPy's.
_Values = Mapping[str, np.ndarray | np.generic]


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
        self.name, self.images, self.out = name, images, out
        self.experiment, self.machine = bundle.experiments[name], xla.machine()
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
            # Chooses nothing; a record shows it.
            facts["start_accuracy"] = self._evaluate("test")[1]
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
        self._begin_epoch()
        waiting = None
        while facts["step"] < self.feed.steps:
            first = facts["step"] // chunk * chunk
            x, y = self.feed.batches(facts["epoch"], first)
            rates = self._rates(first)
            waiting, last = None, min(chunk, self.feed.steps - first)
            while facts["step"] - first < last:
                begin = facts["step"] - first
                end = min(last, begin + self.pace)
                begun = time.monotonic()
                loss = self._call("train", x, y, rates, np.int32(begin), np.int32(end))[0]
                # One launch ahead: the device has work while the host waits for the one before.
                if waiting is not None:
                    waiting.block_until_ready()
                    if time.monotonic() - begun < _LAUNCH_SECONDS / 2:
                        self.pace = min(chunk, 2 * self.pace)
                waiting, facts["step"] = loss, first + end
                if stop() and facts["step"] < self.feed.steps:
                    return False
        if waiting is not None:
            waiting.block_until_ready()
        return True

    def _begin_epoch(self) -> None:
        """Put what an epoch starts with on the device; in the middle of one, what a stopped run
        did not keep: the density.
        """
        p, facts = self.parameters, self.facts
        if facts["step"] == 0:
            self._put({path: np.zeros((), np.float32) for path in self._of_role("metrics")})
            if not self._counts:
                facts["plateau"] = {"best": None, "wait": 0}
        if p["density_start"]:
            density = schedules.density_at(
                facts["epoch"], p["epochs"], p["density_start"], p["density"]
            )
            self._put({path: np.float32(density) for path in self._of_role("density")})

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
        masked = results.masked_fraction(results.utilisation(self._masks()))
        rate = facts["learning_rate"]
        if p["schedule"] == "cosine":
            rate = schedules.cosine_rate(rate, facts["epoch"], p["epochs"])
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
            or p["keep"] == "last"
            or not self._counts
            or self._better(val_accuracy, facts["best_accuracy"])
        ):
            import jax.numpy as jnp

            facts["best_epoch"], facts["best_accuracy"] = epoch, val_accuracy
            self.best = {path: jnp.copy(self.state[path]) for path in self.kept}
        if p["schedule"] == "plateau":
            self._plateau(accuracy)
        images = self.feed.steps * p["batch_size"]
        print(
            f"{self.name}  epoch {epoch:>3}/{p['epochs']}   loss {loss:.4f}   accuracy"
            f" {accuracy:.4f}   val_accuracy {val_accuracy:.4f}   learning rate {rate:.0e}   masked"
            f" {masked:.1%}   {images / facts['epoch_seconds']:.0f} images/s",
            flush=True,
        )
        facts |= {"epoch": epoch, "step": 0, "epoch_seconds": 0.0}

    def _rates(self, first: int) -> np.ndarray:
        """The learning rate of each step of a chunk, float32, from the epoch's step `first` on."""
        p, chunk = self.parameters, self.network["chunk"]
        if p["schedule"] != "cosine":
            return np.full(chunk, self.facts["learning_rate"], np.float32)
        done, total = self.facts["epoch"] * self.feed.steps + first, p["epochs"] * self.feed.steps
        return np.array(
            [schedules.cosine_rate(p["learning_rate"], done + i, total) for i in range(chunk)],
            np.float32,
        )

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
        loss, right = self._answers(split)
        return loss, float(np.float32(right.sum() / len(right)))

    def _answers(self, split: str) -> tuple[float, np.ndarray]:
        """Mean loss, with the regularizers', over a split, and whether each of its images is
        answered rightly: booleans.
        """
        rows = [
            self._call("evaluate", x, y, real)
            for x, y, real in self.feed.evaluation_batches(split, self.network["evaluation_batch"])
        ]
        loss, extra = (sum(float(row[i]) for row in rows) for i in (0, 2))
        n = self.feed.size(split)
        right = np.concatenate([np.asarray(row[1]) for row in rows])[:n] > 0
        return float(np.float32(loss / n + extra / len(rows))), right

    def _renew_batch_norm(self) -> None:
        """Take batch norm's averages anew over the training images as they are, as
        `measuring.renew_batch_norm` does.
        """
        sums: list[np.ndarray] | None = None
        for first in range(0, self.feed.steps, self.network["chunk"]):
            end = np.int32(min(self.network["chunk"], self.feed.steps - first))
            x = self.feed.plain_batches(first)
            found = [np.asarray(s) for s in self._call("statistics", x, np.int32(0), end)]
            sums = found if sums is None else [a + b for a, b in zip(sums, found)]
        averages = (total / self.feed.steps for total in sums or ())
        self._put(dict(zip(self.network["moving_statistics"], averages)))

    # --- the state on the device ------------------------------------------------------------------

    def _of_role(self, *roles: str) -> list[str]:
        """The paths of the variables that have one of these roles."""
        return [path for path, v in self.network["variables"].items() if v["role"] in roles]

    def _put(self, values: _Values) -> None:
        self.state |= self._on_device(values)

    def _on_device(self, values: _Values) -> dict[str, Any]:
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
        paths = [path.removesuffix("_logits") for path in self._of_role("logits")]
        return dict(zip(paths, self._call("masks")))

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
        self._put(state)
        self.best = self._on_device(best)
        print(
            f"{self.name} goes on after epoch {facts['epoch']}, step {facts['step']}.", flush=True
        )
        return True

    def _write(self) -> None:
        """Test the best epoch, and write the result."""
        import jax.numpy as jnp

        p, facts = self.parameters, self.facts
        self.state |= {path: jnp.copy(value) for path, value in self.best.items()}
        renewed: dict[str, float] = {}
        if p["renew_batch_norm"]:
            for split, name in (("validation", "val"), ("test", "test")):
                renewed[f"moving_{name}_accuracy"] = self._evaluate(split)[1]
            # The number of masks drawn too is that of the recorded epoch again.
            self.state |= {path: jnp.copy(value) for path, value in self.best.items()}
            self._renew_batch_norm()
            renewed["val_accuracy"] = self._evaluate("validation")[1]
        drawn = ("logits", "draws") if p["draw_at_evaluation"] else ()
        state = self._arrays("batch_norm", "density", *drawn)  # before the test draws anything
        test_loss, right = self._answers("test")
        masks = self._masks()
        utilisation = results.utilisation(masks)
        tested = {
            "test_accuracy": float(np.float32(right.sum() / len(right))),
            "test_loss": test_loss,
        }
        summary = self._summary(tested | renewed, results.masked_fraction(utilisation))
        results.write_result(
            self.out / self.name,
            p,
            facts["rows"],
            utilisation,
            {path: np.packbits(np.asarray(mask)) for path, mask in masks.items()},
            state,
            self._arrays("weights") if self.experiment["arm"]["leaves_weights"] else {},
            summary,
            right,
        )
        print(
            f"{self.name}  best epoch {facts['best_epoch']}: test accuracy"
            f" {tested['test_accuracy']:.4f},"
            f" {summary['masked']:.1%} masked, {facts['seconds']:.0f} s.",
            flush=True,
        )

    def _arrays(self, *roles: str) -> dict[str, np.ndarray]:
        """The variables of these roles as they are on the device, by path."""
        return {path: np.asarray(self.state[path]) for path in self._of_role(*roles)}

    def _summary(self, measured: dict[str, float], masked: float) -> dict[str, Any]:
        """What the result's `summary.json` says, apart from the checksums."""
        p, facts = self.parameters, self.facts
        best = facts["rows"][facts["best_epoch"] - 1]
        images = self.feed.steps * p["batch_size"] * p["epochs"]
        *earlier, machine = facts["machines"]
        earlier = [self._with_versions(each) for each in earlier]
        return {
            "best_epoch": facts["best_epoch"],
            "train_accuracy": best["accuracy"],
            "val_accuracy": best["val_accuracy"],
            **measured,
            **({"start_accuracy": facts["start_accuracy"]} if p["init_from"] else {}),
            "masked": masked,
            "seconds": round(facts["seconds"], 1),
            "images_per_second": round(images / facts["seconds"], 1),
            "train_images": self.feed.size("train"),
            "test_images": self.feed.size("test"),
            "image_shape": list(self.images.image_shape),
            "classes": self.network["classes"],
            "fingerprint": self.images.fingerprint,
            "replicas": 1,
            "study": self.experiment["study"],
            **self._with_versions(machine),
            **({"earlier_machines": earlier} if earlier else {}),
        }

    def _with_versions(self, machine: dict[str, Any]) -> dict[str, Any]:
        """The machine, with the versions of what made the programs among its own."""
        return machine | {"versions": self.versions | machine["versions"]}
