"""What an estimator's gradient is worth, on a network small enough to try every mask. No
TensorFlow.

The network has four inputs, two hidden units with ReLU and one logit: ten weights, each with a mask
logit m̂, and no bias. Its inputs are the mean brightness of the quadrants of scikit-learn's digits,
zeros against ones. With M ~ Bern(σ(m̂)) the derivative of the expected loss is a sum over 1,024
masks, and so are the mean and the variance of what an estimator passes back. ::

    net = enumeration.SmallNet(seed=0)
    enumeration.gradients(net, logits=[0.5] * 10)                # a row an estimator
"""

from functools import cache, cached_property

import numpy as np
import pandas as pd

from .. import initializers

__all__ = ["SmallNet", "compare", "first_changes", "gradients"]

INPUTS, HIDDEN = 4, 2
WEIGHTS = INPUTS * HIDDEN + HIDDEN
# Points of the quadrature over the uniform number behind a relaxed draw: the means below are exact
# to some five digits.
_POINTS = 500


class SmallNet:
    """The network at θ0 of a seed, its loss and the loss's derivative under every mask.

    Attributes:
        masks: all masks, of shape (1024, 10); row r holds the bits of r, so the mask without weight
            i of row r is row r − 2^i.
        loss: mean logistic loss under each mask, shape (1024,).
        slopes: ∂L/∂M at each mask, shape (1024, 10), as backpropagation gives it.
    """

    def __init__(self, seed: int):
        self.hidden = initializers.he_uniform(seed, "hidden/kernel", (INPUTS, HIDDEN)).astype(float)
        self.output = initializers.he_uniform(seed, "output/kernel", (HIDDEN, 1)).astype(float)
        self.masks = (np.arange(2**WEIGHTS)[:, None] >> np.arange(WEIGHTS) & 1).astype(float)
        x, y = _quadrants()
        hidden = self.hidden * self.masks[:, : INPUTS * HIDDEN].reshape(-1, INPUTS, HIDDEN)
        output = self.output[:, 0] * self.masks[:, INPUTS * HIDDEN :]
        before = x @ hidden  # (1024, n, 2)
        after = np.maximum(before, 0.0)
        logit = (after @ output[:, :, None])[:, :, 0]
        self.loss = np.mean(np.logaddexp(0.0, logit) - y * logit, axis=1)
        back = (1 / (1 + np.exp(-logit)) - y) / len(y)  # dL/dlogit of each image
        to_hidden = back[:, :, None] * output[:, None, :] * (before > 0)
        self.slopes = np.concatenate(
            [
                (x.T @ to_hidden * self.hidden).reshape(len(self.masks), -1),
                (back[:, None, :] @ after)[:, 0] * self.output[:, 0],
            ],
            axis=1,
        )

    @cached_property
    def gains(self) -> np.ndarray:
        """L with weight i in minus L with it out, all else as in the row's mask: shape (1024,
        10).
        """
        rows = np.arange(len(self.masks))
        return np.stack(
            [self.loss[rows | 1 << i] - self.loss[rows & ~(1 << i)] for i in range(WEIGHTS)], axis=1
        )


def gradients(
    net: SmallNet, logits, temperatures=(1.0, 0.3), step_sizes=(1.0, 100.0)
) -> pd.DataFrame:
    """What each estimator that draws passes back at `logits`, and the threshold estimator, against
    the expected loss.

    Args:
        net: the network.
        logits: the ten mask logits.
        temperatures: of `binary_concrete`.
        step_sizes: of `intermediate_loss`, and of it without the Jacobian of the softmax.

    Returns:
        A row an estimator and logit: `estimator`, `weight` (its index), `true` (the derivative of E
        L with respect to its logit), `mean` and `deviation` (of what is passed back, over draws).
    """
    m = np.asarray(logits, float)
    p = 1 / (1 + np.exp(-m))
    slope = p * (1 - p)
    chance = np.prod(np.where(net.masks > 0, p, 1 - p), axis=1)[:, None]
    true = slope * (chance * net.gains).sum(0)

    def moments(passed, square=None):
        """Mean and deviation over masks, `passed` having the mean of each mask's draws and `square`
        that of their squares.
        """
        mean = (chance * passed).sum(0)
        second = (chance * (passed**2 if square is None else square)).sum(0)
        return mean, np.sqrt(np.maximum(second - mean**2, 0))

    found = {"bernoulli": moments(slope * net.slopes)}
    for t in temperatures:
        first, second = (
            np.where(net.masks > 0, inside, outside) for inside, outside in zip(*_relaxed(p, m, t))
        )
        found[f"binary_concrete, T = {t:g}"] = moments(first * net.slopes, second * net.slopes**2)
    for eta in step_sizes:
        other = eta * np.maximum(np.where(net.masks > 0, net.slopes, -net.slopes), 0)
        passed = p - np.where(net.masks > 0, 1 / (1 + other), other / (1 + other))
        found[f"intermediate_loss, η = {eta:g}"] = moments(passed)
        found[f"… without the Jacobian, η = {eta:g}"] = moments(passed / slope)
    best = int((m > 0) @ (1 << np.arange(WEIGHTS)))
    found["threshold"] = slope * net.slopes[best], np.zeros(WEIGHTS)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "estimator": name,
                    "weight": range(WEIGHTS),
                    "true": true,
                    "mean": mean,
                    "deviation": deviation,
                }
            )
            for name, (mean, deviation) in found.items()
        ],
        ignore_index=True,
    )


def _relaxed(
    p: np.ndarray, m: np.ndarray, temperature: float
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """((mean if drawn in, mean of the square if drawn in), (the same if drawn out)) of the slope
    y(1 − y)/T of a relaxed draw.
    """

    def over(low, high):
        u = low + (high - low) * (np.arange(_POINTS)[:, None] + 0.5) / _POINTS
        y = 1 / (1 + np.exp(-np.clip((m - np.log(u / (1 - u))) / temperature, -500, 500)))
        slope = y * (1 - y) / temperature
        return slope.mean(0), (slope**2).mean(0)

    return over(np.zeros_like(p), p), over(p, np.ones_like(p))  # drawn in where u is below p


def compare(states: int = 100, spread: float = 1.0) -> pd.DataFrame:
    """Each estimator over random states: another θ0 and normally distributed logits in each.

    Args:
        states: how many.
        spread: standard deviation of the logits.

    Returns:
        A row an estimator, medians over the states in which every estimator passes something back
        (`n` of them: a mask that cuts every path passes nothing), of vectors over the ten weights:
        `cosine` of the mean gradient with the true one; `bias`, the length of mean − true over that
        of true; `deviation`, the root of the summed variances over the length of the mean.
    """
    rows = []
    for state in range(states):
        here = []
        for name, group in gradients(_net(state), _logits(state, spread)).groupby(
            "estimator", sort=False
        ):
            true, mean = group.true.to_numpy(), group["mean"].to_numpy()
            length, right = np.linalg.norm(mean), np.linalg.norm(true)
            if not length or not right:
                break
            here.append(
                {
                    "estimator": name,
                    "cosine": mean @ true / length / right,
                    "bias": np.linalg.norm(mean - true) / right,
                    "deviation": np.sqrt((group.deviation**2).sum()) / length,
                }
            )
        else:
            rows += here
    groups = pd.DataFrame(rows).groupby("estimator", sort=False)
    return groups.median().assign(n=groups.size()).reset_index()


def first_changes(states: int = 400, density: float = 0.5) -> pd.DataFrame:
    """For the estimators that draw nothing: does the first change of the mask along the gradient
    lower the loss?

    A network is put into a random state, and gradient descent moves its logits (scores), the mask's
    gradient held, until the mask changes: one weight goes in or out, or, of `top_k`, one takes the
    place of another.

    Args:
        states: how many.
        density: of `top_k`, over the ten weights together.

    Returns:
        A row an estimator: `estimator`, `lowers` (share of the changes that lower the loss), `any`
        (the share among all changes of that kind, which is what chance would give), `n` (changes; a
        state whose mask cuts every path has none).
    """
    rows = []
    for state in range(states):
        net, logits = _net(state), _logits(state, 1.0)
        bits = 1 << np.arange(WEIGHTS)

        inside = logits > 0
        here = int(inside @ bits)
        slope = net.slopes[here] / (1 + np.exp(-logits)) / (1 + np.exp(logits))
        # Weight i changes after logits_i / slope_i steps, where that is positive: descent takes its
        # logit through zero.
        times = np.divide(logits, slope, out=np.full(WEIGHTS, np.inf), where=slope != 0)
        times[times <= 0] = np.inf
        if np.isfinite(times).any():
            changes = net.loss[here ^ bits] < net.loss[here]
            rows.append(("threshold", changes[times.argmin()], changes.mean()))

        size, kept = np.abs(logits), round(density * WEIGHTS)
        inside = np.argsort(np.argsort(-size)) < kept
        here = int(inside @ bits)
        speed = -net.slopes[here]  # of |s|, whatever the sign of s
        pairs = [(o, i) for o in np.flatnonzero(inside) for i in np.flatnonzero(~inside)]
        faster = np.array([speed[i] - speed[o] for o, i in pairs])
        times = np.divide(
            [size[o] - size[i] for o, i in pairs],
            faster,
            out=np.full(len(pairs), np.inf),
            where=faster > 0,
        )
        if np.isfinite(times).any():
            changes = np.array(
                [net.loss[here ^ bits[o] ^ bits[i]] < net.loss[here] for o, i in pairs]
            )
            rows.append(("top_k", changes[times.argmin()], changes.mean()))
    table = pd.DataFrame(rows, columns=["estimator", "lowers", "any"]).astype({"lowers": float})
    return (
        table.groupby("estimator")
        .agg(lowers=("lowers", "mean"), any=("any", "mean"), n=("lowers", "size"))
        .reset_index()
    )


_net = cache(SmallNet)


def _logits(state: int, spread: float) -> np.ndarray:
    return spread * np.random.Generator(np.random.Philox(state)).normal(size=WEIGHTS)


@cache  # scikit-learn reads its file anew each time
def _quadrants() -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) mean brightness of the quadrants of the digits 0 and 1, from −1 to 1, and whether each
    is a 1.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    chosen = digits.target < 2
    quadrants = digits.images[chosen].reshape(-1, 2, 4, 2, 4).mean((2, 4)).reshape(-1, INPUTS)
    return quadrants / 8.0 - 1.0, digits.target[chosen].astype(float)
