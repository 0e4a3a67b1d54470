"""What the package needs of Keras and TensorFlow beyond their public interfaces, and what differs
between Keras 2 and Keras 3: the one place that knows private names, and which Keras this is. ::

    KERAS                                   # 2 or 3
    class Conv(ByPath, tf.keras.layers.Conv2D): ...     # may be called "group1/conv1" in both
    add_weight(..., **OWN_PRECISION)        # a variable that mixed precision leaves alone

`two` and `three` hold the same names, one per Keras.
"""

import importlib

import tensorflow as tf

from .common import holders
from .order import layout, lists_weights_as_in
from .tracing import as_traced, traced_freely

__all__ = [
    "FIRST_REPLICA",
    "KERAS",
    "OWN_PRECISION",
    "RATE",
    "BatchNormalization",
    "ByPath",
    "Model",
    "SynchronizedBatchNormalization",
    "as_functional",
    "as_traced",
    "counter",
    "flat",
    "follow_phase",
    "hold",
    "holders",
    "layout",
    "lists_weights_as_in",
    "make_variables",
    "raw",
    "renewed",
    "spelled",
    "traced_freely",
]

# TensorFlow 2.15 has Keras 2, and does not say so.
KERAS = int(getattr(tf.keras, "__version__", "2").partition(".")[0])

_this = importlib.import_module(f"{__name__}.{'two' if KERAS == 2 else 'three'}")

FIRST_REPLICA = _this.FIRST_REPLICA
OWN_PRECISION = _this.OWN_PRECISION
RATE = _this.RATE
BatchNormalization = _this.BatchNormalization
SynchronizedBatchNormalization = _this.SynchronizedBatchNormalization
ByPath = _this.ByPath
Model = _this.Model
as_functional = _this.as_functional
counter = _this.counter
flat = _this.flat
follow_phase = _this.follow_phase
hold = _this.hold
make_variables = _this.make_variables
raw = _this.raw
renewed = _this.renewed
spelled = _this.spelled
