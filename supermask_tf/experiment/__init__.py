"""One experiment: what is asked for (`parameters`), its network and where it starts, and training
it.

Importing this takes no TensorFlow; running an experiment does.
"""

from .arms import ARMS, ESTIMATORS, Arm
from .parameters import NETWORK, PARAMETERS, Experiment, belonging_to

__all__ = ["ARMS", "Arm", "Experiment"]
