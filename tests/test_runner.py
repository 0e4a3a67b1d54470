"""What run.py does with a bundle in an environment without TensorFlow, and the records that
`supermask import` makes of it.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import supermask_tf as sm
from supermask_tf import bundle, cli, data, importer, records, runner
from supermask_tf.experiment import Experiment
from supermask_tf.ground.files import digest, sha256

# 13 epochs of 40 steps, from logits so small that the masks move at once.
MASK = {
    "arm": "mask",
    "dataset": "digits",
    "model": "lenet_300_100",
    "augment": False,
    "batch_size": 32,
    "epochs": 13,
    "initial_logit": 0.05,
}
STUDY = f"""
title: What the tests run
runs:
  mask: {json.dumps(MASK)}
  weights: {json.dumps(MASK | {"arm": "weights", "epochs": 6, "initial_logit": 1.0})}
  finetune: {{arm: finetune, from: mask, epochs: 2}}
  long: {{arm: weights_long, from: weights, epochs: 2}}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runner")
    (folder / "study.yml").write_text(STUDY)
    assert cli.main(["export", str(folder / "study.yml"), "-o", str(folder / "bundle")]) == 0
    return bundle.Bundle.open(folder / "bundle")


@pytest.fixture(scope="module")
def name(exported):
    """The name of the run of each arm."""
    return {entry["parameters"]["arm"]: name for name, entry in exported.experiments.items()}


@pytest.fixture(scope="module")
def finished(exported, run_jax, tmp_path_factory):
    """The folder of results of all runs, each made in one go, and what was printed."""
    out = tmp_path_factory.mktemp("finished") / "result"
    done = run_jax(exported.folder / "run.py", "--out", out)
    return out, done.stdout


@pytest.fixture(scope="module")
def imported(finished, tmp_path_factory):
    directory = tmp_path_factory.mktemp("imported") / "paper"
    importer.import_results(finished[0], directory, progress=False)
    return sm.load_runs(directory)


@pytest.fixture
def result(finished, name, tmp_path):
    """A copy of the mask run's result, to change."""
    shutil.copytree(finished[0] / name["mask"], tmp_path / "result" / name["mask"])
    return tmp_path / "result"


def rewritten(place: Path, **values) -> None:
    """Change a summary, and make its checksum fit."""
    summary = json.loads((place / "summary.json").read_text()) | values
    checksums = summary.pop("checksums")
    (place / "summary.json").write_text(
        json.dumps(summary | {"checksums": checksums | {"summary.json": digest(summary)}})
    )


@pytest.mark.long
def test_progress_and_files(finished, exported, name):
    """A line an epoch with images/s; parents before children; what a record holds, and the weights
    of the arms that trained them.
    """
    out, told = finished
    assert [path.name for path in sorted(out.iterdir()) if path.name != ".checkpoints"] == sorted(
        exported.experiments
    ) and not [*(out / ".checkpoints").glob("*")]
    lines = re.findall(
        r"^(\S+)  epoch +(\d+)/(\d+) .* masked [\d.]+%   [\d]+ images/s$", told, re.M
    )
    assert [line[1] for line in lines if line[0] == name["mask"]] == [str(n) for n in range(1, 14)]
    assert list(dict.fromkeys(line[0] for line in lines)) == [*exported.experiments]
    files = {
        "experiment.json",
        "history.csv",
        "utilisation.csv",
        "masks.npz",
        "state.npz",
        "right.npz",
        "summary.json",
    }
    assert {path.name for path in (out / name["mask"]).iterdir()} == files
    assert {path.name for path in (out / name["finetune"]).iterdir()} == files | {"weights-00.npz"}


@pytest.mark.long
def test_records_are_like_all_others(imported, finished, name, tmp_path, capsys):
    """Imported runs load, rebuild and list like native ones, are the study's finished runs, and say
    what made them.
    """
    assert not [run.name for run in imported if run.damaged] and len(imported) == 4
    table = imported.summary.set_index("arm")
    assert (table.runtime == "xla").all() and (
        abs(table.test_accuracy - table.tensorflow_accuracy) < 1e-6
    ).all()
    assert table.test_accuracy["weights"] > 0.85 and table.test_accuracy["mask"] > 0.8
    mask, finetune = (
        next(run for run in imported if run.parameters["arm"] == arm)
        for arm in ("mask", "finetune")
    )
    assert {
        "jax",
        "jaxlib",
        "tensorflow",
        "keras",
        "numpy",
        "python",
        "supermask_tf",
    } == mask.summary["versions"].keys()
    assert (
        list(mask.history.columns)
        == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "masked"]
        and len(mask.history) == 13
    )
    from supermask_tf.experiment.network import masked_fraction, utilisation

    model = mask.load_model()
    pd.testing.assert_frame_equal(utilisation(model), mask.utilisation)
    assert (
        mask.summary["masked"] == pytest.approx(masked_fraction(mask.utilisation))
        and 0.05 < mask.summary["masked"] < 0.95
    )
    assert finetune.parameters["parent"] == mask.parameters and finetune.summary[
        "start_accuracy"
    ] == pytest.approx(mask.summary["test_accuracy"], abs=1e-6)
    kernels = finetune.load_model().get_layer("dense1")
    assert np.abs(kernels.kernel.numpy() - model.get_layer("dense1").kernel.numpy()).max() > 1e-4
    assert np.array_equal(kernels.masks["kernel"], model.get_layer("dense1").masks["kernel"])
    best = mask.history.iloc[mask.history.val_accuracy.argmax()]  # the first of the best
    assert (
        mask.summary["best_epoch"] == best.epoch
        and mask.summary["val_accuracy"] == best.val_accuracy
        and mask.history.learning_rate[0] == 0.01
    )
    loss, accuracy = model.evaluate(
        data.evaluation_batches(data.load("digits"), "validation"), verbose=0
    )
    assert (loss, accuracy) == pytest.approx((best.val_loss, best.val_accuracy), rel=1e-5)
    again = Experiment(**MASK).run(mask.path.parent, progress=False)  # nothing trains
    assert again.path == mask.path
    assert (
        f"JAX {mask.summary['versions']['jax']}" in imported._repr_html_()
        and len(imported.listing()) == 4
    )
    assert (
        cli.main(["list", str(mask.path.parent)]) == 0
        and capsys.readouterr().out.count("through XLA on") == 4
    )


FAIR = """
title: As the fair test trains
runs:
  mask: {arm: mask, dataset: digits, depth: 10, width: 1, batch_size: 32, epochs: 2,
         schedule: cosine, initial_logit: 0.05, mask_biases: false, augment: false}
"""


@pytest.mark.long
def test_the_fair_tests_runs_end_as_natively(run_jax, tmp_path):
    """A cosine's last epoch is recorded, with batch norm's averages taken anew: the averages that
    TensorFlow takes at the same weights and mask, and which images were right.
    """
    from supermask_tf.experiment import measuring, network

    (tmp_path / "fair.yml").write_text(FAIR)
    assert cli.main(["export", str(tmp_path / "fair.yml"), "-o", str(tmp_path / "bundle")]) == 0
    done = run_jax(tmp_path / "bundle" / "run.py", "--out", tmp_path / "out")
    (run,) = importer.import_results(tmp_path / "out", tmp_path / "fair", progress=False)
    rate, summary = run.parameters["learning_rate"], run.summary
    assert summary["best_epoch"] == 2 and "best epoch 2" in done.stdout
    assert run.history.learning_rate.tolist() == pytest.approx([rate, rate / 2])
    assert run.right().mean() == pytest.approx(summary["test_accuracy"])
    assert summary["test_accuracy"] > 0.8 > summary["moving_test_accuracy"]
    model, found = run.load_model(), run.state()
    images = data.load("digits")
    measuring.renew_batch_norm(
        model, data.evaluation_batches(images, "train", 32, drop_remainder=True)
    )
    for path, variable in network.batch_norm(model).items():
        np.testing.assert_allclose(found[path], variable.numpy(), rtol=1e-4, atol=1e-5)


def test_each_step_has_the_rate_that_keras_would_set():
    """Along a cosine the rate falls from step to step, over chunks and epochs, to nearly zero."""
    training = object.__new__(runner.Training)
    training.network, training.facts = {"chunk": 4}, {"epoch": 0, "learning_rate": 0.02}
    training.feed = type("Feed", (), {"steps": 6})
    training.parameters = {"schedule": "cosine", "learning_rate": 0.02, "epochs": 3}
    rates = []
    for epoch in range(3):
        training.facts["epoch"] = epoch
        rates += [*training._rates(0), *training._rates(4)[:2]]
    expected = [0.01 * (1 + np.cos(np.pi * step / 18)) for step in range(18)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    training.parameters["schedule"] = "constant"
    assert np.array_equal(training._rates(4), np.full(4, 0.02, np.float32))


@pytest.mark.parametrize("wrong", [False, True])
def test_schedule_is_that_of_keras(wrong):
    """The learning rates that Keras's callback makes of the same accuracies, to the bit."""
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, input_shape=(1,))])
    model.compile(tf.keras.optimizers.Adam(0.01), "mse")
    plateau = tf.keras.callbacks.ReduceLROnPlateau(
        "accuracy", factor=0.1, patience=2, min_delta=1e-4, mode="min" if wrong else "max"
    )
    plateau.set_model(model)
    plateau.on_train_begin()
    training = object.__new__(runner.Training)
    training.experiment = {"arm": {"wrong": wrong}}
    training.facts = {"learning_rate": 0.01, "plateau": {"best": None, "wait": 0}}
    random, rates = np.random.default_rng(0), set()
    for epoch in range(40):
        accuracy = float(
            np.float32(
                0.5 + (-0.01 if wrong else 0.01) * (epoch // 4) + 2e-4 * random.standard_normal()
            )
        )
        plateau.on_epoch_end(epoch, {"accuracy": accuracy})
        training._plateau(accuracy)
        assert np.float32(training.facts["learning_rate"]) == model.optimizer.learning_rate.numpy()
        rates.add(training.facts["learning_rate"])
    assert len(rates) > 4


@pytest.mark.long
def test_a_whole_training_ends_within_the_spread_of_native_seeds(imported, tmp_path):
    """520 steps from logits of 0.05: accuracies and the fraction masked are as those of native
    runs, which differ from it in the order of the images alone: no further from their range than it
    is wide.
    """
    native = sm.RunSet(
        [
            Experiment(**MASK | {"seed": seed}).run(tmp_path / "native", progress=False)
            for seed in range(4)
        ]
    )
    mask = next(run for run in imported if run.parameters["arm"] == "mask")
    for column in ("train_accuracy", "val_accuracy", "test_accuracy", "masked"):
        values = native.summary[column]
        low, high = values.min(), values.max()
        assert low - (high - low) <= mask.summary[column] <= high + (high - low), column
    assert mask.summary["masked"] > 0.1
    last = native.history.groupby("run").last()
    for column in ("loss", "val_loss", "masked"):
        low, high = last[column].min(), last[column].max()
        assert low - (high - low) <= mask.history[column].iloc[-1] <= high + (high - low), column


INTERRUPTED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from supermask_run.bundles import runner
launches, epochs = runner.Training._call, runner.Training._end_epoch

def call(self, what, *arguments):
    if sys.argv[2] == "SIGTERM" and what == "train" and self.facts["epoch"] == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return launches(self, what, *arguments)

def end(self):
    epochs(self)
    if sys.argv[2] == "SIGKILL" and self.facts["epoch"] == 6:
        os.kill(os.getpid(), signal.SIGKILL)

runner.Training._call, runner.Training._end_epoch = call, end
sys.exit(runner.main(runner.Path(sys.argv[1]), sys.argv[3:]))
"""


@pytest.mark.long
def test_killed_and_stopped_it_goes_on_to_the_same_bits(
    exported, finished, name, run_jax, tmp_path
):
    """SIGTERM amid an epoch, SIGKILL after another, the clock: the same command goes on, and all
    comes out as in one go.
    """
    arguments = ["--out", tmp_path / "out", "*-mask-*"]
    done = run_jax("-c", INTERRUPTED, exported.folder, "SIGTERM", *arguments, check=False)
    assert done.returncode == 143 and re.search(
        r"is stopped after epoch 2 of 13, step [1-9]", done.stdout
    ), done.stdout + done.stderr
    done = run_jax("-c", INTERRUPTED, exported.folder, "SIGKILL", *arguments, check=False)
    assert done.returncode == -9 and re.search(r"goes on after epoch 2, step [1-9]", done.stdout), (
        done.stdout
    )
    done = run_jax(exported.folder / "run.py", "--minutes", "0.0001", *arguments)
    assert (
        "1 of 1 experiments are not finished: the same command goes on." in done.stdout
        and "epoch" not in done.stdout
    )
    done = run_jax(exported.folder / "run.py", *arguments)
    assert re.search(r"goes on after epoch [3-6], step 0", done.stdout), done.stdout
    for file in ("experiment.json", "history.csv", "utilisation.csv"):
        assert (tmp_path / "out" / name["mask"] / file).read_bytes() == (
            finished[0] / name["mask"] / file
        ).read_bytes(), file
    again, once = (records.Run(folder / name["mask"]) for folder in (tmp_path / "out", finished[0]))
    assert not again.damaged
    bits, wanted = (np.load(run.path / "masks.npz") for run in (again, once))
    assert all(np.array_equal(bits[path], wanted[path]) for path in wanted.files)
    assert all(
        again.summary[key] == once.summary[key]
        for key in ("test_accuracy", "test_loss", "masked", "best_epoch", "fingerprint")
    )


@pytest.mark.long
def test_stopped_while_the_density_falls_it_goes_on_to_the_same_bits(run_jax, tmp_path):
    """The density of the epoch that was cut is not among what was kept: it follows from the
    epoch.
    """
    ranked = {"estimator": "top_k", "density": 0.2, "density_start": 1.0}
    falling = MASK | {"epochs": 6, "initial_logit": 1.0} | ranked
    (tmp_path / "study.yml").write_text(f"runs:\n  m: {json.dumps(falling)}")
    assert cli.main(["export", str(tmp_path / "study.yml"), "-o", str(tmp_path / "bundle")]) == 0
    run_jax(tmp_path / "bundle" / "run.py", "--out", tmp_path / "once")
    done = run_jax(
        "-c", INTERRUPTED, tmp_path / "bundle", "SIGTERM", "--out", tmp_path / "out", check=False
    )
    assert re.search(r"is stopped after epoch 2 of 6, step [1-9]", done.stdout), (
        done.stdout + done.stderr
    )
    run_jax(tmp_path / "bundle" / "run.py", "--out", tmp_path / "out")
    once, again = (
        next(folder.glob("digits-*/history.csv"))
        for folder in (tmp_path / "once", tmp_path / "out")
    )
    assert once.read_bytes() == again.read_bytes()
    assert pd.read_csv(once).masked.tolist() == pytest.approx(
        [0, 0.8 * (1 - 8 / 27), 0.8 * (1 - 1 / 27), 0.8, 0.8, 0.8], abs=1e-3
    )


@pytest.mark.long
def test_workers_share_the_runs(exported, finished, name, run_jax, tmp_path):
    """Two processes train each run once, children after their parents, to the bits of one."""
    out = tmp_path / "out"
    done = run_jax(exported.folder / "run.py", "--out", out, "--workers", "2")
    for run in exported.experiments:
        assert done.stdout.count(f"{run}  best epoch") == 1
        for file in ("history.csv", "masks.npz"):
            assert (out / run / file).read_bytes() == (finished[0] / run / file).read_bytes()
    assert done.stdout.count("4 experiments.") == 2 and not [*(out / ".checkpoints").glob("*")]


def test_turns(tmp_path):
    """What is finished, in another's hand, or has no parent yet does not fall to this process."""
    from supermask_tf.bundles import sharing

    parents, failed = {"a": None, "b": "a", "c": None, "d": "c", "e": "d", "f": None}, set()
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "summary.json").write_text("{}")
    done = []
    for name in sharing.turns([*parents], parents, tmp_path, failed, lambda: False):
        done.append(name)
        with sharing._in_hand(tmp_path, name) as mine:
            assert not mine, "another open file is another process"
        if name == "c":
            failed.add(name)
        else:
            (tmp_path / name).mkdir()
            (tmp_path / name / "summary.json").write_text("{}")
    assert done == ["a", "b", "c"] and failed == {"c", "d", "e"}
    assert [*sharing.turns(["g"], {"g": None}, tmp_path, set(), lambda: True)] == []


FAILING = """
import sys
sys.path.insert(0, sys.argv[1])
from supermask_run.bundles import runner

def run(self, programs, stop):
    if self.parameters["arm"] == "weights":
        raise FloatingPointError("the loss became nan")
    print("trained", self.name)
    return True

runner.Training.run = run
sys.exit(runner.main(runner.Path(sys.argv[1]), sys.argv[2:]))
"""


@pytest.mark.long
def test_a_run_that_fails_stops_no_other_but_its_children(exported, name, run_jax, tmp_path):
    """One rate too high in a night's bundle: all else is trained, and the exit code says that
    something failed.
    """
    done = run_jax(
        "-c",
        FAILING,
        exported.folder,
        "--out",
        tmp_path / "out",
        name["weights"],
        name["weights_long"],
        name["mask"],
        check=False,
    )
    assert done.returncode == 1 and done.stderr.strip() == "run.py: the loss became nan", (
        done.stderr
    )
    assert (
        f"trained {name['mask']}" in done.stdout
        and f"{name['weights_long']} is left out: its parent {name['weights']} has no result."
        in done.stdout
    )


@pytest.mark.long
def test_damaged_state_and_parent(exported, finished, name, run_jax, tmp_path):
    """A damaged checkpoint is not gone on from; a child does not start from a damaged or unfinished
    parent.
    """
    out = tmp_path / "out"
    place = out / ".checkpoints" / name["weights_long"]
    place.mkdir(parents=True)
    (place / "facts.json").write_text("{}")
    for arm in ("mask", "weights"):
        shutil.copytree(finished[0] / name[arm], out / name[arm])
    weights = out / name["weights"] / "weights-00.npz"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    done = run_jax(exported.folder / "run.py", "--out", out, name["weights_long"], check=False)
    assert done.returncode == 2 and "weights-00.npz is damaged or missing" in done.stderr
    weights.unlink()
    done = run_jax(exported.folder / "run.py", "--out", out, name["weights_long"], check=False)
    assert done.returncode == 2 and "bring them, or train that again" in done.stderr
    weights.write_bytes(kept)
    done = run_jax(exported.folder / "run.py", "--out", out, name["weights_long"])
    assert "It begins again." in done.stdout
    assert (out / name["weights_long"] / "history.csv").read_bytes() == (
        finished[0] / name["weights_long"] / "history.csv"
    ).read_bytes(), "a child later is a child at once"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--data", "none.npz"], "no such file"),
        (["nobody"], "There is no experiment 'nobody' in this bundle"),
        ([], "needs JAX"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(exported, tmp_path, capsys, arguments, words):
    """Exit code 2 and one line, also where JAX is missing (as it is here)."""
    assert runner.main(exported.folder, ["--out", str(tmp_path / "out"), *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told and told.count("\n") == 1


@pytest.mark.parametrize(
    "file", ["manifest.json", "digits.npz", "run.py", "supermask_run/bundles/feed.py", "programs"]
)
def test_no_damaged_file_is_run(exported, tmp_path, capsys, file):
    """A program, the manifest, the data and the code: each is checked before anything is run."""
    shutil.copytree(exported.folder, tmp_path / "bundle")
    place = (
        next((tmp_path / "bundle" / "programs").iterdir())
        if file == "programs"
        else tmp_path / "bundle" / file
    )
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert runner.main(tmp_path / "bundle", ["--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert (
        place.name in told and "export or copy the bundle again" in told and told.count("\n") == 1
    )


def test_other_or_missing_data(exported, npz, tmp_path, capsys):
    """The images must be those of the export, whatever their file is called."""
    shutil.copytree(exported.folder, tmp_path / "bundle")
    (tmp_path / "bundle" / "digits.npz").unlink()
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    del manifest["checksum"], manifest["files"]["digits.npz"]
    (tmp_path / "bundle" / "manifest.json").write_text(
        json.dumps(manifest | {"checksum": digest(manifest)})
    )
    out = ["--out", str(tmp_path / "out")]
    assert (
        runner.main(tmp_path / "bundle", out) == 2
        and "digits.npz is missing" in capsys.readouterr().err
    )
    other = npz(name="digits")
    assert (
        runner.main(tmp_path / "bundle", [*out, "--data", other]) == 2
        and "does not hold the images" in capsys.readouterr().err
    )


@pytest.mark.long
def test_jax_without_the_names_is_told(exported, run_jax, tmp_path):
    """A version of JAX that lacks what running takes gets one sentence with the versions that have
    it; so does what is no program.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\nfrom supermask_run.bundles import xla\n{}\n"
        "try: xla.Program(b'none', 'train.hlo')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    told = run_jax(
        "-c",
        code.format("import jax, jaxlib.xla_client as client; del client.XlaComputation"),
        exported.folder,
    ).stdout
    assert (
        told.startswith("ImportError JAX")
        and "install one of 0.6.2 to" in told
        and told.count("\n") == 1
    )
    told = run_jax("-c", code.format(""), exported.folder).stdout
    assert told.startswith("ValueError train.hlo is no XLA program") and told.count("\n") == 1


# --- import ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_import_refuses_another_accuracy(result, name, tmp_path):
    """What does not give the same test accuracy in TensorFlow becomes no record."""
    accuracy = json.loads((result / name["mask"] / "summary.json").read_text())["test_accuracy"]
    rewritten(result / name["mask"], test_accuracy=accuracy - 0.01)
    with pytest.raises(ValueError, match="was not imported; run it again"):
        importer.import_results(result, tmp_path / "paper")
    assert not [*(tmp_path / "paper").glob("*/")]


@pytest.mark.long
def test_import_refuses_other_masks(result, name, tmp_path):
    """A mask that is not the one that was trained is found out by its accuracy, even with a
    checksum that fits.
    """
    place = result / name["mask"]
    masks = dict(np.load(place / "masks.npz"))
    masks["dense1/kernel"] = ~masks["dense1/kernel"]
    np.savez_compressed(place / "masks.npz", **masks)
    summary = json.loads((place / "summary.json").read_text())
    summary["checksums"]["masks.npz"] = sha256(place / "masks.npz")
    (place / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="was not imported"):
        importer.import_results(result, tmp_path / "paper")


@pytest.mark.parametrize("file", ["masks.npz", "history.csv", "experiment.json", "summary.json"])
def test_import_refuses_damaged_files(result, name, tmp_path, file):
    """Each file of a result is checked against its checksum."""
    place = result / name["mask"] / file
    content = place.read_bytes()
    place.write_bytes(
        content.replace(b"0", b"1", 1) if file.endswith((".csv", ".json")) else content[:-1]
    )
    with pytest.raises(ValueError, match=f"damaged.*{file}|{file}.*damaged"):
        importer.import_results(result, tmp_path / "paper")


def test_import_refuses_another_name_or_data(result, name, tmp_path):
    """A result under another run's name, or of other images."""
    (result / name["mask"]).rename(result / name["weights"])
    with pytest.raises(ValueError, match="give it its name back"):
        importer.import_results(result, tmp_path / "paper")
    (result / name["weights"]).rename(result / name["mask"])
    rewritten(result / name["mask"], fingerprint="another")
    with pytest.raises(ValueError, match="other data"):
        importer.import_results(result, tmp_path / "paper")


@pytest.mark.long
def test_a_refused_result_keeps_no_other_back(finished, name, tmp_path, monkeypatch, capsys):
    """What is whole is imported, into the folder of the study that it was exported from; then what
    is not is told.
    """
    shutil.copytree(finished[0], tmp_path / "result")
    (tmp_path / "result" / name["mask"] / "masks.npz").write_bytes(b"no")
    rewritten(tmp_path / "result" / name["weights"], fingerprint="another")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import", str(tmp_path / "result")]) == 2
    told = capsys.readouterr().err
    assert (
        "2 of 4 results were refused" in told
        and "masks.npz is not what was written" in told
        and "other data" in told
        and told.count("\n") == 1
    )
    assert {run.name for run in sm.load_runs("runs/study")} == {
        name["finetune"],
        name["weights_long"],
    }
    assert "study" not in sm.load_runs("runs/study")[0].summary


def test_import_without_weights(finished, name, tmp_path, capsys):
    """Where trained weights did not come along the record says that it was not tested again; a part
    of them is refused. A record that is there stays; an empty folder holds no result.
    """
    shutil.copytree(finished[0] / name["weights"], tmp_path / "result" / name["weights"])
    weights = tmp_path / "result" / name["weights"] / "weights-00.npz"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1])
    with pytest.raises(ValueError, match="copy all of the weights again, or none"):
        importer.import_results(tmp_path / "result", tmp_path / "paper")
    weights.unlink()
    (run,) = importer.import_results(tmp_path / "result", tmp_path / "paper")
    assert run.summary["tensorflow_accuracy"] is None and not run.weights_file.exists()
    assert "did not come along" in capsys.readouterr().out
    assert (
        cli.main(["import", str(tmp_path / "result"), "--directory", str(tmp_path / "paper")]) == 0
    )
    assert "that record is used" in capsys.readouterr().out
    assert (
        cli.main(["import", str(tmp_path)]) == 2
        and "give the folder that run.py wrote" in capsys.readouterr().err
    )
