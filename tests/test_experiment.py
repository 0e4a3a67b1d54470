"""An experiment's parameters, its name, what running it leaves, and everything that is refused
before training.
"""

import dataclasses
import json
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from conftest import left
from supermask_tf import data, initializers, layers, records, tickets
from supermask_tf.experiment import ARMS, Experiment, loop, network
from supermask_tf.records import Run, load_runs

# The network and data of conftest's shared runs, by which a child names its parent's.
SMALL = {"dataset": "digits", "model": "wide_resnet", "depth": 10, "batch_size": 64, "epochs": 2}

# A LeNet on tiny images: two epochs in a second or two.
TINY = {"model": "lenet_300_100", "batch_size": 8, "epochs": 2, "augment": False}


def files(run):
    return {
        path.name: path.read_bytes() for path in run.path.iterdir() if path.name != "summary.json"
    }


def evaluated(run, images=None):
    """(loss, accuracy) on the test images of the model that the record describes."""
    images = images or data.load(run.parameters["dataset"])
    return tuple(run.load_model().evaluate(data.evaluation_batches(images, "test"), verbose=0))


def recorded(run):
    return run.summary["test_loss"], run.summary["test_accuracy"]


# --- running --------------------------------------------------------------------------------------


@pytest.mark.long
def test_same_seed_gives_the_same_bytes(runs, tmp_path):
    """Augmentation, convolutions, batch norm: the same seed twice gives equal files, another seed
    does not.
    """
    parameters = {k: v for k, v in runs.mask.parameters.items() if k != "parent"}
    again = Experiment.of(parameters).run(tmp_path, progress=False)
    assert again.name == runs.mask.name and files(again) == files(runs.mask)
    other = Experiment.of(parameters | {"seed": 1}).run(tmp_path, progress=False)
    for name in ("history.csv", "masks.npz", "state.npz"):
        assert files(other)[name] != files(again)[name], name


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["threshold", "bernoulli"])
def test_same_seed_gives_the_same_bytes_with_drawn_masks(npz, tmp_path, estimator):
    """Drawn masks come from the seed, not from what ran before."""
    experiment = Experiment(dataset=npz(), estimator=estimator, learning_rate=0.3, **TINY)
    one = experiment.run(tmp_path / "one", progress=False)
    tf.random.set_seed(5)
    assert files(one) == files(experiment.run(tmp_path / "other", progress=False))
    assert one.summary["masked"] > 0, "masks that never left their start prove nothing"


@pytest.mark.slow
def test_summary_says_what_came_out(runs):
    """Best epoch, accuracies and the masked fraction follow from the record's own tables and
    masks.
    """
    for run in (runs.mask, runs.weights, runs.finetune):
        history, summary = run.history, run.summary
        assert history.epoch.tolist() == [1, 2]
        best = history.val_accuracy.idxmax()
        assert summary["best_epoch"] == best + 1
        assert (summary["train_accuracy"], summary["val_accuracy"]) == (
            history.accuracy[best],
            history.val_accuracy[best],
        )
        table = run.utilisation
        masks = run.masks({f"{path}/kernel": tuple(v.shape) for path, v in kernels(run).items()})
        for row in table.itertuples():
            mask = masks[f"{row.path}/kernel"]
            assert row.weights == mask.size and row.masked == pytest.approx(1 - mask.mean())
        total = sum(mask.size for mask in masks.values())
        assert summary["masked"] == pytest.approx(
            1 - sum(mask.sum() for mask in masks.values()) / total
        )
        assert (
            summary["fingerprint"] == data.DATASETS["digits"].fingerprint
            and summary["train_images"] == 1294
        )
        assert {
            "processor",
            "threads",
            "seconds",
            "images_per_second",
            "versions",
            "checksums",
        } <= set(summary)
    assert runs.mask.summary["masked"] > 0.01 and runs.weights.summary["masked"] == 0
    assert (
        runs.mask.utilisation.kind.tolist().count("1x1 shortcut") == 2
        and runs.mask.utilisation.kind.iloc[-1] == "dense"
    )


def kernels(run):
    return {layer.name: layer.kernel for layer in layers.masked_layers(run.load_model())}


def test_history_has_no_clock_times(runs):
    """A row an epoch, nothing that differs between two equal runs."""
    assert list(runs.mask.history) == [
        "epoch",
        "loss",
        "accuracy",
        "val_loss",
        "val_accuracy",
        "learning_rate",
        "masked",
    ]
    assert runs.mask.history.learning_rate[0] == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["mask", "weights", "finetune"])
def test_loaded_model_gives_the_recorded_accuracy(runs, arm):
    """The model that a record describes is the model that was tested, to the last bit of loss and
    accuracy.
    """
    assert evaluated(getattr(runs, arm)) == recorded(getattr(runs, arm))


@pytest.mark.slow
def test_what_each_arm_trains(runs):
    """The mask arm leaves θ0, the weights arm the open mask, fine-tuning its parent's mask."""
    from supermask_tf.experiment.network import build

    start = build(Experiment.load(runs.mask.path / "experiment.json"), (8, 8, 1), 10)
    theta0 = {layer.name: layer.kernel.numpy() for layer in layers.masked_layers(start)}
    models = {arm: getattr(runs, arm).load_model() for arm in ("mask", "weights", "finetune")}
    for arm, model in models.items():
        same = [
            np.array_equal(layer.kernel, theta0[layer.name])
            for layer in layers.masked_layers(model)
        ]
        assert all(same) if arm == "mask" else not any(same), arm
        assert model.phase == ARMS[arm].trains
    assert all(mask.all() for mask in models["weights"].masks().values())
    assert files(runs.finetune)["masks.npz"] == files(runs.mask)["masks.npz"]


@pytest.mark.slow
def test_finetuning_starts_from_its_parent(runs, monkeypatch):
    """Before its first step the child computes what the parent's best epoch computed: masks, θ0 and
    batch norm.
    """
    seen = {}

    class Stop(Exception):
        pass

    def fit(self, *_, **__):
        seen["start"] = self.evaluate(
            data.evaluation_batches(data.load("digits"), "test"), verbose=0
        )
        raise Stop

    monkeypatch.setattr(tf.keras.Model, "fit", fit)
    experiment = dataclasses.replace(
        Experiment.load(runs.finetune.path / "experiment.json"), seed=0, epochs=9
    )
    with pytest.raises(Stop):
        experiment.run(runs.directory, progress=False)
    assert tuple(seen["start"]) == recorded(runs.mask)
    assert not (runs.directory / experiment.name).exists()


def test_finetune_record_holds_its_parent(runs):
    """A child's record can be repeated from its file alone: it names the parent and every parameter
    of it.
    """
    parameters = runs.finetune.parameters
    assert parameters["init_from"] == runs.mask.name
    assert (
        Experiment.of({k: v for k, v in parameters["parent"].items() if k != "parent"}).name
        == runs.mask.name
    )


@pytest.mark.slow
def test_mask_run_needs_no_weights_file(runs, tmp_path):
    """A mask run rebuilds from seed, bits and batch norm, without what lies beside its record."""
    shutil.copytree(runs.mask.path, tmp_path / "study" / runs.mask.name)
    run = Run.load(tmp_path / "study" / runs.mask.name)
    assert not run.weights_file.exists() and set(runs.mask.weights()) == {
        f"{path}_logits" for path in run.load_model().masks()
    }
    assert evaluated(run) == recorded(run)


@pytest.mark.parametrize("arm", ["weights", "finetune"])
def test_lost_weights_are_one_clear_sentence(runs, tmp_path, arm):
    """A record whose trained weights are gone says so, where they were, and how to make them
    again.
    """
    given = getattr(runs, arm)
    shutil.copytree(given.path, tmp_path / "study" / given.name)
    run = Run.load(tmp_path / "study" / given.name)
    with pytest.raises(FileNotFoundError) as error:
        run.load_model()
    message = str(error.value)
    assert (
        all(
            part in message
            for part in (
                run.name,
                "no longer beside its record",
                str(run.weights_file),
                "supermask run",
            )
        )
        and "\n" not in message
    )


def test_finished_run_is_not_trained_again(runs, untrained, capsys):
    """The same parameters in the same folder give the record that is there, untouched."""
    before = {path: path.stat().st_mtime_ns for path in runs.directory.rglob("*")}
    for run in (runs.mask, runs.finetune):
        assert Experiment.load(run.path / "experiment.json").run(runs.directory).path == run.path
    assert {path: path.stat().st_mtime_ns for path in runs.directory.rglob("*")} == before
    assert "finished already" in capsys.readouterr().out


def test_parent_may_be_named_by_its_path(runs, untrained):
    """A parent is known by its name, wherever it lies: its path gives the same run."""
    experiment = dataclasses.replace(
        Experiment.load(runs.finetune.path / "experiment.json"), init_from=str(runs.mask.path)
    )
    assert (
        experiment.name == runs.finetune.name
        and experiment.run(runs.directory, progress=False).path == runs.finetune.path
    )


@pytest.mark.slow
def test_own_data(npz, arrays, tmp_path):
    """An .npz of one's own trains, and its record is rebuilt when the file is gone."""
    path = npz(arrays(dtype=np.float32), "my images")
    images = data.load(path)
    run = Experiment(dataset=path, arm="weights", **TINY).run(tmp_path / "study", progress=False)
    assert re.fullmatch(r"my_images-lenet_300_100-weights-s0-[0-9a-f]{8}", run.name)
    assert (
        run.summary["classes"] == 4
        and run.summary["image_shape"] == [6, 5, 1]
        and run.summary["fingerprint"] == images.fingerprint
    )
    (tmp_path / "my images.npz").unlink()
    assert evaluated(run, images) == recorded(run)


@pytest.mark.slow
@pytest.mark.parametrize("draw_at_evaluation", [False, True])
def test_bernoulli(npz, tmp_path, draw_at_evaluation):
    """A loaded Bernoulli run gives the recorded accuracy, also where the mask is drawn at
    evaluation, anew each time.
    """
    path = npz(train=200, test=100)
    images = data.load(path)
    run = Experiment(
        dataset=path,
        estimator="bernoulli",
        draw_at_evaluation=draw_at_evaluation,
        learning_rate=0.3,
        **TINY,
    ).run(tmp_path / "study", progress=False)
    assert evaluated(run, images) == recorded(run)
    model = run.load_model()
    x = next(iter(data.evaluation_batches(images, "test")))[0]
    assert np.array_equal(model(x), model(x)) != draw_at_evaluation


@pytest.mark.long
def test_finetuning_from_drawn_masks(npz, tmp_path):
    """The child of a Bernoulli run holds its most likely mask still."""
    path = npz()
    for draw in (False, True):
        mask = Experiment(
            dataset=path, estimator="bernoulli", draw_at_evaluation=draw, learning_rate=0.3, **TINY
        ).run(tmp_path / "study", progress=False)
        child = Experiment(
            dataset=path, arm="finetune", estimator="bernoulli", init_from=mask.name, **TINY
        ).run(tmp_path / "study", progress=False)
        assert files(child)["masks.npz"] == files(mask)["masks.npz"]
        model, x = child.load_model(), data.load(path).test[0].astype(np.float32)
        assert np.array_equal(model(x), model(x))


@pytest.mark.slow
def test_original_protocol(npz, tmp_path):
    """protocol="original" chooses the epoch by the test set, so that its test accuracy is the best
    validation accuracy.
    """
    run = Experiment(
        dataset=npz(train=80, test=40), arm="weights", protocol="original", **TINY
    ).run(tmp_path / "study", progress=False)
    assert run.summary["train_images"] == 80
    assert run.history.val_accuracy.max() == run.summary["test_accuracy"]


@pytest.mark.slow
def test_progress_is_plain_lines(npz, tmp_path, capsys):
    """One line an epoch that survives in a notebook, without carriage returns; none if it is not
    wanted.
    """
    experiment = Experiment(dataset=npz(), **TINY)
    experiment.run(tmp_path / "one")
    out = capsys.readouterr().out
    assert (
        re.search(
            r"^█+░* epoch +1/2 +loss .* accuracy .* val_accuracy .* learning rate .* masked ",
            out,
            re.M,
        )
        and "epoch   2/2" in out
        and "\r" not in out
    )
    experiment.run(tmp_path / "other", progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [8, 54], ids=["while training", "at the epoch's last step"])
def test_nan_loss_leaves_no_record(npz, tmp_path, batch_size):
    """A loss that becomes NaN stops the run in one sentence, and nothing is left behind."""
    experiment = Experiment(
        dataset=npz(),
        arm="weights",
        learning_rate=1e30,
        **TINY | {"batch_size": batch_size, "epochs": 1},
    )
    with pytest.raises(
        FloatingPointError, match=r"The loss became (nan|inf) .* of epoch 1|after epoch 1"
    ) as error:
        experiment.run(tmp_path / "study", progress=False)
    assert "(learning_rate=1e+30): try a smaller learning_rate; nothing was recorded." in str(
        error.value
    )
    assert left(tmp_path / "study") == []


# --- parameters and names -------------------------------------------------------------------------

# For each parameter, a value that differs from a default experiment's (and what must come with it).
OTHERS = {
    "dataset": {"dataset": "mnist"},
    "model": {"model": "lenet_300_100"},
    "depth": {"depth": 22},
    "width": {"width": 2},
    "units": {"model": "lenet_300_100", "units": 150},
    "shortcut": {"shortcut": "3x3"},
    "affine": {"affine": False},
    "activation": {"model": "lenet_300_100", "activation": "elu"},
    "arm": {"arm": "weights"},
    "init_from": {"arm": "finetune", "init_from": "one"},
    "estimator": {"estimator": "bernoulli"},
    "tau": {"tau": 0.4},
    "temperature": {"estimator": "binary_concrete", "temperature": 0.5},
    "step_size": {"estimator": "intermediate_loss", "step_size": 0.5},
    "density": {"estimator": "top_k", "density": 0.4},
    "groups": {"estimator": "top_k", "groups": "2:4"},
    "coats": {"estimator": "top_k", "coats": 2},
    "cutoff": {"estimator": "signed", "cutoff": 0.1},
    "freeze_every": {"estimator": "gem_miner", "keep": "last", "freeze_every": 3},
    "score_penalty": {"estimator": "top_k", "score_penalty": 1e-4},
    "score_decay": {"estimator": "top_k", "score_decay": 1e-4},
    "randomize_every": {"randomize_every": 300},
    "randomize_fraction": {"randomize_every": 300, "randomize_fraction": 0.2},
    "density_start": {"estimator": "top_k", "density_start": 0.9},
    "draw_at_evaluation": {"estimator": "bernoulli", "draw_at_evaluation": True},
    "initial_logit": {"initial_logit": 0.5},
    "mask_regularizer": {"mask_regularizer": 0.1},
    "mask_biases": {"mask_biases": False},
    "rescale": {"rescale": "dynamic"},
    "initializer": {"initializer": "he_uniform"},
    "criterion": {"arm": "ticket", "init_from": "one", "criterion": "movement"},
    "scope": {"arm": "ticket", "init_from": "one", "scope": "global"},
    "rewind_epochs": {"arm": "ticket", "init_from": "one", "rewind_epochs": 1},
    "mask_0": {"arm": "ticket", "init_from": "one", "mask_0": "initial"},
    "mask_1": {"arm": "ticket", "init_from": "one", "mask_1": "constant"},
    "redraw": {"arm": "reinit", "init_from": "one", "redraw": "permuted"},
    "reinit_seed": {"arm": "reinit", "init_from": "one", "reinit_seed": 7},
    "epochs": {"epochs": 11},
    "batch_size": {"batch_size": 64},
    "reset_batch_norm": {"arm": "finetune", "init_from": "other", "reset_batch_norm": True},
    "optimizer": {"optimizer": "sgd"},
    "momentum": {"optimizer": "sgd", "momentum": 0.5},
    "nesterov": {"optimizer": "sgd", "nesterov": True},
    "weight_decay": {"arm": "weights", "weight_decay": 0.1},
    "learning_rate": {"learning_rate": 0.02},
    "schedule": {"schedule": "cosine"},
    "keep": {"keep": "last"},
    "renew_batch_norm": {"renew_batch_norm": True},
    "augment": {"augment": False},
    "precision": {"precision": "mixed_bfloat16"},
    "strategy": {"strategy": "mirrored"},
    "protocol": {"protocol": "original"},
    "seed": {"seed": 1},
}


def test_name_depends_on_every_parameter():
    """Two runs share a folder only if all their parameters are equal."""
    assert list(OTHERS) == [field.name for field in dataclasses.fields(Experiment)]
    made = [Experiment(**other) for other in OTHERS.values()] + [
        Experiment(),
        Experiment(arm="finetune", init_from="other"),
        Experiment(arm="ticket", init_from="one"),
    ]
    assert (
        len({experiment.name for experiment in made})
        == len({experiment.name[-8:] for experiment in made})
        == len(made)
    )


@pytest.mark.parametrize(
    "parameters, name",
    [
        ({}, "digits-wide_resnet-mask-s0-5923093e"),
        (
            {
                "dataset": "mnist",
                "model": "conv_net",
                "arm": "finetune",
                "init_from": "parent",
                "seed": 3,
            },
            "mnist-conv_net-finetune-s3-2428c2fd",
        ),
    ],
)
def test_names_stay(parameters, name):
    """A finished run is found again by later versions: its name may never change."""
    assert Experiment(**parameters).name == name


def test_defaults_are_settled():
    """A parameter left out is recorded with the value it took, None only where it does not
    apply.
    """
    assert (
        Experiment().parameters() | {"depth": 16, "width": 1, "tau": 0.5, "learning_rate": 0.01}
        == Experiment().parameters()
    )
    lenet = Experiment(model="lenet_300_100", estimator="bernoulli")
    assert (lenet.depth, lenet.width, lenet.tau) == (None, None, None)
    assert (
        Experiment(model="conv_net").depth == 2
        and Experiment(arm="finetune", init_from="x").learning_rate == 1e-5
    )
    assert Experiment(learning_rate=1).name == Experiment(learning_rate=1.0).name
    usual = Experiment(model="lenet_300_100")
    assert Experiment(model="lenet_300_100", units=300) == usual, "one run has one name"


@pytest.mark.parametrize("arm", ["mask", "weights", "finetune"])
def test_experiment_file_round_trip(runs, arm):
    """From experiment.json alone comes the same experiment."""
    run = getattr(runs, arm)
    experiment = Experiment.load(run.path / "experiment.json")
    assert experiment.name == run.name
    assert experiment.parameters() == {
        k: v
        for k, v in json.loads((run.path / "experiment.json").read_text()).items()
        if k != "parent"
    }


@pytest.mark.parametrize(
    "content, found",
    [("{", "Expecting"), ("[]", "no parameters"), ("3", "no parameters"), ("\xff", "can't decode")],
)
def test_bad_experiment_file(tmp_path, content, found):
    """A file that is no experiment is named, with what is wrong."""
    path = tmp_path / "experiment.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(
        ValueError,
        match=rf"experiment\.json is not an experiment: .*{found}.*; give an experiment\.json",
    ):
        Experiment.load(path)


def test_missing_experiment_file(tmp_path):
    """A file that is not there is named; so is a folder."""
    with pytest.raises(
        FileNotFoundError, match=r"There is no experiment file .*x\.json: give an experiment\.json"
    ):
        Experiment.load(tmp_path / "x.json")
    with pytest.raises(ValueError, match="is not an experiment: Is a directory"):
        Experiment.load(tmp_path)


@pytest.mark.parametrize(
    "parameters, words",
    [
        (
            {"dataset": "mnits"},
            ["Unknown dataset 'mnits'", "digits, mnist, fashion_mnist, cifar10, cifar100", ".npz"],
        ),
        ({"arm": "masks"}, ["Unknown arm 'masks'", "mask, weights, finetune"]),
        ({"model": "vgg"}, ["Unknown model 'vgg'", "wide_resnet, lenet_300_100, conv_net"]),
        ({"estimator": "sigmoid"}, ["Unknown estimator 'sigmoid'", "threshold, top_k"]),
        (
            {"initializer": "zeros"},
            [
                "Unknown initializer 'zeros'",
                "glorot_uniform, he_uniform, signed_constant, signed_kaiming_constant",
            ],
        ),
        ({"protocol": "post"}, ["Unknown protocol 'post'", "study, original"]),
        ({"epoch": 3}, ["Unknown parameter 'epoch'", "did you mean 'epochs'?"]),
        (
            {"learning-rate": 3},
            ["Unknown parameter 'learning-rate'", "did you mean 'learning_rate'?"],
        ),
        ({"zzz": 3}, ["Unknown parameter 'zzz'", "choose among dataset, model, depth"]),
        ({1: 3}, ["Unknown parameter 1", "choose among"]),
        ({"epochs": 0}, ["epochs=0 is out of range", "at least 1"]),
        ({"batch_size": -1}, ["batch_size=-1 is out of range", "at least 1"]),
        ({"width": 0}, ["width=0 is out of range", "at least 1"]),
        ({"seed": -1}, ["seed=-1 is out of range", "at least 0"]),
        ({"seed": 2**31}, ["seed=2147483648 is out of range", "at most 2147483647"]),
        ({"tau": 0.0}, ["tau=0.0 is out of range", "between 0 and 1"]),
        ({"tau": 1}, ["tau=1.0 is out of range", "between 0 and 1"]),
        ({"learning_rate": 0}, ["learning_rate=0.0 is out of range", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate=nan is out of range", "finite"]),
        ({"initial_logit": float("inf")}, ["initial_logit=inf is out of range", "finite"]),
        ({"depth": 17}, ["depth=17 does not fit a wide_resnet", "6n + 4"]),
        ({"depth": 4}, ["depth=4 does not fit a wide_resnet", "10, 16, 22 or 28"]),
        ({"model": "conv_net", "depth": 3}, ["depth=3 does not fit a conv_net", "2, 4, 6 or 8"]),
        ({"epochs": 2.0}, ["epochs=2.0 has the wrong type", "a whole number"]),
        ({"epochs": "2"}, ["epochs='2' has the wrong type", "a whole number"]),
        ({"epochs": True}, ["epochs=True has the wrong type", "a whole number"]),
        ({"epochs": None}, ["epochs=None has the wrong type", "a whole number"]),
        ({"augment": 1}, ["augment=1 has the wrong type", "true or false"]),
        (
            {"augment": "false"},
            ["augment='false' has the wrong type", "True or False", "no quotes"],
        ),
        (
            {"depth": "None"},
            ["depth='None' has the wrong type", "a whole number", "or leave it out"],
        ),
        ({"shortcut": "none"}, ["Unknown shortcut 'none'", "3x3, wide, or leave it out"]),
        ({"learning_rate": "1e-3"}, ["learning_rate='1e-3' has the wrong type", "a number"]),
        ({"dataset": 3}, ["dataset=3 has the wrong type", "a text"]),
        ({"arm": ["mask"]}, ["arm=['mask'] has the wrong type", "a text"]),
        (
            {"model": "lenet_300_100", "depth": 16},
            ["depth=16 does not go with model='lenet_300_100'", "leave it out"],
        ),
        (
            {"model": "conv_net", "width": 2},
            ["width=2 does not go with model='conv_net'", "leave it out"],
        ),
        (
            {"estimator": "bernoulli", "tau": 0.5},
            ["tau=0.5 does not go with estimator='bernoulli'", "leave it out"],
        ),
        (
            {"draw_at_evaluation": True},
            ["draw_at_evaluation=True does not go with estimator='threshold'", "leave it out"],
        ),
        ({"arm": "finetune"}, ["arm='finetune' starts from a mask run", "init_from"]),
        ({"init_from": "one"}, ["init_from='one' does not go with arm='mask'", "leave it out"]),
    ],
)
def test_bad_parameter(parameters, words):
    """A bad parameter is refused when the experiment is made, in one sentence with its name, its
    value and what is accepted.
    """
    with pytest.raises(ValueError) as error:
        Experiment.of(parameters)
    message = str(error.value)
    assert all(word in message for word in words) and "\n" not in message


def test_missing_npz():
    """A dataset's file that is not there is told when the experiment is made."""
    with pytest.raises(FileNotFoundError, match=r"dataset='nowhere/x\.npz': there is no such file"):
        Experiment(dataset="nowhere/x.npz")


# --- refused before training ----------------------------------------------------------------------


def child(runs, **changes):
    return dataclasses.replace(
        Experiment.load(runs.finetune.path / "experiment.json"), **{"epochs": 7} | changes
    )


def test_missing_parent(runs, untrained):
    """A parent that is not there is named, with the folder it was looked for in."""
    with pytest.raises(
        FileNotFoundError,
        match=(
            r"init_from='nobody': there is no such run in .*small \(missing or unfinished\): run it"
            r" first"
        ),
    ):
        child(runs, init_from="nobody").run(runs.directory)


def test_unfinished_parent(runs, untrained, tmp_path):
    """A parent without all its files is unfinished."""
    shutil.copytree(runs.mask.path, tmp_path / runs.mask.name)
    (tmp_path / runs.mask.name / "state.npz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"init_from='digits-.*' is unfinished or no run .*no state\.npz"
    ):
        child(runs).run(tmp_path)
    assert left(tmp_path) == [runs.mask.name]


@pytest.mark.parametrize(
    "changes, found, wanted",
    [
        ({"depth": 16}, "depth=10", "depth=16"),
        ({"width": 2}, "width=1", "width=2"),
        ({"seed": 1}, "seed=0", "seed=1"),
        ({"initializer": "he_uniform"}, "initializer='glorot_uniform'", "initializer='he_uniform'"),
        (
            {"model": "lenet_300_100", "depth": None, "width": None},
            "model='wide_resnet'",
            "model='lenet_300_100'",
        ),
    ],
)
def test_parent_of_another_network(runs, untrained, changes, found, wanted):
    """Masks of another network, or over another θ0, are not fine-tuned."""
    with pytest.raises(ValueError) as error:
        child(runs, **changes).run(runs.directory)
    assert all(
        part in str(error.value)
        for part in (
            f"init_from={runs.mask.name!r}",
            f"has {found}",
            f"with {wanted}",
            "name a run of the same network",
        )
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"estimator": "top_k", "density": 0.5, "tau": None, "initial_logit": None},
            "has estimator='threshold'.*give estimator as that run has it",
        ),
        ({"tau": 0.6}, "has tau=0.5.*give tau as that run has it"),
    ],
)
def test_a_mask_found_otherwise(runs, untrained, changes, words):
    """A child's record says which estimator found its mask: it must be the parent's."""
    with pytest.raises(ValueError, match=words):
        child(runs, **changes).run(runs.directory)


def test_parent_of_another_arm(runs, untrained):
    """Fine-tuning starts from a mask run, not from a weights run."""
    with pytest.raises(
        ValueError,
        match=r"is a run of arm='weights', but arm='finetune' starts from a mask run: name one",
    ):
        child(runs, init_from=runs.weights.name).run(runs.directory)


def test_bad_data_is_refused_before_training(npz, arrays, untrained, tmp_path):
    """NaN in the data is told before the first step."""
    given = arrays(dtype=np.float32)
    given["x_train"][0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        Experiment(dataset=npz(given), **TINY).run(tmp_path / "study")
    assert left(tmp_path / "study") == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"batch_size": 500}, "batch_size=500 is more than the 54 training images"),
        (
            {"model": "conv_net", "depth": 6, "batch_size": 8},
            "6 × 5 pixels are too small for conv_net",
        ),
    ],
)
def test_images_that_do_not_fit(npz, tmp_path, changes, words):
    """A batch larger than the set, or images too small for the network, are told and leave
    nothing.
    """
    with pytest.raises(ValueError, match=re.escape(words)):
        Experiment(dataset=npz(), **{"model": "lenet_300_100"} | changes).run(
            tmp_path / "study", progress=False
        )
    assert left(tmp_path / "study") == []


def test_folder_with_another_run(runs, untrained, tmp_path):
    """A folder that bears this run's name but holds another one is left alone."""
    experiment = Experiment()
    shutil.copytree(runs.mask.path, tmp_path / experiment.name)
    with pytest.raises(
        FileExistsError,
        match=rf"{experiment.name} holds another run: move it away, or give another directory",
    ):
        experiment.run(tmp_path)
    with pytest.raises(FileExistsError, match="holds another run: give the folder of a study"):
        experiment.run(runs.mask.path)


def test_folder_with_an_unfinished_run(untrained, tmp_path):
    """A folder of this run's name without a record is told, not filled."""
    experiment = Experiment()
    (tmp_path / experiment.name).mkdir()
    with pytest.raises(FileNotFoundError, match="is not a finished run: it has no experiment.json"):
        experiment.run(tmp_path)


def test_folder_below_a_file(untrained, tmp_path):
    """A directory that can't be made is told before training."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        PermissionError,
        match=r"directory='.*file/study' can't be written to \(.*\): give a folder of yours",
    ):
        Experiment().run(tmp_path / "file" / "study")


def test_no_write_permission(untrained, tmp_path, monkeypatch):
    """A directory without write permission is told before training."""

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    with pytest.raises(PermissionError, match=r"can't be written to \(Permission denied\)"):
        Experiment().run(tmp_path / "study")


# --- control arms ---------------------------------------------------------------------------------


def start_of(monkeypatch, experiment, directory):
    """The network as it is when training begins: masks, weights and batch norm by path."""
    found, compile_ = {}, network.compile_model

    def stop(model, compiled):
        if compiled.name != experiment.name:  # what it trains first, to start from
            return compile_(model, compiled)
        values = network.weights(model) | network.batch_norm(model)
        found.update(
            masks=model.masks(),
            trained=[v.name.removesuffix(":0") for v in model.trainable_variables],
            **{k: v.numpy() for k, v in values.items()},
        )
        raise InterruptedError

    monkeypatch.setattr(network, "compile_model", stop)
    with pytest.raises(InterruptedError):
        experiment.run(directory, progress=False)
    monkeypatch.undo()
    return found


def theta0(path, shape):
    return initializers.glorot_uniform(0, path, shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm, kept", [("random_mask", False), ("shuffled_mask", False), ("rewind", True)]
)
def test_control_masks(runs, monkeypatch, arm, kept):
    """Controls keep each layer's density and θ0; a shuffled or random mask is another one,
    rewinding keeps the supermask.
    """
    start = start_of(
        monkeypatch, Experiment(arm=arm, init_from=runs.mask.name, **SMALL), runs.directory
    )
    supermask = runs.mask.load_model().masks()
    moved = 0
    for path, mask in start["masks"].items():
        same = np.array_equal(mask, supermask[path])
        assert same or not kept
        moved += not same
        if path.endswith("kernel"):
            np.testing.assert_array_equal(start[path], theta0(path, mask.shape))
            spread = 4 * np.sqrt(mask.size * supermask[path].mean() * (1 - supermask[path].mean()))
            difference = abs(int(mask.sum()) - int(supermask[path].sum()))
            assert difference == 0 if arm != "random_mask" else difference <= spread
    assert kept or moved >= 8


@pytest.mark.slow
def test_rewinding_starts_batch_norm_anew(runs, monkeypatch):
    """What the mask run learned in batch norm is not handed to `rewind`, nor to a fine-tuning that
    resets it.
    """
    for arm, settings in (("rewind", {}), ("finetune", {"reset_batch_norm": True})):
        start = start_of(
            monkeypatch,
            Experiment(arm=arm, init_from=runs.mask.name, **SMALL, **settings),
            runs.directory,
        )
        assert (start["bn/gamma"] == 1).all() and (start["bn/moving_mean"] == 0).all()
    inherited = start_of(
        monkeypatch, Experiment(arm="finetune", init_from=runs.mask.name, **SMALL), runs.directory
    )
    np.testing.assert_array_equal(inherited["bn/gamma"], runs.mask.state()["bn/gamma"])


def test_batch_norm_only_trains_nothing_else(runs, monkeypatch):
    """The control `bn_only` trains gamma and beta, at θ0, with every weight in."""
    start = start_of(monkeypatch, Experiment(arm="bn_only", **SMALL), runs.directory)
    assert start["trained"] and all(
        name.split("/")[-1] in ("gamma", "beta") for name in start["trained"]
    )
    assert all(mask.all() for mask in start["masks"].values())
    np.testing.assert_array_equal(
        start["conv/kernel"], theta0("conv/kernel", start["conv/kernel"].shape)
    )


@pytest.mark.slow
def test_training_longer_goes_on_from_the_trained_weights(runs, monkeypatch):
    """`weights_long` starts where its parent's best epoch was, its batch norm included or reset."""
    trained = dict(np.load(runs.weights.weights_file))
    for reset in (None, True):
        start = start_of(
            monkeypatch,
            Experiment(
                arm="weights_long", init_from=runs.weights.name, reset_batch_norm=reset, **SMALL
            ),
            runs.directory,
        )
        for path, value in trained.items():
            np.testing.assert_array_equal(start[path], value)
        for path, value in runs.weights.state().items():
            fresh = float(path.rpartition("/")[2] in ("gamma", "moving_variance"))
            np.testing.assert_array_equal(
                start[path], np.full_like(value, fresh) if reset else value
            )


# --- tickets, pruning, evil masks -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "arm, settings",
    [
        ("ticket", {}),
        ("ticket", {"criterion": "movement", "scope": "global"}),
        ("ticket", {"rewind_epochs": 2}),
        ("prune", {}),
    ],
)
def test_where_a_ticket_starts(runs, monkeypatch, arm, settings):
    """Its mask is read from the parent's trained weights; its weights are θ0, those of an early
    epoch, or the trained ones.
    """
    start = start_of(
        monkeypatch,
        Experiment(arm=arm, init_from=runs.weights.name, density=0.3, **SMALL, **settings),
        runs.directory,
    )
    trained = runs.weights.weights()
    initial = {
        path: theta0(path, trained[path].shape) for path in trained if path.endswith("kernel")
    }
    for path, mask in tickets.masks(
        initial,
        trained,
        0.3,
        settings.get("criterion", "large_final"),
        settings.get("scope", "layer"),
    ).items():
        np.testing.assert_array_equal(start["masks"][path], mask)
    assert all(mask.all() for path, mask in start["masks"].items() if path.endswith("bias"))
    # The weights run has two epochs, and its second is its best: rewound to it are the very weights
    # that it ended with.
    assert runs.weights.summary["best_epoch"] == 2
    ends = arm == "prune" or "rewind_epochs" in settings
    for path, kernel in initial.items():
        np.testing.assert_array_equal(start[path], trained[path] if ends else kernel)
    for path, value in runs.weights.state().items():
        np.testing.assert_array_equal(
            start[path],
            (
                value
                if ends
                else np.full_like(
                    value, float(path.rpartition("/")[2] in ("gamma", "moving_variance"))
                )
            ),
        )


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A LeNet-300-100 trained on the digits: (folder, run, the settings of its children)."""
    directory = tmp_path_factory.mktemp("tickets") / "dense"
    settings = {
        "dataset": "digits",
        "model": "lenet_300_100",
        "augment": False,
        "batch_size": 32,
        "epochs": 3,
    }
    return (
        directory,
        Experiment(arm="weights", learning_rate=0.003, **settings).run(directory, progress=False),
        settings,
    )


@pytest.mark.slow
def test_tickets_by_iterative_rounds(dense):
    """Each round trains under the mask of the one before, keeps a part of it, and records what it
    started with.
    """
    directory, run, settings = dense
    masks = []
    for density in (0.4, 0.1):
        run = Experiment(
            arm="ticket", init_from=run.name, density=density, learning_rate=0.003, **settings
        ).run(directory, progress=False)
        model = run.load_model()
        masks.append(model.masks())
        assert run.summary["masked"] == pytest.approx(1 - density, abs=1e-3)
        assert model.evaluate(data.evaluation_batches(data.load("digits"), "test"), verbose=0)[
            1
        ] == pytest.approx(run.summary["test_accuracy"], abs=1e-6)
        assert 0.1 < run.summary["start_accuracy"] < run.summary["test_accuracy"]
    assert all(
        (masks[1][path] <= masks[0][path]).all() for path in masks[0] if path.endswith("kernel")
    )
    with pytest.raises(
        ValueError, match=rf"density=0.5 is more than init_from='{run.name}' keeps, 0.1"
    ):
        Experiment(arm="ticket", init_from=run.name, density=0.5, **settings).run(
            directory, progress=False
        )
    with pytest.raises(
        ValueError, match="rewind_epochs=4 is more than the 3 epochs of the weights run"
    ):
        Experiment(arm="ticket", init_from=run.name, density=0.05, rewind_epochs=4, **settings).run(
            directory, progress=False
        )
    with pytest.raises(
        ValueError, match="is a run of arm='ticket', but arm='evil' starts from a weights run"
    ):
        Experiment(arm="evil", init_from=run.name, **settings).run(directory, progress=False)


@pytest.mark.slow
def test_an_evil_mask_makes_a_trained_network_wrong(dense):
    """Only the mask moves: the weights are the trained ones; the best epoch is the one with the
    lowest accuracy.
    """
    directory, weights, settings = dense
    run = Experiment(arm="evil", init_from=weights.name, learning_rate=0.1, **settings).run(
        directory, progress=False
    )
    assert (
        run.summary["start_accuracy"] == weights.summary["test_accuracy"] > 0.9
        and run.summary["test_accuracy"] < 0.05
    )
    assert run.summary["best_epoch"] == 1 + run.history.val_accuracy.idxmin()
    model, trained = run.load_model(), weights.weights()
    for layer in layers.masked_layers(model):
        np.testing.assert_array_equal(layer.kernel, trained[f"{layer.name}/kernel"])
    assert model.evaluate(data.evaluation_batches(data.load("digits"), "test"), verbose=0)[
        1
    ] == pytest.approx(run.summary["test_accuracy"], abs=1e-6)


@pytest.mark.slow
def test_an_evil_mask_leaves_batch_norm_alone(runs, monkeypatch):
    """Nothing trains but mask logits, and batch norm stays as the parent left it, moving statistics
    too.
    """
    start = start_of(
        monkeypatch, Experiment(arm="evil", init_from=runs.weights.name, **SMALL), runs.directory
    )
    assert start["trained"] and all(
        name.split("/")[-1] in ("kernel_logits", "bias_logits") for name in start["trained"]
    )
    run = Experiment(arm="evil", init_from=runs.weights.name, learning_rate=0.1, **SMALL).run(
        runs.directory, progress=False
    )
    for path, value in runs.weights.state().items():
        np.testing.assert_array_equal(run.state()[path], value)


def test_the_loss_of_an_evil_mask():
    """−log(1 − p) of the right class, in float64 against its definition, finite where p rounds to
    one.
    """
    from supermask_tf.experiment.network import mean_right

    logits = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, 3.0], [60.0, 0.0, 0.0]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = mean_right(tf.constant([[0], [2], [0]]), tf.constant(logits)).numpy()
    np.testing.assert_allclose(found[:2], -np.log(1 - p[[0, 1], [0, 2]]), rtol=1e-12)
    assert found[2] == pytest.approx(60 - np.log(2))


@pytest.mark.long
def test_lost_weights_are_made_again(runs, tmp_path):
    """A run whose trained weights are gone makes them again, bit for bit, when a child or the user
    wants them.
    """
    directory = tmp_path / "small"
    shutil.copytree(runs.directory, directory)
    trained = dict(np.load(runs.weights.weights_file))
    shutil.rmtree(directory / ".weights")
    record = (directory / runs.weights.name / "summary.json").read_bytes()
    Experiment(arm="weights_long", init_from=runs.weights.name, **SMALL | {"epochs": 1}).run(
        directory, progress=False
    )
    again = dict(np.load(directory / ".weights" / f"{runs.weights.name}.npz"))
    assert trained.keys() == again.keys() and all(
        np.array_equal(trained[k], again[k]) for k in trained
    )
    assert (directory / runs.weights.name / "summary.json").read_bytes() == record


@pytest.mark.long
def test_weights_made_again_otherwise_bring_their_batch_norm(runs, tmp_path, monkeypatch, capsys):
    """On another machine other weights come out: the model and the children then have one
    training's weights and batch norm, not halves of two.
    """
    directory = tmp_path / "small"
    shutil.copytree(runs.directory, directory)
    shutil.rmtree(directory / ".weights")
    run, train = records.Run(directory / runs.weights.name), loop.train

    def otherwise(experiment, place, *arguments):  # as another processor would: from other batches
        made = train(dataclasses.replace(experiment, learning_rate=0.02), place, *arguments)
        otherwise.made = made.weights() | made.state(), made.summary["test_accuracy"]
        return made

    monkeypatch.setattr(loop, "train", otherwise)
    Experiment.load(run.path / "experiment.json").run(directory, progress=False, weights=True)
    monkeypatch.undo()
    assert "its history differs from the record's" in capsys.readouterr().out
    (values, accuracy), model = otherwise.made, run.load_model()
    variables = network.weights(model) | network.batch_norm(model)
    assert all(
        np.array_equal(variable.numpy(), values[path]) for path, variable in variables.items()
    )
    images = data.load("digits")
    assert model.evaluate(data.evaluation_batches(images, "test"), verbose=0)[1] == pytest.approx(
        accuracy, abs=1e-6
    )
    child = Experiment(arm="weights_long", init_from=run.name, **SMALL | {"epochs": 1}).run(
        directory, progress=False
    )
    assert child.summary["start_accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_lineage_of_a_record(runs):
    """From a record's experiment.json alone its parents are known, first things first."""
    line = Experiment.lineage(runs.finetune.path / "experiment.json")
    assert [experiment.name for experiment in line] == [runs.mask.name, runs.finetune.name]


@pytest.mark.parametrize(
    "parameters, words",
    [
        ({"arm": "bn_only", "model": "lenet_300_100"}, ["bn_only", "lenet_300_100", "wide_resnet"]),
        (
            {"arm": "mask", "reset_batch_norm": True},
            ["reset_batch_norm=True", "mask", "leave it out"],
        ),
        ({"arm": "rewind"}, ["rewind", "mask", "init_from"]),
    ],
)
def test_control_arm_with_what_does_not_go(parameters, words):
    """A control asked for what it can't do says so before anything runs."""
    with pytest.raises(ValueError) as error:
        Experiment(**parameters)
    assert all(word in str(error.value) for word in words)


# Of the first thousand test images these were right when all ten thousand gave the accuracy that
# is on record.
RIGHT = {"mnist": 974, "cifar10": 582}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", RIGHT)
def test_committed_mask_runs_give_their_recorded_accuracy(real_data, dataset):
    """The evidence in the book: a committed mask run, rebuilt from seed, bits and batch norm,
    scores what its record says, here on the first thousand images.
    """
    (run,) = load_runs(Path(__file__).parents[1] / "runs" / "first").where(
        dataset=dataset, arm="mask"
    )
    assert not run.damaged
    images = data.load(dataset)
    assert images.fingerprint == run.summary["fingerprint"]
    model, batches = run.load_model(), data.evaluation_batches(images, "test").take(2)
    right = sum(np.sum(np.argmax(model(x), -1) == np.ravel(y)) for x, y in batches)
    assert abs(right - RIGHT[dataset]) <= 1  # another processor may tip an image
    assert right / 1000 == pytest.approx(run.summary["test_accuracy"], abs=0.02)


# --- what a review found --------------------------------------------------------------------------


@pytest.mark.slow
def test_changed_data_are_noticed(npz, arrays, tmp_path, untrained, monkeypatch):
    """A path is no identity: other data under the same name are neither the finished run's nor a
    child's.
    """
    monkeypatch.undo()
    path = npz(arrays())
    settings = {"dataset": path, "model": "lenet_300_100", "batch_size": 16, "epochs": 1}
    mask = Experiment(**settings).run(tmp_path / "study", progress=False)
    npz(arrays(seed=1))
    with pytest.raises(FileExistsError, match="has changed since"):
        Experiment(**settings).run(tmp_path / "study", progress=False)
    with pytest.raises(ValueError, match="was trained on other data"):
        Experiment(arm="finetune", init_from=mask.name, **settings).run(
            tmp_path / "study", progress=False
        )


def test_child_of_another_protocol(runs, untrained):
    """A parent that chose its epoch on the test set is none for a run that keeps the test set
    apart.
    """
    with pytest.raises(ValueError, match="protocol='study'.*protocol='original'"):
        Experiment(arm="finetune", protocol="original", init_from=runs.mask.name, **SMALL).run(
            runs.directory
        )


def test_leaving_batch_norm_as_it_is_has_one_name():
    """`reset_batch_norm=False` is what leaving it out means: the same run."""
    names = {
        Experiment(arm="finetune", init_from="one", reset_batch_norm=value).name
        for value in (None, False)
    }
    assert len(names) == 1


def test_numpy_numbers_are_numbers():
    """A seed from a numpy array is a whole number like any other."""
    assert (
        type(Experiment(seed=np.int64(3)).seed) is int
        and type(Experiment(learning_rate=np.float32(0.5)).learning_rate) is float
    )


@pytest.mark.slow
def test_mixed_precision_keeps_variables_logits_and_policy(tmp_path):
    """Under mixed_bfloat16 convolutions compute in bfloat16, all variables and the last layer in
    float32; nothing stays switched.
    """
    import tensorflow as tf

    from supermask_tf.experiment.network import build

    model = build(Experiment(precision="mixed_bfloat16", depth=10), (8, 8, 1), 10)
    assert tf.keras.mixed_precision.global_policy().name == "float32"
    assert {tf.as_dtype(v.dtype) for v in [*model.weights, model.output]} == {tf.float32}
    assert (
        model.get_layer("group1/block1/conv1").compute_dtype
        == "bfloat16"
        == model.get_layer("bn").compute_dtype
    )
    run = Experiment(precision="mixed_bfloat16", learning_rate=0.1, **SMALL).run(
        tmp_path, progress=False
    )
    assert np.isfinite(run.history.to_numpy()).all() and 0 < run.summary["masked"] < 1
    again = run.load_model()
    images = data.load("digits")
    assert again.evaluate(data.evaluation_batches(images, "test"), verbose=0)[1] == pytest.approx(
        run.summary["test_accuracy"], abs=1e-6
    )


@pytest.mark.parametrize(
    "wrong, words",
    [
        (
            {"model": "lenet_300_100", "shortcut": "3x3"},
            "shortcut='3x3' does not go with model='lenet_300_100'",
        ),
        ({"shortcut": "1x1"}, "Unknown shortcut '1x1': choose one of 3x3, wide"),
        ({"precision": "float16"}, "Unknown precision 'float16': choose one of mixed_bfloat16"),
    ],
)
def test_bad_network_options(wrong, words):
    """The ablation's and the precision's parameters are checked like the others."""
    with pytest.raises(ValueError, match=words):
        Experiment(**wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator, parameters",
    [
        ("top_k", {"density": 0.3, "density_start": 0.9}),
        ("binary_concrete", {"temperature": 0.5}),
        ("intermediate_loss", {"step_size": 10.0}),
        ("threshold", {"rescale": "dynamic", "mask_regularizer": 1e-3}),
    ],
)
def test_every_estimator_leaves_a_record_that_loads(tmp_path, estimator, parameters):
    """Each way to find a mask runs from its parameters, and the model comes back with the same
    masks and accuracy; a child takes its mask.
    """
    settings = {"dataset": "digits", "model": "lenet_300_100", "batch_size": 64, "epochs": 2}
    run = Experiment(estimator=estimator, learning_rate=0.1, **parameters, **settings).run(
        tmp_path, progress=False
    )
    model = run.load_model()
    masks = model.masks()
    assert sum(
        mask.size - np.count_nonzero(mask)
        for path, mask in masks.items()
        if path.endswith("kernel")
    ) / sum(mask.size for path, mask in masks.items() if path.endswith("kernel")) == pytest.approx(
        run.summary["masked"]
    )
    images = data.load("digits")
    assert model.evaluate(data.evaluation_batches(images, "test"), verbose=0)[1] == pytest.approx(
        run.summary["test_accuracy"], abs=1e-6
    )
    child = Experiment(
        arm="finetune",
        init_from=run.name,
        estimator=estimator,
        **{k: v for k, v in parameters.items() if k not in ("density_start", "mask_regularizer")},
        **settings,
    )
    again = child.run(tmp_path, progress=False).load_model().masks()
    assert all(np.array_equal(masks[path], again[path]) for path in masks)


@pytest.mark.slow
def test_density_comes_down_over_the_first_half(tmp_path):
    """The cubic of Zhu and Gupta (2017), epoch by epoch, and the recorded fraction masked follows
    it.
    """
    run = Experiment(
        dataset="digits",
        model="lenet_300_100",
        batch_size=64,
        epochs=6,
        estimator="top_k",
        density=0.2,
        density_start=1.0,
    ).run(tmp_path, progress=False)
    assert run.history.masked.tolist() == pytest.approx(
        [1 - (0.2 + 0.8 * (1 - min(1, e / 3)) ** 3) for e in range(6)], abs=1e-4
    )
    assert run.summary["best_epoch"] == 1 + run.history.val_accuracy[3:].idxmax(), (
        "a mask of another density is not what was asked for"
    )
    assert run.summary["masked"] == pytest.approx(0.8, abs=1e-4)


@pytest.mark.slow
def test_a_falling_density_lowers_no_learning_rate(tmp_path):
    """While the density comes down accuracy falls for that reason alone: the schedule begins when
    it is there.
    """
    settings = {
        "dataset": "digits",
        "model": "lenet_300_100",
        "batch_size": 64,
        "epochs": 10,
        "estimator": "top_k",
        "learning_rate": 10.0,
    }
    falling = (
        Experiment(density=0.01, density_start=1.0, **settings)
        .run(tmp_path, progress=False)
        .history
    )
    fixed = Experiment(density=0.01, **settings).run(tmp_path, progress=False).history
    assert (falling.learning_rate[:7] == 10).all() and fixed.learning_rate[6] < 10


@pytest.mark.slow
def test_an_estimator_of_ones_own(tmp_path, monkeypatch):
    """One function and one line make an estimator that experiments know by name."""
    from supermask_tf import estimators

    monkeypatch.setattr(estimators, "_KNOWN", dict(estimators._KNOWN))
    with pytest.raises(
        ValueError, match="Unknown estimator 'largest': choose one of .* or register your own"
    ):
        Experiment(estimator="largest")

    @estimators.register
    def largest(logits):
        return estimators.threshold(logits, tau=0.6)

    run = Experiment(
        dataset="digits", model="lenet_300_100", batch_size=64, epochs=1, estimator="largest"
    ).run(tmp_path, progress=False)
    assert run.parameters["estimator"] == "largest" and run.load_model().masks()

    @estimators.register
    def best(scores):
        return estimators.top_k(scores, density=0.4)

    run = Experiment(
        dataset="digits", model="lenet_300_100", batch_size=64, epochs=1, estimator="best"
    ).run(tmp_path, progress=False)
    assert run.summary["masked"] == pytest.approx(0.6, abs=0.01), (
        "scores that all start alike would keep every weight"
    )


def test_a_policy_of_the_notebook_is_not_the_experiments(tmp_path):
    """What a record says of its precision holds, whatever Keras's policy was."""
    tf.keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = network.build(Experiment(model="lenet_300_100"), (8, 8, 1), 10)
        assert {layer.compute_dtype for layer in model.layers} == {
            "float32"
        } and tf.keras.mixed_precision.global_policy().name == "mixed_bfloat16"
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")


@pytest.mark.parametrize(
    "wrong, words",
    [
        (
            {"estimator": "top_k", "density": 0.0},
            "density=0.0 is out of range: give a value above 0",
        ),
        ({"estimator": "top_k", "density": 1.5}, "density=1.5 is out of range: give at most 1"),
        ({"estimator": "binary_concrete", "temperature": 0.0}, "temperature=0.0 is out of range"),
        ({"estimator": "intermediate_loss", "step_size": -1.0}, "step_size=-1.0 is out of range"),
        ({"density": 0.5}, "density=0.5 does not go with estimator='threshold'"),
        ({"estimator": "top_k", "initial_logit": 0.5}, "whose logits start random"),
        (
            {"estimator": "top_k", "density": 0.5, "density_start": 0.4},
            "density_start=0.4 does not go with density=0.5",
        ),
        ({"density_start": 0.5}, "density_start=0.5 does not go"),
        (
            {"estimator": "top_k", "density_start": 0.9, "epochs": 1},
            "density_start=0.9 does not go with epochs=1",
        ),
        ({"mask_regularizer": 0.0}, "mask_regularizer=0.0 is out of range"),
        ({"rescale": "more"}, "Unknown rescale 'more'"),
        ({"arm": "ticket"}, "arm='ticket' starts from a weights or ticket run"),
        ({"arm": "prune"}, "arm='prune' starts from a weights or prune run"),
        ({"arm": "evil"}, "arm='evil' starts from a weights run"),
        (
            {"criterion": "movement"},
            "criterion='movement' does not go with arm='mask', which has no criterion",
        ),
        (
            {"arm": "ticket", "init_from": "x", "criterion": "largest"},
            "Unknown criterion 'largest'",
        ),
        ({"arm": "ticket", "init_from": "x", "density": 0.0}, "density=0.0 is out of range"),
        (
            {"arm": "ticket", "init_from": "x", "estimator": "bernoulli"},
            "whose mask is not trained",
        ),
        (
            {"arm": "weights", "estimator": "top_k", "density_start": 0.9},
            "does not go with arm='weights', whose mask is not trained",
        ),
        (
            {"arm": "weights", "initial_logit": 3.0},
            "initial_logit=3.0 does not go with arm='weights'",
        ),
        ({"arm": "weights", "tau": 0.7}, "tau=0.7 does not go with arm='weights'"),
        (
            {"arm": "bn_only", "mask_regularizer": 1.0},
            "mask_regularizer=1.0 does not go with arm='bn_only'",
        ),
        (
            {
                "arm": "finetune",
                "init_from": "x",
                "estimator": "bernoulli",
                "draw_at_evaluation": True,
            },
            "draw_at_evaluation=True does not go with arm='finetune'",
        ),
        (
            {"arm": "prune", "init_from": "x", "rewind_epochs": 1},
            "rewind_epochs=1 does not go with arm='prune'",
        ),
        ({"estimator": "top_k", "draw_at_evaluation": True}, "draws nothing"),
    ],
)
def test_bad_parameters_of_estimators(wrong, words):
    """Told when the experiment is made, before anything trains."""
    with pytest.raises(ValueError, match=words):
        Experiment(**wrong)
