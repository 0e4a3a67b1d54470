"""What masks share: by hand on two small runs; kept magnitudes against θ0 itself."""

import numpy as np
import pytest

from supermask_tf import initializers, overlap
from supermask_tf.experiment import Experiment


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A trained LeNet-300-100, its ticket of a fifth, and a supermask of the same density."""
    directory = tmp_path_factory.mktemp("overlap") / "two"
    settings = {
        "dataset": "digits",
        "model": "lenet_300_100",
        "augment": False,
        "batch_size": 64,
        "epochs": 1,
        "learning_rate": 0.003,
    }
    weights = Experiment(arm="weights", **settings).run(directory, progress=False)
    ticket = Experiment(
        arm="ticket", init_from=weights.name, density=0.2, criterion="large_initial", **settings
    ).run(directory, progress=False)
    supermask = Experiment(arm="mask", estimator="top_k", density=0.3, **settings).run(
        directory, progress=False
    )
    return weights, ticket, supermask


@pytest.mark.slow
def test_shared_by_counting(two):
    """Overlap is a share of the second mask's weights, chance is the first one's density, and a
    mask shares all with itself.
    """
    weights, ticket, supermask = two
    table = overlap.shared(supermask, ticket).set_index("path")
    a, b = supermask.load_model().masks(), ticket.load_model().masks()
    for path in ("dense1", "dense2", "dense3"):
        x, y = a[f"{path}/kernel"].ravel(), b[f"{path}/kernel"].ravel()
        both = sum(p and q for p, q in zip(x, y))
        assert table.overlap[path] == pytest.approx(both / y.sum()) and table.chance[
            path
        ] == pytest.approx(x.mean())
        assert table.beyond[path] == pytest.approx((both / y.sum() - x.mean()) / (1 - x.mean()))
        assert (table.density_a[path], table.density_b[path], table.weights[path]) == (
            pytest.approx(x.mean()),
            pytest.approx(y.mean()),
            x.size,
        )
    total = sum((a[path].ravel() & b[path].ravel()).sum() for path in a if path.endswith("kernel"))
    assert table.overlap["all"] == pytest.approx(
        total / sum(mask.sum() for path, mask in b.items() if path.endswith("kernel"))
    )
    assert abs(table.beyond["dense1"]) < 0.1, (
        "random scores and large weights have nothing to do with each other"
    )
    same = overlap.shared(ticket, ticket)
    assert (same.overlap == 1).all() and (same.beyond == 1).all()
    assert overlap.shared(weights, ticket).beyond.isna().all(), (
        "an open mask shares everything by chance"
    )


def test_kept_magnitudes(two):
    """A ticket of the largest untrained weights keeps the top fifth and nothing else; an open mask
    keeps every part.
    """
    weights, ticket, _ = two
    table = overlap.kept_by_magnitude(ticket).set_index(["path", "part"])
    for path in ("dense1", "dense2", "dense3"):
        assert table.kept[path].tolist() == pytest.approx([0] * 8 + [1, 1], abs=0.01)
    theta0 = initializers.glorot_uniform(0, "dense1/kernel", (64, 300)).ravel()
    top = theta0[np.argsort(np.abs(theta0))[-1920:]]
    assert table.positive["dense1", 10] == pytest.approx((top > 0).mean())
    assert (overlap.kept_by_magnitude(weights, parts=4).kept == 1).all()


def test_other_networks_are_refused(two, runs):
    with pytest.raises(ValueError, match="are of different networks: give two runs of one"):
        overlap.shared(two[0], runs.mask)
    with pytest.raises(ValueError, match="is a wide_resnet: give a run of lenet_300_100"):
        overlap.kept_by_magnitude(runs.mask)
