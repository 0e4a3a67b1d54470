"""A trained network as a file, in every form that is common, each through the same compressor. ::

    for form in forms(model, "ticket"):
        form.name, form.positions, len(form.data)
        form.outputs(images)              # what the network that is read from these bytes makes

A supermask is a packed file. Weights that were trained are one in float32 or float16, or a file of
TensorFlow Lite with 8 bits per weight. Weights under a ticket's mask are stored without those that
the mask takes away; where the others belong is told in one of three ways.
"""

import json
import lzma
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from .. import _container, _graphs, masking, packing
from ..training import SupermaskModel

__all__ = ["Form", "POSITIONS", "PRECISIONS", "compressed", "forms", "read_sparse", "sparse"]

PRECISIONS = ("float32", "float16", "int8")
# How a sparse file says which weights it holds: one bit per weight; the gaps between them, a byte
# each; or the mask by an entropy coder, each layer at its own density.
POSITIONS = ("bits", "indices", "coded")

_Weights = dict[str, np.ndarray]
_LENGTHS = struct.Struct("<III")  # header, positions, values


@dataclass(frozen=True)
class Form:
    """A network as bytes.

    Attributes:
        name: "supermask", "float32", "float16", "int8", or "sparse float32" and so on.
        positions: of a sparse form, which of POSITIONS it has; else "".
        data: the file, through the compressor where that makes it smaller.
        outputs: what the network of these very bytes makes of images: float arrays (n, rows,
            columns, channels) to (n, classes).
    """

    name: str
    positions: str
    data: bytes
    outputs: Callable[[np.ndarray], np.ndarray]


def forms(model: SupermaskModel, arm: str) -> list[Form]:
    """The forms of a network that an arm has trained.

    Args:
        model: as the arm left it.
        arm: "mask", "weights" or "ticket".

    Raises:
        ValueError: if the arm is another one, or the network can't be packed.
    """
    if arm == "mask":
        return [_packed("supermask", model, float16=False)]
    if arm == "weights":
        floats = [_packed("float32", model, False), _packed("float16", model, True)]
        return [*floats, _lite(model)]
    if arm == "ticket":
        return [
            _sparse(model, precision, positions)
            for precision in PRECISIONS
            for positions in POSITIONS
        ]
    raise ValueError(f"arm={arm!r} has no forms: choose mask, weights or ticket.")


def compressed(content: bytes) -> bytes:
    """The content through LZMA at its strongest, or as it is where that is smaller."""
    packed = lzma.compress(content, format=lzma.FORMAT_ALONE, preset=9 | lzma.PRESET_EXTREME)
    return min(packed, content, key=len)


# --- packed files, and TensorFlow Lite's ----------------------------------------------------------


def _packed(name: str, model: SupermaskModel, float16: bool) -> Form:
    with tempfile.TemporaryDirectory() as folder:
        path = packing.save(model, Path(folder) / "net.supermask", float16)
        content, again = path.read_bytes(), packing.load(path)
    again.phase = "weights"  # nothing is drawn
    return Form(name, "", compressed(content), _of_keras(again))


def _of_keras(model: tf.keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    return lambda images: model.predict(images, batch_size=500, verbose=0)


def _lite(model: SupermaskModel) -> Form:
    """TensorFlow Lite's own quantisation: weights of 8 bits, one scale per layer, nothing else."""
    converter = tf.lite.TFLiteConverter.from_keras_model(masking.plain(model, dtype="float32"))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content = converter.convert()

    def outputs(images: np.ndarray) -> np.ndarray:
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=1)
        entry, end = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(entry["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(entry["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(end["index"])

    return Form("int8", "", compressed(content), outputs)


# --- sparse files ---------------------------------------------------------------------------------


def _sparse(model: SupermaskModel, precision: str, positions: str) -> Form:
    content = sparse(model, precision, positions)
    plain = masking.plain(model, dtype="float32")
    for path, weight in read_sparse(content).items():
        layer, _, name = path.rpartition("/")
        getattr(plain.get_layer(layer.replace("/", ".")), name).assign(weight)
    return Form(f"sparse {precision}", positions, compressed(content), _of_keras(plain))


def sparse(model: SupermaskModel, precision: str, positions: str) -> bytes:
    """The weights that the masks keep, and which they are.

    Kernels of 8 bits are whole numbers from −127 to 127 times a scale per layer, its largest
    magnitude over 127, as TensorFlow Lite has them; biases are then of half precision.

    Args:
        model: without batch norm, not rescaled.
        precision: one of PRECISIONS.
        positions: one of POSITIONS, for kernels; biases are stored whole.
    """
    entries, places, values = [], [], []
    layers = model._by_path()
    for path, mask in model.masks().items():
        layer, _, name = path.rpartition("/")
        kernel = name == "kernel"
        weight = getattr(layers[layer], name).numpy() * mask
        kept = weight[mask] if kernel else weight.ravel()
        entry: dict = {"path": path, "shape": list(mask.shape)}
        if kernel:
            counts = [mask.size - int(mask.sum()), int(mask.sum())]
            entry |= {"kept": counts[1], "frequencies": _container.frequencies(counts)}
            places.append(mask)
        entry["scale"] = 1.0
        if precision == "int8" and kernel:
            entry["scale"] = float(np.abs(kept).max(initial=0.0) / 127) or 1.0
            kept = np.rint(kept / np.float32(entry["scale"]))
        entries.append(entry)
        half = precision == "int8" and not kernel
        values.append(kept.astype("float16" if half else precision).tobytes())
    network = json.loads(getattr(model, "recipe", "null")) or _graphs.describe(model)
    header = {"network": network, "precision": precision, "positions": positions}
    text = json.dumps(header | {"weights": entries}, separators=(",", ":")).encode()
    told, stored = _told(entries, places, positions), b"".join(values)
    return _LENGTHS.pack(len(text), len(told), len(stored)) + text + told + stored


def _told(entries: list[dict], masks: list[np.ndarray], positions: str) -> bytes:
    """Which weights the masks keep."""
    if positions == "coded":
        told = [entry for entry in entries if "kept" in entry]
        coded = [entry | {"values": [0, 1]} for entry in told]
        words = _container.encoded(coded, {e["path"]: m for e, m in zip(told, masks)})
        return words.astype("<u4").tobytes()
    flat = np.concatenate([mask.ravel() for mask in masks])
    return np.packbits(flat).tobytes() if positions == "bits" else _gaps(np.flatnonzero(flat))


def _gaps(places: np.ndarray) -> bytes:
    """The distances between places less one, a byte each; 255 stands for 255 and goes on."""
    gaps = np.diff(places, prepend=-1) - 1
    longer = gaps // 255
    told = np.full(int(longer.sum()) + gaps.size, 255, np.uint8)
    told[np.cumsum(longer + 1) - 1] = gaps % 255
    return told.tobytes()


def _places(told: bytes) -> np.ndarray:
    """What `_gaps` told."""
    steps = np.frombuffer(told, np.uint8).astype(np.int64)
    ends = np.flatnonzero(steps < 255)
    return np.cumsum(steps)[ends] + np.arange(ends.size)


def read_sparse(content: bytes) -> _Weights:
    """The weights of a file that `sparse` wrote, float32 by path, zeros where it has none."""
    lengths = _LENGTHS.unpack_from(content)
    ends = np.cumsum([_LENGTHS.size, *lengths])
    text, told, stored = (content[a:b] for a, b in zip(ends, ends[1:]))
    header, place = json.loads(text), 0
    masks = _masks(header, told)
    weights: _Weights = {}
    for entry in header["weights"]:
        half = header["precision"] == "int8" and "kept" not in entry
        dtype = np.dtype("float16" if half else header["precision"])
        mask = masks.get(entry["path"], np.ones(entry["shape"], bool))
        kept = np.frombuffer(stored, dtype, int(mask.sum()), place).astype(np.float32)
        place += kept.size * dtype.itemsize
        weight = np.zeros(entry["shape"], np.float32)
        weight[mask] = kept * np.float32(entry["scale"])
        weights[entry["path"]] = weight
    return weights


def _masks(header: dict, told: bytes) -> dict[str, np.ndarray]:
    """The masks of the kernels, by path."""
    entries = [entry for entry in header["weights"] if "kept" in entry]
    if header["positions"] == "coded":
        coded = [entry | {"values": [0, 1]} for entry in entries]
        return dict(
            zip(
                (e["path"] for e in entries),
                (mask != 0 for mask in _container.decoded(coded, told)),
            )
        )
    sizes = [int(np.prod(entry["shape"])) for entry in entries]
    if header["positions"] == "bits":
        flat = np.unpackbits(np.frombuffer(told, np.uint8), count=sum(sizes)).astype(bool)
    else:
        flat = np.zeros(sum(sizes), bool)
        flat[_places(told)] = True
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return {entry["path"]: part.reshape(entry["shape"]) for entry, part in zip(entries, parts)}
