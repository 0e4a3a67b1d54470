"""`SupermaskModel`: a `keras.Model` whose `train_step` trains the mask, the weights or both. ::

    model.phase = "mask"       # the mask logits train; the weights keep every bit
    model.phase = "weights"    # the weights train, under the mask as it is
    model.phase = "both"

The parameters of batch norm train in every phase, as in the post, and so do those of other
normalisations.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from . import _keras, ranking
from .layers import is_normalization, masked_layers

__all__ = ["PHASES", "SupermaskModel"]

PHASES = ("mask", "weights", "both")


@tf.keras.utils.register_keras_serializable("supermask_tf")
class SupermaskModel(_keras.Model):
    """A functional Keras model that trains by phase.

    Args:
        inputs, outputs, name: as in `tf.keras.Model`.
        phase: "mask" (mask logits train), "weights" (everything else trains) or "both";
            normalisations train in every phase (`layers.is_normalization`). None takes the phase
            that all masked layers bring along, as clones and saved layers do, else "mask".

    The phase may be changed at any time, by a callback too. That changes the phase of every
    `SupermaskModel` among the layers. Training goes on with a new optimizer of the same settings
    (its learning rate as it is by then; a schedule begins anew), since the slots of the old one
    belong to other variables. The same happens to every compiled Keras model that has this one
    among its layers. If an optimizer can't be made again, nothing is changed.

    A `tf.function` of your own that trains the model, or draws its masks, raises a `RuntimeError`
    when it is called in another phase than it was traced in: make a new one, with an optimizer that
    is not built for other variables.

    Raises:
        ValueError: if the phase is unknown, or an optimizer can't be made again.
    """

    # The positional arguments are those of Keras's functional models: by them Keras recognises one
    # when it saves it.
    @_keras.as_functional
    def __init__(
        self, inputs, outputs, name=None, trainable=True, *, phase: str | None = None, **kwargs
    ):
        super().__init__(inputs, outputs, name=name, trainable=trainable, **kwargs)
        if phase is None:
            brought = {layer.phase for layer in masked_layers(self)}
            phase = (brought.pop() if len(brought) == 1 else None) or "mask"
        self.phase = phase
        self.rank()

    @property
    def phase(self) -> str:
        """What `train_step` trains: "mask", "weights" or "both"."""
        return _keras.as_traced(lambda: self._phase, f"the phase of {self.name!r}")

    @phase.setter
    def phase(self, phase: str) -> None:
        if phase not in PHASES:
            raise ValueError(f"Unknown phase {phase!r}: choose one of {', '.join(PHASES)}.")
        parts = [self, *self._inner()]
        changed = [part for part in parts if getattr(part, "_phase", phase) != phase]
        affected = [*changed, *_keras.holders(changed)] if changed else []
        # What can fail comes before anything is changed.
        optimizers = {}
        for model in affected:
            old = getattr(model, "optimizer", None)
            if old is not None and id(old) not in optimizers:
                try:
                    optimizers[id(old)] = _keras.renewed(old)
                except ValueError as error:
                    raise ValueError(
                        f"{self.name!r} stays in phase {self._phase!r} and is not put into"
                        f" {phase!r}: {error}."
                    ) from error
        for part in parts:
            part._phase = phase
        for layer in masked_layers(self):
            layer.phase, layer.mask_frozen = phase, phase == "weights"
        _keras.hold(self)
        for model in affected:
            _keras.follow_phase(model, optimizers.get(id(getattr(model, "optimizer", None))))

    def _inner(self) -> list["SupermaskModel"]:
        """The models of this kind among the layers, at any depth."""
        return [part for part in _keras.flat(self)[1:] if isinstance(part, SupermaskModel)]

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """What the phase trains, in Keras's order."""
        variables = super().trainable_weights
        # Keras asks before __init__ has set a phase.
        phase = _keras.layout() or (self.phase if hasattr(self, "_phase") else "both")
        if phase == "both":
            return variables
        logits = {
            id(v) for layer in masked_layers(self) if layer.built for v in layer.logits.values()
        }
        always = set()
        for layer in _keras.flat(self)[1:]:
            if isinstance(layer, SupermaskModel):  # it has chosen its own already
                always |= _ids(layer.weights)
            elif is_normalization(layer):  # not what a layer with layers inside holds for them
                inside = (_ids(part.weights) for part in _keras.flat(layer)[1:])
                always |= _ids(layer.weights).difference(*inside)
        return [v for v in variables if (id(v) in logits) == (phase == "mask") or id(v) in always]

    @property
    def non_trainable_weights(self) -> list[tf.Variable]:
        """Everything that the phase does not train."""
        trained = _ids(self.trainable_weights)
        both = [*super().trainable_weights, *super().non_trainable_weights]
        return [v for v in both if id(v) not in trained]

    def train_step(self, data) -> dict[str, Any]:
        """One step of the phase: gradients are taken with respect to nothing else.

        Raises:
            ValueError: if the phase has nothing to train.
        """
        if not self.trainable_variables:
            raise ValueError(
                f"{self.name!r} has nothing to train in phase {self.phase!r}: it has no masked"
                " layer or normalisation that could; build it of MaskedDense and MaskedConv2D, or"
                " choose another phase."
            )
        results = super().train_step(data)
        if self.phase != "weights":
            self.rank()
        return results

    def rank(self) -> None:
        """Rank all scores together again, where layers have `top_k` with a global scope.

        `train_step` does so after each step. Do it yourself after any other change of such scores
        or of a density; `set_masks` needs none.
        """
        if layers := [layer for layer in masked_layers(self) if layer.ranked_globally]:
            ranking.rank_together(layers)

    def masks(self) -> dict[str, np.ndarray]:
        """The most likely masks, as boolean arrays (int8 ones where a mask has more values than 0
        and 1): `{"<layer path>/kernel": mask, "<layer
        path>/bias": mask, ...}`.

        Raises:
            ValueError: if two masked layers have one name, as those of two networks in one may.
        """
        return {
            f"{path}/{name}": mask
            for path, layer in self._by_path().items()
            for name, mask in layer.masks.items()
        }

    def set_masks(self, masks: dict[str, np.ndarray]) -> None:
        """Set masks from what `masks` returned (or a part of it).

        Raises:
            ValueError: if a path or a shape does not belong to this model, or as `masks`.
        """
        known = {
            f"{path}/{name}": (layer, name)
            for path, layer in self._by_path().items()
            for name in layer.logits
        }
        for path, mask in masks.items():
            if path not in known:
                raise ValueError(
                    f"{self.name!r} has no masked weight {path!r}; it has {', '.join(known)}."
                )
            layer, name = known[path]
            layer.set_masks(**{name: mask})

    def theta(self) -> dict[str, np.ndarray]:
        """The weights under the masks, as arrays with the paths of `masks`: what
        `tickets.masks` takes, before and after training.

        Raises:
            ValueError: as `masks`.
        """
        return {
            f"{path}/{name}": np.array(layer._weight(name))
            for path, layer in self._by_path().items()
            for name in layer.logits
        }

    def _by_path(self) -> dict[str, tf.keras.layers.Layer]:
        layers = masked_layers(self)
        known = {layer.name: layer for layer in layers}
        if len(known) < len(layers):
            twice = sorted({layer.name for layer in layers if known[layer.name] is not layer})
            raise ValueError(
                f"Several masked layers of {self.name!r} are called {', '.join(twice)}: ask the"
                " networks that they belong to, one by one."
            )
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


def _ids(variables: list[tf.Variable]) -> set[int]:
    return {id(variable) for variable in variables}


# By this name alone Keras looks for the class of a whole model in .h5 and in JSON.
tf.keras.utils.get_custom_objects()["SupermaskModel"] = SupermaskModel
