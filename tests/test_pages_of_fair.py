"""The chapter of the fair test: a sentence for each word of the rule, and its figures."""

import itertools
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_fair import FakeRun, study_of

from supermask_tf import fair, fair_rates
from supermask_tf.paper import fair_plots, fair_words
from supermask_tf.paper.pages import fair as page
from supermask_tf.paper.pages import fair_tuning, sparse
from supermask_tf.records import RunSet

WORDS = ("better", "worse", "the same", "open")
NONE = "not measured yet"


class MadeBook:
    """Records made for a test, by the study's name."""

    def __init__(self, **studies):
        self.studies = studies

    def runs(self, *names):
        return RunSet([run for name in names for run in self.studies.get(name, ())])


def table(**words):
    """What `fair.answers` returns, with these words and "the same" elsewhere."""
    rows = {key: (0.101, 0.02, 20, 0.2, words.get(key, "the same")) for key in fair.QUESTIONS}
    columns = ["mean", "half", "n", "p_difference", "word"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


SHOWN = dict.fromkeys(("LeNet-300-100, MNIST", "A", "B", "C"), "+0.3")


@pytest.mark.parametrize("key, word", itertools.product(fair.QUESTIONS, WORDS))
def test_each_answer_has_its_sentence(key, word):
    """The sentence is the word's own, and names the network, the data and the difference."""
    told = fair_words.in_words({"LeNet-300-100, MNIST": table(**{key: word})}, key, SHOWN)
    assert told == fair_words.SENTENCES[key][word].format(where="LeNet-300-100, MNIST: +0.3")
    assert len({fair_words.SENTENCES[key][each] for each in WORDS}) == 4


def test_a_sure_difference_under_the_margin_is_told():
    """The same, and yet surely not zero: the reader is told both."""
    sure = table()
    sure.loc["this_mask", "p_difference"] = 0.01
    told = fair_words.in_words({"A": sure}, "this_mask", SHOWN)
    assert told.endswith("(A: +0.3, a sure difference, but under the margin).")
    assert "sure difference" not in fair_words.in_words({"A": table()}, "this_mask", SHOWN)


def test_answers_that_differ_are_told_apart():
    """Two studies with two words make two sentences; one without its seeds is named as such."""
    tables = {
        "A": table(this_mask="better"),
        "B": table(this_mask="open"),
        "C": table(this_mask=NONE),
    }
    told = fair_words.in_words(tables, "this_mask", SHOWN)
    assert told.startswith("On A: it matters which") and "ends lower (+0.3). On B: whether" in told
    assert "can't tell (+0.3). Not" in told
    assert told.endswith("Not measured yet with all planned seeds: C: +0.3.")
    assert fair_words.in_words({}, "this_mask", {}) == "This is not measured yet."


@pytest.mark.parametrize(
    "words, start",
    [
        (["better"], "Yes:"),
        (["better", "the same"], "It depends:"),
        (["worse", "the same"], "No:"),
        (["worse", "open"], "Nothing here says"),
        ([NONE], "The fair test is not measured yet"),
    ],
)
def test_the_opening_answer(words, start):
    """The opening says yes only where the mask is a better start everywhere."""
    tables = {str(i): table(mask_for_free=word) for i, word in enumerate(words)}
    assert page.answer(tables).startswith(start)


@pytest.mark.parametrize(
    "places, weights, told",
    [
        ("the same", "the same", "On A, neither which weights stay nor their values matter by more"
         " than 0.13 points."),
        ("better", "better", "On A, T epochs end 0.1 points lower once the mask is shuffled or"
         " its weights are drawn anew."),
        ("better", "the same", "On A, the choice of what stays can't be changed without loss, and"
         " the values that stay can be changed without loss."),
        ("open", "worse", "On A, the choice of what stays may matter or not, and the values that"
         " stay can be changed with gain."),
    ],
)  # fmt: skip
def test_the_opening_says_what_matters(places, weights, told):
    answer = page.answer({"A": table(this_mask=places, these_weights=weights)})
    assert answer.endswith(f" {told}")
    assert " On A (77 % kept), " in page.answer({"A": table()}, {"A": 76.7})
    titles = "A, digits", "A, clothes", "B, digits"
    same = page.answer(dict.fromkeys(titles, table()), {"A, digits": 77.4, "A, clothes": 71})
    assert " On A (digits and clothes, 71 to 77 % kept) and B (digits), neither" in same


def test_the_opening_tells_networks_apart():
    """What matters on one network and not on another is told of each; no word, no sentence."""
    suits = table(this_mask="better", these_weights="better", same_time=NONE)
    suits.loc["these_weights", "mean"] = 1.25
    told = page.answer({"A": table(), "B": suits, "C": table(this_mask=NONE)})
    assert "On A, neither" in told and "On B, T epochs end 0.1 to 1.2 points lower" in told
    assert "On C" not in told and told.startswith("No:")


GAPS = {
    "same_time": -1.0, "mask_for_free": 0.0, "this_mask": 1.0, "these_weights": 2.0,
    "replaces_training": -3.0,
}  # fmt: skip


@pytest.fixture
def made_book():
    """Two studies: one complete on WRN-10-2, with everything beside, and one that lacks seeds."""
    whole, part = study_of(GAPS, 10, 0.1), study_of(GAPS, 3, 0.1)
    more = []
    for seed in range(10, 14):
        rewind = {"arm": "rewind", "estimator": "top_k", "density": 0.05}
        more += [
            FakeRun(0.7, f"k{seed}", seed=seed, **rewind),
            FakeRun(0.75, f"p{seed}", seed=seed, arm="reinit", redraw="permuted"),
            FakeRun(0.85, f"j{seed}", seed=seed, arm="finetune", schedule="plateau"),
            FakeRun(0.81, f"m{seed}", seed=seed, arm="mask_long", schedule="plateau"),
            FakeRun(0.82, f"d{seed}", seed=seed, arm="weights_long", schedule="plateau"),
        ]
    return MadeBook(fair_wrn_10_2=[*whole, *more], fair_lenet_mnist=list(part))


def test_texts_follow_the_records(made_book):
    """Numbers, words and what is missing come out of the records, without an interval."""
    found = page.texts(made_book)
    assert "WRN-10-2, CIFAR-10: +1.0" in found["answer_this_mask"]
    assert "LeNet-300-100, MNIST" in found["answer_this_mask"].rpartition("planned seeds: ")[2]
    assert "T = 20 epochs, 3 of 20 seeds, differences under 0.25 points" in found["seeds"]
    assert "WRN-10-2, CIFAR-10: T = 20 epochs, 10 of 10 seeds" in found["seeds"]
    assert found["twice"].startswith("On LeNet-300-100, MNIST there is no batch norm")
    assert "T is a budget" in found["budget"] and "after a mask, the weights:" in found["jumps"]
    shown = [re.sub(r"\{[^}]*\}", "", text) for text in found.values()]
    assert not any("±" in text for text in shown)
    assert "|fair_wrn_10_2/rewind-shuffled}" in found["answer_this_mask"]
    assert found["contrast"].startswith("What masks read before and after training is not")
    for name in ("fair_wrn_10_2", "fair_lenet_mnist"):
        for run in made_book.runs(name):
            run.summary |= {"masked": 0.2, "start_accuracy": 0.125}
    again = page.texts(made_book)
    assert "On WRN-10-2 (CIFAR-10, 80 % kept), 20 epochs end" in again["answer"]
    assert again["contrast"].startswith("Before a weight is trained, the masks read 12 %{")
    assert "is 80.0 %{" in again["contrast"] and again["contrast"].endswith("MNIST).")
    assert isinstance(page.before_and_after(made_book), Figure)
    assert "training ends lower (WRN-10-2, CIFAR-10: +1.9" in found["meaning"]
    assert "the epochs that find it are lost (WRN-10-2, CIFAR-10: " in found["meaning"]
    none = page.texts(MadeBook())
    assert none["meaning"] == "What it means is not measured yet."
    assert none["answer"].startswith("The fair test is not measured yet")
    assert none["open"].startswith("All six questions")  # nothing measured is not nothing open
    assert page.still_open({"A": table()}) == "By the rule every question has its verdict"


def test_figures_show_every_seed(made_book):
    """One dot per seed and one strip as wide as the margin, in each row."""
    drawn = page.this_mask(made_book)
    axis = drawn.axes[0]
    dots = [len(line.get_xdata()) for line in axis.lines if line.get_markersize() == 4]
    assert sorted(dots) == [3, 10]
    assert sorted(bar.get_width() for bar in axis.patches) == [0.5, 1.0]
    told = {text.get_text() for text in axis.texts}
    assert told == {"better", "not measured yet"}
    for each in (page.beside(made_book), page.jump_figure(made_book)):
        assert isinstance(each, Figure)
    assert NONE in page.this_mask(MadeBook()).data
    with pytest.raises(ValueError, match="two seeds"):
        fair_plots.gaps([("A", np.array([1.0]), 0.5, "open")], "A − B")


def test_tables(made_book):
    """The word stands beside the numbers that it follows from; only complete studies have
    chances.
    """
    shown = page.numbers(made_book).data
    row = shown[(shown.study == "WRN-10-2, CIFAR-10") & (shown.question == "This mask?")].iloc[0]
    found = fair.answers(fair.STUDIES["fair_wrn_10_2"], made_book.runs("fair_wrn_10_2"))
    mean, half = found.loc["this_mask", ["mean", "half"]]
    assert row["difference, points"] == f"+{mean:.2f} ± {half:.2f}" and row.word == "better"
    assert set(page.chances(made_book).data.study) == {"WRN-10-2, CIFAR-10"}
    assert "mask, then weights" in page.accuracies(made_book).data.index
    assert NONE in page.numbers(MadeBook()).data and NONE in page.chances(MadeBook()).data


def test_masks_beside_their_starts():
    """Each mask of the tuning is beside what was trained under it, at the rate most of them
    have.
    """
    runs = []
    settings = itertools.product((0.05, 1.0), (0.01, 0.03))
    for (index, (logit, rate)), seed in itertools.product(enumerate(settings), (100, 101)):
        mask = {"initial_logit": logit, "learning_rate": rate, "seed": seed}
        name, value = f"m{index}-{seed}", 0.6 + index / 10
        runs.append(FakeRun(0, name, val_accuracy=value, arm="mask", **mask))
        for own in (0.001, 0.003) if index == 0 else (0.001,):
            start = {"arm": "rewind", "learning_rate": own, "seed": seed, "init_from": name}
            value = 0.9 + index / 100 + own
            runs.append(FakeRun(0, f"r{name}{own}", val_accuracy=value, parent=mask, **start))
        if index == 0:
            for own in (0.001, 0.003, 0.01):
                dense = {"arm": "weights", "learning_rate": own, "seed": seed}
                runs.append(FakeRun(0, f"d{seed}{own}", val_accuracy=0.93 - own, **dense))
    book = MadeBook(tune_lenet_mnist=runs)
    found = fair_rates.starts(book.runs("tune_lenet_mnist"), 20)
    assert list(found["mask"].round(6)) == [60, 60, 70, 70, 80, 80, 90, 90]
    assert list(found.start.round(6)[::2]) == [90.1, 91.1, 92.1, 93.1]
    assert isinstance(fair_tuning.masks_and_starts(book), Figure)
    assert isinstance(fair_tuning.tuning_figure(book), Figure)
    told = fair_tuning.best_logit(book)
    assert "starts at a logit of 1 and reaches 90.0 %" in told
    assert told.endswith("the best of the other starts reach 70.0 % from 0.05")
    # One or two rates for all masks are no choice.
    assert list(fair_tuning.choices(book).data.arm) == ["dense, for T"]
    alone = MadeBook(tune_lenet_mnist=[run for run in runs if run.parameters["seed"] == 100])
    # A curve counts when both of its seeds are in.
    assert NONE in fair_tuning.tuning_figure(alone).data


def test_both_rates_of_the_controls_are_told():
    """Controls that were trained at a borrowed rate before they were tuned: both differences, and
    whether the rate of their own lies on the edge. Only the runs at their own are in an answer.
    """
    parent = {"learning_rate": 0.01, "initial_logit": 0.05}
    tuning = [
        FakeRun(
            0, val_accuracy=0.8 + rate, arm="reinit", redraw="weights", learning_rate=rate,
            seed=seed, parent=parent,
        )
        for seed in (100, 101)
        for rate in (1e-3, 3e-3, 1e-2)
    ]  # fmt: skip
    study = fair.STUDIES["fair_wrn_10_2"]
    runs, earlier = list(study_of(GAPS, 10)), list(study_of({**GAPS, "this_mask": 3.25}, 10))
    for run in earlier:
        run.name += "-borrowed"
    later = {"shuffled_mask", "reinit"}
    made = [run for run in earlier if run.parameters["arm"] in later]
    for run in made:
        run.parameters["learning_rate"] = study.borrowed["reinit"]
    book = MadeBook(tune_wrn_10_2=tuning, fair_wrn_10_2=[*runs, *made])
    told = page.two_rates(book)
    assert "The differences above are at their own, 0.01, the last one tried." in told
    assert "At 0.0045, that of the mask's own weights" in told and re.search(
        r"\+3\.2\S* .*\(this mask\)", told
    )
    alone = MadeBook(tune_wrn_10_2=tuning, fair_wrn_10_2=runs)
    assert str(fair.answers(study, book.runs("fair_wrn_10_2"))) == str(
        fair.answers(study, alone.runs("fair_wrn_10_2"))
    )
    assert page.two_rates(MadeBook(fair_lenet_mnist=runs)) == ""
    assert fair_tuning.edges(book).endswith("for these arms: under the mask, new weights.")
    assert fair_tuning.edges(MadeBook(fair_wrn_10_2=runs)) == ""


def test_a_head_start_is_told_where_training_is_not_at_its_end():
    """Better than a control, and the dense network still gains from twice the epochs: both."""
    short = MadeBook(fair_wrn_10_2=study_of(GAPS, 10))  # twice the epochs: one point more
    told = page.head_start(short)
    assert told.startswith("On WRN-10-2, CIFAR-10 this may be a head start.") and "77.0 %" in told
    same = MadeBook(fair_wrn_10_2=study_of({**GAPS, "this_mask": 0, "these_weights": 0}, 10))
    assert page.head_start(same) == ""
    runs = list(study_of(GAPS, 10))
    for run in runs:
        if run.parameters["epochs"] == 40:
            run.summary["test_accuracy"] = 0.802
    assert page.head_start(MadeBook(fair_wrn_10_2=runs)) == ""


@pytest.mark.parametrize(
    "slope, said",
    [(1, "makes a better start"), (-1, "makes a worse"), (0, "nothing says that a better")],
)
def test_whether_a_better_mask_makes_a_better_start(slope, said):
    """The sentence follows the rank correlation over all masks of the tuning."""
    runs, noise = [], np.random.default_rng(0).standard_normal(8)
    for i in range(8):
        mask = {"initial_logit": 0.05, "learning_rate": 0.001 * (i + 1), "seed": 100}
        runs.append(FakeRun(0, f"m{i}", val_accuracy=0.5 + i / 100, arm="mask", **mask))
        start = {"arm": "rewind", "learning_rate": 0.003, "seed": 100, "init_from": f"m{i}"}
        value = 0.8 + slope * i / 100 + (not slope) * 0.01 * noise[i]
        runs.append(FakeRun(0, f"r{i}", val_accuracy=value, parent=mask, **start))
    told = fair_tuning.better_masks(MadeBook(tune_wrn_10_2=runs))
    assert said in told and "The 8 masks alone reach 50 to 57 %" in told
    assert NONE in fair_tuning.better_masks(MadeBook())


def test_the_rule_is_older_than_the_runs():
    """What the page of claims says of its commits: the rule has not changed since, and the first
    record came after it and after the list of runs.
    """
    root = Path(__file__).resolve().parents[1]

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else ""

    page = (root / "book" / "claims.md").read_text()
    rule, planned, on_a_gpu, at_own_rates = re.findall(r"`([0-9a-f]{7})`", page)
    before = git("show", f"{rule}:book/claims.md")
    if not before:
        pytest.skip("needs the history of the repository")

    def ruled(text):
        return text.partition("\nA comparison is a difference")[2].partition("\n## The runs")[0]

    assert ruled(page) and ruled(page) == ruled(before)
    known = {rule: "lenet_mnist", planned: "lenet_mnist", on_a_gpu: "wrn_10_2"}
    for commit, study in (known | {at_own_rates: "wrn_10_2"}).items():
        # Batch norm alone was trained by the second lease of a GPU, like every arm at its own rate.
        runs = f"runs/fair_{study}" + "/*-bn_only-*" * (commit == at_own_rates)
        first = git("log", "--format=%H", "--reverse", "--", runs).split()[0]
        assert commit in git("log", "--format=%h", "--abbrev=7", f"{first}~").split()
        assert commit == rule or git("show", f"{commit}:runs/studies/fair_{study}.yml")


# --- masks that keep fewer weights ----------------------------------------------------------------

SEEDS = 6


def sparser(shares, **gaps):
    """A study of the threshold's masks and of `top_k`'s at these shares, with these differences of
    question 3 and 4 by share.
    """
    ways = {0.8: {"estimator": "threshold"}}
    ways |= {share: {"estimator": "top_k", "density": share} for share in shares}
    runs = []
    for seed in range(10, 10 + SEEDS):
        wiggle = 1e-4 * (seed % 3 - 1)
        common = {"seed": seed, "reinit_seed": seed}
        runs.append(FakeRun(0.9 + wiggle, f"d{seed}", arm="weights", seed=seed))
        runs.append(FakeRun(0.9 - wiggle, f"dd{seed}", arm="weights", seed=seed, epochs=40))
        for index, (share, way) in enumerate(ways.items()):
            places, values = (gaps[key][index] / 100 for key in ("this_mask", "these_weights"))
            arms = {
                "mask": (0.8, {}),
                "rewind": (0.9, {}),
                "shuffled_mask": (0.9 - places - wiggle, {}),
                "reinit": (0.9 - values + wiggle, {"redraw": "weights"}),
            }
            for arm, (accuracy, more) in arms.items():
                run = FakeRun(accuracy, f"{arm}{share}-{seed}", arm=arm, **common, **way, **more)
                run.summary["masked"] = 1 - share
                runs.append(run)
    return MadeBook(fair_lenet_mnist=runs)


def test_what_sparser_masks_show():
    """Each share gets the clause of its interval: beyond the margin, within it, or neither."""
    book = sparser((0.5, 0.05), this_mask=(0, 0.1, 1.0), these_weights=(0, -0.6, 0.25))
    told = sparse.texts(book)
    assert told["answer"] == (
        "On LeNet-300-100, MNIST, training under a sparser mask ends level with the dense network,"
        " to within 0.25 points,"
        " when 50 and 5 % are kept. Which weights stay makes a difference of more than 0.25 points"
        " when 5 % are kept and a difference of less than 0.25 points when 50 % are kept. Which"
        " values they start from makes a difference of more than 0.25 points the other way when"
        " 50 % are kept and a difference that may be more or less than 0.25 points when 5 % are"
        " kept."
    )
    assert (
        "with 50 and 5 % kept" in told["numbers"] and "+1.0{+1.00 ± 0.01 points" in told["numbers"]
    )
    assert "|fair_lenet_mnist/rewind-shuffled_top_k-0.05}" in told["numbers"]
    level = sparser((0.5,), this_mask=(0, 0.1), these_weights=(0, 0.05))
    assert sparse.answer(level) == (
        "On LeNet-300-100, MNIST, with 50 % kept, neither the mask, nor which weights stay, nor"
        " which values they start from makes a difference of 0.25 points."
    )
    assert sparse.matters(book) == (
        "With 5 % kept (LeNet-300-100, MNIST), it does matter which weights stay."
    )
    assert sparse.matters(sparser((0.5,), this_mask=(0, 0.1), these_weights=(0, 0))) == ""
    none = sparse.texts(MadeBook())
    assert all(text.endswith(f"{NONE}.") for text in none.values())


def test_sparser_masks_in_a_figure_and_a_table():
    """From most weights kept to fewest, every seed a dot; the table has the same differences."""
    book = sparser((0.05, 0.5), this_mask=(0, 1.0, 0.1), these_weights=(0, 0.2, 0.1))
    axis = sparse.by_share(book).axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["80 %", "50 %", "5 %"]
    assert sum(len(line.get_xdata()) == SEEDS for line in axis.lines) == 9  # 3 roles, 3 shares
    means = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 3]
    assert np.allclose(means[1], [90, 89.9, 89.0], atol=0.01)  # under the mask shuffled
    shown = sparse.comparisons(book).data
    assert list(shown.kept) == ["80 %", "50 %", "5 %"] and set(shown.seeds) == {str(SEEDS)}
    assert list(shown["− under the mask shuffled"])[-1] == "+1.00 ± 0.01"
    assert len(sparse.evidence(book)) == (2 + 3 * 4) * SEEDS  # dense for T and 2T, three masks
    for make in (sparse.by_share, sparse.comparisons):
        assert NONE in make(MadeBook()).data
