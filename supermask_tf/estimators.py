"""From mask logits to a mask, and how the gradient gets back: straight-through estimators.

An estimator is a function of the mask logits m̂ (and, if it draws, of a seed) that returns a mask M
of zeros and ones, or of a few other whole numbers. Its forward step has no useful derivative, so
each brings its own backward step under `tf.custom_gradient`. Three ways to use one::

    M = estimators.threshold(logits)                  # the function itself
    layer = MaskedDense(10, estimator="bernoulli")    # by name, as Keras takes an activation
    # by name, with its parameters
    layer = MaskedDense(10, estimator=estimators.get("threshold", tau=0.3))

One of your own is a function with the same arguments; `register` makes its name known.

What the methods of the field's papers have in common, and where it is said once:

- A mask is a tensor of whole numbers of a small known set, `Estimator.values`: 0 and 1; −1, 0 and 1
  where signs may turn; 0 to C where C coats are added. Layers multiply by it; records, packed files
  and tables take the numbers as they come; 0 is what is masked.
- A mask by rank is scores against a cut. What is ranked as one, together with what, and at how many
  cuts is for the ranking to say (`ranking`): it gives groups, coats and the ranking of all layers,
  for which the model hands its cut to the layers.
- What changes between steps is a Keras callback: freezing scores (`gem_miner`), drawing weights
  anew (`iterand`), lowering a density. Nothing of that is in the step, which compiles under XLA.
- What a layer must know of its logits, their start and their bounds, stands at the estimator
  (`ranking.facts`).
"""

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from .gem_miner import gem_miner
from .ranking import facts, top_k

__all__ = [
    "Estimator",
    "bernoulli",
    "binary_concrete",
    "gem_miner",
    "get",
    "intermediate_loss",
    "known",
    "levels",
    "register",
    "signed",
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


@facts(values=lambda **parameters: (-1, 0, 1), start="logits")
def signed(logits: tf.Tensor, cutoff: float = 0.01) -> tf.Tensor:
    """The mask that keeps a weight, hides it or turns its sign: −1, 0 or 1.

    Forward: `M = sign(m̂) · 1[|m̂| > c]`. Backward: straight through the step, `dL/dm̂ = dL/dM`
    (Koster et al. 2022, arXiv:2201.13361, "Signing the Supermask: Keep, Hide, Invert"). Their code
    has several cutoffs: 0.01 is the default of its dense layers. The logits start random, uniform
    on ±√(6 / (fan_in + fan_out)), as there; how many of the masks are 0 in the end is the work of
    the decay of the logits.

    Args:
        logits: mask logits m̂, any shape, floating point.
        cutoff: c, above 0.

    Returns:
        A tensor of −1, 0 and 1 with the shape and dtype of `logits`.

    Raises:
        ValueError: if `cutoff` is not positive.
    """
    if not cutoff > 0.0:
        raise ValueError(f"cutoff={cutoff!r} is out of range: give a number above 0, such as 0.01.")

    @tf.custom_gradient
    def forward(m):
        beyond = tf.cast(tf.abs(m) > cutoff, m.dtype)
        return tf.sign(m) * beyond, lambda upstream: upstream

    return forward(tf.convert_to_tensor(logits))


@facts(values=lambda lowest=0, highest=1: tuple(range(lowest, highest + 1)))
def levels(logits: tf.Tensor, lowest: int = 0, highest: int = 1) -> tf.Tensor:
    """The mask of whole numbers that its logits are nearest to: for a mask that is given, of any
    small numbers, such as that of a run that another one starts from.

    Forward: `M = round(m̂)`, held within [lowest, highest]. Backward: straight through the step,
    `dL/dm̂ = dL/dM` (Bengio et al. 2013, arXiv:1308.3432, section 3.2).

    Args:
        logits: mask logits m̂, any shape, floating point.
        lowest, highest: whole numbers from −128 to 127; 0 and 1 lie between them.

    Returns:
        A tensor of whole numbers with the shape and dtype of `logits`.

    Raises:
        ValueError: if they are other numbers.
    """
    if not -128 <= lowest <= 0 < highest <= 127:
        raise ValueError(
            f"lowest={lowest!r} and highest={highest!r} are out of range: give whole numbers from"
            " -128 to 0, and from 1 to 127."
        )

    @tf.custom_gradient
    def forward(m):
        rounded = tf.clip_by_value(tf.round(m), float(lowest), float(highest))
        return rounded, lambda upstream: upstream

    return forward(tf.convert_to_tensor(logits))


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
    "gem_miner": gem_miner,
    "intermediate_loss": intermediate_loss,
    "levels": levels,
    "signed": signed,
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
        values: the whole numbers that its masks are made of, ascending, such as (0, 1).
        start: which function of `initializers` draws the logits at the start; None where all begin
            at `initial_logit`.
        constraint: a Keras constraint of the logits, or None.
        initial_logit: where every logit starts. It is 1, so that every weight starts in, as in the
            post (σ(1) = 0.73); None if they start random, as the scores of one that ranks do.
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
        known: dict[str, Any] = getattr(function, "facts", {})
        self.values: tuple[int, ...] = known.get("values", lambda **others: (0, 1))(**parameters)
        self.start: str | None = known.get("start", "scores" if first.name == "scores" else None)
        self.initial_logit = None if self.start else 1.0
        self.constraint = known.get("constraint")
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

    def expressing(self, mask: np.ndarray) -> Iterator[np.ndarray]:
        """Logits that may give this very mask as the most likely one: the first that does serves.

        Args:
            mask: of `values`.
        """
        mask = np.asarray(mask).astype(np.int8)
        if self.values[0] < 0 or self.function is levels:
            yield from (size * mask for size in (1.0, 2.0, 4.0, 8.0, 16.0))
        elif self.initial_logit is None:
            # Scores count by magnitude; one of 0 would get no gradient.
            yield 0.5 + 0.5 * mask
            yield 0.25 + 0.5 * mask  # Gem-Miner's lie on both sides of ½
        else:
            # ±1 serves, unless the estimator's threshold is far from ½.
            yield from (np.where(mask, size, -size) for size in (1.0, 2.0, 4.0, 8.0, 16.0))

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
