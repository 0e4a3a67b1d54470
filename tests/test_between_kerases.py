"""A network masked and trained under one Keras predicts the same under the other.

`tests/kerases/2` and `3` hold one each, with its predictions: made by `python
tests/test_between_kerases.py` in the paper's environment and in the current one.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import _keras

FOLDER = Path(__file__).with_name("kerases")
X = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32)


def make(folder: Path) -> None:
    """A small convolutional network whose mask was trained, in each form in which it is saved."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = tf.keras.layers
    plain = tf.keras.Sequential(
        [
            tf.keras.Input((6,)),
            layers.Reshape((6, 1, 1)),
            layers.Conv2D(4, (3, 1), activation="relu"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    masked = sm.mask(plain, seed=7)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked.compile(tf.keras.optimizers.Adam(0.3), loss)
    masked.fit(X, np.arange(16) % 3, batch_size=8, epochs=5, verbose=0)
    masked.save(folder / "net.keras")
    masked.save_weights(folder / "net.weights.h5")
    sm.save(masked, folder / "net.supermask")
    masks = {path.replace("/", "."): mask for path, mask in masked.masks().items()}
    np.savez_compressed(folder / "expected.npz", outputs=masked.predict(X, verbose=0), **masks)


@pytest.mark.parametrize("made_by", (2, 3))
def test_a_network_goes_both_ways(made_by):
    """Packed it comes back with its masks and outputs, and so do its weights in a network like it;
    a `.keras` file does from Keras 2 to Keras 3, and the other way it is refused.
    """
    folder = FOLDER / str(made_by)
    expected = np.load(folder / "expected.npz")
    network = sm.load(folder / "net.supermask")
    masks = network.masks()
    assert any(not mask.all() for mask in masks.values()) and len(masks) == len(expected) - 1
    for path, mask in masks.items():
        assert np.array_equal(mask, expected[path.replace("/", ".")])
    assert np.allclose(network.predict(X, verbose=0), expected["outputs"], atol=1e-6)

    network = tf.keras.models.clone_model(network)
    network.load_weights(folder / "net.weights.h5")
    assert np.allclose(network.predict(X, verbose=0), expected["outputs"], atol=1e-6)

    if made_by > _keras.KERAS:
        with pytest.raises(ValueError, match="was saved by Keras 3, whose .keras files Keras 2"):
            tf.keras.models.load_model(folder / "net.keras")
    else:
        network = tf.keras.models.load_model(folder / "net.keras", compile=made_by == _keras.KERAS)
        assert np.allclose(network.predict(X, verbose=0), expected["outputs"], atol=1e-6)


if __name__ == "__main__":
    make(FOLDER / str(_keras.KERAS))
    print("made by Keras", _keras.KERAS, file=sys.stderr)
