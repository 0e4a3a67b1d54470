"""θ0 as a pure function of (seed, layer path, shape): the same bits on every machine and framework
version.

The random bits come from numpy's Philox counter-based generator, read raw (numpy keeps the streams
of its bit generators fixed; the conversions of its `Generator` it may change). From there on only
+, −, ×, ÷ and √ are used, which IEEE 754 rounds correctly everywhere; logarithms and cosines differ
between mathematical libraries, so there is no normal distribution here. ::

    theta0 = initializers.glorot_uniform(seed=0, path="conv/kernel", shape=(3, 3, 16, 16))
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

__all__ = [
    "elus_constant", "fold", "get", "glorot_uniform", "he_uniform", "listed", "logits", "only",
    "random_bits", "scores", "signed_constant", "signed_kaiming_constant", "unit_interval",
]  # fmt: skip

# Weights made at a time: a large kernel then takes little more memory than itself.
_BLOCK = 2**18
_expected: ContextVar[Mapping[str, Sequence[int]] | None] = ContextVar("expected", default=None)


@contextmanager
def only(shapes: Mapping[str, Sequence[int]]) -> Iterator[None]:
    """Inside, nothing is drawn but what has one of these shapes, by path.

    A network that a stranger's file describes is built under it: a kernel that the file does not
    list is refused before memory is taken.
    """
    token = _expected.set(shapes)
    try:
        yield
    finally:
        _expected.reset(token)


def _digest(seed: int, path: str, shape: Sequence[int] = ()) -> bytes:
    return hashlib.sha256(
        f"{int(seed)}|{path}|{','.join(str(int(n)) for n in shape)}".encode()
    ).digest()


def fold(seed: int, path: str) -> int:
    """A non-negative 31-bit seed for what is drawn at `path`, for generators that take an int32."""
    return int.from_bytes(_digest(seed, path)[:4], "little") >> 1


def random_bits(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Raw random bits: a uint64 array of `shape`, a pure function of the three arguments."""
    return _philox(seed, path, shape).random_raw(math.prod(shape)).reshape(shape)


def listed(path: str, shape: Sequence[int]) -> None:
    """See that `only`, if it is in force, names this path and shape.

    Raises:
        ValueError: if it does not.
    """
    expected = _expected.get()
    if expected is not None and tuple(expected.get(path, ())) != tuple(shape):
        raise ValueError(
            f"{path!r} of shape {tuple(shape)} is not among the weights that were announced: "
            "the network and its weights do not belong together."
        )


def _philox(seed: int, path: str, shape: Sequence[int]) -> np.random.Philox:
    listed(path, shape)
    return np.random.Philox(key=np.frombuffer(_digest(seed, path, shape), dtype="<u8")[:2])


def _blockwise(
    seed: int, path: str, shape: Sequence[int], values: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """`values(random_bits(seed, path, shape))` as float32, made block by block."""
    generator = _philox(seed, path, shape)
    made = np.empty(math.prod(shape), np.float32)
    for start in range(0, made.size, _BLOCK):
        block = made[start : start + _BLOCK]
        block[:] = values(generator.random_raw(block.size))
    return made.reshape(shape)


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel shaped (..., inputs, outputs), as Keras counts them."""
    if len(shape) < 2:
        raise ValueError(
            f"shape={tuple(shape)} is not a kernel's: give at least two dimensions, (..., inputs,"
            " outputs)."
        )
    receptive = int(np.prod(shape[:-2]))
    return receptive * int(shape[-2]), receptive * int(shape[-1])


def _symmetric_uniform(seed: int, path: str, shape: Sequence[int], limit: float) -> np.ndarray:
    """Uniform on (−limit, limit), float32. 2²⁴ equally spaced values around zero, none of them
    zero.
    """

    def values(bits):
        k = (bits >> np.uint64(40)).astype(np.float64)  # the 24 highest bits: exact in float64
        return limit * ((2.0 * k + 1.0 - 2.0**24) / 2.0**24)

    return _blockwise(seed, path, shape, values)


def glorot_uniform(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±√(6 / (fan_in + fan_out)), float32 (Glorot and Bengio 2010, equation 16)."""
    return _symmetric_uniform(seed, path, shape, np.sqrt(6.0 / sum(_fans(shape))))


def he_uniform(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±√(6 / fan_in), float32 (He et al. 2015, equation 10, as a uniform distribution of
    that variance).
    """
    return _symmetric_uniform(seed, path, shape, np.sqrt(6.0 / _fans(shape)[0]))


def signed_constant(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """±√(2 / (fan_in + fan_out)) with a random sign, float32.

    The constant is the standard deviation of `glorot_uniform`, as in Zhou et al. (2019,
    arXiv:1905.01067, section 5).
    """
    return _signed(seed, path, shape, np.sqrt(2.0 / sum(_fans(shape))))


def signed_kaiming_constant(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """±√(2 / fan_in) with a random sign, float32 (Ramanujan et al. 2020, arXiv:1911.13299, section
    4).

    Their *scaled* one divides it by √density, which a layer does that is given `rescale="root"`.
    """
    return _signed(seed, path, shape, np.sqrt(2.0 / _fans(shape)[0]))


def elus_constant(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """±√(3 / fan_in) with a random sign, float32: the ELUS of Koster et al. (2022,
    arXiv:2201.13361), for signed masks in networks of ELU units.

    Behind ELU a unit of variance 1 has a mean square of 0.645, so that weights of variance 1.55 /
    fan_in keep it; the authors take 1.5, and ELUS is scaled up from there, since a mask takes
    weights away. Their code has two sizes: the runs' settings multiply He's 2 / fan_in by 1.5 under
    the root, which is this one, and an example file multiplies its root by √3, which would be
    √(6 / fan_in). Taken is what their runs were made with.
    """
    return _signed(seed, path, shape, np.sqrt(3.0 / _fans(shape)[0]))


def _signed(seed: int, path: str, shape: Sequence[int], scale: float) -> np.ndarray:
    size = np.float32(scale)
    return _blockwise(seed, path, shape, lambda bits: np.where(bits >> np.uint64(63), size, -size))


def scores(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±1/√fan_in, float32: where the scores of edge-popup start (Ramanujan et al. 2020,
    arXiv:1911.13299, whose code takes PyTorch's default for a layer's weights). A vector, such as a
    bias's scores, counts its length as fan_in.
    """
    fan_in = _fans(shape)[0] if len(shape) > 1 else int(shape[0])
    return _symmetric_uniform(seed, path, shape, np.sqrt(1.0 / fan_in))


def logits(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±√(6 / (fan_in + fan_out)), float32: where the logits of signed masks start
    (Koster et al. 2022, arXiv:2201.13361, whose settings name Xavier's). A vector, such as a bias's
    logits, counts its length as both.
    """
    fans = sum(_fans(shape)) if len(shape) > 1 else 2 * int(shape[0])
    return _symmetric_uniform(seed, path, shape, np.sqrt(6.0 / fans))


def unit_interval(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on (0, 1), float32: where the scores of Gem-Miner start (Sreenivasan et al. 2022,
    arXiv:2202.12002, section 3).
    """
    return np.float32(0.5) + _symmetric_uniform(seed, path, shape, 0.5)


_KNOWN: dict[str, Callable[[int, str, Sequence[int]], np.ndarray]] = {
    "elus_constant": elus_constant,
    "glorot_uniform": glorot_uniform,
    "he_uniform": he_uniform,
    "signed_constant": signed_constant,
    "signed_kaiming_constant": signed_kaiming_constant,
}


def get(name: str) -> Callable[[int, str, Sequence[int]], np.ndarray]:
    """An initializer by name.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in _KNOWN:
        raise ValueError(
            f"Unknown initializer {name!r}: choose one of {', '.join(sorted(_KNOWN))}."
        )
    return _KNOWN[name]
