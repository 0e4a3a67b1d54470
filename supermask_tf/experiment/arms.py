"""The arms of the study: what each trains, and from where. No TensorFlow."""

from dataclasses import dataclass

__all__ = ["ARMS", "ESTIMATORS", "Arm"]


@dataclass(frozen=True)
class Arm:
    """What an arm of the study trains, and from where.

    Attributes:
        trains: "mask", "weights" or "batch_norm". Batch-norm parameters train in every arm.
        learning_rate: the optimizer's at the start, unless the experiment gives another.
        does: one line for the help texts.
        parents: the arms whose runs it can start from (`init_from`); none for θ0 and an open mask.
        mask: the mask it starts from: "open", the "parent"'s, one drawn at "random" with the
            parent's density in each layer, the parent's "shuffled" within each layer, a "ticket"
            read from the parent's trained weights, or the parent's with its "logits", to train them
            on.
        weights: "theta0", the "parent"'s, or "drawn_anew" in place of θ0.
        batch_norm: "new" or the "parent"'s (unless the experiment resets it).
        wrong: whether it seeks the lowest accuracy, with batch norm frozen too.
    """

    trains: str
    learning_rate: float
    does: str
    parents: tuple[str, ...] = ()
    mask: str = "open"
    weights: str = "theta0"
    batch_norm: str = "new"
    wrong: bool = False

    @property
    def needs_weights(self) -> bool:
        """Whether it takes its parent's trained weights or mask logits, which no record holds."""
        return self.weights == "parent" or self.mask in ("ticket", "logits")

    @property
    def leaves_weights(self) -> bool:
        """Whether its network is more than θ0, masks and batch norm.

        Its weights are then kept beside the record.
        """
        return self.trains == "weights" or self.weights == "parent"

    @property
    def keeps_beside(self) -> bool:
        """Whether something that no record holds is kept beside it.

        That is trained weights, or the logits of a trained mask.
        """
        return self.leaves_weights or self.trains == "mask"


ARMS = {
    "mask": Arm("mask", 0.01, "train the mask logits, the weights stay at θ0"),
    "weights": Arm("weights", 0.01, "train the weights from θ0, nothing masked"),
    "finetune": Arm(
        "weights",
        1e-5,
        "train the weights from M ⊙ θ0, the mask frozen",
        ("mask",),
        "parent",
        batch_norm="parent",
    ),
    "bn_only": Arm(
        "batch_norm", 0.01, "train batch norm alone, the weights stay at θ0, nothing masked"
    ),
    "weights_long": Arm(
        "weights",
        1e-5,
        "train the weights of a weights run further",
        ("weights",),
        weights="parent",
        batch_norm="parent",
    ),
    "rewind": Arm(
        "weights",
        0.01,
        "train the weights from M ⊙ θ0 as from the beginning, batch norm anew",
        ("mask",),
        "parent",
    ),
    "random_mask": Arm(
        "weights",
        1e-5,
        "as finetune, under a random mask of the same density in each layer",
        ("mask",),
        "random",
        batch_norm="parent",
    ),
    "shuffled_mask": Arm(
        "weights",
        1e-5,
        "as finetune, under the mask shuffled within each layer",
        ("mask",),
        "shuffled",
        batch_norm="parent",
    ),
    "reinit": Arm(
        "weights",
        0.01,
        "as rewind, with other weights under the mask than those it was found for",
        ("mask",),
        "parent",
        "drawn_anew",
    ),
    "mask_long": Arm(
        "mask",
        1e-5,
        "train the mask of a mask run further",
        ("mask",),
        "logits",
        batch_norm="parent",
    ),
    "ticket": Arm(
        "weights",
        0.01,
        "train the weights from θ0 under a mask read from a parent's trained weights: "
        "a lottery ticket",
        ("weights", "ticket"),
        "ticket",
    ),
    "prune": Arm(
        "weights",
        1e-5,
        "train a parent's weights further under a mask read from them",
        ("weights", "prune"),
        "ticket",
        "parent",
        "parent",
    ),
    "evil": Arm(
        "mask",
        0.01,
        "train a mask on a parent's trained weights that makes them wrong, all else frozen",
        ("weights",),
        weights="parent",
        batch_norm="parent",
        wrong=True,
    ),
}

# The estimators that the package brings. One that a notebook registers is known besides.
ESTIMATORS = (
    "bernoulli",
    "binary_concrete",
    "gem_miner",
    "intermediate_loss",
    "signed",
    "threshold",
    "top_k",
)
