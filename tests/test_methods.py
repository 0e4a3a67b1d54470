"""The field's methods as parameters of an experiment: their runs, their children, and what does not
go together.
"""

import numpy as np
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import Experiment, data
from supermask_tf.experiment import measuring, network
from supermask_tf.ground import archives
from supermask_tf.layers import masked_layers

BASE = {
    "dataset": "digits", "model": "lenet_300_100", "augment": False, "epochs": 2,
    "learning_rate": 0.05,
}  # fmt: skip
SIGNED = {
    "estimator": "signed", "initializer": "elus_constant", "activation": "elu", "cutoff": 0.03,
    "mask_biases": False,
}  # fmt: skip
COATS = {"estimator": "top_k", "coats": 3, "density": 0.6}
METHODS = {
    "signed": SIGNED | {"optimizer": "sgd", "nesterov": True, "score_decay": 0.1},
    "coats": COATS | {"rescale": "root"},
    "2:4": {"estimator": "top_k", "groups": "2:4"},
    "blocks": {"estimator": "top_k", "groups": "16x2", "density": 0.4},
    "channels": {"estimator": "top_k", "groups": "channels", "mask_biases": False},
    "global": {"estimator": "top_k", "scope": "global", "density": 0.2, "score_penalty": 1e-4},
    "lowered": {"estimator": "top_k", "scope": "global", "density": 0.2, "density_start": 0.9},
    "gem_miner": {
        "estimator": "gem_miner", "density": 0.3, "freeze_every": 1, "keep": "last",
        "initializer": "signed_kaiming_constant",
    },
    "iterand": {"estimator": "top_k", "density": 0.3, "randomize_every": 3},
    "gain": {"estimator": "top_k", "density": 0.3, "rescale": "gain"},
}  # fmt: skip


def right(model):
    return measuring.rightly_classified(model, data.evaluation_batches(data.load("digits"), "test"))


@pytest.mark.long
@pytest.mark.parametrize("name", METHODS)
def test_a_run_of_each_method(name, tmp_path):
    """Its record gives the network again, to the bit; so does the packed file; its masks keep what
    was asked for; and the same run elsewhere ends with the same bits.
    """
    experiment = Experiment(**BASE | METHODS[name])
    run = experiment.run(tmp_path, progress=False)
    model = run.load_model()
    np.testing.assert_array_equal(right(model), run.right())
    np.testing.assert_array_equal(right(sm.load(run.save(tmp_path / "net.supermask"))), run.right())
    assert Experiment.load(run.path / "experiment.json").name == run.name
    kept = 1 - run.summary["masked"]
    if name == "gem_miner":  # what is left and rounds to one
        assert 0.1 < kept <= experiment.density + 0.001
    elif experiment.density and name != "channels":
        assert abs(kept - experiment.density) < 0.01
    shapes = {path: mask.shape for path, mask in model.masks().items()}
    for path, mask in run.masks(shapes).items():
        np.testing.assert_array_equal(mask, model.masks()[path])
    if name == "coats":
        assert np.allclose(run.utilisation[["value_1", "value_2", "value_3"]], 0.2, atol=1e-3)
    if name == "channels":
        first, *_, last = run.masks(shapes).values()
        assert set(first.mean(axis=0)) == {0, 1} and set(last.mean(axis=0)) != {0, 1}
    again = experiment.run(tmp_path / "again", progress=False)
    for file in ("masks.npz", "state.npz"):
        ours, theirs = (archives.read(each.path / file) for each in (run, again))
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.long
@pytest.mark.parametrize("method", [SIGNED, COATS], ids=["signed", "coats"])
def test_children_of_masks_with_more_values(method, tmp_path):
    """Fine-tuning starts where the mask run ended, signs and coats included; the controls move the
    numbers about, and keep them.
    """
    parent = Experiment(**BASE | method).run(tmp_path, progress=False)
    settings = BASE | {"epochs": 1, "learning_rate": 1e-4, "init_from": parent.name} | method
    child = Experiment(**settings | {"arm": "finetune"}).run(tmp_path, progress=False)
    assert child.summary["start_accuracy"] == parent.summary["test_accuracy"]
    np.testing.assert_array_equal(right(child.load_model()), child.right())
    shapes = {path: mask.shape for path, mask in parent.load_model().masks().items()}
    own = parent.masks(shapes)
    for path, mask in child.masks(shapes).items():
        np.testing.assert_array_equal(mask, own[path])
    shuffled = Experiment(**settings | {"arm": "shuffled_mask"}).run(tmp_path, progress=False)
    for path, mask in shuffled.masks(shapes).items():
        np.testing.assert_array_equal(np.sort(mask, axis=None), np.sort(own[path], axis=None))
        assert mask.size < 20 or not np.array_equal(mask, own[path])


@pytest.mark.long
def test_children_of_iterand_start_from_the_weights_that_it_left(tmp_path):
    """The record holds them, since no seed does."""
    method = {"estimator": "top_k", "density": 0.3}
    parent = Experiment(**BASE | METHODS["iterand"]).run(tmp_path, progress=False)
    child = Experiment(
        **BASE | method | {"arm": "finetune", "init_from": parent.name, "epochs": 1}
    ).run(tmp_path, progress=False)
    assert child.summary["start_accuracy"] == parent.summary["test_accuracy"]
    theta0 = network.build(Experiment(**BASE), (8, 8, 1), 10).get_layer("dense1").kernel
    assert np.any(parent.state()["dense1/kernel"] != theta0.numpy())


@pytest.mark.long
def test_zhous_actions_in_a_ticket(tmp_path):
    """Weights that go stay frozen where they were, those that stay begin as told, and the record
    gives the network again.
    """
    dense = Experiment(**BASE | {"arm": "weights"}).run(tmp_path, progress=False)
    settings = BASE | {"arm": "ticket", "init_from": dense.name, "epochs": 1}
    theta0 = network.build(Experiment(**BASE), (8, 8, 1), 10).get_layer("dense1").kernel.numpy()
    trained = dense.weights()["dense1/kernel"]
    names = set()
    for actions in ({"mask_0": "movement", "mask_1": "final"}, {"mask_0": "initial"}, {}):
        run = Experiment(**settings | actions).run(tmp_path, progress=False)
        names.add(run.name)
        model = run.load_model()
        np.testing.assert_array_equal(right(model), run.right())
        np.testing.assert_array_equal(
            right(sm.load(run.save(tmp_path / "net.supermask"))), run.right()
        )
        layer = model.get_layer("dense1")
        mask, effective = layer.masks["kernel"], layer.masked_weights()[0].numpy()
        away = np.abs(trained) > np.abs(theta0)
        expected = {
            None: np.zeros_like(theta0),
            "initial": theta0,
            "movement": np.where(away, theta0, 0),
        }[actions.get("mask_0")]
        np.testing.assert_array_equal(effective[~mask], expected[~mask])
        packed = sm.packing.read(tmp_path / "net.supermask").weights["dense1/kernel"]
        np.testing.assert_array_equal(packed, effective)
    assert len(names) == 3


def step(**given):
    """The logits of dense1 before and after one step of plain SGD on fixed images."""
    settings = {"optimizer": "sgd", "momentum": 0.0, "learning_rate": 0.5, "density": 0.5}
    e = Experiment(**BASE | settings | {"estimator": "top_k", "mask_biases": False} | given)
    model = network.build(e, (4, 4, 1), 3)
    network.compile_model(model, e)
    logits = model.get_layer("dense1").kernel_logits
    before = logits.numpy()
    x = tf.random.stateless_uniform((8, 4, 4, 1), (0, 1))
    model.train_step((x, tf.range(8) % 3))
    return before, logits.numpy()


def test_decay_of_scores():
    """`score_decay` takes η·λ·s off a score, and so does `score_penalty` where there is no
    momentum; without them nothing does.
    """
    before, plain = step()
    for name in ("score_decay", "score_penalty"):
        _, after = step(**{name: 0.1})
        np.testing.assert_allclose(after, plain - 0.5 * 0.1 * before, atol=1e-7)


def test_decay_spares_batch_norm():
    e = Experiment(model="resnet", depth=8, estimator="signed", optimizer="sgd", score_decay=0.1)
    model = network.build(e, (8, 8, 3), 10)
    network.compile_model(model, e)
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    decayed = [v for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    logits = [v for layer in masked_layers(model) for v in (layer.kernel_logits, layer.bias_logits)]
    assert {id(v) for v in decayed} == {id(v) for v in logits if v is not None}


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"groups": "2:4"}, "groups='2:4' does not go with estimator='threshold'"),
        ({"estimator": "top_k", "groups": "4:2"}, "groups='4:2' is no grouping"),
        ({"estimator": "top_k", "groups": "2:4", "density": 0.3}, "it keeps 0.5; leave both out"),
        ({"estimator": "top_k", "groups": "2:4", "coats": 2}, "leave coats and scope out"),
        ({"estimator": "top_k", "coats": 1}, "coats=1 is out of range"),
        ({"estimator": "bernoulli", "coats": 2}, "coats=2 does not go with estimator='bernoulli'"),
        ({"cutoff": 0.1}, "cutoff=0.1 does not go with estimator='threshold'"),
        ({"scope": "global"}, "scope='global' does not go with"),
        ({"score_decay": 0.1}, "score_decay=0.1 does not go with estimator='threshold'"),
        ({"estimator": "signed", "score_penalty": 0.1}, "score_penalty=0.1 does not go with"),
        ({"arm": "weights", "score_decay": 0.1}, "score_decay=0.1 does not go with arm='weights'"),
        ({"estimator": "signed", "initial_logit": 0.5}, "whose logits start random"),
        ({"estimator": "signed", "draw_at_evaluation": True}, "draws nothing"),
        ({"estimator": "gem_miner"}, "keep='best' does not go with estimator='gem_miner'"),
        ({"estimator": "gem_miner", "keep": "last", "epochs": 5}, "freeze_every=5 does not go"),
        ({"randomize_fraction": 0.1}, "does not go without randomize_every"),
        ({"arm": "weights", "randomize_every": 3}, "randomize_every=3 does not go with"),
        ({"affine": False, "model": "lenet_300_100"}, "affine=False does not go with model"),
        ({"affine": False, "arm": "bn_only"}, "affine=False does not go with arm='bn_only'"),
        ({"activation": "elu"}, "activation='elu' does not go with model='wide_resnet'"),
        ({"nesterov": True}, "nesterov=True does not go with optimizer='adam'"),
        ({"mask_0": "initial"}, "mask_0='initial' does not go with arm='mask'"),
        (
            {"arm": "ticket", "init_from": "one", "mask_0": "initial", "weight_decay": 0.1},
            "mask_0='initial' does not go with weight_decay or rescale",
        ),
        ({"model": "resnet", "depth": 21}, "depth=21 does not fit a resnet: give 6n \\+ 2"),
    ],
)
def test_what_does_not_go_together(parameters, words):
    with pytest.raises(ValueError, match=words):
        Experiment(**parameters)


def test_what_means_the_same_has_one_name():
    """A default that is given makes no other run; N:M has its density."""
    top_k = {"estimator": "top_k"}
    assert Experiment(**top_k, scope="layer").name == Experiment(**top_k).name
    assert Experiment(optimizer="sgd", nesterov=False).name == Experiment(optimizer="sgd").name
    assert Experiment(**top_k, groups="1:4").density == 0.25
    assert Experiment(randomize_every=5).randomize_fraction == 0.1
