"""A record made again: identical where nothing differs, and told apart where something does."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from supermask_tf import cli
from supermask_tf.experiment import Experiment
from supermask_tf.records import Run
from supermask_tf.studies.verification import note, verify


@pytest.fixture
def copies(runs, tmp_path):
    """The shared runs in a folder of the test's own, without trained weights: as committed."""
    shutil.copytree(runs.directory, tmp_path / "small", ignore=shutil.ignore_patterns(".*"))
    return tmp_path / "small"


@pytest.fixture
def comes_out(runs, monkeypatch):
    """Every run trained again comes out as in the shared ones, without the training."""

    def run(experiment, directory, *_):
        shutil.copytree(runs.directory / experiment.name, directory / experiment.name)
        return Run.load(directory / experiment.name)

    monkeypatch.setattr(Experiment, "run", run)


@pytest.mark.slow
def test_a_record_comes_out_identical(runs, copies, capsys, tmp_path):
    """The same processor, threads and versions give the same bits; a child whose parent's masks are
    recorded needs no more.
    """
    place = str(copies / runs.finetune.name)
    assert cli.main(["verify", place, "--table", str(tmp_path / "v.csv")]) == 0
    assert capsys.readouterr().out.count(": identical. Test accuracy") == 1
    table = pd.read_csv(tmp_path / "v.csv")
    assert (
        list(table.verdict) == ["identical"]
        and (table[["processor", "threads", "versions"]] == "same").all(axis=None)
        and set(table.study) == {"small"}
    )
    assert not any(path.name.startswith(".weights") for path in copies.iterdir()), (
        "nothing is left beside the records"
    )


def test_a_record_that_does_not_come_out_again(runs, copies, comes_out, capsys):
    """Another recorded accuracy is different, or within the tolerance; another mask is not
    identical.
    """
    place = copies / runs.mask.name
    summary = json.loads((place / "summary.json").read_text())
    (place / "summary.json").write_text(
        json.dumps(summary | {"test_accuracy": summary["test_accuracy"] + 0.02, "threads": 77})
    )
    assert cli.main(["verify", str(place)]) == 1
    assert "different" in capsys.readouterr().out
    found = verify(place, tolerance=3, progress=False)
    assert (
        found["verdict"] == "within tolerance"
        and found["threads"].endswith("for 77")
        and found["masks_differ"] == 0
    )
    (place / "summary.json").write_text(json.dumps(summary))
    with np.load(place / "masks.npz") as archive:
        masks = dict(archive)
    first = next(iter(masks))
    np.savez_compressed(place / "masks.npz", **(masks | {first: masks[first] ^ np.uint8(128)}))
    found = verify(place, progress=False)
    assert found["verdict"] == "within tolerance" and 0 < found["masks_differ"] < 0.01


def test_a_record_of_the_other_keras_is_not_called_different(runs, copies, comes_out, capsys):
    """Its bits can't come out here: a sentence says so, and nothing is claimed."""
    place = copies / runs.mask.name
    summary = json.loads((place / "summary.json").read_text())
    other = {"2": "3.15.1", "3": "2.15.0"}[summary["versions"]["keras"][0]]
    summary["versions"]["keras"] = other
    changed = summary | {"test_accuracy": summary["test_accuracy"] + 0.02}
    (place / "summary.json").write_text(json.dumps(changed))
    assert cli.main(["verify", str(place)]) == 0
    out = capsys.readouterr().out
    assert ": other environment. " in out and "Another Keras made it" in out


@pytest.mark.slow
def test_parents_are_made_again_where_their_weights_are_needed(tmp_path):
    """A run that goes on from trained weights, which no record holds, has its parent trained again;
    the record stays as it is.
    """
    small = {"dataset": "digits", "model": "lenet_300_100", "epochs": 1, "augment": False}
    parent = Experiment(arm="weights", **small).run(tmp_path, progress=False)
    longer = Experiment(arm="weights_long", init_from=parent.name, **small)
    longer.run(tmp_path, progress=False)
    shutil.rmtree(tmp_path / ".weights")
    before = (parent.path / "summary.json").read_bytes()
    assert verify(tmp_path / longer.name, progress=False)["verdict"] == "identical"
    assert (parent.path / "summary.json").read_bytes() == before
    assert not (tmp_path / ".weights").exists()


def test_bad_input(runs, untrained, tmp_path, capsys):
    """No such run, or a tolerance below zero, is told before anything trains."""
    assert cli.main(["verify", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    assert cli.main(["verify", str(runs.mask.path), "--tolerance", "-1"]) == 2
    assert "tolerance=-1.0" in capsys.readouterr().err


def test_notes_replace_what_was_said_of_a_run(tmp_path):
    """A run that is verified again has one row, the newest."""
    row = {"study": "a", "run": "x", "verdict": "different"}
    note(tmp_path / "v.csv", [row, row | {"run": "b"}])
    note(tmp_path / "v.csv", [row | {"verdict": "identical"}])
    table = pd.read_csv(tmp_path / "v.csv").set_index("run")
    assert dict(table.verdict) == {"b": "different", "x": "identical"}


def test_the_committed_table_names_committed_runs():
    """What the book shows as verified are records that are there, three at least, and none came out
    different.
    """
    from pathlib import Path

    root = Path(__file__).resolve().parents[1] / "runs"
    table = pd.read_csv(root / "verified.csv", float_precision="round_trip")
    assert len(table) >= 3 and not (table.verdict == "different").any()
    for row in table.itertuples():
        assert row.recorded == Run.load(root / row.study / row.run).summary["test_accuracy"]
