"""From mask logits to a 0/1 mask, and how the gradient gets back: straight-through estimators.

An estimator is a function of the mask logits m̂ (and, if it draws, of a seed) that returns a mask M
of zeros and ones. Its forward step has no useful derivative, so each brings its own backward step
under `tf.custom_gradient`. Three ways to use one::

    M = estimators.threshold(logits)                  # the function itself
    layer = MaskedDense(10, estimator="bernoulli")    # by name, as Keras takes an activation
    # by name, with its parameters
    layer = MaskedDense(10, estimator=estimators.get("threshold", tau=0.3))

One of your own is a function with the same arguments; `register` makes its name known.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

__all__ = [
    "Estimator",
    "bernoulli",
    "binary_concrete",
    "get",
    "intermediate_loss",
    "known",
    "register",
    "threshold",
    "top_k",
]


def threshold(logits: tf.Tensor, tau: float = 0.5) -> tf.Tensor:
    """The mask 1[σ(m̂) > τ], with the gradient of σ(m̂) in place of the step's.

    Forward: `M = 1[σ(m̂) > τ]`. Backward: `dL/dm̂ = dL/dM · σ(m̂)(1 − σ(m̂))`, the straight-through
    estimator of Bengio et al. (2013, arXiv:1308.3432, section 3.2) taken through the sigmoid.

    Args:
        logits: mask logits m̂, any shape, floating point.
        tau: threshold τ in (0, 1), exclusive: a weight is kept where σ(m̂) is strictly above it.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.

    Raises:
        ValueError: if `tau` is not inside (0, 1).
    """
    if not 0.0 < tau < 1.0:
        raise ValueError(
            f"tau={tau!r} is out of range: give a threshold strictly between 0 and 1, such as 0.5."
        )
    # σ(m̂) > τ where m̂ > log(τ/(1 − τ)): exact at the boundary, and no exponential in the forward
    # pass.
    return _straight_through(logits, lambda m: m > math.log(tau / (1.0 - tau)))


def bernoulli(logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A mask drawn from Bernoulli(σ(m̂)), with the gradient of its mean.

    Forward: `M ~ Bern(σ(m̂))`, one independent draw per element. Backward:
    `dL/dm̂ = dL/dM · σ(m̂)(1 − σ(m̂))`, the straight-through estimator of Bengio et al. (2013,
    arXiv:1308.3432), used for masks by Zhou et al. (2019, arXiv:1905.01067, section 4).

    Args:
        logits: mask logits m̂, any shape, floating point.
        seed: int32 tensor of shape [2]; the same seed gives the same draw.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.
    """
    return _straight_through(logits, lambda m: _drawn_in(m, seed))


def binary_concrete(logits: tf.Tensor, seed: tf.Tensor, temperature: float = 1.0) -> tf.Tensor:
    """A mask drawn from Bernoulli(σ(m̂)), with the gradient of its relaxation: the Gumbel-softmax
    trick for two classes.

    With u uniform in (0, 1), m̂ − log(u/(1 − u)) is above zero where u < σ(m̂). Forward: that step,
    `M = 1[u < σ(m̂)]`. Backward: the slope of the relaxed draw y = σ((m̂ − log(u/(1 − u)))/T) at the
    same u, `dL/dm̂ = dL/dM · y(1 − y)/T`, straight through the step (Jang et al. 2017,
    arXiv:1611.01144, section 2.2; Maddison et al. 2017, arXiv:1611.00712).

    Args:
        logits, seed: as `bernoulli`, whose masks it draws.
        temperature: T > 0. Smaller ones come closer to the step, and their gradients scatter more.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.

    Raises:
        ValueError: if `temperature` is not positive.
    """
    if not temperature > 0.0:
        raise ValueError(
            f"temperature={temperature!r} is out of range: give a number above 0, such as 1.0."
        )

    @tf.custom_gradient
    def forward(m):
        uniform = _uniform(m, seed)
        # Half a step off the ends: the logarithms below must stay finite.
        inside = tf.cast(uniform + 2.0**-24, m.dtype)

        def grad(upstream):
            y = tf.sigmoid((m - tf.math.log(inside) + tf.math.log1p(-inside)) / temperature)
            return upstream * y * (1.0 - y) / temperature

        return tf.cast(uniform < tf.cast(tf.sigmoid(m), tf.float32), m.dtype), grad

    return forward(tf.convert_to_tensor(logits))


def intermediate_loss(logits: tf.Tensor, seed: tf.Tensor, step_size: float = 0.1) -> tf.Tensor:
    """A mask drawn from the softmax over {out, in}; the draw is moved one step against the
    gradient, and the logits follow it. This is Intermediate Loss Sampling.

    Forward: `M ~ Bern(σ(m̂))`, a draw from π, the softmax of the logits (0, m̂). Backward: the drawn
    class is a corner of the simplex. It is moved by `step_size` against the incoming gradient,
    taken relative to it; then negative entries are set to zero and the rest is divided by its sum.
    Call the result π_D. The gradient is that of KL(π_D ‖ π) with respect to m̂, which is
    `σ(m̂) − π_D(in)`. With g = dL/dM and η the step size::

        drawn in:   π_D(in) = 1 / (1 + η·max(g, 0))
        drawn out:  π_D(in) = η·max(−g, 0) / (1 + η·max(−g, 0))

    Even at g = 0 a draw pulls its logit towards itself, by σ(m̂) − M, whose mean is zero. The
    method is that of the post (Shliselberg 2019), whose code takes the derivative of the divergence
    with respect to the probabilities; here the Jacobian of the softmax is in.

    Args:
        logits, seed: as `bernoulli`, whose masks it draws.
        step_size: η > 0, in units of probability per unit of gradient.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `logits`.

    Raises:
        ValueError: if `step_size` is not positive.
    """
    if not step_size > 0.0:
        raise ValueError(
            f"step_size={step_size!r} is out of range: give a number above 0, such as 0.1."
        )

    @tf.custom_gradient
    def forward(m):
        drawn = _drawn_in(m, seed)

        def grad(upstream):
            # How far the draw moves towards the other class: not at all where the loss is content
            # with it.
            other = step_size * tf.nn.relu(tf.where(drawn, upstream, -upstream))
            stays = 1.0 / (1.0 + other)
            return tf.sigmoid(m) - tf.where(drawn, stays, 1.0 - stays)

        return tf.cast(drawn, m.dtype), grad

    return forward(tf.convert_to_tensor(logits))


def top_k(scores: tf.Tensor, density: float) -> tf.Tensor:
    """The mask that keeps the fraction `density` of weights whose scores are largest in magnitude:
    edge-popup.

    Forward: `M = 1[|s| is among the k largest]`, where k is density · n, rounded, and at least 1.
    Equal scores at the boundary are all kept, so start from random ones. Backward: straight through
    the step and along the magnitude, `dL/ds = dL/dM · sign(s)`. Ramanujan et al. (2020,
    arXiv:1911.13299, section 3.2) take the scores themselves on the way back.

    Args:
        scores: any shape, floating point.
        density: fraction kept, in (0, 1]; a number or a scalar tensor.

    Returns:
        A tensor of zeros and ones with the shape and dtype of `scores`.

    Raises:
        ValueError: if `density` is a number outside (0, 1].
    """
    if not tf.is_tensor(density) and not 0.0 < density <= 1.0:
        raise ValueError(
            f"density={density!r} is out of range: give the fraction kept, above 0 and at most 1."
        )
    # A variable that `custom_gradient` met would have to be given a gradient.
    density = tf.convert_to_tensor(density)

    @tf.custom_gradient
    def forward(s):
        size = tf.size(s)
        kept = tf.clip_by_value(
            tf.cast(tf.round(tf.cast(density, tf.float64) * tf.cast(size, tf.float64)), tf.int32),
            1,
            size,
        )
        magnitude = tf.abs(s)

        def grad(upstream):
            return upstream * tf.sign(s)

        return tf.cast(magnitude >= _kth_largest(tf.reshape(magnitude, [-1]), kept), s.dtype), grad

    return forward(tf.convert_to_tensor(scores))


def _kth_largest(values: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """The k-th largest of non-negative values, in linear time."""
    # There is no public way to ask whether XLA compiles what is being traced.
    from tensorflow.python.ops import control_flow_util

    in_xla = control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    if not in_xla and not tf.config.list_logical_devices("GPU"):
        return tf.raw_ops.NthElement(input=values, n=k - 1, reverse=True)
    # NthElement has a kernel for the CPU alone. Elsewhere: floats that are not negative are ordered
    # as their bits are, so the largest number that k of them reach is found bit by bit from above.
    kind = tf.int64 if values.dtype == tf.float64 else tf.int32
    bits = tf.bitcast(values if values.dtype == tf.float64 else tf.cast(values, tf.float32), kind)

    def narrow(i, found):
        higher = tf.bitwise.bitwise_or(found, tf.bitwise.left_shift(tf.ones([], kind), i))
        enough = tf.reduce_sum(tf.cast(bits >= higher, tf.int32)) >= k
        return i - 1, tf.where(enough, higher, found)

    _, found = tf.while_loop(
        lambda i, found: i >= 0,
        narrow,
        [tf.constant(62 if kind == tf.int64 else 30, kind), tf.zeros([], kind)],
    )
    return tf.cast(tf.bitcast(found, tf.float64 if kind == tf.int64 else tf.float32), values.dtype)


def _uniform(m: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Uniform float32 numbers in [0, 1) for each element of `m`, the same bits with and without
    XLA.
    """
    # Raw bits of a generator by name: left to choose, TensorFlow takes another one under XLA, and
    # its conversion of the same bits to floats differs there too. The low 23 bits are those that
    # its own kernels take.
    bits = tf.random.stateless_uniform(
        tf.shape(m), seed, minval=None, maxval=None, dtype=tf.int32, alg="philox"
    )
    return tf.cast(tf.bitwise.bitwise_and(bits, 2**23 - 1), tf.float32) / 2**23


def _drawn_in(m: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Whether each weight is drawn in, with probability σ(m̂)."""
    return _uniform(m, seed) < tf.cast(tf.sigmoid(m), tf.float32)


def _straight_through(logits: tf.Tensor, step: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`step(logits)` as zeros and ones, with σ's derivative as its gradient."""

    @tf.custom_gradient
    def forward(m):
        def grad(upstream):
            p = tf.sigmoid(m)
            return upstream * p * (1.0 - p)

        return tf.cast(step(m), m.dtype), grad

    return forward(tf.convert_to_tensor(logits))


# What `get` knows by name. A new estimator is one function and one line here (or one call of
# `register`).
_KNOWN: dict[str, Callable] = {
    "bernoulli": bernoulli,
    "binary_concrete": binary_concrete,
    "intermediate_loss": intermediate_loss,
    "threshold": threshold,
    "top_k": top_k,
}


def known() -> tuple[str, ...]:
    """The names that `get` knows: the package's own, and those that were registered."""
    return tuple(_KNOWN)


def register(function: Callable) -> Callable:
    """Make an estimator known under its function's name; usable as a decorator.

    Args:
        function: takes logits, a `seed` (int32[2]) if it draws, and parameters of its own, each by
            its name. One that calls its first argument `scores` ranks weights, and starts from
            random scores: equal ones would tie.

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
        initial_logit: where every logit starts. It is 1, so that every weight starts in, as in the
            post (σ(1) = 0.73); None if the estimator ranks scores, which start random.
    """

    def __init__(self, function: Callable, **parameters: Any):
        first, *others = inspect.signature(function).parameters.values()
        accepted = {parameter.name: parameter for parameter in others if parameter.name != "seed"}
        unknown = sorted(set(parameters) - set(accepted))
        if unknown:
            raise ValueError(
                f"The estimator {function.__name__!r} has no parameter {unknown[0]!r}; it accepts"
                f" {', '.join(sorted(accepted)) or 'no parameter'}."
            )
        missing = [
            name
            for name, parameter in accepted.items()
            if parameter.default is parameter.empty and name not in parameters
        ]
        if missing:
            raise ValueError(
                f"The estimator {function.__name__!r} needs {missing[0]!r}: give it, as in"
                f" get({function.__name__!r}, {missing[0]}=...)."
            )
        self.function, self.parameters = function, parameters
        self.name, self.draws = (
            function.__name__,
            any(parameter.name == "seed" for parameter in others),
        )
        self.initial_logit = None if first.name == "scores" else 1.0
        # A parameter out of range is told when the estimator is made, not when a layer first runs.
        seed = {"seed": tf.zeros([2], tf.int32)} if self.draws else {}
        function(tf.zeros([1]), **seed, **parameters)

    def __call__(self, logits: tf.Tensor, seed: tf.Tensor | None = None, **now: Any) -> tf.Tensor:
        """The mask that training uses; `seed` (int32[2]) only if the estimator draws; `now` stands
        in for parameters that move.
        """
        return self.function(
            logits, **({"seed": seed} if self.draws else {}), **self.parameters | now
        )

    def most_likely(self, logits: tf.Tensor, **now: Any) -> tf.Tensor:
        """The mask at evaluation and in records: 1[σ(m̂) > ½] if the estimator draws, else the mask
        itself.
        """
        return threshold(logits) if self.draws else self(logits, **now)

    def get_config(self) -> dict:
        """A dictionary from which `get` makes the same estimator.

        Raises:
            ValueError: if its name is another function's, which would be found in its place.
        """
        if _KNOWN.get(self.name, self.function) is not self.function:
            raise ValueError(
                f"The estimator {self.name!r} is not the one that is known by this name, so it"
                " can't be saved: give your function another name, and register it."
            )
        return {"name": self.name, **self.parameters}


def get(estimator: "str | dict | Callable | Estimator", **parameters: Any) -> Estimator:
    r"""An estimator by name, configuration, function or as it is.

    Args:
        estimator: a known name ("threshold", "bernoulli", or a registered one), what
            `Estimator.get_config` returned, an estimator function, or an `Estimator`.
        \**parameters: the estimator's own parameters, such as `tau` of `threshold`.

    Raises:
        ValueError: if the name is unknown, a parameter is unknown, or its value is out of range.
    """
    if isinstance(estimator, Estimator):
        if parameters:
            raise ValueError(
                f"{', '.join(parameters)} can't be given to the estimator {estimator.name!r}, whose"
                " parameters are bound: give its name or function instead."
            )
        return estimator
    if isinstance(estimator, dict):
        if "name" not in estimator:
            raise ValueError(
                f"The estimator's configuration {estimator!r} has no 'name': give what get_config()"
                " returned."
            )
        parameters = {k: v for k, v in estimator.items() if k != "name"} | parameters
        estimator = estimator["name"]
    if callable(estimator):
        return Estimator(estimator, **parameters)
    if estimator not in _KNOWN:
        raise ValueError(
            f"Unknown estimator {estimator!r}: choose one of {', '.join(sorted(_KNOWN))}, or"
            " register your own."
        )
    return Estimator(_KNOWN[estimator], **parameters)
