"""The figures: what they draw, in which colours, with which labels."""

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from supermask_tf import plots
from supermask_tf.paper import canvas
from supermask_tf.paper.analysis import interval

ARMS = ("mask", "weights", "finetune")


def history(datasets=("digits",), arms=ARMS, seeds=1, epochs=4):
    rows = []
    for d, dataset in enumerate(datasets):
        for a, arm in enumerate(arms):
            for seed in range(seeds):
                for epoch in range(1, epochs + 1):
                    value = 0.1 * a + 0.05 * epoch + 0.01 * d + 0.003 * seed * epoch
                    rows.append((dataset, arm, f"{dataset}-{arm}-s{seed}", epoch, value, value / 2))
    return pd.DataFrame(
        rows, columns=["dataset", "arm", "run", "epoch", "accuracy", "val_accuracy"]
    )


def kernels(datasets=("cifar10",), seeds=1):
    kinds = ["3x3", "1x1 shortcut", "3x3", "dense"]
    return pd.DataFrame(
        [
            (dataset, f"{dataset}-s{seed}", layer, kind, 0.02 * layer + 0.01 * seed)
            for dataset in datasets
            for seed in range(seeds)
            for layer, kind in enumerate(kinds)
        ],
        columns=["dataset", "run", "layer", "kind", "masked"],
    )


POST = pd.DataFrame(
    [
        (dataset, split, arm, epoch, 0.2 + 0.1 * epoch)
        for dataset in ("digits", "mnist")
        for split in ("train", "held_out")
        for arm in ARMS
        for epoch in (1, 2, 3)
    ],
    columns=["dataset", "split", "arm", "epoch", "accuracy"],
)

SUMMARY = pd.DataFrame(
    {
        "dataset": ["mnist"] * 3,
        "arm": ["mask", "mask", "weights"],
        "test_accuracy": [0.8, 0.9, 0.95],
    }
)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def colour(artist):
    return matplotlib.colors.to_hex(artist.get_color())


@pytest.mark.parametrize(
    "draw, axes",
    [
        (lambda: plots.training(history()), 2),
        (lambda: plots.training(history(("mnist", "cifar10"))), 4),
        (lambda: plots.training(history(), POST), 2),
        (lambda: plots.training(history(epochs=1)), 2),
        (lambda: plots.training(history(seeds=3, epochs=1)), 2),
        (lambda: plots.utilisation(kernels()), 1),
        (lambda: plots.utilisation(kernels(("mnist", "cifar10"), seeds=3)), 2),
        (lambda: plots.utilisation(kernels(), kernels()), 2),
    ],
    ids=[
        "training",
        "two datasets",
        "with the post",
        "one epoch",
        "one epoch, three seeds",
        "utilisation",
        "two datasets, three seeds",
        "utilisation with the post",
    ],
)
def test_axes(draw, axes, tmp_path):
    """A figure has one row of panels per dataset, each with a title and both labels, and can be
    saved.
    """
    figure = draw()
    assert isinstance(figure, Figure) and len(figure.axes) == axes
    assert all(axis.get_title() and axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    assert all(
        axis.get_ylabel() in ("accuracy (fraction)", "fraction masked") for axis in figure.axes
    )
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_figures_are_not_left_open():
    """A notebook shows what a cell returns; a figure left open would be shown twice."""
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plots.training(history())
    plots.utilisation(kernels())
    assert plt.get_fignums() == before


def test_arm_colours():
    """mask blue, weights orange, fine-tuning green, of seaborn's colour-blind palette, in every
    figure.
    """
    assert [matplotlib.colors.to_hex(plots.ARM_COLOURS[arm]) for arm in ARMS] == [
        "#0173b2",
        "#de8f05",
        "#029e73",
    ]
    figure = plots.training(history())
    for axis, column in zip(figure.axes, ("accuracy", "val_accuracy")):
        drawn = {colour(line): line.get_ydata() for line in axis.get_lines()}
        for arm in ARMS:
            wanted = history()[history().arm == arm][column]
            np.testing.assert_allclose(
                drawn[matplotlib.colors.to_hex(plots.ARM_COLOURS[arm])], wanted
            )
    assert legend(figure) == ["mask", "weights", "mask, then weights"]


def test_only_arms_that_are_there_are_in_the_legend():
    """A figure of a single mask run speaks of nothing else."""
    assert legend(plots.training(history(arms=("mask",)))) == ["mask"]


def test_several_seeds_are_mean_band_and_single_curves():
    """The mean with its 95 % t band, the single seeds fainter behind it."""
    frame = history(arms=("mask",), seeds=3)
    axis = plots.training(frame).axes[0]
    lines = axis.get_lines()
    assert len(lines) == 4 and [line.get_alpha() for line in lines[:3]] == [0.35] * 3
    means, halves = zip(*(interval(frame[frame.epoch == epoch].accuracy) for epoch in (1, 2, 3, 4)))
    np.testing.assert_allclose(lines[3].get_ydata(), means)
    (band,) = [c for c in axis.collections if isinstance(c, PolyCollection)]
    edges = band.get_paths()[0].vertices
    for epoch, mean, half in zip((1, 2, 3, 4), means, halves):
        values = edges[edges[:, 0] == epoch, 1]
        assert values.min() == pytest.approx(mean - half) and values.max() == pytest.approx(
            mean + half
        )


def test_single_seed_has_no_band():
    """One run has no spread to show."""
    assert not [
        c
        for axis in plots.training(history()).axes
        for c in axis.collections
        if isinstance(c, PolyCollection)
    ]


def test_published_curves_are_dashed_in_the_same_colours():
    """The post's curves stand behind ours: training ones left, held-out ones right, and the legend
    tells them apart.
    """
    figure = plots.training(
        history(), POST.assign(accuracy=POST.accuracy + (POST.split == "held_out"))
    )
    for axis, least in zip(figure.axes, (0, 1)):
        dashed = [line for line in axis.get_lines() if line.get_linestyle() == "--"]
        assert {colour(line) for line in dashed} == {plots.ARM_COLOURS[arm] for arm in POST.arm}
        assert all(
            np.allclose(line.get_ydata(), [least + 0.3, least + 0.4, least + 0.5])
            for line in dashed
        )
    assert legend(figure)[-2:] == ["here", "the post"]


def test_utilisation_draws_every_layer():
    """Each kernel at its index with its masked fraction, shortcuts told apart by marker and
    colour.
    """
    axis = plots.utilisation(kernels()).axes[0]
    np.testing.assert_allclose(
        axis.get_lines()[0].get_xydata(), [(0, 0), (1, 0.02), (2, 0.04), (3, 0.06)]
    )
    points = {container[0].get_marker(): container[0] for container in axis.containers}
    np.testing.assert_allclose(points["o"].get_xydata(), [(0, 0), (2, 0.04)])
    np.testing.assert_allclose(points["D"].get_xydata(), [(1, 0.02)])
    assert (
        colour(points["D"])
        != colour(points["o"])
        == matplotlib.colors.to_hex(plots.ARM_COLOURS["mask"])
    )
    assert axis.get_ylim()[0] == 0


def test_utilisation_of_several_seeds_has_intervals():
    """The bars are the 95 % t intervals over seeds."""
    axis = plots.utilisation(kernels(seeds=3)).axes[0]
    mean, half = interval([0.0, 0.01, 0.02])
    dense = next(c for c in axis.containers if c[0].get_marker() == "s")
    (_, low), (_, high) = dense[2][0].get_segments()[0]
    assert (low, high) == (pytest.approx(0.06 + mean - half), pytest.approx(0.06 + mean + half))


def test_published_utilisation_stands_at_the_right():
    """The post's values have axes of their own, with its network named."""
    theirs = kernels().drop(columns="run").assign(masked=lambda t: t.masked + 0.1)
    ours, post = plots.utilisation(kernels(), theirs).axes
    assert "here" in ours.get_title() and "WRN-28-8" in post.get_title()
    np.testing.assert_allclose(post.get_lines()[0].get_ydata(), [0.1, 0.12, 0.14, 0.16])


def test_accuracies():
    """A mean and an interval an arm, single runs as dots, none for an arm that is not there."""
    (axis,) = plots.accuracies(SUMMARY).axes
    assert axis.get_xlabel() == "test accuracy (fraction)" and [
        t.get_text() for t in axis.get_yticklabels()
    ] == ["weights", "mask"]
    means = {colour(c[0]): c[0].get_xdata()[0] for c in axis.containers}
    assert means == {"#0173b2": pytest.approx(0.85), "#de8f05": pytest.approx(0.95)}


def test_straight_through():
    """Forward the step at 0, backward σ(m̂)(1 − σ(m̂)), whose top is ¼."""
    forward, backward = plots.straight_through().axes
    x, step = forward.get_lines()[0].get_data()
    assert np.array_equal(step, x > 0)
    x, slope = backward.get_lines()[0].get_data()
    np.testing.assert_allclose(slope, np.exp(-x) / (1 + np.exp(-x)) ** 2)
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in (forward, backward))


def test_frames_of_real_records(runs):
    """The figures take what `RunSet` gives."""
    from supermask_tf.records import load_runs

    loaded = load_runs(runs.directory)
    assert (
        len(plots.training(loaded.history).axes) == 2
        and len(plots.utilisation(loaded.where(arm="mask").utilisation).axes) == 1
    )
    assert len(plots.accuracies(loaded.summary).axes) == 1


def test_colours_are_seaborns_colour_blind_safe_ones():
    """The palette is written out for a fast import: it must stay the one that it says it is."""
    import seaborn

    named = [
        getattr(canvas, name)
        for name in ("BLUE", "ORANGE", "GREEN", "RED", "PURPLE", "BROWN", "PINK", "GREY")
    ]
    assert seaborn.color_palette("colorblind").as_hex()[:8] == named
    assert [plots.ARM_COLOURS[arm] for arm in ("mask", "weights", "finetune")] == named[:3]


def test_every_arm_has_a_colour_and_a_name():
    """A new arm can't be drawn without deciding how it looks."""
    from supermask_tf.experiment import ARMS

    assert list(plots.ARM_COLOURS) == list(plots.ARM_NAMES) == list(ARMS)
    assert len(set(plots.ARM_COLOURS.values())) == len(ARMS)


def test_differences_show_mean_interval_and_verdict():
    """A dot and a bar a comparison, in the order of the table, coloured by its verdict."""
    table = pd.DataFrame(
        {
            "comparison": ["a − b", "c − d", "e − f"],
            "mean": [1.0, -2.0, 5.0],
            "half": [0.5, 0.25, np.nan],
            "verdict": ["supported", "refuted", "not settled"],
            "rule": "difference",
            "decides": True,
        }
    )
    other = pd.DataFrame(
        {
            "comparison": ["c − d", "g − h"],
            "mean": [1.0, 3.0],
            "half": [1.0, 1.0],
            "verdict": ["not settled", "supported"],
            "rule": "difference",
            "decides": True,
        }
    )
    assert len(plots.differences({"one": table, "two": other}).axes) == 2
    assert len(plots.differences({"one": table, "two": other.assign(half=np.nan)}).axes) == 1, (
        "an axes without intervals is left out"
    )
    (axis,) = plots.differences({"one": table}).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["c − d", "a − b"]
    bars = list(axis.containers)
    assert [(bar.lines[0].get_xdata()[0], bar.lines[0].get_ydata()[0]) for bar in bars] == [
        (-2.0, 0),
        (1.0, 1),
    ]
    assert [colour(bar.lines[0]) for bar in bars] == [plots.RED, plots.GREEN]
    assert [tuple(segment[:, 0]) for bar in bars for segment in bar.lines[2][0].get_segments()] == [
        (-2.25, -1.75),
        (0.5, 1.5),
    ]
    with pytest.raises(ValueError, match="at least two seeds"):
        plots.differences({"one": table.assign(half=np.nan)})


def test_differences_show_what_decides_and_the_margin():
    """What stands beside the rule is hollow; a verdict of equivalence shows its margin, and the
    legend says both.
    """
    table = pd.DataFrame(
        {
            "comparison": ["a − b", "c − d"],
            "mean": [1.0, 2.0],
            "half": 0.5,
            "verdict": "refuted",
            "rule": ["equivalence", "difference"],
            "decides": [True, False],
        }
    )
    figure = plots.differences({"one": table})
    bars = [container for container in figure.axes[0].containers if hasattr(container, "has_xerr")]
    assert [bar.lines[0].get_markerfacecolor() for bar in bars] == ["white", plots.RED]
    (band,) = figure.axes[0].patches
    assert (band.get_x(), band.get_width(), round(band.get_y() + band.get_height() / 2)) == (
        -1.0,
        2.0,
        1,
    )
    assert legend(figure) == ["refuted", "beside the rule", "equal: within ±1"]
    assert legend(plots.differences({"one": table.assign(rule="difference", decides=True)})) == [
        "refuted"
    ]


def test_accuracy_by_width():
    """A point a width, the mean over seeds with its interval; two different experiments are no two
    seeds.
    """
    rows = [
        ("mnist", arm, width, seed, f"{arm}{width}{seed}", 0.9 + 0.01 * width + 0.001 * seed)
        for arm in ("mask", "weights")
        for width in (1, 2, 4)
        for seed in range(3)
    ]
    summary = pd.DataFrame(
        rows, columns=["dataset", "arm", "width", "seed", "run", "test_accuracy"]
    )
    (axis,) = plots.by_width(summary).axes
    np.testing.assert_allclose(
        np.asarray(axis.containers[0].lines[0].get_ydata(), float), [0.911, 0.921, 0.941]
    )
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2", "4"]
    with pytest.raises(ValueError, match="share 3 seeds"):
        plots.by_width(pd.concat([summary, summary.assign(run=summary.run + "b")]))


def test_masked_by_weights():
    """A point a layer at its number of weights, in the marker of its kind and the colour of its
    network.
    """
    table = pd.DataFrame(
        [
            ("mnist", network, f"l{i}", kind, 10 ** (i + 2), 0.1 * i + 0.01 * seed)
            for network in ("one", "two")
            for seed in range(2)
            for i, kind in enumerate(("3x3", "1x1 shortcut"))
        ],
        columns=["dataset", "network", "path", "kind", "weights", "masked"],
    )
    (axis,) = plots.by_weights(table).axes
    points = [
        (
            c.lines[0].get_xdata()[0],
            round(float(c.lines[0].get_ydata()[0]), 4),
            c.lines[0].get_marker(),
            colour(c.lines[0]),
        )
        for c in axis.containers
    ]
    assert points == [
        (100, 0.005, "o", plots.BLUE),
        (1000, 0.105, "D", plots.BLUE),
        (100, 0.005, "o", plots.ORANGE),
        (1000, 0.105, "D", plots.ORANGE),
    ]
    assert axis.get_xscale() == "log"


def test_most_masked_layer_against_the_posts():
    """A condition without runs is left out; the dashed line is the post's highest."""
    table = pd.DataFrame(
        {
            "condition": ["logits from 0.05", "logits from 1", "longer"],
            "mean": [0.4, 0.2, np.nan],
            "half": [0.1, 0.1, np.nan],
            "n": [3, 3, 0],
        }
    )
    (axis,) = plots.most_masked({"study": table}, 0.164).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.05", "1"]
    assert (
        list(axis.containers[0].lines[0].get_ydata()) == [0.4, 0.2]
        and axis.lines[0].get_ydata()[0] == 0.164
    )


def test_gradients_show_estimate_and_truth():
    """An axes an estimator: the true derivative dashed, the estimate with the spread of a draw."""
    table = pd.DataFrame(
        {
            "estimator": ["threshold"] * 2 + ["bernoulli"] * 2,
            "logit": [0, 1] * 2,
            "true": [0, 0, 1, 2],
            "mean": [3, 4, 5, 6],
            "deviation": [0, 0, 1, 1],
        }
    )
    first, second = plots.gradients(table).axes
    assert [list(line.get_ydata()) for line in second.lines[1:]] == [[1, 2], [5, 6]] and [
        list(line.get_ydata()) for line in first.lines[1:]
    ] == [[0, 0], [3, 4]]


@pytest.mark.parametrize(
    "draw, column", [(plots.training, "val_accuracy"), (plots.accuracies, "test_accuracy")]
)
def test_different_experiments_are_not_averaged_as_seeds(draw, column):
    """Two runs of a seed differ in something else: their spread is none over seeds."""
    frame = pd.DataFrame(
        {
            "dataset": "mnist",
            "arm": "mask",
            "run": ["a", "b"],
            "seed": 0,
            "epoch": 1,
            "accuracy": 0.5,
            column: 0.5,
        }
    )
    with pytest.raises(ValueError, match="share 1 seeds"):
        draw(frame)


def test_arms_are_not_averaged_as_seeds():
    """A mask run and the run that was fine-tuned from it have one mask: together they are no two
    seeds of it.
    """
    table = pd.concat(
        [
            kernels().assign(seed=0, arm="mask"),
            kernels().assign(seed=0, arm="finetune", run="other"),
        ]
    )
    with pytest.raises(ValueError, match="2 runs of cifar10 share 1 seeds"):
        plots.utilisation(table)


def test_ways_by_epoch():
    """The mean over seeds of each way's accuracy at the left, of what its mask keeps at the right,
    each in its colour.
    """
    frame = pd.DataFrame(
        [
            (way, f"{way}{seed}", epoch, base + 0.01 * epoch + 0.002 * seed, 0.1 * epoch)
            for way, base in (("one", 0.5), ("other", 0.7))
            for seed in range(3)
            for epoch in (1, 2, 3)
        ],
        columns=["way", "run", "epoch", "val_accuracy", "masked"],
    )
    figure = plots.ways(frame)
    left, right = ([line.get_ydata() for line in axis.get_lines()] for axis in figure.axes)
    np.testing.assert_allclose(left, [[0.512, 0.522, 0.532], [0.712, 0.722, 0.732]])
    np.testing.assert_allclose(right, [[0.9, 0.8, 0.7]] * 2)
    assert legend(figure) == ["one", "other"]
    known = plots.ways(pd.concat([frame, frame[frame.way == "one"].assign(way="threshold")]))
    assert legend(known) == ["threshold", "one", "other"] and [
        colour(line) for line in known.axes[0].get_lines()
    ] == [plots.ORANGE, plots.GREEN, plots.BLUE]
    assert figure.axes[0].get_ylim()[0] == pytest.approx(0.532 - 0.468 / 2), (
        "one bad first epoch does not squeeze all others together"
    )


def test_accuracy_by_density():
    """Before training at the left, after it at the right, by density."""
    frame = pd.DataFrame(
        [
            (method, density, seed, 0.1 + density, 0.5 + density)
            for method in ("ticket", "random")
            for density in (0.5, 0.2)
            for seed in (0, 1)
        ],
        columns=["method", "density", "seed", "start", "trained"],
    )
    figure = plots.by_density(frame)
    for axis, base in zip(figure.axes, (0.1, 0.5)):
        assert len(axis.containers) == 2
        for container in axis.containers:
            np.testing.assert_allclose(
                container[0].get_xydata(), [(0.2, base + 0.2), (0.5, base + 0.5)]
            )
    assert legend(figure) == ["ticket", "random"]


def test_many_methods_and_one_without_a_start():
    """The dense network is nothing without training; more methods than colours are still drawn."""
    frame = pd.DataFrame(
        [
            (f"method {i}", 0.5, seed, np.nan if i == 0 else 0.1, 0.5)
            for i in range(15)
            for seed in (0, 1)
        ],
        columns=["method", "density", "seed", "start", "trained"],
    )
    left, right = plots.by_density(frame).axes
    assert len(left.containers) == 14 and len(right.containers) == 15


def test_kept_by_magnitude():
    """What is kept of each part over the layer's density: a panel a layer."""
    frame = pd.DataFrame(
        [
            ("ticket", path, part, 0.04 * part, 0.2)
            for path in ("dense1", "dense2")
            for part in (1, 5, 10)
        ],
        columns=["method", "path", "part", "kept", "density"],
    )
    figure = plots.by_magnitude(frame)
    assert [axis.get_title() for axis in figure.axes] == ["dense1", "dense2"]
    for axis in figure.axes:
        np.testing.assert_allclose(
            axis.containers[0][0].get_xydata(), [(1, 0.2), (5, 1.0), (10, 2.0)]
        )
