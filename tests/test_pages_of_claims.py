"""The pages that answer the question: their sentences for each outcome, and for none yet.

Parity, the boost and the front page; the other pages are in test_pages.py.
"""

import itertools
import json
import re

import made
import numpy as np
import pandas as pd
import pytest
from made import CONTROLS, PLAIN, empty, lenet, make

from supermask_tf import fair, plots, readings
from supermask_tf.paper.pages import Book, boost, inline, tickets, training
from supermask_tf.paper.pages import index as front

LENET = "LeNet-300-100 on MNIST"


# --- the front page -------------------------------------------------------------------------------

START = " Trained from the untrained weights at the full rate the masked network shows no lead"
ANSWERS = {
    "as the post trained it": (
        CONTROLS | {"finetune": 0.95, "rewind": 0.94},
        (
            "Not as the post trained it: at its low rate the dense network, trained as long, ends "
            f"ahead on every network tried here.{START}."
        ),
    ),
    "refuted": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.94},
        (
            "No, on the networks tried here: each time at least one control does as well or better."
            f"{START}."
        ),
    ),
    "refuted by a random mask": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.96, "random_mask": 0.98},
        "No, on the networks tried here: each time at least one control does as well or better.",
    ),
    "supported": (
        CONTROLS | {"finetune": 0.97, "rewind": 0.96},
        "Yes, on the networks tried here: it beats every control.",
    ),
    "not settled": (
        {"finetune": 0.97},
        (
            "That is not settled for all of the networks tried here."
            f"{START}, though a small one is not ruled out."
        ),
    ),
    "as good as equal": (
        CONTROLS | {"finetune": 0.96, "rewind": 0.95},
        (
            "No, on the networks tried here: each time at least one control does as well or better."
            f"{START}, though a small one is not ruled out."
        ),
    ),
}


@pytest.mark.parametrize("outcome", ANSWERS)
def test_the_answer(tmp_path, outcome):
    """The book's first sentence follows from the verdicts, for each that they can give."""
    accuracies, answer = ANSWERS[outcome]
    assert front.answer(lenet(tmp_path, **accuracies)) == answer


def test_the_answer_when_studies_disagree(tmp_path):
    """Refuted in one study and supported in another is not settled for all."""
    lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.96)
    for run in (tmp_path / "runs/lenet").iterdir():
        other = tmp_path / "runs/wrn_mnist" / run.name
        other.parent.mkdir(exist_ok=True)
        run.rename(other)
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    assert set(book.verdicts.loc["2. Boost"]) == {"refuted", "supported", "–"}
    assert front.answer(book) == "That is not settled for all of the networks tried here."


def test_the_front_page_before_any_run(tmp_path):
    """Without records each sentence says so; none speaks of a result."""
    made.published(tmp_path)
    texts = front.texts(empty(tmp_path))
    assert texts.pop("answer").startswith("No run that asks this has been made yet. Fairer tests")
    assert texts.pop("corrected") == "no p, since nothing is refuted"
    assert {texts.pop(name) for name in ("lenet_n", "tickets_n", "wide_n", "runs", "hours")} == {
        "0"
    }
    assert {texts.pop(f"fair_{key}") for key in fair.QUESTIONS} == {"Not in yet."}
    assert texts.pop("evil").startswith("At none of these") and texts.pop("sparser").endswith(
        "not measured yet."
    )
    assert texts.pop("margin") == "no study has begun" and texts.pop("scale") == ""
    assert all("not measured yet" in text for text in texts.values())
    assert not re.search(r"\d[.]\d", " ".join(texts.values()))


def test_p_values_of_what_is_lost(tmp_path):
    """The clearest of what refutes the claim, with its p value."""
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    assert front.corrected(book) == f"p < 0.001 for {LENET}"


JUMPS = {
    "more with a mask": (0.97, 0.96, "The mask surely adds to it on each of these."),
    "as much": (0.91, 0.96, "On none of these does the mask surely add to it."),
    "less": (0.902, 0.96, "On none of these does the mask surely add to it."),
}


@pytest.mark.parametrize("outcome", JUMPS)
def test_where_the_jump_came_from(tmp_path, outcome):
    """Each arm against itself before, of the study's length; the end follows from the two gains."""
    finetune, longer, end = JUMPS[outcome]
    book = lenet(tmp_path, finetune=finetune, weights_long=longer)
    make(tmp_path / "runs/lenet", "finetune", 0, 0.1, learning_rate=1e-5, epochs=9)
    told = front.jump(book)
    assert told.endswith(end) and "+1.0{+1.00 ± 0.00 points" in told
    gain = 100 * (finetune - 0.9)
    assert f"{inline.rounded(gain)}{{" in told and "after a mask" in told


@pytest.mark.parametrize(
    "gains, head",
    [
        ([0.7, 0.0, 0.1], "On these small networks the jump is catching up: weights that were"),
        ([0.7, 0.6, 0.1], "On X the weights gain no more than the mask itself does."),
        ([0.1, 0.0, 0.1], "On X the weights gain no more than the mask itself does."),
    ],
)
def test_the_cause_of_the_jump(monkeypatch, tmp_path, gains, head):
    """Said where the weights surely gain, and more than a mask that is trained on."""
    table = pd.DataFrame({"mean": gains, "half": [0.2] * 3}, index=list(fair.JUMPS))
    numbers = ["+a", "+b", "+c"], ["95 %", "98 %"]
    monkeypatch.setattr(front.fair, "jumped", lambda book: [("X", table, *numbers)])
    assert front.cause(empty(tmp_path)).startswith(head)


def test_the_mask_adds_in_one_study_of_two(tmp_path):
    """It is said where."""
    lenet(tmp_path, finetune=0.97)
    (tmp_path / "runs/lenet").rename(tmp_path / "runs/wrn_mnist")
    told = front.jump(lenet(tmp_path, finetune=0.905))
    assert told.endswith("The mask surely adds to it on WRN-10-2 on MNIST alone.")


@pytest.mark.parametrize(
    "at_low, head",
    [
        (0.95, "Start the mask’s logits near the threshold and the mask reads better"),
        (0.85, "Start the mask’s logits far from the threshold, as the post did, and it reads"),
    ],
)
def test_the_starting_logit(tmp_path, at_low, head):
    """The sentence follows from the sign of the difference."""
    book = lenet(tmp_path)
    for seed in range(3):
        given = {"model": "lenet_300_100", "initial_logit": 0.05}
        make(tmp_path / "runs/lenet", "mask", seed, at_low, **given)
    assert front.starting_logit(book).startswith(head)


def test_the_starting_logit_goes_two_ways(tmp_path):
    """Where studies disagree it is said so."""
    for study, at_low in (("lenet", 0.85), ("wrn_mnist", 0.95)):
        lenet(tmp_path)
        for seed in range(3):
            given = {"model": "lenet_300_100", "initial_logit": 0.05}
            make(tmp_path / "runs/lenet", "mask", seed, at_low, **given)
        if study == "lenet":
            (tmp_path / "runs/lenet").rename(tmp_path / "runs/wrn_cifar10")
    assert "not one way" in front.starting_logit(Book(tmp_path))


@pytest.mark.parametrize(
    "own, turned", [(0.95, "the order turns round"), (0.85, "the order stays")]
)
def test_which_estimator(tmp_path, own, turned):
    """Threshold beats Bernoulli at the post's rate; at its own one it depends."""
    for seed in range(3):
        given = {"model": "lenet_300_100", "estimator": "bernoulli", "epochs": 10}
        drawn = {"learning_rate": 0.1, "draw_at_evaluation": True}
        make(tmp_path / "runs/lenet", "mask", seed, 0.9, epochs=10, model="lenet_300_100")
        make(tmp_path / "runs/lenet", "mask", seed, 0.8, **given)
        make(tmp_path / "runs/ways_lenet", "mask", seed, own, **given, **drawn)
    told = front.which_estimator(empty(tmp_path))
    assert "thresholding beats sampling by 10.0{+10.00" in told and turned in told


@pytest.mark.parametrize(
    "wide, end",
    [
        (0.05, "Their small size does not explain it"),
        (0.5, "Size is part of it: with nine times the weights they lose +45.0{"),
    ],
)
def test_the_shortcuts(tmp_path, wide, end):
    """Shortcuts that lose less: whether more weights make them lose more is read off."""

    def masked(share):
        return lambda path, kind, weights: share if "shortcut" in kind else 0.1

    make(tmp_path / "runs/first", "mask", 0, 0.9, masked(0.02), dataset="cifar10")
    for seed in range(3):
        make(tmp_path / "runs/wrn_cifar10", "mask", seed, 0.9, masked(0.05), dataset="cifar10")
        given = {"dataset": "cifar10", "shortcut": "wide"}
        make(tmp_path / "runs/wrn_cifar10", "mask", seed, 0.9, masked(wide), **given)
    told = front.shortcuts(Book(tmp_path))
    assert told.startswith("The 1×1 shortcuts lose 2 % of their weights, other layers 10 %")
    assert end in told


def test_two_things(tmp_path):
    """Said so where both differences are sure, else in numbers alone."""
    made.both(tmp_path / "runs")
    assert tickets.two_things(Book(tmp_path)).startswith("A supermask and a lottery ticket are two")
    for run in (tmp_path / "runs/tickets_lenet").glob("rewind-s*"):
        summary = json.loads((run / "summary.json").read_text())
        (run / "summary.json").write_text(json.dumps(summary | {"start_accuracy": 0.2}))
    assert tickets.two_things(Book(tmp_path)).startswith("Supermask and lottery ticket, over")


PARITIES = {
    "yes": ({"mask": 0.951, "weights": 0.95}, "Yes: training only the mask does as well"),
    "no": ({"mask": 0.9}, "No: a trained mask reads less than trained weights"),
    "more": ({"mask": 0.99}, "No: a trained mask reads more than trained weights"),
}


@pytest.mark.parametrize("outcome", PARITIES)
def test_the_answer_on_parity(tmp_path, outcome):
    """The chapter's first sentence follows from the verdict and the sign."""
    given, start = PARITIES[outcome]
    assert training.answer(lenet(tmp_path, **given)).startswith(start)
    nothing = training.answer(empty(tmp_path / "none"))
    assert nothing == "No run that asks this has been made yet."


def test_the_first_studys_answer_stands_until_the_fair_test_has_one(tmp_path, monkeypatch):
    """With no answer of the fair test its place is taken, and said to be."""
    book = lenet(tmp_path, finetune=0.97)
    assert front.first_study(book).startswith("Their runs are being made now.")
    found = {"word": ["the same"] * 5, "mean": [0.1] * 5, "half": [0.1] * 5}
    table = pd.DataFrame(found, index=list(fair.QUESTIONS))
    monkeypatch.setattr(front.fair, "answers", lambda book: {"X": table})
    assert front.first_study(book) == ""
    assert front.whole_answer(book).startswith("No: even if the mask is free")


@pytest.mark.slow
def test_numbers_of_seeds(tmp_path):
    """The most that any comparison has, by network; a range where the wide networks differ."""
    for study, n in (("wrn_mnist", 3), ("wrn_cifar10", 2), ("lenet", 4)):
        for seed in range(n):
            for arm in ("mask", "weights"):
                make(tmp_path / "runs" / study, arm, seed, 0.9)
    assert front.seeds(empty(tmp_path)) == {"lenet_n": "4", "tickets_n": "0", "wide_n": "2–3"}


def test_tables_of_the_front_page(tmp_path):
    """Differences in words, with a dash where averages were not taken; verdicts by chapter."""
    book = lenet(tmp_path, **CONTROLS, finetune=0.97, rewind=0.94)
    column = front.differences(book).data["LeNet-300-100, MNIST"]
    assert column.iloc[[0, 3, 4]].tolist() == [
        "−5.00 ± 0.02 (n = 3)",
        "+1.00 ± 0.02 (n = 3)",
        "+1.00 ± 0.02 (n = 3)",
    ]
    assert column.iloc[[1, 7]].tolist() == ["–", "–"]
    styled = front.every_claim(book)
    assert styled.data["LeNet-300-100, MNIST"].tolist()[:2] == ["refuted", "refuted"]
    assert styled.data["WRN-10-2, MNIST"].tolist() == ["–"] * 7
    assert styled.data.index[1].startswith('<a href="boost.html">2.</a> The masked network')
    assert f"border-left: 4px solid {plots.VERDICTS['refuted'][0]}" in styled.to_html()


def test_claim_seven_is_asked_of_its_own_study(tmp_path):
    """The verdict on two kinds of mask stands in the column of LeNet-300-100 alone."""
    made.both(tmp_path / "runs")
    verdicts = front._verdicts(empty(tmp_path))
    assert verdicts.loc["7. Two kinds of mask"].tolist() == ["refuted", "–", "–"]
    assert (
        front.seeds(Book(tmp_path))["tickets_n"] == "3"
        and len(front.evidence(Book(tmp_path))) == 33
    )


# --- is it a good start? --------------------------------------------------------------------------


def test_boost_before_any_run(tmp_path):
    """Without records each sentence says so."""
    texts = boost.texts(empty(tmp_path))
    assert {texts.pop(name) for name in ("boost", "rate", "without_reset")} == {"no runs yet"}
    assert texts.pop("answer") == "No run that asks this has been made yet."
    assert texts.pop("lost") == "none of these networks" and texts.pop("survive") == "none"
    assert texts.pop("tickets_n") == "0" and texts.pop("budgets").count("not measured yet") == 3
    assert set(texts.values()) == {"not measured yet"}


def test_each_at_its_own_rate(tmp_path):
    """The dense network's best rate is named, and the differences are those at the chosen rates."""
    rates = {
        f"{arm}_at_{rate}": 0.9 for arm in ("finetune", "weights_long") for rate in (0.01, 0.001)
    }
    given = {"finetune_at_0.01": 0.975, "weights_long_at_0.001": 0.98, "finetune": 0.97}
    texts = boost.texts(lenet(tmp_path, **rates | given))
    assert texts["best"] == f"0.001 for {LENET}"
    assert texts["longer_best"].startswith("−1.0{−1.00 ± 0.02 points, ")
    assert texts["own"].startswith("−0.5{−0.50 ± 0.02 points, ")


@pytest.mark.parametrize("at_full, lost", [(0.98, True), (0.995, False), (0.96, False)])
def test_where_no_boost_was_there_to_wipe_out(tmp_path, at_full, lost):
    """Better at the larger rate, and still below the dense network: both must be so."""
    rates = {"finetune": 0.97, "finetune_at_0.01": at_full, "weights_long_at_0.01": 0.99}
    found = boost.no_boost_at_all(lenet(tmp_path, **rates))
    assert found == (LENET if lost else "none of these networks")


def test_the_claim_without_the_reset_control(tmp_path):
    """Batch norm reset may be what refutes the claim; without it the other controls speak."""
    folder = tmp_path / "runs/wrn_mnist"
    for seed in range(3):
        reset = {"learning_rate": 1e-5, "parent": PLAIN}
        make(folder, "mask", seed, 0.9)
        make(folder, "weights", seed, 0.95)
        make(folder, "weights_long", seed, 0.96, **reset)
        make(folder, "finetune", seed, 0.97, **reset)
        make(folder, "finetune", seed, 0.97, reset_batch_norm=True, **reset)
    book = empty(tmp_path)
    assert book.verdicts["WRN-10-2, MNIST"]["2. Boost"] == "refuted"
    assert boost.without_reset(book) == "not settled for WRN-10-2 on MNIST"
    assert boost.epochs_of_masks(book) == "1 and 1"


def test_what_survives_a_correction(tmp_path):
    """Clear differences of either sign survive; one that is surely too small to matter does not."""
    given = CONTROLS | {"finetune": 0.97, "rewind": 0.95, "random_mask": 0.98}
    book = lenet(tmp_path, **given)
    assert (
        boost.survivors(book)
        == "LeNet-300-100 on MNIST: fine-tuned at 1e-5 − weights longer at 1e-5, "
        "fine-tuned at 1e-5 − random mask fine-tuned, "
        "fine-tuned at 1e-5 − shuffled mask fine-tuned, "
        "weights from θ0 under the mask − random mask fully trained, "
        "weights from θ0 under the mask − shuffled mask fully trained"
    )
    table = boost.corrected(book).data["LeNet-300-100, MNIST"]
    assert table["weights from θ0 under the mask − weights"] == "1.000"
    assert table.tolist().count("< 0.001") == 5


def test_budgets_count_the_masks_epochs(tmp_path):
    """Ten epochs of fine-tuning against twenty dense ones, each at its best held-out accuracy."""
    book = lenet(tmp_path)
    given = {"learning_rate": 0.001, "model": "lenet_300_100"}
    for seed in range(3):
        rising, late = np.linspace(0.5, 0.9, 12), [0.5] * 15 + [0.8] * 5 + [0.99]
        make(tmp_path / "runs/lenet", "finetune", seed, 0.9, val=rising, epochs=12, **given)
        make(tmp_path / "runs/ways_lenet", "weights", seed, 0.9, val=late, epochs=21, **given)
    tenth = 100 * (0.5 + 0.4 * 9 / 11 - 0.8)
    assert boost.budgets(book).startswith(
        f"fine-tuned at 0.001 from the threshold estimator's mask +{tenth:.1f}{{+{tenth:.2f} ± 0.00"
    )
    assert "from top_k's with half of the weights not measured yet, " in boost.budgets(book)


def test_tables_of_the_boost(tmp_path):
    """By rate, by epochs, and in words: a row each, in the order of the studies."""
    book = lenet(tmp_path, finetune=0.97, **{"finetune_at_0.01": 0.9})
    table = boost.by_rate(book).data
    row = table.loc["LeNet-300-100, MNIST", "mask, then weights"]
    assert row.to_dict() == {"at 1e-5": "97.00 ± 0.02 (n = 3)", "at 0.01": "90.00 ± 0.02 (n = 3)"}
    soon = boost.how_soon(book).data["LeNet-300-100, MNIST"]
    assert soon["mask, then weights"].to_dict() == {"1e-5": "3 (3 of 3)", "0.01": "3 (3 of 3)"}
    numbers = boost.numbers(book).data
    assert set(numbers.study) == {"LeNet-300-100, MNIST"} and numbers.comparison.is_unique


def test_lag_beside_what_was_recorded(tmp_path):
    """Averages taken anew stand beside the recorded difference, their verdict in brackets."""
    for seed in range(3):
        make(tmp_path / "runs/wrn_mnist", "rewind", seed, 0.94 + 0.001 * seed)
        make(tmp_path / "runs/wrn_mnist", "weights", seed, 0.95)
    anew = {"rewind": 0.97, "weights": 0.95}
    runs = readings.tidy(Book(tmp_path).runs("wrn_mnist").summary)
    (tmp_path / "benchmarks").mkdir()
    table = pd.DataFrame({"study": "wrn_mnist", "run": runs.run, "renewed": runs.arm.map(anew)})
    table.to_csv(tmp_path / "benchmarks/batch_norm.csv", index=False)
    (row,) = boost.lag(Book(tmp_path)).data.to_dict("records")
    assert row["as recorded"].startswith("−0.90") and row["averages anew"].startswith("+2.00")
    assert (row["study"], row["it would be"]) == ("WRN-10-2, MNIST", "(supported)")


# --- does masking train as well as training? ------------------------------------------------------


@pytest.fixture
def widths(tmp_path):
    """WRN-10s of widths 1, 2 and 4, averages anew: mask − weights is −8, −5 and 0.2 points."""
    gaps, rows = {1: -0.08, 2: -0.05, 4: 0.002}, []
    for seed in range(3):
        for width, gap in gaps.items():
            make(tmp_path / "runs/wrn_cifar10", "weights", seed, 0.8, width=width)
            make(tmp_path / "runs/wrn_cifar10", "mask", seed, 0.8 + gap, width=width)
        make(tmp_path / "runs/wrn_cifar10", "weights", seed, 0.7, learning_rate=0.1)
    for run in Book(tmp_path).runs("wrn_cifar10"):
        if run.parameters["learning_rate"] == 0.01:
            rows.append(("wrn_cifar10", run.name, run.summary["test_accuracy"]))
    (tmp_path / "benchmarks").mkdir()
    table = pd.DataFrame(rows, columns=["study", "run", "renewed"])
    table.to_csv(tmp_path / "benchmarks/batch_norm.csv", index=False)
    for seed in range(3):  # the study's own width is what most runs have
        make(tmp_path / "runs/wrn_cifar10", "bn_only", seed, 0.5)
    return Book(tmp_path)


def test_parity_by_width(widths):
    """The gap at each width, how it changes, and the networks for which parity holds."""
    name = "WRN-10 on CIFAR-10"
    assert training.gap_by_width(widths) == f"−8.0, −5.0, +0.2 at widths 1, 2, 4 for {name}"
    assert training.narrowing(widths).startswith("+8.2{+8.20 ± 0.00 points, ")
    assert training.where_parity_holds(widths) == "WRN-10-4 on CIFAR-10"
    assert training.anew_verdict(widths) == "refuted for WRN-10-2 on CIFAR-10"
    table = training.parity_table(widths).data
    assert table.comparison.tolist()[-2:] == [
        "mask − weights, averages anew",
        "mask − batch norm only, averages anew",
    ]


def test_parity_before_any_run(tmp_path):
    """Without records there is no gap, no change and no network for which it holds."""
    book = empty(tmp_path)
    for function in (training.gap_by_width, training.narrowing, training.anew_verdict):
        assert function(book) == "not measured yet"
    assert training.where_parity_holds(book) == "none of those tried"


def test_what_stands_beside_the_posts_curves(tmp_path):
    """The accuracies of the study `first`, the post's last epochs, and where the mask falls."""
    for dataset in ("mnist", "cifar10"):
        for arm, accuracy in (("mask", 0.8), ("weights", 0.9), ("finetune", 0.85)):
            val = (0.6, 0.2, 0.7) if arm == "mask" else (0.5, 0.6, 0.7)
            make(tmp_path / "runs/first", arm, 0, accuracy, val=val, dataset=dataset)
    axes = ("mnist", "cifar10"), ("train", "held_out"), ("mask", "weights", "finetune"), range(13)
    curve = [
        (dataset, split, arm, epoch, (0.5 if epoch < 3 else 0.9) + (split == "train"))
        for dataset, split, arm, epoch in itertools.product(*axes)
    ]
    table = pd.DataFrame(curve, columns=["dataset", "split", "arm", "epoch", "accuracy"])
    (tmp_path / "book/published").mkdir(parents=True)
    table.to_csv(tmp_path / "book/published/post_training.csv", index=False)
    texts = training.beside_the_post(Book(tmp_path))
    assert (texts["mnist_parity"], texts["mnist_post_parity"]) == ("−10.0", "+0.0")
    assert (texts["cifar10_mask_test"], texts["cifar10_mask_train"]) == ("80.00 %", "70.0 %")
    assert (texts["mnist_finetune_post"], texts["mnist_finetune_epoch"]) == ("90.0 %", "1")
    assert training.at_the_posts_scale(Book(tmp_path)) == ""
    assert "not measured yet" in training.curves_at_scale(Book(tmp_path)).data
    for arm in ("mask", "weights", "finetune"):
        own = {"dataset": "cifar10", "depth": 28, "width": 8, "epochs": 11}
        make(tmp_path / "runs/paper", arm, 0, 0.8, val=(0.1,) + (0.75,) * 10, **own)
    told = re.sub(r"\{[^}]*\}", "", training.at_the_posts_scale(Book(tmp_path)))
    assert "for its thirty epochs each, on CIFAR-10, one seed. Held out" in told
    assert (
        "it reads: mask 75.0 % (the post: 90.0 %); weights 75.0 % (the post: 90.0 %); mask, then"
        " weights 75.0 % (the post: 90.0 %). A control is missing at this scale"
    ) in told
    make(tmp_path / "runs/paper", "weights_long", 0, 0.8, val=(0.1,) + (0.75,) * 10, **own)
    assert "control" not in training.at_the_posts_scale(Book(tmp_path))
    assert len(training.curves_at_scale(Book(tmp_path)).axes) == 2
    assert training.at_the_fall(Book(tmp_path)) == {
        "lowest": "20.0 %",
        "before_lowest": "60.0 %",
        "lowest_epoch": "2",
        "first_epoch": "50.0 %",
    }
