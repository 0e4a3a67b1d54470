"""θ0 as a pure function of (seed, layer path, shape): the same bits on every machine and framework version.

The random bits come from numpy's Philox counter-based generator, read raw (numpy keeps the streams of its bit
generators fixed; the conversions of its `Generator` it may change). From there on only +, −, ×, ÷ and √ are used,
which IEEE 754 rounds correctly everywhere; logarithms and cosines differ between mathematical libraries, so there is no
normal distribution here. ::

    theta0 = initializers.glorot_uniform(seed=0, path="group1/block1/conv1/kernel", shape=(3, 3, 16, 16))
"""

import hashlib
from collections.abc import Sequence
from typing import Callable

import numpy as np

__all__ = ["fold", "get", "glorot_uniform", "he_uniform", "random_bits", "scores", "signed_constant", "signed_kaiming_constant"]


def _digest(seed: int, path: str, shape: Sequence[int] = ()) -> bytes:
    return hashlib.sha256(f"{int(seed)}|{path}|{','.join(str(int(n)) for n in shape)}".encode()).digest()


def fold(seed: int, path: str) -> int:
    """A non-negative 31-bit seed for what is drawn at `path`, for generators that take an int32."""
    return int.from_bytes(_digest(seed, path)[:4], "little") >> 1


def random_bits(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Raw random bits: a uint64 array of `shape`, a pure function of the three arguments."""
    key = np.frombuffer(_digest(seed, path, shape), dtype="<u8")[:2]
    return np.random.Philox(key=key).random_raw(int(np.prod(shape))).reshape(shape)


def _fans(shape: Sequence[int]) -> tuple[int, int]:
    """(fan_in, fan_out) of a kernel shaped (..., inputs, outputs), as Keras counts them."""
    if len(shape) < 2:
        raise ValueError(f"shape={tuple(shape)} is not a kernel's: give at least two dimensions, (..., inputs, outputs).")
    receptive = int(np.prod(shape[:-2]))
    return receptive * int(shape[-2]), receptive * int(shape[-1])


def _symmetric_uniform(seed: int, path: str, shape: Sequence[int], limit: float) -> np.ndarray:
    """Uniform on (−limit, limit), float32. 2²⁴ equally spaced values around zero, none of them zero."""
    k = (random_bits(seed, path, shape) >> np.uint64(40)).astype(np.float64)  # the 24 highest bits: exact in float64
    return (limit * ((2.0 * k + 1.0 - 2.0**24) / 2.0**24)).astype(np.float32)


def glorot_uniform(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±√(6 / (fan_in + fan_out)), float32 (Glorot and Bengio 2010, equation 16)."""
    return _symmetric_uniform(seed, path, shape, np.sqrt(6.0 / sum(_fans(shape))))


def he_uniform(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±√(6 / fan_in), float32 (He et al. 2015, equation 10, as a uniform distribution of that variance)."""
    return _symmetric_uniform(seed, path, shape, np.sqrt(6.0 / _fans(shape)[0]))


def signed_constant(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """±√(2 / (fan_in + fan_out)) with a random sign, float32.

    The constant is the standard deviation of `glorot_uniform`, as in Zhou et al. (2019, arXiv:1905.01067, section 5).
    """
    return _signed(seed, path, shape, np.sqrt(2.0 / sum(_fans(shape))))


def signed_kaiming_constant(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """±√(2 / fan_in) with a random sign, float32 (Ramanujan et al. 2020, arXiv:1911.13299, section 4).

    Their *scaled* one divides it by √density, which a layer does that is given `rescale="root"`.
    """
    return _signed(seed, path, shape, np.sqrt(2.0 / _fans(shape)[0]))


def _signed(seed: int, path: str, shape: Sequence[int], scale: float) -> np.ndarray:
    positive = (random_bits(seed, path, shape) >> np.uint64(63)).astype(bool)
    return np.where(positive, np.float32(scale), -np.float32(scale))


def scores(seed: int, path: str, shape: Sequence[int]) -> np.ndarray:
    """Uniform on ±1/√fan_in, float32: where the scores of edge-popup start (Ramanujan et al. 2020, arXiv:1911.13299, whose
    code takes PyTorch's default for a layer's weights). A vector, such as a bias's scores, counts its length as fan_in.
    """
    fan_in = _fans(shape)[0] if len(shape) > 1 else int(shape[0])
    return _symmetric_uniform(seed, path, shape, np.sqrt(1.0 / fan_in))


_KNOWN: dict[str, Callable[[int, str, Sequence[int]], np.ndarray]] = {
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
        raise ValueError(f"Unknown initializer {name!r}: choose one of {', '.join(sorted(_KNOWN))}.")
    return _KNOWN[name]
