"""Statistics over seeds, checked against values worked out by hand or by scipy."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from supermask_tf import analysis
from supermask_tf.paper.analysis import accuracy_table, interval, over_seeds


def test_interval_by_hand():
    """1, 2, 3: mean 2, s = 1, t(0.975; 2) = 4.302653, so a half-width of 4.302653/√3."""
    mean, half = interval([1, 2, 3])
    assert mean == 2 and half == pytest.approx(4.302652729696 / math.sqrt(3), rel=1e-10)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.99])
def test_interval_is_scipys(level):
    """The half-width is that of scipy's Student t interval."""
    values = np.random.default_rng(0).normal(0.9, 0.02, 7)
    low, high = stats.t.interval(
        level, len(values) - 1, values.mean(), values.std(ddof=1) / math.sqrt(len(values))
    )
    mean, half = interval(values, level)
    assert (mean - half, mean + half) == (
        pytest.approx(low, rel=1e-12),
        pytest.approx(high, rel=1e-12),
    )


def test_one_run_has_no_spread():
    """A single value has no interval, rather than one of width 0."""
    mean, half = interval([0.7])
    assert mean == 0.7 and math.isnan(half)
    assert interval([0.5, 0.5])[1] == 0


@pytest.mark.parametrize(
    "values, level, words",
    [([], 0.95, "at least one value"), ([1, 2], 1.0, "level=1.0"), ([1, 2], 95, "level=95")],
)
def test_interval_refuses(values, level, words):
    """No values, or a level in per cent, are told."""
    with pytest.raises(ValueError, match=words):
        interval(values, level)


def test_over_seeds():
    """Each group has its own mean, half-width and number of rows; values that are missing do not
    count.
    """
    frame = pd.DataFrame(
        {
            "arm": ["mask"] * 4 + ["weights"],
            "epoch": [1, 1, 1, 2, 1],
            "accuracy": [0.1, 0.3, np.nan, 0.5, 0.9],
        }
    )
    table = over_seeds(frame, "accuracy", ["arm", "epoch"]).set_index(["arm", "epoch"])
    assert table.index.tolist() == [("mask", 1), ("mask", 2), ("weights", 1)]
    assert table["mean"].tolist() == pytest.approx([0.2, 0.5, 0.9]) and table.n.tolist() == [
        2,
        1,
        1,
    ]
    # s = 0.1·√2 and t(0.975; 1) = 12.7062, so the half-width is 12.7062 · 0.1.
    assert table.half.iloc[0] == pytest.approx(1.2706204736174696) and table.half[1:].isna().all()


def test_a_parameter_that_does_not_apply_is_a_group():
    """The dense network has no density: it is a row of its own, and can be compared by that."""
    frame = pd.DataFrame(
        {
            "arm": ["mask"] * 2 + ["weights"] * 2,
            "seed": [0, 1] * 2,
            "density": [0.2, 0.2, None, None],
            "test_accuracy": [0.5, 0.7, 0.8, 0.9],
        }
    )
    table = over_seeds(frame, "test_accuracy", ["arm", "density"])
    assert (
        table.arm.tolist() == ["mask", "weights"]
        and table.density.isna().tolist() == [False, True]
        and table["mean"].tolist() == pytest.approx([0.6, 0.85])
    )
    everything = over_seeds(frame.assign(width=None), "test_accuracy", ["arm", "width"])
    assert everything.n.tolist() == [2, 2]
    assert analysis.paired(frame, {"density": 0.2}, {"density": None}).tolist() == pytest.approx(
        [-30, -20]
    )


def test_over_seeds_of_one_group():
    """One epoch of one run is a table of one row."""
    table = over_seeds(pd.DataFrame({"epoch": [1], "accuracy": [0.4]}), "accuracy", ["epoch"])
    assert (
        table.epoch.tolist() == [1] and table["mean"].tolist() == [0.4] and table.n.tolist() == [1]
    )


def test_accuracy_table():
    """Per cent by dataset and arm, with an interval only where there are several seeds, arms in the
    post's order.
    """
    summary = pd.DataFrame(
        {
            "dataset": ["mnist"] * 4,
            "arm": ["finetune", "mask", "mask", "mask"],
            "test_accuracy": [0.75, 0.01, 0.02, 0.03],
        }
    )
    table = accuracy_table(summary)
    assert table.columns.tolist() == ["mask", "finetune"] and table.index.tolist() == ["mnist"]
    assert (
        table.loc["mnist", "mask"] == "2.00 ± 2.48 (n = 3)"
        and table.loc["mnist", "finetune"] == "75.00 (one seed)"
    )


def test_a_run_of_another_study_is_no_further_seed():
    """Two studies can hold a run of one name: together they are no larger sample."""
    summary = pd.DataFrame(
        {
            "dataset": "mnist",
            "arm": "mask",
            "run": ["a", "b", "a"],
            "study": ["one", "one", "two"],
            "seed": [0, 1, 0],
            "test_accuracy": 0.5,
        }
    )
    with pytest.raises(ValueError, match="3 runs of mnist, mask share 2 seeds"):
        accuracy_table(summary)
    assert "n = 2" in accuracy_table(summary[:2]).loc["mnist", "mask"]


def test_a_column_of_nothing_has_no_mean():
    """A group without a value is left out, and so are all of them."""
    frame = pd.DataFrame({"way": ["a", "b"], "value": [np.nan, np.nan]})
    assert over_seeds(frame, "value", ["way"]).columns.tolist() == [
        "way",
        "mean",
        "half",
        "n",
    ] and not len(over_seeds(frame, "value", ["way"]))


# --- verdicts -------------------------------------------------------------------------------------

# Four values whose 95 % half-width is t(0.975; 3) = 3.182 times their standard error, and whose 90
# % one is 2.353 times it.
SPREAD = np.array([-0.3, -0.1, 0.1, 0.3])
ERROR = np.std(SPREAD, ddof=1) / 2


@pytest.mark.parametrize(
    "mean, factor, verdict",
    [
        (3.183 * ERROR, 1, "supported"),
        (3.181 * ERROR, 1, "not settled"),
        (0, 1, "not settled"),
        (-3.183 * ERROR, 1, "refuted"),
        (0, 0.25 / (3.183 * ERROR), "refuted"),
        (0.01, 0.25 / (3.183 * ERROR), "not settled"),
    ],
)
def test_a_difference_is_settled_by_its_interval(mean, factor, verdict):
    """Above zero, below zero, or too little to matter: by the 95 % t interval and nothing else."""
    assert analysis.difference(mean + factor * SPREAD).verdict == verdict


@pytest.mark.parametrize(
    "mean, verdict",
    [
        (0, "supported"),
        (1 - 2.354 * ERROR, "supported"),
        (1 - 2.352 * ERROR, "not settled"),
        (-1 + 2.354 * ERROR, "supported"),
        (1 + 3.181 * ERROR, "not settled"),
        (1 + 3.184 * ERROR, "refuted"),
        (-1 - 3.184 * ERROR, "refuted"),
    ],
)
def test_equivalence_takes_two_one_sided_tests(mean, verdict):
    """Not being different is no equivalence: the 90 % interval must lie inside the margin."""
    assert analysis.equivalence(mean + SPREAD).verdict == verdict


@pytest.mark.parametrize("rule", [analysis.difference, analysis.equivalence])
@pytest.mark.parametrize("points", [[], [5.0], [5.0, 5.1]])
def test_fewer_than_three_seeds_settle_nothing(rule, points):
    """However large the difference, two runs are two runs."""
    assert rule(points).verdict == "not settled" and rule(points).n == len(points)


def test_holm_by_hand():
    """The smallest p value times their number, the next times one less, and none below one before
    it.
    """
    points = [
        np.array([1.0, 1.1, 0.9, 1.2]),
        np.array([0.5, -0.2, 0.4, 0.1]),
        np.array([2.0, 1.4, 2.6, 2.2]),
    ]
    half = [interval(p)[1] for p in points]
    raw = [stats.ttest_1samp(p, 0).pvalue for p in points]
    first, second, third = (raw[i] for i in (0, 2, 1))
    assert first < second < third
    expected = [3 * first, third, max(3 * first, 2 * second)]
    found = analysis.holm([p.mean() for p in points], half, [4, 4, 4])
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    # A comparison without a test counts, and one whose seeds all agree is sure.
    np.testing.assert_allclose(
        analysis.holm(
            [points[0].mean(), np.nan, 3.0, 0.0], [half[0], np.nan, 0.0, 0.0], [4, 0, 3, 3]
        ),
        [3 * first, np.nan, 0.0, 1.0],
        rtol=1e-9,
    )
    assert analysis.holm([0.1], [5.0], [3]) <= 1 and not len(analysis.holm([], [], []))


def test_differences_are_paired_by_seed():
    """Each seed is compared with itself, in percentage points, and only where both runs exist."""
    summary = pd.DataFrame(
        {
            "arm": ["mask", "mask", "mask", "weights", "weights", "weights"],
            "seed": [0, 1, 2, 2, 0, 5],
            "learning_rate": [1, 1, 1, 1, 1, 1],
            "test_accuracy": [0.5, 0.6, 0.7, 0.9, 0.6, 0.1],
        }
    )
    np.testing.assert_allclose(
        analysis.paired(summary, {"arm": "mask"}, {"arm": "weights"}), [-10, -20]
    )
    with pytest.raises(ValueError, match="3 seeds|several|picks"):
        analysis.paired(pd.concat([summary, summary]), {"arm": "mask"}, {"arm": "weights"})


def test_best_rate_is_chosen_on_held_out_images():
    """The test set has no part in choosing a learning rate."""
    summary = pd.DataFrame(
        [("mask", seed, rate, 0.9 + rate, 1 - rate) for seed in range(3) for rate in (0.1, 0.01)],
        columns=["arm", "seed", "learning_rate", "test_accuracy", "val_accuracy"],
    )
    assert analysis.best_rate(summary, "mask") == 0.01
    odd = pd.DataFrame(
        [("mask", 0, 0.1, 0.9, 0.9), ("mask", 1, 0.1, 0.1, 0.1), ("mask", 0, 0.01, 0.8, 0.8)],
        columns=summary.columns,
    )
    assert analysis.best_rate(odd, "mask") == 0.1, "over the seeds that all rates have"
    assert (
        analysis.best_rate(odd.iloc[1:], "mask") is None
        and analysis.best_rate(odd, "weights") is None
    )


@pytest.mark.parametrize("logit", [-2.0, -0.5, 0.5, 1.5])
def test_toy_gradients_are_the_estimators(logit):
    """The figure shows what the package's estimators pass back on that toy: each of the draws,
    weighted by its chance.
    """
    tf = pytest.importorskip("tensorflow")
    from supermask_tf import estimators

    def passed(mask_of):
        logits = tf.Variable([logit, 0.0], dtype=tf.float64)
        with tf.GradientTape() as tape:
            mask = mask_of(tf.convert_to_tensor(logits))
            loss = (tf.reduce_sum(mask) - 0.6) ** 2
        return mask.numpy(), tape.gradient(loss, logits)[0].numpy()

    table = analysis.toy_gradients([logit]).set_index("estimator")
    # The second logit stands at 0, where the threshold's mask is 0.
    assert passed(estimators.threshold)[1] == pytest.approx(table["mean"]["threshold"])
    drawn = {}
    for seed in range(40):
        mask, gradient = passed(lambda m: estimators.bernoulli(m, tf.constant([seed, 1])))
        drawn[tuple(mask)] = gradient
    assert len(drawn) == 4
    p = 1 / (1 + np.exp(-logit))
    chances = {mask: (p if mask[0] else 1 - p) / 2 for mask in drawn}
    mean = sum(chances[mask] * drawn[mask] for mask in drawn)
    assert mean == pytest.approx(table["mean"]["bernoulli"])
    assert np.sqrt(
        sum(chances[mask] * (drawn[mask] - mean) ** 2 for mask in drawn)
    ) == pytest.approx(table.deviation["bernoulli"])

    def expected(m):
        q = 1 / (1 + np.exp(-m))
        return sum((q if a else 1 - q) * 0.5 * (a + b - 0.6) ** 2 for a in (0, 1) for b in (0, 1))

    assert (expected(logit + 1e-5) - expected(logit - 1e-5)) / 2e-5 == pytest.approx(
        table.true["bernoulli"], rel=1e-6
    )


@pytest.mark.parametrize(
    "verdicts, verdict",
    [
        (["supported", "supported"], "supported"),
        (["supported", "not settled"], "not settled"),
        (["refuted", "supported"], "refuted"),
        (["not settled", "refuted"], "refuted"),
        (["not settled"], "not settled"),
    ],
)
def test_a_claim_must_hold_against_every_control(verdicts, verdict):
    """One control that does as well refutes it; one that is open leaves it open."""
    table = pd.DataFrame(
        {"claim": ["other", *["boost"] * len(verdicts)], "verdict": ["supported", *verdicts]}
    )
    assert dict(analysis.by_claim(table)) == {"other": "supported", "boost": verdict}
