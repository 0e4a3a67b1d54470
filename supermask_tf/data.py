"""Named image datasets as `tf.data`, their augmentation, and where they are found.

A dataset is a name or the path of an `.npz` in Keras's layout (`x_train`, `y_train`, `x_test`,
`y_test`). A named one is looked for in the folder `SUPERMASK_DATA`, then in Keras's own cache, and
then downloaded with its SHA-256. Nothing is unpickled. Before anything is drawn from a split it is
put into a canonical order, so that the same seed gives the same run whatever edition the images
came from. ::

    images = data.load("mnist")
    for x, y in data.training_batches(images, batch_size=128, seed=0, epochs=1):
        ...     # float32 in [-1, 1], int64

TensorFlow is imported by the functions that need it, so that names can be checked without it.
"""

import hashlib
import os
from dataclasses import dataclass

import numpy as np

from ._reading import (
    DATASETS,
    Split,
    canonical,
    check_classes,
    check_layout,
    check_name,
    checked,
    found,
)

__all__ = [
    "DATASETS",
    "ImageData",
    "augment",
    "crop",
    "evaluation_batches",
    "load",
    "training_batches",
]


@dataclass(frozen=True)
class ImageData:
    """A dataset, split and in canonical order.

    Attributes:
        name: its name, or the path it came from.
        train, validation, test: (images, labels): uint8 (or float32 in [0, 1]) of shape (n, rows,
            columns, channels), and int64 of shape (n,).
        classes: number of classes.
        fingerprint: SHA-256 of all images and labels in canonical order.
        scale: (a, b) so that a network is fed a·x + b.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    fingerprint: str
    scale: tuple[float, float]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        rows, columns, channels = self.train[0].shape[1:]
        return rows, columns, channels


def load(dataset: str, protocol: str = "study") -> ImageData:
    """A dataset by name or path, checked and split.

    Args:
        dataset: "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", or the path of an `.npz`
            in Keras's layout.
        protocol: "study": the first 5,000 training images in canonical order (a tenth where there
            are fewer than 50,000) validate, and networks are fed values in [-1, 1]. "original":
            what the post did: the test set validates, all training images train, and MNIST is fed
            as 2x − 1 without division by 255.

    Warns:
        UserWarning: if images look as if their axes were in another order, no image has some class
            number below the largest, or no training image has some class that is tested.

    Raises:
        ValueError: if the name or the protocol is unknown, or the arrays are missing, damaged, of a
            wrong shape or type, hold NaN, have channels first, span a range of values that a
            network would hardly see, or hold one class only.
        FileNotFoundError: if the set is neither on this machine nor to be downloaded.
    """
    check_name(dataset)
    if protocol not in ("study", "original"):
        raise ValueError(f"Unknown protocol {protocol!r}: choose study or original.")
    arrays, where = found(dataset)
    train, test = checked(arrays, where)
    check_layout(train[0].shape[1:], where)
    train, test = canonical(*train), canonical(*test)
    fingerprint = _fingerprint(train, test)
    _check_edition(dataset, fingerprint, where)
    if len(train[0]) < 10:
        raise ValueError(
            f"{where}: x_train holds {len(train[0])} images; give at least 10, since a tenth of"
            " them validate."
        )
    classes = int(max(train[1].max(), test[1].max())) + 1
    unscaled = train[0].dtype != np.uint8 or (protocol == "original" and dataset == "mnist")
    scale = (2.0 if unscaled else 2.0 / 255.0, -1.0)
    train, validation = _divided(train, test, protocol)
    check_classes(train[1], validation[1], test[1], where)
    return ImageData(str(dataset), train, validation, test, classes, fingerprint, scale)


def _fingerprint(*splits: Split) -> str:
    """The SHA-256 of all images and labels in their order."""
    digest = hashlib.sha256()
    for split in splits:
        for array in split:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _check_edition(dataset: str, fingerprint: str, where: str) -> None:
    """See that a named dataset holds the images that its name stands for, where these are known."""
    known = DATASETS.get(dataset)
    if known and known.fingerprint not in ("", fingerprint):
        raise ValueError(
            f"{where} is not the {dataset} it should be (its fingerprint is {fingerprint[:12]}…,"
            f" not {known.fingerprint[:12]}…): replace the file, or give your own data by its path."
        )


def _divided(train: Split, test: Split, protocol: str) -> tuple[Split, Split]:
    """What trains and what validates under a protocol, as `load` describes it."""
    if protocol == "original":
        return train, test
    x, y = train
    held = 5000 if len(x) >= 50000 else len(x) // 10
    return (x[held:], y[held:]), (x[:held], y[:held])


# --- batches --------------------------------------------------------------------------------------


def augment(images, seed: int, epoch, step):
    """The post's augmentation of a batch, a pure function of its arguments.

    A horizontal flip with probability ½, a rotation uniform in ±20° and shifts uniform in ±0.2 of
    each side, done as one bilinear resampling that fills from the nearest edge.

    Args:
        images: float32 tensor (n, rows, columns, channels).
        seed, epoch, step: integers, Python's or scalar tensors; together they give the draws.

    Returns:
        A tensor like `images`.
    """
    import tensorflow as tf

    tfa = _addons()
    key = _batch_key(seed, epoch, step)
    n, rows, columns = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([4, n], key, -1.0, 1.0, alg="philox")
    ones, zeros = tf.ones([n]), tf.zeros([n])
    sign = tf.sign(draws[0] + 1e-9)  # -1 mirrors: x -> columns - 1 - x
    flip = tf.stack(
        [sign, zeros, (1 - sign) * (columns - 1) / 2, zeros, ones, zeros, zeros, zeros], axis=1
    )
    rotate = tfa.image.angles_to_projective_transforms if tfa else _rotation
    rotation = rotate(draws[1] * (20 * np.pi / 180), float(rows), float(columns))
    # Not tfa.image.translations_to_projective_transforms: in a graph with a known batch size,
    # TensorFlow's optimizer breaks it.
    shift = tf.stack(
        [ones, zeros, -draws[2] * 0.2 * columns, zeros, ones, -draws[3] * 0.2 * rows, zeros, zeros],
        axis=1,
    )
    if tfa is None:
        return _resampled(images, [flip, rotation, shift])
    return tfa.image.transform(
        images,
        tfa.image.compose_transforms([flip, rotation, shift]),
        interpolation="bilinear",
        fill_mode="nearest",
    )


def _addons():
    """tensorflow_addons, without its end-of-life banner; None where it is not installed, as for no
    TensorFlow after 2.15.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import tensorflow_addons as tfa
        except ImportError:
            return None
    return tfa


# Without it the same operation of TensorFlow is called directly, on transforms made by the same
# steps in the same order: another order would give other bits than the committed records have.


def _resampled(images, transforms: list):
    """Images under projective transforms (n, 8), one after the other, as one bilinear resampling
    that fills from the nearest edge.

    A transform [a0, a1, a2, b0, b1, b2, c0, c1] takes the pixel (x, y) of the result from
    (a0·x + a1·y + a2, b0·x + b1·y + b2) / (c0·x + c1·y + 1).
    """
    import tensorflow as tf

    first, *others = (
        tf.reshape(tf.concat([each, tf.ones_like(each[:, :1])], axis=1), [-1, 3, 3])
        for each in transforms
    )
    for matrices in others:
        first = tf.matmul(first, matrices)
    flat = tf.reshape(first, [-1, 9])
    flat /= flat[:, 8:9]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=flat[:, :8],
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def _rotation(angles, rows: float, columns: float):
    """The projective transforms (n, 8) that turn images of `rows` × `columns` about their middle by
    `angles` (n,), in radians.
    """
    import tensorflow as tf

    cos, sin, zeros = tf.cos(angles), tf.sin(angles), tf.zeros_like(angles)
    right = ((columns - 1) - (cos * (columns - 1) - sin * (rows - 1))) / 2.0
    down = ((rows - 1) - (sin * (columns - 1) + cos * (rows - 1))) / 2.0
    return tf.stack([cos, -sin, right, sin, cos, down, zeros, zeros], axis=1)


def crop(images, seed: int, epoch, step, frame: int = 4):
    """The usual augmentation of CIFAR-10, a pure function of its arguments.

    A horizontal flip with probability ½, then a crop of the image's own size out of the image in a
    frame of `frame` black pixels, each of the (2·frame + 1)² places as likely as another. Pixels
    are moved, never mixed.

    Args:
        images: float32 tensor (n, rows, columns, channels), 0 for black.
        seed, epoch, step: integers, Python's or scalar tensors; together they give the draws.

    Returns:
        A tensor like `images`.
    """
    import tensorflow as tf

    key = _batch_key(seed, epoch, step)
    n, rows, columns = tf.shape(images)[0], images.shape[1], images.shape[2]
    draws = tf.random.stateless_uniform([3, n], key, alg="philox")
    sign = tf.where(draws[0] < 0.5, -1.0, 1.0)  # -1 mirrors: x -> columns - 1 - x
    right, down = (tf.floor(draws[i] * (2 * frame + 1)) - frame for i in (1, 2))
    ones, zeros = tf.ones([n]), tf.zeros([n])
    # The pixel (x, y) of the result comes from (sign·(x + right) + offset, y + down); the offset is
    # columns − 1 where the image is mirrored, else 0.
    where = tf.stack(
        [
            sign,
            zeros,
            sign * right + (1 - sign) * (columns - 1) / 2,
            zeros,
            ones,
            down,
            zeros,
            zeros,
        ],
        axis=1,
    )
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=where,
        output_shape=[rows, columns],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )


def _batch_key(seed, epoch, step):
    """The key of a batch's draws: int32[2]."""
    import tensorflow as tf

    return tf.random.experimental.stateless_fold_in(
        tf.stack([tf.cast(seed, tf.int32), tf.cast(epoch, tf.int32)]), tf.cast(step, tf.int32)
    )


def training_batches(
    images: ImageData,
    *,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    augmented: bool | str = True,
):
    """Shuffled training batches of `epochs` epochs, one after the other, as a `tf.data.Dataset` of
    (x, y).

    The order of epoch e and the augmentation of its step s are pure functions of (seed, e, s), so
    that training can start again at any epoch. Every batch is full: images left over at the end of
    an epoch are not used in it.

    Args:
        augmented: whether images are augmented as `augment` does, or "crop": as `crop` does.

    Raises:
        ValueError: if the training split is smaller than a batch.
    """
    import tensorflow as tf

    x, y = images.train
    if batch_size > len(x):
        raise ValueError(
            f"batch_size={batch_size} is more than the {len(x)} training images of {images.name}:"
            " give at most that many."
        )
    with tf.device("CPU"):
        x, y = tf.constant(x), tf.constant(y)

    def batches_of(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(tf.shape(y)[0]), tf.stack([seed, tf.cast(epoch, tf.int32)]), alg="philox"
        )
        batches = (
            tf.data.Dataset.from_tensor_slices(order)
            .batch(batch_size, drop_remainder=True)
            .enumerate()
        )
        return batches.map(lambda step, indices: (epoch, step, indices))

    def batch(epoch, step, indices):
        chosen = tf.cast(tf.gather(x, indices), tf.float32)
        if augmented:
            chosen = (crop if augmented == "crop" else augment)(chosen, seed, epoch, step)
        return chosen * images.scale[0] + images.scale[1], tf.gather(y, indices)

    numbers = tf.data.Dataset.range(first_epoch, first_epoch + epochs)
    return _untuned(numbers.flat_map(batches_of).map(batch, num_parallel_calls=os.cpu_count() or 1))


def evaluation_batches(
    images: ImageData, split: str, batch_size: int = 500, drop_remainder: bool = False
):
    """The split "train", "validation" or "test", in order and as it is, as a `tf.data.Dataset` of
    (x, y).

    Args:
        drop_remainder: whether to leave out the last images where they fill no batch.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        batches = tf.data.Dataset.from_tensor_slices(getattr(images, split)).batch(
            batch_size, drop_remainder
        )
    return _untuned(
        batches.map(lambda x, y: (tf.cast(x, tf.float32) * images.scale[0] + images.scale[1], y))
    )


def shared_out(batches, strategy):
    """Batches for the replicas of a `tf.distribute` strategy: each batch is cut into one part per
    replica.

    A step then sees the same images as on one device, whichever machine holds which replica. Each
    machine makes the whole batch and takes its parts, since augmentation is drawn batch by batch.
    """
    import tensorflow as tf

    replicas = strategy.num_replicas_in_sync

    def parts(context):
        here = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * here

        def cut(x, y):
            n = tf.shape(y, tf.int64)[0]
            numbers = tf.data.Dataset.range(first, first + here)
            return numbers.map(
                lambda i: (
                    x[n * i // replicas : n * (i + 1) // replicas],
                    y[n * i // replicas : n * (i + 1) // replicas],
                )
            )

        return _untuned(batches.flat_map(cut))

    return strategy.distribute_datasets_from_function(parts)


def _untuned(batches):
    """The batches, two ahead of their use, without tf.data's autotuning.

    In TensorFlow 2.15 an iterator that goes away waits for the tuning thread to wake, which sleeps
    for a few milliseconds first and up to a minute later: with it, a pass over a dataset took up to
    twice as long.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
