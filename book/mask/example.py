import supermask_tf as sm
import tensorflow as tf

tf.keras.utils.set_random_seed(0)  # the same numbers at each build
data = sm.data.load("digits")
scale, shift = data.scale
x, y = data.train[0] * scale + shift, data.train[1]
x_test, y_test = data.test[0] * scale + shift, data.test[1]
layers = tf.keras.layers
model = tf.keras.Sequential(name="yours")
model.add(tf.keras.Input((8, 8, 1)))
model.add(layers.Conv2D(32, 3, activation="relu"))
model.add(layers.Conv2D(64, 3, activation="relu"))
model.add(layers.Flatten())
model.add(layers.Dense(128, activation="relu"))
model.add(layers.Dense(10))

masked = sm.mask(model, seed=0)  # weights from a seed, each with a logit
loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
masked.compile(tf.keras.optimizers.Adam(0.1), loss, metrics=["accuracy"])
print("before:", round(masked.evaluate(x_test, y_test, verbose=0)[1], 4))
masked.fit(x, y, epochs=10, batch_size=64, verbose=0)  # trains the mask
print("after:", round(masked.evaluate(x_test, y_test, verbose=0)[1], 4))
print("kept:", round(float(masked.masks()["dense/kernel"].mean()), 4))

network = sm.plain(masked)  # plain Keras layers, weights M * theta
content = tf.lite.TFLiteConverter.from_keras_model(network).convert()
with open("digits.tflite", "wb") as file:
    file.write(content)
sm.save(masked, "digits.supermask")  # the seed and the mask, entropy-coded
