"""A run's folder: written whole or not at all, read back as it was."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

from supermask_tf import records
from supermask_tf.ground import files
from supermask_tf.records import Run, load_runs, write_run
from supermask_tf.records.reading import FILES

MASKS = {
    "conv/kernel": np.random.default_rng(0).random((3, 3, 2, 5)) < 0.6,
    "conv/bias": np.array([True, False, True, True, False]),
    "dense/kernel": np.random.default_rng(1).random((7, 3)) < 0.5,
}
STATE = {
    "bn/gamma": np.arange(5, dtype=np.float32) / 3,
    "bn/moving_variance": np.full(5, 0.1, np.float32),
}


def write(place, seed=0, masks=MASKS, **parameters):
    """A small record, made without training."""
    place.parent.mkdir(parents=True, exist_ok=True)
    history = pd.DataFrame(
        {
            "epoch": [1, 2],
            "loss": [2.0, 1 / 3],
            "accuracy": [0.1, 0.30000001192092896],
            "val_loss": [2.5, 0.1],
            "val_accuracy": [0.2, 0.6],
            "learning_rate": [0.01, 0.001],
            "masked": [0.0, 0.25],
        }
    )
    utilisation = pd.DataFrame(
        {
            "layer": [0, 1],
            "path": ["conv", "dense"],
            "kind": ["3x3", "dense"],
            "weights": [90, 21],
            "masked": [0.4, 0.5],
        }
    )
    parameters = {
        "dataset": "digits",
        "arm": "mask",
        "seed": seed,
        "learning_rate": 0.01,
        "parent": {"arm": "mask"},
    } | parameters
    return write_run(
        place,
        parameters,
        history,
        utilisation,
        masks,
        STATE,
        {"best_epoch": 2, "test_accuracy": 0.5, "versions": {"numpy": "1"}},
    )


def test_round_trip(tmp_path):
    """What was written is read back, masks bit by bit and floats to the last one."""
    write(tmp_path / "study" / "one", seed=4)
    run = Run.load(tmp_path / "study" / "one")
    assert (run.name, run.study) == ("one", "study")
    masks = run.masks({path: mask.shape for path, mask in MASKS.items()})
    assert all(
        masks[path].dtype == bool and np.array_equal(masks[path], MASKS[path]) for path in MASKS
    )
    assert run.state().keys() == STATE.keys() and all(
        np.array_equal(run.state()[path], STATE[path]) for path in STATE
    )
    assert (
        run.parameters["seed"] == 4
        and run.summary["test_accuracy"] == 0.5
        and run.history.loss[1] == 1 / 3
    )
    assert run.history.accuracy.tolist() == [
        0.1,
        0.30000001192092896,
    ], "floats are read to the last bit"
    assert run.damaged == []


def test_a_mask_takes_one_bit_a_weight(tmp_path):
    """Masks are packed: n weights take n/8 bytes, rounded up."""
    run = write(tmp_path / "one")
    with np.load(run.path / "masks.npz") as archive:
        assert {path: archive[path].nbytes for path in archive} == {
            "conv/kernel": 12,
            "conv/bias": 1,
            "dense/kernel": 3,
        }


@pytest.mark.parametrize("shape", [(1,), (8,), (9,), (2, 3, 5), (0, 4)])
def test_bits_unpack_to_what_was_packed(shape):
    """Also where the number of bits is no multiple of 8."""
    mask = np.random.default_rng(0).random(shape) < 0.5
    unpacked = records.unpack_bits(np.packbits(mask), shape)
    assert unpacked.shape == shape and unpacked.dtype == bool and np.array_equal(unpacked, mask)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize(
    "what",
    [
        "numpy.savez_compressed",
        "pandas.DataFrame.to_csv",
        "supermask_tf.ground.files.sha256",
        "os.replace",
    ],
)
def test_a_failure_leaves_nothing(tmp_path, monkeypatch, what, error):
    """A run's folder is complete or absent, whatever goes wrong while it is written; no temporary
    folder stays.
    """

    def fail(*_, **__):
        raise error("no space left")

    monkeypatch.setattr(what, fail)
    with pytest.raises(error):
        write(tmp_path / "one")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_never_overwritten(tmp_path):
    """Writing where a run is already leaves that run as it was, and nothing beside it."""
    run = write(tmp_path / "one")
    before = records.fingerprint(run.path)
    with pytest.raises(OSError):
        write(tmp_path / "one", seed=1)
    assert records.fingerprint(run.path) == before and [p.name for p in tmp_path.iterdir()] == [
        "one"
    ]


def test_equal_runs_have_equal_bytes(tmp_path):
    """No clock time gets into the files, the zip entries of the .npz included."""
    one, other = write(tmp_path / "one"), write(tmp_path / "other")
    for file in (
        "history.csv",
        "utilisation.csv",
        "masks.npz",
        "state.npz",
        "experiment.json",
        "summary.json",
    ):
        assert (one.path / file).read_bytes() == (other.path / file).read_bytes(), file
    for file in ("masks.npz", "state.npz"):
        assert {entry.date_time for entry in zipfile.ZipFile(one.path / file).infolist()} == {
            (1980, 1, 1, 0, 0, 0)
        }


@pytest.mark.parametrize(
    "file", ["experiment.json", "history.csv", "utilisation.csv", "masks.npz", "state.npz"]
)
def test_damage_is_seen(tmp_path, file):
    """A file that was changed, or is gone, is named."""
    run = write(tmp_path / "one")
    with open(run.path / file, "ab") as stream:
        stream.write(b" ")
    assert run.damaged == [file]
    (run.path / file).unlink()
    assert run.damaged == [file]


def test_notebook_is_not_part_of_the_checksums(tmp_path):
    """A notebook that joins the record later does not make it look damaged."""
    run = write(tmp_path / "one")
    records.attach_notebook(run, {"cells": [], "metadata": {}})
    assert run.damaged == []


@pytest.mark.parametrize("file", ["summary.json", "history.csv", "state.npz"])
def test_incomplete_run_is_refused(tmp_path, file):
    """A folder without all its files is no finished run, and the message says which one is
    missing.
    """
    run = write(tmp_path / "one")
    (run.path / file).unlink()
    with pytest.raises(
        FileNotFoundError,
        match=rf"one is not a finished run: it has no {file}; give the folder of a run",
    ):
        Run.load(run.path)


# --- many runs ------------------------------------------------------------------------------------


@pytest.fixture
def studies(tmp_path):
    """Two studies, one of them nested, a hidden copy and a leftover of a run that was being
    written.
    """
    write(tmp_path / "b" / "run2", seed=2, arm="weights")
    write(tmp_path / "b" / "run1", seed=1)
    write(tmp_path / "a" / "deep" / "run3", seed=3, dataset="mnist")
    write(tmp_path / "b" / ".trash" / "run4")
    write(tmp_path / "b" / ".run5.x81")
    return tmp_path


def test_load_runs(studies):
    """Every finished run below a folder is found, by study and name; what is hidden is not."""
    assert [(run.study, run.name) for run in load_runs(studies)] == [
        ("deep", "run3"),
        ("b", "run1"),
        ("b", "run2"),
    ]
    assert [run.name for run in load_runs(studies / "b", studies / "a")] == ["run1", "run2", "run3"]
    assert [run.name for run in load_runs(studies / "b" / "run2")] == ["run2"], (
        "the folder of a run is one run"
    )


def test_load_runs_under_a_hidden_folder(tmp_path):
    """Only what is hidden below the folder that was asked for is left out."""
    write(tmp_path / ".cache" / "study" / "one")
    assert len(load_runs(tmp_path / ".cache" / "study")) == 1


def test_missing_folder(tmp_path):
    """A folder that is not there is named, unless that was to be expected."""
    with pytest.raises(
        FileNotFoundError, match=r"There is no folder .*nowhere: give a study's folder"
    ):
        load_runs(tmp_path / "nowhere")
    assert len(load_runs(tmp_path / "nowhere", missing_ok=True)) == 0


def test_tidy_frames(studies):
    """One row a run, an epoch, a kernel; every parameter is a column, the parent's are not."""
    runs = load_runs(studies)
    assert runs.summary.run.tolist() == ["run3", "run1", "run2"]
    assert runs.summary[["study", "dataset", "arm", "seed", "best_epoch", "test_accuracy"]].iloc[
        0
    ].tolist() == ["deep", "mnist", "mask", 3, 2, 0.5]
    assert not {"parent", "versions", "checksums"} & set(runs.summary)
    assert len(runs.history) == 6 and runs.history[
        runs.history.run == "run1"
    ].accuracy.tolist() == [0.1, 0.30000001192092896]
    assert runs.history.learning_rate.tolist() == [0.01, 0.001] * 3, (
        "the epoch's, not the experiment's"
    )
    assert runs.history.seed.tolist() == [3, 3, 1, 1, 2, 2]
    assert len(runs.utilisation) == 6 and set(runs.utilisation.kind) == {"3x3", "dense"}
    assert {"run", "study", "dataset", "arm", "layer", "path", "weights", "masked"} <= set(
        runs.utilisation
    )


def test_where(studies):
    """Runs are chosen by the values of their parameters; a list admits each of its values."""
    runs = load_runs(studies)
    assert [run.name for run in runs.where(arm="mask")] == ["run3", "run1"]
    assert [run.name for run in runs.where(seed=[1, 2])] == ["run1", "run2"]
    assert [run.name for run in runs.where(seed=(1, 3), dataset="mnist")] == ["run3"]
    assert len(runs.where(arm="finetune")) == 0 and runs.where(arm="finetune").history.empty
    study = runs[0].study
    assert len(runs.where(study=study)) == len([run for run in runs if run.study == study]) and [
        run.name for run in runs.where(run="run1")
    ] == ["run1"]
    with pytest.raises(
        ValueError, match="No run has a parameter epoch: choose among .*learning_rate"
    ):
        runs.where(epoch=10)


def test_a_run_may_be_named_by_text(studies):
    """A path as text is as good as a Path."""
    run = load_runs(studies)[0]
    assert type(run)(str(run.path)).weights_file == run.weights_file


def test_listing_tells_runs_apart(tmp_path):
    """What a run was given beside the usual stands in the listing; an estimator only where a mask
    is learned.
    """
    usual = {
        "model": "lenet_300_100",
        "depth": None,
        "width": None,
        "shortcut": None,
        "estimator": "threshold",
        "epochs": 2,
        "protocol": "study",
        "initial_logit": 1.0,
        "tau": 0.5,
        "initializer": "glorot_uniform",
        "batch_size": 128,
        "augment": True,
        "precision": "float32",
        "reset_batch_norm": None,
        "draw_at_evaluation": False,
        "init_from": None,
    }
    for name, given in (
        ("a-0a0a0a0a", {}),
        (
            "b-1b1b1b1b",
            {"initial_logit": 3.0, "augment": False, "draw_at_evaluation": True, "density": 0.2},
        ),
        ("c-2c2c2c2c", {"arm": "weights", "reset_batch_norm": True}),
    ):
        run = write(tmp_path / "mine" / name, **usual | given)
        (run.path / "summary.json").write_text(
            json.dumps(run.summary | {"masked": 0.1, "seconds": 60})
        )
    table = load_runs(tmp_path / "mine").listing()
    assert [re.sub("<.*?>", "", link) for link in table.run] == [
        "mine/…0a0a0a0a",
        "mine/…1b1b1b1b",
        "mine/…2c2c2c2c",
    ] and 'href="../runs/mine/a-0a0a0a0a.html"' in table.run[0]
    assert list(table.estimator) == ["threshold", "threshold", ""]
    assert [set(said.split(", ")) for said in table["and"]] == [
        {""},
        {"initial logit 3", "not augmented", "draw at evaluation", "density 0.2"},
        {"reset batch norm"},
    ]
    assert table["accuracy, %"].dtype == float  # sorts as a number


def test_fingerprint_follows_the_records(studies):
    """It changes with any file's content or name, and with nothing hidden: by it a page knows that
    it is stale.
    """
    seen = {records.fingerprint(studies)}
    (studies / "b" / ".trash" / "note").write_text("x")
    assert records.fingerprint(studies) in seen
    path = studies / "b" / "run1" / "history.csv"
    path.write_text(path.read_text().replace("0.3000", "0.4000"))
    seen.add(records.fingerprint(studies))
    (studies / "b" / "run1").rename(studies / "b" / "run9")
    seen.add(records.fingerprint(studies))
    assert len(seen) == 3


def test_reads_are_noted(studies, tmp_path, monkeypatch):
    """The book learns from this list what a page depends on, missing folders included."""
    log = tmp_path / "reads"
    monkeypatch.setenv("SUPERMASK_READS", str(log))
    load_runs(studies / "b")
    load_runs(studies / "nowhere", missing_ok=True)
    there = records.fingerprint(studies / "b")
    shutil.copytree(
        studies / "b" / "run1", studies / "b" / "run3"
    )  # as a study that goes on meanwhile
    load_runs(studies / "b")
    assert log.read_text().splitlines() == [
        f"{there} {(studies / 'b').resolve()}",
        f"{records.fingerprint(studies / 'nowhere')} {(studies / 'nowhere').resolve()}",
    ]
    assert there != records.fingerprint(studies / "b")


# --- the rest of a run's files --------------------------------------------------------------------


def test_notebook_loses_papermills_paths(tmp_path):
    """A committed notebook tells nothing of the machine's folders; the notebook that was given
    stays as it is.
    """
    notebook = {
        "cells": [{"source": "1"}],
        "metadata": {
            "papermill": {"input_path": "/home/me/a", "output_path": "/home/me/b", "duration": 2}
        },
    }
    run = write(tmp_path / "one")
    records.attach_notebook(run, notebook)
    written = (run.path / "notebook.ipynb").read_text()
    assert "/home/me" not in written and json.loads(written)["metadata"]["papermill"] == {
        "duration": 2
    }
    assert (
        json.loads(written)["cells"] == notebook["cells"]
        and "input_path" in notebook["metadata"]["papermill"]
    )


def test_weights_lie_beside_the_records(tmp_path):
    """Trained weights are kept outside the run's folder, under a hidden one that is never
    committed.
    """
    run = write(tmp_path / "study" / "one")
    records.write_weights(run, {"dense/kernel": np.eye(3)})
    assert run.weights_file == tmp_path / "study" / ".weights" / "one.npz"
    with np.load(run.weights_file) as archive:
        assert np.array_equal(archive["dense/kernel"], np.eye(3))
    assert [p.name for p in run.weights_file.parent.iterdir()] == ["one.npz"] and not (
        run.path / ".weights"
    ).exists()


def test_check_writable(tmp_path):
    """It makes a study's folder; it refuses a run's folder, and a place below a file."""
    records.check_writable(tmp_path / "new" / "study")
    assert list((tmp_path / "new" / "study").iterdir()) == []
    run = write(tmp_path / "one")
    with pytest.raises(FileExistsError, match="holds another run: give the folder of a study"):
        records.check_writable(run.path)
    with pytest.raises(
        PermissionError,
        match=r"summary\.json/study' can't be written to .*: give a folder of yours",
    ):
        records.check_writable(run.path / "summary.json" / "study")


# --- imports --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reading_and_drawing_load_no_tensorflow():
    """The book is built, and studies are planned, without a training framework."""
    code = (
        "import sys, supermask_tf\nfor name in ('initializers', 'records', 'data', 'experiment',"
        " 'analysis', 'plots', 'study', 'cli'):\n    getattr(supermask_tf, name)\n    assert not"
        " {'tensorflow', 'keras', 'tensorflow_addons'} & set(sys.modules),"
        " name\nsupermask_tf.Experiment(); supermask_tf.load_runs\nassert 'tensorflow' not in"
        " sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="needs POSIX's process times")
def test_import_takes_at_most_three_seconds():
    """Whoever only looks at records does not wait: 3 s of processor time, best of three; more where
    others use it too.
    """
    import resource

    def seconds():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-c", "import supermask_tf.paper.plots, supermask_tf.records"],
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert min(seconds() for _ in range(3)) < 3 * busy


def test_bits_of_another_network_are_refused():
    """A mask is neither cut nor filled up to fit another shape."""
    for shape in ((4, 4), (3,)):
        with pytest.raises(ValueError, match="belongs to another network"):
            records.unpack_bits(np.packbits(np.ones(24, bool)), shape)


@pytest.mark.parametrize("name", ["summary.json", "experiment.json"])
def test_damaged_json_names_its_file(runs, tmp_path, name):
    """A record cut short is told by name."""
    run = Run(shutil.copytree(runs.mask.path, tmp_path / "run"))
    (run.path / name).write_text((run.path / name).read_text()[:40])
    with pytest.raises(ValueError, match=f"run/{name} is damaged"):
        getattr(run, "summary" if name == "summary.json" else "parameters")


def test_on_the_disk_before_in_its_place(tmp_path, monkeypatch):
    """After a power cut no name may stand there whose content does not: every file, and the folder,
    is synced before the renaming, and the study's folder after it.
    """
    done = []
    replace = os.replace
    monkeypatch.setattr(files, "flush_to_disk", lambda path: done.append(path.name))
    monkeypatch.setattr(
        os, "replace", lambda source, target: (done.append("renamed"), replace(source, target))
    )
    run = write(tmp_path / "study" / "one")
    before, after = done[: done.index("renamed")], done[done.index("renamed") + 1 :]
    assert set(FILES) <= set(before) and before[-1].startswith(".one.") and after == ["study"]
    done.clear()
    records.write_weights(run, {"dense/kernel": np.eye(3)})
    assert done[0].endswith(".one.npz") and done[1:] == ["renamed", ".weights"]


def test_settling_is_syncing(tmp_path, monkeypatch):
    """`settle` asks the system for files and folders alike."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path):
        files.flush_to_disk(path)
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"test_accuracy": 0.5', '"test_accuracy": 0.9'),
        lambda text: text[:40],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"checksums": {', '"checksums": 3, "x": {'),
        lambda text: "[" * 100_000,
        lambda text: "\udcff",
    ],
    ids=[
        "another accuracy",
        "cut short",
        "a list",
        "empty",
        "no checksums",
        "nested deeply",
        "no text",
    ],
)
def test_damaged_summary_is_seen(tmp_path, capsys, change):
    """The summary has a checksum too; `supermask list` flags a record whose summary can't be read,
    and lists the others.
    """
    from supermask_tf import cli

    run = write(tmp_path / "study" / "one")
    write(tmp_path / "study" / "two")
    text = (run.path / "summary.json").read_text()
    assert change(text) != text
    (run.path / "summary.json").write_text(change(text), errors="surrogateescape")
    assert Run(run.path).damaged == ["summary.json"]
    assert cli.main(["list", str(tmp_path)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert "one" in one and "DAMAGED: summary.json" in one and "two" in two


@pytest.mark.parametrize("table", ["history", "utilisation"])
def test_damaged_tables_are_named(tmp_path, table):
    """A table that can't be read is named, in one sentence."""
    run = write(tmp_path / "one")
    for content in (b"", b'a,b\n"1', b"\xff\xfe\x00", b"a\n1,2,3\n1,2,3,4\n"):
        (run.path / f"{table}.csv").write_bytes(content)
        with pytest.raises(ValueError, match=rf"one/{table}\.csv is damaged \("):
            getattr(Run(run.path), table)


def test_a_parameter_that_a_record_lacks_is_known():
    """A parameter of today stands in each record, or it is known what runs did before it."""
    from pathlib import Path

    from supermask_tf.experiment import PARAMETERS
    from supermask_tf.records import BEFORE

    runs = load_runs(Path(__file__).parents[1] / "runs")
    assert len(runs) >= 698
    for run in runs:
        assert set(PARAMETERS) <= BEFORE.keys() | run.parameters.keys(), run.name
    assert len(runs.where(shortcut=None, optimizer="adam")) > 600


@pytest.mark.parametrize(
    "values, planes, dtype",
    [
        ([0, 1], 1, np.uint8),
        ([-1, 0, 1], 2, np.int8),
        ([0, 1, 2, 3], 2, np.uint8),
        ([0, 7], 3, np.uint8),
        ([-128, 127], 8, np.int8),
        ([0], 1, np.uint8),
    ],
)
def test_masks_of_more_values_take_the_bits_that_they_need(values, planes, dtype, tmp_path):
    """A mask of int8 is stored with as many bits per weight as its values take, and read again."""
    from supermask_tf.records.reading import _unpack_mask, pack_mask

    mask = np.resize(np.array(values, np.int8), (5, 7))
    packed = pack_mask(mask)
    assert packed.shape == (planes, 5) and packed.dtype == dtype
    np.testing.assert_array_equal(_unpack_mask(packed, (5, 7)), mask)
    assert _unpack_mask(packed, (5, 7)).dtype == np.int8
    with pytest.raises(ValueError, match="does not fit the shape"):
        _unpack_mask(packed, (6, 7))
