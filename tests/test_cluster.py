"""Running a study: parents first, nothing twice, on after a failure; on a cluster whose workers die
or share no disk.
"""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import dask
import distributed
import psutil
import pytest
import yaml

from supermask_tf import cli, cluster, records
from supermask_tf.experiment import Experiment
from supermask_tf.records import Run
from supermask_tf.records.reading import FILES
from supermask_tf.studies.cluster import run_study
from supermask_tf.studies.study import Study

ROOT = Path(__file__).resolve().parents[1]


THREE = (
    "runs:\n  f: {arm: finetune, from: m}\n  w: {arm: weights, seed: [0, 1]}\n  m: {arm: mask,"
    " seed: [0, 1]}\n"
)


@pytest.fixture
def pretended(monkeypatch):
    """Runs that leave an empty record at once; those whose names are in `broken` fail. Returns what
    ran, in order.
    """
    ran = []
    broken = set()

    def run(experiment, directory, *_):
        ran.append(experiment.name)
        if experiment.name in broken:
            raise RuntimeError("first line\nthe loss became nan")
        (directory / experiment.name).mkdir(parents=True)
        for file in FILES:
            (directory / experiment.name / file).write_text("{}")

    monkeypatch.setattr(cluster, "run_notebook", run)
    return ran, broken


def test_runs_parents_first_and_nothing_twice(load, pretended, tmp_path):
    """Every run once, in order; a second time all of it is there."""
    made, (ran, _) = load(THREE), pretended
    outcome = run_study(made, tmp_path / "out", io.StringIO(), workers=1)
    names = [experiment.name for experiment in made.experiments]
    assert ran == names == list(outcome) and set(outcome.values()) == {"finished"}
    assert run_study(made, tmp_path / "out", io.StringIO(), workers=1) == dict.fromkeys(
        names, "finished before"
    )
    assert ran == names


def test_goes_on_after_a_failure(load, pretended, tmp_path):
    """A failed run is tried once more and then costs its own children, not the others; the next
    call tries it again.
    """
    made, (ran, broken) = load(THREE), pretended
    by = {(e.arm, e.seed): e.name for e in made.experiments}
    broken.add(by["mask", 0])
    outcome = run_study(made, tmp_path / "out", io.StringIO(), workers=1)
    assert by["finetune", 0] not in ran and len(ran) == 6 and ran.count(by["mask", 0]) == 2
    assert (
        "RuntimeError: first line"
        in (tmp_path / "out" / ".failed" / f"{by['mask', 0]}.txt").read_text()
    )
    assert outcome[by["mask", 0]].startswith("failed: the loss became nan (notebook: ")
    assert outcome[by["finetune", 0]] == f"left out: its parent {by['mask', 0]} has no record"
    assert [
        outcome[by[key]] for key in (("mask", 1), ("finetune", 1), ("weights", 0), ("weights", 1))
    ] == ["finished"] * 4
    broken.clear()
    again = run_study(made, tmp_path / "out", io.StringIO(), workers=1)
    assert (
        again[by["mask", 0]] == again[by["finetune", 0]] == "finished"
        and again[by["weights", 0]] == "finished before"
    )
    assert list((tmp_path / "out" / ".failed").iterdir()) == []


def test_a_run_that_fails_once(load, pretended, tmp_path, monkeypatch):
    """What went wrong by accident is put right by the second try, and its child runs."""
    made, (ran, broken) = load(THREE), pretended
    broken.add(made.experiments[0].name)
    once = cluster.run_notebook

    def heals(experiment, *rest):
        try:
            once(experiment, *rest)
        finally:
            broken.clear()

    monkeypatch.setattr(cluster, "run_notebook", heals)
    assert set(run_study(made, tmp_path / "out", io.StringIO(), workers=1).values()) == {"finished"}
    assert (
        ran[:2] == [made.experiments[0].name] * 2
        and len(ran) == 7
        and list((tmp_path / "out" / ".failed").iterdir()) == []
    )


@pytest.mark.parametrize("fails, code", [(False, 0), (True, 1)])
def test_exit_code(load, pretended, tmp_path, capsys, fails, code):
    """The command fails if a run did, after a table that says what happened to each."""
    made, (_, broken) = load(THREE), pretended
    if fails:
        broken.add(made.experiments[0].name)
    assert (
        cli.main(
            [
                "study",
                str(tmp_path / "mine.yml"),
                "--directory",
                str(tmp_path / "out"),
                "--workers",
                "1",
            ]
        )
        == code
    )
    out = capsys.readouterr().out
    assert all(experiment.name in out for experiment in made.experiments) and (
        "failed: " in out
    ) == fails == ("left out: " in out)
    assert out.endswith("4 finished, 1 failed, 1 left out\n" if fails else "6 finished\n")


def test_plan(load, pretended, tmp_path, capsys):
    """--plan tells what is finished and what is to run, and runs nothing."""
    made, (ran, _) = load(THREE), pretended
    cluster.run_notebook(made.experiments[0], tmp_path / "out")
    del ran[:]
    assert (
        cli.main(
            ["study", str(tmp_path / "mine.yml"), "--directory", str(tmp_path / "out"), "--plan"]
        )
        == 0
    )
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert not ran and lines[0] == ["finished", made.blocks[0], made.experiments[0].name]
    assert [line[-1] for line in lines] == [e.name for e in made.experiments] and all(
        line[:2] == ["to", "run"] for line in lines[1:]
    )


@pytest.mark.long
def test_study_through_papermill(tmp_path, monkeypatch, capfd):
    """A mask run and its child leave records with executed notebooks that name no folder of this
    machine; a run that fails leaves a notebook aside.
    """
    monkeypatch.chdir(tmp_path)
    Path("no.npz").write_text("no arrays")
    Path("tiny.yml").write_text(
        "title: A tiny study\nruns:\n  finetune: {arm: finetune, from: mask, epochs: 1}\n  broken:"
        " {arm: weights, dataset: no.npz, model: lenet_300_100, epochs: 1, augment: false}\n"
        "  mask: {arm: mask, model: lenet_300_100, epochs: 1, learning_rate: 0.1, augment: false}\n"
    )
    made = Study.load("tiny.yml")
    assert cli.main(["study", "tiny.yml"]) == 1
    directory = Path("runs/tiny")
    out = capfd.readouterr().out
    for experiment, block in zip(made.experiments, made.blocks):
        if block == "broken":
            assert (
                not (directory / experiment.name).exists()
                and (directory / ".failed" / f"{experiment.name}.ipynb").is_file()
            )
            told = f"{experiment.name}  failed: ValueError: {experiment.dataset} can't be read as"
            assert told in out
            continue
        run = Run.load(directory / experiment.name)
        assert run.damaged == [] and Experiment.load(run.path / "experiment.json") == experiment
        assert not (directory / ".failed" / f"{experiment.name}.ipynb").exists()
        text = (run.path / "notebook.ipynb").read_text()
        for folder in (tmp_path, ROOT, Path.home() / ".", Path(sys.prefix)):
            assert f"{folder}/" not in text, f"the notebook of {block} names {folder}"
        assert "epoch   1/1" in "".join(
            "".join(output.get("text", ""))
            for cell in json.loads(text)["cells"]
            for output in cell.get("outputs", [])
        )
    assert [run.name for run in records.load_runs(directory)] == sorted(
        e.name for e, b in zip(made.experiments, made.blocks) if b != "broken"
    )


# --- on a cluster ---------------------------------------------------------------------------------

STUB = str(Path(__file__).with_name("worker_stub.py"))
LENET = "model: lenet_300_100, epochs: 1, augment: false"


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Workers pretend to train (see worker_stub.py); returns a function that reads their log:
    (start or end, run, process).
    """
    path = tmp_path / "log"
    path.touch()
    monkeypatch.setenv("SUPERMASK_TEST_LOG", str(path))
    with dask.config.set({"distributed.worker.preload": [STUB]}):
        yield lambda: [tuple(line.split()) for line in path.read_text().splitlines()]


@pytest.fixture
def hang(tmp_path):
    """A function that has a run hang once, until its worker is killed."""
    return lambda experiment: (tmp_path / f"log.{experiment.name}").touch()


def until(true, seconds=300):
    """Wait until a function returns something true, and return that."""
    end = time.time() + seconds
    while not (found := true()):
        assert time.time() < end, "it never came true"
        time.sleep(0.02)
    return found


@pytest.mark.slow
def test_killed_workers(load, log, hang, tmp_path):
    """12 runs on two workers, of which one is killed in the middle of a run, twice: every record
    whole, no finished run done again.
    """
    made = load(
        f"runs:\n  mask: {{arm: mask, {LENET}, seed: [0, 1, 2, 3, 4, 5, 6, 7]}}\n  w: {{arm:"
        f" weights, {LENET}, seed: [0, 1]}}\n  long: {{arm: weights_long, from: w, epochs: 1}}\n"
    )
    killed = [made.experiments[2], made.experiments[7]]
    for experiment in killed:
        hang(experiment)

    def kill():
        for experiment in killed:
            started = until(
                lambda: [process for _, name, process in log() if name == experiment.name]
            )
            os.kill(int(started[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    outcome = run_study(made, tmp_path / "out", io.StringIO(), workers=2)
    killer.join()
    assert len(outcome) == 12 and set(outcome.values()) == {"finished"}
    ended, started = (
        [name for what, name, _ in log() if what == wanted] for wanted in ("end", "start")
    )
    assert sorted(ended) == sorted(outcome)
    assert sorted(started) == sorted([*outcome, *(experiment.name for experiment in killed)])
    found = records.load_runs(tmp_path / "out")
    assert [run.name for run in found] == sorted(outcome) and not [
        run.damaged for run in found if run.damaged
    ]
    # A third worker, or a fourth too, did what was left.
    assert len({process for _, _, process in log()}) >= 3
    assert {run.summary["threads"] for run in found} == {max(1, cluster._cores() // 2)}


@pytest.mark.slow
def test_failures_on_a_cluster(load, log, tmp_path, capsys):
    """A run that fails there is tried twice and set aside with its traceback; its child is left
    out, the others finish, the exit code is 1.
    """
    made = load(
        f"runs:\n  bad: {{arm: weights, {LENET}, learning_rate: 1.0e+30, batch_size: 500}}\n "
        f" child: {{arm: weights_long, from: bad, epochs: 1}}\n  good: {{arm: mask, {LENET}, seed:"
        " [0, 1]}\n"
    )
    directory = tmp_path / "out"
    assert (
        cli.main(
            ["study", str(tmp_path / "mine.yml"), "--directory", str(directory), "--workers", "2"]
        )
        == 1
    )
    bad, child, *good = (experiment.name for experiment in made.experiments)
    out = capsys.readouterr().out
    assert re.search(r"^dashboard: http://127\.0\.0\.1:\d+/status$", out, re.M)
    assert f"{bad}  failed, is tried once more: The loss became" in out and out.endswith(
        "2 finished, 1 failed, 1 left out\n"
    )
    assert f"  {child}  left out: its parent {bad} has no record" in out
    assert [name for what, name, _ in log() if what == "start"].count(bad) == 2
    assert (
        "FloatingPointError" in (directory / ".failed" / f"{bad}.txt").read_text()
        and not (directory / bad).exists()
    )
    assert {run.name for run in records.load_runs(directory)} == set(good)
    assert [path.name for path in directory.iterdir() if path.name.startswith(".client")] == []


@pytest.fixture
def start(tmp_path):
    """A function that starts a Dask process and returns it; all of them end with the test."""
    started = []

    def start(folder, *arguments, **environment):
        (tmp_path / folder).mkdir(exist_ok=True)
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                cwd=tmp_path / folder,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def scheduled(start, tmp_path):
    """A scheduler's process and its address."""
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    process = start("scheduler", "scheduler", *options, "--scheduler-file", "file.json")
    file = tmp_path / "scheduler" / "file.json"

    def address():
        with suppress(FileNotFoundError, json.JSONDecodeError):  # not there, or not yet whole
            return json.loads(file.read_text())["address"]

    return process, until(address)


def work(start, folder, address, **environment):
    """A worker's process."""
    options = ["--no-dashboard", "--no-nanny", "--nthreads", "1", "--local-directory", "."]
    return start(folder, "worker", address, *options, "--preload", STUB, **environment)


@pytest.mark.slow
def test_workers_that_share_no_disk(load, log, start, tmp_path):
    """Records come back whole; a child on a worker that never saw its parent gets the record and
    the weights; a worker that goes away is replaced.
    """
    made = load(
        f"runs:\n  w: {{arm: weights, {LENET}}}\n  long: {{arm: weights_long, from: w, epochs: [1,"
        " 2]}\n"
    )
    parent, *children = (experiment.name for experiment in made.experiments)
    _, address = scheduled(start, tmp_path)

    directory, outcome = tmp_path / "out", {}
    study = threading.Thread(
        target=lambda: outcome.update(run_study(made, directory, io.StringIO(), scheduler=address))
    )
    study.start()
    first = work(start, "one", address, SUPERMASK_TEST_FAR="1")
    until((directory / parent / "summary.json").exists)
    first.kill()
    work(start, "two", address, SUPERMASK_TEST_FAR="1")
    study.join()
    assert outcome == dict.fromkeys(outcome, "finished") and len(outcome) == 3
    for run in records.load_runs(directory):
        assert run.damaged == [] and (run.path / "notebook.ipynb").is_file()
    weights = [path.read_bytes() for path in tmp_path.glob(f"*/**/.weights/{parent}.npz")]
    assert len(weights) == 3 and len(set(weights)) == 1, "made once, sent to the client, sent on"
    assert [path.name for path in (directory / ".weights").iterdir()] == [f"{parent}.npz"], (
        "no child needs the others"
    )
    assert [name for what, name, _ in log() if what == "end"].count(parent) == 1
    assert not list((tmp_path / "two").glob(f"**/{parent}/notebook.ipynb.*")) and list(
        (tmp_path / "two").glob(f"**/{children[0]}/summary.json")
    )


def command_line(process):
    try:
        return process.cmdline()
    except psutil.Error:  # it has just ended
        return []


@pytest.mark.long
def test_interrupted(tmp_path):
    """Ctrl-C ends the command and its notebooks, in a sentence, and leaves no half of a record."""
    (tmp_path / "mine.yml").write_text("runs:\n  m: {arm: mask, epochs: 1000, seed: [0, 1]}\n")
    command = subprocess.Popen(
        [sys.executable, "-m", "supermask_tf.cli", "study", "mine.yml", "--workers", "2"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )

    def kernels():
        return [
            child
            for child in psutil.Process(command.pid).children(recursive=True)
            if "ipykernel_launcher" in command_line(child)
        ]

    until(lambda: len(kernels()) == 2)
    running = kernels()
    os.killpg(command.pid, signal.SIGINT)  # as a terminal does
    try:
        _, told = command.communicate(timeout=300)
    except subprocess.TimeoutExpired:  # a thousand epochs would go on beside the other tests
        for process in (command, *running):
            process.kill()
        raise
    assert (
        command.returncode == 130
        and "supermask: stopped; the same command goes on with what is not finished.\n" in told
    )
    assert "Traceback" not in told
    assert psutil.wait_procs(running, timeout=300)[1] == []
    assert [
        path
        for path in (tmp_path / "runs" / "mine").iterdir()
        if path.name not in (".failed", ".checkpoints", ".locks")
    ] == []


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--workers", "0"], ["workers=0 is out of range", "at least 1"]),
        (
            ["--workers", "2", "--scheduler", "tcp://127.0.0.1:1"],
            ["workers=2 does not go with scheduler='tcp://127.0.0.1:1'"],
        ),
        (
            ["--scheduler", "nonsense://127.0.0.1:1"],
            ["scheduler='nonsense://127.0.0.1:1' does not answer", "dask scheduler"],
        ),
    ],
)
def test_bad_options(load, tmp_path, capsys, arguments, words):
    """A mistake in where to run is one sentence and exit code 2."""
    load(THREE)
    assert (
        cli.main(
            ["study", str(tmp_path / "mine.yml"), "--directory", str(tmp_path / "out"), *arguments]
        )
        == 2
    )
    told = capsys.readouterr().err
    assert all(word in told for word in words) and told.count("\n") == 1


@pytest.mark.slow
def test_a_scheduler_that_goes_away(load, log, hang, start, tmp_path):
    """Its runs are lost, what was finished is not: one sentence, and the same command goes on."""
    made = load(f"runs:\n  m: {{arm: mask, {LENET}, seed: [0, 1, 2]}}\n")
    hang(made.experiments[1])
    scheduler, address = scheduled(start, tmp_path)
    work(start, "worker", address)
    command = subprocess.Popen(
        [sys.executable, "-m", "supermask_tf.cli", "study", "mine.yml", "--scheduler", address],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: [what for what, *_ in log()].count("start") == 2)
    scheduler.kill()
    _, told = command.communicate(timeout=300)
    assert (
        command.returncode == 2
        and "supermask: The scheduler is gone" in told
        and "give the same command" in told
    ), told
    assert len(records.load_runs(tmp_path / "runs" / "mine")) == 1


def test_a_wait_that_takes_long(monkeypatch):
    """In Python 3.10 what Dask raises then is not the built-in TimeoutError: a study would end with
    its first second.
    """

    class Late(Exception):
        pass

    def wait(*_, **__):
        raise Late

    monkeypatch.setattr(distributed, "TimeoutError", Late)
    monkeypatch.setattr(distributed, "wait", wait)
    assert cluster._Cluster.finished(None, {"ticket": None}) == []


def test_a_strategy_takes_all_devices(load, pretended, tmp_path, monkeypatch):
    """A GPU each would leave a mirrored run with one; several at a time are refused."""
    made = load("runs:\n  m: {arm: mask, strategy: mirrored, seed: [0, 1]}\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    seen = []
    monkeypatch.setattr(
        cluster,
        "_attempt",
        lambda experiment, directory, environment, *_: seen.append(environment) or {},
    )
    run_study(made, tmp_path / "out", io.StringIO())
    assert len(seen) == 2 and not any("CUDA_VISIBLE_DEVICES" in environment for environment in seen)
    with pytest.raises(ValueError, match="workers=2 does not go with strategy='mirrored'"):
        run_study(made, tmp_path / "out", io.StringIO(), workers=2)


def test_a_gpu_a_worker(monkeypatch):
    """As many workers as the GPUs that may be used; without one, no more than the memory allows."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert cluster._workers() == 3 and cluster._gpus() == ["0", "3", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert cluster._gpus() == [] and 1 <= cluster._workers() <= cluster._cores()
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 2**30)
    assert cluster._workers() == 1


# --- the example files of the book's page on scale ------------------------------------------------

SCALE = ROOT / "book" / "scale"


@pytest.mark.slow
def test_slurm_script(load, log, tmp_path):
    """It runs a study as it stands, where `srun` starts what it is told twice, and clears up after
    itself.
    """
    load(f"runs:\n  m: {{arm: mask, {LENET}, seed: [0, 1]}}\n")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "srun").write_text(
        '#!/bin/bash\n[ "$1 $2" = "--cpus-per-task 2" ] || exit 1\nshift 2\n"$@" & "$@" & wait\n'
    )
    (tools / "srun").chmod(0o755)
    path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        "PATH": path,
        "PYTHONPATH": str(ROOT),
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(tmp_path),
        "TMPDIR": str(tools),
        "DASK_DISTRIBUTED__WORKER__PRELOAD": f"['{STUB}']",
    }
    done = subprocess.run(
        ["bash", str(SCALE / "slurm.sh"), "mine.yml"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.endswith("2 finished\n")
        and len(records.load_runs(tmp_path / "runs" / "mine")) == 2
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".dask")] == []


def test_kubernetes_manifests():
    """They can be read, name each other rightly, and their commands are the ones that there are."""
    parts = {
        (part["kind"], part["metadata"]["name"]): part
        for part in yaml.safe_load_all((SCALE / "kubernetes.yml").read_text())
    }
    service = parts["Service", "supermask-scheduler"]
    address = f"tcp://supermask-scheduler:{service['spec']['ports'][0]['port']}"
    pods = {
        name: part["spec"]["template"]
        for (kind, name), part in parts.items()
        if kind in ("Deployment", "Job")
    }
    assert pods["supermask-scheduler"]["metadata"]["labels"] == service["spec"]["selector"]
    commands = {}
    for name, pod in pods.items():
        (container,) = pod["spec"]["containers"]
        commands[name] = container["command"]
        assert container["image"] == "supermask"
        assert {mount["name"] for mount in container.get("volumeMounts", [])} == {
            volume["name"] for volume in pod["spec"].get("volumes", [])
        }
    assert commands["supermask-worker"][:3] == ["dask", "worker", address]
    options = cli._parser().parse_args(commands["supermask-study"][1:])
    assert options.scheduler == address and (ROOT / options.file).is_file()
    claim = pods["supermask-study"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert ("PersistentVolumeClaim", claim) in parts


@pytest.mark.slow
@pytest.mark.parametrize("command", ["scheduler", "worker"])
def test_dask_commands_have_the_options_we_use(command):
    """The options of the example files are Dask's."""
    told = subprocess.run(
        [sys.executable, "-m", "dask", command, "--help"], capture_output=True, text=True
    ).stdout
    used = re.findall(
        rf"\bdask,? {command}\b(.*)",
        (SCALE / "slurm.sh").read_text() + (SCALE / "kubernetes.yml").read_text(),
    )
    options = set(re.findall(r"--[a-z-]+", " ".join(used)))
    assert len(used) == 2 and options and all(option in told for option in options)
