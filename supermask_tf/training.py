"""`SupermaskModel`: a `keras.Model` whose `train_step` trains the mask, the weights or both. ::

    model.phase = "mask"       # the mask logits train; the weights keep every bit
    model.phase = "weights"    # the weights train, under the mask as it is
    model.phase = "both"

Batch-norm parameters train in every phase, as in the post.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from .layers import masked_layers

__all__ = ["PHASES", "SupermaskModel"]

PHASES = ("mask", "weights", "both")


@tf.keras.saving.register_keras_serializable("supermask_tf")
class SupermaskModel(tf.keras.Model):
    """A functional Keras model that trains by phase.

    Args:
        inputs, outputs, name: as in `tf.keras.Model`.
        phase: "mask" (mask logits train), "weights" (everything else trains) or "both"; batch-norm parameters train
            in every phase. May be changed at any time, by a callback too, and changes that of every `SupermaskModel` among its
            layers: training goes on with a new optimizer of the same settings (its learning rate as it is by then; a schedule
            begins anew), since the slots of the old one belong to other variables.

    Save it as `.keras`. A SavedModel comes back as a plain network unless `sm.SupermaskModel` was named before it is loaded.

    Raises:
        ValueError: if the phase is unknown.
    """

    # The positional arguments are those of Keras's functional models: by them Keras recognises one when it saves it.
    def __init__(self, inputs, outputs, name=None, trainable=True, *, phase: str = "mask", **kwargs):
        super().__init__(inputs, outputs, name=name, trainable=trainable, **kwargs)
        self.phase = phase

    @property
    def phase(self) -> str:
        """What `train_step` trains: "mask", "weights" or "both"."""
        return self._phase

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            raise ValueError(f"Unknown phase {phase!r}: choose one of {', '.join(PHASES)}.")
        changed = phase != getattr(self, "_phase", phase)
        self._phase = phase
        for layer in masked_layers(self):
            layer.mask_frozen = phase == "weights"
        for part in self._flatten_layers(include_self=False):
            if isinstance(part, SupermaskModel):
                part.phase = phase
        if not changed:
            return
        self.test_function = self.predict_function = None
        old = getattr(self, "optimizer", None)
        if old is not None:
            # Keras's optimizers know only the variables they were built with.
            self.optimizer = type(old).from_config(old.get_config())
            for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_names"):  # which are in no config
                if hasattr(old, name):
                    setattr(self.optimizer, name, getattr(old, name))
            # Inside `fit` there must be one at once.
            self.train_function = self.make_train_function(force=True) if self.train_function is not None else None

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """What the phase trains, in Keras's order."""
        variables = super().trainable_weights
        if getattr(self, "_phase", "both") == "both":
            return variables
        logits, batch_norm = self._roles()
        if self.phase == "mask":
            return [v for v in variables if id(v) in logits or id(v) in batch_norm]
        return [v for v in variables if id(v) not in logits]

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """Everything that the phase does not train."""
        trained = {id(v) for v in self.trainable_weights}
        both = [*super().trainable_weights, *super().non_trainable_weights]
        return [v for v in both if id(v) not in trained]

    def _roles(self) -> tuple[set[int], set[int]]:
        """The ids of the mask logits and of the batch-norm parameters."""
        logits = {id(v) for layer in masked_layers(self) if layer.built
                  for v in (layer.kernel_logits, layer.bias_logits) if v is not None}
        batch_norm = {id(v) for layer in self._flatten_layers()
                      if isinstance(layer, tf.keras.layers.BatchNormalization) for v in layer.weights}
        return logits, batch_norm

    def train_step(self, data) -> dict[str, Any]:
        """One step of the phase: gradients are taken with respect to nothing else.

        Raises:
            ValueError: if the phase has nothing to train.
        """
        x, y, sample_weight = tf.keras.utils.unpack_x_y_sample_weight(data)
        variables = self.trainable_variables
        if not variables:
            raise ValueError(f"{self.name!r} has nothing to train in phase {self.phase!r}: it has no masked layer or no batch norm that could; build it of MaskedDense and MaskedConv2D, or choose another phase.")
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        self.optimizer.minimize(loss, variables, tape=tape)
        return self.compute_metrics(x, y, y_pred, sample_weight)

    def masks(self) -> dict[str, np.ndarray]:
        """The most likely masks, as boolean arrays: `{"<layer path>/kernel": mask, "<layer path>/bias": mask, ...}`.

        Raises:
            ValueError: if two masked layers have one name, as those of two networks in one may.
        """
        return {f"{path}/{name}": mask for path, layer in self._by_path().items() for name, mask in layer.masks.items()}

    def set_masks(self, masks: dict[str, np.ndarray]) -> None:
        """Set masks from what `masks` returned (or a part of it).

        Raises:
            ValueError: if a path or a shape does not belong to this model, or as `masks`.
        """
        known = self._by_path()
        for path, mask in masks.items():
            layer, _, name = path.rpartition("/")
            if layer not in known:
                raise ValueError(f"{self.name!r} has no masked layer {layer!r}; it has {', '.join(known)}.")
            known[layer].set_masks(**{name: mask})

    def _by_path(self) -> dict[str, tf.keras.layers.Layer]:
        layers = masked_layers(self)
        known = {layer.name: layer for layer in layers}
        if len(known) < len(layers):
            twice = sorted({layer.name for layer in layers if known[layer.name] is not layer})
            raise ValueError(f"Several masked layers of {self.name!r} are called {', '.join(twice)}: ask the networks that they belong to, one by one.")
        return known

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"phase": self.phase}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        phase = config.pop("phase", "mask")
        model = super().from_config(config, custom_objects)
        model.phase = phase
        return model
