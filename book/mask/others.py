"""What the page says of other masks and networks, measured: prints a dictionary for each."""

import supermask_tf as sm
import tensorflow as tf

tf.keras.utils.set_random_seed(0)  # the same numbers at each build
layers = tf.keras.layers
images = sm.data.load("digits")
(x, y), (x_test, y_test) = (
    (x * images.scale[0] + images.scale[1], y) for x, y in (images.train, images.test)
)


@tf.keras.utils.register_keras_serializable("book")
class Positions(layers.Layer):
    """Adds a vector of its own to each place of a sequence: a layer of the reader's."""

    def build(self, shape):
        self.vectors = self.add_weight(name="vectors", shape=shape[1:], initializer="zeros")

    def call(self, inputs):
        return inputs + tf.convert_to_tensor(self.vectors)


def vision_transformer(dim=48, blocks=2, heads=4):
    """Patches of 2×2 pixels, attention over all of them."""
    inputs = tf.keras.Input((8, 8, 1))
    h = layers.Conv2D(dim, 2, strides=2, name="patches")(inputs)
    h = Positions(name="positions")(layers.Reshape((16, dim))(h))
    for _ in range(blocks):
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(heads, dim // heads)(n, n)])
        n = layers.Dense(2 * dim, activation="gelu")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dense(dim)(n)])
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))
    return tf.keras.Model(inputs, layers.Dense(10)(h), name="vision_transformer")


def gap(one, other, sample):
    """The largest difference of two networks' outputs, over the largest output."""
    a, b = one(sample), other(sample)
    return float(tf.reduce_max(abs(a - b)) / tf.reduce_max(abs(b)))


def facts(masked):
    """What was masked, and what was not."""
    kinds = sorted({type(layer).__name__ for layer in sm.layers.masked_layers(masked)})
    kernels = [mask for path, mask in masked.masks().items() if not path.endswith("bias")]
    return {
        "layers": len(sm.layers.masked_layers(masked)),
        "kinds": [kind.removeprefix("Masked") for kind in kinds],
        "left": list(sm.masking.unmasked(masked).values()),
        "weights": sum(mask.size for mask in kernels),
        "kept": sum(int(mask.sum()) for mask in kernels) / sum(mask.size for mask in kernels),
    }


def trained():
    """The network of the page's first script with trained weights, and a mask over these."""
    model = tf.keras.Sequential(
        [
            tf.keras.Input((8, 8, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=10, batch_size=64, verbose=0)
    before = model.evaluate(x_test, y_test, verbose=0)[1]
    masked = sm.mask(model, weights="keep")
    masked.compile(tf.keras.optimizers.Adam(0.1), loss, metrics=["accuracy"])
    masked.fit(x, y, epochs=10, batch_size=64, verbose=0)
    after = masked.evaluate(x_test, y_test, verbose=0)[1]
    return {"before": before, "after": after} | facts(masked)


def transformer():
    """A vision transformer whose mask is trained on the digits."""
    masked = sm.mask(vision_transformer(), seed=0)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    masked.compile(tf.keras.optimizers.Adam(0.03), loss, metrics=["accuracy"])
    before = masked.evaluate(x_test, y_test, verbose=0)[1]
    masked.fit(x, y, epochs=15, batch_size=64, verbose=0)
    after = masked.evaluate(x_test, y_test, verbose=0)[1]
    return {"before": before, "after": after} | facts(masked)


def mobilenet():
    """A MobileNetV2 at weights of its own, whose channels of little weight are masked."""
    model = tf.keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=10)
    sample = tf.random.stateless_uniform((4, 32, 32, 3), (0, 1), -1.0, 1.0)
    masked = sm.mask(model, weights="keep")
    opened, masks = gap(masked, model, sample), masked.masks()
    for path, theta in masked.theta().items():
        if path.endswith("expand/kernel"):  # a 1×1 convolution that widens its input
            size = abs(theta).sum((0, 1, 2))
            masks[path] = masks[path] & (size > sorted(size)[size.size // 2])
    masked.set_masks(masks)
    compact = sm.plain(masked, compact=True)
    return facts(masked) | {
        "open": opened,
        "gap": gap(compact, masked, sample),
        "parameters": model.count_params(),
        "compact": compact.count_params(),
    }


if __name__ == "__main__":
    print({"trained": trained(), "transformer": transformer(), "mobilenet": mobilenet()})
