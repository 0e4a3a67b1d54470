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

import gzip
import hashlib
import os
import tarfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .ground import archives

__all__ = [
    "DATASETS",
    "ImageData",
    "augment",
    "crop",
    "evaluation_batches",
    "load",
    "training_batches",
]

Split = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Source:
    """Where a dataset comes from: (file name, address, SHA-256 of the file), and how the files are
    read.
    """

    files: tuple[tuple[str, str, str], ...] = ()
    reader: str = ""
    fingerprint: str = (
        ""  # of the whole set in canonical order, where known: whatever edition it came from
    )


_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
DATASETS: dict[str, _Source] = {
    "digits": _Source(
        fingerprint="e4d34e3f212ad844c0fe11cec2c6feda1b492fb7a8bcff5f7f655145d871375f"
    ),
    "mnist": _Source(
        (
            (
                "mnist.npz",
                _KERAS + "mnist.npz",
                "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
            ),
        ),
        "npz",
        "d8c71252d0a1a35c2b3ad1a43759997a72a71e294fb7c749344bb3c67f0f7832",
    ),
    "fashion_mnist": _Source(
        (
            (
                "train-images-idx3-ubyte.gz",
                _KERAS + "train-images-idx3-ubyte.gz",
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            (
                "train-labels-idx1-ubyte.gz",
                _KERAS + "train-labels-idx1-ubyte.gz",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            (
                "t10k-images-idx3-ubyte.gz",
                _KERAS + "t10k-images-idx3-ubyte.gz",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            (
                "t10k-labels-idx1-ubyte.gz",
                _KERAS + "t10k-labels-idx1-ubyte.gz",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
        "idx",
        "d586f081113f888908ef60f44d0ca7e6d18e02f05357f2c6e23e7206d777fab4",
    ),
    "cifar10": _Source(
        (
            (
                "cifar-10-binary.tar.gz",
                _TORONTO + "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
        "cifar10",
        "bc6512f1b768f92c6d330e07a97e34a66fc1d606b35390aa2df1d2b31a84f992",
    ),
    "cifar100": _Source(
        (
            (
                "cifar-100-binary.tar.gz",
                _TORONTO + "cifar-100-binary.tar.gz",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
        "cifar100",
    ),
}


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
        return self.train[0].shape[1:]


def check_name(dataset: str) -> None:
    """Whether `dataset` is a known name or an existing `.npz`.

    Raises:
        ValueError: if it is neither.
        FileNotFoundError: if it is the path of an `.npz` that does not exist.
    """
    if str(dataset).endswith(".npz"):
        if not os.path.isfile(dataset):
            raise FileNotFoundError(
                f"dataset={dataset!r}: there is no such file; give the path of an existing .npz or"
                f" one of {', '.join(DATASETS)}."
            )
    elif dataset not in DATASETS:
        raise ValueError(
            f"Unknown dataset {dataset!r}: choose one of {', '.join(DATASETS)}, or give the path of"
            " an .npz."
        )


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
    known = DATASETS.get(dataset)
    arrays, where = (
        _digits()
        if dataset == "digits"
        else _read_npz(dataset)
        if known is None
        else _find(dataset)
    )
    x_train, y_train = _checked(arrays, "train", where)
    x_test, y_test = _checked(arrays, "test", where)
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise ValueError(
            f"{where}: x_train holds {x_train.dtype} images of shape {x_train.shape[1:]} but x_test"
            f" {x_test.dtype} of {x_test.shape[1:]}; give both alike."
        )
    _check_ranges(x_train, x_test, where)
    _check_layout(x_train.shape[1:], where)
    x_train, y_train = _canonical(x_train, y_train)
    x_test, y_test = _canonical(x_test, y_test)
    digest = hashlib.sha256()
    for array in (x_train, y_train, x_test, y_test):
        digest.update(np.ascontiguousarray(array))
    fingerprint = digest.hexdigest()
    if known and known.fingerprint not in ("", fingerprint):
        raise ValueError(
            f"{where} is not the {dataset} it should be (its fingerprint is {fingerprint[:12]}…,"
            f" not {known.fingerprint[:12]}…): replace the file, or give your own data by its path."
        )
    if len(x_train) < 10:
        raise ValueError(
            f"{where}: x_train holds {len(x_train)} images; give at least 10, since a tenth of them"
            " validate."
        )
    test = (x_test, y_test)
    if protocol == "original":
        train, validation = (x_train, y_train), test
    else:
        held = 5000 if len(x_train) >= 50000 else len(x_train) // 10
        train, validation = (x_train[held:], y_train[held:]), (x_train[:held], y_train[:held])
    _check_classes(train[1], validation[1], y_test, where)
    unscaled = x_train.dtype != np.uint8 or (protocol == "original" and dataset == "mnist")
    return ImageData(
        str(dataset),
        train,
        validation,
        test,
        int(max(y_train.max(), y_test.max())) + 1,
        fingerprint,
        (2.0 if unscaled else 2.0 / 255.0, -1.0),
    )


# The largest label sets the size of the last layer; a larger one is a mistake.
_MOST_CLASSES = 100_000
# What error messages say to do: to labels of any kind, and to images of any range.
_NUMBERED = "np.searchsorted(np.unique(y_train), y)"
_LOW_HIGH = "with low and high the least and the largest value of both splits"


# --- where the arrays come from -------------------------------------------------------------------


def _digits() -> tuple[dict[str, np.ndarray], str]:
    """scikit-learn's 1,797 digits of 8 × 8 pixels, 0 to 16, rescaled to 0 to 255; every fifth one
    (by content) tests.
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = _canonical(
        np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None],
        bunch.target.astype(np.int64),
    )
    test = np.arange(len(x)) % 5 == 0
    return {
        "x_train": x[~test],
        "y_train": y[~test],
        "x_test": x[test],
        "y_test": y[test],
    }, "scikit-learn's digits"


def _find(name: str) -> tuple[dict[str, np.ndarray], str]:
    """A named dataset from SUPERMASK_DATA, Keras's cache, or by download."""
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "datasets"
    folders = [Path(os.environ["SUPERMASK_DATA"])] if os.environ.get("SUPERMASK_DATA") else []
    for folder in (*folders, cache):
        if (folder / f"{name}.npz").is_file():
            return _read_npz(folder / f"{name}.npz")
    return _download(name, cache)


def _read_npz(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    try:
        # A quarter: images are held as they are read, in canonical order, and by TensorFlow.
        most = archives.memory() // 4
        return archives.read(path, ("x_train", "y_train", "x_test", "y_test"), most), str(path)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{path} can't be read as a dataset: {error}; give an .npz with x_train, y_train,"
            " x_test and y_test, none of them pickled."
        ) from error


def _download(name: str, cache: Path) -> tuple[dict[str, np.ndarray], str]:
    import tensorflow as tf
    from filelock import FileLock

    source, target, aside = DATASETS[name], cache / f"{name}.npz", cache / f".{name}"
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with FileLock(
            aside / "lock"
        ):  # of several runs one fetches it; the others wait, and find it whole
            if not target.is_file():
                paths = [
                    Path(
                        tf.keras.utils.get_file(
                            file,
                            address,
                            file_hash=digest,
                            hash_algorithm="sha256",
                            cache_dir=cache,
                            cache_subdir=aside.name,
                        )
                    )
                    for file, address, digest in source.files
                ]
                partial = paths[0]
                if source.reader != "npz":
                    partial = aside / f"{name}.npz"
                    np.savez_compressed(
                        partial,
                        **(
                            _read_idx(paths)
                            if source.reader == "idx"
                            else _read_cifar(paths[0], source.reader)
                        ),
                    )
                os.replace(partial, target)
                for path in paths:
                    path.unlink(missing_ok=True)
    # get_file raises a bare Exception for a failed download, ValueError for a wrong hash
    except Exception as error:
        raise FileNotFoundError(
            f"dataset={name!r} is neither in SUPERMASK_DATA"
            f" ({os.environ.get('SUPERMASK_DATA', 'not set')}) nor in {cache}, and its download"
            f" failed ({error}): put {name}.npz into one of them."
        ) from error
    return _read_npz(target)


def _read_idx(paths: list[Path]) -> dict[str, np.ndarray]:
    """The idx files of Fashion-MNIST: a big-endian header of 4 bytes and a size a dimension, then
    bytes.
    """
    arrays = {}
    for key, path in zip(("x_train", "y_train", "x_test", "y_test"), paths):
        content = gzip.decompress(path.read_bytes())
        dimensions = content[3]
        shape = np.frombuffer(content, ">i4", dimensions, 4)
        arrays[key] = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    return arrays


def _read_cifar(path: Path, edition: str) -> dict[str, np.ndarray]:
    """The binary edition of CIFAR: records of one label byte (two for CIFAR-100, the second being
    the fine one) and 3,072 bytes, channels first. Read straight from the archive: nothing is
    unpacked to disk.
    """
    folder, labels, train, test = {
        "cifar10": (
            "cifar-10-batches-bin",
            1,
            [f"data_batch_{i}.bin" for i in range(1, 6)],
            ["test_batch.bin"],
        ),
        "cifar100": ("cifar-100-binary", 2, ["train.bin"], ["test.bin"]),
    }[edition]
    arrays = {}
    with tarfile.open(path) as archive:
        for split, names in (("train", train), ("test", test)):
            content = b"".join(archive.extractfile(f"{folder}/{name}").read() for name in names)
            records = np.frombuffer(content, np.uint8).reshape(-1, labels + 3072)
            arrays[f"x_{split}"] = records[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            arrays[f"y_{split}"] = records[:, labels - 1]
    return arrays


def _checked(arrays: dict[str, np.ndarray], split: str, where: str) -> Split:
    """The images (n, rows, columns, channels) and labels (n,) of a split."""
    x, y = arrays[f"x_{split}"], arrays[f"y_{split}"]
    shapes = f"x_{split} has shape {x.shape} and y_{split} {y.shape}"
    if x.ndim == 3:
        x = x[..., None]
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if x.ndim != 4 or y.ndim != 1 or len(x) != len(y) or not x.size:
        raise ValueError(
            f"{where}: {shapes}; give images (n, rows, columns[, channels]) and as many labels (n,)"
            + (f": y_{split}.argmax(axis=1), if it has a column a class." if y.ndim == 2 else ".")
        )
    if not np.issubdtype(y.dtype, np.integer):
        convert = f"y_{split}.astype('int64')" if y.dtype.kind in "bf" else _NUMBERED
        raise ValueError(
            f"{where}: y_{split} holds {y.dtype}; give whole class numbers from 0: {convert}."
        )
    if y.min() < 0:
        raise ValueError(
            f"{where}: y_{split} holds {y.dtype} from {y.min()}; "
            f"give whole class numbers from 0: {_NUMBERED} for both splits."
        )
    if y.max() >= _MOST_CLASSES:
        raise ValueError(
            f"{where}: y_{split} holds a label of {y.max()}; "
            f"give class numbers from 0, each below {_MOST_CLASSES}."
        )
    if np.issubdtype(x.dtype, np.floating):
        if not np.isfinite(x).all():
            count = int((~np.isfinite(x)).sum())
            raise ValueError(
                f"{where}: x_{split} holds {count} values that are NaN or infinite; remove them."
            )
        if x.min() < 0 or x.max() > 1:
            raise ValueError(
                f"{where}: x_{split} holds floats from {_text(x.min())} to {_text(x.max())}; "
                f"give floats in [0, 1], or uint8 from 0 to 255: {_into_unit_range(x, split)}."
            )
        x = x.astype(np.float32)
    elif x.dtype != np.uint8:
        span = f" from {x.min()} to {x.max()}" if x.dtype.kind in "iu" else ""
        raise ValueError(
            f"{where}: x_{split} holds {x.dtype}{span}; give uint8, or floats in [0, 1]"
            + (f": {_into_unit_range(x, split)}." if x.dtype.kind in "biu" else ".")
        )
    return np.ascontiguousarray(x), y.astype(np.int64)


def _into_unit_range(x: np.ndarray, split: str) -> str:
    """What makes images of these values such as `_checked` accepts."""
    x_, low, high = f"x_{split}", x.min(), x.max()
    if x.dtype.kind == "b":
        return f"{x_}.astype('uint8') * 255"
    if x.dtype.kind in "iu" and 0 <= low and 128 <= high <= 255:
        return f"{x_}.astype('uint8')"
    if -1e-3 <= low and high <= 1.001:
        return f"np.clip({x_}, 0, 1) takes off what rounding has added"
    if low >= 0:
        divisor = 255 if 128 <= high <= 255 else _text(high)
        return f"{x_} / {divisor}, with the same divisor in both splits"
    if -1.001 <= low and high <= 1.001:
        return f"({x_} + 1) / 2, in both splits"
    return f"({x_} - low) / (high - low), {_LOW_HIGH}"


def _text(value: np.generic) -> str:
    """A number with as many digits as tell it from its neighbours."""
    return str(value).removesuffix(".0")


def _check_ranges(x_train: np.ndarray, x_test: np.ndarray, where: str) -> None:
    """See that the images use their range: 0 to 255 for uint8, 0 to 1 for floats.

    Digits from 0 to 16 that are read as 0 to 255 train to the accuracy of a guess, in silence.
    """
    low, high, kind = x_train.min(), x_train.max(), x_train.dtype
    whole = 255 if kind == np.uint8 else 1
    if low == high:
        raise ValueError(
            f"{where}: every value of x_train is {_text(low)}; give images that show something "
            "(if they were divided and then rounded, as they were before)."
        )
    # Who gives floats has scaled them: dark ones are taken at their word, down to a tenth.
    as_floats = "give floats: (x / 255).astype('float32')"
    if kind == np.uint8 and high < 128:
        raise ValueError(
            f"{where}: x_train holds uint8 from {low} to {high}, where 255 is the brightest: "
            "the network would see nearly black images. "
            f"Scale both splits: (x * (255 / {high})).round().astype('uint8')."
            + (f" If they are as dark as that, {as_floats}." if high > 25 else "")
        )
    if float(high) - float(low) < whole / 10:
        raise ValueError(
            f"{where}: x_train holds {kind} from {_text(low)} to {_text(high)}, less than a tenth "
            f"of what is between 0 and {whole}: the network would see next to nothing. "
            f"Give floats in [0, 1]: (x - low) / (high - low), {_LOW_HIGH}."
        )
    tested = x_test.max()
    if float(min(high, tested)) < float(max(high, tested)) / 4:
        raise ValueError(
            f"{where}: x_train goes up to {_text(high)} but x_test up to {_text(tested)}; "
            "scale both alike."
        )


def _check_layout(shape: tuple[int, int, int], where: str) -> None:
    """Refuse images that have their channels first, and warn of those that may have."""
    rows, columns, channels = shape
    # 4 × 4 pixels of 64 features may well be meant.
    if channels <= 4 or rows == columns or min(rows, columns) > 4:
        return
    read = (
        f"{where}: images of shape {shape} are read as {rows} rows, {columns} columns and "
        f"{channels} channels"
    )
    if columns > 4 and (rows in (3, 4) or columns == channels):
        raise ValueError(
            f"{read}, but look as if the channels came first. "
            "Put them last: x.transpose(0, 2, 3, 1) for both splits. "
            "If they are read rightly, exchange rows and columns: x.transpose(0, 2, 1, 3)."
        )
    warnings.warn(
        f"{read}. If the channels are not the last axis, put them there with x.transpose.",
        stacklevel=3,
    )


def _check_classes(train: np.ndarray, validation: np.ndarray, test: np.ndarray, where: str) -> None:
    """Refuse labels of one class, and warn of classes that can't be learned or never occur."""
    learned, judged = np.unique(train), np.unique(np.concatenate([validation, test]))
    if len(learned) < 2:
        raise ValueError(
            f"{where}: in y_train the {len(train)} training images all have the label "
            f"{learned[0]}; give images of at least two classes."
        )
    unlearned = np.setdiff1d(judged, learned)
    if len(unlearned):
        warnings.warn(
            f"{where}: no training image has the labels {_some(unlearned)}, but validation or test "
            "images have them: the network can't learn them. "
            "Give training images of every class.",
            stacklevel=3,
        )
    found = np.union1d(learned, judged)
    if len(found) <= found[-1]:
        first, missing = found[0], np.setdiff1d(np.arange(found[-1]), found)
        renumbered = f"y - {first}" if len(missing) == first else _NUMBERED
        warnings.warn(
            f"{where}: the labels go up to {found[-1]}, but no image has the labels "
            f"{_some(missing)}: the network gets outputs that are never right. "
            f"Number the classes from 0 without gaps: {renumbered} for both splits.",
            stacklevel=3,
        )


def _some(labels: np.ndarray) -> str:
    more = f" and {len(labels) - 5} more" if len(labels) > 5 else ""
    return ", ".join(map(str, labels[:5])) + more


def _canonical(x: np.ndarray, y: np.ndarray) -> Split:
    """The split ordered by the SHA-256 of each image's bytes and label: the same whatever order it
    came in.
    """
    keys = [
        hashlib.sha256(image.tobytes() + int(label).to_bytes(8, "little")).digest()
        for image, label in zip(x, y)
    ]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return x[order], y[order]


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
    rotation = tfa.image.angles_to_projective_transforms(
        draws[1] * (20 * np.pi / 180), float(rows), float(columns)
    )
    # Not tfa.image.translations_to_projective_transforms: in a graph with a known batch size,
    # TensorFlow's optimizer breaks it.
    shift = tf.stack(
        [ones, zeros, -draws[2] * 0.2 * columns, zeros, ones, -draws[3] * 0.2 * rows, zeros, zeros],
        axis=1,
    )
    return tfa.image.transform(
        images,
        tfa.image.compose_transforms([flip, rotation, shift]),
        interpolation="bilinear",
        fill_mode="nearest",
    )


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
    # Where the pixel (x, y) of the result comes from: sign·(x + right) and its mirror's offset, y +
    # down.
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


def _addons():
    """tensorflow_addons, without its end-of-life banner."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons as tfa
    return tfa


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
    that training can start again at any epoch. Every batch is full: what is left over at the end of
    an epoch waits for another one's order.

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
        drop_remainder: whether to leave out what fills no batch at the end.
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
    """Batches for the replicas of a `tf.distribute` strategy: each is cut into as many parts, one
    after the other, as there are replicas.

    So a step sees the same images as on one device, whichever machine holds which replica. Each
    machine makes the whole batch and takes its parts, since the augmentation is drawn for a batch.
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

    The thread that tunes sleeps for times that double from some milliseconds to a minute, and an
    iterator that goes away waits for it to wake (TensorFlow 2.15): every pass over a dataset took
    up to twice its time.
    """
    import tensorflow as tf

    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)
