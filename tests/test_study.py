"""A study file to experiments, and running them: parents first, nothing twice, on after a failure."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from supermask_tf import cli, records, study
from supermask_tf.experiment import Experiment
from supermask_tf.records import Run
from supermask_tf.study import Study, run_study

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def load(tmp_path):
    """A function that writes a study file and reads it."""
    def read(text):
        path = tmp_path / "mine.yml"
        path.write_text(text)
        return Study.load(path)

    return read


# --- reading ----------------------------------------------------------------------------------------------------------


def test_grid(load):
    """A list is an axis: every combination runs, the last axis turning fastest."""
    made = load("title: A grid\nruns:\n  mask: {arm: mask, width: [1, 2], seed: [0, 1, 2], epochs: 3}\n")
    assert (made.name, made.title, made.blocks) == ("mine", "A grid", ["mask"] * 6)
    assert [(e.width, e.seed) for e in made.experiments] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert made.experiments[4] == Experiment(arm="mask", width=2, seed=1, epochs=3)


def test_parents_come_first(load):
    """Blocks are put in the order in which they can run, whatever order the file has."""
    made = load("runs:\n  child: {arm: finetune, from: mask}\n  other: {arm: weights}\n  mask: {arm: mask}\n")
    assert made.blocks == ["mask", "child", "other"] and made.title == "mine"
    assert made.experiments[1].init_from == made.experiments[0].name


def test_children_inherit(load):
    """A child starts from each run of its parent's block, whose network, data and batches it takes over, but not its epochs, rate or arm."""
    made = load(
        "runs:\n"
        "  mask: {arm: mask, dataset: mnist, model: conv_net, depth: 4, initializer: he_uniform, augment: false, batch_size: 32, tau: 0.4,\n"
        "         protocol: original, seed: [5, 6], epochs: 7, learning_rate: 0.3, initial_logit: 0.2}\n"
        "  finetune: {arm: finetune, from: mask, epochs: [2, 3], batch_size: 16}\n"
    )
    parents, children = made.experiments[:2], made.experiments[2:]
    assert [(c.seed, c.epochs, c.init_from) for c in children] == [(p.seed, e, p.name) for p in parents for e in (2, 3)]
    for c in children:
        assert (c.dataset, c.model, c.depth, c.width, c.initializer) == ("mnist", "conv_net", 4, None, "he_uniform")
        assert (c.augment, c.tau, c.protocol) == (False, 0.4, "original")
        assert (c.batch_size, c.learning_rate, c.initial_logit) == (16, 1e-5, 1.0)


@pytest.mark.parametrize("path", sorted((ROOT / "runs" / "studies").glob("*.yml")), ids=lambda path: path.stem)
def test_committed_studies(path):
    """Every study in the repository can be read, and each run's parent comes before it."""
    made = Study.load(path)
    seen = set()
    for experiment in made.experiments:
        assert experiment.init_from is None or experiment.init_from in seen
        seen.add(experiment.name)
    assert made.experiments and made.title != made.name


@pytest.mark.parametrize("text, line, words", [
    ("- a\n- b\n", 1, ["a mapping with `title` and `runs`"]),
    ("", 1, ["a mapping with `title` and `runs`"]),
    ("title: none\n", 1, ["a mapping with `title` and `runs`"]),
    ("title: none\nruns: {}\n", 1, ["a mapping with `title` and `runs`"]),
    ("title: a\nrun: 3\nruns:\n  m: {arm: mask}\n", 2, ["unknown key 'run'", "`title` and `runs`"]),
    ("runs:\n  m: {arm: mask}\n  w: mask\n", 3, ["block 'w' is 'mask'", "a mapping of parameters"]),
    ("runs:\n  m:\n    arm: mask\n    epoch: 3\n", 4, ["Unknown parameter 'epoch'", "did you mean 'epochs'?"]),
    ("runs:\n  m:\n    arm: mask\n    seed: [0, -1]\n    epochs: 3\n", 4, ["seed=-1 is out of range", "at least 0"]),
    ("runs:\n  m: {arm: mask}\n\n  w:\n    epochs: 0\n    arm: weights\n", 5, ["epochs=0 is out of range"]),
    ("runs:\n  m:\n    arm: mask\n    dataset: nowhere/x.npz\n", 4, ["dataset='nowhere/x.npz'", "no such file"]),
    ("runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: masks\n", 5, ["block 'f' starts from 'masks'", "it has m, f"]),
    ("runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: [m]\n", 5, ["block 'f' starts from ['m']"]),
    ("runs:\n  a:\n    arm: finetune\n    from: b\n  b:\n    arm: finetune\n    from: a\n", 4, ["'a' starts from itself", "break the circle"]),
    ("runs:\n  m: {arm: mask}\n  a:\n    from: a\n    arm: finetune\n", 4, ["'a' starts from itself", "break the circle"]),
    ("runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n", 4, ["arm='finetune' starts from a mask run"]),
    ("runs:\n  m: {arm: mask}\n  again: {arm: mask, epochs: 10}\n", 3, ["'again' repeats the run digits-wide_resnet-mask-s0-", "of block 'm'", "leave one out"]),
    ("runs:\n  m: {arm: mask, seed: [1, 1]}\n", 2, ["'m' repeats the run", "of block 'm'"]),
    ("runs:\n  m:\n    arm: mask\n    1: 3\n", 4, ["Unknown parameter 1"]),
    ("runs:\n  m:\n    arm: mask\n    zzz: 3\n", 4, ["Unknown parameter 'zzz'", "choose among dataset"]),
    ("runs:\n  m:\n    model: lenet_300_100\n    width: 3\n", 4, ["width=3 does not go with model='lenet_300_100'"]),
    ("runs:\n  1: 3\n", 2, ["block 1 is 3"]),
    ("runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: m\n    seed: [3]\n", 6, ["'f' takes its seed from the runs of 'm'", "leave it out"]),
    ("runs:\n  m:\n    arm: mask\n    seed: []\n", 4, ["seed is an empty list", "at least one value"]),
])
def test_bad_study(load, tmp_path, text, line, words):
    """What is wrong in a study file is told before anything runs, with the file and the line."""
    with pytest.raises(ValueError) as error:
        load(text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'mine.yml'}, line {line}: "), message
    assert all(word in message for word in words) and "\n" not in message


def test_no_yaml(load):
    """A file that is no YAML is named, with the place that can't be read, in one line."""
    with pytest.raises(ValueError, match=r"mine\.yml is not a study: .*line 3, column \d+") as error:
        load("runs:\n  a: 1\n b: [\n")
    assert "\n" not in str(error.value)


def test_missing_study(tmp_path):
    """A study file that is not there is named."""
    with pytest.raises(FileNotFoundError, match=r"There is no study file .*x\.yml: give the path of a \.yml"):
        Study.load(tmp_path / "x.yml")


# --- running ----------------------------------------------------------------------------------------------------------

THREE = "runs:\n  f: {arm: finetune, from: m}\n  w: {arm: weights, seed: [0, 1]}\n  m: {arm: mask, seed: [0, 1]}\n"


@pytest.fixture
def pretended(monkeypatch):
    """Runs that leave an empty record at once; those whose names are in `broken` fail. Returns what ran, in order."""
    ran = []
    broken = set()

    def run(experiment, directory, output=None):
        ran.append(experiment.name)
        if experiment.name in broken:
            raise RuntimeError("first line\nthe loss became nan")
        (directory / experiment.name).mkdir(parents=True)
        for file in records._FILES:
            (directory / experiment.name / file).write_text("{}")

    monkeypatch.setattr(study, "run_notebook", run)
    return ran, broken


def test_runs_parents_first_and_nothing_twice(load, pretended, tmp_path):
    """Every run once, in order; a second time all of it is there."""
    made, (ran, _) = load(THREE), pretended
    outcome = run_study(made, tmp_path / "out", io.StringIO())
    names = [experiment.name for experiment in made.experiments]
    assert ran == names == list(outcome) and set(outcome.values()) == {"finished"}
    assert run_study(made, tmp_path / "out", io.StringIO()) == dict.fromkeys(names, "finished before")
    assert ran == names


def test_goes_on_after_a_failure(load, pretended, tmp_path):
    """A failed run costs its own children, not the others; a second time it is tried again."""
    made, (ran, broken) = load(THREE), pretended
    by = {(e.arm, e.seed): e.name for e in made.experiments}
    broken.add(by["mask", 0])
    outcome = run_study(made, tmp_path / "out", io.StringIO())
    assert by["finetune", 0] not in ran and len(ran) == 5
    assert outcome[by["mask", 0]].startswith("failed: the loss became nan (notebook: ")
    assert outcome[by["finetune", 0]] == f"left out: its parent {by['mask', 0]} has no record"
    assert [outcome[by[key]] for key in (("mask", 1), ("finetune", 1), ("weights", 0), ("weights", 1))] == ["finished"] * 4
    broken.clear()
    again = run_study(made, tmp_path / "out", io.StringIO())
    assert again[by["mask", 0]] == again[by["finetune", 0]] == "finished" and again[by["weights", 0]] == "finished before"


@pytest.mark.parametrize("fails, code", [(False, 0), (True, 1)])
def test_exit_code(load, pretended, tmp_path, capsys, fails, code):
    """The command fails if a run did, after a table that says what happened to each."""
    made, (_, broken) = load(THREE), pretended
    if fails:
        broken.add(made.experiments[0].name)
    assert cli.main(["study", str(tmp_path / "mine.yml"), "--directory", str(tmp_path / "out")]) == code
    out = capsys.readouterr().out
    assert all(experiment.name in out for experiment in made.experiments) and ("failed: " in out) == fails == ("left out: " in out)


def test_plan(load, pretended, tmp_path, capsys):
    """--plan tells what is finished and what is to run, and runs nothing."""
    made, (ran, _) = load(THREE), pretended
    study.run_notebook(made.experiments[0], tmp_path / "out")
    del ran[:]
    assert cli.main(["study", str(tmp_path / "mine.yml"), "--directory", str(tmp_path / "out"), "--plan"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert not ran and lines[0] == ["finished", made.blocks[0], made.experiments[0].name]
    assert [line[-1] for line in lines] == [e.name for e in made.experiments] and all(line[:2] == ["to", "run"] for line in lines[1:])


@pytest.mark.slow
def test_study_through_papermill(tmp_path, monkeypatch, capfd):
    """A mask run and its child leave records with executed notebooks that name no folder of this machine; a run that fails leaves a notebook aside."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yml").write_text(
        "title: A tiny study\n"
        "runs:\n"
        "  finetune: {arm: finetune, from: mask, epochs: 1}\n"
        "  broken: {arm: weights, model: lenet_300_100, epochs: 1, batch_size: 500, learning_rate: 1.0e+30, augment: false}\n"
        "  mask: {arm: mask, model: lenet_300_100, epochs: 1, learning_rate: 0.1, augment: false}\n"
    )
    made = Study.load("tiny.yml")
    assert cli.main(["study", "tiny.yml"]) == 1
    directory = Path("runs/tiny")
    out = capfd.readouterr().out
    for experiment, block in zip(made.experiments, made.blocks):
        if block == "broken":
            assert not (directory / experiment.name).exists() and (directory / ".failed" / f"{experiment.name}.ipynb").is_file()
            assert re.search(rf"{experiment.name}  failed: FloatingPointError: The loss became .*; nothing was recorded\.", out)
            continue
        run = Run.load(directory / experiment.name)
        assert run.damaged == [] and Experiment.load(run.path / "experiment.json") == experiment
        assert not (directory / ".failed" / f"{experiment.name}.ipynb").exists()
        text = (run.path / "notebook.ipynb").read_text()
        for folder in (tmp_path, ROOT, Path.home() / ".", Path(sys.prefix)):
            assert f"{folder}/" not in text, f"the notebook of {block} names {folder}"
        assert "epoch   1/1" in "".join("".join(output.get("text", "")) for cell in json.loads(text)["cells"] for output in cell.get("outputs", []))
    assert [run.name for run in records.load_runs(directory)] == sorted(e.name for e, b in zip(made.experiments, made.blocks) if b != "broken")
