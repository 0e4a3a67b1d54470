"""Pictures of masks, and the drawing of the experiment."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from supermask_tf import initializers
from supermask_tf.paper import diagram, mask_plots, overlap
from supermask_tf.paper.mask_plots import Layer
from supermask_tf.paper.plots import ARM_COLOURS
from supermask_tf.records import load_runs

LENET = Path(__file__).resolve().parents[1] / "runs" / "lenet"


@pytest.fixture(scope="module")
def run():
    return load_runs(LENET).where(arm="mask", seed=0, epochs=10, initial_logit=1.0)[0]


def test_a_kernel_as_it_was_recorded(run):
    """The mask is the record's, the weights are those of its seed."""
    layer = mask_plots.kept(run, "dense1", (784, 300))
    row = run.utilisation.set_index("path").loc["dense1"]
    assert 1 - layer.mask.mean() == pytest.approx(row.masked)
    theta0 = initializers.glorot_uniform(0, "dense1/kernel", (784, 300))
    np.testing.assert_array_equal(layer.weights, theta0)


def test_the_first_layer_as_images():
    """A unit's weights are its image; the map is the share over all units."""
    mask = np.zeros((784, 30), bool)
    mask[:, 1] = True
    mask[28 * 3 + 5, :] = True
    axes = mask_plots.first_layer(Layer(mask, np.ones(mask.shape)), units=8).axes
    tiles, share = (axis.images[0].get_array() for axis in axes[:2])
    assert np.nansum(tiles[:, :30]) == 1 and tiles[1 + 3, 1 + 5] == 1
    assert np.nansum(tiles[:, 30:60]) == 784
    assert share[3, 5] == 100 and share[0, 0] == pytest.approx(100 / 30)


def test_kernels_show_what_stays_and_what_is_off():
    """A weight is drawn with its sign and size, or as switched off, never as both."""
    weights = np.arange(-9.0, 9.0).reshape(3, 3, 1, 2)
    mask = np.ones(weights.shape, bool)
    mask[0, 1, 0, 0] = False
    (axis,) = mask_plots.kernels({"conv": Layer(mask, weights)}).axes
    stays, off = (image.get_array().filled(np.nan) for image in axis.images)
    assert np.isnan(stays[0, 1]) and off[0, 1] == 1
    assert np.isfinite(off).sum() == 1 and np.isfinite(stays).sum() == 17
    assert stays[0, 4] == weights[0, 0, 0, 1] and np.isnan(stays[:, 3]).all()


def test_curves_run_forward():
    """By epoch from the first to the last, whatever the order of the rows."""
    rows = [("a", e, s, 0.1 * e) for e in (3, 1, 2) for s in (0, 1)]
    history = pd.DataFrame(rows, columns=["way", "epoch", "seed", "masked"])
    (axis,) = mask_plots.by_epoch(history).axes
    assert list(axis.lines[0].get_xdata()) == [1, 2, 3]
    np.testing.assert_allclose(axis.lines[0].get_ydata(), [0.9, 0.8, 0.7])


def test_what_stays_by_value(run):
    """Parts go from the most negative weight to the most positive, and hold the whole mask."""
    table = overlap.kept_by_value(run, parts=4)
    first = table[table.path == "dense1"]
    assert (
        first.value.is_monotonic_increasing and first.value.iloc[0] < -1 < 1 < first.value.iloc[-1]
    )
    masked = run.utilisation.set_index("path").masked["dense1"]
    assert first.kept.mean() == pytest.approx(1 - masked)
    lines = mask_plots.by_value(table.assign(seed=0)).axes[0].lines
    assert len(lines) == 1 + 3


def test_jumps_have_an_arrow_per_seed():
    """From before to after, and the post's single point beside."""
    before, after = np.array([80.0, 81.0]), np.array([84.0, 86.0])
    rows = [("A", "mask", "#0173b2", before, after), ("A", "post", "0.3", before[:1], after[:1])]
    figure = mask_plots.jumps(rows, "after training")
    (axis,) = figure.axes
    assert "after training" in {text.get_text() for text in figure.legends[0].get_texts()}
    pairs = [tuple(line.get_xdata()) for line in axis.lines if len(line.get_xdata()) == 2]
    assert {(80.0, 84.0), (81.0, 86.0)} <= set(pairs)


def test_maps_share_one_scale():
    """The darkest place is the least kept of all maps."""
    maps = {"a": np.full((28, 28), 0.5), "b": np.full((28, 28), 0.9)}
    axes = mask_plots.strip(maps).axes
    assert [axis.images[0].get_clim() for axis in axes[:2]] == [(50, 100), (50, 100)]


def test_the_drawing_names_every_arm():
    """Each arm of the book has its row, in its colour, also in the text for who can't see it."""
    drawn = diagram.experiment()
    used = re.findall(r'fill="(#\w+)"', drawn)
    assert sorted(used) == sorted(ARM_COLOURS.values())
    told = re.search(r'aria-label="([^"]*)"', drawn)[1]
    for name in re.findall(r'class="arm"[^>]*>([^<]*)<', drawn):
        assert name in told
    assert re.search(r'viewBox="0 0 380 \d+"', drawn)
