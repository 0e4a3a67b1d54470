"""Which comparisons the paper makes, and the key of each. Nothing is read here.

A comparison of accuracies has two sides, and its key is "first-second" (see `claims`). What a study
compares depends on what it has: `Study` says that, `pairs` lists its comparisons in the order of
the pages, and `sides` says which runs are meant by a side.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .analysis import difference, equivalence
from .readings import LOGITS

LOW, FULL = 1e-5, 1e-2  # the post's rates: of fine-tuning, and of the mask and the weights arms


@dataclass(frozen=True)
class Study:
    """What decides which comparisons a study makes.

    Attributes:
        epochs, width: its own length and width.
        other_widths: of further mask runs.
        gentler: learning rates of its weights arm other than 0.01.
        finetune, weights_long: the arm's own best rate; None as long as no rate has been tried with
            every seed by both.
        batch_norm: whether its network has any.
    """

    epochs: int = 0
    width: int = 0
    other_widths: tuple[int, ...] = ()
    gentler: tuple[float, ...] = ()
    finetune: float | None = None
    weights_long: float | None = None
    batch_norm: bool = True


def pairs(study: Study) -> list[tuple[str, str, str, bool, Callable]]:
    """The comparisons of accuracies that a study makes, in order.

    Returns:
        Of each one the claim, the first and the second side, whether the claim's verdict rests on
        it, and its rule.
    """
    found: list[tuple[str, str, str, bool, Callable]] = []

    def pair(claim, first, second, decides=True, rule=difference):
        found.append((claim, first, second, decides, rule))

    parity, boost, rate = "1. Parity", "2. Boost", "3. Learning rate"
    controls, gentler = ("random_mask", "shuffled_mask"), [plain_text(r) for r in study.gentler]
    pair(parity, "mask", "weights", rule=equivalence)
    for w in study.other_widths:
        pair(parity, f"mask_{w}_wide", f"weights_{w}_wide", False, equivalence)
    for r in gentler:
        pair(parity, "mask", f"weights_{r}", False, equivalence)
    if study.batch_norm:
        pair(parity, "mask", "bn_only", False)

    pair(boost, "finetune_low", "weights_long_low")
    if study.weights_long != LOW:  # as long as it is None this control is open, not absent
        pair(boost, "finetune_low", "weights_long_own")
    if study.finetune not in (None, LOW):
        pair(boost, "finetune_own", "weights_long_own", False)
    pair(boost, "finetune_low", "weights_half", False)  # as the post compared
    pair(boost, "rewind", "weights")
    if study.batch_norm:
        pair(boost, "finetune_low", "finetune_reset")
        pair(boost, "finetune_reset", "weights_long_low", False)
        # A random mask's network goes on with the learned mask's batch norm.
        pair(boost, "finetune_reset", "random_mask_low", False)
    for mask in controls:
        pair(boost, "finetune_low", f"{mask}_low")
    for mask in controls:
        pair(boost, "rewind", f"{mask}_full")
    if not study.batch_norm:
        # Without it, fine-tuning is training from θ0 under the mask at another rate.
        for r in gentler:
            pair(boost, f"finetune_{r}", f"weights_{r}", False)

    pair(rate, "finetune_low", "finetune_full")
    pair(rate, "finetune_full", "weights_long_full", False)
    pair("6. Estimators", "mask", "bernoulli")
    return found


def sides(study: Study) -> dict[str, tuple[str, dict | None]]:
    """What each side is, by the name that it has in keys.

    Returns:
        Its name in texts, and the values of the columns that pick its runs (None where no runs can
        be picked yet).
    """
    base = base_values(study.epochs, study.width)
    found: dict[str, tuple[str, dict | None]] = {}

    def side(key, text, arm, **values):
        found[key] = text, base | {"arm": arm} | values

    side("mask", "mask", "mask")
    side("bernoulli", "Bernoulli", "mask", estimator="bernoulli")
    side("bn_only", "batch norm only", "bn_only")
    side("weights", "weights", "weights", learning_rate=FULL)
    side("weights_half", "weights, half as long", "weights", learning_rate=FULL)
    side("rewind", "weights from θ0 under the mask", "rewind")
    for w in study.other_widths:
        for arm in ("mask", "weights"):
            side(f"{arm}_{w}_wide", f"{arm} ({w} wide)", arm, width=w, learning_rate=FULL)
    rates = {"low": LOW, "full": FULL} | {plain_text(r): r for r in study.gentler}
    for key, rate in (rates | {"own": study.finetune or LOW}).items():
        text = f"fine-tuned at {plain_text(rate)}"
        side(f"finetune_{key}", text, "finetune", learning_rate=rate)
    for key, rate in (rates | {"own": study.weights_long or LOW}).items():
        text = f"weights longer at {plain_text(rate)}"
        side(f"weights_long_{key}", text, "weights_long", learning_rate=rate)
    if study.weights_long is None:
        found["weights_long_own"] = "weights longer at its own best rate", None
    for rate in study.gentler:
        text = f"weights at {plain_text(rate)}"
        side(f"weights_{plain_text(rate)}", text, "weights", learning_rate=rate)
    reset = {"learning_rate": LOW, "reset_batch_norm": True}
    side("finetune_reset", "fine-tuned, batch norm reset", "finetune", **reset)
    for kind in ("random", "shuffled"):
        arm = f"{kind}_mask"
        side(f"{arm}_low", f"{kind} mask fine-tuned", arm, learning_rate=LOW)
        reset = {"learning_rate": FULL, "reset_batch_norm": bool(study.batch_norm)}
        side(f"{arm}_full", f"{kind} mask fully trained", arm, **reset)
    return found


def base_values(epochs: int, width: int) -> dict:
    """What the plain runs of a study have in common."""
    return {
        "epochs": epochs,
        "width": width,
        "shortcut": "1x1",
        "initial_logit": 1.0,
        "estimator": "threshold",
        "reset_batch_norm": False,
    }


def plain_text(rate: float) -> str:
    """A learning rate as in texts: 1e-5, 0.01."""
    return f"{rate:g}".replace("e-0", "e-")


# --- the other comparisons ------------------------------------------------------------------------

# Of the threshold estimator with the Bernoulli one at its own rate: text by key.
ESTIMATORS = {
    "mask-bernoulli_0.1": "mask − Bernoulli at 0.1",
    "mask-bernoulli_0.1_drawn": "mask − Bernoulli at 0.1, drawn at evaluation",
}
# Of supermasks and tickets: the two methods (as `readings.methods` names them), and which accuracy
# is compared: without training ("start") or after it ("trained"). At each of the densities 0.2,
# 0.5, 0.05:
MASKS = {
    "start_supermask-ticket": ("supermask", "ticket", "start"),
    "trained_ticket-supermask": ("ticket", "supermask", "trained"),
    "trained_ticket-random": ("ticket", "random", "trained"),
    "trained_supermask-random": ("supermask", "random", "trained"),
    "trained_supermask-dense": ("supermask", "dense", "trained"),
    "trained_ticket-dense": ("ticket", "dense", "trained"),
    "trained_random-dense": ("random", "dense", "trained"),
}
# At the densities 0.2 and 0.05:
TICKETS = {
    "rounds-one_shot": ("ticket by rounds", "ticket", "trained"),
    "rewound-theta0": ("ticket, rewound to epoch 1", "ticket", "trained"),
    "over_all-by_layer": ("ticket over all layers", "ticket", "trained"),
    "pruned-ticket": ("pruned", "ticket", "trained"),
}
# What claim 7 rests on.
KINDS = ("overlap_20", "start_supermask-ticket_20", "trained_ticket-supermask_20")
_OTHER_TICKETS = {
    "rounds-one_shot": "by rounds − one shot",
    "rewound-theta0": "rewound to epoch 1 − to θ0",
    "over_all-by_layer": "over all layers − by layer",
    "pruned-ticket": "weights pruned and trained on − ticket",
}


def ticket_text(key: str) -> str:
    """The text of a key of MASKS or TICKETS, without its density."""
    if key in _OTHER_TICKETS:
        return _OTHER_TICKETS[key]
    first, second, column = MASKS[key]
    names = {"random": "random mask", "dense": "dense network"}
    when = "without training" if column == "start" else "trained from θ0"
    return f"{when}: {names.get(first, first)} − {names.get(second, second)}"


def all_keys() -> frozenset[str]:
    """Every key that a study can have; other widths and rates come with their records."""
    known = {f"{key}_{density}" for key in ("overlap", *MASKS) for density in (5, 20, 50)}
    known |= {f"{key}_{density}" for key in TICKETS for density in (5, 20)} | set(ESTIMATORS)
    for batch_norm in (True, False):
        study = Study(0, 0, (1, 2, 4), (0.001,), 0.001, 0.001, batch_norm)
        known |= {f"{first}-{second}" for _, first, second, *_ in pairs(study)}
    layers = ("masked_per_weights", "masked_per_weights_within")
    shortcuts = ("shortcuts_3x3-shortcuts_1x1", "shortcuts_wide-shortcuts_1x1")
    most = [f"most_masked_{start}" for start in (*(f"logits_{z:g}" for z in LOGITS), "longer")]
    return frozenset({*known, *layers, *shortcuts, *most})
