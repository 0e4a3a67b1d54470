"""What is read off the runs before a rule judges it."""

import made
import numpy as np
import pandas as pd
import pytest
from made import LAYERS, make

from supermask_tf import claims, readings
from supermask_tf.records import load_runs


@pytest.fixture
def study(tmp_path):
    return made.study(tmp_path)


@pytest.fixture
def both(tmp_path):
    return load_runs(made.both(tmp_path))


def test_plain_masks_differ_in_the_seed_alone(study):
    """No other logits, lengths, widths, shortcuts or estimators among them."""
    for given in (
        {"initial_logit": 3.0},
        {"epochs": 9},
        {"width": 4},
        {"shortcut": "3x3"},
        {"estimator": "bernoulli"},
    ):
        make(study, "mask", 0, 0.5, **given)
    runs = readings.plain_masks(load_runs(study))
    assert [(run.parameters["seed"], run.summary["test_accuracy"]) for run in runs] == [
        (seed, pytest.approx(0.9, abs=0.002)) for seed in range(3)
    ]
    assert not len(readings.plain_masks(runs.where(arm="none")))


def test_linear_model_finds_the_coefficient_of_the_weights(tmp_path):
    """Fractions made from log10(weights), kind and depth give back their coefficient, for each
    seed.
    """
    folder = tmp_path / "wrn"
    folder.mkdir()
    index = {path: i for i, (path, _, _) in enumerate(LAYERS)}
    for seed in range(3):

        def masked(path, kind, weights):
            return (
                0.02 * (1 + seed) * np.log10(int(weights))
                - 0.05 * (kind == "1x1 shortcut")
                + 0.1 * index[path] / 5
            )

        for width in (1, 2, 4):
            make(folder, "mask", seed, 0.9, masked if width > 1 else lambda *_: 0.5, width=width)
    assert list(readings.weights_coefficients(load_runs(folder))) == pytest.approx(
        [0.02, 0.04, 0.06]
    )
    assert list(readings.weights_coefficients(load_runs(folder), within=True)) == pytest.approx(
        [0.02, 0.04, 0.06]
    )
    one = load_runs(folder).where(width=2)
    assert not len(readings.weights_coefficients(one)), (
        "at one width the other terms all but determine the weights"
    )
    assert (
        claims.comparisons(one).set_index("comparison").n["masked for ten times the weights"] == 0
    )


def test_a_difference_between_networks_is_no_slope_within_one(tmp_path):
    """Where every layer of the wider network masks less and nothing depends on the weights, only
    the plain model has a slope.
    """
    folder = tmp_path / "wrn"
    folder.mkdir()
    for seed in range(3):
        for width in (2, 4):
            make(folder, "mask", seed, 0.9, lambda *_: 0.15 - 0.025 * width, width=width)
    assert (readings.weights_coefficients(load_runs(folder)) < -0.01).all()
    assert list(readings.weights_coefficients(load_runs(folder), within=True)) == pytest.approx(
        [0, 0, 0], abs=1e-9
    )


def test_epochs_to_the_accuracy_where_the_weights_arm_ends(study):
    """The first epoch at or above it, for each seed; seeds that never get there are counted."""
    for seed in range(3):
        make(study, "rewind", seed, 0.9, val=(0.6, 0.8, 0.9) if seed else (0.1, 0.2, 0.3))
    found = readings.epochs_to(load_runs(study)).set_index("arm").loc["rewind"]
    assert (found.seeds, found.reached, found["median"]) == (3, 2, 2)


def test_methods_by_name(both):
    """Every way to a mask has its name, what it starts with and what it ends with; a supermask's
    run is the one with its mask.
    """
    table = readings.methods(both)
    assert set(table.method) == {
        "supermask",
        "ticket",
        "random",
        "movement",
        "ticket by rounds",
        "ticket, rewound to epoch 1",
        "ticket over all layers",
        "pruned",
        "dense",
    }
    assert set(table[table.method == "ticket by rounds"].density) == {
        0.6,
        0.2,
    }, "the first round is no ticket of its own"
    row = table[(table.method == "supermask") & (table.seed == 0)].iloc[0]
    assert row["mask"].name == "mask-s0" and (row.start, row.trained) == (
        pytest.approx(0.899),
        0.94,
    )


def test_ways_to_find_a_mask():
    """A name tells the estimator and what it was given, whatever columns older records lack."""
    rows = pd.DataFrame(
        [
            {"arm": "weights", "estimator": "threshold", "initializer": "glorot_uniform"},
            {
                "arm": "mask",
                "estimator": "top_k",
                "density": 0.2,
                "density_start": 1.0,
                "initializer": "glorot_uniform",
            },
            {
                "arm": "mask",
                "estimator": "bernoulli",
                "draw_at_evaluation": True,
                "initializer": "signed_constant",
                "rescale": "dynamic",
            },
            {
                "arm": "mask",
                "estimator": "threshold",
                "draw_at_evaluation": False,
                "initializer": "glorot_uniform",
            },
        ]
    )
    assert readings.ways(rows).tolist() == [
        "weights trained",
        "top_k, 20 % kept, density lowered",
        "bernoulli, drawn at evaluation, signed constants, rescaled",
        "threshold",
    ]


def test_by_way(study):
    """Mean and interval over the seeds of a way, best first."""
    runs = load_runs(study).where(arm=["mask", "weights"])
    for run in runs:
        run.parameters["initializer"] = "glorot_uniform"
    table = readings.by_way(runs)
    assert table.way.tolist() == ["weights trained", "threshold"] and table.n.tolist() == [3, 3]
    assert (
        table["mean"].tolist() == pytest.approx([0.95, 0.90])
        and table.kept.tolist() == pytest.approx([0.9, 0.9])
        and table.held_out.tolist() == table["mean"].tolist()
    )
    assert not len(readings.by_way(runs.where(arm="none")))
    make(study, "mask", 0, 0.9, initial_logit=3.0)
    runs = load_runs(study).where(arm="mask")
    for run in runs:
        run.parameters["initializer"] = "glorot_uniform"
    with pytest.raises(ValueError, match="4 runs of threshold, 3, 0.01 share 3 seeds"):
        readings.by_way(runs)


def test_fraction_masked_of_the_shortcuts(tmp_path):
    """Of the asked kind and the study's own length alone, the mean over the shortcuts of a seed."""
    for seed in range(2):
        for shortcut, masked in ((None, 0.1), ("wide", 0.3)):
            make(
                tmp_path,
                "mask",
                seed,
                0.9,
                lambda path, *_: (
                    masked + (path.startswith("group2")) / 10 if "shortcut" in path else 0.9
                ),
                shortcut=shortcut,
            )
    make(tmp_path, "mask", 0, 0.9, lambda *_: 0.8, shortcut="wide", epochs=9)
    runs = load_runs(tmp_path)
    assert readings.shortcuts_masked(runs, "1x1").tolist() == pytest.approx([0.15, 0.15])
    assert readings.shortcuts_masked(runs, "wide").tolist() == pytest.approx([0.35, 0.35])


def test_the_plain_rows_of_a_study(study):
    """Other logits, shortcuts and estimators are not plain; the study's scale is what most runs
    have.
    """
    for given in (
        {"initial_logit": 3.0},
        {"shortcut": "3x3"},
        {"estimator": "bernoulli"},
        {"epochs": 9, "width": 4},
    ):
        make(study, "mask", 0, 0.5, **given)
    summary = readings.tidy(load_runs(study).summary)
    assert readings.own_scale(summary) == (3, 2)
    assert readings.plain(summary).sum() == 13 and set(summary[readings.plain(summary)].width) == {
        2,
        4,
    }


def test_records_from_before_a_parameter_existed():
    """What they lack has the value that it had then."""
    table = readings.tidy(
        pd.DataFrame({"shortcut": [None, "3x3"], "reset_batch_norm": [None, True]})
    )
    assert table.shortcut.tolist() == ["1x1", "3x3"] and table.reset_batch_norm.tolist() == [
        False,
        True,
    ]
    assert table.precision.tolist() == ["float32"] * 2 and table.width.tolist() == [0, 0]


def test_the_longer_runs_are_a_condition_of_their_own(study):
    """Without a longer run its row is there and empty; with one it has the run's length in its
    name.
    """
    assert readings.most_masked(load_runs(study)).n.tolist() == [0, 0, 3, 0, 0]
    make(study, "mask", 0, 0.9, lambda path, *_: 0.2 if path == "dense" else 0.1, epochs=9)
    last = readings.most_masked(load_runs(study)).iloc[-1]
    assert (last.condition, last.path, last["mean"], last.n) == ("9 epochs", "dense", 0.2, 1)
