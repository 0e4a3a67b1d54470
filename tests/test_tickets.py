"""Masks read from what training did to the weights: each criterion against its definition, scopes,
rounds, refusals.
"""

import numpy as np
import pytest

from supermask_tf import tickets

RANDOM = np.random.default_rng(0)
INITIAL = {"a/kernel": RANDOM.normal(size=(20, 30)), "b/kernel": RANDOM.normal(size=(3, 3, 4, 5))}
# The second layer moves ten times as far: across layers the two scopes must choose differently.
FINAL = {
    path: kernel + scale * RANDOM.normal(size=kernel.shape)
    for (path, kernel), scale in zip(INITIAL.items(), (0.5, 5.0))
}

# Each criterion once more, as a sentence of numbers: a weight is kept where this is high.
SCORES = {
    "large_final": lambda i, f: f**2,
    "small_final": lambda i, f: -(f**2),
    "large_initial": lambda i, f: i**2,
    "magnitude_increase": lambda i, f: abs(f) - abs(i),
    "movement": lambda i, f: (f - i) ** 2,
}


@pytest.mark.parametrize("criterion", SCORES)
@pytest.mark.parametrize("density", [0.05, 0.5, 0.97])
def test_criteria_by_layer(criterion, density):
    """Every weight kept scores at least as high as every one left out, and each layer keeps its
    share.
    """
    for path, mask in tickets.masks(INITIAL, FINAL, density, criterion).items():
        score = SCORES[criterion](INITIAL[path], FINAL[path])
        assert mask.shape == score.shape and mask.dtype == bool
        assert mask.sum() == round(density * mask.size)
        assert score[mask].min() > score[~mask].max()


@pytest.mark.parametrize("criterion", SCORES)
def test_criteria_over_all_layers(criterion):
    """In global scope scores compete across layers: one threshold for all of them."""
    found = tickets.masks(INITIAL, FINAL, 0.3, criterion, "global")
    score = {path: SCORES[criterion](INITIAL[path], FINAL[path]) for path in found}
    kept, left = (
        np.concatenate([score[path][mask == wanted] for path, mask in found.items()])
        for wanted in (True, False)
    )
    assert kept.size == round(0.3 * 780) and kept.min() > left.max()
    assert (
        found["a/kernel"].mean() != pytest.approx(found["b/kernel"].mean(), abs=0.05)
        or criterion == "large_initial"
    )


def test_random_masks_are_nested_and_independent_of_the_weights():
    """The control: of one seed smaller masks are parts of larger ones, of another seed they agree
    as chance does.
    """
    large, small = (
        tickets.masks(INITIAL, FINAL, density, "random", seed=3)["a/kernel"]
        for density in (0.5, 0.2)
    )
    assert (large & small).sum() == small.sum() == 120
    np.testing.assert_array_equal(
        large, tickets.masks(FINAL, INITIAL, 0.5, "random", seed=3)["a/kernel"]
    )
    other = tickets.masks(INITIAL, FINAL, 0.5, "random", seed=4)["a/kernel"]
    assert abs((large & other).sum() - 150) < 5 * np.sqrt(600 * 0.25 * 0.75)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rounds_stay_within_the_round_before(scope):
    """A second round keeps a part of the first one's weights, and `density` counts all weights."""
    first = tickets.masks(INITIAL, FINAL, 0.5, scope=scope)
    # The trained weights that were out are the largest: without `within` they would all be taken.
    later = {path: np.where(first[path], 0.01 * FINAL[path], 100.0) for path in first}
    second = tickets.masks(INITIAL, later, 0.2, scope=scope, within=first)
    assert all((second[path] <= first[path]).all() for path in first)
    assert sum(mask.sum() for mask in second.values()) == round(0.2 * 780)


def test_masks_of_biases_do_not_matter():
    """`within` may be all masks of a model."""
    first = tickets.masks(INITIAL, FINAL, 0.5)
    both = first | {"a/bias": np.ones(3, bool)}
    assert all(
        np.array_equal(mask, tickets.masks(INITIAL, FINAL, 0.2, within=first)[path])
        for path, mask in tickets.masks(INITIAL, FINAL, 0.2, within=both).items()
    )


def test_ties_and_the_smallest_density():
    """Equal scores: the first ones are kept, exactly as many as asked for; at least one weight
    stays.
    """
    same = {"a/kernel": np.ones((4, 5))}
    assert tickets.masks(same, same, 0.25)["a/kernel"].ravel().tolist() == [True] * 5 + [False] * 15
    assert (
        tickets.masks(same, same, 1e-9)["a/kernel"].sum() == 1
        and tickets.masks(same, same, 1.0)["a/kernel"].all()
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        (
            {"criterion": "largest"},
            "Unknown criterion 'largest': choose one of large_final, small_final",
        ),
        ({"scope": "all"}, "Unknown scope 'all'"),
        *(
            ({"density": density}, f"density={density} is out of range")
            for density in (0.0, -0.1, 1.1, float("nan"))
        ),
        (
            {"final": {"a/kernel": np.ones((30, 20)), "b/kernel": FINAL["b/kernel"]}},
            r"final\['a/kernel'\] is of shape \(30, 20\): initial has it with shape \(20, 30\)",
        ),
        ({"final": {"b/kernel": FINAL["b/kernel"]}}, r"final\['a/kernel'\] is missing"),
        *(
            (
                {"final": FINAL | {"a/kernel": np.full((20, 30), value)}},
                "'a/kernel' holds NaN or infinity",
            )
            for value in (np.nan, np.inf)
        ),
        (
            {"density": 0.6, "within": {"a/kernel": np.eye(20, 30, dtype=bool)}},
            (
                r"density=0.6 asks for 360 weights of a/kernel, more than the earlier masks keep"
                r" \(20\)"
            ),
        ),
    ],
)
def test_bad_input(wrong, words):
    with pytest.raises(ValueError, match=words):
        tickets.masks(**{"initial": INITIAL, "final": FINAL, "density": 0.5} | wrong)


def test_controls_of_masks_of_more_values():
    """Shuffled: the same numbers in other places. Random: each number as often, on average."""
    mask = np.repeat(np.array([-1, 0, 0, 1], np.int8), 2500).reshape(100, 100)
    shuffled = tickets.control(mask, "shuffled", 0, "a/kernel")
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(mask, axis=None))
    drawn = tickets.control(mask, "random", 0, "a/kernel")
    assert drawn.dtype == np.int8 and not np.array_equal(drawn, mask)
    for value, share in ((-1, 0.25), (0, 0.5), (1, 0.25)):
        assert abs((drawn == value).mean() - share) < 0.02
        assert abs((shuffled != mask).mean() - 0.62) < 0.03


def test_mask_0_actions():
    """Weights that go are zero, stay where they began, or do so only if training moved them away
    from zero.
    """
    began = np.array([0.5, -0.5, 0.2, -0.2], np.float32)
    trained = np.array([0.7, -0.1, -0.3, 0.1], np.float32)
    assert not tickets.gone(began, trained, None).any()
    np.testing.assert_array_equal(tickets.gone(began, trained, "initial"), began)
    np.testing.assert_array_equal(
        tickets.gone(began, trained, "movement"), np.array([0.5, 0, 0.2, 0], np.float32)
    )


@pytest.mark.parametrize("action", ["reinit", "reshuffled", "constant"])
def test_mask_1_actions(action):
    """Weights that stay begin at values drawn anew, at each other's, or at one magnitude; with
    "_signs" behind it, with their own signs.
    """
    from supermask_tf import initializers

    rng = np.random.default_rng(0)
    began, trained = rng.normal(size=(2, 40, 50)).astype(np.float32)
    mask = rng.random((40, 50)) < 0.3
    arguments = (initializers.glorot_uniform, 3, "a/kernel")
    plain = tickets.kept(began, trained, mask, action, *arguments)
    signs = tickets.kept(began, trained, mask, f"{action}_signs", *arguments)
    assert plain.dtype == np.float32
    np.testing.assert_array_equal(np.abs(signs), np.abs(plain))
    np.testing.assert_array_equal(np.sign(signs), np.sign(began))
    assert 0.3 < (np.sign(plain) == np.sign(began))[mask].mean() < 0.7
    if action == "reshuffled":
        np.testing.assert_array_equal(np.sort(plain[mask]), np.sort(began[mask]))
        assert np.any(plain[mask] != began[mask])
    elif action == "constant":
        np.testing.assert_allclose(np.abs(plain), began.std(), rtol=1e-6)
    else:
        expected = initializers.glorot_uniform(3, "a/kernel/reinit", (40, 50))
        np.testing.assert_array_equal(plain, expected)
    np.testing.assert_array_equal(tickets.kept(began, trained, mask, None, *arguments), began)
    np.testing.assert_array_equal(tickets.kept(began, trained, mask, "final", *arguments), trained)
