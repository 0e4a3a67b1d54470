"""Lottery tickets: 0/1 masks made of what training did to the weights, by the criteria of Zhou et
al. No TensorFlow.

No mask is trained here. Each criterion scores a weight by its values before and after training, and
the weights with the highest scores are kept. ::

    masks = tickets.masks(initial, final, density=0.2)   # {"dense1/kernel": boolean array, ...}
    model.set_masks(masks)                               # of a model at its initial weights
"""

from collections.abc import Callable

import numpy as np

from .initializers import random_bits

__all__ = ["CRITERIA", "control", "drawn_anew", "gone", "kept", "masks"]

_Score = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Zhou et al. (2019, arXiv:1905.01067, section 2 and figure 2), whose names these are: a weight is
# kept where its score is high. "random", their control, is drawn instead.
CRITERIA: dict[str, _Score | None] = {
    "large_final": lambda initial, final: np.abs(final),
    "small_final": lambda initial, final: -np.abs(final),
    "large_initial": lambda initial, final: np.abs(initial),
    "magnitude_increase": lambda initial, final: np.abs(final) - np.abs(initial),
    "movement": lambda initial, final: np.abs(final - initial),
    "random": None,
}


def masks(
    initial: dict[str, np.ndarray],
    final: dict[str, np.ndarray],
    density: float,
    criterion: str = "large_final",
    scope: str = "layer",
    within: dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """The masks that keep the fraction `density` of the weights whose scores are highest.

    Args:
        initial, final: kernels before and after training, by path: arrays of any shape, the same in
            both.
        density: fraction kept, in (0, 1].
        criterion: one of CRITERIA. "large_final" is the magnitude pruning of Frankle and Carbin
            (2019, arXiv:1803.03635).
        scope: "layer": that fraction of each kernel; "global": of all of them together, so that
            scores compete across layers.
        within: masks of an earlier round, outside which nothing is kept; `density` still counts all
            weights. Masks of other paths (biases) are left out.
        seed: of the "random" criterion's draws. The masks of one seed are nested: a smaller density
            keeps a part of what a larger one keeps.

    Returns:
        Boolean arrays by path, shaped as the kernels. Each kernel (or, in global scope, the net)
        keeps density · n weights, rounded, at least one. Among equal scores those that come first
        are kept.

    Raises:
        ValueError: if the criterion or scope is unknown, the density is outside (0, 1], or `within`
            keeps fewer weights than that, or the kernels' paths or shapes differ or hold NaN or
            infinity.
    """
    _check(initial, final, density, criterion, scope)
    scores = _scores(initial, final, criterion, seed)
    for path, mask in (within or {}).items():
        if path in scores:
            scores[path][~np.asarray(mask, bool).ravel()] = -np.inf
    kept: dict[str, np.ndarray] = {}
    for group in [[path] for path in scores] if scope == "layer" else [list(scores)]:
        flat = _highest(np.concatenate([scores[path] for path in group]), density, group)
        ends = np.cumsum([scores[path].size for path in group])[:-1]
        for path, part in zip(group, np.split(flat, ends)):
            kept[path] = part.reshape(initial[path].shape)
    return kept


def _check(
    initial: dict[str, np.ndarray],
    final: dict[str, np.ndarray],
    density: float,
    criterion: str,
    scope: str,
) -> None:
    """The errors of `masks` that come before any score."""
    if criterion not in CRITERIA:
        raise ValueError(f"Unknown criterion {criterion!r}: choose one of {', '.join(CRITERIA)}.")
    if scope not in ("layer", "global"):
        raise ValueError(f"Unknown scope {scope!r}: choose layer or global.")
    if not 0.0 < density <= 1.0:
        raise ValueError(
            f"density={density!r} is out of range: give the fraction kept, above 0 and at most 1."
        )
    for path, first in initial.items():
        if path not in final or np.shape(final[path]) != np.shape(first):
            raise ValueError(
                f"final[{path!r}] is"
                f" {'missing' if path not in final else f'of shape {np.shape(final[path])}'}:"
                f" initial has it with shape {np.shape(first)}."
            )
        if not (np.isfinite(first).all() and np.isfinite(final[path]).all()):
            raise ValueError(f"The kernel {path!r} holds NaN or infinity, which has no rank.")


def _scores(
    initial: dict[str, np.ndarray], final: dict[str, np.ndarray], criterion: str, seed: int
) -> dict[str, np.ndarray]:
    """The score of each weight, flat and in float64, by path."""
    score = CRITERIA[criterion]
    found = {}
    for path, first in initial.items():
        if score is None:
            values = random_bits(seed, f"{path}/ticket", first.shape) / 2.0**64
        else:
            values = score(first, final[path])
        found[path] = values.astype(np.float64).ravel()
    return found


def _highest(scores: np.ndarray, density: float, paths: list[str]) -> np.ndarray:
    """Which of the scores are among the highest: booleans."""
    count = max(1, round(density * scores.size))
    best = np.argsort(-scores, kind="stable")[:count]
    if np.isinf(scores[best[-1]]):
        raise ValueError(
            f"density={density} asks for {count} weights of {', '.join(paths)}, more than the"
            f" earlier masks keep ({np.isfinite(scores).sum()}): give a smaller density in"
            " each round."
        )
    kept = np.zeros(scores.size, bool)
    kept[best] = True
    return kept


def control(mask: np.ndarray, kind: str, seed: int, path: str) -> np.ndarray:
    """A supermask's control: a mask that keeps as many weights, but not the same.

    Args:
        mask: boolean array.
        kind: "random": each weight is kept with the mask's density as the chance, as many as in the
            mask on average; "shuffled": the mask's elements in another order, exactly as many;
            "parent": the mask itself.
        seed, path: of the draw.
    """
    in_or_out = mask.dtype == bool
    if kind == "parent" or (in_or_out and mask.all()):
        return mask
    bits = random_bits(seed, f"{path}/{kind}", mask.shape)
    if kind == "shuffled":
        return mask.ravel()[np.argsort(bits, axis=None, kind="stable")].reshape(mask.shape)
    if in_or_out:
        return bits < np.uint64(mask.mean() * 2.0**64)
    values, counts = np.unique(mask, return_counts=True)
    ends = np.cumsum(counts)[:-1] / mask.size
    return values[np.searchsorted(ends, bits / 2.0**64, side="right")]


def drawn_anew(
    theta0: np.ndarray,
    mask: np.ndarray,
    redraw: str,
    draw: Callable[[int, str, tuple[int, ...]], np.ndarray],
    seed: int,
    path: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Other weights under a mask than those that it was found for.

    Args:
        theta0: a kernel's first values.
        mask: its mask, of the same shape.
        redraw: "weights": all values are drawn anew; "magnitudes": so, each with the sign that it
            had; "permuted": nothing is drawn, values and mask move about together.
        draw: the kernel's initializer, as those in `initializers`.
        seed, path: of the draw.

    Returns:
        The kernel's values, and its mask.
    """
    if redraw == "permuted":
        bits = random_bits(seed, f"{path}/permuted", theta0.shape)
        order = np.argsort(bits, axis=None, kind="stable")
        moved, moved_mask = (values.ravel()[order].reshape(mask.shape) for values in (theta0, mask))
        return moved, moved_mask
    anew = draw(seed, path, theta0.shape)
    return (np.copysign(anew, theta0) if redraw == "magnitudes" else anew), mask


def gone(began: np.ndarray, trained: np.ndarray, action: str | None) -> np.ndarray:
    """The values at which weights that a ticket's mask takes away are frozen: a mask-0 action of
    Zhou et al. (2019, arXiv:1905.01067, section 3).

    Args:
        began, trained: a kernel's values as training begins, and as it ended before.
        action: None: zero. "initial": where they begin. "movement": there if training moved them
            away from zero, and else zero.

    Returns:
        An array of the kernel's shape; it means something where the mask is 0.
    """
    if action is None:
        return np.zeros_like(began)
    away = np.abs(trained) > np.abs(began)
    return began if action == "initial" else np.where(away, began, 0).astype(began.dtype)


def kept(
    began: np.ndarray,
    trained: np.ndarray,
    mask: np.ndarray,
    action: str | None,
    draw: Callable[[int, str, tuple[int, ...]], np.ndarray],
    seed: int,
    path: str,
) -> np.ndarray:
    """The values at which weights that a ticket's mask keeps begin: a mask-1 action of Zhou et al.
    (2019, arXiv:1905.01067, section 4.1).

    Args:
        began, trained, mask: of the kernel.
        action: None: where they began. "final": as trained. "reinit": drawn anew. "reshuffled": the
            kept values in another order. "constant": the standard deviation of the first values,
            with random signs. Each of the last three with "_signs" behind it: with the signs of
            their first values.
        draw: the kernel's initializer, as those in `initializers`.
        seed, path: of the draw.

    Returns:
        An array of the kernel's shape; it means something where the mask is 1.
    """
    if action is None or action == "final":
        return began if action is None else trained
    name, _, signs = action.partition("_")
    if name == "reinit":
        values = draw(seed, f"{path}/reinit", began.shape)
    elif name == "reshuffled":
        values, inside = began.copy(), np.flatnonzero(mask)
        bits = random_bits(seed, f"{path}/reshuffled", (inside.size,))
        values.ravel()[inside] = began.ravel()[inside[np.argsort(bits, kind="stable")]]
    else:
        positive = random_bits(seed, f"{path}/constant", began.shape) >> np.uint64(63) == 1
        values = np.where(positive, 1, -1) * began.std()
    return (np.copysign(values, began) if signs else values).astype(began.dtype)
