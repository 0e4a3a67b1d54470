"""From mask logits to a 0/1 mask, and how the gradient gets back: straight-through estimators.

An estimator is a function of the mask logits m̂ (and, if it draws, of a seed) that returns a mask M of zeros and ones.
Its forward step has no useful derivative, so each brings its own backward step under `tf.custom_gradient`. Three ways
to use one::

    M = estimators.threshold(logits)                                  # the function itself
    layer = MaskedDense(10, estimator="bernoulli")                    # by name, as Keras takes an activation
    layer = MaskedDense(10, estimator=estimators.get("threshold", tau=0.3))   # by name, with its parameters

One of your own is a function with the same arguments; `register` makes its name known.
"""

import inspect
import math
from typing import Any, Callable

import tensorflow as tf

__all__ = ["Estimator", "bernoulli", "get", "register", "threshold"]


def threshold(logits: tf.Tensor, tau: float = 0.5) -> tf.Tensor:
    """The mask 1[σ(m̂) > τ], with the gradient of σ(m̂) in place of the step's.

    Forward: `M = 1[σ(m̂) > τ]`. Backward: `dL/dm̂ = dL/dM · σ(m̂)(1 − σ(m̂))`, the straight-through estimator of
    Bengio et al. (2013, arXiv:1308.3432, section 3.2) taken through the sigmoid.

    Args:
        logits: mask logits m̂, any shape, floating point.
        tau: threshold τ in (0, 1), exclusive: a weight is kept where σ(m̂) is strictly above it.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.

    Raises:
        ValueError: if `tau` is not inside (0, 1).
    """
    if not 0.0 < tau < 1.0:
        raise ValueError(f"tau={tau!r} is out of range: give a threshold strictly between 0 and 1, such as 0.5.")
    # σ(m̂) > τ where m̂ > log(τ/(1 − τ)): exact at the boundary, and no exponential in the forward pass.
    return _straight_through(logits, lambda m: m > math.log(tau / (1.0 - tau)))


def bernoulli(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A mask drawn from Bernoulli(σ(m̂)), with the gradient of its mean.

    Forward: `M ~ Bern(σ(m̂))`, one independent draw an element. Backward: `dL/dm̂ = dL/dM · σ(m̂)(1 − σ(m̂))`, the
    straight-through estimator of Bengio et al. (2013, arXiv:1308.3432), used for masks by Zhou et al. (2019,
    arXiv:1905.01067, section 4).

    Args:
        logits: mask logits m̂, any shape, floating point.
        seed: int32 tensor of shape [2]; the same seed gives the same draw.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.
    """
    def draw(m):
        # Raw bits of a generator by name: left to choose, TensorFlow takes another one under XLA, and its conversion of
        # the same bits to floats differs there too. The low 23 bits are those that its own kernels take.
        bits = tf.random.stateless_uniform(tf.shape(m), seed, minval=None, maxval=None, dtype=tf.int32, alg="philox")
        uniform = tf.cast(tf.bitwise.bitwise_and(bits, 2**23 - 1), tf.float32) / 2**23
        return uniform < tf.cast(tf.sigmoid(m), tf.float32)

    return _straight_through(logits, draw)


def _straight_through(logits: tf.Tensor, step: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`step(logits)` as zeros and ones, with σ's derivative as its gradient."""

    @tf.custom_gradient
    def forward(m):
        def grad(upstream):
            p = tf.sigmoid(m)
            return upstream * p * (1.0 - p)

        return tf.cast(step(m), m.dtype), grad

    return forward(tf.convert_to_tensor(logits))


# What `get` knows by name. A new estimator is one function and one line here (or one call of `register`).
_KNOWN: dict[str, Callable] = {"bernoulli": bernoulli, "threshold": threshold}


def register(function: Callable) -> Callable:
    """Make an estimator known under its function's name; usable as a decorator.

    Args:
        function: `function(logits, **parameters)`, or `function(logits, seed, **parameters)` if it draws.

    Returns:
        The function, unchanged.
    """
    _KNOWN[function.__name__] = function
    return function


class Estimator:
    """An estimator with its parameters bound: what a masked layer holds.

    Attributes:
        name: the name that `get` finds it by.
        parameters: the keyword arguments given to it.
        draws: whether its mask is drawn at random, so that it wants a seed.
    """

    #: The logit that every weight starts from: σ(1) = 0.73, so that every weight starts in (as the post's do).
    initial_logit = 1.0

    def __init__(self, function: Callable, **parameters: Any):
        accepted = inspect.signature(function).parameters
        unknown = sorted(set(parameters) - (set(accepted) - {"logits", "seed"}))
        if unknown:
            options = sorted(set(accepted) - {"logits", "seed"}) or ["no parameter"]
            raise ValueError(
                f"The estimator {function.__name__!r} has no parameter {unknown[0]!r}; it accepts {', '.join(options)}."
            )
        self.function, self.parameters = function, parameters
        self.name, self.draws = function.__name__, "seed" in accepted
        # A parameter out of range is told when the estimator is made, not when a layer first runs.
        seed = {"seed": tf.zeros([2], tf.int32)} if self.draws else {}
        function(tf.zeros([1]), **seed, **parameters)

    def __call__(self, logits: tf.Tensor, seed: tf.Tensor | None = None) -> tf.Tensor:
        """The mask that training uses; `seed` (int32[2]) only if the estimator draws."""
        return self.function(logits, **({"seed": seed} if self.draws else {}), **self.parameters)

    def most_likely(self, logits: tf.Tensor) -> tf.Tensor:
        """The mask at evaluation and in records: 1[σ(m̂) > ½] if the estimator draws, else the mask itself."""
        return threshold(logits) if self.draws else self(logits)

    def get_config(self) -> dict:
        return {"name": self.name, **self.parameters}


def get(estimator: "str | dict | Callable | Estimator", **parameters: Any) -> Estimator:
    r"""An estimator by name, configuration, function or as it is.

    Args:
        estimator: a known name ("threshold", "bernoulli", or a registered one), what `Estimator.get_config` returned,
            an estimator function, or an `Estimator`.
        \**parameters: the estimator's own parameters, such as `tau` of `threshold`.

    Raises:
        ValueError: if the name is unknown, a parameter is unknown, or its value is out of range.
    """
    if isinstance(estimator, Estimator):
        if parameters:
            raise ValueError(
                f"{', '.join(parameters)} can't be given to the estimator {estimator.name!r}, whose parameters are bound: "
                "give its name or function instead."
            )
        return estimator
    if isinstance(estimator, dict):
        if "name" not in estimator:
            raise ValueError(f"The estimator's configuration {estimator!r} has no 'name': give what get_config() returned.")
        parameters = {k: v for k, v in estimator.items() if k != "name"} | parameters
        estimator = estimator["name"]
    if callable(estimator):
        return Estimator(estimator, **parameters)
    if estimator not in _KNOWN:
        raise ValueError(f"Unknown estimator {estimator!r}: choose one of {', '.join(sorted(_KNOWN))}, or register your own.")
    return Estimator(_KNOWN[estimator], **parameters)
