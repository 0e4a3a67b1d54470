"""One experiment: what is asked for (`parameters`), its network and where it starts, and training it.

Importing this takes no TensorFlow; running an experiment does.
"""

from .parameters import ARMS, ESTIMATORS, NETWORK, PARAMETERS, Arm, Experiment, belonging_to

__all__ = ["ARMS", "ESTIMATORS", "NETWORK", "PARAMETERS", "Arm", "Experiment", "belonging_to"]
