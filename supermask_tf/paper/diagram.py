"""The experiment as one drawing that names every arm: SVG, in the colours of the page."""

import html

from .plots import ARM_COLOURS

__all__ = ["experiment"]

# A box: its heading, and its arms: the colour's name in ARM_COLOURS, the arm's name in the book,
# and what is done in it.
_BOXES = (
    (
        "Random weights, from a seed: θ0",
        (
            ("mask", "mask", "learn which weights stay"),
            ("weights", "dense", "train all weights, no mask"),
            ("bn_only", "batch norm only", "train neither"),
        ),
    ),
    (
        "Take the learned mask. Train the weights …",
        (
            ("finetune", "mask, then weights", "going on from the mask run"),
            ("rewind", "rewind", "from θ0, under the mask"),
            ("shuffled_mask", "shuffled mask", "its places mixed in each layer"),
            ("random_mask", "random mask", "drawn, as many are kept"),
            ("reinit", "weights drawn anew", "same mask, other weights"),
            ("mask_long", "mask, longer", "no weights: the mask goes on"),
        ),
    ),
    (
        "Take the trained weights …",
        (
            ("weights_long", "dense, longer", "train on, as long"),
            ("ticket", "lottery ticket", "keep the largest, from θ0 again"),
            ("prune", "pruned", "keep the largest, train on"),
            ("evil", "evil mask", "learn which few must not go"),
        ),
    ),
)
_WIDTH, _LINE, _HEAD, _GAP = 380, 25, 32, 30


def experiment() -> str:
    """The drawing, as an SVG element with a text for those who do not see it."""
    parts, top = [], 4
    for number, (heading, arms) in enumerate(_BOXES):
        height = _HEAD + _LINE * len(arms) + 6
        if number:
            parts.append(f'<path class="arrow" d="M36 {top - _GAP + 2}V{top - 9}"/>')
            parts.append(f'<path class="tip" d="M30 {top - 10}h12l-6 8z"/>')
        parts.append(f'<rect class="box" x="1" y="{top}" width="{_WIDTH - 2}" height="{height}"/>')
        parts.append(f'<text class="head" x="12" y="{top + 21}">{html.escape(heading)}</text>')
        for row, (arm, name, what) in enumerate(arms):
            y = top + _HEAD + _LINE * row
            parts.append(
                f'<rect x="12" y="{y + 3}" width="13" height="13" rx="3" '
                f'fill="{ARM_COLOURS[arm]}" stroke="currentColor" stroke-width="0.5"/>'
                f'<text class="arm" x="32" y="{y + 14}">{html.escape(name)}</text>'
                f'<text x="168" y="{y + 14}">{html.escape(what)}</text>'
            )
        top += height + _GAP
    told = " ".join(
        f"{heading} {'; '.join(f'{name}: {what}' for _, name, what in arms)}."
        for heading, arms in _BOXES
    )
    return (
        f'<svg class="experiment" viewBox="0 0 {_WIDTH} {top - _GAP + 4}" role="img" '
        f'aria-label="{html.escape(told)}">{"".join(parts)}</svg>'
    )
