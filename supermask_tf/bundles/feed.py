"""Batches made on the device: it holds the images once, and chooses, augments and scales them. ::

    feed = Feed(images, batch_size=128, seed=0, augmented=True, chunk=32)
    # float32 (chunk, batch, rows, columns, channels), int64 (chunk, batch)
    x, y = feed.batches(epoch=0, first=0)

The order of the images and the draws of their augmentation come from the portable initializers'
bits: pure functions of (seed, epoch), the same on every device. They are other draws than
`data.training_batches` makes, of the same distribution.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import initializers
from ..data import ImageData
from .xla import load_jax

__all__ = ["Feed", "draw", "transformed"]


def transformed(images: Any, draws: Any) -> Any:
    """A horizontal flip, a rotation within ±20° and shifts within ±0.2 of the side, as
    `data.augment` makes them of its draws.

    Args:
        images: float32 JAX array (n, rows, columns, channels).
        draws: float32 (n, 4), each in [-1, 1): flips where below 0, the angle, and the shifts to
            the right and down.

    Returns:
        An array like `images`: one bilinear resampling, filled from the nearest edge.
    """
    import jax.numpy as jnp

    n, rows, columns, channels = images.shape
    flip, angle, right, down = (draws[:, i, None] for i in range(4))
    angle = angle * (20 * math.pi / 180)
    # Where each pixel of the result comes from: shifted, then turned about the middle, then
    # mirrored.
    pixel = jnp.arange(rows * columns)
    x = (pixel % columns).astype(jnp.float32) - right * (0.2 * columns) - (columns - 1) / 2
    y = (pixel // columns).astype(jnp.float32) - down * (0.2 * rows) - (rows - 1) / 2
    x, y = jnp.cos(angle) * x - jnp.sin(angle) * y, jnp.sin(angle) * x + jnp.cos(angle) * y
    x = jnp.clip(jnp.where(flip < 0, -x, x) + (columns - 1) / 2, 0, columns - 1)
    y = jnp.clip(y + (rows - 1) / 2, 0, rows - 1)
    left, top = jnp.floor(x), jnp.floor(y)
    flat = images.reshape(n, rows * columns, channels)

    def at(row, column):
        index = (jnp.minimum(row, rows - 1) * columns + jnp.minimum(column, columns - 1)).astype(
            jnp.int32
        )
        return jnp.take_along_axis(flat, index[..., None], axis=1, mode="clip")

    across, along = (x - left)[..., None], (y - top)[..., None]
    upper = at(top, left) * (1 - across) + at(top, left + 1) * across
    lower = at(top + 1, left) * (1 - across) + at(top + 1, left + 1) * across
    return (upper * (1 - along) + lower * along).reshape(images.shape)


def draw(images: int, batch_size: int, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """The order of an epoch's images, and the draws by which `transformed` changes each: a pure
    function of the arguments.

    Returns:
        int32 (steps, batch_size), and float32 (steps, batch_size, 4) in [-1, 1). Images left over
        after the full batches are not used in this epoch.
    """
    steps = images // batch_size
    order = np.argsort(initializers.random_bits(seed, f"order/{epoch}", (images,)), kind="stable")[
        : steps * batch_size
    ]
    bits = initializers.random_bits(seed, f"augment/{epoch}", (steps, batch_size, 4)) >> np.uint64(
        40
    )
    # 24 bits: exact in float32.
    draws = bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return order.astype(np.int32).reshape(steps, batch_size), draws


class Feed:
    """The images of an experiment on the device.

    Args:
        images: split and in canonical order, as `data.load` returns them.
        batch_size: images in a training step.
        seed: the experiment's.
        augmented: whether training images are flipped, turned and shifted.
        chunk: training batches that are made at a time.

    Attributes:
        steps: full batches in an epoch.
    """

    def __init__(
        self, images: ImageData, *, batch_size: int, seed: int, augmented: bool, chunk: int
    ):
        jax = load_jax()
        import jax.numpy as jnp

        self.steps = len(images.train[0]) // batch_size
        self._seed, self._batch_size, self._augmented, self._chunk = (
            seed,
            batch_size,
            augmented,
            chunk,
        )
        self._splits = {
            name: tuple(jnp.asarray(part) for part in getattr(images, name))
            for name in ("train", "validation", "test")
        }
        scale, offset = (np.float32(value) for value in images.scale)

        @jax.jit
        def choose(x, y, indices, draws=None):
            chosen = jnp.take(x, indices.ravel(), axis=0, mode="clip").astype(jnp.float32)
            if draws is not None:
                chosen = transformed(chosen, draws.reshape(-1, 4))
            return (chosen * scale + offset).reshape(*indices.shape, *x.shape[1:]), jnp.take(
                y, indices, mode="clip"
            )

        self._choose = choose
        self._drawn: tuple[int, np.ndarray, np.ndarray] | None = None

    def batches(self, epoch: int, first: int) -> tuple[Any, Any]:
        """`chunk` training batches of an epoch (counted from 0), from step `first` on; past the
        epoch's end its last batch is repeated.
        """
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, *draw(self.size("train"), self._batch_size, self._seed, epoch)
        _, order, draws = self._drawn
        steps = np.minimum(np.arange(first, first + self._chunk), self.steps - 1)
        return self._choose(
            *self._splits["train"], order[steps], draws[steps] if self._augmented else None
        )

    def plain_batches(self, first: int) -> Any:
        """The images of `chunk` batches of the training split in its own order, not augmented, from
        batch `first` on; past the last full batch that one is repeated.
        """
        steps = np.minimum(np.arange(first, first + self._chunk), self.steps - 1)
        indices = steps[:, None] * self._batch_size + np.arange(self._batch_size)
        return self._choose(*self._splits["train"], indices.astype(np.int32))[0]

    def evaluation_batches(
        self, split: str, batch_size: int
    ) -> Iterator[tuple[Any, Any, np.ndarray]]:
        """The split "validation" or "test" in order, as batches (x, y, real).

        The last batch is filled up with the last image: `real`, float32, is 1 for an image of the
        split and 0 for one that fills up.
        """
        n = self.size(split)
        for first in range(0, n, batch_size):
            place = np.arange(first, first + batch_size)
            yield (
                *self._choose(*self._splits[split], np.minimum(place, n - 1).astype(np.int32)),
                (place < n).astype(np.float32),
            )

    def size(self, split: str) -> int:
        """The number of images in a split."""
        return len(self._splits[split][0])
