"""A bundle: compiled programs and what they need, as files that are read without TensorFlow. ::

    bundle = Bundle.open("paper")     # ValueError, in one sentence, if a file is damaged
    bundle.programs, bundle.experiments
    # θ0 and every other initial value, by variable path
    values = starting_values(program, experiment)

A bundle holds no arrays: every initial value is a recipe, a constant or a draw of the portable
initializers from the experiment's seed. `supermask export` writes bundles and copies this module
into them.
"""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import initializers, tickets
from ..ground import files

__all__ = ["PROGRAMS", "Bundle", "data_files", "starting_values", "write_bundle"]

FORMAT = 2
# What a network may be asked for; one without batch norm has no `statistics`.
PROGRAMS = ("train", "evaluate", "masks", "statistics")
_LARGEST_MANIFEST = 2**26


@dataclass(frozen=True)
class Bundle:
    """A bundle's folder, its files found whole.

    Attributes:
        folder: where it is.
        manifest: everything but the programs themselves: what `write_bundle` was given.
    """

    folder: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> "Bundle":
        """The bundle in a folder.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if a file is missing or not what was exported, or the format is of another
                version.
        """
        folder = Path(folder)
        place = folder / "manifest.json"
        if not place.is_file():
            raise FileNotFoundError(
                f"{folder} is no bundle: it has no manifest.json; make one with `supermask export`."
            )
        try:
            if place.stat().st_size > _LARGEST_MANIFEST:
                raise ValueError("it is too large")
            manifest = json.loads(place.read_text(encoding="utf-8"))
            if manifest.pop("checksum") != files.digest(manifest):
                raise ValueError("its checksum is another")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{place} is damaged ({' '.join(str(error).split())}): export or copy the bundle"
                " again."
            ) from error
        if manifest["format"] != FORMAT:
            raise ValueError(
                f"{place} is of format {manifest['format']}, not {FORMAT}: export the bundle again"
                " with this version."
            )
        for name, checksum in manifest["files"].items():
            if not (folder / name).is_file() or files.sha256(folder / name) != checksum:
                raise ValueError(
                    f"{folder / name} is damaged or missing: export or copy the bundle again."
                )
        return cls(folder, manifest)

    @property
    def programs(self) -> dict[str, dict[str, Any]]:
        """The distinct networks, by key: inputs, variables, and their PROGRAMS."""
        return self.manifest["programs"]

    @property
    def experiments(self) -> dict[str, dict[str, Any]]:
        """The experiments by name, parents before their children."""
        return self.manifest["experiments"]


def write_bundle(folder: Path, manifest: dict[str, Any], contents: dict[str, bytes]) -> None:
    """Write a bundle, whole, at `folder`, which does not exist yet.

    Args:
        manifest: what `Bundle.manifest` will hold, apart from the checksums.
        contents: its files by name.

    Raises:
        FileExistsError: if it exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: move it away, or give another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    manifest = {"format": FORMAT} | manifest | {"files": sums}
    with files.whole_folder(folder) as partial:
        for name, content in contents.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_bytes(content)
        whole = manifest | {"checksum": files.digest(manifest)}
        files.write_json(partial / "manifest.json", whole)


# --- initial values -------------------------------------------------------------------------------


def starting_values(
    program: dict[str, Any], experiment: dict[str, Any], parent: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The value with which each variable of an experiment starts.

    Args:
        program: of the manifest's `programs`: what each variable is, and its recipe.
        experiment: of the manifest's `experiments`: the parameters that the recipes ask for, and
            what the arm takes over.
        parent: what a finished parent holds, by variable path, where there is one: masks (booleans,
            at "<layer>/kernel_logits"), batch norm and, where the arm needs them, weights.

    Returns:
        Arrays of the manifest's shapes and dtypes, by variable path.
    """
    parameters, values = experiment["parameters"], {}
    for path, variable in program["variables"].items():
        ((kind, what),) = variable["recipe"].items()
        shape = tuple(variable["shape"])
        if kind == "theta0":
            value = initializers.get(parameters["initializer"])(parameters["seed"], what, shape)
        elif kind == "scores":
            value = initializers.scores(parameters["seed"], what, shape)
        else:
            value = np.full(shape, parameters[what] if kind == "parameter" else what)
        values[path] = value.astype(variable["dtype"])
    if parent:
        values |= _taken_over(program, experiment, values, parent)
    return values


def _taken_over(
    program: dict[str, Any],
    experiment: dict[str, Any],
    values: dict[str, np.ndarray],
    parent: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """What an arm takes over from its parent, in place of the values by recipe."""
    arm, parameters = experiment["arm"], experiment["parameters"]
    by_role: dict[str, dict[str, np.ndarray]] = {}
    for path, value in parent.items():
        by_role.setdefault(program["variables"][path]["role"], {})[path] = value
    masks = {path.removesuffix("_logits"): mask for path, mask in by_role["logits"].items()}
    taken: dict[str, np.ndarray] = {}
    if arm["mask"] == "open":
        masks = {}
    elif arm["mask"] == "ticket":
        kernels = {path: value for path, value in values.items() if path.endswith("/kernel")}
        masks = tickets.masks(
            kernels,
            parent,
            parameters["density"],
            parameters["criterion"],
            parameters["scope"],
            {path: mask for path, mask in masks.items() if path in kernels},
            parameters["seed"],
        )
    else:
        masks = {
            path: tickets.control(mask, arm["mask"], parameters["seed"], path)
            for path, mask in masks.items()
        }
    if arm["weights"] == "drawn_anew":
        for path in [path for path in values if path.endswith("/kernel")]:
            taken[path], masks[path] = tickets.drawn_anew(
                values[path],
                masks[path],
                parameters["redraw"],
                initializers.get(parameters["initializer"]),
                parameters["reinit_seed"],
                path,
            )
    taken |= {
        f"{path}_logits": np.where(mask, 1, -1).astype(np.float32) for path, mask in masks.items()
    }
    if arm["batch_norm"] == "parent" and not parameters["reset_batch_norm"]:
        taken |= by_role.get("batch_norm", {})
    if arm["weights"] == "parent":
        taken |= by_role["weights"]
    return taken


# --- files ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def data_files(paths: list[Path]) -> Iterator[dict[str, Path]]:
    """The `.npz` files given as such, or as parts: `cifar10.npz.aa`, `cifar10.npz.ab`, ... as
    `split` names them.

    Yields:
        The files by their name without `.npz`; those made of parts go away afterwards.

    Raises:
        FileNotFoundError: if one does not exist.
        ValueError: if a name does not say which `.npz` the file is, or a part of.
    """
    groups: dict[str, list[Path]] = {}
    for path in paths:
        name, dot, ending = path.name.partition(".npz")
        if not path.is_file():
            raise FileNotFoundError(f"--data {path}: there is no such file.")
        if not dot or (ending and not ending.startswith(".")):
            raise ValueError(
                f"--data {path}: give an .npz, or the parts of one named as in cifar10.npz.aa,"
                " cifar10.npz.ab."
            )
        groups.setdefault(name, []).append(path)
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for name, parts in groups.items():
            found[name] = parts[0]
            if len(parts) > 1 or parts[0].suffix != ".npz":  # a small file has one part
                found[name] = Path(folder) / f"{name}.npz"
                with open(found[name], "wb") as whole:
                    for part in sorted(parts):
                        whole.write(part.read_bytes())
        yield found
