"""The fair test: each word has the meaning that the page of claims gives it, and rates are chosen
by its rule.
"""

import numpy as np
import pandas as pd
import pytest

from supermask_tf import fair, fair_rates
from supermask_tf.records import RunSet

FIVE = list(fair.QUESTIONS)
STUDY = fair.STUDIES["fair_lenet_mnist"]


class FakeRun:
    """A record made for a test: parameters, accuracies, and which of its test images were right."""

    def __init__(self, accuracy, name="run", right=None, val_accuracy=0.5, **parameters):
        self.parameters = {
            "epochs": 20,
            "estimator": "threshold",
            "schedule": "cosine",
            "learning_rate": 0.001,
        } | parameters
        self.summary = {"test_accuracy": accuracy, "val_accuracy": val_accuracy}
        self.name, self._right = name, right

    def right(self):
        return self._right


def study_of(gaps, seeds, spread=0.0, epochs=20):
    """Runs of all primary arms on a network with batch norm, whose questions have these true
    differences.
    """
    random, runs = np.random.default_rng(0), []
    dense = 80.0
    rewind = dense + gaps["mask_for_free"]
    accuracy = {
        "dense": dense,
        "dense_2t": 81.0,
        "rewind": rewind,
        "mask": dense + gaps["replaces_training"],
        "then_weights": 81.0 + gaps["same_time"],
        "shuffled": rewind - gaps["this_mask"],
        "reinit": rewind - gaps["these_weights"],
    }
    arms = {
        "dense": {"arm": "weights"},
        "dense_2t": {"arm": "weights", "epochs": 2 * epochs},
        "rewind": {"arm": "rewind"},
        "mask": {"arm": "mask"},
        "then_weights": {"arm": "finetune"},
        "shuffled": {"arm": "shuffled_mask"},
        "reinit": {"arm": "reinit", "redraw": "weights"},
    }
    for seed in range(10, 10 + seeds):
        for role, parameters in arms.items():
            value = (accuracy[role] + spread * random.standard_normal()) / 100
            runs.append(
                FakeRun(value, f"{role}-{seed}", seed=seed, **{"epochs": epochs} | parameters)
            )
    return RunSet(runs)


def points(mean, deviation, n=10):
    """n values with exactly this mean and standard deviation."""
    values = np.random.default_rng(1).standard_normal(n)
    values = (values - values.mean()) / values.std(ddof=1)
    return mean + deviation * values


@pytest.mark.parametrize(
    "mean, deviation, word",
    [
        (2.0, 0.5, "better"),
        (-2.0, 0.5, "worse"),
        (0.0, 0.1, "the same"),
        (0.6, 3.0, "open"),
        (0.3, 0.05, "the same"),  # surely not zero, and too little to matter
        (0.7, 0.05, "better"),
    ],
)
def test_each_word(mean, deviation, word):
    """A difference gets the word of the rule, the same before better and worse."""
    table = fair.ruling({key: points(mean, deviation) for key in FIVE}, 0.5)
    assert set(table.word) == {word}


def test_holm_decides():
    """A p value of 0.03 alone is a word; among five it is none, and the smallest of five is
    multiplied by five.
    """
    from scipy import stats

    deviation, n = 1.0, 10
    mean = stats.t.isf(0.015, n - 1) * deviation / np.sqrt(n)
    alone = fair.ruling({"one": points(mean, deviation)}, 0.01)
    among = fair.ruling(
        {"one": points(mean, deviation)} | {key: points(0, 1) for key in "abcd"}, 0.01
    )
    assert alone.p_difference["one"] == pytest.approx(0.03) and alone.word["one"] == "better"
    assert among.p_difference["one"] == pytest.approx(0.15) and among.word["one"] == "open"


@pytest.mark.slow
def test_wrong_words_are_as_rare_as_stated():
    """Over many studies without any difference, one in twenty at most has a better or worse in it;
    over many whose differences reach the margin, one in twenty at most has a same in it.
    """
    random, studies = np.random.default_rng(2), 600
    wrong = {"sign": 0, "same": 0}
    for _ in range(studies):
        none = fair.ruling({key: random.standard_normal(10) for key in FIVE}, 0.01)
        wrong["sign"] += none.word.isin(["better", "worse"]).any()
        far = fair.ruling({key: 0.5 + 0.3 * random.standard_normal(10) for key in FIVE}, 0.5)
        wrong["same"] += (far.word == "the same").any()
    assert (
        0.02 < wrong["sign"] / studies < 0.077
    )  # 5 % and 3 standard errors; far below would be no test
    assert 0.02 < wrong["same"] / studies < 0.077


def test_seeds_that_are_all_alike():
    """Without any spread a difference is what it is: zero is the same, and two points are
    better.
    """
    table = fair.ruling({"zero": np.zeros(5), "two": np.full(5, 2.0)}, 0.5)
    assert list(table.word) == ["the same", "better"]


def test_missing_comparison_still_counts():
    """A comparison without runs has no word, and the others are corrected for it."""
    alone = fair.ruling({"one": points(0.5, 1.0)}, 0.01)
    beside = fair.ruling({"one": points(0.5, 1.0), "none": np.array([])}, 0.01)
    assert beside.p_difference["one"] == pytest.approx(2 * alone.p_difference["one"])
    assert beside.n["none"] == 0 and beside.word["none"] == "open"


GAPS = {
    "same_time": -1.5,
    "mask_for_free": 0.0,
    "this_mask": 2.0,
    "these_weights": 1.0,
    "replaces_training": -6.0,
}


def test_answers_compare_the_right_runs():
    """Records with known differences get their words; each question takes its own two arms."""
    study = fair.STUDIES["fair_wrn_10_2"]
    table = fair.answers(study, study_of(GAPS, study.seeds, 0.02))
    assert table["mean"].to_dict() == pytest.approx(GAPS, abs=0.05)
    assert list(table.word) == ["worse", "the same", "better", "better", "worse"]


def test_no_word_before_every_seed_is_there():
    """Seeds are fixed beforehand: a study that lacks one answers nothing."""
    study = fair.STUDIES["fair_wrn_10_2"]
    table = fair.answers(study, study_of(GAPS, study.seeds - 1, 0.02))
    assert set(table.word) == {"not measured yet"} and set(table.n) == {study.seeds - 1}


def test_without_batch_norm_then_weights_is_rewind():
    """On LeNet-300-100 the first question takes the run that trains from θ0 under the mask."""
    study = fair.STUDIES["fair_lenet_mnist"]
    runs = RunSet(
        [run for run in study_of(GAPS, study.seeds) if run.parameters["arm"] != "finetune"]
    )
    table = fair.answers(study, runs)
    assert table["mean"].same_time == pytest.approx(GAPS["mask_for_free"] - 1.0)
    assert set(table.n) == {study.seeds}


def test_two_runs_of_a_seed_are_refused():
    """Two runs that would be the same side of the same pair are an error, not a choice."""
    runs = RunSet([FakeRun(0.8, arm="weights", seed=10), FakeRun(0.9, arm="weights", seed=10)])
    with pytest.raises(ValueError, match="Several runs of seed 10 are 'dense'"):
        fair.roles(runs, STUDY)


def test_roles():
    """Rate and schedule tell "mask, then weights" from the post's jump; another length has no
    role.
    """
    made = [
        {"arm": "finetune"},
        {"arm": "finetune", "schedule": "plateau"},
        {"arm": "mask_long", "schedule": "plateau"},
        {"arm": "reinit", "redraw": "permuted"},
        {"arm": "mask", "estimator": "top_k", "density": 0.05},
        {"arm": "mask", "epochs": 7},
    ]
    table = fair.roles(
        RunSet([FakeRun(0.5, str(i), seed=i, **p) for i, p in enumerate(made)]), STUDY
    )
    assert list(table.role) == ["then_weights", "jump_weights", "jump_mask", "permuted", "mask"]
    assert list(table.way) == ["threshold"] * 4 + ["top_k 0.05"]


def test_runs_at_a_borrowed_rate_do_not_count():
    """An arm that was trained at another arm's rate before it was tuned counts at its own alone."""
    study = fair.STUDIES["fair_wrn_10_2"]
    rate = study.borrowed["reinit"]
    reinit = {"arm": "reinit", "redraw": "weights", "seed": 10}
    runs = [
        FakeRun(0.8, "borrowed", learning_rate=rate, **reinit),
        FakeRun(0.9, "own", learning_rate=2 * rate, **reinit),
        FakeRun(0.7, "rewind", arm="rewind", seed=10, learning_rate=rate),
    ]
    assert list(fair.roles(RunSet(runs), study).name) == ["own", "rewind"]
    assert set(study.borrowed) == {"dense_2t", "then_weights", "shuffled", "reinit"}
    with pytest.raises(ValueError, match="Several runs of seed 10"):
        fair.roles(RunSet([*runs, FakeRun(0.9, learning_rate=0.1, **reinit)]), study)


def test_jumps():
    """What longer training adds is the child's accuracy minus its parent's."""
    runs = []
    for seed in (10, 11, 12):
        runs += [
            FakeRun(0.5, arm="mask", seed=seed),
            FakeRun(0.6, arm="weights", seed=seed),
            FakeRun(0.57, arm="finetune", schedule="plateau", seed=seed),
            FakeRun(0.55, arm="mask_long", schedule="plateau", seed=seed),
            FakeRun(0.61, arm="weights_long", schedule="plateau", seed=seed),
        ]
    table = fair.jumps(fair.STUDIES["fair_wrn_10_2"], RunSet(runs))
    assert list(table["mean"].round(6)) == [7.0, 5.0, 1.0] and set(table.n) == {3}


def test_bootstrap_knows_both_sources():
    """Its interval covers the mean, grows with the spread over seeds, and does not vanish when
    seeds agree.
    """
    random = np.random.default_rng(3)

    def side(chances):
        return [FakeRun(0, right=random.random(2000) < chance) for chance in chances]

    narrow = fair.bootstrap(side([0.9] * 8), side([0.8] * 8))
    wide = fair.bootstrap(side(np.linspace(0.8, 1.0, 8)), side([0.8] * 8))
    assert narrow[0] < 10 < narrow[1] and 0.5 < narrow[1] - narrow[0] < 6
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])
    assert np.isnan(fair.bootstrap([FakeRun(0)], [FakeRun(0)])).all()


@pytest.mark.slow
def test_word_chances_follow_the_rule():
    """Simulated words come as often as the rule itself gives them to data of that mean and
    spread.
    """
    table = fair.ruling({key: points(0.0, 0.5) for key in FIVE}, 0.5)
    chances = fair.word_chances(table, "this_mask", 0.5, true=(0.0, 1.0))
    random, counted = np.random.default_rng(4), []
    for _ in range(400):
        data = {
            key: (1.0 if key == "this_mask" else 0.0) + 0.5 * random.standard_normal(10)
            for key in FIVE
        }
        counted.append(fair.ruling(data, 0.5).word["this_mask"])
    assert chances.loc[1.0, "better"] == pytest.approx(
        np.mean(np.array(counted) == "better"), abs=0.06
    )
    assert chances.sum(axis=1).to_list() == pytest.approx([1.0, 1.0])
    assert chances.loc[0.0, ["better", "worse"]].sum() < 0.05


def test_rate_by_a_parabola():
    """The top of an exact parabola in the logarithm of the rate is found between the rates that
    were tried.
    """
    rates = np.array([3e-4, 1e-3, 3e-3, 1e-2])
    accuracies = 90 - (np.log(rates) - np.log(1.5e-3)) ** 2
    assert fair_rates.choose_rate(rates, accuracies) == (pytest.approx(1.5e-3), False)


@pytest.mark.parametrize("accuracies, rate", [([3, 2, 1], 1e-4), ([1, 2, 3], 1e-2)])
def test_rate_on_an_edge_is_told(accuracies, rate):
    """Where the first or the last rate is the best one, it is taken, and marked."""
    assert fair_rates.choose_rate([1e-4, 1e-3, 1e-2], accuracies) == (rate, True)


def test_choices_keep_curves_apart():
    """Each starting logit has a curve of its own, in the mean of its seeds, and so has each mask
    started from.
    """
    runs = []
    for logit, top in ((0.05, 0.01), (1.0, 0.03)):
        for rate in (0.003, 0.01, 0.03, 0.1):
            for seed in (100, 101):
                value = 0.9 - 0.01 * (np.log(rate) - np.log(top)) ** 2 + 0.001 * (seed - 100.5)
                runs.append(
                    FakeRun(
                        0,
                        val_accuracy=value,
                        arm="mask",
                        seed=seed,
                        learning_rate=rate,
                        initial_logit=logit,
                    )
                )
    for arm, rate, own in (("rewind", 0.001, {}), ("mask", 0.012, {"initial_logit": 1.0})):
        # The second is a mask that was learned at a chosen rate: no step of the grid.
        runs.append(
            FakeRun(
                1,
                arm=arm,
                seed=100,
                learning_rate=rate,
                parent={"learning_rate": 0.01, "initial_logit": 0.05},
                **own,
            )
        )
    table = fair_rates.choices(RunSet(runs), 20).set_index(["role", "initial_logit"])
    assert table.rate["mask", 0.05] == pytest.approx(0.01, rel=0.05)
    assert table.rate["mask", 1.0] == pytest.approx(0.03, rel=0.05)
    assert table.seeds["mask", 1.0] == 2 and table.mask_rate["rewind", 0.05] == 0.01
    assert isinstance(table, pd.DataFrame) and not table.edge["mask", 1.0]
