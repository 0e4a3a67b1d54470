"""The `supermask` command: its help, its exit codes, and one sentence for whatever is wrong."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import left
from supermask_tf import cli
from supermask_tf.experiment import Experiment
from supermask_tf.records import Run, load_runs

TINY = ["--model", "lenet_300_100", "--batch-size", "8", "--epochs", "1", "--augment", "false"]


@pytest.mark.parametrize(
    "command",
    [[], ["run"], ["study"], ["list"], ["verify"], ["report"]],
    ids=lambda command: " ".join(command) or "supermask",
)
def test_help(command, capsys):
    """Every subcommand explains itself."""
    with pytest.raises(SystemExit) as done:
        cli.main([*command, "--help"])
    out = capsys.readouterr().out
    assert done.value.code == 0 and out.startswith("usage: supermask") and len(out) > 200


def test_help_of_run_has_every_parameter(capsys):
    """The options of `supermask run` are the parameters of an experiment, defaults included."""
    import dataclasses

    from supermask_tf.experiment import Experiment

    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    out = capsys.readouterr().out
    for field in dataclasses.fields(Experiment):
        assert f"--{field.name.replace('_', '-')} " in out
    assert "(default: 128)" in out and "runs/mine" in out


@pytest.mark.slow
def test_run_and_list(npz, tmp_path, capsys):
    """`run` leaves a record with the options given, and prints its progress; `list` shows it."""
    directory = str(tmp_path / "study")
    assert (
        cli.main(
            [
                "run",
                "--dataset",
                npz(),
                "--arm",
                "weights",
                "--learning-rate",
                "0.003",
                "--seed",
                "4",
                "--directory",
                directory,
                *TINY,
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    (run,) = load_runs(directory)
    assert {
        "seed": 4,
        "arm": "weights",
        "learning_rate": 0.003,
        "augment": False,
        "epochs": 1,
        "batch_size": 8,
    }.items() <= run.parameters.items()
    assert "epoch   1/1" in out and "record in" in out
    assert cli.main(["list", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert (
        out.startswith(
            f"study/{run.name}  1 epochs, best 1, test accuracy {run.summary['test_accuracy']:.4f},"
            " 0.0% masked"
        )
        and "DAMAGED" not in out
    )
    (run.path / "history.csv").write_text("")
    assert cli.main(["list", directory]) == 0
    assert "DAMAGED: history.csv" in capsys.readouterr().out


@pytest.mark.slow
def test_run_from_a_record(npz, tmp_path):
    """`supermask run experiment.json --seed 1` repeats a record with one parameter replaced."""
    directory = str(tmp_path / "study")
    cli.main(["run", "--dataset", npz(), "--learning-rate", "0.3", "--directory", directory, *TINY])
    (first,) = load_runs(directory)
    assert (
        cli.main(
            ["run", str(first.path / "experiment.json"), "--seed", "1", "--directory", directory]
        )
        == 0
    )
    (second,) = load_runs(directory).where(seed=1)
    assert second.parameters | {"seed": 0} == first.parameters
    assert (
        cli.main(
            ["run", str(first.path / "experiment.json"), "--directory", str(tmp_path / "again")]
        )
        == 0
    )
    again = Run.load(tmp_path / "again" / first.name)
    assert all(
        (again.path / file).read_bytes() == (first.path / file).read_bytes()
        for file in ("experiment.json", "history.csv", "masks.npz", "state.npz")
    )


def test_list_of_nothing(tmp_path, capsys):
    """An empty folder is no error."""
    assert cli.main(["list", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"No finished run under {tmp_path}.\n"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--learningrate", "0.1"], "--learningrate.*; did you mean --learning-rate?"),
        (["run", "--learning_rate=0.1"], "--learning_rate=0.1; did you mean --learning-rate?"),
        (["study", "a.yml", "--worker-count", "2"], "--worker-count 2; did you mean --workers?"),
        (["study", "a.yml", "--workers", "two"], "argument --workers: 'two' is no whole number"),
        (["list", "--zzz"], "unrecognized arguments: --zzz\n"),
        (
            ["run", "--epochs", "ten"],
            "argument --epochs: 'ten' is no whole number: give one, or leave",
        ),
        (["run", "--tau", "half"], "argument --tau: 'half' is no number: give one, or leave"),
        (
            ["run", "--augment", "no"],
            "argument --augment: 'no' is neither true nor false: give one of",
        ),
    ],
)
def test_bad_option(capsys, arguments, words):
    """An option that is misspelt, or has a value of another kind, is refused with what to give."""
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert done.value.code == 2 and re.search(words.replace("?", r"\?"), capsys.readouterr().err)


@pytest.mark.parametrize("there", [True, False])
def test_report_is_built_in_this_environment(tmp_path, monkeypatch, there):
    """The book is built by the jupyter-book of this Python, not by the first one on the PATH."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    for folder in ("elsewhere", *(["bin"] if there else [])):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "jupyter-book").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    (tmp_path / "_config.yml").touch()
    called = []

    def run(command, **_):
        called.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(cli.book.subprocess, "run", run)
    assert cli.main(["report", "--source", str(tmp_path)]) == 0
    assert called[0][0] == str(tmp_path / "bin" / ("jupyter-book" if there else "python"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, words",
    [
        (["run", "--dataset", "mnits"], ["Unknown dataset 'mnits'", "choose one of digits"]),
        (["run", "--dataset", "x.npz"], ["dataset='x.npz'", "no such file"]),
        (["run", "--arm", "both"], ["Unknown arm 'both'", "mask, weights, finetune"]),
        (["run", "--model", "vgg"], ["Unknown model 'vgg'", "wide_resnet"]),
        (["run", "--estimator", "top"], ["Unknown estimator 'top'", "threshold, top_k"]),
        (["run", "--epochs", "0"], ["epochs=0 is out of range", "at least 1"]),
        (["run", "--learning-rate", "nan"], ["learning_rate=nan", "a finite number"]),
        (["run", "--model", "lenet_300_100", "--depth", "16"], ["depth=16 does not go with"]),
        (["run", "--arm", "finetune"], ["init_from"]),
        (
            ["run", "--arm", "finetune", "--init-from", "nobody"],
            ["init_from='nobody'", "run it first"],
        ),
        (
            ["run", "--batch-size", "5000"],
            ["batch_size=5000 is more than the 1294 training images"],
        ),
        (["run", "nowhere.json"], ["no experiment file nowhere.json"]),
        (["run", "bad.json"], ["bad.json is not an experiment"]),
        (["run", "unknown.json"], ["Unknown parameter 'epoch'", "did you mean 'epochs'"]),
        (["run", "--dataset", "bad.npz"], ["bad.npz can't be read as a dataset"]),
        (
            ["run", "--directory", "bad.json/here"],
            ["directory='bad.json/here' can't be written to"],
        ),
        (["study", "nowhere.yml"], ["no study file nowhere.yml"]),
        (["study", "bad.yml"], ["bad.yml, line 3", "epochs=0"]),
        (["list", "nowhere"], ["There is no folder nowhere"]),
        (["report"], ["There is no _config.yml"]),
    ],
)
def test_bad_input(tmp_path, monkeypatch, capsys, arguments, words):
    """Bad input gets exit code 2 and exactly one sentence, and leaves no record."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.json").write_text("[1")
    (tmp_path / "unknown.json").write_text(json.dumps({"epoch": 3}))
    (tmp_path / "bad.npz").write_text("no")
    (tmp_path / "bad.yml").write_text("runs:\n  m:\n    epochs: 0\n")
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("supermask: ") and told.count("\n") == 1 and told.endswith("\n")
    assert all(word in told for word in words)
    assert not list(tmp_path.rglob("*.csv")) and not list(tmp_path.rglob(".*-*"))


@pytest.mark.slow
def test_damaged_parent_and_other_run(runs, untrained, tmp_path, monkeypatch, capsys):
    """An unfinished parent, a parent of another network and a folder with another run get exit code
    2 as well.
    """
    parent = tmp_path / runs.mask.name
    shutil.copytree(runs.mask.path, parent)
    arguments = ["run", str(runs.finetune.path / "experiment.json"), "--epochs", "9", "--directory"]
    for change, directory, words in (
        (
            ["--depth", "16", "--init-from", runs.mask.name],
            str(tmp_path),
            "name a run of the same network",
        ),
        ([], str(runs.mask.path), "holds another run"),
    ):
        assert cli.main([*arguments, directory, *change]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
    (parent / "masks.npz").unlink()
    assert cli.main([*arguments, str(tmp_path)]) == 2
    assert "is not a finished run" in capsys.readouterr().err


@pytest.mark.slow
def test_a_record_is_made_again_with_its_parents(npz, tmp_path):
    """From experiment.json alone a run can be repeated, the run it starts from included, and comes
    out the same.
    """
    small = {"dataset": npz(), "model": "lenet_300_100", "batch_size": 8, "epochs": 1}
    first = tmp_path / "first"
    mask = Experiment(arm="mask", learning_rate=0.1, **small).run(first, progress=False)
    child = Experiment(arm="finetune", init_from=mask.name, **small).run(first, progress=False)
    again = tmp_path / "again"
    assert cli.main(["run", str(child.path / "experiment.json"), "--directory", str(again)]) == 0
    for run in (mask, child):
        for file in ("history.csv", "masks.npz"):
            assert (again / run.name / file).read_bytes() == (run.path / file).read_bytes()


@pytest.mark.slow
def test_nan_is_exit_code_1(npz, tmp_path, capsys):
    """A loss that becomes NaN is one sentence too, and the run's failure, not a mistake in the
    command.
    """
    assert (
        cli.main(
            [
                "run",
                "--dataset",
                npz(),
                "--arm",
                "weights",
                "--learning-rate",
                "1e30",
                "--directory",
                str(tmp_path / "study"),
                *TINY,
            ]
        )
        == 1
    )
    told = capsys.readouterr().err
    assert told.startswith("supermask: The loss became ") and told.count("\n") == 1
    assert left(tmp_path / "study") == []


def test_interrupt(monkeypatch, capsys):
    """Ctrl-C is no traceback, and says how to go on."""

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_list", interrupt)
    assert cli.main(["list"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_process(tmp_path):
    """From a shell: exit code 2, one line on stderr, no traceback, no TensorFlow for a question
    that needs none.
    """
    np.savez(tmp_path / "mine.npz", x_train=np.zeros((20, 4, 4)))
    code = (
        "import sys; from supermask_tf.cli import main; c = main(sys.argv[1:]); assert 'tensorflow'"
        " not in sys.modules; sys.exit(c)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--dataset", "mine.npz"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert (
        done.stderr.startswith(
            "supermask: mine.npz can't be read as a dataset: it has no array 'y_train', only"
            " x_train; "
        )
        and done.stderr.count("\n") == 1
    )
    assert done.stdout == "" and not list((tmp_path / "runs").rglob("*.csv"))


@pytest.mark.parametrize(
    "arm, options, changed",
    [
        ("mask", ["--estimator", "bernoulli"], {"estimator": "bernoulli", "tau": None}),
        (
            "mask",
            ["--model", "lenet_300_100"],
            {"model": "lenet_300_100", "depth": None, "width": None},
        ),
        (
            "finetune",
            ["--arm", "weights"],
            {"arm": "weights", "init_from": None, "learning_rate": 0.01},
        ),
        (
            "drawn",
            ["--arm", "weights"],
            {
                "arm": "weights",
                "estimator": "threshold",
                "initial_logit": 1.0,
                "draw_at_evaluation": False,
            },
        ),
        (
            "drawn",
            ["--arm", "rewind", "--init-from", "x"],
            {"arm": "rewind", "estimator": "bernoulli", "initial_logit": 1.0},
        ),
        (
            "ticket",
            ["--arm", "weights"],
            {"arm": "weights", "density": None, "criterion": None, "init_from": None},
        ),
    ],
)
def test_options_replace_what_a_record_says(runs, tmp_path, monkeypatch, arm, options, changed):
    """What belonged to a replaced parameter goes with it: the user can't leave out what the record
    says.
    """
    asked = []
    others = {
        "drawn": {"estimator": "bernoulli", "initial_logit": 3.0, "draw_at_evaluation": True},
        "ticket": {"arm": "ticket", "density": 0.3, "init_from": "w"},
    }
    file = tmp_path / "experiment.json"
    file.write_text(
        json.dumps(Experiment(**others[arm]).parameters())
        if arm in others
        else (getattr(runs, arm).path / "experiment.json").read_text()
    )
    monkeypatch.setattr(
        "supermask_tf.experiment.Experiment.run", lambda self, *_, **__: asked.append(self)
    )
    assert cli.main(["run", str(file), *options]) == 0
    (experiment,) = asked
    assert {name: getattr(experiment, name) for name in changed} == changed


def test_a_child_of_the_wrong_parent_is_told_before_the_parent_trains(runs, monkeypatch, capsys):
    """Not after hours of training what it can't start from."""
    monkeypatch.setattr(
        "supermask_tf.experiment.Experiment.run", lambda *_, **__: pytest.fail("trained")
    )
    assert (
        cli.main(["run", str(runs.finetune.path / "experiment.json"), "--arm", "weights_long"]) == 2
    )
    assert "arm='weights_long' starts from a weights run" in capsys.readouterr().err


def test_a_new_seed_goes_to_the_parents_too(runs, monkeypatch):
    """Another seed for a fine-tuning run asks for its mask run at that seed first."""
    asked = []
    monkeypatch.setattr(
        "supermask_tf.experiment.Experiment.run", lambda self, *_, **__: asked.append(self)
    )
    assert cli.main(["run", str(runs.finetune.path / "experiment.json"), "--seed", "1"]) == 0
    assert [(e.arm, e.seed) for e in asked] == [("mask", 1), ("finetune", 1)] and asked[
        1
    ].init_from == asked[0].name


def test_a_command_whose_extra_is_missing(monkeypatch, capsys):
    """The library alone has no papermill and no Dask: the sentence says how to install them."""

    def missing(*arguments, **options):
        raise ModuleNotFoundError("No module named 'distributed'", name="distributed")

    monkeypatch.setattr(cli, "run_study", missing)
    assert cli.main(["study", "runs/studies/quick.yml"]) == 2
    told = capsys.readouterr().err
    assert told == (
        "supermask: this command needs distributed: pip install 'supermask_tf[study]'.\n"
    )
