"""The claims: which runs each comparison takes, and the verdict that the written rule gives."""

import made
import numpy as np
import pandas as pd
import pytest
from made import PLAIN, make

from supermask_tf import claims, readings
from supermask_tf.records import load_runs


@pytest.fixture
def study(tmp_path):
    return made.study(tmp_path)


@pytest.fixture
def both(tmp_path):
    return load_runs(made.both(tmp_path))


def rows(folder, claim):
    table = claims.comparisons(load_runs(folder))
    return table[table.claim == claim].set_index("comparison")


def test_parity_and_boost(study):
    """A mask five points below is no equivalence; one point above the longer training is a
    difference.
    """
    parity = rows(study, "1. Parity").loc["mask − weights"]
    assert (
        parity.verdict == "refuted"
        and parity["mean"] == pytest.approx(-5)
        and parity.n == 3
        and parity.rule == "equivalence"
    )
    boost = rows(study, "2. Boost").loc["fine-tuned at 1e-5 − weights longer at 1e-5"]
    assert boost.verdict == "supported" and boost["mean"] == pytest.approx(1)


def test_other_accuracies(study):
    """The same comparisons of what was measured otherwise, of the runs that were; by the title that
    the study has in the book.
    """
    for seed in range(3):
        make(study, "rewind", seed, 0.1)
    runs = load_runs(study)
    measured = pd.DataFrame(
        [
            {
                "study": "wrn_mnist",
                "run": run.name,
                "renewed": {"rewind": 0.6 + 0.01 * run.parameters["seed"], "weights": 0.7}[
                    run.parameters["arm"]
                ],
            }
            for run in runs
            if run.parameters["arm"] in ("rewind", "weights")
        ]
    )
    table = claims.comparisons(runs, claims.averages_anew(measured)["WRN-10-2, MNIST"]).set_index(
        "comparison"
    )
    row = table.loc["weights from θ0 under the mask − weights"]
    assert row["mean"] == pytest.approx(100 * (0.61 - 0.7)) and row.n == 3 and row.half > 2
    assert table.loc["mask − weights"].n == 0, "the mask runs were not measured so"


def test_controls_without_runs_settle_nothing(study):
    """A claim whose controls have no runs is not settled, however clear the others are."""
    table = rows(study, "2. Boost")
    assert (
        table.loc["weights from θ0 under the mask − weights"].verdict == "not settled"
        and table.loc["weights from θ0 under the mask − weights"].n == 0
    )
    assert (
        claims.verdicts({"here": claims.comparisons(load_runs(study))}).here["2. Boost"]
        == "not settled"
    )


def test_one_refuted_control_refutes_the_boost(study):
    """The claim must hold against each control."""
    for seed in range(3):
        make(study, "rewind", seed, 0.93 + 0.001 * seed)
    assert (
        claims.verdicts({"here": claims.comparisons(load_runs(study))}).here["2. Boost"]
        == "refuted"
    )


def test_what_is_shown_beside_decides_nothing(study):
    """Batch norm alone, and other widths, stand beside the rule of parity."""
    for seed in range(3):
        make(study, "bn_only", seed, 0.99)
        for arm in ("mask", "weights"):
            make(study, arm, seed, 0.95 + 0.0001 * seed * (arm == "mask"), width=4)
    table = rows(study, "1. Parity")
    assert table.decides.tolist() == [True, False, False]
    assert table.loc["mask (4 wide) − weights (4 wide)"].verdict == "supported", (
        "and they are compared with their like"
    )
    assert claims.as_text(table.reset_index()).verdict.tolist()[1] == "(supported)"


def test_what_is_equal_is_not_said_to_be_worse(study):
    """A difference that lies within ±0.25 points, surely, is refuted, and said to be none."""
    for seed in range(3):
        make(study, "rewind", seed, 0.95 + 0.0001 * (seed - 1))
        make(study, "finetune", seed, 0.97 + 0.0001 * (seed - 1), learning_rate=0.01)
        make(study, "weights_long", seed, 0.97, learning_rate=0.01)
    table = claims.comparisons(load_runs(study))
    said = claims.as_text(table).set_index("comparison").verdict
    assert said["weights from θ0 under the mask − weights"] == "refuted: no difference"
    assert set(said[["fine-tuned at 0.01 − weights longer at 0.01"]]) == {"(no difference)"}
    assert (
        said["mask − weights"] == "refuted"
        and claims.verdicts({"here": table}).here["2. Boost"] == "refuted"
    )


def test_as_the_post_compared_and_without_what_is_inherited(study):
    """Beside the rule: the dense network trained half as long; random masks, which inherit the
    learned mask's batch norm.
    """
    for seed in range(3):
        make(study, "finetune", seed, 0.92, learning_rate=1e-5, reset_batch_norm=True)
        make(study, "random_mask", seed, 0.80, learning_rate=1e-5)
    table = rows(study, "2. Boost")
    half, other = (
        table.loc["fine-tuned at 1e-5 − weights, half as long"],
        table.loc["fine-tuned, batch norm reset − random mask fine-tuned"],
    )
    assert half["mean"] == pytest.approx(2) and other["mean"] == pytest.approx(12)
    assert not half.decides and not other.decides


@pytest.mark.slow
def test_variants_do_not_leak_into_the_plain_comparison(study):
    """Longer runs, other logits, shortcuts, estimators and reset batch norm are other
    experiments.
    """
    for seed in range(3):
        for odd in (
            {"epochs": 9},
            {"initial_logit": 3.0},
            {"shortcut": "3x3"},
            {"estimator": "bernoulli"},
            {"width": 1},
        ):
            make(study, "mask", seed, 0.1, **odd)
        make(study, "finetune", seed, 0.2, learning_rate=1e-5, reset_batch_norm=True)
    assert rows(study, "1. Parity").loc["mask − weights"]["mean"] == pytest.approx(-5)
    assert rows(study, "2. Boost").loc["fine-tuned at 1e-5 − weights longer at 1e-5"][
        "mean"
    ] == pytest.approx(1)
    assert rows(study, "6. Estimators").loc["mask − Bernoulli"]["mean"] == pytest.approx(80)


def test_own_best_rate_is_chosen_on_held_out_images(study):
    """The dense network's best rate enters as a further control, and that of fine-tuning beside
    it.
    """
    for seed in range(3):
        make(study, "weights_long", seed, 0.98, learning_rate=0.001)
        make(study, "finetune", seed, 0.975, learning_rate=0.001)
    table = rows(study, "2. Boost")
    assert (
        table.loc["fine-tuned at 1e-5 − weights longer at 0.001"].verdict == "refuted"
        and table.loc["fine-tuned at 1e-5 − weights longer at 0.001"].decides
    )
    assert not table.loc["fine-tuned at 0.001 − weights longer at 0.001"].decides


def test_equal_choice_of_rates(study):
    """Both arms choose among the rates that both have; that one of them does best at the post's
    rate leaves no row out and none twice.
    """
    for seed in range(3):
        make(study, "finetune", seed, 0.99, learning_rate=1e-4)
        make(study, "weights_long", seed, 0.98, learning_rate=0.01)
        make(study, "finetune", seed, 0.96, learning_rate=0.01)
    table = claims.comparisons(load_runs(study))
    assert (
        not table.comparison.duplicated().any()
        and not table.comparison.str.contains("0.0001").any()
    )
    assert table.set_index("comparison").decides["fine-tuned at 1e-5 − weights longer at 0.01"]
    for seed in range(3):
        make(study, "weights_long", seed, 0.90, learning_rate=1e-4)
        make(study, "weights_long", seed, 0.97, learning_rate=0.001)
        make(study, "finetune", seed, 0.95, learning_rate=0.001)
        if not seed:
            make(study, "finetune", seed, 0.999, learning_rate=0.1)
            make(
                study, "weights_long", seed, 0.999, learning_rate=0.1
            )  # a rate that only some seeds have yet is no choice
    assert rows(study, "2. Boost").loc["fine-tuned at 0.0001 − weights longer at 0.01"][
        "mean"
    ] == pytest.approx(1)


def test_the_dense_networks_own_rate_is_open_until_it_is_known(study):
    """A control whose runs are not all in holds the claim back; it does not vanish."""
    make(study, "weights_long", 3, 0.96, learning_rate=1e-5, parent=PLAIN)
    row = rows(study, "2. Boost").loc["fine-tuned at 1e-5 − weights longer at its own best rate"]
    assert row.decides and row.n == 0 and row.verdict == "not settled"
    make(study, "finetune", 3, 0.97, learning_rate=1e-5, parent=PLAIN)
    assert not rows(study, "2. Boost").index.str.contains("its own best rate").any()


def test_both_at_their_own_rates(study):
    """Where fine-tuning does best at the post's rate it is the deciding row, where at another the
    one beside it.
    """

    def found():
        return claims.find(claims.comparisons(load_runs(study)), *claims.AT_OWN_RATES).comparison

    for seed in range(3):
        make(study, "weights_long", seed, 0.9, learning_rate=0.01)
        make(study, "finetune", seed, 0.9, learning_rate=0.01)
    assert found() == "fine-tuned at 1e-5 − weights longer at 1e-5"
    for seed in range(3):
        make(study, "weights_long", seed, 0.98, learning_rate=0.001)
        make(study, "finetune", seed, 0.975, learning_rate=0.001)
    assert found() == "fine-tuned at 0.001 − weights longer at 0.001"


def test_own_rate_beside_where_the_dense_networks_is_the_posts(study):
    """Fine-tuning at a rate of its own is shown even where the longer training does best at
    1e-5.
    """
    for seed in range(3):
        make(study, "weights_long", seed, 0.5, learning_rate=0.001)
        make(study, "finetune", seed, 0.98, learning_rate=0.001)
    row = rows(study, "2. Boost").loc["fine-tuned at 0.001 − weights longer at 1e-5"]
    assert row["mean"] == pytest.approx(2) and not row.decides


def test_the_larger_rate_has_its_control(study):
    """Whether the boost is gone at 0.01 is asked at 0.01, beside the rule."""
    for seed in range(3):
        make(study, "finetune", seed, 0.93, learning_rate=0.01)
        make(study, "weights_long", seed, 0.94, learning_rate=0.01)
    row = rows(study, "3. Learning rate").loc["fine-tuned at 0.01 − weights longer at 0.01"]
    assert row["mean"] == pytest.approx(-1) and not row.decides


@pytest.mark.parametrize(
    "other",
    [{"initial_logit": 3.0}, {"epochs": 9}, {"learning_rate": 0.001}, {"estimator": "bernoulli"}],
    ids=str,
)
def test_children_of_other_parents_are_left_out(study, other):
    """A network fine-tuned from a mask whose logits started elsewhere, say, is not the plain
    arm.
    """
    for seed in range(3):
        make(study, "finetune", seed, 0.1, learning_rate=1e-5, batch_size=64, parent=PLAIN | other)
    assert rows(study, "2. Boost").loc["fine-tuned at 1e-5 − weights longer at 1e-5"][
        "mean"
    ] == pytest.approx(1)


def test_weights_at_a_gentler_rate_stand_beside(tmp_path):
    """Where the dense network was also trained at a lower rate, mask and fine-tuning are held
    against that too.
    """
    folder = tmp_path / "lenet"
    folder.mkdir()
    for seed in range(3):
        for arm, accuracy, rate in (
            ("mask", 0.90, 0.01),
            ("weights", 0.95, 0.01),
            ("weights", 0.97, 0.001),
            ("finetune", 0.98, 0.001),
        ):
            make(folder, arm, seed, accuracy, model="lenet_300_100", learning_rate=rate)
    table = claims.comparisons(load_runs(folder)).set_index("comparison")
    for comparison, points in (
        ("mask − weights at 0.001", -7),
        ("fine-tuned at 0.001 − weights at 0.001", 1),
    ):
        assert table["mean"][comparison] == pytest.approx(points) and not table.decides[comparison]


def test_estimators_at_a_rate_of_their_own(tmp_path):
    """The threshold estimator against Bernoulli's most likely mask and against drawn ones, paired
    by seed across two studies.
    """
    for name, given in (
        ("lenet", {}),
        ("ways_lenet", {"estimator": "bernoulli", "learning_rate": 0.1}),
        (
            "ways_lenet",
            {"estimator": "bernoulli", "learning_rate": 0.1, "draw_at_evaluation": True},
        ),
    ):
        (tmp_path / name).mkdir(exist_ok=True)
        for seed in range(3):
            make(
                tmp_path / name,
                "mask",
                seed,
                0.93 + 0.01 * len(given),
                **{"model": "lenet_300_100", "epochs": 10, "draw_at_evaluation": False} | given,
            )
    table = claims.estimators(load_runs(tmp_path / "lenet", tmp_path / "ways_lenet"))
    assert (
        table["mean"].tolist() == pytest.approx([-2, -3])
        and not table.decides.any()
        and (table.n == 3).all()
    )


def test_sentences(study):
    """A comparison and a verdict name the network and what it was trained on."""
    tables = {
        "LeNet-300-100, MNIST": claims.comparisons(load_runs(study)),
        "WRN-10-2, MNIST": claims.comparisons(load_runs(study).where(arm="none")),
    }
    assert (
        claims.in_words(tables, "mask-weights") == "−5.00 ± 0.25 (n = 3) for LeNet-300-100 on MNIST"
    )
    assert claims.points(tables["LeNet-300-100, MNIST"], "mask-weights") == "−5.00 ± 0.25 (n = 3)"
    assert (
        claims.verdict_in_words(claims.verdicts(tables), "1. Parity")
        == "refuted for LeNet-300-100 on MNIST"
    )
    assert claims.verdict_in_words(claims.verdicts({}), "1. Parity") == "no runs yet"


def test_no_runs_are_not_measured_and_a_single_one_is_one_seed(tmp_path, study):
    """A comparison without runs, or that a study does not make, is not measured yet; one seed has
    no interval.
    """
    make(tmp_path / "one", "mask", 0, 0.9)
    make(tmp_path / "one", "weights", 0, 0.9)
    full, none = (
        claims.comparisons(load_runs(study)),
        claims.comparisons(load_runs(study).where(arm="none")),
    )
    one = claims.comparisons(load_runs(tmp_path / "one"))
    for tables in ({}, {"a": none}, {"a": full}):
        assert (
            claims.in_words(tables, "rewind-weights")
            == claims.in_words(tables, "mask-weights_0.001")
            == "not measured yet"
        )
    assert (
        claims.points(one, "mask-weights")
        == claims.in_words({"a": one, "b": none}, "mask-weights")
        == "one seed"
    )
    assert claims.in_words({"a": one, "b": full}, "mask-weights") == "−5.00 ± 0.25 (n = 3) for b"


@pytest.mark.parametrize("tables", [{}, {"a": True}], ids=["no study", "a study"])
def test_an_unknown_key_is_an_error(study, tables):
    """A misspelt key raises, with or without runs, and the message has the one that was meant."""
    tables = {title: claims.comparisons(load_runs(study)) for title in tables}
    with pytest.raises(
        ValueError,
        match="no comparison 'finetune_low-weights_long_lo': .*finetune_low-weights_long_low",
    ):
        claims.in_words(tables, "mask-weights", "finetune_low-weights_long_lo")
    with pytest.raises(ValueError, match="the keys are .*mask-weights"):
        claims.in_words(tables, "§§§")


def test_keys_are_unique_and_known(study, both):
    """Each comparison of a table has a key of its own, whatever rates and widths there are; all of
    them are in KEYS.
    """
    for seed in range(3):
        make(study, "weights", seed, 0.9, learning_rate=0.001)
        make(study, "mask", seed, 0.9, width=4)
        for arm in ("finetune", "weights_long"):  # both do best at 0.01: two rows with one text
            for rate in (0.01, 1e-4):
                make(
                    study,
                    arm,
                    seed,
                    0.98 if rate == 0.01 else 0.9,
                    learning_rate=rate,
                    parent=PLAIN,
                )
    lenet = load_runs(study)
    for run in lenet:
        run.parameters["model"] = "lenet_300_100"
    estimators = [
        {
            "arm": "mask",
            "epochs": 10,
            "initial_logit": 1.0,
            "seed": 0,
            "estimator": e,
            "learning_rate": r,
            "draw_at_evaluation": d,
            "test_accuracy": 0.9,
        }
        for e, r, d in (
            ("threshold", 0.01, False),
            ("bernoulli", 0.1, False),
            ("bernoulli", 0.1, True),
        )
    ]

    class Runs(list):
        summary = pd.DataFrame(estimators)

    tables = [
        claims.comparisons(load_runs(study)),
        claims.comparisons(lenet),
        claims.tickets(both),
        claims.estimators(Runs([1])),
    ]
    assert [len(table) for table in tables] == [28, 21, 32, 2]
    assert tables[0].comparison.duplicated().any(), "a text may stand twice, a key may not"
    for table in tables:
        assert table.key.is_unique and set(table.key) <= claims.KEYS


def test_a_key_finds_the_comparison_of_its_sides(study):
    """The row of a key has the text of its two sides; of several keys the first that the study has
    counts.
    """
    table = claims.comparisons(load_runs(study))
    for key, text in (
        ("mask-weights", "mask − weights"),
        ("finetune_low-weights_half", "fine-tuned at 1e-5 − weights, half as long"),
        ("rewind-random_mask_full", "weights from θ0 under the mask − random mask fully trained"),
        ("masked_per_weights", "masked for ten times the weights"),
        ("most_masked_logits_1", "most masked layer, logits from 1 − 16.4 %"),
        ("most_masked_longer", "most masked layer, longer − 16.4 %"),
        ("shortcuts_3x3-shortcuts_1x1", "masked by 3×3 shortcuts − by 1×1 shortcuts"),
    ):
        assert claims.find(table, key).comparison == text
    assert (
        claims.find(table, "mask-weights_0.001", "mask-bernoulli").comparison == "mask − Bernoulli"
    )
    assert claims.find(table, "mask-weights_0.001") is None


@pytest.mark.parametrize("by, verdict", [("weights", "supported"), ("kind", "refuted")])
def test_replaced_shortcuts_follow_their_weights_or_their_place(tmp_path, by, verdict):
    """Shortcuts with nine times the weights mask more if the number of weights matters, the same if
    their place does.
    """
    folder = tmp_path / "wrn"
    folder.mkdir()
    for seed in range(3):
        for shortcut in (None, "3x3", "wide"):
            more = 0.05 if shortcut and by == "weights" else 0.0
            make(
                folder,
                "mask",
                seed,
                0.9,
                lambda path, kind, weights: (
                    0.01 * np.log10(weights) + (more + 0.0001 * seed if "shortcut" in path else 0)
                ),
                shortcut=shortcut,
            )
        make(folder, "weights", seed, 0.9)
    table = rows(folder, "4. Utilisation")
    assert (
        table.loc["masked by 3×3 shortcuts − by 1×1 shortcuts"].verdict
        == table.loc["masked by wide 1×1 shortcuts − by 1×1 shortcuts"].verdict
        == verdict
    )


@pytest.mark.slow
def test_most_masked_layer(tmp_path):
    """One condition above the post's highest refutes the claim; all below, with the longer runs
    there, support it.
    """
    folder = tmp_path / "wrn"
    folder.mkdir()
    for seed in range(3):
        for logit in (0.05, 0.25, 1.0, 3.0):
            make(
                folder,
                "mask",
                seed,
                0.9,
                lambda path, *_: (0.12 if path == "conv" else 0.02) / logit**0.05,
                initial_logit=logit,
            )
        make(folder, "weights", seed, 0.9)

    def verdict():
        return claims.verdicts({"x": claims.comparisons(load_runs(folder))}).x["5. At most 16 %"]

    assert verdict() == "not settled", "the longer runs are missing"
    for seed in range(3):
        make(folder, "mask", seed, 0.9, lambda path, *_: 0.1, epochs=9)
    assert verdict() == "supported"
    found = readings.most_masked(load_runs(folder)).set_index("condition")
    assert (
        found.path["logits from 1"] == "conv"
        and found["mean"]["logits from 1"] == pytest.approx(0.12)
        and found.n["9 epochs"] == 3
    )
    for seed in range(3):
        make(folder, "mask", seed, 0.9, lambda path, *_: 0.17, epochs=12)
    assert verdict() == "refuted"


def test_no_runs_no_verdict(tmp_path):
    """A study that is not begun says nothing."""
    found = claims.studies(tmp_path)
    assert list(found) == list(claims.STUDIES) and not any(len(runs) for runs in found.values())
    assert (
        claims.verdicts({title: claims.comparisons(runs) for title, runs in found.items()}) == "–"
    ).all(axis=None)


def test_the_posts_scale_is_a_study_once_it_has_records(tmp_path):
    """Records in `paper` come behind the others, a study a dataset, with the same comparisons."""
    folder = tmp_path / "paper"
    folder.mkdir()
    for seed in range(3):
        # One seed decides nothing.
        assert ("WRN-28-8, CIFAR-10" in claims.studies(tmp_path)) == (seed == 2)
        for arm, accuracy in (("mask", 0.90), ("weights", 0.95)):
            make(
                folder,
                arm,
                seed,
                accuracy + 0.001 * seed * (arm == "mask"),
                dataset="cifar10",
                depth=28,
                width=8,
            )
    make(
        folder, "mask", 0, 0.5, dataset="mnist", depth=16, width=1
    )  # of another network: none of the post's scale
    found = claims.studies(tmp_path)
    assert list(found) == [*claims.STUDIES, "WRN-28-8, CIFAR-10"]
    table = claims.comparisons(found["WRN-28-8, CIFAR-10"])
    assert table[table.comparison == "mask − weights"].verdict.item() == "refuted"


# --- supermasks and lottery tickets, and ways to find a mask --------------------------------------


def test_two_kinds_of_mask(both):
    """The three differences of the rule, by hand: overlap 3 of 4 where chance gives 2 is half the
    way; 60 points; 2 points.
    """
    table = claims.tickets(both)
    found = table.set_index("comparison")
    assert found["mean"]["½ − overlap beyond chance, 20 % kept"] == pytest.approx(0.0)
    assert found["mean"]["without training: supermask − ticket, 20 % kept"] == pytest.approx(60.0)
    assert found["mean"]["trained from θ0: ticket − supermask, 20 % kept"] == pytest.approx(2.0)
    assert found["mean"]["trained from θ0: supermask − random mask, 20 % kept"] == pytest.approx(
        1.0
    )
    assert found["mean"]["by rounds − one shot, 20 % kept"] == pytest.approx(1.0)
    assert found["mean"]["rewound to epoch 1 − to θ0, 20 % kept"] == pytest.approx(2.0)
    assert found["mean"]["weights pruned and trained on − ticket, 20 % kept"] == pytest.approx(3.0)
    assert list(found.index[found.decides]) == [
        "½ − overlap beyond chance, 20 % kept",
        "without training: supermask − ticket, 20 % kept",
        "trained from θ0: ticket − supermask, 20 % kept",
    ]
    assert found.n["trained from θ0: ticket − supermask, 50 % kept"] == 0
    assert found["mean"]["trained from θ0: supermask − dense network, 20 % kept"] == pytest.approx(
        -1.0
    )
    assert not found.decides["trained from θ0: ticket − dense network, 20 % kept"]
    # An overlap of exactly one half, without any spread, is a difference of zero: refuted by the
    # rule.
    assert claims.verdicts({"here": table}).loc["7. Two kinds of mask", "here"] == "refuted"


def test_two_runs_of_a_seed_are_no_two_seeds(both):
    """A second block at another rate would make an interval too narrow: it is refused."""
    again = [run for run in both if run.name.startswith("random")]
    with pytest.raises(ValueError, match="called 'random' at density 0.2: choose among them"):
        claims.tickets(type(both)([*both, *again]))
