"""The fair test: its questions and the rule that answers them. No TensorFlow.

The rule stands on the book's page of claims, committed before the runs that it judges::

    study = STUDIES["fair_wrn_10_2"]
    table = answers(study, load_runs("runs/fair_wrn_10_2"))   # one row per question
    table.loc["mask_for_free", "word"]                        # "better", "the same", "worse", ...
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..records import Run, RunSet
from .analysis import step_down

__all__ = [
    "BESIDE",
    "FairStudy",
    "JUMPS",
    "MARGINS",
    "QUESTIONS",
    "Question",
    "STUDIES",
    "answers",
    "bootstrap",
    "differences",
    "jumps",
    "role_of",
    "roles",
    "ruling",
    "way_of",
    "word_chances",
]

# By how much a difference must surely stay below to be called the same, in points of accuracy.
MARGINS = {"mnist": 0.25, "fashion_mnist": 0.5, "cifar10": 0.5}
# The chance of a wrong word that a corrected p value must stay below.
LEVEL = 0.05


@dataclass(frozen=True)
class Question:
    """A comparison of two arms: `first` minus `second`, in test accuracy, paired by seed.

    Attributes:
        title: its name on the page of claims.
        first, second: roles of runs, as `roles` gives them.
    """

    title: str
    first: str
    second: str


# The five primary questions.
QUESTIONS = {
    "same_time": Question("Same time", "then_weights", "dense_2t"),
    "mask_for_free": Question("Mask for free", "rewind", "dense"),
    "this_mask": Question("This mask?", "rewind", "shuffled"),
    "these_weights": Question("These weights?", "rewind", "reinit"),
    "replaces_training": Question("Does masking replace training?", "mask", "dense"),
}
# Beside the fourth question: what of the weights it is that suits the mask.
BESIDE = {
    "moved_together": Question("Mask and θ0 moved about together", "rewind", "permuted"),
    "magnitudes": Question("Magnitudes drawn anew, signs kept", "rewind", "magnitudes"),
    "batch_norm_alone": Question("Batch norm alone", "batch_norm", "dense"),
}
# The sixth question: what T more epochs at 1e-5 add, by the post's schedule: (role after, role
# before).
JUMPS = {
    "after a mask, the weights": ("jump_weights", "mask"),
    "after a mask, the mask itself": ("jump_mask", "mask"),
    "after dense training, the weights": ("jump_dense", "dense"),
}


@dataclass(frozen=True)
class FairStudy:
    """What a study of the fair test ran on.

    Attributes:
        title: network and dataset, for a page.
        dataset: its name, which decides the margin.
        epochs: T.
        seeds: how many seeds it was planned with. Until all are there, no question is answered.
        batch_norm: whether the network has batch norm.
        borrowed: rates that arms had borrowed before they were tuned, by role. Runs at them were
            made again at the arm's own rate; they stay among the records and do not count.
    """

    title: str
    dataset: str
    epochs: int
    seeds: int
    batch_norm: bool
    borrowed: Mapping[str, float] = field(default_factory=dict)

    def same_run(self, role: str) -> str:
        """The role of the run that is this one's too.

        Without batch norm nothing passes from the mask run to the weights but the mask itself:
        there "mask, then weights" is the very run that trains the weights from θ0 under the mask.
        """
        return "rewind" if role == "then_weights" and not self.batch_norm else role


STUDIES = {
    "fair_lenet_mnist": FairStudy("LeNet-300-100, MNIST", "mnist", 20, 20, False),
    "fair_lenet_fashion": FairStudy("LeNet-300-100, Fashion-MNIST", "fashion_mnist", 20, 20, False),
    "fair_wrn_10_2": FairStudy(
        "WRN-10-2, CIFAR-10",
        "cifar10",
        20,
        10,
        True,
        dict.fromkeys(("dense_2t", "then_weights", "shuffled", "reinit"), 4.5e-3),
    ),
    "fair_lenet_mnist_60": FairStudy("LeNet-300-100, MNIST, 60 epochs", "mnist", 60, 10, False),
    "fair_lenet_fashion_60": FairStudy(
        "LeNet-300-100, Fashion-MNIST, 60 epochs", "fashion_mnist", 60, 10, False
    ),
}

# --- which run is which ---------------------------------------------------------------------------


def roles(runs: RunSet, study: FairStudy) -> pd.DataFrame:
    """What each run is in the fair test.

    Args:
        runs: those of one study.
        study: what it ran on.

    Returns:
        One row per run that counts: `role` ("dense", "dense_2t", "mask", "rewind", "then_weights",
        "shuffled", "reinit", "permuted", "magnitudes", "batch_norm", "jump_weights", "jump_mask",
        "jump_dense"), `way` (how its mask was found: "threshold", "top_k 0.05", ...; "" where none
        is learned), `seed`, `accuracy` (test, in points), `name`.

    Raises:
        ValueError: if two runs of a seed have the same role and way.
    """
    rows = []
    for run in runs:
        role = role_of(run.parameters, study.epochs)
        if role and run.parameters["learning_rate"] != study.borrowed.get(role):
            accuracy = 100 * run.summary["test_accuracy"]
            rows.append((role, way_of(run.parameters), run.parameters["seed"], accuracy, run.name))
    table = pd.DataFrame(rows, columns=["role", "way", "seed", "accuracy", "name"])
    twice = table[table.duplicated(["role", "way", "seed"])]
    if len(twice):
        role, way, seed = twice.iloc[0][["role", "way", "seed"]]
        raise ValueError(
            f"Several runs of seed {seed} are {role!r} ({way or 'dense'}): keep one of them."
        )
    return table


def role_of(parameters: dict, epochs: int) -> str | None:
    """The role of a run with these parameters where T is `epochs`, as in `roles`; None if it has
    none.
    """
    arm, length = parameters["arm"], parameters["epochs"]
    cosine = parameters.get("schedule") == "cosine"
    if arm == "weights":
        return {epochs: "dense", 2 * epochs: "dense_2t"}.get(length)
    if length != epochs:
        return None
    if arm == "finetune":
        return "then_weights" if cosine else "jump_weights"
    if arm == "reinit":
        return {"weights": "reinit"}.get(parameters["redraw"], parameters["redraw"])
    return {
        "mask": "mask",
        "rewind": "rewind",
        "shuffled_mask": "shuffled",
        "bn_only": "batch_norm",
        "mask_long": "jump_mask",
        "weights_long": "jump_dense",
    }.get(arm)


def way_of(parameters: dict) -> str:
    """How the mask of a run with these parameters was found, as in `roles`."""
    if parameters["arm"] in ("weights", "bn_only", "weights_long"):
        return ""
    density = parameters.get("density")
    return parameters["estimator"] + (f" {density:g}" if density else "")


def differences(
    table: pd.DataFrame, first: str, second: str, way: str = "threshold"
) -> pd.DataFrame:
    """`first` minus `second` over the seeds that both have.

    Args:
        table: what `roles` returned.
        first, second: two roles; one that learns no mask has the same runs whichever the way.
        way: how the mask was found.

    Returns:
        One row per seed, its index: `points`, `first` and `second` (the names of the two runs).
    """
    sides = []
    for role in (first, second):
        own = table[(table.role == role) & table.way.isin([way, ""])]
        sides.append(own.set_index("seed")[["accuracy", "name"]])
    both = sides[0].join(sides[1], how="inner", lsuffix="_first", rsuffix="_second").sort_index()
    return pd.DataFrame(
        {
            "points": both.accuracy_first - both.accuracy_second,
            "first": both.name_first,
            "second": both.name_second,
        }
    )


# --- the rule -------------------------------------------------------------------------------------


def ruling(points: dict[str, np.ndarray], margin: float) -> pd.DataFrame:
    """One word per comparison: "the same", "better", "worse" or "open".

    Two t tests of each comparison: that its mean is zero, and that it reaches the margin (two
    one-sided tests, Schuirmann 1987, of which the larger p counts). Each kind's p values are
    corrected by Holm (1979) over all comparisons given. In this order: the same, if the second
    corrected p is below 0.05; better or worse, by sign, if the first is; else open.

    Args:
        points: differences in points, one per seed, by comparison; one with fewer than two seeds
            counts among the comparisons and has p = 1.
        margin: in points.

    Returns:
        One row per comparison: `mean`, `half` (of the plain 95 % interval), `n`, `p_difference`,
        `p_margin` (both corrected), `word`.
    """
    rows = {key: _tests(np.asarray(values, float), margin) for key, values in points.items()}
    columns = ["mean", "half", "n", "p_difference", "p_margin"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).astype({"n": int})
    for name in ("p_difference", "p_margin"):
        table[name] = step_down(table[name].to_numpy())
    sign = np.where(table["mean"] > 0, "better", "worse")
    words = np.where(table.p_difference < LEVEL, sign, "open")
    table["word"] = np.where(table.p_margin < LEVEL, "the same", words)
    return table


def _tests(values: np.ndarray, margin: float) -> tuple[float, float, int, float, float]:
    """Mean, half-width, number, and the p values of the two tests, uncorrected."""
    from scipy import stats

    n = len(values)
    if n < 2:
        return (float(values.mean()) if n else np.nan), np.nan, n, 1.0, 1.0
    mean, error = float(values.mean()), float(stats.sem(values))
    half = float(stats.t.ppf(0.975, n - 1)) * error
    with np.errstate(
        divide="ignore", invalid="ignore"
    ):  # all seeds alike: the statistic is 0/0 or infinite
        zero, reached = np.divide([abs(mean), margin - abs(mean)], error)
    p_zero = 2 * stats.t.sf(0.0 if np.isnan(zero) else zero, n - 1)
    p_margin = stats.t.sf(0.0 if np.isnan(reached) else reached, n - 1)
    return mean, half, n, float(p_zero), float(p_margin)


def answers(study: FairStudy, runs: RunSet, way: str = "threshold") -> pd.DataFrame:
    """The five primary questions of a study.

    Returns:
        As `ruling`, one row per key of QUESTIONS; `word` is "not measured yet" until every planned
        seed is there, and "" for a way other than the threshold estimator's, which gets intervals
        and no word.
    """
    table = roles(runs, study)
    points = {}
    for key, question in QUESTIONS.items():
        first = study.same_run(question.first)
        points[key] = differences(table, first, question.second, way).points.to_numpy()
    result = ruling(points, MARGINS[study.dataset])
    if way != "threshold":
        result["word"] = ""
    else:
        result.loc[result.n < study.seeds, "word"] = "not measured yet"
    return result


def jumps(study: FairStudy, runs: RunSet) -> pd.DataFrame:
    """What T more epochs at 1e-5 add to each start (the sixth question).

    Returns:
        One row per key of JUMPS: `mean`, `half` and `n`, in points.
    """
    table = roles(runs, study)
    rows = {}
    for key, (after, before) in JUMPS.items():
        points = differences(table, after, before).points.to_numpy()
        rows[key] = _tests(points, MARGINS[study.dataset])[:3]
    return pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "half", "n"])


def bootstrap(
    first: list[Run], second: list[Run], draws: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """A 95 % interval of the mean difference over seeds and test images together.

    Seeds and test images are drawn with replacement, each by itself, and the mean of what was drawn
    is taken: the pigeonhole bootstrap (Owen 2007, arXiv:0712.1111), whose intervals are rather too
    wide than too narrow.

    Args:
        first, second: the runs of the two sides, pair by pair of one seed.
        draws: how often.
        seed: of the draws.

    Returns:
        The interval's two ends, in points; NaN if a record does not say which images were right.
    """
    rights = [[run.right() for run in side] for side in (first, second)]
    if not first or any(right is None for side in rights for right in side):
        return float("nan"), float("nan")
    gain = (np.array(rights[0]) * 1.0 - np.array(rights[1])).astype(np.float32)  # seeds × images
    seeds, images = gain.shape
    random = np.random.default_rng(seed)
    means = np.empty(draws)
    for index in range(draws):
        of_seeds = np.bincount(random.integers(seeds, size=seeds), minlength=seeds)
        of_images = np.bincount(random.integers(images, size=images), minlength=images)
        means[index] = of_seeds.astype(np.float32) @ gain @ of_images.astype(np.float32)
    low, high = np.percentile(100 * means / (seeds * images), [2.5, 97.5])
    return float(low), float(high)


def word_chances(
    table: pd.DataFrame,
    key: str,
    margin: float,
    true: tuple[float, ...] = (0.0, 0.3, 0.5, 1.0),
    draws: int = 4000,
    seed: int = 0,
) -> pd.DataFrame:
    """How likely each word is for one comparison, by simulation with the spread that was found.

    Normal differences are drawn, as many as there are seeds: of this comparison around each true
    mean, of the others around the mean that was found, and the rule is applied to all of them.

    Args:
        table: what `answers` or `ruling` returned.
        key: the comparison.
        margin: in points.
        true: true means, in points.
        draws: simulated studies.
        seed: of the draws.

    Returns:
        One row per true mean (index), one column per word: fractions.
    """
    from scipy import stats

    random, n = np.random.default_rng(seed), table.n.to_numpy()[:, None]
    deviation = (table.half / stats.t.ppf(0.975, table.n - 1) * np.sqrt(table.n)).to_numpy()[
        :, None
    ]
    at = list(table.index).index(key)
    rows = {}
    for mean in true:
        centre = table["mean"].to_numpy()[:, None].copy()
        centre[at] = mean
        # The mean and the variance of n normal values, drawn as what they are distributed as.
        means = centre + deviation / np.sqrt(n) * random.standard_normal((len(table), draws))
        errors = deviation * np.sqrt(random.chisquare(n - 1, (len(table), draws)) / (n - 1) / n)
        p_zero = 2 * stats.t.sf(np.abs(means) / errors, n - 1)
        p_margin = stats.t.sf((margin - np.abs(means)) / errors, n - 1)
        zero, reached = (step_down(p.T).T[at] for p in (p_zero, p_margin))
        words = np.where(zero < LEVEL, np.where(means[at] > 0, "better", "worse"), "open")
        words = np.where(reached < LEVEL, "the same", words)
        rows[mean] = {
            word: float((words == word).mean()) for word in ("the same", "better", "worse", "open")
        }
    return pd.DataFrame.from_dict(rows, orient="index")
