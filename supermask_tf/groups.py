"""Structured masks: which weights of a kernel are kept or go together. No TensorFlow. ::

    parse("2:4")        # of every four consecutive inputs of a unit, two are kept
    parse("16x1")       # blocks of 16 inputs and 1 output: each is kept or goes as a whole
    parse("channels")   # all weights that lead to one output are kept or go

Two ideas cover them. N of M ranks weights within small groups; blocks and channels rank groups,
each by the mean magnitude of its scores, as weights are ranked otherwise (`estimators.top_k`).
"""

import re
from dataclasses import dataclass

__all__ = ["Groups", "parse"]

# Within a group each score is compared with each other one.
_LARGEST = 64


@dataclass(frozen=True)
class Groups:
    """What a description of groups says.

    Attributes:
        kept, of: N and M where N of M are kept; else 0.
        inputs, outputs: a block's size in the last two axes of a kernel, (..., inputs, outputs);
            else 0.
        channels: whether a group is all weights that lead to one output.
    """

    kept: int = 0
    of: int = 0
    inputs: int = 0
    outputs: int = 0
    channels: bool = False

    @property
    def density(self) -> float | None:
        """The fraction kept, where the description fixes it."""
        return self.kept / self.of if self.of else None


def parse(text: str) -> Groups:
    """What `text` describes: "N:M", "RxC" or "channels".

    N of M: of each M consecutive inputs of an output, at one place of the kernel, the N with the
    largest scores are kept, as sparse tensor cores want it (Mishra et al. 2021, arXiv:2104.08378,
    with 2:4; Zhou et al. 2021, arXiv:2102.04010). Where M does not divide the inputs, the last
    group is smaller, and keeps at most N.

    Channels of a network's last layer would be its classes; there the networks of `models` rank
    each weight alone.

    Raises:
        ValueError: if it is none of these.
    """
    if text == "channels":
        return Groups(channels=True)
    if found := re.fullmatch(r"(\d{1,3}):(\d{1,3})", text):
        kept, of = map(int, found.groups())
        if 0 < kept < of <= _LARGEST:
            return Groups(kept=kept, of=of)
    if found := re.fullmatch(r"(\d{1,4})x(\d{1,4})", text):
        inputs, outputs = map(int, found.groups())
        if inputs and outputs and inputs * outputs > 1:
            return Groups(inputs=inputs, outputs=outputs)
    raise ValueError(
        f"groups={text!r} is no grouping: give N:M with N below M and M at most {_LARGEST}, such as"
        " 2:4; a block's inputs and outputs, such as 16x1; or channels."
    )
