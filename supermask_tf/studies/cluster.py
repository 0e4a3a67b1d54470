"""Running a study: parents first, nothing twice, on this machine or on a Dask cluster. No
TensorFlow. ::

    run_study(Study.load("runs/studies/first.yml"), "runs/first", workers=2)

What is finished is what has a record in the study's folder. Nothing else is remembered from one
call to the next, so the same call goes on after whatever stopped the last one.
"""

import os
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import records
from ..experiment import ARMS, Experiment
from ..records import Run
from .study import Study, run_notebook

__all__ = ["run_study"]


def run_study(
    study: Study,
    directory: str | Path,
    output=None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> dict[str, str]:
    """Run what is not finished, parents first; go on when a run fails, without its children.

    A run that fails is tried once more, then set aside in `<directory>/.failed/`: its notebook and
    its traceback. A run whose worker dies starts again on another one. SIGINT ends the runs and
    raises `KeyboardInterrupt`.

    Args:
        directory: where the records go, one folder per run.
        output: a text stream for progress (default: standard output).
        workers: how many runs at a time on this machine, each in a process of its own with an equal
            share of the cores (or a GPU, where there are some). Default: one per GPU, or else one
            per core with 2 GB of memory each (two runs of a thread each get further than one of two
            threads: `make bench` measures it). The share is cores // `workers`, however few runs
            are left: the number of threads decides the last bits of a result. One at a time needs
            no cluster and shows what the notebook prints, and so does a study with a `strategy`,
            whose runs take all devices.
        scheduler: the address of a Dask scheduler ("tcp://host:8786") whose workers are to run the
            study, each as many runs at a time as it has threads; a worker that does not see
            `directory` sends its records back.

    Returns:
        What happened to each run, by its name: "finished before", "finished", "failed: ..." or
        "left out: ...".

    Raises:
        ValueError: if `workers` is less than 1, is given together with `scheduler`, or is more than
            1 for runs with a `strategy`.
        PermissionError, FileExistsError: if `directory` can't be written to, or is not a study's.
        ConnectionError: if no scheduler answers at `scheduler`, or it goes away.
    """
    workers = _checked_workers(study, workers, scheduler)
    directory, output = Path(directory), output or sys.stdout
    outcome = {
        e.name: "finished before"
        for e in study.experiments
        if (directory / e.name / "summary.json").exists()
    }
    left = len(study.experiments) - len(outcome)
    if left:
        records.check_writable(directory)
        workers = workers or (None if scheduler else _workers())
        with _pool(study, directory, output, workers, left, scheduler) as pool:
            _Progress(study, directory, outcome, pool, output).run()
    return {experiment.name: outcome[experiment.name] for experiment in study.experiments}


def _checked_workers(study: Study, workers: int | None, scheduler: str | None) -> int | None:
    """How many runs at a time this machine is asked for; None where that is to be found out."""
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} is out of range: give at least 1.")
    if workers is not None and scheduler is not None:
        raise ValueError(
            f"workers={workers} does not go with scheduler={scheduler!r}, which has its own"
            " workers: leave one out."
        )
    strategy = next((e.strategy for e in study.experiments if e.strategy), None)
    if strategy and (workers or 1) > 1:
        raise ValueError(
            f"workers={workers} does not go with strategy={strategy!r}, under which a run takes all"
            " devices: leave workers out."
        )
    return 1 if strategy and not scheduler else workers


class _Progress:
    """A study on its way: what waits, what runs, and what became of the rest.

    Args:
        outcome: what became of each run, by its name; those that have none yet are run.
        pool: what runs them; see `_pool`.
    """

    def __init__(self, study: Study, directory: Path, outcome: dict[str, str], pool, output):
        self.study, self.directory, self.outcome = study, directory, outcome
        self.pool, self.output = pool, output
        self.names = {experiment.name for experiment in study.experiments}
        self.waiting = [e for e in study.experiments if e.name not in outcome]
        self.running: dict[Any, Experiment] = {}
        self.failed_once: set[str] = set()

    def run(self) -> None:
        """Give the pool each run when its parent is finished, and write down what becomes of it."""
        from tqdm import tqdm

        shown = ""
        with tqdm(
            desc=self.study.name,
            total=len(self.study.experiments),
            initial=len(self.outcome),
            unit="run",
            file=sys.stderr,
            dynamic_ncols=True,
        ) as self.bar:
            while self.waiting or self.running:
                self._start_what_can()
                failed = sum(what.startswith("failed") for what in self.outcome.values())
                state = f"{len(self.running)} running, {failed} failed"
                if state != shown:  # in a log every refresh is a line
                    self.bar.set_postfix_str(shown := state)
                for ticket, left in self.pool.finished(self.running):
                    self._take_back(self.running.pop(ticket), left)

    def _start_what_can(self) -> None:
        """Start runs while there are free slots; leave out those whose parents have no record."""
        free = self.pool.slots - len(self.running)
        for experiment in list(self.waiting):
            parent: str | None = "finished"
            if experiment.init_from in self.names:
                parent = self.outcome.get(experiment.init_from)
            if parent and not parent.startswith("finished"):
                self.waiting.remove(experiment)
                self._close(
                    experiment, f"left out: its parent {experiment.init_from} has no record"
                )
            elif parent and free > 0:
                self.waiting.remove(experiment)
                self.running[self.pool.start(experiment)] = experiment
                free -= 1

    def _take_back(self, experiment: Experiment, left: dict[str, Any]) -> None:
        """Write down how a run ended; one that failed for the first time waits again."""
        error = _store(experiment, self.directory, left)
        if not error:
            self._close(experiment, "finished")
        elif experiment.name not in self.failed_once:
            self.failed_once.add(experiment.name)
            self.waiting.insert(0, experiment)
            self._tell(experiment, f"failed, is tried once more: {error}")
        else:
            notebook = f"{self.directory / '.failed' / experiment.name}.ipynb"
            self._close(experiment, f"failed: {error} (notebook: {notebook})")

    def _close(self, experiment: Experiment, what: str) -> None:
        """Give a run its outcome."""
        self.outcome[experiment.name] = what
        self.bar.update()
        self._tell(experiment, what)

    def _tell(self, experiment: Experiment, what: str) -> None:
        if not self.pool.shows:
            self.bar.write(f"{experiment.name}  {what}", file=self.output)


def _attempt(
    experiment: Experiment,
    directory: Path,
    environment: dict[str, str],
    output=None,
    cwd: Path | None = None,
) -> dict[str, Any]:
    """Run one experiment; return nothing, or the `error` and its `traceback` if it failed."""
    before = {name: os.environ.get(name) for name in environment}
    try:
        os.environ.update(environment)  # the notebook's kernel takes it over
        run_notebook(experiment, directory, output, cwd)
        return {}
    # Whatever a run dies of, the others go on and the closing table says so.
    except Exception as error:
        return {"error": _last_line(error), "traceback": traceback.format_exc()}
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _store(experiment: Experiment, directory: Path, left: dict[str, Any]) -> str | None:
    """Put what a run left where it belongs: a record that was sent back into the study's folder,
    the remains of a failed run aside; return what went wrong, if anything did.
    """
    aside = directory / ".failed" / experiment.name
    if "record" in left:
        try:
            records.unpack_run(directory / experiment.name, left["record"])
        except (OSError, ValueError) as error:
            left = {"error": _last_line(error), "traceback": traceback.format_exc()}
    if "error" not in left:
        aside.with_suffix(".txt").unlink(missing_ok=True)
        return None
    aside.parent.mkdir(exist_ok=True)
    aside.with_suffix(".txt").write_text(left["traceback"])
    if left.get("notebook"):
        aside.with_suffix(".ipynb").write_bytes(left["notebook"])
    return left["error"]


def _last_line(error: BaseException) -> str:
    if hasattr(error, "ename"):  # papermill's, of a cell that failed
        return f"{error.ename}: {getattr(error, 'evalue', '')}"
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


# --- here, or on a cluster ------------------------------------------------------------------------


@contextmanager
def _pool(
    study: Study, directory: Path, output, workers: int | None, runs: int, scheduler: str | None
) -> Iterator:
    """What runs up to `slots` experiments at a time: `start(experiment)` returns a ticket, and
    `finished(tickets)` waits a little and returns those that are done, each with what it left;
    `shows` says whether runs print as they go.
    """
    threads = max(1, _cores() // workers) if workers else None
    gpus = _gpus() if workers else []
    if workers and threads and min(workers, runs) == 1:
        own_gpu = {"CUDA_VISIBLE_DEVICES": gpus[0]} if workers > 1 and gpus else {}
        yield _Here(directory, output, _shares(threads) | own_gpu)
        return
    import dask
    from distributed import Client, LocalCluster

    with ExitStack() as stack:
        if workers:
            # No limit of memory: what counts is the kernels', which Dask does not see.
            scheduler = stack.enter_context(
                LocalCluster(
                    n_workers=min(workers, runs),
                    threads_per_worker=1,
                    memory_limit=0,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    preload=[__name__, *dask.config.get("distributed.worker.preload")],
                )
            )
        try:
            client = stack.enter_context(Client(scheduler, timeout=30))
        except (OSError, ValueError) as error:
            raise ConnectionError(
                f"scheduler={scheduler!r} does not answer ({_last_line(error)}): start one with"
                " `dask scheduler`, and give the address that it prints."
            ) from error
        print(f"dashboard: {client.dashboard_link}", file=output, flush=True)
        # A worker that finds this file writes its records itself.
        mark = directory / f".client-{uuid.uuid4().hex}"
        stack.callback(mark.unlink, missing_ok=True)
        mark.touch()
        cluster = _Cluster(client, study, mark.absolute(), threads, gpus)
        try:
            yield cluster
        except BaseException:
            cluster.stop()
            raise


class _Here:
    """One run after the other, in this process."""

    slots, shows = 1, True

    def __init__(self, directory: Path, output, environment: dict[str, str]):
        self.directory, self.output, self.environment = directory, output, environment

    def start(self, experiment: Experiment) -> str:
        return experiment.name

    def finished(self, running: dict[str, Experiment]) -> list[tuple[str, dict]]:
        return [
            (name, _attempt(experiment, self.directory, self.environment, self.output))
            for name, experiment in running.items()
        ]


class _Cluster:
    """Runs on the workers of a Dask cluster.

    A run is started when there is a worker for it and its parent's record is in the study's folder,
    from where it is sent along. Dask's own dependencies would keep records in the memory of
    workers, and train a finished parent again when its worker dies.
    """

    shows = False

    def __init__(self, client, study: Study, mark: Path, threads: int | None, gpus: list[str]):
        self.client, self.mark, self.threads, self.gpus = client, mark, threads, gpus
        # Trained weights that a child goes on from travel with the record; others stay where they
        # were made.
        self.needed = {
            child.init_from for child in study.experiments if ARMS[child.arm].needs_weights
        }
        self.keys: set[str] = set()

    @property
    def slots(self) -> int:
        return sum(self.client.nthreads().values())

    def start(self, experiment: Experiment):
        parent = None
        if experiment.init_from:
            places = [self.mark.parent / experiment.init_from, Path(experiment.init_from)]
            found = next((place for place in places if (place / "summary.json").is_file()), None)
            parent = found and records.pack_run(Run(found), ARMS[experiment.arm].needs_weights)
        future = self.client.submit(
            _on_worker,
            experiment,
            self.mark,
            Path.cwd(),
            parent,
            experiment.name in self.needed,
            self.threads,
            self.gpus,
            key=f"{experiment.name}-{uuid.uuid4().hex}",
            pure=False,
        )
        self.keys.add(future.key)
        return future

    def finished(self, running: dict[Any, Experiment]) -> list[tuple[Any, dict]]:
        # The built-in TimeoutError is this one only from Python 3.11 on.
        from distributed import CancelledError, TimeoutError, wait

        if not running:  # no worker yet, or none any more
            time.sleep(1)
            return []
        try:
            done = wait([*running], timeout=1, return_when="FIRST_COMPLETED").done
        except TimeoutError:
            return []
        except CancelledError as error:
            raise ConnectionError(
                "The scheduler is gone, and what it had running with it: start one, and give the"
                " same command; it goes on with what is not finished."
            ) from error
        return [(future, self._result(future)) for future in done]

    @staticmethod
    def _result(future) -> dict:
        try:
            return future.result()
        # The run can't have raised it: its workers died, or the scheduler did.
        except Exception as error:
            return {"error": _last_line(error), "traceback": traceback.format_exc()}
        finally:
            future.release()  # a result that Dask still holds is made again if its worker dies

    def stop(self) -> None:
        """End the kernels of this study's runs; those of other people's runs on the same workers go
        on.
        """
        if self.client.status != "running":  # there is nobody to ask
            return
        busy = [
            worker for worker, keys in self.client.processing().items() if self.keys & set(keys)
        ]
        self.client.run(_stop_kernels, workers=busy, on_error="ignore")


def dask_setup(worker) -> None:
    """What Dask calls in each local worker: Ctrl-C is for the command, which ends the runs in
    order.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _on_worker(
    experiment: Experiment,
    mark: Path,
    cwd: Path,
    parent: dict[str, bytes] | None,
    weights: bool,
    threads: int | None,
    gpus: list[str],
) -> dict[str, Any]:
    """Run an experiment on a Dask worker, in the study's folder where the worker sees it, or else
    in one of its own.

    Args:
        mark: a file in the study's folder on the client's disk.
        cwd: the client's folder, where paths in the experiment start.
        parent: the record of the run it starts from, if it does.
        weights: whether to send trained weights back with the record.
        threads: the run's share of the cores (default: the worker's share of its machine's).
        gpus: the GPUs that the workers share out by their numbers.

    Returns:
        What `_attempt` returns; from a folder of its own also the `record`, or the `notebook` of a
        failed run.
    """
    from distributed import get_worker

    worker = get_worker()
    directory, shared = mark.parent, mark.exists()
    if not shared:
        # Above the folder that goes away with the worker: its successor finds what a run that was
        # cut has left.
        cwd, given = (
            Path(worker.local_directory).parent / "supermask",
            os.path.relpath(directory, cwd),
        )
        directory = cwd / (directory.name if given.startswith("..") else given)
        directory.mkdir(parents=True, exist_ok=True)
        if parent:
            assert experiment.init_from  # it names the run whose record was sent
            name = Path(experiment.init_from).name
            experiment = replace(experiment, init_from=name)
            records.unpack_run(directory / name, parent)
    # To stay: of several threads of this process none may take back what another's kernel is about
    # to be given.
    os.environ.update(_shares(threads or max(1, _cores() // worker.state.nthreads)))
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus[int(worker.name) % len(gpus)]
    # Finished by a worker that died before it could say so?
    finished = (directory / experiment.name / "summary.json").exists()
    left = {} if finished else _attempt(experiment, directory, {}, cwd=cwd)
    if not shared and "error" not in left:
        left["record"] = records.pack_run(Run(directory / experiment.name), weights)
    elif not shared:
        notebook = directory / ".failed" / f"{experiment.name}.ipynb"
        left["notebook"] = notebook.read_bytes() if notebook.is_file() else None
    return left


def _stop_kernels() -> None:
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            if "ipykernel_launcher" in " ".join(child.cmdline()):
                child.terminate()
        except psutil.Error:  # it has just ended
            pass


def _shares(threads: int) -> dict[str, str]:
    """The environment that gives a run so many threads, unless the user has said how many."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    return {name: str(threads) for name in names if name not in os.environ}


def _workers() -> int:
    """How many runs at a time this machine is good for."""
    from distributed.system import MEMORY_LIMIT

    return len(_gpus()) or max(1, min(_cores(), MEMORY_LIMIT // 2**31))


def _cores() -> int:
    """The cores that this process may use: of the machine, its affinity and its container."""
    from dask.system import cpu_count

    return cpu_count()


def _gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name not in ("", "-1")]
    return [str(index) for index, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
