"""The container under `packing`: preamble, header, coded masks, arrays, checksum. No TensorFlow.

It is described in the book, "The format of a packed supermask". Nothing that a file says is
believed before it is checked, and nothing is unpickled.
"""

import hashlib
import json
import math
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import initializers

__all__ = [
    "FORMAT", "Packed", "Stored", "as_bytes", "decoded", "encoded", "frequencies", "write",
]  # fmt: skip

FORMAT = 1

_MAGIC = b"\x89SMASK\r\n"
_PREAMBLE = struct.Struct("<8sIIIII")  # magic, format, header stored and as JSON, masks, arrays
_LARGEST_HEADER = 2**20  # as JSON too
_DIGEST = 32
_PRECISION = 24  # bits of a symbol's frequency
_SYMBOLS = 2**20  # coded at a time
_BYTES = 2**20  # read or inflated at a time
_DTYPES = {"float32": "<f4", "float16": "<f2", "int64": "<i8"}


def frequencies(counts: list[int]) -> list[int]:
    """Whole numbers in proportion to the counts, at least 1 each, 2²⁴ together."""
    total = sum(counts)
    found = [max(1, (count << _PRECISION) // total) for count in counts]
    found[found.index(max(found))] += 2**_PRECISION - sum(found)
    return found


def _model(frequencies: list[int]):
    """The coder's model with exactly these frequencies.

    Constriction gives each symbol a frequency of 1 and shares out the rest in proportion to the
    numbers given, here one less than the frequencies: the proportion is 1, and all sums are whole
    numbers below 2²⁴, exact in float32. So nothing is rounded.
    """
    import constriction

    rest = np.array(frequencies, np.float32) - np.float32(1)
    return constriction.stream.model.Categorical(rest, lazy=False, perfect=False)


def encoded(weights: list[dict], masks: dict[str, np.ndarray]) -> np.ndarray:
    """All masks as the words of one stack: what is decoded first is encoded last."""
    import constriction

    coder = constriction.stream.stack.AnsCoder()
    for entry in reversed(weights):
        if len(entry["values"]) < 2:
            continue
        flat, model = masks[entry["path"]].ravel(), _model(entry["frequencies"])
        for start in reversed(range(0, flat.size, _SYMBOLS)):
            symbols = np.searchsorted(entry["values"], flat[start : start + _SYMBOLS])
            coder.encode_reverse(symbols.astype(np.int32), model)
    return coder.get_compressed()


def decoded(weights: list[dict], stored: bytes) -> Iterator[np.ndarray]:
    """The masks that `encoded` coded, int8, one by one; `stored` has its words, little-endian."""
    import constriction

    words = np.frombuffer(stored, "<u4").astype(np.uint32)
    if words.size and not words[-1]:
        raise ValueError("its masks end in a word of zeros")
    coder = constriction.stream.stack.AnsCoder(words)
    for entry in weights:
        values = np.array(entry["values"], np.int8)
        mask = np.full(math.prod(entry["shape"]), values[0])
        if len(values) > 1:
            model = _model(entry["frequencies"])
            for start in range(0, mask.size, _SYMBOLS):
                block = mask[start : start + _SYMBOLS]
                block[:] = values[coder.decode(model, block.size)]
        yield mask.reshape(entry["shape"])
    if not coder.is_empty():
        raise ValueError("its masks hold more than the header says")


def write(path: Path, header: dict, masks: dict[str, np.ndarray], arrays: list[np.ndarray]) -> None:
    """Write a file beside its place and rename it there: nobody finds half of it.

    Args:
        path: the file.
        header: as the format has it, without "deflated".
        masks: integer arrays, by the paths of the header's weights.
        arrays: the header's arrays, in order.
    """
    words = encoded(header["weights"], masks)
    raw = sum(array.nbytes for array in arrays)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    # Beside the file and not in memory, where the arrays are already.
    with tempfile.TemporaryFile(dir=path.parent) as deflated:
        deflate = zlib.compressobj(9 if raw < _BYTES else 1)  # trained weights gain little, slowly
        for array in arrays:
            deflated.write(deflate.compress(as_bytes(array)))
        deflated.write(deflate.flush())
        smaller = deflated.tell() < raw
        size = deflated.tell() if smaller else raw
        deflated.seek(0)
        stored = iter(lambda: deflated.read(_BYTES), b"") if smaller else map(as_bytes, arrays)
        header = header | {"deflated": smaller}
        text = json.dumps(
            header, ensure_ascii=False, separators=(",", ":"), allow_nan=False
        ).encode()
        packed = zlib.compress(text, 9)
        if len(text) > _LARGEST_HEADER:
            raise ValueError(f"The header would have {len(text)} bytes: give less as `about`.")
        lengths = len(packed), len(text), 4 * words.size, size
        preamble = _PREAMBLE.pack(_MAGIC, FORMAT, *lengths)
        digest = hashlib.sha256()
        try:
            with open(partial, "wb") as file:
                for part in (preamble, packed, words.astype("<u4").tobytes(), *stored):
                    file.write(part)
                    digest.update(part)
                file.write(digest.digest())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


def as_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes, little-endian, row by row."""
    array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data


class Packed:
    """A file whose checksum, sizes and header have been checked. Nothing is taken into memory but
    the header; masks and arrays come one by one.

    Attributes:
        header: the header.
    """

    def __init__(self, stream: BinaryIO, limit: int):
        size = os.fstat(stream.fileno()).st_size
        start = stream.read(_PREAMBLE.size)
        if start[: len(_MAGIC)] != _MAGIC or len(start) < _PREAMBLE.size:
            raise ValueError("it is not one")
        _, version, packed, text, words, arrays = _PREAMBLE.unpack(start)
        if version > FORMAT:
            raise ValueError(
                f"it is of format {version}, this supermask_tf reads {FORMAT}: install a newer one"
            )
        whole = _PREAMBLE.size + packed + words + arrays + _DIGEST
        if version < 1 or max(packed, text) > _LARGEST_HEADER or whole != size:
            raise ValueError("it is damaged, or not all there: get it again")
        self._stream = stream
        digest = hashlib.sha256()
        for part in self._parts(0, size - _DIGEST):
            digest.update(part)
        if stream.read(_DIGEST) != digest.digest():
            raise ValueError("it is damaged (its checksum is another): get it again")
        stream.seek(_PREAMBLE.size)
        self.header = _parsed(stream.read(packed), text)
        _check(self.header, limit)
        self._places = (_PREAMBLE.size + packed, words), (_PREAMBLE.size + packed + words, arrays)

    def _parts(self, place: int, size: int) -> Iterator[bytes]:
        for start in range(0, size, _BYTES):
            self._stream.seek(place + start)  # others read between two parts
            yield self._stream.read(min(_BYTES, size - start))

    def masks(self) -> Iterator[tuple[dict, np.ndarray]]:
        """Each entry of the header's weights with its mask, an int8 array."""
        place, size = self._places[0]
        self._stream.seek(place)
        weights = self.header["weights"]
        # Strict: what follows the last mask is looked at too.
        yield from zip(weights, decoded(weights, self._stream.read(size)), strict=True)

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """The arrays that are stored, each with its path."""
        parts, left = self._inflated(*self._places[1]), b""
        for entry in self.header["arrays"]:
            array = np.empty(entry["shape"], _DTYPES[entry["dtype"]])
            target, filled = array.reshape(-1).view(np.uint8).data, 0
            while filled < len(target):
                left = left or next(parts, b"")
                if not left:
                    raise ValueError(f"the values of {entry['path']!r} are not all there")
                taken = left[: len(target) - filled]
                target[filled : filled + len(taken)] = taken
                filled, left = filled + len(taken), left[len(taken) :]
            yield entry["path"], array.astype(array.dtype.newbyteorder("="), copy=False)
        if left or next(parts, b""):
            raise ValueError("it stores more values than the header says")

    def _inflated(self, place: int, size: int) -> Iterator[bytes]:
        """The bytes of the arrays, at most `_BYTES` of them in memory at a time, never none."""
        if not self.header["deflated"]:
            yield from self._parts(place, size)
            return
        inflate = zlib.decompressobj()
        for part in self._parts(place, size):
            if inflate.eof:
                raise ValueError("its values are followed by others")
            while part:
                if made := inflate.decompress(part, _BYTES):
                    yield made
                part = inflate.unconsumed_tail
        if not inflate.eof or inflate.unused_data:
            raise ValueError("its values are damaged")


class Stored:
    """The arrays of a file as they are asked for: taken in the file's order, none waits in memory.

    Args:
        file: the file.
    """

    def __init__(self, file: Packed):
        self._coming = file.arrays()
        self._held: dict[str, np.ndarray] = {}
        self.paths = {entry["path"] for entry in file.header["arrays"]}

    def pop(self, path: str) -> np.ndarray | None:
        """The array at `path`, which is then gone; None if there is none."""
        if path not in self.paths:
            return None
        self.paths.remove(path)
        while path not in self._held:
            name, array = next(self._coming)
            self._held[name] = array
        return self._held.pop(path)

    def rest(self) -> dict[str, np.ndarray]:
        """All that was not asked for, and a look at the end of the file."""
        return self._held | dict(self._coming)


def _parsed(packed: bytes, size: int) -> dict:
    inflate = zlib.decompressobj()
    text = inflate.decompress(packed, size + 1)
    if len(text) != size or not inflate.eof or inflate.unused_data:
        raise ValueError("its header is not as long as it says")
    try:
        header = json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    return header


def _no_number(name: str):
    raise ValueError(f"its header holds {name}, which is no number of JSON")


def _check(header: dict, limit: int) -> None:
    """See that the header is one, and asks for no more values than the limit."""
    for key, form in (
        ("network", dict), ("phase", str), ("theta0", str), ("weights", list), ("arrays", list),
        ("about", dict), ("deflated", bool),
    ):  # fmt: skip
        if not isinstance(header.get(key), form):
            raise ValueError(f"its header has no {key}")
    total = 0
    for kind in ("weights", "arrays"):
        seen: set[str] = set()
        for entry in header[kind]:
            if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
                raise ValueError(f"one of its {kind} has no path")
            path, shape = entry["path"], entry.get("shape")
            if path in seen:
                raise ValueError(f"it has two {kind} {path[:80]!r}")
            seen.add(path)
            if (
                not isinstance(shape, list)
                or len(shape) > 8
                or not all(_whole(n, 0, 2**48) for n in shape)
            ):
                raise ValueError(f"{path[:80]!r} has no shape")
            total += math.prod(shape)
            (_check_weight if kind == "weights" else _check_array)(path[:80], entry)
    if total > limit:
        raise ValueError(
            f"it describes {total} values, more than limit={limit}: give more if you trust it"
        )


def _check_weight(path: str, entry: dict) -> None:
    start, values, frequencies = entry.get("start"), entry.get("values"), entry.get("frequencies")
    if start is not None:
        if not isinstance(start, list) or len(start) != 2 or not _whole(start[1], -(2**63), 2**63):
            raise ValueError(f"{path!r} has no start")
        initializers.get(str(start[0]))
    if not isinstance(values, list) or not all(_whole(value, -128, 127) for value in values):
        raise ValueError(f"the mask {path!r} has no values")
    if not values or sorted(set(values)) != values:
        raise ValueError(f"the values of the mask {path!r} do not ascend")
    if not isinstance(frequencies, list) or not all(
        _whole(f, 1, 2**_PRECISION) for f in frequencies
    ):
        raise ValueError(f"the mask {path!r} has no frequencies")
    if len(frequencies) != len(values) or sum(frequencies) != 2**_PRECISION:
        raise ValueError(f"the frequencies of the mask {path!r} do not add up")
    if "rescale" in entry and entry["rescale"] not in ("dynamic", "root", "gain"):
        raise ValueError(f"{path!r} is rescaled in an unknown way")
    if entry.get("masked_out", "frozen") != "frozen":
        raise ValueError(f"{path!r} is masked in an unknown way")


def _check_array(path: str, entry: dict) -> None:
    if entry.get("dtype") not in tuple(_DTYPES):
        raise ValueError(f"{path!r} is of the unknown type {str(entry.get('dtype'))[:80]!r}")


def _whole(value: Any, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most
