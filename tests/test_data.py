"""Named datasets, their canonical order, batches and augmentation."""

import dataclasses
import gzip
import hashlib
import io
import os
import re
import tarfile
import time

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import data

DIGITS = "e4d34e3f212ad844c0fe11cec2c6feda1b492fb7a8bcff5f7f655145d871375f"
MNIST = "d8c71252d0a1a35c2b3ad1a43759997a72a71e294fb7c749344bb3c67f0f7832"
CIFAR10 = "bc6512f1b768f92c6d330e07a97e34a66fc1d606b35390aa2df1d2b31a84f992"


def batches_of(images, **options):
    return [(x.numpy(), y.numpy()) for x, y in data.training_batches(images, **options)]


def same(left, right):
    return len(left) == len(right) and all(
        np.array_equal(a, c) and np.array_equal(b, d) for (a, b), (c, d) in zip(left, right)
    )


# --- canonical order and splits -------------------------------------------------------------------


def test_shuffled_edition_gives_same_fingerprint_and_batches(npz, arrays):
    """The same seed gives the same run whatever order the images came in."""
    given = arrays()
    random = np.random.default_rng(1)
    shuffled = {}
    for split in ("train", "test"):
        order = random.permutation(len(given[f"x_{split}"]))
        shuffled |= {f"{key}_{split}": given[f"{key}_{split}"][order] for key in "xy"}
    one, other = data.load(npz(given)), data.load(npz(shuffled, "shuffled"))
    assert one.fingerprint == other.fingerprint
    options = {"batch_size": 16, "seed": 3, "epochs": 2}
    assert same(batches_of(one, **options), batches_of(other, **options))


@pytest.mark.parametrize("key", ["x_train", "y_train", "x_test", "y_test"])
def test_fingerprint_covers_every_array(npz, arrays, key):
    """One other pixel or label is another dataset."""
    given = arrays()
    before = data.load(npz(given)).fingerprint
    given[key][0] = (given[key][0] + 1) % 4
    assert data.load(npz(given)).fingerprint != before


def test_fingerprint_is_that_of_the_bytes(npz, arrays):
    """The fingerprint is SHA-256 over the arrays in canonical order: a record made today can be
    checked by anyone.
    """
    given = arrays()
    digest = hashlib.sha256()
    for split in ("train", "test"):
        pairs = sorted(
            zip(given[f"x_{split}"], given[f"y_{split}"].astype("<i8")),
            key=lambda p: hashlib.sha256(p[0].tobytes() + p[1].tobytes()).digest(),
        )
        digest.update(b"".join(x.tobytes() for x, _ in pairs))
        digest.update(b"".join(y.tobytes() for _, y in pairs))
    assert data.load(npz(given)).fingerprint == digest.hexdigest()


def test_digits():
    """The embedded default is scikit-learn's digits, complete, every fifth one testing."""
    images = data.load("digits")
    assert images.fingerprint == DIGITS
    assert [len(split[0]) for split in (images.train, images.validation, images.test)] == [
        1294,
        143,
        360,
    ]
    assert images.image_shape == (8, 8, 1) and images.classes == 10
    assert (
        images.train[0].dtype == np.uint8
        and images.train[0].max() == 255
        and images.train[1].dtype == np.int64
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, fingerprint, shape, train",
    [
        ("mnist", MNIST, (28, 28, 1), 55000),
        ("cifar10", CIFAR10, (32, 32, 3), 45000),
    ],
)
def test_real_images(real_data, name, fingerprint, shape, train):
    """The real MNIST and CIFAR-10 are known by their fingerprint, and 5,000 of their training
    images validate.
    """
    images = data.load(name)
    assert images.fingerprint == fingerprint == data.DATASETS[name].fingerprint
    assert images.image_shape == shape and images.classes == 10
    assert [len(split[0]) for split in (images.train, images.validation, images.test)] == [
        train,
        5000,
        10000,
    ]


def test_named_dataset_with_other_images_is_refused(npz, tmp_path, monkeypatch):
    """A file called mnist.npz that is not MNIST is not trained on under its name."""
    npz(name="mnist")
    monkeypatch.setenv("SUPERMASK_DATA", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=r"mnist\.npz is not the mnist it should be .*fingerprint.*replace the file",
    ):
        data.load("mnist")


def test_validation_is_a_tenth_and_disjoint(npz, arrays):
    """A tenth of a small training set validates, and no image of it trains."""
    given = arrays(train=57)
    images = data.load(npz(given))
    train, validation = (
        {x.tobytes() for x in split[0]} for split in (images.train, images.validation)
    )
    assert (len(train), len(validation)) == (52, 5)
    assert train | validation == {x.tobytes() for x in given["x_train"]} and not train & validation


def test_labels_stay_with_their_images(npz, arrays):
    """Putting a split in order moves labels with their images."""
    given = arrays()
    label = {
        x.tobytes(): y
        for split in ("train", "test")
        for x, y in zip(given[f"x_{split}"], given[f"y_{split}"])
    }
    images = data.load(npz(given))
    for xs, ys in (images.train, images.validation, images.test):
        assert [label[x.tobytes()] for x in xs] == ys.tolist()


def test_original_protocol_validates_on_the_test_set(npz, arrays):
    """protocol="original" trains on all training images and chooses by the test set, as the post
    did.
    """
    images = data.load(npz(arrays(train=57)), "original")
    assert len(images.train[0]) == 57
    assert np.array_equal(images.validation[0], images.test[0]) and np.array_equal(
        images.validation[1], images.test[1]
    )


@pytest.mark.parametrize(
    "dataset, protocol, dtype, scale",
    [
        ("mine", "study", np.uint8, 2 / 255),
        ("mine", "original", np.uint8, 2 / 255),
        ("mine", "study", np.float64, 2.0),
        ("mnist", "study", np.uint8, 2 / 255),
        ("mnist", "original", np.uint8, 2.0),
    ],
)
def test_scale(npz, arrays, tmp_path, monkeypatch, dataset, protocol, dtype, scale):
    """Networks are fed values in [-1, 1]; only MNIST under the original protocol is fed 2x − 1, not
    divided by 255.
    """
    given = arrays(dtype=dtype)
    path = npz(given, dataset)
    monkeypatch.setenv("SUPERMASK_DATA", str(tmp_path))
    monkeypatch.setitem(
        data.DATASETS, "mnist", dataclasses.replace(data.DATASETS["mnist"], fingerprint="")
    )
    images = data.load(path if dataset == "mine" else dataset, protocol)
    fed = np.concatenate([x for x, _ in data.evaluation_batches(images, "test", 7)])
    np.testing.assert_allclose(
        fed, images.test[0].astype(np.float64) * scale - 1, atol=1e-6 * scale * 255
    )
    assert fed.dtype == np.float32 and fed.min() >= -1
    assert (fed.max() > 100) == (protocol == "original" and dataset == "mnist")
    x, _ = next(iter(data.training_batches(images, batch_size=8, seed=0, epochs=1)))
    assert (x.numpy().max() > 100) == (fed.max() > 100), "training images are scaled as the others"


def test_evaluation_batches_are_the_whole_split_in_order(npz):
    """Nothing is dropped, shuffled or augmented at evaluation."""
    images = data.load(npz())
    labels = np.concatenate([y for _, y in data.evaluation_batches(images, "test", 7)])
    assert np.array_equal(labels, images.test[1])


# --- where a dataset is found ---------------------------------------------------------------------


def images_for(name):
    shape = (28, 28) if name in ("mnist", "fashion_mnist") else (32, 32, 3)
    random = np.random.default_rng(7)
    sizes = {"train": 50, "test": 10}
    return {
        **{
            f"x_{s}": random.integers(0, 256, (n, *shape), dtype=np.uint8) for s, n in sizes.items()
        },
        **{f"y_{s}": random.integers(0, 10, n, dtype=np.uint8) for s, n in sizes.items()},
    }


def archive_files(name, arrays):
    """(file name, content) as the publisher of `name` packs `arrays`."""
    if name == "mnist":
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return [("mnist.npz", buffer.getvalue())]
    if name == "fashion_mnist":

        def idx(array):
            return gzip.compress(
                bytes([0, 0, 8, array.ndim])
                + np.array(array.shape, ">i4").tobytes()
                + array.tobytes()
            )

        return [
            (f"{key}.gz", idx(arrays[key])) for key in ("x_train", "y_train", "x_test", "y_test")
        ]
    folder = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}[name]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for split, members in {
            "cifar10": {
                "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
                "test": ["test_batch.bin"],
            },
            "cifar100": {"train": ["train.bin"], "test": ["test.bin"]},
        }[name].items():
            x = arrays[f"x_{split}"].transpose(0, 3, 1, 2).reshape(len(arrays[f"x_{split}"]), -1)
            coarse = [np.full(len(x), 99, np.uint8)] if name == "cifar100" else []
            rows = np.column_stack([*coarse, arrays[f"y_{split}"], x]).astype(np.uint8)
            for member, part in zip(members, np.array_split(rows, len(members))):
                info = tarfile.TarInfo(f"{folder}/{member}")
                info.size = part.nbytes
                archive.addfile(info, io.BytesIO(part.tobytes()))
    return [(f"{name}.tar.gz", buffer.getvalue())]


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A function that puts arrays where a download of `name` finds them; nothing else is to be
    found.
    """
    cache = tmp_path / "keras"
    cache.mkdir()
    monkeypatch.setenv("KERAS_HOME", str(cache))
    monkeypatch.delenv("SUPERMASK_DATA", raising=False)
    place = tmp_path / "publisher"
    place.mkdir()

    def publish(name, arrays, digest=None):
        files = []
        for file, content in archive_files(name, arrays):
            (place / file).write_bytes(content)
            files.append(
                (file, (place / file).as_uri(), digest or hashlib.sha256(content).hexdigest())
            )
        monkeypatch.setitem(
            data.DATASETS,
            name,
            dataclasses.replace(data.DATASETS[name], files=tuple(files), fingerprint=""),
        )
        return place, cache / "datasets"

    return publish


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_download(npz, published, name):
    """Each publisher's format is read pixel by pixel as it is, and is not fetched a second time."""
    arrays = images_for(name)
    expected = data.load(npz(arrays))
    place, cache = published(name, arrays)
    images = data.load(name)
    assert images.fingerprint == expected.fingerprint and images.name == name
    assert np.array_equal(images.test[0], expected.test[0]) and np.array_equal(
        images.test[1], expected.test[1]
    )
    for file in place.iterdir():
        file.unlink()
    assert data.load(name).fingerprint == expected.fingerprint, (
        "the second time it comes from the cache"
    )
    assert (cache / f"{name}.npz").is_file()


@pytest.mark.parametrize("name", ["fashion_mnist", "cifar10"])
def test_download_with_a_wrong_checksum_is_refused(published, name):
    """A damaged or replaced download never becomes a dataset."""
    _, cache = published(name, images_for(name), digest="0" * 64)
    with pytest.raises(
        FileNotFoundError,
        match=rf"dataset='{name}' is neither in SUPERMASK_DATA .*put {name}\.npz into one of them",
    ):
        data.load(name)
    assert not (cache / f"{name}.npz").exists()


def test_runs_that_begin_together_fetch_once(published, monkeypatch):
    """Four at a time, as on a machine of four cores without the data: one fetches it, all have it,
    nothing else stays.
    """
    from concurrent.futures import ThreadPoolExecutor

    import tensorflow as tf

    _, cache = published("mnist", images_for("mnist"))
    fetch, fetched = tf.keras.utils.get_file, []

    def slowly(*arguments, **options):
        fetched.append(arguments)
        time.sleep(0.3)
        return fetch(*arguments, **options)

    monkeypatch.setattr(tf.keras.utils, "get_file", slowly)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(data.load, ["mnist"] * 4))
    assert len({images.fingerprint for images in found}) == 1 and len(fetched) == 1
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == ["lock", "mnist.npz"]


@pytest.mark.parametrize(
    "label, dtype", [(2**63 + 1, np.uint64), (4_000_000_000, np.int64), (100_000, np.int32)]
)
def test_labels_out_of_all_proportion(npz, arrays, label, dtype):
    """The largest label sizes the last layer: one of billions is told, before memory is asked for
    it.
    """
    given = arrays()
    given["y_train"] = given["y_train"].astype(dtype)
    given["y_train"][0] = label
    with pytest.raises(
        ValueError,
        match=f"y_train holds a label of {label}; give class numbers from 0, each below 100000",
    ):
        data.load(npz(given))


def test_no_network_is_one_sentence(published):
    """Without a network the message says what was looked for, where, and what to do."""
    place, cache = published("cifar10", images_for("cifar10"))
    for file in place.iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError) as error:
        data.load("cifar10")
    assert all(
        part in str(error.value)
        for part in ("'cifar10'", "SUPERMASK_DATA", str(cache), "cifar10.npz")
    )
    assert "\n" not in str(error.value)


def test_search_order(published, tmp_path, monkeypatch):
    """SUPERMASK_DATA comes before Keras's cache, and that before a download."""
    given = {where: images_for("fashion_mnist") for where in ("folder", "cache", "download")}
    for label, where in enumerate(given):
        given[where]["y_test"][:] = label
    place, cache = published("fashion_mnist", given["download"])
    folder = tmp_path / "folder"
    for where, path in (("folder", folder), ("cache", cache)):
        path.mkdir(parents=True)
        np.savez(path / "fashion_mnist.npz", **given[where])
    monkeypatch.setenv("SUPERMASK_DATA", str(folder))

    def found():
        return data.load("fashion_mnist").test[1][0]

    assert found() == 0
    (folder / "fashion_mnist.npz").unlink()
    assert found() == 1
    (cache / "fashion_mnist.npz").unlink()
    assert found() == 2


# --- bad files ------------------------------------------------------------------------------------


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


def test_nothing_is_unpickled(npz, arrays, tmp_path):
    """A pickle in an .npz could run anything: it is refused, not loaded."""
    given = arrays()
    given["y_train"] = np.array([Bomb(tmp_path / "exploded")] * 60, dtype=object)
    path = npz(given)
    with pytest.raises(ValueError, match="can't be read as a dataset.*none of them pickled"):
        data.load(path)
    assert not (tmp_path / "exploded").exists()


def changed(**arrays):
    return lambda given: (
        given
        | {key: value(given[key]) if callable(value) else value for key, value in arrays.items()}
    )


def with_value(value):
    def change(x):
        x = x.astype(np.float32) / 255
        x[3, 2, 1] = value
        return x

    return changed(x_train=change, x_test=lambda x: x.astype(np.float32) / 255)


@pytest.mark.parametrize(
    "change, found, wanted",
    [
        pytest.param(
            lambda a: {k: v for k, v in a.items() if k != "y_test"},
            "no array 'y_test', only",
            "x_train, y_train, x_test and y_test",
            id="missing array",
        ),
        pytest.param(
            changed(x_train=lambda x: x[:, 0, 0, 0]),
            "x_train has shape (60,)",
            "images (n, rows, columns[, channels])",
            id="no images",
        ),
        pytest.param(
            changed(y_train=lambda y: y[:-1]),
            "y_train (59,)",
            "as many labels",
            id="labels missing",
        ),
        pytest.param(
            changed(x_train=lambda x: x[:0], y_train=lambda y: y[:0]),
            "x_train has shape (0, 6, 5, 1)",
            "images (n,",
            id="empty",
        ),
        pytest.param(
            changed(x_train=lambda x: x[:9], y_train=lambda y: y[:9]),
            "x_train holds 9 images",
            "at least 10",
            id="too few to validate",
        ),
        pytest.param(
            changed(y_test=lambda y: np.eye(4, dtype=np.uint8)[y]),
            "y_test (20, 4)",
            "labels (n,)",
            id="one-hot labels",
        ),
        pytest.param(
            changed(x_test=lambda x: x[:, :5]),
            "but x_test uint8 of (5, 5, 1)",
            "give both alike",
            id="other size",
        ),
        pytest.param(
            changed(x_test=lambda x: (x / 255).astype(np.float32)),
            "uint8 images of shape (6, 5, 1) but x_test float32",
            "give both alike",
            id="other type",
        ),
        pytest.param(
            with_value(np.nan),
            "x_train holds 1 values that are NaN or infinite",
            "remove them",
            id="NaN",
        ),
        pytest.param(
            with_value(np.inf),
            "x_train holds 1 values that are NaN or infinite",
            "remove them",
            id="infinite",
        ),
        pytest.param(
            with_value(255.0),
            "floats from 0 to 255",
            "floats in [0, 1], or uint8",
            id="floats to 255",
        ),
        pytest.param(
            with_value(-0.5),
            "floats from -0.5 to",
            "floats in [0, 1], or uint8",
            id="negative floats",
        ),
        pytest.param(
            changed(x_train=lambda x: x.astype(np.int32)),
            "x_train holds int32",
            "uint8, or floats in [0, 1]",
            id="int images",
        ),
        pytest.param(
            changed(y_train=lambda y: y.astype(np.int16) - 1),
            "y_train holds int16 from -1",
            "whole class numbers from 0",
            id="negative labels",
        ),
        pytest.param(
            changed(y_train=lambda y: y.astype(np.float32)),
            "y_train holds float32",
            "whole class numbers from 0",
            id="float labels",
        ),
        pytest.param(
            changed(y_train=lambda y: y.astype(str)),
            "y_train holds <U3",
            "whole class numbers from 0",
            id="text labels",
        ),
    ],
)
def test_bad_arrays(npz, arrays, change, found, wanted):
    """A bad array is refused in one sentence that names the file, what it holds and what to
    give.
    """
    path = npz(change(arrays()))
    with pytest.raises(ValueError) as error:
        data.load(path)
    message = str(error.value)
    assert path in message and found in message and wanted in message and "\n" not in message


def scaled(factor, dtype=np.uint8, splits=("train", "test")):
    """The arrays with images of 0 to 255 · `factor`, in the splits named."""

    def change(given):
        x = {f"x_{split}": given[f"x_{split}"] * factor for split in splits}
        return given | {key: values.astype(dtype) for key, values in x.items()}

    return change


def divided_twice(given):
    """Floats in [0, 1], but the test images once more divided by 255."""
    given = scaled(1 / 255, np.float32)(given)
    return scaled(1 / 255, np.float32, ["test"])(given)


@pytest.mark.parametrize(
    "change, found, wanted",
    [
        (scaled(16 / 255), "uint8 from 0 to 16,", "(x * (255 / 16)).round().astype('uint8')"),
        (scaled(1 / 255), "uint8 from 0 to 1,", "(x * (255 / 1)).round()"),
        (scaled(100 / 255), "uint8 from 0 to 100,", "give floats: (x / 255).astype('float32')"),
        (scaled(0), "every value of x_train is 0", "as they were before"),
        (changed(x_train=lambda x: x | 255), "x_train is 255", "images that show something"),
        (
            changed(x_train=lambda x: 250 + x // 64),
            "uint8 from 250 to 253",
            "(x - low) / (high - low)",
        ),
        (scaled(1 / 255**2, np.float32), "float32 from 0 to 0.0039", "(x - low) / (high - low)"),
        (scaled(16 / 255**2, np.float32), "float32 from 0 to 0.062", "Give floats in [0, 1]"),
        (
            scaled(1 / 255, splits=["test"]),
            "x_train goes up to 255 but x_test up to 1;",
            "both alike",
        ),
        (divided_twice, "x_train goes up to 1 but x_test up to 0.0039", "scale both alike"),
    ],
)
def test_images_of_another_range(npz, arrays, change, found, wanted):
    """Images that a network would hardly see, and train on to a guess, are refused."""
    path = npz(change(arrays(train=600, test=200)))
    with pytest.raises(ValueError) as error:
        data.load(path)
    message = str(error.value)
    assert path in message and found in message and wanted in message and "\n" not in message


@pytest.mark.parametrize(
    "change",
    [
        scaled(0.6),
        scaled(0.2 / 255, np.float32),
        changed(x_test=lambda x: x // 2),
    ],
    ids=["dim", "dark floats", "dim test images"],
)
def test_dim_images_are_read(npz, arrays, change):
    """Half of uint8's range, a fifth of the floats', and a darker test split may be meant."""
    given = change(arrays(train=600, test=200))
    found = data.load(npz(given)).test[0]
    assert np.array_equal(np.sort(found, axis=None), np.sort(given["x_test"], axis=None))


def test_what_is_said_to_do_does_it(npz, arrays):
    """The scaling that the sentence names makes images that load."""
    given = scaled(16 / 255)(arrays(train=600, test=200))
    for key in ("x_train", "x_test"):
        given[key] = (given[key] * (255 / 16)).round().astype("uint8")
    assert data.load(npz(given)).train[0].max() == 255


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 16, 16), (3, 32, 32), (4, 8, 8), (3, 8, 12)])
def test_channels_first(npz, shape):
    """Images with their channels first would be taken for rows of many channels."""
    read = re.escape(f"images of shape {shape} are read as {shape[0]} rows")
    with pytest.raises(ValueError, match=read + r".*x\.transpose\(0, 2, 3, 1\)"):
        data.load(npz(shape=shape))


@pytest.mark.parametrize("shape", [(28, 1, 28), (1, 100, 16), (2, 8, 12), (12, 3, 8)])
def test_odd_axes(npz, shape):
    """Where another order of the axes can't be told from what is meant, a warning says it."""
    read = re.escape(f"images of shape {shape} are read as {shape[0]} rows, {shape[1]} columns")
    with pytest.warns(UserWarning, match=read):
        assert data.load(npz(shape=shape)).image_shape == shape


@pytest.mark.parametrize(
    "shape",
    [
        (1, 100, 1),
        (100, 1, 1),
        (4, 4, 64),
        (1, 1, 50),
        (3, 32, 3),
        (3, 3, 4),
        (16, 16, 10),
    ],
)
def test_honest_shapes(npz, shape, recwarn):
    """Signals, small feature maps and images of many bands are read without a word."""
    assert data.load(npz(shape=shape)).image_shape == shape and not recwarn.list


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_is_refused(npz, arrays, label):
    """One class leaves nothing to learn, and of one output Keras's accuracy is another measure."""
    given = changed(y_train=lambda y: y * 0 + label, y_test=lambda y: y * 0 + label)(arrays())
    with pytest.raises(ValueError, match=f"54 training images all have the label {label}; give"):
        data.load(npz(given))


@pytest.mark.parametrize(
    "train, test, words",
    [
        (
            lambda y: y + 1,
            lambda y: y + 1,
            "go up to 4, but no image has the labels 0: .*: y - 1 for",
        ),
        (lambda y: 2 * y, lambda y: 2 * y, r"no image has the labels 1, 3, 5: .*np\.searchsorted"),
        (
            lambda y: y % 3,
            lambda y: y,
            "no training image has the labels 3, but validation or test",
        ),
    ],
    ids=["from 1", "gaps", "only tested"],
)
def test_labels_that_mislead(npz, arrays, train, test, words):
    """Classes that never occur or can't be learned are told, and the data load."""
    with pytest.warns(UserWarning, match=words):
        data.load(npz(changed(y_train=train, y_test=test)(arrays())))


def test_usual_labels_say_nothing(npz, recwarn):
    """Classes from 0, all of them in every split, are worth no word."""
    data.load(npz())
    assert not recwarn.list


@pytest.mark.parametrize(
    "change, wanted",
    [
        (with_value(1.0000001), "floats from 0 to 1.0000001; give floats in [0, 1]"),
        (with_value(1.0000001), "np.clip(x_train, 0, 1) takes off what rounding has added"),
        (with_value(255.0), "x_train / 255, with the same divisor in both splits"),
        (changed(x_train=lambda x: x / 127.5 - 1), "(x_train + 1) / 2, in both splits"),
        (changed(x_train=lambda x: x / 16), "x_train / 15.9375, with the same divisor"),
        (changed(x_train=lambda x: x / 64 - 2), "(x_train - low) / (high - low)"),
        (changed(x_train=lambda x: x.astype(int)), "int64 from 0 to 255; give uint8, or floats in"),
        (changed(x_train=lambda x: x.astype(int)), ": x_train.astype('uint8')."),
        (changed(x_train=lambda x: x.astype("u2") * 257), "x_train / 65535, with the same divisor"),
        (changed(x_train=lambda x: x > 99), "holds bool; give uint8, or floats in [0, 1]"),
        (changed(x_train=lambda x: x > 99), ": x_train.astype('uint8') * 255."),
        (changed(y_train=lambda y: np.eye(4)[y]), "y_train.argmax(axis=1)"),
        (changed(y_train=lambda y: y.astype(float)), "y_train.astype('int64')"),
        (changed(y_train=lambda y: y.astype(str)), "np.searchsorted(np.unique(y_train), y)"),
    ],
)
def test_sentence_says_what_to_do(npz, arrays, change, wanted):
    """What is refused comes with what makes it right, and with numbers that show what is wrong."""
    with pytest.raises(ValueError) as error:
        data.load(npz(change(arrays(train=600))))
    assert wanted in str(error.value)


@pytest.mark.slow
def test_compressible_images(tmp_path):
    """White squares on black pack four hundred times: they are images, not a bomb, and load."""
    i, grid = np.arange(36000), np.arange(64)
    side, row, column = 4 + i % 6, 12 + i // 6 % 40, 12 + i // 240 % 40
    x = 255 * (
        (abs(grid[None, :, None] - row[:, None, None]) < side[:, None, None])
        & (abs(grid[None, None] - column[:, None, None]) < side[:, None, None])
    ).astype(np.uint8)
    path = tmp_path / "sprites.npz"
    y = i % 6
    np.savez_compressed(path, x_train=x[1000:], y_train=y[1000:], x_test=x[:1000], y_test=y[:1000])
    assert x.nbytes > 300 * path.stat().st_size
    images = data.load(str(path))
    assert images.image_shape == (64, 64, 1)
    assert len(images.train[0]) + len(images.validation[0]) == 35000


@pytest.mark.slow
@pytest.mark.parametrize("save, taken", [(np.savez_compressed, False), (np.savez, True)])
def test_more_than_the_memory(npz, arrays, monkeypatch, save, taken):
    """What would unpack to too much memory is refused, unless it is as large on the disk."""
    path = npz(arrays())
    x = np.zeros((60, 2400, 2400), np.uint8)
    x[0, 0] = 255
    save(path, **arrays() | {"x_train": x, "x_test": x[:20]})
    monkeypatch.setattr("supermask_tf.ground.archives.memory", lambda: 2**30)
    if taken:
        assert data.load(path).image_shape == (2400, 2400, 1)
    else:
        words = r"would unpack to 460,\d{3},\d{3}, and of such a file no more than 3.*np\.savez"
        with pytest.raises(ValueError, match=words):
            data.load(path)


def damaged(content):
    middle = len(content) // 2
    return (
        content[:middle]
        + bytes(255 - byte for byte in content[middle : middle + 40])
        + content[middle + 40 :]
    )


def single_array(_):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content[: len(content) // 2],
        damaged,
        lambda _: b"",
        lambda _: b"not an archive",
        single_array,
    ],
    ids=["truncated", "damaged", "empty", "no archive", "an .npy"],
)
def test_bad_file(tmp_path, arrays, change):
    """A file that is damaged or something else is refused in one sentence that names it."""
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **{k: v // 64 for k, v in arrays().items()})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError) as error:
        data.load(str(path))
    assert str(error.value).startswith(
        f"{path} can't be read as a dataset: "
    ) and "give an .npz with" in str(error.value)


@pytest.mark.parametrize(
    "name, error, words",
    [
        (
            "mnits",
            ValueError,
            ["'mnits'", "digits, mnist, fashion_mnist, cifar10, cifar100", ".npz"],
        ),
        (
            "nowhere/mine.npz",
            FileNotFoundError,
            ["'nowhere/mine.npz'", "no such file", "digits, mnist"],
        ),
    ],
)
def test_unknown_dataset(name, error, words):
    """An unknown dataset is refused with the names that are known."""
    with pytest.raises(error) as raised:
        data.load(name)
    assert all(word in str(raised.value) for word in words)


# --- augmentation ---------------------------------------------------------------------------------

SIDE = 33


@pytest.fixture(scope="module")
def maps():
    """The affine maps of 400 draws, recovered from images whose values are their own coordinates.

    Bilinear resampling is exact on them, so that output = A (x, y) + b wherever nothing was filled.
    """
    y, x = np.meshgrid(
        np.arange(SIDE, dtype=np.float32), np.arange(SIDE, dtype=np.float32), indexing="ij"
    )
    images = np.repeat(np.stack([x, y], -1)[None], 400, axis=0)
    found = []
    for image in data.augment(tf.constant(images), 5, 1, 2).numpy():
        inside = ((image > 0.01) & (image < SIDE - 1.01)).all(-1)
        places = np.stack([x[inside], y[inside], np.ones(inside.sum())], -1)
        solution, *_ = np.linalg.lstsq(places, image[inside].astype(np.float64), rcond=None)
        assert np.abs(places @ solution - image[inside]).max() < 1e-2, "the map is not affine"
        found.append((solution[:2].T, solution[2]))
    return np.array([a for a, _ in found]), np.array([b for _, b in found])


def test_augmentation_neither_scales_nor_shears(maps):
    """A flip and a rotation keep lengths and angles."""
    a, _ = maps
    np.testing.assert_allclose(
        a @ a.transpose(0, 2, 1), np.repeat(np.eye(2)[None], len(a), 0), atol=2e-3
    )


def test_augmentation_flips_half(maps):
    """A horizontal flip has probability one half; there is no vertical one."""
    flipped = np.linalg.det(maps[0]) < 0
    assert 0.4 < flipped.mean() < 0.6
    assert (maps[0][:, 1, 1] > 0).all() and ((maps[0][:, 0, 0] < 0) == flipped).all()


def test_augmentation_rotates_within_20_degrees(maps):
    """Angles are uniform in ±20°."""
    a = maps[0].copy()
    a[np.linalg.det(a) < 0, 0] *= -1
    angles = np.degrees(np.arctan2(a[:, 0, 1], a[:, 0, 0]))
    assert np.abs(angles).max() < 20.05 and angles.max() > 19 and angles.min() < -19
    assert abs(angles.mean()) < 2.5 and abs(angles.std() - 20 / np.sqrt(3)) < 1.5


@pytest.mark.parametrize("axis", [0, 1], ids=["columns", "rows"])
def test_augmentation_shifts_within_a_fifth(maps, axis):
    """The image's middle lands within ±0.2 of the side, uniformly."""
    middle = (SIDE - 1) / 2
    a, b = maps
    shifts = (np.linalg.solve(a, (middle - b)[..., None])[..., 0] - middle)[:, axis] / SIDE
    assert np.abs(shifts).max() < 0.201 and shifts.max() > 0.19 and shifts.min() < -0.19
    assert abs(shifts.mean()) < 0.025 and abs(shifts.std() - 0.2 / np.sqrt(3)) < 0.015


def test_augmentation_fills_from_the_nearest_edge():
    """A constant image stays constant: nothing black comes in from outside."""
    images = tf.fill([32, 8, 12, 3], 200.0)
    np.testing.assert_allclose(data.augment(images, 0, 0, 0), images, rtol=1e-6)


def test_augmentation_makes_no_new_values():
    """Bilinear values lie between those of the image."""
    images = tf.constant(np.random.default_rng(0).uniform(10, 20, (32, 9, 9, 1)).astype(np.float32))
    augmented = data.augment(images, 0, 0, 0).numpy()
    assert augmented.min() > 10 - 1e-3 and augmented.max() < 20 + 1e-3
    assert len(np.unique(augmented)) > 32 * 81 / 2, (
        "nearest-neighbour resampling would only copy values"
    )


def test_augmentation_is_a_pure_function():
    """The same (seed, epoch, step) draws the same, eagerly or in a graph; another of any of them
    draws differently.
    """
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (16, 8, 8, 1)).astype(np.float32))
    first = data.augment(images, 1, 2, 3).numpy()
    tf.random.set_seed(99)
    assert np.array_equal(first, data.augment(images, 1, 2, 3))
    graph = tf.function(data.augment)
    # To rounding: a graph's optimizer adds in another order.
    np.testing.assert_allclose(first, graph(images, 1, 2, 3), atol=1e-3)
    np.testing.assert_allclose(
        first, graph(images, 1, tf.constant(2, tf.int64), tf.constant(3, tf.int64)), atol=1e-3
    )
    for other in ((2, 2, 3), (1, 3, 3), (1, 2, 4), (2, 1, 3)):
        assert not np.array_equal(first, data.augment(images, *other)), other


# --- training batches -----------------------------------------------------------------------------


@pytest.fixture
def numbered(npz, arrays):
    """A dataset whose labels number its 54 training images."""
    given = arrays()
    return data.load(npz(given | {"y_train": np.arange(60)}))


def test_batches_are_augmented_by_epoch_and_step(numbered):
    """Step s of epoch e is augment(images of the step, seed, e, s), then scaled."""
    options = {"batch_size": 16, "seed": 4, "epochs": 2, "first_epoch": 1}
    plain = batches_of(numbered, augmented=False, **options)
    augmented = batches_of(numbered, **options)
    assert len(plain) == len(augmented) == 6
    for i, ((x, y), (z, labels)) in enumerate(zip(plain, augmented)):
        expected = (
            data.augment(np.round((x + 1) * 127.5).astype(np.float32), 4, 1 + i // 3, i % 3).numpy()
            / 127.5
            - 1
        )
        assert np.array_equal(y, labels)
        np.testing.assert_allclose(z, expected, atol=1e-5)


def test_training_can_start_again_at_any_epoch(numbered):
    """Batches from epoch 2 on are the tail of those from epoch 0 on."""
    whole = batches_of(numbered, batch_size=16, seed=4, epochs=4)
    assert same(batches_of(numbered, batch_size=16, seed=4, epochs=2, first_epoch=2), whole[6:])


@pytest.mark.parametrize("batch_size", [1, 16, 27, 54])
def test_an_epoch_visits_an_image_at_most_once(numbered, batch_size):
    """Batches are full and an epoch's images all different; what is left over is fewer than a
    batch.
    """
    epoch = batches_of(numbered, batch_size=batch_size, seed=0, epochs=1, augmented=False)
    labels = np.concatenate([y for _, y in epoch])
    assert all(len(x) == len(y) == batch_size for x, y in epoch) and len(epoch) == 54 // batch_size
    assert len(set(labels)) == len(labels) and set(labels) <= set(numbered.train[1])


def test_order_depends_on_seed_and_epoch(numbered):
    """Every epoch and every seed has an order of its own, and labels go with their images."""

    def orders(seed):
        epochs = batches_of(numbered, batch_size=54, seed=seed, epochs=2, augmented=False)
        for x, y in epochs:
            index = [numbered.train[1].tolist().index(label) for label in y]
            np.testing.assert_allclose(x, numbered.train[0][index] / 127.5 - 1, atol=1e-6)
        return [tuple(y) for _, y in epochs]

    assert len({*orders(0), *orders(1)}) == 4


def test_batch_larger_than_the_set_is_refused(numbered):
    """There would be no batch at all."""
    with pytest.raises(
        ValueError,
        match=r"batch_size=55 is more than the 54 training images of .*mine\.npz: give at most",
    ):
        data.training_batches(numbered, batch_size=55, seed=0, epochs=1)


def test_no_autotuning_thread():
    """tf.data's autotuning thread sleeps for times that double, and the end of every pass waited
    for it: it is off.
    """
    images = data.load("digits")
    for batches in (
        data.training_batches(images, batch_size=32, seed=0, epochs=1),
        data.evaluation_batches(images, "test"),
    ):
        assert batches.options().autotune.enabled is False


def test_unknown_protocol():
    """A protocol that is misspelt is not taken for the study's."""
    with pytest.raises(ValueError, match="Unknown protocol 'orignal': choose study or original"):
        data.load("digits", protocol="orignal")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (6, 5, 2)], ids=str)
def test_augmentation_without_addons_gives_the_same_bits(shape, monkeypatch):
    """TensorFlow's own operation gives what tensorflow-addons gives, in a graph and outside: the
    committed records were made with it.
    """
    pytest.importorskip("tensorflow_addons", reason="there is none for this TensorFlow")
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (16, *shape)), tf.float32)

    def augmented():
        graph = tf.function(lambda epoch, step: data.augment(images, 3, epoch, step))
        return [
            augment(tf.constant(epoch), tf.constant(step)).numpy().tobytes()
            for augment in (graph, lambda epoch, step: data.augment(images, 3, epoch, step))
            for epoch, step in ((0, 0), (0, 1), (5, 9))
        ]

    with_addons = augmented()
    monkeypatch.setattr(data, "_addons", lambda: None)
    assert augmented() == with_addons
