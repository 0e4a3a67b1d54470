"""What training a bundle leaves in files: results, laid out as records are, and the state that a
stopped run goes on from. ::

    write_result(place, parameters, rows, utilisation, masks, state, weights, summary, right)
    masks, state, weights = read_result(place, weights=True)
    keep(folder, facts, arrays)
    facts, arrays = kept(folder)

A folder is whole or absent, every file has its SHA-256 in `summary.json` or `facts.json`, and large
arrays go to files below 16 MiB, since some machines pass on no larger ones. No pandas: this module
travels in bundles.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ..ground import archives, files

__all__ = [
    "finished", "keep", "kept", "masked_fraction", "read_result", "utilisation", "write_result",
]  # fmt: skip

_PART = 15 * 2**20


def finished(place: Path) -> bool:
    """Whether there is a result at `place`."""
    return (place / "summary.json").is_file()


def write_result(
    place: Path,
    parameters: dict[str, Any],
    rows: list[dict[str, Any]],
    utilisation: list[dict[str, Any]],
    masks: dict[str, np.ndarray],
    state: dict[str, np.ndarray],
    weights: dict[str, np.ndarray],
    summary: dict[str, Any],
    right: np.ndarray,
) -> None:
    """Write a result's folder, whole: the files of a record, and trained weights in parts.

    Args:
        rows, utilisation: the rows of `history.csv` and `utilisation.csv`.
        masks: packed bits by path, as `np.packbits` makes them.
        state: as in a record.
        weights: trained weights by path; empty where the arm trained none.
        summary: the summary without the checksums, which are added here.
        right: whether each test image was classified rightly, booleans.
    """
    with files.whole_folder(place) as partial:
        files.write_json(partial / "experiment.json", parameters)
        for name, table in (("history.csv", rows), ("utilisation.csv", utilisation)):
            lines = [",".join(table[0])]
            lines += [",".join(str(value) for value in row.values()) for row in table]
            (partial / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        np.savez_compressed(partial / "masks.npz", **masks)
        np.savez_compressed(partial / "state.npz", **state)
        np.savez_compressed(partial / "right.npz", right=np.packbits(right))
        if weights:
            _write_parts(partial, "weights", weights)
        checksums = {file.name: files.sha256(file) for file in sorted(partial.iterdir())}
        checksums["summary.json"] = files.digest(summary)
        files.write_json(partial / "summary.json", summary | {"checksums": checksums})


def utilisation(masks: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `utilisation.csv`: of each masked kernel, the fraction that is masked.

    Args:
        masks: arrays of 0 and 1 by path, of NumPy or on a device.
    """
    rows: list[dict[str, Any]] = []
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


def masked_fraction(rows: list[dict[str, Any]]) -> float:
    """The fraction of the weights that is masked, over all rows of `utilisation`."""
    return sum(row["masked"] * row["weights"] for row in rows) / sum(r["weights"] for r in rows)


def read_result(
    place: Path, weights: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Masks (packed bits), state and, if wanted, trained weights of a result, each by path.

    Raises:
        FileNotFoundError: if it is unfinished, or weights are wanted and did not come along.
        ValueError: if a file is damaged.
    """
    if not finished(place):
        raise FileNotFoundError(f"{place.name} is not finished in {place.parent}: train it first.")
    checksums = json.loads((place / "summary.json").read_text(encoding="utf-8"))["checksums"]
    trained = {}
    if weights:
        names = [name for name in checksums if name.startswith("weights-")]
        if not any((place / name).is_file() for name in names):
            raise FileNotFoundError(
                f"The trained weights of {place.name} are not beside its result ({names[0]}): bring"
                " them, or train that again."
            )
        trained = _read_parts(place, names, checksums)
    return (
        _read_parts(place, ["masks.npz"], checksums),
        _read_parts(place, ["state.npz"], checksums),
        trained,
    )


def keep(folder: Path, facts: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Keep a state, in place of the one kept before."""
    partial = _emptied(folder.with_name(f".{folder.name}"))
    names = _write_parts(partial, "part", arrays)
    content = {"facts": facts, "checksums": {name: files.sha256(partial / name) for name in names}}
    files.write_json(partial / "facts.json", content | {"checksum": files.digest(content)})
    before = folder.with_name(f".{folder.name}-before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        os.replace(folder, before)
    os.replace(partial, folder)
    shutil.rmtree(before, ignore_errors=True)


def kept(folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """The facts and arrays that were kept, or None.

    Raises:
        ValueError: if a file is damaged.
    """
    partial, place = folder.with_name(f".{folder.name}"), folder / "facts.json"
    if not folder.exists() and (partial / "facts.json").is_file():
        # All of it was written, but `keep` was cut off between its two renamings.
        os.replace(partial, folder)
    if not place.is_file():
        return None
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        if content.pop("checksum") != files.digest(content):
            raise ValueError("its checksum is another")
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{place} is damaged ({error}).") from error
    return content["facts"], _read_parts(folder, [*content["checksums"]], content["checksums"])


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _write_parts(folder: Path, stem: str, arrays: dict[str, np.ndarray]) -> list[str]:
    """Write arrays as `<stem>-00.npz`, ..., each below 16 MiB unless a single array is larger;
    return the names.
    """
    groups: list[dict[str, np.ndarray]] = [{}]
    for path, array in arrays.items():
        if groups[-1] and sum(a.nbytes + 1000 for a in groups[-1].values()) + array.nbytes > _PART:
            groups.append({})
        groups[-1][path] = array
    names = [f"{stem}-{index:02d}.npz" for index in range(len(groups))]
    for name, group in zip(names, groups):
        np.savez(folder / name, **group)
    return names


def _read_parts(folder: Path, names: list[str], checksums: dict[str, str]) -> dict[str, np.ndarray]:
    """The arrays that `_write_parts` wrote, by path.

    Raises:
        ValueError: if a file is missing or its SHA-256 is not the one in `checksums`.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in names:
        if not (folder / name).is_file() or files.sha256(folder / name) != checksums[name]:
            raise ValueError(f"{folder / name} is damaged or missing.")
        arrays |= archives.read(folder / name)
    return arrays
