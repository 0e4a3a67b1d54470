"""Stopping and going on: at any moment, by any signal, on a full disk; the bits come out as if
nothing had happened.
"""

import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from conftest import _arrays, left
from supermask_tf import checkpoints, cli, data, records
from supermask_tf.experiment import Experiment, devices
from supermask_tf.experiment.checkpoints import Checkpoints
from supermask_tf.records import Run

# A server that has imported TensorFlow, and not used it, forks a process for each attempt: a second
# instead of ten.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tensorflow",
        "tensorflow_addons",
        "supermask_tf.experiment.loop",
        "supermask_tf.data",
        "supermask_tf.models",
    ]
)

LENET = {"model": "lenet_300_100", "batch_size": 16, "epochs": 14}
WRN = {"model": "wide_resnet", "depth": 10, "batch_size": 16, "epochs": 9}
KINDS = {
    "mask": LENET | {"arm": "mask", "learning_rate": 0.1},
    "drawn mask": (
        LENET
        | {
            "arm": "mask",
            "estimator": "bernoulli",
            "draw_at_evaluation": True,
            "learning_rate": 0.3,
        }
    ),
    "weights": LENET | {"arm": "weights", "learning_rate": 0.003, "augment": False},
    "finetune": LENET | {"arm": "finetune", "learning_rate": 0.003, "augment": False},
    "batch norm": WRN | {"arm": "mask", "learning_rate": 0.3},
}
KILLS = {"mask": 2, "drawn mask": 2, "weights": 2, "finetune": 2, "batch norm": 1}


def train(experiment, directory, die=None):
    """Run an experiment in a process of its own, which kills itself at the place `die`."""

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def from_third(function, instead):
        calls = iter(range(10**6))
        return lambda *a, **k: instead(*a, **k) if next(calls) >= 2 else function(*a, **k)

    def half(place, **arrays):
        with open(place, "wb") if isinstance(place, Path) else place as stream:
            stream.write(b"PK" + bytes(10_000))
        kill()

    def replaced(source, target):
        rename(source, target)
        kill()

    rename = os.replace
    if die == "half a checkpoint":
        np.savez = from_third(np.savez, half)
    elif die == "before a checkpoint is renamed":
        os.replace = from_third(os.replace, kill)
    elif die == "after a checkpoint is renamed":
        os.replace = from_third(os.replace, replaced)
    elif die == "half a record":
        np.savez_compressed = half
    elif die == "before the record is cleared up":
        Checkpoints.clear = kill
    experiment.run(directory, progress=False)


def files(run):
    """Everything of a record that may not differ."""
    kept = {
        path.name: path.read_bytes() for path in run.path.iterdir() if path.name != "summary.json"
    }
    return kept | {
        name: run.summary[name]
        for name in ("best_epoch", "test_accuracy", "test_loss", "val_accuracy")
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """For each kind an experiment on a few random images, and the record of a run never stopped."""
    place = tmp_path_factory.mktemp("resumed")
    np.savez(place / "few.npz", **_arrays(train=140, test=40, shape=(8, 8, 1)))
    made = {}
    for kind, parameters in KINDS.items():
        parent = {"init_from": str(made["mask"][1].path)} if kind == "finetune" else {}
        experiment = Experiment(dataset=str(place / "few.npz"), **parameters, **parent)
        made[kind] = experiment, experiment.run(place / "whole", progress=False)
    return made


@pytest.mark.slow
def test_what_the_runs_prove(study):
    """The runs that are stopped here reduce their rate, and some have their best epoch in the
    middle: without that, going on would be easy.
    """
    assert all(run.history.learning_rate.nunique() > 1 for _, run in study.values()), {
        kind: run.history.learning_rate.tolist() for kind, (_, run) in study.items()
    }
    best = [run.summary["best_epoch"] for _, run in study.values()]
    assert any(3 < epoch < 12 for epoch in best), best


# --- killed ---------------------------------------------------------------------------------------


def epochs(directory, experiment) -> list[int]:
    """The epochs kept."""
    return sorted(
        int(path.name.partition("-")[0])
        for path in Checkpoints(directory / experiment.name).folder.glob("*-*.npz")
    )


def started(function, *arguments):
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    return process


def killed(experiment, directory, chance) -> bool:
    """Run until a moment that `chance` chooses: while it starts, or soon after another epoch was
    kept. False if it finished before.
    """
    had = epochs(directory, experiment)
    process = started(train, experiment, directory)
    if chance.random() < 0.15:
        process.join(chance.random())
    else:
        while process.is_alive() and epochs(directory, experiment)[-1:] <= had[-1:]:
            time.sleep(0.001)
        process.join(chance.random() * 0.1)
    died = process.is_alive()
    process.kill()
    process.join()
    return died


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment(study, tmp_path, kind):
    """SIGKILL at random moments (nine in all): what goes on from each ends with the bits of a run
    never stopped.
    """
    experiment, whole = study[kind]
    chance, moments, directories = random.Random(f"{kind} 0"), [], [tmp_path / "0"]
    while len(moments) < KILLS[kind]:
        if killed(experiment, directories[-1], chance):
            moments.append(max(epochs(directories[-1], experiment), default=0))
        else:  # it was through before its moment came
            directories.append(tmp_path / str(len(directories)))
    started(train, experiment, directories[-1]).join()
    for directory in directories:
        run = Run.load(directory / experiment.name)
        assert files(run) == files(whole) and not run.damaged
        assert left(directory) == [".weights", run.name]
    print(
        f"{kind}: killed {len(moments)} times, after the epochs {moments} of {experiment.epochs}:"
        " equal"
    )


@pytest.mark.long
def test_killed_while_writing(study, tmp_path):
    """Killed in the middle of a checkpoint, before and after its renaming, in the middle of the
    record and right after it.
    """
    experiment, whole = study["mask"]
    for die, last in {
        "half a checkpoint": 2,
        "before a checkpoint is renamed": 4,
        "after a checkpoint is renamed": 7,
        "half a record": 14,
        "before the record is cleared up": 14,
    }.items():
        process = started(train, experiment, tmp_path, die)
        process.join()
        assert process.exitcode == -signal.SIGKILL, die
        assert epochs(tmp_path, experiment)[-1] == last, die
        assert (tmp_path / experiment.name).exists() == (die == "before the record is cleared up")
    run = experiment.run(tmp_path, progress=False)
    assert files(run) == files(whole) and not run.damaged
    rest = [name for name in left(tmp_path) if not name.startswith(f".{run.name}.")]
    assert rest == [".weights", run.name]


# --- stopped --------------------------------------------------------------------------------------


def command(arguments, output):
    """`supermask` with these arguments, what it prints going to a file."""
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os._exit(cli.main(arguments))


def wait_for(condition, process=None, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.is_alive()), (
            "it did not come"
        )
        time.sleep(0.002)


@pytest.mark.long
def test_stopped_by_a_signal(study, tmp_path):
    """SIGTERM and Ctrl-C end a run between two steps, with the epoch to go on from; the same
    command then finishes it.
    """
    experiment, whole = study["drawn mask"]
    arguments = ["run", str(whole.path / "experiment.json"), "--directory", str(tmp_path / "study")]
    for number, code, after in ((signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 6)):
        process = started(command, arguments, tmp_path / f"told {code}")
        wait_for(lambda: epochs(tmp_path / "study", experiment)[-1:] >= [after], process)
        os.kill(process.pid, number)
        process.join()
        kept = epochs(tmp_path / "study", experiment)
        told = (tmp_path / f"told {code}").read_text()
        assert process.exitcode == code, told
        assert (
            told.splitlines()[-1]
            == f"supermask: {experiment.name} was stopped in epoch {kept[-1] + 1} of 14: the same"
            f" command goes on after epoch {kept[-1]}, the last one kept."
        )
        assert "Traceback" not in told and len(kept) == 2
    process = started(command, arguments, tmp_path / "then")
    process.join()
    assert (
        process.exitcode == 0
        and f"goes on after epoch {kept[-1]}" in (tmp_path / "then").read_text()
    )
    assert files(Run.load(tmp_path / "study" / experiment.name)) == files(whole)


@pytest.mark.long
def test_study_stopped_and_started_again(tmp_path):
    """SIGTERM to `supermask study` ends the kernel too; the same command goes on with the run that
    was in hand, to the same bits.
    """
    (tmp_path / "mine.yml").write_text(
        "runs:\n  mask: {arm: mask, model: lenet_300_100, epochs: 40, learning_rate: 0.1, augment:"
        " false}\n"
    )
    experiment = Experiment(
        arm="mask", model="lenet_300_100", epochs=40, learning_rate=0.1, augment=False
    )
    directory, call = (
        tmp_path / "runs" / "mine",
        [
            sys.executable,
            "-m",
            "supermask_tf.cli",
            "study",
            "mine.yml",
        ],
    )
    process = subprocess.Popen(
        call, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for(lambda: epochs(directory, experiment)[-1:] >= [3] or process.poll() is not None)
    process.terminate()
    told, _ = process.communicate(timeout=300)
    assert (
        process.returncode == 143
        and "the same command goes on" in told.splitlines()[-1]
        and "never retrieved" not in told
    ), told
    kept = epochs(directory, experiment)
    assert not (directory / experiment.name).exists() and len(kept) == 2
    with records.lock(directory / experiment.name):  # the kernel is gone, or this would wait
        assert epochs(directory, experiment) == kept
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and f"goes on after epoch {kept[-1]}" in done.stdout, done.stderr
    run, whole = (
        Run.load(directory / experiment.name),
        experiment.run(tmp_path / "whole", progress=False),
    )
    assert {
        name: content for name, content in files(run).items() if name != "notebook.ipynb"
    } == files(whole)
    assert left(directory) == sorted([run.name, ".failed", ".weights"])


class Stop(Exception):
    pass


def stopped(experiment, directory, epoch):
    """Run an experiment until an epoch is kept, in this process."""
    write = Checkpoints.write

    def stop(self, number, *state):
        write(self, number, *state)
        if number == epoch:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoints, "write", stop)
        with pytest.raises(Stop):
            experiment.run(directory, progress=False)


@pytest.fixture(scope="module")
def begun(study, tmp_path_factory):
    """The folder of the mask run stopped after an epoch before the rate falls: the schedule waits.
    To be copied.
    """
    experiment, whole = study["mask"]
    rates = whole.history.learning_rate
    waiting = next(epoch for epoch in range(2, 13) if rates[epoch] < rates[epoch - 1]) - 1
    directory = tmp_path_factory.mktemp("begun") / "study"
    stopped(experiment, directory, waiting)
    return directory


@pytest.fixture
def copy(begun, tmp_path):
    """A copy of `begun`."""
    return Path(shutil.copytree(begun, tmp_path / "study"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "left_out", ["optimizer", "schedule", "best epoch", "learning rate", "first epoch"]
)
def test_everything_kept_is_needed(study, copy, monkeypatch, left_out):
    """Without any one of the things kept a run ends elsewhere: the comparison above can fail."""
    experiment, whole = study["mask"]
    restore, training_batches = checkpoints.restore, data.training_batches

    def forget(model, watch, facts, arrays):
        restore(model, watch, facts, arrays)
        if left_out == "optimizer":
            for variable in model.optimizer.variables:
                variable.assign(np.zeros_like(variable.numpy()))
        elif left_out == "schedule":
            watch.plateau = {}
        elif left_out == "best epoch":
            watch.best_accuracy, watch.best_weights = (
                2.0,
                [np.zeros_like(array) for array in watch.best_weights],
            )
        elif left_out == "learning rate":
            model.optimizer.learning_rate = experiment.learning_rate * 3

    monkeypatch.setattr(checkpoints, "restore", forget)
    if left_out == "first epoch":
        monkeypatch.setattr(
            data, "training_batches", lambda *a, **k: training_batches(*a, **k | {"first_epoch": 0})
        )
    assert files(experiment.run(copy, progress=False)) != files(whole)


# --- what is in the way ---------------------------------------------------------------------------


@pytest.mark.slow
def test_damaged_checkpoints(study, copy):
    """A checkpoint cut short at ten places, or changed in one bit, is named, and the one before it
    used; with both gone the run begins again.
    """
    experiment, whole = study["mask"]
    kept = Checkpoints(copy / experiment.name)
    old, new = sorted(kept.folder.iterdir())
    before = int(old.name.partition("-")[0])
    content = new.read_bytes()
    for cut in [
        0,
        1,
        4,
        30,
        1000,
        *(len(content) * k // 5 for k in (1, 2, 3, 4)),
        len(content) - 1,
    ]:
        new.write_bytes(content[:cut])
        with pytest.warns(
            RuntimeWarning, match=f"{new.name} is damaged .*the one before it is used"
        ):
            kept.newest()
        assert kept.epoch == before
    middle = len(content) // 2
    new.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.warns(RuntimeWarning, match="its checksum is another"):
        run = experiment.run(copy, progress=False)
    assert files(run) == files(whole)


@pytest.mark.slow
def test_no_checkpoint_is_whole(study, copy):
    """With both epochs damaged the run begins again."""
    experiment, whole = study["mask"]
    for path in Checkpoints(copy / experiment.name).folder.iterdir():
        path.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert files(experiment.run(copy, progress=False)) == files(whole)


@pytest.mark.slow
def test_checkpoint_of_other_data(npz, tmp_path, capsys):
    """Epochs trained on other data under the same path are not gone on from."""
    settings = LENET | {"epochs": 2, "augment": False}
    stopped(Experiment(dataset=npz(train=60), **settings), tmp_path / "study", 1)
    experiment = Experiment(dataset=npz(train=60, seed=1), **settings)
    run = experiment.run(tmp_path / "study", progress=False)
    assert "other data or another parent: they are not used" in capsys.readouterr().out
    assert files(run) == files(experiment.run(tmp_path / "whole", progress=False))


@pytest.mark.slow
def test_a_run_that_moved_says_so(study, copy, monkeypatch):
    """A record made on two machines names both."""
    experiment, whole = study["mask"]
    here = devices.machine()
    monkeypatch.setattr(devices, "machine", lambda: here | {"threads": 99})
    run = experiment.run(copy, progress=False)
    assert (
        run.summary["threads"] == 99
        and run.summary["earlier_machines"] == [here]
        and "earlier_machines" not in whole.summary
    )


@pytest.mark.slow
def test_another_keras_does_not_go_on(study, copy, monkeypatch):
    """Its optimizers hold other variables: a sentence says so before anything trains, and the
    epochs stay.
    """
    experiment, _ = study["mask"]
    here = devices.machine()
    other = {"2": "3.15.1", "3": "2.15.0"}[here["versions"]["keras"][0]]
    there = here | {"versions": here["versions"] | {"keras": other}}
    monkeypatch.setattr(devices, "machine", lambda: there)
    with pytest.raises(ValueError, match=f"epochs trained with Keras .*Keras {other} can't go on"):
        experiment.run(copy, progress=False)
    assert Checkpoints(copy / experiment.name).newest() is not None


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB, on which two epochs fit and a third does not."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], capture_output=True
    ).returncode:
        pytest.skip(
            "no tmpfs can be mounted here; the limit on the size of files is tested instead"
        )
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_full_disk(study, small_disk):
    """A disk that is full costs the epochs that it does not take, and in the end the record; with
    room again the same command goes on.
    """
    experiment, whole = study["mask"]
    begin = records.write_run
    filler = small_disk / "filler"

    def fill(*arguments):
        with open(filler, "wb") as stream, pytest.raises(OSError):
            while True:
                stream.write(bytes(4096))
                stream.flush()
        return begin(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "write_run", fill)
        with pytest.warns(
            RuntimeWarning,
            match=(
                r"Epoch \d+ was not kept .*No space left on device.*: training goes on; if it is"
                r" stopped it begins again after epoch \d+"
            ),
        ):
            with pytest.raises(
                OSError,
                match=(
                    r"could not be written \(No space left on device\): make room there, and give"
                    r" the same command; it goes on after epoch 2 of 14"
                ),
            ):
                experiment.run(small_disk / "study", progress=False)
    assert epochs(small_disk / "study", experiment) == [1, 2]
    assert set(left(small_disk / "study")) <= {".checkpoints", ".weights"}
    filler.unlink()
    with warnings.catch_warnings(record=True):
        run = experiment.run(small_disk / "study", progress=False)
    assert files(run) == files(whole)
    assert set(left(small_disk / "study")) == {".weights", run.name}


def limited(experiment, directory, size, output):
    """Run with files of at most `size` bytes."""
    with open(output, "w") as stream:
        os.dup2(stream.fileno(), 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            experiment.run(directory, progress=False)
        except OSError as error:
            os._exit(3 if "could not be written (File too large)" in str(error) else 4)


@pytest.mark.long
@pytest.mark.parametrize(
    "size, code", [(200_000, 0), (3_000, 3)], ids=["no checkpoint fits", "nor does the record"]
)
def test_files_that_may_not_grow(study, tmp_path, size, code):
    """Where no file may grow that far, nothing is kept and the record comes out all the same; if it
    can't either, that is told.
    """
    experiment, whole = study["mask"]
    process = started(limited, experiment, tmp_path / "study", size, tmp_path / "told")
    process.join()
    assert process.exitcode == code
    if code == 0:
        assert files(Run.load(tmp_path / "study" / experiment.name)) == files(whole)
    else:
        assert left(tmp_path / "study") in ([], [".weights"]) and files(
            experiment.run(tmp_path / "study", progress=False)
        ) == files(whole)


@pytest.mark.slow
def test_folder_becomes_read_only(study, tmp_path, monkeypatch):
    """A study's folder that becomes read-only costs what can't be written; the epochs kept stay,
    and training goes on from them.
    """
    experiment, whole = study["mask"]
    directory = tmp_path / "study"
    root = os.geteuid() == 0  # root writes where it may not, but not where nobody can
    write = Checkpoints.write

    def locked(self, number, *state):
        if number == 4 and root:
            if subprocess.run(
                ["mount", "--bind", directory, directory], capture_output=True
            ).returncode:
                pytest.skip("root writes everywhere, and nothing can be mounted here")
            subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
        elif number == 4:
            for folder in (directory, self.folder):
                folder.chmod(0o555)
        write(self, number, *state)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", locked)
        try:
            with (
                pytest.warns(RuntimeWarning, match="Epoch 4 was not kept"),
                pytest.raises(OSError, match="it goes on after epoch 3 of 14"),
            ):
                experiment.run(directory, progress=False)
        finally:
            if root:
                subprocess.run(["umount", "-l", directory], check=False)
            else:
                for folder in (directory, Checkpoints(directory / experiment.name).folder):
                    folder.chmod(0o755)
    assert epochs(directory, experiment) == [2, 3]
    assert files(experiment.run(directory, progress=False)) == files(whole)


# --- two processes --------------------------------------------------------------------------------


@pytest.mark.long
def test_two_processes_asked_for_the_same_run(study, tmp_path):
    """One works; the other says that it waits, and takes over when the first is killed; a third
    finds the record.
    """
    experiment, whole = study["drawn mask"]
    arguments = ["run", str(whole.path / "experiment.json"), "--directory", str(tmp_path / "study")]
    one = started(command, arguments, tmp_path / "one")
    wait_for(lambda: epochs(tmp_path / "study", experiment)[-1:] >= [2], one)
    os.kill(one.pid, signal.SIGSTOP)
    other, third = (started(command, arguments, tmp_path / name) for name in ("other", "third"))
    for process, name in ((other, "other"), (third, "third")):
        wait_for(
            lambda: (
                (tmp_path / name).exists()
                and "is being run by another process: waiting" in (tmp_path / name).read_text()
            ),
            process,
        )
    one.kill()
    for process in (one, other, third):
        process.join()
    assert (other.exitcode, third.exitcode) == (0, 0)
    told = sorted(
        ((tmp_path / name).read_text() for name in ("other", "third")),
        key=lambda text: "goes on after epoch" not in text,
    )
    assert "goes on after epoch" in told[0] and "record in" in told[0]
    assert "finished already: its record is used" in told[1] and "epoch  14/14" not in told[1]
    assert files(Run.load(tmp_path / "study" / experiment.name)) == files(whole)
