"""The fair test in words: a sentence per question and word, and what its arms are called."""

__all__ = ["ROLES", "SENTENCES"]

# One sentence per question and word; {where} is the networks and datasets that have the word.
SENTENCES = {
    "same_time": {
        "better": "Learning the mask first is time well spent: the same number of epochs, all given"
        " to the dense network, ends lower ({where}).",
        "worse": "Learning the mask first is time badly spent: the same number of epochs, all given"
        " to the dense network, ends higher ({where}).",
        "the same": "Half the epochs for the mask and half for the weights end where the dense"
        " network ends with all of them ({where}).",
        "open": "Whether the time for the mask is well spent, these seeds can't tell ({where}).",
    },
    "mask_for_free": {
        "better": "Were the mask free, it would be a better start than the dense network's"
        " ({where}).",
        "worse": "Even were the mask free, it would be a worse start than the dense network's"
        " ({where}).",
        "the same": "Were the mask free, it would be as good a start as the dense network's, and no"
        " better ({where}).",
        "open": "Whether a free mask is a better start than none, these seeds can't tell"
        " ({where}).",
    },
    "this_mask": {
        "better": "It matters which weights the mask keeps: with its places shuffled within each"
        " layer, training from it ends lower ({where}).",
        "worse": "The learned places do harm: with them shuffled within each layer, training from"
        " the mask ends higher ({where}).",
        "the same": "It does not matter which weights the mask keeps: with its places shuffled"
        " within each layer, training from it ends as high ({where}).",
        "open": "Whether it matters which weights the mask keeps, these seeds can't tell"
        " ({where}).",
    },
    "these_weights": {
        "better": "The mask suits the weights that it was learned for: over new random weights,"
        " training from it ends lower ({where}).",
        "worse": "The mask does harm to the weights that it was learned for: over new random"
        " weights, training from it ends higher ({where}).",
        "the same": "The mask does not need the weights that it was learned for: over new random"
        " weights, training from it ends as high ({where}).",
        "open": "Whether the mask needs the weights that it was learned for, these seeds can't"
        " tell ({where}).",
    },
    "replaces_training": {
        "better": "Learning only a mask beats training the weights ({where}).",
        "worse": "Learning only a mask does not replace training the weights ({where}).",
        "the same": "Learning only a mask is as good as training the weights ({where}).",
        "open": "Whether learning only a mask replaces training, these seeds can't tell ({where}).",
    },
}
# Short texts for tables.
ROLES = {
    "dense": "dense, for T",
    "dense_2t": "dense, for 2T",
    "mask": "only the mask",
    "then_weights": "mask, then weights",
    "rewind": "weights from θ0 under the mask",
    "shuffled": "… under the mask shuffled",
    "reinit": "… under the mask, new weights",
    "permuted": "… mask and weights moved about together",
    "magnitudes": "… magnitudes drawn anew, signs kept",
    "batch_norm": "batch norm alone",
    "jump_weights": "after the mask, weights at 1e-5",
    "jump_mask": "after the mask, the mask at 1e-5",
    "jump_dense": "after dense training, weights at 1e-5",
}
