"""How the learning rate and the density move over a run: pure functions of epoch and step."""

import math

__all__ = ["PLATEAU", "cosine_rate", "density_at", "density_reached"]

# The post's schedule: a tenth of the rate after two epochs without better training accuracy.
PLATEAU = {"factor": 0.1, "patience": 2, "min_delta": 1e-4}


def cosine_rate(learning_rate: float, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: ½ η (1 + cos(π step / steps)).

    The step after the last would have a rate of zero (Loshchilov and Hutter 2017, arXiv:1608.03983,
    equation 5, without restarts).
    """
    return 0.5 * learning_rate * (1 + math.cos(math.pi * step / steps))


def density_at(epoch: int, epochs: int, start: float, end: float) -> float:
    """The density of an epoch (counted from 0), which comes down over the first half of the epochs.

    The cubic of Zhu and Gupta (2017, arXiv:1710.01878, equation 1).
    """
    left = max(0.0, 1.0 - epoch / (epochs / 2))
    return end + (start - end) * left**3


def density_reached(epoch: int, epochs: int, start: float | None) -> bool:
    """Whether the density had come down to its end before this epoch (counted from 0).

    The epochs until then are no measure for later ones: none of them is the best, and they lower no
    learning rate. Without a `start` the density never moves.
    """
    return not start or epoch > math.ceil(epochs / 2)
