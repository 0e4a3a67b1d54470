"""IteRand: weights that the mask leaves out are drawn anew while it is sought.

Chijiwa et al. (2021, arXiv:2106.09269, "Pruning Randomly Initialized Neural Networks with Iterative
Randomization") thus let a network find masks that a larger one would have had. ::

    model.fit(x, y, epochs=100, callbacks=[IterativeRandomization(every=300, fraction=0.1)])
"""

import numpy as np
import tensorflow as tf

from . import initializers
from .layers import masked_layers

__all__ = ["IterativeRandomization"]


class IterativeRandomization(tf.keras.callbacks.Callback):
    """Draws masked weights anew, from the distribution of the layer's θ0, every so many steps.

    Each weight that the mask leaves out at the step is drawn anew with the chance `fraction`. What
    is drawn depends on the seed, the layer's path and the step alone. Steps are those of the
    model's optimizer.

    Args:
        every: steps from one time to the next.
        fraction: the chance, in (0, 1].
        seed: of what is drawn, and of which weights are.

    Raises:
        ValueError: when training begins, if a kernel's initializer is none of `initializers`.
    """

    def __init__(self, every: int, fraction: float = 0.1, seed: int = 0):
        super().__init__()
        self.every, self.fraction, self.seed = every, fraction, seed

    def on_train_begin(self, logs=None):
        for layer in masked_layers(self.model):
            if not isinstance(layer._kernel_initializer, str):
                raise ValueError(
                    f"Layer {layer.name!r} has a kernel_initializer that is not this package's, so"
                    " its weights can't be drawn anew: give it one by name."
                )

    def on_train_batch_begin(self, batch, logs=None):
        step = int(self.model.optimizer.iterations)
        if step and step % self.every == 0:
            for layer in masked_layers(self.model):
                self._draw(layer, step)

    def _draw(self, layer, step: int) -> None:
        path, kernel = f"{layer.name}/kernel/step{step}", layer.kernel.numpy()
        bits = initializers.random_bits(self.seed, f"{path}/chosen", kernel.shape)
        chosen = (bits / 2.0**64 < self.fraction) & (layer.masks["kernel"] == 0)
        anew = initializers.get(layer._kernel_initializer)(self.seed, path, kernel.shape)
        layer.kernel.assign(np.where(chosen, anew, kernel))
