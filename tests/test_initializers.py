"""θ0: its bits are pinned, its distribution is the formula's, and it depends on seed, path and
shape alone.
"""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from supermask_tf import initializers

NAMES = ["glorot_uniform", "he_uniform", "signed_constant", "signed_kaiming_constant"]
CONV = (3, 3, 16, 16)
PINNED = [
    # initializer, seed, path, shape, bytes of the first three values, start of the SHA-256 of all
    # bytes
    (
        "glorot_uniform",
        0,
        "dense1/kernel",
        (784, 300),
        "1a9d1d3d0e7361bd2a2205bd",
        "38e2ee9fb5a4a2d693c166bb75528766",
    ),
    (
        "glorot_uniform",
        0,
        "group1/block1/conv1/kernel",
        CONV,
        "65d319bd9e881a3a2997283d",
        "a83c3609212d649c8c95d9c67dbd34f6",
    ),
    (
        "glorot_uniform",
        7,
        "group1/block1/shortcut/kernel",
        (1, 1, 16, 128),
        "e636fb3d7251d4bd00de42be",
        "75182ef1400cffcae121eb696ab6b4b0",
    ),
    (
        "he_uniform",
        0,
        "dense1/kernel",
        (784, 300),
        "0155393d7d8c84bdf18b1cbd",
        "f8a958cd57c5d2c7c566127690e9abe4",
    ),
    (
        "he_uniform",
        0,
        "group1/block1/conv1/kernel",
        CONV,
        "df8a59bd2a8b5a3a456c6e3d",
        "6f5960841a6ddb791675e518bcb7b6f5",
    ),
    (
        "he_uniform",
        7,
        "group1/block1/shortcut/kernel",
        (1, 1, 16, 128),
        "2d69bc3e153d9fbe802612bf",
        "1b55d9667cbbc00f089d83aa0e577dec",
    ),
    (
        "signed_constant",
        0,
        "dense1/kernel",
        (784, 300),
        "32f02f3d32f02fbd32f02fbd",
        "c3edc1237cc2c76fb5c1d8fa0d044d34",
    ),
    (
        "signed_constant",
        0,
        "group1/block1/conv1/kernel",
        CONV,
        "abaaaabdabaaaa3dabaaaa3d",
        "365a31af0277031d690d25f78b8107ea",
    ),
    (
        "signed_constant",
        7,
        "group1/block1/shortcut/kernel",
        (1, 1, 16, 128),
        "ef5bf13def5bf1bdef5bf1bd",
        "bb79c8ff81422bc126eedd005f097d67",
    ),
]


def fans(shape):
    receptive = math.prod(shape[:-2])
    return receptive * shape[-2], receptive * shape[-1]


@pytest.mark.parametrize("name, seed, path, shape, first, digest", PINNED)
def test_bits_are_pinned(name, seed, path, shape, first, digest):
    """θ0 has the bits it had when the committed runs were made: without them no record can be
    rebuilt.
    """
    values = initializers.get(name)(seed, path, shape)
    assert values.dtype == np.float32 and values.shape == shape
    assert values.ravel()[:3].astype("<f4").tobytes().hex() == first
    assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:32] == digest


def test_raw_bits_are_pinned():
    """The raw bits under θ0: numpy's Philox stream under our key."""
    bits = initializers.random_bits(0, "dense1/kernel", (2, 3))
    assert bits.dtype == np.uint64
    assert [hex(b) for b in bits.ravel()] == [
        "0xc234902d658bd025",
        "0x2458d0d1b3d4a077",
        "0x6c155166e3327d0c",
        "0x77c5acd5bdc9de83",
        "0x73d2d72ab6cebe6b",
        "0xfd5b1025865dd539",
    ]


@pytest.mark.parametrize(
    "seed, path, expected",
    [
        (0, "dense1/kernel", 542720396),
        (1, "dense1/kernel", 1243118277),
        (0, "conv1/bias", 861405574),
        (-3, "é/kernel", 349220178),
    ],
)
def test_fold_is_pinned(seed, path, expected):
    """The seeds of drawn masks stay what they were."""
    assert initializers.fold(seed, path) == expected


def test_fold_fits_int32_and_spreads():
    """A folded seed is a non-negative int32, and different paths and seeds give different ones."""
    folded = {initializers.fold(seed, f"layer{i}/kernel") for seed in range(20) for i in range(50)}
    assert len(folded) == 1000
    assert min(folded) >= 0 and max(folded) < 2**31
    assert max(folded) > 2**30  # all 31 bits are in use


def philox4x64(key, block):
    """Philox-4x64-10 of Salmon et al. (2011) in Python's integers, as an independent account of
    numpy's.
    """
    mask = 2**64 - 1
    counter, (k0, k1) = [block, 0, 0, 0], key
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * counter[0], 0xCA5A826395121157 * counter[2]
        counter = [(b >> 64) ^ counter[1] ^ k0, b & mask, (a >> 64) ^ counter[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return counter


@pytest.mark.parametrize(
    "seed, path, shape", [(0, "dense1/kernel", (784, 300)), (12345, "conv/kernel", (3, 3, 4, 8))]
)
def test_values_rederived_in_pure_python(seed, path, shape):
    """The first values of every initializer, from SHA-256 and Philox in Python's own integers and
    floats.
    """
    digest = hashlib.sha256(f"{seed}|{path}|{','.join(map(str, shape))}".encode()).digest()
    key = int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")
    raw = philox4x64(key, 1) + philox4x64(key, 2)  # numpy counts up before its first block
    fan_in, fan_out = fans(shape)
    for name, limit in (
        ("glorot_uniform", math.sqrt(6 / (fan_in + fan_out))),
        ("he_uniform", math.sqrt(6 / fan_in)),
    ):
        values = initializers.get(name)(seed, path, shape).ravel()[:8]
        assert [float(v) for v in values] == [
            float(np.float32(limit * ((2 * (bits >> 40) + 1 - 2**24) / 2**24))) for bits in raw
        ]
    for name, scale in (
        ("signed_constant", 2 / (fan_in + fan_out)),
        ("signed_kaiming_constant", 2 / fan_in),
    ):
        constant = float(np.float32(math.sqrt(scale)))
        assert [float(v) for v in initializers.get(name)(seed, path, shape).ravel()[:8]] == [
            constant if bits >> 63 else -constant for bits in raw
        ]


@pytest.mark.parametrize("shape", [(784, 300), (3, 3, 64, 128), (1, 1, 256, 512)])
@pytest.mark.parametrize("name", NAMES)
def test_distribution_is_the_formulas(name, shape):
    """Bounds, mean and variance are the formula's, and no weight is zero (a zero weight would look
    masked).
    """
    values = initializers.get(name)(1, "a/kernel", shape).astype(np.float64).ravel()
    fan_in, fan_out = fans(shape)
    variance = (
        2 / fan_in if name in ("he_uniform", "signed_kaiming_constant") else 2 / (fan_in + fan_out)
    )
    assert np.all(values != 0)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    if name.startswith("signed"):
        np.testing.assert_array_equal(
            np.unique(values), np.float32([-math.sqrt(variance), math.sqrt(variance)])
        )
    else:
        limit = math.sqrt(3 * variance)  # of a uniform distribution
        assert 0.999 * limit < np.abs(values).max() <= np.float32(limit)
        # The standard deviation of a uniform sample's variance is variance · √(0.8 / n).
        assert abs(values.var() / variance - 1) < 5 * math.sqrt(0.8 / values.size)
        counts, _ = np.histogram(values, bins=16, range=(-limit, limit))
        assert np.abs(counts - values.size / 16).max() < 5 * math.sqrt(values.size / 16)


@pytest.mark.parametrize("name", NAMES)
def test_depends_on_seed_path_and_shape_only(name):
    """The same three arguments give the same bits, in any order of calls; another of any gives
    unrelated ones.
    """
    draw = initializers.get(name)
    base = draw(0, "a/kernel", (40, 50))
    others = [
        draw(1, "a/kernel", (40, 50)),
        draw(0, "b/kernel", (40, 50)),
        draw(0, "a/kernel", (50, 40)).reshape(40, 50),
    ]
    np.random.seed(0)
    np.random.rand(5)
    np.testing.assert_array_equal(base, draw(0, "a/kernel", [np.int64(40), 50]))
    for other in others:
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 5 / math.sqrt(base.size)


@pytest.mark.parametrize("name", NAMES)
def test_a_vector_is_refused(name):
    """A shape without inputs and outputs raises a ValueError that names it."""
    with pytest.raises(ValueError, match=r"\(300,\).*two dimensions"):
        initializers.get(name)(0, "a/bias", (300,))


def test_unknown_name():
    """An unknown initializer is named, with those that there are."""
    with pytest.raises(
        ValueError, match="'glorot_normal'.*glorot_uniform, he_uniform, signed_constant"
    ):
        initializers.get("glorot_normal")


def test_loads_no_tensorflow():
    """θ0 can be drawn without TensorFlow (records and the book do)."""
    code = (
        "import sys, supermask_tf.initializers as i; i.glorot_uniform(0, 'a', (2,"
        " 3));sys.exit(sorted(m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras',"
        " 'pandas')) or 0)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr


def test_elus_constant():
    """±√(3/fan_in) in even shares: the size that the runs of Koster et al. were made with."""
    weights = initializers.elus_constant(0, "dense1/kernel", (784, 300))
    assert set(np.abs(weights).ravel()) == {np.float32(np.sqrt(3 / 784))}
    assert abs((weights > 0).mean() - 0.5) < 0.01


def test_random_starts():
    """Signed masks' logits are uniform on ±√(6/(fan_in + fan_out)), and Gem-Miner on (0, 1)."""
    logits = initializers.logits(0, "dense1/kernel_logits", (300, 100))
    assert abs(np.abs(logits).max() - np.sqrt(6 / 400)) < 1e-4 and abs(logits.mean()) < 1e-3
    assert np.abs(initializers.logits(0, "dense1/bias_logits", (100,))).max() < np.sqrt(6 / 200)
    scores = initializers.unit_interval(0, "dense1/kernel_logits", (300, 100))
    assert 0 < scores.min() < 1e-3 and 1 - 1e-3 < scores.max() < 1
