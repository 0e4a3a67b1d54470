"""Ranking scores: what is counted as one, what is ranked together, and where the cut lies.

All masks by rank are one comparison: magnitudes of scores against a *cut*, the score of the last
one that is kept. What differs is what is compared (each weight, or blocks and whole
channels by their mean), over what it is ranked (a group of M inputs, a layer, all layers of a
model), and how many cuts there are (one for each coat of a multi-coated mask). `top_k`, which is
`estimators.top_k`, puts these together.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from .groups import Groups, parse

__all__ = ["facts", "rank_together", "top_k"]

# From so many values on, several cuts are found faster together than one by one.
_MANY = 2**16


def facts(**known: Any) -> Callable[[Callable], Callable]:
    """Note at an estimator what layers need to know of it.

    Args:
        **known: `values`, a function of its parameters that gives the whole numbers of its masks;
            `start`, the name of what draws its logits at the start; `constraint`, a Keras
            constraint of the logits.
    """

    def note(function: Any) -> Callable:
        function.facts = known
        return function

    return note


@facts(values=lambda coats=1, **others: tuple(range(coats + 1)), start="scores")
def top_k(
    scores: tf.Tensor,
    density: float,
    groups: str | None = None,
    coats: int = 1,
    scope: str | None = None,
    cuts: tf.Tensor | None = None,
) -> tf.Tensor:
    """The mask that keeps the fraction `density` of weights whose scores are largest in magnitude:
    edge-popup.

    Forward: `M = 1[|s| is among the k largest]`, where k is density · n, rounded, and at least 1.
    Equal scores at the boundary are all kept, so start from random ones. Backward: straight through
    the step and along the magnitude, `dL/ds = dL/dM · sign(s)`. Ramanujan et al. (2020,
    arXiv:1911.13299, section 3.2) take the scores themselves on the way back.

    Of *groups* one weight stands for all: a block or channel is ranked by the mean of `|s|` over
    its n weights, and the gradient of each is `sign(s) / n` times the sum of dL/dM over the group.

    A mask of several *coats* is the sum of as many masks of the same scores (Okoshi et al. 2022,
    "Multicoated Supermasks Enhance Hidden Networks"). The first keeps the fraction `density`, and
    each further one 1/coats of that less, so that among the kept weights each number of coats is as
    frequent as any other; the authors' code lists the fractions one by one. Each is straight
    through its step: `dL/ds = coats · dL/dM · sign(s)`.

    Args:
        scores: any shape, floating point.
        density: fraction kept, in (0, 1]; a number or a scalar tensor.
        groups: None, or what is kept or goes together, along the last two axes (inputs, outputs):
            "2:4", "16x1" or "channels" (`groups.parse`). It does not apply to a vector, such as a
            bias's scores. "N:M" fixes the density: N / M.
        coats: number of masks that are added.
        scope: "global" ranks the scores of all masked layers of a `SupermaskModel` together, which
            hands the cut to each; None or "layer" each layer's alone. Scores that stand alone are
            ranked alone.
        cuts: the magnitudes that the coats begin at, shape [coats], where they come from elsewhere.

    Returns:
        A tensor with the shape and dtype of `scores`, of zeros and ones, or of 0, 1, ..., `coats`.

    Raises:
        ValueError: if `density` is a number outside (0, 1], or another argument is none of these,
            or "N:M" comes with another density, with coats or with a global scope.
    """
    grouped = _check_top_k(density, groups, coats, scope)
    if grouped is None and coats == 1 and cuts is None:
        return _plain_top_k(scores, density)
    scores = tf.convert_to_tensor(scores)
    if grouped and grouped.of and scores.shape.rank > 1:
        return _n_of_m(tf.abs(scores), grouped)
    values = _units(tf.abs(scores), grouped)
    if cuts is None:
        flat = tf.reshape(tf.stop_gradient(values), [-1])
        kept = _counts(tf.convert_to_tensor(density), coats, tf.size(flat))
        cuts = _cuts(flat, kept)
    return _spread(_above(values, cuts), scores, grouped)


def _check_top_k(density, groups, coats, scope) -> Groups | None:
    """The groups that are asked for, if any."""
    if not tf.is_tensor(density) and not 0.0 < density <= 1.0:
        raise ValueError(
            f"density={density!r} is out of range: give the fraction kept, above 0 and at most 1."
        )
    if not isinstance(coats, int) or not 1 <= coats <= 127:
        raise ValueError(f"coats={coats!r} is out of range: give a whole number from 1 to 127.")
    if scope not in (None, "layer", "global"):
        raise ValueError(f"Unknown scope {scope!r}: choose layer or global.")
    grouped = None if groups is None else parse(groups)
    if grouped and grouped.density is not None:
        if not tf.is_tensor(density) and abs(density - grouped.density) > 1e-9:
            raise ValueError(
                f"density={density!r} does not go with groups={groups!r}, which keeps"
                f" {grouped.density:g}: give that."
            )
        if coats > 1 or scope == "global":
            raise ValueError(
                f"groups={groups!r} ranks a few scores at a time: give it no coats and no global"
                " scope."
            )
    return grouped


def _plain_top_k(scores: tf.Tensor, density: float) -> tf.Tensor:
    # A variable that `custom_gradient` met would have to be given a gradient.
    density = tf.convert_to_tensor(density)

    @tf.custom_gradient
    def forward(s):
        magnitude = tf.abs(s)
        flat = tf.reshape(magnitude, [-1])
        (cut,) = tf.unstack(_cuts(flat, _counts(density, 1, tf.size(s))))

        def grad(upstream):
            return upstream * tf.sign(s)

        return tf.cast(magnitude >= cut, s.dtype), grad

    return forward(tf.convert_to_tensor(scores))


def rank_together(layers: list) -> None:
    """Rank the scores of all these layers at once, and hand the cuts to each.

    Args:
        layers: masked layers whose estimator has a global scope. The fraction that they keep
            together is the mean of their densities, each weighed by what the layer has to rank.

    Raises:
        ValueError: if their numbers of coats differ.
    """
    if len({layer.cuts.shape[0] for layer in layers}) > 1:
        raise ValueError("Layers that are ranked together need the same number of coats.")
    values, wanted = [], tf.zeros([], tf.float64)
    for layer in layers:
        groups = layer.estimator.parameters.get("groups")
        for logits in (layer.kernel_logits, layer.bias_logits):
            if logits is None:
                continue
            ranked = _units(tf.abs(tf.convert_to_tensor(logits)), groups and parse(groups))
            values.append(tf.reshape(ranked, [-1]))
            size = tf.cast(tf.size(ranked), tf.float64)
            wanted += tf.cast(tf.convert_to_tensor(layer.density), tf.float64) * size
    together = tf.concat(values, 0)
    size = tf.size(together)
    density = wanted / tf.cast(size, tf.float64)
    found = _cuts(together, _counts(density, layers[0].cuts.shape[0], size))
    for layer in layers:
        layer.cuts.assign(found)


def _counts(density: tf.Tensor, coats: int, size: tf.Tensor) -> list[tf.Tensor]:
    """How many of `size` are kept by each coat: density · size · (coats − i) / coats for the i-th,
    rounded, at least 1.

    Args:
        density: scalar tensor.
        coats: number of coats.
        size: int32 scalar.
    """
    all_of = tf.cast(density, tf.float64) * tf.cast(size, tf.float64)
    shares = [all_of * ((coats - i) / coats) if i else all_of for i in range(coats)]
    return [tf.clip_by_value(tf.cast(tf.round(n), tf.int32), 1, size) for n in shares]


def _cuts(values: tf.Tensor, kept: list[tf.Tensor]) -> tf.Tensor:
    """The kept-th largest of `values` for each of the numbers in `kept`, which fall.

    Args:
        values: non-negative, shape [n].
        kept: int32 scalars, the largest first.

    Returns:
        Shape [len(kept)].
    """
    many = len(kept) > 1 and (values.shape.num_elements() or 0) >= _MANY
    if many and values.dtype == tf.float32 and not _in_xla() and not _on_gpu():
        return _cuts_by_histogram(values, tf.stack(kept))
    return tf.stack([_kth_largest(values, number) for number in kept])


def _cuts_by_histogram(values: tf.Tensor, kept: tf.Tensor) -> tf.Tensor:
    """`_cuts` of many values in one go, about as long as a single one takes.

    Floats that are not negative are ordered as their bits are. The values are counted by their
    upper bits; what shares those with a cut is little, and is sorted.
    """
    upper = tf.bitwise.right_shift(tf.bitcast(values, tf.int32), 15)
    none = tf.zeros([0], tf.int32)
    counts = tf.raw_ops.DenseBincount(input=upper, size=2**16, weights=none)
    reach = tf.cumsum(counts, reverse=True)  # values with these upper bits or higher ones
    bins = tf.reduce_sum(tf.cast(reach >= kept[:, None], tf.int32), axis=1) - 1
    chosen = tf.scatter_nd(bins[:, None], tf.ones_like(bins), [2**16]) > 0
    near = tf.sort(tf.boolean_mask(values, tf.gather(chosen, upper)), direction="DESCENDING")
    higher = tf.cumsum(tf.where(chosen, counts, 0), reverse=True, exclusive=True)
    place = kept - tf.gather(reach - counts, bins) + tf.gather(higher, bins) - 1
    return tf.gather(near, place)


def _above(values: tf.Tensor, at: tf.Tensor) -> tf.Tensor:
    """How many of the cuts each value reaches, with the gradient of as many identities: coats are
    masks that are added, each straight through its step.

    Args:
        values: any shape.
        at: the cuts, [coats].
    """
    coats = at.shape[0]

    @tf.custom_gradient
    def forward(v, at):
        def grad(upstream):
            return (upstream if coats == 1 else coats * upstream), None

        if coats == 1:
            return tf.cast(v >= at[0], v.dtype), grad
        reached = tf.add_n([tf.cast(v >= at[i], tf.int8) for i in range(coats)])
        return tf.cast(reached, v.dtype), grad

    return forward(values, at)


def _n_of_m(magnitude: tf.Tensor, groups: Groups) -> tf.Tensor:
    """1 where a score is among the N largest of its M, with the gradient of the identity.

    Args:
        magnitude: (..., inputs, outputs); the groups lie along the inputs. Of equal ones the first
            counts as larger.
    """

    @tf.custom_gradient
    def forward(values):
        *rest, inputs, outputs = values.shape
        padded = _padded(values, groups.of, 1, -1.0)
        split = tf.reshape(padded, (*rest, -1, groups.of, outputs))
        parts = tf.unstack(split, axis=-2)
        larger = [tf.zeros_like(part) for part in parts]
        for i, one in enumerate(parts):
            for j in range(i + 1, groups.of):
                first = tf.cast(one >= parts[j], values.dtype)
                larger[j] += first
                larger[i] += 1.0 - first
        kept = tf.stack([tf.cast(n < groups.kept, values.dtype) for n in larger], axis=-2)
        kept = tf.reshape(kept, padded.shape)[..., :inputs, :]
        return kept, lambda upstream: upstream

    return forward(magnitude)


def _units(magnitude: tf.Tensor, groups: Groups | None) -> tf.Tensor:
    """What is ranked: each weight, or the mean magnitude of each block or channel."""
    if groups is None or magnitude.shape.rank < 2:
        return magnitude
    if groups.channels:
        return tf.reduce_mean(magnitude, axis=range(magnitude.shape.rank - 1))
    *rest, inputs, outputs = magnitude.shape
    r, c = groups.inputs, groups.outputs
    blocks = tf.reshape(_padded(magnitude, r, c, 0.0), (*rest, -(-inputs // r), r, -1, c))
    # Blocks at the far edges may be smaller.
    size = np.minimum(r, inputs - np.arange(0, inputs, r))[:, None] * np.minimum(
        c, outputs - np.arange(0, outputs, c)
    )
    return tf.reduce_sum(blocks, axis=(-3, -1)) / tf.constant(size, magnitude.dtype)


def _spread(mask: tf.Tensor, like: tf.Tensor, groups: Groups | None) -> tf.Tensor:
    """The mask of `_units` as one of the weights, shaped as `like`."""
    if groups is None or like.shape.rank < 2:
        return mask
    if groups.channels:
        return tf.broadcast_to(mask, like.shape)
    *rest, inputs, outputs = like.shape
    r, c = groups.inputs, groups.outputs
    down, across = mask.shape[-2:]
    whole = tf.broadcast_to(mask[..., :, None, :, None], (*rest, down, r, across, c))
    return tf.reshape(whole, (*rest, down * r, across * c))[..., :inputs, :outputs]


def _padded(values: tf.Tensor, rows: int, columns: int, fill: float) -> tf.Tensor:
    """`values` with its last two axes filled up to multiples."""
    inputs, outputs = values.shape[-2:]
    more = [[0, 0]] * (values.shape.rank - 2) + [[0, -inputs % rows], [0, -outputs % columns]]
    return tf.pad(values, more, constant_values=fill) if any(map(any, more)) else values


def _in_xla() -> bool:
    # There is no public way to ask whether XLA compiles what is being traced.
    from tensorflow.python.ops import control_flow_util

    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def _on_gpu() -> bool:
    return bool(tf.config.list_logical_devices("GPU"))


def _kth_largest(values: tf.Tensor, k: tf.Tensor) -> tf.Tensor:
    """The k-th largest of non-negative values, in linear time."""
    if not _in_xla() and not _on_gpu():
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
