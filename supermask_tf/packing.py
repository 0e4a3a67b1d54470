"""A trained supermask as one small file: a seed, the bits, and what little else it needs. ::

    sm.save(model, "net.supermask")
    model = sm.load("net.supermask")                     # a SupermaskModel that predicts to the bit
    weights = sm.packing.read("net.supermask").weights   # M ⊙ θ as arrays; takes no TensorFlow

θ0 is not stored, since it is a function of the seed. The masks are coded by an existing entropy
coder, each at its own density. The format is a page of the book: "The format of a packed model".
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import initializers
from ._container import FORMAT, Packed, Stored, as_bytes, frequencies, write

__all__ = ["Contents", "FORMAT", "LIMIT", "export", "load", "read", "save"]

# The most values that a file may describe, unless the caller says otherwise: a few bytes can ask
# for any number of weights.
LIMIT = 2**26


@dataclass(frozen=True)
class Contents:
    """What a packed file holds.

    Attributes:
        header: the header, as the format's page describes it.
        masks: int8 arrays by weight path, such as "dense1/kernel".
        weights: float32 arrays by path: M ⊙ θ, rescaled where the network rescales, as plain layers
            have them, and batch norm.
    """

    header: dict[str, Any]
    masks: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


# --- writing --------------------------------------------------------------------------------------


def save(
    model, path: str | Path, float16: bool = False, about: dict[str, Any] | None = None
) -> Path:
    """Write a model as one packed file.

    Where weights differ from θ0, those that the mask keeps are stored. For a layer that draws its
    mask at evaluation the logits are stored, and all weights if they differ. What only training
    needs is left out: the optimizer, other logits, regularizers.

    Args:
        model: a `SupermaskModel` of masked layers, batch norm and layers without weights. Weights
            of an initializer that is not ours count as trained.
        path: the file, such as "net.supermask". One that is there is replaced.
        float16: store trained weights and batch norm in half precision.
        about: plain values (JSON's) for the header, for whoever reads the file.

    Returns:
        The path.

    Raises:
        ValueError: if the model has other layers or precisions, or values beyond float16.
    """
    from . import _graphs
    from .training import SupermaskModel

    if not isinstance(model, SupermaskModel):
        raise ValueError(f"model={type(model).__name__} can't be packed: give a SupermaskModel.")
    network = _recipe(model) or _graphs.describe(model)
    masks, entries, trained, theta0 = {}, [], {}, hashlib.sha256()
    norms = _graphs.batch_norms(model)
    arrays = {path: _rounded(path, v.numpy(), float16) for path, v in norms.items()}
    for layer_path, layer in model._by_path().items():
        beyond = _beyond(layer)
        arrays |= {f"{layer_path}/{name}": v.numpy() for name, v in beyond.items()}
        for name, mask in _masks(layer).items():
            weight_path = f"{layer_path}/{name}"
            masks[weight_path] = mask
            entries.append(_entry(layer, name, weight_path, mask))
            first = _first(entries[-1])
            if entries[-1]["start"]:
                theta0.update(as_bytes(first))
            whole = "draws" in beyond or layer.masked_out == "frozen"
            stored = _trained(_in_place(getattr(layer, name)), first, mask, whole)
            if stored is not None:
                trained[weight_path] = _rounded(weight_path, stored, float16)
    arrays |= trained  # behind the others, as they are read
    header = {
        "network": network,
        "phase": model.phase,
        "theta0": theta0.hexdigest(),
        "weights": entries,
        "arrays": [
            {"path": path, "shape": list(array.shape), "dtype": array.dtype.name}
            for path, array in arrays.items()
        ],
        "about": about or {},
    }
    write(Path(path), header, masks, list(arrays.values()))
    return Path(path)


def _recipe(model) -> dict[str, Any] | None:
    """The builder that made the network, if one did and its layers are masked alike."""
    from . import _graphs
    from .layers import masked_layers

    if not hasattr(model, "recipe"):
        return None
    asked = [_graphs.masking(layer) for layer in masked_layers(model)]
    if any(each != asked[0] for each in asked):
        return None
    return (
        json.loads(model.recipe) | {"masking": asked[0]}
        if "kernel_initializer" in asked[0]
        else None
    )


def _masks(layer) -> dict[str, np.ndarray]:
    """The layer's masks by weight; a bias that is not masked has an open one."""
    masks = layer.masks
    if layer.use_bias and "bias" not in masks:
        masks["bias"] = np.ones(layer.bias.shape, bool)
    return masks


def _entry(layer, name: str, path: str, mask: np.ndarray) -> dict[str, Any]:
    """What the header says of a weight and its mask."""
    values, number = np.unique(mask, return_counts=True)
    counts = dict(zip(values.astype(int).tolist(), number.tolist()))
    return {
        "path": path,
        "shape": list(mask.shape),
        "start": _start(layer, name),
        **({"rescale": layer.rescale} if layer.rescale and name == "kernel" else {}),
        **({} if layer.masked_out == "zero" else {"masked_out": layer.masked_out}),
        "values": list(counts),
        "frequencies": frequencies(list(counts.values())),
    }


def _start(layer, name: str) -> list | None:
    """How a weight begins: [initializer, seed]; None for zeros: biases, initializers not ours."""
    ours = name == "kernel" and isinstance(layer._kernel_initializer, str)
    return [layer._kernel_initializer, layer.seed] if ours else None


def _first(entry: dict[str, Any]) -> np.ndarray:
    """θ0 of a weight."""
    if entry["start"] is None:
        return np.zeros(entry["shape"], np.float32)
    name, seed = entry["start"]
    return initializers.get(name)(seed, entry["path"], tuple(entry["shape"]))


def _in_place(variable) -> np.ndarray:
    """A variable's values in its own memory: copies of all would be as large as the network."""
    import tensorflow as tf

    return np.asarray(tf.convert_to_tensor(variable))


def _trained(
    theta: np.ndarray, first: np.ndarray, mask: np.ndarray, everything: bool
) -> np.ndarray | None:
    """What must be stored of a weight: the values that the mask keeps, where they are not θ0."""
    if theta.dtype != np.float32:
        raise ValueError(f"A weight is {theta.dtype}: only float32 variables can be packed.")
    if everything or mask.all():
        kept, before = theta, first
    else:
        kept, before = theta[mask != 0], first[mask != 0]
    same = np.array_equal(kept.view(np.uint32), before.view(np.uint32))
    return None if same else kept


def _beyond(layer) -> dict[str, Any]:
    """Variables that a layer needs beside weights and masks.

    These are a ranking's density, and logits and draws where masks are drawn at evaluation too.
    """
    names: tuple[str, ...] = ("density",) if "density" in layer.estimator.parameters else ()
    if layer.estimator.draws and layer.draw_at_evaluation:
        names += ("kernel_logits", "bias_logits", "draws")
    found = {name: getattr(layer, name) for name in names}
    return {name: variable for name, variable in found.items() if variable is not None}


def _rounded(path: str, values: np.ndarray, float16: bool) -> np.ndarray:
    if not float16:
        return values
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16)
    if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
        raise ValueError(f"{path!r} goes beyond float16: save the model without float16.")
    return rounded


# --- reading --------------------------------------------------------------------------------------


def _sentence(function: Callable) -> Callable:
    """Whatever is wrong with a file is one sentence that names it.

    JSON, zlib, NumPy, TensorFlow and Keras each fail in ways of their own.
    """

    @functools.wraps(function)
    def guarded(path, *args, **kwargs):
        try:
            return function(path, *args, **kwargs)
        except OSError:
            raise
        except Exception as error:
            why = " ".join(str(error).split())[:500].rstrip(".") or type(error).__name__
            raise ValueError(f"{path} can't be read as a packed model: {why}.") from error

    return guarded


@_sentence
def read(path: str | Path, limit: int = LIMIT) -> Contents:
    """The weights of a packed file as arrays. It takes NumPy and the coder, and no TensorFlow.

    Args:
        path: the file.
        limit: the most weights and other values that it may describe.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, of a newer format, larger than `limit`, or its θ0 comes out
            with another digest here.
    """
    masks, weights, theta0 = {}, {}, hashlib.sha256()
    with open(path, "rb") as stream:
        file = Packed(stream, limit)
        stored = Stored(file)
        for entry, mask in file.masks():
            theta = _first(entry)
            if entry["start"]:
                theta0.update(as_bytes(theta))
            _overwrite(theta, stored.pop(entry["path"]), mask)
            if entry.get("rescale") == "gain":
                theta = np.sign(theta) * np.float32(
                    np.abs(theta[mask != 0]).mean() if mask.any() else 0
                )
            if "masked_out" not in entry:
                theta *= mask
            if entry.get("rescale", "gain") != "gain":
                theta *= _factor(entry["rescale"], mask)
            masks[entry["path"]], weights[entry["path"]] = mask, theta
        _same_theta0(theta0, file.header)
        others = stored.rest()
    beside = ("kernel_logits", "bias_logits", "density", "draws")
    for name, values in others.items():
        if name.rpartition("/")[2] not in beside:
            weights[name] = values.astype(np.float32)
    return Contents(file.header, masks, weights)


def _factor(rescale: str, mask: np.ndarray) -> np.float32:
    """What makes up for the weights that are gone; a layer's own may differ in the last bit."""
    gone = mask.size / max(np.count_nonzero(mask), 1)
    return np.float32(gone if rescale == "dynamic" else np.sqrt(gone))


@_sentence
def load(path: str | Path, limit: int = LIMIT):
    """The network of a packed file: a `SupermaskModel`, not compiled, that predicts as it did.

    Weights that the mask left out are those of θ0 again. Unless masks are drawn at evaluation, the
    logits of a mask are one number for in and one for out.

    Args:
        path, limit: as in `read`.

    Raises:
        FileNotFoundError, ValueError: as `read`; also if the estimator is not known here.
    """
    with open(path, "rb") as stream:
        file = Packed(stream, limit)
        model = _network(file.header)
        layers = _owners(model, file.header)
        theta0 = hashlib.sha256()
        for entry, layer in layers:
            if entry["start"]:
                theta0.update(as_bytes(layer.kernel.numpy()))
        _same_theta0(theta0, file.header)
        stored = Stored(file)
        _assign(model, stored, {entry["path"] for entry, _ in layers})
        for (entry, mask), (_, layer) in zip(file.masks(), layers, strict=True):
            _fill(layer, entry["path"].rpartition("/")[2], mask, stored.pop(entry["path"]))
        stored.rest()
        model.phase = file.header["phase"]
    return model


def _network(header: dict[str, Any]):
    """The network at θ0. Nothing gets memory whose shape the header does not list.

    Keras makes a layer's kernel first, and takes all else of its shapes from there.
    """
    import tensorflow as tf

    from . import _graphs, models
    from .training import SupermaskModel

    network, phase = header["network"], header["phase"]
    shapes = {entry["path"]: tuple(entry["shape"]) for entry in header["weights"]}
    scores = {f"{path}_logits": shape for path, shape in shapes.items()}
    with initializers.only(shapes | scores):
        if "builder" not in network:
            listed = {entry["path"]: tuple(entry["shape"]) for entry in header["arrays"]}
            return SupermaskModel(
                *_graphs.build(network, listed), name=network["name"], phase=phase
            )
        own = inspect.signature(models.BUILDERS[network["builder"]]).parameters
        arguments = _graphs.options(network["arguments"], own.keys() - {"phase", "masking"})
        masking = _graphs.options(network["masking"], _graphs.MASKING)
        before = tf.keras.mixed_precision.global_policy()
        try:
            tf.keras.mixed_precision.set_global_policy(_graphs.precision(network["precision"]))
            return models.build(network["builder"], **arguments, **masking, phase=phase)
        finally:
            tf.keras.mixed_precision.set_global_policy(before)


def _owners(model, header: dict[str, Any]) -> list[tuple[dict[str, Any], Any]]:
    """The header's weights, each with the layer that has it."""
    own = [
        (f"{path}/{name}", _start(layer, name), layer)
        for path, layer in model._by_path().items()
        for name in (("kernel", "bias") if layer.use_bias else ("kernel",))
    ]
    told = [(entry["path"], entry["start"]) for entry in header["weights"]]
    if told != [(path, start) for path, start, _ in own]:
        raise ValueError("the network and its weights do not belong together")
    return [(entry, layer) for entry, (_, _, layer) in zip(header["weights"], own, strict=True)]


def _assign(model, stored: Stored, weights: set[str]) -> None:
    """Give a network batch norm, densities, logits and draws."""
    from . import _graphs

    variables = _graphs.batch_norms(model)
    for layer_path, layer in model._by_path().items():
        variables |= {f"{layer_path}/{name}": v for name, v in _beyond(layer).items()}
    if wrong := variables.keys() ^ (stored.paths - weights):
        raise ValueError(f"it stores {min(wrong)!r} and its network has none, or the reverse")
    for path, variable in variables.items():
        variable.assign(stored.pop(path))


def _fill(layer, name: str, mask: np.ndarray, stored: np.ndarray | None) -> None:
    """Give a layer a mask, and trained values where there are some."""
    masked = name in layer.masks
    values = layer.estimator.values
    if masked and not np.isin(mask, values).all():
        known = " and ".join(map(str, values))
        raise ValueError(f"the mask of {layer.name!r} has other values than {known}")
    if not masked and not (mask == 1).all():
        raise ValueError(
            f"the {name} of {layer.name!r} is not masked, and the file has a mask for it"
        )
    if masked and "draws" not in _beyond(layer):  # else its logits are there already
        layer.set_masks(**{name: mask})
    if stored is not None:
        theta = getattr(layer, name).numpy().copy()
        _overwrite(theta, stored, mask)
        getattr(layer, name).assign(theta)


def _overwrite(theta: np.ndarray, stored: np.ndarray | None, mask: np.ndarray) -> None:
    """Put stored values in their places: everywhere, or where the mask keeps."""
    if stored is None:
        return
    if stored.shape == theta.shape:
        theta[...] = stored
    elif stored.shape == (np.count_nonzero(mask),):
        theta[mask != 0] = stored
    else:
        raise ValueError("it stores more or fewer values of a weight than its mask keeps")


def _same_theta0(found, header: dict[str, Any]) -> None:
    if found.hexdigest() != header["theta0"]:
        raise ValueError(
            f"its θ0 comes out with the digest {found.hexdigest()[:8]}… here and had "
            f"{header['theta0'][:8]}…: take the version of supermask_tf that wrote it"
        )


# --- for programs that know no masks --------------------------------------------------------------


def export(path: str | Path, to: str, output: str | Path) -> None:
    """Write the network of a packed file with plain layers, whose weights are M ⊙ θ, in float32.

    Args:
        path: the packed file.
        to: "keras" (a .keras file), "savedmodel" (a folder, with a function `serve`) or "tflite".
        output: the file or folder to make. A .keras file must be named so.

    Raises:
        FileNotFoundError, ValueError: as `load`; also if `to` or the name does not fit.
    """
    if to not in ("keras", "savedmodel", "tflite"):
        raise ValueError(f"Unknown form {to!r}: choose one of keras, savedmodel, tflite.")
    from . import masking

    output = Path(output)
    if to == "keras" and output.suffix != ".keras":
        raise ValueError(
            f"output={str(output)!r} is no name of a Keras file: let it end in .keras."
        )
    model = masking.plain(load(path), dtype="float32")
    if to == "keras":
        model.save(output)
    elif to == "savedmodel":
        model.export(output)
    else:
        import tensorflow as tf

        output.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
