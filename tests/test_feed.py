"""Batches made on the device: the same augmentation as the package's, each image once an epoch."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from supermask_tf import data, exporter, feed

SCRIPT = Path(__file__).with_name("xla_script.py")
PACKAGE = Path(feed.__file__).parents[1]


@pytest.fixture(scope="module")
def fed(run_jax, tmp_path_factory):
    """What JAX makes of 40 images, with the draws that `data.augment` takes of (seed, epoch, step)
    = (1, 2, 3).
    """
    folder = tmp_path_factory.mktemp("feed")
    for name in exporter._MODULES:
        place = folder / "supermask_run" / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes((PACKAGE / f"{name}.py").read_bytes())
    random = np.random.default_rng(0)
    x, y = random.integers(0, 256, (40, 9, 12, 3), dtype=np.uint8), np.arange(40)
    key = tf.random.experimental.stateless_fold_in(tf.constant([1, 2]), 3)
    draws = tf.random.stateless_uniform([4, 40], key, -1.0, 1.0, alg="philox").numpy().T
    np.savez(folder / "images.npz", x=x, y=y, draws=draws)
    run_jax(SCRIPT, "feed", folder, folder)
    return SimpleNamespace(x=x, y=y, draws=draws, **np.load(folder / "results.npz"))


@pytest.mark.slow
def test_augmentation_is_the_packages(fed):
    """The same draws give the same images as `data.augment`, to rounding: flip, rotation, shift,
    bilinear, nearest edge.
    """
    wanted = data.augment(tf.constant(fed.x, tf.float32), 1, 2, 3).numpy()
    assert np.abs(fed.transformed - wanted).max() < 0.01  # of 255
    assert (
        (fed.draws[:, 0] < 0).any()
        and (fed.draws[:, 0] > 0).any()
        and np.abs(wanted - fed.x).mean() > 20
    )


def test_draws_are_uniform():
    """Flip, angle and shifts are uniform in [-1, 1), as those of `data.augment`."""
    draws = feed.draw(20000, 50, seed=0, epoch=0)[1].reshape(-1, 4)
    assert draws.dtype == np.float32 and draws.min() >= -1 and draws.max() < 1
    for column in draws.T:
        ordered = np.sort(column)
        distance = np.abs(ordered - np.linspace(-1, 1, len(ordered))).max() / 2
        assert distance < 1.63 / np.sqrt(len(ordered)), "Kolmogorov-Smirnov at one in a hundred"
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 0.03


def test_an_epoch_has_each_image_once_in_an_order_of_its_own(fed):
    """Full batches of different images; another epoch has another order; a chosen image is scaled
    and not changed; past the end of the epoch its last batch stands again.
    """
    assert fed.steps == 5 and fed.labels.shape == (
        4,
        4,
        7,
    )  # two chunks of four batches an epoch, two epochs
    epochs = fed.labels.reshape(2, 8, 7)
    for epoch in epochs:
        assert len(np.unique(epoch[:5])) == 35 and (epoch[5:] == epoch[4]).all()
    assert (epochs[0, :5] != epochs[1, :5]).any()
    wanted = fed.x[fed.labels] * np.float32(2 / 255) - np.float32(1)
    assert (
        np.allclose(fed.batches, wanted, atol=1e-6)
        and fed.batches.dtype == np.float32
        and fed.labels.dtype == np.int64
    )


def test_evaluation_batches_count_each_image_once(fed):
    """A split in order, scaled; the last batch is filled up with images that do not count."""
    assert (
        fed.real.shape == (2, 32)
        and fed.real.sum() == 40
        and (fed.test_labels[fed.real > 0] == fed.y).all()
    )
    assert np.allclose(
        fed.test[fed.real > 0], fed.x * np.float32(2 / 255) - np.float32(1), atol=1e-6
    )
