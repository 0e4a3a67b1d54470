import tensorflow as tf

import supermask_tf as sm

images = sm.data.load("digits")
(x, y), (x_test, y_test) = (
    (x * images.scale[0] + images.scale[1], y) for x, y in (images.train, images.test)
)
layers = tf.keras.layers
model = tf.keras.Sequential(name="yours")
model.add(tf.keras.Input((8, 8, 1)))
model.add(layers.Conv2D(32, 3, activation="relu"))
model.add(layers.Conv2D(64, 3, activation="relu"))
model.add(layers.Flatten())
model.add(layers.Dense(128, activation="relu"))
model.add(layers.Dense(10))

masked = sm.mask(model, seed=0)  # weights drawn from a seed, a mask logit beside each
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
masked.compile(tf.keras.optimizers.Adam(0.1), loss, metrics=["accuracy"])
print("test accuracy:", masked.evaluate(x_test, y_test, verbose=0)[1])
masked.fit(x, y, epochs=10, batch_size=64, verbose=0)  # the mask trains, the weights stay
print("with the mask:", masked.evaluate(x_test, y_test, verbose=0)[1])
print("kept:", masked.masks()["dense/kernel"].mean())

network = sm.plain(masked)  # plain Keras layers: from here on without supermask_tf
content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
with open("digits.tflite", "wb") as file:
    file.write(content)
