"""A study file to experiments."""

from pathlib import Path

import pytest

from supermask_tf.experiment import Experiment
from supermask_tf.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]


# --- reading --------------------------------------------------------------------------------------


def test_grid(load):
    """A list is an axis: every combination runs, the last axis turning fastest."""
    made = load(
        "title: A grid\nruns:\n  mask: {arm: mask, width: [1, 2], seed: [0, 1, 2], epochs: 3}\n"
    )
    assert (made.name, made.title, made.blocks) == ("mine", "A grid", ["mask"] * 6)
    assert [(e.width, e.seed) for e in made.experiments] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (2, 0),
        (2, 1),
        (2, 2),
    ]
    assert made.experiments[4] == Experiment(arm="mask", width=2, seed=1, epochs=3)


def test_parents_come_first(load):
    """Blocks are put in the order in which they can run, whatever order the file has."""
    made = load(
        "runs:\n  child: {arm: finetune, from: mask}\n  other: {arm: weights}\n  mask: {arm:"
        " mask}\n"
    )
    assert made.blocks == ["mask", "child", "other"] and made.title == "mine"
    assert made.experiments[1].init_from == made.experiments[0].name


def test_children_inherit(load):
    """A child starts from each run of its parent's block, whose network, data and batches it takes
    over, but not its epochs, rate or arm.
    """
    made = load(
        "runs:\n  mask: {arm: mask, dataset: mnist, model: conv_net, depth: 4, initializer:"
        " he_uniform, augment: false, batch_size: 32, tau: 0.4,\n         protocol: original, seed:"
        " [5, 6], epochs: 7, learning_rate: 0.3, initial_logit: 0.2}\n  finetune: {arm: finetune,"
        " from: mask, epochs: [2, 3], batch_size: 16}\n"
    )
    parents, children = made.experiments[:2], made.experiments[2:]
    assert [(c.seed, c.epochs, c.init_from) for c in children] == [
        (p.seed, e, p.name) for p in parents for e in (2, 3)
    ]
    for c in children:
        assert (c.dataset, c.model, c.depth, c.width, c.initializer) == (
            "mnist",
            "conv_net",
            4,
            None,
            "he_uniform",
        )
        assert (c.augment, c.tau, c.protocol) == (False, 0.4, "original")
        assert (c.batch_size, c.learning_rate, c.initial_logit) == (16, 1e-5, 1.0)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "runs" / "studies").glob("*.yml")), ids=lambda path: path.stem
)
def test_committed_studies(path):
    """Every study in the repository can be read, and each run's parent comes before it."""
    made = Study.load(path)
    seen = set()
    for experiment in made.experiments:
        assert experiment.init_from is None or experiment.init_from in seen
        seen.add(experiment.name)
    assert made.experiments and made.title != made.name


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("- a\n- b\n", 1, ["a mapping with `title` and `runs`"]),
        ("", 1, ["a mapping with `title` and `runs`"]),
        ("title: none\n", 1, ["a mapping with `title` and `runs`"]),
        ("title: none\nruns: {}\n", 1, ["a mapping with `title` and `runs`"]),
        (
            "title: a\nrun: 3\nruns:\n  m: {arm: mask}\n",
            2,
            ["unknown key 'run'", "`title` and `runs`"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  w: mask\n",
            3,
            ["block 'w' is 'mask'", "a mapping of parameters"],
        ),
        (
            "runs:\n  m:\n    arm: mask\n    epoch: 3\n",
            4,
            ["Unknown parameter 'epoch'", "did you mean 'epochs'?"],
        ),
        (
            "runs:\n  m:\n    arm: mask\n    seed: [0, -1]\n    epochs: 3\n",
            4,
            ["seed=-1 is out of range", "at least 0"],
        ),
        (
            "runs:\n  m: {arm: mask}\n\n  w:\n    epochs: 0\n    arm: weights\n",
            5,
            ["epochs=0 is out of range"],
        ),
        (
            "runs:\n  m:\n    arm: mask\n    dataset: nowhere/x.npz\n",
            4,
            ["dataset='nowhere/x.npz'", "no such file"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: masks\n",
            5,
            ["block 'f' starts from 'masks'", "it has m, f"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: [m]\n",
            5,
            ["block 'f' starts from ['m']"],
        ),
        (
            "runs:\n  a:\n    arm: finetune\n    from: b\n  b:\n    arm: finetune\n    from: a\n",
            4,
            ["'a' starts from itself", "break the circle"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  a:\n    from: a\n    arm: finetune\n",
            4,
            ["'a' starts from itself", "break the circle"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n",
            4,
            ["arm='finetune' starts from a mask run"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  again: {arm: mask, epochs: 10}\n",
            3,
            [
                "'again' repeats the run digits-wide_resnet-mask-s0-",
                "of block 'm'",
                "leave one out",
            ],
        ),
        ("runs:\n  m: {arm: mask, seed: [1, 1]}\n", 2, ["'m' repeats the run", "of block 'm'"]),
        ("runs:\n  m:\n    arm: mask\n    1: 3\n", 4, ["Unknown parameter 1"]),
        (
            "runs:\n  m:\n    arm: mask\n    zzz: 3\n",
            4,
            ["Unknown parameter 'zzz'", "choose among dataset"],
        ),
        (
            "runs:\n  m:\n    model: lenet_300_100\n    width: 3\n",
            4,
            ["width=3 does not go with model='lenet_300_100'"],
        ),
        ("runs:\n  1: 3\n", 2, ["block 1 is 3"]),
        (
            "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: m\n    seed: [3]\n",
            6,
            ["'f' takes its seed from the runs of 'm'", "leave it out"],
        ),
        (
            "runs:\n  m:\n    arm: mask\n    seed: []\n",
            4,
            ["seed is an empty list", "at least one value"],
        ),
        (
            (
                "runs:\n  m: &b {arm: mask, model: wide_resnet, width: 2}\n\n  l: {<<: *b, model:"
                " lenet_300_100}\n"
            ),
            4,
            ["width=2 does not go with model='lenet_300_100'"],
        ),
        (
            "runs:\n  m: &b {arm: mask, seed: [0, 1]}\n  f: {<<: *b, from: m, arm: finetune}\n",
            3,
            ["'f' takes its seed from the runs of 'm'"],
        ),
        (
            "runs:\n  m: {arm: mask, seed: 0}\n  m: {arm: mask, seed: [1, 2]}\n",
            3,
            ["the key 'm' stands here a second time", "leave one out"],
        ),
        (
            "runs:\n  m:\n    arm: mask\n    seed: 0\n    seed: 3\n",
            5,
            ["the key 'seed' stands here a second time"],
        ),
        (
            "runs:\n  w: {arm: weights}\n  f:\n    arm: finetune\n    from: w\n",
            4,
            ["is a run of arm='weights', but arm='finetune' starts from a mask run"],
        ),
        (
            (
                "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: m\n    protocol:"
                " original\n"
            ),
            6,
            ["has protocol='study'", "protocol='original'"],
        ),
        (
            (
                "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: m\n    estimator:"
                " bernoulli\n"
            ),
            6,
            ["has estimator='threshold'"],
        ),
        (
            (
                "runs:\n  w: {arm: weights, epochs: 3}\n  t:\n    arm: ticket\n    from: w\n   "
                " rewind_epochs: [1, 5]\n"
            ),
            6,
            ["rewind_epochs=5 is more than the 3 epochs"],
        ),
        (
            (
                "runs:\n  w: {arm: weights, epochs: 3}\n  t: {arm: ticket, from: w, rewind_epochs:"
                " 2}\n  u:\n    arm: ticket\n    from: t\n    rewind_epochs: 5\n"
            ),
            7,
            ["more than the 3 epochs"],
        ),
        (
            (
                "runs:\n  w: {arm: weights}\n  t: {arm: ticket, from: w, density: 0.2}\n  u:\n   "
                " arm: ticket\n    from: t\n    density: 0.5\n"
            ),
            7,
            ["density=0.5 is more than", "a smaller density in each round"],
        ),
        (
            "runs:\n  m: {arm: mask}\n  f:\n    arm: finetune\n    from: m\n    init_from: x\n",
            6,
            ["block 'f' has `from` and `init_from`", "leave one out"],
        ),
        (
            "runs:\n  m: {arm: mask}\nruns:\n  w: {arm: weights}\n",
            3,
            ["the key 'runs' stands here a second time"],
        ),
    ],
)
def test_bad_study(load, tmp_path, text, line, words):
    """What is wrong in a study file is told before anything runs, with the file and the line."""
    with pytest.raises(ValueError) as error:
        load(text)
    message = str(error.value)
    assert message.startswith(f"{tmp_path / 'mine.yml'}, line {line}: "), message
    assert all(word in message for word in words) and "\n" not in message


def test_no_yaml(load):
    """A file that is no YAML is named, with the place that can't be read, in one line."""
    with pytest.raises(
        ValueError, match=r"mine\.yml is not a study: .*line 3, column \d+"
    ) as error:
        load("runs:\n  a: 1\n b: [\n")
    assert "\n" not in str(error.value)


def test_missing_study(tmp_path):
    """A study file that is not there is named."""
    with pytest.raises(
        FileNotFoundError, match=r"There is no study file .*x\.yml: give the path of a \.yml"
    ):
        Study.load(tmp_path / "x.yml")
